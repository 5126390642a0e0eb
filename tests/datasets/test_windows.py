"""Windows around events and sliding ones: inside the recording, and what was dropped is said."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurokern.datasets import SpikeRecording, sliding_windows, trial_windows


def recording_with(events, stop=100.0, **columns):
    trials = pd.DataFrame({"stimOn_times": events, **columns})
    return SpikeRecording.from_arrays([0.5], [0], trials=trials, start=0.0, stop=stop)


def test_windows_surround_the_event():
    windows, trials = trial_windows(recording_with([10.0, 20.0], choice=[1, -1]))
    assert windows.tolist() == [[9.5, 11.5], [19.5, 21.5]]
    assert trials["choice"].tolist() == [1, -1]


def test_windows_beyond_the_recording_are_dropped_with_a_warning():
    recording = recording_with([0.2, 10.0, 99.0], choice=[1, 2, 3])
    with pytest.warns(UserWarning, match="dropped 2 windows that reach beyond the recording, of 3 trials"):
        windows, trials = trial_windows(recording)
    assert windows.tolist() == [[9.5, 11.5]]
    assert trials["choice"].tolist() == [2]
    assert trials.index.tolist() == [1]


def test_trials_without_the_event_are_dropped_with_a_warning():
    with pytest.warns(UserWarning, match="dropped 2 trials without a finite stimOn_times, of 3 trials"):
        windows, _ = trial_windows(recording_with([np.nan, 10.0, np.inf]))
    assert len(windows) == 1


def test_nothing_dropped_means_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trial_windows(recording_with([10.0]))


def test_window_that_touches_both_bounds_is_inside():
    windows, _ = trial_windows(recording_with([0.5], stop=2.0))
    assert windows.tolist() == [[0.0, 2.0]]


def test_unknown_column_lists_the_columns():
    with pytest.raises(
        ValueError, match=r"no column 'goCue_times'; the columns are \['stimOn_times', 'choice'\]"
    ):
        trial_windows(recording_with([1.0], choice=[1]), align="goCue_times")


def test_column_of_words_is_refused():
    with pytest.raises(ValueError, match="does not hold times"):
        trial_windows(recording_with([1.0], side=["left"]), align="side")


def test_recording_without_trials_points_to_sliding_windows():
    with pytest.raises(ValueError, match="has no trials; use sliding_windows"):
        trial_windows(SpikeRecording.from_arrays([0.5], [0]))


@pytest.mark.parametrize(("tmin", "tmax"), [(0.5, 0.5), (1.0, 0.0), (np.nan, 1.0), (0.0, np.inf)])
def test_tmin_must_lie_below_tmax(tmin, tmax):
    with pytest.raises(ValueError, match="tmin must lie below tmax"):
        trial_windows(recording_with([10.0]), tmin=tmin, tmax=tmax)


def test_sliding_windows_tile_the_recording():
    recording = recording_with([], stop=2.0)
    assert sliding_windows(recording, 1.0).tolist() == [[0.0, 1.0], [1.0, 2.0]]
    assert sliding_windows(recording, 1.0, 0.5).tolist() == [[0.0, 1.0], [0.5, 1.5], [1.0, 2.0]]


def test_stride_that_is_no_binary_fraction_loses_no_window():
    assert len(sliding_windows(recording_with([], stop=0.7), 0.1)) == 7


def test_window_longer_than_the_recording_is_refused():
    with pytest.raises(ValueError, match="length 3 s exceeds the recording's 2 s"):
        sliding_windows(recording_with([], stop=2.0), 3.0)


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf])
def test_length_and_stride_must_be_positive(value):
    recording = recording_with([])
    with pytest.raises(ValueError, match="length must be a finite number above 0"):
        sliding_windows(recording, value)
    with pytest.raises(ValueError, match="stride must be a finite number above 0"):
        sliding_windows(recording, 1.0, value)


@given(
    length=st.floats(0.01, 5), stride=st.floats(0.01, 5), start=st.floats(0, 1e4), duration=st.floats(5, 50)
)
def test_sliding_windows_are_inside_equal_and_complete(length, stride, start, duration):
    recording = SpikeRecording.from_arrays([], [], start=start, stop=start + duration)
    windows = sliding_windows(recording, length, stride)
    assert windows[0, 0] == start
    assert windows[-1, 1] <= start + duration + 2e-6
    assert windows[-1, 1] + stride > start + duration - 2e-6
    np.testing.assert_allclose(windows[:, 1] - windows[:, 0], length, atol=1e-9)
    np.testing.assert_allclose(np.diff(windows[:, 0]), stride, atol=1e-9)


@given(st.lists(st.floats(-5, 25) | st.just(float("nan")), max_size=20))
def test_every_trial_is_kept_inside_or_counted_as_dropped(events):
    recording = recording_with(np.array(events, dtype=float), stop=20.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        windows, trials = trial_windows(recording, tmin=-1.0, tmax=1.0)
    expected = [e for e in events if e - 1.0 >= -1e-6 and e + 1.0 <= 20.0 + 1e-6]
    assert trials["stimOn_times"].tolist() == expected
    assert len(windows) == len(expected)
    assert bool(caught) == (len(expected) < len(events))


def test_strides_that_give_more_windows_than_memory_holds_are_refused():
    recording = SpikeRecording.from_arrays([0.1, 9.5], [0, 1])
    for stride in (1e-12, 1e-300):
        with pytest.raises(ValueError, match="sliding_windows: the windows would take"):
            sliding_windows(recording, 1.0, stride)
