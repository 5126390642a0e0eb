"""Recordings in one ``.npz``: spike times, unit ids, and tables under plain names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurokern.datasets._files import read_npz, write_npz
from neurokern.datasets._tables import arrays_of_table, check_format, number, take_prefixed, text
from neurokern.datasets.recording import SpikeRecording, make_recording, unit_columns
from neurokern.datasets.series import TimeSeries

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["load_npz", "recording_from_arrays", "save_recording"]

FORMAT = "neurokern.spikes/1"
TIMES = ("times", "spike_times", "spike_times_s", "spikes.times", "spikes_times", "spiketimes")
UNITS = (
    "units",
    "spike_units",
    "spike_clusters",
    "spikes.clusters",
    "spikes_clusters",
    "clusters",
    "spike_unit_ids",
)
UNIT_IDS = ("unit_ids", "unit_id", "cluster_ids", "cluster_id")
REGIONS = ("regions", "unit_regions", "region", "brain_area", "brain_areas", "brain_region", "acronym")
DEPTHS = ("depths", "unit_depths", "depth")
UNIT_PREFIXES = ("unit_", "unit.", "clusters.", "clusters_")
SERIES = "series_"
SERIES_PARTS = ("_times", "_values", "_columns", "_unit")
TRIAL_PREFIXES = ("trials_", "trials.", "trial_")
SINGLE = ("session", "subject", "mouse", "start_s", "stop_s", "notes", "format", "sfreq")


def load_npz(
    path: str | os.PathLike[str],
    *,
    sfreq: float | None = None,
    session: str | None = None,
    subject: str | None = None,
) -> SpikeRecording:
    """Load spike times and unit ids from a ``.npz`` file.

    Parameters
    ----------
    path : path-like
        File with spike times under one of ``times``, ``spike_times``, ``spike_times_s``, ``spikes.times``,
        ... (seconds; integer samples need ``sfreq``) and unit ids under one of ``units``, ``spike_units``,
        ``spike_clusters``, ``spikes.clusters``, ``clusters``, ... Optional, with one entry per unit:
        ``unit_ids``, ``regions`` or ``brain_area``, ``depths`` (micrometers), and ``unit_<name>``, which
        becomes a column of the unit table. ``trials_<name>`` becomes a column of the trials,
        ``series_<name>_times`` (seconds) with ``series_<name>_values`` a series. Also ``session``,
        ``subject``, ``start_s``, ``stop_s``.
    sfreq : float, hertz, optional
        Sampling rate of integer spike times; a ``sfreq`` in the file serves too.
    session, subject : str, optional
        Names; by default the file's own, and for the session the file name without its ending.

    Returns
    -------
    SpikeRecording
        Its ``notes`` say what was dropped, repaired and left unused.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or pickled, has no times or ids (the message lists its keys and those
        accepted), or lengths disagree.
    """
    arrays = read_npz("load_npz", path)
    stem = Path(path).stem
    return recording_from_arrays("load_npz", arrays, stem, sfreq=sfreq, session=session, subject=subject)


def recording_from_arrays(
    function: str,
    arrays: Mapping[str, np.ndarray],
    default_session: str,
    *,
    sfreq: float | None = None,
    session: str | None = None,
    subject: str | None = None,
) -> SpikeRecording:
    """Build a recording from named arrays; see :func:`load_npz`."""
    check_format(function, arrays, FORMAT)
    times = _find(function, arrays, "spike times", TIMES)
    units = _find(function, arrays, "unit ids", UNITS, arrays[times].size)
    trials = _trials(function, arrays)
    series, of_series = _series(function, arrays)
    table, used = _unit_table(function, arrays, {times, units} | of_series)
    used |= of_series
    if sfreq is None and "sfreq" in arrays and arrays[times].dtype.kind in "iu":
        sfreq = number(function, arrays, "sfreq")
    unused = sorted(name for name in set(arrays) - used - {times, units, *SINGLE} if not _is_trial(name))
    notes = tuple(str(note) for note in arrays.get("notes", np.zeros(0, dtype=str)).reshape(-1))
    return make_recording(
        function,
        arrays[times],
        arrays[units],
        session=session or text(arrays, "session") or default_session,
        unit_table=table,
        sfreq=sfreq,
        trials=trials,
        subject=subject or text(arrays, "subject") or text(arrays, "mouse"),
        start=number(function, arrays, "start_s"),
        stop=number(function, arrays, "stop_s"),
        notes=(*notes, f"left unused: {', '.join(unused)}") if unused else notes,
        series=series,
    )


def save_recording(recording: SpikeRecording, path: str | os.PathLike[str]) -> None:
    """Write a recording as one ``.npz`` under the names that :func:`load_npz` reads."""
    table = recording.unit_table
    arrays: dict[str, np.ndarray] = {
        "format": np.array(FORMAT),
        "spike_times_s": recording.times,
        "spike_units": table["id"].to_numpy(dtype=np.int64)[recording.units],
        "unit_ids": table["id"].to_numpy(dtype=np.int64),
        "session": np.array(recording.session),
        "subject": np.array(recording.subject or ""),
        "start_s": np.array(recording.start),
        "stop_s": np.array(recording.stop),
        "notes": np.array(recording.notes, dtype=str),
    }
    arrays |= arrays_of_table("SpikeRecording.save", "unit_", table.drop(columns="id"))
    if recording.trials is not None:
        arrays |= arrays_of_table("SpikeRecording.save", "trials_", recording.trials)
    for name, series in recording.series.items():
        arrays[f"{SERIES}{name}_times"] = series.times
        arrays[f"{SERIES}{name}_values"] = np.asarray(series.values)
        arrays[f"{SERIES}{name}_columns"] = np.array(series.columns, dtype=str)
        arrays[f"{SERIES}{name}_unit"] = np.array(series.unit)
    write_npz(path, arrays)


def _find(
    function: str,
    arrays: Mapping[str, np.ndarray],
    what: str,
    accepted: tuple[str, ...],
    size: int | None = None,
) -> str:
    found = [name for name in accepted if name in arrays]
    if len(found) > 1 and size is not None:  # such as "units", a list of units, beside "spike_units"
        found = [name for name in found if arrays[name].size == size] or found
    if len(found) == 1:
        return found[0]
    problem = (
        f"more than one array of {what}: {found}" if found else f"no {what}; the file holds {sorted(arrays)}"
    )
    raise ValueError(f"{function}: {problem}; accepted names are {', '.join(accepted)}")


def _unit_table(
    function: str, arrays: Mapping[str, np.ndarray], spikes: set[str]
) -> tuple[pd.DataFrame, set[str]]:
    used: set[str] = set()
    columns: dict[str, np.ndarray] = {}
    for column, names in (("id", UNIT_IDS), ("region", REGIONS), ("depth", DEPTHS)):
        name = next((n for n in names if n in arrays and n not in spikes), None)
        if name is not None and arrays[name].ndim == 1:
            columns[column] = arrays[name]
            used.add(name)
    others = {name: a for name, a in arrays.items() if name not in used | spikes and a.ndim in (1, 2)}
    used |= {name for name in others if name.startswith(UNIT_PREFIXES)}
    for name, values in take_prefixed(others, UNIT_PREFIXES).items():
        columns.setdefault({"regions": "region", "depths": "depth"}.get(name, name), values)
    named = columns.pop("names", None)  # such as unit_names: a label of each unit, not its id
    if named is not None:
        columns["name"] = named
    return unit_columns(columns, function), used


def _series(function: str, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, TimeSeries], set[str]]:
    """Return the series, and the names of the arrays that they were made of."""
    found, used = {}, set()
    for key in arrays:
        name = key.removeprefix(SERIES).removesuffix("_times")
        if key != f"{SERIES}{name}_times" or f"{SERIES}{name}_values" not in arrays:
            continue
        columns = tuple(arrays.get(f"{SERIES}{name}_columns", np.zeros(0, str)).reshape(-1).tolist())
        try:
            found[name] = TimeSeries.from_arrays(
                arrays[key],
                arrays[f"{SERIES}{name}_values"],
                columns=columns,
                unit=text(arrays, f"{SERIES}{name}_unit") or "",
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{function}: series {name}: {error}") from error
        used |= {f"{SERIES}{name}{part}" for part in SERIES_PARTS}
    return found, used


def _is_trial(name: str) -> bool:
    return name.startswith(TRIAL_PREFIXES)


def _trials(function: str, arrays: Mapping[str, np.ndarray]) -> pd.DataFrame | None:
    columns = take_prefixed(arrays, TRIAL_PREFIXES)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{function}: columns of trials must have one length, got {lengths}")
    return pd.DataFrame(columns) if columns else None
