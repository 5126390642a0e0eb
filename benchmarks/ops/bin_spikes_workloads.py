"""What bin_spikes is timed on: recordings, the exact counts by integer arithmetic, and our call.

Spikes lie on a 30 kHz clock, as recorded ones do. 800 units fire at 17 Hz in the mean, some often, most
seldom.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import neurokern as nk

CLOCK, RATE = 30_000, 50  # Hz: samples, bins
SAMPLES_PER_BIN = CLOCK // RATE
N_UNITS, N_SUBSET, N_REGIONS = 800, 300, 40
WINDOW_BINS, WINDOW_LENGTH = 100, 2.0  # seconds
SMOOTHING_WIDTH = 0.05  # seconds: sigma, or tau


@dataclass(frozen=True)
class Recording:
    """A session; ``units`` are int32."""

    samples: np.ndarray
    times: np.ndarray
    units: np.ndarray
    n_bins: int
    duration: float


@functools.cache
def recording(n_spikes: int) -> Recording:
    rng = np.random.default_rng(0)
    duration = max(round(n_spikes / N_UNITS / 17.4), 4)
    samples = np.sort(rng.integers(0, duration * CLOCK, n_spikes))
    weights = rng.gamma(0.7, size=N_UNITS)
    units = rng.choice(N_UNITS, n_spikes, p=weights / weights.sum()).astype(np.int32)
    return Recording(samples, samples / CLOCK, units, duration * RATE, float(duration))


def ordered(n_spikes: int, order: np.ndarray) -> Recording:
    r = recording(n_spikes)
    return Recording(r.samples[order], r.times[order], r.units[order], r.n_bins, r.duration)


@dataclass(frozen=True)
class Problem:
    """What every candidate of a workload is given, and the right answer."""

    kind: str  # session, unsorted, subset, regions, samples, windows, gaussian, exponential, trains
    times: np.ndarray  # float64 seconds, or int64 samples
    units: np.ndarray
    n_bins: int
    n_columns: int
    duration: float
    dtype: str
    exact: np.ndarray
    ours: Callable[[], Any]
    table: np.ndarray | None = None  # id -> column, -1 drops
    events: np.ndarray | None = None  # starts of windows, seconds
    train_ends: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.n_bins, self.n_columns

    @property
    def n_cells(self) -> int:
        return self.n_bins * self.n_columns

    @property
    def n_counted(self) -> int:
        """Spikes in the result, which is what costs are divided by; all of them without windows."""
        return len(self.times) if self.events is None else int(self.exact.sum())

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that must be read and written: each counted spike's time and id, each count."""
        ids = 0 if self.train_ends is not None else self.units.itemsize
        return self.n_counted * (self.times.itemsize + ids), self.exact.size * np.dtype(self.dtype).itemsize

    @property
    def edges(self) -> np.ndarray:
        """Exact edges on the clock of ``times``."""
        k = np.arange(self.n_bins + 1)
        return k * SAMPLES_PER_BIN if self.times.dtype == np.int64 else k / RATE

    def columns(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and columns of the spikes that are kept; what a peer without a table has to do first."""
        if self.train_ends is not None:
            lengths = np.diff(self.train_ends, prepend=0)
            return self.times, np.repeat(np.arange(self.n_columns), lengths)
        if self.table is None:
            return self.times, self.units
        column = self.table[self.units]
        if self.kind == "regions":
            return self.times, column
        keep = column >= 0
        return self.times[keep], column[keep]

    def bins(self, times: np.ndarray) -> np.ndarray:
        """Bin of each spike by a user's quotient: wrong for some spikes on an edge, unless in samples."""
        if times.dtype == np.int64:
            return times // SAMPLES_PER_BIN
        return (times * RATE).astype(np.int64)

    def cells(self) -> np.ndarray:
        times, column = self.columns()
        return self.bins(times) * self.n_columns + column

    def differing(self, result: Any) -> int:
        """Cells that are not right; of smoothed rates, those off by more than 1e-5 spikes."""
        result = np.asarray(result)
        if self.kind in ("gaussian", "exponential"):
            return int(np.count_nonzero(np.abs(result - self.exact) > 1e-5))
        return int(np.count_nonzero(result != self.exact))


def count_exactly(samples: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    cells = samples // SAMPLES_PER_BIN * shape[1] + columns
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)


def session(n_spikes: int, dtype: str, kind: str = "session") -> Problem:
    """Everything into one array: sorted, in any order ("unsorted"), or as integer samples ("samples")."""
    r = recording(n_spikes)
    if kind == "unsorted":
        r = ordered(n_spikes, np.random.default_rng(1).permutation(n_spikes))
    shape = (r.n_bins, N_UNITS)
    times, out = (r.samples if kind == "samples" else r.times), np.empty(shape, dtype)
    options = {"sfreq": CLOCK} if kind == "samples" else {}

    def ours() -> Any:
        return nk.bin_spikes(times, r.units, 1 / RATE, r.duration, n_units=N_UNITS, out=out, **options)

    exact = count_exactly(r.samples, r.units, shape)
    return Problem(kind, times, r.units, *shape, r.duration, dtype, exact, ours)


def mapped(n_spikes: int, dtype: str, kind: str) -> Problem:
    """300 of the units in another order ("subset"), or sums over 40 regions ("regions")."""
    r, rng = recording(n_spikes), np.random.default_rng(3)
    n_columns = N_REGIONS if kind == "regions" else N_SUBSET
    table = np.full(N_UNITS, -1, np.int64)
    if kind == "regions":
        table[:] = rng.integers(0, n_columns, N_UNITS)
    else:
        table[rng.permutation(N_UNITS)[:n_columns]] = np.arange(n_columns)
    shape = (r.n_bins, n_columns)
    kept = table[r.units] >= 0
    exact = count_exactly(r.samples[kept], table[r.units[kept]], shape)
    out = np.empty(shape, dtype)

    def ours() -> Any:
        return nk.bin_spikes(
            r.times, r.units, 1 / RATE, r.duration, n_units=n_columns, unit_map=table, out=out
        )

    return Problem(kind, r.times, r.units, *shape, r.duration, dtype, exact, ours, table)


def windows(n_spikes: int, dtype: str, *, trials: bool, claim_sorted: bool) -> Problem:
    """Trials of 2 s side by side over the whole session, or 64 windows of 2 s anywhere, that may overlap."""
    r, rng = recording(n_spikes), np.random.default_rng(2)
    if trials:
        n_windows = int((r.duration - WINDOW_LENGTH) / 2.4)
        events = (np.arange(n_windows) * 2.4 * CLOCK).astype(np.int64) + rng.integers(0, 12_000, n_windows)
    else:
        n_windows = 64
        events = np.sort(rng.integers(0, int((r.duration - WINDOW_LENGTH) * CLOCK), n_windows))
    shape = (n_windows, WINDOW_BINS, N_UNITS)
    exact = np.zeros(shape, np.int64)
    for window, first in enumerate(events):
        i, j = np.searchsorted(r.samples, [first, first + WINDOW_BINS * SAMPLES_PER_BIN])
        exact[window] = count_exactly(r.samples[i:j] - first, r.units[i:j], shape[1:])
    out, starts = np.empty(shape, dtype), events / CLOCK
    options = {"n_units": N_UNITS, "windows": starts, "sorted": True if claim_sorted else None, "out": out}

    def ours() -> Any:
        return nk.bin_spikes(r.times, r.units, 1 / RATE, WINDOW_LENGTH, **options)

    return Problem(
        "windows", r.times, r.units, WINDOW_BINS, N_UNITS, r.duration, dtype, exact, ours, events=starts
    )


def smoothed(n_spikes: int, kind: str) -> Problem:
    """Rates in float32, smoothed by a Gaussian or a causal exponential of 50 ms."""
    import scipy.ndimage
    import scipy.signal

    r = recording(n_spikes)
    shape = (r.n_bins, N_UNITS)
    counts = count_exactly(r.samples, r.units, shape).astype(np.float64)
    if kind == "gaussian":
        exact = scipy.ndimage.gaussian_filter1d(counts, SMOOTHING_WIDTH * RATE, axis=0, mode="constant")
    else:
        a = np.exp(-1 / RATE / SMOOTHING_WIDTH)
        exact = scipy.signal.lfilter([1 - a], [1, -a], counts, axis=0)
    out = np.empty(shape, np.float32)
    options = {"smoothing": kind, "smoothing_width": SMOOTHING_WIDTH, "out": out}

    def ours() -> Any:
        return nk.bin_spikes(r.times, r.units, 1 / RATE, r.duration, n_units=N_UNITS, **options)

    exact = exact.astype(np.float32)
    return Problem(kind, r.times, r.units, *shape, r.duration, "float32", exact, ours)


def trains(n_spikes: int, dtype: str) -> Problem:
    """Each unit's spikes behind those of the unit before, as NWB stores them."""
    r = recording(n_spikes)
    shape, exact = (r.n_bins, N_UNITS), count_exactly(r.samples, r.units, (r.n_bins, N_UNITS))
    r = ordered(n_spikes, np.argsort(r.units, kind="stable"))
    ends, out = np.cumsum(np.bincount(r.units, minlength=N_UNITS)), np.empty(shape, dtype)

    def ours() -> Any:
        return nk.bin_spikes(r.times, None, 1 / RATE, r.duration, n_units=N_UNITS, train_ends=ends, out=out)

    return Problem("trains", r.times, r.units, *shape, r.duration, dtype, exact, ours, train_ends=ends)


WORKLOADS: dict[str, Callable[[int], Problem]] = {
    "session, uint8": lambda n: session(n, "uint8"),
    "session, float32": lambda n: session(n, "float32"),
    "trials of 2 s, uint8": lambda n: windows(n, "uint8", trials=True, claim_sorted=True),
    "trials of 2 s, float32": lambda n: windows(n, "float32", trials=True, claim_sorted=True),
    "trials of 2 s, float32, order not claimed": lambda n: windows(
        n, "float32", trials=True, claim_sorted=False
    ),
    "64 windows of 2 s, uint8": lambda n: windows(n, "uint8", trials=False, claim_sorted=True),
    "64 windows of 2 s, float32": lambda n: windows(n, "float32", trials=False, claim_sorted=True),
    "unsorted, uint8": lambda n: session(n, "uint8", "unsorted"),
    "unsorted, float32": lambda n: session(n, "float32", "unsorted"),
    "300 of 800 units, uint8": lambda n: mapped(n, "uint8", "subset"),
    "300 of 800 units, float32": lambda n: mapped(n, "float32", "subset"),
    "sums of 40 regions, uint16": lambda n: mapped(n, "uint16", "regions"),
    "sums of 40 regions, float32": lambda n: mapped(n, "float32", "regions"),
    "Gaussian rates, float32": lambda n: smoothed(n, "gaussian"),
    "exponential rates, float32": lambda n: smoothed(n, "exponential"),
    "integer samples, uint8": lambda n: session(n, "uint8", "samples"),
    "integer samples, float32": lambda n: session(n, "float32", "samples"),
    "ragged trains, uint8": lambda n: trains(n, "uint8"),
    "ragged trains, float32": lambda n: trains(n, "float32"),
}
