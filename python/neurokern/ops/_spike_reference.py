"""``bin_spikes`` in plain torch, slow and clear, on any device: every backend is tested against it."""

from __future__ import annotations

from typing import Any

import numpy as np

from neurokern.ops import _library
from neurokern.ops._spike_calls import Rules, Spikes, check_report, check_values
from neurokern.ops._spike_grid import Grid
from neurokern.ops._spike_smoothing import largest_count, smooth_reference

torch = _library.torch


def bin_spikes_reference(spikes: Spikes, n_units: int, grid: Grid) -> torch.Tensor:
    """Define the counts in plain torch, on any device.

    Returns
    -------
    counts : tensor of shape (n_windows, n_bins, n_units + 2), int64
        Per window and bin, the counts of each column, of spikes with an unknown id, and of those that
        ``unit_map`` leaves out.
    """
    times, units, starts, edges, unit_map, train_ends = spikes
    device, n_bins = times.device, grid.n_bins
    if train_ends is not None:
        units = torch.searchsorted(train_ends, torch.arange(len(times), device=device), right=True)
    column = units.long()
    n_ids = n_units if unit_map is None else len(unit_map)
    unknown = (column < 0) | (column >= n_ids)
    if unit_map is not None and n_ids:
        column = unit_map[column.clamp(0, n_ids - 1)]
        column = torch.where((column < 0) | (column >= n_units), n_units + 1, column)
    column = torch.where(unknown, n_units, column)

    k = torch.arange(n_bins + 1, device=device)
    if times.dtype == torch.int64:
        numerator, denominator = grid.width
        offsets = (k * numerator + denominator - 1) // denominator
        first: float
        tolerance, first = 0.0, grid.first_sample
    else:
        step, step_is_rate = grid.step
        offsets = k.double() / step if step_is_rate else k.double() * step
        tolerance, first = grid.edge_tolerance, grid.start
    if starts is None:
        starts = torch.tensor([first], dtype=times.dtype, device=device)
    counts = torch.zeros(len(starts), n_bins, n_units + 2, dtype=torch.int64, device=device)
    for window, window_start in enumerate(starts):
        plain = window_start + offsets if edges is None else edges
        lowered = plain - tolerance if tolerance else plain
        bins = torch.searchsorted(lowered, times, right=True) - 1  # NaN and infinity sort last
        if grid.closed_last:
            bins = torch.where((bins >= n_bins) & (times <= plain[-1]), n_bins - 1, bins)
        inside = (bins >= 0) & (bins < n_bins)
        one = torch.ones((), dtype=torch.int64, device=device)
        counts[window].index_put_((bins[inside], column[inside]), one, accumulate=True)
    return counts


def count_by_reference(
    spikes: Spikes, counts: Any, count_type: str, n_units: int, grid: Grid, rules: Rules
) -> Any:
    """Fill ``counts``; return the number of spikes dropped, as a tensor if ``counts`` is one."""
    if torch is None:
        raise ValueError("bin_spikes: backend='reference' needs torch; leave backend out")
    tensors = not isinstance(counts, np.ndarray)
    as_tensors = Spikes(*(array if array is None else torch.as_tensor(array).detach() for array in spikes))
    check_values(Spikes(*(array if array is None else array.cpu() for array in as_tensors)), n_units)
    all_counts = bin_spikes_reference(as_tensors, n_units, grid)
    totals = all_counts[..., :n_units]
    unknown = int(all_counts[..., n_units].sum()) if grid.n_bins else 0
    check_report(unknown, int(totals.max()) if totals.numel() else 0, spikes, count_type, n_units, rules)
    uncounted = int(all_counts[..., n_units:].sum())
    dropped = uncounted if spikes.starts is not None else len(spikes.times) - int(totals.sum())
    values = totals.clamp(max=largest_count(count_type, rules.smoothing))
    if rules.smoothing is not None:
        values = smooth_reference(values.float(), rules.smoothing, rules.smoothing_width, grid.bin_size)
    out = counts if tensors else torch.from_numpy(counts)
    out.copy_(values.reshape(out.shape))
    return torch.tensor(dropped, device=totals.device) if tensors else dropped
