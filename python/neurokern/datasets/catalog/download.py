"""Downloads of datasets: checked, resumed, several files at once; a file has its name once it is whole."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from tqdm import tqdm

from neurokern._check import check_integer
from neurokern.datasets.catalog._http import DownloadError, answers, with_retries
from neurokern.datasets.catalog._record import OWN, Part, Record, file_digest, inside
from neurokern.datasets.catalog.card import Card, RemoteFile, find_card
from neurokern.datasets.catalog.sources import list_files, select_files, with_digests

__all__ = ["DownloadError", "Downloaded", "download"]

_PIECE = 1 << 18
_TRIES = 5
_PAUSE = 1.0  # seconds before a second try; doubled before each further one
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Downloaded(NamedTuple):
    """What :func:`download` did.

    Attributes
    ----------
    folder : Path
    files : tuple of RemoteFile
        All that were asked for; they are there now.
    fetched : int
        How many of them were not there before.
    n_bytes : int
        Bytes that came over the network.
    unchecked : tuple of str
        Paths of files of which the source publishes no digest: their size alone was compared, or nothing.
    """

    folder: Path
    files: tuple[RemoteFile, ...]
    fetched: int
    n_bytes: int
    unchecked: tuple[str, ...]


def download(
    card: Card | str,
    folder: str | os.PathLike[str] | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    jobs: int = 4,
    verify: bool = False,
    progress: bool | None = None,
    **entities: Any,
) -> Downloaded:
    """Download a dataset, or the part of it that is asked for; what is there and whole is left as it is.

    Files are compared with the digests that card or source give. An interrupted download goes on where it
    stopped, if the server still has the same version of the file; a file appears under its name once it is
    whole. Of two programs that download one dataset each file is fetched by one of them.

    Parameters
    ----------
    card : Card or str
        A card, its name, or the path of its file.
    folder : path-like, optional
        Default: a folder of the card's name below the current one.
    include, exclude, **entities
        The part to take, as in :func:`select_files`: ``subject=["01", "02"]``.
    jobs : int, default 4
        Files at once.
    verify : bool, default False
        Read all files that are there again, also those that were found whole before, and fetch those anew
        that differ. Without it a file that differs, and that no download has written, is an error.
    progress : bool, optional
        Show a bar; by default where standard error is a terminal.

    Returns
    -------
    Downloaded

    Raises
    ------
    DownloadError
        If a file cannot be had, after several tries where a server is busy or a line breaks; what came so far
        stays, and the next call goes on from there.
    ValueError
        If the card, or a path in its source's list, is wrong, or nothing fits what is asked for.
    OSError
        If the disk has no room for it.

    Examples
    --------
    >>> download("openneuro-ds000105", "ds000105", subject="1")  # doctest: +SKIP
    """
    if check_integer("download", "jobs", jobs) < 1:
        raise ValueError(f"download: jobs must be at least 1, got {jobs}")
    card = find_card(card) if isinstance(card, str) else card
    place = Path(card.name if folder is None else folder)
    files = select_files(list_files(card), include=include, exclude=exclude, **entities)
    (place / OWN / "parts").mkdir(parents=True, exist_ok=True)
    record = Record(place)
    missing = [f for f in files if verify or not _is_there(f, inside(place, f), record)]
    missing = with_digests(card, missing)
    _check_room(place, missing)
    with _bar(missing, progress) as bar:
        jobs_done = _fetch_all(place, missing, record, verify, jobs, bar)
    unchecked = tuple(file.path for file in missing if file.digest is None)
    return Downloaded(place, tuple(files), sum(n > 0 for n in jobs_done), sum(jobs_done), unchecked)


def _is_there(file: RemoteFile, target: Path, record: Record) -> bool:
    if not target.is_file():
        return False
    if file.facts_url is not None and file.digest is None:
        return record.is_untouched(file, target) and target.stat().st_size == file.n_bytes
    return record.is_whole(file, target)


def _fetch_all(
    place: Path, missing: Sequence[RemoteFile], record: Record, replaces: bool, jobs: int, bar: tqdm[Any]
) -> list[int]:
    """Fetch files; after the first that cannot be had no further ones are begun."""
    stop = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        futures: list[Future[int]] = [
            pool.submit(_fetch_unless, stop, place, file, record, replaces, bar.update) for file in missing
        ]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # an error, or Ctrl-C: what runs ends at its next piece
            if not all(future.done() and future.exception() is None for future in futures):
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
    errors = [f.exception() for f in futures if not f.cancelled() and f.exception() is not None]
    for error in errors:
        if not isinstance(error, _Stopped):
            assert error is not None
            raise error
    return [future.result() for future in futures]


class _Stopped(DownloadError):
    """Another file could not be had."""


def _fetch_unless(
    stop: threading.Event,
    place: Path,
    file: RemoteFile,
    record: Record,
    replaces: bool,
    came: Callable[[int], Any],
) -> int:
    """Make sure that a file is there and whole; return the bytes that came over the network."""
    target, part = inside(place, file), Part(place, file)
    with part.held():
        if target.is_file():  # from before, or of another program
            wrong = _what_is_wrong(target, file)
            if wrong is None and (file.digest or file.n_bytes is not None or record.is_whole(file, target)):
                record.add(file, target)
                part.forget()
                came(target.stat().st_size)
                return 0
            if not (replaces or record.is_untouched(file, target)):
                raise DownloadError(
                    f"{target}: is there and not what the source has ({wrong or 'nothing tells it'}); move "
                    "it away, or replace it with verify=True (--verify)"
                )
        fetch = _Fetch(file, part, stop, came)
        for last in (False, True):
            with_retries(
                fetch.go_on, tries=_TRIES, pause=_PAUSE, progress=lambda: fetch.furthest, sleep=stop.wait
            )
            wrong = _what_is_wrong(part.path, file)
            if wrong is None:
                break
            part.forget()
            if last:
                raise DownloadError(f"{file.path}: {wrong}; from {file.url}. It was removed.")
        part.become(inside(place, file))
        record.add(file, target)
        return fetch.n_bytes


def _what_is_wrong(path: Path, file: RemoteFile) -> str | None:
    size = path.stat().st_size
    if file.n_bytes is not None and size != file.n_bytes:
        return f"has {size:,} bytes instead of {file.n_bytes:,}"
    if file.digest is None:
        return None
    name, wanted = file.digest
    found = file_digest(path, name)
    return None if found == wanted else f"its {name} is {found} instead of {wanted}"


class _Fetch:
    """One file on its way; ``n_bytes`` came so far, ``furthest`` is the most of it that ever was there."""

    def __init__(
        self, file: RemoteFile, part: Part, stop: threading.Event, came: Callable[[int], Any]
    ) -> None:
        self.file, self.part, self._stop, self._came = file, part, stop, came
        self.n_bytes = self.furthest = self._shown = 0

    def go_on(self) -> None:
        """Ask for what is missing, and append it; passing DownloadErrors leave what came."""
        part, file = self.part, self.file
        if self._stop.is_set():
            raise _Stopped(f"{file.path}: stopped")
        headers = self._range()
        if not headers:
            part.forget()
        elif file.n_bytes is not None and part.n_bytes == file.n_bytes:
            return  # all came before; its digest will tell
        try:
            with answers(file.url, {"Accept-Encoding": "identity", **headers}) as answer:
                self._take(answer, bool(headers))
        except DownloadError as error:
            if "answers 416" in str(error) and headers:  # no such bytes: another version, or all is there
                part.forget()
                raise DownloadError(f"{file.path}: cannot be resumed", passing=True) from error
            raise

    def _range(self) -> dict[str, str]:
        """Return the headers that ask for the rest of the version that the part is of; {} to begin anew."""
        known, there = self.part.version(), self.part.n_bytes
        same = known.get("url") == self.file.url and known.get("digest") == _plain(self.file.digest)
        if not there or not same:
            return {}
        if known.get("version"):
            return {"Range": f"bytes={there}-", "If-Range": known["version"]}
        return {"Range": f"bytes={there}-"} if self.file.digest else {}  # a digest would tell a mix

    def _take(self, answer: Any, asked: bool) -> None:
        part, file = self.part, self.file
        resumes = asked and answer.status == 206
        length = answer.headers.get("Content-Length")
        expected = int(length) if length is not None and length.isdigit() else None
        if resumes:
            match = _RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
            known = part.version().get("version")
            other = known is not None and _version(answer) not in (None, known)
            if match is None or int(match[1]) != part.n_bytes or other:
                part.forget()
                raise DownloadError(f"{file.path}: the server sent another part than asked for", passing=True)
        else:
            part.begin({"url": file.url, "version": _version(answer), "digest": _plain(file.digest)})
        before = part.n_bytes
        self._show(before)
        total = None if expected is None else before + expected
        if total is not None and file.n_bytes is not None and total != file.n_bytes:
            part.forget()
            raise DownloadError(
                f"{file.path}: the server has {total:,} bytes, the list says {file.n_bytes:,}; the dataset "
                "was changed, or an error page came in its place"
            )
        got = self._copy(answer, None if file.n_bytes is None else file.n_bytes - before)
        if total is not None and before + got < total:
            raise DownloadError(
                f"{file.path}: the line broke at {before + got:,} of {total:,} bytes", passing=True
            )

    def _copy(self, answer: Any, most: int | None) -> int:
        got = 0
        with self.part.path.open("ab") as stream:
            while piece := answer.read(_PIECE):
                if self._stop.is_set():
                    raise _Stopped(f"{self.file.path}: stopped")
                got += len(piece)
                if most is not None and got > most:
                    raise DownloadError(f"{self.file.path}: more bytes come than the list says")
                _write(stream, piece, self.file.path)
                self.n_bytes += len(piece)
                self._show(self._shown + len(piece))
        return got

    def _show(self, place: int) -> None:
        """Note where the download is; it may have gone back."""
        self._came(place - self._shown)
        self._shown, self.furthest = place, max(self.furthest, place)


def _write(stream: BinaryIO, piece: bytes, path: str) -> None:
    try:
        stream.write(piece)
        stream.flush()
    except OSError as error:
        raise DownloadError(
            f"{path}: cannot be written: {error.strerror}; what came stays, and the next call goes on there"
        ) from error


def _plain(digest: tuple[str, str] | None) -> list[str] | None:
    return None if digest is None else list(digest)


def _version(answer: Any) -> str | None:
    """Return what tells this version of a file: a strong ETag, else the time of its last change."""
    tag = answer.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return str(tag)
    changed = answer.headers.get("Last-Modified")
    return None if changed is None else str(changed)


def _check_room(place: Path, missing: Sequence[RemoteFile]) -> None:
    needed = sum(max((file.n_bytes or 0) - Part(place, file).n_bytes, 0) for file in missing)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise OSError(
            f"download: {needed / 1e9:,.1f} GB are needed and {free / 1e9:,.1f} GB are free in {place}; take "
            "another folder, or a part of the dataset"
        )


def _bar(missing: Sequence[RemoteFile], progress: bool | None) -> tqdm[Any]:
    sizes = [file.n_bytes for file in missing]
    known = [size for size in sizes if size is not None]
    total = sum(known) if len(known) == len(sizes) else None
    disable = None if progress is None else not progress
    return tqdm(total=total, unit="B", unit_scale=True, desc=f"{len(missing)} files", disable=disable)
