"""How :func:`neurokern.ops.bin_spikes` reaches its kernels: addresses, results, errors that need the data."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from neurokern.ops import _library
from neurokern.ops._spike_grid import COUNT_TYPES, FAR_SAMPLE, Grid
from neurokern.ops._spike_smoothing import SMOOTHINGS, largest_count, smoothing_weights

# Fields of CudaLimits (csrc/bin_spikes/bin_spikes.h) beside their defaults: the tests make the parts small
# that a GPU's work is cut into.
cuda_limits: dict[str, int] = {}


class Spikes(NamedTuple):
    """The arrays of a call: contiguous, of one kind and device; times and units as long as each other."""

    times: Any  # float64 seconds or int64 samples
    units: Any  # int32 or int64, or None if there are train_ends
    starts: Any  # like times, or None
    edges: Any  # like times, or None
    unit_map: Any  # int64, or None
    train_ends: Any  # int64, or None


class Rules(NamedTuple):
    """What to do with odd input, and with the counts."""

    sorted: bool | None
    strict: bool
    saturate: bool
    smoothing: str | None
    smoothing_width: float  # seconds
    backend: str | None


def problem_of(
    module: Any,
    spikes: Spikes,
    counts: Any,
    count_type: str,
    n_units: int,
    grid: Grid,
    rules: Rules,
    weights: Any,
) -> Any:
    """Describe the call to a native module; ``weights`` as :func:`weights_of` gives them, on the device."""
    times, units, starts, edges, unit_map, train_ends = spikes
    step, step_is_rate = grid.step
    numerator, denominator = grid.width
    return module.BinSpikes(
        times=_library.address(times),
        units=_library.address(units),
        starts=_library.address(starts),
        edges=_library.address(edges),
        unit_map=_library.address(unit_map),
        counts=_library.address(counts),
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
        largest_exact=largest_count(count_type, rules.smoothing),
        count_type=COUNT_TYPES[count_type][0],
        order={None: 0, True: 1, False: 2}[rules.sorted],
        integer_times=_is_integer(times),
        wide_units=units is not None and _item_size(units) == 8,
        step_is_rate=step_is_rate,
        closed_last=grid.closed_last,
        train_ends=_library.address(train_ends),
        n_trains=0 if train_ends is None else len(train_ends),
        smoothing=SMOOTHINGS[rules.smoothing],
        weights=_library.address(weights),
        n_weights=0 if weights is None else len(weights),
    )


def weights_of(rules: Rules, grid: Grid) -> np.ndarray | None:
    """Return the float32 weights of the smoothing, if there is any; they must outlive the native call."""
    if rules.smoothing is None:
        return None
    return smoothing_weights(rules.smoothing, rules.smoothing_width, grid.bin_size)


def check_values(spikes: Spikes, n_units: int) -> None:
    """Raise for values that only the data show. Small CPU arrays; a GPU op does not wait to look."""
    _, _, starts, edges, unit_map, train_ends = spikes
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
    if train_ends is not None:
        _check_train_ends(np.asarray(train_ends), len(spikes.times))


def _check_train_ends(ends: np.ndarray, n_spikes: int) -> None:
    steps = np.diff(ends, prepend=0)
    if (steps < 0).any():
        at = int(np.argmax(steps < 0))
        before = int(ends[at - 1]) if at else 0
        raise ValueError(
            f"bin_spikes: train_ends must not decrease, got {ends[at]} after {before} in row {at}; "
            "they are cumulative, as NWB's spike_times_index"
        )
    last = int(ends[-1]) if len(ends) else 0
    if last != n_spikes:
        raise ValueError(
            f"bin_spikes: train_ends must end with the number of times, got {last} and {n_spikes} times; "
            "for some of the trains pass times[:train_ends[-1]]"
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
    largest_exact = largest_count(count_type, rules.smoothing)
    if largest > largest_exact and not rules.saturate:
        raise ValueError(
            f"bin_spikes: dtype {count_type} must hold the largest count, got {largest} spikes of one unit "
            f"in one bin (exact up to {largest_exact}); pass a wider dtype or overflow='saturate'"
        )


def count_on_cpu(spikes: Spikes, counts: Any, count_type: str, n_units: int, grid: Grid, rules: Rules) -> int:
    """Fill ``counts``; return the number of spikes dropped."""
    check_values(spikes, n_units)
    weights = weights_of(rules, grid)
    problem = problem_of(_library.core, spikes, counts, count_type, n_units, grid, rules, weights)
    outside, unknown, unmapped, largest = _library.core.bin_spikes(problem, _library.thread_count())
    check_report(unknown, largest, spikes, count_type, n_units, rules)
    return int(outside + unknown + unmapped)


def count_on_gpu(spikes: Spikes, counts: Any, count_type: str, n_units: int, grid: Grid, rules: Rules) -> Any:
    """As :func:`count_on_cpu`, on torch's current stream; waits only if an error may have to be raised."""
    report = _library.new_array(counts, (4,), "int64")
    with _library.gpu_module(counts) as (module, stream):
        weights = _weights_beside(counts, rules, grid)
        problem = problem_of(module, spikes, counts, count_type, n_units, grid, rules, weights)
        limits = module.CudaLimits(**cuda_limits)
        n_bytes = module.bin_spikes_workspace(problem, limits)
        workspace = _library.new_array(counts, (n_bytes,), "uint8")
        module.bin_spikes(problem, limits, _library.address(workspace), _library.address(report), stream)
    _look_at(report, spikes, count_type, n_units, rules)
    return report[:3].sum()


def count_by_triton(
    spikes: Spikes, counts: Any, count_type: str, n_units: int, grid: Grid, rules: Rules
) -> Any:
    """As :func:`count_on_gpu`, by Triton's kernels."""
    if _library.device_type(counts) == "cpu":  # interpreted, so looking costs nothing
        check_values(spikes, n_units)
    kernels = _library.triton_kernels("bin_spikes")
    tensors = Spikes(*map(_library.as_tensor, spikes))
    report = kernels.count(tensors, _library.as_tensor(counts), count_type, n_units, grid, rules)
    _look_at(report, spikes, count_type, n_units, rules)
    dropped = report[:3].sum()
    return int(dropped) if isinstance(counts, np.ndarray) else dropped


def _look_at(report: Any, spikes: Spikes, count_type: str, n_units: int, rules: Rules) -> None:
    """Wait for a GPU's report if an error may have to be raised."""
    may_overflow = not rules.saturate and len(spikes.times) > largest_count(count_type, rules.smoothing)
    if rules.strict or may_overflow:
        _, unknown, _, largest, *_ = report.tolist()
        check_report(unknown, largest, spikes, count_type, n_units, rules)


def _weights_beside(counts: Any, rules: Rules, grid: Grid) -> Any:
    """Return the weights of the smoothing on the device of ``counts``."""
    if rules.smoothing is None or isinstance(counts, np.ndarray) or counts.device.type == "cpu":
        return weights_of(rules, grid)
    return _weights_on(counts.device, rules.smoothing, rules.smoothing_width, grid.bin_size)


@functools.lru_cache(maxsize=16)
def _weights_on(device: Any, smoothing: str, width: float, bin_size: float) -> Any:
    """Copy weights to a GPU once: the copy waits for the device, and cannot be captured in a CUDA graph."""
    weights = smoothing_weights(smoothing, width, bin_size)
    return _library.torch.tensor(weights, device=device)


def _is_integer(times: Any) -> bool:
    return times.dtype.kind == "i" if isinstance(times, np.ndarray) else not times.is_floating_point()


def _item_size(array: Any) -> int:
    return int(array.itemsize if isinstance(array, np.ndarray) else array.element_size())
