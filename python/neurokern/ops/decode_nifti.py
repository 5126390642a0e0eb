"""Decode the volumes of a NIfTI image: of a mask's voxels, or whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern._check import check_integer, check_memory, check_positive
from neurokern.ops import _library
from neurokern.ops._library import torch
from neurokern.ops._nifti_box import VoxelBox, as_box
from neurokern.ops._nifti_clean import check_cleaning, check_confounds, clean_rows, make_basis
from neurokern.ops._nifti_device import clean_there, decode_on_gpu, send
from neurokern.ops._nifti_file import DECODED_TYPES, NiftiFile
from neurokern.ops._nifti_fit import CleaningFit, fit_cleaning
from neurokern.ops._nifti_header import NiftiFormatError, NiftiHeader, check_decodable
from neurokern.ops._nifti_mask import VoxelMask
from neurokern.ops._nifti_parcels import ParcelAtlas
from neurokern.ops._nifti_resident import decode_voxels
from neurokern.ops._nifti_resident_parcels import ParcelIndex, decode_parcels, parcel_index
from neurokern.ops._packed_run import PackedRun, decode_weighted
from neurokern.ops._run_windows import gather_windows
from neurokern.ops._stored_run import StoredRun

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = [
    "CleaningFit",
    "NiftiFile",
    "NiftiFormatError",
    "NiftiHeader",
    "PackedRun",
    "ParcelAtlas",
    "ParcelIndex",
    "StoredRun",
    "VoxelBox",
    "VoxelMask",
    "decode_nifti",
    "decode_parcels",
    "decode_voxels",
    "fit_cleaning",
    "gather_windows",
    "parcel_index",
]


def decode_nifti(
    image: str | os.PathLike[str] | NiftiFile,
    mask: Any = None,
    *,
    labels: Any = None,
    crop: Any = None,
    start: int = 0,
    stop: int | None = None,
    detrend: bool | str = False,
    standardize: bool = False,
    confounds: Any = None,
    high_pass: float | None = None,
    low_pass: float | None = None,
    tr: float | None = None,
    cache: bool = False,
    dtype: Any = None,
    device: Any = None,
    out: Array | None = None,
) -> Array:
    """Decode volumes of a NIfTI image in one pass: bytes, byte order, scale, mask.

    Values are ``slope * raw + inter``, rounded once to float32: those of nibabel's ``get_fdata`` within one
    unit in the last place.

    Parameters
    ----------
    image : path or NiftiFile
        ``.nii``, ``.nii.gz`` or a pair ``.hdr``/``.img``; a :class:`NiftiFile` stays open between calls.
    mask : VoxelMask, array, tensor, path or nibabel image of shape (x, y, z), optional
        Voxels to decode, in the order of numpy's ``volume[mask]`` (and so of nilearn's). A mask with an
        affine must have that of the image. Without a mask all voxels are decoded.
    labels : ParcelAtlas, array, tensor, path or nibabel image, optional
        Mean signals of parcels instead: whole numbers (x, y, z), or weights (x, y, z, parcels). Columns are
        the parcels in ascending order of their numbers. Not with ``mask``.
    crop : VoxelBox, three pairs (start, stop), or a mask as above, optional
        Decode this box of each volume alone; of a mask, the smallest box that holds it. Not with ``mask`` and
        ``labels``. ``VoxelBox.put_back`` puts the result into whole volumes.
    start, stop : int, default 0 and all
        Volumes (TRs) ``start`` ... ``stop - 1``.
    detrend : bool or {"linear", "cosine"}, default False
        Remove mean and slope (True), or mean and all cosines slower than ``high_pass``.
    standardize : bool, default False
        Remove the mean and divide by the standard deviation (of a sample: n - 1). A voxel without any
        variance becomes 0, one with NaN becomes NaN.
    confounds : array of shape (trs, n), optional
        Signals to be projected out, with the trends at once, so that none brings another back.
    high_pass : float, optional
        Cut-off in Hz of ``detrend="cosine"``.
    low_pass : float, optional
        Remove the mean and all cosines faster than this, in Hz; with ``high_pass`` a band-pass.
    tr : float, optional
        Seconds between volumes for both; default the header's. Sidecars know better.
    cache : bool, default False
        Read from the packed run in the cache, see :meth:`NiftiFile.pack`, which is made first if need be.
    dtype : torch or numpy dtype, default float32
        float32, float16 or bfloat16 (torch), or float32 or float16 (numpy); which of the two decides what is
        returned. Without torch installed the default is numpy's.
    device : torch.device or str, optional
        Where the result shall lie. Voxels go to a GPU as the file has them, from pinned memory and in pieces,
        and are scaled there while the next piece is read, and cleaned; means of parcels are made on the CPU.
        The work is put on torch's current stream, and our CUDA and Triton kernels give the bits of the CPU.
    out : tensor or array, optional
        On the CPU; written and returned; rows may be apart, voxels must be next to each other.

    Returns
    -------
    values : (trs, voxels) or (trs, parcels), or (trs, x, y, z) without either, of the box with ``crop``
        Detrending, standardizing and confounds refer to the decoded window alone.

    Raises
    ------
    FileNotFoundError, PermissionError, OSError
        If the file cannot be read.
    NiftiFormatError
        If it is damaged, cut short, changed while open, or of a type that is no real number.
    ValueError, TypeError
        If an argument does not fit the image; the message shows both.
    RuntimeError
        If ``device`` is a GPU and torch finds none.

    Examples
    --------
    >>> bold = decode_nifti("bold.nii.gz", mask="brain_mask.nii.gz")  # doctest: +SKIP
    >>> bold.shape  # doctest: +SKIP
    torch.Size([300, 150000])
    """
    file = image if isinstance(image, NiftiFile) else NiftiFile(image)
    header = file.header
    check_decodable(file.path, header)
    start, stop = _window(start, stop, header)
    atlas = _atlas_of(labels, mask, header)
    box = _box_of(crop, mask, atlas, header)
    voxels = box.mask if box is not None else atlas.mask if atlas is not None else _voxels_of(mask, header)
    basis = _basis(detrend, standardize, confounds, high_pass, low_pass, tr, start, stop, header)
    grid = None if mask is not None or atlas is not None else header.shape if box is None else box.shape
    shape = (stop - start, voxels.n_voxels if atlas is None else atlas.n_parcels)
    name = _dtype_name(dtype, out)
    source = file.pack(voxels if atlas is None else atlas) if cache and shape[0] else file
    elsewhere = _is_elsewhere(device, out)
    like = _library.gpu_like(device) if elsewhere else None
    if like is not None and atlas is None:
        rows = _decode_there(like, source, voxels, start, shape, name, basis, standardize)
    else:  # means of parcels are made where the bytes are, and are small
        rows = _allocate(shape, name, dtype) if out is None else _check_out(out, grid, shape)
        if shape[0]:
            _decode_here(source, voxels, atlas, start, rows, name, basis, standardize)
        rows = _send(rows, like, device) if elsewhere else rows
    if file is not image:
        file.save_seek_points()
    if out is not None:
        return out
    return rows if grid is None else rows.reshape(shape[0], *grid)


def _decode_here(
    source: NiftiFile | PackedRun,
    voxels: VoxelMask,
    atlas: ParcelAtlas | None,
    start: int,
    rows: Any,
    name: str,
    basis: Any,
    standardize: bool,
) -> None:
    """Fill rows on the CPU."""
    # Cleaning and parcels are computed in float32; other types are rounded at the end.
    values = rows if name == "float32" or (atlas is None and basis is None) else _float_rows(rows)
    if isinstance(source, PackedRun):
        source.decode_into(values, start)
    elif atlas is None:
        source.decode_into(values, voxels, start, DECODED_TYPES[name if values is rows else "float32"])
    elif atlas.weights is None:
        source.decode_into(values, voxels, start, DECODED_TYPES["float32"], atlas.native())
    else:
        decode_weighted(source, atlas, atlas.weights, start, values)
    if basis is not None:
        clean_rows(values, basis, standardize)
    if values is not rows:
        rows[...] = values


def _decode_there(
    like: Any,
    source: NiftiFile | PackedRun,
    voxels: VoxelMask,
    start: int,
    shape: tuple[int, ...],
    name: str,
    basis: Any,
    standardize: bool,
) -> Any:
    """Return the values of voxels, scaled and cleaned on the GPU of ``like``."""
    values = _library.new_array(like, shape, name if basis is None else "float32")
    if shape[0]:
        decode_on_gpu(source, voxels, start, values)
        if basis is not None:
            clean_there(values, basis, standardize)
    return values.to(getattr(torch, name))


def _send(rows: Any, like: Any, device: Any) -> Any:
    """Return a copy of rows on a device other than the CPU."""
    return send(rows, like) if like is not None else torch.as_tensor(rows).to(device)


def _is_elsewhere(device: Any, out: Any) -> bool:
    """Return whether the result shall lie on another device than the CPU."""
    if device is None:
        return False
    if torch is None:
        raise ValueError(f"decode_nifti: device must be left out without PyTorch, got {device!r}")
    elsewhere = torch.device(device).type != "cpu" or _library.gpu_like(device) is not None
    if elsewhere and out is not None:
        raise ValueError("decode_nifti: give device or out, not both; out says where the result lies")
    return elsewhere


def _atlas_of(labels: Any, mask: Any, header: NiftiHeader) -> ParcelAtlas | None:
    if labels is None:
        return None
    if mask is not None:
        raise ValueError("decode_nifti: give mask or labels, not both; set labels outside of the mask to 0")
    atlas = labels if isinstance(labels, ParcelAtlas) else ParcelAtlas(labels)
    atlas.mask.check_fits("labels", header.shape, header.affine)
    return atlas


def _box_of(crop: Any, mask: Any, atlas: ParcelAtlas | None, header: NiftiHeader) -> VoxelBox | None:
    if crop is None:
        return None
    if mask is not None or atlas is not None:
        raise ValueError("decode_nifti: give crop alone, without mask and labels; they say what to take")
    box = as_box(crop, header.shape)
    box.mask.check_fits("crop", header.shape, header.affine)
    return box


def _basis(
    detrend: bool | str,
    standardize: bool,
    confounds: Any,
    high_pass: float | None,
    low_pass: float | None,
    tr: float | None,
    start: int,
    stop: int,
    header: NiftiHeader,
) -> Any:
    check_cleaning("decode_nifti", detrend, standardize, high_pass, low_pass)
    seconds = header.tr if tr is None else check_positive("decode_nifti", "tr", tr)
    if seconds is None and (high_pass is not None or low_pass is not None):
        raise ValueError("decode_nifti: tr must be given for high_pass and low_pass, the header holds none")
    columns = check_confounds(confounds, start, stop, header.n_volumes)
    return make_basis(stop - start, detrend, columns, standardize, high_pass, seconds, low_pass=low_pass)


def _float_rows(rows: Any) -> Any:
    if isinstance(rows, np.ndarray):
        return np.empty(rows.shape, dtype=np.float32)
    return torch.empty(rows.shape, dtype=torch.float32)


def _voxels_of(mask: Any, header: NiftiHeader) -> VoxelMask:
    if mask is None:
        return VoxelMask.all(header.shape)
    voxels = mask if isinstance(mask, VoxelMask) else VoxelMask(mask)
    voxels.check_fits("mask", header.shape, header.affine)
    return voxels


def _window(start: Any, stop: Any, header: NiftiHeader) -> tuple[int, int]:
    start = check_integer("decode_nifti", "start", start)
    stop = header.n_volumes if stop is None else check_integer("decode_nifti", "stop", stop)
    if not 0 <= start <= stop <= header.n_volumes:
        raise ValueError(
            f"decode_nifti: start and stop must lie in order within the {header.n_volumes} volumes of the "
            f"image, got {start} and {stop}"
        )
    return start, stop


def _dtype_name(dtype: Any, out: Any) -> str:
    if out is not None and not hasattr(out, "dtype"):
        raise TypeError(
            f"decode_nifti: out must be a torch tensor or a numpy array, got {type(out).__name__}"
        )
    given = dtype if dtype is not None else (None if out is None else out.dtype)
    if given is None:
        return "float32"
    try:
        name = str(given).removeprefix("torch.") if _is_torch_dtype(given) else np.dtype(given).name
    except TypeError:
        raise TypeError(
            f"decode_nifti: dtype must be a torch or numpy dtype of {', '.join(DECODED_TYPES)}, got {given!r}"
        ) from None
    if out is not None and dtype is not None and str(out.dtype).removeprefix("torch.") != name:
        raise ValueError(f"decode_nifti: out must have dtype {name}, got {out.dtype}")
    if name not in DECODED_TYPES:
        raise ValueError(f"decode_nifti: dtype must be one of {', '.join(DECODED_TYPES)}, got {name}")
    return name


def _is_torch_dtype(dtype: Any) -> bool:
    return torch is not None and isinstance(dtype, torch.dtype)


def _allocate(shape: tuple[int, ...], name: str, dtype: Any) -> Any:
    size = 4 if name == "float32" else 2
    check_memory(
        "decode_nifti",
        "the result",
        shape[0] * shape[1] * size,
        "decode a window with start and stop, or a mask",
    )
    if torch is None or (dtype is not None and not _is_torch_dtype(dtype)):
        return np.empty(shape, dtype=name)
    rows = torch.empty(shape, dtype=getattr(torch, name))
    _library.core.advise_huge_pages(rows.data_ptr(), rows.nbytes)
    return rows


def _check_out(out: Any, grid: tuple[int, int, int] | None, shape: tuple[int, ...]) -> Any:
    is_tensor = torch is not None and isinstance(out, torch.Tensor)
    if not (is_tensor or isinstance(out, np.ndarray)):
        raise TypeError(
            f"decode_nifti: out must be a torch tensor or a numpy array, got {type(out).__name__}"
        )
    wanted = shape if grid is None else (shape[0], *grid)
    if tuple(out.shape) != wanted:
        raise ValueError(f"decode_nifti: out must have the shape {wanted}, got {tuple(out.shape)}")
    if is_tensor and out.device.type != "cpu":
        raise ValueError(f"decode_nifti: out must lie on the CPU, got {out.device}")
    contiguous = out if grid is None else out.reshape(shape)
    shares = contiguous.data_ptr() == out.data_ptr() if is_tensor else np.shares_memory(contiguous, out)
    strides = contiguous.stride() if is_tensor else tuple(s // out.itemsize for s in contiguous.strides)
    apart = (shape[1] > 1 and strides[1] != 1) or (shape[0] > 1 and strides[0] < shape[1])
    if shape[0] * shape[1] > 0 and (apart or not shares):
        raise ValueError("decode_nifti: out must have its voxels next to each other; pass a contiguous one")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError("decode_nifti: out must be writeable")
    if is_tensor:  # numpy asks for huge pages by itself; memory that was written before keeps its pages
        _library.core.advise_huge_pages(contiguous.data_ptr(), contiguous.nbytes)
    return contiguous
