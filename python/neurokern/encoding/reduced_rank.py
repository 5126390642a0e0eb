"""Reduced-rank ridge regression as an estimator: targets that share few components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from neurokern.encoding._arrays import like
from neurokern.encoding.encoder import DEFAULT_ALPHAS, ChosenFit, RidgeEncoder
from neurokern.encoding.folds import Fold
from neurokern.ops import reduced_rank_ridge_cv

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["ReducedRankRidgeEncoder"]


class ReducedRankRidgeEncoder(RidgeEncoder):
    r"""Ridge regression through few components; penalty and rank are chosen by cross-validation.

    What voxels or units have in common is then learned from all of them together, and shown by the
    components. See :func:`neurokern.ops.reduced_rank_ridge_cv` for the model, and
    :class:`neurokern.encoding.RidgeEncoder` for what is not named here.

    Parameters
    ----------
    ranks : int or sequence of ints, optional
        Candidates; by default all that samples, features and targets allow.
    alphas, folds, gap, delays, standardize, fit_intercept
        As for RidgeEncoder. Targets share one alpha, and count by their variance.

    Attributes
    ----------
    rank_ : int
    components_ : array or tensor of shape (rank, features)
        From features (with their delays) to components; the first explains most.
    loadings_ : array or tensor of shape (targets, rank), or (rank,) for Y of one axis
        From components to targets, with orthonormal columns: ``coef_ = loadings_ @ components_``.
    coef_, intercept_, alpha_, n_features_in_
        As for RidgeEncoder; ``alpha_`` is the same for all targets.
    cv_scores_ : array or tensor of shape (targets,), or float, or None
        Mean score over folds of all targets together, the same for each.
    """

    _fitted: ClassVar[tuple[str, ...]] = (*RidgeEncoder._fitted, "components_", "loadings_")

    def __init__(
        self,
        *,
        ranks: int | Sequence[int] | None = None,
        alphas: float | Sequence[float] = DEFAULT_ALPHAS,
        folds: int | str | Sequence[tuple[Any, Any]] = 5,
        gap: int = 0,
        delays: Sequence[int] | None = None,
        standardize: bool = False,
        fit_intercept: bool = True,
    ) -> None:
        super().__init__(
            alphas=alphas,
            folds=folds,
            gap=gap,
            delays=delays,
            standardize=standardize,
            fit_intercept=fit_intercept,
        )
        self.ranks = ranks

    @property
    def _chooses(self) -> bool:  # type: ignore[override]
        return self.ranks is None or np.size(self.ranks) > 1

    @property
    def rank_(self) -> int:
        """Number of components."""
        self._check_fitted()
        return len(self.components_)

    def fit(
        self: ReducedRankRidgeEncoder, X: Array, y: Array, *, runs: Array | None = None
    ) -> ReducedRankRidgeEncoder:
        """Fit the weights of all targets, and choose their penalty and rank.

        Parameters and errors are those of :meth:`RidgeEncoder.fit`.
        """
        super().fit(X, y, runs=runs)
        loadings = self._found_loadings  # (rank, targets)
        del self._found_loadings
        coef = torch.as_tensor(self.coef_)
        self.components_ = like(X, loadings @ (coef[None] if coef.ndim == 1 else coef))
        self.loadings_ = like(X, loadings[:, 0] if coef.ndim == 1 else loadings.mT)
        return self

    def _solve(self, X: Tensor, Y: Tensor, alphas: np.ndarray, folds: list[Fold] | None) -> ChosenFit:
        fit = reduced_rank_ridge_cv(
            X, Y, alphas, 2 if folds is None else folds, ranks=self.ranks, fit_intercept=self.fit_intercept
        )
        self._found_loadings = torch.as_tensor(fit.loadings)
        same = torch.ones(Y.shape[1], dtype=torch.float64, device=X.device)
        scores = None if folds is None else fit.score * same
        return ChosenFit(fit.weights, fit.intercept, fit.alpha * same, scores)
