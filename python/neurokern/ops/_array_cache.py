"""Arrays kept in files between runs: one safetensors file each, mapped, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import mmap
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurokern import _core
from neurokern.ops._gzip_cache import cache_folder

_LEAST_FREE = 1 << 30  # bytes that are left free on the disk
_MOST_GIB = 50.0  # of the cache, unless NEUROKERN_CACHE_GIB says otherwise
_STALE = 7 * 24 * 3600 * 10**9  # nanoseconds without use, after which a file may make room for others
_ALIGNMENT = 64  # of the first array: whole cache lines
_CODES = {"float32": "F32", "float64": "F64"} | {
    f"{sign}int{bits}": f"{letter}{bits}"
    for sign, letter in (("", "I"), ("u", "U"))
    for bits in (8, 16, 32, 64)
}


class ArraySpec(NamedTuple):
    """Type and shape of an array."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


Specs = Mapping[str, ArraySpec]


class CachedArrays:
    """An open file of arrays: their addresses, valid while this lives and :meth:`is_unchanged`."""

    def __init__(self, path: Path, file: Any, header: bytes, specs: Specs) -> None:
        self.path, self._file = path, file
        self.addresses: dict[str, int] = {}
        offset = file.address + len(header)
        for name, spec in specs.items():
            self.addresses[name] = offset
            offset += spec.n_bytes

    def is_unchanged(self) -> bool:
        """Return whether the file still is what was opened; a mapping of one that shrank must not be read."""
        return bool(self._file.is_unchanged())


def header_bytes(specs: Specs, metadata: Mapping[str, str]) -> bytes:
    """Return the start of a safetensors file: length, JSON, spaces up to the first array."""
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for name, spec in specs.items():
        ends = [offset, offset + spec.n_bytes]
        entries[name] = {"dtype": _CODES[spec.dtype], "shape": list(spec.shape), "data_offsets": ends}
        offset = ends[1]
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def open_arrays(path: Path, specs: Specs, metadata: Mapping[str, str]) -> CachedArrays | None:
    """Return the arrays of a file, or None if it is not there, or not exactly what is expected."""
    header = header_bytes(specs, metadata)
    try:
        file = _core.MappedFile(os.fspath(path), True)
    except RuntimeError:
        return None
    n_bytes = len(header) + sum(spec.n_bytes for spec in specs.values())
    if file.size != n_bytes or not file.address or os.pread(file.descriptor, len(header), 0) != header:
        return None
    with contextlib.suppress(OSError):  # when it was last used, for pruning; the time of writing stays
        os.utime(path, ns=(time.time_ns(), file.state[1]))
    return CachedArrays(path, file, header, specs)


def make_arrays(
    path: Path, specs: Specs, metadata: Mapping[str, str], fill: Callable[[dict[str, NDArray[Any]]], None]
) -> CachedArrays:
    """Return the arrays of a file, which ``fill`` writes first unless they are there.

    ``fill`` gets arrays that lie in the file, so that nothing is held in memory twice. Of processes that want
    the same file one writes and the others wait for it. OSError if the folder cannot be written.
    """
    found = open_arrays(path, specs, metadata)
    if found is not None:
        return found
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    descriptor = _lock(partial)
    try:
        found = open_arrays(path, specs, metadata)  # another one may have been faster
        if found is None:
            _write(descriptor, header_bytes(specs, metadata), specs, fill)
            os.replace(partial, path)
            found = open_arrays(path, specs, metadata)
        else:
            partial.unlink(missing_ok=True)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        # A process forked meanwhile holds the descriptor, too: closing alone would leave it locked.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
    if found is None:
        raise OSError(errno.EIO, "was changed by another program while it was written", os.fspath(path))
    return found


def _lock(partial: Path) -> int:
    """Open the file that is being written, and wait until no one else writes it."""
    while True:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            own = os.fstat(descriptor)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(own, os.stat(partial)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # what we waited for has its final name now, or is gone


def _write(
    descriptor: int, header: bytes, specs: Specs, fill: Callable[[dict[str, NDArray[Any]]], None]
) -> None:
    n_bytes = len(header) + sum(spec.n_bytes for spec in specs.values())
    _make_room(n_bytes)
    status = os.fstatvfs(descriptor)
    if status.f_bavail * status.f_frsize < n_bytes + _LEAST_FREE:
        raise OSError(errno.ENOSPC, f"the cache would leave less than {_LEAST_FREE >> 30} GiB free")
    os.ftruncate(descriptor, 0)
    # Writing through a mapping to a disk that is full would end the process: the blocks are taken before.
    os.posix_fallocate(descriptor, 0, n_bytes)
    mapping = mmap.mmap(descriptor, n_bytes)  # unmapped when the last array of it is gone
    mapping[: len(header)] = header
    arrays, offset = {}, len(header)
    for name, spec in specs.items():
        values = np.frombuffer(mapping, spec.dtype, math.prod(spec.shape), offset)
        arrays[name] = values.reshape(spec.shape)
        offset += spec.n_bytes
    fill(arrays)
    mapping.flush()
    os.fsync(descriptor)  # else a power cut could leave zeros under the final name


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
    found = _cached_files()
    return _remove(found, sum(file.n_bytes for file in found) - max_bytes)


class _CachedFile(NamedTuple):
    used: int  # nanoseconds since 1970
    n_bytes: int
    path: Path


def _cached_files() -> list[_CachedFile]:
    """Return the files of the cache, those first that were not used for longest."""
    found = []
    for kind in ("packed_runs", "fits", "gzip_index"):
        folder = cache_folder() / kind
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.suffix in (".safetensors", ".index"):
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    used = max(status.st_atime_ns, status.st_mtime_ns)
                    found.append(_CachedFile(used, status.st_size, path))
    return sorted(found)


def _remove(files: Iterable[_CachedFile], n_bytes: int) -> int:
    """Remove files in their order until so many bytes are gone; return how many are."""
    removed = 0
    for file in files:
        if removed >= n_bytes:
            break
        file.path.unlink(missing_ok=True)
        removed += file.n_bytes
    return removed


def _make_room(n_bytes: int) -> None:
    """Remove stale files if the cache would grow beyond its bound; OSError if that is not enough.

    Files in use stay: a dataset that is larger than the bound would otherwise push itself out in every epoch.
    """
    most = _most_bytes()
    found = _cached_files()
    too_many = sum(file.n_bytes for file in found) + n_bytes - most
    if too_many <= 0:
        return
    before = time.time_ns() - _STALE
    if n_bytes > most or _remove((file for file in found if file.used < before), too_many) < too_many:
        raise OSError(
            errno.ENOSPC,
            f"the cache would exceed {most / 2**30:g} GiB; raise NEUROKERN_CACHE_GIB, or call prune_cache",
            os.fspath(cache_folder()),
        )


def _most_bytes() -> int:
    given = os.environ.get("NEUROKERN_CACHE_GIB")
    try:
        gib = _MOST_GIB if not given else float(given)
    except ValueError:
        gib = -1.0
    if not gib >= 0:
        raise ValueError(f"NEUROKERN_CACHE_GIB must be a number of GiB, got {given!r}")
    return int(min(gib, 2.0**30) * 2**30)
