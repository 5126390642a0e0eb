"""Validation at the border: what every public function checks, with one wording."""

from __future__ import annotations

import math
from collections.abc import Collection


def check_positive(function: str, name: str, value: float) -> float:
    """Return ``value`` as a float, or raise if it is not a finite number above zero."""
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{function}: {name} must be a finite number above 0, got {value!r}")
    return number


def check_fraction(function: str, name: str, value: float) -> float:
    """Return ``value`` as a float, or raise if it is not within [0, 1]."""
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"{function}: {name} must lie in [0, 1], got {value!r}")
    return number


def check_choice(function: str, name: str, value: object, choices: Collection[str]) -> str:
    """Return ``value``, or raise with the list of choices."""
    if value not in choices:
        raise ValueError(f"{function}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def check_finite(function: str, name: str, value: float) -> float:
    """Return ``value`` as a float, or raise if it is NaN or infinite."""
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{function}: {name} must be a finite number, got {value!r}")
    return number
