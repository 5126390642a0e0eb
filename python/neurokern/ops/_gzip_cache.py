"""Seek points of a gzip file, kept between runs: in the cache folder, or beside the file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

_ENDS = 65536  # bytes at either end that tell one file from another; the last eight are its CRC and length
_PLACES, _PLACE_BYTES = 64, 4096  # between them, of files that carry no checksum
_SUFFIX = ".nkindex"

Keep = Literal["cache", "beside"]


def cache_folder() -> Path:
    """Return the folder of the cache: ``NEUROKERN_CACHE``, else ``neurokern`` in the user's cache folder."""
    given = os.environ.get("NEUROKERN_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neurokern"


def content_key(file: Any) -> str:
    """Return what tells a compressed file from others: its size, and both ends with CRC and length."""
    ends = hashlib.blake2b(digest_size=16)
    ends.update(os.pread(file.descriptor, _ENDS, 0))
    ends.update(os.pread(file.descriptor, _ENDS, max(file.size - _ENDS, 0)))
    ends.update(str(file.size).encode())
    return ends.hexdigest()


def sampled_content(descriptor: int, n_bytes: int) -> str:
    """Return what tells a file from one of equal size: both ends, and places between them.

    A recording that was exported again differs nearly everywhere, even where size and time are the same.
    """
    digest = hashlib.blake2b(str(n_bytes).encode(), digest_size=16)
    digest.update(os.pread(descriptor, _ENDS, 0))
    digest.update(os.pread(descriptor, _ENDS, max(n_bytes - _ENDS, 0)))
    for k in range(_PLACES if n_bytes > 2 * _ENDS else 0):
        place = _ENDS + (n_bytes - 2 * _ENDS) * k // _PLACES
        digest.update(os.pread(descriptor, _PLACE_BYTES, place))
    return digest.hexdigest()


def where_to_keep(cache: bool | str) -> Keep | None:
    """Return where seek points go for an argument ``cache``; None: nowhere.

    True means what the environment variable ``NEUROKERN_GZIP_INDEX`` says, and the cache folder without it.
    """
    name, value = "cache", cache
    if cache is True:
        name, value = "NEUROKERN_GZIP_INDEX", os.environ.get("NEUROKERN_GZIP_INDEX") or "cache"
    if value is False:
        return None
    if value == "cache":
        return "cache"
    if value == "beside":
        return "beside"
    raise ValueError(f"NiftiFile: {name} must be 'cache' or 'beside' (or a bool), got {value!r}")


def _check_bound() -> None:
    """Raise OSError if the cache is beyond its bound with what was just written."""
    from neurokern.ops._cache_files import make_room, room_lock  # which know this module

    with room_lock():
        make_room(0)


class SeekPointFiles:
    """Where the seek points of one open gzip file may lie: beside it, and in the cache folder.

    A file belongs to a gzip file by its content (size, and both ends with the checksum), not by its name or
    time. A damaged one counts as none and is replaced; one that cannot be written is no error.
    """

    def __init__(self, file: Any, path: Path, keep: Keep) -> None:
        self._key = content_key(file)
        self._data = path
        self._beside = path.with_name(path.name + _SUFFIX)
        self._cached = cache_folder() / "gzip_index" / f"{self._key}.index"
        self._places = [self._beside, self._cached] if keep == "beside" else [self._cached]
        self._seen: dict[Path, tuple[int, int, int]] = {}
        self._spools = False

    def spool(self, stream: Any) -> None:
        """Let seek points lie in the cache folder, without a name, until they are saved; in memory if not."""
        if not self._spools:
            self._spools = True
            with contextlib.suppress(OSError):
                self._cached.parent.mkdir(parents=True, exist_ok=True)
                stream.spool_index(os.fspath(self._cached.parent))

    def load(self, stream: Any) -> None:
        """Take over seek points that reach further, of another run or process, if there are any new ones."""
        for place in (self._beside, self._cached):
            if stream.is_complete:
                return
            if self._is_new(place):
                stream.load_index(os.fspath(place), self._key)

    def _is_new(self, place: Path) -> bool:
        try:
            status = place.stat()
        except OSError:
            return False
        state = (status.st_ino, status.st_size, status.st_mtime_ns)
        is_new = self._seen.get(place) != state
        self._seen[place] = state
        return is_new

    def save(self, stream: Any, *, at_once: bool = False) -> None:
        """Keep what is known if it is all, or much more than is kept; ``at_once``: if it is any more."""
        if stream.is_saved:
            return
        more = stream.n_points - stream.n_saved
        if stream.is_complete or more > (stream.n_saved // 16 if at_once else max(stream.n_saved, 31)):
            self.load(stream)  # another process may have kept as much
            if not stream.is_saved:
                self._write(stream)

    def _write(self, stream: Any) -> None:
        for place in self._places:
            # ValueError: windows that lay in a file are gone with it; the next read finds out, too.
            with contextlib.suppress(OSError, ValueError):
                self._write_to(place, stream)
                return

    def _write_to(self, place: Path, stream: Any) -> None:
        """Write whole or not at all."""
        beside = place == self._beside
        if not beside:
            place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=".", suffix=_SUFFIX)
        try:
            with os.fdopen(descriptor, "wb") as target:
                if beside:  # for those who may read the data, of which it holds pieces
                    os.fchmod(descriptor, self._data.stat().st_mode & 0o666)
                if not stream.write_index(target.fileno(), self._key):
                    raise OSError(f"{name} could not be written")
                if not beside:
                    _check_bound()
            os.replace(name, place)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        stream.adopt_index(os.fspath(place))
        self._is_new(place)
