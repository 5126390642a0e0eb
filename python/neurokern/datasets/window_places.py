"""Where windows lie in a run: at a stride or at events, in samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["at_events", "at_stride", "sorted_indices"]


def at_stride(n: int, length: int, step: int, *, pad: bool) -> NDArray[np.int64]:
    """Return the first sample of each window of a run of ``n``.

    With ``pad`` a last window is added for the samples that no whole window holds.
    """
    starts = np.arange(0, n - length + 1, step, dtype=np.int64)
    following = int(starts[-1]) + step if len(starts) else 0
    covered = int(starts[-1]) + length if len(starts) else 0
    if pad and covered < n and following < n:
        starts = np.append(starts, following)
    return starts


def at_events(
    onsets: NDArray[np.float64], period: float, shift: float, length: int, n: int, *, pad: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the first sample of the window of each event, and whether the window is kept.

    Parameters
    ----------
    onsets : float64 array, seconds, finite
    period : float, seconds
        Time of a sample or volume.
    shift : float, seconds
        From the event to the window.
    length, n : int
        Samples of a window and of the run.
    pad : bool
        Keep windows that reach beyond the run, as long as they hold one of its samples.
    """
    beyond = length - 1 if pad else 0
    # The nearest sample; what is left over is told. Clipped: an onset in years fits into no integer.
    places = np.floor((onsets + shift) / period + 0.5).clip(-(2.0**53), 2.0**53)
    starts = places.astype(np.int64)
    return starts, (starts >= -beyond) & (starts + length <= n + beyond)


def sorted_indices(function: str, indices: Any, n: int) -> NDArray[np.int64]:
    """Return numbers of windows in ascending order, or raise if one is none or is there twice."""
    values = np.atleast_1d(np.asarray(indices))
    if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
        raise TypeError(
            f"{function}: indices must be whole numbers, got {values.dtype} of shape {values.shape}"
        )
    chosen = np.sort(values.astype(np.int64))
    if chosen.size and not 0 <= chosen[0] <= chosen[-1] < n:
        raise ValueError(f"{function}: indices must lie in 0 ... {n - 1}, got {chosen[0]} to {chosen[-1]}")
    if (chosen[1:] == chosen[:-1]).any():
        raise ValueError(f"{function}: indices must be different, got {chosen.tolist()}")
    return chosen
