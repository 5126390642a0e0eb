"""What the commands share: parsers with examples, steps with times, text tables, results on disk."""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pandas as pd

from neurokern._config import write_text

__all__ = [
    "Steps",
    "facts_text",
    "new_parser",
    "require_torch",
    "say",
    "size_text",
    "speaks",
    "text_table",
    "write_csv",
]


_INDENT = "      "
_WIDTH = 110


def new_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    *,
    summary: str,
    description: str,
    examples: str,
) -> argparse.ArgumentParser:
    """Add a command to the parser; ``examples`` is shown as it is at the end of its help."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, _WIDTH - 10),
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def speaks() -> bool:
    """Return whether this process speaks: of those that ``torchrun`` started, the first one."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str = "") -> None:
    """Write a line to standard output at once, so that a pipe shows progress too."""
    if speaks():
        print(text, flush=True)


def size_text(n_bytes: float) -> str:
    """Return a number of bytes for people: ``"1.50 GiB"``."""
    for unit in ("bytes", "KiB", "MiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.2f} GiB"


class Steps:
    """Numbered steps with the time that each took."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, run the block, and say how long it took."""
        say(f"[{len(self.seconds) + 1}/{self.total}] {title}")
        begun = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - begun
        say(f"{_INDENT}{self.seconds[title]:.1f} s")

    @staticmethod
    def note(text: str) -> None:
        """Write text below the step's title, wrapped."""
        for line in textwrap.wrap(text, _WIDTH - len(_INDENT), subsequent_indent="  "):
            say(_INDENT + line)

    @staticmethod
    def lines(text: str) -> None:
        """Write a table below the step's title, as it is."""
        for line in text.splitlines():
            say(_INDENT + line)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned text: the first column to the left, the others to the right."""
    cells = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        rest = [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *rest]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def facts_text(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return names and values below a title, aligned and wrapped."""
    width = max((len(name) for name, _ in rows), default=0)
    lines = [title]
    for name, value in rows:
        wrapped = textwrap.wrap(value, max(_WIDTH - width - 4, 20)) or [""]
        lines.append(f"  {name:<{width}}  {wrapped[0]}")
        lines += [f"  {'':<{width}}  {line}" for line in wrapped[1:]]
    return "\n".join(lines)


def write_csv(path: pathlib.Path, table: pd.DataFrame) -> pathlib.Path:
    """Write a table atomically; numbers with six significant digits."""
    write_text(path, table.to_csv(index=False, float_format="%.6g"))
    return path


def require_torch(command: str) -> None:
    """Raise ImportError with the remedy where torch or safetensors is missing."""
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"{command} needs {' and '.join(missing)}; install with: pip install 'neurokern[torch]'"
        )
