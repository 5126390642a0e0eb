"""A server of files on this machine that misbehaves as told, and remembers what it was asked for."""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class Served:
    """What is served, and how.

    Attributes
    ----------
    files : dict
        Content by path.
    ranges : bool
        Whether parts can be asked for.
    tags : bool
        Whether answers carry an ETag, which goes by the content.
    faults : dict
        By path, what happens to the next requests, one after the other: a number is answered as a status,
        ("cut", n) breaks the line after n bytes, ("short", n) sends n bytes too few without a length,
        ("to", path) redirects, ("late", content) serves other content from then on.
    asked : list of (path, range)
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = self.tags = True
        self.faults: dict[str, list[object]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.headers: dict[str, str] = {}
        self.url = ""


@contextmanager
def serving():
    """Serve on a free port of this machine."""
    served = Served()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            _answer(served, self)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass  # clients that hang up are what is tested

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(served: Served, request: BaseHTTPRequestHandler) -> None:
    path = unquote(request.path.lstrip("/"))
    wanted = request.headers.get("Range")
    served.asked.append((path, wanted))
    fault = served.faults[path].pop(0) if served.faults.get(path) else None
    if isinstance(fault, tuple) and fault[0] == "late":
        served.files[path], fault = fault[1], None
    if isinstance(fault, tuple) and fault[0] == "to":
        return _plain(request, 302, {"Location": fault[1]})
    if isinstance(fault, int) or path not in served.files:
        return _plain(request, fault if isinstance(fault, int) else 404, served.headers)
    content, tag = served.files[path], f'"{hash(served.files[path])}"'
    start, status, headers = 0, 200, {"ETag": tag} if served.tags else {}
    match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
    if match and served.ranges and request.headers.get("If-Range", tag) == tag:
        start, status = int(match[1]), 206
        if start >= len(content):
            return _plain(request, 416, {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    body = content[start:]
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    if fault and fault[0] == "short":
        request.send_header("Connection", "close")
        body = body[: -fault[1]]
    else:
        request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if fault and fault[0] == "cut":
        body = body[: max(fault[1] - start, 0)]
    request.wfile.write(body)
    request.close_connection = fault is not None
    return None


def _plain(request: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", "0")
    request.end_headers()
