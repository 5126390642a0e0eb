"""Recordings of EEG and MEG from wherever they are: BIDS folders, files, objects of MNE."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from neurokern.datasets.bids_run import MEEGRun

__all__ = ["as_run"]


def as_run(source: Any) -> MEEGRun:
    """Return a recording of a BIDS folder, a file, or MNE's objects as a run.

    A file in a BIDS folder has its tables; others have what lies in them.
    """
    if isinstance(source, MEEGRun):
        return source
    if isinstance(source, (str, os.PathLike)):
        return _run_of_file(Path(source).absolute())
    if hasattr(source, "info") and hasattr(source, "ch_names"):
        # A name of its own: extractors tell recordings apart by their paths.
        name = Path(f"memory-{uuid.uuid4().hex}")
        return MEEGRun(path=name, entities={}, metadata={}, events=None, data=source)
    raise TypeError(
        "MEEGWindows: a recording must be a run, a path, mne.io.Raw or mne.Epochs, got "
        f"{type(source).__name__}"
    )


def _run_of_file(path: Path) -> MEEGRun:
    from neurokern.datasets.bids import BIDSDataset
    from neurokern.datasets.bids_file import bids_root

    root = bids_root(path)
    if root is not None and path.parent.name in ("eeg", "meg", "ieeg") and path.exists():
        runs = BIDSDataset(root, modality=path.parent.name, derivatives="derivatives" in path.parts)
        for i, other in enumerate(runs.table["path"]):
            if other == path:
                run = runs.run(i)
                assert isinstance(run, MEEGRun)
                return run
    return MEEGRun(path=path, entities={}, metadata={}, events=None)
