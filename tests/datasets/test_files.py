"""Hostile files: whatever the bytes, the answer is an array or a ValueError; writing is whole or absent."""

from __future__ import annotations

import contextlib
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurokern.datasets._files import read_npy, read_npz, write_npz

ARRAY = np.arange(40, dtype=np.int32).reshape(8, 5)


def as_bytes(save, *arguments, **arrays):
    stream = io.BytesIO()
    save(stream, *arguments, **arrays)
    return stream.getvalue()


NPY = as_bytes(np.save, ARRAY)
NPZ = as_bytes(np.savez_compressed, first=ARRAY, second=np.array("text"))


def damage(content, edits, length):
    damaged = bytearray(content)
    for position, byte in edits:
        damaged[position % len(damaged)] = byte
    return bytes(damaged[: int(length * len(damaged))])


EDITS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4)
LENGTH = st.one_of(st.just(1.0), st.floats(0, 1))


@given(edits=EDITS, length=LENGTH)
def test_damaged_npy_gives_an_array_or_a_value_error(tmp_path_factory, edits, length):
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    path.write_bytes(damage(NPY, edits, length))
    with contextlib.suppress(ValueError):
        assert isinstance(read_npy("test", path), np.ndarray)


@given(edits=EDITS, length=LENGTH)
def test_damaged_npz_gives_arrays_or_a_value_error(tmp_path_factory, edits, length):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(damage(NPZ, edits, length))
    with contextlib.suppress(ValueError):
        assert all(isinstance(array, np.ndarray) for array in read_npz("test", path).values())


def huge_header():
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }"
    padded = header + b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


def test_header_that_claims_a_petabyte_takes_no_memory(tmp_path):
    (tmp_path / "huge.npy").write_bytes(huge_header() + bytes(64))
    with pytest.raises(ValueError, match=r"huge.npy is cut short"):
        read_npy("test", tmp_path / "huge.npy")


def test_member_that_claims_a_petabyte_takes_no_memory(tmp_path):
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("times.npy", huge_header() + bytes(64))
    with pytest.raises(ValueError, match=r"huge.npz is cut short"):
        read_npz("test", tmp_path / "huge.npz")


def test_pickled_member_is_refused(tmp_path):
    np.savez(tmp_path / "pickled.npz", names=np.array([None, "a"], dtype=object))
    with pytest.raises(ValueError, match="pickled Python objects"):
        read_npz("test", tmp_path / "pickled.npz")


def test_single_array_is_no_archive(tmp_path):
    (tmp_path / "single.npz").write_bytes(NPY)
    with pytest.raises(ValueError, match=r"single.npz is cut short or not a .npz file"):
        read_npz("test", tmp_path / "single.npz")


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "kept.npz"
    write_npz(path, {"a": ARRAY})

    def full_disk(stream, **arrays):
        stream.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_npz(path, {"a": ARRAY + 1})
    np.testing.assert_array_equal(read_npz("test", path)["a"], ARRAY)
    assert [file.name for file in tmp_path.iterdir()] == ["kept.npz"]


def test_objects_and_other_endings_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="would have to be pickled"):
        write_npz(tmp_path / "objects.npz", {"a": np.array([None])})
    with pytest.raises(ValueError, match=r"must end in .npz"):
        write_npz(tmp_path / "counts.npy", {"a": ARRAY})
    assert not list(tmp_path.iterdir())


def test_a_zip_of_other_files_is_no_archive_of_arrays(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("times.txt", "hello")
    with pytest.raises(ValueError, match=r"are no \.npy arrays"):
        read_npz("load", tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04K\x01."])
def test_no_error_tells_how_to_load_a_pickle(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="not a zip archive") as caught:
        read_npz("load", tmp_path / "a.npz")
    assert "allow_pickle" not in str(caught.value)
