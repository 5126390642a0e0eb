"""What is wrong with a recording of spikes."""

from __future__ import annotations

import pathlib
import time
from typing import TYPE_CHECKING

import numpy as np

from neurokern.cli.doctor_images import Look

if TYPE_CHECKING:
    from neurokern.datasets import BinnedSession, SpikeRecording

__all__ = ["check_spikes"]

_REFRACTORY = 0.001  # seconds
_MOST_VIOLATIONS = 0.05  # of a unit's intervals
_FEWEST_SPIKES = 100  # below, a unit's intervals are not judged


def check_spikes(path: pathlib.Path) -> tuple[Look, list[tuple[str, str]]]:
    """Load a recording; return how long that took, what was repaired, and what is odd about it."""
    from neurokern.datasets import BinnedSession, load_recording
    from neurokern.datasets.packed_session import source_bytes

    begun = time.perf_counter()
    recording = load_recording(path)
    look = Look("recordings of spikes", time.perf_counter() - begun, source_bytes(path))
    if isinstance(recording, BinnedSession):
        return look, _check_counts(recording)
    return look, _check_trains(recording)


def _check_trains(recording: SpikeRecording) -> list[tuple[str, str]]:
    found = [("warning", note) for note in recording.notes]
    counts = np.bincount(recording.units, minlength=recording.n_units)
    if silent := int((counts == 0).sum()):
        found.append(("warning", f"{silent} of {recording.n_units} units have no spike"))
    if not (recording.regions != "").any():
        found.append(("warning", "no unit has a region; masks by region need them"))
    found += _interval_findings(recording, counts)
    if recording.trials is not None:
        for name in recording.trials:
            if not str(name).endswith("_times"):
                continue
            times = recording.trials[name].to_numpy(np.float64, na_value=np.nan)
            outside = int(((times < recording.start) | (times > recording.stop)).sum())
            if outside:
                found.append(
                    (
                        "error",
                        f"{outside} of {len(times)} trials have {name} outside the recording "
                        f"({recording.start:g} to {recording.stop:g} s): is it the same clock?",
                    )
                )
    return found


def _interval_findings(recording: SpikeRecording, counts: np.ndarray) -> list[tuple[str, str]]:
    """Return what the intervals between the spikes of a unit tell."""
    order = np.argsort(recording.units, kind="stable")  # within a unit they stay sorted in time
    units, interval = recording.units[order][1:], np.diff(recording.times[order])
    same = recording.units[order][:-1] == units
    found = []
    if twice := int((same & (interval == 0)).sum()):
        found.append(("warning", f"{twice:,} spikes repeat the time of another one of their unit"))
    short = np.bincount(units[same & (interval < _REFRACTORY)], minlength=len(counts))
    mixed = (counts >= _FEWEST_SPIKES) & (short > _MOST_VIOLATIONS * counts)
    if mixed.any():
        found.append(
            (
                "warning",
                f"{int(mixed.sum())} units have more than {_MOST_VIOLATIONS:.0%} of their intervals below "
                f"{_REFRACTORY * 1e3:g} ms: are they of several neurons?",
            )
        )
    return found


def _check_counts(session: BinnedSession) -> list[tuple[str, str]]:
    found = [("warning", note) for note in session.notes]
    counts = session.counts.sum(axis=(0, 1), dtype=np.int64)
    if silent := int((counts == 0).sum()):
        found.append(("warning", f"{silent} of {session.n_units} units have no spike"))
    empty = int((session.counts.sum(axis=(1, 2), dtype=np.int64) == 0).sum())
    if empty:
        found.append(("warning", f"{empty} of {session.n_windows} windows hold no spike at all"))
    if not (session.regions != "").any():
        found.append(("warning", "no unit has a region; masks by region need them"))
    return found
