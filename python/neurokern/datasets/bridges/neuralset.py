"""Recordings of the events of neuralset's studies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurokern._check import check_choice
from neurokern.datasets.bids_run import REPETITION_TIME, BIDSRun, MEEGRun
from neurokern.datasets.bridges._peer import import_peer
from neurokern.datasets.load import load_recording
from neurokern.datasets.recording import SpikeRecording

__all__ = ["from_neuralset"]

_SENSORS = ("Eeg", "Meg", "Ieeg", "Emg", "Ecg", "Fnirs")
_TYPES = (*_SENSORS, "Fmri", "Spikes")
_ENTITIES = ("subject", "session", "task", "run")
_USED = ("type", "timeline", "start", "duration", "stop", "offset", "filepath", "frequency", *_ENTITIES)


def from_neuralset(
    events: Any, type: str, *, trial_type: str | None = None
) -> list[BIDSRun] | list[MEEGRun] | list[SpikeRecording]:
    """Return the recordings of one type among a study's events, each with what happened on its timeline.

    Onsets count from the first sample of the file: event minus recording, plus the recording's ``offset``
    where it is a part of a file. Chunks of one file become one run. Every other column of the events stays a
    column of the run's ``events``, every other column of the recording a field of its ``metadata``.

    Parameters
    ----------
    events : DataFrame, or neuralset Study
        A row per event with ``type``, ``timeline``, ``start``, ``duration``, ``filepath``, ``frequency``; of
        a study the result of its ``run()``.
    type : {"Eeg", "Meg", "Ieeg", "Emg", "Ecg", "Fnirs", "Fmri", "Spikes"}
    trial_type : str, optional
        Column that names the conditions, such as ``"text"`` or ``"code"``; default ``trial_type`` where there
        is one, else the event's ``type``.

    Returns
    -------
    list
        :class:`MEEGRun` for ``MEEGWindows(runs, ...)``, :class:`BIDSRun` for ``FMRIWindows(runs, ...)``, or
        recordings with the events as trials (``start``, ``end``), for ``trial_windows``.

    Raises
    ------
    ImportError
        If a recording is read by code of its study, and neuralset is not installed.
    TypeError, ValueError
        If it is no table of events, has no such type, or chunks of one file contradict each other.

    Examples
    --------
    >>> runs = from_neuralset(study.run(), "Fmri", trial_type="text")  # doctest: +SKIP
    >>> windows = FMRIWindows(runs, FMRIVoxelExtractor(mask), events=True, duration=16)  # doctest: +SKIP
    """
    check_choice("from_neuralset", "type", type, _TYPES)
    table = events if isinstance(events, pd.DataFrame) else _run_study(events)
    missing = {"type", "timeline", "start", "duration", "filepath"} - set(table)
    if missing:
        raise ValueError(f"from_neuralset: events must have columns {sorted(missing)}; got {list(table)}")
    if not (table["type"] == type).any():
        raise ValueError(
            f"from_neuralset: no event is of type {type!r}; there are {sorted(set(table['type']))}"
        )
    if trial_type is not None and trial_type not in table:
        raise ValueError(f"from_neuralset: trial_type must be a column of the events, got {trial_type!r}")
    return [_made(type, row, found) for row, found in _recordings(table, type, trial_type)]  # type: ignore[return-value]


def _run_study(study: Any) -> pd.DataFrame:
    table = study.run() if hasattr(study, "run") else None
    if not isinstance(table, pd.DataFrame):
        raise TypeError(
            f"from_neuralset: events must be a DataFrame or a Study, got {study.__class__.__name__}"
        )
    return table


def _recordings(
    table: pd.DataFrame, type: str, trial_type: str | None
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield the first row of each recording, and the events on its clock."""
    for timeline, rows in table.groupby("timeline", sort=False):
        happened = rows[~rows["type"].isin(_TYPES)]
        for path, chunks in rows[rows["type"] == type].groupby("filepath", sort=False):
            offset = chunks["offset"].fillna(0.0) if "offset" in chunks else 0.0
            zero = (chunks["start"].astype(float) - offset).to_numpy(np.float64)
            if np.ptp(zero) > 1e-6:
                raise ValueError(
                    f"from_neuralset: chunks of {path} on timeline {timeline} must begin at one time, got "
                    f"{zero.min():g} to {zero.max():g} s"
                )
            first = {str(name): value for name, value in chunks.iloc[0].items()}
            yield first, _on_clock(happened, float(zero[0]), trial_type)


def _on_clock(happened: pd.DataFrame, zero: float, trial_type: str | None) -> pd.DataFrame:
    name = trial_type or ("trial_type" if "trial_type" in happened else "type")
    events = pd.DataFrame(
        {
            "onset": happened["start"].to_numpy(np.float64) - zero,
            "duration": happened["duration"].to_numpy(np.float64),
            "trial_type": happened[name].to_numpy(),
        }
    )
    rest = happened.dropna(axis=1, how="all").reset_index(drop=True)
    return events.join(
        rest[[column for column in rest if column not in (*events, "start", "timeline", "stop")]]
    )


def _made(type: str, row: dict[str, Any], events: pd.DataFrame) -> BIDSRun | SpikeRecording:
    entities = {name: str(row[name]) for name in _ENTITIES if not pd.isna(row.get(name, np.nan))}
    entities = {name: value for name, value in entities.items() if value}
    if type == "Spikes":
        return _with_trials(row, entities, events)
    metadata = {str(k): v for k, v in row.items() if k not in _USED and not _is_missing(v)}
    frequency = float(row.get("frequency") or 0.0)
    if frequency > 0:
        metadata |= {REPETITION_TIME: 1 / frequency} if type == "Fmri" else {"SamplingFrequency": frequency}
    path, data = _file_of(type, row)
    if type == "Fmri":
        return BIDSRun(path=path, entities=entities, metadata=metadata, events=events)
    return MEEGRun(path=path, entities=entities, metadata=metadata, events=events, data=data)


def _is_missing(value: Any) -> bool:
    return bool(np.ndim(value) == 0 and pd.isna(value))


def _file_of(type: str, row: dict[str, Any]) -> tuple[Path, Any]:
    """Return the file, or signals that code of the study reads."""
    path = os.fspath(row["filepath"])
    if not path.lstrip().startswith("{"):
        return Path(path).absolute(), None
    if type == "Fmri":
        raise ValueError(
            f"from_neuralset: images must lie in files; this study's are read by its own code: {path[:80]}"
        )
    peer = import_peer("from_neuralset", "neuralset.events.etypes", "neuralset")
    from neurokern.datasets.meeg_sources import as_run

    whole = {name: value for name, value in row.items() if name not in ("offset", "duration", "stop")}
    raw = peer.Event.from_dict(whole).read()
    return as_run(raw).path, raw


def _with_trials(row: dict[str, Any], entities: dict[str, str], events: pd.DataFrame) -> SpikeRecording:
    recording = load_recording(os.fspath(row["filepath"]))
    if not isinstance(recording, SpikeRecording):
        raise ValueError(f"from_neuralset: {row['filepath']} holds counts and no spike times")
    trials = events.rename(columns={"onset": "start"})
    trials.insert(1, "end", trials["start"] + trials["duration"])
    return replace(
        recording,
        trials=trials if len(trials) else recording.trials,
        subject=entities.get("subject", recording.subject),
        session=str(row["timeline"]),
    )
