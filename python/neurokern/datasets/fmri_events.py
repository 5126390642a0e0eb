"""What happened in a run: the conditions of its events, and those of its volumes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neurokern.datasets.meeg_events import condition_name

if TYPE_CHECKING:
    from neurokern.datasets.bids import BIDSRun

INSTANT = 1e-3  # seconds that an event without duration fills
_NO_CONDITION = -1
_AT_ONCE = 1 << 18  # pairs of volume and event that are compared at a time


def trial_types(run: BIDSRun) -> list[str | None]:
    """Return the condition of each event, None where the table has ``n/a``; without a column all "event"."""
    if run.events is None:
        return []
    missing = {"onset", "duration"} - set(run.events)
    if missing:
        raise ValueError(
            f"{run.path}: its events must have columns onset and duration, there is no {', '.join(missing)}"
        )
    if "trial_type" not in run.events:
        return ["event"] * len(run.events)
    return [condition_name(value) for value in run.events["trial_type"]]


def event_times(run: BIDSRun) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return onsets (NaN where unknown) and durations (0 where unknown) of the events, in seconds."""
    times = []
    for column in ("onset", "duration"):
        assert run.events is not None
        try:
            times.append(run.events[column].to_numpy(dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{run.path}: {column} of its events must be seconds or n/a: {error}") from None
    return times[0], np.nan_to_num(times[1])


def conditions_of_runs(runs: Sequence[BIDSRun]) -> tuple[str, ...]:
    """Return the names of all conditions, sorted."""
    return tuple(sorted({name for run in runs for name in trial_types(run) if name is not None}))


def conditions_of_volumes(
    run: BIDSRun, n: int, tr: float, hrf_delay: float, codes: Mapping[str, int]
) -> NDArray[np.int64]:
    """Return for each of a run's ``n`` volumes the condition that fills most of its time, or -1."""
    none = np.full(n, _NO_CONDITION, dtype=np.int64)
    if run.events is None or not len(run.events):
        return none
    names = trial_types(run)
    known = np.array([name is not None for name in names])
    begin = (np.arange(n) * tr - hrf_delay)[:, None]
    onset, duration = (values[known] for values in event_times(run))
    if len(onset) and np.nanmin(onset, initial=np.inf) >= n * tr:
        warnings.warn(
            f"{run.path.name}: all {len(onset)} events begin after its {n} volumes of {tr:g} s, the first at "
            f"{np.nanmin(onset, initial=np.inf):g} s; are onsets in milliseconds?",
            stacklevel=5,
        )
    end = onset + np.maximum(duration, INSTANT)
    filled = np.zeros((n, max(len(codes), 1)))
    event_codes = [codes[name] for name in names if name is not None]
    rows = max(_AT_ONCE // max(len(onset), 1), 1)
    for first in range(0, n, rows):  # a film has words by the ten thousand
        part = begin[first : first + rows]
        shared = np.minimum(part + tr, end) - np.maximum(part, onset)
        np.add.at(filled[first : first + rows].T, event_codes, np.nan_to_num(shared).clip(min=0).T)
    best = filled.argmax(axis=1)
    return np.where(filled[np.arange(n), best] > 0, best, none)
