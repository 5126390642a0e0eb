"""Cleaning fitted once per run: any window then needs its own values and a row of coefficients per trend."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurokern.ops import _gzip_cache, _library
from neurokern.ops._array_cache import ArraySpec, CachedArrays, CacheEntry
from neurokern.ops._library import torch
from neurokern.ops._nifti_clean import check_cleaning, check_confounds, check_fitted, make_basis
from neurokern.ops._nifti_header import NiftiFormatError
from neurokern.ops._nifti_mask import VoxelMask
from neurokern.ops._nifti_resident import DECODED_TYPES
from neurokern.ops._packed_run import PackedRun, check_place, decode_weighted, run_key
from neurokern.ops._run_windows import gather_into, row_stride
from neurokern.ops._stored_run import StoredRun

if TYPE_CHECKING:
    from neurokern.ops._nifti_file import NiftiFile
    from neurokern.ops._nifti_parcels import ParcelAtlas

_FORMAT = "1"
_ROWS_AT_ONCE = 32  # at most, decoded at a time while a run is looked at
_PIECE_BYTES = 8 << 20  # of them, so that memory stays bounded
# What is left of a column, relative to what it was about its first value: below, it is rounding.
_NOTHING_LEFT = 1e-12


class CleaningFit:
    """What cleaning takes out of each column of a run, and what it multiplies the rest with.

    A cleaned value is ``((value - origin) - basis . coefficients) * factor``: the origin is the column's
    first value, the basis spans constant, drift and confounds over the whole run, the factor brings the rest
    to variance 1 (1 without ``standardize``; 0 for columns of which nothing is left). So a window can be
    cleaned by itself, with the same bits as in the whole run, however it is cut.

    Attributes
    ----------
    basis : float32 array of shape (trs, trends)
    n_bytes : int
        Private memory of the coefficients; 0 if they are mapped from the cache.
    """

    def __init__(self, basis: NDArray[np.float32], arrays: CachedArrays | dict[str, NDArray[Any]]) -> None:
        self.basis, self._arrays = basis, arrays
        self.n_bytes = 0 if isinstance(arrays, CachedArrays) else sum(a.nbytes for a in arrays.values())

    def addresses(self, start: int, stop: int) -> tuple[int, int, int, int, int]:
        """Return where origin, factor, coefficients and the window's basis lie, and the number of trends."""
        self.check_unchanged()
        if isinstance(self._arrays, CachedArrays):
            found = self._arrays.addresses
        else:
            found = {name: array.ctypes.data for name, array in self._arrays.items()}
        basis = self.basis[start:stop]
        return found["origin"], found["factor"], found["coefficients"], basis.ctypes.data, basis.shape[1]

    def check_unchanged(self) -> None:
        """Raise if the coefficients are mapped from a file that was changed."""
        if isinstance(self._arrays, CachedArrays) and not self._arrays.is_unchanged():
            raise NiftiFormatError(
                f"{self._arrays.path}: coefficients were changed by another program while they were open; "
                "open the image again"
            )

    def apply(self, rows: Any, start: int, out: Any = None) -> Any:
        """Clean float32 rows (trs, columns), volumes ``start`` ... of the run; in place unless ``out``."""
        out = rows if out is None else out
        part = CleaningFit(self.basis[start : start + len(rows)], self._arrays)
        run = StoredRun.at_address(
            _library.address(rows),
            tuple(rows.shape),
            "float32",
            stride=row_stride(rows),
            cleaning=part,
            owner=rows,
        )
        gather_into(out[None], [run], np.zeros(1, np.int64), stride=row_stride(out))
        return out

    @property
    def shape(self) -> tuple[int, int]:
        """Volumes and columns of the run."""
        arrays = self._arrays
        n_columns = (
            arrays.specs["origin"].shape[0] if isinstance(arrays, CachedArrays) else arrays["origin"].size
        )
        return len(self.basis), n_columns

    @property
    def files(self) -> list[Any]:
        """Native handles of the files that coefficients are mapped from."""
        return [self._arrays.file] if isinstance(self._arrays, CachedArrays) else []


def fit_cleaning(
    file: NiftiFile,
    place: VoxelMask | ParcelAtlas,
    *,
    detrend: bool | str = False,
    standardize: bool = False,
    confounds: Any = None,
    high_pass: float | None = None,
    low_pass: float | None = None,
    tr: float | None = None,
    fitted: Any = None,
    packed: PackedRun | None = None,
    rows: Any = None,
    cache: bool = True,
) -> CleaningFit:
    """Return what cleaning takes out of a run's voxels or parcels; options as in ``decode_nifti``.

    The whole run is looked at once, a few volumes at a time (from ``packed``, or from ``rows`` if it was
    decoded already), with sums in float64.

    Parameters
    ----------
    fitted : bool array of shape (trs,), optional
        Volumes that everything is estimated on; the others are cleaned by what was found there. So volumes
        that are to be predicted, or were scrubbed, have no say in mean, trends and scale. All by default.
    cache : bool, default True
        Keep the coefficients in the cache folder, mapped; where it cannot be written, in memory.
    """
    plan = _plan(file, place, detrend, standardize, confounds, high_pass, low_pass, tr, fitted, packed, rows)
    if cache:
        with contextlib.suppress(OSError):  # a folder that cannot be written: in memory
            return CleaningFit(plan.basis, plan.entry.make())
    arrays = {name: np.empty(spec.shape, dtype=spec.dtype) for name, spec in plan.specs.items()}
    plan.fill(arrays)
    return CleaningFit(plan.basis, arrays)


def fit_entry(
    file: NiftiFile,
    place: VoxelMask | ParcelAtlas,
    *,
    detrend: bool | str = False,
    standardize: bool = False,
    confounds: Any = None,
    high_pass: float | None = None,
    low_pass: float | None = None,
    tr: float | None = None,
    fitted: Any = None,
    packed: Callable[[], PackedRun] | None = None,
) -> CacheEntry:
    """Return the file of the cache that holds what :func:`fit_cleaning` finds with these options.

    ``packed`` is called when the run is looked at, so that it need not be packed before.
    """
    return _plan(
        file, place, detrend, standardize, confounds, high_pass, low_pass, tr, fitted, packed, None
    ).entry


class _Plan(NamedTuple):
    """A fit before it is made."""

    basis: NDArray[np.float32]
    specs: dict[str, ArraySpec]
    fill: Callable[[dict[str, NDArray[Any]]], None]
    entry: CacheEntry


def _plan(
    file: NiftiFile,
    place: VoxelMask | ParcelAtlas,
    detrend: bool | str,
    standardize: bool,
    confounds: Any,
    high_pass: float | None,
    low_pass: float | None,
    tr: float | None,
    fitted: Any,
    packed: PackedRun | Callable[[], PackedRun] | None,
    rows: Any,
) -> _Plan:
    header = check_place(file, place)
    check_cleaning("fit_cleaning", detrend, standardize, high_pass, low_pass)
    chosen = check_fitted("fit_cleaning", fitted, header.n_volumes)
    if tr is None and (high_pass is not None or low_pass is not None):
        raise ValueError("fit_cleaning: tr must be given with high_pass and low_pass")
    columns = check_confounds(confounds, 0, header.n_volumes, header.n_volumes)
    basis = make_basis(
        header.n_volumes, detrend, columns, standardize, high_pass, tr, low_pass=low_pass, fitted=chosen
    )
    if basis is None:
        raise ValueError(
            "fit_cleaning: nothing is asked for; give detrend, standardize, low_pass or confounds"
        )
    n_columns = place.n_voxels if isinstance(place, VoxelMask) else place.n_parcels
    specs = {
        "origin": ArraySpec("float32", (n_columns,)),
        "factor": ArraySpec("float32", (n_columns,)),
        "coefficients": ArraySpec("float32", (len(basis), n_columns)),
    }
    in_time = np.ascontiguousarray(basis.T)
    source = _Source(file, place, packed, rows)

    def fill(arrays: dict[str, NDArray[Any]]) -> None:
        _fit(source, in_time, standardize, chosen, arrays)

    key = hashlib.blake2b(run_key(file, place).encode(), digest_size=16)
    key.update(in_time.tobytes() + bytes([standardize]))
    key.update(b"" if chosen is None else chosen.tobytes())
    name = key.hexdigest()
    path = _gzip_cache.cache_folder() / "fits" / f"{name}.safetensors"
    entry = CacheEntry(path, specs, {"format": _FORMAT, "key": name}, fill)
    return _Plan(in_time.astype(np.float32), specs, fill, entry)


class _Source:
    """Float32 rows of a run, from wherever they are had for least."""

    def __init__(
        self,
        file: NiftiFile,
        place: VoxelMask | ParcelAtlas,
        packed: PackedRun | Callable[[], PackedRun] | None,
        rows: Any,
    ) -> None:
        self.file, self.place, self.packed = file, place, packed
        self.rows = rows.numpy() if torch is not None and isinstance(rows, torch.Tensor) else rows

    def read(self, start: int, out: NDArray[np.float32]) -> NDArray[np.float32]:
        place = self.place
        if self.rows is not None:
            return self.rows[start : start + len(out)]
        if self.packed is not None:
            if not isinstance(self.packed, PackedRun):
                self.packed = self.packed()
            self.packed.decode_into(out, start)
        elif isinstance(place, VoxelMask):
            self.file.decode_into(out, place, start, DECODED_TYPES["float32"])
        elif place.weights is None:
            self.file.decode_into(out, place.mask, start, DECODED_TYPES["float32"], place.native())
        else:
            decode_weighted(self.file, place, place.weights, start, out)
        return out


def _fit(
    source: _Source,
    basis: NDArray[np.float64],
    standardize: bool,
    fitted: NDArray[np.bool_] | None,
    arrays: dict[str, NDArray[Any]],
) -> None:
    """Fill origin, factor and coefficients from one pass over the run; the basis is (trs, trends)."""
    n_volumes, n_trends = basis.shape
    n_fitted = n_volumes if fitted is None else int(fitted.sum())
    n_columns = arrays["origin"].size
    sums = np.zeros((n_trends, n_columns))
    squares = np.zeros(n_columns)
    at_once = min(max(_PIECE_BYTES // (4 * n_columns), 4), _ROWS_AT_ONCE, n_volumes)
    piece = np.empty((at_once, n_columns), dtype=np.float32)
    for start in range(0, n_volumes, at_once):
        rows = source.read(start, piece[: n_volumes - start])
        if start == 0:
            arrays["origin"][:] = rows[0]
        of_basis = basis[start : start + len(rows)]
        if fitted is not None:
            chosen = fitted[start : start + len(rows)]
            rows, of_basis = np.ascontiguousarray(rows[chosen]), np.ascontiguousarray(of_basis[chosen])
        _library.core.fit_columns(
            values=rows.ctypes.data,
            stride=n_columns,
            n_rows=len(rows),
            n_columns=n_columns,
            basis=of_basis.ctypes.data,
            n_basis=n_trends,
            origin=arrays["origin"].ctypes.data,
            sums=sums.ctypes.data,
            squares=squares.ctypes.data,
            n_threads=_library.thread_count(),
        )
    arrays["coefficients"][:] = sums
    if not standardize:
        arrays["factor"][:] = 1
        return
    # The basis is orthonormal over the fitted volumes: what it explains and what is left add up to the whole.
    left = squares - np.einsum("kc,kc->c", sums, sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.sqrt(max(n_fitted - 1, 0) / left)
    arrays["factor"][:] = np.where(left <= _NOTHING_LEFT * squares, 0, factor)
