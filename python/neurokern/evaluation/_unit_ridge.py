"""Ridge regression of every unit on the units that a task leaves visible, without one fit per unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neurokern.datasets import BinnedSession
from neurokern.evaluation.predictors import recency_weights, recent_rates

_CHUNK_ELEMENTS = 1 << 22  # feature values at a time (16 MiB)
_MIN_SPREAD = 0.02  # of smoothed roots: a nearly silent unit is not blown up to an outlier
_SCALE_POWER = (
    0.5  # features are divided by spread ** power: between equal say (1) and little for rare units (0)
)
_TIME_SCALE = 0.3  # size of the time features against a unit's: how easily a time course is learned


class UnitRidge:
    """Features and Gram matrices of one session's training windows; weights for any penalty and task.

    Parameters
    ----------
    train : BinnedSession
    smoothing : float, seconds
    half_life : float or None, windows

    Attributes
    ----------
    mean : tensor of shape (units,), float32, spikes per bin
        Rate that a prediction departs from.
    """

    def __init__(self, train: BinnedSession, smoothing: float, half_life: float | None) -> None:
        self.mean = torch.from_numpy(recent_rates(train.counts, half_life)).float()
        self._regions = torch.from_numpy(train.region_index[0])
        self._smoother = gaussian_smoother(train.n_bins, smoothing / train.bin_size)
        n_bins = train.n_bins
        self._time = _TIME_SCALE * n_bins**0.5 * (torch.eye(n_bins) - 1 / n_bins)
        self._center, self._scale = self._statistics(train.counts, half_life)
        n_features = train.n_units + n_bins
        self._gram = torch.zeros(n_features, n_features, dtype=torch.float64)
        self._cross = torch.zeros(n_features, train.n_units, dtype=torch.float64)
        self._n_samples = train.n_windows * n_bins
        for rows in _chunks(train.counts):
            features = self.features(train.counts[rows])
            target = torch.from_numpy(train.counts[rows].astype(np.float32)).flatten(0, 1)
            target = (target - self.mean) / self.mean.sqrt()
            self._gram += (features.T @ features).double()
            self._cross += (features.T @ target).double()

    def features(self, counts: np.ndarray) -> Tensor:
        """Features of windows, ``(windows * bins, units + bins)`` float32."""
        units = (self._smooth_roots(counts) - self._center) * self._scale
        return torch.cat([units, self._time.expand(len(counts), -1, -1)], dim=2).flatten(0, 1)

    def weights(self, tasks: Sequence[str], alpha: float) -> dict[str, Tensor]:
        """Weights for each task, ``(units + bins, units)`` float32; column n is 0 at what the task hides."""
        solved: dict[str, Tensor] = {}
        if {"co-smoothing", "inter-region"} & set(tasks):
            inverse = self._inverse(slice(None), alpha)
            full = inverse @ self._cross
        if "co-smoothing" in tasks:
            solved["co-smoothing"] = leave_own_unit_out(inverse, full)
        if "inter-region" in tasks:
            solved["inter-region"] = leave_own_region_out(inverse, full, self._regions)
        if "intra-region" in tasks:
            solved["intra-region"] = self._within_regions(alpha)
        return {task: weights.float() for task, weights in solved.items()}

    def rates(self, features: Tensor, weights: Tensor) -> Tensor:
        """Rates, ``(windows, bins, units)``, not floored, from what :meth:`features` returned."""
        departure = features @ weights
        return (self.mean + self.mean.sqrt() * departure).unflatten(0, (-1, len(self._smoother)))

    def _within_regions(self, alpha: float) -> Tensor:
        n_units = len(self.mean)
        weights = torch.zeros_like(self._cross)
        time = torch.arange(n_units, len(self._gram))
        for region in self._regions.unique().tolist():
            units = (self._regions == region).nonzero()[:, 0]
            seen = torch.cat([units, time])
            inverse = self._inverse(seen, alpha)
            within = leave_own_unit_out(inverse, inverse @ self._cross[seen[:, None], units])
            weights[seen[:, None], units] = within
        return weights

    def _inverse(self, features: Tensor | slice, alpha: float) -> Tensor:
        gram = self._gram[features][:, features].clone()
        gram.diagonal().add_(alpha * self._n_samples)
        return torch.cholesky_inverse(torch.linalg.cholesky(gram))

    def _statistics(self, counts: np.ndarray, half_life: float | None) -> tuple[Tensor, Tensor]:
        """Recency-weighted center, and scale, of each unit's smoothed roots."""
        recency = torch.from_numpy(recency_weights(len(counts), half_life))
        center, total, squares = (torch.zeros(counts.shape[2], dtype=torch.float64) for _ in range(3))
        for rows in _chunks(counts):
            smooth = self._smooth_roots(counts[rows])
            center += recency[rows] @ smooth.mean(1).double()
            total += smooth.sum((0, 1)).double()
            squares += smooth.square().sum((0, 1)).double()
        n_samples = counts.shape[0] * counts.shape[1]
        mean = total / n_samples
        spread = (squares / n_samples - mean.square()).clamp_min(0).sqrt()
        return center.float(), (spread.clamp_min(_MIN_SPREAD) ** -_SCALE_POWER).float()

    def _smooth_roots(self, counts: np.ndarray) -> Tensor:
        return self._smoother @ torch.from_numpy(np.sqrt(counts, dtype=np.float32))


def leave_own_unit_out(inverse: Tensor, full: Tensor) -> Tensor:
    """Ridge weights of each target without the feature that has the target's own number.

    Parameters
    ----------
    inverse : tensor of shape (features, features), float64
        Inverse of the penalized Gram matrix of all features.
    full : tensor of shape (features, targets), float64
        Weights of all targets with all features. Target j is unit j, whose feature is number j.

    Returns
    -------
    weights : tensor of shape (features, targets), float64
        0 at (j, j).
    """
    units = torch.arange(full.shape[1])
    weights = full - inverse[:, units] * (full[units, units] / inverse[units, units])
    weights[units, units] = 0  # exactly, so that no rounded-off trace of the unit remains
    return weights


def leave_own_region_out(inverse: Tensor, full: Tensor, regions: Tensor) -> Tensor:
    """As :func:`leave_own_unit_out`, without the features of all units of the target's region."""
    weights = full.clone()
    for region in regions.unique().tolist():
        units = (regions == region).nonzero()[:, 0]
        block = full[units[:, None], units]
        weights[:, units] -= inverse[:, units] @ torch.linalg.solve(inverse[units[:, None], units], block)
        weights[units[:, None], units] = 0
    return weights


def gaussian_smoother(n_bins: int, sigma: float) -> Tensor:
    """Matrix ``(bins, bins)`` float32 that smooths over time; rows sum to 1 at the ends of the window too."""
    if sigma <= 0:
        return torch.eye(n_bins)
    bins = torch.arange(n_bins, dtype=torch.float64)
    kernel = torch.exp(-0.5 * ((bins[:, None] - bins) / sigma).square())
    return (kernel / kernel.sum(1, keepdim=True)).float()


def _chunks(counts: np.ndarray) -> list[slice]:
    size = max(1, _CHUNK_ELEMENTS // counts[0].size)
    return [slice(first, first + size) for first in range(0, len(counts), size)]
