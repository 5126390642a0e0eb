"""Folders as they are found: patterns to ignore, loops of links, names and rights that stand in the way."""

import json
import os

import pytest

from neurokern.datasets import BIDSIndex


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

    monkeypatch.setattr("neurokern.datasets.bids_index.os.scandir", forbidden)
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
