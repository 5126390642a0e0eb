"""Counts from spikes in the smallest unsigned type that holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["as_counts", "count_spikes", "smallest_counts"]


def count_spikes(
    times: np.ndarray, units: np.ndarray, starts: np.ndarray, n_bins: int, bin_size: float, n_units: int
) -> np.ndarray:
    """Return counts in windows, (n_windows, n_bins, n_units): uint8 if they fit, else uint16 or uint32."""
    from neurokern.ops import bin_spikes  # brings torch along, which loading alone does not need

    if not len(times) or not n_units:
        return np.zeros((len(starts), n_bins, n_units), dtype=np.uint8)
    common = {"windows": starts, "n_units": n_units}
    try:
        return np.asarray(
            bin_spikes(times, units, bin_size, n_bins * bin_size, dtype=np.uint8, overflow="raise", **common)
        )
    except OverflowError:  # more than 255 spikes of one unit in one bin: wide bins, or multi-unit activity
        return smallest_counts(
            np.asarray(bin_spikes(times, units, bin_size, n_bins * bin_size, dtype=np.int32, **common))
        )


def smallest_counts(counts: np.ndarray) -> np.ndarray:
    """Return counts of 0 and above as uint8, uint16 or uint32, the first that holds the largest of them."""
    largest = int(counts.max(initial=0))
    for dtype in (np.uint8, np.uint16, np.uint32):
        if largest <= np.iinfo(dtype).max:
            return counts.astype(dtype, copy=False)
    raise ValueError(f"counts must be below 2**32, got {largest}")


def as_counts(function: str, counts: ArrayLike) -> np.ndarray:
    """Return counts as 3-D unsigned integers, or raise; unsigned ones pass as they are, whole numbers are
    converted.
    """
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
    return smallest_counts(array)
