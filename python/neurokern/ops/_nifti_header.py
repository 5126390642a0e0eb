"""What a NIfTI file says of itself, and the error of a file that says nonsense."""

from __future__ import annotations

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
_TIME_UNITS = {8: 1.0, 16: 1e-3, 24: 1e-6}  # seconds
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


_NATIVE = "little" if np.dtype("=i2").str[0] == "<" else "big"


def header_of(native: Any) -> NiftiHeader:
    """Return the header as Python has it, from ``_core.NiftiHeader``."""
    n_x, n_y, n_z, n_volumes = native.shape
    other = {"little": "big", "big": "little"}[_NATIVE]
    affine = np.vstack([np.array(native.affine), [0.0, 0.0, 0.0, 1.0]])
    has_time = native.n_dims > 3
    tr = native.zooms[3] * _TIME_UNITS.get(native.time_unit, 1.0)
    return NiftiHeader(
        shape=(n_x, n_y, n_z),
        n_volumes=n_volumes,
        has_time=has_time,
        dtype=native.dtype,
        slope=native.slope,
        inter=native.inter,
        affine=affine,
        affine_source={3: "sform", 2: "qform", 0: "none"}[native.affine_source],
        zooms=tuple(native.zooms[:3]),
        spatial_unit=_SPACE_UNITS.get(native.spatial_unit),
        tr=tr if has_time and np.isfinite(tr) and tr > 0 and native.time_unit != 32 else None,
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
