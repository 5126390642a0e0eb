"""Recordings from and to pynapple and SpikeInterface: the same times, ids, order and columns.

With the real packages: pynapple is in the ``benchmark`` extra, ``pip install spikeinterface`` brings the
other; tests are skipped where they are absent.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurokern.datasets import SpikeRecording, TimeSeries
from neurokern.datasets.bridges import from_pynapple, from_spikeinterface, to_pynapple, to_spikeinterface


def recording_of(seed: int, n_units: int, n_spikes: int, sfreq: float = 30_000.0) -> SpikeRecording:
    draw = np.random.default_rng(seed)
    ids = np.sort(draw.choice(1000, n_units, replace=False))
    samples = np.sort(draw.integers(0, int(20 * sfreq), n_spikes))
    table = pd.DataFrame({"id": ids, "region": ["CA1", ""][seed % 2], "depth": draw.normal(size=n_units),
                          "label": draw.choice(["good", "mua"], n_units)})  # fmt: skip
    clock = np.cumsum(draw.uniform(0.1, 0.5, 30))
    return SpikeRecording(
        times=samples / sfreq,
        units=draw.integers(0, n_units, n_spikes).astype(np.int32),
        unit_table=table,
        session="recording",
        start=0.0,
        stop=20.0,
        trials=pd.DataFrame({"start": [1.0, 3.25], "end": [2.0, 4.0], "choice": ["left", "right"]}),
        series={
            "wheel": TimeSeries(times=clock, values=draw.normal(size=30)),
            "eye.xy": TimeSeries(times=clock, values=draw.normal(size=(30, 2)), columns=("x", "y")),
        },
    )


def assert_same_spikes(one: SpikeRecording, other: SpikeRecording) -> None:
    order = [np.lexsort((part.units, part.times)) for part in (one, other)]  # ties have no order
    np.testing.assert_array_equal(one.times, other.times)
    np.testing.assert_array_equal(one.units[order[0]], other.units[order[1]])
    pd.testing.assert_frame_equal(one.unit_table, other.unit_table, check_dtype=False)


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), n_units=st.integers(1, 5), n_spikes=st.integers(0, 60))
def test_a_recording_comes_back_from_pynapple(seed, n_units, n_spikes):
    pytest.importorskip("pynapple")
    one = recording_of(seed, n_units, n_spikes)
    other = from_pynapple(to_pynapple(one))
    assert_same_spikes(one, other)
    assert (one.start, one.stop) == (other.start, other.stop)
    pd.testing.assert_frame_equal(one.trials, other.trials, check_dtype=False)
    assert set(one.series) == set(other.series)
    for name, series in one.series.items():
        np.testing.assert_array_equal(series.times, other.series[name].times)
        np.testing.assert_array_equal(series.values, other.series[name].values)
        assert series.columns == other.series[name].columns


def test_pynapple_is_told_what_it_has_no_place_for():
    nap = pytest.importorskip("pynapple")
    one = recording_of(0, 2, 20)
    one.trials["end"] = [3.5, 4.0]  # overlap: pynapple would make one of the two
    with pytest.warns(UserWarning, match=r"trials \(they overlap"):
        parts = to_pynapple(one)
    assert "trials" not in parts
    group = parts["units"].restrict(nap.IntervalSet([0, 5], [1, 6]))
    with pytest.warns(UserWarning, match="2 parts of the time support with gaps"):
        part = from_pynapple(group)
    assert len(part.times) == ((one.times <= 1) | ((one.times >= 5) & (one.times <= 6))).sum()
    with pytest.raises(TypeError, match="must be a TsGroup"):
        from_pynapple({"units": 1})


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), n_units=st.integers(1, 5), n_spikes=st.integers(0, 60),
       sfreq=st.sampled_from([30_000.0, 24_414.0625, 29_999.7]))  # fmt: skip
@pytest.mark.filterwarnings("ignore:to_spikeinterface")
def test_a_recording_comes_back_from_spikeinterface(seed, n_units, n_spikes, sfreq):
    pytest.importorskip("spikeinterface.core")
    one = recording_of(seed, n_units, n_spikes, sfreq)
    sorting = to_spikeinterface(one, sfreq)
    other = from_spikeinterface(sorting, stop=20.0)
    assert_same_spikes(one, other)
    for row, unit in enumerate(sorting.unit_ids):
        train = sorting.get_unit_spike_train(unit, segment_index=0)
        np.testing.assert_array_equal(train / sfreq, one.times[one.units == row])


def test_sortings_with_names_segments_and_other_clocks():
    core = pytest.importorskip("spikeinterface.core")
    samples, labels = [np.array([5, 10]), np.array([20])], [np.array(["b", "a"]), np.array(["a"])]
    sorting = core.NumpySorting.from_samples_and_labels(samples, labels, 1000.0, unit_ids=["b", "a"])
    sorting.set_property("brain_area", np.array(["V1", "V2"]))
    sorting.set_property("waveform", np.zeros((2, 3)))
    with pytest.raises(ValueError, match="give segment="):
        from_spikeinterface(sorting)
    with pytest.warns(UserWarning, match="property waveform"):
        recording = from_spikeinterface(sorting, segment=0)
    assert recording.unit_table["unit_id"].tolist() == ["b", "a"]
    assert recording.regions.tolist() == ["V1", "V2"]
    assert recording.times.tolist() == [0.005, 0.010]
    with pytest.raises(ValueError, match="is 300 Hz the rate"):
        to_spikeinterface(recording, 300.0)
    with pytest.raises(TypeError, match="spikeinterface sorting"):
        from_spikeinterface([1])
    with pytest.warns(UserWarning, match="series, session, start, stop, trials"):
        to_spikeinterface(recording_of(1, 2, 5), 30_000.0)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynapple", None)
    monkeypatch.setitem(sys.modules, "spikeinterface.core", None)
    with pytest.raises(ImportError, match="pip install pynapple"):
        from_pynapple({})
    with pytest.raises(ImportError, match="pip install spikeinterface"):
        from_spikeinterface(None)
