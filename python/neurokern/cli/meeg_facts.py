"""Facts of recordings of EEG, MEG and intracranial signals: headers and tables, no signals."""

from __future__ import annotations

import pathlib
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from neurokern.datasets import MEEGRun

__all__ = ["describe_recording", "describe_recordings", "is_recording", "recording_groups", "recording_rows"]

_SUFFIXES = (
    ".vhdr",
    ".edf",
    ".bdf",
    ".set",
    ".fif",
    ".fif.gz",
    ".sqd",
    ".con",
    ".cnt",
    ".gdf",
    ".ds",
    ".mff",
)
_MOST_NAMES = 12


def is_recording(path: pathlib.Path) -> bool:
    """Return whether a name is that of a recording that MNE reads."""
    return path.name.lower().endswith(_SUFFIXES)


def describe_recording(path: pathlib.Path) -> dict[str, Any]:
    """Return facts about one recording; what is wrong with it stands in ``warnings``.

    Raises
    ------
    OSError, ValueError, ImportError
        If it cannot be read, or MNE is not installed.
    """
    from neurokern.datasets.meeg_sources import as_run

    return {"source": path.name, **_facts(as_run(path))}


def describe_recordings(root: pathlib.Path) -> list[dict[str, Any]]:
    """Return facts about each recording of a BIDS folder; those that cannot be read say why."""
    from neurokern.datasets import BIDSDataset

    found = []
    for modality in ("eeg", "meg", "ieeg"):
        try:
            dataset = BIDSDataset(root, modality, derivatives=False)
        except ValueError:  # none of this kind
            continue
        for i in range(len(dataset)):
            path = dataset.table["path"].iloc[i]
            facts: dict[str, Any] = {
                "file": str(path.relative_to(root)),
                "modality": modality,
                "warnings": [],
            }
            try:
                run = dataset.run(i)
                facts |= {"entities": run.entities, **_facts(run)}  # type: ignore[arg-type]
            except (OSError, ValueError, ImportError) as error:
                facts["warnings"] = [" ".join(str(error).split()).replace(f"{root}/", "")]
            found.append(facts)
    return found


def _facts(run: MEEGRun) -> dict[str, Any]:
    from neurokern.extractors import MEEGExtractor

    extractor = MEEGExtractor("all", bads="keep", cache=False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        channels = extractor.channels(run)
    sfreq, n_samples, events = extractor.sfreq(run), extractor.n_samples(run), extractor.events(run)
    known = np.isfinite(channels.positions).all(axis=1)
    facts: dict[str, Any] = {
        "holds": "recording of EEG or MEG",
        "channels": dict(Counter(channels.types)),
        "bad_channels": [name for name, bad in zip(channels.names, channels.bad, strict=True) if bad],
        "sfreq_hz": sfreq,
        "samples": n_samples,
        "seconds": n_samples / sfreq,
        "positions": int(known.sum()),
        "frame": channels.frame,
        "events": len(events),
        "conditions": {},
        "warnings": [str(warning.message).removeprefix(f"{run.path.name}: ") for warning in said],
    }
    _describe_events(facts, events)
    return facts


def _describe_events(facts: dict[str, Any], events: Any) -> None:
    from neurokern.datasets.meeg_events import event_table

    try:
        table = event_table(events)
    except ValueError as error:
        facts["warnings"].append(str(error))
        return
    names = ["n/a" if name is None else name for name in table["trial_type"]]
    facts["conditions"] = dict(sorted(Counter(names).items()))
    onset = table["onset"].to_numpy()
    if unknown := int((~np.isfinite(onset)).sum()):
        facts["warnings"].append(f"{unknown} events have no onset")
    late = np.nan_to_num(onset, nan=-1.0) >= facts["seconds"]
    if late.any():
        facts["warnings"].append(
            f"{int(late.sum())} events begin after the end of the recording at {facts['seconds']:g} s, the "
            f"last at {np.nanmax(onset):g} s; are the onsets in seconds?"
        )
    early = int((onset < 0).sum())
    if early:
        facts["warnings"].append(f"{early} events begin before the recording")
    pairs = Counter(zip(onset[np.isfinite(onset)].tolist(), names, strict=False))
    twice = sum(n > 1 for n in pairs.values())
    if twice:
        facts["warnings"].append(f"{twice} events stand twice in the table, with one onset and name")


def recording_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the facts of one recording as names and text, for people."""
    counts = ", ".join(f"{name} {n}" for name, n in facts["conditions"].items())
    bad = facts["bad_channels"]
    more = f", and {len(bad) - _MOST_NAMES} more" if len(bad) > _MOST_NAMES else ""
    return [
        ("holds", facts["holds"]),
        ("channels", _channels_text(facts)),
        *([("bad", f"{len(bad)}: {', '.join(bad[:_MOST_NAMES])}{more}")] if bad else []),
        ("time", f"{facts['seconds']:g} s, {facts['samples']:,} samples at {facts['sfreq_hz']:g} Hz"),
        (
            "positions",
            f"of {facts['positions']} channels, {facts['frame']}" if facts["positions"] else "none",
        ),
        ("events", f"{facts['events']:,}: {counts}" if facts["events"] else "none"),
    ]


def recording_groups(recordings: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for all recordings of one kind, task, channels and rate."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for facts in recordings:
        if "channels" in facts:
            task = facts["entities"].get("task", "")
            key = (facts["modality"], task, _channels_text(facts), f"{facts['sfreq_hz']:g} Hz")
        else:
            key = (facts["modality"], "", "that cannot be read", "")
        groups.setdefault(key, []).append(facts)
    return [_group_text(key, group) for key, group in groups.items()]


def _group_text(key: tuple[str, ...], group: Sequence[dict[str, Any]]) -> str:
    modality, task, channels, rate = key
    count = f"{len(group):,} recording{'s' if len(group) != 1 else ''}"
    if not rate:
        return f"{modality}: {count} {channels}"
    seconds = sorted(facts["seconds"] for facts in group)
    span = f"{seconds[0]:g}" if seconds[0] == seconds[-1] else f"{seconds[0]:g} to {seconds[-1]:g}"
    return f"{modality}{f', task {task}' if task else ''}: {count} of {span} s, {channels}, {rate}"


def _channels_text(facts: dict[str, Any]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in facts["channels"].items())
