"""The score of predictions with its interval, as one row that a card can show."""

from __future__ import annotations

import numpy as np
import pandas as pd

from neurokern._check import check_fraction, check_integer
from neurokern.metrics import balanced_accuracy, r2

__all__ = ["score_predictions"]


def score_predictions(
    predicted: np.ndarray,
    targets: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    kind: str = "classes",
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Score predictions of samples that were not learned from.

    Parameters
    ----------
    predicted, targets : arrays of shape (samples,), or for values (samples, ...)
    groups : array of shape (samples,), optional
        Trial or block of each sample; groups are drawn as a whole.
    kind : {"classes", "values"}, default "classes"
        Balanced accuracy, or R2 averaged over targets.
    confidence, n_bootstrap, seed
        Of the bootstrap over samples or groups.

    Returns
    -------
    table : DataFrame
        One row: ``metric, mean, low, high, chance, n_samples``. The interval holds for other samples of the
        same recording, with the predictor as it is. Chance is 1 / number of classes, and 0 of R2.

    Raises
    ------
    ValueError
        If lengths differ or there is no sample.
    """
    check_fraction("score_predictions", "confidence", confidence)
    if check_integer("score_predictions", "n_bootstrap", n_bootstrap) < 1:
        raise ValueError(f"score_predictions: n_bootstrap must be at least 1, got {n_bootstrap}")
    predicted, targets = np.asarray(predicted), np.asarray(targets)
    if kind == "classes":
        metric, mean = "balanced_accuracy", balanced_accuracy(predicted, targets)
    else:
        predicted, targets = (values.reshape(len(values), -1) for values in (predicted, targets))
        metric = "r2"
        mean = float(np.nanmean(r2(predicted.astype(np.float64), targets.astype(np.float64))))
    of_sample = np.arange(len(targets)) if groups is None else np.asarray(groups)
    if of_sample.shape != targets.shape[:1]:
        raise ValueError(
            f"score_predictions: groups must have one entry per sample ({len(targets)}), got "
            f"{of_sample.shape}"
        )
    _, number = np.unique(of_sample, return_inverse=True)
    n_groups = int(number.max()) + 1
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), n_bootstrap)[:, number]
    draws = _recalls(predicted, targets, weights) if kind == "classes" else _r2(predicted, targets, weights)
    low, high = np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    chance = 1 / len(np.unique(targets)) if kind == "classes" else 0.0
    row = (metric, mean, float(low), float(high), chance, len(targets))
    return pd.DataFrame([row], columns=["metric", "mean", "low", "high", "chance", "n_samples"])


def _recalls(predicted: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Balanced accuracy of each draw, over the classes that it holds."""
    of_class = targets[:, None] == np.unique(targets)
    right = of_class & (predicted == targets)[:, None]
    with np.errstate(invalid="ignore"):
        return np.nanmean((weights @ right) / (weights @ of_class), axis=1)


def _r2(predicted: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """R2 of each draw, averaged over the targets that vary in it."""
    centered = targets - targets.mean(0)  # sums of squares of large values would round
    n = weights.sum(1, keepdims=True)
    total = weights @ centered**2 - (weights @ centered) ** 2 / n
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = 1 - (weights @ (targets - predicted) ** 2) / np.where(total > 0, total, np.nan)
    return np.nanmean(scores, axis=1)
