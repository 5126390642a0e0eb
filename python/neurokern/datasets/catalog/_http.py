"""Requests over http: which failures are worth another try, and how long to wait before it."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

__all__ = ["DownloadError", "answers", "get", "get_json", "with_retries"]

T = TypeVar("T")

_TIMEOUT = 60.0  # seconds without a byte
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_MOST_WAIT = 60.0  # seconds
_MOST_LIST = 64 << 20  # bytes of a list
_log = logging.getLogger("neurokern.catalog")


class DownloadError(OSError):
    """What could not be had; ``passing`` tells that a later try may have it, ``wait`` for how long not."""

    def __init__(self, message: str, *, passing: bool = False, wait: float = 0.0) -> None:
        super().__init__(message)
        self.passing, self.wait = passing, wait


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone, and never from https down to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urllib.parse.urlsplit(req.full_url).scheme, urllib.parse.urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            raise DownloadError(f"{req.full_url} leads to {newurl[:200]}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = urllib.request.build_opener(_Redirects)


@contextlib.contextmanager
def answers(url: str, headers: dict[str, str] | None = None) -> Iterator[http.client.HTTPResponse]:
    """Open an address; failures, also while it is read, are DownloadErrors that say what to do."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"an address must begin with http:// or https://, got {url[:200]!r}")
    request = urllib.request.Request(url, headers={"User-Agent": "neurokern", **(headers or {})})
    host = urllib.parse.urlsplit(url).hostname
    try:
        with _opener.open(request, timeout=_TIMEOUT) as answer:
            yield answer
    except DownloadError:
        raise
    except urllib.error.HTTPError as error:
        wait = error.headers.get("Retry-After", "") if error.headers else ""
        seconds = min(float(wait), _MOST_WAIT) if wait.isdigit() else 0.0
        passing = error.code in _PASSING
        error.close()
        raise DownloadError(_refusal(url, error.code), passing=passing, wait=seconds) from None
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        ssl.SSLError,
        ConnectionError,
        TimeoutError,
    ) as e:
        reason = getattr(e, "reason", e)
        if isinstance(reason, socket.gaierror):
            raise DownloadError(
                f"the name {host} is not known here: is this machine online? What is downloaded already can "
                "be used; `neurokern catalog download --dry-run --json` lists addresses on one that is online"
            ) from None
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{host}: its certificate is not trusted: {reason}") from None
        raise DownloadError(f"{host}: {reason or type(reason).__name__}", passing=True) from None


def _refusal(url: str, code: int) -> str:
    if code in (404, 410):
        return f"{url}: is not there ({code}); has the dataset moved?"
    if code in (401, 403):
        return f"{url}: is not public ({code}); its homepage says how to get access"
    return f"{url}: the server answers {code}"


def with_retries(
    attempt: Callable[[], T],
    *,
    tries: int,
    pause: float,
    progress: Callable[[], int] | None = None,
    sleep: Callable[[float], Any] = time.sleep,
) -> T:
    """Return what ``attempt`` returns; after a passing failure wait, twice as long each time, and try again.

    Whatever ``progress`` returns shows whether the last try got further: then it counts as none.
    """
    failed, before = 0, progress() if progress else 0
    while True:
        try:
            return attempt()
        except DownloadError as error:
            now = progress() if progress else 0
            failed = 1 if now > before else failed + 1
            before = now
            if not error.passing or failed >= tries:
                raise
            wait = max(error.wait, min(pause * 2 ** (failed - 1), _MOST_WAIT))
            _log.debug("%s; again in %.1f s", error, wait)
            sleep(wait)


def get(url: str, *, tries: int = 4, pause: float = 1.0) -> bytes:
    """Return a short answer, such as a list, whole."""

    def attempt() -> bytes:
        with answers(url) as answer:
            content: bytes = answer.read(_MOST_LIST + 1)
            if len(content) > _MOST_LIST:
                raise DownloadError(f"{url}: the list is longer than {_MOST_LIST >> 20} MiB")
            return content

    return with_retries(attempt, tries=tries, pause=pause)


def get_json(url: str, **options: Any) -> Any:
    """Return an answer in JSON."""
    content = get(url, **options)
    try:
        return json.loads(content)
    except ValueError:
        raise DownloadError(f"{url}: does not answer in JSON; has its interface changed?") from None
