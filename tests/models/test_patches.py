"""The published NDT2 variant: patches of units as tokens, shared by all sessions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from model_cases import N_BINS, make_model, spikes
from torch import nn

from neurokern.models import MtM, MtMConfig
from neurokern.models.blocks import attention_mask
from neurokern.models.patches import PatchParts, cut_patches


def test_ndt2_has_the_published_sizes_and_number_of_parameters() -> None:
    model = MtM(MtMConfig.ndt2(max_patches=6))
    model.add_session("one", 704)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count["layers"] == 10_513_920  # the trunk of the paper's main model
    assert count["token_network"] == (128 * 256 + 256) + (256 * 512 + 512)
    assert count["output_network"] == 512 * 128 + 128
    assert count["patch_positions"] == (6 + 100) * 512 + 2 * 2 * 512  # vectors, and two LayerNorms
    assert count["parts"] == 512  # the session's token: nothing else is its own
    assert model.prompts.shape == (4, 512)
    assert sum(p.numel() for p in model.parameters()) == sum(count.values()) + 4 * 512


def test_ndt2_starts_at_the_defaults_of_torch_and_vectors_of_unit_variance() -> None:
    torch.manual_seed(0)
    model = MtM(MtMConfig.ndt2())
    first, softsign, second = model.token_network
    assert isinstance(softsign, nn.Softsign)
    for layer in (first, second, model.output_network):
        assert layer.weight.std().item() == pytest.approx(layer.in_features**-0.5 / math.sqrt(3), rel=0.05)
    assert model.patch_positions.space.std().item() == pytest.approx(1.0, abs=0.1)
    assert model.patch_positions.time.std().item() == pytest.approx(1.0, abs=0.1)


def test_a_window_makes_a_token_for_each_patch_of_each_bin() -> None:
    model = make_model("ndt2")
    lengths = []
    model.layers[0].register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    for session, n_patches in (("two", 1), ("five", 2), ("eleven", 3)):
        model(spikes(1, model.session_parts(session).n_units), session, "neuron")
        assert lengths.pop() == 2 + N_BINS * n_patches


def test_matches_a_forward_pass_written_out_by_hand() -> None:
    model = make_model("ndt2").double()
    w = {name: p.detach().numpy() for name, p in model.state_dict().items()}
    counts = spikes(2, 5).double()

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return y * w[f"{name}.weight"] + w[f"{name}.bias"]

    tokens, bin_of = [], []
    for time in range(N_BINS):
        for place, units in enumerate((slice(0, 4), slice(4, 5))):
            slots = np.zeros((2, 4))
            slots[:, : units.stop - units.start] = counts[:, time, units].numpy()
            x = linear(slots, "token_network.0")
            x = linear(x / (1 + np.abs(x)), "token_network.2")
            x = x + norm(w["patch_positions.space"][place], "patch_positions.space_norm")
            tokens.append(x + norm(w["patch_positions.time"][time], "patch_positions.time_norm"))
            bin_of.append(time)
    prefix = np.broadcast_to(np.stack([w["parts.1.token"], w["prompts"][1]]), (2, 2, 32))
    x = np.concatenate([prefix, np.stack(tokens, 1)], axis=1)
    seen = np.ones((len(bin_of) + 2,) * 2, dtype=bool)
    seen[2:, 2:] = np.less_equal.outer(bin_of, bin_of).T
    for k in range(3):
        y = linear(norm(x, f"layers.{k}.attention_norm"), f"layers.{k}.attention.qkv")
        query, key, value = y.reshape(2, -1, 3, 4, 8).transpose(2, 0, 3, 1, 4)
        score = np.where(seen, query @ key.swapaxes(-1, -2) / np.sqrt(8), -np.inf)
        weight = np.exp(score - score.max(-1, keepdims=True))
        mixed = (weight / weight.sum(-1, keepdims=True)) @ value
        x = x + linear(mixed.swapaxes(1, 2).reshape(2, -1, 32), f"layers.{k}.attention.out_proj")
        y = linear(norm(x, f"layers.{k}.mlp_norm"), f"layers.{k}.up_proj")
        y = y * (1 + torch.erf(torch.from_numpy(y / math.sqrt(2))).numpy()) / 2
        x = x + linear(y, f"layers.{k}.down_proj")
    expected = linear(norm(x, "norm")[:, 2:], "output_network").reshape(2, N_BINS, 8)[..., :5]
    got = model(counts, "five", "causal").detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)


def test_the_causal_mask_follows_the_bins_of_the_tokens() -> None:
    n_bins, n_patches = 6, 3
    attend = attention_mask(2, n_bins, causal=True, strict=True, tokens_per_bin=n_patches)
    bin_of = [-1, -1] + [time for time in range(n_bins) for _ in range(n_patches)]
    for row, now in enumerate(bin_of):
        assert attend[row].tolist() == [then <= now for then in bin_of]


def test_slots_beyond_the_units_are_zeros_that_take_and_give_nothing() -> None:
    counts = spikes(2, 5).requires_grad_()
    patches = cut_patches(counts, None, 2, 4)
    assert patches.shape == (2, N_BINS, 2, 4)
    assert torch.equal(patches.flatten(2)[..., :5], counts)
    assert not patches.flatten(2)[..., 5:].any()
    model = make_model("ndt2")
    model(counts, "five", "neuron").sum().backward()
    head = model.output_network
    assert head.weight.grad.shape == (4, 32)
    model.zero_grad()
    model(spikes(1, 2), "two", "neuron").sum().backward()  # of one patch, the first two slots
    assert head.weight.grad[:2].any()
    assert not head.weight.grad[2:].any()
    assert not model.token_network[0].weight.grad[:, 2:].any()


def test_a_hidden_count_is_a_zero() -> None:
    model, counts = make_model("ndt2"), spikes(2, 5)
    hidden = torch.zeros(1, 1, 5, dtype=torch.bool)
    hidden[..., 3] = True
    with_nan = counts.masked_fill(hidden, torch.nan)
    expected = model(counts.masked_fill(hidden, 0.0), "five", "neuron")
    assert torch.equal(model(with_nan, "five", "neuron", hidden), expected)


def test_states_of_a_bin_are_the_mean_of_its_patches() -> None:
    model, counts = make_model("ndt2"), spikes(2, 11)
    states = model.embed(counts, "eleven", "neuron")
    assert states.shape == (2, N_BINS, 32)
    mean_of_outputs = model(counts, "eleven", "neuron")
    assert torch.isfinite(mean_of_outputs).all()
    one_patch = model.embed(spikes(2, 2), "two", "neuron")
    expected = model.output_network(one_patch)[..., :2]
    torch.testing.assert_close(expected, model(spikes(2, 2), "two", "neuron"), rtol=0, atol=1e-6)


def test_a_patch_takes_the_region_of_most_of_its_units() -> None:
    model = make_model("ndt2 with regions", {})
    model.add_session("one", 10, ["b", "a", "a", "", "", "", "b", "a", "b", "a"])
    parts = model.session_parts("one")
    assert isinstance(parts, PatchParts)
    assert model.region_names == ("b", "a")
    assert parts.patch_region.tolist() == [2, 0, 1]  # a, unknown, and of two equals the one known longer
    before = model(spikes(1, 10), "one", "neuron")
    with torch.no_grad():
        model.region_table.weight[1] += 1.0
    assert not torch.allclose(before, model(spikes(1, 10), "one", "neuron"))


def test_regions_of_patches_follow_units_that_are_added() -> None:
    model = make_model("ndt2 with regions", {})
    model.add_session("one", 4)
    model.add_units("one", 1)
    assert model(spikes(1, 5), "one", "neuron").shape == (1, N_BINS, 5)
    model.add_units("one", 6, ["a"] * 6)
    assert model.session_parts("one").patch_region.tolist() == [0, 1, 1]
    assert model(spikes(1, 11), "one", "neuron").shape == (1, N_BINS, 11)


def test_units_can_be_added_up_to_the_table_of_patches() -> None:
    model = make_model("ndt2 with regions")
    model.add_units("five", 2, ["x", "x"])
    parts = model.session_parts("five")
    assert (parts.n_units, parts.n_patches) == (7, 2)
    assert parts.regions[-3:] == ("VISp", "x", "x")
    assert model(spikes(1, 7), "five", "neuron").shape == (1, N_BINS, 7)
    with pytest.raises(ValueError, match=r"at most 3 patches of 4, got 13; set MtMConfig\(max_patches"):
        model.add_units("five", 6)
    with pytest.raises(ValueError, match="at most 3 patches of 4, got 13"):
        model.add_session("large", 13)
    assert model.session_parts("five").n_units == 7


def test_windows_share_the_trunk_with_all_of_as_many_patches() -> None:
    from model_cases import batch_of

    model = make_model("ndt2", {"three": 3, "four": 4, "five": 5})
    shapes = []
    model.layers[0].register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    names = ["three", "five", "four", "three"]
    windows = [spikes(1, model.session_parts(name).n_units)[0] for name in names]
    model.forward_batch(batch_of(windows, names), "neuron")
    assert sorted(shapes) == [(1, 2 + 2 * N_BINS, 32), (3, 2 + N_BINS, 32)]  # no token is padding
