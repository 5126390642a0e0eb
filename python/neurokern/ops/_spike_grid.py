"""The plain arithmetic of :func:`neurokern.ops.bin_spikes`: number of bins, edges, widths in samples."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

# A rate, or a number of bins, this close to a whole number is meant to be one.
WHOLE_RATE = 1e-9
WHOLE_BINS = 1e-6

# dtype -> (code of csrc/bin_spikes/bin_spikes.h, largest count below which every count is exact)
COUNT_TYPES: dict[str, tuple[int, int]] = {
    "uint8": (0, 2**8 - 1),
    "int16": (1, 2**15 - 1),
    "uint16": (2, 2**16 - 1),
    "int32": (3, 2**31 - 1),
    "int64": (4, 2**62),
    "float16": (5, 2**11),
    "bfloat16": (6, 2**8),
    "float32": (7, 2**24),
    "float64": (8, 2**53),
}
COUNT_BYTES = {
    "uint8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "int64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
}
MOST_BINS = 2**53  # beyond, the doubles that number bins are not whole numbers apart
FAR_SAMPLE = 2**61  # kernels add and subtract samples in 64 bits


class Grid(NamedTuple):
    """Bins without the spikes: ``bin_size`` is 0 if edges are given, ``sfreq`` is 0 for times in seconds."""

    bin_size: float
    start: float
    n_bins: int
    sfreq: float
    edge_tolerance: float
    closed_last: bool

    @property
    def step(self) -> tuple[float, bool]:
        """``(rate, True)`` if one over the bin size is a whole number, else ``(bin_size, False)``."""
        return bin_step(self.bin_size)

    @property
    def width(self) -> tuple[int, int]:
        """Bin width in samples, as numerator and denominator; raises if edges leave 64 bits."""
        if not self.sfreq:
            return 1, 1
        numerator, denominator = width_in_samples(self.bin_size, self.sfreq)
        if numerator == 0:
            raise ValueError(f"bin_spikes: sfreq must be at least 1e-6 Hz, got {self.sfreq:g}")
        start = self.start * self.sfreq
        last = numerator * self.n_bins
        if not (abs(start) < FAR_SAMPLE and denominator < FAR_SAMPLE and last < FAR_SAMPLE):
            raise ValueError(
                f"bin_spikes: sfreq must keep all edges within 2**61 samples, got {self.sfreq:g} with "
                f"{self.n_bins} bins of {self.bin_size:g} s from {self.start:g} s on"
            )
        return numerator, denominator

    @property
    def first_sample(self) -> int:
        """First sample at or after ``start``."""
        return first_sample(self.start, self.sfreq) if self.sfreq else 0


def bin_step(bin_size: float) -> tuple[float, bool]:
    if bin_size <= 0:
        return 1.0, False
    rate = 1.0 / bin_size
    if math.isinf(rate):
        return bin_size, False
    whole = float(round(rate))
    return (whole, True) if whole > 0 and abs(rate - whole) <= WHOLE_RATE * whole else (bin_size, False)


def count_bins(duration: float, bin_size: float) -> int:
    """Bins that cover ``duration`` seconds: a remainder gets a whole bin."""
    step, is_rate = bin_step(bin_size)
    bins = check_bins(duration * step if is_rate else duration / step)
    nearest = round(bins)
    return nearest if abs(bins - nearest) <= WHOLE_BINS else math.ceil(bins)


def check_bins(n_bins: float) -> float:
    """Return a number of bins, or raise if no computer could number them."""
    if not n_bins < MOST_BINS:
        raise ValueError(
            f"bin_spikes: bin_size must be wide enough for fewer than 2**53 bins, got {n_bins:.4g} of them; "
            "use wider bins or a shorter duration"
        )
    return n_bins


def width_in_samples(bin_size: float, sfreq: float) -> tuple[int, int]:
    """Read both numbers as the decimals or fractions that were meant: 1 / 60 s at 30 kHz is 500 samples."""
    step, is_rate = bin_step(bin_size)
    seconds = Fraction(1, int(step)) if is_rate else Fraction(bin_size).limit_denominator(10**9)
    width = Fraction(sfreq).limit_denominator(10**6) * seconds
    return width.numerator, width.denominator


def first_sample(start: float, sfreq: float) -> int:
    samples = start * sfreq - WHOLE_BINS
    if not abs(samples) < FAR_SAMPLE:
        raise ValueError(f"bin_spikes: start must lie within 2**61 samples, got {start:g} s at {sfreq:g} Hz")
    return math.ceil(samples)


def bin_of_last(last: float, grid: Grid) -> int:
    """Bin of a time at or after the start, so that a recording's last spike ends its last bin."""
    if grid.sfreq:
        numerator, denominator = grid.width
        return int(check_bins((int(last) - grid.first_sample) * denominator // numerator))
    step, is_rate = grid.step

    def edge(k: int) -> float:
        return grid.start + (k / step if is_rate else k * step) - grid.edge_tolerance

    offset = last - grid.start + grid.edge_tolerance
    if offset < 0:
        return -1
    k = math.floor(check_bins(offset * step if is_rate else offset / step))
    if last >= edge(k + 1):
        return k + 1
    return k if last >= edge(k) else k - 1
