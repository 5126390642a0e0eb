"""Recordings to ``temporaldata.Data`` and back: the same times, units, names and trials, also through a file.

With the real package, which the ``test`` extra brings.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurokern.datasets import SpikeRecording, TimeSeries, WindowedRecording
from neurokern.datasets.bridges import from_temporaldata, interval_windows, to_temporaldata
from neurokern.samples import load_sample

temporaldata = pytest.importorskip("temporaldata")


def _recording(seed: int, n_units: int, n_spikes: int, n_trials: int = 3) -> SpikeRecording:
    draw = np.random.default_rng(seed)
    units = pd.DataFrame({"id": np.sort(draw.choice(10_000, n_units, replace=False)),
                          "region": draw.choice(["CA1", "", "VISp"], n_units).astype(object),
                          "depth": draw.normal(size=n_units),
                          "label": draw.integers(0, 2, n_units)})  # fmt: skip
    starts = np.sort(draw.uniform(0, 90, n_trials))
    trials = pd.DataFrame({"start": starts, "end": starts + 1.5,
                           "choice": draw.choice(["left", "right"], n_trials),
                           "stimOn_times": np.where(draw.random(n_trials) < 0.3, np.nan, 1)})  # fmt: skip
    clock = np.cumsum(draw.uniform(0.01, 0.3, 40))
    series = {
        "cursor.vel": TimeSeries(
            times=clock, values=draw.normal(size=(40, 2)), columns=("x", "y"), unit="m/s"
        ),
        "cursor.pos": TimeSeries(times=clock, values=draw.normal(size=(40, 2)).astype(np.float32)),
        "pupil": TimeSeries(times=clock + 0.5, values=np.where(draw.random(40) < 0.2, np.nan, 1.0)),
    }
    return SpikeRecording(
        times=np.sort(draw.uniform(0, 100, n_spikes)),
        units=draw.integers(0, n_units, n_spikes).astype(np.int32),
        unit_table=units,
        session="s 1",
        subject="mouse",
        start=-0.25,
        stop=100.5,
        trials=trials,
        notes=("sorted the spikes",),
        series=series,
    )


def _assert_same(one: SpikeRecording, other: SpikeRecording) -> None:
    np.testing.assert_array_equal(one.times, other.times)
    np.testing.assert_array_equal(one.units, other.units)
    pd.testing.assert_frame_equal(one.unit_table, other.unit_table, check_dtype=False)
    assert (one.session, one.subject, one.start, one.stop) == (
        other.session,
        other.subject,
        other.start,
        other.stop,
    )
    assert one.notes == other.notes
    assert one.trials is not None
    pd.testing.assert_frame_equal(one.trials, other.trials, check_dtype=False, check_column_type=False)
    assert set(one.series) == set(other.series)
    for name, series in one.series.items():
        np.testing.assert_array_equal(series.times, other.series[name].times)
        np.testing.assert_array_equal(series.values, other.series[name].values)
        assert series.values.dtype == other.series[name].values.dtype
        assert (series.columns, series.unit) == (other.series[name].columns, other.series[name].unit)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), n_units=st.integers(1, 6), n_spikes=st.integers(0, 50))
def test_a_recording_comes_back_as_it_was(seed, n_units, n_spikes):
    recording = _recording(seed, n_units, n_spikes)
    _assert_same(recording, from_temporaldata(to_temporaldata(recording)))


def test_a_recording_comes_back_from_a_file_as_it_was(tmp_path):
    recording = _recording(0, 5, 200)
    to_temporaldata(recording).save(tmp_path / "s.h5")
    _assert_same(recording, from_temporaldata(tmp_path / "s.h5"))
    assert temporaldata.Data.load(tmp_path / "s.h5", lazy=False).units.id.dtype.kind == "U"


def test_the_packaged_recording_comes_back_from_a_file(tmp_path):
    recording = load_sample()
    to_temporaldata(recording).save(tmp_path / "sample.h5")
    back = from_temporaldata(tmp_path / "sample.h5")
    np.testing.assert_array_equal(recording.times, back.times)
    np.testing.assert_array_equal(recording.units, back.units)
    pd.testing.assert_frame_equal(recording.unit_table, back.unit_table, check_dtype=False)
    assert (recording.start, recording.stop, recording.notes) == (back.start, back.stop, back.notes)


def test_times_are_shared_and_not_copied():
    recording = _recording(0, 5, 200)
    data = to_temporaldata(recording)
    assert np.shares_memory(data.spikes.timestamps, recording.times)
    back = from_temporaldata(data)
    assert np.shares_memory(back.times, recording.times)


def _theirs(**more):
    interval = temporaldata.Interval
    return temporaldata.Data(
        spikes=temporaldata.IrregularTimeSeries(
            timestamps=np.array([0.5, -0.5, 2.0]), unit_index=np.array([1, 0, 1]), domain=interval(-1.0, 3.0)
        ),
        units=temporaldata.ArrayDict(
            id=np.array(["s/b", "s/a"]), brain_region=np.array(["M1", "PMd"]), snr=np.array([1.0, 2.0])
        ),
        domain=interval(-1.0, 4.0),
        **more,
    )


def test_units_with_names_keep_their_order_and_names():
    recording = from_temporaldata(_theirs())
    assert recording.unit_table["unit_id"].tolist() == ["s/b", "s/a"]
    assert recording.regions.tolist() == ["M1", "PMd"]
    assert to_temporaldata(recording).units.id.tolist() == ["s/b", "s/a"]
    assert (recording.start, recording.stop) == (-1.0, 3.0)  # where spikes were looked for


def test_spikes_before_zero_are_kept_and_counted():
    recording = from_temporaldata(_theirs())
    assert recording.times.tolist() == [-0.5, 0.5, 2.0]
    assert recording.units.tolist() == [0, 1, 1]
    counts = WindowedRecording(recording, np.array([[-1.0, 1.0], [1.0, 3.0]]), 1.0).read([0, 1])
    assert counts.tolist() == [[[1, 0], [0, 1]], [[0, 0], [0, 1]]]


def test_what_has_no_place_is_named():
    data = _theirs(movement=temporaldata.Interval(0.0, 1.0), images=np.zeros((2, 3, 3)))
    data.spikes.waveforms = np.zeros((3, 8))
    with pytest.warns(UserWarning, match=r"images, movement, spikes\.waveforms"):
        recording = from_temporaldata(data)
    assert "movement" in recording.notes[-1]
    with pytest.warns(UserWarning, match="images"):
        assert from_temporaldata(data, trials="movement").trials["end"].tolist() == [1.0]


def test_gaps_of_a_series_are_not_known_and_gaps_of_spikes_are_said():
    gappy = temporaldata.RegularTimeSeries.from_gappy_timeseries(
        [0.0, 0.01, 0.03], sampling_rate=100.0, raw=np.array([1.0, 2.0, 3.0])
    )
    series = from_temporaldata(_theirs(lfp=gappy)).series["lfp.raw"]
    np.testing.assert_array_equal(series.values, [1, 2, np.nan, 3])
    data = _theirs()
    data.spikes.domain = temporaldata.Interval(np.array([-1.0, 1.0]), np.array([0.6, 3.0]))
    with pytest.warns(UserWarning, match="2 parts of the spikes' domain with gaps"):
        from_temporaldata(data)


def test_windows_lie_within_the_parts_of_an_interval():
    parts = temporaldata.Interval(np.array([0.0, 5.0, 9.0]), np.array([2.5, 5.5, 10.0]))
    assert interval_windows(parts, 1.0).tolist() == [[0, 1], [1, 2], [9, 10]]
    assert interval_windows(parts, 1.0, 0.5)[:, 0].tolist() == [0, 0.5, 1, 1.5, 9]
    with pytest.raises(ValueError, match="length"):
        interval_windows(parts, 0)


def test_wrong_files_and_names_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        from_temporaldata(tmp_path / "none.h5")
    (tmp_path / "junk.h5").write_bytes(b"junk")
    with pytest.raises(ValueError, match="no whole file of temporaldata"):
        from_temporaldata(tmp_path / "junk.h5")
    one = TimeSeries.from_arrays([0.0, 1.0], [1.0, 2.0])
    for name in ("spikes", "domain.x", "_hidden"):
        with pytest.raises(ValueError, match="must not be named"):
            to_temporaldata(SpikeRecording.from_arrays([0.5], [0], series={name: one}))
    part = from_temporaldata(_theirs().slice(0.25, 3.0))
    assert part.times.tolist() == [0.25, 1.75]
    assert "a part from 0.25 s of its source" in part.notes[0]


def test_wrong_input_is_named(monkeypatch):
    with pytest.raises(TypeError, match=r"must be a temporaldata\.Data or a path"):
        from_temporaldata([1.0])
    with pytest.raises(ValueError, match="say which with spikes="):
        from_temporaldata(_theirs(), spikes="units")
    data = _theirs()
    data.spikes.unit_index = np.array([5, 0, 1])
    with pytest.raises(ValueError, match="goes up to 5, but units has 2 rows"):
        from_temporaldata(data)
    trials = pd.DataFrame({"choice": [1.0]})
    with pytest.raises(ValueError, match="trial_bounds="):
        to_temporaldata(SpikeRecording.from_arrays([0.1], [0], trials=trials))
    monkeypatch.setitem(sys.modules, "temporaldata", None)
    with pytest.raises(ImportError, match="pip install temporaldata"):
        from_temporaldata(data)
