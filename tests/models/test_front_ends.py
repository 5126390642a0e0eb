"""The short calls of the method's skill sheet run on the real model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurokern import bin_spikes
from neurokern.models import MultiTaskMasking, poisson_loss

N_UNITS, N_BINS = 6, 10


@pytest.fixture(scope="module")
def model() -> MultiTaskMasking:
    torch.manual_seed(0)
    return MultiTaskMasking(N_UNITS, 32, 4, n_bins=N_BINS, n_layers=2).eval()


@pytest.fixture(scope="module")
def counts() -> torch.Tensor:
    return torch.poisson(torch.ones(3, N_BINS, N_UNITS), generator=torch.Generator().manual_seed(1))


def test_the_four_calls_follow_one_another() -> None:
    times, clusters = np.sort(np.random.default_rng(0).uniform(0, 4, 500)), np.arange(500) % N_UNITS
    counts = bin_spikes(times, clusters, 0.02, 4.0)
    assert counts.shape == (200, N_UNITS)
    model = MultiTaskMasking(N_UNITS, 32, 4)
    windows = counts.reshape(2, 100, N_UNITS)
    hidden = model.hidden_mask(windows, "neuron", [1, 4])
    log_rates = model(windows, "neuron", [1, 4])
    loss = poisson_loss(log_rates, torch.from_numpy(windows), hidden.expand_as(log_rates), "mean")
    loss.backward()
    assert model.mtm.prompts.grad.any()


def test_it_is_an_mtm_of_the_given_sizes(model: MultiTaskMasking) -> None:
    config = model.mtm.config
    assert (config.hidden_size, config.n_heads, config.mlp_size, config.read_in) == (32, 4, 64, "linear")
    assert model.mtm.sessions == ("session",)
    full = MultiTaskMasking(600)
    assert sum(p.numel() for p in full.mtm.layers.parameters()) == 10_513_920


def test_indices_hide_units_or_bins_and_none_hides_nothing(
    model: MultiTaskMasking, counts: torch.Tensor
) -> None:
    by_unit, by_bin = counts.clone(), counts.clone()
    by_unit[:, :, [1, 4]] = 0
    by_bin[:, 7:] = 0
    indices = {"list": [1, 4], "array": np.array([1, 4]), "tensor": torch.tensor([1, 4])}
    for given in indices.values():
        assert torch.equal(model(counts, "neuron", given), model(by_unit, "neuron"))
    assert torch.equal(model(counts, "causal", range(7, 10)), model(by_bin, "causal", None))
    assert torch.equal(model(counts), model.mtm(counts, "session", "neuron"))
    assert torch.equal(model(counts, "inter-region", []), model(counts, "inter-region"))


def test_masks_say_the_same_as_indices(model: MultiTaskMasking, counts: torch.Tensor) -> None:
    units, bins = torch.zeros(N_UNITS, dtype=torch.bool), torch.zeros(N_BINS, dtype=torch.bool)
    units[[1, 4]], bins[7:] = True, True
    assert torch.equal(model(counts, "neuron", units), model(counts, "neuron", [1, 4]))
    assert torch.equal(model(counts, "causal", bins), model(counts, "causal", [7, 8, 9]))
    for mask in (units.expand(N_BINS, -1), units.expand(3, N_BINS, -1), units[None, None]):
        assert torch.equal(model(counts, "neuron", mask.numpy()), model(counts, "neuron", [1, 4]))


@pytest.mark.parametrize(
    ("mode", "scheme"),
    [
        ("neuron", "neuron"),
        ("neuron_mask", "neuron"),
        ("co-smoothing", "neuron"),
        ("causal", "causal"),
        ("forward_prediction", "causal"),
        ("temporal", "causal"),
        ("intra_region", "intra-region"),
        ("inter_region", "inter-region"),
        ("Region", "inter-region"),
    ],
)
def test_modes_are_schemes_or_words_for_them(
    model: MultiTaskMasking, counts: torch.Tensor, mode: str, scheme: str
) -> None:
    assert torch.equal(model(counts, mode), model.mtm(counts, "session", scheme))


def test_counts_of_any_kind_of_number_are_taken(model: MultiTaskMasking, counts: torch.Tensor) -> None:
    expected = model(counts)
    for other in (counts.numpy().astype(np.uint8), counts.long(), counts.double()):
        assert torch.equal(model(other), expected)


def test_states_are_those_of_the_model(model: MultiTaskMasking, counts: torch.Tensor) -> None:
    assert torch.equal(model.embed(counts), model.mtm.embed(counts, "session", "neuron"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("spatial",), "mode must be one of 'neuron'.*got 'spatial'"),
        (("neuron", [6]), "must number units from 0 to 5, got 6 to 6"),
        (("causal", [-1]), "must number bins from 0 to 9, got -1"),
        (("neuron", [0.5]), "must be integers"),
        (("neuron", [[1, 2]]), "must be integers of shape"),
        (("neuron", torch.ones(5, dtype=torch.bool)), "must broadcast to x"),
        (("neuron", torch.ones(2, 1, 1, 1, dtype=torch.bool)), "must broadcast to x"),
    ],
)
def test_wrong_modes_and_indices_are_named(
    model: MultiTaskMasking, counts: torch.Tensor, arguments: tuple[object, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model(counts, *arguments)


def test_wrong_counts_are_named(model: MultiTaskMasking, counts: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="must have shape"):
        model(counts[0], "neuron", [1])
    with pytest.raises(ValueError, match="must be finite and at least 0"):
        model(-1 - counts)
