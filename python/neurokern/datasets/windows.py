"""Windows on the session clock: around trial events, or sliding over the whole recording."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurokern._check import check_memory, check_number, check_positive

if TYPE_CHECKING:
    from neurokern.datasets.recording import SpikeRecording

__all__ = ["bins_per_window", "sliding_windows", "trial_windows"]

WINDOW_BYTES = 40  # start and stop, and what computing them takes
CLOCK_TOLERANCE = 1e-6  # seconds; far below a sample, far above the rounding of times in hours


def trial_windows(
    recording: SpikeRecording, align: str = "stimOn_times", tmin: float = -0.5, tmax: float = 1.5
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return a window around an event of each trial, and the trials kept.

    Trials whose event is NaN (it did not happen) and windows that reach beyond the recording are dropped,
    with a warning that says how many of each.

    Parameters
    ----------
    recording : SpikeRecording
        With trials.
    align : str, default "stimOn_times"
        Column of the trials with the event's time on the session clock, in seconds.
    tmin, tmax : float, seconds
        Start and end of the window relative to the event.

    Returns
    -------
    windows : ndarray of shape (n_kept, 2), float64, seconds
        Start and stop of each window.
    trials : DataFrame with n_kept rows
        The trials' rows; their index is the row in ``recording.trials``.

    Raises
    ------
    ValueError
        If there are no trials, the column does not exist or holds no times, or ``tmin`` is not below
        ``tmax``.
    """
    tmin, tmax = (check_number("trial_windows", n, v) for n, v in (("tmin", tmin), ("tmax", tmax)))
    if not (np.isfinite([tmin, tmax]).all() and tmin < tmax):
        raise ValueError(f"trial_windows: tmin must lie below tmax, got {tmin!r} and {tmax!r}")
    trials, events = _events(recording.trials, align)
    windows = np.stack([events + tmin, events + tmax], axis=1)
    happened = np.isfinite(events)
    inside = happened & inside_recording(windows, recording.start, recording.stop)
    dropped = []
    if not happened.all():
        dropped.append(f"{int((~happened).sum())} trials without a finite {align}")
    if (happened & ~inside).any():
        dropped.append(f"{int((happened & ~inside).sum())} windows that reach beyond the recording")
    if dropped:
        warnings.warn(
            f"trial_windows: dropped {' and '.join(dropped)}, of {len(events)} trials", stacklevel=2
        )
    return windows[inside], trials[inside]


def sliding_windows(recording: SpikeRecording, length: float, stride: float | None = None) -> np.ndarray:
    """Return windows of one length at a fixed stride, all of them within the recording.

    Parameters
    ----------
    recording : SpikeRecording
    length : float, seconds
        Length of each window.
    stride : float, seconds, optional
        From one start to the next; ``length`` if left out. Smaller strides give windows that overlap.

    Returns
    -------
    windows : ndarray of shape (n_windows, 2), float64, seconds
        Window k starts at ``recording.start + k * stride``. A remainder at the end is left out.

    Raises
    ------
    ValueError
        If ``length`` or ``stride`` is not a positive number, or the recording is shorter than one window.
    """
    length = check_positive("sliding_windows", "length", length)
    stride = length if stride is None else check_positive("sliding_windows", "stride", stride)
    room = recording.duration - length + CLOCK_TOLERANCE
    if room < 0:
        raise ValueError(
            f"sliding_windows: length {length:g} s exceeds the recording's {recording.duration:g} s"
        )
    check_memory("sliding_windows", "the windows", WINDOW_BYTES * room / stride, "give a longer stride")
    starts = recording.start + np.arange(int(room / stride) + 1) * stride
    return np.stack([starts, starts + length], axis=1)


def inside_recording(windows: np.ndarray, start: float, stop: float) -> np.ndarray:
    """Return which windows lie between start and stop, with the clock's tolerance: (n_windows,) bool."""
    inside: np.ndarray = (windows[:, 0] >= start - CLOCK_TOLERANCE) & (
        windows[:, 1] <= stop + CLOCK_TOLERANCE
    )
    return inside


def bins_per_window(function: str, windows: np.ndarray, bin_size: float) -> int:
    """Return the whole number of bins in each window, or raise if lengths differ or are no multiple."""
    bin_size = check_positive(function, "bin_size", bin_size)
    if windows.ndim != 2 or windows.shape[1] != 2:
        raise ValueError(f"{function}: windows must have shape (n_windows, 2), got {windows.shape}")
    if not len(windows):
        raise ValueError(f"{function}: there are no windows; every trial was dropped, or none was given")
    lengths = windows[:, 1] - windows[:, 0]
    if not np.isfinite(windows).all() or lengths.min() <= 0:
        raise ValueError(f"{function}: windows must be finite and stop after they start")
    if np.ptp(lengths) > CLOCK_TOLERANCE:
        raise ValueError(
            f"{function}: windows must have one length, got {lengths.min():g} to {lengths.max():g} s"
        )
    n_bins = round(min(float(lengths[0]) / bin_size, 2.0**63))
    if n_bins < 1 or abs(n_bins * bin_size - lengths[0]) > CLOCK_TOLERANCE:
        raise ValueError(
            f"{function}: the window length, {lengths[0]:g} s, must be a multiple of bin_size, "
            f"got {bin_size:g} s"
        )
    return n_bins


def _events(trials: pd.DataFrame | None, align: str) -> tuple[pd.DataFrame, np.ndarray]:
    if trials is None:
        raise ValueError("trial_windows: the recording has no trials; use sliding_windows")
    if align not in trials:
        raise ValueError(
            f"trial_windows: trials have no column {align!r}; the columns are {list(trials.columns)}"
        )
    try:
        return trials, trials[align].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"trial_windows: column {align!r} does not hold times in seconds ({error})"
        ) from error
