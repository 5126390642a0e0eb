"""BIDS folders: which runs there are, what they inherit, and their windows."""

import dataclasses
import json
import pickle

import numpy as np
import pandas as pd
import pytest

from neurokern.datasets import BIDSDataset, BIDSIndex

torch = pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")

from torch.utils.data import DataLoader  # noqa: E402

from neurokern.extractors import (  # noqa: E402
    FMRIParcelExtractor,
    FMRIVolumeExtractor,
    FMRIVoxelExtractor,
    fMRIVoxelExtractor,
)

SHAPE, TR = (6, 5, 4), 2.0


def write_run(folder, name, n_volumes=40, seed=0, events=True, sidecar=True):
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).normal(1000, 30, (*SHAPE, n_volumes)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])), folder / f"{name}_bold.nii.gz")
    if sidecar:
        (folder / f"{name}_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    if events:
        rows = [(4.0, 8.0, "face"), (20.0, 8.0, "house"), (41.0, 6.0, "face"), (78.0, 4.0, "house")]
        table = pd.DataFrame(rows, columns=["onset", "duration", "trial_type"])
        table.to_csv(folder / f"{name}_events.tsv", sep="\t", index=False)
    return values


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "ds"
    for subject in ("01", "02"):
        for run in (1, 2):
            write_run(
                root / f"sub-{subject}/func",
                f"sub-{subject}_task-look_run-{run}",
                seed=int(subject) * 10 + run,
            )
    write_run(root / "sub-01/func", "sub-01_task-rest", n_volumes=25, seed=5, events=False)
    (root / "sub-01/anat").mkdir()
    (root / "sub-01/anat/sub-01_T1w.nii.gz").write_bytes(b"")
    (root / "dataset_description.json").write_text("{}")
    return root


def brain_mask():
    mask = np.zeros(SHAPE, bool)
    mask[1:5, 1:4, 1:3] = True
    return mask


# ---- structure


def test_runs_are_chosen_by_their_entities(root):
    assert len(BIDSDataset(root)) == 5
    assert len(BIDSDataset(root, task="look")) == 4
    assert len(BIDSDataset(root, task="look", subject="01")) == 2
    assert len(BIDSDataset(root, subject=["sub-01", "02"], run="01")) == 2
    assert BIDSDataset(root, task="rest").run(0).entities == {"subject": "01", "task": "rest"}


def test_asking_for_what_is_not_there_says_what_is(root):
    with pytest.raises(ValueError, match=r"no run in .* fits task='sleep'.*'look', 'rest'"):
        BIDSDataset(root, task="sleep")
    with pytest.raises(TypeError, match=r"full names.*got sub"):
        BIDSDataset(root, sub="01")
    with pytest.raises(FileNotFoundError):
        BIDSDataset(root / "none")
    with pytest.raises(ValueError, match="modality must be"):
        BIDSDataset(root, modality="pet")


def test_metadata_is_inherited_and_the_nearest_file_decides(root):
    (root / "task-look_bold.json").write_text(json.dumps({"RepetitionTime": 9.0, "EchoTime": 0.03}))
    (root / "sub-02/func/sub-02_task-look_run-1_bold.json").unlink()
    data = BIDSDataset(root, task="look")
    assert [data.run(i).repetition_time for i in range(4)] == [2.0, 2.0, 9.0, 2.0]
    assert data.run(0).metadata["EchoTime"] == 0.03


def test_events_at_the_root_belong_to_all_runs_of_the_task(root):
    for path in root.rglob("*_events.tsv"):
        path.unlink()
    (root / "task-look_events.tsv").write_text("\ufeffonset\tduration\ttrial_type\r\n1\tn/a\tface\r\n")
    events = BIDSDataset(root, task="look").run(3).events
    assert events["onset"].tolist() == [1]
    assert events["duration"].isna().all()


@pytest.mark.parametrize("value", [0, -2, "2.0", None, True, 2000])
def test_a_repetition_time_that_makes_no_sense_is_an_error(root, value):
    (root / "sub-01/func/sub-01_task-rest_bold.json").write_text(json.dumps({"RepetitionTime": value}))
    with pytest.raises(ValueError, match="RepetitionTime must be"):
        _ = BIDSDataset(root, task="rest").run(0).repetition_time


def test_a_sidecar_that_is_no_json_is_an_error_with_its_name(root):
    (root / "sub-01/func/sub-01_task-rest_bold.json").write_text("{")
    with pytest.raises(ValueError, match=r"sub-01_task-rest_bold.json must be JSON"):
        BIDSDataset(root, task="rest").run(0)


def test_derivatives_are_taken_when_their_space_is_asked_for(root):
    folder = root / "derivatives/prep/sub-01/func"
    stem = "sub-01_task-look_run-1"
    write_run(folder, f"{stem}_space-MNI_desc-preproc", events=False)
    (folder / f"{stem}_desc-confounds_timeseries.tsv").write_text("trans_x\trot_y\n" + "0.1\tn/a\n" * 40)
    data = BIDSDataset(root, space="MNI")
    assert len(data) == 1
    assert data.run(0).confounds.columns.tolist() == ["trans_x", "rot_y"]
    assert data.run(0).events.equals(BIDSDataset(root, task="look").run(0).events)
    assert len(BIDSDataset(root)) == 5
    assert len(BIDSDataset(root / "derivatives/prep", description="preproc")) == 1


def test_a_derivative_has_what_its_raw_run_knows_and_its_own_confounds(root):
    stem, folder = "sub-01_task-look_run-2", root / "derivatives/prep/sub-01/func"
    write_run(folder, f"{stem}_space-MNI_desc-preproc", events=False, sidecar=False)
    (folder / f"{stem}_space-MNI_desc-preproc_bold.json").write_text(json.dumps({"SkullStripped": True}))
    (root / "task-look_bold.json").write_text(json.dumps({"SliceTiming": [0, 1]}))
    for other, name in (("prep", stem), ("old", stem), ("prep", "sub-01_task-look_run-1")):
        place = root / f"derivatives/{other}/sub-01/func"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}_desc-confounds_timeseries.tsv").write_text(f"{other}{name[-1]}\n" + "1\n" * 40)
    run = BIDSDataset(root, space="MNI").run(0)
    assert run.repetition_time == TR
    assert set(run.metadata) == {"RepetitionTime", "SkullStripped"}  # slices were corrected since
    assert run.events.equals(BIDSDataset(root, task="look").run(1).events)
    assert run.confounds.columns.tolist() == ["prep2"]
    assert BIDSDataset(root / "derivatives/prep", description="preproc").run(0).events is None


def test_confounds_are_read_when_they_are_asked_for_and_once(root, monkeypatch):
    from neurokern.datasets import bids_run

    folder = root / "derivatives/prep/sub-01/func"
    write_run(folder, "sub-01_task-look_run-1_desc-preproc", events=False)
    (folder / "sub-01_task-look_run-1_desc-confounds_timeseries.tsv").write_text("x\n" + "1\n" * 40)
    read = []
    monkeypatch.setattr(bids_run, "read_tsv", lambda path: read.append(path.name) or pd.DataFrame({"x": [1]}))
    run = BIDSDataset(root, description="preproc").run(0)
    assert read == []
    again = pickle.loads(pickle.dumps(run))
    for _ in range(2):
        assert run.confounds.columns.tolist() == again.confounds.columns.tolist() == ["x"]
    assert len(read) == 2
    assert BIDSDataset(root, task="rest").run(0).confounds is None
    other = pd.DataFrame({"y": [1]})
    assert dataclasses.replace(run, confounds=other).confounds is other
    assert dataclasses.replace(run, confounds=None).confounds is None


def test_echoes_share_the_confounds_and_events_of_their_run(root):
    folder = root / "derivatives/prep/sub-02/func"
    write_run(folder, "sub-02_task-look_run-1_echo-2_desc-preproc", events=False)
    (folder / "sub-02_task-look_run-1_desc-confounds_timeseries.tsv").write_text("x\n" + "1\n" * 40)
    run = BIDSDataset(root, description="preproc").run(0)
    assert run.confounds.columns.tolist() == ["x"]
    assert len(run.events) == 4


def test_files_at_the_root_with_a_subject_are_no_harm(root):
    (root / "sub-01_scans.tsv").write_text("filename\n")
    assert len(BIDSDataset(root)) == 5


def test_loops_of_links_and_odd_names_are_no_harm(root):
    (root / "sub-01/loop").symlink_to(root)
    (root / "sub-01/func/notes_.txt").write_text("")
    (root / "sub-01/func/sub-01_task-a-b_bold.nii").write_text("")
    assert len(BIDSDataset(root)) == 5
    assert "sub" not in repr(BIDSDataset(root)).replace("ds", "")


def test_an_index_lists_every_data_file(root):
    files = BIDSIndex(root).files
    assert sorted(files["datatype"].unique()) == ["anat", "func"]
    assert (files["suffix"] == "events").sum() == 4


# ---- windows


def test_whole_runs_without_a_length(root):
    mask = brain_mask()
    data = BIDSDataset(root, task="look").with_extractor(FMRIVoxelExtractor(mask=mask))
    assert len(data) == 4
    assert data.feature_dim == mask.sum()
    item = data[1]
    image = nibabel.load(root / "sub-01/func/sub-01_task-look_run-2_bold.nii.gz").get_fdata()
    np.testing.assert_array_equal(item["signal"], image[mask].T.astype(np.float32))
    assert (item["subject"], item["run"], item["start"], item["valid"].all()) == ("01", "2", 0.0, True)


def test_windows_of_one_length_cover_each_run(root):
    data = BIDSDataset(root, task="look", subject="02", run=1)
    windows = data.with_extractor(FMRIVoxelExtractor(brain_mask()), length=16, stride=8)
    assert [window.start for window in windows.windows] == [0, 8, 16, 24]
    whole = data.with_extractor(FMRIVoxelExtractor(brain_mask()))[0]["signal"]
    for i in range(4):
        assert torch.equal(windows[i]["signal"], whole[8 * i : 8 * i + 16])
        assert windows[i]["start"] == 16.0 * i
    assert len(data.with_extractor(FMRIVoxelExtractor(brain_mask()), duration=31.9)) == 2


def test_windows_at_events_follow_the_signal_and_tell_what_rounding_left(root):
    data = BIDSDataset(root, task="look", subject="01", run=1)
    with pytest.warns(UserWarning, match="left out 1 windows"):
        windows = data.with_extractor(FMRIVoxelExtractor(brain_mask()), length=4, events=True, hrf_delay=4.0)
    assert windows.conditions == ("face", "house")
    assert [window.start for window in windows.windows] == [4, 12, 23]
    assert [windows[i]["onset"] for i in range(3)] == [4.0, 4.0, 5.0]
    assert [windows[i]["condition"] for i in range(3)] == [0, 1, 0]
    faces = data.with_extractor(FMRIVoxelExtractor(brain_mask()), length=2, events="face")
    assert len(faces) == 2


def test_each_volume_has_the_condition_that_fills_most_of_it(root):
    data = BIDSDataset(root, task="look", subject="01", run=1)
    codes = data.with_extractor(FMRIVoxelExtractor(brain_mask()))[0]["conditions"].tolist()
    assert codes[:8] == [-1, -1, 0, 0, 0, 0, -1, -1]
    assert codes[20:25] == [0, 0, 0, 0, -1]
    shifted = data.with_extractor(FMRIVoxelExtractor(brain_mask()), hrf_delay=4.0)[0]["conditions"].tolist()
    assert shifted[2:] == codes[:-2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 4, "duration": 8.0}, "not both"),
        ({"events": True}, "need length"),
        ({"stride": 2}, "need length"),
        ({"length": 0}, "at least 1"),
        ({"length": 4, "stride": 0}, "stride must be at least 1"),
        ({"length": 41}, "no window of 41 volumes fits into runs of 40"),
        ({"length": 4, "events": "cat"}, "must be of face, house, got cat"),
        ({"length": 4, "events": True, "stride": 2}, "stride must be left out"),
    ],
)
def test_windows_that_make_no_sense_are_an_error(root, options, message):
    with pytest.raises(ValueError, match=message):
        BIDSDataset(root, task="look").with_extractor(FMRIVoxelExtractor(brain_mask()), **options)


# ---- extractors


def test_swapping_voxels_for_parcels_or_volumes_is_one_line(root):
    labels = brain_mask().astype(int)
    labels[1] *= 2
    runs = BIDSDataset(root, task="look", run=1)
    voxels = runs.with_extractor(FMRIVoxelExtractor(brain_mask()))[0]["signal"]
    parcels = runs.with_extractor(FMRIParcelExtractor(labels))
    volumes = runs.with_extractor(FMRIVolumeExtractor())
    assert (parcels.feature_dim, volumes.feature_dim) == (2, SHAPE)
    assert volumes[0]["signal"].shape == (40, *SHAPE)
    inside = torch.from_numpy(labels[brain_mask()] == 2)
    torch.testing.assert_close(parcels[0]["signal"][:, 1], voxels[:, inside].mean(1))


def test_cleaning_looks_at_the_whole_run_whatever_the_window(root):
    extractor = FMRIVoxelExtractor(brain_mask(), normalize=True, detrend=True)
    runs = BIDSDataset(root, task="look", subject="01")
    whole = runs.with_extractor(extractor)[0]["signal"]
    torch.testing.assert_close(whole.std(0), torch.ones(whole.shape[1]))
    assert torch.equal(runs.with_extractor(extractor, length=10)[2]["signal"], whole[20:30])


def test_confounds_go_by_the_names_of_their_columns(root):
    folder = root / "derivatives/prep/sub-01/func"
    write_run(folder, "sub-01_task-look_run-1_space-MNI_desc-preproc", events=False)
    table = pd.DataFrame({"trans_x": np.random.default_rng(0).normal(size=40)})
    table.to_csv(folder / "sub-01_task-look_run-1_desc-confounds_timeseries.tsv", sep="\t", index=False)
    runs = BIDSDataset(root, space="MNI")
    signal = runs.with_extractor(FMRIVoxelExtractor(brain_mask(), confounds=["trans_x"], normalize=True))[0][
        "signal"
    ]
    assert np.abs(np.corrcoef(table["trans_x"], signal[:, 0])[0, 1]) < 1e-4
    same = runs.with_extractor(FMRIVoxelExtractor(brain_mask(), confounds=["trans_?"], normalize=True))[0]
    assert torch.equal(same["signal"], signal)
    with pytest.raises(ValueError, match="there is no rot_x"):
        _ = runs.with_extractor(FMRIVoxelExtractor(confounds=["rot_x"]))[0]
    with pytest.raises(ValueError, match="no table of them"):
        _ = BIDSDataset(root, task="rest").with_extractor(FMRIVoxelExtractor(confounds=["rot_x"]))[0]


def test_five_lines_with_any_number_of_workers(root):
    mask_path = root / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image(brain_mask().astype(np.uint8), np.diag([2.0, 2.0, 2.0, 1.0])), mask_path)
    brain = BIDSDataset(root_dir=root, modality="func", task="look")
    ready = brain.with_extractor(fMRIVoxelExtractor(mask=mask_path, normalize=True, detrend=True), length=8)
    batches = {}
    for workers, method in ((0, None), (2, "fork"), (2, "spawn")):
        loader = DataLoader(ready, batch_size=6, num_workers=workers, multiprocessing_context=method)
        batches[workers, method] = [batch["signal"] for batch in loader]
    assert batches[0, None][0].shape == (6, 8, 24)
    for other in ((2, "fork"), (2, "spawn")):
        assert all(torch.equal(a, b) for a, b in zip(batches[0, None], batches[other], strict=True))


def test_extractors_leave_open_files_behind_when_pickled(root):
    ready = BIDSDataset(root, task="rest").with_extractor(FMRIVoxelExtractor(brain_mask(), normalize=True))
    signal = ready[0]["signal"]
    again = pickle.loads(pickle.dumps(ready))
    assert torch.equal(again[0]["signal"], signal)
    assert len(pickle.dumps(again.extractor)) < 20_000
