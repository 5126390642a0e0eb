"""Small things kept in the cache as JSON with a checksum: written whole, ignored if damaged."""

from __future__ import annotations

import json
import os
import uuid
import zlib
from pathlib import Path
from typing import Any

from neurokern.ops._cache_files import PARTIAL

__all__ = ["keep_json", "kept_json"]


def keep_json(path: Path, value: Any) -> None:
    """Write a value under another name, then rename it; OSError if that cannot be done."""
    text = json.dumps(value).encode()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(b"%08x\n" % zlib.crc32(text) + text)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def kept_json(path: Path) -> Any:
    """Return a value that was kept, or None if there is none, or its file is not whole."""
    try:
        check, _, text = path.read_bytes().partition(b"\n")
        return json.loads(text) if int(check, 16) == zlib.crc32(text) else None
    except (OSError, ValueError, RecursionError):
        return None
