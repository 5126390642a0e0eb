"""Folds of a cross-validation: which samples are left out, and which are left aside."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurokern._check import check_integer
from neurokern.ops._library import torch

Rows = slice | np.ndarray
SINGLE = ("leave-one-out", "gcv")  # of every sample by itself; these have no list of folds


@dataclass(frozen=True)
class Fold:
    """One split: train on all samples but ``test`` and ``aside``, score on ``test``."""

    test: Rows
    aside: Rows | None  # in neither
    train: np.ndarray
    n_test: int


def make_folds(function: str, folds: Any, runs: Any, n_samples: int) -> list[Fold] | str:
    """Return the folds, or "leave-one-out" or "gcv"."""
    if isinstance(folds, str):
        if folds in SINGLE:
            _refuse_runs(function, runs, folds)
            _check_count(function, n_samples, n_samples)
            return folds
        if folds != "leave-one-run-out":
            raise ValueError(
                f"{function}: folds must be a number, 'leave-one-run-out', 'leave-one-out', 'gcv', pairs of "
                f"indices or a splitter of scikit-learn, got {folds!r}"
            )
        return _leave_one_run_out(function, runs, n_samples)
    if hasattr(folds, "split"):
        groups = None if runs is None else _labels(function, runs, n_samples)
        return _from_pairs(function, list(folds.split(np.empty((n_samples, 1)), groups=groups)), n_samples)
    _refuse_runs(function, runs, folds)
    if isinstance(folds, Sequence) or hasattr(folds, "__iter__"):
        return _from_pairs(function, list(folds), n_samples)
    n_folds = check_integer(function, "folds", folds)
    _check_count(function, n_folds, n_samples)
    edges = np.linspace(0, n_samples, n_folds + 1).round().astype(int)
    return [_leave_out(slice(int(a), int(b)), n_samples) for a, b in itertools.pairwise(edges)]


def is_partition(folds: list[Fold], n_samples: int) -> bool:
    """Whether every sample is left out once."""
    count = np.zeros(n_samples, np.int64)
    for fold in folds:
        count[fold.test] += 1
    return bool((count == 1).all())


def _check_count(function: str, n_folds: int, n_samples: int) -> None:
    if not 2 <= n_folds <= n_samples:
        raise ValueError(
            f"{function}: folds must lie between 2 and the number of samples, {n_samples}, got {n_folds}; "
            "with one "
            "alpha nothing has to be chosen and solve_ridge is enough"
        )


def _refuse_runs(function: str, runs: Any, folds: Any) -> None:
    if runs is not None:
        raise ValueError(
            f"{function}: runs goes with folds='leave-one-run-out' or a splitter, got folds={folds!r}"
        )


def _labels(function: str, runs: Any, n_samples: int) -> np.ndarray:
    labels = np.asarray(runs.cpu() if torch is not None and isinstance(runs, torch.Tensor) else runs)
    if labels.shape != (n_samples,):
        raise ValueError(
            f"{function}: runs must have shape ({n_samples},), a label per sample, got {labels.shape}"
        )
    missing = int((labels != labels).sum())
    if missing:  # NaN differs from itself: such a run would have no samples
        raise ValueError(f"{function}: runs must not be NaN, got {missing} such labels")
    return labels


def _leave_one_run_out(function: str, runs: Any, n_samples: int) -> list[Fold]:
    if runs is None:
        raise ValueError(f"{function}: folds='leave-one-run-out' needs runs, a label per sample")
    labels = _labels(function, runs, n_samples)
    names = np.unique(labels)
    if len(names) < 2:
        raise ValueError(f"{function}: runs must hold at least 2 different labels, got {len(names)}")
    return [_leave_out(_as_slice(np.flatnonzero(labels == name)), n_samples) for name in names]


def _leave_out(test: Rows, n_samples: int) -> Fold:
    kept = np.ones(n_samples, bool)
    kept[test] = False
    train = np.flatnonzero(kept)
    return Fold(test, None, train, n_samples - len(train))


def _as_slice(index: np.ndarray) -> Rows:
    """Samples next to each other as a slice, of which no copy must be made."""
    if len(index) and index[-1] - index[0] + 1 == len(index) and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def _from_pairs(function: str, pairs: list[Any], n_samples: int) -> list[Fold]:
    if not pairs:
        raise ValueError(f"{function}: folds must hold at least one pair (train, test), got none")
    made = []
    for number, pair in enumerate(pairs):
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
            raise ValueError(
                f"{function}: fold {number} must be a pair (train, test), got {type(pair).__name__}"
            )
        train, test = (
            _indices(f"{function}: {side} samples of fold {number}", values, n_samples)
            for side, values in zip(("training", "test"), pair, strict=True)
        )
        count = np.zeros(n_samples, np.int8)
        count[train] = 1
        if (shared := int(count[test].sum())) > 0:
            raise ValueError(f"{function}: fold {number} tests on {shared} of its training samples")
        count[test] = 1
        aside = np.flatnonzero(count == 0)
        made.append(Fold(_as_slice(test), _as_slice(aside) if len(aside) else None, train, len(test)))
    return made


def _indices(what: str, values: Any, n_samples: int) -> np.ndarray:
    """Ascending indices from indices or a mask."""
    if torch is not None and isinstance(values, torch.Tensor):
        values = values.cpu().numpy()
    index = np.asarray(values)
    if index.dtype == bool:
        if index.shape != (n_samples,):
            raise ValueError(f"{what} must be indices or a mask of shape ({n_samples},), got {index.shape}")
        index = np.flatnonzero(index)
    if index.size == 0:
        raise ValueError(f"{what} must hold at least one sample, got none")
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise TypeError(f"{what} must be whole numbers of shape (n,), got {index.dtype} {index.shape}")
    index = np.sort(index.astype(np.int64))
    if index[0] < 0 or index[-1] >= n_samples or (np.diff(index) == 0).any():
        raise ValueError(f"{what} must lie in [0, {n_samples}) without duplicates")
    return index
