"""Folders of a BIDS dataset and the names in them, listed anew only where a folder has changed."""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from neurokern.datasets._bids_ignore import Ignored
from neurokern.ops._gzip_cache import cache_folder
from neurokern.ops._kept_json import keep_json, kept_json

__all__ = ["Listing", "Tree"]

_FOLDERS_OF_DATA = (".ds", ".mefd")  # recordings of CTF and MEF3 are folders of files
_SKIPPED = {"sourcedata", "code", ".git", ".datalad", "stimuli"}
_FORMAT = 1
# A folder that was written to as recently as this when it was listed may be written to again within one tick
# of its file system's clock, so that its time stays the same: it is listed again.
_SETTLED = 2 * 10**9  # nanoseconds
_WORTH_KEEPING = 2000  # names; fewer are listed in less time than a file of them takes to write


_stat = os.stat


class Listing(NamedTuple):
    """What lies in a folder, links apart: where they lead may change without the folder."""

    state: tuple[int, int, int]  # inode, times of writing and of change in ns; zeros: not to be relied on
    files: list[str]
    folders: list[str]
    links: list[str]


class Tree:
    """Names of the files below a folder, by folder, in the order of names.

    Parameters
    ----------
    root : Path
    cache : {"auto", True, False}
        Keep the listings in the cache folder, and list only folders that were written to since. "auto": of
        datasets with thousands of files, and go without where that cannot be written.

    Attributes
    ----------
    files : dict of str to list of str
        Names of the files of each folder.
    lost : list of (str, str)
        Folder and name of links to nowhere.
    """

    def __init__(self, root: Path, cache: bool | str) -> None:
        self.root = os.fspath(root)
        self.files: dict[str, list[str]] = {}
        self.lost: list[tuple[str, str]] = []
        self._entered: set[tuple[int, int]] = set()  # folders behind links
        self._real_root: str | None = None
        known = _load(self.root) if cache is not False else {}
        self._listings: dict[str, Listing] = {}
        for folder, names in self._walk(known):
            self.files[folder] = names
        n_names = sum(map(len, self.files.values()))
        if cache is True or (cache == "auto" and n_names >= _WORTH_KEEPING):
            self._save(known, must=cache is True)

    def _walk(self, known: dict[str, Listing]) -> Iterator[tuple[str, list[str]]]:
        waiting: list[tuple[str, str, Ignored]] = [(self.root, "", Ignored(Path(self.root)))]
        while waiting:
            folder, inside, ignored = waiting.pop()
            listing = self._list(folder, known)
            if listing is None:
                continue
            files, folders = self._follow(folder, listing)
            if ignored:
                files = [name for name in files if not ignored.holds(inside + name, folder=False)]
                folders = [name for name in folders if not ignored.holds(inside + name, folder=True)]
            data = [name for name in folders if name.endswith(_FOLDERS_OF_DATA)]
            yield folder, sorted(files + data) if data else files
            below = [name for name in reversed(folders) if not name.endswith(_FOLDERS_OF_DATA)]
            waiting += [_below(os.path.join(folder, name), inside + name, ignored) for name in below]

    def _list(self, folder: str, known: dict[str, Listing]) -> Listing | None:
        """Return what lies in a folder: as known, if it was not written to since."""
        try:
            status = _stat(folder)
            state = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
            listing = known.get(folder)
            if listing is None or listing.state != state:
                settled = max(state[1:]) + _SETTLED < time.time_ns()
                listing = _scan(folder, state if settled else (0, 0, 0))
        except OSError as error:
            why = "may not be read" if isinstance(error, PermissionError) else f"cannot be read: {error}"
            warnings.warn(f"BIDSIndex: left out {folder}, which {why}", stacklevel=6)
            return None
        self._listings[folder] = listing
        return listing

    def _follow(self, folder: str, listing: Listing) -> tuple[list[str], list[str]]:
        """Return files and folders, with what links lead to; what they lead to nowhere is ``lost``."""
        if not listing.links:
            return listing.files, listing.folders
        files, folders = list(listing.files), list(listing.folders)
        for name in listing.links:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                files.append(name)
            elif os.path.isdir(path):
                if name.endswith(_FOLDERS_OF_DATA) or self._leads_elsewhere(path):
                    folders.append(name)
            elif not os.path.lexists(path):
                continue  # gone since
            elif not os.path.exists(path):
                self.lost.append((folder, name))
        return sorted(files), sorted(folders)

    def _leads_elsewhere(self, path: str) -> bool:
        """Return whether a link leads out of the dataset, to a folder that no other did: no loop."""
        if self._real_root is None:
            self._real_root = os.path.realpath(self.root)
        real, root = os.path.realpath(path), self._real_root
        inside = os.path.commonpath((real, root)) in (real, root)
        try:
            status = os.stat(path)
        except OSError:  # gone since
            return False
        key = (status.st_dev, status.st_ino)
        if inside or key in self._entered:
            return False
        self._entered.add(key)
        return True

    def _save(self, known: dict[str, Listing], *, must: bool) -> None:
        if known == self._listings:
            return
        try:
            keep_json(_file_of(self.root), [_FORMAT, self.root, self._listings])
        except OSError:
            if must:
                raise


def _scan(folder: str, state: tuple[int, int, int]) -> Listing:
    """List a folder, in the order of names."""
    files: list[str] = []
    folders: list[str] = []
    links: list[str] = []
    with os.scandir(folder) as found:
        for entry in found:
            name = entry.name
            if name.startswith(".") or name in _SKIPPED:
                continue
            if entry.is_symlink():
                links.append(name)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(name)
            elif entry.is_file(follow_symlinks=False):
                files.append(name)
    return Listing(state, sorted(files), sorted(folders), sorted(links))


def _below(path: str, inside: str, ignored: Ignored) -> tuple[str, str, Ignored]:
    """Return a folder to walk: a derivative goes by its own ``.bidsignore``."""
    above, _, _ = inside.rpartition("/")
    if above == "derivatives":
        return path, "", Ignored(Path(path))
    return path, f"{inside}/", ignored


def _file_of(root: str) -> Path:
    name = hashlib.blake2b(os.fsencode(root), digest_size=16).hexdigest()
    return cache_folder() / "bids_index" / f"{name}.listing"


def _load(root: str) -> dict[str, Listing]:
    """Return the listings that were kept, or none."""
    fields = kept_json(_file_of(root))
    if not isinstance(fields, list) or fields[:2] != [_FORMAT, root]:
        return {}
    return {folder: _listing(*listing) for folder, listing in fields[2].items()}


def _listing(state: Sequence[int], *names: Any) -> Listing:
    return Listing((state[0], state[1], state[2]), *names)
