"""ALF folders: IBL's names and places, what is optional, and damaged files."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from neurokern.datasets import bin_windows, load_alf, load_recording

SPIKES = {"spikes.times": [0.1, 0.2, 0.3], "spikes.clusters": [2, 0, 2]}


def test_spikes_alone_are_enough(alf_folder):
    recording = load_alf(alf_folder(SPIKES))
    assert recording.times.tolist() == [0.1, 0.2, 0.3]
    assert recording.unit_table["id"].tolist() == [0, 2]
    assert recording.trials is None


def test_load_recording_takes_a_folder(alf_folder):
    assert load_recording(alf_folder(SPIKES)).n_spikes == 3


@pytest.mark.parametrize(
    "names",
    [
        ("_ibl_spikes.times", "_ibl_spikes.clusters"),
        (
            "spikes.times.6b6f1c44-5ad7-4a6d-9ec4-a1c0c7f3b0a8",
            "spikes.clusters.a6d0a3b1-0000-4a6d-9ec4-a1c0c7f3b0a8",
        ),
    ],
)
def test_namespaces_and_uuids_in_names_are_understood(alf_folder, names):
    recording = load_alf(alf_folder(dict(zip(names, SPIKES.values(), strict=True))))
    assert recording.n_spikes == 3


def test_similar_names_are_not_taken_for_spikes(alf_folder):
    folder = alf_folder({**SPIKES, "_phy_spikes_subset.times": [9.0], "spikes.amps": [1.0, 2.0, 3.0]})
    assert load_alf(folder).times.tolist() == [0.1, 0.2, 0.3]


def test_two_files_for_one_attribute_are_refused(alf_folder):
    folder = alf_folder({**SPIKES, "spikes.times.0123": [0.1, 0.2, 0.3]})
    with pytest.raises(ValueError, match=r"several files hold spikes.times"):
        load_alf(folder)


def test_one_column_attributes_of_clusters_become_columns(alf_folder):
    clusters = {
        "clusters.depths": [10.0, 20.0, 30.0],
        "clusters.acronym": ["CA1", "DG", "CA1"],
        "clusters.amps": [[1.0], [2.0], [3.0]],  # a column, as Matlab writes it
        "clusters.mlapdv": np.arange(9.0).reshape(3, 3),
        "clusters.waveforms": np.zeros((3, 82, 4)),
    }
    recording = load_alf(alf_folder({**SPIKES, **clusters}))
    table = recording.unit_table
    assert table["depth"].tolist() == [10.0, 20.0, 30.0]
    assert recording.regions.tolist() == ["CA1", "DG", "CA1"]
    assert table["amps"].tolist() == [1.0, 2.0, 3.0]
    assert table["mlapdv_2"].tolist() == [2.0, 5.0, 8.0]
    assert "waveforms" not in table


def test_units_that_never_fire_are_kept_with_their_row(alf_folder):
    recording = load_alf(alf_folder({**SPIKES, "clusters.depths": [1.0, 2.0, 3.0, 4.0]}))
    assert recording.n_units == 4
    assert recording.rates.tolist() == [1.0, 0.0, 2.0, 0.0]
    assert any("2 of 4 units never fire" in note for note in recording.notes)


def test_ids_of_clusters_say_which_row_is_whose(alf_folder):
    recording = load_alf(alf_folder({**SPIKES, "clusters.ids": [2, 0], "clusters.depths": [20.0, 0.0]}))
    assert recording.unit_table["id"].tolist() == [0, 2]
    assert recording.unit_table["depth"].tolist() == [0.0, 20.0]


def test_regions_and_depths_come_from_channels_if_clusters_have_none(alf_folder):
    arrays = {
        "clusters.channels": [1, 0, 1],
        "channels.localCoordinates": [[43.0, 20.0], [11.0, 40.0]],
        "channels.brainLocationIds_ccf_2017": [382, -997],
    }
    recording = load_alf(alf_folder({**SPIKES, **arrays}))
    assert recording.regions.tolist() == ["-997", "382", "-997"]
    assert recording.unit_table["depth"].tolist() == [40.0, 20.0, 40.0]
    assert any("atlas ids of brainLocationIds_ccf_2017" in note for note in recording.notes)


def test_channel_without_a_row_is_refused(alf_folder):
    folder = alf_folder({**SPIKES, "clusters.channels": [0, 1, 7], "channels.acronym": ["a", "b"]})
    with pytest.raises(ValueError, match=r"rows of channels.* \(0 to 1\), got 0 to 7"):
        load_alf(folder)


def test_metrics_join_the_units_by_id(alf_folder):
    folder = alf_folder({**SPIKES, "clusters.depths": [1.0, 2.0, 3.0]})
    pd.DataFrame({"cluster_id": [2, 0], "label": [1.0, 0.5]}).to_csv(
        folder / "clusters.metrics.csv", index=False
    )
    recording = load_alf(folder)
    np.testing.assert_array_equal(recording.unit_table["label"], [0.5, np.nan, 1.0])
    assert recording.select_units(query="label == 1").unit_table["id"].tolist() == [2]


def test_metrics_alone_add_units_but_do_not_forbid_any(alf_folder):
    folder = alf_folder(SPIKES)
    pd.DataFrame({"cluster_id": [2, 5], "label": [1.0, 0.5]}).to_csv(
        folder / "clusters.metrics.csv", index=False
    )
    assert load_alf(folder).unit_table["id"].tolist() == [0, 2, 5]


def test_metrics_in_parquet_are_read(alf_folder):
    pytest.importorskip("pyarrow")
    folder = alf_folder({**SPIKES, "clusters.depths": [1.0, 2.0, 3.0]})
    pd.DataFrame({"cluster_id": [0, 1, 2], "label": [1.0, 0.5, 0.0]}).to_parquet(
        folder / "clusters.metrics.pqt"
    )
    assert load_alf(folder).unit_table["label"].tolist() == [1.0, 0.5, 0.0]


def test_trials_beside_the_spikes_become_a_table(alf_folder):
    trials = {
        "_ibl_trials.stimOn_times": [1.0, np.nan],
        "_ibl_trials.choice": [-1, 1],
        "trials.intervals": [[0.0, 2.0], [2.0, 4.0]],
    }
    recording = load_alf(alf_folder({**SPIKES, **trials}))
    assert sorted(recording.trials.columns) == ["choice", "intervals_0", "intervals_1", "stimOn_times"]
    assert recording.trials["choice"].tolist() == [-1, 1]
    assert recording.trials["intervals_1"].tolist() == [2.0, 4.0]


def test_trials_table_is_read(alf_folder):
    pytest.importorskip("pyarrow")
    folder = alf_folder({**SPIKES, "_ibl_trials.choice": [-1, 1]})
    pd.DataFrame({"stimOn_times": [1.0, 2.0]}).to_parquet(folder / "_ibl_trials.table.pqt")
    assert load_alf(folder).trials.to_dict("list") == {"stimOn_times": [1.0, 2.0], "choice": [-1, 1]}


def test_trials_table_without_a_parquet_reader_is_left_out_with_a_warning(alf_folder, monkeypatch):
    def no_reader(path):
        raise ImportError("no pyarrow")

    folder = alf_folder(SPIKES)
    (folder / "_ibl_trials.table.pqt").write_bytes(b"PAR1")
    monkeypatch.setattr(pd, "read_parquet", no_reader)
    with pytest.warns(UserWarning, match="pip install pyarrow"):
        assert load_alf(folder).trials is None


def test_session_folder_of_ibl_is_understood(alf_folder):
    session = "lab/Subjects/KS014/2019-12-03/1"
    alf_folder(SPIKES, f"{session}/alf/probe00/pykilosort")
    root = alf_folder({"_ibl_trials.stimOn_times": [0.2]}, f"{session}/alf")
    for start in (session, f"{session}/alf", f"{session}/alf/probe00", f"{session}/alf/probe00/pykilosort"):
        recording = load_alf(root / start)
        assert recording.n_spikes == 3
        assert recording.trials["stimOn_times"].tolist() == [0.2]
        assert (recording.session, recording.subject) == ("KS014_2019-12-03_001", "KS014")


@pytest.mark.parametrize("below", ["mouse1", "mouse1/alf", "mouse1/alf/probe00", "mouse1/probe00/pykilosort"])
def test_session_outside_of_ibl_is_named_by_its_folder(alf_folder, below):
    recording = load_alf(alf_folder(SPIKES, below) / below)
    assert (recording.session, recording.subject) == ("mouse1", None)


def test_names_given_win_over_the_path(alf_folder):
    recording = load_alf(alf_folder(SPIKES), session="s", subject="m")
    assert (recording.session, recording.subject) == ("s", "m")


def test_trials_of_a_task_folder_are_found(alf_folder):
    alf_folder(SPIKES, "session/alf/probe00")
    root = alf_folder({"_ibl_trials.choice": [1]}, "session/alf/task_00")
    assert load_alf(root / "session").trials["choice"].tolist() == [1]


def test_trials_of_several_tasks_are_left_out_with_a_warning(alf_folder):
    alf_folder(SPIKES, "session/alf/probe00")
    alf_folder({"_ibl_trials.choice": [1]}, "session/alf/task_00")
    root = alf_folder({"_ibl_trials.choice": [1]}, "session/alf/task_01")
    with pytest.warns(UserWarning, match="several folders"):
        assert load_alf(root / "session").trials is None


def test_probes_are_merged_in_time_with_distinct_ids(alf_folder):
    alf_folder({**SPIKES, "clusters.acronym": ["a", "b", "c"]}, "s/alf/probe00")
    second = {"spikes.times": [0.05, 0.25], "spikes.clusters": [1, 0], "clusters.acronym": ["d", "e"]}
    recording = load_alf(alf_folder(second, "s/alf/probe01") / "s")
    assert recording.times.tolist() == [0.05, 0.1, 0.2, 0.25, 0.3]
    assert recording.regions[recording.units].tolist() == ["e", "c", "a", "d", "c"]
    table = recording.unit_table
    assert table["id"].tolist() == [0, 1, 2, 3, 4]
    assert table["probe"].tolist() == ["probe00"] * 3 + ["probe01"] * 2
    assert table["probe_unit_id"].tolist() == [0, 1, 2, 0, 1]


def test_one_probe_can_be_chosen(alf_folder):
    alf_folder(SPIKES, "s/alf/probe00")
    root = alf_folder({"spikes.times": [0.5], "spikes.clusters": [1]}, "s/alf/probe01")
    assert load_alf(root / "s", probe="probe01").times.tolist() == [0.5]
    with pytest.raises(
        ValueError, match=r"probe 'probe07' is not in s; spikes lie in \['alf/probe00', 'alf/probe01'\]"
    ):
        load_alf(root / "s", probe="probe07")


def test_several_sortings_of_a_probe_ask_for_a_choice(alf_folder):
    alf_folder(SPIKES, "s/alf/probe00/ks2")
    root = alf_folder({"spikes.times": [0.5], "spikes.clusters": [1]}, "s/alf/probe00/pykilosort")
    with pytest.raises(ValueError, match="several spike sortings"):
        load_alf(root / "s")
    assert load_alf(root / "s", probe="probe00/pykilosort").times.tolist() == [0.5]


def test_newest_revision_counts(alf_folder):
    alf_folder({**SPIKES, "clusters.depths": [1.0, 2.0, 3.0]}, "s/alf/probe00")
    alf_folder({"spikes.times": [5.1, 5.2, 5.3]}, "s/alf/probe00/#2023-01-01#")
    root = alf_folder({"spikes.times": [7.1, 7.2, 7.3]}, "s/alf/probe00/#2024-05-06#")
    recording = load_alf(root / "s")
    assert recording.times.tolist() == [7.1, 7.2, 7.3]
    assert recording.unit_table["depth"].tolist() == [1.0, 2.0, 3.0]
    assert "loaded revision #2024-05-06#" in recording.notes


def test_memory_mapped_times_are_the_same(alf_folder):
    folder = alf_folder(SPIKES)
    mapped, loaded = load_alf(folder, memory_map=True), load_alf(folder)
    np.testing.assert_array_equal(mapped.times, loaded.times)
    np.testing.assert_array_equal(
        bin_windows(mapped, [[0.0, 1.0]], 0.5).counts, bin_windows(loaded, [[0.0, 1.0]], 0.5).counts
    )


def test_empty_recording_loads_and_says_so(alf_folder):
    recording = load_alf(alf_folder({"spikes.times": np.zeros(0), "spikes.clusters": np.zeros(0, dtype=int)}))
    assert (recording.n_spikes, recording.n_units) == (0, 0)
    assert "the recording has no spikes" in recording.notes


def test_empty_recording_keeps_its_silent_units(alf_folder):
    arrays = {
        "spikes.times": np.zeros(0),
        "spikes.clusters": np.zeros(0, dtype=int),
        "clusters.depths": [1.0, 2.0],
    }
    assert load_alf(alf_folder(arrays)).n_units == 2


def test_missing_folder_and_missing_files_are_named(alf_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_alf(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no spikes.times.npy in"):
        load_alf(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"spikes.clusters.npy not found"):
        load_alf(alf_folder({"spikes.times": [0.1]}))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"spikes.clusters": [0, 1]}, "3 spike times, but 2 unit ids"),
        ({"spikes.clusters": [0.0, 1.5, 2.0]}, "must be whole numbers"),
        ({"spikes.clusters": ["a", "b", "c"]}, "must be integers"),
        ({"spikes.times": [1, 2, 3]}, "must be seconds in floating point"),
        ({"spikes.times": np.zeros((3, 3))}, "must be 1-D"),
        (
            {"clusters.depths": [1.0, 2.0, 3.0], "clusters.amps": [1.0]},
            "attributes of clusters must have one length",
        ),
        ({"clusters.depths": [1.0, 2.0]}, r"1 unit ids of spikes have no row .*are \[2\]"),
        ({"clusters.depths": ["a", "b", "c"]}, "depths of units must be numbers"),
        (
            {"trials.choice": [1, 2], "trials.stimOn_times": [0.1]},
            "attributes of trials must have one length",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(alf_folder, arrays, message):
    with pytest.raises(ValueError, match=message):
        load_alf(alf_folder({**SPIKES, **arrays}))


@pytest.mark.parametrize(
    "name", ["spikes.times.npy", "spikes.clusters.npy", "clusters.depths.npy", "trials.choice.npy"]
)
@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_file_cut_short_is_refused_by_name(alf_folder, name, kept):
    folder = alf_folder({**SPIKES, "clusters.depths": [1.0, 2.0, 3.0], "trials.choice": [1, 2]})
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:kept])
    with pytest.raises(ValueError, match=f"load_alf: {name} is cut short or not a .npy file"):
        load_alf(folder)


@pytest.mark.parametrize("name", ["spikes.times", "spikes.clusters", "clusters.acronym", "trials.choice"])
def test_pickled_arrays_are_refused(alf_folder, name):
    folder = alf_folder({key: value for key, value in SPIKES.items() if key != name})
    np.save(folder / f"{name}.npy", np.array(["a", 1, None], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=f"{name}.npy holds pickled Python objects"):
        load_alf(folder)


def test_damaged_table_is_refused_by_name(alf_folder):
    pytest.importorskip("pyarrow")
    folder = alf_folder(SPIKES)
    (folder / "_ibl_trials.table.pqt").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ValueError, match=r"cannot read _ibl_trials.table.pqt"):
        load_alf(folder)


def test_big_endian_and_matlab_columns_are_read(alf_folder):
    arrays = {
        "spikes.times": np.array([[0.1], [0.2]], dtype=">f8"),
        "spikes.clusters": np.array([[0], [1]], dtype=">u2"),
    }
    recording = load_alf(alf_folder(arrays))
    assert recording.times.tolist() == [0.1, 0.2]
    assert recording.times.dtype == np.dtype("=f8")
