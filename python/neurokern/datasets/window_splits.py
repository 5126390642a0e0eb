"""Windows of images and of M/EEG, divided so that nothing of what is tested was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from neurokern._check import check_choice, check_fraction, check_number
from neurokern.datasets._random import permutation
from neurokern.datasets.splits import SPLITS, TEST, TRAIN, VALIDATION

__all__ = ["HeldOut", "WindowSplits", "check_no_leak", "group_windows", "leave_one_out", "split_windows"]

# What makes a group, by entities. Echoes, spaces and acquisitions of one run are the same moments.
_GROUPS = {
    "subject": ("subject",),
    "session": ("subject", "session"),
    "run": ("subject", "session", "task", "run"),
    "task": ("task",),
}
_CLOCK_TOLERANCE = 1e-6  # seconds
_MOST_NAMES = 5


class _Windows(Protocol):
    """What splitting asks of a dataset of windows."""

    runs: list[Any]
    extractor: Any

    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the recording of each window, and the seconds that it begins and ends at."""

    def select(self, indices: Any) -> Any:
        """Return the dataset of some of the windows."""

    def __len__(self) -> int:
        """Return the number of windows."""


Windows = TypeVar("Windows", bound=_Windows)


@dataclass(frozen=True, eq=False)
class WindowSplits(Generic[Windows]):
    """Parts of a dataset of windows.

    Attributes
    ----------
    train, validation, test : FMRIWindows or MEEGWindows
        ``validation`` or ``test`` are None where their share was 0.
    note : str
        How many windows and groups each part got, and how many were dropped, in words.
    """

    train: Windows
    validation: Windows | None
    test: Windows | None
    note: str


@dataclass(frozen=True, eq=False)
class HeldOut(Generic[Windows]):
    """One subject, session or run held out, and the others."""

    name: str
    train: Windows
    test: Windows


def split_windows(
    windows: Windows,
    *,
    by: str,
    test: float = 0.2,
    validation: float = 0.1,
    seed: int = 0,
    gap: float = 0.0,
) -> WindowSplits[Windows]:
    """Divide windows into train, validation and test, with no subject, session, run or moment on two sides.

    Parameters
    ----------
    windows : FMRIWindows or MEEGWindows
    by : {"subject", "session", "run", "task", "time"}
        What stays together. "run": all that was recorded at once, so echoes, spaces and acquisitions of a
        run, too. "time": the last part of each run is the test, the part before it validation.
    test, validation : float
        Shares of the groups, or of each run's time; at least one group each unless 0.
    seed : int, default 0
        Of the choice of groups.
    gap : float, seconds, default 0.0
        With ``by="time"``, least time between windows of two parts: responses outlast what caused them.

    Returns
    -------
    WindowSplits

    Raises
    ------
    ValueError
        If there are too few groups; or, with ``by="time"``, if the extractor cleans runs by what it sees in
        all of them, test included (its ``fit_on`` must end before the other parts begin).

    Warns
    -----
    UserWarning
        With ``by="time"``, if the extractor filters: filters look forward, too.

    Examples
    --------
    >>> parts = split_windows(windows, by="subject", test=0.2, seed=1)  # doctest: +SKIP
    """
    check_choice("split_windows", "by", by, (*_GROUPS, "time"))
    shares = [check_fraction("split_windows", n, v) for n, v in (("test", test), ("validation", validation))]
    if sum(shares) >= 1:
        raise ValueError(f"split_windows: test + validation must be below 1, got {test:g} + {validation:g}")
    if check_number("split_windows", "gap", gap) < 0:
        raise ValueError(f"split_windows: gap must be at least 0 s, got {gap}")
    part, unit = (
        (_by_time(windows, test, validation, gap), "windows")
        if by == "time"
        else (_by_group(windows, by, test, validation, seed), f"{by}s")
    )
    chosen = [np.flatnonzero(part == which) for which in (TRAIN, VALIDATION, TEST)]
    for name, share, indices in zip(
        ("train", "validation", "test"), (1, validation, test), chosen, strict=True
    ):
        if share and not len(indices):
            raise ValueError(
                f"split_windows: no window is left for {name} of {len(windows)}; take shorter windows, a "
                "smaller gap or larger shares"
            )
    sizes = [f"{len(i)} {name}" for name, i in zip(("train", "validation", "test"), chosen, strict=True)]
    note = (
        f"split {len(windows)} windows by {by} ({unit}): {', '.join(sizes)}; {int((part < 0).sum())} dropped"
    )
    parts = [windows.select(indices) if len(indices) else None for indices in chosen]
    return WindowSplits(parts[0], parts[1], parts[2], note)


def leave_one_out(windows: Windows, by: str = "subject") -> Iterator[HeldOut[Windows]]:
    """Yield each subject, session, run or task as the test, and all others to train on.

    Parameters
    ----------
    windows : FMRIWindows or MEEGWindows
    by : {"subject", "session", "run", "task"}

    Raises
    ------
    ValueError
        If there is only one.
    """
    names, group = _groups("leave_one_out", windows, by)
    if len(names) < 2:
        raise ValueError(f"leave_one_out: there must be at least 2 {by}s, got {_listed(names)}")
    for number, name in enumerate(names):
        others, own = np.flatnonzero(group != number), np.flatnonzero(group == number)
        yield HeldOut(name, windows.select(others), windows.select(own))


def group_windows(windows: Windows, by: str = "subject") -> dict[str, Windows]:
    """Return the windows of each subject, session, run or task by themselves: clients of federated learning.

    Parameters
    ----------
    windows : FMRIWindows or MEEGWindows
    by : {"subject", "session", "run", "task"}
    """
    names, group = _groups("group_windows", windows, by)
    return {name: windows.select(np.flatnonzero(group == number)) for number, name in enumerate(names)}


def check_no_leak(train: _Windows, test: _Windows, by: str = "run", gap: float = 0.0) -> None:
    """Raise if something of ``test`` is in ``train``.

    Parameters
    ----------
    train, test : FMRIWindows or MEEGWindows
    by : {"subject", "session", "run", "task", "time"}
        What must not be on both sides. "time": moments of a run, whatever its echo, space or acquisition.
    gap : float, seconds
        Least time between windows of the same run with ``by="time"``.

    Raises
    ------
    ValueError
        With the names of what is on both sides.
    """
    check_choice("check_no_leak", "by", by, (*_GROUPS, "time"))
    kind = "run" if by == "time" else by
    sides = [_groups("check_no_leak", side, kind) for side in (train, test)]
    both = sorted(set(sides[0][0]) & set(sides[1][0]))
    if by != "time":
        if both:
            raise ValueError(f"check_no_leak: {len(both)} {by}s are on both sides: {_listed(both)}")
        return
    for name in both:
        (_, begin, end), (_, test_begin, test_end) = (
            tuple(values[group == names.index(name)] for values in side.spans())
            for side, (names, group) in zip((train, test), sides, strict=True)
        )
        near = (begin[:, None] < test_end + gap - _CLOCK_TOLERANCE) & (
            end[:, None] > test_begin - gap + _CLOCK_TOLERANCE
        )
        if near.any():
            raise ValueError(
                f"check_no_leak: of {name} {int(near.any(axis=1).sum())} windows to train on overlap windows "
                f"to test on, or come closer than {gap:g} s"
            )


def _by_group(windows: _Windows, by: str, test: float, validation: float, seed: int) -> NDArray[np.int64]:
    names, group = _groups("split_windows", windows, by)
    n_test, n_validation = (max(1, round(share * len(names))) if share else 0 for share in (test, validation))
    if n_test + n_validation >= len(names):
        raise ValueError(
            f"split_windows: {len(names)} {by}s ({_listed(names)}) are too few for train, validation and "
            "test; split by something smaller, or set validation=0"
        )
    part_of = np.full(len(names), TRAIN)
    order = permutation(len(names), seed, 0, SPLITS)
    part_of[order[:n_test]] = TEST
    part_of[order[n_test : n_test + n_validation]] = VALIDATION
    return part_of[group]


def _by_time(windows: _Windows, test: float, validation: float, gap: float) -> NDArray[np.int64]:
    """Return the part of each window, -1 where it reaches over a boundary."""
    share = 1 - test - validation
    _check_fit(windows.extractor, share)
    recording, begin, end = windows.spans()
    last = np.zeros(len(windows.runs))
    np.maximum.at(last, recording, end)
    length = last[recording]
    part = np.full(len(windows), -1)
    bounds = [(0.0, share), (share, share + validation), (share + validation, 1.0)]
    for which, (low, high) in zip((TRAIN, VALIDATION, TEST), bounds, strict=True):
        # Half of the gap on either side of a boundary; none at the ends of a run.
        earliest = low * length + (gap / 2 if low > 0 else 0) - _CLOCK_TOLERANCE
        latest = high * length - (gap / 2 if high < 1 else 0) + _CLOCK_TOLERANCE
        part[(high > low) & (begin >= earliest) & (end <= latest)] = which
    return part


def _check_fit(extractor: Any, share: float) -> None:
    fit_on = getattr(extractor, "fit_on", None)
    if fit_on is not None and extractor.cleans and fit_on[1] > share + 1e-9:
        raise ValueError(
            f"split_windows: the extractor estimates means, scales, trends or confounds on {fit_on} of each "
            f"run, which holds what is to be tested; make it with fit_on=(0.0, {share:.3g}), or split by run"
        )
    if getattr(extractor, "filters", False):
        warnings.warn(
            "split_windows: the extractor filters whole recordings, and filters look forward: leave a gap of "
            "some periods of the lowest frequency, or split by run",
            stacklevel=4,
        )


def _groups(function: str, windows: _Windows, by: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of the groups, sorted, and the group of each window."""
    check_choice(function, "by", by, _GROUPS)
    keys = [tuple(run.entities.get(entity, "") for entity in _GROUPS[by]) for run in windows.runs]
    if not any(any(key) for key in keys):
        # Recordings that are not of a BIDS folder: each is its own run, session and subject.
        if by == "task":
            raise ValueError(f"{function}: the recordings have no task")
        keys = [(str(number),) for number in range(len(keys))]
    recording = windows.spans()[0]
    present = sorted({keys[i] for i in np.unique(recording)})
    number_of = {key: number for number, key in enumerate(present)}
    group = np.array([number_of.get(key, -1) for key in keys], dtype=np.int64)[recording]
    labels = [", ".join(f"{e} {v}" for e, v in zip(_GROUPS[by], key, strict=False) if v) for key in present]
    return labels, group


def _listed(names: list[str]) -> str:
    return "; ".join(names[:_MOST_NAMES]) + ("; ..." if len(names) > _MOST_NAMES else "")
