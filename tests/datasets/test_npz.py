"""Recordings in one .npz: accepted names, tables, saving and loading."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from neurokern.datasets import SpikeRecording, load_npz, load_recording

TIMES = np.array([0.1, 0.2, 0.3])
UNITS = np.array([2, 0, 2])


@pytest.mark.parametrize("times", ["times", "spike_times", "spike_times_s", "spikes.times"])
@pytest.mark.parametrize("units", ["units", "spike_units", "spike_clusters", "spikes.clusters", "clusters"])
def test_usual_names_are_accepted(tmp_path, times, units):
    np.savez(tmp_path / "day1.npz", **{times: TIMES, units: UNITS})
    recording = load_npz(tmp_path / "day1.npz")
    assert recording.times.tolist() == TIMES.tolist()
    assert recording.unit_table["id"].tolist() == [0, 2]
    assert recording.session == "day1"


def test_tables_come_along(tmp_path):
    np.savez(
        tmp_path / "s.npz",
        times=TIMES,
        units=UNITS,
        unit_ids=[0, 1, 2],
        brain_area=["CA1", "DG", "CA1"],
        depths=[1.0, 2.0, 3.0],
        unit_quality=[0.5, 0.6, 0.7],
        trials_choice=[-1, 1],
        trials_stimOn_times=[0.1, np.nan],
        mouse="Cori",
        session="Cori_1",
        temperature=np.zeros(9),
    )
    recording = load_npz(tmp_path / "s.npz")
    assert recording.regions.tolist() == ["CA1", "DG", "CA1"]
    assert recording.unit_table["depth"].tolist() == [1.0, 2.0, 3.0]
    assert recording.unit_table["quality"].tolist() == [0.5, 0.6, 0.7]
    assert recording.trials["choice"].tolist() == [-1, 1]
    assert list(recording.trials.columns) == ["choice", "stimOn_times"]
    assert (recording.session, recording.subject) == ("Cori_1", "Cori")
    assert "left unused: temperature" in recording.notes


def test_list_of_units_beside_the_ids_of_spikes_is_not_taken_for_them(tmp_path):
    np.savez(tmp_path / "s.npz", times=TIMES, spike_units=UNITS, units=[0, 2])
    assert load_npz(tmp_path / "s.npz").unit_table["id"].tolist() == [0, 2]


def test_samples_are_divided_by_the_rate_in_the_file(tmp_path):
    np.savez(tmp_path / "s.npz", times=[30, 60], units=[0, 0], sfreq=30.0)
    assert load_npz(tmp_path / "s.npz").times.tolist() == [1.0, 2.0]


def test_missing_names_list_what_is_there_and_what_is_accepted(tmp_path):
    np.savez(tmp_path / "s.npz", times=TIMES, neurons=UNITS)
    with pytest.raises(
        ValueError, match=r"no unit ids; the file holds \['neurons', 'times'\]; accepted names are units"
    ):
        load_npz(tmp_path / "s.npz")
    np.savez(tmp_path / "s.npz", stamps=TIMES, units=UNITS)
    with pytest.raises(ValueError, match=r"no spike times; the file holds .* accepted names are times"):
        load_npz(tmp_path / "s.npz")


def test_two_arrays_of_times_are_refused(tmp_path):
    np.savez(tmp_path / "s.npz", times=TIMES, spike_times=TIMES, units=UNITS)
    with pytest.raises(ValueError, match=r"more than one array of spike times: \['times', 'spike_times'\]"):
        load_npz(tmp_path / "s.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"regions": ["a"], "depths": [1.0, 2.0]}, "columns of units must have one length"),
        ({"regions": ["a"]}, "the unit table has 1 rows, but 2 unit ids occur"),
        ({"trials_a": [1], "trials_b": [1, 2]}, "columns of trials must have one length"),
        ({"units": [0, 1]}, "3 spike times, but 2 unit ids"),
    ],
)
def test_lengths_that_disagree_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "s.npz", **{"times": TIMES, "units": UNITS, **arrays})
    with pytest.raises(ValueError, match=message):
        load_npz(tmp_path / "s.npz")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file: .*nothing.npz"):
        load_npz(tmp_path / "nothing.npz")


def test_saved_recording_loads_the_same(tmp_path):
    recording = SpikeRecording.from_arrays(
        [0.1, 1 / 3, 2.5],
        [7, 3, 7],
        unit_ids=[3, 5, 7],
        regions=["CA1", "", "DG"],
        depths=[1.0, np.nan, 3.0],
        trials=pd.DataFrame({"stimOn_times": [0.5, np.nan], "choice": [1, -1], "rewarded": [True, False]}),
        session="s",
        subject="m",
        stop=4.0,
    )
    recording.save(tmp_path / "other_name.npz")
    loaded = load_npz(tmp_path / "other_name.npz")
    np.testing.assert_array_equal(loaded.times, recording.times)
    np.testing.assert_array_equal(loaded.units, recording.units)
    assert_frame_equal(loaded.unit_table, recording.unit_table, check_dtype=False)
    assert_frame_equal(loaded.trials, recording.trials)
    for name in ("session", "subject", "start", "stop"):
        assert getattr(loaded, name) == getattr(recording, name)
    assert set(recording.notes) <= set(loaded.notes)


def test_column_of_objects_is_not_saved(tmp_path):
    recording = SpikeRecording.from_arrays([0.1], [0], trials=pd.DataFrame({"odd": [{"a": 1}]}))
    with pytest.raises(ValueError, match="column 'odd' holds neither numbers nor strings"):
        recording.save(tmp_path / "s.npz")
    assert not (tmp_path / "s.npz").exists()


def test_load_recording_picks_by_the_names_in_the_file(tmp_path):
    np.savez(tmp_path / "spikes.npz", times=TIMES, units=UNITS)
    assert isinstance(load_recording(tmp_path / "spikes.npz"), SpikeRecording)
    np.savez(tmp_path / "neither.npz", positions=TIMES)
    with pytest.raises(ValueError, match=r"holds \['positions'\], but neither binned counts"):
        load_recording(tmp_path / "neither.npz")


def test_load_recording_refuses_other_files_and_missing_paths(tmp_path):
    (tmp_path / "notes.txt").write_text("no spikes")
    with pytest.raises(ValueError, match=r"neither a folder of ALF files nor a \.npz or \.nwb file"):
        load_recording(tmp_path / "notes.txt")
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        load_recording(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"times": [1, 2], "sfreq": "fast"}, "sfreq must be one number"),
        ({"times": [1, 2], "sfreq": [1.0, 2.0]}, "sfreq must be one number"),
        ({"times": [1.0, 2.0], "start_s": "early"}, "start_s must be one number"),
        ({"times": [1.0, 2.0], "unit_ids": [1.0, np.nan]}, "ids of the unit table must be whole numbers"),
        ({"times": [1.0, 2.0], "unit_ids": ["a", "b"]}, "ids of the unit table must be integers"),
        ({"times": [1.0, 2.0], "format": "neurokern.spikes/9"}, "a newer neurokern wrote it"),
    ],
)
def test_values_of_a_wrong_kind_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", units=[1, 2], **arrays)
    with pytest.raises(ValueError, match=message):
        load_npz(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"bin_size_s": "narrow"}, "bin_size_s must be one number"),
        ({"brain_area": "VISp"}, "brain_area must hold one name per unit"),
        ({"first_bin_time_s": ["a"] * 4}, "first_bin_time_s must be numbers"),
        ({"format": "neurokern.binned/9"}, "a newer neurokern wrote it"),
    ],
)
def test_values_of_a_wrong_kind_beside_counts_are_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **{"counts": np.ones((4, 3, 2), int), "bin_size_s": 0.1, **arrays})
    with pytest.raises(ValueError, match=message):
        load_recording(tmp_path / "a.npz")


def test_a_folder_to_save_into_must_exist(tmp_path):
    recording = SpikeRecording.from_arrays([0.1], [0])
    with pytest.raises(FileNotFoundError, match="no such folder"):
        recording.save(tmp_path / "none" / "a.npz")


def test_trials_must_be_a_table():
    with pytest.raises(TypeError, match="trials must be a pandas DataFrame"):
        SpikeRecording.from_arrays([0.1], [0], trials=[1, 2])
