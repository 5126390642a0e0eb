"""Choose alphas by folds and fit: the one place where encoders meet the solver."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neurokern.encoding.folds import Fold
from neurokern.ops import ridge_cv, solve_ridge


class ChosenFit(NamedTuple):
    """Weights ``(features, targets)``, intercept, alphas and cross-validated scores ``(targets,)``."""

    weights: Tensor
    intercept: Tensor
    alphas: Tensor
    scores: Tensor | None


def choose_and_fit(
    X: Tensor,
    Y: Tensor,
    alphas: np.ndarray,
    folds: list[Fold] | None,
    *,
    shared_alpha: bool,
    scoring: str,
    fit_intercept: bool,
) -> ChosenFit:
    """Fit Y ``(samples, targets)`` with the alphas of the best mean score over folds (None: the only one)."""
    if folds is None:
        weights, intercept = solve_ridge(X, Y, float(alphas[0]), fit_intercept=fit_intercept)
        same = torch.full((Y.shape[1],), float(alphas[0]), dtype=torch.float64, device=X.device)
        return ChosenFit(weights, intercept, same, None)
    fit = ridge_cv(
        X, Y, alphas, folds, scoring=scoring, shared_alpha=shared_alpha, fit_intercept=fit_intercept
    )
    return ChosenFit(fit.weights, fit.intercept, fit.alphas, fit.scores)
