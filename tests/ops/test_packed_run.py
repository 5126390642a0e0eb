"""Packed runs: the same values as the image, mapped, made once, and made again when anything is wrong."""

import errno
import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurokern.ops import (
    NiftiFile,
    NiftiFormatError,
    PackedRun,
    ParcelAtlas,
    VoxelMask,
    _array_cache,
    decode_nifti,
    prune_cache,
)

torch = pytest.importorskip("torch")

from nifti_files import CODES, random_raw, write_nifti  # noqa: E402

SHAPE = (7, 6, 5)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_array_cache, "_LEAST_FREE", 0)
    return tmp_path / "cache" / "packed_runs"


def some_mask(seed=3):
    return np.random.default_rng(seed).random(SHAPE) < 0.5


def write(tmp_path, dtype="int16", n_volumes=9, suffix=".nii.gz", seed=0, **fields):
    return write_nifti(
        tmp_path / f"bold{suffix}",
        random_raw(dtype, (*SHAPE, n_volumes), seed),
        slope=0.5,
        inter=3.0,
        **fields,
    )


# ---- values


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_packed_run_has_the_values_of_the_image_in_its_type(tmp_path, dtype, order):
    path, mask = write(tmp_path, dtype, order=order), VoxelMask(some_mask())
    packed = NiftiFile(path).pack(mask)
    assert packed.header.dtype == dtype
    np.testing.assert_array_equal(packed.read_raw(), NiftiFile(path).read_raw(mask))
    np.testing.assert_array_equal(packed.decode(2, 7), decode_nifti(path, mask, start=2, stop=7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_windows_are_rounded_as_decode_nifti_rounds_them(tmp_path, dtype):
    path, mask = write(tmp_path, seed=1), VoxelMask(some_mask())
    expected = decode_nifti(path, mask, start=3, stop=8, dtype=dtype)
    assert torch.equal(NiftiFile(path).pack(mask).decode(3, 8, dtype=dtype), expected)
    assert torch.equal(decode_nifti(path, mask, start=3, stop=8, dtype=dtype, cache=True), expected)


def test_wide_windows_are_streamed_with_the_same_values_by_any_number_of_threads(tmp_path):
    raw = random_raw("int16", (60, 50, 40, 6))
    path = write_nifti(tmp_path / "wide.nii", raw, slope=0.25, inter=-1.0)
    mask = VoxelMask(np.random.default_rng(0).random(raw.shape[:3]) < 0.7)
    packed, expected = NiftiFile(path).pack(mask), decode_nifti(path, mask)
    threads = torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            assert torch.equal(packed.decode(), expected)
            out = torch.empty(4 * mask.n_voxels + 1)[1:].reshape(4, -1)  # no row begins with a cache line
            assert torch.equal(packed.decode(2, out=out), expected[2:])
    finally:
        torch.set_num_threads(threads)


def test_parcels_are_packed_as_means(tmp_path):
    labels = np.random.default_rng(1).integers(0, 4, SHAPE)
    weights = np.random.default_rng(2).random((*SHAPE, 3))
    path = write(tmp_path)
    for atlas in (ParcelAtlas(labels), ParcelAtlas(weights)):
        packed = NiftiFile(path).pack(atlas)
        assert packed.shape == (9, 3)
        assert torch.equal(packed.decode(4), decode_nifti(path, labels=atlas, start=4))
    assert len(list((tmp_path / "cache" / "packed_runs").iterdir())) == 2


def test_the_file_is_what_the_safetensors_library_reads(tmp_path, cache):
    safe_open = pytest.importorskip("safetensors").safe_open
    path, mask = write(tmp_path), VoxelMask(some_mask())
    packed = NiftiFile(path).pack(mask)
    (made,) = cache.iterdir()
    with safe_open(made, framework="numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("values"), packed.read_raw())
        assert file.metadata()["slope"] == "0.5"


@given(st.integers(0, 9), st.integers(0, 9))
def test_any_window_is_a_slice_or_an_error(tmp_path_factory, start, stop):
    folder = tmp_path_factory.getbasetemp() / "windows"
    folder.mkdir(exist_ok=True)
    path, mask = write(folder), VoxelMask(some_mask())
    packed = NiftiFile(path).pack(mask)
    if start > stop:
        with pytest.raises(ValueError, match="must lie in order within the 9 volumes"):
            packed.decode(start, stop)
    else:
        np.testing.assert_array_equal(packed.read_raw(start, stop), packed.read_raw()[start:stop])


# ---- when it is made


def test_later_handles_map_what_the_first_one_made(tmp_path, cache, monkeypatch):
    path, mask = write(tmp_path), VoxelMask(some_mask())
    first = NiftiFile(path).pack(mask)
    monkeypatch.setattr(NiftiFile, "decode_into", None)  # decoding again would fail
    assert torch.equal(NiftiFile(path).pack(VoxelMask(some_mask())).decode(), first.decode())
    moved = path.rename(tmp_path / "moved.nii.gz")
    assert torch.equal(NiftiFile(moved).pack(mask).decode(), first.decode())
    assert torch.equal(pickle.loads(pickle.dumps(NiftiFile(moved).pack(mask))).decode(), first.decode())
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_another_image_at_the_same_place_is_noticed(tmp_path, suffix):
    mask = VoxelMask(some_mask())
    path = write(tmp_path, suffix=suffix, seed=1)
    NiftiFile(path).pack(mask)
    other = write(tmp_path, suffix=suffix, seed=2)
    os.utime(other, ns=(1, 1))
    assert torch.equal(NiftiFile(other).pack(mask).decode(), decode_nifti(other, mask))


def test_another_mask_or_scale_has_a_file_of_its_own(tmp_path, cache):
    path = write(tmp_path)
    for seed in (1, 2):
        mask = VoxelMask(some_mask(seed))
        assert torch.equal(NiftiFile(path).pack(mask).decode(), decode_nifti(path, mask))
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "longer", "header", "empty", "junk"])
def test_a_damaged_file_is_made_again(tmp_path, cache, damage):
    path, mask = write(tmp_path), VoxelMask(some_mask())
    NiftiFile(path).pack(mask)
    (made,) = cache.iterdir()
    whole = made.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    fields = json.loads(whole[8 : 8 + length])
    fields["values"]["shape"][0] += 1
    other_header = json.dumps(fields, separators=(",", ":")).encode().ljust(length)
    made.write_bytes(
        {
            "cut": whole[:-3],
            "longer": whole + b"\0",
            "header": whole[:8] + other_header + whole[8 + length :],
            "empty": b"",
            "junk": os.urandom(len(whole)),
        }[damage]
    )
    assert torch.equal(NiftiFile(path).pack(mask).decode(), decode_nifti(path, mask))
    assert made.read_bytes() == whole


def test_a_file_that_shrinks_while_it_is_mapped_is_an_error(tmp_path, cache):
    path, mask = write(tmp_path), VoxelMask(some_mask())
    packed = NiftiFile(path).pack(mask)
    (made,) = cache.iterdir()
    os.truncate(made, 100)
    for read in (packed.decode, packed.read_raw):
        with pytest.raises(NiftiFormatError, match="packed run was changed by another program"):
            read()
    assert torch.equal(NiftiFile(path).pack(mask).decode(), decode_nifti(path, mask))


def test_an_image_that_changes_while_it_is_open_is_an_error(tmp_path):
    packed = NiftiFile(write(tmp_path)).pack(VoxelMask(some_mask()))
    write(tmp_path, seed=5)
    with pytest.raises(NiftiFormatError, match="was changed while it was open"):
        packed.decode()


def test_a_damaged_image_leaves_nothing_behind(tmp_path, cache):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(NiftiFormatError):
        NiftiFile(path).pack(VoxelMask(some_mask()))
    assert not list(cache.iterdir())


def test_a_mask_that_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"mask must have the shape of .*bold\.nii\.gz"):
        NiftiFile(write(tmp_path)).pack(VoxelMask(np.ones((2, 2, 2), bool)))


def test_what_a_killed_writer_left_is_written_over(tmp_path, cache):
    path, mask = write(tmp_path), VoxelMask(some_mask())
    expected = NiftiFile(path).pack(mask).decode()
    (made,) = cache.iterdir()
    made.replace(made.with_suffix(".partial"))
    assert torch.equal(NiftiFile(path).pack(mask).decode(), expected)
    assert [entry.suffix for entry in cache.iterdir()] == [".safetensors"]


def test_a_full_disk_and_a_folder_that_cannot_be_written_are_errors(tmp_path, monkeypatch):
    file, mask = NiftiFile(write(tmp_path)), VoxelMask(some_mask())
    monkeypatch.setattr(_array_cache, "_LEAST_FREE", 2**62)
    with pytest.raises(OSError, match="GiB free") as error:
        file.pack(mask)
    assert error.value.errno == errno.ENOSPC
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="file"):
        file.pack(mask)


def test_the_cache_stays_within_its_bound_and_what_is_stale_makes_room(tmp_path, cache, monkeypatch):
    mask, paths = VoxelMask(some_mask()), [write(tmp_path, seed=s, suffix=f"{s}.nii") for s in range(3)]
    for path in paths[:2]:
        NiftiFile(path).pack(mask)
    size = next(cache.iterdir()).stat().st_size
    monkeypatch.setenv("NEUROKERN_CACHE_GIB", str(2.5 * size / 2**30))
    with pytest.raises(OSError, match="NEUROKERN_CACHE_GIB") as error:
        NiftiFile(paths[2]).pack(mask)
    assert error.value.errno == errno.ENOSPC
    assert len(list(cache.iterdir())) == 2
    stale = min(cache.iterdir())
    os.utime(stale, (0, 0))
    NiftiFile(paths[2]).pack(mask)
    assert not stale.exists()
    assert len(list(cache.iterdir())) == 2
    for wrong in ("much", "nan", "-1"):
        monkeypatch.setenv("NEUROKERN_CACHE_GIB", wrong)
        with pytest.raises(ValueError, match="NEUROKERN_CACHE_GIB must be a number"):
            NiftiFile(paths[0]).pack(VoxelMask(some_mask(9)))


def total_of(path):
    return float(NiftiFile(path).pack(VoxelMask(some_mask())).decode().double().sum())


def test_threads_and_processes_that_want_the_same_run_agree(tmp_path, cache):
    path = write(tmp_path, n_volumes=40)
    expected = float(decode_nifti(path, VoxelMask(some_mask())).double().sum())
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(total_of, [path] * 4)) == [expected] * 4
    for made in cache.iterdir():
        made.unlink()
    with multiprocessing.get_context("fork").Pool(3) as processes:
        assert processes.map(total_of, [path] * 3) == [expected] * 3
    assert [entry.suffix for entry in cache.iterdir()] == [".safetensors"]


# ---- pruning


def test_pruning_removes_what_was_not_used_for_longest(tmp_path, cache):
    mask = VoxelMask(some_mask())
    paths = [write(tmp_path, seed=seed, suffix=f"{seed}.nii") for seed in range(3)]
    for path in paths:
        NiftiFile(path).pack(mask)
    for age, made in enumerate(sorted(cache.iterdir())):
        os.utime(made, (age, 0))
    oldest, *others = sorted(cache.iterdir())
    packed = [NiftiFile(path).pack(mask) for path in paths]  # they stay readable
    for age, made in enumerate([oldest, *others]):
        os.utime(made, ns=(10 + age, made.stat().st_mtime_ns))
    size = oldest.stat().st_size
    assert prune_cache(2 * size) == size
    assert sorted(cache.iterdir()) == others
    assert all(len(run.read_raw()) == 9 for run in packed)
    assert prune_cache(0) == 2 * size
    assert torch.equal(NiftiFile(paths[0]).pack(mask).decode(), decode_nifti(paths[0], mask))
    with pytest.raises(ValueError, match="max_bytes must be at least 0"):
        prune_cache(-1)


def test_a_packed_run_can_be_made_by_name_alone(tmp_path):
    file, mask = NiftiFile(write(tmp_path)), VoxelMask(some_mask())
    assert torch.equal(PackedRun(file, mask).decode(), file.pack(mask).decode())
    assert repr(file.pack(mask)) == f"PackedRun(shape=(9, {mask.n_voxels}), dtype=int16)"
