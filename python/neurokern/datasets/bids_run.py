"""One run of a BIDS folder: where its signals lie, and what the tables beside them say."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from neurokern.datasets._bids_tables import read_tsv

__all__ = ["BIDSRun", "MEEGRun"]

REPETITION_TIME = "RepetitionTime"


@dataclass(frozen=True)
class BIDSRun:
    """One run: where its image lies, who and what it is of.

    A derivative that lies below its raw dataset has the events of the raw run, and its repetition time where
    the derivative's sidecars hold none.

    Attributes
    ----------
    path : Path
        The image.
    entities : dict
        Entities of its name, by full name: ``{"subject": "01", "task": "rest"}``.
    metadata : dict
        Fields of its sidecars, inherited ones included.
    events : DataFrame or None
        ``onset`` and ``duration`` in seconds from the first volume, and whatever else the table has.
    confounds : DataFrame or None
        Table of confounds of a preprocessed run, a row per volume.
    """

    path: Path
    entities: dict[str, str]
    metadata: dict[str, Any]
    events: pd.DataFrame | None
    confounds: pd.DataFrame | None = None

    @property
    def repetition_time(self) -> float:
        """Seconds between volumes by the sidecar, which is to be believed before the image's header."""
        value = self.metadata.get(REPETITION_TIME)
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not math.isfinite(value)
            or value <= 0
        ):
            raise ValueError(
                f"{self.path}: RepetitionTime must be a positive number of seconds in a sidecar (.json), got "
                f"{value!r}" + _advice(self.path, value)
            )
        if value > 100:
            raise ValueError(
                f"{self.path}: RepetitionTime must be in seconds, got {value}; is it in milliseconds?"
            )
        return float(value)


UNREAD: Any = object()  # stands for a table that was not read yet


@dataclass(frozen=True)
class RunWithConfounds(BIDSRun):
    """A run whose table of confounds, of some hundred columns, is read when it is first asked for.

    It is made with ``UNREAD`` for ``confounds``; a copy with another table has that one.
    """

    confounds_path: Path | None = None

    def __post_init__(self) -> None:
        if self.__dict__.get("confounds") is UNREAD:
            del self.__dict__["confounds"]  # which the property below takes the place of

    @functools.cached_property  # type: ignore[misc]
    def confounds(self) -> pd.DataFrame | None:
        """Table of confounds, a row per volume."""
        return None if self.confounds_path is None else read_tsv(self.confounds_path)


@dataclass(frozen=True)
class MEEGRun(BIDSRun):
    """One recording of EEG, MEG or intracranial EEG.

    Attributes
    ----------
    path, entities, metadata, events
        As those of :class:`BIDSRun`; onsets count from the first sample. Without a BIDS folder ``events`` is
        None, and the annotations in the file take its place.
    channels : DataFrame or None
        Its ``_channels.tsv``: ``name``, ``type``, ``units``, ``status``, ...
    electrodes : DataFrame or None
        Its ``_electrodes.tsv``: ``name``, ``x``, ``y``, ``z`` in the unit that ``coordinates`` tells.
    coordinates : dict
        Its ``_coordsystem.json``; empty if there is none.
    data : mne.io.Raw, mne.Epochs or None
        Signals in memory instead of a file's.
    """

    channels: pd.DataFrame | None = None
    electrodes: pd.DataFrame | None = None
    coordinates: dict[str, Any] = field(default_factory=dict)
    data: Any = None

    @functools.cached_property
    def key(self) -> str:
        """What tells the recording and its tables from others, within this program."""
        tables = [
            None if table is None else (list(table), table.to_numpy().tolist())
            for table in (self.channels, self.electrodes)
        ]
        fields = (os.fspath(self.path), tables, sorted(self.coordinates.items(), key=str))
        return hashlib.blake2b(repr(fields).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _advice(path: Path, value: object) -> str:
    if value is not None:
        return ""
    sidecar = path.name.partition(".")[0] + ".json"
    return f'; write {{"RepetitionTime": SECONDS}} into {sidecar} beside it'
