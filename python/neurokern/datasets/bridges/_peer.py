"""What all bridges share: a peer is imported when it is needed, and what it cannot hold is said."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["import_peer", "say_left_out"]


def import_peer(function: str, module: str, package: str) -> Any:
    """Return a module of another package, or raise with the package that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{function}: needs {package}, which cannot be imported ({error}); install it with "
            f"`pip install {package}`"
        ) from error


def say_left_out(function: str, where: str, names: Iterable[str], remedy: str = "") -> tuple[str, ...]:
    """Warn of what has no place on the other side; return that as a recording's note, if there is any."""
    listed: Sequence[str] = sorted(names)
    if not listed:
        return ()
    note = f"left out, for there is no place for them in {where}: {', '.join(listed)}"
    warnings.warn(f"{function}: {note}{'; ' if remedy else ''}{remedy}", stacklevel=3)
    return (note,)
