"""Values in memory as a file has them, on the CPU or a GPU: byte order, scale, choice of voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurokern.ops import _library
from neurokern.ops._library import torch
from neurokern.ops._nifti_header import VOXEL_TYPES, NiftiHeader
from neurokern.ops._nifti_reference import decoded_reference

if TYPE_CHECKING:
    from torch import Tensor

DECODED_TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}


class Stored(NamedTuple):
    """How values are stored: code of their type, byte order, scale."""

    kind: int
    swapped: bool
    slope: float
    inter: float

    @classmethod
    def of(cls, header: NiftiHeader) -> Stored:
        """Take them from a header."""
        return cls(VOXEL_TYPES[header.dtype], header.swapped, header.slope, header.inter)


def decode_voxels(
    raw: Tensor,
    header: NiftiHeader,
    positions: Tensor | None = None,
    *,
    dtype: Any = None,
    backend: str | None = None,
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
    backend : {None, "native", "triton", "reference"}, default None
        None takes our CUDA kernels on a GPU, else Triton's, else PyTorch's own operations.

    Returns
    -------
    values : tensor of shape (trs, voxels), on the device of ``raw``
        The same bits from every backend and device.

    Raises
    ------
    ValueError
        If shapes, widths, devices or the dtype do not fit.
    """
    dtype = torch.float32 if dtype is None else dtype
    name = str(dtype).removeprefix("torch.")
    if name not in DECODED_TYPES:
        raise ValueError(f"decode_voxels: dtype must be one of {', '.join(DECODED_TYPES)}, got {dtype}")
    check_raw("decode_voxels", raw, header)
    if positions is not None and (positions.dtype != torch.int64 or positions.device != raw.device):
        raise ValueError(
            f"decode_voxels: positions must be int64 on {raw.device}, got {positions.dtype} on "
            f"{positions.device}"
        )
    return torch.ops.neurokern.decode_voxels(raw.contiguous(), positions, *Stored.of(header), dtype, backend)


def check_raw(function: str, raw: Tensor, header: NiftiHeader) -> None:
    """Raise ValueError unless ``raw`` can hold what the header says."""
    if header.dtype not in VOXEL_TYPES:
        raise ValueError(f"{function}: header must be of a real type, got {header.dtype}")
    width = np.dtype(header.dtype).itemsize
    if raw.ndim != 2 or raw.element_size() != width:
        raise ValueError(
            f"{function}: raw must have the shape (trs, values) of {width} bytes each, got "
            f"{tuple(raw.shape)} of {raw.element_size()}"
        )


def decode_to(
    out: Tensor, raw: Tensor, positions: Tensor | None, stored: Stored, backend: str | None = None
) -> None:
    """Write the decoded values of contiguous ``raw`` into contiguous ``out``, on the same device."""
    if out.numel() == 0:
        return
    chosen = _library.choose_backend("decode_voxels", _library.device_type(raw), backend)
    positions = None if positions is None else positions.contiguous()
    if chosen == "reference":
        out.copy_(decoded_reference(raw, positions, *stored))
    elif chosen == "triton":
        _library.triton_kernels("decode_nifti").decode(raw, positions, out, *stored)
    elif _library.runs_on_gpu(raw):
        _decode_on_gpu(out, raw, positions, stored)
    else:
        _decode_on_cpu(out, raw, positions, stored)


def _decode_on_gpu(out: Tensor, raw: Tensor, positions: Tensor | None, stored: Stored) -> None:
    with _library.gpu_module(raw) as (module, stream):
        module.decode_resident(
            raw=_library.address(raw),
            volume_values=raw.shape[1],
            n_volumes=out.shape[0],
            n_voxels=out.shape[1],
            type=stored.kind,
            swapped=stored.swapped,
            slope=stored.slope,
            inter=stored.inter,
            positions=_library.address(positions),
            out=_library.address(out),
            out_stride=out.shape[1],
            decoded=DECODED_TYPES[str(out.dtype).removeprefix("torch.")],
            stream=stream,
        )


def _decode_on_cpu(out: Tensor, raw: Tensor, positions: Tensor | None, stored: Stored) -> None:
    chosen = raw if positions is None else raw.index_select(1, positions)
    decoded = DECODED_TYPES[str(out.dtype).removeprefix("torch.")]
    decode_columns(chosen, out, stored, decoded, None)


def decode_columns(raw: Tensor, out: Tensor, stored: Stored, decoded: int, parcels: Any) -> None:
    """Decode all columns of ``raw`` by the CPU's kernel, or reduce them to means of parcels."""
    n_volumes, n_values = raw.shape
    run = np.array([[0], [n_values]], dtype=np.int64)  # one run of all
    volumes = _library.core.DecodeVolumes(
        mapped=raw.data_ptr(),
        descriptor=-1,
        offset=0,
        volume_values=n_values,
        n_volumes=n_volumes,
        type=stored.kind,
        swapped=stored.swapped,
        slope=stored.slope,
        inter=stored.inter,
        run_starts=run[0].ctypes.data,
        run_lengths=run[1].ctypes.data,
        n_runs=1,
        n_voxels=n_values,
        order=0,
        out=out.data_ptr(),
        out_stride=out.shape[1],
        decoded=decoded,
    )
    _library.core.decode_volumes(volumes, parcels, _library.thread_count())


def _decode(
    raw: Tensor,
    positions: Tensor | None,
    kind: int,
    swapped: bool,
    slope: float,
    inter: float,
    dtype: Any,
    backend: str | None,
) -> Tensor:
    n_voxels = raw.shape[1] if positions is None else len(positions)
    out: Tensor = _library.new_array(raw, (raw.shape[0], n_voxels), dtype)
    decode_to(out, raw, positions, Stored(kind, swapped, slope, inter), backend)
    return out


def _fake(raw: Tensor, positions: Tensor | None, *settings: Any) -> Tensor:
    n_voxels = raw.shape[1] if positions is None else positions.shape[0]
    return torch.empty((raw.shape[0], n_voxels), dtype=settings[-2], device=raw.device)


_library.register(
    "decode_voxels(Tensor raw, Tensor? positions, int kind, bool swapped, float slope, float inter, "
    "ScalarType dtype, str? backend) -> Tensor",
    cpu=_decode,
    cuda=_decode,
    fake=_fake,
    backward=None,
)
