"""Read-outs through few components: of many classes, or of many targets that have much in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_integer
from neurokern.adapters._labels import Scaler, class_counts
from neurokern.adapters.closed_form._episodes import in_units
from neurokern.adapters.closed_form._probe import ClosedFormProbe, Solution
from neurokern.adapters.closed_form.ridge import RELATIVE_ALPHAS, RidgeReadout, checked_alphas
from neurokern.ops import ReducedRankRidgeResult, reduced_rank_ridge_cv

_FOLDS = 5


class ReducedRankProbe(ClosedFormProbe):
    """Reduced-rank ridge regression on one-hot classes, penalty and rank chosen by stratified folds.

    Parameters
    ----------
    alphas : float or sequence of floats, default seven decades around 1
        As in :class:`RidgeProbe`.
    ranks : int or sequence of ints, optional
        Candidates; by default all from 1 to the number of classes less 1.
    standardize : bool, default False
    folds : int, default 5
        At most; no more than there are samples of the rarest class. With one sample of a class nothing is
        chosen: the middle penalty and the largest rank are taken.

    Attributes
    ----------
    alpha_ : float
        The relative penalty; of a stack (episodes,), as ``rank_``.
    rank_ : int

    See Also
    --------
    neurokern.ops.reduced_rank_ridge_cv
    """

    def __init__(
        self,
        alphas: float | Sequence[float] = RELATIVE_ALPHAS,
        *,
        ranks: int | Sequence[int] | None = None,
        standardize: bool = False,
        folds: int = _FOLDS,
    ) -> None:
        super().__init__(standardize=standardize)
        self._alphas = checked_alphas("ReducedRankProbe", alphas)
        self._ranks = _checked_ranks("ReducedRankProbe", ranks)
        self._folds = _checked_folds("ReducedRankProbe", folds)
        self.alpha_: float | Tensor = float("nan")
        self.rank_: int | Tensor = 0

    def _solve(self, features: Tensor, number: Tensor, scaler: Scaler) -> Solution:
        n_classes = len(self.classes_)
        X, unit = in_units(features)
        Y = torch.nn.functional.one_hot(number, n_classes).to(X)
        smallest = class_counts(number, n_classes).amin(1).tolist()
        most = min(n_classes - 1, X.shape[1], X.shape[2])
        # The scores of classes sum to a constant, so that there is one component less.
        ranks = [min(rank, most) for rank in self._ranks or range(1, most + 1)]
        fits = []
        for at, count in enumerate(smallest):
            if count < 2:
                fits.append(_fit_alone(X[at], Y[at], self._alphas, ranks))
                continue
            folds = _stratified(number[at], min(self._folds, count))
            fits.append(reduced_rank_ridge_cv(X[at], Y[at], self._alphas, folds, ranks=ranks))
        weights = torch.stack([torch.as_tensor(fit.weights) for fit in fits]) / unit[:, None, None]
        chosen = {
            "alpha_": torch.tensor([fit.alpha for fit in fits], dtype=torch.float64),
            "rank_": torch.tensor([fit.rank for fit in fits]),
        }
        return Solution(weights, torch.stack([torch.as_tensor(fit.intercept) for fit in fits]), chosen)


class ReducedRankReadout(RidgeReadout):
    """Reduced-rank ridge regression of continuous targets, penalty and rank chosen by contiguous folds.

    Parameters
    ----------
    alphas : float or sequence of floats
        As in :class:`RidgeReadout`; one for all targets.
    ranks : int or sequence of ints, optional
        Candidates; by default all.
    standardize : bool, default True
        Of the features; also gives targets the same variance while their components are sought.
    folds : int, default 5
        At most; with fewer than 3 samples nothing is chosen.

    Attributes
    ----------
    alphas_ : tensor of shape (1,), float64
        The relative penalty; of a stack (episodes, 1), as ``ranks_``.
    ranks_ : int64 tensor of shape (1,)
    """

    _of_episodes: ClassVar[tuple[str, ...]] = ("weights_", "bias_", "alphas_", "ranks_")

    def __init__(
        self,
        alphas: float | Sequence[float] = RELATIVE_ALPHAS,
        *,
        ranks: int | Sequence[int] | None = None,
        standardize: bool = True,
        folds: int = _FOLDS,
    ) -> None:
        super().__init__(alphas, standardize=standardize)
        self._ranks = _checked_ranks("ReducedRankReadout", ranks)
        self._folds = _checked_folds("ReducedRankReadout", folds)

    def _fit_stack(self, values: Tensor, Y: Tensor) -> None:
        self._scaler = Scaler.fit(values, self._standardize)
        X, unit = in_units(self._scaler(values))
        of_targets = Scaler.fit(Y.to(X), self._standardize)
        scaled = of_targets(Y.to(X))
        fits = []
        for features, targets in zip(X, scaled, strict=True):
            if len(features) < 3:
                fits.append(_fit_alone(features, targets, self._alphas, self._ranks))
                continue
            n_folds = min(self._folds, len(features))
            fits.append(reduced_rank_ridge_cv(features, targets, self._alphas, n_folds, ranks=self._ranks))
        scale = of_targets.scale
        weights = torch.stack([torch.as_tensor(fit.weights) for fit in fits])
        intercept = torch.stack([torch.as_tensor(fit.intercept) for fit in fits])
        self.weights_ = weights * scale[:, None] / unit[:, None, None]
        self.bias_ = intercept * scale + of_targets.mean
        self.alphas_ = torch.tensor([[fit.alpha] for fit in fits], dtype=torch.float64)
        self.ranks_ = torch.tensor([[fit.rank] for fit in fits])


def _fit_alone(
    X: Tensor, Y: Tensor, alphas: Sequence[float], ranks: Sequence[int] | None
) -> ReducedRankRidgeResult:
    """The middle penalty and the largest rank: nothing can be left out."""
    largest = max(ranks) if ranks else min(*X.shape, Y.shape[1])
    return reduced_rank_ridge_cv(X, Y, alphas[len(alphas) // 2], ranks=largest)


def _stratified(number: Tensor, n_folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds in which the samples of each class are dealt out in order."""
    on_host = number.cpu().numpy()
    fold = np.empty(len(on_host), np.int64)
    for label in np.unique(on_host):
        of_class = np.flatnonzero(on_host == label)
        fold[of_class] = np.arange(len(of_class)) % n_folds
    return [(np.flatnonzero(fold != one), np.flatnonzero(fold == one)) for one in range(n_folds)]


def _checked_ranks(function: str, ranks: int | Sequence[int] | None) -> list[int] | None:
    if ranks is None:
        return None
    values = sorted({check_integer(function, "ranks", rank) for rank in np.ravel(np.asarray(ranks))})
    if not values or values[0] < 1:
        raise ValueError(f"{function}: ranks must hold at least one integer of at least 1, got {values}")
    return values


def _checked_folds(function: str, folds: int) -> int:
    folds = check_integer(function, "folds", folds)
    if folds < 2:
        raise ValueError(f"{function}: folds must be at least 2, got {folds}")
    return folds
