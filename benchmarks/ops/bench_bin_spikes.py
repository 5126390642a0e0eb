"""bin_spikes against what people use: the same spikes, one thread, correctness beside time.

    python benchmarks/ops/bench_bin_spikes.py                       # table; --json FILE keeps the numbers
    python -m pytest benchmarks/ops/bench_bin_spikes.py             # the same candidates under
    pytest-benchmark

Spikes lie on a 30 kHz clock, as recorded ones do; "differing" counts cells that disagree with integer
arithmetic.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import neurokern as nk

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness

CLOCK, RATE = 30_000, 50  # Hz: samples, bins
SAMPLES_PER_BIN = CLOCK // RATE
PEERS = ("numpy", "torch", "scipy", "numba", "fast-histogram", "iblutil", "pynapple")


class Recording(NamedTuple):
    """A session: 800 units that fire at 17 Hz in the mean, some often, most seldom."""

    samples: np.ndarray
    times: np.ndarray
    units: np.ndarray  # int32
    n_units: int
    n_bins: int
    duration: float


@functools.cache
def recording(n_spikes: int) -> Recording:
    rng = np.random.default_rng(0)
    n_units, duration = 800, max(round(n_spikes / 800 / 17.4), 4)
    samples = np.sort(rng.integers(0, duration * CLOCK, n_spikes))
    weights = rng.gamma(0.7, size=n_units)
    units = rng.choice(n_units, n_spikes, p=weights / weights.sum()).astype(np.int32)
    return Recording(samples, samples / CLOCK, units, n_units, duration * RATE, float(duration))


@functools.cache
def shuffled(n_spikes: int) -> Recording:
    r = recording(n_spikes)
    order = np.random.default_rng(1).permutation(n_spikes)
    return r._replace(samples=r.samples[order], times=r.times[order], units=r.units[order])


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


@functools.cache
def numba_loops() -> Any:
    """Loops that a user would write, with the edges compared."""
    import numba

    @numba.njit
    def session(times, units, edges, out):
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
    def any_order(times, units, rate, out):
        out[:] = 0
        for i in range(len(times)):
            k = int(times[i] * rate)
            if k < out.shape[0]:
                out[k, units[i]] += 1

    @numba.njit
    def mapped(times, units, edges, table, out):
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
    def windows(times, units, starts, rate, out):
        out[:] = 0
        length = out.shape[1] / rate
        for w in range(len(starts)):
            i = np.searchsorted(times, starts[w])
            while i < len(times) and times[i] < starts[w] + length:
                k = int((times[i] - starts[w]) * rate)
                if k < out.shape[1]:
                    out[w, k, units[i]] += 1
                i += 1

    return {"session": session, "any_order": any_order, "mapped": mapped, "windows": windows}


Candidates = dict[str, Callable[[], Any]]


def session(n_spikes: int, dtype: str, *, ordered: bool = True) -> tuple[Candidates, np.ndarray]:
    r = recording(n_spikes) if ordered else shuffled(n_spikes)
    shape = (r.n_bins, r.n_units)
    exact = np.bincount(r.samples // SAMPLES_PER_BIN * r.n_units + r.units, minlength=r.n_bins * r.n_units)
    ours, out = np.empty(shape, dtype), np.empty(shape, dtype)
    edges = np.arange(r.n_bins + 1) / RATE
    t_times, t_units = torch.from_numpy(r.times), torch.from_numpy(r.units).long()
    cells = r.n_bins * r.n_units

    def flat() -> np.ndarray:
        return (r.times * RATE).astype(np.int64) * r.n_units + r.units

    def t_flat() -> torch.Tensor:
        return (t_times * RATE).long() * r.n_units + t_units

    ones = torch.ones(n_spikes, dtype=getattr(torch, dtype))
    candidates: Candidates = {
        "neurokern": lambda: nk.bin_spikes(
            r.times, r.units, 1 / RATE, r.duration, n_units=r.n_units, out=ours
        ),
        "np.bincount": lambda: np.bincount(flat(), minlength=cells).reshape(shape),
        "torch.bincount": lambda: torch.bincount(t_flat(), minlength=cells).view(shape).numpy(),
        "torch.scatter_add_": lambda: (
            torch.zeros(cells, dtype=ones.dtype).scatter_add_(0, t_flat(), ones).view(shape).numpy()
        ),
        "torch.index_put_": lambda: (
            torch.zeros(shape, dtype=ones.dtype)
            .index_put_(((t_times * RATE).long(), t_units), ones[:1], accumulate=True)
            .numpy()
        ),
    }
    if n_spikes <= 4_000_000:

        def add_at() -> np.ndarray:
            counts = np.zeros(shape, dtype)
            np.add.at(counts, ((r.times * RATE).astype(np.int64), r.units), 1)
            return counts

        candidates["np.add.at"] = add_at
        candidates["np.histogram2d"] = lambda: np.histogram2d(
            r.times, r.units, (edges, np.arange(r.n_units + 1))
        )[0]
    if installed("scipy"):
        import scipy.sparse

        candidates["scipy coo"] = lambda: scipy.sparse.coo_array(
            (np.ones(n_spikes, np.int16), ((r.times * RATE).astype(np.int32), r.units)), shape
        ).toarray()
    if installed("numba"):
        loop = numba_loops()["session" if ordered else "any_order"]

        def numba_loop() -> np.ndarray:
            loop(r.times, r.units, edges if ordered else RATE, out)
            return out

        candidates["numba loop"] = numba_loop
    if installed("fast_histogram"):
        from fast_histogram import histogram2d

        candidates["fast-histogram"] = lambda: histogram2d(
            r.times, r.units, shape, ((0, r.duration), (0, r.n_units))
        )
    if installed("iblutil") and ordered:
        from iblutil.numerical import bincount2D

        candidates["iblutil bincount2D"] = lambda: (
            bincount2D(r.times, r.units, 1 / RATE, 1, [0, r.duration - 1 / RATE], [0, r.n_units - 1])[0].T
        )
    if installed("pynapple") and ordered and n_spikes <= 4_000_000:
        import pynapple as nap

        order = np.argsort(r.units, kind="stable")
        trains = np.split(r.times[order], np.cumsum(np.bincount(r.units, minlength=r.n_units))[:-1])
        group = nap.TsGroup(
            {i: nap.Ts(train) for i, train in enumerate(trains)}, time_support=nap.IntervalSet(0, r.duration)
        )
        candidates["pynapple count (group prebuilt)"] = lambda: group.count(1 / RATE).values
    return candidates, exact.reshape(shape)


def trial_windows(n_spikes: int, n_windows: int, dtype: str) -> tuple[Candidates, np.ndarray]:
    """Windows of 2 s that begin at any sample."""
    r = recording(n_spikes)
    n_bins, length = 100, 2.0
    rng = np.random.default_rng(2)
    event = np.sort(rng.integers(0, int((r.duration - length) * CLOCK), n_windows))
    starts = event / CLOCK
    shape = (n_windows, n_bins, r.n_units)
    exact = np.zeros(shape, np.int64)
    for w, first in enumerate(event):
        i, j = np.searchsorted(r.samples, [first, first + n_bins * SAMPLES_PER_BIN])
        np.add.at(exact[w], ((r.samples[i:j] - first) // SAMPLES_PER_BIN, r.units[i:j]), 1)
    ours, looked, out = (np.empty(shape, dtype) for _ in range(3))

    def numpy_loop() -> np.ndarray:
        for w, begin in enumerate(starts):
            i, j = np.searchsorted(r.times, [begin, begin + length])
            bins = ((r.times[i:j] - begin) * RATE).astype(np.int64)
            flat = bins[bins < n_bins] * r.n_units + r.units[i:j][bins < n_bins]
            out[w] = np.bincount(flat, minlength=n_bins * r.n_units).reshape(n_bins, r.n_units)
        return out

    def preparation_loop() -> np.ndarray:
        # The algorithm of the published data preparation: one mask over all spikes per trial.
        for w, begin in enumerate(starts):
            mask = (r.times >= begin) & (r.times < begin + length)
            bins = np.minimum(((r.times[mask] - begin) * RATE).astype(np.int64), n_bins - 1)
            flat = bins * r.n_units + r.units[mask]
            out[w] = np.bincount(flat, minlength=n_bins * r.n_units).reshape(n_bins, r.n_units)
        return out

    options = {"n_units": r.n_units, "windows": starts}
    candidates: Candidates = {
        "neurokern, sorted=True": lambda: nk.bin_spikes(
            r.times, r.units, 1 / RATE, length, out=ours, sorted=True, **options
        ),
        "neurokern": lambda: nk.bin_spikes(r.times, r.units, 1 / RATE, length, out=looked, **options),
        "numpy loop of bincount": numpy_loop,
        "published preparation loop": preparation_loop,
    }
    if installed("numba"):

        def numba_loop() -> np.ndarray:
            numba_loops()["windows"](r.times, r.units, starts, RATE, out)
            return out

        candidates["numba loop"] = numba_loop
    return candidates, exact


def mapped_units(n_spikes: int, dtype: str, *, regions: bool) -> tuple[Candidates, np.ndarray]:
    """300 of the units in another order, or sums over 40 regions."""
    r = recording(n_spikes)
    rng = np.random.default_rng(3)
    n_columns = 40 if regions else 300
    table = np.full(r.n_units, -1, np.int64)
    if regions:
        table[:] = rng.integers(0, n_columns, r.n_units)
    else:
        table[rng.permutation(r.n_units)[:n_columns]] = np.arange(n_columns)
    shape = (r.n_bins, n_columns)
    kept = table[r.units] >= 0
    flat = r.samples[kept] // SAMPLES_PER_BIN * n_columns + table[r.units[kept]]
    exact = np.bincount(flat, minlength=r.n_bins * n_columns).reshape(shape)
    ours, out = np.empty(shape, dtype), np.empty(shape, dtype)
    edges = np.arange(r.n_bins + 1) / RATE

    def table_and_bincount() -> np.ndarray:
        column = table[r.units]
        keep = column >= 0
        cell = (r.times[keep] * RATE).astype(np.int64) * n_columns + column[keep]
        return np.bincount(cell, minlength=r.n_bins * n_columns).reshape(shape)

    candidates: Candidates = {
        "neurokern": lambda: nk.bin_spikes(
            r.times, r.units, 1 / RATE, r.duration, n_units=n_columns, unit_map=table, out=ours
        ),
        "np.bincount of table": table_and_bincount,
    }
    if installed("numba"):

        def numba_loop() -> np.ndarray:
            numba_loops()["mapped"](r.times, r.units, edges, table, out)
            return out

        candidates["numba loop"] = numba_loop
    return candidates, exact


def integer_samples(n_spikes: int, dtype: str) -> tuple[Candidates, np.ndarray]:
    r = recording(n_spikes)
    shape = (r.n_bins, r.n_units)
    ours, out = np.empty(shape, dtype), np.empty(shape, dtype)
    edges = np.arange(r.n_bins + 1) * SAMPLES_PER_BIN
    cells = r.n_bins * r.n_units
    exact = np.bincount(r.samples // SAMPLES_PER_BIN * r.n_units + r.units, minlength=cells)
    candidates: Candidates = {
        "neurokern": lambda: nk.bin_spikes(
            r.samples, r.units, 1 / RATE, r.duration, n_units=r.n_units, sfreq=CLOCK, out=ours
        ),
        "np.bincount": lambda: np.bincount(
            r.samples // SAMPLES_PER_BIN * r.n_units + r.units, minlength=cells
        ).reshape(shape),
    }
    if installed("numba"):

        def numba_loop() -> np.ndarray:
            numba_loops()["session"](r.samples, r.units, edges, out)
            return out

        candidates["numba loop"] = numba_loop
    return candidates, exact.reshape(shape)


WORKLOADS: dict[str, Callable[[int], tuple[Candidates, np.ndarray]]] = {
    "session, uint8": lambda n: session(n, "uint8"),
    "session, float32": lambda n: session(n, "float32"),
    "64 windows of 2 s, float32": lambda n: trial_windows(n, 64, "float32"),
    "300 trials of 2 s, float32": lambda n: trial_windows(n, 300, "float32"),
    "300 trials of 2 s, uint8": lambda n: trial_windows(n, 300, "uint8"),
    "unsorted session, float32": lambda n: session(n, "float32", ordered=False),
    "unsorted session, uint8": lambda n: session(n, "uint8", ordered=False),
    "300 of 800 units, float32": lambda n: mapped_units(n, "float32", regions=False),
    "sums of 40 regions, float32": lambda n: mapped_units(n, "float32", regions=True),
    "integer samples, float32": lambda n: integer_samples(n, "float32"),
    "integer samples, uint8": lambda n: integer_samples(n, "uint8"),
}


def run(workload: str, n_spikes: int, repeats: int, only: str = "") -> list[harness.Row]:
    candidates, exact = WORKLOADS[workload](n_spikes)
    ours = next(iter(candidates))
    candidates = {name: call for name, call in candidates.items() if name == ours or only in name}
    spikes = n_spikes if "windows" not in workload and "trials" not in workload else int(exact.sum())

    def differing(result: Any) -> int:
        return int(np.count_nonzero(result != exact))

    return harness.compare(workload, ours, candidates, differing, items=spikes, repeats=repeats)


def pytest_generate_tests(metafunc: Any) -> None:
    names = [(w, name) for w in WORKLOADS for name in WORKLOADS[w](20_000)[0]]
    metafunc.parametrize(("workload", "candidate"), names)


def test_speed(benchmark: Any, workload: str, candidate: str) -> None:
    torch.set_num_threads(1)
    candidates, exact = WORKLOADS[workload](1_000_000)
    if candidate.startswith("neurokern"):
        np.testing.assert_array_equal(candidates[candidate](), exact)
    benchmark.group = workload
    benchmark(candidates[candidate])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spikes", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--workload", default="", help="only those whose name contains this")
    parser.add_argument("--candidate", default="", help="only ours and those whose name contains this")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row
        for workload in WORKLOADS
        if arguments.workload in workload
        for row in run(workload, arguments.spikes, arguments.repeats, arguments.candidate)
    ]
    facts = harness.machine_facts(PEERS)
    missing = [name for name, version in facts["packages"].items() if version is None]
    sys.stdout.write(harness.as_table(rows) + "\n\n")
    sys.stdout.write(f"{facts['cpu']}, 1 thread, load {facts['load']}, {arguments.spikes:,} spikes; ")
    sys.stdout.write(f"skipped, not installed: {', '.join(missing) or 'none'}\n")
    if arguments.json is not None:
        arguments.json.write_text(harness.as_json_lines(rows, facts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
