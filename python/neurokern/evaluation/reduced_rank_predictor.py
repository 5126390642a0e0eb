"""Reduced-rank ridge regression as a baseline: what few shared dimensions carry from area to area, or on in
time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_choice, check_positive
from neurokern.datasets import BinnedSession
from neurokern.evaluation._features import PastFeatures, UnitFeatures
from neurokern.evaluation.predictors import check_units, recent_rates
from neurokern.ops import ReducedRankRidgeResult, reduced_rank_ridge_cv

_TASKS = ("forward-prediction", "inter-region")
_FLOOR = 0.2  # of a unit's mean rate: the least that is predicted


class ReducedRankPredictor:
    """Predict many units at once through few dimensions that they share. Made by :meth:`fit`.

    For each region, the counts of its units, from the smoothed square roots of all units of other regions (a
    communication subspace [1]_); and the last bins of all units, from means over the past. Tasks that hide
    one unit at a time have another set of features for each unit, so nothing is shared between targets, and
    no rank to reduce: "co-smoothing" and "intra-region" are not offered.

    Attributes
    ----------
    tasks : tuple of str
        Those that it was fitted for.
    ranks : dict of str to int
        What the validation windows chose, by region, and under "forward-prediction".

    References
    ----------
    .. [1] Semedo et al., "Cortical areas interact through a communication subspace", Neuron 102 (2019),
    249-259.
    """

    name = "reduced rank"
    leaves_out_by_itself = True

    def __init__(
        self, mean: Tensor, fitted: dict[str, Callable[[Tensor], Tensor]], ranks: dict[str, int]
    ) -> None:
        self.tasks, self.ranks = tuple(fitted), ranks
        self._mean, self._fitted = mean, fitted

    @classmethod
    def fit(
        cls,
        train: BinnedSession,
        validation: BinnedSession,
        tasks: Sequence[str] = _TASKS,
        *,
        alphas: Sequence[float] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        ranks: Sequence[int] = (1, 2, 3, 5, 8, 12, 20),
        smoothing: float = 0.05,
        half_life: float | None = 20.0,
    ) -> ReducedRankPredictor:
        """Choose penalty and rank on validation windows, and fit on training and validation windows together.

        Parameters
        ----------
        train, validation : BinnedSession
            The same units and bins; windows in order of time.
        tasks : sequence of str
            Of "forward-prediction" and "inter-region".
        alphas : sequence of float
            Penalties per sample.
        ranks : sequence of int
        smoothing : float, default 0.05, seconds
        half_life : float or None, windows
            Of the mean rates that predictions depart from, as in :class:`UnitMeanPredictor`.

        Raises
        ------
        ValueError
            If a session is empty or the two have different units or bins, or a task is not offered.
        """
        for task in tasks:
            check_choice("ReducedRankPredictor.fit", "tasks", task, _TASKS)
        check_positive("ReducedRankPredictor.fit", "smoothing", smoothing)
        if (
            train.counts.size == 0
            or not len(validation)
            or train.counts.shape[1:] != validation.counts.shape[1:]
        ):
            raise ValueError(
                "ReducedRankPredictor.fit: train and validation must hold windows of the same bins and "
                "units, got "
                f"{train.counts.shape} and {validation.counts.shape}"
            )
        counts = np.concatenate([train.counts, validation.counts])
        both = replace(train, counts=counts, windows=None, trials=None)
        mean = torch.from_numpy(recent_rates(counts, half_life)).float()
        fitted: dict[str, Callable[[Tensor], Tensor]] = {}
        chosen: dict[str, int] = {}
        if "inter-region" in tasks:
            fitted["inter-region"] = _fit_regions(both, len(train), mean, smoothing, alphas, ranks, chosen)
        if "forward-prediction" in tasks:
            fitted["forward-prediction"] = _fit_forward(both, len(train), mean, alphas, ranks, chosen)
        return cls(mean, fitted, chosen)

    def predict(self, counts: Tensor, task: str, hidden: Tensor) -> Tensor:
        """Return rates, ``(B, T, N)``; those of hidden entries do not depend on the counts there."""
        check_choice("ReducedRankPredictor.predict", "task", task, self.tasks)
        check_units(self.name, len(self._mean), counts)
        departure = self._fitted[task](counts)  # over the root of the mean, the spread of Poisson counts
        return torch.maximum(self._mean + self._mean.sqrt() * departure, _FLOOR * self._mean)


def _fit_regions(
    both: BinnedSession,
    n_train: int,
    mean: Tensor,
    smoothing: float,
    alphas: Sequence[float],
    ranks: Sequence[int],
    chosen: dict[str, int],
) -> Callable[[Tensor], Tensor]:
    """One regression for each region; returns the departures of all units, 0 for those of unknown region."""
    features = UnitFeatures(both.counts, both.bin_size, smoothing)
    x = features(torch.from_numpy(both.counts))
    y = ((torch.from_numpy(both.counts.astype(np.float32)) - mean) / mean.sqrt()).flatten(0, 1)
    cut = n_train * both.n_bins
    numbers, names = both.region_index
    weights = torch.zeros(x.shape[1], both.n_units)
    intercept = torch.zeros(both.n_units)
    for number, region in enumerate(names):
        inside = torch.from_numpy(numbers == number)
        seen = torch.cat([~inside, torch.ones(both.n_bins, dtype=torch.bool)])
        result = _solve(x[:, seen], y[:, inside], cut, alphas, ranks)
        weights[seen.nonzero(), inside.nonzero()[:, 0]] = result.weights
        intercept[inside] = result.intercept
        chosen[region] = result.rank
    return lambda counts: (features(counts) @ weights + intercept).view(counts.shape)


def _fit_forward(
    both: BinnedSession,
    n_train: int,
    mean: Tensor,
    alphas: Sequence[float],
    ranks: Sequence[int],
    chosen: dict[str, int],
) -> Callable[[Tensor], Tensor]:
    features = PastFeatures(both.counts, both.bin_size)
    y = (features.after - mean) / mean.sqrt()
    # Samples come cut by cut, each with all windows in order.
    window = np.arange(len(y)) % len(both)
    order = np.argsort(window >= n_train, kind="stable")
    result = _solve(features.past[order], y[order], int((window < n_train).sum()), alphas, ranks)
    chosen["forward-prediction"] = result.rank
    return lambda counts: result.predict(features(counts))[:, None, :].expand(counts.shape)


def _solve(
    x: Tensor, y: Tensor, n_train: int, alphas: Sequence[float], ranks: Sequence[int]
) -> ReducedRankRidgeResult:
    fold = (np.arange(n_train), np.arange(n_train, len(x)))
    penalties = [alpha * len(x) for alpha in alphas]
    return reduced_rank_ridge_cv(x, y, penalties, folds=[fold], ranks=list(ranks))
