"""Train, validation and test parts of a session, with no moment of the recording on two sides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from neurokern._check import check_choice, check_fraction
from neurokern.datasets._random import permutation
from neurokern.datasets.binned import BinnedSession
from neurokern.datasets.windowed import WindowedRecording
from neurokern.datasets.windows import CLOCK_TOLERANCE

__all__ = ["Splits", "split_session"]

Session = TypeVar("Session", BinnedSession, WindowedRecording)
TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = 2**63  # keeps the numbers of splits apart from those that shuffle batches


@dataclass(frozen=True, eq=False)
class Splits(Generic[Session]):
    """Parts of one session.

    Parameters
    ----------
    train, validation, test : BinnedSession or WindowedRecording
        Disjoint parts; windows keep their order in time.
    n_dropped : int
        Windows in no part, since they overlap, or come too close to, a window of another part.
    note : str
        How many windows each part got and how many were dropped, in words.
    """

    train: Session
    validation: Session
    test: Session
    n_dropped: int
    note: str


def split_session(
    session: Session,
    test: float = 0.2,
    validation: float = 0.1,
    by: str = "time",
    seed: int = 0,
    gap: float = 0.0,
) -> Splits[Session]:
    """Split the windows of a session so that no moment of the recording is on two sides.

    Windows that overlap are the trap: two sliding windows share spikes, so a random split would test on what
    was trained on. A window that overlaps one of a part held out more strictly (test before validation before
    train), or comes closer to it than ``gap``, is dropped.

    Parameters
    ----------
    session : BinnedSession or WindowedRecording
    test, validation : float
        Fractions of the windows, rounded to whole windows, at least one each unless the fraction is 0.
    by : {"time", "random"}, default "time"
        "time": train first, then validation, then test, as an experiment goes on. "random": held-out windows
        anywhere; with windows that overlap much, this drops most of the training part.
    seed : int
        Of the random choice.
    gap : float, seconds, default 0
        Least time between the windows of two parts.

    Returns
    -------
    Splits

    Raises
    ------
    ValueError
        If fractions lie outside [0, 1) or leave nothing for training, or a part ends up empty.
    """
    test = check_fraction("split_session", "test", test)
    validation = check_fraction("split_session", "validation", validation)
    check_choice("split_session", "by", by, ("time", "random"))
    if test + validation >= 1:
        raise ValueError(f"split_session: test + validation must be below 1, got {test:g} + {validation:g}")
    if not (math.isfinite(gap) and gap >= 0):
        raise ValueError(f"split_session: gap must be a finite number of seconds, 0 or more, got {gap!r}")
    n = session.n_windows
    n_test, n_validation = _share(test, n), _share(validation, n)
    windows = session.windows
    in_time = np.arange(n) if windows is None else np.argsort(windows[:, 0], kind="stable")
    order = in_time if by == "time" else permutation(n, seed, 0, SPLITS)
    part = np.full(n, TRAIN)
    part[order[max(n - n_test - n_validation, 0) :]] = VALIDATION
    part[order[max(n - n_test, 0) :]] = TEST
    keep = np.ones(n, dtype=bool) if windows is None else apart(windows, part, gap)
    rows = [in_time[(part[in_time] == which) & keep[in_time]] for which in (TRAIN, VALIDATION, TEST)]
    _check_parts(rows, n, test, validation)
    n_dropped = int(n - keep.sum())
    note = (
        f"split {n} windows by {by}: {len(rows[0])} train, {len(rows[1])} validation, {len(rows[2])} test; "
        f"{n_dropped} dropped because they overlap another part"
    )
    train, held_validation, held_test = (session.select(r) for r in rows)
    return Splits(train, held_validation, held_test, n_dropped, note)


def _share(fraction: float, n: int) -> int:
    return max(1, round(fraction * n)) if fraction > 0 else 0


def apart(windows: np.ndarray, part: np.ndarray, gap: float) -> np.ndarray:
    """Return which windows stay: those that overlap none of a stricter part, as far as it stays."""
    keep = ~((part < TEST) & _near(windows, windows[part == TEST], gap))
    return keep & ~((part == TRAIN) & _near(windows, windows[(part == VALIDATION) & keep], gap))


def _near(windows: np.ndarray, others: np.ndarray, gap: float) -> np.ndarray:
    """Return which windows overlap any of the others or come closer than gap: bool, shape (n_windows,)."""
    if not len(others):
        return np.zeros(len(windows), dtype=bool)
    # Others sorted by start, with the latest stop so far: one search finds whether any reaches into a window.
    others = others[np.argsort(others[:, 0])]
    latest_stop = np.maximum.accumulate(others[:, 1])
    margin = gap - CLOCK_TOLERANCE
    n_started = np.searchsorted(others[:, 0], windows[:, 1] + margin, side="left")
    near: np.ndarray = (n_started > 0) & (latest_stop[np.maximum(n_started - 1, 0)] > windows[:, 0] - margin)
    return near


def _check_parts(rows: list[np.ndarray], n: int, test: float, validation: float) -> None:
    sizes = [len(r) for r in rows]
    if sizes[0] and (sizes[1] or not validation) and (sizes[2] or not test):
        return
    raise ValueError(
        f"split_session: {n} windows give {sizes[0]} train, {sizes[1]} validation and {sizes[2]} test "
        "windows, once those that overlap another part are dropped; use more windows, "
        "less overlap, or by='time'"
    )
