"""Windows of runs that lie in memory or in mapped files, time first: a whole batch by one native call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurokern._check import check_integer, check_memory
from neurokern.ops import _library
from neurokern.ops._library import torch
from neurokern.ops._nifti_resident import DECODED_TYPES
from neurokern.ops._stored_run import StoredRun

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from neurokern.ops._types import Array


def gather_windows(
    runs: Sequence[StoredRun],
    run: ArrayLike,
    start: ArrayLike,
    length: int,
    *,
    dtype: Any = None,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """Return windows of runs as one batch, by one native call without Python's lock.

    Parameters
    ----------
    runs : sequence of StoredRun
        Of one number of columns.
    run : int array of shape (batch,)
        Number of each window's run.
    start : int array of shape (batch,)
        First volume of each window; windows may reach beyond their run on both sides.
    length : int
        Volumes of a window.
    dtype : torch dtype, default float32
        float32, float16 or bfloat16.
    out : tensor or array of shape (batch, length, columns), optional
        Written and returned; contiguous, on the CPU.

    Returns
    -------
    signal : tensor (array without torch) of shape (batch, length, columns)
        0 outside of the run.
    valid : bool of shape (batch, length)
        True where the run has such a volume.

    Raises
    ------
    ValueError
        If shapes do not fit, a run's number is none, or a mapped file was changed.

    Notes
    -----
    As many threads as torch has share the windows; the values are the same for any number. There is no
    kernel for GPUs: a batch is put together where the files are mapped, and copied. Runs that fit on a GPU
    are kept there by :func:`decode_voxels`.
    """
    if not runs or not all(isinstance(one, StoredRun) for one in runs):
        raise TypeError("gather_windows: runs must be a sequence of StoredRun, at least one")
    widths = {one.shape[1] for one in runs}
    if len(widths) > 1:
        raise ValueError(f"gather_windows: runs must have the same columns, got {sorted(widths)}")
    numbers, starts = _indices("run", run), _indices("start", start)
    if numbers.shape != starts.shape:
        raise ValueError(
            f"gather_windows: run and start must be as many, got {len(numbers)} and {len(starts)}"
        )
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < len(runs):
        raise ValueError(
            f"gather_windows: run must be 0 to {len(runs) - 1}, got {numbers.min()} to {numbers.max()}"
        )
    if check_integer("gather_windows", "length", length) < 1:
        raise ValueError(f"gather_windows: length must be at least 1 volume, got {length}")
    shape = (len(numbers), length, widths.pop())
    out = _new_batch(shape, dtype) if out is None else _checked_out(out, shape)
    chosen = [runs[i] for i in numbers.tolist()]
    gather_into(out, chosen, starts)
    totals = np.array([one.shape[0] for one in runs])[numbers][:, None]
    # Starts are clipped, so that adding to them cannot wrap.
    rows = starts.clip(-length, totals[:, 0].max(initial=0))[:, None] + np.arange(length)
    valid = (rows >= 0) & (rows < totals)
    return out, valid if isinstance(out, np.ndarray) else torch.from_numpy(valid)


def gather_into(
    out: Any,
    runs: Sequence[StoredRun],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64] | None = None,
    stride: int | None = None,
) -> None:
    """Write windows of checked runs, one for each, into contiguous ``out`` (batch, trs, columns).

    Of a single window rows may lie ``stride`` values apart.
    """
    n_rows = out.shape[1]
    n_columns = math.prod(out.shape[2:])
    starts = np.ascontiguousarray(starts, dtype=np.int64)
    changed = _library.core.gather_windows(
        [run._native for run in runs],
        starts.ctypes.data,
        0 if lengths is None else lengths.ctypes.data,
        n_rows,
        n_columns,
        n_columns if stride is None else stride,
        _library.address(out),
        DECODED_TYPES[str(out.dtype).removeprefix("torch.")],
        _library.thread_count(),
    )
    if changed >= 0:
        runs[changed].raise_changed()


def row_stride(rows: Any) -> int:
    """Return the values from one row to the next."""
    return int(rows.strides[0] // rows.itemsize if isinstance(rows, np.ndarray) else rows.stride(0))


def _indices(name: str, values: ArrayLike) -> NDArray[np.int64]:
    numbers = np.asarray(values)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise TypeError(
            f"gather_windows: {name} must be whole numbers of shape (batch,), got {numbers.dtype} of shape "
            f"{numbers.shape}"
        )
    return np.ascontiguousarray(numbers, dtype=np.int64)


def _new_batch(shape: tuple[int, int, int], dtype: Any) -> Array:
    check_memory(
        "gather_windows", "the batch", 4 * shape[0] * shape[1] * shape[2], "take fewer or shorter windows"
    )
    if torch is None:
        return np.empty(shape, dtype=np.float32)
    dtype = torch.float32 if dtype is None else dtype
    if str(dtype).removeprefix("torch.") not in DECODED_TYPES:
        raise ValueError(f"gather_windows: dtype must be one of {', '.join(DECODED_TYPES)}, got {dtype}")
    out = torch.empty(shape, dtype=dtype)
    _library.core.advise_huge_pages(out.data_ptr(), out.nbytes)
    return out


def _checked_out(out: Array, shape: tuple[int, int, int]) -> Array:
    is_array = isinstance(out, np.ndarray)
    whole = out.flags.c_contiguous and out.flags.writeable if is_array else out.is_contiguous()
    types = ("float32", "float16") if is_array else tuple(DECODED_TYPES)
    if tuple(out.shape) != shape or str(out.dtype).removeprefix("torch.") not in types or not whole:
        raise ValueError(
            f"gather_windows: out must be contiguous, {' or '.join(types)} of shape {shape}, got {out.dtype} "
            f"of shape {tuple(out.shape)}" + ("" if whole else ", not contiguous or read-only")
        )
    if not is_array and out.device.type != "cpu":
        raise ValueError(f"gather_windows: out must be on the CPU, got {out.device}; copy the batch there")
    return out
