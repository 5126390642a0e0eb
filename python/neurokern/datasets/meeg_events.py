"""Events of recordings, and what marks stretches to leave out."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["condition_name", "event_table", "is_bad", "is_event", "touch_bad"]

# What recorders and MNE write beside events: stretches to leave out, and joints.
_BAD = re.compile(r"(Comment/)?BAD($|[ _])")
_JOINT = re.compile(r"EDGE |New Segment/")


def event_table(events: pd.DataFrame) -> pd.DataFrame:
    """Return onset, duration (0 where unknown) and trial_type, or else ``value``, of the events.

    Raises
    ------
    ValueError
        If columns are missing, or times are no seconds.
    """
    missing = {"onset", "duration"} - set(events)
    if missing:
        raise ValueError(f"events must have columns onset and duration, there is no {', '.join(missing)}")
    try:
        onset = events["onset"].to_numpy(dtype=np.float64)
        duration = np.nan_to_num(events["duration"].to_numpy(dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"onset and duration of events must be seconds or n/a: {error}") from None
    column = next((name for name in ("trial_type", "value") if name in events), None)
    kinds = ["event"] * len(events) if column is None else [condition_name(kind) for kind in events[column]]
    table = pd.DataFrame({"onset": onset, "duration": duration})
    # As a series: of an array of objects pandas 3 makes a column of texts, with NaN in place of None.
    return table.assign(trial_type=pd.Series(kinds, table.index, dtype=object))


def condition_name(kind: object) -> str | None:
    """Return the name of a condition: ``1`` is "1", also where ``n/a`` made floats of its column."""
    if pd.isna(kind):  # type: ignore[call-overload]
        return None
    return str(int(kind)) if isinstance(kind, float) and kind.is_integer() else str(kind)


def is_event(name: str | None) -> bool:
    return name is not None and not _BAD.match(name) and not _JOINT.match(name)


def is_bad(name: str | None) -> bool:
    return name is not None and _BAD.match(name) is not None


def touch_bad(
    begin: NDArray[np.float64], end: NDArray[np.float64], events: pd.DataFrame
) -> NDArray[np.bool_]:
    """Return which windows touch a bad stretch; times in seconds."""
    bad = np.array([is_bad(name) for name in events["trial_type"]], dtype=bool)
    bad &= np.isfinite(events["onset"].to_numpy())
    table = events[bad].sort_values("onset")
    onset = table["onset"].to_numpy(np.float64)
    # The latest end so far: one search tells whether any stretch reaches into a window.
    latest = np.maximum.accumulate(np.append(-np.inf, onset + table["duration"].to_numpy(np.float64)))
    touches: NDArray[np.bool_] = latest[np.searchsorted(onset, end, side="left")] > begin
    return touches
