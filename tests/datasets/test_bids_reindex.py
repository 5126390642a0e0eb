"""A folder that is indexed again: equal to one that was never seen, whatever was done to it in between."""

import json
import multiprocessing
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest

from neurokern.datasets import BIDSDataset, BIDSIndex, _bids_tree


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bids_index"


@pytest.fixture
def root(tmp_path):
    for subject in ("01", "02", "03"):
        for name in ("func/{}_task-a_bold.nii.gz", "func/{}_task-a_bold.json", "anat/{}_T1w.nii.gz"):
            path = tmp_path / "ds" / f"sub-{subject}" / name.format(f"sub-{subject}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    return tmp_path / "ds"


@pytest.fixture
def scanned(monkeypatch):
    """Folders that are listed, and not taken from what is known."""
    monkeypatch.setattr(_bids_tree, "_SETTLED", -(10**18))  # all folders are taken to be settled
    found = []
    scan = _bids_tree._scan

    def counted(folder, state):
        found.append(os.path.basename(folder))
        return scan(folder, state)

    monkeypatch.setattr(_bids_tree, "_scan", counted)
    return found


def contents(root, cache=True):
    index = BIDSIndex(root, cache=cache)
    rows = [tuple(map(str, row)) for row in index.files.sort_index(axis=1).itertuples(index=False)]
    bold = index.select("func", "bold", (".nii", ".nii.gz"))
    return rows, [index.metadata(path) for path in bold.get("path", [])], sorted(index.links_to_nowhere())


def test_only_folders_that_were_written_to_are_listed_again(root, scanned):
    first = contents(root)
    assert len(scanned) == 10
    scanned.clear()
    assert contents(root) == first
    assert scanned == []
    (root / "sub-02/func/sub-02_task-b_bold.nii.gz").touch()
    os.utime(root / "sub-02/func", (1, 1))  # file systems count in steps of some ms, a test is faster
    assert len(contents(root)[0]) == len(first[0]) + 1
    assert scanned == ["func"]


def edit(root, random):
    """Do one thing to a folder, at random."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    folders = sorted({path.parent for path in files})
    folder = folders[random.integers(len(folders))]
    victim = files[random.integers(len(files))]
    kind = random.integers(7)
    if kind == 0:
        (folder / f"{folder.parent.name}_task-{random.integers(9)}_bold.nii.gz").touch()
    elif kind == 1:
        victim.unlink()
    elif kind == 2:
        victim.rename(victim.with_name(f"{victim.parent.parent.name}_run-{random.integers(99)}_bold.nii.gz"))
    elif kind == 3:
        text = json.dumps({"A": int(random.integers(10**9))})
        (root / f"task-{random.choice(['a', 'b'])}_bold.json").write_text(text)
    elif kind == 4:
        subject = f"sub-{random.integers(10, 99)}"
        (root / subject / "func").mkdir(parents=True, exist_ok=True)
        (root / subject / "func" / f"{subject}_task-a_bold.nii.gz").touch()
    elif kind == 5:
        (root / ".bidsignore").write_text(random.choice(["sub-01", "*T1w*", "", "anat/"]))
    else:
        moved = root / f"sub-{random.integers(100, 999)}"
        (root / folder.relative_to(root).parts[0]).rename(moved) if folder != root else None


def coarse_stat(path):
    """Status of a file on a file system that counts in hours."""
    status = os.stat(path)
    hour = 3600 * 10**9
    return SimpleNamespace(
        st_ino=status.st_ino,
        st_mtime_ns=status.st_mtime_ns // hour * hour,
        st_ctime_ns=status.st_ctime_ns // hour * hour,
    )


@pytest.mark.parametrize("clock", ["fine", "coarse"])
@pytest.mark.parametrize("seed", range(3))
def test_after_any_edits_it_is_the_index_of_a_folder_seen_for_the_first_time(root, seed, clock, monkeypatch):
    if clock == "coarse":
        monkeypatch.setattr(_bids_tree, "_stat", coarse_stat)
        monkeypatch.setattr(_bids_tree, "_SETTLED", 3600 * 10**9)
    random = np.random.default_rng(seed)
    for _ in range(12):  # without a pause: a folder's time may stay the same
        edit(root, random)
        assert contents(root) == contents(root, cache=False)


def test_a_sidecar_written_in_place_is_read_again(root):
    sidecar = root / "sub-01/func/sub-01_task-a_bold.json"
    sidecar.write_text('{"RepetitionTime": 1.5}')
    assert BIDSDataset(BIDSIndex(root, cache=True), subject="01").run(0).repetition_time == 1.5
    status = sidecar.stat()
    sidecar.write_text('{"RepetitionTime": 2.5}')  # as many bytes, and then the old time
    os.utime(sidecar, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert BIDSDataset(BIDSIndex(root, cache=True), subject="01").run(0).repetition_time == 2.5


def test_a_link_that_leads_somewhere_now_is_a_file_though_its_folder_did_not_change(root, scanned):
    link = root / "sub-01/anat/sub-01_T2w.nii.gz"
    link.symlink_to(root.parent / "store/object")
    assert contents(root)[2] == [link]
    (root.parent / "store").mkdir()
    (root.parent / "store/object").touch()
    scanned.clear()
    rows, _, lost = contents(root)
    assert (scanned, lost, len(rows)) == ([], [], 7)


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "empty"])
def test_a_damaged_listing_is_made_again(root, cache, damage):
    wanted = contents(root)
    (file,) = cache.iterdir()
    text = file.read_bytes()
    changed = {"cut": text[:-9], "flipped": text.replace(b"sub-01", b"sub-77"), "other": b"{}", "empty": b""}
    file.write_bytes(changed[damage])
    assert contents(root) == wanted
    assert file.read_bytes() == text or json.loads(file.read_bytes().partition(b"\n")[2])


def test_a_cache_that_cannot_be_written_is_an_error_only_if_it_is_asked_for(root, cache, monkeypatch):
    cache.parent.write_text("a file")
    monkeypatch.setattr(_bids_tree, "_WORTH_KEEPING", 1)
    assert len(BIDSIndex(root).files) == 6
    with pytest.raises(OSError):
        BIDSIndex(root, cache=True)


def test_small_folders_are_not_kept_and_names_of_kept_ones_tell_nobody(root, cache, monkeypatch):
    BIDSIndex(root)
    assert not cache.exists()
    monkeypatch.setattr(_bids_tree, "_WORTH_KEEPING", 5)
    BIDSIndex(root)
    (file,) = cache.iterdir()
    assert re.fullmatch(r"[0-9a-f]{32}\.listing", file.name)
    with pytest.raises(ValueError, match="cache must be True, False or 'auto'"):
        BIDSIndex(root, cache="yes")


def index_often(root):
    for _ in range(20):
        assert len(BIDSIndex(root, cache=True).files) == 6


def test_processes_that_index_at_once_leave_a_whole_listing(root, cache):
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=index_often, args=(root,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert [file.suffix for file in cache.iterdir()] == [".listing"]
    assert len(contents(root)[0]) == 6
