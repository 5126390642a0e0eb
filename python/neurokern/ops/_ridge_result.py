"""What a cross-validated ridge gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_cv import Fit
from neurokern.ops._ridge_plan import RidgePlan

if TYPE_CHECKING:
    from neurokern.ops._types import Array


@dataclass(frozen=True, slots=True)
class RidgeCVResult:
    """A ridge regression with cross-validated penalties; made by :func:`ridge_cv`.

    Arrays are of the kind and on the device of the input; without the axis of targets if Y had none.

    Attributes
    ----------
    weights : (features, targets)
        Of the fit to all samples.
    intercept : (targets,)
    alphas : (targets,), float64
        The penalty that was chosen.
    scores : (targets,), float64
        Its cross-validated score.
    scoring : str
        What the scores are: ``"r2, mean over folds"``, ``"pearson, pooled"`` ...
    candidates : numpy array of shape (alphas,), float64
        Penalties, ascending, without duplicates.
    alpha_scores : (alphas, targets), float64, or None
        Scores of all candidates, with ``return_alpha_scores=True``.
    plan : RidgePlan or None
        How it was computed, with ``return_plan=True``.
    """

    weights: Array
    intercept: Array
    alphas: Array
    scores: Array
    scoring: str
    candidates: np.ndarray
    alpha_scores: Array | None = None
    plan: RidgePlan | None = None

    def predict(self, X: Array) -> Array:
        """Predictions (samples, targets) for X (samples, features)."""
        return X @ self.weights + self.intercept


def make_result(
    problem: Problem, fit: Fit, candidates: np.ndarray, scoring: str, pooled: bool, plan: RidgePlan | None
) -> RidgeCVResult:
    """Give the arrays of a fit as the kind that the user gave."""

    def give(values: Any) -> Any:
        values = problem.give(values)
        return values[..., 0] if problem.one_target else values

    return RidgeCVResult(
        give(fit.weights),
        give(fit.intercept),
        give(fit.alphas),
        give(fit.scores),
        scoring=f"{scoring}, {'pooled' if pooled else 'mean over folds'}",
        candidates=candidates,
        alpha_scores=None if fit.alpha_scores is None else give(fit.alpha_scores),
        plan=plan,
    )
