"""Cleaned runs: signals that are projected and scaled once, mapped from one file of the cache."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern.ops import _gzip_cache
from neurokern.ops._array_cache import ArraySpec, CacheEntry
from neurokern.ops._library import torch
from neurokern.ops._nifti_fit import fit_cleaning, fit_entry
from neurokern.ops._nifti_header import NiftiFormatError
from neurokern.ops._nifti_mask import VoxelMask
from neurokern.ops._nifti_resident import DECODED_TYPES
from neurokern.ops._packed_run import check_place, decode_weighted
from neurokern.ops._stored_run import StoredRun

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neurokern.ops._array_cache import CachedArrays
    from neurokern.ops._nifti_file import NiftiFile
    from neurokern.ops._nifti_parcels import ParcelAtlas

_FORMAT = "1"
_PIECE_BYTES = 8 << 20  # that are cleaned at a time


class CleanedRun:
    """Cleaned signals of a run in float32, float16 or bfloat16, as windows of them are asked for.

    Windows then are copies of what lies in the file, with the bits that cleaning each by itself would give.
    """

    def __init__(self, file: NiftiFile, entry: CacheEntry, shape: tuple[int, int], dtype: str) -> None:
        self.file, self.shape, self.dtype = file, shape, dtype
        self._arrays: CachedArrays = entry.make()

    def stored(self) -> StoredRun:
        """Return the run as :func:`gather_windows` takes it."""
        place, files = self._arrays.addresses["values"], [self.file.mapped, self._arrays.file]
        return StoredRun.at_address(place, self.shape, self.dtype, owner=self, files=files)

    def check_unchanged(self) -> None:
        """Raise if the image or the cleaned values were changed while they were open."""
        for path, is_unchanged in (
            (self.file.path, self.file.is_unchanged()),
            (self._arrays.path, self._arrays.is_unchanged()),
        ):
            if not is_unchanged:
                raise NiftiFormatError(
                    f"{path}: the file was changed by another program while it was open; open the image again"
                )


def clean_run(file: NiftiFile, place: VoxelMask | ParcelAtlas, dtype: str, **options: Any) -> CleanedRun:
    """Return a run, cleaned as :func:`fit_cleaning` does with these options; made unless it is there."""
    n_columns = place.n_voxels if isinstance(place, VoxelMask) else place.n_parcels
    shape = (check_place(file, place).n_volumes, n_columns)
    return CleanedRun(file, cleaned_entry(file, place, dtype, **options), shape, dtype)


def cleaned_entry(file: NiftiFile, place: VoxelMask | ParcelAtlas, dtype: str, **options: Any) -> CacheEntry:
    """Return the file of the cache that holds a run's cleaned signals."""
    n_columns = place.n_voxels if isinstance(place, VoxelMask) else place.n_parcels
    shape = (check_place(file, place).n_volumes, n_columns)
    fit = fit_entry(file, place, **options)
    key = hashlib.blake2b(f"{fit.path.stem} cleaned {dtype}".encode(), digest_size=16).hexdigest()
    kept = "float32" if dtype == "float32" else "uint16"  # the bits of a short float

    def fill(arrays: dict[str, NDArray[Any]]) -> None:
        _fill(file, place, options, arrays["values"], dtype)

    path = _gzip_cache.cache_folder() / "packed_runs" / f"{key}.safetensors"
    specs = {"values": ArraySpec(kept, shape)}
    return CacheEntry(path, specs, {"format": _FORMAT, "key": key, "dtype": dtype}, fill)


def _fill(
    file: NiftiFile,
    place: VoxelMask | ParcelAtlas,
    options: dict[str, Any],
    values: NDArray[Any],
    dtype: str,
) -> None:
    """Look at the run twice, for the fit and for the signals, a few volumes at a time."""
    fit = fit_cleaning(file, place, cache=False, **options)
    n_volumes, n_columns = values.shape
    at_once = min(max(_PIECE_BYTES // (4 * max(n_columns, 1)), 1), n_volumes)
    piece = np.empty((at_once, n_columns), dtype=np.float32)
    for start in range(0, n_volumes, at_once):
        rows = piece[: n_volumes - start]
        if isinstance(place, VoxelMask):
            file.decode_into(rows, place, start, DECODED_TYPES["float32"])
        elif place.weights is None:
            file.decode_into(rows, place.mask, start, DECODED_TYPES["float32"], place.native())
        else:
            decode_weighted(file, place, place.weights, start, rows)
        out: Any = values[start : start + len(rows)]
        if dtype != "float32":
            out = torch.from_numpy(out.view(np.int16)).view(getattr(torch, dtype))
        fit.apply(rows, start, out)
