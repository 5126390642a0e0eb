"""Recordings of EEG and MEG from wherever they are: BIDS folders, files, objects of MNE."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from neurokern.datasets.bids_run import MEEGRun

if TYPE_CHECKING:
    from neurokern.datasets.bids import BIDSDataset

__all__ = ["as_run", "as_runs"]


class _Folder(NamedTuple):
    """The recordings of one kind in a BIDS folder, and the row of each file."""

    runs: BIDSDataset
    rows: dict[Path, int]


def as_runs(sources: Sequence[Any]) -> list[MEEGRun]:
    """Return recordings of a BIDS folder, files, or MNE's objects as runs; a folder is looked through once.

    A file in a BIDS folder has its tables; others have what lies in them.
    """
    folders: dict[tuple[Path, str, bool], _Folder] = {}
    return [_as_run(source, folders) for source in sources]


def as_run(source: Any) -> MEEGRun:
    """Return one recording as a run; see :func:`as_runs`."""
    return _as_run(source, {})


def _as_run(source: Any, folders: dict[tuple[Path, str, bool], _Folder]) -> MEEGRun:
    if isinstance(source, MEEGRun):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _run_of_file(Path(source).absolute(), folders)
    if hasattr(source, "info") and hasattr(source, "ch_names"):
        # A name of its own: extractors tell recordings apart by their paths.
        name = Path(f"memory-{uuid.uuid4().hex}")
        return MEEGRun(path=name, entities={}, metadata={}, events=None, data=source)
    raise TypeError(
        "MEEGWindows: a recording must be a run, a path, mne.io.Raw or mne.Epochs, got "
        f"{type(source).__name__}"
    )


def _run_of_file(path: Path, folders: dict[tuple[Path, str, bool], _Folder]) -> MEEGRun:
    from neurokern.datasets.bids import BIDSDataset
    from neurokern.datasets.bids_file import bids_root

    root, kind = bids_root(path), path.parent.name
    if root is not None and kind in ("eeg", "meg", "ieeg") and path.exists():
        key = (root, kind, "derivatives" in path.parts)
        if key not in folders:
            runs = BIDSDataset(root, modality=kind, derivatives=key[2])
            folders[key] = _Folder(runs, {other: i for i, other in enumerate(runs.table["path"])})
        if path in folders[key].rows:
            run = folders[key].runs.run(folders[key].rows[path])
            assert isinstance(run, MEEGRun)
            return run
    return MEEGRun(path=path, entities={}, metadata={}, events=None)
