"""Smoothing of counts in Triton: float32, one rounding per product and sum, in the C++ kernels' order."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl

from neurokern.ops._spike_calls import Rules
from neurokern.ops._spike_grid import Grid
from neurokern.ops._spike_smoothing import FADED, smoothing_weights
from neurokern.ops._triton.launch import launch

BINS, UNITS = 16, 64  # of a tile

_FADED = tl.constexpr(FADED)
_LARGEST = tl.constexpr(3)  # slot of the report


@triton.jit
def report_largest(total, report):
    """Keep the largest count, before anything is cut or smoothed."""
    largest = tl.max(total).to(tl.int64)
    tl.atomic_max(report + _LARGEST, largest, mask=largest > 0, sem="relaxed")


@triton.jit
def store_as(places, values, mask):
    """Store values in the type of the places; whole numbers go to narrow floats by way of float32."""
    kind = places.dtype.element_ty
    if values.dtype.is_int() and kind.is_floating() and kind.primitive_bitwidth < 32:
        values = values.to(tl.float32)
    if kind == tl.bfloat16:  # rounded here, to nearest even: Triton's interpreter would cut
        bits = values.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        values = bits.to(tl.float32, bitcast=True)
    tl.store(places, values.to(kind), mask=mask)


@triton.jit
def _count_at(totals, cells, mask, largest_exact):
    total = tl.load(totals + cells, mask=mask, other=0)
    return tl.minimum(total.to(tl.int64), largest_exact).to(tl.float32)


@triton.jit
def smooth_gaussian(
    totals, counts, weights, report, n_bins, n_units, n_weights, largest_exact: tl.int64,
    BINS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """Write a tile: the centre first, then pairs of neighbours outward."""
    bin_tiles, unit_tiles = tl.cdiv(n_bins, BINS), tl.cdiv(n_units, UNITS)
    tile = tl.program_id(0) % (bin_tiles * unit_tiles)
    window = (tl.program_id(0) // (bin_tiles * unit_tiles)).to(tl.int64)
    units = (tile % unit_tiles * UNITS + tl.arange(0, UNITS))[None, :]
    bins = (tile // unit_tiles * BINS + tl.arange(0, BINS))[:, None].to(tl.int64)
    of_units = units < n_units
    cells = (window * n_bins + bins) * n_units + units
    here = of_units & (bins < n_bins)
    total = tl.load(totals + cells, mask=here, other=0)
    report_largest(total, report)
    smoothed = tl.load(weights) * tl.minimum(total.to(tl.int64), largest_exact).to(tl.float32)
    for k in range(1, n_weights):
        before = _count_at(
            totals, cells - k * n_units, of_units & (bins >= k) & (bins < n_bins + k), largest_exact
        )
        after = _count_at(totals, cells + k * n_units, of_units & (bins + k < n_bins), largest_exact)
        smoothed += tl.load(weights + k) * (before + after)
    store_as(counts + cells, smoothed, here)


@triton.jit
def _decay(last, count, decay, gain):
    value = decay * last + gain * count
    return tl.where(value < _FADED, 0.0, value)


@triton.jit
def smooth_exponential(
    totals, counts, weights, report, n_bins, n_units, largest_exact: tl.int64, UNITS: tl.constexpr
):
    """Smooth all bins of some units of a window, one after the other; four are read ahead."""
    unit_tiles = tl.cdiv(n_units, UNITS)
    window = (tl.program_id(0) // unit_tiles).to(tl.int64)
    units = tl.program_id(0) % unit_tiles * UNITS + tl.arange(0, UNITS)
    there = units < n_units
    decay, gain = tl.load(weights), tl.load(weights + 1)
    last = tl.zeros([UNITS], tl.float32)
    largest = tl.zeros([UNITS], tl.int32)
    for b in range(0, n_bins, 4):
        bin = tl.zeros([UNITS], tl.int64) + b
        at = (window * n_bins + bin) * n_units + units
        in1, in2, in3 = there & (bin + 1 < n_bins), there & (bin + 2 < n_bins), there & (bin + 3 < n_bins)
        t0 = tl.load(totals + at, mask=there, other=0)
        t1 = tl.load(totals + at + n_units, mask=in1, other=0)
        t2 = tl.load(totals + at + 2 * n_units, mask=in2, other=0)
        t3 = tl.load(totals + at + 3 * n_units, mask=in3, other=0)
        largest = tl.maximum(largest, tl.maximum(tl.maximum(t0, t1), tl.maximum(t2, t3)))
        last = _decay(last, tl.minimum(t0.to(tl.int64), largest_exact).to(tl.float32), decay, gain)
        store_as(counts + at, last, there)
        last = _decay(last, tl.minimum(t1.to(tl.int64), largest_exact).to(tl.float32), decay, gain)
        store_as(counts + at + n_units, last, in1)
        last = _decay(last, tl.minimum(t2.to(tl.int64), largest_exact).to(tl.float32), decay, gain)
        store_as(counts + at + 2 * n_units, last, in2)
        last = _decay(last, tl.minimum(t3.to(tl.int64), largest_exact).to(tl.float32), decay, gain)
        store_as(counts + at + 3 * n_units, last, in3)
    report_largest(largest, report)


@functools.lru_cache(maxsize=16)
def _weights(smoothing: str, width: float, bin_size: float, device: torch.device) -> torch.Tensor:
    """Return the weights on a device: copied once, so that later calls can be captured in a CUDA graph."""
    return torch.tensor(smoothing_weights(smoothing, width, bin_size)).to(device, non_blocking=True)


def smooth(
    totals: torch.Tensor,
    counts: torch.Tensor,
    report: torch.Tensor,
    largest_exact: int,
    grid: Grid,
    rules: Rules,
) -> None:
    """Write smoothed totals to ``counts``, and the largest total to the report."""
    assert rules.smoothing is not None  # the caller asks for it
    n_units = totals.shape[-1]
    n_windows = totals.numel() // (grid.n_bins * n_units)
    weights = _weights(rules.smoothing, rules.smoothing_width, grid.bin_size, totals.device)
    arrays = (totals, counts, weights, report, grid.n_bins, n_units)
    if rules.smoothing == "exponential":
        programs = n_windows * triton.cdiv(n_units, UNITS)
        launch(smooth_exponential, programs, *arrays, largest_exact, UNITS=UNITS, num_warps=UNITS // 32)
        return
    programs = n_windows * triton.cdiv(grid.n_bins, BINS) * triton.cdiv(n_units, UNITS)
    n_weights = min(len(weights), grid.n_bins)
    launch(smooth_gaussian, programs, *arrays, n_weights, largest_exact, BINS=BINS, UNITS=UNITS)
