"""Folders as they are found: patterns to ignore, loops of links, names and rights that stand in the way."""

import json
import os
import tracemalloc

import numpy as np
import pytest

from neurokern.datasets import BIDSDataset, BIDSIndex, _bids_tree
from neurokern.datasets.bids_names import BIDSName


@pytest.fixture
def root(tmp_path):
    for name in (
        "sub-01/eeg/sub-01_task-a_eeg.edf",
        "sub-01/func/sub-01_task-a_bold.nii.gz",
        "sub-02/func/sub-02_task-a_bold.nii.gz",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(root):
    return {path.name for path in BIDSIndex(root).files["path"]}


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("sub-02/", {"sub-01_task-a_eeg.edf", "sub-01_task-a_bold.nii.gz"}),
        ("*_bold.nii.gz", {"sub-01_task-a_eeg.edf"}),
        ("/sub-01/func/*", {"sub-01_task-a_eeg.edf", "sub-02_task-a_bold.nii.gz"}),
        ("**/func/*\n!sub-02/func/*", {"sub-01_task-a_eeg.edf", "sub-02_task-a_bold.nii.gz"}),
        ("# sub-*\n\nfunc", {"sub-01_task-a_eeg.edf"}),
        ("sub-0[!1]", {"sub-01_task-a_eeg.edf", "sub-01_task-a_bold.nii.gz"}),
        ("nothing", {"sub-01_task-a_eeg.edf", "sub-01_task-a_bold.nii.gz", "sub-02_task-a_bold.nii.gz"}),
        ("sub-??/eeg/", {"sub-01_task-a_bold.nii.gz", "sub-02_task-a_bold.nii.gz"}),
        ("func/sub-01*", {"sub-01_task-a_eeg.edf", "sub-01_task-a_bold.nii.gz", "sub-02_task-a_bold.nii.gz"}),
    ],
)
def test_bidsignore_reads_like_gitignore(root, pattern, left):
    (root / ".bidsignore").write_text(pattern)
    assert names(root) == left


def test_links_that_lead_in_a_circle_and_to_nowhere_do_no_harm(root):
    (root / "sub-01/loop").symlink_to(root)
    (root / "sub-03").mkdir()
    (root / "sub-03/sub-03_T1w.nii.gz").symlink_to(root / "annex")
    index = BIDSIndex(root)
    assert len(index.files) == 3
    assert [path.name for path in index.links_to_nowhere()] == ["sub-03_T1w.nii.gz"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_may_not_be_read_is_left_out_with_a_warning(root):
    (root / "sub-02").chmod(0)
    with pytest.warns(UserWarning, match="sub-02, which may not be read"):
        assert len(BIDSIndex(root).files) == 2
    (root / "sub-02").chmod(0o755)


def test_a_folder_that_vanishes_or_is_forbidden_is_named_in_a_warning(root, monkeypatch):
    scandir = os.scandir

    def forbidden(folder):
        if str(folder).endswith("sub-02"):
            raise PermissionError(folder)
        return scandir(folder)

    monkeypatch.setattr("neurokern.datasets._bids_tree.os.scandir", forbidden)
    with pytest.warns(UserWarning, match="sub-02, which may not be read"):
        assert len(BIDSIndex(root).files) == 2


def test_names_that_are_no_text_are_passed_over(root):
    try:
        (root / "sub-01/func").joinpath(os.fsdecode(b"sub-01_task-\xff_bold.nii.gz")).touch()
    except OSError:
        pytest.skip("this file system takes text only")
    assert len(BIDSIndex(root).files) == 3


def test_a_sidecar_that_was_written_again_is_read_again(root):
    sidecar = root / "task-a_bold.json"
    sidecar.write_text(json.dumps({"RepetitionTime": 2}))
    index = BIDSIndex(root)
    image = root / "sub-01/func/sub-01_task-a_bold.nii.gz"
    assert index.metadata(image) == {"RepetitionTime": 2}
    sidecar.write_text(json.dumps({"RepetitionTime": 2.5}))
    assert index.metadata(image) == {"RepetitionTime": 2.5}


def test_recordings_that_are_folders_are_files_of_the_index(root):
    ctf = root / "sub-01/meg/sub-01_task-a_meg.ds"
    ctf.mkdir(parents=True)
    (ctf / "sub-01_task-a_meg.meg4").touch()
    found = BIDSIndex(root).files
    assert found[found["datatype"].eq("meg")]["path"].tolist() == [ctf]


def test_a_folder_that_vanishes_while_it_is_walked_is_named_in_a_warning(root, monkeypatch):
    scandir = os.scandir

    def gone(folder):
        if str(folder).endswith("sub-02"):
            raise FileNotFoundError(2, "No such file or directory", folder)
        return scandir(folder)

    monkeypatch.setattr("neurokern.datasets._bids_tree.os.scandir", gone)
    with pytest.warns(UserWarning, match="sub-02, which cannot be read: .*No such file"):
        assert len(BIDSIndex(root).files) == 2


def test_a_subjects_folder_that_is_a_link_to_elsewhere_is_entered_and_once(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("store")
    (root / "sub-02").rename(elsewhere / "sub-02")
    (root / "sub-02").symlink_to(elsewhere / "sub-02")
    (elsewhere / "sub-02/back").symlink_to(root)
    (elsewhere / "sub-02/self").symlink_to(elsewhere / "sub-02")
    (root / "sub-09").symlink_to(root / "sub-01")  # the same files under another name
    found = BIDSIndex(root)
    assert [os.fspath(path.relative_to(root)) for path in found.files["path"]] == [
        "sub-01/eeg/sub-01_task-a_eeg.edf",
        "sub-01/func/sub-01_task-a_bold.nii.gz",
        "sub-02/func/sub-02_task-a_bold.nii.gz",
    ]


def test_runs_that_were_not_fetched_are_told_and_their_sidecars_are_an_error(root):
    for name in ("sub-03/func/sub-03_task-a_bold.nii.gz", "sub-01/func/sub-01_task-a_events.tsv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to("../../.git/annex/objects/xx")
    with pytest.warns(UserWarning, match="left out 1 runs of 3 that are links to nowhere; fetch them first"):
        runs = BIDSDataset(root)
    with pytest.raises(FileNotFoundError, match=r"sub-01_task-a_events.tsv is a link to nowhere; fetch it"):
        runs.run(0)
    assert runs.run(1).events is None
    assert len(BIDSDataset(root, subject="02")) == 1  # nobody asked for the third


def test_a_recording_in_two_formats_is_one_run_and_a_warning_says_so(root):
    (root / "sub-01/func/sub-01_task-a_bold.nii").touch()
    with pytest.warns(UserWarning, match="left out 1 files .* another format, too, such as sub-01_task-a"):
        runs = BIDSDataset(root)
    assert [path.suffix for path in runs.table["path"]] == [".nii", ".gz"]


def test_two_sidecars_in_one_folder_may_not_contradict_each_other(root):
    (root / "sub-01/func/sub-01_task-a_acq-b_bold.nii.gz").touch()
    image = root / "sub-01/func/sub-01_task-a_acq-b_bold.nii.gz"
    (root / "task-a_bold.json").write_text('{"RepetitionTime": 2, "A": 1}')
    (root / "acq-b_bold.json").write_text('{"RepetitionTime": 2, "B": 1}')
    assert BIDSIndex(root).metadata(image) == {"RepetitionTime": 2, "A": 1, "B": 1}
    (root / "acq-b_bold.json").write_text('{"RepetitionTime": 3}')
    with pytest.raises(ValueError, match=r"acq-b_bold.json and task-a_bold.json.* RepetitionTime as 3 and 2"):
        BIDSIndex(root).metadata(image)
    (root / "acq-b_bold.json").unlink()
    (root / "task-a_acq-b_bold.json").write_text('{"RepetitionTime": 3}')
    with pytest.warns(UserWarning, match="RepetitionTime as 2 and 3; the one with more entities decides"):
        assert BIDSIndex(root).metadata(image) == {"RepetitionTime": 3, "A": 1}
    (root / "task-a_acq-b_bold.json").rename(root / "sub-01/sub-01_acq-b_bold.json")
    assert BIDSIndex(root).metadata(image)["RepetitionTime"] == 3  # nearer: BIDS has it so, no word of it


def test_folders_whose_names_are_no_text_are_read(root):
    nibabel = pytest.importorskip("nibabel")
    pytest.importorskip("torch")
    from neurokern.extractors import FMRIVoxelExtractor

    folder = root / os.fsdecode(b"sub-03\xff/func")
    try:
        folder.mkdir(parents=True)
    except OSError:
        pytest.skip("this file system takes text only")
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.float32).reshape(2, 2, 2, 3), np.eye(4))
    nibabel.save(image, root / "sub-03_task-a_bold.nii")
    (root / "sub-03_task-a_bold.nii").rename(folder / "sub-03_task-a_bold.nii")
    (folder / "sub-03_task-a_bold.json").write_text('{"RepetitionTime": 2}')
    windows = BIDSDataset(root, subject="03").with_extractor(FMRIVoxelExtractor())
    assert windows[0]["signal"].shape == (3, 8)


def test_the_whole_of_it_is_looked_through_in_little_time_and_memory(tmp_path, monkeypatch):
    """Names alone are kept, and of those that are not asked for nothing else: some 100 bytes a file."""
    names = [f"sub-01_task-a_run-{k}_{rest}" for k in range(5000) for rest in ("bold.nii.gz", "events.tsv")]
    calls = []
    parse = BIDSName.parse
    monkeypatch.setattr(BIDSName, "parse", classmethod(lambda cls, name: calls.append(name) or parse(name)))
    monkeypatch.setattr(_bids_tree, "_scan", lambda folder, state: _bids_tree.Listing(state, names, [], []))
    tracemalloc.start()
    index = BIDSIndex(tmp_path, cache=False)
    assert index.select("func", "bold", (".nii",)).empty
    assert tracemalloc.get_traced_memory()[1] < 10_000 * 100
    tracemalloc.stop()
    assert not calls
    assert len(index.files) == 10_000
