"""How the clock of one recorder runs beside that of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from neurokern._check import check_finite, check_positive

__all__ = ["Clock"]


@dataclass(frozen=True)
class Clock:
    """Seconds on another clock, ``offset + rate * seconds``; ``rate`` is 1 where neither drifts.

    Parameters
    ----------
    offset : float, seconds
        What the other clock shows when the reference shows 0.
    rate : float
        Seconds of the other clock in a second of the reference.

    Examples
    --------
    >>> Clock.fit([0.0, 10.0, 20.0], [5.0, 15.001, 25.002])(30.0).round(3)
    np.float64(35.003)
    """

    offset: float = 0.0
    rate: float = 1.0

    def __post_init__(self) -> None:
        check_finite("Clock", "offset", self.offset)
        check_positive("Clock", "rate", self.rate)

    def __call__(self, seconds: ArrayLike) -> NDArray[np.float64]:
        """Return what the other clock shows at these times of the reference."""
        return self.offset + self.rate * np.asarray(seconds, dtype=np.float64)

    @classmethod
    def fit(cls, reference: ArrayLike, other: ArrayLike, tolerance: float = 0.005) -> Clock:
        """Return the clock on which pulses that both recorders saw fall together, by least squares.

        Parameters
        ----------
        reference, other : arrays of shape (n,), seconds
            Times of the same pulses on the two clocks, in order; at least 2.
        tolerance : float, seconds, default 0.005
            How far a pulse may be off.

        Raises
        ------
        ValueError
            If a pulse is further off: one was missed, say, or they are not the same ones.
        """
        x, y = np.asarray(reference, np.float64), np.asarray(other, np.float64)
        if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
            raise ValueError(
                f"Clock.fit: two lists of at least 2 pulses must fit, got {x.shape} and {y.shape}"
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all() and (np.diff(x) > 0).all()):
            raise ValueError("Clock.fit: pulses must be finite, and ascending on the reference clock")
        centered = x - x.mean()
        rate = float(centered @ (y - y.mean()) / (centered @ centered))
        if not rate > 0:
            raise ValueError(
                f"Clock.fit: the other clock runs backwards (rate {rate:g}): are pulses in order?"
            )
        clock = cls(float(y.mean() - rate * x.mean()), rate)
        off = np.abs(clock(x) - y)
        if off.max() > tolerance:
            raise ValueError(
                f"Clock.fit: pulse {int(off.argmax())} is {off.max():.4g} s off, tolerance {tolerance:g} s; "
                "was one missed? Give the pulses that both recorders saw"
            )
        return clock
