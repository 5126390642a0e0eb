"""One recording: spike times, the table of units, and the trials, on one clock."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from neurokern.datasets._clean import as_ids, check_table, clean_spikes, rows_of_ids
from neurokern.datasets.series import TimeSeries

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["SpikeRecording", "make_recording"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SpikeRecording:
    """Spikes of one session, sorted in time, with one table row per unit.

    Make one from arrays with :meth:`from_arrays`, or from files with ``load_alf`` and ``load_npz``; these
    repair and say so in ``notes``. The class itself only checks.

    Parameters
    ----------
    times : ndarray of shape (n_spikes,), float64, seconds
        Spike times on the session clock, finite and in ascending order.
    units : ndarray of shape (n_spikes,), int32
        Row of each spike's unit in ``unit_table``.
    unit_table : DataFrame
        One row per unit, in the order of ids, with columns ``id`` (the source's), ``region`` (str, "" where
        unknown), ``depth`` (micrometers along the probe, NaN where unknown), and what else the source has.
    session : str
        Name of the session; stitchers and splits are keyed by it.
    start, stop : float, seconds
        Bounds of the recording. Windows lie between them.
    trials : DataFrame or None
        One row per trial with the source's columns; columns named ``*_times`` are seconds on the session
        clock.
    subject : str or None
        Name of the subject.
    notes : tuple of str
        What loading dropped, repaired or assumed, and which units were selected.
    series : mapping of str to TimeSeries
        Behavior and other signals on the session clock, by name.

    Raises
    ------
    ValueError
        If lengths differ, times are not sorted and finite, a unit has no row, or a spike lies outside the
        bounds.
    """

    times: np.ndarray
    units: np.ndarray
    unit_table: pd.DataFrame
    session: str
    start: float
    stop: float
    trials: pd.DataFrame | None = None
    subject: str | None = None
    notes: tuple[str, ...] = ()
    series: Mapping[str, TimeSeries] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_spikes(self.times, self.units, len(self.unit_table), self.start, self.stop)
        missing = [name for name in ("id", "region", "depth") if name not in self.unit_table]
        if missing:
            raise ValueError(
                f"SpikeRecording: unit_table must have columns id, region, depth; missing {missing}"
            )

    @classmethod
    def from_arrays(
        cls,
        times: ArrayLike,
        ids: ArrayLike,
        *,
        sfreq: float | None = None,
        regions: Sequence[str] | np.ndarray | None = None,
        depths: ArrayLike | None = None,
        unit_ids: ArrayLike | None = None,
        trials: pd.DataFrame | None = None,
        series: Mapping[str, TimeSeries] | None = None,
        session: str = "recording",
        subject: str | None = None,
        start: float | None = None,
        stop: float | None = None,
    ) -> SpikeRecording:
        """Make a recording from spike times and unit ids in any order.

        Spikes with a NaN, infinite or negative time, or a negative id, are dropped; ids need not be
        contiguous. Both are said in ``notes``.

        Parameters
        ----------
        times : array of shape (n_spikes,), seconds, or integer samples with ``sfreq``
        ids : array of shape (n_spikes,), integers (floats that are whole numbers are accepted)
        sfreq : float, hertz, optional
            Sampling rate; given if and only if ``times`` are integer samples.
        regions, depths : arrays of shape (n_units,), optional
            Region and depth (micrometers) of each unit, in the order of ``unit_ids``.
        unit_ids : array of shape (n_units,), optional
            All ids, so that units without spikes keep their row. Without it: the ids that occur, ascending;
            or, if ``regions`` or ``depths`` are longer than that, the row numbers 0, 1, ...
        trials, series, session, subject : optional
            As in :class:`SpikeRecording`.
        start, stop : float, seconds, optional
            Bounds of the recording. Without them: the whole seconds around the first and the last spike.

        Raises
        ------
        ValueError, TypeError
            If lengths differ, ids are not whole numbers, an id is not in ``unit_ids``, or times are integers
            and ``sfreq`` is missing.

        Examples
        --------
        >>> recording = SpikeRecording.from_arrays([0.3, 0.1, 1.2], [7, 2, 7])
        >>> recording.units, recording.unit_table["id"].tolist(), recording.stop
        (array([0, 1, 1], dtype=int32), [2, 7], 2.0)
        """
        columns: dict[str, ArrayLike | None] = {"region": regions, "depth": depths}
        table = unit_columns(
            {name: np.asarray(v) for name, v in columns.items() if v is not None}, "from_arrays"
        )
        if unit_ids is not None:
            table.insert(0, "id", _column_of_ids(unit_ids, table))
        return make_recording(
            "SpikeRecording.from_arrays",
            times,
            ids,
            unit_table=table,
            sfreq=sfreq,
            trials=trials,
            series=series,
            session=session,
            subject=subject,
            start=start,
            stop=stop,
        )

    @property
    def n_spikes(self) -> int:
        """Number of spikes."""
        return len(self.times)

    @property
    def n_units(self) -> int:
        """Number of units, those without spikes included."""
        return len(self.unit_table)

    @property
    def regions(self) -> np.ndarray:
        """Region of each unit: ndarray of str, shape (n_units,); "" where unknown."""
        return np.asarray(self.unit_table["region"].tolist(), dtype=str)

    @property
    def duration(self) -> float:
        """Length of the recording in seconds."""
        return self.stop - self.start

    @property
    def rates(self) -> np.ndarray:
        """Mean firing rate of each unit in hertz, float64 of shape (n_units,); NaN in an empty recording."""
        counts = np.bincount(self.units, minlength=self.n_units)
        return counts / self.duration if self.duration > 0 else np.full(self.n_units, np.nan)

    def select_units(
        self,
        units: ArrayLike | None = None,
        *,
        min_rate: float | None = None,
        regions: Sequence[str] | None = None,
        query: str | None = None,
    ) -> SpikeRecording:
        """Return the recording with only the units that meet every given condition; ``notes`` says so.

        Parameters
        ----------
        units : array of int rows, or bool of shape (n_units,), optional
            Rows of ``unit_table`` to keep. Their order is not used: units stay in the order of ids.
        min_rate : float, hertz, optional
            Smallest mean rate over the whole recording.
        regions : sequence of str, optional
            Regions to keep.
        query : str, optional
            Condition on the unit table as in :meth:`pandas.DataFrame.query`, such as ``"label == 1"``.

        Raises
        ------
        ValueError
            If no unit is left, a row or region does not exist, or the query cannot be evaluated.
        """
        keep = _keep_rows(self, units)
        if min_rate is not None:
            keep &= self.rates >= min_rate
        if regions is not None:
            keep &= np.isin(self.regions, _known_regions(self, regions))
        if query is not None:
            keep &= _query_rows(self.unit_table, query)
        given = {
            "units": None if units is None else "given",
            "min_rate": min_rate,
            "regions": regions,
            "query": query,
        }
        why = ", ".join(f"{name}={value}" for name, value in given.items() if value is not None) or "all"
        if not keep.any():
            raise ValueError(f"SpikeRecording.select_units: no unit of {self.n_units} is left by {why}")
        spikes = keep[self.units]
        row_of = np.cumsum(keep, dtype=np.int32) - 1
        return replace(
            self,
            times=self.times[spikes],
            units=row_of[self.units[spikes]].astype(np.int32, copy=False),
            unit_table=self.unit_table[keep].reset_index(drop=True),
            notes=(*self.notes, f"kept {int(keep.sum())} of {self.n_units} units: {why}"),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one ``.npz`` that ``load_npz`` reads back; the file appears whole or not at all."""
        from neurokern.datasets.npz import save_recording  # npz imports this module

        save_recording(self, path)

    def __repr__(self) -> str:
        """One line with the sizes: the arrays themselves would fill pages."""
        trials = "no trials" if self.trials is None else f"{len(self.trials)} trials"
        return (
            f"SpikeRecording({self.session!r}: {self.n_units} units, {self.n_spikes} spikes, "
            f"{self.start:g} to {self.stop:g} s, {trials})"
        )


def make_recording(
    function: str,
    times: ArrayLike,
    ids: ArrayLike,
    *,
    session: str,
    unit_table: pd.DataFrame | None = None,
    sfreq: float | None = None,
    trials: pd.DataFrame | None = None,
    subject: str | None = None,
    start: float | None = None,
    stop: float | None = None,
    notes: Sequence[str] = (),
    series: Mapping[str, TimeSeries] | None = None,
) -> SpikeRecording:
    """Clean spikes, match them to the unit table (with or without a column ``id``) and build the recording.

    ``function`` is the public function that errors name. See :meth:`SpikeRecording.from_arrays` for the
    rules.
    """
    clean, clean_ids, said = clean_spikes(function, times, ids, sfreq)
    table, units, about_ids = rows_of_ids(function, clean_ids, unit_table)
    begin, end = _bounds(function, clean, start, stop)
    check_table(function, "trials", trials)
    if trials is not None:
        trials = trials.reset_index(drop=True)
    return SpikeRecording(
        times=clean,
        units=units,
        unit_table=table,
        session=session,
        start=begin,
        stop=end,
        trials=trials,
        subject=subject,
        notes=(*notes, *said, *about_ids),
        series=dict(series or {}),
    )


def unit_columns(columns: dict[str, np.ndarray], function: str) -> pd.DataFrame:
    """Return columns of one length as a table, or raise with the lengths."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{function}: columns of units must have one length, got {lengths}")
    return pd.DataFrame(columns)


def _column_of_ids(unit_ids: ArrayLike, table: pd.DataFrame) -> np.ndarray:
    ids = as_ids("SpikeRecording.from_arrays", "unit_ids", unit_ids)
    if len(table.columns) and len(ids) != len(table):
        raise ValueError(
            f"SpikeRecording.from_arrays: {len(ids)} unit_ids, but {len(table)} regions or depths"
        )
    return ids


def _bounds(function: str, times: np.ndarray, start: float | None, stop: float | None) -> tuple[float, float]:
    # Spike files do not say when recording began and ended. Whole seconds keep windows on a round grid.
    first, last = (times[0], times[-1]) if len(times) else (0.0, -1.0)
    begin = float(np.floor(first)) if start is None else float(start)
    end = float(np.floor(last) + 1.0) if stop is None else float(stop)
    if len(times) and not (begin <= first and last <= end):
        raise ValueError(
            f"{function}: spikes from {first:g} to {last:g} s lie outside start={begin:g}, stop={end:g} s"
        )
    return begin, max(begin, end) if stop is None else end


def _check_spikes(times: np.ndarray, units: np.ndarray, n_units: int, start: float, stop: float) -> None:
    if times.ndim != 1 or times.shape != units.shape:
        raise ValueError(
            f"SpikeRecording: times and units must be 1-D of one length, got {times.shape}, {units.shape}"
        )
    if times.dtype != np.float64 or units.dtype.kind not in "iu":
        raise ValueError(
            f"SpikeRecording: times must be float64, units integer, got {times.dtype}, {units.dtype}"
        )
    if not (np.isfinite([start, stop]).all() and start <= stop):
        raise ValueError(
            f"SpikeRecording: start and stop must be finite and in order, got {start!r}, {stop!r}"
        )
    if not len(times):
        return
    if not (np.isfinite(times[-1]) and (times[1:] >= times[:-1]).all()):  # NaN fails the comparison
        raise ValueError(
            "SpikeRecording: times must be sorted and finite; SpikeRecording.from_arrays repairs both"
        )
    if not (start <= times[0] and times[-1] <= stop):
        raise ValueError(f"SpikeRecording: spikes lie outside start={start!r}, stop={stop!r}")
    if units.min() < 0 or units.max() >= n_units:
        raise ValueError(f"SpikeRecording: units must be rows of unit_table, 0 to {n_units - 1}")


def _keep_rows(recording: SpikeRecording, units: ArrayLike | None) -> np.ndarray:
    if units is None:
        return np.ones(recording.n_units, dtype=bool)
    chosen: np.ndarray[Any, Any] = np.asarray(units)
    keep = np.zeros(recording.n_units, dtype=bool)
    try:
        keep[chosen if chosen.size else chosen.astype(np.int64)] = True
    except IndexError as error:
        raise ValueError(
            f"SpikeRecording.select_units: units must be rows below {recording.n_units}, or a mask as long"
        ) from error
    return keep


def _known_regions(recording: SpikeRecording, regions: Sequence[str]) -> list[str]:
    there = sorted(set(recording.regions.tolist()))
    unknown = sorted(set(regions) - set(there))
    if unknown:
        raise ValueError(f"SpikeRecording.select_units: no unit lies in {unknown}; the regions are {there}")
    return list(regions)


def _query_rows(table: pd.DataFrame, query: str) -> np.ndarray:
    try:
        rows = table.eval(query)
    except Exception as error:  # pandas raises many kinds, all of them about the query
        raise ValueError(
            f"SpikeRecording.select_units: cannot evaluate query {query!r} on the columns "
            f"{list(table.columns)}: {error}"
        ) from error
    keep = np.asarray(rows)
    if keep.dtype != bool or keep.shape != (len(table),):
        raise ValueError(
            f"SpikeRecording.select_units: query must give one truth value per unit, got {query!r}"
        )
    return keep
