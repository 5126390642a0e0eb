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
from neurokern.ops._cache_files import CHECK, LEAST_FREE, PARTIAL, make_room, room_lock

_LEAST_FREE = LEAST_FREE
_ALIGNMENT = 64  # of the first array: whole cache lines
_CODES = {"float32": "F32", "float64": "F64"} | {
    f"{sign}int{bits}": f"{letter}{bits}"
    for sign, letter in (("", "I"), ("u", "U"))
    for bits in (8, 16, 32, 64)
}
_TYPES = {code: dtype for dtype, code in _CODES.items()}
_UNSOUND = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,
)


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
        self.path, self.file, self.specs = path, file, specs
        self.addresses: dict[str, int] = {}
        offset = file.address + len(header)
        for name, spec in specs.items():
            self.addresses[name] = offset
            offset += spec.n_bytes

    def is_unchanged(self) -> bool:
        """Return whether the file still is what was opened; a mapping of one that shrank must not be read."""
        return bool(self.file.is_unchanged())


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


class CacheEntry:
    """A file of the cache that may have to be made: its name, what it holds, and who fills it.

    Parameters
    ----------
    path : Path
        Final name.
    specs, metadata
        What the file holds; another content counts as none.
    fill : callable
        Gets arrays that lie in the file, so that nothing is held in memory twice.
    """

    def __init__(
        self,
        path: Path,
        specs: Specs,
        metadata: Mapping[str, str],
        fill: Callable[[dict[str, NDArray[Any]]], None],
    ) -> None:
        self.path, self._specs, self._metadata, self._fill = path, specs, metadata, fill

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole file."""
        specs = {**self._specs, **_CHECK_SPEC}
        return len(header_bytes(specs, self._metadata)) + sum(spec.n_bytes for spec in specs.values())

    def open(self) -> CachedArrays | None:
        """Return the arrays if they are there."""
        return open_arrays(self.path, self._specs, self._metadata)

    def make(self) -> CachedArrays:
        """Return the arrays, which are written first unless they are there.

        Of processes that want the same file one writes and the others wait for it. OSError if the folder
        cannot be written.
        """
        found = self.open()
        if found is not None:
            return found
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(PARTIAL)
        descriptor = _lock(partial)
        try:
            found = self.open()  # another one may have been faster
            if found is None:
                _write(descriptor, {**self._specs, **_CHECK_SPEC}, self._metadata, self._fill)
                os.replace(partial, self.path)
                found = self.open()
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
            raise OSError(
                errno.EIO, "was changed by another program while it was written", os.fspath(self.path)
            )
        return found


def make_arrays(
    path: Path, specs: Specs, metadata: Mapping[str, str], fill: Callable[[dict[str, NDArray[Any]]], None]
) -> CachedArrays:
    """Return the arrays of a file, which ``fill`` writes first unless they are there."""
    return CacheEntry(path, specs, metadata, fill).make()


def can_be_kept(dtype: np.dtype[Any]) -> bool:
    """Return whether arrays of a type can lie in a file of the cache."""
    return dtype.name in _CODES and dtype.isnative


def map_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]] | None:
    """Return the arrays of a file whose shapes are not known beforehand, and its metadata.

    None if it is not there, or anything about it is wrong; its values are compared with their checksum. The
    arrays are mapped, and may be written to: the file stays as it is.
    """
    try:
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            with contextlib.suppress(OSError):
                os.utime(path, ns=(time.time_ns(), os.fstat(file.fileno()).st_mtime_ns))
        n_header = 8 + int.from_bytes(mapping[:8], "little")
        entries = json.loads(mapping[8:n_header])
        metadata = entries.pop("__metadata__")
        specs = {name: ArraySpec(_TYPES[e["dtype"]], tuple(e["shape"])) for name, e in entries.items()}
        n_bytes = sum(spec.n_bytes for spec in specs.values())
        values = memoryview(mapping)[n_header:]
        if mapping[:n_header] != header_bytes(specs, metadata) or len(values) != n_bytes:
            return None
        check = int.from_bytes(values[-4:], "little")
        if list(specs)[-1] != CHECK or zlib.crc32(values[:-4]) != check:
            return None
        arrays, offset = {}, n_header
        for name, spec in specs.items():
            array = np.frombuffer(mapping, spec.dtype, math.prod(spec.shape), offset)
            arrays[name] = array.reshape(spec.shape)
            offset += spec.n_bytes
    except _UNSOUND:
        return None
    del arrays[CHECK]
    return arrays, metadata


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return a copy of all arrays of a file, whatever they are, or None if it is not there or not sound.

    Unlike :func:`open_arrays` this reads the whole file and looks at its checksum: for small files.
    """
    try:
        content = path.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        entries = json.loads(content[8:start])
        first, last = entries[CHECK]["data_offsets"]
        if start + last != len(content) or zlib.crc32(content[start : start + first]) != int.from_bytes(
            content[start + first :], "little"
        ):
            return None
        found = {}
        for name, entry in entries.items():
            if name not in (CHECK, "__metadata__"):
                spec = ArraySpec(_TYPES[entry["dtype"]], tuple(entry["shape"]))
                place = start + entry["data_offsets"][0]
                values = np.frombuffer(content, spec.dtype, math.prod(spec.shape), place)
                found[name] = values.reshape(spec.shape)
        return found
    except _UNSOUND:
        return None


def read_array(path: Path, name: str) -> NDArray[Any] | None:
    """Return a copy of one array of a file, or None if it is not there; its checksum is not looked at."""
    try:
        with path.open("rb") as file:
            n_header = int.from_bytes(file.read(8), "little")
            if n_header > os.fstat(file.fileno()).st_size:
                return None
            entry = json.loads(file.read(n_header))[name]
            file.seek(8 + n_header + entry["data_offsets"][0])
            spec = ArraySpec(_TYPES[entry["dtype"]], tuple(entry["shape"]))
            if spec.n_bytes > os.fstat(file.fileno()).st_size:
                return None
            return np.frombuffer(file.read(spec.n_bytes), spec.dtype).reshape(spec.shape)
    except _UNSOUND:
        return None


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
    os.ftruncate(descriptor, 0)
    with room_lock():  # else two writers could both find the same room
        make_room(n_bytes)
        status = os.fstatvfs(descriptor)
        if status.f_bavail * status.f_frsize < n_bytes + _LEAST_FREE:
            raise OSError(errno.ENOSPC, f"the cache would leave less than {_LEAST_FREE >> 30} GiB free")
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
