"""Packed runs: a mask's voxels in the file's type, or the means of parcels, mapped from the cache."""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurokern._check import check_memory
from neurokern.ops import _gzip_cache, _library
from neurokern.ops._array_cache import ArraySpec, CacheEntry
from neurokern.ops._library import torch
from neurokern.ops._nifti_header import NiftiFormatError, NiftiHeader, check_decodable
from neurokern.ops._nifti_mask import VoxelMask
from neurokern.ops._nifti_parcels import ParcelAtlas
from neurokern.ops._nifti_resident import DECODED_TYPES
from neurokern.ops._run_windows import gather_into, row_stride
from neurokern.ops._stored_run import StoredRun

if TYPE_CHECKING:
    from neurokern.ops._nifti_file import NiftiFile
    from neurokern.ops._nifti_fit import CleaningFit
    from neurokern.ops._types import Array

_FORMAT = "1"
_RAW = 3
_VOLUMES_AT_ONCE = 32  # of a weighted atlas


class PackedRun:
    """The chosen values of a run, side by side in one mapped file of the cache: made by ``NiftiFile.pack``.

    A mask's voxels are kept as the image has them (int16 stays int16, without its byte order), parcels as
    float32 means. A window is then one block of memory, whatever the image was: no inflating, no gathering.
    The file is a safetensors file with the tensor ``values`` of shape (trs, voxels) and the scale in its
    metadata, below ``packed_runs`` in the cache folder (``NEUROKERN_CACHE``); its name depends on the image's
    content and on the mask. It appears when complete; a damaged or cut one is made again.

    Attributes
    ----------
    file : NiftiFile
        The image. If it changes while open, the next read is an error.
    header : NiftiHeader
        The image's, with the type, byte order and scale of the packed values, as
        :func:`~neurokern.ops.decode_voxels` takes it.
    shape : tuple of int
        Volumes, and voxels or parcels.
    """

    def __init__(self, file: NiftiFile, place: VoxelMask | ParcelAtlas) -> None:
        self.file, self.place = file, place
        self.header, self.shape = _packed_form(file, place)
        self._arrays = packed_entry(file, place).make()

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedRun, (self.file, self.place)

    def __repr__(self) -> str:
        return f"PackedRun(shape={self.shape}, dtype={self.header.dtype})"

    def read_raw(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return a copy of volumes ``start`` ... ``stop - 1``, unscaled: (trs, voxels)."""
        stop = self._check_window(start, stop)
        out = np.empty((stop - start, self.shape[1]), dtype=self.header.dtype)
        self.copy_raw(out.ctypes.data, start, stop)
        return out

    def copy_raw(self, to: int, start: int, stop: int) -> None:
        """Copy volumes of a checked window, unscaled and one after the other, to an address."""
        n_bytes = (stop - start) * self.shape[1] * np.dtype(self.header.dtype).itemsize
        if n_bytes:
            ctypes.memmove(to, self._address(start), n_bytes)
            self.check_unchanged()

    def decode(
        self,
        start: int = 0,
        stop: int | None = None,
        *,
        cleaning: CleaningFit | None = None,
        dtype: Any = None,
        out: Array | None = None,
    ) -> Array:
        """Return volumes ``start`` ... ``stop - 1``, scaled, and cleaned if a fit is given.

        Parameters
        ----------
        start, stop : int, default 0 and all
        cleaning : CleaningFit, optional
            What :func:`fit_cleaning` found for this run.
        dtype : torch dtype, default float32
            float32, float16 or bfloat16.
        out : tensor or array of shape (trs, voxels), optional
            Written and returned; contiguous, on the CPU.
        """
        stop = self._check_window(start, stop)
        if out is None:
            shape = (stop - start, self.shape[1])
            check_memory("PackedRun.decode", "the result", 4 * shape[0] * shape[1], "decode a window")
            if torch is None:
                out = np.empty(shape, dtype=np.float32)
            else:
                out = torch.empty(shape, dtype=torch.float32 if dtype is None else dtype)
                _library.core.advise_huge_pages(out.data_ptr(), out.nbytes)
        self.decode_into(out, start, cleaning)
        return out

    def decode_into(self, out: Any, start: int, cleaning: CleaningFit | None = None) -> None:
        """Write ``len(out)`` volumes from ``start`` on into rows that are checked and contiguous."""
        self._check_window(start, start + out.shape[0])
        if out.shape[0]:
            self.check_unchanged()
            gather_into(out[None], [self.stored(cleaning)], np.array([start]), stride=row_stride(out))

    def stored(self, cleaning: CleaningFit | None = None) -> StoredRun:
        """Return the run as :func:`gather_windows` takes it."""
        h = self.header
        return StoredRun.at_address(
            self._arrays.addresses["values"],
            self.shape,
            h.dtype,
            slope=h.slope,
            inter=h.inter,
            cleaning=cleaning,
            owner=self,
            files=[self.file.mapped, self._arrays.file],
        )

    def _check_window(self, start: int, stop: int | None) -> int:
        stop = self.shape[0] if stop is None else stop
        if not 0 <= start <= stop <= self.shape[0]:
            raise ValueError(
                f"PackedRun: start and stop must lie in order within the {self.shape[0]} volumes of the run, "
                f"got {start} and {stop}"
            )
        return stop

    def _address(self, start: int) -> int:
        self.check_unchanged()
        row = self.shape[1] * np.dtype(self.header.dtype).itemsize
        return self._arrays.addresses["values"] + start * row

    def check_unchanged(self) -> None:
        """Raise if the image or the packed values were changed while they were open."""
        if not self.file.is_unchanged():
            raise NiftiFormatError(f"{self.file.path}: the file was changed while it was open; open it again")
        if not self._arrays.is_unchanged():
            raise NiftiFormatError(
                f"{self._arrays.path}: the packed run was changed by another program while it was open; open "
                "the image again"
            )


def packed_entry(file: NiftiFile, place: VoxelMask | ParcelAtlas) -> CacheEntry:
    """Return the file of the cache that holds a run's voxels of a mask, or means of parcels."""
    header, shape = _packed_form(file, place)
    key = run_key(file, place)
    return CacheEntry(
        _gzip_cache.cache_folder() / "packed_runs" / f"{key}.safetensors",
        {"values": ArraySpec(header.dtype, shape)},
        {"format": _FORMAT, "key": key, "slope": repr(header.slope), "inter": repr(header.inter)},
        lambda arrays: fill_rows(file, place, arrays["values"]),
    )


def _packed_form(file: NiftiFile, place: VoxelMask | ParcelAtlas) -> tuple[NiftiHeader, tuple[int, int]]:
    """Return header and shape of the packed values."""
    header = check_place(file, place)
    if isinstance(place, VoxelMask):
        return header.in_memory, (header.n_volumes, place.n_voxels)
    packed = replace(header.in_memory, dtype="float32", slope=1.0, inter=0.0)
    return packed, (header.n_volumes, place.n_parcels)


def check_place(file: NiftiFile, place: VoxelMask | ParcelAtlas) -> NiftiHeader:
    """Return the image's header, if it can be decoded and the mask or atlas fits."""
    header = file.header
    check_decodable(file.path, header)
    if isinstance(place, VoxelMask):
        place.check_fits("mask", header.shape, header.affine, file.path)
    else:
        place.mask.check_fits("labels", header.shape, header.affine, file.path)
    return header


def run_key(file: NiftiFile, place: VoxelMask | ParcelAtlas) -> str:
    """Return what tells these values of this image from all others; it names nobody."""
    h = file.header
    fields = (
        file.content_key,
        place.key,
        h.shape,
        h.n_volumes,
        h.dtype,
        h.byte_order,
        h.slope,
        h.inter,
        h.offset,
    )
    return hashlib.blake2b(repr(fields).encode(), digest_size=16).hexdigest()


def fill_rows(file: NiftiFile, place: VoxelMask | ParcelAtlas, rows: NDArray[Any]) -> None:
    """Decode the whole run in one pass: raw voxels, or float32 means of parcels."""
    if isinstance(place, VoxelMask):
        file.decode_into(rows, place, 0, _RAW)
    elif place.weights is None:
        file.decode_into(rows, place.mask, 0, DECODED_TYPES["float32"], place.native())
    else:
        decode_weighted(file, place, place.weights, 0, rows)


def decode_weighted(file: NiftiFile, atlas: ParcelAtlas, weights: Any, start: int, out: Any) -> None:
    """Weighted means, a few volumes at a time, so that the voxels of a run are never held together."""
    block = np.empty((min(_VOLUMES_AT_ONCE, out.shape[0]), atlas.mask.n_voxels), dtype=np.float32)
    shares = weights / atlas.sizes.astype(np.float32)
    for first in range(0, out.shape[0], len(block)):
        n = min(len(block), out.shape[0] - first)
        file.decode_into(block[:n], atlas.mask, start + first, DECODED_TYPES["float32"])
        means = block[:n] @ shares
        out[first : first + n] = means if isinstance(out, np.ndarray) else torch.from_numpy(means)
