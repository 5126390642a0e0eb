"""Windows of images and of M/EEG, divided so that nothing of what is tested was trained on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from neurokern._check import check_choice, check_fraction, check_integer, check_number
from neurokern.datasets._random import permutation
from neurokern.datasets.splits import SPLITS, TEST, TRAIN, VALIDATION, apart
from neurokern.datasets.window_groups import GROUPS, groups_of, keys_of, label_of, listed

__all__ = [
    "HeldOut",
    "WindowSplits",
    "check_no_leak",
    "group_windows",
    "k_shot_windows",
    "leave_one_out",
    "split_windows",
]

_CLOCK_TOLERANCE = 1e-6  # seconds


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
    by : {"subject", "session", "run", "task", "dataset", "time", "trial"}
        What stays together. "run": all that was recorded at once, so echoes, spaces and acquisitions of a
        run, too. "dataset": a BIDS folder with its derivatives. "time": the last part of each run is the
        test, the part before it validation; a run ends with its last window, or where signals are cleaned
        with its last volume. "trial": windows anywhere are held out; those of other parts
        that overlap them are dropped.
    test, validation : float
        Shares of the groups, or of each run's time; at least one group each unless 0.
    seed : int, default 0
        Of the choice of groups.
    gap : float, seconds, default 0.0
        With "time" and "trial", least time between windows of two parts: responses outlast what caused them.

    Returns
    -------
    WindowSplits

    Raises
    ------
    ValueError
        If there are too few groups; or, with "time" and "trial", if the extractor cleans runs by what it sees
        in all of them, test included (with "time" its ``fit_on`` may end before the other parts begin).

    Warns
    -----
    UserWarning
        With "time" and "trial", if the extractor filters: filters look forward, too.

    Examples
    --------
    >>> parts = split_windows(windows, by="subject", test=0.2, seed=1)  # doctest: +SKIP
    """
    check_choice("split_windows", "by", by, (*GROUPS, "time", "trial"))
    _check_not_fitted("split_windows", windows)
    shares = [check_fraction("split_windows", n, v) for n, v in (("test", test), ("validation", validation))]
    if sum(shares) >= 1:
        raise ValueError(f"split_windows: test + validation must be below 1, got {test:g} + {validation:g}")
    if check_number("split_windows", "gap", gap) < 0:
        raise ValueError(f"split_windows: gap must be at least 0 s, got {gap}")
    unit = f"{by}s" if by in GROUPS else "windows"
    if by == "time":
        part = _by_time(windows, test, validation, gap)
    elif by == "trial":
        part = _by_trial(windows, test, validation, seed, gap)
    else:
        part = _by_group(windows, by, test, validation, seed)
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
    by : {"subject", "session", "run", "task", "dataset"}

    Raises
    ------
    ValueError
        If there is only one.
    """
    _check_not_fitted("leave_one_out", windows)
    names, group = groups_of("leave_one_out", windows, by)
    if len(names) < 2:
        raise ValueError(f"leave_one_out: there must be at least 2 {by}s, got {listed(names)}")
    for number, name in enumerate(names):
        others, own = np.flatnonzero(group != number), np.flatnonzero(group == number)
        yield HeldOut(name, windows.select(others), windows.select(own))


def group_windows(windows: Windows, by: str = "subject") -> dict[str, Windows]:
    """Return the windows of each subject, session, run or task by themselves: clients of federated learning.

    Parameters
    ----------
    windows : FMRIWindows or MEEGWindows
    by : {"subject", "session", "run", "task", "dataset"}
    """
    names, group = groups_of("group_windows", windows, by)
    return {name: windows.select(np.flatnonzero(group == number)) for number, name in enumerate(names)}


def check_no_leak(train: _Windows, test: _Windows, by: str = "run", gap: float = 0.0) -> None:
    """Raise if something of ``test`` is in ``train``.

    Parameters
    ----------
    train, test : FMRIWindows or MEEGWindows
    by : {"subject", "session", "run", "task", "dataset", "time"}
        What must not be on both sides. "time": moments of a run, whatever its echo, space or acquisition.
    gap : float, seconds
        Least time between windows of the same run with ``by="time"``.

    Raises
    ------
    ValueError
        With the names of what is on both sides.
    """
    check_choice("check_no_leak", "by", by, (*GROUPS, "time"))
    kind = "run" if by == "time" else by
    keys = keys_of("check_no_leak", (train, test), kind)
    used = [np.unique(side.spans()[0]).tolist() for side in (train, test)]
    there = [{own[i] for i in chosen} for own, chosen in zip(keys, used, strict=True)]
    shared = sorted(there[0] & there[1])
    both = [label_of(kind, key, with_dataset=kind == "dataset") for key in shared]
    if by != "time":
        if both:
            raise ValueError(f"check_no_leak: {len(both)} {by}s are on both sides: {listed(both)}")
        return
    for name, key in zip(both, shared, strict=True):
        (_, begin, end), (_, test_begin, test_end) = (
            tuple(values[_are(key, own, side.spans()[0])] for values in _reach(side))
            for side, own in zip((train, test), keys, strict=True)
        )
        near = (begin[:, None] < test_end + gap - _CLOCK_TOLERANCE) & (
            end[:, None] > test_begin - gap + _CLOCK_TOLERANCE
        )
        if near.any():
            raise ValueError(
                f"check_no_leak: of {name} {int(near.any(axis=1).sum())} windows to train on overlap windows "
                f"to test on, or come closer than {gap:g} s"
            )


def k_shot_windows(
    windows: Windows,
    shots: int,
    *,
    labels: Sequence[Any] | None = None,
    seed: int = 0,
    gap: float = 0.0,
) -> WindowSplits[Windows]:
    """Divide windows into a few of each condition to adapt on, and all others that do not overlap these.

    Parameters
    ----------
    windows : FMRIWindows or MEEGWindows
        Windows at events; or any, with ``labels``.
    shots : int
        Windows of each condition in ``train``.
    labels : sequence, optional
        Condition of each window; default the ``trial_type`` of its event. Windows of None are left out.
    seed : int, default 0
        Of the choice.
    gap : float, seconds, default 0.0
        Least time between a window of ``train`` and one of ``test``.

    Returns
    -------
    WindowSplits
        ``train`` with ``shots`` windows of each condition, ``test`` with the others, ``validation`` None.

    Raises
    ------
    ValueError
        If a condition has no more than ``shots`` windows, if nothing is left to test on, or the extractor
        cleans runs by what it sees in all of them.
    """
    _check_not_fitted("k_shot_windows", windows)
    if check_integer("k_shot_windows", "shots", shots) < 1:
        raise ValueError(f"k_shot_windows: shots must be at least 1, got {shots}")
    if check_number("k_shot_windows", "gap", gap) < 0:
        raise ValueError(f"k_shot_windows: gap must be at least 0 s, got {gap}")
    given = windows.events["trial_type"] if labels is None else labels  # type: ignore[attr-defined]
    names = [None if value is None or value != value else str(value) for value in given]
    if len(names) != len(windows):
        raise ValueError(
            f"k_shot_windows: labels must be one for each of {len(windows)} windows, got {len(names)}"
        )
    _check_whole_runs("k_shot_windows", windows)
    part = np.where([name is None for name in names], -1, TEST)
    for name in sorted({name for name in names if name is not None}):
        own = np.flatnonzero(np.array([other == name for other in names]))
        if len(own) <= shots:
            raise ValueError(
                f"k_shot_windows: each condition must have more than {shots} windows, {name} has {len(own)}"
            )
        part[own[permutation(len(own), seed, 0, SPLITS)[:shots]]] = TRAIN
    # What is chosen to adapt on stays; what comes too close to it is no test.
    swapped = np.select([part == TRAIN, part == TEST], [TEST, TRAIN], -1)
    part[~_apart_in_runs(windows, swapped, gap)] = -1
    if not (part == TEST).any():
        raise ValueError("k_shot_windows: no window is left to test on; take fewer shots or a smaller gap")
    train, test = (windows.select(np.flatnonzero(part == which)) for which in (TRAIN, TEST))
    note = (
        f"{shots} windows of each condition to adapt on, {len(test)} to test, {int((part < 0).sum())} dropped"
    )
    return WindowSplits(train, None, test, note)


def _are(
    key: tuple[str, ...], keys: list[tuple[str, ...]], recording: NDArray[np.int64]
) -> NDArray[np.bool_]:
    return np.array([own == key for own in keys], dtype=bool)[recording]


def _check_not_fitted(function: str, windows: Any) -> None:
    while windows is not None:
        if getattr(windows, "fitted_on_train", False):
            raise ValueError(
                f"{function}: windows must be divided before they are standardized, since the part to test "
                "would have a say in their scale; divide those that they were made of"
            )
        windows = getattr(windows, "windows", None)


def _by_trial(windows: _Windows, test: float, validation: float, seed: int, gap: float) -> NDArray[np.int64]:
    """Return the part of each window, drawn at random; -1 where it overlaps one held out more strictly."""
    _check_whole_runs("split_windows", windows)
    n = len(windows)
    n_test, n_validation = (max(1, round(share * n)) if share else 0 for share in (test, validation))
    part = np.full(n, TRAIN)
    order = permutation(n, seed, 0, SPLITS)
    part[order[:n_test]] = TEST
    part[order[n_test : n_test + n_validation]] = VALIDATION
    part[~_apart_in_runs(windows, part, gap)] = -1
    return part


def _apart_in_runs(windows: _Windows, part: NDArray[np.int64], gap: float) -> NDArray[np.bool_]:
    """Return which windows keep their part: those of one run, whatever echo or space, may not overlap."""
    _, begin, end = _reach(windows)
    run = groups_of("split_windows", windows, "run")[1]
    keep = np.ones(len(part), dtype=bool)
    for number in np.unique(run):
        own = np.flatnonzero(run == number)
        keep[own] = apart(np.stack([begin[own], end[own]], axis=1), part[own], gap)
    return keep


def _check_whole_runs(function: str, windows: _Windows) -> None:
    if any(getattr(extractor, "cleans", False) for extractor in _extractors(windows)):
        raise ValueError(
            f"{function}: the extractor estimates means, scales, trends or confounds on whole runs, which "
            "hold what is to be tested; make it without, or split by run"
        )
    _warn_of_filters(windows)


def _by_group(windows: _Windows, by: str, test: float, validation: float, seed: int) -> NDArray[np.int64]:
    names, group = groups_of("split_windows", windows, by)
    n_test, n_validation = (max(1, round(share * len(names))) if share else 0 for share in (test, validation))
    if n_test + n_validation >= len(names):
        raise ValueError(
            f"split_windows: {len(names)} {by}s ({listed(names)}) are too few for train, validation and "
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
    _check_fit(windows, share)
    recording, begin, end = _reach(windows)
    last = _fitted_lengths(windows)
    np.maximum.at(last, recording, end)
    length = last[recording]
    part = np.full(len(windows), -1)
    bounds = [(0.0, share), (share, share + validation), (share + validation, 1.0)]
    for which, (low, high) in zip((TRAIN, VALIDATION, TEST), bounds, strict=True):
        # Half of the gap on either side of a boundary; none at the ends of a run.
        earliest = low * length + (gap / 2 if low > 0 else -np.inf) - _CLOCK_TOLERANCE
        latest = high * length - (gap / 2 if high < 1 else 0) + _CLOCK_TOLERANCE
        part[(high > low) & (begin >= earliest) & (end <= latest)] = which
    return part


def _fitted_lengths(windows: _Windows) -> NDArray[np.float64]:
    """Return the seconds of each run that ``fit_on`` is a share of, where the extractor cleans; else 0.

    The last window may end long before its run: by that end, what cleaning has seen would be tested on.
    """
    extractor, lengths = windows.extractor, np.zeros(len(windows.runs))
    if getattr(extractor, "cleans", False):
        for i in np.unique(windows.spans()[0]).tolist():
            lengths[i] = extractor.n_volumes(windows.runs[i]) * windows.runs[i].repetition_time
    return lengths


def _reach(windows: _Windows) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the recording of each window, and from when to when all is that it holds."""
    found: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
    found = getattr(windows, "reach", windows.spans)()
    return found


def _extractors(windows: _Windows) -> list[Any]:
    """Return the extractors of all that the windows hold."""
    return list(getattr(windows, "extractors", [windows.extractor]))


def _check_fit(windows: _Windows, share: float) -> None:
    extractor, *streams = _extractors(windows)
    if any(getattr(stream, "cleans", False) for stream in streams):
        raise ValueError(
            "split_windows: a stream is cleaned by means, scales, trends or confounds of whole runs, which "
            "hold what is to be tested; make its extractor without, or split by run"
        )
    fit_on = getattr(extractor, "fit_on", None)
    if fit_on is not None and extractor.cleans and fit_on[1] > share + 1e-9:
        raise ValueError(
            f"split_windows: the extractor estimates means, scales, trends or confounds on {fit_on} of each "
            f"run, which holds what is to be tested; make it with fit_on=(0.0, {share:.3g}), or split by run"
        )
    _warn_of_filters(windows)


def _warn_of_filters(windows: _Windows) -> None:
    if any(getattr(extractor, "filters", False) for extractor in _extractors(windows)):
        warnings.warn(
            "split_windows: the extractor filters whole recordings, and filters look forward: leave a gap of "
            "some periods of the lowest frequency, or split by run",
            stacklevel=5,
        )
