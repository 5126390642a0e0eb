"""What decoding on a GPU does, in PyTorch's own operations, where our kernels were not built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neurokern.ops._library import torch
from neurokern.ops._nifti_header import VOXEL_TYPES

if TYPE_CHECKING:
    from torch import Tensor

_TYPES = {code: name for name, code in VOXEL_TYPES.items()}
_KEPT_BY_FLOAT32 = ("uint8", "int8", "uint16", "int16", "float32")
_NOTHING_LEFT = 1e-12  # as in csrc/decode_nifti/decode_nifti_body.h
_COLUMNS = 1 << 16  # that are cleaned at once


def stored_values(raw: Tensor, kind: int, swapped: bool) -> Tensor:
    """Return values of the file's type, in this machine's byte order."""
    dtype = getattr(torch, _TYPES[kind])
    if swapped and raw.element_size() > 1:
        width = raw.element_size()
        raw = raw.contiguous().view(torch.uint8).view(*raw.shape, width).flip(-1).flatten(-2)
    return raw.view(dtype)


def take_columns(raw: Tensor, positions: Tensor | None) -> Tensor:
    """Return columns of ``raw``; for a position outside of it the first, as the kernels do."""
    if positions is None:
        return raw
    inside = (positions >= 0) & (positions < raw.shape[1])
    # Of unsigned integers PyTorch cannot take columns.
    bits = raw.view(getattr(torch, f"int{8 * raw.element_size()}"))
    return bits.index_select(1, torch.where(inside, positions, 0)).view(raw.dtype)


def decoded_reference(
    raw: Tensor, positions: Tensor | None, kind: int, swapped: bool, slope: float, inter: float
) -> Tensor:
    """Return ``slope * raw + inter`` as float32, rounded as csrc/decode_nifti/decode_nifti_body.h says."""
    values = stored_values(take_columns(raw, positions), kind, swapped)
    if slope == 1 and inter == 0:
        return values.to(torch.float32)
    in_float = np.float32(slope) == slope and np.float32(inter) == inter
    if not in_float or _TYPES[kind] not in _KEPT_BY_FLOAT32:
        return (values.to(torch.float64) * slope + inter).to(torch.float32)
    return _fused(values.to(torch.float32).to(torch.float64), slope, inter)


def _fused(values: Tensor, slope: float, inter: float) -> Tensor:
    """Round the sum once: to odd in double, so that rounding that to float32 cannot err."""
    product = values * slope
    total = product + inter
    back = total - product
    error = (product - (total - back)) + (inter - back)
    bits = total.view(torch.int64)
    inexact = (error != 0) & (error == error) & (bits & 1 == 0)
    step = torch.where((error > 0) == (total > 0), 1, -1)
    return torch.where(inexact, bits + step, bits).view(torch.float64).to(torch.float32)


def parcels_reference(
    raw: Tensor,
    positions: Tensor,
    run_starts: Tensor,
    parcel_runs: Tensor,
    sizes: Tensor,
    kind: int,
    swapped: bool,
    slope: float,
    inter: float,
) -> Tensor:
    """Return means over parcels: sums in double, of each run from its first voxel on, then of the runs."""
    values = stored_values(take_columns(raw, positions), kind, swapped).to(torch.float64).T.contiguous()
    runs = torch.segment_reduce(values, "sum", lengths=run_starts.diff(), unsafe=True, initial=0)
    sums = torch.segment_reduce(runs, "sum", lengths=parcel_runs.diff(), unsafe=True, initial=0)
    return (sums.T / sizes * slope + inter).to(torch.float32)


def clean_reference(values: Tensor, basis: Tensor, standardize: bool) -> None:
    """Clean columns in place, in float64: not the bits of the kernels, whose sums are float32's."""
    rows = basis.to(torch.float64)
    for block in values.split(_COLUMNS, dim=1):
        left = block.to(torch.float64)
        left -= left[0].clone()
        before = left.square().sum(0)
        left -= rows.T @ (rows @ left)
        if standardize:
            after = left.square().sum(0)
            factor = ((len(left) - 1) / after).sqrt()
            left *= torch.where(after <= _NOTHING_LEFT * before, 0, factor)
        block.copy_(left)
