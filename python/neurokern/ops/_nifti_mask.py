"""Masks of voxels, prepared once: runs of neighbors in file order, and the way to the output's order."""

from __future__ import annotations

import functools
import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokern import _core
from neurokern._check import check_memory
from neurokern.ops._library import torch

_DAMAGED = "the header may be damaged"
AFFINE_TOLERANCE = 1e-3  # mm: headers store affines as float32, some as a quaternion


class VoxelMask:
    """Which voxels to decode.

    Prepare it once and pass it wherever a mask is asked for; an array is prepared anew at every call (about
    0.4 ms for a whole-brain image).

    Parameters
    ----------
    mask : array, tensor, path or nibabel image of shape (x, y, z)
        Boolean, or numbers of which all but 0 are inside. NaN is outside.
    affine : array of shape (4, 4), optional
        Voxel-to-millimeter matrix of an array; files and images bring theirs. With one, decoding checks that
        it is that of the image.

    Attributes
    ----------
    shape : tuple of int
        Voxels along x, y and z.
    n_voxels : int
        Voxels inside.
    affine : float64 array of shape (4, 4) or None
    source : str
        Path of the file that it was read from, or "".

    Raises
    ------
    ValueError
        If the mask is empty or has not three dimensions.
    TypeError
        If it is none of the kinds above.

    Examples
    --------
    >>> VoxelMask(np.array([[[True, False]], [[True, True]]])).n_voxels
    3
    """

    def __init__(self, mask: Any, affine: Any = None) -> None:
        values, own_affine = read_image("mask", mask)
        self.source = path_of(mask)
        name = f"mask {self.source}".rstrip()
        inside = np.ascontiguousarray(values if values.dtype == bool else np.nan_to_num(values) != 0)
        if inside.ndim == 4 and inside.shape[3] == 1:
            inside = inside[..., 0]
        if inside.ndim != 3:
            raise ValueError(
                f"{name} must have the shape (x, y, z), got {tuple(values.shape)}; of a run, take the mean "
                "over volumes first"
            )
        self.shape: tuple[int, int, int] = (inside.shape[0], inside.shape[1], inside.shape[2])
        self.affine = _as_affine(own_affine if affine is None else affine)
        address = inside.ctypes.data
        self.n_voxels, n_runs = _core.measure_mask(address, *self.shape)
        if self.n_voxels == 0:
            raise ValueError(f"{name} must have at least one voxel inside, got none: all are 0 or NaN")
        if self.n_voxels >= 2**31:
            raise ValueError(f"{name} must have fewer than 2**31 voxels inside, got {self.n_voxels}")
        self.run_starts = np.empty(n_runs, dtype=np.int64)
        self.run_lengths = np.empty(n_runs, dtype=np.int64)
        self.order = np.empty(self.n_voxels, dtype=np.int32)
        _core.index_mask(
            address,
            *self.shape,
            self.run_starts.ctypes.data,
            self.run_lengths.ctypes.data,
            self.order.ctypes.data,
        )

    @classmethod
    def all(cls, shape: tuple[int, int, int]) -> VoxelMask:
        """Return the mask of every voxel of an image of this shape."""
        n_voxels = shape[0] * shape[1] * shape[2]
        check_memory("decode_nifti", f"the voxels of a volume of {shape}", 16 * n_voxels, _DAMAGED)
        return cls(np.ones(shape, dtype=bool))

    @functools.cached_property
    def key(self) -> str:
        """What tells these voxels from others."""
        digest = hashlib.blake2b(repr(self.shape).encode(), digest_size=16)
        digest.update(self.run_starts.tobytes())
        digest.update(self.run_lengths.tobytes())
        return digest.hexdigest()

    @property
    def positions(self) -> NDArray[np.int64]:
        """Position of each voxel within a volume of the file (x fastest), in output order."""
        ends = np.cumsum(self.run_lengths)
        in_file = np.arange(self.n_voxels) + np.repeat(
            self.run_starts - (ends - self.run_lengths), self.run_lengths
        )
        return in_file[self.order]

    def check_fits(
        self,
        name: str,
        shape: tuple[int, int, int],
        affine: NDArray[np.float64],
        image: str | os.PathLike[str] = "the image",
    ) -> None:
        """Raise ValueError unless the mask, argument ``name``, lies on the grid of this image."""
        name = f"{name} {self.source}".rstrip()
        if self.shape != shape:
            raise ValueError(
                f"decode_nifti: {name} must have the shape of {image}, {shape}, got {self.shape}; resample "
                "it first"
            )
        if self.affine is not None and not np.allclose(self.affine, affine, atol=AFFINE_TOLERANCE):
            raise ValueError(
                f"decode_nifti: {name} must have the affine of {image},\n{affine}\ngot\n{self.affine}\n"
                "resample it, or pass an array if the headers are known to be wrong"
            )


def read_image(name: str, image: Any) -> tuple[NDArray[Any], Any]:
    """Return the values and the affine (None for arrays) of a mask or a label image."""
    if isinstance(image, (str, os.PathLike)):
        from neurokern.ops._nifti_file import NiftiFile

        try:
            file = NiftiFile(image)
        except OSError as error:
            reason = error.strerror or str(error).removeprefix(f"{os.fspath(image)} ")
            raise type(error)(f"{name} {os.fspath(image)} could not be read: {reason}") from None
        return file.read_all(), file.header.affine
    if hasattr(image, "dataobj") and hasattr(image, "affine"):  # nibabel's spatial images
        return np.asarray(image.dataobj), image.affine
    if torch is not None and isinstance(image, torch.Tensor):
        return image.detach().cpu().numpy(), None
    if isinstance(image, np.ndarray) and image.dtype.kind in "biuf":
        return image, None
    raise TypeError(
        f"{name} must be an array of numbers, a tensor, a path or a nibabel image, got {_kind(image)}"
    )


def path_of(image: Any) -> str:
    """Return the path that a mask or label image was given as, or "" for another kind."""
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else ""


def _kind(value: Any) -> str:
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__


def _as_affine(affine: Any) -> NDArray[np.float64] | None:
    if affine is None:
        return None
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise ValueError(f"affine must have the shape (4, 4), got {matrix.shape}")
    return matrix
