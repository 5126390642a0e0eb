"""Banded ridge regression as an estimator: feature spaces with penalties of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from neurokern.encoding._arrays import labels_of, like
from neurokern.encoding.encoder import DEFAULT_ALPHAS, ChosenFit, RidgeEncoder
from neurokern.encoding.folds import Fold
from neurokern.ops import banded_ridge_cv

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["BandedRidgeEncoder"]


class BandedRidgeEncoder(RidgeEncoder):
    r"""Ridge regression with a penalty for each target and feature space, chosen by cross-validation.

    A space that says nothing about a target is shut out of its model, instead of adding noise to it. See
    :func:`neurokern.ops.banded_ridge_cv` for the model, and :class:`neurokern.encoding.RidgeEncoder` for what
    is not named here.

    Parameters
    ----------
    bands : array of shape (features,), optional
        Label of each feature's space. None is one space, which is plain ridge.
    search : {"random", "gradient"}, default "random"
        "gradient" goes on from the best weights that were tried, along the gradient of the error of samples
        left out; ``alpha_`` is not of the list then.
    n_candidates : int, default 50
        Weights of spaces that are tried: all alike, each alone, random ones.
    seed : int, default 0
        Of the random ones.
    alphas, folds, gap, delays, standardize, scoring, fit_intercept
        As for RidgeEncoder. Delayed copies belong to the space of their feature.

    Attributes
    ----------
    band_weights_ : array or tensor of shape (targets, bands), or (bands,) for Y of one axis
        They sum to 1; a feature of band b has the penalty ``alpha_ / band_weights_[:, b]``.
    bands_ : array of shape (bands,)
        Labels in the order of ``band_weights_``.
    coef_, intercept_, alpha_, cv_scores_, n_features_in_
        As for RidgeEncoder.
    """

    _fitted: ClassVar[tuple[str, ...]] = (*RidgeEncoder._fitted, "band_weights_")
    _chooses = True

    def __init__(
        self,
        *,
        bands: Array | None = None,
        search: str = "random",
        n_candidates: int = 50,
        seed: int = 0,
        alphas: float | Sequence[float] = DEFAULT_ALPHAS,
        folds: int | str | Sequence[tuple[Any, Any]] = 5,
        gap: int = 0,
        delays: Sequence[int] | None = None,
        standardize: bool = False,
        scoring: str = "r2",
        fit_intercept: bool = True,
    ) -> None:
        super().__init__(
            alphas=alphas,
            folds=folds,
            gap=gap,
            delays=delays,
            standardize=standardize,
            scoring=scoring,
            fit_intercept=fit_intercept,
        )
        self.bands = bands
        self.search = search
        self.n_candidates = n_candidates
        self.seed = seed

    def fit(self: BandedRidgeEncoder, X: Array, y: Array, *, runs: Array | None = None) -> BandedRidgeEncoder:
        """Fit the weights of all targets, and choose their alphas and the weights of their spaces.

        Parameters and errors are those of :meth:`RidgeEncoder.fit`.
        """
        super().fit(X, y, runs=runs)
        band_weights = self._chosen_weights
        del self._chosen_weights
        one_target = np.ndim(self.alpha_) == 0
        self.band_weights_ = like(X, band_weights[:, 0] if one_target else band_weights.T)
        return self

    def for_design(self, n_columns: int) -> BandedRidgeEncoder:
        """As :meth:`RidgeEncoder.for_design`; each delayed column keeps the label of its feature."""
        bands = None if self.bands is None else self._labels(n_columns)
        return type(self)(**self.get_params() | {"delays": None, "bands": bands})

    def _solve(self, X: Tensor, Y: Tensor, alphas: np.ndarray, folds: list[Fold] | None) -> ChosenFit:
        fit = banded_ridge_cv(
            X,
            Y,
            self._labels(X.shape[1]),
            alphas,
            folds,
            search=self.search,
            n_candidates=self.n_candidates,
            seed=self.seed,
            scoring=self.scoring,
            fit_intercept=self.fit_intercept,
        )
        self.bands_ = fit.bands
        self._chosen_weights = torch.as_tensor(fit.band_weights)
        return ChosenFit(fit.weights, fit.intercept, fit.alphas, fit.scores)

    def _labels(self, n_columns: int) -> np.ndarray:
        if self.bands is None:
            return np.zeros(n_columns, np.int64)
        n_delays = 1 if self.delays is None else len(list(self.delays))
        shape = np.shape(self.bands)
        if len(shape) != 1 or shape[0] * n_delays != n_columns:
            raise ValueError(
                f"BandedRidgeEncoder.fit: bands must have one label per feature ({n_columns // n_delays}), "
                f"got shape {tuple(shape)}"
            )
        labels = labels_of("BandedRidgeEncoder.fit", "bands", self.bands)
        return np.tile(labels, n_delays)
