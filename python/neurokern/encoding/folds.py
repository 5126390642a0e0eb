"""Folds for cross-validation of data in which neighboring samples are alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from neurokern._check import check_integer
from neurokern.encoding._arrays import labels_of, run_lengths

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["Fold", "check_folds", "contiguous_folds", "group_folds", "leave_one_run_out", "purge"]

Fold: TypeAlias = tuple[np.ndarray, np.ndarray]  # indices of training and of test samples, ascending


def contiguous_folds(n_samples: int, n_folds: int, *, gap: int = 0, runs: Array | None = None) -> list[Fold]:
    """Cut the samples into stretches of nearly the same length; each is the test set once.

    Parameters
    ----------
    n_samples, n_folds : int
    gap : int, default 0
        Samples on either side of the test set that are left out of training. Neighboring samples of a slow
        signal share noise, and delayed features share samples: choose the time over which the noise is
        correlated plus the longest delay.
    runs : array of shape (n_samples,), optional
        Label of each row's run. The gap ends where the run ends.

    Returns
    -------
    folds : list of (train, test), arrays of indices

    Raises
    ------
    ValueError
        If there are more folds than samples, or a fold has nothing to train on.

    Examples
    --------
    >>> [(train.tolist(), test.tolist()) for train, test in contiguous_folds(6, 3, gap=1)]
    [([3, 4, 5], [0, 1]), ([0, 5], [2, 3]), ([0, 1, 2], [4, 5])]
    """
    n_samples = check_integer("contiguous_folds", "n_samples", n_samples)
    n_folds = check_integer("contiguous_folds", "n_folds", n_folds)
    if not 2 <= n_folds <= n_samples:
        raise ValueError(
            f"contiguous_folds: n_folds must lie between 2 and the number of samples ({n_samples}), "
            f"got {n_folds}"
        )
    bounds = np.linspace(0, n_samples, n_folds + 1).round().astype(np.int64)
    tests = [np.arange(start, stop) for start, stop in itertools.pairwise(bounds)]
    return _complete("contiguous_folds", tests, n_samples, gap, runs)


def leave_one_run_out(runs: Array, *, gap: int = 0) -> list[Fold]:
    """Make each run the test set once.

    Parameters
    ----------
    runs : array of shape (samples,)
        Label of each sample's run; folds come in the order in which runs appear.
    gap : int, default 0
        Samples before and after the test run, by position, that are left out of training. Runs that were
        recorded apart need none; parts of one recording do.

    Raises
    ------
    ValueError
        If there are fewer than two runs, or a fold has nothing to train on.
    """
    labels = labels_of("leave_one_run_out", "runs", runs)
    names, first = np.unique(labels, return_index=True)
    if len(names) < 2:
        raise ValueError(
            "leave_one_run_out: runs must name at least 2 runs, got 1; use contiguous_folds with a gap "
            "inside of a run"
        )
    tests = [np.flatnonzero(labels == name) for name in names[np.argsort(first)]]
    return _complete("leave_one_run_out", tests, len(labels), gap, None)


def group_folds(groups: Array, n_folds: int) -> list[Fold]:
    """Put whole groups (subjects, sessions, stimuli) into folds of similar size.

    The largest group goes first, each to the fold that is smallest so far, so that the result does not depend
    on the order of samples.

    Parameters
    ----------
    groups : array of shape (samples,)
        Label of each sample's group. All samples of a group are on the same side of every fold.
    n_folds : int
        At most the number of groups.
    """
    labels = labels_of("group_folds", "groups", groups)
    n_folds = check_integer("group_folds", "n_folds", n_folds)
    names, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if not 2 <= n_folds <= len(names):
        raise ValueError(
            f"group_folds: n_folds must lie between 2 and the number of groups ({len(names)}), got {n_folds}"
        )
    filled = np.zeros(n_folds, dtype=np.int64)
    fold_of = np.zeros(len(names), dtype=np.int64)
    for index in np.argsort(-sizes, kind="stable"):
        fold_of[index] = np.argmin(filled)
        filled[fold_of[index]] += sizes[index]
    tests = [np.flatnonzero(fold_of[group] == fold) for fold in range(n_folds)]
    return _complete("group_folds", tests, len(labels), 0, None)


def purge(
    folds: Iterable[tuple[Any, Any]], gap: int, *, n_samples: int, runs: Array | None = None
) -> list[Fold]:
    """Leave training samples out that come within ``gap`` samples of a test sample.

    Parameters
    ----------
    folds : iterable of (train, test)
        Indices or boolean masks.
    gap : int
    n_samples : int
    runs : array of shape (n_samples,), optional
        Label of each row's run. Samples of different runs are never close.

    Raises
    ------
    ValueError
        If a fold has nothing left to train on, or is not valid (:func:`check_folds`).

    References
    ----------
    .. [1] Roberts et al., "Cross-validation strategies for data with temporal, spatial, hierarchical, or
       phylogenetic structure", Ecography 40 (2017), 913-929.
    """
    checked = check_folds(folds, n_samples)
    return [_purge_one("purge", fold, at, n_samples, gap, runs) for at, fold in enumerate(checked)]


def check_folds(folds: Iterable[tuple[Any, Any]], n_samples: int) -> list[Fold]:
    """Return folds as pairs of ascending indices, or raise what is wrong with them.

    Parameters
    ----------
    folds : iterable of (train, test)
        Indices, or boolean masks of shape (n_samples,); scikit-learn's splits are such.
    n_samples : int

    Raises
    ------
    ValueError
        If there is no fold, a side is empty or repeats a sample, an index lies outside, or a sample is on
        both sides of a fold.
    TypeError
        If folds are not pairs of indices or masks.
    """
    checked = []
    for at, pair in enumerate(_pairs(folds)):
        sides = [
            _indices(at, name, side, n_samples) for name, side in zip(("train", "test"), pair, strict=True)
        ]
        shared = np.intersect1d(sides[0], sides[1], assume_unique=True)
        if shared.size:
            raise ValueError(
                f"check_folds: fold {at} must not have a sample on both sides, got {shared.size} such as "
                f"{shared[0]}"
            )
        checked.append((sides[0], sides[1]))
    if not checked:
        raise ValueError("check_folds: folds must hold at least one pair (train, test), got none")
    return checked


def _pairs(folds: Any) -> list[Sequence[Any]]:
    if isinstance(folds, (str, bytes, int)) or not isinstance(folds, Iterable):
        raise TypeError(f"check_folds: folds must be pairs (train, test), got {type(folds).__name__}")
    pairs = list(folds)
    for at, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"check_folds: fold {at} must be a pair (train, test), got {pair!r:.80}")
    return pairs


def _indices(at: int, name: str, side: Any, n_samples: int) -> np.ndarray:
    values = side.detach().cpu().numpy() if isinstance(side, torch.Tensor) else np.asarray(side)
    where = f"check_folds: {name} of fold {at}"
    if values.ndim != 1:
        raise ValueError(f"{where} must have one axis, got shape {values.shape}")
    if values.dtype == bool:
        if len(values) != n_samples:
            raise ValueError(f"{where} must mark all {n_samples} samples, got {len(values)}")
        values = np.flatnonzero(values)
    if values.size == 0:
        raise ValueError(f"{where} must hold at least one sample, got none")
    if values.dtype.kind not in "iu":
        raise TypeError(f"{where} must hold indices or a boolean mask, got {values.dtype}")
    if values.min() < 0 or values.max() >= n_samples:
        raise ValueError(
            f"{where} must lie within 0 ... {n_samples - 1}, got {values.min()} ... {values.max()}"
        )
    unique = np.unique(values).astype(np.int64)
    if len(unique) < len(values):
        raise ValueError(f"{where} must hold each sample once, got {len(values) - len(unique)} twice")
    return unique


def _complete(function: str, tests: list[np.ndarray], n_samples: int, gap: int, runs: Any) -> list[Fold]:
    everything = np.arange(n_samples)
    folds = [(np.setdiff1d(everything, test, assume_unique=True), test) for test in tests]
    return [_purge_one(function, fold, at, n_samples, gap, runs) for at, fold in enumerate(folds)]


def _purge_one(function: str, fold: Fold, at: int, n_samples: int, gap: int, runs: Any) -> Fold:
    gap = check_integer(function, "gap", gap)
    if gap < 0:
        raise ValueError(f"{function}: gap must not be negative, got {gap}")
    train, test = fold
    lengths = run_lengths(function, runs, n_samples)
    if gap:
        train = train[~_near(test, gap, lengths)[train]]
    if not len(train):
        raise ValueError(
            f"{function}: fold {at} must have samples to train on, got none outside of its {len(test)} test "
            f"samples with a gap of {gap}; use a smaller gap or other folds"
        )
    return train, test


def _near(test: np.ndarray, gap: int, lengths: Sequence[int]) -> np.ndarray:
    """Mark samples that come within ``gap`` samples of a test sample of the same run."""
    starts = np.cumsum([0, *lengths])
    run = np.searchsorted(starts, test, side="right") - 1
    edges = np.zeros(starts[-1] + 1, dtype=np.int64)  # a test sample opens and closes an interval
    np.add.at(edges, np.maximum(test - gap, starts[run]), 1)
    np.add.at(edges, np.minimum(test + gap + 1, starts[run + 1]), -1)
    return np.cumsum(edges[:-1]) > 0
