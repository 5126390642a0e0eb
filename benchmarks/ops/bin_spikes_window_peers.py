"""What people use to cut trials and to smooth rates; see bin_spikes_peers.py for the form."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from bin_spikes_peers import Call, neo_trains, numba_loops, peer, pynapple_group
from bin_spikes_workloads import RATE, SMOOTHING_WIDTH, WINDOW_BINS, WINDOW_LENGTH, Problem

WINDOWS = ("windows",)


# ---- trials and windows


def _output(p: Problem) -> np.ndarray:
    return np.empty(p.exact.shape, p.dtype)


@peer("numpy loop of bincount", WINDOWS)
def loop_of_bincount(p: Problem) -> Call:
    out = _output(p)

    def run() -> np.ndarray:
        for window, begin in enumerate(p.events):
            i, j = np.searchsorted(p.times, [begin, begin + WINDOW_LENGTH])
            bins = np.minimum(((p.times[i:j] - begin) * RATE).astype(np.int64), WINDOW_BINS - 1)
            cells = bins * p.n_columns + p.units[i:j]
            out[window] = np.bincount(cells, minlength=p.n_cells).reshape(p.shape)
        return out

    return run


@peer("published preparation loop", WINDOWS, needs="iblutil")
def preparation_loop(p: Problem) -> Call:
    """Count as the published data preparation does, and the loader that reads what it stored.

    Each trial masks the spikes of the whole session, counts with bincount2D and is kept as CSR, which is made
    dense again for each item.
    """
    import scipy.sparse
    from iblutil.numerical import bincount2D

    out, limits = _output(p), [0, p.n_columns - 1]

    def run() -> np.ndarray:
        for window, begin in enumerate(p.events):
            mask = (p.times >= begin) & (p.times < begin + WINDOW_LENGTH)
            in_time = [0, WINDOW_LENGTH - 1 / RATE]
            counts = bincount2D(p.times[mask] - begin, p.units[mask], 1 / RATE, 1, in_time, limits)[0].T
            stored = scipy.sparse.csr_array(counts[:WINDOW_BINS].astype(np.uint8))
            out[window] = stored.toarray()
        return out

    return run


def _gather_windows(p: Problem) -> Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Window, bin and unit of every spike of every window, without a Python loop."""

    def run() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        first = np.searchsorted(p.times, p.events)
        lengths = np.searchsorted(p.times, p.events + WINDOW_LENGTH) - first
        window = np.repeat(np.arange(len(first)), lengths)
        spike = np.arange(len(window)) + np.repeat(first - np.cumsum(lengths) + lengths, lengths)
        bins = ((p.times[spike] - p.events[window]) * RATE).astype(np.int64)
        return window, np.minimum(bins, WINDOW_BINS - 1), p.units[spike]

    return run


@peer("vectorised np.bincount", WINDOWS)
def vectorised_bincount(p: Problem) -> Call:
    gather = _gather_windows(p)

    def run() -> np.ndarray:
        window, bins, units = gather()
        cells = (window * WINDOW_BINS + bins) * p.n_columns + units
        return np.bincount(cells, minlength=p.exact.size).reshape(p.exact.shape)

    return run


@peer("vectorised np.add.at", WINDOWS)
def vectorised_add_at(p: Problem) -> Call:
    gather = _gather_windows(p)

    def run() -> np.ndarray:
        counts = np.zeros(p.exact.shape, p.dtype)
        np.add.at(counts, gather(), 1)
        return counts

    return run


@peer("vectorised torch.bincount", WINDOWS)
def vectorised_torch(p: Problem) -> Call:
    times, units, events = (torch.from_numpy(a) for a in (p.times, p.units, p.events))

    def run() -> torch.Tensor:
        first = torch.searchsorted(times, events)
        lengths = torch.searchsorted(times, events + WINDOW_LENGTH) - first
        window = torch.repeat_interleave(lengths)
        spike = torch.arange(len(window)) + torch.repeat_interleave(
            first - lengths.cumsum(0) + lengths, lengths
        )
        bins = ((times[spike] - events[window]) * RATE).long().clamp_(max=WINDOW_BINS - 1)
        cells = (window * WINDOW_BINS + bins) * p.n_columns + units[spike]
        return torch.bincount(cells, minlength=p.exact.size).view(p.exact.shape)

    return run


@peer("np.histogram2d per window", WINDOWS)
def histogram2d_per_window(p: Problem) -> Call:
    out, unit_edges = _output(p), np.arange(p.n_columns + 1) - 0.5

    def run() -> np.ndarray:
        for window, begin in enumerate(p.events):
            edges = begin + np.arange(WINDOW_BINS + 1) / RATE
            i, j = np.searchsorted(p.times, [begin, begin + WINDOW_LENGTH])
            out[window] = np.histogram2d(p.times[i:j], p.units[i:j], (edges, unit_edges))[0]
        return out

    return run


@functools.cache
def numba_windows() -> Any:
    import numba

    @numba.njit
    def loop(times, units, events, rate, tolerance, out):
        out[:] = 0
        n_bins = out.shape[1]
        for window in range(len(events)):
            begin = events[window] - tolerance
            k, edge = 0, begin + 1 / rate
            for i in range(np.searchsorted(times, begin), len(times)):
                while times[i] >= edge and k < n_bins:
                    k += 1
                    edge = begin + (k + 1) / rate
                if k == n_bins:
                    break
                out[window, k, units[i]] += 1

    return loop


@peer("numba loop", WINDOWS, needs="numba")
def numba_window_loop(p: Problem) -> Call:
    out, loop = _output(p), numba_windows()

    def run() -> np.ndarray:
        loop(p.times, p.units, p.events, RATE, 1e-9, out)
        return out

    return run


@peer("pynapple build_tensor (group prebuilt)", WINDOWS, needs="pynapple")
def pynapple_tensor(p: Problem) -> Call:
    import pynapple as nap

    if (np.diff(p.events) < WINDOW_LENGTH).any():
        raise NotImplementedError("epochs must be disjoint")
    group = pynapple_group(p)
    epochs = nap.IntervalSet(p.events, p.events + WINDOW_LENGTH)
    return lambda: nap.build_tensor(group, epochs, bin_size=1 / RATE).transpose(1, 2, 0)[:, :WINDOW_BINS]


# ---- smoothed rates

SIGMA = SMOOTHING_WIDTH * RATE  # in bins
GAUSSIAN, EXPONENTIAL = ("gaussian",), ("exponential",)


def _bincount(p: Problem) -> np.ndarray:
    return np.bincount(p.cells(), minlength=p.n_cells).reshape(p.shape)


@peer("np.bincount + scipy gaussian_filter1d", GAUSSIAN, needs="scipy")
def bincount_and_scipy(p: Problem) -> Call:
    from scipy.ndimage import gaussian_filter1d

    return lambda: gaussian_filter1d(_bincount(p).astype(np.float32), SIGMA, axis=0, mode="constant")


@peer("numba loop + scipy gaussian_filter1d", GAUSSIAN, needs="numba")
def numba_and_scipy(p: Problem) -> Call:
    from scipy.ndimage import gaussian_filter1d

    counts, edges, loop = np.empty(p.shape, np.float32), p.edges, numba_loops()["in_order"]

    def run() -> np.ndarray:
        loop(p.times, p.units, edges, counts)
        return gaussian_filter1d(counts, SIGMA, axis=0, mode="constant")

    return run


@peer("np.bincount + torch conv1d", GAUSSIAN)
def bincount_and_conv1d(p: Problem) -> Call:
    radius = int(4 * SIGMA + 0.5)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / SIGMA) ** 2)
    weights = (weights / weights.sum()).float()[None, None]

    def run() -> np.ndarray:
        counts = torch.from_numpy(_bincount(p)).float().T[:, None]
        return torch.nn.functional.conv1d(counts, weights, padding=radius)[:, 0].T.contiguous().numpy()

    return run


@peer("pynapple count + smooth (group prebuilt)", GAUSSIAN, needs="pynapple")
def pynapple_smooth(p: Problem) -> Call:
    group = pynapple_group(p)
    return lambda: group.count(1 / RATE).smooth(SMOOTHING_WIDTH, size_factor=8).values


@peer("elephant instantaneous_rate (trains prebuilt)", GAUSSIAN, most=1_000_000, needs="elephant")
def elephant_rate(p: Problem) -> Call:
    import quantities
    from elephant.kernels import GaussianKernel
    from elephant.statistics import instantaneous_rate

    trains, kernel = neo_trains(p), GaussianKernel(SMOOTHING_WIDTH * quantities.s)
    width = 1000 / RATE * quantities.ms
    return lambda: instantaneous_rate(trains, width, kernel=kernel, cutoff=4.0).magnitude / RATE


def _decay() -> tuple[float, float]:
    a = float(np.exp(-1 / RATE / SMOOTHING_WIDTH))
    return a, 1 - a


@peer("np.bincount + scipy lfilter", EXPONENTIAL, needs="scipy")
def bincount_and_lfilter(p: Problem) -> Call:
    from scipy.signal import lfilter

    a, c = _decay()
    numerator, denominator = np.array([c], np.float32), np.array([1, -a], np.float32)
    return lambda: lfilter(numerator, denominator, _bincount(p).astype(np.float32), axis=0)


@functools.cache
def numba_exponential() -> Any:
    import numba

    @numba.njit
    def loop(times, units, edges, a, c, out):
        out[:] = 0
        i, n_bins = 0, len(edges) - 1
        for k in range(n_bins):
            while i < len(times) and times[i] < edges[k + 1]:
                out[k, units[i]] += c
                i += 1
            if k > 0:
                for unit in range(out.shape[1]):
                    out[k, unit] += a * out[k - 1, unit]

    return loop


@peer("numba fused loop", EXPONENTIAL, needs="numba")
def numba_fused(p: Problem) -> Call:
    out, edges, loop = np.empty(p.shape, np.float32), p.edges, numba_exponential()
    a, c = (np.float32(w) for w in _decay())

    def run() -> np.ndarray:
        loop(p.times, p.units, edges, a, c, out)
        return out

    return run
