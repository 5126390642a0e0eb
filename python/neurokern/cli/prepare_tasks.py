"""What there is to prepare: a task per run or recording, which knows its files of the cache."""

from __future__ import annotations

import contextlib
import os
import pathlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from neurokern.cli.data_files import files_below, spikes_below
from neurokern.cli.image_facts import is_image
from neurokern.cli.meeg_facts import is_recording
from neurokern.cli.prepare_settings import PrepareSettings
from neurokern.cli.sessions import WindowSettings, prepared_entry
from neurokern.datasets.packed_session import read_session, source_bytes, source_key

if TYPE_CHECKING:
    from neurokern.datasets import BIDSDataset
    from neurokern.ops._array_cache import CacheEntry

__all__ = ["Plan", "Task", "find_tasks"]

Kind = Literal["fMRI", "M/EEG", "spikes"]
_MODALITIES: dict[str, Kind] = {"func": "fMRI", "eeg": "M/EEG", "meg": "M/EEG", "ieeg": "M/EEG"}


class Plan(NamedTuple):
    """What of a task is there, and what is missing.

    Attributes
    ----------
    n_files, n_ready : int
        Files of the cache that belong to it, and how many of them are there.
    n_bytes, n_missing : int or None
        Bytes of all, and of those that are not there; None where reading the recording alone would tell.
    """

    n_files: int
    n_ready: int
    n_bytes: int | None
    n_missing: int | None


@dataclass(frozen=True)
class Task:
    """One run or recording, and how it is taken; it can be sent to another process."""

    kind: Kind
    path: pathlib.Path
    name: str
    source_bytes: int
    run: Any = field(repr=False)  # a BIDSRun, the path of a recording of spikes, or why there is none
    how: Any = field(repr=False)  # an extractor, or WindowSettings

    def plan(self) -> Plan:
        """Look at headers and at the cache; nothing is made."""
        if isinstance(self.run, Exception):
            raise self.run
        if isinstance(self.how, WindowSettings):
            # A damaged file counts as none.
            found = read_session(source_key(self.run, self.how))
            if found is None:
                return Plan(1, 0, None, None)
            return Plan(1, 1, found[0].counts.nbytes, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about the files is the doctor's to say
            entries = self.how.cache_entries(self.run)
        missing = [entry for entry in entries if entry.open() is None]
        n_bytes, n_missing = (sum(entry.n_bytes for entry in some) for some in (entries, missing))
        return Plan(len(entries), len(entries) - len(missing), n_bytes, n_missing)

    def make(self) -> int:
        """Make what is missing; return the bytes of all files."""
        n_bytes = 0
        for entry in self._entries():
            entry.make()
            n_bytes += entry.n_bytes
        return n_bytes

    def _entries(self) -> list[CacheEntry]:
        if isinstance(self.how, WindowSettings):
            return [prepared_entry(self.run, self.how)]
        entries: list[CacheEntry] = self.how.cache_entries(self.run)
        return entries


def find_tasks(settings: PrepareSettings) -> list[Task]:
    """Return a task for each run and recording that the settings name.

    Raises
    ------
    FileNotFoundError, ValueError
        If a path does not exist, or holds nothing that fits.
    """
    tasks: dict[pathlib.Path, Task] = {}  # data that are named twice are prepared once
    for path in map(pathlib.Path, settings.data):
        for task in _tasks_of(path, settings):
            tasks.setdefault(task.path.resolve(), task)
    return list(tasks.values())


def _tasks_of(path: pathlib.Path, settings: PrepareSettings) -> Iterator[Task]:
    from neurokern.datasets.bids_file import find_run, is_bids_folder
    from neurokern.datasets.meeg_sources import as_run

    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    if path.is_dir() and is_bids_folder(path):
        yield from _bids_tasks(path, settings)
    elif is_image(path):
        yield Task("fMRI", path, path.name, _size(path), find_run(path), settings.fmri.extractor())
    elif is_recording(path):
        yield Task("M/EEG", path, path.name, _size(path), as_run(path), settings.meeg.extractor())
    else:
        yield from _folder_tasks(path, settings)


def _folder_tasks(folder: pathlib.Path, settings: PrepareSettings) -> Iterator[Task]:
    """Yield a recording of spikes, or whatever lies in a folder."""
    from neurokern.datasets.bids_file import find_run
    from neurokern.datasets.meeg_sources import as_run

    images, recordings = files_below(folder) if folder.is_dir() else ([], [])
    if images:
        of_images = settings.fmri.extractor()
        for image in images:
            name = os.fspath(image.relative_to(folder))
            yield Task("fMRI", image, name, _size(image), find_run(image), of_images)
    if recordings:
        of_channels = settings.meeg.extractor()
        for path in recordings:
            name = os.fspath(path.relative_to(folder))
            yield Task("M/EEG", path, name, _size(path), as_run(path), of_channels)
    for source in spikes_below(folder, others=bool(images or recordings)):
        yield Task("spikes", source, source.name, source_bytes(source), source, settings.windows)


def _bids_tasks(root: pathlib.Path, settings: PrepareSettings) -> Iterator[Task]:
    from neurokern.datasets import BIDSDataset

    n_found, problems = 0, []
    for modality, kind in _MODALITIES.items():
        try:
            runs = BIDSDataset(root, modality, derivatives=settings.derivatives, **settings.select)
        except ValueError as error:  # none of this kind, or none that fits
            problems.append(error)
            continue
        n_found += len(runs)
        extractor = (settings.fmri if kind == "fMRI" else settings.meeg).extractor()
        for i in range(len(runs)):
            path, run = runs.table["path"].iloc[i], _run_of(runs, i)
            yield Task(kind, path, os.fspath(path.relative_to(runs.root)), _size(path), run, extractor)
    if not n_found:
        raise next((e for e in problems if "there are" in str(e)), problems[0])


def _run_of(runs: BIDSDataset, i: int) -> Any:
    """Return a run, or what is wrong with its tables: others can be prepared all the same."""
    try:
        return runs.run(i)
    except (OSError, ValueError) as error:
        return error


def _size(path: pathlib.Path) -> int:
    """Return the bytes of an image or recording; of BrainVision and EEGLAB those of its signals, too."""
    files = [path, path.with_suffix(".eeg"), path.with_suffix(".fdt")] if path.is_file() else path.rglob("*")
    n_bytes = 0
    for file in set(files):
        with contextlib.suppress(OSError):
            n_bytes += file.stat().st_size
    return n_bytes
