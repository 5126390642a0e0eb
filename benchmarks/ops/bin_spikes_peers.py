"""What people use to bin spikes, each as a function of a problem that returns a call without arguments.

Names are those of the tables. ``most`` bounds the spikes of slow peers; ``needs`` names the module that must
be installed; ``kinds`` says which problems the peer knows. Preparation that a user does once (neo trains,
pynapple groups, numba's compilation) is not timed.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from bin_spikes_workloads import N_UNITS, RATE, SAMPLES_PER_BIN, Problem

Call = Callable[[], Any]
PACKAGES = (
    *("numpy", "torch", "scipy", "numba", "fast-histogram", "boost-histogram"),
    *("iblutil", "elephant", "pynapple"),
)
POINTS = ("session", "unsorted", "samples", "subset", "regions", "trains")
SECONDS = ("session", "unsorted", "subset", "regions", "trains")  # float times only


@dataclass(frozen=True)
class Peer:
    """A way to do it that is not ours."""

    name: str
    kinds: tuple[str, ...]
    build: Callable[[Problem], Call]
    most: int
    needs: str


PEERS: list[Peer] = []


def peer(
    name: str, kinds: tuple[str, ...], *, most: int = 10**12, needs: str = "numpy"
) -> Callable[[Callable[[Problem], Call]], Callable[[Problem], Call]]:
    """Register a builder."""

    def register(build: Callable[[Problem], Call]) -> Callable[[Problem], Call]:
        PEERS.append(Peer(name, kinds, build, most, needs))
        return build

    return register


def peers_of(kind: str) -> list[Peer]:
    return [p for p in PEERS if kind in p.kinds and importlib.util.find_spec(p.needs) is not None]


# ---- numpy


@peer("np.bincount", POINTS)
def bincount(p: Problem) -> Call:
    return lambda: np.bincount(p.cells(), minlength=p.n_cells).reshape(p.shape)


@peer("np.add.at (torch_brain)", POINTS)
def add_at(p: Problem) -> Call:
    def run() -> np.ndarray:
        counts = np.zeros(p.shape, p.dtype)
        times, column = p.columns()
        np.add.at(counts, (p.bins(times), column), 1)
        return counts

    return run


def _unit_edges(p: Problem) -> np.ndarray:
    return np.arange(p.n_columns + 1) - 0.5


@peer("np.histogram2d", POINTS)
def histogram2d(p: Problem) -> Call:
    return lambda: np.histogram2d(*p.columns(), (p.edges, _unit_edges(p)))[0]


@peer("np.histogramdd", POINTS)
def histogramdd(p: Problem) -> Call:
    limits = ((0, p.edges[-1]), (-0.5, p.n_columns - 0.5))
    return lambda: np.histogramdd(np.stack(p.columns(), 1), p.shape, limits)[0]


@peer("np.searchsorted + bincount", POINTS)
def searchsorted(p: Problem) -> Call:
    def run() -> np.ndarray:
        times, column = p.columns()
        bins = np.searchsorted(p.edges, times, side="right") - 1
        return np.bincount(bins * p.n_columns + column, minlength=p.n_cells).reshape(p.shape)

    return run


@peer("np.bincount per bin", ("session",))
def bincount_per_bin(p: Problem) -> Call:
    def run() -> np.ndarray:
        out = np.empty(p.shape, p.dtype)
        first = np.searchsorted(p.times, p.edges)
        for k in range(p.n_bins):
            out[k] = np.bincount(p.units[first[k] : first[k + 1]], minlength=p.n_columns)
        return out

    return run


# ---- torch


def _torch_points(p: Problem) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Bins and columns, int64, by torch alone."""
    times, units = torch.from_numpy(p.times), torch.from_numpy(p.units)
    table = None if p.table is None else torch.from_numpy(p.table)
    lengths = None if p.train_ends is None else torch.from_numpy(np.diff(p.train_ends, prepend=0))

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        t, column = times, (units.long() if table is None else table[units])
        if lengths is not None:
            column = torch.repeat_interleave(lengths)
        if p.kind == "subset":
            keep = column >= 0
            t, column = t[keep], column[keep]
        bins = t // SAMPLES_PER_BIN if t.dtype == torch.int64 else (t * RATE).long()
        return bins, column

    return run


def _counter(p: Problem) -> torch.dtype:
    # torch 2.4 has no uint16 arithmetic
    return torch.int16 if p.dtype == "uint16" else getattr(torch, p.dtype)


@peer("torch.bincount", POINTS)
def torch_bincount(p: Problem) -> Call:
    points = _torch_points(p)

    def run() -> torch.Tensor:
        bins, column = points()
        return torch.bincount(bins * p.n_columns + column, minlength=p.n_cells).view(p.shape)

    return run


@peer("torch.scatter_add_", POINTS)
def scatter_add(p: Problem) -> Call:
    points, ones = _torch_points(p), torch.ones(len(p.times), dtype=_counter(p))

    def run() -> torch.Tensor:
        bins, column = points()
        counts = torch.zeros(p.n_cells, dtype=ones.dtype)
        return counts.scatter_add_(0, bins * p.n_columns + column, ones[: len(bins)]).view(p.shape)

    return run


@peer("torch.index_put_", POINTS)
def index_put(p: Problem) -> Call:
    points, one = _torch_points(p), torch.ones(1, dtype=_counter(p))
    return lambda: torch.zeros(p.shape, dtype=one.dtype).index_put_(points(), one, accumulate=True)


@peer("torch.sparse_coo", POINTS)
def sparse_coo(p: Problem) -> Call:
    points, ones = _torch_points(p), torch.ones(len(p.times), dtype=torch.float32)

    def run() -> torch.Tensor:
        at = torch.stack(points())
        return torch.sparse_coo_tensor(at, ones[: at.shape[1]], p.shape, check_invariants=False).to_dense()

    return run


# ---- compiled histograms


@peer("scipy coo", POINTS, needs="scipy")
def scipy_coo(p: Problem) -> Call:
    import scipy.sparse

    def run() -> np.ndarray:
        times, column = p.columns()
        ones, bins = np.ones(len(times), np.int16), p.bins(times).astype(np.int32)
        return scipy.sparse.coo_array((ones, (bins, column)), p.shape).toarray()

    return run


@peer("fast-histogram", POINTS, needs="fast_histogram")
def fast_histogram(p: Problem) -> Call:
    from fast_histogram import histogram2d

    limits = ((0, p.edges[-1]), (0, p.n_columns))
    return lambda: histogram2d(*p.columns(), p.shape, limits)


@peer("boost-histogram", POINTS, needs="boost_histogram")
def boost_histogram(p: Problem) -> Call:
    import boost_histogram as bh

    def run() -> np.ndarray:
        time_axis = bh.axis.Regular(p.n_bins, 0, p.edges[-1])
        counts = bh.Histogram(time_axis, bh.axis.Integer(0, p.n_columns), storage=bh.storage.Int64())
        return counts.fill(*p.columns()).view()

    return run


# ---- numba: the loop that a user would write, edges compared


@functools.cache
def numba_loops() -> dict[str, Any]:
    import numba

    @numba.njit
    def in_order(times, units, edges, out):
        out[:] = 0
        k, n_bins = 0, len(edges) - 1
        for i in range(len(times)):
            t = times[i]
            while k < n_bins and t >= edges[k + 1]:
                k += 1
            if k == n_bins:
                break
            out[k, units[i]] += 1

    @numba.njit
    def any_order(times, units, edges, out):
        out[:] = 0
        n_bins = len(edges) - 1
        scale = n_bins / (edges[-1] - edges[0])
        for i in range(len(times)):
            k = int((times[i] - edges[0]) * scale)
            if k < n_bins and times[i] >= edges[k + 1]:
                k += 1
            elif times[i] < edges[k]:
                k -= 1
            if 0 <= k < n_bins:
                out[k, units[i]] += 1

    @numba.njit
    def with_table(times, units, edges, table, out):
        out[:] = 0
        k, n_bins = 0, len(edges) - 1
        for i in range(len(times)):
            t = times[i]
            while k < n_bins and t >= edges[k + 1]:
                k += 1
            if k == n_bins:
                break
            column = table[units[i]]
            if column >= 0:
                out[k, column] += 1

    @numba.njit
    def per_train(times, ends, edges, out):
        out[:] = 0
        first, n_bins = 0, len(edges) - 1
        for unit in range(len(ends)):
            k = 0
            for i in range(first, ends[unit]):
                while k < n_bins and times[i] >= edges[k + 1]:
                    k += 1
                if k == n_bins:
                    break
                out[k, unit] += 1
            first = ends[unit]

    return {"in_order": in_order, "any_order": any_order, "with_table": with_table, "per_train": per_train}


@peer("numba loop", POINTS, needs="numba")
def numba_loop(p: Problem) -> Call:
    out, edges = np.empty(p.shape, p.dtype), p.edges
    loops = numba_loops()
    if p.kind == "trains":
        loop, arguments = loops["per_train"], (p.times, p.train_ends, edges, out)
    elif p.table is not None:
        loop, arguments = loops["with_table"], (p.times, p.units, edges, p.table, out)
    else:
        loop = loops["any_order" if p.kind == "unsorted" else "in_order"]
        arguments = (p.times, p.units, edges, out)

    def run() -> np.ndarray:
        loop(*arguments)
        return out

    return run


# ---- libraries of the field


@peer("iblutil bincount2D", SECONDS, needs="iblutil")
def iblutil_bincount2d(p: Problem) -> Call:
    from iblutil.numerical import bincount2D

    limits = [0, p.duration - 1 / RATE], [0, p.n_columns - 1]
    return lambda: bincount2D(*p.columns(), 1 / RATE, 1, *limits)[0].T


def unit_trains(p: Problem) -> list[np.ndarray]:
    """Each column's spike times, ascending."""
    times, column = p.columns()
    order = np.lexsort((times, column))
    return np.split(times[order], np.cumsum(np.bincount(column, minlength=p.n_columns))[:-1])


def neo_trains(p: Problem) -> list[Any]:
    import neo

    trains = unit_trains(p)
    return [neo.SpikeTrain(train, units="s", t_start=0, t_stop=p.duration) for train in trains]


def pynapple_group(p: Problem) -> Any:
    import pynapple as nap

    trains = {i: nap.Ts(train) for i, train in enumerate(unit_trains(p))}
    return nap.TsGroup(trains, time_support=nap.IntervalSet(0, p.duration))


@peer("elephant (trains prebuilt)", ("session", "subset", "trains"), needs="elephant")
def elephant_binned(p: Problem) -> Call:
    import quantities
    from elephant.conversion import BinnedSpikeTrain

    trains, width = neo_trains(p), 1000 / RATE * quantities.ms
    return lambda: BinnedSpikeTrain(trains, bin_size=width).to_array().T


@peer("pynapple (group prebuilt)", ("session", "subset", "trains"), needs="pynapple")
def pynapple_count(p: Problem) -> Call:
    group = pynapple_group(p)
    return lambda: group.count(1 / RATE).values


# ---- ragged trains: what only they allow


@peer("np.bincount per unit, into columns", ("trains",))
def bincount_per_unit(p: Problem) -> Call:
    out = np.empty(p.shape, p.dtype)
    first = np.concatenate([[0], p.train_ends])

    def run() -> np.ndarray:
        for unit in range(N_UNITS):
            bins = p.bins(p.times[first[unit] : first[unit + 1]])
            out[:, unit] = np.bincount(bins, minlength=p.n_bins)
        return out

    return run


@peer("np.bincount per unit, transposed view", ("trains",))
def bincount_per_unit_rows(p: Problem) -> Call:
    out = np.empty((N_UNITS, p.n_bins), p.dtype)
    first = np.concatenate([[0], p.train_ends])

    def run() -> np.ndarray:
        for unit in range(N_UNITS):
            bins = p.bins(p.times[first[unit] : first[unit + 1]])
            out[unit] = np.bincount(bins, minlength=p.n_bins)
        return out.T

    return run


@peer("np.histogram per unit", ("trains",))
def histogram_per_unit(p: Problem) -> Call:
    out = np.empty(p.shape, p.dtype)
    first, edges = np.concatenate([[0], p.train_ends]), p.edges

    def run() -> np.ndarray:
        for unit in range(N_UNITS):
            out[:, unit] = np.histogram(p.times[first[unit] : first[unit + 1]], edges)[0]
        return out

    return run
