"""Choose alphas by folds and fit: the one place where encoders meet the solver."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neurokern.encoding.folds import Fold
from neurokern.encoding.scores import score_predictions
from neurokern.ops import solve_ridge


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
    metric: str,
    fit_intercept: bool,
) -> ChosenFit:
    """Fit Y ``(samples, targets)`` with the alphas of the best mean score over folds (None: the only one)."""
    if folds is None:
        weights, intercept = solve_ridge(X, Y, float(alphas[0]), fit_intercept=fit_intercept)
        return ChosenFit(
            weights, intercept, torch.full((Y.shape[1],), float(alphas[0]), dtype=torch.float64), None
        )
    grid = torch.as_tensor(np.unique(alphas), dtype=torch.float64, device=X.device)
    total = torch.zeros(len(grid), Y.shape[1], dtype=torch.float64, device=X.device)
    varied = torch.zeros_like(total)
    for train, test in folds:
        for at, alpha in enumerate(grid.tolist()):
            weights, intercept = solve_ridge(X[train], Y[train], alpha, fit_intercept=fit_intercept)
            held_out = score_predictions(X[test].to(weights.dtype) @ weights + intercept, Y[test], metric)
            total[at] += torch.as_tensor(held_out).nan_to_num()
            varied[at] += ~torch.as_tensor(held_out).isnan()
    total /= varied  # a fold in which a target is constant says nothing of it; 0 / 0 is NaN
    ranked = total.nan_to_num(nan=-torch.inf)
    best = ranked.flip(0).argmax(0)  # ties go to the strongest penalty
    if shared_alpha:
        best = torch.full_like(best, int(total.nanmean(1).nan_to_num(nan=-torch.inf).flip(0).argmax()))
    best = len(grid) - 1 - best
    weights, intercept = solve_ridge(X, Y, grid[best], fit_intercept=fit_intercept)
    return ChosenFit(weights, intercept, grid[best], total.gather(0, best[None])[0])
