"""Validation at the border: what every public function checks, with one wording."""

from __future__ import annotations

import math
import operator
import os
import pathlib
import re
import sys
from collections.abc import Collection
from typing import SupportsFloat, SupportsIndex

_SMALL = 2**30  # bytes that are granted without a look at how much memory is free
_FREE = re.compile(r"MemAvailable:\s+(\d+) kB")


def _free_memory() -> int:
    """Bytes that can be taken without swapping; where the system does not tell, more than any machine has."""
    try:
        found = _FREE.search(pathlib.Path("/proc/meminfo").read_text(encoding="ascii"))
        if found:
            return int(found[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize


def check_number(function: str, name: str, value: SupportsFloat) -> float:
    """Return ``value`` as a float, or raise if it is not a number; text and True are none."""
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{function}: {name} must be a number, got {value!r}") from None


def check_flag(function: str, name: str, value: object) -> bool:
    """Return ``value`` as a bool, or raise if it is not True or False of Python or numpy."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{function}: {name} must be True or False, got {value!r}")
    return bool(value)


def check_integer(function: str, name: str, value: SupportsIndex) -> int:
    """Return ``value`` as an int, or raise if it is not a whole number of an integer type."""
    # Also torch's symbolic integers, which must stay what they are.
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return operator.index(None if isinstance(value, bool) else value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{function}: {name} must be an integer, got {value!r}") from None


def check_positive(function: str, name: str, value: SupportsFloat) -> float:
    """Return ``value`` as a float, or raise if it is not a finite number above zero."""
    number = check_number(function, name, value)
    if not 0 < number < math.inf:
        raise ValueError(f"{function}: {name} must be a finite number above 0, got {value!r}")
    return number


def check_fraction(function: str, name: str, value: SupportsFloat) -> float:
    """Return ``value`` as a float, or raise if it is not within [0, 1]."""
    number = check_number(function, name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{function}: {name} must lie in [0, 1], got {value!r}")
    return number


def check_choice(function: str, name: str, value: object, choices: Collection[object]) -> str:
    """Return ``value``, or raise with the list of choices."""
    if value not in choices:
        raise ValueError(f"{function}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def check_finite(function: str, name: str, value: SupportsFloat) -> float:
    """Return ``value`` as a float, or raise if it is NaN or infinite."""
    number = check_number(function, name, value)
    if not -math.inf < number < math.inf:
        raise ValueError(f"{function}: {name} must be a finite number, got {value!r}")
    return number


def check_memory(function: str, what: str, n_bytes: float, advice: str) -> None:
    """Raise if a result takes more memory than is free: the system may end the process for it."""
    if n_bytes <= _SMALL or n_bytes <= (free := _free_memory()):
        return
    raise ValueError(
        f"{function}: {what} would take {n_bytes / 2**30:.4g} GiB, more than the {free / 2**30:.4g} GiB of "
        f"memory that are free; {advice}"
    )
