"""Mean signals of parcels, of values that lie in memory already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern import _core
from neurokern.ops import _library
from neurokern.ops._library import torch
from neurokern.ops._nifti_header import NiftiHeader
from neurokern.ops._nifti_parcels import LONGEST_RUN, ParcelAtlas
from neurokern.ops._nifti_reference import parcels_reference
from neurokern.ops._nifti_resident import DECODED_TYPES, Stored, check_raw, decode_columns, decode_voxels

if TYPE_CHECKING:
    from torch import Tensor


# positions (voxels,), run_starts (runs + 1,), parcel_runs (parcels + 1,), sizes (parcels,)
Parts = tuple[Any, Any, Any, Any]


@dataclass(frozen=True)
class ParcelIndex:
    """Where the voxels of each parcel lie, on one device; build it once with :func:`parcel_index`.

    Attributes
    ----------
    positions : int64 tensor of shape (voxels,)
        Columns of the values: parcel after parcel, each in the order of the file; of weights in the order of
        the mask.
    run_starts : int64 tensor of shape (runs + 1,)
        First voxel of each run of neighbors, and the number of voxels. Empty for weights.
    parcel_runs : int64 tensor of shape (parcels + 1,)
        First run of each parcel, and the number of runs. Empty for weights.
    sizes : float64 tensor of shape (parcels,)
        Voxels of each parcel, or sum of its weights.
    shares : float32 tensor of shape (voxels, parcels) or None
        Weights over their sum.
    n_values : int
        Columns that the values must have.
    """

    positions: Tensor
    run_starts: Tensor
    parcel_runs: Tensor
    sizes: Tensor
    shares: Tensor | None
    n_values: int


def parcel_index(atlas: ParcelAtlas, *, device: Any = None, packed: bool = False) -> ParcelIndex:
    """Prepare an atlas for :func:`decode_parcels`.

    Parameters
    ----------
    atlas : ParcelAtlas
        Labels or weights.
    device : torch.device or str, optional
        Where the values lie; default the CPU.
    packed : bool, default False
        Whether the values are those of the atlas's voxels alone (``file.read_raw(atlas.mask)``) instead of
        whole volumes in the order of the file.
    """
    mask = atlas.mask
    if atlas.weights is not None:
        positions = np.arange(mask.n_voxels) if packed else mask.positions
        shares = atlas.weights / atlas.sizes.astype(np.float32)
        none = np.empty(0, dtype=np.int64)
        return _index_on(device, mask, packed, (positions, none, none, atlas.sizes), shares)
    places = np.empty(mask.n_voxels, dtype=np.int64)  # of the voxels in file order
    places[mask.order] = np.arange(mask.n_voxels) if packed else mask.positions
    of_voxels = np.repeat(atlas.run_parcels, atlas.run_lengths)
    by_parcel = np.argsort(atlas.run_parcels, kind="stable")
    starts = np.concatenate([[0], np.cumsum(atlas.run_lengths[by_parcel], dtype=np.int64)])
    parcel_runs = np.searchsorted(atlas.run_parcels[by_parcel], np.arange(atlas.n_parcels + 1))
    positions = places[np.argsort(of_voxels, kind="stable")]
    return _index_on(device, mask, packed, (positions, starts, parcel_runs, atlas.sizes), None)


def _index_on(device: Any, mask: Any, packed: bool, arrays: tuple[Any, ...], shares: Any) -> ParcelIndex:
    positions, run_starts, parcel_runs, sizes = (
        torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays
    )
    there = None if shares is None else torch.from_numpy(shares).to(device)
    n_values = mask.n_voxels if packed else int(np.prod(mask.shape))
    return ParcelIndex(positions, run_starts, parcel_runs, sizes, there, n_values)


def decode_parcels(
    raw: Tensor, header: NiftiHeader, index: ParcelIndex, *, backend: str | None = None
) -> Tensor:
    """Return the mean signals of parcels, of raw values that lie in memory already.

    Parameters
    ----------
    raw : tensor of shape (trs, values)
        As for :func:`decode_voxels`: whole volumes, or the voxels of the atlas if the index is ``packed``.
    header : NiftiHeader
        Type, byte order and scale.
    index : ParcelIndex
        From :func:`parcel_index`, on the device of ``raw``.
    backend : {None, "native", "triton", "reference"}, default None
        As for :func:`decode_voxels`.

    Returns
    -------
    means : float32 tensor of shape (trs, parcels), on the device of ``raw``
        For labels the bits of ``decode_nifti(..., labels=...)`` from every backend and device: sums are exact
        for stored integers of up to 16 bits, and else taken in one order. For weights PyTorch's product of
        float32 matrices.

    Raises
    ------
    ValueError
        If shapes, widths or devices do not fit.
    """
    check_raw("decode_parcels", raw, header)
    if not isinstance(index, ParcelIndex):
        raise TypeError(f"decode_parcels: index must come from parcel_index, got {type(index).__name__}")
    if raw.shape[1] != index.n_values:
        raise ValueError(
            f"decode_parcels: raw must have the {index.n_values} values a volume of the index, got "
            f"{raw.shape[1]}; parcel_index(..., packed=True) is for the voxels of the atlas alone"
        )
    if index.positions.device != raw.device:
        raise ValueError(
            f"decode_parcels: index must be on the device of raw, {raw.device}, got {index.positions.device}"
        )
    if index.shares is not None:
        return decode_voxels(raw, header, index.positions, backend=backend) @ index.shares
    parts = (index.positions, index.run_starts, index.parcel_runs, index.sizes)
    return torch.ops.neurokern.decode_parcels(raw.contiguous(), *parts, *Stored.of(header), backend)


def _reduce(
    raw: Tensor,
    positions: Tensor,
    run_starts: Tensor,
    parcel_runs: Tensor,
    sizes: Tensor,
    kind: int,
    swapped: bool,
    slope: float,
    inter: float,
    backend: str | None,
) -> Tensor:
    stored = Stored(kind, swapped, slope, inter)
    chosen = _library.choose_backend("decode_parcels", _library.device_type(raw), backend)
    positions, run_starts, parcel_runs = (
        part.to(torch.int64).contiguous() for part in (positions, run_starts, parcel_runs)
    )
    parts = (positions, run_starts, parcel_runs, sizes.to(torch.float64).contiguous())
    if chosen == "reference":
        return parcels_reference(raw, *parts, *stored)
    out: Tensor = _library.new_array(raw, (raw.shape[0], len(sizes)), "float32")
    if out.numel() == 0:
        return out
    if chosen == "triton":
        _library.triton_kernels("decode_nifti").reduce(raw, *parts, out, *stored)
    elif _library.runs_on_gpu(raw):
        _reduce_on_gpu(out, raw, parts, stored)
    else:
        _reduce_on_cpu(out, raw, parts, stored)
    return out


def _reduce_on_gpu(out: Tensor, raw: Tensor, parts: Parts, stored: Stored) -> None:
    positions, run_starts, parcel_runs, sizes = parts
    with _library.gpu_module(raw) as (module, stream):
        module.reduce_resident(
            raw=_library.address(raw),
            volume_values=raw.shape[1],
            n_volumes=raw.shape[0],
            type=stored.kind,
            swapped=stored.swapped,
            slope=stored.slope,
            inter=stored.inter,
            positions=_library.address(positions),
            run_starts=_library.address(run_starts),
            parcel_runs=_library.address(parcel_runs),
            sizes=_library.address(sizes),
            n_voxels=len(positions),
            n_runs=len(run_starts) - 1,
            n_parcels=len(sizes),
            out=_library.address(out),
            stream=stream,
        )


def _reduce_on_cpu(out: Tensor, raw: Tensor, parts: Parts, stored: Stored) -> None:
    positions, run_starts, parcel_runs, sizes = parts
    lengths, runs = run_starts.diff(), parcel_runs.diff()
    whole = len(run_starts) > 0 and int(run_starts[0]) == 0 and int(run_starts[-1]) == len(positions)
    whole &= len(runs) == len(sizes) and int(parcel_runs[0]) == 0 and int(parcel_runs[-1]) == len(lengths)
    if not whole or bool((lengths < 0).any() | (lengths > LONGEST_RUN).any() | (runs < 0).any()):
        raise ValueError("decode_parcels: the parts of the index must fit together; see parcel_index")
    lengths = lengths.to(torch.int32)
    parcels = torch.arange(len(sizes), dtype=torch.int32).repeat_interleave(runs)
    native = _core.ParcelRuns(
        lengths=lengths.data_ptr(),
        parcels=parcels.data_ptr(),
        sizes=sizes.data_ptr(),
        n_runs=len(lengths),
        n_parcels=len(sizes),
    )
    chosen = raw.index_select(1, positions)
    decode_columns(chosen, out, stored, DECODED_TYPES["float32"], native)


def _fake(
    raw: Tensor, positions: Tensor, run_starts: Tensor, parcel_runs: Tensor, sizes: Tensor, *_: Any
) -> Any:
    return torch.empty((raw.shape[0], sizes.shape[0]), dtype=torch.float32, device=raw.device)


_library.register(
    "decode_parcels(Tensor raw, Tensor positions, Tensor run_starts, Tensor parcel_runs, Tensor sizes, "
    "int kind, bool swapped, float slope, float inter, str? backend) -> Tensor",
    cpu=_reduce,
    cuda=_reduce,
    fake=_fake,
    backward=None,
)
