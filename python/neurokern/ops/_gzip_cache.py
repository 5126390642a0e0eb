"""Seek points of gzip files, kept in a folder between runs; a changed file has other ones."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

from neurokern import _core

_ENDS = 65536  # bytes at either end that tell one file from another; the last eight are its CRC and length


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


def _place(file: Any) -> Path:
    return cache_folder() / "gzip_index" / f"{content_key(file)}.index"


def load(file: Any) -> Any:
    """Return the index of an open file, or None; a damaged one counts as none."""
    try:
        index = _core.GzipIndex.from_bytes(_place(file).read_bytes())
    except (OSError, ValueError):
        return None
    return index if index.file_bytes == file.size else None


def store(file: Any, index: Any) -> None:
    """Keep an index, whole or not at all; a folder that cannot be written is no error, only no cache."""
    with contextlib.suppress(OSError):
        place = _place(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=place.parent)
        try:
            with os.fdopen(descriptor, "wb") as target:
                target.write(index.to_bytes())
            os.replace(name, place)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
