"""Ridge regression as it is written in the books, in float64 numpy: what the solvers are tested against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def ridge_reference(
    X: Any, Y: Any, alpha: Any, sample_weight: Any = None, fit_intercept: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (features, targets) and intercept (targets,): one least-squares problem for each target.

    The penalty enters as rows ``sqrt(alpha) I`` below X, which squares no condition number.
    """
    X, Y = np.asarray(X, np.float64), np.asarray(Y, np.float64)
    share = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    x_mean = share @ X / share.sum() if fit_intercept else np.zeros(X.shape[1])
    y_mean = share @ Y / share.sum() if fit_intercept else np.zeros(Y.shape[1])
    root = np.sqrt(share)[:, None]
    A, B = (X - x_mean) * root, (Y - y_mean) * root
    weights = np.empty((X.shape[1], Y.shape[1]))
    alphas = np.broadcast_to(np.asarray(alpha, np.float64), Y.shape[1:])
    for penalty in np.unique(alphas):
        chosen = alphas == penalty
        rows = np.vstack([A, np.sqrt(penalty) * np.eye(X.shape[1])])
        right = np.vstack([B[:, chosen], np.zeros((X.shape[1], chosen.sum()))])
        weights[:, chosen] = np.linalg.lstsq(rows, right, rcond=None)[0]
    return weights, y_mean - x_mean @ weights


def cv_reference(
    X: Any,
    Y: Any,
    alphas: Sequence[float],
    folds: Sequence[tuple[Any, Any]],
    *,
    scoring: str = "r2",
    pooled: bool = False,
    sample_weight: Any = None,
    fit_intercept: bool = True,
) -> np.ndarray:
    """Scores (alphas, targets) of every penalty: fit on each fold, predict, score, nothing shared."""
    X, Y = np.asarray(X, np.float64), np.asarray(Y, np.float64)
    share = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    scores = []
    for alpha in alphas:
        truths, guesses, shares = [], [], []
        for train, test in folds:
            weights, intercept = ridge_reference(X[train], Y[train], alpha, share[train], fit_intercept)
            truths.append(Y[test])
            guesses.append(X[test] @ weights + intercept)
            shares.append(share[test])
        if pooled:
            scores.append(_score(np.vstack(truths), np.vstack(guesses), np.concatenate(shares), scoring))
        else:
            each = [_score(*parts, scoring) for parts in zip(truths, guesses, shares, strict=True)]
            scores.append(np.nanmean(each, axis=0) if len(each) > 1 else each[0])
    return np.array(scores)


def _score(truth: np.ndarray, guess: np.ndarray, share: np.ndarray, scoring: str) -> np.ndarray:
    share = share / share.sum()
    error = share @ (truth - guess) ** 2
    if scoring == "mse":
        return error
    varying = truth - share @ truth
    spread = share @ varying**2
    spread[spread == 0] = np.nan
    if scoring == "r2":
        return 1 - error / spread
    guessed = guess - share @ guess
    return share @ (varying * guessed) / np.sqrt(spread * (share @ guessed**2))
