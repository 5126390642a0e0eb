"""A run's values where they lie, time first: in memory, or in a mapped file that is watched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from neurokern._check import check_integer
from neurokern.ops import _library
from neurokern.ops._library import torch
from neurokern.ops._nifti_header import VOXEL_TYPES

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from neurokern.ops._nifti_fit import CleaningFit
    from neurokern.ops._types import Array

STORED_TYPES = {**VOXEL_TYPES, "float16": 10, "bfloat16": 11}
_ITEM_BYTES = {name: 2 if name == "bfloat16" else np.dtype(name).itemsize for name in STORED_TYPES}


class StoredRun:
    """Values of a run, ``(trs, columns)``, that :func:`gather_windows` takes windows of.

    A gathered value is ``slope * stored + inter``, rounded once to float32, and cleaned if a fit is given.

    Parameters
    ----------
    values : array or CPU tensor of shape (trs, columns)
        Integers, float32, float64, float16 or (tensors) bfloat16, in this machine's byte order, the values of
        a row next to each other. It is not copied, and must not change its size while it is used: of files
        use :meth:`open`.
    slope, inter : float, default 1 and 0
    columns : int array of shape (n,), optional
        Columns to take, in this order: a region of a whole-brain store. All without.
    cleaning : CleaningFit, optional
        What :func:`fit_cleaning` found for the columns taken.

    Attributes
    ----------
    shape : tuple of int
        Volumes, and columns that are taken.
    dtype : str
        Type of the stored values.
    """

    def __init__(
        self,
        values: Array,
        *,
        slope: float = 1.0,
        inter: float = 0.0,
        columns: ArrayLike | None = None,
        cleaning: CleaningFit | None = None,
    ) -> None:
        values = values if _is_tensor(values) else np.asanyarray(values)
        dtype = str(values.dtype).removeprefix("torch.")
        if dtype not in STORED_TYPES:
            raise TypeError(
                f"StoredRun: values must be of {', '.join(STORED_TYPES)} in this machine's byte order, got "
                f"{values.dtype}"
            )
        if values.ndim != 2 or (_is_tensor(values) and values.device.type != "cpu"):
            raise ValueError(
                f"StoredRun: values must be (trs, columns) in memory of the CPU, got {tuple(values.shape)}"
                + (f" on {values.device}" if _is_tensor(values) else "")
            )
        step, stride = values.stride()[::-1] if _is_tensor(values) else _strides(values)
        if 0 not in values.shape and ((step != 1 and values.shape[1] > 1) or stride < 0):
            raise ValueError(
                "StoredRun: values of a row must lie next to each other and rows in their order, got strides "
                f"of {stride} and {step} values; make it contiguous"
            )
        self._keep(
            _library.address(values),
            stride,
            tuple(values.shape),
            dtype,
            slope,
            inter,
            columns,
            cleaning,
            values,
        )

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        dtype: str | None = None,
        shape: tuple[int, int] | None = None,
        offset: int = 0,
        slope: float = 1.0,
        inter: float = 0.0,
        columns: ArrayLike | None = None,
        cleaning: CleaningFit | None = None,
    ) -> StoredRun:
        """Return a run mapped from a file: ``.npy``, or with ``dtype`` and ``shape`` any other.

        A file that is changed or cut while it is mapped is an error of the next :func:`gather_windows`, never
        a crash.

        Parameters
        ----------
        path : str or path
        dtype : str, optional
            Type of the values of a file that is no ``.npy``, such as ``"int16"`` or ``"bfloat16"``.
        shape : (int, int), optional
            Its volumes and columns.
        offset : int, default 0
            Bytes before the first value.
        slope, inter, columns, cleaning
            As of :class:`StoredRun`.

        Raises
        ------
        ValueError
            If the file is shorter than its values, or of another type or shape.
        """
        if (dtype is None) != (shape is None):
            raise ValueError("StoredRun.open: give dtype and shape together, or neither for a .npy file")
        if dtype is None or shape is None:
            dtype, shape, offset = _npy_layout(path)
        if dtype not in STORED_TYPES:
            raise ValueError(f"StoredRun.open: dtype must be one of {', '.join(STORED_TYPES)}, got {dtype!r}")
        n_rows, n_columns = (check_integer("StoredRun.open", "shape", n) for n in shape)
        if min(n_rows, n_columns, check_integer("StoredRun.open", "offset", offset)) < 0:
            raise ValueError(f"StoredRun.open: shape and offset must not be negative, got {shape}, {offset}")
        try:
            file = _library.core.MappedFile(os.fspath(path), True)
        except RuntimeError as error:
            kind = FileNotFoundError if not os.path.exists(path) else OSError
            raise kind(f"{os.fspath(path)} could not be opened: {error}") from None
        needed = offset + n_rows * n_columns * _ITEM_BYTES[dtype]
        if file.size < needed:
            raise ValueError(
                f"{os.fspath(path)}: {n_rows} volumes of {n_columns} {dtype} are {needed} bytes with the "
                f"offset, the file has {file.size}; it is cut short, or of another type or shape"
            )
        if needed > offset and not file.address:
            raise OSError(f"{os.fspath(path)} could not be mapped: too many files are")
        run = cls.__new__(cls)
        place = file.address + offset
        run._keep(place, n_columns, (n_rows, n_columns), dtype, slope, inter, columns, cleaning, path, [file])
        return run

    @classmethod
    def at_address(
        cls,
        address: int,
        shape: tuple[int, int],
        dtype: str,
        *,
        slope: float = 1.0,
        inter: float = 0.0,
        stride: int | None = None,
        columns: NDArray[np.int32] | None = None,
        cleaning: CleaningFit | None = None,
        owner: Any = None,
        files: Sequence[Any] = (),
    ) -> StoredRun:
        """Return a run at an address that is checked and valid while ``owner`` lives."""
        run = cls.__new__(cls)
        stride = shape[1] if stride is None else stride
        run._keep(address, stride, shape, dtype, slope, inter, columns, cleaning, owner, files)
        return run

    def _keep(
        self,
        address: int,
        stride: int,
        shape: tuple[int, int],
        dtype: str,
        slope: float,
        inter: float,
        columns: ArrayLike | None,
        cleaning: CleaningFit | None,
        owner: Any,
        files: Sequence[Any] = (),
    ) -> None:
        chosen = None if columns is None else _checked_columns(columns, shape[1])
        n_columns = shape[1] if chosen is None else len(chosen)
        self.shape, self.dtype = (shape[0], n_columns), dtype
        self._owner, self._cleaning, self._columns = owner, cleaning, chosen
        fit = (0, 0, 0, 0, 0)
        if cleaning is not None:
            if cleaning.shape != self.shape:
                raise ValueError(
                    f"StoredRun: cleaning must be fitted to (trs, columns) {self.shape}, got {cleaning.shape}"
                )
            fit = cleaning.addresses(0, shape[0])
            files = [*files, *cleaning.files]
        self._native = _library.core.StoredRun(
            raw=address,
            raw_stride=stride,
            n_rows=shape[0],
            n_columns=n_columns,
            columns=_library.address(chosen),
            type=STORED_TYPES[dtype],
            slope=float(slope),
            inter=float(inter),
            origin=fit[0],
            factor=fit[1],
            coefficients=fit[2],
            basis=fit[3],
            n_basis=fit[4],
            files=list(files),
        )

    def raise_changed(self) -> NoReturn:
        """Raise what says which of the mapped files was changed."""
        for keeper in (self._owner, self._cleaning):
            check = getattr(keeper, "check_unchanged", None)
            if check is not None:
                check()
        name = os.fspath(self._owner) if isinstance(self._owner, (str, os.PathLike)) else "a mapped run"
        raise ValueError(f"{name}: the file was changed while it was mapped; open it again")

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("StoredRun: a run in memory cannot be sent to another process; open it there")

    def __repr__(self) -> str:
        return f"StoredRun(shape={self.shape}, dtype={self.dtype})"


def _is_tensor(values: Any) -> bool:
    return torch is not None and isinstance(values, torch.Tensor)


def _strides(values: NDArray[Any]) -> tuple[int, int]:
    """Return the values from one column, and from one row, to the next."""
    if any(step % values.itemsize for step in values.strides):
        return 0, 0
    return values.strides[1] // values.itemsize, values.strides[0] // values.itemsize


def _checked_columns(columns: ArrayLike, n: int) -> NDArray[np.int32]:
    chosen = np.asarray(columns)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
        raise TypeError(
            f"StoredRun: columns must be whole numbers of shape (n,), got {chosen.dtype} of shape "
            f"{chosen.shape}"
        )
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < min(n, 2**31):
        raise ValueError(f"StoredRun: columns must be 0 to {n - 1}, got {chosen.min()} to {chosen.max()}")
    return np.ascontiguousarray(chosen, dtype=np.int32)


def _npy_layout(path: str | os.PathLike[str]) -> tuple[str, tuple[int, int], int]:
    """Return type, shape and offset of the values of a .npy file."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(f"{os.fspath(path)}: cannot be mapped as .npy: {error}") from None
    if not isinstance(values, np.memmap) or values.ndim != 2 or not values.flags.c_contiguous:
        raise ValueError(
            f"{os.fspath(path)}: must hold one array of (trs, columns) in C order, got "
            f"{getattr(values, 'shape', type(values).__name__)}"
        )
    if not values.dtype.isnative or values.dtype.name not in STORED_TYPES:
        raise ValueError(
            f"{os.fspath(path)}: must hold {', '.join(STORED_TYPES)} in this machine's byte order, got "
            f"{values.dtype.str}"
        )
    return values.dtype.name, (values.shape[0], values.shape[1]), int(values.offset)
