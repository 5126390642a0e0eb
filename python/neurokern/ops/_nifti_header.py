"""What a NIfTI file says of itself, and the error of a file that says nonsense."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# name of the file's type -> code of csrc/decode_nifti/decode_nifti.h
VOXEL_TYPES = {
    "uint8": 0,
    "int8": 1,
    "uint16": 2,
    "int16": 3,
    "uint32": 4,
    "int32": 5,
    "uint64": 6,
    "int64": 7,
    "float32": 8,
    "float64": 9,
}
_TIME_UNITS = {8: ("s", 1.0), 16: ("ms", 1e-3), 24: ("us", 1e-6), 32: ("Hz", math.nan)}  # and seconds
_SPACE_UNITS = {1: "m", 2: "mm", 3: "um"}


class NiftiFormatError(ValueError):
    """A NIfTI file is damaged, or cannot be decoded; the message names file, field and value."""


@dataclass(frozen=True)
class NiftiHeader:
    """The header of a NIfTI-1 or NIfTI-2 file.

    Attributes
    ----------
    shape : tuple of int
        Voxels along x, y and z.
    n_volumes : int
        Volumes (TRs); 1 for an image without a time axis.
    has_time : bool
        Whether the file has a time axis.
    dtype : str
        Type of the values in the file, such as ``"int16"``.
    slope, inter : float
        A value is ``slope * raw + inter``; 1 and 0 where the file asks for no scaling.
    affine : float64 array of shape (4, 4)
        From voxels to millimeters: sform, else qform, else the voxel sizes about the middle of the image.
    affine_source : {"sform", "qform", "none"}
        Where ``affine`` comes from.
    zooms : tuple of float
        Size of a voxel along x, y and z, in ``spatial_unit``.
    spatial_unit : str or None
        ``"mm"``, ``"m"``, ``"um"``, or None where the file does not say.
    tr : float or None
        Seconds between volumes by the header; None without a time axis or a plausible entry. The sidecar of a
        BIDS file is to be believed before it: headers are often wrong.
    version : int
        1 or 2.
    byte_order : {"little", "big"}
        Of the file.
    offset, n_bytes : int
        Where the values start, and their bytes in all.
    description : str
        The free text of the header.
    sform_code, qform_code : int
        Where the two matrices lead: 0 nowhere, 1 scanner, 2 another image, 3 Talairach, 4 MNI, 5 template.
    time_unit : str or None
        ``"s"``, ``"ms"``, ``"us"`` or ``"Hz"``, or None where the file does not say; ``tr`` is in seconds.
    """

    shape: tuple[int, int, int]
    n_volumes: int
    has_time: bool
    dtype: str
    slope: float
    inter: float
    affine: NDArray[np.float64]
    affine_source: str
    zooms: tuple[float, float, float]
    spatial_unit: str | None
    tr: float | None
    version: int
    byte_order: str
    offset: int
    n_bytes: int
    description: str
    sform_code: int = 0
    qform_code: int = 0
    time_unit: str | None = None

    @property
    def swapped(self) -> bool:
        """Whether bytes have to be turned on this machine."""
        return self.byte_order != _NATIVE

    @property
    def in_memory(self) -> NiftiHeader:
        """The header of values that were brought into this machine's byte order."""
        return replace(self, byte_order=_NATIVE)

    @property
    def n_voxels(self) -> int:
        """Voxels of a volume."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def orientation(self) -> str:
        """Where each axis of the array leads, nearest to which: ``"RAS"`` is right, anterior, superior."""
        return "".join(_ENDS[axis][0 if sign > 0 else 1] for axis, sign in nearest_axes(self.affine))

    @property
    def obliqueness(self) -> float:
        """Degrees between the scanner's axes and those of the array, of the pair that is farthest apart."""
        columns = self.affine[:3, :3]
        lengths = np.linalg.norm(columns, axis=0)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            return math.nan
        along = [abs(columns[axis, i]) / lengths[i] for i, (axis, _) in enumerate(nearest_axes(self.affine))]
        return math.degrees(math.acos(min(min(along), 1.0)))


_ENDS = ("RL", "AP", "SI")


def nearest_axes(affine: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return for each axis of an array the axis of space (0 right, 1 front, 2 up) and the sign.

    Axes are given away in the order of how well they fit, so that each is taken once.
    """
    fit = np.nan_to_num(affine[:3, :3], posinf=0, neginf=0)
    lengths = np.linalg.norm(fit, axis=0)
    fit = fit / np.where(lengths > 0, lengths, 1)
    left = np.abs(fit)
    axes = [(0, 1)] * 3
    for _ in range(3):
        space, own = (int(i) for i in np.unravel_index(left.argmax(), left.shape))
        axes[own] = (space, -1 if fit[space, own] < 0 else 1)
        left[space, :] = -1
        left[:, own] = -1
    return axes


_NATIVE = "little" if np.dtype("=i2").str[0] == "<" else "big"


def header_of(native: Any) -> NiftiHeader:
    """Return the header as Python has it, from ``_core.NiftiHeader``."""
    n_x, n_y, n_z, n_volumes = native.shape
    other = {"little": "big", "big": "little"}[_NATIVE]
    affine = np.vstack([np.array(native.affine), [0.0, 0.0, 0.0, 1.0]])
    has_time = native.n_dims > 3
    time_unit, seconds = _TIME_UNITS.get(native.time_unit, (None, 1.0))
    tr = native.zooms[3] * seconds
    return NiftiHeader(
        shape=(n_x, n_y, n_z),
        n_volumes=n_volumes,
        has_time=has_time,
        dtype=native.dtype,
        slope=native.slope,
        inter=native.inter,
        affine=affine,
        affine_source={3: "sform", 2: "qform", 0: "none"}[native.affine_source],
        sform_code=native.sform_code,
        qform_code=native.qform_code,
        zooms=tuple(native.zooms[:3]),
        spatial_unit=_SPACE_UNITS.get(native.spatial_unit),
        time_unit=time_unit,
        tr=tr if has_time and np.isfinite(tr) and tr > 0 else None,
        version=native.version,
        byte_order=other if native.swapped else _NATIVE,
        offset=native.offset,
        n_bytes=native.n_bytes,
        description=native.description,
    )


def check_decodable(path: Path, header: NiftiHeader) -> None:
    """Raise for types whose values are not single real numbers."""
    if header.dtype not in VOXEL_TYPES:
        raise NiftiFormatError(
            f"{path}: datatype must be a real number of up to 64 bits to be decoded, got {header.dtype}; "
            "convert the image first (for complex images, take magnitude or phase)"
        )
