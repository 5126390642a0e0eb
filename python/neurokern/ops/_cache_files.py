"""The files of the cache: which there are, whether they are whole, and which make room for others."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from neurokern.ops._gzip_cache import cache_folder

CHECK = "crc32"  # the last array of a file: CRC-32 of all others
PARTIAL = ".partial"  # what a file is called, and locked, while it is written
KINDS = {
    "packed_runs": "runs, packed to a mask, an atlas or channels",
    "packed_sessions": "sessions of spikes, binned",
    "fits": "coefficients of cleaning",
    "gzip_index": "seek points of .nii.gz files",
    "bids_index": "listings of BIDS folders",
    "headers": "what headers of recordings tell",
    "stimulus_features": "features of stimuli",
}
_MOST_GIB = 50.0  # of the cache, unless NEUROKERN_CACHE_GIB says otherwise
_STALE = 7 * 24 * 3600 * 10**9  # nanoseconds without use, after which a file may make room for others
LEAST_FREE = 1 << 30  # bytes that are left free on the disk
_PIECE = 1 << 22  # bytes that are read at a time
_SPOOL = ".nkindex"  # what seek points are called, with a dot before, while they are written
_SPOOL_AGE = 3600 * 10**9  # nanoseconds that no writing of seek points takes
# As csrc/decode_nifti/gzip_index.cpp writes them.
_INDEX_MAGIC = 0x327864697A676B6E
_INDEX_ROW = np.dtype("<i8,<i8,<i8,<i8,<u4,<u4,<u4,<u4")
_INDEX_ROW.names = ("out", "in", "member", "place", "crc", "bits", "n_bytes", "check")
_INDEX_FOOTER = np.dtype("V32,<i8,<i8,<i8,<i8,<u4,<u4,<u8")
_INDEX_FOOTER.names = ("key", "file_bytes", "base", "spacing", "n_points", "complete", "check", "magic")


class CachedFile(NamedTuple):
    """A file of the cache; the one that was not used for longest comes first in their order."""

    used: int  # nanoseconds since 1970
    n_bytes: int
    path: Path

    @property
    def kind(self) -> str:
        """Name of its folder."""
        return self.path.parent.name


def cached_files() -> list[CachedFile]:
    """Return the files of the cache, those first that were not used for longest."""
    found = []
    for kind in KINDS:
        folder = cache_folder() / kind
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.suffix in (".safetensors", ".index", ".listing"):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    used = max(status.st_atime_ns, status.st_mtime_ns)
                    found.append(CachedFile(used, status.st_size, path))
    return sorted(found)


def left_behind() -> list[CachedFile]:
    """Return what writers that were killed have left: files that are half written, and that no one writes."""
    found = []
    for path in _unfinished():
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            if path.suffix == _SPOOL and time.time_ns() - status.st_mtime_ns < _SPOOL_AGE:
                continue
            with _held(path) as is_ours:
                if is_ours:
                    found.append(CachedFile(status.st_mtime_ns, status.st_size, path))
    return sorted(found)


def remove_left_behind() -> int:
    """Remove what :func:`left_behind` finds; return its bytes."""
    removed = 0
    for file in left_behind():
        with contextlib.suppress(FileNotFoundError), _held(file.path) as is_ours:
            if is_ours:  # under the lock: who waits for it looks at the name again
                file.path.unlink()
                removed += file.n_bytes
    return removed


def _unfinished() -> list[Path]:
    found = []
    for kind in KINDS:
        folder = cache_folder() / kind
        found += [p for p in (folder.iterdir() if folder.is_dir() else ()) if p.suffix in (PARTIAL, _SPOOL)]
    return found


@contextlib.contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Hold the lock of a file that is written, if no one else does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def room_lock() -> Iterator[None]:
    """Let one process at a time look for room and take it."""
    descriptor = os.open(cache_folder(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def prune_cache(max_bytes: int) -> int:
    """Remove files of the cache, those first that were not used for longest, down to ``max_bytes``.

    Files that are in use stay readable for the programs that have them open; all are made again when needed.

    Parameters
    ----------
    max_bytes : int
        Bytes that may stay; 0 empties the cache.

    Returns
    -------
    removed : int
        Bytes that were removed.
    """
    if max_bytes < 0:
        raise ValueError(f"prune_cache: max_bytes must be at least 0, got {max_bytes}")
    found = cached_files()
    return remove_files(found, sum(file.n_bytes for file in found) - max_bytes)


def remove_files(files: Iterable[CachedFile], n_bytes: int) -> int:
    """Remove files in their order until so many bytes are gone; return how many are."""
    removed = 0
    for file in files:
        if removed >= n_bytes:
            break
        file.path.unlink(missing_ok=True)
        removed += file.n_bytes
    return removed


def make_room(n_bytes: int) -> None:
    """Remove stale files if the cache would grow beyond its bound; OSError if that is not enough.

    Files in use stay: a dataset that is larger than the bound would otherwise push itself out in every epoch.
    """
    most = most_bytes()
    found = cached_files()
    if sum(file.n_bytes for file in found) + _unfinished_bytes() + n_bytes <= most:
        return
    remove_left_behind()
    too_many = sum(file.n_bytes for file in found) + _unfinished_bytes() + n_bytes - most
    if too_many <= 0:
        return
    before = time.time_ns() - _STALE
    if n_bytes > most or remove_files((file for file in found if file.used < before), too_many) < too_many:
        raise OSError(
            errno.ENOSPC,
            f"the cache would exceed {most / 2**30:g} GiB; raise NEUROKERN_CACHE_GIB, or make room with "
            "`neurokern cache prune`",
            os.fspath(cache_folder()),
        )


def room() -> int:
    """Return the bytes that can be written to the cache, by its bound and its disk; at least 0."""
    folder = cache_folder()
    while not folder.is_dir():
        folder = folder.parent
    status = os.statvfs(folder)
    before = time.time_ns() - _STALE
    kept = sum(file.n_bytes for file in cached_files() if file.used >= before)
    of_disk = status.f_bavail * status.f_frsize - LEAST_FREE
    return max(min(most_bytes() - kept - _unfinished_bytes(), of_disk), 0)


def _unfinished_bytes() -> int:
    """Return the bytes that files have which are being written; each has taken all of its blocks."""
    n_bytes = 0
    for path in _unfinished():
        with contextlib.suppress(FileNotFoundError):
            n_bytes += path.stat().st_size
    return n_bytes


def most_bytes() -> int:
    """Return the bytes that the cache may have: ``NEUROKERN_CACHE_GIB``, else 50 GiB."""
    given = os.environ.get("NEUROKERN_CACHE_GIB")
    try:
        gib = _MOST_GIB if not given else float(given)
    except ValueError:
        gib = -1.0
    if not gib >= 0:
        raise ValueError(f"NEUROKERN_CACHE_GIB must be a number of GiB, got {given!r}")
    return int(min(gib, 2.0**30) * 2**30)


def what_is_wrong(file: CachedFile) -> str | None:
    """Read a whole file of the cache, and return what is wrong with it; None for a sound one."""
    try:
        with file.path.open("rb") as opened:
            checks = {".index": _wrong_index, ".listing": _wrong_listing}
            return checks.get(file.path.suffix, _wrong_arrays)(opened)
    except (ValueError, KeyError, TypeError, OverflowError):
        return "its header is damaged"


def _wrong_arrays(file: BinaryIO) -> str | None:
    n_bytes = os.fstat(file.fileno()).st_size
    n_header = int.from_bytes(file.read(8), "little")
    if n_header > n_bytes - 8:
        return "it is cut short"
    entries = json.loads(file.read(n_header))
    if CHECK not in entries:
        return "it has no checksum (an older version wrote it)"
    start, stop = entries[CHECK]["data_offsets"]
    if 8 + n_header + stop != n_bytes:
        return f"it must have {8 + n_header + stop} bytes, it has {n_bytes}"
    check = _crc_of(file, start)
    return None if int.from_bytes(file.read(4), "little") == check else "its values do not match its checksum"


def _wrong_index(file: BinaryIO) -> str | None:
    n_bytes = os.fstat(file.fileno()).st_size
    if n_bytes < _INDEX_FOOTER.itemsize:
        return "it is cut short"
    file.seek(n_bytes - _INDEX_FOOTER.itemsize)
    footer = np.frombuffer(file.read(), _INDEX_FOOTER)
    table = n_bytes - _INDEX_FOOTER.itemsize - int(footer["n_points"][0]) * _INDEX_ROW.itemsize
    if footer["magic"][0] != _INDEX_MAGIC or not 0 <= table <= n_bytes - _INDEX_FOOTER.itemsize:
        return "its footer is damaged"
    file.seek(table)
    rows = np.frombuffer(file.read(n_bytes - _INDEX_FOOTER.itemsize - table), _INDEX_ROW)
    unchecked = footer.copy()
    unchecked["check"] = 0
    if zlib.crc32(unchecked.tobytes(), zlib.crc32(rows.tobytes())) != footer["check"][0]:
        return "its table does not match its checksum"
    for row in rows:
        file.seek(int(row["place"]))
        if _crc_of(file, int(row["n_bytes"])) != row["check"]:
            return f"the seek point at byte {row['out']} does not match its checksum"
    return None


def _wrong_listing(file: BinaryIO) -> str | None:
    check = int(file.readline(16), 16)
    return None if zlib.crc32(file.read()) == check else "its names do not match their checksum"


def _crc_of(file: BinaryIO, n_bytes: int) -> int:
    check = 0
    while n_bytes:
        piece = file.read(min(n_bytes, _PIECE))
        if not piece:
            raise ValueError("the file ends too early")
        check = zlib.crc32(piece, check)
        n_bytes -= len(piece)
    return check
