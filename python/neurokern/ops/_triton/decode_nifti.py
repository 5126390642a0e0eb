"""decode_voxels, decode_parcels and cleaning in Triton, with the bits of csrc/decode_nifti.

Stored values are loaded as unsigned integers of their width, and become numbers here.
"""

from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from neurokern.ops._nifti_header import VOXEL_TYPES
from neurokern.ops._triton.launch import bits_of, double_bits, launch
from neurokern.ops._triton.spike_bins import as_double

VALUES = 1024  # of a row, decoded by a program
VOLUMES, LANES = 4, 32  # of a tile of parcels: volumes, and voxels or runs at a time
COLUMNS = 128  # cleaned by a program

_NUMBERS = {
    "uint8": tl.uint8,
    "int8": tl.int8,
    "uint16": tl.uint16,
    "int16": tl.int16,
    "uint32": tl.uint32,
    "int32": tl.int32,
    "uint64": tl.uint64,
    "int64": tl.int64,
    "float32": tl.float32,
    "float64": tl.float64,
}
NUMBERS = {code: _NUMBERS[name] for name, code in VOXEL_TYPES.items()}
UNSCALED, IN_FLOAT, IN_DOUBLE = 0, 1, 2

_UNSCALED, _IN_FLOAT = tl.constexpr(UNSCALED), tl.constexpr(IN_FLOAT)
_NOTHING_LEFT = tl.constexpr(1e-12)


@triton.jit
def _numbers_of(bits, NUMBER: tl.constexpr, SWAPPED: tl.constexpr):
    """Return stored values as what they are, in this machine's byte order."""
    WIDTH: tl.constexpr = NUMBER.primitive_bitwidth
    if WIDTH == 8:
        own = bits.to(tl.uint8, bitcast=True)
    elif WIDTH == 16:
        own = bits.to(tl.uint16, bitcast=True)
    elif WIDTH == 32:
        own = bits.to(tl.uint32, bitcast=True)
    else:
        own = bits.to(tl.uint64, bitcast=True)
    if SWAPPED:
        turned = own * 0
        for byte in tl.static_range(WIDTH // 8):
            turned = (turned << 8) | ((own >> (8 * byte)) & 0xFF)
        own = turned
    return own.to(NUMBER, bitcast=True)


@triton.jit
def _fused(values, slope, inter):
    """Return ``values * slope + inter`` rounded once to float32: to odd in double before."""
    product = values.to(tl.float32).to(tl.float64) * slope
    total = product + inter
    back = total - product
    error = (product - (total - back)) + (inter - back)
    bits = total.to(tl.int64, bitcast=True)
    inexact = (error != 0) & (error == error) & ((bits & 1) == 0)
    bits += tl.where(inexact, tl.where((error > 0) == (total > 0), 1, -1), 0)
    return bits.to(tl.float64, bitcast=True).to(tl.float32)


@triton.jit
def _half_bits(values):
    bits = values.to(tl.uint32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    small = (magnitude.to(tl.float32, bitcast=True) + 0.5).to(tl.uint32, bitcast=True) - 0x3F000000
    normal = (magnitude - 0x38000000 + 0xFFF + ((magnitude >> 13) & 1)) >> 13
    half = tl.where(magnitude < 0x38800000, small, normal)
    half = tl.where(magnitude >= 0x477FF000, 0x7C00, half)
    half = tl.where(magnitude > 0x7F800000, 0x7E00, half)
    return (((bits >> 16) & 0x8000) | half).to(tl.uint16)


@triton.jit
def _bfloat16_bits(values):
    bits = values.to(tl.uint32, bitcast=True)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return tl.where(values == values, rounded, (bits >> 16) | 0x40).to(tl.uint16)


@triton.jit(do_not_specialize=["slope", "inter"])
def decode_values(
    raw, positions, out, row_values: tl.int64, n_voxels: tl.int64, slope: tl.int64, inter: tl.int64,
    NUMBER: tl.constexpr, SWAPPED: tl.constexpr, SCALE: tl.constexpr, DECODED: tl.constexpr,
    VALUES: tl.constexpr,
):  # fmt: skip
    """Decode VALUES voxels of one row."""
    tiles = tl.cdiv(n_voxels, VALUES)
    row = tl.program_id(0) // tiles
    voxels = tl.program_id(0) % tiles * VALUES + tl.arange(0, VALUES)
    there = voxels < n_voxels
    at = voxels
    if positions is not None:
        at = tl.load(positions + voxels, mask=there, other=0)
        at = tl.where((at < 0) | (at >= row_values), 0, at)
    stored = _numbers_of(tl.load(raw + row * row_values + at, mask=there, other=0), NUMBER, SWAPPED)
    if SCALE == _UNSCALED:
        values = stored.to(tl.float32)
    elif SCALE == _IN_FLOAT:
        values = _fused(stored, as_double(slope), as_double(inter))
    else:
        values = (stored.to(tl.float64) * as_double(slope) + as_double(inter)).to(tl.float32)
    if DECODED == 16:
        bits = _half_bits(values).to(tl.int16, bitcast=True)
    elif DECODED == 17:
        bits = _bfloat16_bits(values).to(tl.int16, bitcast=True)
    else:
        bits = values.to(tl.int32, bitcast=True)
    tl.store(out + row * n_voxels + voxels, bits, mask=there)


@triton.jit
def _values_at(
    raw, volumes, positions, voxels, there, row_values, NUMBER: tl.constexpr, SWAPPED: tl.constexpr
):
    """Return the stored values of some voxels in some volumes, as (volumes, voxels)."""
    at = tl.load(positions + voxels, mask=there, other=0)
    at = tl.where((at < 0) | (at >= row_values), 0, at)
    places = raw + volumes[:, None] * row_values + at[None, :]
    return _numbers_of(tl.load(places, mask=there[None, :], other=0), NUMBER, SWAPPED)


@triton.jit(do_not_specialize=["slope", "inter"])
def reduce_parcels(
    raw, positions, run_starts, parcel_runs, sizes, out, row_values: tl.int64, n_volumes: tl.int64,
    n_voxels: tl.int64, n_runs: tl.int64, n_parcels: tl.int64, slope: tl.int64, inter: tl.int64,
    NUMBER: tl.constexpr, SWAPPED: tl.constexpr, VOLUMES: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Write the means of one parcel in VOLUMES volumes; beyond the last volume it is read again."""
    parcel = tl.program_id(0) % n_parcels
    rows = tl.program_id(0) // n_parcels * VOLUMES + tl.arange(0, VOLUMES)
    volumes = tl.minimum(rows, n_volumes - 1)
    lanes = tl.arange(0, LANES)
    first_run = tl.minimum(tl.maximum(tl.load(parcel_runs + parcel), 0), n_runs)
    end_run = tl.minimum(tl.maximum(tl.load(parcel_runs + parcel + 1), 0), n_runs)
    if NUMBER.primitive_bitwidth <= 16:  # sums of whole numbers are exact in any order
        whole = tl.zeros([VOLUMES, LANES], tl.int64)
        first = tl.maximum(tl.load(run_starts + first_run), 0)
        end = tl.minimum(tl.load(run_starts + end_run), n_voxels)
        for begin in range(first, end, LANES):
            voxels = begin + lanes
            values = _values_at(raw, volumes, positions, voxels, voxels < end, row_values, NUMBER, SWAPPED)
            whole += values.to(tl.int64)
        sums = tl.sum(whole, 1).to(tl.float64)
    else:  # each run from its first voxel on, then the runs, in the order of the file
        sums = tl.zeros([VOLUMES], tl.float64)
        for begin in range(first_run, end_run, LANES):
            runs = begin + lanes
            starts = tl.maximum(tl.load(run_starts + runs, mask=runs < end_run, other=0), 0)
            stops = tl.minimum(tl.load(run_starts + runs + 1, mask=runs < end_run, other=0), n_voxels)
            of_runs = tl.zeros([VOLUMES, LANES], tl.float64)
            for k in range(tl.max(stops - starts)):
                there = starts + k < stops
                values = _values_at(raw, volumes, positions, starts + k, there, row_values, NUMBER, SWAPPED)
                of_runs += tl.where(there[None, :], values.to(tl.float64), 0.0)
            for lane in range(LANES):
                sums += tl.sum(tl.where((lanes == lane)[None, :], of_runs, 0.0), 1)
    means = sums / tl.load(sizes + parcel) * as_double(slope) + as_double(inter)
    tl.store(out + rows * n_parcels + parcel, means.to(tl.float32), mask=rows < n_volumes)


@triton.jit
def _basis_at(basis, k, t, n_rows, n_basis):
    return tl.load(basis + k * n_rows + t, mask=k < n_basis, other=0.0)


@triton.jit
def _weigh(weights, basis, k, t, value, n_rows, n_basis):
    return tl.where(k < n_basis, weights + _basis_at(basis, k, t, n_rows, n_basis) * value, weights)


@triton.jit
def _take_out(value, basis, k, t, weights, n_rows, n_basis):
    return tl.where(k < n_basis, value - _basis_at(basis, k, t, n_rows, n_basis) * weights, value)


@triton.jit(do_not_specialize=["n_rows", "n_basis"])
def clean_columns(
    values, basis, n_rows: tl.int64, n_columns: tl.int64, n_basis: tl.int64,
    STANDARDIZE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Clean COLUMNS columns: each pass takes four rows of the basis out and weighs the next four."""
    columns = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    there = columns < n_columns
    origin = tl.load(values + columns, mask=there, other=0.0)
    zero = tl.zeros([COLUMNS], tl.float32)
    before, after = zero.to(tl.float64), zero.to(tl.float64)
    w0, w1, w2, w3 = zero, zero, zero, zero
    for t in range(n_rows):
        place = values + t * n_columns + columns
        value = tl.load(place, mask=there, other=0.0) - origin
        before += value.to(tl.float64) * value.to(tl.float64)
        w0 = _weigh(w0, basis, 0, t, value, n_rows, n_basis)
        w1 = _weigh(w1, basis, 1, t, value, n_rows, n_basis)
        w2 = _weigh(w2, basis, 2, t, value, n_rows, n_basis)
        w3 = _weigh(w3, basis, 3, t, value, n_rows, n_basis)
        tl.store(place, value, mask=there)
    for k in range(0, n_basis, 4):
        v0, v1, v2, v3 = zero, zero, zero, zero
        after = zero.to(tl.float64)
        for t in range(n_rows):
            place = values + t * n_columns + columns
            value = tl.load(place, mask=there, other=0.0)
            value = _take_out(value, basis, k, t, w0, n_rows, n_basis)
            value = _take_out(value, basis, k + 1, t, w1, n_rows, n_basis)
            value = _take_out(value, basis, k + 2, t, w2, n_rows, n_basis)
            value = _take_out(value, basis, k + 3, t, w3, n_rows, n_basis)
            after += value.to(tl.float64) * value.to(tl.float64)
            v0 = _weigh(v0, basis, k + 4, t, value, n_rows, n_basis)
            v1 = _weigh(v1, basis, k + 5, t, value, n_rows, n_basis)
            v2 = _weigh(v2, basis, k + 6, t, value, n_rows, n_basis)
            v3 = _weigh(v3, basis, k + 7, t, value, n_rows, n_basis)
            tl.store(place, value, mask=there)
        w0, w1, w2, w3 = v0, v1, v2, v3
    if STANDARDIZE:
        some = after > before * _NOTHING_LEFT
        undefined = (after != after) | (before != before)
        divisor = tl.where(some | undefined, after, 1.0)
        factor = tl.sqrt((n_rows.to(tl.int64) - 1).to(tl.float64) / divisor).to(tl.float32)
        factor = tl.where(some | undefined, factor, 0.0)
        for t in range(n_rows):
            place = values + t * n_columns + columns
            tl.store(place, tl.load(place, mask=there, other=0.0) * factor, mask=there)


# ---- what to launch


def _in_float(number: float) -> bool:
    return bool(np.float32(number) == number)


def decode(
    raw: torch.Tensor,
    positions: torch.Tensor | None,
    out: torch.Tensor,
    kind: int,
    swapped: bool,
    slope: float,
    inter: float,
) -> None:
    """Write the decoded values of ``raw`` into ``out``."""
    number = NUMBERS[kind]
    narrow = number.primitive_bitwidth <= 16 or number == tl.float32
    in_float = narrow and _in_float(slope) and _in_float(inter)
    scale = UNSCALED if (slope, inter) == (1, 0) else IN_FLOAT if in_float else IN_DOUBLE
    if positions is None:  # rows lie back to back: one long row
        raw, out = raw.reshape(1, -1), out.reshape(1, -1)
    decoded = {torch.float32: 32, torch.float16: 16, torch.bfloat16: 17}[out.dtype]
    launch(
        decode_values, out.shape[0] * triton.cdiv(out.shape[1], VALUES),
        bits_of(raw), positions, bits_of(out), raw.shape[1], out.shape[1],
        double_bits(slope), double_bits(inter),
        NUMBER=number, SWAPPED=swapped, SCALE=scale, DECODED=decoded, VALUES=VALUES,
    )  # fmt: skip


def reduce(
    raw: torch.Tensor,
    positions: torch.Tensor,
    run_starts: torch.Tensor,
    parcel_runs: torch.Tensor,
    sizes: torch.Tensor,
    out: torch.Tensor,
    kind: int,
    swapped: bool,
    slope: float,
    inter: float,
) -> None:
    """Write the means over parcels into ``out``."""
    n_volumes, n_parcels = out.shape
    launch(
        reduce_parcels, triton.cdiv(n_volumes, VOLUMES) * n_parcels,
        bits_of(raw), positions, run_starts, parcel_runs, sizes, out,
        raw.shape[1], n_volumes, len(positions), len(run_starts) - 1, n_parcels,
        double_bits(slope), double_bits(inter),
        NUMBER=NUMBERS[kind], SWAPPED=swapped, VOLUMES=VOLUMES, LANES=LANES,
    )  # fmt: skip


def clean(values: torch.Tensor, basis: torch.Tensor, standardize: bool) -> None:
    """Clean columns in place."""
    n_rows, n_columns = values.shape
    launch(
        clean_columns, triton.cdiv(n_columns, COLUMNS),
        values, basis, n_rows, n_columns, len(basis), STANDARDIZE=standardize, COLUMNS=COLUMNS,
    )  # fmt: skip
