"""``neurokern cache``: what it lists, finds damaged, removes, and leaves alone."""

import fcntl
import os
import time

import numpy as np
import pytest

from neurokern.cli import main
from neurokern.ops import NiftiFile, VoxelMask, _cache_files

nibabel = pytest.importorskip("nibabel")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with a packed run of 60 voxels, and seek points."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("NEUROKERN_CACHE", str(folder))
    monkeypatch.delenv("NEUROKERN_CACHE_GIB", raising=False)
    values = np.random.default_rng(0).integers(0, 900, (6, 5, 4, 60)).astype(np.int16)
    image = tmp_path / "bold.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), image)
    mask = np.zeros((6, 5, 4), bool)
    mask[:3] = True
    file = NiftiFile(image)
    file.pack(VoxelMask(mask))
    file.save_seek_points()
    return folder


def output(capsys, *arguments, code=0):
    assert main(["cache", *arguments]) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def damage(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_an_empty_cache_is_no_error(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "none"))
    assert "all" in output(capsys)
    assert "0 files" in output(capsys, "verify")


def test_it_says_what_is_kept_and_where(capsys, cache):
    text = output(capsys)
    assert str(cache) in text
    rows = {line.rsplit(maxsplit=5)[0].strip() for line in text.splitlines() if "days" in line}
    assert any("packed" in row for row in rows)
    assert "50.00 GiB" in text


def test_sound_files_are_found_sound_and_stay(capsys, cache):
    before = sorted(path for path in cache.rglob("*") if path.is_file())
    assert len(before) >= 2
    assert f"{len(before)} files" in output(capsys, "verify")
    assert sorted(path for path in cache.rglob("*") if path.is_file()) == before


@pytest.mark.parametrize("kind", ["packed_runs", "gzip_index"])
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_one_flipped_bit_anywhere_is_found_and_the_file_removed(capsys, cache, kind, where):
    (path,) = (cache / kind).iterdir()
    n_bytes = path.stat().st_size
    damage(path, {"first": 0, "middle": n_bytes // 2, "last": n_bytes - 1}[where])
    kept = output(capsys, "verify", "--keep-damaged", code=2)
    assert path.name in kept
    assert path.exists()
    assert "1 damaged" in output(capsys, "verify")
    assert not path.exists()


@pytest.mark.parametrize("kind", ["packed_runs", "gzip_index"])
def test_a_file_cut_short_is_found(capsys, cache, kind):
    (path,) = (cache / kind).iterdir()
    for n_bytes in (path.stat().st_size - 3, 20, 3, 0):
        path.write_bytes(path.read_bytes()[:n_bytes])
        assert path.name in output(capsys, "verify", "--keep-damaged", code=2)


def test_pruning_by_size_and_by_age(capsys, cache):
    (packed,) = (cache / "packed_runs").iterdir()
    long_ago = time.time() - 40 * 24 * 3600
    os.utime(packed, (long_ago, long_ago))
    assert "removed 0 bytes" in output(capsys, "prune", "--unused-days", "50")
    assert packed.exists()
    output(capsys, "prune", "--unused-days", "30")
    assert not packed.exists()
    assert list((cache / "gzip_index").iterdir())
    output(capsys, "prune", "--max-gib", "0")
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prune",), "--max-gib, --unused-days or both"),
        (("prune", "--max-gib", "-1"), "--max-gib must be at least 0"),
        (("prune", "--max-gib", "nan"), "--max-gib must be at least 0"),
        (("list", "--max-gib", "1"), "belong to `neurokern cache prune`"),
    ],
)
def test_wrong_flags_are_named(capsys, cache, arguments, message):
    assert message in output(capsys, *arguments, code=2)


def leave(cache, name, n_bytes, age=0.0):
    path = cache / "packed_runs" / name
    path.write_bytes(bytes(n_bytes))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_what_killed_programs_left_is_listed_and_removed_but_not_what_is_being_written(capsys, cache):
    left, spool = leave(cache, "a.partial", 4096), leave(cache, ".x.nkindex", 4096, age=7200)
    fresh, written = leave(cache, ".y.nkindex", 10), leave(cache, "b.partial", 10)
    with written.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        row = next(line for line in output(capsys).splitlines() if "programs that were killed" in line)
        assert "2" in row.split()
        assert "8 KiB" in row
        output(capsys, "verify")
        assert [path.exists() for path in (left, spool, fresh, written)] == [False, False, True, True]
    output(capsys, "prune", "--max-gib", "50")
    assert not written.exists()


def test_left_and_half_written_files_count_towards_the_bound(cache, monkeypatch):
    n_bytes = sum(file.n_bytes for file in _cache_files.cached_files())
    left = leave(cache, "a.partial", 100_000)
    monkeypatch.setenv("NEUROKERN_CACHE_GIB", str((n_bytes + 90_000) / 2**30))
    with left.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="would exceed"):
            _cache_files.make_room(1000)
    _cache_files.make_room(1000)
    assert not left.exists()


def test_seek_points_do_not_grow_beyond_the_bound(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE_GIB", "0")
    values = np.random.default_rng(1).integers(0, 900, (6, 5, 4, 60)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "other.nii.gz")
    file = NiftiFile(tmp_path / "other.nii.gz")
    file.read_all()
    before = sorted((cache / "gzip_index").iterdir())
    file.save_seek_points()
    assert sorted((cache / "gzip_index").iterdir()) == before


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_image_rewritten_with_one_size_and_time_has_another_key(tmp_path, suffix):
    path = tmp_path / f"bold{suffix}"
    values = np.random.default_rng(0).integers(0, 900, (40, 40, 20, 30)).astype(np.int16)
    keys = []
    for changed in (values, values + np.int16(1)):
        image = nibabel.Nifti1Image(changed.astype(np.int16), np.eye(4))
        nibabel.save(image, path)
        if suffix == ".nii":  # the ends are as before
            content = bytearray(path.read_bytes())
            content[: 1 << 16] = bytes(content[:352]) + bytes((1 << 16) - 352)
            content[-(1 << 16) :] = bytes(1 << 16)
            path.write_bytes(content)
        os.utime(path, (1, 1))
        keys.append((path.stat().st_size, NiftiFile(path).content_key))
    assert suffix == ".nii.gz" or keys[0][0] == keys[1][0]
    assert keys[0][1] != keys[1][1]
