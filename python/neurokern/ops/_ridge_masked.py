"""Targets with missing samples: those that miss the same ones are a problem of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_folds import Fold

_COLUMNS = 1 << 14  # targets whose missing samples are looked at together


def groups_by_missing(algebra: Algebra, Y: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices of targets and of the samples that they have, for each pattern of missing samples."""
    patterns: dict[bytes, list[np.ndarray]] = {}
    for first in range(0, Y.shape[1], _COLUMNS):
        missing = algebra.host(algebra.xp.isnan(Y[:, first : first + _COLUMNS]))
        packed, inverse = np.unique(np.packbits(missing, axis=0).T, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        for number, pattern in enumerate(packed):
            patterns.setdefault(pattern.tobytes(), []).append(first + np.flatnonzero(inverse == number))
    for key, parts in patterns.items():
        missing = np.unpackbits(np.frombuffer(key, np.uint8), count=Y.shape[0])
        yield np.concatenate(parts), np.flatnonzero(missing == 0)


def subproblem(algebra: Algebra, problem: Problem, targets: np.ndarray, samples: np.ndarray) -> Problem:
    """Some targets of the samples that they have."""
    columns, rows = algebra.array(targets, "int64"), algebra.array(samples, "int64")
    weight = None if problem.weight is None else problem.weight[rows]
    return dataclasses.replace(
        problem, X=problem.X[rows], Y=problem.Y[rows[:, None], columns[None, :]], weight=weight
    )


def folds_of(folds: list[Fold], samples: np.ndarray, n_samples: int) -> list[Fold]:
    """The folds of some samples, in their own numbers; folds that lose a side are left out."""
    number = np.full(n_samples, -1)
    number[samples] = np.arange(len(samples))
    kept = []
    for fold in folds:
        test, train = number[np.arange(n_samples)[fold.test]], number[fold.train]
        test, train = test[test >= 0], train[train >= 0]
        if not (len(test) and len(train)):
            continue
        aside = np.setdiff1d(np.arange(len(samples)), np.concatenate([test, train]))
        kept.append(Fold(test, aside if len(aside) else None, train, len(test)))
    return kept
