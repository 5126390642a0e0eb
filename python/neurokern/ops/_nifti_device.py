"""The way of a file's voxels to a GPU: gathered as they are stored, copied when pinned, scaled there.

A few pinned buffers are filled in turn. Each copy is put on torch's current stream, and the kernel that
scales its values behind it, so that the CPU gathers (or inflates) the next volumes while the last ones cross
the bus. Nothing waits but the CPU, for a buffer whose copy has not been made yet.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokern.ops import _library
from neurokern.ops._library import torch
from neurokern.ops._nifti_clean import clean_on_gpu
from neurokern.ops._nifti_file import RAW, NiftiFile
from neurokern.ops._nifti_mask import VoxelMask
from neurokern.ops._nifti_resident import Stored, decode_to
from neurokern.ops._packed_run import PackedRun

BUFFER_BYTES = 4 << 20
N_BUFFERS = 3
_WOVEN_BYTES = 8  # of the volumes that the CPU's kernel gathers together


class Buffer:
    """Pinned memory, and the mark of the last copy out of it."""

    def __init__(self, n_bytes: int) -> None:
        self.memory = _library.pinned_bytes(n_bytes)
        self.copied: Any = None

    def rows(self, n_rows: int, n_columns: int, dtype: Any) -> Any:
        """Return the memory as rows, once the GPU has read what they held before."""
        if self.copied is not None:
            self.copied.synchronize()
        self.copied = None
        n_bytes = n_rows * n_columns * dtype.itemsize
        return self.memory[:n_bytes].view(dtype).view(n_rows, n_columns)

    def send(self, rows: Any, like: Any) -> Any:
        """Return a copy of rows of this buffer on the device of ``like``, to be made without the host."""
        there = _library.to_gpu(rows, like)
        self.copied = _library.copy_mark(like)
        return there


# Kept for the next call, as pinning memory takes longer than copying it. A call takes them out of the list,
# so that threads never share one. A forked child can neither use nor free its parent's.
_kept: list[list[Buffer]] = []
_of_parents: list[list[Buffer]] = []


def _leave_to_parent() -> None:
    _of_parents.extend(_kept)
    _kept.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


@contextlib.contextmanager
def buffers_of(n_bytes: int) -> Iterator[list[Buffer]]:
    """Lend buffers of at least ``n_bytes`` each; those of usual size are kept."""
    try:
        buffers = _kept.pop() if n_bytes <= BUFFER_BYTES else None
    except IndexError:
        buffers = None
    if buffers is None:
        buffers = [Buffer(max(n_bytes, BUFFER_BYTES)) for _ in range(N_BUFFERS)]
    yield buffers
    if n_bytes <= BUFFER_BYTES and not _kept:
        _kept.append(buffers)


def volumes_at_once(n_voxels: int, value_bytes: int) -> int:
    """Return how many volumes a buffer takes: whole groups that are gathered together, and at least one."""
    fitting = max(1, BUFFER_BYTES // (n_voxels * value_bytes))
    together = _WOVEN_BYTES // value_bytes
    return fitting // together * together or fitting


def decode_on_gpu(source: NiftiFile | PackedRun, voxels: VoxelMask, start: int, out: Any) -> None:
    """Decode the mask's voxels of volumes from ``start`` on into contiguous ``out`` (volumes, voxels)."""
    header = source.header
    dtype = getattr(torch, f"int{8 * np.dtype(header.dtype).itemsize}")
    stored = Stored.of(header.in_memory)
    at_once = min(volumes_at_once(voxels.n_voxels, dtype.itemsize), out.shape[0])
    with buffers_of(at_once * voxels.n_voxels * dtype.itemsize) as buffers:
        for i, first in enumerate(range(0, out.shape[0], at_once)):
            block = out[first : first + at_once]
            buffer = buffers[i % len(buffers)]
            rows = buffer.rows(len(block), voxels.n_voxels, dtype)
            if isinstance(source, PackedRun):
                source.copy_raw(rows.data_ptr(), start + first, start + first + len(rows))
            else:
                source.decode_into(rows, voxels, start + first, RAW)
            decode_to(block, buffer.send(rows, out), None, stored)


def clean_there(values: Any, basis: NDArray[np.float64], standardize: bool) -> None:
    """Clean columns that lie on a GPU in place."""
    clean_on_gpu(values, send(np.ascontiguousarray(basis, dtype=np.float32), values), standardize)


def send(array: Any, like: Any) -> Any:
    """Return a copy of a small array on the device of ``like``, to be made without the host."""
    array = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
    pinned = _library.pinned_bytes(array.nbytes).view(array.dtype).view(array.shape)
    pinned.copy_(array)
    return _library.to_gpu(pinned, like)  # torch keeps pinned memory until its copy is made
