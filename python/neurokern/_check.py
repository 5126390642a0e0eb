"""Validation at the border: what every public function checks, with one wording."""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Collection
from typing import SupportsFloat, SupportsIndex


def _memory() -> int:
    """Bytes of memory of this machine; where the system does not tell, more than any machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return sys.maxsize


MEMORY = _memory()


def check_number(function: str, name: str, value: SupportsFloat) -> float:
    """Return ``value`` as a float, or raise if it is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{function}: {name} must be a number, got {value!r}") from None


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
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{function}: {name} must be a finite number above 0, got {value!r}")
    return number


def check_fraction(function: str, name: str, value: SupportsFloat) -> float:
    """Return ``value`` as a float, or raise if it is not within [0, 1]."""
    number = check_number(function, name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{function}: {name} must lie in [0, 1], got {value!r}")
    return number


def check_choice(function: str, name: str, value: object, choices: Collection[str]) -> str:
    """Return ``value``, or raise with the list of choices."""
    if value not in choices:
        raise ValueError(f"{function}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def check_finite(function: str, name: str, value: SupportsFloat) -> float:
    """Return ``value`` as a float, or raise if it is NaN or infinite."""
    number = check_number(function, name, value)
    if not math.isfinite(number):
        raise ValueError(f"{function}: {name} must be a finite number, got {value!r}")
    return number


def check_memory(function: str, what: str, n_bytes: float, advice: str) -> None:
    """Raise if a result takes more memory than the machine has: the system may kill the process for it."""
    if not n_bytes <= MEMORY:
        needed, there = n_bytes / 2**30, MEMORY / 2**30
        raise ValueError(
            f"{function}: {what} would take {needed:.4g} GiB, more than the {there:.4g} GiB of this machine; "
            f"{advice}"
        )
