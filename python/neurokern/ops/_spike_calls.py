"""How :func:`neurokern.ops.bin_spikes` reaches its kernels: addresses, results, errors that need the data."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from neurokern.ops import _library
from neurokern.ops._spike_grid import COUNT_TYPES, FAR_SAMPLE, Grid

# Fields of CudaLimits (csrc/bin_spikes/bin_spikes.h) other than their defaults. The tests make the parts small
# that a GPU's work is cut into, so that small problems have many.
cuda_limits: dict[str, int] = {}


def address(array: Any) -> int:
    """First byte of a numpy array or tensor; 0 for None."""
    if array is None:
        return 0
    return int(array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.data_ptr())


class Spikes(NamedTuple):
    """The arrays of a call: contiguous, of one kind and device; times and units as long as each other."""

    times: Any  # float64 seconds or int64 samples
    units: Any  # int32 or int64
    starts: Any  # like times, or None
    edges: Any  # like times, or None
    unit_map: Any  # int64, or None


class Rules(NamedTuple):
    """What to do with odd input."""

    sorted: bool | None
    strict: bool
    saturate: bool


def problem_of(
    module: Any, spikes: Spikes, counts: Any, count_type: str, n_units: int, grid: Grid, order: bool | None
) -> Any:
    """Describe the call to a native module."""
    times, units, starts, edges, unit_map = spikes
    code, largest_exact = COUNT_TYPES[count_type]
    step, step_is_rate = grid.step
    numerator, denominator = grid.width
    return module.BinSpikes(
        times=address(times),
        units=address(units),
        starts=address(starts),
        edges=address(edges),
        unit_map=address(unit_map),
        counts=address(counts),
        n_spikes=len(times),
        n_windows=1 if starts is None else len(starts),
        n_bins=grid.n_bins,
        n_units=n_units,
        n_ids=0 if unit_map is None else len(unit_map),
        start=grid.start,
        step=step,
        tolerance=grid.edge_tolerance,
        first_sample=grid.first_sample,
        width_numerator=numerator,
        width_denominator=denominator,
        largest_exact=largest_exact,
        count_type=code,
        order={None: 0, True: 1, False: 2}[order],
        integer_times=_is_integer(times),
        wide_units=_item_size(units) == 8,
        step_is_rate=step_is_rate,
        closed_last=grid.closed_last,
    )


def check_values(spikes: Spikes, n_units: int) -> None:
    """Raise for values that only the data show. Small CPU arrays; a GPU op does not wait to look."""
    _, _, starts, edges, unit_map = spikes
    if edges is not None:
        array = np.asarray(edges)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError("bin_spikes: edges must be finite, got NaN or infinity")
        if array.dtype.kind == "i" and (np.abs(array) >= FAR_SAMPLE).any():
            raise ValueError("bin_spikes: edges in samples must lie within +-2**61")
        if (array[1:] < array[:-1]).any():
            at = int(np.argmax(array[1:] < array[:-1]))
            raise ValueError(
                f"bin_spikes: edges must not decrease, got {array[at]} before {array[at + 1]} at {at}; "
                "sort them"
            )
    if starts is not None:
        array = np.asarray(starts)
        bad = ~np.isfinite(array) if array.dtype.kind == "f" else np.abs(array) >= FAR_SAMPLE
        if bad.any():
            row = int(np.argmax(bad))
            raise ValueError(
                f"bin_spikes: windows must be finite, got {array[row]} in row {row} "
                f"({int(bad.sum())} such rows); leave out trials without this event"
            )
    if unit_map is not None and len(unit_map):
        highest = int(np.asarray(unit_map).max())
        if highest >= n_units:
            raise ValueError(
                f"bin_spikes: unit_map must map to columns below n_units={n_units}, got {highest}; "
                "raise n_units"
            )


def check_report(
    unknown: int, largest: int, spikes: Spikes, count_type: str, n_units: int, rules: Rules
) -> None:
    """Raise for what only counting shows."""
    n_ids = n_units if spikes.unit_map is None else len(spikes.unit_map)
    if rules.strict and unknown:
        raise ValueError(
            f"bin_spikes: units must lie in 0 ... {n_ids - 1}, got {unknown} spikes inside the bins with "
            "another id; raise n_units, give unit_map, or pass strict=False to leave them out"
        )
    largest_exact = COUNT_TYPES[count_type][1]
    if largest > largest_exact and not rules.saturate:
        raise ValueError(
            f"bin_spikes: dtype {count_type} must hold the largest count, got {largest} spikes of one unit "
            f"in one bin (exact up to {largest_exact}); pass a wider dtype or overflow='saturate'"
        )


def count_on_cpu(spikes: Spikes, counts: Any, count_type: str, n_units: int, grid: Grid, rules: Rules) -> int:
    """Fill ``counts``; return the number of spikes dropped."""
    check_values(spikes, n_units)
    problem = problem_of(_library.core, spikes, counts, count_type, n_units, grid, rules.sorted)
    outside, unknown, unmapped, largest = _library.core.bin_spikes(problem, _library.thread_count())
    check_report(unknown, largest, spikes, count_type, n_units, rules)
    return int(outside + unknown + unmapped)


def count_on_gpu(spikes: Spikes, counts: Any, count_type: str, n_units: int, grid: Grid, rules: Rules) -> Any:
    """As :func:`count_on_cpu`, on torch's current stream; waits only if an error may have to be raised."""
    report = _library.new_array(counts, (4,), "int64")
    with _library.gpu_module(counts) as (module, stream):
        problem = problem_of(module, spikes, counts, count_type, n_units, grid, rules.sorted)
        limits = module.CudaLimits(**cuda_limits)
        n_bytes = module.bin_spikes_workspace(problem, limits)
        workspace = _library.new_array(counts, (n_bytes,), "uint8")
        module.bin_spikes(problem, limits, address(workspace), address(report), stream)
    may_overflow = not rules.saturate and len(spikes.times) > COUNT_TYPES[count_type][1]
    if rules.strict or may_overflow:
        _, unknown, _, largest = report.tolist()
        check_report(unknown, largest, spikes, count_type, n_units, rules)
    return report[:3].sum()


def _is_integer(times: Any) -> bool:
    return times.dtype.kind == "i" if isinstance(times, np.ndarray) else not times.is_floating_point()


def _item_size(array: Any) -> int:
    return int(array.itemsize if isinstance(array, np.ndarray) else array.element_size())
