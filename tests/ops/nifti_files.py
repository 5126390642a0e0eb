"""Small NIfTI files, written byte by byte so that every field can be set to anything."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np

CODES = {
    "uint8": 2,
    "int16": 4,
    "int32": 8,
    "float32": 16,
    "float64": 64,
    "int8": 256,
    "uint16": 512,
    "uint32": 768,
    "int64": 1024,
    "uint64": 1280,
}


def header_bytes(
    shape: tuple[int, ...],
    dtype: str,
    *,
    version: int = 1,
    order: str = "<",
    slope: float = 0.0,
    inter: float = 0.0,
    **fields: Any,
) -> bytearray:
    """Return a header of 348 or 540 bytes; ``fields`` overwrite what is derived."""
    dim = list(fields.get("dim", [len(shape), *shape, *[1] * (7 - len(shape))]))
    pixdim = fields.get("pixdim", [1.0, 2.0, 2.0, 3.0, 1.5, 0.0, 0.0, 0.0])
    size = 348 if version == 1 else 540
    offset = fields.get("vox_offset", size + 4)
    code = fields.get("datatype", CODES[dtype])
    header = bytearray(size)

    def put(at: int, form: str, *values: Any) -> None:
        struct.pack_into(order + form, header, at, *values)

    affine = fields.get("sform", [2.0, 0, 0, -9, 0, 2, 0, 4, 0, 0, 3, 7])
    bits = 8 * np.dtype(dtype).itemsize
    put(0, "i", size)
    if version == 1:
        put(40, "8h", *dim)
        put(70, "2h", code, bits)
        put(76, "8f", *pixdim)
        put(108, "3f", offset, slope, inter)
        put(123, "B", fields.get("units", 10))
        put(252, "2h", fields.get("qform_code", 0), fields.get("sform_code", 1))
        put(256, "6f", *fields.get("qform", [0.0] * 6))
        put(280, "12f", *affine)
        header[344:348] = fields.get("magic", b"n+1\0")
    else:
        header[4:12] = fields.get("magic", b"n+2\0") + b"\r\n\x1a\n"
        put(12, "2h", code, bits)
        put(16, "8q", *dim)
        put(104, "8d", *pixdim)
        put(168, "q", int(offset))
        put(176, "2d", slope, inter)
        put(344, "2i", fields.get("qform_code", 0), fields.get("sform_code", 1))
        put(352, "6d", *fields.get("qform", [0.0] * 6))
        put(400, "12d", *affine)
        put(500, "i", fields.get("units", 10))
    return header


def write_nifti(path: Path, raw: np.ndarray, *, order: str = "<", padding: int = 4, **fields: Any) -> Path:
    """Write raw values (x, y, z, t), as they stand, behind a header; compressed if the name ends with .gz."""
    header = header_bytes(raw.shape, raw.dtype.name, order=order, **fields)
    values = raw.astype(raw.dtype.newbyteorder(order)).tobytes(order="F")
    whole = bytes(header) + b"\0" * padding + values
    path.write_bytes(gzip.compress(whole) if path.suffix == ".gz" else whole)
    return path


def random_raw(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return values over the whole range of the type."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (rng.normal(size=shape) * 100).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def scattered_mask(shape: tuple[int, int, int], n: int = 40) -> Any:
    """Return a mask of ``n`` voxels anywhere."""
    from neurokern.ops import VoxelMask

    mask = np.zeros(np.prod(shape), bool)
    mask[np.random.default_rng(1).permutation(mask.size)[:n]] = True
    return VoxelMask(mask.reshape(shape))


def as_tensor(raw: np.ndarray) -> Any:
    """Return values of any type and byte order as integers of their width, (trs, values)."""
    import torch

    rows = raw.reshape(int(np.prod(raw.shape[:3])), raw.shape[3], order="F").T
    width = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}[raw.dtype.itemsize]
    return torch.from_numpy(np.ascontiguousarray(rows).view(width).copy())


def header_like(dtype: str, slope: float, inter: float, byte_order: str = "little") -> Any:
    """Return the header of values that lie in memory."""
    from neurokern.ops import NiftiHeader

    grid = ((1, 1, 1), 1, False, dtype, slope, inter, np.eye(4), "none", (1, 1, 1), "mm")
    return NiftiHeader(*grid, None, 1, byte_order, 352, 0, "")
