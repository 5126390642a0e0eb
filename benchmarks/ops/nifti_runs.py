"""A made fMRI run as a NIfTI file, and the voxels of a mask that looks like a brain."""

from __future__ import annotations

import gzip
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SLOPE, INTER = np.float32(0.037), np.float32(3.5)


@dataclass(frozen=True)
class Run:
    """A file and what lies in it."""

    path: Path
    mask: NDArray[np.bool_]
    places: NDArray[np.int64]  # of the mask's voxels in C order, within a volume of the file
    n_volumes: int
    dtype: str
    slope: np.float32
    inter: np.float32
    offset: int  # of the first value

    @property
    def n_voxels(self) -> int:
        return len(self.places)

    @property
    def n_values(self) -> int:
        return self.n_volumes * self.n_voxels

    @property
    def volume_bytes(self) -> int:
        return self.mask.size * np.dtype(self.dtype).itemsize

    @property
    def file_bytes(self) -> int:
        return self.n_volumes * self.volume_bytes

    @property
    def touched_bytes(self) -> int:
        """Cache lines of a volume that hold a voxel of the mask: what must be read."""
        return 64 * len(np.unique(self.places * np.dtype(self.dtype).itemsize // 64))

    @property
    def affine(self) -> NDArray[np.float64]:
        return np.diag([2.0, 2.0, 2.0, 1.0])

    def memmap(self) -> NDArray[np.generic]:
        return np.memmap(self.path, self.dtype, "r", self.offset, (self.n_volumes, self.mask.size))

    def expected(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        values = self.memmap()[start:stop, self.places].astype(np.float64)
        return (values * float(self.slope) + float(self.inter)).astype(np.float32)

    def compressed(self) -> Path:
        packed = self.path.with_suffix(".nii.gz")
        if not packed.exists():
            with self.path.open("rb") as raw, gzip.open(packed, "wb", compresslevel=6) as target:
                shutil.copyfileobj(raw, target, 1 << 24)
        return packed

    def at(self, path: Path) -> Run:
        return replace(self, path=path)


def brain_mask(shape: tuple[int, int, int], n_voxels: int, brain: int) -> NDArray[np.bool_]:
    """Return voxels with holes: the outer ones of ``brain`` voxels, which are those nearest to the middle."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    distance = sum(axis**2 for axis in axes) + 0.05 * np.random.default_rng(1).random(shape)
    mask = np.zeros(shape, bool)
    mask.ravel()[np.argsort(distance, axis=None)[brain - n_voxels : brain]] = True
    return mask


def make_run(
    folder: Path,
    shape: tuple[int, int, int] = (96, 96, 60),
    n_volumes: int = 300,
    n_voxels: int = 150_000,
    dtype: str = "<i2",
    *,
    brain: int | None = None,
    version: int = 1,
    with_nan: bool = False,
) -> Run:
    """Write the run, unless it lies there already; ``brain`` above ``n_voxels`` leaves its outer voxels."""
    mask = brain_mask(shape, n_voxels, n_voxels if brain is None else brain)
    places = np.ravel_multi_index(np.nonzero(mask), shape, order="F")
    name = f"run{shape}{n_volumes}{dtype}".translate(str.maketrans("(), <>", "______"))
    name += "big" * (dtype[0] == ">") + "nan" * with_nan + f"v{version}"
    path = folder / f"{name}.nii"
    if not path.exists():
        _write(path, shape, n_volumes, dtype, version, with_nan)
    return Run(path, mask, places, n_volumes, dtype, SLOPE, INTER, 352 if version == 1 else 544)


def _write(
    path: Path, shape: tuple[int, int, int], n_volumes: int, dtype: str, version: int, with_nan: bool
) -> None:
    import nibabel

    kind = nibabel.Nifti1Header if version == 1 else nibabel.Nifti2Header
    header = kind(endianness=dtype[0])
    header.set_data_dtype(np.dtype(dtype))
    header.set_data_shape((*shape, n_volumes))
    header.set_sform(np.diag([2.0, 2.0, 2.0, 1.0]), 1)
    header["magic"] = b"n+1" if version == 1 else b"n+2"
    header["vox_offset"] = len(header.binaryblock) + 4
    header["scl_slope"], header["scl_inter"] = SLOPE, INTER
    random = np.random.default_rng(0)
    mean = random.normal(800, 200, int(np.prod(shape))).astype(np.float32)
    with path.open("wb") as file:
        file.write(header.binaryblock + b"\0" * 4)
        for _ in range(n_volumes):
            volume = mean + random.normal(0, 20, mean.size)
            if with_nan:
                volume[random.integers(0, mean.size, mean.size // 100)] = np.nan
                volume[random.integers(0, mean.size, mean.size // 1000)] = np.inf
            file.write(volume.astype(dtype).tobytes())
