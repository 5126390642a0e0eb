"""Values in memory as a file has them, on the CPU or a GPU: byte order, scale, choice of voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern.ops import _library
from neurokern.ops._library import torch
from neurokern.ops._nifti_header import VOXEL_TYPES, NiftiHeader

if TYPE_CHECKING:
    from torch import Tensor

DECODED_TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}


def decode_voxels(
    raw: Tensor, header: NiftiHeader, positions: Tensor | None = None, *, dtype: Any = None
) -> Tensor:
    """Decode raw values that lie in memory already: half the bytes of float32 cross the bus to a GPU.

    Keep the raw values of a run on a GPU and take windows there, or gather voxels on the CPU
    (``NiftiFile.read_raw``), copy them, and decode on arrival.

    Parameters
    ----------
    raw : tensor of shape (trs, values)
        Values as the file has them, in its byte order; of the header's type, or of integers as wide.
    header : NiftiHeader
        Type, byte order and scale.
    positions : int64 tensor of shape (voxels,), optional
        Columns of ``raw`` to take, on its device: ``VoxelMask.positions`` for whole volumes. All without.
        Positions outside of a row are not looked at on a GPU: what they give is not defined, but no other
        memory than ``raw`` is read.
    dtype : torch.dtype, default float32
        float32, float16 or bfloat16.

    Returns
    -------
    values : tensor of shape (trs, voxels), on the device of ``raw``

    Raises
    ------
    ValueError
        If shapes, widths, devices or the dtype do not fit.
    """
    dtype = torch.float32 if dtype is None else dtype
    name = str(dtype).removeprefix("torch.")
    if name not in DECODED_TYPES:
        raise ValueError(f"decode_voxels: dtype must be one of {', '.join(DECODED_TYPES)}, got {dtype}")
    if header.dtype not in VOXEL_TYPES:
        raise ValueError(f"decode_voxels: header must be of a real type, got {header.dtype}")
    width = np.dtype(header.dtype).itemsize
    if raw.ndim != 2 or raw.element_size() != width:
        raise ValueError(
            f"decode_voxels: raw must have the shape (trs, values) of {width} bytes each, got "
            f"{tuple(raw.shape)} of {raw.element_size()}"
        )
    if positions is not None and (positions.dtype != torch.int64 or positions.device != raw.device):
        raise ValueError(
            f"decode_voxels: positions must be int64 on {raw.device}, got {positions.dtype} on "
            f"{positions.device}"
        )
    return torch.ops.neurokern.decode_voxels(
        raw.contiguous(),
        positions,
        VOXEL_TYPES[header.dtype],
        header.swapped,
        header.slope,
        header.inter,
        dtype,
    )


def _decode(
    raw: Tensor, positions: Tensor | None, kind: int, swapped: bool, slope: float, inter: float, dtype: Any
) -> Tensor:
    decoded = DECODED_TYPES[str(dtype).removeprefix("torch.")]
    n_volumes, n_values = raw.shape
    n_voxels = n_values if positions is None else len(positions)
    out: Tensor = _library.new_array(raw, (n_volumes, n_voxels), dtype)
    if out.numel() == 0:
        return out
    if _library.runs_on_gpu(raw):
        positions = None if positions is None else positions.contiguous()
        with _library.gpu_module(raw) as (module, stream):
            module.decode_resident(
                raw=_library.address(raw),
                volume_values=n_values,
                n_volumes=n_volumes,
                n_voxels=n_voxels,
                type=kind,
                swapped=swapped,
                slope=slope,
                inter=inter,
                positions=_library.address(positions),
                out=_library.address(out),
                out_stride=n_voxels,
                decoded=decoded,
                stream=stream,
            )
        return out
    chosen = raw if positions is None else raw.index_select(1, positions)
    run = np.array([[0], [n_voxels]], dtype=np.int64)  # one run of all
    volumes = _library.core.DecodeVolumes(
        mapped=chosen.data_ptr(),
        descriptor=-1,
        offset=0,
        volume_values=n_voxels,
        n_volumes=n_volumes,
        type=kind,
        swapped=swapped,
        slope=slope,
        inter=inter,
        run_starts=run[0].ctypes.data,
        run_lengths=run[1].ctypes.data,
        n_runs=1,
        n_voxels=n_voxels,
        order=0,
        out=out.data_ptr(),
        out_stride=n_voxels,
        decoded=decoded,
    )
    _library.core.decode_volumes(volumes, None, _library.thread_count())
    return out


def _fake(
    raw: Tensor, positions: Tensor | None, kind: int, swapped: bool, slope: float, inter: float, dtype: Any
) -> Tensor:
    n_voxels = raw.shape[1] if positions is None else positions.shape[0]
    return torch.empty((raw.shape[0], n_voxels), dtype=dtype, device=raw.device)


_library.register(
    "decode_voxels(Tensor raw, Tensor? positions, int kind, bool swapped, float slope, float inter, "
    "ScalarType dtype) -> Tensor",
    cpu=_decode,
    cuda=_decode,
    fake=_fake,
    backward=None,
)
