"""Recordings in NWB files: units, their regions, trials and behavior, through h5py alone.

The layout is that of Neurodata Without Borders 2 (Rubel et al. 2022, doi:10.7554/eLife.78362).
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurokern._check import check_memory
from neurokern.datasets._hdf5 import child, number_attribute, open_hdf5, read_values, scalar_text
from neurokern.datasets.recording import SpikeRecording, make_recording
from neurokern.datasets.series import TimeSeries

__all__ = ["load_nwb"]

_REGIONS = (
    "location",
    "region",
    "brain_area",
    "brain_region",
    "acronym",
    "structure",
    "ecephys_structure_acronym",
)
_DEPTHS = ("depth", "depths", "probe_depth")
_MOST_COLUMNS = 16  # of a series; wider ones are images


def load_nwb(
    path: str | os.PathLike[str] | Any,
    *,
    trials: str = "trials",
    region: str | None = None,
    behavior: bool = True,
    session: str | None = None,
    subject: str | None = None,
) -> SpikeRecording:
    """Load spikes, units, trials and behavior from an NWB file.

    A unit's region is its own column (``location``, ``region``, ``brain_area``, ...), else that of most of
    its electrodes; its depth its own, else the mean ``rel_y`` of its electrodes. Series in
    ``processing/behavior`` become the recording's ``series``, scaled to the unit that the file names.

    Parameters
    ----------
    path : path-like, URL or open binary file
        URLs (``s3://``, ``https://``) are read by ranges through fsspec, where it is installed.
    trials : str, default "trials"
        Table below ``intervals`` that becomes the trials.
    region : str, optional
        Column of the units, or of the electrodes, with the region.
    behavior : bool, default True
        Read the series of ``processing/behavior``.
    session, subject : str, optional
        Names; default the file's name, and its ``subject_id``.

    Returns
    -------
    SpikeRecording

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If h5py, or for URLs fsspec, is not installed.
    ValueError
        If the file is cut short or no NWB, has no units, or a table contradicts itself; the message names it.
    """
    with _opened(path) as (file, name):
        units = child(file, "units", "load_nwb")
        if units is None or child(units, "spike_times", "load_nwb") is None:
            raise ValueError(f"load_nwb: {name} must have /units/spike_times, got {sorted(file)}")
        times, owner, n_units = _spikes(units)
        table, notes = _unit_table(file, units, n_units, region)
        found, said = _trials(file, trials)
        series, about_series = _behavior(file) if behavior else ({}, [])
        who = scalar_text(file, "general/subject/subject_id") or None
        bounds = _observed(units)
    order = np.argsort(times, kind="stable")
    ids = table["id"].to_numpy()
    return make_recording(
        "load_nwb",
        times[order],
        ids[owner[order]],
        session=session or Path(name).stem,
        subject=subject or who,
        unit_table=table,
        trials=found,
        start=None if bounds is None else min(bounds[0], float(np.min(times, initial=bounds[0]))),
        stop=None if bounds is None else max(bounds[1], float(np.max(times, initial=bounds[1]))),
        notes=(*notes, *said, *about_series),
        series=series,
    )


@contextlib.contextmanager
def _opened(path: Any) -> Iterator[tuple[Any, str]]:
    if isinstance(path, str) and "://" in path:
        try:
            import fsspec
        except ImportError:
            raise ImportError(
                f"load_nwb: {path} is read through fsspec; `pip install fsspec` (and its backend)"
            ) from None
        with fsspec.open(path, "rb") as stream, open_hdf5("load_nwb", stream) as file:
            yield file, path.rsplit("/", 1)[-1]
    else:
        with open_hdf5("load_nwb", path) as file:
            yield file, Path(path).name if isinstance(path, (str, os.PathLike)) else "recording.nwb"


def _spikes(units: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """Return times and the row of the unit of each, unit after unit."""
    stored = child(units, "spike_times", "load_nwb")
    n_spikes = stored.shape[0] if len(stored.shape) == 1 else -1
    ends = _ends(units, "spike_times", n_spikes)
    times = read_values("load_nwb", stored, kinds="fiu").astype(np.float64, copy=False)
    counts = np.diff(ends, prepend=0)
    return times, np.repeat(np.arange(len(ends)), counts), len(ends)


def _ends(table: Any, column: str, n_values: int) -> np.ndarray:
    """Return where the values of each row end, checked; a column without an index has one value a row."""
    stored = child(table, f"{column}_index", "load_nwb")
    if stored is None:
        return np.arange(1, n_values + 1)
    ends = read_values("load_nwb", stored, kinds="iu")
    wrong = ends.ndim != 1 or (np.diff(ends.astype(np.int64), prepend=0) < 0).any()
    if wrong or (int(ends[-1]) if len(ends) else 0) != n_values:
        raise ValueError(
            f"load_nwb: {table.name}/{column}_index must ascend to the {n_values} values of {column}, got "
            f"{ends[-3:].tolist()} at its end"
        )
    return ends.astype(np.int64)


def _columns(table: Any, n_rows: int, notes: list[str]) -> dict[str, np.ndarray]:
    """Return the columns with one value per row: numbers and text; names of others go to the notes."""
    found: dict[str, np.ndarray] = {}
    unused = []
    for name in table:
        if name == "id" or name.endswith("_index") or name in ("spike_times", "electrodes", "obs_intervals"):
            continue
        stored = child(table, name, "load_nwb")
        if f"{name}_index" in table or not hasattr(stored, "shape") or len(stored.shape) != 1:
            unused.append(name)
        elif stored.shape[0] != n_rows:
            raise ValueError(
                f"load_nwb: {stored.name} must have a value for each of {n_rows} rows, got {stored.shape[0]}"
            )
        elif stored.dtype.kind in "biuf" or _is_text(stored.dtype):
            found[name] = read_values("load_nwb", stored, kinds="biufOSU")
        else:
            unused.append(name)
    if unused:
        notes.append(f"left unused: {', '.join(unused)} of {table.name}")
    return found


def _is_text(dtype: np.dtype) -> bool:
    import h5py

    return dtype.kind in "SU" or h5py.check_string_dtype(dtype) is not None


def _unit_table(file: Any, units: Any, n_units: int, region: str | None) -> tuple[pd.DataFrame, list[str]]:
    notes: list[str] = []
    columns = _columns(units, n_units, notes)
    stored = child(units, "id", "load_nwb")
    ids = np.arange(n_units) if stored is None else read_values("load_nwb", stored, kinds="iu")
    if len(ids) != n_units or len(np.unique(ids)) != n_units or (ids.size and ids.min() < 0):
        raise ValueError(
            f"load_nwb: {units.name}/id must be {n_units} distinct numbers from 0, got {len(ids)}"
        )
    electrodes = _electrodes_of_units(file, units, n_units, columns)
    own = [region] if region is not None else list(_REGIONS)
    found = next((n for n in own if n in columns and any(columns[n].astype(str))), None)
    if found is not None:
        columns["region"] = columns[found].astype(str)
        notes.append(f"regions are the units' {found}")
    elif electrodes is not None:
        names, rows = electrodes
        at = next((n for n in own if n in names and any(names[n].astype(str))), None)
        if at is not None:
            columns["region"] = np.array([_most_common(names[at][row].astype(str)) for row in rows])
            notes.append(f"regions are the {at} of the units' electrodes")
    if region is not None and "region" not in columns:
        raise ValueError(
            f"load_nwb: region must be a column of units or electrodes, got {region!r}; units have "
            f"{', '.join(sorted(columns))}"
        )
    depth = next((columns[n] for n in _DEPTHS if n in columns and columns[n].dtype.kind in "iuf"), None)
    columns.pop("depth", None)
    if (
        depth is None
        and electrodes is not None
        and electrodes[0].get("rel_y", np.zeros(0, str)).dtype.kind == "f"
    ):
        along, rows = electrodes[0]["rel_y"], electrodes[1]
        depth = np.array([along[row].mean() if len(row) else np.nan for row in rows])
        notes.append("depths are the mean rel_y of the units' electrodes")
    if depth is not None:
        columns["depth"] = depth.astype(np.float64)
    return pd.DataFrame({"id": ids.astype(np.int64), **columns}), notes


def _most_common(names: np.ndarray) -> str:
    """Return the name that most have, of several the first."""
    counts = Counter(names.tolist())  # in the order in which they occur
    return str(max(counts, key=counts.__getitem__)) if counts else ""


def _electrodes_of_units(
    file: Any, units: Any, n_units: int, columns: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], list[np.ndarray]] | None:
    """Return the columns of the electrodes, and the rows of each unit's."""
    table = child(file, "general/extracellular_ephys/electrodes", "load_nwb")
    stored = child(units, "electrodes", "load_nwb")
    if table is None:
        return None
    ids = read_values("load_nwb", child(table, "id", "load_nwb"), kinds="iu")
    names = _columns(table, len(ids), [])
    if stored is not None:
        rows = read_values("load_nwb", stored, kinds="iu").astype(np.int64)
        ends = _ends(units, "electrodes", len(rows))
        if len(ends) != n_units or (len(rows) and not 0 <= rows.min() <= rows.max() < len(ids)):
            raise ValueError(
                f"load_nwb: {units.name}/electrodes must be rows of the {len(ids)} electrodes, for {n_units} "
                "units"
            )
        return names, np.split(rows, ends[:-1])
    if "peak_channel_id" in columns:
        at = {int(i): row for row, i in enumerate(ids)}
        return names, [
            np.array([at[int(i)]] if int(i) in at else [], np.int64) for i in columns["peak_channel_id"]
        ]
    return None


def _trials(file: Any, name: str) -> tuple[pd.DataFrame | None, list[str]]:
    table = child(file, f"intervals/{name}", "load_nwb")
    if table is None:
        if name != "trials":
            there = child(file, "intervals", "load_nwb")
            raise ValueError(
                f"load_nwb: trials must be a table of /intervals ({sorted(there or ())}), got {name!r}"
            )
        return None, []
    ids = child(table, "id", "load_nwb")
    if ids is None or child(table, "start_time", "load_nwb") is None:
        raise ValueError(f"load_nwb: {table.name} must have columns id and start_time")
    notes: list[str] = []
    columns = _columns(table, ids.shape[0], notes)
    start, stop = columns.get("start_time"), columns.get("stop_time")
    if start is not None and stop is not None and (stop < start).any():
        notes.append(f"{int((stop < start).sum())} trials stop before they start")
    return pd.DataFrame(columns), notes


def _observed(units: Any) -> tuple[float, float] | None:
    """Return the first and last time that any unit was observed, or None if the file does not say."""
    stored = child(units, "obs_intervals", "load_nwb")
    if stored is None or len(stored.shape) != 2 or stored.shape[1] != 2 or not stored.shape[0]:
        return None
    spans = read_values("load_nwb", stored, kinds="fiu").astype(np.float64)
    spans = spans[np.isfinite(spans).all(axis=1)]
    return (max(float(spans.min()), 0.0), float(spans.max())) if len(spans) else None


def _behavior(file: Any) -> tuple[dict[str, TimeSeries], list[str]]:
    group = child(file, "processing/behavior", "load_nwb")
    found: dict[str, TimeSeries] = {}
    notes: list[str] = []
    if group is not None:
        _collect_series(group, found, notes, depth=3)
    return found, notes


def _collect_series(group: Any, found: dict[str, TimeSeries], notes: list[str], depth: int) -> None:
    for name in group:
        item = child(group, name, "load_nwb")
        if item is None or not hasattr(item, "keys"):
            continue
        data = child(item, "data", "load_nwb")
        if data is not None and hasattr(data, "shape"):
            series = _series(item, data)
            if series is None:
                notes.append(f"left unused: series {name}, of shape {data.shape} and type {data.dtype}")
            else:
                found[name if name not in found else item.name] = series
        elif depth:
            _collect_series(item, found, notes, depth - 1)


def _series(item: Any, data: Any) -> TimeSeries | None:
    if (
        data.dtype.kind not in "biuf"
        or not 1 <= len(data.shape) <= 2
        or (data.shape[1:] or (1,))[0] > _MOST_COLUMNS
    ):
        return None
    clock, start = child(item, "timestamps", "load_nwb"), child(item, "starting_time", "load_nwb")
    n = data.shape[0]
    check_memory("load_nwb", item.name, 16.0 * n * (data.shape[1:] or (1,))[0], "pass behavior=False")
    if clock is not None:
        times = read_values("load_nwb", clock, kinds="fiu").astype(np.float64)
    elif start is not None and number_attribute("load_nwb", start, "rate", 0.0) > 0:
        first = read_values("load_nwb", start, kinds="fiu").astype(np.float64).reshape(-1)
        if len(first) != 1:
            raise ValueError(f"load_nwb: {start.name} must be one number, got {len(first)}")
        times = first[0] + np.arange(n) / number_attribute("load_nwb", start, "rate", 0.0)
    else:
        raise ValueError(f"load_nwb: {item.name} must have timestamps, or a starting_time with a rate")
    if len(times) != n:
        raise ValueError(
            f"load_nwb: {item.name} must have a timestamp for each of {n} samples, got {len(times)}"
        )
    values = read_values("load_nwb", data, kinds="biuf")
    scale, shift = (
        number_attribute("load_nwb", data, name, default)
        for name, default in (("conversion", 1.0), ("offset", 0.0))
    )
    if values.dtype.kind != "f" or scale != 1.0 or shift != 0.0:
        values = values.astype(np.float64) * scale + shift
    unit = data.attrs.get("unit", "")
    return TimeSeries.from_arrays(times, values, unit=unit.decode() if isinstance(unit, bytes) else str(unit))
