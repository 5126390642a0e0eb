"""Which windows belong together: by subject, session, run, task or dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neurokern._check import check_choice

__all__ = ["GROUPS", "groups_of", "keys_of", "label_of", "listed"]

# What makes a group, by entities. Echoes, spaces and acquisitions of one run are the same moments.
GROUPS = {
    "subject": ("subject",),
    "session": ("subject", "session"),
    "run": ("subject", "session", "task", "run"),
    "task": ("task",),
    "dataset": (),
}
_MOST_NAMES = 5


class Windows(Protocol):
    """What grouping asks of a dataset of windows."""

    runs: list[Any]

    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the recording of each window, and the seconds that it begins and ends at."""


def groups_of(function: str, windows: Windows, by: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of the groups, sorted, and the group of each window."""
    keys = keys_of(function, (windows,), by)[0]
    recording = windows.spans()[0]
    present = list(dict.fromkeys(keys[i] for i in np.unique(recording)))
    by_file = any(len(key) != 1 + len(GROUPS[by]) for key in present)
    if not by_file:
        present.sort()
    number_of = {key: number for number, key in enumerate(present)}
    group = np.array([number_of.get(key, -1) for key in keys], dtype=np.int64)[recording]
    if by_file:
        return [f"{by} {number}" for number in range(len(present))], group
    several = len({key[0] for key in present}) > 1 or by == "dataset"
    return [label_of(by, key, with_dataset=several) for key in present], group


def keys_of(function: str, sides: Sequence[Windows], by: str) -> list[list[tuple[str, ...]]]:
    """Return what tells the groups of each side's recordings apart: dataset, then entities.

    ``sub-01`` of two datasets are two people, if it is known of all recordings which dataset they are of.
    What was recorded once, raw or processed, has one key. Of files outside of BIDS folders it is their path.
    """
    check_choice(function, "by", by, GROUPS)
    found = [[_dataset_of(run) for run in side.runs] for side in sides]
    known = all(name is not None for side in found for name in side)
    if by == "dataset":
        if not known:
            raise ValueError(
                f"{function}: the dataset of each recording must be known for by='dataset'; there are "
                "files outside of BIDS folders, or derivatives outside of their dataset"
            )
        return [[(str(name),) for name in side] for side in found]
    values = [[_values(run, by) for run in side.runs] for side in sides]
    if not any(any(key) for side in values for key in side):
        # Recordings that are not of a BIDS folder: each is its own run, session and subject.
        if by == "task":
            raise ValueError(f"{function}: the recordings have no task")
        return [[("", "", *GROUPS[by], str(run.path)) for run in side.runs] for side in sides]
    return [
        [(name if known and name else "", *key) for name, key in zip(names, keys, strict=True)]
        for names, keys in zip(found, values, strict=True)
    ]


def label_of(by: str, key: tuple[str, ...], *, with_dataset: bool) -> str:
    """Return the name of a group."""
    entities = GROUPS[by]
    if len(key) != 1 + len(entities):
        return Path(key[-1]).name
    parts = [f"{entity} {value}" for entity, value in zip(entities, key[1:], strict=True) if value]
    return ", ".join([f"dataset {Path(key[0]).name}", *parts] if with_dataset and key[0] else parts)


def listed(names: list[str]) -> str:
    """Return some of the names."""
    return "; ".join(names[:_MOST_NAMES]) + ("; ..." if len(names) > _MOST_NAMES else "")


def _values(run: Any, by: str) -> tuple[str, ...]:
    values = {entity: run.entities.get(entity, "") for entity in GROUPS[by]}
    if values.get("run", "").isdigit():
        values["run"] = str(int(values["run"]))  # run-1 and run-01 are one
    return tuple(values.values())


def _dataset_of(run: Any) -> str | None:
    """Return the folder of a recording's dataset: of a derivative that of the raw one that it is below."""
    from neurokern.datasets._bids_tables import read_json

    folders = list(Path(run.path).parents)
    own = f"sub-{run.entities.get('subject', '')}"
    subjects = [i for i, folder in enumerate(folders) if folder.name == own]
    if not subjects:
        return None
    base = Path(os.path.realpath(folders[subjects[0] + 1]))  # by whatever link it was reached
    if base.parent.name == "derivatives":
        return str(base.parent.parent)
    description = base / "dataset_description.json"
    is_derivative = description.is_file() and read_json(description).get("DatasetType") == "derivative"
    return None if is_derivative else str(base)
