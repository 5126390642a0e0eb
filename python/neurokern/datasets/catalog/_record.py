"""What is known of a downloaded folder: files that were compared with their digests, and parts of others."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neurokern.datasets.catalog.card import RemoteFile

__all__ = ["OWN", "Part", "Record", "file_digest"]

OWN = ".neurokern"  # folder for these, below the dataset's
_PIECE = 1 << 20


class Record:
    """Files that were found whole, with size, time and digest: they need not be read again to know it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / OWN / "downloaded.jsonl"
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError):
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut short
                    entry = json.loads(line)
                    self._known[entry["path"]] = entry

    def is_whole(self, file: RemoteFile, target: Path) -> bool:
        """Return whether the file was found whole, and was not written to since."""
        entry = self._known.get(file.path)
        return entry is not None and entry == self._entry(file, target)

    def is_untouched(self, file: RemoteFile, target: Path) -> bool:
        """Return whether what lies there, of whatever version, is what a download has written."""
        entry = self._known.get(file.path)
        return entry is not None and {**entry, "digest": None} == {
            **self._entry(file, target),
            "digest": None,
        }

    def add(self, file: RemoteFile, target: Path) -> None:
        """Note that a file is whole."""
        entry = self._entry(file, target)
        with self._lock, self._path.open("a", encoding="utf-8") as stream:
            self._known[file.path] = entry
            stream.write(json.dumps(entry) + "\n")

    @staticmethod
    def _entry(file: RemoteFile, target: Path) -> dict[str, Any]:
        status = target.stat()
        digest = None if file.digest is None else list(file.digest)
        return {
            "path": file.path,
            "bytes": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "digest": digest,
        }


class Part:
    """What of a file is there already, and which version of it that is by its server's words."""

    def __init__(self, folder: Path, file: RemoteFile) -> None:
        key = hashlib.blake2b(file.path.encode(errors="surrogateescape"), digest_size=16).hexdigest()
        self.path = folder / OWN / "parts" / f"{key}.part"
        self._facts = self.path.with_suffix(".json")

    @property
    def n_bytes(self) -> int:
        """Bytes that are there."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock of this file: of two programs that fetch it one waits for the other."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        name = self.path.with_suffix(".lock")
        while True:
            lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), os.stat(name)):
                    break
            os.close(lock)  # whoever had it has removed it
        try:
            yield
        finally:
            name.unlink(missing_ok=True)
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def version(self) -> dict[str, Any]:
        """Return what :meth:`begin` was given: whence the part came, and which version it is of."""
        try:
            facts = json.loads(self._facts.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def begin(self, facts: dict[str, Any]) -> None:
        """Begin anew, with a version."""
        self._facts.write_text(json.dumps(facts), encoding="utf-8")
        with self.path.open("wb"):
            pass

    def forget(self) -> None:
        """Remove what is there."""
        for path in (self.path, self._facts):
            path.unlink(missing_ok=True)

    def become(self, target: Path) -> None:
        """Give the part its final name; its folder must lie below the dataset's when this is called."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(self.path, target)
        self._facts.unlink(missing_ok=True)


def file_digest(path: Path, name: str) -> str:
    """Return the hash of a file's content."""
    digest = hashlib.new(name, usedforsecurity=False)
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def inside(folder: Path, file: RemoteFile) -> Path:
    """Return where a file goes; OSError if links on the way there lead out of the dataset's folder."""
    target = folder / file.path
    above = target.parent
    while not above.exists():
        above = above.parent
    if not above.resolve().is_relative_to(folder.resolve()):
        raise OSError(errno.EPERM, f"{file.path}: a link leads out of the dataset's folder", os.fspath(above))
    if target.is_dir():
        raise OSError(errno.EISDIR, f"{file.path}: is a folder here", os.fspath(target))
    return target
