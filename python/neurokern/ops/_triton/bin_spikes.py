"""bin_spikes in Triton: counts are integers added by atomics, so no order of spikes or threads shows.

Spikes in any order look for their windows among the sorted starts; spikes that are claimed to be sorted are
looked for by the windows instead.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from neurokern.ops import _library
from neurokern.ops._spike_calls import Rules, Spikes
from neurokern.ops._spike_grid import Grid
from neurokern.ops._spike_smoothing import largest_count
from neurokern.ops._triton.launch import bits_of, double_bits, launch
from neurokern.ops._triton.smoothing import report_largest, smooth, store_as
from neurokern.ops._triton.spike_bins import (
    as_double,
    bins_of,
    halvings_of,
    is_behind,
    is_usable,
    limits_of,
    without_overflow,
)

SPIKES = 512  # at a time, 4 for each of 128 threads
CELLS = 2048
WINDOW_PROGRAMS = 4096  # wanted of a launch in which programs share windows

_OUTSIDE, _UNKNOWN, _UNMAPPED = (tl.constexpr(slot) for slot in range(3))  # of the report
# Numbers that change from call to call, of which a kernel is not compiled anew.
_NUMBERS = ["n_spikes", "n_windows", "n_bins", "n_ids", "n_trains", "parts"]
_NUMBERS += ["start", "step", "rate", "tolerance", "numerator", "denominator"]


# ---- adding up


@triton.jit
def _train_of(i, train_ends, n_trains):
    """Return the train that spike i lies in: the first that ends behind it."""
    low = tl.zeros_like(i)
    high = low + n_trains
    for _ in range(halvings_of(n_trains)):
        searching = low < high
        middle = (low + high) // 2
        behind = tl.load(train_ends + middle, mask=searching, other=0) > i
        low, high = tl.where(searching & ~behind, middle + 1, low), tl.where(searching & behind, middle, high)
    return low


@triton.jit
def _report(report, slot: tl.constexpr, flags):
    n = tl.sum(flags.to(tl.int32)).to(tl.int64)
    tl.atomic_add(report + slot, n, mask=n > 0, sem="relaxed")


@triton.jit
def _add(i, k, inside, window, units, train_ends, unit_map, totals, report, n_bins, n_units, n_ids, n_trains):
    """Add spikes i to bin k of their windows, in the columns of their units."""
    if train_ends is not None:
        unit = _train_of(i, train_ends, n_trains)
    else:
        unit = tl.load(units + i, mask=inside, other=0).to(tl.int64)
    known = inside & (unit >= 0) & (unit < n_ids)
    column = unit
    if unit_map is not None:
        column = tl.load(unit_map + unit, mask=known, other=-1)
    mapped = known & (column >= 0) & (column < n_units)
    cell = (window * n_bins + k) * n_units + column
    one = tl.full(k.shape, 1, totals.dtype.element_ty)
    tl.atomic_add(totals + cell, one, mask=mapped, sem="relaxed")
    _report(report, _UNKNOWN, inside & ~known)
    _report(report, _UNMAPPED, known & ~mapped)


@triton.jit(do_not_specialize=_NUMBERS)
def count_spikes(
    times, units, train_ends, unit_map, edges, totals, report,
    n_spikes: tl.int64, n_bins: tl.int64, n_units, n_ids: tl.int64, n_trains: tl.int64,
    start: tl.int64, step: tl.int64, rate: tl.int64, tolerance: tl.int64,
    numerator: tl.int64, denominator: tl.int64,
    RATE: tl.constexpr, CLOSED_LAST: tl.constexpr, SPIKES: tl.constexpr,
):  # fmt: skip
    """One window: count SPIKES spikes, in any order."""
    i = tl.program_id(0).to(tl.int64) * SPIKES + tl.arange(0, SPIKES)
    valid = i < n_spikes
    t = tl.load(times + i, mask=valid, other=0)
    if t.dtype == tl.float64:
        first = as_double(start)
    else:
        first = start.to(tl.int64)
    k, inside = bins_of(
        t, first, edges, n_bins, step, rate, tolerance, numerator, denominator, RATE, CLOSED_LAST
    )
    _report(report, _OUTSIDE, valid & ~inside)
    inside &= valid
    _add(i, k, inside, 0, units, train_ends, unit_map, totals, report, n_bins, n_units, n_ids, n_trains)


@triton.jit
def _windows_passed(
    t, starts, edges, n_windows, n_bins, step, tolerance, numerator, denominator,
    RATE: tl.constexpr, CLOSED_LAST: tl.constexpr, ENDED: tl.constexpr,
):  # fmt: skip
    """Return how many windows, by their sorted starts, have begun at t (or have ended, if ENDED)."""
    low = tl.zeros_like(t).to(tl.int64)
    high = low + n_windows
    for _ in range(halvings_of(n_windows)):
        searching = low < high
        middle = (low + high) // 2
        start = tl.load(starts + middle, mask=searching, other=0)
        lowest, limit = limits_of(
            without_overflow(start), None, n_bins, step, tolerance, numerator, denominator, RATE, CLOSED_LAST
        )
        if ENDED:
            passed = is_behind(t, limit, CLOSED_LAST)
        else:
            passed = t >= lowest
        low = tl.where(searching & passed, middle + 1, low)
        high = tl.where(searching & ~passed, middle, high)
    return low


@triton.jit(do_not_specialize=_NUMBERS)
def count_spikes_in_windows(
    times, units, train_ends, unit_map, starts, order, totals, report,
    n_spikes: tl.int64, n_windows: tl.int64, n_bins: tl.int64, n_units, n_ids: tl.int64, n_trains: tl.int64,
    step: tl.int64, rate: tl.int64, tolerance: tl.int64, numerator: tl.int64, denominator: tl.int64,
    RATE: tl.constexpr, CLOSED_LAST: tl.constexpr, SPIKES: tl.constexpr,
):  # fmt: skip
    """Count SPIKES spikes, in any order, in each window that they lie in; ``starts`` are sorted."""
    i = tl.program_id(0).to(tl.int64) * SPIKES + tl.arange(0, SPIKES)
    valid = i < n_spikes
    t = tl.load(times + i, mask=valid, other=0)
    begun = _windows_passed(
        t, starts, None, n_windows, n_bins, step, tolerance, numerator, denominator, RATE, CLOSED_LAST, False
    )
    ended = _windows_passed(
        t, starts, None, n_windows, n_bins, step, tolerance, numerator, denominator, RATE, CLOSED_LAST, True
    )
    begun = tl.where(valid, begun, 0)
    for j in range(tl.max(begun - ended)):
        place = ended + j
        here = place < begun
        start = tl.load(starts + place, mask=here, other=0)
        window = tl.load(order + place, mask=here, other=0)
        k, inside = bins_of(
            t, start, None, n_bins, step, rate, tolerance, numerator, denominator, RATE, CLOSED_LAST
        )
        inside &= here & is_usable(start)
        _add(
            i,
            k,
            inside,
            window,
            units,
            train_ends,
            unit_map,
            totals,
            report,
            n_bins,
            n_units,
            n_ids,
            n_trains,
        )


@triton.jit(do_not_specialize=_NUMBERS)
def count_windows_of_sorted(
    times, units, unit_map, starts, totals, report,
    n_spikes: tl.int64, n_bins: tl.int64, n_units, n_ids: tl.int64, parts: tl.int32,
    step: tl.int64, rate: tl.int64, tolerance: tl.int64, numerator: tl.int64, denominator: tl.int64,
    RATE: tl.constexpr, CLOSED_LAST: tl.constexpr, SPIKES: tl.constexpr,
):  # fmt: skip
    """Count a part of a window's spikes, which lie next to each other if the claim of order holds."""
    window, part = (tl.program_id(0) // parts).to(tl.int64), tl.program_id(0) % parts
    start = tl.load(starts + window)
    lowest, limit = limits_of(start, None, n_bins, step, tolerance, numerator, denominator, RATE, CLOSED_LAST)
    none = n_spikes.to(tl.int64) * 0
    first, behind_first = none, none + n_spikes
    last, behind_last = none, none + n_spikes
    for _ in range(halvings_of(n_spikes)):
        middle, searching = (first + behind_first) // 2, first < behind_first
        begun = tl.load(times + middle, mask=searching, other=0) >= lowest
        behind_first = tl.where(searching & begun, middle, behind_first)
        first = tl.where(searching & ~begun, middle + 1, first)
        middle, searching = (last + behind_last) // 2, last < behind_last
        ended = is_behind(tl.load(times + middle, mask=searching, other=0), limit, CLOSED_LAST)
        behind_last = tl.where(searching & ended, middle, behind_last)
        last = tl.where(searching & ~ended, middle + 1, last)
    last = tl.where(is_usable(start), last, first)
    for at in range(first + part * SPIKES, last, parts * SPIKES):
        i = at + tl.arange(0, SPIKES)
        valid = i < last
        t = tl.load(times + i, mask=valid, other=0)
        k, inside = bins_of(
            t, start, None, n_bins, step, rate, tolerance, numerator, denominator, RATE, CLOSED_LAST
        )
        inside &= valid
        _add(i, k, inside, window, units, None, unit_map, totals, report, n_bins, n_units, n_ids, 0)


@triton.jit
def convert_totals(totals, counts, report, n_cells, largest_exact: tl.int64, CELLS: tl.constexpr):
    """Write totals in the type of ``counts``, saturating, and report the largest."""
    cells = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    total = tl.load(totals + cells, mask=cells < n_cells, other=0)
    report_largest(total, report)
    store_as(counts + cells, tl.minimum(total.to(tl.int64), largest_exact), cells < n_cells)


# ---- what to launch


def _scales(grid: Grid, in_samples: bool) -> tuple[int, ...]:
    """Return step, rate (bins per second, or per part of a sample) and tolerance as bits, and the width."""
    step, step_is_rate = grid.step
    numerator, denominator = grid.width
    rate = 1 / numerator if in_samples else step if step_is_rate else 1 / step
    return double_bits(step), double_bits(rate), double_bits(grid.edge_tolerance), numerator, denominator


def count(
    spikes: Spikes, counts: torch.Tensor, count_type: str, n_units: int, grid: Grid, rules: Rules
) -> torch.Tensor:
    """Fill ``counts``; return the numbers of spikes outside, unknown, unmapped, and the largest count.

    The largest is only there where a count may be larger than ``count_type`` can hold.
    """
    report: torch.Tensor = _library.new_array(counts, (4,), "int64", fill=0)
    largest_exact = largest_count(count_type, rules.smoothing)
    # Whole numbers up to the largest exact one add up without rounding, in any order.
    direct = count_type in ("int32", "int64", "float32", "float64") and len(spikes.times) <= largest_exact
    direct = direct and rules.smoothing is None
    totals = counts.zero_() if direct else _library.new_array(counts, tuple(counts.shape), "int32", fill=0)
    if grid.n_bins and len(spikes.times):
        _count_into(totals, report, spikes, n_units, grid, rules.sorted)
    elif spikes.starts is None:
        report[0] = len(spikes.times)
    if direct or counts.numel() == 0:
        return report
    target = bits_of(counts) if count_type == "uint16" else counts
    if rules.smoothing is not None:
        smooth(totals, target, report, largest_exact, grid, rules)
    else:
        programs = triton.cdiv(counts.numel(), CELLS)
        launch(convert_totals, programs, totals, target, report, counts.numel(), largest_exact, CELLS=CELLS)
    return report


def _count_into(
    totals: torch.Tensor,
    report: torch.Tensor,
    spikes: Spikes,
    n_units: int,
    grid: Grid,
    is_sorted: bool | None,
) -> None:
    times, units, starts, edges, unit_map, train_ends = spikes
    n_trains = 0 if train_ends is None else len(train_ends)
    n_ids = n_units if unit_map is None else len(unit_map)
    scales = _scales(grid, times.dtype == torch.int64)
    options: dict[str, Any] = {"RATE": grid.step[1], "CLOSED_LAST": grid.closed_last, "SPIKES": SPIKES}
    programs = triton.cdiv(len(times), SPIKES)
    if starts is None:
        first = grid.first_sample if times.dtype == torch.int64 else double_bits(grid.start)
        launch(
            count_spikes, programs, times, units, train_ends, unit_map, edges, totals, report,
            len(times), grid.n_bins, n_units, n_ids, n_trains, first, *scales, **options,
        )  # fmt: skip
    elif is_sorted and train_ends is None:
        parts = min(programs, triton.cdiv(WINDOW_PROGRAMS, max(len(starts), 1)))
        launch(
            count_windows_of_sorted, len(starts) * parts, times, units, unit_map, starts, totals, report,
            len(times), grid.n_bins, n_units, n_ids, parts, *scales, **options,
        )  # fmt: skip
    elif len(starts):
        ordered, order = starts.sort()
        launch(
            count_spikes_in_windows, programs,
            times, units, train_ends, unit_map, ordered, order, totals, report,
            len(times), len(starts), grid.n_bins, n_units, n_ids, n_trains, *scales, **options,
        )  # fmt: skip
