"""Parcels of voxels, prepared once: a label image, or the weights of a probabilistic atlas."""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokern import _core
from neurokern.ops._nifti_mask import VoxelMask, path_of, read_image

LONGEST_RUN = 65536  # kernels add a run in 32 bits


class ParcelAtlas:
    """Parcels whose mean signal is wanted.

    Parameters
    ----------
    labels : array, tensor, path or nibabel image
        Whole numbers of shape (x, y, z): 0 is outside, every other number a parcel. Or weights of shape
        (x, y, z, parcels), not negative: the signal of a parcel is the weighted mean.
    affine : array of shape (4, 4), optional
        Voxel-to-millimeter matrix of an array; files and images bring theirs.

    Attributes
    ----------
    labels : int64 array of shape (n_parcels,)
        Number of each parcel, ascending, as the columns of the result; of weights 0, 1, ...
    n_parcels : int
    sizes : float64 array of shape (n_parcels,)
        Voxels of each parcel, or sum of its weights.
    mask : VoxelMask
        The voxels of any parcel.

    Raises
    ------
    ValueError
        If labels are not whole or negative, weights are negative or of no voxel, or the image is empty.
    """

    def __init__(self, labels: Any, affine: Any = None) -> None:
        values, own_affine = read_image("labels", labels)
        affine = own_affine if affine is None else affine
        name = f"labels {path_of(labels)}".rstrip()
        if values.ndim not in (3, 4):
            raise ValueError(
                f"{name} must have the shape (x, y, z) or (x, y, z, parcels), got {values.shape}"
            )
        self.weights: NDArray[np.float32] | None = None
        if values.ndim == 4 and values.shape[3] > 1:
            self._take_weights(name, values, affine)
        else:
            self._take_labels(name, values.reshape(values.shape[:3]), affine)
        self.mask.source = path_of(labels)

    @property
    def n_parcels(self) -> int:
        """Number of parcels."""
        return len(self.labels)

    @functools.cached_property
    def key(self) -> str:
        """What tells these parcels from others."""
        digest = hashlib.blake2b(self.mask.key.encode(), digest_size=16)
        parts = (self.run_lengths, self.run_parcels) if self.weights is None else (self.weights,)
        for part in parts:
            digest.update(part.tobytes())
        return digest.hexdigest()

    def _take_labels(self, name: str, values: NDArray[Any], affine: Any) -> None:
        numbers = _whole(name, values) if values.dtype.kind == "f" else values
        if numbers.dtype.kind == "i" and numbers.min(initial=0) < 0:
            raise ValueError(
                f"{name} must not be negative, got {numbers.min()}; set what belongs to no parcel to 0"
            )
        if not numbers.any():
            raise ValueError(f"{name} must have at least one voxel in a parcel, got 0 everywhere")
        self.mask = VoxelMask(numbers != 0, affine)
        in_file = numbers.ravel(order="F")
        in_file = in_file[in_file != 0]
        self.labels, parcels = np.unique(in_file, return_inverse=True)
        self.labels = self.labels.astype(np.int64)
        self.sizes = np.bincount(parcels, minlength=len(self.labels)).astype(np.float64)
        starts = np.flatnonzero(np.diff(parcels, prepend=-1))
        ends = np.append(starts[1:], len(parcels))
        pieces = -(-(ends - starts) // LONGEST_RUN)
        if pieces.max(initial=1) > 1:
            within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
            starts = np.repeat(starts, pieces) + within * LONGEST_RUN
            ends = np.append(starts[1:], len(parcels))
        self.run_lengths = (ends - starts).astype(np.int32)
        self.run_parcels = parcels[starts].astype(np.int32)
        short = parcels.astype(np.uint16) if len(self.labels) <= 2**16 else parcels  # is sorted by digits
        self.voxels = np.argsort(short, kind="stable").astype(np.int32)  # in file order, by parcel

    def _take_weights(self, name: str, values: NDArray[Any], affine: Any) -> None:
        weights = np.nan_to_num(values.astype(np.float32))
        if weights.min(initial=0) < 0:
            raise ValueError(f"{name} as weights must not be negative, got {weights.min()}")
        inside = weights.any(axis=3)
        self.mask = VoxelMask(inside, affine)
        self.weights = weights[inside]
        self.labels = np.arange(weights.shape[3])
        self.sizes = self.weights.sum(axis=0, dtype=np.float64)
        if (self.sizes == 0).any():
            raise ValueError(
                f"{name} as weights must have a voxel in every map, got none in {np.argmin(self.sizes)}"
            )

    def native(self) -> Any:
        """Return what the kernel takes; it lives as long as the atlas."""
        return _core.ParcelRuns(
            lengths=self.run_lengths.ctypes.data,
            parcels=self.run_parcels.ctypes.data,
            sizes=self.sizes.ctypes.data,
            n_runs=len(self.run_lengths),
            n_parcels=self.n_parcels,
            voxels=self.voxels.ctypes.data,
        )


def _whole(name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    """Return labels that are stored as floats as integers, or raise with one that is none."""
    odd = values[~(np.isfinite(values) & (values == np.round(values)) & (np.abs(values) < 2**53))]
    if odd.size:
        raise ValueError(
            f"{name} must be whole numbers, got {odd[0]:g} and {odd.size - 1} more that are not; maps of "
            "weights have the shape (x, y, z, parcels)"
        )
    return values.astype(np.int64)
