"""Images and recordings of EEG and MEG in folders that are no BIDS folders."""

from __future__ import annotations

import os
import pathlib

from neurokern.cli.image_facts import is_image
from neurokern.cli.meeg_facts import is_recording

__all__ = ["files_below", "spikes_below"]


def files_below(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Return the images and the recordings of EEG and MEG in a folder and those below, sorted.

    Links to folders are not followed, hidden folders left out; a recording that is a folder is one recording.
    """
    images, recordings = [], []
    for above, folders, names in os.walk(folder):
        inside = [name for name in sorted(folders) if not name.startswith(".")]
        recordings += [pathlib.Path(above, name) for name in inside if is_recording(pathlib.Path(name))]
        folders[:] = [name for name in inside if not is_recording(pathlib.Path(name))]
        files = [pathlib.Path(above, name) for name in names if not name.startswith(".")]
        images += [file for file in files if is_image(file)]
        recordings += [file for file in files if is_recording(file)]
    return sorted(images), sorted(recordings)


def spikes_below(folder: pathlib.Path, *, others: bool) -> list[pathlib.Path]:
    """Return the recordings of spikes in a folder; with ``others`` there may be none."""
    from neurokern.cli.sessions import find_sources

    try:
        return find_sources([str(folder)])
    except FileNotFoundError:
        if not others:
            raise
        return []
