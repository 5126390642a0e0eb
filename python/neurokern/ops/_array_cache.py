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
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurokern import _core
from neurokern.ops._cache_files import CHECK, make_room

_LEAST_FREE = 1 << 30  # bytes that are left free on the disk
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
_CHECK_SPEC = {CHECK: ArraySpec("uint32", (1,))}


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
    """Return the arrays of a file, or None if it is not there, or not exactly what is expected.

    The checksum of the values is not looked at here: that would read the whole file.
    """
    specs = {**specs, **_CHECK_SPEC}
    header = header_bytes(specs, metadata)
    try:
        file = _core.MappedFile(os.fsencode(path), True)
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
            _write(descriptor, {**specs, **_CHECK_SPEC}, metadata, fill)
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
    descriptor: int,
    specs: Specs,
    metadata: Mapping[str, str],
    fill: Callable[[dict[str, NDArray[Any]]], None],
) -> None:
    header = header_bytes(specs, metadata)
    n_bytes = len(header) + sum(spec.n_bytes for spec in specs.values())
    make_room(n_bytes)
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
    check = arrays.pop(CHECK)
    fill(arrays)
    check[0] = zlib.crc32(memoryview(mapping)[len(header) : -check.nbytes])
    mapping.flush()
    os.fsync(descriptor)  # else a power cut could leave zeros under the final name
