"""Spikes as sequences of tokens (unit, step), for models that read events; and the counts back, exactly.

The tokens of Neuroformer are of this kind (Antoniades et al., "Neuroformer: multimodal and multitask
generative pretraining for brain data", ICLR 2024, arXiv:2311.00136): which unit fired, and in which time step
of a window, with a past window as context. They come from spike times, or from the counts of any batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_integer, check_memory, check_positive
from neurokern.ops._spike_grid import bin_step, count_bins, width_in_samples

EDGE_TOLERANCE = 1e-9  # s: as in bin_spikes, a spike that close below an edge goes up


@dataclass(frozen=True, eq=False, slots=True)
class SpikeTokens:
    """Sequences of spikes in the order of time, padded to one length.

    Attributes
    ----------
    unit : int64 tensor of shape (B, L)
        Unit of each spike; ``n_units`` where ``mask`` is False, so that ``nn.Embedding(n_units + 1, size,
        padding_idx=n_units)`` takes them as they are.
    step : int64 tensor of shape (B, L)
        Time step of each spike in its window; ``n_steps`` where ``mask`` is False.
    mask : bool tensor of shape (B, L)
        True for spikes, False for padding, which is at the end.
    n_units, n_steps : int
    n_dropped : int64 tensor of shape (B,)
        Spikes that ``max_tokens`` cut off, the latest of each window.
    """

    unit: Tensor
    step: Tensor
    mask: Tensor
    n_units: int
    n_steps: int
    n_dropped: Tensor

    def __len__(self) -> int:
        return len(self.unit)

    def to(self, device: torch.device | str) -> SpikeTokens:
        """Return the tokens on a device."""
        unit, step, mask, dropped = (
            values.to(device) for values in (self.unit, self.step, self.mask, self.n_dropped)
        )
        return SpikeTokens(unit, step, mask, self.n_units, self.n_steps, dropped)

    def counts(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return spikes per step and unit, ``(B, n_steps, n_units)``: exactly those that became tokens."""
        shape = (len(self), self.n_steps + 1, self.n_units + 1)  # one more of each, for the padding
        check_memory("SpikeTokens.counts", f"counts of shape {shape}", 8.0 * math.prod(shape), "take fewer")
        place = self.step * (self.n_units + 1) + self.unit
        counts = place.new_zeros(shape).flatten(1).scatter_add_(1, place, self.mask.long())
        return counts.view(shape)[:, :-1, :-1].to(dtype)

    def between(self, first: int, stop: int, max_tokens: int | None = None) -> SpikeTokens:
        """Return the tokens of steps ``first`` to ``stop - 1``, which become steps 0, 1, ...

        A past and a current window of the same spikes are ``between(0, now)`` and ``between(now, n_steps)``.

        Raises
        ------
        ValueError
            If not ``0 <= first < stop <= n_steps``.
        """
        if not 0 <= first < stop <= self.n_steps:
            raise ValueError(
                f"SpikeTokens.between: steps must satisfy 0 <= first < stop <= {self.n_steps}, "
                f"got {first} and {stop}"
            )
        kept = self.mask & (self.step >= first) & (self.step < stop)
        order = (~kept).long().argsort(dim=1, stable=True)
        unit, step = self.unit.gather(1, order), self.step.gather(1, order) - first
        return _padded(unit, step, kept.sum(1), self.n_units, stop - first, max_tokens)


def spike_tokens(
    times: Tensor | np.ndarray,
    units: Tensor | np.ndarray,
    starts: Tensor | np.ndarray,
    *,
    duration: float,
    dt: float,
    n_units: int,
    sfreq: float | None = None,
    max_tokens: int | None = None,
) -> SpikeTokens:
    """Return the spikes of windows as tokens, each spike by itself.

    Steps begin and end where the bins of :func:`neurokern.bin_spikes` do, so that ``spike_tokens(...).
    counts()`` are its counts. Within a step, tokens keep the order of their spikes.

    Parameters
    ----------
    times : array of shape (n_spikes,), float seconds or integer samples
        In any order; NaN and infinite times make no tokens.
    units : array of shape (n_spikes,), int
        Those outside ``[0, n_units)`` make no tokens.
    starts : array of shape (B,), seconds, or samples if ``times`` are
        Starts of the windows, which may overlap.
    duration, dt : float, seconds
        Length of a window, and of a step. Neuroformer takes windows of 50 ms in steps of 5 to 50 ms.
    n_units : int
    sfreq : float, Hz, optional
        Sampling rate of integer times. Steps of ``dt = 1 / sfreq`` are samples: the exact times come back as
        ``starts + tokens.step``.
    max_tokens : int, optional
        Length of the sequences; later spikes are cut off and counted in ``n_dropped``. By default the longest
        window's number of spikes, for which a GPU has to be waited for.

    Returns
    -------
    tokens : SpikeTokens
        On the device of ``times``.

    Raises
    ------
    ValueError, TypeError
        If lengths differ, a size is not above 0, or integer times have no ``sfreq``.

    Examples
    --------
    >>> tokens = spike_tokens(np.array([0.01, 0.12, 0.13]), np.array([2, 0, 2]), np.array([0.0, 0.1]),
    ...                       duration=0.1, dt=0.02, n_units=3)
    >>> tokens.unit, tokens.step
    (tensor([[2, 3],
            [0, 2]]), tensor([[0, 5],
            [1, 1]]))
    """
    times, units, starts = (torch.as_tensor(values) for values in (times, units, starts))
    n_units = _check_size("spike_tokens", "n_units", n_units)
    if max_tokens is not None:
        _check_size("spike_tokens", "max_tokens", max_tokens)
    check_positive("spike_tokens", "dt", dt)
    n_steps = count_bins(check_positive("spike_tokens", "duration", duration), dt)
    _check_spikes(times, units, starts, sfreq)
    exact = not times.is_floating_point()
    times, starts = (values.to(torch.int64 if exact else torch.float64) for values in (times, starts))
    kept = (units >= 0) & (units < n_units)
    if not exact:
        kept &= times.isfinite()
    times, units = times[kept], units[kept].long()
    if (times.diff() < 0).any():
        times, order = times.sort(stable=True)
        units = units[order]
    n_edges = len(starts) * (n_steps + 1.0)
    check_memory(
        "spike_tokens", f"{n_steps} steps of {len(starts)} windows", 16 * n_edges, "take longer steps"
    )
    edges = _edges(starts, n_steps, dt, sfreq)  # (B, n_steps + 1)
    first, stop = torch.searchsorted(times, edges[:, [0, -1]].contiguous()).unbind(1)
    n_spikes = stop - first
    length = _length(n_spikes) if max_tokens is None else max_tokens
    check_memory(
        "spike_tokens", f"{len(starts)} windows of {length} tokens", 48.0 * len(starts) * length, "take fewer"
    )
    place = first[:, None] + torch.arange(length, device=times.device)
    place = place.clamp(max=max(len(times) - 1, 0))
    if not len(times):
        times, units = times.new_zeros(1), units.new_zeros(1)
    step = torch.searchsorted(edges, times[place], right=True) - 1
    return _padded(units[place], step, n_spikes, n_units, n_steps, length)


def count_tokens(
    counts: Tensor, n_units: Tensor | None = None, *, max_tokens: int | None = None
) -> SpikeTokens:
    """Return the spikes of counted windows as tokens; of one step, in the order of their units.

    Parameters
    ----------
    counts : tensor of shape (B, T, N)
        Whole numbers of spikes, as in a :class:`neurokern.datasets.SpikeBatch`.
    n_units : int tensor of shape (B,), optional
        Units of each window, ``batch.n_units``; the columns beyond are padding and make no tokens.
    max_tokens : int, optional
        As for :func:`spike_tokens`.

    Returns
    -------
    tokens : SpikeTokens
        With ``n_steps = T`` and ``n_units = N``; ``tokens.counts()`` are the counts again.

    Raises
    ------
    ValueError
        If the shape is wrong, or counts are negative, not finite or not whole.
    """
    if not isinstance(counts, Tensor) or counts.ndim != 3:
        got: Any = tuple(counts.shape) if isinstance(counts, Tensor) else type(counts).__name__
        raise ValueError(f"count_tokens: counts must be a tensor of shape (B, T, N), got {got}")
    if max_tokens is not None:
        _check_size("count_tokens", "max_tokens", max_tokens)
    n_windows, n_steps, width = counts.shape
    if n_units is not None:
        columns = torch.arange(width, device=counts.device)
        counts = counts.masked_fill(columns >= n_units.to(counts.device)[:, None, None], 0)
    whole = counts.long()
    if not ((whole == counts) & (whole >= 0)).all():
        raise ValueError("count_tokens: counts must be whole numbers of at least 0")
    place = torch.arange(n_steps * width, device=counts.device).repeat(n_windows)
    place = place.repeat_interleave(whole.flatten())  # of every spike, window after window
    n_spikes = whole.sum((1, 2))
    length = _length(n_spikes)
    real = torch.arange(length, device=counts.device) < n_spikes[:, None]
    sequences = place.new_zeros(n_windows, length)
    sequences[real] = place
    step, unit = sequences // max(width, 1), sequences % max(width, 1)
    return _padded(unit, step, n_spikes, width, n_steps, max_tokens)


def _padded(
    unit: Tensor, step: Tensor, n_spikes: Tensor, n_units: int, n_steps: int, max_tokens: int | None
) -> SpikeTokens:
    """Cut or fill sequences to one length; what lies behind the spikes becomes padding."""
    length = _length(n_spikes) if max_tokens is None else max_tokens
    mask = torch.arange(length, device=unit.device) < n_spikes[:, None]

    def filled(values: Tensor, padding: int) -> Tensor:
        values = values[:, :length]
        short = length - values.shape[1]
        values = torch.nn.functional.pad(values, (0, short)) if short else values
        return values.masked_fill(~mask, padding)

    dropped = (n_spikes - length).clamp(min=0)
    return SpikeTokens(filled(unit, n_units), filled(step, n_steps), mask, n_units, n_steps, dropped)


def _length(n_spikes: Tensor) -> int:
    return int(n_spikes.max()) if len(n_spikes) else 0


def _edges(starts: Tensor, n_steps: int, dt: float, sfreq: float | None) -> Tensor:
    """Return the edges of the steps of each window, by the rule of ``bin_spikes``."""
    k = torch.arange(n_steps + 1, device=starts.device)
    if sfreq is not None:
        numerator, denominator = width_in_samples(dt, sfreq)
        return starts[:, None] + (k * numerator + denominator - 1) // denominator
    step, is_rate = bin_step(dt)
    offsets = k.double() / step if is_rate else k.double() * step
    return starts[:, None] + offsets - EDGE_TOLERANCE


def _check_size(function: str, name: str, value: int) -> int:
    if check_integer(function, name, value) < 1:
        raise ValueError(f"{function}: {name} must be at least 1, got {value}")
    return value


def _check_spikes(times: Tensor, units: Tensor, starts: Tensor, sfreq: float | None) -> None:
    if times.ndim != 1 or units.shape != times.shape or starts.ndim != 1:
        raise ValueError(
            f"spike_tokens: times and units must have one length, and starts one dimension, got shapes "
            f"{tuple(times.shape)}, {tuple(units.shape)} and {tuple(starts.shape)}"
        )
    if units.is_floating_point() or times.is_complex() or times.dtype == torch.bool:
        raise TypeError(
            f"spike_tokens: times must be seconds or samples and units integers, got {times.dtype} and "
            f"{units.dtype}"
        )
    if (
        times.is_floating_point() != (sfreq is None)
        or times.is_floating_point() != starts.is_floating_point()
    ):
        raise ValueError(
            f"spike_tokens: times and starts must be seconds (float), or samples (integer) with sfreq, got "
            f"{times.dtype} and {starts.dtype} with sfreq={sfreq}"
        )
    if sfreq is not None:
        check_positive("spike_tokens", "sfreq", sfreq)
    elif starts.device.type == "cpu" and not starts.isfinite().all():
        raise ValueError("spike_tokens: starts must be finite")
