"""Patterns of a ``.bidsignore`` file, which are those of ``.gitignore``."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["Ignored"]


class Ignored:
    """Paths below a dataset that its ``.bidsignore`` leaves out; later lines go before earlier ones."""

    def __init__(self, root: Path) -> None:
        self._rules: list[tuple[bool, bool, re.Pattern[str]]] = []
        file = root / ".bidsignore"
        if not file.is_file():
            return
        for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            pattern = line.strip()
            if not pattern or pattern.startswith("#"):
                continue
            keeps = pattern.startswith("!")
            pattern = pattern[keeps:]
            only_folders = pattern.endswith("/")
            self._rules.append((keeps, only_folders, _regex(pattern.rstrip("/"))))

    def __bool__(self) -> bool:
        """Return whether there is any rule."""
        return bool(self._rules)

    def holds(self, path: str, *, folder: bool) -> bool:
        """Return whether a path, by slashes from the dataset's root, is left out."""
        out = False
        for keeps, only_folders, regex in self._rules:
            if (folder or not only_folders) and regex.fullmatch(path):
                out = not keeps
        return out


def _regex(pattern: str) -> re.Pattern[str]:
    """Return the rule of one line: with a slash from the root on, without at any depth."""
    anchored = "/" in pattern
    parts = []
    for part in pattern.strip("/").split("/"):
        if part == "**":
            parts.append("(?:.*/)?")
            continue
        text = re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        text = re.sub(r"\\\[(!|\\\^)?(.*?)\\\]", lambda m: f"[{'^' if m[1] else ''}{m[2]}]", text)
        parts.append(text + "/")
    body = "".join(parts)
    # Whatever lies below a folder that is left out is not walked to: a rule need not say so.
    body = body[:-1] if body.endswith("/") else f"{body}.*"
    return re.compile(body if anchored else f"(?:.*/)?{body}")
