"""Unit and region vectors: what a unit costs, how new ones start, and that hidden is not silent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_cases import N_BINS, make_model, spikes

from neurokern.models import MtM, MtMConfig
from neurokern.models.blocks import rotary_turns, rotate
from neurokern.models.embeddings import TYPICAL_LOG_MEAN, EmbeddedParts, unit_statistics
from neurokern.models.regions import RegionTable


def parts_of(model: MtM, session: str) -> EmbeddedParts:
    parts = model.session_parts(session)
    assert isinstance(parts, EmbeddedParts)
    return parts


# ---- sizes and start ----


def test_modern_model_has_the_published_trunk_and_129_weights_for_a_unit() -> None:
    model = MtM(MtMConfig.modern())
    model.add_session("one", 600, ["CA1"] * 300 + [""] * 300)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count["layers"] == 10_513_920
    assert count["token_network"] == 2 * 128 * 512 + 512
    assert count["output_network"] == 512 * 128 + 128
    assert count["parts"] == 129 * 600 + 512  # vectors, biases and the session's token
    assert count["region_table"] == 2 * 128
    assert model.positions is None
    assert sum(p.numel() for p in model.parameters()) == sum(count.values()) + 4 * 512


def test_modern_model_starts_at_the_mean_rate_of_each_unit() -> None:
    counts = np.random.default_rng(0).poisson([0.1, 1.0, 4.0], (40, N_BINS, 3))
    counts[:, :, 0] = 0
    model = MtM(MtMConfig.modern(n_bins=N_BINS, hidden_size=16, n_heads=2)).eval()
    model.add_session("one", 3, counts=counts)
    rates = model.predict_rates(torch.from_numpy(counts[:5]).float(), "one", "neuron")[0, 0]
    np.testing.assert_allclose(rates[1:], counts.mean((0, 1))[1:], rtol=1e-5)
    assert rates[0].item() == pytest.approx(0.5 / (40 * N_BINS), rel=1e-5)
    model.add_session("without counts", 2)
    assert parts_of(model, "without counts").bias.tolist() == [TYPICAL_LOG_MEAN] * 2


def test_statistics_are_log_mean_and_log_fano_factor() -> None:
    counts = np.random.default_rng(1).poisson(2.0, (130, 5, 2))
    counts[:, :, 1] = np.repeat([[0], [4]], 65, axis=0)
    spikes_of_window = counts.sum(1)
    fano = (spikes_of_window.var(0) * 130 + spikes_of_window.mean(0)) / (spikes_of_window.mean(0) * 131)
    expected = np.log([counts.mean((0, 1)), fano]).T
    np.testing.assert_allclose(unit_statistics(counts), expected, rtol=1e-5)
    assert torch.isfinite(unit_statistics(np.zeros((1, 1, 3)))).all()


# ---- what goes in ----


def test_hidden_is_not_silent_and_what_is_hidden_never_matters() -> None:
    model, counts = make_model("modern"), spikes(2, 5)
    silent = counts.clone()
    silent[..., 2] = 0
    hidden = torch.zeros(1, 1, 5, dtype=torch.bool)
    hidden[..., 2] = True
    as_hidden = model(counts, "five", "neuron", hidden)
    assert not torch.allclose(as_hidden, model(silent, "five", "neuron"))
    for there in (7.0, float("nan")):
        assert torch.equal(as_hidden, model(counts.masked_fill(hidden, there), "five", "neuron", hidden))


@pytest.mark.parametrize("shape", [(1, 1, 5), (1, N_BINS, 1), (2, 1, 5), (2, N_BINS, 5)])
def test_a_mask_gives_the_same_whatever_shape_it_is_written_in(shape: tuple[int, ...]) -> None:
    model, counts = make_model("modern"), spikes(2, 5)
    hidden = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.4
    full = hidden.expand(counts.shape).contiguous()
    compact, written_out = (model(counts, "five", "neuron", mask) for mask in (hidden, full))
    torch.testing.assert_close(compact, written_out, rtol=0, atol=1e-6)


def test_the_order_of_units_does_not_matter() -> None:
    model, counts = make_model("modern"), spikes(2, 5)
    expected = model(counts, "five", "neuron")
    order = torch.tensor([3, 0, 4, 2, 1])
    parts = parts_of(model, "five")
    with torch.no_grad():
        for values in (parts.embedding, parts.bias, parts.region_row):
            values.copy_(values[order].clone())
    got = model(counts[..., order], "five", "neuron")
    torch.testing.assert_close(got, expected[..., order], rtol=0, atol=1e-5)


# ---- sessions and units that come later ----


def test_a_session_added_later_leaves_the_others_bit_for_bit() -> None:
    model, counts = make_model("modern"), spikes(2, 5)
    before = model(counts, "five", "causal")
    for start in ("random", "mean", "nearest"):
        model.add_session(start, 4, ["CA1", "new", "", "VISp"], spikes(9, 4).numpy(), start=start)
        assert torch.equal(before, model(counts, "five", "causal"))
        assert torch.isfinite(model(spikes(1, 4), start, "neuron")).all()


def test_nearest_finds_the_unit_of_the_same_rate_and_region() -> None:
    rates = np.array([0.05, 0.5, 5.0, 0.05, 0.5, 5.0])
    regions = ["CA1"] * 3 + ["VISp"] * 3
    rng = np.random.default_rng(2)
    model = make_model("modern", {})
    model.add_session("known", 6, regions, rng.poisson(rates, (200, N_BINS, 6)))
    order = [5, 0, 4, 2]
    counts = rng.poisson(rates[order], (200, N_BINS, 4))
    model.add_session("new", 4, [regions[unit] for unit in order], counts, start="nearest")
    known, new = parts_of(model, "known"), parts_of(model, "new")
    assert torch.equal(new.embedding, known.embedding[order])
    np.testing.assert_allclose(new.bias.detach().exp(), counts.mean((0, 1)), rtol=1e-5)
    assert torch.equal(new.token, known.token)


def test_mean_takes_the_region_and_for_unknown_regions_all() -> None:
    model = make_model("modern", {})
    model.add_session("known", 4, ["CA1", "CA1", "VISp", ""])
    model.add_session("new", 3, ["CA1", "elsewhere", ""], start="mean")
    known, new = parts_of(model, "known").embedding, parts_of(model, "new").embedding
    torch.testing.assert_close(new[0], known[:2].mean(0))
    torch.testing.assert_close(new[1], known.mean(0))
    torch.testing.assert_close(new[2], known.mean(0))


def test_without_counts_nearest_is_the_mean_and_without_units_random() -> None:
    model = make_model("modern", {})
    model.add_session("first", 4, start="nearest")
    assert parts_of(model, "first").embedding.std() > 0.5
    model.add_session("second", 2, start="nearest")
    mean = parts_of(model, "first").embedding.mean(0)
    torch.testing.assert_close(parts_of(model, "second").embedding, mean.expand(2, -1))


def test_units_added_to_a_session_come_behind_its_own() -> None:
    model = make_model("modern")
    old = parts_of(model, "five").embedding.detach().clone()
    model.requires_grad_(False)
    model.add_units("five", 3, ["CA1", "new", ""], spikes(9, 3).numpy())
    parts = parts_of(model, "five")
    assert parts.n_units == 8
    assert parts.regions == ("CA1", "VISp", "", "CA1", "VISp", "CA1", "new", "")
    assert torch.equal(parts.embedding[:5], old)
    assert not any(p.requires_grad for p in model.parameters())  # frozen weights stay frozen
    assert model.region_names == ("CA1", "VISp", "new")
    assert parts.region_row.tolist() == [1, 2, 0, 1, 2, 1, 3, 0]
    assert model(spikes(1, 8), "five", "neuron").shape == (1, N_BINS, 8)


def test_sessions_with_matrices_cannot_grow_and_say_so() -> None:
    for recipe in ("paper", "small"):
        with pytest.raises(ValueError, match="has matrices for 5 units; add the larger session"):
            make_model(recipe).add_units("five", 1, counts=spikes(9, 1).numpy())


def test_wrong_growth_is_an_error_and_changes_nothing() -> None:
    model = make_model("modern")
    for arguments, message in (
        (("six", 1), "'six' is unknown"),
        (("five", 0), "add_units: n_units must be at least 1"),
        (("five", 2, ["CA1"]), "region for each of 2 units, got 1"),
        (("five", 2, None, np.zeros((3, 4, 1))), r"must have shape \(windows, bins, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            model.add_units(*arguments)
    with pytest.raises(ValueError, match="start must be one of"):
        model.add_units("five", 1, start="best")
    assert parts_of(model, "five").n_units == 5


# ---- regions ----


def test_a_new_region_starts_as_the_unknown_one() -> None:
    table = RegionTable(3, ["CA1"])
    with torch.no_grad():
        table.weight.copy_(torch.arange(6.0).view(2, 3))
    table.requires_grad_(False)
    table.add(["CA1", "VISp", ""])
    assert table.names == ("CA1", "VISp")
    assert table.weight.tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
    assert not table.weight.requires_grad
    assert table.rows(["VISp", "nowhere", "", "CA1"]).tolist() == [2, 0, 0, 1]


def test_regions_that_are_none_or_not_given_are_unknown() -> None:
    model = make_model("modern", {})
    model.add_session("some", 3, ["CA1", None, ""])
    model.add_session("none", 3)
    assert model.session_parts("some").regions == ("CA1", "", "")
    assert model.region_names == ("CA1",)
    assert parts_of(model, "some").region_row.tolist() == [1, 0, 0]
    assert parts_of(model, "none").region_row.tolist() == [0, 0, 0]


def test_units_of_a_region_share_its_vector_over_sessions() -> None:
    model = make_model("modern")
    before = {name: model(spikes(1, n), name, "neuron") for name, n in (("two", 2), ("five", 5))}
    with torch.no_grad():
        model.region_table.weight[1] += 1.0
    for name, n_units in (("two", 2), ("five", 5)):
        assert not torch.allclose(before[name], model(spikes(1, n_units), name, "neuron"))


# ---- rotary positions ----


def test_products_of_turned_vectors_depend_on_differences_of_times() -> None:
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).double()

    def product(now: int, then: int) -> float:
        turned = [rotate(x, rotary_turns(torch.tensor([t]), 8)) for x, t in ((query, now), (key, then))]
        return float((turned[0] * turned[1]).sum())

    assert product(7, 3) == pytest.approx(product(14, 10), rel=1e-5)
    assert product(7, 3) != pytest.approx(product(3, 7), rel=1e-3)
    assert product(0, 0) == pytest.approx(float((query * key).sum()), rel=1e-6)


def test_turns_are_those_of_the_complex_numbers() -> None:
    x = torch.randn(1, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([0, 0, 0, 1, 2])
    pairs = torch.view_as_complex(torch.stack([x[..., :3], x[..., 3:]], -1))
    angle = times[:, None] * 10_000.0 ** (-torch.arange(3) / 3)
    expected = pairs * torch.polar(torch.ones_like(angle), angle)
    got = rotate(x, rotary_turns(times, 6))
    torch.testing.assert_close(got, torch.cat([expected.real, expected.imag], -1))
    assert torch.equal(got[:, :, :3], x[:, :, :3])  # the prefix and the first bin do not turn
