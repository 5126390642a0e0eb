"""What nested cross-validation shares: folds inside of folds, usable features, and the features to beat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from neurokern._check import check_choice
from neurokern.encoding import check_folds, contiguous_folds, group_folds
from neurokern.encoding.folds import Fold

DIFFERENCE = ("difference", "difference_low", "difference_high")
_LEAST_SPREAD = 1e-6  # of the typical one over features


def make_folds(
    function: str, folds: int | Sequence[tuple[Any, Any]], n: int, gap: int, groups: np.ndarray | None
) -> list[Fold]:
    """Outer folds of trials or windows; no trial is tested twice, and no group is on two sides."""
    if groups is not None and np.shape(groups) != (n,):
        raise ValueError(
            f"{function}: groups must have one label for each of {n} trials, got {np.shape(groups)}"
        )
    if isinstance(folds, (int, np.integer)):
        if groups is None:
            return contiguous_folds(n, int(folds), gap=gap)
        return group_folds(groups, int(folds))
    pairs = check_folds(folds, n)
    tested = np.concatenate([test for _, test in pairs])
    if len(np.unique(tested)) < len(tested):
        raise ValueError(f"{function}: folds must test a trial at most once")
    for number, (train, test) in enumerate(pairs):
        shared = set() if groups is None else set(np.asarray(groups)[train]) & set(np.asarray(groups)[test])
        if shared:
            raise ValueError(
                f"{function}: fold {number} must not have a group on both sides, got {sorted(shared)[:3]}"
            )
    return pairs


def folds_within(train: NDArray[np.int64], gap: int, groups: np.ndarray | None, n_folds: int) -> list[Fold]:
    """Folds of positions in ``train``, by the same rule as the outer ones; none where there is too little."""
    if groups is not None:
        n_groups = len(np.unique(np.asarray(groups)[train]))
        return group_folds(np.asarray(groups)[train], min(n_folds, n_groups)) if n_groups > 1 else []
    while n_folds > 1:
        if n_folds <= len(train):
            try:
                return contiguous_folds(len(train), n_folds, gap=gap)
            except ValueError:  # the gap leaves nothing to train on
                pass
        n_folds -= 1
    return []


def varying(values: Tensor) -> Tensor:
    """Tell which features vary over the training samples, or keep the first if none does.

    One that a unit silent in training leaves at rounding errors would, divided by its spread, rule the test
    samples.
    """
    spread = values.double().std(0, correction=0)
    varies = spread > _LEAST_SPREAD * spread.square().mean().sqrt()
    varies[0] |= not varies.any()
    return varies


def choose_baseline(function: str, baseline: str | None, features: Iterable[str]) -> str | None:
    """Return the features that others are compared with: those named, else raw counts where there are any."""
    names = tuple(features)
    if baseline is None:
        return "raw counts" if "raw counts" in names else None
    return check_choice(function, "baseline", baseline, names)
