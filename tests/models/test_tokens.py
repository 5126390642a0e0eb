"""Event tokens: exactly the spikes of the bins, whichever way they came, and the counts back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from model_cases import batch_of, spikes

from neurokern import bin_spikes
from neurokern.models import SpikeTokens, count_tokens, spike_tokens

shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
small_counts = hnp.arrays(np.uint8, shapes, elements=st.integers(0, 3))


def events_of(tokens: SpikeTokens, row: int) -> list[tuple[int, int]]:
    real = tokens.mask[row]
    return list(zip(tokens.unit[row][real].tolist(), tokens.step[row][real].tolist(), strict=True))


# ---- from counts ----


@given(small_counts)
def test_counts_come_back_from_their_tokens(counts: np.ndarray) -> None:
    tokens = count_tokens(torch.from_numpy(counts))
    np.testing.assert_array_equal(tokens.counts(torch.int64).numpy(), counts)
    assert not tokens.n_dropped.any()
    expected = [
        [(n, t) for t in range(window.shape[0]) for n in range(window.shape[1]) for _ in range(window[t, n])]
        for window in counts
    ]
    assert [events_of(tokens, row) for row in range(len(tokens))] == expected


@given(small_counts)
def test_padding_is_at_the_end_and_has_numbers_of_its_own(counts: np.ndarray) -> None:
    tokens = count_tokens(torch.from_numpy(counts).float())
    lengths = tokens.mask.sum(1)
    assert torch.equal(tokens.mask, torch.arange(tokens.mask.shape[1]) < lengths[:, None])
    assert tokens.mask.shape[1] == lengths.max()
    assert (tokens.unit[~tokens.mask] == tokens.n_units).all()
    assert (tokens.step[~tokens.mask] == tokens.n_steps).all()


def test_columns_beyond_the_units_of_a_window_make_no_tokens() -> None:
    windows = [spikes(1, 2)[0], spikes(1, 5)[0]]
    clean, dirty = (batch_of(windows, ["a", "b"], padding) for padding in (0.0, float("nan")))
    tokens = count_tokens(dirty.counts, dirty.n_units)
    assert torch.equal(tokens.counts(), clean.counts)
    assert torch.equal(tokens.unit, count_tokens(clean.counts).unit)


def test_max_tokens_keeps_the_first_spikes_and_counts_the_others() -> None:
    counts = torch.tensor([[[2, 0], [0, 1]], [[0, 1], [0, 0]]])
    tokens = count_tokens(counts, max_tokens=2)
    assert events_of(tokens, 0) == [(0, 0), (0, 0)]
    assert tokens.n_dropped.tolist() == [1, 0]
    longer = count_tokens(counts, max_tokens=5)
    assert longer.unit.shape == (2, 5)
    assert torch.equal(longer.counts(), counts.float())


def test_windows_without_spikes_are_all_padding() -> None:
    tokens = count_tokens(torch.zeros(2, 3, 4))
    assert tokens.unit.shape == (2, 0)
    assert torch.equal(tokens.counts(), torch.zeros(2, 3, 4))
    assert count_tokens(torch.zeros(0, 3, 4)).counts().shape == (0, 3, 4)


# ---- from spike times ----


@given(
    seed=st.integers(0, 10_000),
    dt=st.sampled_from([0.02, 0.05, 0.1, 0.03]),
    is_sorted=st.booleans(),
    on_a_clock=st.booleans(),
)
def test_steps_are_the_bins_of_bin_spikes(seed: int, dt: float, is_sorted: bool, on_a_clock: bool) -> None:
    rng = np.random.default_rng(seed)
    times = rng.integers(-200, 60_000, 300) / 30_000.0 if on_a_clock else rng.uniform(-0.1, 2.0, 300)
    times[:20] = rng.integers(0, 60, 20) * 0.02  # on the edges
    times[20:23] = (np.nan, np.inf, -np.inf)
    times = np.sort(times) if is_sorted else times
    units = rng.integers(-1, 6, 300)
    starts = np.concatenate([[0.0, 0.5, 0.52, -1.0, 1.9], rng.uniform(-0.2, 2.2, 4)])
    tokens = spike_tokens(times, units, starts, duration=0.3, dt=dt, n_units=5)
    expected = bin_spikes(times, units, dt, 0.3, windows=starts, n_units=5, dtype="int64")
    np.testing.assert_array_equal(tokens.counts(torch.int64).numpy(), expected)


@given(seed=st.integers(0, 10_000), dt=st.sampled_from([1 / 30_000, 0.001, 1 / 60, 0.0105]))
def test_integer_samples_are_stepped_as_bin_spikes_bins_them(seed: int, dt: float) -> None:
    rng = np.random.default_rng(seed)
    times, units = np.sort(rng.integers(0, 3000, 200)), rng.integers(0, 4, 200)
    starts = rng.integers(-50, 3000, 5)
    arguments = {"sfreq": 30_000.0, "n_units": 4}
    tokens = spike_tokens(times, units, starts, duration=12 * dt, dt=dt, **arguments)
    expected = bin_spikes(times, units, dt, 12 * dt, windows=starts, dtype="int64", **arguments)
    np.testing.assert_array_equal(tokens.counts(torch.int64).numpy(), expected)


def test_steps_of_one_sample_give_the_exact_times_back_in_their_order() -> None:
    times, units = np.array([5, 5, 8, 9, 30]), np.array([3, 1, 2, 0, 0])
    starts = np.array([4, 8])
    tokens = spike_tokens(times, units, starts, duration=10 / 30_000, dt=1 / 30_000, n_units=4, sfreq=30_000)
    back = torch.from_numpy(starts)[:, None] + tokens.step
    assert [back[row][tokens.mask[row]].tolist() for row in range(2)] == [[5, 5, 8, 9], [8, 9]]
    assert events_of(tokens, 0) == [(3, 1), (1, 1), (2, 4), (0, 5)]


def test_a_recording_without_spikes_and_no_windows_at_all() -> None:
    nothing = np.zeros(0)
    tokens = spike_tokens(
        nothing, nothing.astype(int), np.array([0.0, 1.0]), duration=0.1, dt=0.05, n_units=2
    )
    assert tokens.counts().tolist() == [[[0.0, 0.0]] * 2] * 2
    empty = spike_tokens(
        np.ones(3), np.zeros(3, int), nothing, duration=0.1, dt=0.05, n_units=2, max_tokens=4
    )
    assert empty.counts().shape == (0, 2, 2)


# ---- past and current windows ----


@given(small_counts, st.data())
def test_parts_of_a_window_hold_the_counts_of_their_steps(counts: np.ndarray, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, counts.shape[1] - 1))
    stop = data.draw(st.integers(first + 1, counts.shape[1]))
    part = count_tokens(torch.from_numpy(counts)).between(first, stop)
    np.testing.assert_array_equal(part.counts(torch.int64).numpy(), counts[:, first:stop])
    lengths = part.mask.sum(1)
    assert torch.equal(part.mask, torch.arange(part.mask.shape[1]) < lengths[:, None])


@pytest.mark.parametrize("steps", [(-1, 2), (2, 2), (1, 4)])
def test_steps_outside_the_window_are_an_error(steps: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="0 <= first < stop <= 3"):
        count_tokens(torch.ones(1, 3, 2)).between(*steps)


# ---- bad input ----


@pytest.mark.parametrize("wrong", [-1.0, 0.5, float("nan"), float("inf")])
def test_counts_that_are_no_counts_are_an_error(wrong: float) -> None:
    with pytest.raises(ValueError, match="must be whole numbers of at least 0"):
        count_tokens(torch.tensor([[[wrong]]]))
    with pytest.raises(ValueError, match=r"shape \(B, T, N\), got \(1, 1\)"):
        count_tokens(torch.tensor([[wrong]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": np.zeros(2, int)}, "must have one length"),
        ({"starts": np.array([[0.0]])}, "starts one dimension"),
        ({"units": np.zeros(3)}, "units integers"),
        ({"times": np.arange(3)}, "with sfreq"),
        ({"sfreq": 100.0}, "with sfreq"),
        ({"starts": np.array([np.nan])}, "starts must be finite"),
        ({"dt": 0.0}, "dt must be a finite number above 0"),
        ({"duration": -1.0}, "duration must be a finite number above 0"),
        ({"n_units": 0}, "n_units must be at least 1"),
        ({"n_units": 2.5}, "n_units must be an integer"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"max_tokens": 2**60}, "GiB"),
        ({"dt": 1e-300}, "fewer than 2"),
        ({"dt": 1e-12}, "longer steps"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, object], message: str) -> None:
    arguments = {
        "times": np.array([0.1, 0.2, 0.3]),
        "units": np.zeros(3, int),
        "starts": np.array([0.0]),
        "duration": 0.5,
        "dt": 0.1,
        "n_units": 2,
    }
    with pytest.raises((ValueError, TypeError), match=message):
        spike_tokens(**{**arguments, **changes})
