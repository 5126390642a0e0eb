"""Quality of units by its definition, series of behavior by theirs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurokern.datasets import SpikeRecording, TimeSeries, select_good_units, unit_quality


def test_measures_are_those_of_a_loop_over_units():
    random = np.random.default_rng(0)
    times, units = random.uniform(0, 300, 4000), random.integers(0, 6, 4000)
    units[units == 5] = 4
    times[units == 3] /= 10
    recording = SpikeRecording.from_arrays(times, units, unit_ids=range(6), start=0, stop=300)
    found = unit_quality(recording, refractory=0.01)
    for unit in range(6):
        train = np.sort(times[units == unit])
        assert found["rate"][unit] == pytest.approx(len(train) / 300)
        present = np.histogram(train, np.arange(0, 301, 60))[0] > 0
        assert found["presence_ratio"][unit] == pytest.approx(present.mean())
        if len(train) > 1:
            assert found["isi_violations"][unit] == pytest.approx((np.diff(train) < 0.01).mean())
    assert np.isnan(found["isi_violations"][5])


def test_filters_are_steps_that_the_notes_tell():
    times = np.concatenate([np.arange(0, 100, 0.1), np.arange(0, 100, 0.001), [50.0]])
    units = np.repeat([0, 1, 2], [1000, 100_000, 1])
    recording = SpikeRecording.from_arrays(times, units, start=0, stop=100)
    recording.unit_table["group"] = ["good", "good", "mua"]
    good = select_good_units(
        recording, min_rate=1.0, max_isi_violations=0.01, min_presence=0.5, labels="good"
    )
    assert good.unit_table["id"].tolist() == [0]
    assert good.notes[1:] == (
        "quality: 2 of 3 units have rate of at least 1 Hz",
        "quality: 1 of 2 units have at most 0.01 of intervals below 2 ms",
        "quality: 1 of 1 units have spikes in at least 0.5 of stretches of 60 s",
        "quality: 1 of 1 units have group in good",
    )
    with pytest.raises(ValueError, match="no unit is left; quality: 0 of 3 units have rate"):
        select_good_units(recording, min_rate=1e6)
    with pytest.raises(ValueError, match="label_column must be a column"):
        select_good_units(recording, labels="good", label_column="verdict")
    with pytest.raises(ValueError, match="must lie in"):
        select_good_units(recording, min_presence=2)


def test_a_series_is_known_between_samples_but_not_in_gaps_or_beyond():
    series = TimeSeries.from_arrays([0, 1, 2, 3, 20, 21], [0, 10, 20, np.nan, 0, 5])
    values, valid = series.at([-1, 0, 0.5, 2, 2.5, 3, 10, 20, 20.5, 21, 22, np.nan])
    assert valid.tolist() == [False, True, True, True, False, False, False, True, True, True, False, False]
    np.testing.assert_allclose(values[valid], [0, 5, 20, 0, 2.5, 5])
    assert np.isnan(values[~valid]).all()
    windows, known = series.in_windows(np.array([[0.0, 2.0], [20.0, 22.0]]), 0.5)
    np.testing.assert_allclose(windows[0], [2.5, 7.5, 12.5, 17.5])
    assert known.tolist() == [[True] * 4, [True, True, False, False]]


def test_series_that_contradict_themselves_are_errors():
    with pytest.raises(ValueError, match="2 times for values"):
        TimeSeries.from_arrays([0, 1], [1, 2, 3])
    with pytest.raises(ValueError, match="ascending and finite"):
        TimeSeries(times=np.array([1.0, 0.0]), values=np.zeros(2))
    with pytest.raises(ValueError, match="1 columns for values"):
        TimeSeries.from_arrays([0, 1], np.zeros((2, 2)), columns=("x",))


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30, unique=True), st.data())
def test_inside_its_samples_a_series_is_numpys_interpolation(times, data):
    clock = np.sort(times)
    if (np.diff(clock) < 1e-6).any():
        return
    values = np.random.default_rng(0).normal(size=len(clock))
    at = np.array(data.draw(st.lists(st.floats(clock[0], clock[-1]), min_size=1, max_size=10)))
    found, valid = TimeSeries.from_arrays(clock, values).at(at, max_gap=1e9)
    assert valid.all()
    np.testing.assert_allclose(found, np.interp(at, clock, values), rtol=1e-6, atol=1e-9)
