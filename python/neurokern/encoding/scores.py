"""Scores of many targets at once: Pearson correlation, R2, explained variance, mean squared error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neurokern._check import check_choice
from neurokern.encoding._arrays import CHUNK_ELEMENTS, as_tensor, check_finite_values, like

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["METRICS", "score_predictions"]

METRICS = ("pearson", "r2", "explained_variance", "mse")
_COLUMNS = 512  # targets side by side in a tile: whole cache lines of every row
_ROUNDING = 2.0**-48  # of the mean: standard deviations below are those of a constant


def score_predictions(predictions: Array, targets: Array, metric: str = "r2") -> Array:
    r"""Score the predictions of each target over all samples.

    Parameters
    ----------
    predictions, targets : arrays or tensors of shape (samples, targets) or (samples,)
        Any real type; read once, in tiles.
    metric : {"r2", "pearson", "explained_variance", "mse"}
        ``r2`` is :math:`1 - \sum (y - \hat y)^2 / \sum (y - \bar y)^2`, ``explained_variance`` the same with
        the mean of the errors taken off, ``pearson`` the correlation, all over the samples given: scores of
        folds are to be averaged, or their predictions put together, by the caller.

    Returns
    -------
    scores : array or tensor of shape (targets,) or (), float64
        Of the kind of ``targets``. A target that never varies has NaN (nothing is there to be explained)
        but for "mse". A prediction that never varies has a correlation of 0: it says nothing, which is
        what a model does that was shrunk to its intercept.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than two samples (one for "mse"), or a value is not finite.

    Examples
    --------
    >>> float(score_predictions([0.0, 1.0, 2.0], [1.0, 3.0, 5.0], "pearson"))
    1.0
    """
    check_choice("score_predictions", "metric", metric, METRICS)
    predicted = as_tensor("score_predictions", "predictions", predictions)
    observed = as_tensor("score_predictions", "targets", targets).to(predicted.device)
    if predicted.shape != observed.shape or predicted.ndim not in (1, 2):
        raise ValueError(
            "score_predictions: predictions and targets must have the same shape (samples, targets) or "
            f"(samples,), got {tuple(predicted.shape)} and {tuple(observed.shape)}"
        )
    needed = 1 if metric == "mse" else 2
    if len(observed) < needed:
        raise ValueError(
            f"score_predictions: targets must have at least {needed} samples, got {len(observed)}"
        )
    shape = observed.shape[1:]
    predicted, observed = predicted.reshape(len(predicted), -1), observed.reshape(len(observed), -1)
    scores = torch.empty(observed.shape[1], dtype=torch.float64, device=observed.device)
    for first in range(0, len(scores), _COLUMNS):
        columns = slice(first, first + _COLUMNS)
        scores[columns] = _score(_Moments(predicted[:, columns], observed[:, columns]), metric)
    return like(targets, scores.reshape(shape))


class _Moments:
    """Means and sums of squares about them, of targets, predictions and errors, in one pass.

    Tiles are merged by the update of Chan, Golub and LeVeque (Am. Stat. 37 (1983), 242-247), which does not
    cancel for data far from 0.
    """

    def __init__(self, predicted: Tensor, observed: Tensor) -> None:
        self.n = 0
        rows = max(1, CHUNK_ELEMENTS // max(observed.shape[1], 1))
        for first in range(0, len(observed), rows):
            y = observed[first : first + rows].to(torch.float64)
            p = predicted[first : first + rows].to(torch.float64)
            self._merge(len(y), *_moments_of_tile(y, p))
        if not bool(torch.isfinite(self.squares).all()):
            for name, values in (("predictions", predicted), ("targets", observed)):
                check_finite_values("score_predictions", name, values)

    def _merge(self, n: int, means: Tensor, squares: Tensor, products: Tensor) -> None:
        if self.n == 0:
            self.n, self.means, self.squares, self.products = n, means, squares, products
            return
        total = self.n + n
        step = means - self.means
        share = self.n * n / total
        self.squares = self.squares + squares + share * step.square()
        self.products = self.products + products + share * step[0] * step[1]
        self.means = self.means + step * (n / total)
        self.n = total


def _moments_of_tile(y: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means and sums of squares of targets, predictions and errors; sums of products of the first two."""
    means = torch.stack([y.mean(0), p.mean(0), (y - p).mean(0)])
    e = y - p - means[2]
    y, p = y - means[0], p - means[1]
    squares = torch.stack([y.square().sum(0), p.square().sum(0), e.square().sum(0)])
    return means, squares, (y * p).sum(0)


def _score(moments: _Moments, metric: str) -> Tensor:
    n, (mean, predicted_mean, error) = moments.n, moments.means
    total, predicted, residual = moments.squares
    if metric == "mse":
        return residual / n + error.square()
    constant = is_constant(total, mean, n)
    if metric == "pearson":
        flat = is_constant(predicted, predicted_mean, n)
        scores = (moments.products / (total * predicted).sqrt()).clamp(-1, 1).masked_fill(flat, 0.0)
    elif metric == "r2":
        scores = 1 - (residual + n * error.square()) / total
    else:
        scores = 1 - residual / total
    return scores.masked_fill(constant, math.nan)


def is_constant(squares: Tensor, mean: Tensor, n: int) -> Tensor:
    """Mark sums of squares about a mean that are no more than the rounding of that mean."""
    return squares <= n * (_ROUNDING * mean.abs()).square()
