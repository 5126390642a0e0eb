"""Spikes, trials and behavior from and to the objects of pynapple."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurokern.datasets.bridges._peer import import_peer, say_left_out
from neurokern.datasets.bridges._units import arrays_of_columns, unit_table
from neurokern.datasets.recording import SpikeRecording
from neurokern.datasets.series import TimeSeries

__all__ = ["from_pynapple", "to_pynapple"]

_RATE = "rate"  # pynapple's own, of its spikes
_VALUES = "values"


def from_pynapple(
    source: Any, *, units: str = "units", trials: str = "trials", session: str = "recording"
) -> SpikeRecording:
    """Return a ``TsGroup``, or a mapping such as ``NWBFile`` with one, as a recording.

    Times stay the same float64. Columns of metadata become columns of the unit table and of the trials,
    ``Tsd`` and ``TsdFrame`` of the mapping series by their name.

    Parameters
    ----------
    source : pynapple.TsGroup, or mapping of str to objects of pynapple
    units, trials : str
        Names of the ``TsGroup`` and the ``IntervalSet`` in the mapping.
    session : str
        Name of the recording.

    Returns
    -------
    SpikeRecording
        Bounded by the group's time support.

    Raises
    ------
    ImportError
        If pynapple is not installed.
    TypeError
        If there is no ``TsGroup``.

    Warns
    -----
    UserWarning
        Of objects without a place in a recording, and of a time support with gaps.
    """
    peer = import_peer("from_pynapple", "pynapple", "pynapple")
    parts = {units: source} if isinstance(source, peer.TsGroup) else _mapping(source)
    group = parts.get(units)
    if not isinstance(group, peer.TsGroup):
        raise TypeError(
            f"from_pynapple: {units!r} must be a TsGroup, got {type(group).__name__}; there are "
            f"{sorted(parts)}"
        )
    times, rows = _spikes(group)
    table = pd.DataFrame({"id": np.asarray(group.index)}).join(group.metadata.reset_index(drop=True))
    table = unit_table(table.drop(columns=_RATE, errors="ignore"), np.asarray(group.index))
    left: list[str] = []
    if len(group.time_support) > 1:
        left.append(f"{len(group.time_support)} parts of the time support with gaps (counts there are 0)")
    found, series = None, {}
    for name, part in parts.items():
        if name == trials and isinstance(part, peer.IntervalSet):
            own = pd.DataFrame({"start": np.asarray(part.start), "end": np.asarray(part.end)})
            found = own.join(part.metadata.reset_index(drop=True))
        elif isinstance(part, (peer.Tsd, peer.TsdFrame)):
            series[name] = _series(peer, part)
        elif name != units:
            left.append(name)
    support = group.time_support
    return SpikeRecording(
        times=times,
        units=rows,
        unit_table=table,
        session=session,
        start=float(support.start[0]),
        stop=float(support.end[-1]),
        trials=found,
        notes=say_left_out("from_pynapple", "a recording", left),
        series=series,
    )


def _mapping(source: Any) -> dict[str, Any]:
    if not (hasattr(source, "keys") and hasattr(source, "__getitem__")):
        raise TypeError(
            f"from_pynapple: source must be a TsGroup or a mapping with one, got {type(source).__name__}"
        )
    return {str(name): source[name] for name in list(source.keys())}


def _spikes(group: Any) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    trains = [np.asarray(group[i].times(), np.float64) for i in group.index]
    times = np.concatenate([np.zeros(0), *trains])
    rows = np.repeat(np.arange(len(trains), dtype=np.int32), [len(train) for train in trains])
    order = np.argsort(times, kind="stable")
    return times[order], rows[order]


def _series(peer: Any, part: Any) -> TimeSeries:
    columns = tuple(map(str, part.columns)) if isinstance(part, peer.TsdFrame) else ()
    values = np.asarray(part.values)
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    return TimeSeries(times=np.asarray(part.times(), np.float64), values=values, columns=columns)


def to_pynapple(recording: SpikeRecording) -> dict[str, Any]:
    """Return a recording as objects of pynapple: ``units``, ``trials``, and the series by their names.

    The unit table is the group's metadata, the trials' columns those of an ``IntervalSet``;
    :func:`from_pynapple` takes the mapping back.

    Parameters
    ----------
    recording : SpikeRecording

    Raises
    ------
    ImportError
        If pynapple is not installed.

    Warns
    -----
    UserWarning
        Of what has no place there: names and notes of the session, units of measure, columns of Python
        objects, and trials without ``start`` and ``end``, or that overlap, which pynapple would join.
    """
    peer = import_peer("to_pynapple", "pynapple", "pynapple")
    left = [name for name, value in (("subject", recording.subject), ("notes", recording.notes)) if value]
    left += ["session"] if recording.session != "recording" else []
    left += [f"unit of {name}" for name, series in recording.series.items() if series.unit]
    support = peer.IntervalSet(recording.start, recording.stop)
    order = np.argsort(recording.units, kind="stable")
    ends = np.cumsum(np.bincount(recording.units, minlength=recording.n_units))
    trains = np.split(recording.times[order], ends[:-1])
    ids = recording.unit_table["id"].to_numpy(np.int64)
    own = recording.unit_table.drop(columns=["id", _RATE], errors="ignore")
    metadata = pd.DataFrame(arrays_of_columns(own, "units", left), index=ids)
    group = {
        int(number): peer.Ts(train, time_support=support) for number, train in zip(ids, trains, strict=True)
    }
    parts: dict[str, Any] = {"units": peer.TsGroup(group, time_support=support, metadata=metadata)}
    if recording.trials is not None and (trials := _interval_set(peer, recording.trials, left)) is not None:
        parts["trials"] = trials
    for name, series in recording.series.items():
        flat = series.values.ndim == 1
        columns = list(series.columns) or None
        parts[name] = (
            peer.Tsd(series.times, series.values)
            if flat
            else peer.TsdFrame(series.times, series.values, columns=columns)
        )
    say_left_out("to_pynapple", "pynapple", left)
    return parts


def _interval_set(peer: Any, trials: pd.DataFrame, left: list[str]) -> Any:
    if not {"start", "end"} <= set(trials):
        left.append("trials (they have no start and end)")
        return None
    start, end = trials["start"].to_numpy(np.float64), trials["end"].to_numpy(np.float64)
    fits = np.isfinite(start) & np.isfinite(end) & (start < end)
    if not fits.all() or (start[1:] <= end[:-1]).any():
        left.append("trials (they overlap, touch, or lack a start or end)")
        return None
    own = trials.drop(columns=["start", "end"])
    return peer.IntervalSet(start, end, metadata=arrays_of_columns(own, "trials", left))
