"""Spikes from NWB, Kilosort, Matlab and HDF5: what is read, and what hostile files get."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurokern.datasets import (
    SpikeRecording,
    load_alf,
    load_kilosort,
    load_npz,
    load_nwb,
    load_recording,
    load_variables,
)
from neurokern.datasets._mat5 import Mat5File

h5py = pytest.importorskip("h5py")

TIMES = [np.array([0.5, 1.5, 2.5]), np.array([]), np.array([0.25, 3.0])]


def write_nwb(path, **changes):
    """Write three units on four electrodes, two trials, and a position of two columns."""
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        electrodes = file.create_group("general/extracellular_ephys/electrodes")
        electrodes["id"] = [10, 11, 12, 13]
        electrodes.create_dataset("location", data=["CA1", "CA1", "VISp", "VISp"], dtype=text)
        electrodes["rel_y"] = [0.0, 20.0, 40.0, 60.0]
        units = file.create_group("units")
        units["id"] = [7, 3, 5]
        units["spike_times"] = np.concatenate(TIMES)
        units["spike_times_index"] = np.array([3, 3, 5], np.uint8)
        units["electrodes"] = [0, 1, 2, 3, 2, 0]
        units["electrodes_index"] = np.array([2, 4, 6], np.uint8)
        units["firing_rate"] = [1.0, 0.0, 2.0]
        units.create_dataset("quality", data=["good", "mua", "good"], dtype=text)
        units["waveforms"] = np.zeros((3, 10))
        trials = file.create_group("intervals/trials")
        trials["id"] = [0, 1]
        trials["start_time"], trials["stop_time"] = [0.0, 2.0], [1.0, 3.0]
        trials.create_dataset("side", data=["left", "right"], dtype=text)
        position = file.create_group("processing/behavior/Position/hand")
        position["data"] = np.arange(8, dtype=np.int16).reshape(4, 2)
        position["data"].attrs.update({"conversion": 0.5, "unit": "cm"})
        position["starting_time"] = 1.0
        position["starting_time"].attrs["rate"] = 2.0
        file.create_dataset("general/subject/subject_id", data="mouse 1", dtype=text)
        for name, value in changes.items():
            key = name.replace("__", "/")
            del file[key]
            if value is not None:
                file[key] = value
    return path


def trains(recording):
    return {
        int(i): recording.times[recording.units == k].tolist()
        for k, i in enumerate(recording.unit_table["id"])
    }


def test_nwb_gives_units_regions_trials_and_behavior(tmp_path):
    recording = load_recording(write_nwb(tmp_path / "a.nwb"))
    assert trains(recording) == {7: [0.5, 1.5, 2.5], 3: [], 5: [0.25, 3.0]}
    table = recording.unit_table.set_index("id")
    assert table["region"].to_dict() == {7: "CA1", 3: "VISp", 5: "VISp"}  # of two, the first
    assert table["depth"].to_dict() == {7: 10.0, 3: 50.0, 5: 20.0}
    assert table["quality"].to_dict() == {7: "good", 3: "mua", 5: "good"}
    assert "waveforms" not in table
    assert recording.trials["side"].tolist() == ["left", "right"]
    assert (recording.session, recording.subject) == ("a", "mouse 1")
    hand = recording.series["hand"]
    np.testing.assert_array_equal(hand.times, [1.0, 1.5, 2.0, 2.5])
    np.testing.assert_array_equal(hand.values, np.arange(8).reshape(4, 2) * 0.5)
    assert hand.unit == "cm"
    assert not any("sorted" in note for note in recording.notes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"units__spike_times_index": [3, 2, 5]}, "units/spike_times_index must ascend"),
        ({"units__spike_times_index": [3, 3, 9]}, "units/spike_times_index must ascend to the 5 values"),
        ({"units__electrodes": [0, 1, 2, 3, 9, 0]}, "units/electrodes must be rows of the 4 electrodes"),
        ({"units__id": [1, 1, 2]}, "units/id must be 3 distinct"),
        ({"units__firing_rate": [1.0]}, "units/firing_rate must have a value for each of 3"),
        ({"units__spike_times": None}, "must have /units/spike_times"),
        ({"units__spike_times": np.array([b"x"] * 5)}, "units/spike_times must be of kind"),
        ({"intervals__trials__start_time": None}, "intervals/trials must have columns"),
        ({"processing__behavior__Position__hand__starting_time": None}, "must have timestamps"),
        ({"units__spike_times": h5py.ExternalLink("/etc/other.h5", "x")}, "link to another file"),
    ],
)
def test_an_nwb_file_that_contradicts_itself_is_an_error_with_the_field(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        load_nwb(write_nwb(tmp_path / "a.nwb", **changes))


@pytest.mark.parametrize(
    ("attribute", "value"), [("rate", "fast"), ("rate", [1.0, 2.0]), ("conversion", np.nan)]
)
def test_an_attribute_of_nwb_that_is_no_number_is_an_error(tmp_path, attribute, value):
    path = write_nwb(tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        item = "starting_time" if attribute == "rate" else "data"
        file[f"processing/behavior/Position/hand/{item}"].attrs[attribute] = value
    with pytest.raises(
        ValueError, match=f"{attribute} of /processing/behavior/Position/hand/.* must be a number"
    ):
        load_nwb(path)


def test_an_nwb_file_that_claims_more_than_there_is_memory_is_refused(tmp_path):
    path = write_nwb(tmp_path / "a.nwb")
    with h5py.File(path, "a") as file:
        del file["units/spike_times"], file["units/spike_times_index"]
        file["units"].create_dataset("spike_times", shape=(10**13,), dtype="f8", chunks=(1 << 20,))
        file["units/spike_times_index"] = np.array([1, 2, 10**13], np.uint64)
    with pytest.raises(ValueError, match="would take"):
        load_nwb(path)


def test_nwb_cut_short_at_any_place_is_an_error(tmp_path):
    whole = write_nwb(tmp_path / "a.nwb").read_bytes()
    for n in (0, 7, 100, len(whole) // 2, len(whole) - 100):
        (tmp_path / "b.nwb").write_bytes(whole[:n])
        with pytest.raises(ValueError, match="load_nwb"):
            load_nwb(tmp_path / "b.nwb")
    with pytest.raises(FileNotFoundError):
        load_nwb(tmp_path / "none.nwb")


def test_nwb_is_read_from_an_open_file_and_a_url(tmp_path):
    path = write_nwb(tmp_path / "a.nwb")
    with path.open("rb") as stream:
        assert load_nwb(stream).n_spikes == 5
    pytest.importorskip("fsspec")
    assert load_nwb(f"file://{path}").n_spikes == 5


# ---- Kilosort


@pytest.fixture
def sorted_folder(tmp_path):
    folder = tmp_path / "ks"
    folder.mkdir()
    np.save(folder / "spike_times.npy", np.array([[30], [60], [90], [30000]], np.uint64))
    np.save(folder / "spike_clusters.npy", np.array([4, 2, 4, 9], np.int32))
    (folder / "params.py").write_text("import os\ndat_path = os.remove('x')\nsample_rate = 30000.\n")
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n2\tgood\n4\tmua\n77\tnoise\n")
    (folder / "cluster_KSLabel.tsv").write_text("cluster_id\tKSLabel\n2\tgood\n4\tgood\n9\tmua\n")
    (folder / "cluster_info.tsv").write_text("cluster_id\tdepth\tch\n2\t100.0\t5\n4\t40.0\t2\n9\t20.0\t1\n")
    return folder


def test_kilosort_gives_seconds_labels_and_depths_and_runs_nothing(sorted_folder):
    recording = load_recording(sorted_folder)
    np.testing.assert_allclose(recording.times, [0.001, 0.002, 0.003, 1.0])
    table = recording.unit_table.set_index("id")
    assert table["group"].to_dict() == {2: "good", 4: "mua", 9: "unsorted"}
    assert table["KSLabel"].to_dict() == {2: "good", 4: "good", 9: "mua"}
    assert table["depth"].to_dict() == {2: 100.0, 4: 40.0, 9: 20.0}
    assert any("1 clusters of the tables have no spikes" in note for note in recording.notes)


@pytest.mark.parametrize(
    "line", ["sample_rate = 3e4", "sample_rate=29_999.95  # Hz", "  sample_rate = 25000"]
)
def test_the_rate_is_read_from_params_as_text(sorted_folder, line):
    (sorted_folder / "params.py").write_text(line)
    wanted = float(line.partition("=")[2].partition("#")[0].replace("_", ""))
    assert load_kilosort(sorted_folder).times[0] == 30 / wanted


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("spike_times", lambda samples: samples.reshape(-1).astype(np.int32)),
        ("spike_times", lambda samples: samples.reshape(1, -1)),
        ("spike_times", lambda samples: samples.astype(np.float64)),
        ("spike_clusters", lambda clusters: clusters[:, None].astype(np.uint32)),
        ("spike_clusters", lambda clusters: clusters.astype(np.float64)),
        ("spike_clusters", lambda clusters: clusters.astype(">i2")),
    ],
)
def test_arrays_of_other_shapes_and_types_are_the_same_spikes(sorted_folder, name, change):
    wanted = load_kilosort(sorted_folder)
    np.save(sorted_folder / f"{name}.npy", change(np.load(sorted_folder / f"{name}.npy")))
    found = load_kilosort(sorted_folder)
    np.testing.assert_array_equal(found.times, wanted.times)
    np.testing.assert_array_equal(found.units, wanted.units)
    assert found.unit_table.equals(wanted.unit_table)


def test_a_time_before_zero_without_its_sign_is_dropped_and_told(sorted_folder):
    samples = np.load(sorted_folder / "spike_times.npy")
    samples[0] = 2**64 - 5
    np.save(sorted_folder / "spike_times.npy", samples)
    recording = load_kilosort(sorted_folder)
    assert (recording.n_spikes, recording.times[-1]) == (3, 1.0)
    assert any("dropped 1 spikes with a NaN, infinite or negative time" in note for note in recording.notes)


def test_a_kilosort_folder_with_faults_is_an_error(sorted_folder):
    (sorted_folder / "params.py").write_text("sample_rate = compute()")
    with pytest.raises(ValueError, match="line `sample_rate = NUMBER`"):
        load_kilosort(sorted_folder)
    assert load_kilosort(sorted_folder, sfreq=1000).times[-1] == 30.0
    (sorted_folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n2\tgood\n2\tmua\n")
    with pytest.raises(ValueError, match=r"cluster_group\.tsv lists a cluster twice"):
        load_kilosort(sorted_folder, sfreq=1000)
    (sorted_folder / "cluster_group.tsv").unlink()
    np.save(sorted_folder / "spike_clusters.npy", np.array([1, 2]))
    with pytest.raises(ValueError, match="4 spike times, but 2 unit ids"):
        load_kilosort(sorted_folder, sfreq=1000)
    np.save(sorted_folder / "spike_clusters.npy", np.array([{}] * 4, object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickled"):
        load_kilosort(sorted_folder, sfreq=1000)
    (sorted_folder / "spike_clusters.npy").unlink()
    with pytest.raises(FileNotFoundError, match="must hold"):
        load_kilosort(sorted_folder)


# ---- names of one's own


def matlab(tmp_path, form):
    """Write the same variables in Matlab's version 5 and as h5py sees version 7.3."""
    path = tmp_path / "a.mat"
    if form == "v5":
        io = pytest.importorskip("scipy.io")
        cells = np.empty((1, 3), object)
        for k, train in enumerate(TIMES):
            cells[0, k] = train[:, None]
        names = np.empty((3, 1), object)
        names[:, 0] = ["CA1", "V1", "V1"]
        data = {"trains": cells, "t": np.concatenate(TIMES)[:, None], "id": np.array([[1.0, 1, 1, 3, 3]])}
        io.savemat(path, {"data": data | {"area": names}, "go": np.array([[0.1, 0.2]])})
        return path
    with h5py.File(path, "w") as file:

        def cell(name, items):
            references = []
            for k, item in enumerate(items):
                is_text = isinstance(item, str)
                values = np.array([[ord(c)] for c in item], np.uint16) if is_text else np.atleast_2d(item)
                file[f"#refs#/{name}{k}"] = values if values.size else np.zeros(2, np.uint64)
                made = file[f"#refs#/{name}{k}"]
                made.attrs["MATLAB_class"] = b"char" if is_text else b"double"
                if not values.size:
                    made.attrs["MATLAB_empty"] = 1
                references.append(made.ref)
            file.create_dataset(
                f"data/{name}", data=np.array([references], h5py.ref_dtype), dtype=h5py.ref_dtype
            )

        cell("trains", TIMES)
        cell("area", ["CA1", "V1", "V1"])
        for name, values in {
            "data/t": np.concatenate(TIMES),
            "data/id": [1.0, 1, 1, 3, 3],
            "go": [0.1, 0.2],
        }.items():
            file[name] = np.atleast_2d(values)
            file[name].attrs["MATLAB_class"] = b"double"
    return path


@pytest.mark.parametrize("form", ["v5", "v7.3"])
def test_matlab_files_give_cells_of_trains_or_times_with_ids(tmp_path, form):
    path = matlab(tmp_path, form)
    cells = load_variables(path, times="data.trains", regions="data.area", trials={"go": "go"})
    assert trains(cells) == {0: [0.5, 1.5, 2.5], 1: [], 2: [0.25, 3.0]}
    assert cells.regions.tolist() == ["CA1", "V1", "V1"]
    assert cells.trials["go"].tolist() == [0.1, 0.2]
    flat = load_variables(path, times="data.t", units="data.id")
    assert trains(flat) == {1: [0.5, 1.5, 2.5], 3: [0.25, 3.0]}
    with pytest.raises(ValueError, match=r"there is no variable|is not there"):
        load_variables(path, times="data.nothing", units="data.id")
    with pytest.raises(ValueError, match="give units= or counts="):
        load_variables(path, times="data.t")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="load_variables"):
        load_variables(path, times="data.trains", regions="data.area")


def test_counts_of_units_and_samples_become_trains(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        t=np.array([10, 20, 5]),
        n=np.array([2, 0, 1]),
        x=np.arange(3.0),
        y=np.arange(3) * 2.0,
    )
    recording = load_variables(
        tmp_path / "a.npz", times="t", counts="n", sfreq=10.0, series={"pos": ("x", ["x", "y"])}
    )
    assert trains(recording) == {0: [1.0, 2.0], 1: [], 2: [0.5]}
    assert recording.series["pos"].columns == ("x", "y")
    with pytest.raises(ValueError, match="add up to 3 spikes, got 6"):
        load_variables(tmp_path / "a.npz", times="t", counts="y", sfreq=10.0)
    (tmp_path / "b.mat").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"no \.mat"):
        load_variables(tmp_path / "b.mat", times="t", counts="n")
    with pytest.raises(ValueError, match="load_variables"):
        load_recording(tmp_path / "b.mat")


# ---- ALF: probes in a folder named by its experiment id, behavior


def test_an_experiments_folder_gives_both_probes_and_the_wheel(alf_folder):
    place = "0c828385-6dd6-4842-a702-c5075f5f5e81/alf"
    for probe, ids in (("probe00", [0, 1]), ("probe01", [0, 0])):
        alf_folder(
            {"spikes.times": [0.5, 1.0], "spikes.clusters": ids, "clusters.depths": [1.0, 2.0]},
            f"{place}/{probe}/pykilosort",
        )
    root = alf_folder({"_ibl_wheel.timestamps": [0.0, 1.0, 2.0], "_ibl_wheel.position": [0.0, 0.5, 1.5],
                       "_ibl_trials.stimOn_times": [0.2, 0.9]}, place)  # fmt: skip
    recording = load_alf(root / place.partition("/")[0])
    assert recording.unit_table["probe"].tolist() == ["probe00"] * 2 + ["probe01"] * 2
    assert recording.session == place.partition("/")[0]
    assert recording.trials["stimOn_times"].tolist() == [0.2, 0.9]
    values, valid = recording.series["wheel.position"].at([0.5, 1.5, 2.5])
    assert values[:2].tolist() == [0.25, 1.0]
    assert valid.tolist() == [True, True, False]


def test_series_survive_saving_and_choosing_units(tmp_path, random_recording):
    from dataclasses import replace

    from neurokern.datasets import TimeSeries

    series = {"hand": TimeSeries.from_arrays([2.0, 1.0], [[1.0, np.nan], [3.0, 4.0]], ("x", "y"), "m")}
    recording = replace(random_recording(), series=series)
    recording.select_units([0, 1]).save(tmp_path / "a.npz")
    found = load_npz(tmp_path / "a.npz").series["hand"]
    np.testing.assert_array_equal(found.times, [1.0, 2.0])
    np.testing.assert_array_equal(found.values, [[3.0, 4.0], [1.0, np.nan]])
    assert (found.columns, found.unit) == (("x", "y"), "m")


def test_a_table_of_trials_stays_optional(sorted_folder):
    trials = pd.DataFrame({"go_times": [0.1]})
    assert isinstance(load_kilosort(sorted_folder, trials=trials), SpikeRecording)


def test_matlabs_version_5_is_read_as_scipy_reads_it(tmp_path):
    io = pytest.importorskip("scipy.io")
    cells = np.empty((1, 3), object)
    cells[0] = [np.arange(6.0).reshape(2, 3), "word", np.zeros((0, 0))]
    data = {
        "whole": np.arange(12, dtype=np.int16).reshape(3, 4),
        "flag": np.array([[True, False]]),
        "one": 3.5,
        "deep": {"a": {"b": np.array([[7, 8]], np.uint8)}, "text": "zwei"},
        "cells": cells,
    }
    for packed in (False, True):
        io.savemat(tmp_path / "a.mat", data, do_compression=packed)
        file = Mat5File("test", tmp_path / "a.mat")
        assert file.names == sorted(data)
        np.testing.assert_array_equal(file.read("whole"), data["whole"])
        assert file.read("whole").dtype == np.int16
        assert file.read("one").item() == 3.5
        assert file.read("flag").tolist() == [[1, 0]]
        assert file.read("deep")["a"]["b"].tolist() == [[7, 8]]
        assert file.read("deep")["text"].tolist() == ["zwei"]
        matrix, word, empty = file.read("cells")
        np.testing.assert_array_equal(matrix, cells[0, 0])
        assert word.tolist() == ["word"]
        assert empty.size == 0


@given(st.binary(max_size=60), st.integers(0, 10**6), st.booleans())
def test_a_damaged_matlab_file_is_an_error_or_other_values_but_nothing_worse(matlab_file, junk, at, cut):
    at %= len(matlab_file)
    damaged = matlab_file[:at] + junk + (b"" if cut else matlab_file[at + len(junk) :])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mat"
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            assert load_variables(path, times="data.trains").n_spikes < 100


@pytest.fixture(scope="module")
def matlab_file(tmp_path_factory):
    return matlab(tmp_path_factory.mktemp("matlab"), "v5").read_bytes()
