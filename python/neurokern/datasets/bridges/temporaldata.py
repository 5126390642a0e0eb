"""Spike recordings from and to ``temporaldata.Data``, which torch_brain and the models on it read."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurokern._check import check_positive
from neurokern.datasets.bridges._peer import import_peer, say_left_out
from neurokern.datasets.bridges._units import UNIT_ID, arrays_of_columns, unit_table
from neurokern.datasets.recording import SpikeRecording
from neurokern.datasets.series import TimeSeries
from neurokern.datasets.windows import CLOCK_TOLERANCE

__all__ = ["from_temporaldata", "interval_windows", "to_temporaldata"]

_OURS = "neurokern"  # attribute with what temporaldata has no field for, as JSON
_BOUNDS = (("start", "end"), ("start_time", "stop_time"), ("intervals_0", "intervals_1"))
_VALUES = "values"
_FIELDS = ("spikes", "units", "trials", "session", "subject", "domain")


def from_temporaldata(
    source: Any,
    *,
    spikes: str = "spikes",
    units: str = "units",
    trials: str | None = "trials",
    session: str | None = None,
    subject: str | None = None,
) -> SpikeRecording:
    """Return spikes, units, trials and behavior of a ``temporaldata.Data`` as a recording.

    Times stay the same float64, and where they are sorted the same array. Units keep their order; ids that
    are no ascending numbers become the column ``unit_id``. Every other time series becomes a series by its
    name and field, such as ``"cursor.vel"``, NaN in the gaps of a regular one; those in nested ``Data``, too.

    Parameters
    ----------
    source : temporaldata.Data or path-like
        Of a file only what is needed is read.
    spikes, units, trials : str
        Names of the ``IrregularTimeSeries`` with ``unit_index``, the ``ArrayDict`` and the ``Interval``;
        ``a.b`` of nested ``Data``. ``trials`` may be None, or name what is not there.
    session, subject : str, optional
        Names; default ``session.id`` or ``session_id``, and ``subject.id`` or ``subject_id``.

    Returns
    -------
    SpikeRecording
        Bounded by the domain of the spikes.

    Raises
    ------
    ImportError
        If temporaldata is not installed.
    TypeError, ValueError
        If ``source`` is no such object, or has no spikes with ``unit_index``.

    Warns
    -----
    UserWarning
        Of fields without a place in a recording, and of domains with gaps: counts in a gap are 0, though
        nothing was recorded there. ``source.slice(...)`` takes one part.

    Examples
    --------
    >>> recording = from_temporaldata("perich_miller/c_20131003_center_out.h5")  # doctest: +SKIP
    """
    peer = import_peer("from_temporaldata", "temporaldata", "temporaldata")
    with _opened(peer, source) as data:
        return _Reader(peer, data).recording(spikes, units, trials, session, subject)


@contextlib.contextmanager
def _opened(peer: Any, source: Any) -> Iterator[Any]:
    if isinstance(source, (str, os.PathLike)):
        with _loaded(peer, source) as data:
            yield data
        return
    if not isinstance(source, peer.Data):
        raise TypeError(
            f"from_temporaldata: source must be a temporaldata.Data or a path, got {type(source).__name__}"
        )
    yield source


def _loaded(peer: Any, path: str | os.PathLike[str]) -> Any:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"from_temporaldata: no such file: {os.fspath(path)}")
    try:
        return peer.Data.load(os.fspath(path))
    except Exception as error:  # h5py and temporaldata raise many kinds
        raise ValueError(
            f"from_temporaldata: {os.fspath(path)} is no whole file of temporaldata: {error}"
        ) from error


class _Reader:
    """One pass over the fields of a ``Data``; what is not taken is left over, by name."""

    def __init__(self, peer: Any, data: Any) -> None:
        self.peer, self.data = peer, data
        self.left: list[str] = []
        self.notes: list[str] = []
        self.kept: dict[str, Any] = json.loads(str(getattr(data, _OURS, "{}")))

    def recording(
        self, spikes: str, units: str, trials: str | None, session: str | None, subject: str | None
    ) -> SpikeRecording:
        train = self._at(spikes)
        if not isinstance(train, self.peer.IrregularTimeSeries) or "unit_index" not in train:
            raise ValueError(
                f"from_temporaldata: {spikes} must be an IrregularTimeSeries with unit_index; the fields are "
                f"{self.data.keys()}; say which with spikes="
            )
        times, rows = self._spikes(train)
        if self.data.absolute_start:
            self.notes.append(
                f"a part from {self.data.absolute_start:g} s of its source on; times count from there"
            )
        self.left += [
            f"{spikes}.{name}" for name in _names(train) if name not in ("timestamps", "unit_index")
        ]
        table = self._units(units, rows)
        found = None if trials is None or self._at(trials) is None else self._trials(trials)
        names = {"session": session or self._name("session"), "subject": subject or self._name("subject")}
        taken = {spikes, units, _OURS, *(() if found is None else (str(trials),))}
        found = found if found is None else self._in_order(found, "trials")
        series = dict(self._series(self.data, "", taken))
        start, stop = self._bounds(train.domain, times)
        self.notes += say_left_out(
            "from_temporaldata", "a recording", self.left, "trials= takes another Interval for the trials"
        )
        return SpikeRecording(
            times=times,
            units=rows,
            unit_table=self._in_order(table, "units"),
            session=names["session"] or "recording",
            start=start,
            stop=stop,
            trials=found,
            subject=names["subject"],
            notes=(*self.kept.get("notes", ()), *self.notes),
            series=series,
        )

    def _at(self, path: str) -> Any:
        return self.data.get_nested_attribute(path) if self.data.has_nested_attribute(path) else None

    def _spikes(self, train: Any) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        times = np.asarray(train.timestamps, np.float64)
        index = np.asarray(train.unit_index)
        if index.dtype.kind not in "iu" or index.ndim != 1:
            raise ValueError(
                f"from_temporaldata: unit_index must be whole numbers, got {index.dtype} of shape "
                f"{index.shape}"
            )
        if not np.isfinite(times).all():
            raise ValueError("from_temporaldata: times of spikes must be finite")
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < 2**31:
            raise ValueError(f"from_temporaldata: unit_index must be rows of units, got {index.min()}")
        if not (times[1:] >= times[:-1]).all():
            order = np.argsort(times, kind="stable")
            times, index = times[order], index[order]
            self.notes.append("sorted the spikes: their times were not in order")
        return times, index.astype(np.int32, copy=False)

    def _units(self, name: str, rows: NDArray[np.int32]) -> pd.DataFrame:
        n_firing = int(rows.max()) + 1 if len(rows) else 0
        units = self._at(name)
        if units is None:
            self.notes.append(f"no {name}: units are the {n_firing} that unit_index counts")
            units = self.peer.ArrayDict(id=np.arange(n_firing))
        fields = _arrays_of(units)
        self.left += [f"{name}.{key}" for key, values in fields.items() if values.ndim != 1]
        table = pd.DataFrame({key: values for key, values in fields.items() if values.ndim == 1})
        if n_firing > len(table):
            raise ValueError(
                f"from_temporaldata: unit_index goes up to {n_firing - 1}, but {name} has {len(table)} rows"
            )
        return unit_table(table, fields.get("id", np.arange(len(table))))

    def _trials(self, name: str) -> pd.DataFrame:
        interval = self._at(name)
        if not isinstance(interval, self.peer.Interval):
            raise ValueError(f"from_temporaldata: {name} must be an Interval, got {type(interval).__name__}")
        fields = _arrays_of(interval)
        self.left += [f"{name}.{key}" for key, values in fields.items() if values.ndim != 1]
        table = pd.DataFrame({key: values for key, values in fields.items() if values.ndim == 1})
        table.attrs["timekeys"] = list(interval.timekeys())
        return table.drop(columns=[key for key in self.kept.get("added", ()) if key in table])

    def _in_order(self, table: pd.DataFrame, name: str) -> pd.DataFrame:
        """Return the columns in the order that they had in a recording; a file has them by the alphabet."""
        known = [key for key in self.kept.get(name, ()) if key in table]
        return table[known + [key for key in table if key not in known]]

    def _name(self, kind: str) -> str | None:
        for path in (f"{kind}.id", f"{kind}_id", kind):
            found = self._at(path)
            if isinstance(found, (str, np.str_, int, np.integer)):
                return str(found)
        return None

    def _series(self, data: Any, prefix: str, taken: set[str]) -> Iterator[tuple[str, TimeSeries]]:
        for key in _names(data):
            name, value = prefix + key, getattr(data, key)
            if name in taken or name in ("session_id", "subject_id"):
                continue
            if isinstance(value, self.peer.Data):
                yield from self._series(value, f"{name}.", taken)
            elif isinstance(value, (self.peer.IrregularTimeSeries, self.peer.RegularTimeSeries)):
                yield from self._fields(name, value)
            elif name not in ("session.id", "subject.id", "session", "subject"):
                self.left.append(name)

    def _fields(self, name: str, group: Any) -> Iterator[tuple[str, TimeSeries]]:
        times = np.asarray(group.timestamps, np.float64)
        regular = isinstance(group, self.peer.RegularTimeSeries)
        known = group.index_mask() if regular and group.is_gappy() else None
        for key in _names(group):
            if key == "timestamps":
                continue
            values = np.asarray(getattr(group, key))
            full = name if key == _VALUES else f"{name}.{key}"
            if values.ndim > 2 or values.dtype.kind not in "biuf":
                self.left.append(full)
                continue
            if known is not None:
                values = np.where(known if values.ndim == 1 else known[:, None], values, np.nan)
            told = self.kept.get("series", {}).get(full, {})
            columns, unit = tuple(told.get("columns", ())), told.get("unit", "")
            yield full, TimeSeries.from_arrays(times, values, columns=columns, unit=unit)

    def _bounds(self, domain: Any, times: NDArray[np.float64]) -> tuple[float, float]:
        start, stop = np.asarray(domain.start, np.float64), np.asarray(domain.end, np.float64)
        if (start[1:] > stop[:-1] + CLOCK_TOLERANCE).any():
            gaps = f"{len(start)} parts of the spikes' domain with gaps between them"
            self.left.append(f"{gaps} (counts there are 0)")
        edges = [*start[:1], *stop[-1:], *times[:1], *times[-1:]]
        return (float(min(edges)), float(max(edges))) if edges else (0.0, 0.0)


def _names(group: Any) -> list[str]:
    names: list[str] = group.keys()
    return names


def _arrays_of(group: Any) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(getattr(group, name)) for name in _names(group)}


def to_temporaldata(recording: SpikeRecording, *, trial_bounds: tuple[str, str] | None = None) -> Any:
    """Return a recording as ``temporaldata.Data``; its ``save`` writes the HDF5 file that torch_brain reads.

    ``spikes`` has the recording's own array of times and its bounds as domain; ``units.id`` are texts, as
    torch_brain's vocabularies take them, ``units.brain_region`` the regions. Series that share a name before
    the first dot, and their times, become one ``IrregularTimeSeries``; the only one of a name its
    ``values``. ``session.id`` and ``subject.id`` are the names. :func:`from_temporaldata` gives the
    recording back.

    Parameters
    ----------
    recording : SpikeRecording
    trial_bounds : (str, str), optional
        Columns of the trials with their start and end in seconds; default ``start``, ``end`` or what NWB and
        IBL call them.

    Raises
    ------
    ImportError
        If temporaldata is not installed.
    ValueError
        If the trials have no such columns, or a series is named as a field such as ``spikes``.

    Warns
    -----
    UserWarning
        Of trials without start or end, and of columns that are no array of one kind.
    """
    peer = import_peer("to_temporaldata", "temporaldata", "temporaldata")
    left: list[str] = []
    domain = peer.Interval(float(recording.start), float(recording.stop))
    table = recording.unit_table
    ids = table[UNIT_ID] if UNIT_ID in table else table["id"]
    rest = table.drop(columns=[name for name in ("id", "region", UNIT_ID) if name in table])
    fields: dict[str, Any] = {
        "spikes": peer.IrregularTimeSeries(
            timestamps=recording.times, unit_index=recording.units, domain=domain
        ),
        "units": peer.ArrayDict(
            id=np.array([str(name) for name in ids], dtype=str),
            brain_region=recording.regions,
            **arrays_of_columns(rest, "units", left),
        ),
        "session": peer.Data(id=recording.session),
    }
    if recording.subject is not None:
        fields["subject"] = peer.Data(id=recording.subject)
    added: list[str] = []
    if recording.trials is not None:
        fields["trials"], added = _interval(peer, recording.trials, trial_bounds, left)
    grouped = _grouped(peer, recording.series)
    clash = sorted(name for name in grouped if name in (*_FIELDS, _OURS) or name.startswith("_"))
    if clash:
        raise ValueError(
            f"to_temporaldata: series must not be named {', '.join(clash)}, which is something else there; "
            "rename them"
        )
    fields |= grouped
    told = {name: {"columns": s.columns, "unit": s.unit} for name, s in recording.series.items()}
    kept = {
        "notes": recording.notes,
        "series": told,
        "added": added,
        "units": [str(name) for name in table],
        "trials": [] if recording.trials is None else [str(name) for name in recording.trials],
    }
    data = peer.Data(**fields, domain=domain, **{_OURS: json.dumps(kept)})
    say_left_out("to_temporaldata", "temporaldata.Data", left)
    return data


def _interval(
    peer: Any, trials: pd.DataFrame, bounds: tuple[str, str] | None, left: list[str]
) -> tuple[Any, list[str]]:
    """Return the trials as an interval, and which of its fields are no columns of theirs."""
    pair = bounds or next((pair for pair in _BOUNDS if set(pair) <= set(trials)), None)
    if pair is None or not set(pair) <= set(trials):
        raise ValueError(
            "to_temporaldata: trials must have columns with their start and end, got "
            f"{list(trials.columns)}; name two with trial_bounds="
        )
    start, end = (trials[name].to_numpy(np.float64) for name in pair)
    known = np.isfinite(start) & np.isfinite(end)
    if not known.all():
        left.append(f"{int((~known).sum())} trials without {pair[0]} or {pair[1]}")
    fields = arrays_of_columns(trials, "trials", left) | {"start": start, "end": end}
    marked = trials.attrs.get("timekeys", ())
    keys = [name for name in fields if name in marked or name.endswith(("_time", "_times"))]
    interval = peer.Interval(**{name: values[known] for name, values in fields.items()}, timekeys=keys)
    return interval, [name for name in ("start", "end") if name not in trials]


def _grouped(peer: Any, series: Mapping[str, TimeSeries]) -> dict[str, Any]:
    groups: dict[str, dict[str, TimeSeries]] = {}
    for name, one in series.items():
        group, _, field = name.partition(".")
        groups.setdefault(group, {})[field or _VALUES] = one
    found: dict[str, Any] = {}
    for group, fields in groups.items():
        times = next(iter(fields.values())).times
        if all(one.times is times or np.array_equal(one.times, times) for one in fields.values()):
            found[group] = _irregular(peer, times, {name: one.values for name, one in fields.items()})
        else:
            each = {name: _irregular(peer, one.times, {_VALUES: one.values}) for name, one in fields.items()}
            found[group] = peer.Data(**each, domain="auto")
    return found


def _irregular(peer: Any, times: NDArray[np.float64], fields: Mapping[str, NDArray[Any]]) -> Any:
    span = (float(times[0]), float(times[-1])) if len(times) else (0.0, 0.0)
    return peer.IrregularTimeSeries(timestamps=times, domain=peer.Interval(*span), **fields)


def interval_windows(interval: Any, length: float, stride: float | None = None) -> NDArray[np.float64]:
    """Return windows that lie within the parts of an ``Interval``, such as ``data.train_domain``.

    Parameters
    ----------
    interval : temporaldata.Interval, or any object with arrays ``start`` and ``end`` in seconds
    length, stride : float, seconds
        Length of the windows, and from one to the next within a part; default ``length``.

    Returns
    -------
    windows : float64 array of shape (n_windows, 2), seconds
        As :func:`~neurokern.datasets.bin_windows` and :class:`~neurokern.datasets.WindowedRecording` take
        them. What remains at the end of a part is left out.
    """
    length = check_positive("interval_windows", "length", length)
    stride = length if stride is None else check_positive("interval_windows", "stride", stride)
    start, end = (np.asarray(getattr(interval, name), np.float64) for name in ("start", "end"))
    room = end - start - length + CLOCK_TOLERANCE
    counts = np.where(room >= 0, np.floor(room / stride) + 1, 0).astype(np.int64)
    first = np.repeat(start, counts)
    number = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = first + number * stride
    return np.stack([begin, begin + length], axis=1)
