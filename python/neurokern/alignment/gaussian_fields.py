"""Ridge on feature maps that each target sees through a Gaussian window of its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neurokern._check import check_integer, check_positive
from neurokern.encoding._arrays import as_tensor, like
from neurokern.encoding.encoder import DEFAULT_ALPHAS
from neurokern.ops import ridge_cv

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["GaussianFieldEncoder"]

_MOST_FIELDS = 100_000


class GaussianFieldEncoder:
    r"""Feature-weighted receptive fields: where a target looks, times what it looks for [1]_.

    The response of a target is :math:`\sum_c w_c \sum_p g(p)\, x_c(p) + b`: the maps of all channels are
    averaged under one Gaussian :math:`g`, chosen from a grid of centers and sizes, and weighted by ridge. So
    a target has one weight for each channel, not for each channel and place: far fewer to fit than ridge on
    the flattened maps.

    Parameters
    ----------
    grid : int, default 5
        Centers along each axis of the maps, evenly spread.
    sizes : sequence of float, default (0.05, 0.15, 0.4)
        Standard deviations of the Gaussians, as shares of an axis.
    alphas : sequence of float, default 15 from 0.1 to 1e6
        Penalties, of channels scaled to variance 1 after pooling; one is chosen for each target.
    folds : default 5
        Field and penalty of a target are those with the best R2 over these folds of the training samples, as
        in :func:`neurokern.ops.ridge_cv`.

    Attributes
    ----------
    fields_ : array or tensor of shape (targets, axes + 1)
        Center along each axis, 0 to 1 from its beginning, then the standard deviation.
    coef_ : array or tensor of shape (targets, channels)
        In units of the pooled channels.
    intercept_, alpha_, cv_scores_ : arrays or tensors of shape (targets,)
        Scores are a little too good, since the choice was made by them.

    References
    ----------
    .. [1] St-Yves & Naselaris, "The feature-weighted receptive field: an interpretable encoding model for
       complex feature spaces", NeuroImage 180 (2018), 188-202.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> maps = rng.normal(size=(200, 6, 9, 9))  # images, channels, height, width
    >>> voxel = maps[:, :, 6:, :3].mean((2, 3)) @ rng.normal(size=6)
    >>> encoder = GaussianFieldEncoder().fit(maps, voxel[:, None])
    >>> encoder.fields_[0, 0] > 0.5 > encoder.fields_[0, 1]
    True
    """

    def __init__(
        self,
        *,
        grid: int = 5,
        sizes: Sequence[float] = (0.05, 0.15, 0.4),
        alphas: Sequence[float] = DEFAULT_ALPHAS,
        folds: Any = 5,
    ) -> None:
        name = type(self).__name__
        if check_integer(name, "grid", grid) < 1:
            raise ValueError(f"{name}: grid must be at least 1, got {grid}")
        if not len(sizes):
            raise ValueError(f"{name}: sizes must hold at least one value, got none")
        for size in sizes:
            check_positive(name, "sizes", size)
        self.grid, self.sizes, self.alphas, self.folds = grid, tuple(sizes), tuple(alphas), folds

    def fit(self, X: Array, y: Array) -> GaussianFieldEncoder:
        """Choose a field and a penalty for each target, and fit its weights.

        Parameters
        ----------
        X : array or tensor of shape (samples, channels, width) or (samples, channels, height, width), ...
            Feature maps, such as ``layer_features(..., pool="none")`` returns for layers of a convolutional
            network.
        y : array or tensor of shape (samples, targets)

        Raises
        ------
        ValueError
            If shapes do not fit, a value is not finite, or there would be too many fields.
        """
        maps = self._maps("fit", X)
        targets = as_tensor(f"{type(self).__name__}.fit", "y", y).to(maps.device)
        if targets.ndim != 2 or len(targets) != len(maps):
            raise ValueError(
                f"{type(self).__name__}.fit: y must have shape ({len(maps)}, targets), got "
                f"{tuple(targets.shape)}"
            )
        targets = targets.to(torch.promote_types(targets.dtype, torch.float32))
        self._shape = tuple(maps.shape[1:])
        n_targets = targets.shape[1]
        best = targets.new_full((n_targets,), -math.inf)
        weights = targets.new_zeros(n_targets, maps.shape[1])
        intercept, alphas = targets.mean(0), targets.new_full((n_targets,), max(self.alphas))
        at = torch.zeros(n_targets, dtype=torch.int64, device=maps.device)
        fields = list(self._fields(maps.ndim - 2))
        for number, field in enumerate(fields):
            pooled = self._pooled(maps, field)
            spread = pooled.std(0, unbiased=False)
            spread = torch.where(spread > 0, spread, torch.ones_like(spread))
            found = ridge_cv(pooled / spread, targets, self.alphas, self.folds)
            scores = torch.as_tensor(found.scores, dtype=best.dtype).nan_to_num(nan=-math.inf)
            better = scores > best
            best[better], at[better] = scores[better], number
            weights[better] = (found.weights.to(best.dtype) / spread[:, None].to(best.dtype)).T[better]
            intercept[better] = found.intercept.to(best.dtype)[better]
            alphas[better] = torch.as_tensor(found.alphas, dtype=best.dtype)[better]
        self.fields_ = like(X, torch.tensor(fields, dtype=best.dtype, device=maps.device)[at])
        self.coef_, self.intercept_ = like(X, weights), like(X, intercept)
        self.alpha_ = like(X, alphas)
        self.cv_scores_ = like(X, best.masked_fill(best == -math.inf, math.nan))
        return self

    def predict(self, X: Array) -> Array:
        """Return predictions ``(samples, targets)`` for maps of the shape that was fitted."""
        if not hasattr(self, "coef_"):
            raise ValueError(f"{type(self).__name__}.predict: not fitted yet; call fit first")
        maps = self._maps("predict", X)
        if tuple(maps.shape[1:]) != self._shape:
            raise ValueError(
                f"{type(self).__name__}.predict: X must have shape (samples, "
                f"{', '.join(map(str, self._shape))}), got {tuple(maps.shape)}"
            )
        fields, weights, intercept = (
            torch.as_tensor(values).to(maps.device) for values in (self.fields_, self.coef_, self.intercept_)
        )
        predicted = intercept.expand(len(maps), -1).clone()
        for field in fields.unique(dim=0):
            own = (fields == field).all(1)
            predicted[:, own] += self._pooled(maps, field.tolist()).to(weights.dtype) @ weights[own].T
        return like(X, predicted)

    def _maps(self, function: str, X: Array) -> Tensor:
        name = f"{type(self).__name__}.{function}"
        maps = as_tensor(name, "X", X)
        if maps.ndim < 3 or 0 in maps.shape:
            raise ValueError(
                f"{name}: X must have shape (samples, channels, [height,] width) and hold something, got "
                f"{tuple(maps.shape)}; take feature maps, as layer_features(..., pool='none') gives"
            )
        if not bool(torch.isfinite(maps).all()):
            raise ValueError(f"{name}: X must be finite, got NaN or infinity")
        return maps.to(torch.promote_types(maps.dtype, torch.float32))

    def _fields(self, n_axes: int) -> Iterator[tuple[float, ...]]:
        if self.grid**n_axes * len(self.sizes) > _MOST_FIELDS:
            raise ValueError(
                f"{type(self).__name__}: {self.grid} centers along {n_axes} axes are too many fields; take "
                "a coarser grid"
            )
        centers = [(at + 0.5) / self.grid for at in range(self.grid)]
        for size in self.sizes:
            for center in itertools.product(centers, repeat=n_axes):
                yield (*center, size)

    @staticmethod
    def _pooled(maps: Tensor, field: Sequence[float]) -> Tensor:
        """Average maps (samples, channels, ...) under one Gaussian: (samples, channels)."""
        *center, size = field
        pooled = maps
        for middle in reversed(center):  # the last axis first: a Gaussian is a product over axes
            n = pooled.shape[-1]
            places = (torch.arange(n, dtype=maps.dtype, device=maps.device) + 0.5) / n
            pooled = pooled @ (-0.5 * ((places - middle) / size) ** 2).softmax(0)
        return pooled
