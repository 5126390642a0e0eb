"""A box of voxels, to which volumes are cropped, and from which they can be put back."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurokern._check import check_integer
from neurokern.ops._library import torch
from neurokern.ops._nifti_mask import VoxelMask, read_image


class VoxelBox:
    """Voxels ``start`` ... ``stop - 1`` along x, y and z of an image.

    Parameters
    ----------
    bounds : three pairs (start, stop), or three slices
        Along x, y and z.
    shape : tuple of int
        Voxels of the whole image along x, y and z.

    Attributes
    ----------
    bounds : tuple of three pairs of int
    shape : tuple of int
        Voxels of the box along x, y and z.
    image_shape : tuple of int

    Raises
    ------
    ValueError
        If the box is empty or reaches beyond the image.

    Examples
    --------
    >>> box = VoxelBox([(1, 3), (0, 4), (2, 4)], shape=(4, 4, 4))
    >>> box.shape
    (2, 4, 2)
    >>> box.put_back(np.ones((5, 2, 4, 2))).shape
    (5, 4, 4, 4)
    """

    def __init__(self, bounds: Sequence[Any], shape: Sequence[int]) -> None:
        if len(bounds) != 3 or len(shape) != 3:
            raise ValueError(
                f"VoxelBox: bounds and shape must be of x, y and z, got {len(bounds)} and {len(shape)}"
            )
        pairs = [_pair(axis, one, int(size)) for axis, one, size in zip("xyz", bounds, shape, strict=True)]
        self.bounds: tuple[tuple[int, int], ...] = tuple(pairs)
        self.image_shape = (int(shape[0]), int(shape[1]), int(shape[2]))
        n_x, n_y, n_z = (stop - start for start, stop in pairs)
        self.shape: tuple[int, int, int] = (n_x, n_y, n_z)
        self.affine: NDArray[np.float64] | None = None

    @classmethod
    def around(cls, mask: Any, margin: int = 0) -> VoxelBox:
        """Return the smallest box that holds a mask, and ``margin`` voxels more on each side.

        Parameters
        ----------
        mask : VoxelMask, array, tensor, path or nibabel image of shape (x, y, z)
        margin : int, default 0
            Cut off where the image ends.
        """
        margin = check_integer("VoxelBox", "margin", margin)
        if margin < 0:
            raise ValueError(f"VoxelBox: margin must be at least 0, got {margin}")
        affine = mask.affine if isinstance(mask, VoxelMask) else None
        if isinstance(mask, VoxelMask):
            shape = mask.shape
            where = np.unravel_index(mask.positions, shape, order="F")
        else:
            values, affine = read_image("mask", mask)
            inside = VoxelMask(values)
            shape, where = inside.shape, np.unravel_index(inside.positions, inside.shape, order="F")
        bounds = [
            (max(int(axis.min()) - margin, 0), min(int(axis.max()) + 1 + margin, size))
            for axis, size in zip(where, shape, strict=True)
        ]
        box = cls(bounds, shape)
        box.affine = None if affine is None else np.asarray(affine, dtype=np.float64)
        return box

    def __repr__(self) -> str:
        return f"VoxelBox({list(self.bounds)}, shape={self.image_shape})"

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as slices of ``volume[...]``."""
        x, y, z = (slice(*pair) for pair in self.bounds)
        return x, y, z

    @functools.cached_property
    def mask(self) -> VoxelMask:
        """The mask of the box's voxels; an image that is decoded by it is cropped."""
        inside = np.zeros(self.image_shape, dtype=bool)
        inside[self.slices] = True
        return VoxelMask(inside, self.affine)

    def affine_of(self, affine: Any) -> NDArray[np.float64]:
        """Return the affine of the cropped image from that of the whole one."""
        moved = np.array(affine, dtype=np.float64)
        moved[:3, 3] += moved[:3, :3] @ [start for start, _ in self.bounds]
        return moved

    def put_back(self, volumes: Any, fill: float = 0.0) -> Any:
        """Return cropped volumes (..., x, y, z) at their place in the whole image, ``fill`` around them."""
        if tuple(volumes.shape[-3:]) != self.shape:
            raise ValueError(
                f"VoxelBox.put_back: volumes must end with the shape {self.shape}, got {tuple(volumes.shape)}"
            )
        shape = (*volumes.shape[:-3], *self.image_shape)
        if torch is not None and isinstance(volumes, torch.Tensor):
            whole: Any = torch.full(shape, fill, dtype=volumes.dtype, device=volumes.device)
        else:
            whole = np.full(shape, fill, dtype=volumes.dtype)
        whole[(..., *self.slices)] = volumes
        return whole


def as_box(crop: Any, shape: tuple[int, int, int]) -> VoxelBox:
    """Return the box of an argument ``crop`` for an image of this shape."""
    if not isinstance(crop, VoxelBox):
        is_bounds = isinstance(crop, (tuple, list)) and len(crop) == 3
        crop = VoxelBox(crop, shape) if is_bounds else VoxelBox.around(crop)
    if crop.image_shape != tuple(shape):
        raise ValueError(f"crop must be of an image of the shape {tuple(shape)}, got {crop.image_shape}")
    return crop


def _pair(axis: str, bounds: Any, size: int) -> tuple[int, int]:
    if isinstance(bounds, slice):
        if bounds.step not in (None, 1):
            raise ValueError(f"VoxelBox: slices must have no step, got {bounds} along {axis}")
        bounds = (bounds.start or 0, size if bounds.stop is None else bounds.stop)
    start, stop = (check_integer("VoxelBox", f"bounds along {axis}", bound) for bound in bounds)
    if not 0 <= start < stop <= size:
        raise ValueError(
            f"VoxelBox: bounds along {axis} must lie in order within the {size} voxels of the image, got "
            f"({start}, {stop})"
        )
    return start, stop
