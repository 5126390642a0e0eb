"""The published model: sizes, start, masks, dropout, sessions, and what may not leak."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from neurokern.datasets.batch import SpikeBatch
from neurokern.models import SCHEMES, MtM, MtMConfig, poisson_loss
from neurokern.models.blocks import attention_mask

TINY = {
    "n_bins": 12,
    "hidden_size": 32,
    "n_layers": 3,
    "n_heads": 4,
    "mlp_size": 64,
    "stitch_size": 20,
    "embed_size": 40,
}


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def tiny_model(sessions: dict[str, int], *, seed: int = 0, **changes: object) -> MtM:
    torch.manual_seed(seed)
    model = MtM(MtMConfig.paper(**{**TINY, **changes}))
    for session, n_units in sessions.items():
        model.add_session(session, n_units)
    return model.eval()


def spikes(n_windows: int, n_bins: int, n_units: int, generator: torch.Generator) -> torch.Tensor:
    return torch.poisson(torch.full((n_windows, n_bins, n_units), 0.7), generator=generator)


def batch_of(counts: list[torch.Tensor], sessions: list[str], padding: float = 0.0) -> SpikeBatch:
    n_units = [c.shape[1] for c in counts]
    padded = torch.full((len(counts), counts[0].shape[0], max(n_units)), padding)
    for row, c in enumerate(counts):
        padded[row, :, : c.shape[1]] = c
    number = torch.arange(len(counts))
    return SpikeBatch(
        counts=padded,
        n_units=torch.tensor(n_units),
        regions=torch.zeros(len(counts), max(n_units), dtype=torch.int64),
        session=sessions,
        session_index=number,
        window=number,
    )


# ---- the published model ----


def test_paper_model_has_the_published_number_of_parameters() -> None:
    model = MtM(MtMConfig.paper())
    model.add_session("one", 600)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count["layers"] == 10_513_920
    assert count["token_network"] == 668 * 1336 + 1336 + 1336 * 512 + 512
    stitchers = count["parts"] - 512  # without the session's token
    assert stitchers == 1181 * 600 + 668
    # 13.22 M as published at 600 units, with a decoder that never gets a gradient and 40 session tokens
    total = sum(p.numel() for p in model.parameters())
    assert total + (512 * 668 + 668) + 39 * 512 == pytest.approx(13.22e6, abs=5e3)


def test_paper_start_is_the_default_of_torch_scaled_for_depth() -> None:
    torch.manual_seed(0)
    layer = MtM(MtMConfig.paper()).layers[2]
    scale = 0.67 * 5**-0.25
    bound = 512**-0.5  # torch's default: uniform within 1 / sqrt(inputs)
    query, key, value = layer.attention.qkv.weight.chunk(3)
    expected = [
        (query, bound),
        (key, bound),
        (value, bound * scale * math.sqrt(2)),
        (layer.attention.out_proj.weight, bound * scale),
        (layer.up_proj.weight, bound * scale),
        (layer.down_proj.weight, 1024**-0.5 * scale),
        (layer.attention.qkv.bias[None], bound),  # biases are not scaled
    ]
    for weight, largest in expected:
        assert weight.abs().max() <= largest * (1 + 1e-6)
        assert weight.std().item() == pytest.approx(largest / math.sqrt(3), rel=0.05)


def test_paper_read_in_and_read_out_start_at_the_default_of_torch() -> None:
    torch.manual_seed(0)
    model = MtM(MtMConfig.paper())
    model.add_session("one", 600)
    parts = model.session_parts("one")
    first, softsign, second = model.token_network
    assert isinstance(softsign, nn.Softsign)
    for layer in (parts.stitch_in, first, second, parts.stitch_out):
        bound = layer.in_features**-0.5
        for values in (layer.weight, layer.bias):
            assert values.abs().max() <= bound * (1 + 1e-6)
            assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 2 * 5 + 1
    assert all((norm.weight == 1).all() and not norm.bias.any() for norm in norms)


def test_paper_positions_and_tokens_start_at_unit_variance() -> None:
    torch.manual_seed(0)
    model = MtM(MtMConfig.paper())
    model.add_session("one", 8)
    assert model.positions.shape == (100, 512)
    assert model.prompts.shape == (4, 512)
    for tokens in (model.positions, model.prompts, model.session_parts("one").token):
        assert tokens.std().item() == pytest.approx(1.0, abs=0.1)


def test_paper_dropout_sits_in_three_places_of_each_layer_and_on_the_tokens() -> None:
    model = MtM(MtMConfig.paper())
    assert model.input_dropout.p == 0.2
    assert model.output_dropout.p == 0.0
    for layer in model.layers:
        places = [m.p for m in layer.modules() if isinstance(m, nn.Dropout)]
        assert places == [0.4, 0.4]
        assert layer.attention.weight_dropout == 0.4  # the third: inside the attention


@pytest.mark.parametrize("place", ["tokens", "attention weights", "attention output", "network output"])
def test_each_place_of_dropout_acts_in_training_alone(place: str) -> None:
    counts = torch.ones(1, 12, 5)
    model = tiny_model({"one": 5}, input_dropout=0.0, dropout=0.0)
    layer = model.layers[1]
    if place == "attention weights":
        layer.attention.weight_dropout = 0.5
    else:
        at = {
            "tokens": model.input_dropout,
            "attention output": layer.attention.dropout,
            "network output": layer.dropout,
        }
        at[place].p = 0.5
    first, again = (model(counts, "one", "neuron") for _ in range(2))
    assert torch.equal(first, again)
    model.train()
    first, again = (model(counts, "one", "neuron") for _ in range(2))
    assert not torch.allclose(first, again)


def test_matches_a_forward_pass_written_out_by_hand(generator: torch.Generator) -> None:
    model = tiny_model({"one": 5}).double()
    counts = spikes(2, 12, 5, generator).double()
    w = {name: p.detach().numpy() for name, p in model.state_dict().items()}

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return y * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = linear(counts.numpy(), "parts.0.stitch_in")
    x = linear(x, "token_network.0")
    x = linear(x / (1 + np.abs(x)), "token_network.2") + w["positions"]
    prefix = np.stack([w["parts.0.token"], w["prompts"][1]])
    x = np.concatenate([np.broadcast_to(prefix, (2, 2, 32)), x], axis=1)
    seen = np.ones((14, 14), dtype=bool)
    seen[2:, 2:] = np.tril(np.ones((12, 12), dtype=bool))
    for k in range(3):
        y = linear(norm(x, f"layers.{k}.attention_norm"), f"layers.{k}.attention.qkv").reshape(2, 14, 3, 4, 8)
        query, key, value = y.transpose(2, 0, 3, 1, 4)
        score = np.where(seen, query @ key.swapaxes(-1, -2) / np.sqrt(8), -np.inf)
        weight = np.exp(score - score.max(-1, keepdims=True))
        mixed = (weight / weight.sum(-1, keepdims=True)) @ value
        x = x + linear(mixed.swapaxes(1, 2).reshape(2, 14, 32), f"layers.{k}.attention.out_proj")
        y = linear(norm(x, f"layers.{k}.mlp_norm"), f"layers.{k}.up_proj")
        y = y * (1 + torch.erf(torch.from_numpy(y / math.sqrt(2))).numpy()) / 2
        x = x + linear(y, f"layers.{k}.down_proj")
    expected = linear(norm(x, "norm")[:, 2:], "parts.0.stitch_out")
    got = model(counts, "one", "causal").detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)


def test_every_parameter_gets_a_gradient_from_some_scheme(generator: torch.Generator) -> None:
    model = tiny_model({"one": 5, "two": 3})
    batch = batch_of([spikes(1, 12, n, generator)[0] for n in (5, 3)], ["one", "two"])
    for scheme in SCHEMES:
        poisson_loss(model.forward_batch(batch, scheme), batch.counts).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == []


# ---- attention ----


def test_attention_mask_of_two_prefix_tokens_and_three_bins() -> None:
    assert attention_mask(2, 3, causal=False, strict=True) is None
    published = attention_mask(2, 3, causal=True, strict=False)
    assert published.int().tolist() == [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]
    strict = attention_mask(2, 3, causal=True, strict=True)
    assert strict.int().tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], *published.int().tolist()[2:]]


def change_of_the_past(model: MtM, scheme: str, generator: torch.Generator) -> float:
    """Return how far the outputs of bins 0 to 6 move when the counts from bin 7 on change."""
    counts = spikes(2, 12, 5, generator)
    other = counts.clone()
    other[:, 7:] += 3
    with torch.no_grad():
        moved = model(counts, "one", scheme) - model(other, "one", scheme)
    return float(moved[:, :7].abs().max())


def test_strict_causal_does_not_let_the_future_into_the_past(generator: torch.Generator) -> None:
    model = tiny_model({"one": 5}, strict_causal=True)
    assert change_of_the_past(model, "causal", generator) == 0.0


def test_published_causal_mask_leaks_through_the_prefix_tokens(generator: torch.Generator) -> None:
    leaking = tiny_model({"one": 5}, strict_causal=False)
    assert change_of_the_past(leaking, "causal", generator) > 1e-6
    single_layer = tiny_model({"one": 5}, strict_causal=False, n_layers=1)  # the prefix is read a layer later
    assert change_of_the_past(single_layer, "causal", generator) == 0.0


def test_only_the_causal_scheme_looks_back_only(generator: torch.Generator) -> None:
    model = tiny_model({"one": 5}, strict_causal=True)
    for scheme in ("neuron", "inter-region", "intra-region"):
        assert change_of_the_past(model, scheme, generator) > 1e-6


# ---- sessions and batches ----


def test_sessions_of_equal_size_do_not_share_weights() -> None:
    model = tiny_model({"one": 5, "two": 5})
    counts = torch.ones(1, 12, 5)
    assert not torch.allclose(model(counts, "one", "neuron"), model(counts, "two", "neuron"))
    assert model.session_parts("one").stitch_in.weight is not model.session_parts("two").stitch_in.weight


def test_a_session_can_be_added_to_a_trained_model_without_touching_the_others() -> None:
    model = tiny_model({"one": 5})
    counts = torch.ones(1, 12, 5)
    before = model(counts, "one", "neuron")
    model.add_session("mouse.2/2024-07-14", 9, regions=["CA1"] * 9)
    assert model.sessions == ("one", "mouse.2/2024-07-14")
    assert model.session_parts("mouse.2/2024-07-14").regions == ("CA1",) * 9
    assert torch.equal(before, model(counts, "one", "neuron"))
    assert model(torch.ones(1, 12, 9), "mouse.2/2024-07-14", "neuron").shape == (1, 12, 9)


def test_a_removed_session_is_unknown_and_the_others_keep_their_parts() -> None:
    model = tiny_model({"one": 5, "two": 5, "three": 5})
    counts = torch.ones(1, 12, 5)
    before = [model(counts, name, "neuron") for name in ("one", "three")]
    model.remove_session("two")
    assert model.sessions == ("one", "three")
    assert all(map(torch.equal, before, (model(counts, name, "neuron") for name in ("one", "three"))))
    with pytest.raises(ValueError, match="'two' is unknown"):
        model.remove_session("two")


def test_without_session_tokens_all_sessions_share_one() -> None:
    model = tiny_model({"one": 5, "two": 5}, session_tokens=False)
    assert model.session_parts("one").token is None
    model(torch.ones(1, 12, 5), "two", "neuron").sum().backward()
    assert model.common_token.grad is not None


def test_new_session_takes_the_type_of_the_model() -> None:
    model = tiny_model({}).double()
    model.add_session("one", 4)
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_windows_of_several_sessions_give_what_each_gives_alone(generator: torch.Generator) -> None:
    model = tiny_model({"one": 5, "two": 3})
    windows = [spikes(1, 12, n, generator)[0] for n in (3, 5, 3)]
    names = ["two", "one", "two"]
    together = model.forward_batch(batch_of(windows, names), "causal")
    assert together.shape == (3, 12, 5)
    for row, (window, name) in enumerate(zip(windows, names, strict=True)):
        alone = model(window[None], name, "causal")[0]
        torch.testing.assert_close(together[row, :, : window.shape[1]], alone, rtol=0, atol=1e-5)
    assert not together[0, :, 3:].any()


def test_what_the_padding_holds_never_matters(generator: torch.Generator) -> None:
    model = tiny_model({"one": 5, "two": 3})
    windows = [spikes(1, 12, n, generator)[0] for n in (3, 5)]
    clean, dirty = (
        model.forward_batch(batch_of(windows, ["two", "one"], padding), "neuron")
        for padding in (0.0, float("nan"))
    )
    assert torch.equal(clean, dirty)


def test_windows_shorter_than_the_table_of_positions_are_accepted() -> None:
    model = tiny_model({"one": 5})
    assert model(torch.zeros(2, 4, 5), "one", "neuron").shape == (2, 4, 5)


def test_embed_gives_the_states_that_the_read_out_sees(generator: torch.Generator) -> None:
    model = tiny_model({"one": 5})
    counts = spikes(2, 12, 5, generator)
    states = model.embed(counts, "one", "neuron")
    assert states.shape == (2, 12, 32)
    torch.testing.assert_close(
        model.session_parts("one").stitch_out(states), model(counts, "one", "neuron"), rtol=0, atol=1e-6
    )


def test_predict_rates_has_no_dropout_and_leaves_the_training_mode() -> None:
    model = tiny_model({"one": 5}).train()
    counts = torch.ones(1, 12, 5)
    rates = model.predict_rates(counts, "one", "neuron")
    assert torch.equal(rates, model.predict_rates(counts, "one", "neuron"))
    assert model.training
    assert rates.requires_grad is False
    assert torch.equal(rates, model.eval()(counts, "one", "neuron").exp())


def test_input_is_not_written_to(generator: torch.Generator) -> None:
    for config in (MtMConfig.paper(**TINY), MtMConfig.small(n_bins=12)):
        model = MtM(config)
        counts = spikes(4, 12, 5, generator)
        model.add_session("one", 5, counts=counts.numpy().astype(np.uint8))
        before = counts.clone()
        hidden = torch.zeros(4, 1, 5, dtype=torch.bool)
        hidden[:, :, 2] = True
        model(counts, "one", "neuron", hidden)
        assert torch.equal(counts, before)


def test_hidden_units_do_not_reach_the_prediction_of_the_small_model(generator: torch.Generator) -> None:
    counts = spikes(4, 12, 5, generator)
    model = MtM(MtMConfig.small(n_bins=12, stitch_size=4)).eval()
    model.add_session("one", 5, counts=counts.numpy().astype(np.uint8))
    hidden = torch.zeros(1, 1, 5, dtype=torch.bool)
    hidden[:, :, 2] = True
    other = counts.clone()
    other[:, :, 2] = 9
    got, again = (model(x, "one", "neuron", hidden) for x in (counts, other))
    assert torch.equal(got, again)
    assert not torch.allclose(got, model(counts, "one", "neuron"))


def test_small_model_starts_at_the_mean_rate_of_each_unit(generator: torch.Generator) -> None:
    counts = torch.poisson(torch.tensor([0.1, 1.0, 4.0]).expand(60, 12, 3), generator=generator)
    counts[:, :, 0] = 0  # a unit that is silent in training keeps a small, finite rate
    model = MtM(MtMConfig.small(n_bins=12))
    model.add_session("one", 3, counts=counts.numpy().astype(np.uint8))
    rates = model.predict_rates(counts, "one", "neuron").mean(dim=(0, 1))
    torch.testing.assert_close(rates[1:], counts.mean(dim=(0, 1))[1:], rtol=0.15, atol=0)
    assert 0 < rates[0] < 2 / (60 * 12)


# ---- bad input ----


def test_unknown_session_names_the_known_ones_and_the_remedy() -> None:
    model = tiny_model({"monday": 5})
    with pytest.raises(ValueError, match=r"'tuesday' is unknown \(known: 'monday'\).*add_session"):
        model(torch.zeros(1, 12, 5), "tuesday", "neuron")


def test_unknown_scheme_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"scheme must be one of 'neuron', 'causal'.*got 'temporal'"):
        tiny_model({"one": 5})(torch.zeros(1, 12, 5), "one", "temporal")


@pytest.mark.parametrize("shape", [(1, 12, 4), (12, 5), (1, 13, 5), (1, 0, 5)])
def test_counts_of_the_wrong_shape_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must have shape"):
        tiny_model({"one": 5})(torch.zeros(shape), "one", "neuron")


def test_integer_counts_are_a_type_error_with_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"counts\.float\(\)"):
        tiny_model({"one": 5})(torch.zeros(1, 12, 5, dtype=torch.int32), "one", "neuron")


def test_adding_a_session_twice_or_with_wrong_sizes_is_an_error() -> None:
    model = tiny_model({"one": 5})
    with pytest.raises(ValueError, match="already known"):
        model.add_session("one", 5)
    with pytest.raises(ValueError, match="n_units must be at least 1"):
        model.add_session("two", 0)
    with pytest.raises(ValueError, match="region for each of 3 units, got 2"):
        model.add_session("two", 3, regions=["CA1", "CA3"])
    with pytest.raises(ValueError, match=r"must have shape \(windows, bins, 3\)"):
        model.add_session("two", 3, counts=np.zeros((4, 12, 5)))
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="must be finite and at least 0"):
            model.add_session("two", 3, counts=np.full((4, 12, 3), wrong))
    assert model.sessions == ("one",)


def test_small_model_without_counts_says_what_to_pass() -> None:
    with pytest.raises(ValueError, match="pass counts="):
        MtM(MtMConfig.small()).add_session("one", 5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden_size": 30, "n_heads": 4}, "multiple of n_heads"),
        ({"n_layers": 0}, "n_layers must be at least 1"),
        ({"dropout": 1.5}, r"dropout must lie in \[0, 1\]"),
        ({"schemes": ()}, "at least one"),
        ({"evidence": (1.0, 2.0)}, "evidence must have a number above 0 for each of"),
        ({"read_in": "log"}, "read_in must be one of"),
        ({"half_life": 0.0}, "half_life must be a finite number above 0"),
    ],
)
def test_wrong_configuration_names_the_field(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MtMConfig(**wrong)


@pytest.mark.parametrize("config", [MtMConfig.paper(), MtMConfig.small(n_bins=20, schemes=("temporal",))])
def test_configuration_survives_json(config: MtMConfig) -> None:
    import json

    assert MtMConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_setting_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"unknown settings \['n_layer'\]"):
        MtMConfig.from_dict({"n_layer": 3})


def test_counts_of_a_session_may_be_a_tensor() -> None:
    counts = torch.poisson(torch.ones(30, 10, 6))
    models = [MtM(MtMConfig.small(n_bins=10)) for _ in range(2)]
    for model, values in zip(models, (counts, counts.numpy()), strict=True):
        torch.manual_seed(0)
        model.add_session("a", 6, counts=values)
    first, second = (dict(model.session_parts("a").named_parameters()) for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
