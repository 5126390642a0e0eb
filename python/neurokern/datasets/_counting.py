"""Counts from spikes, and the smallest unsigned type that holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from neurokern.datasets.recording import SpikeRecording

__all__ = ["as_counts", "count_spikes", "read_spikes", "smallest_counts"]


def count_spikes(recording: SpikeRecording, starts: np.ndarray, n_bins: int, bin_size: float) -> np.ndarray:
    """Return counts in windows, (n_windows, n_bins, n_units): uint8 if they fit, else uint16 or uint32."""
    counts = _bin(recording, starts, n_bins, bin_size, "uint8", "saturate")
    if counts.size and counts.max() == np.iinfo(np.uint8).max:
        # Wide bins, or units that are not single neurons: 255 may stand for more.
        return smallest_counts("bin_windows", _bin(recording, starts, n_bins, bin_size, "int32", "raise"))
    return counts


def read_spikes(recording: SpikeRecording, starts: np.ndarray, n_bins: int, bin_size: float) -> np.ndarray:
    """Return counts in windows as float32, (n_windows, n_bins, n_units)."""
    return _bin(recording, starts, n_bins, bin_size, "float32", "raise")


def _bin(
    recording: SpikeRecording, starts: np.ndarray, n_bins: int, bin_size: float, dtype: str, overflow: str
) -> np.ndarray:
    from neurokern.ops import bin_spikes  # brings torch along, which loading alone does not need

    counts = bin_spikes(
        recording.times,
        recording.units,
        bin_size,
        n_bins * bin_size,
        windows=starts,
        n_units=recording.n_units,
        dtype=dtype,
        overflow=overflow,
        sorted=True,  # a recording is; this saves a look at all of it for every batch
    )
    return np.asarray(counts)


def smallest_counts(function: str, counts: np.ndarray) -> np.ndarray:
    """Return counts of 0 and above as uint8, uint16 or uint32, the first that holds the largest of them."""
    largest = int(counts.max(initial=0))
    for dtype in (np.uint8, np.uint16, np.uint32):
        if largest <= np.iinfo(dtype).max:
            return counts.astype(dtype, copy=False)
    raise ValueError(f"{function}: counts must be below 2**32, got {largest}")


def as_counts(function: str, counts: ArrayLike) -> np.ndarray:
    """Return counts as 3-D unsigned integers; whole numbers of other types are converted, others refused."""
    array = np.asarray(counts)
    if array.ndim != 3:
        raise ValueError(
            f"{function}: counts must have shape (n_windows, n_bins, n_units), got {array.shape}"
        )
    if array.dtype.kind == "u" and array.dtype.itemsize <= 4:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{function}: counts must be integers, got dtype {array.dtype}")
    if array.size and not array.min() >= 0:  # a NaN fails the comparison
        raise ValueError(f"{function}: counts must not be negative or NaN")
    if array.dtype.kind == "f" and not (array == np.floor(array)).all():
        raise ValueError(f"{function}: counts must be whole numbers, got fractions; rates are not counts")
    if array.size and array.max() >= 2**32:
        raise ValueError(f"{function}: counts must be below 2**32, got {array.max()}")
    return smallest_counts(function, array)
