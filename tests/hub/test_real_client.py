"""The real huggingface_hub downloads a model from a server on this machine, once, and then needs none."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from neurokern.hub import ModelCard, save_pretrained
from neurokern.models import MtM

COMMIT = "a" * 40
PROGRAM = """
from neurokern.hub import from_pretrained, read_folder
print(from_pretrained("lab/mtm").sessions)
print(read_folder("lab/mtm", local_files_only=True).card.title)
try:
    from_pretrained("lab/none")
except FileNotFoundError as error:
    print(error)
"""


class Server(http.server.ThreadingHTTPServer):
    """Serves one folder as the repository "lab/mtm", and notes the files that were asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.asked: set[str] = set()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        files = list(self.server.folder.iterdir())
        if path.startswith("/api/models/lab/mtm/tree/"):
            self.reply(json.dumps([{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": COMMIT}
                                   for p in files]).encode())  # fmt: skip
        elif path.startswith("/api/models/lab/mtm"):
            names = [{"rfilename": p.name} for p in files]
            self.reply(json.dumps({"_id": "1", "id": "lab/mtm", "sha": COMMIT, "siblings": names}).encode())
        elif path.startswith(f"/lab/mtm/resolve/{COMMIT}/"):
            file = self.server.folder / path.rsplit("/", 1)[1]
            self.server.asked.add(file.name)
            self.reply(file.read_bytes())
        else:
            self.reply(b"{}", code=404)

    do_HEAD = do_GET

    def reply(self, body: bytes, code: int = 200) -> None:
        self.send_response(code)
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "ETag": f'"{hashlib.sha1(body).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
        }
        if code == 404:
            headers["X-Error-Code"] = "RepoNotFound"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(model: MtM, tmp_path: Path) -> Iterator[Server]:
    folder = save_pretrained(
        model, tmp_path / "shared", card=ModelCard(title="served"), sessions="pseudonyms"
    )
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with Server(folder) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_a_repository_is_downloaded_once_and_without_its_pickles(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | settings, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sessions, title, missing = done.stdout.splitlines()
    assert sessions == "('session-1', 'session-2')"
    assert title == "served"
    assert missing.startswith("from_pretrained: lab/none was not found in the Hub or the cache")
    assert server.asked == {"README.md", "config.json", "hub.json", "model.safetensors"}
