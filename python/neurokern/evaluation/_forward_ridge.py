"""Ridge regression of the last bins on what all units did before, a unit's own past being penalized less."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neurokern.datasets import BinnedSession
from neurokern.evaluation.predictors import recency_weights, recent_rates
from neurokern.evaluation.tasks import n_forward_bins

_SHORT_MEMORY = 0.08  # seconds
_PRIOR_WINDOWS = 4.0  # of the overall mean, mixed into the mean of the few hidden bins
_PRIOR_SPIKES = 10.0  # per hidden bin, mixed into the profile of a unit over the hidden bins
_MIN_SPREAD = 1e-3


class ForwardRidge:
    """Features of one session's training windows; weights for any penalty.

    Parameters
    ----------
    train : BinnedSession
    half_life : float or None, windows
    n_cuts : int
        Each window gives this many samples: the hidden bins as they are, and as many bins right before them,
        and so on, each predicted from what precedes it (not before the middle of the past).

    Attributes
    ----------
    mean : tensor of shape (units,), float32, spikes per bin
        Rate of the hidden bins that a prediction departs from.

    Notes
    -----
    The target is a unit's mean count over the hidden bins; bins share it but for a fixed profile. With F the
    features of all units, Z_n those of unit n, and q = own ** 2, the prediction F u + sqrt(q) Z_n v minimizes
    squared error + alpha * samples * (|u|^2 + |v|^2). In the principal axes of F the system of u is
    diagonal; eliminating u leaves one small system for the v of each unit, solved for all units together.
    """

    def __init__(self, train: BinnedSession, half_life: float | None, n_cuts: int) -> None:
        n_hidden = n_forward_bins(train.n_bins)
        self._first = first = train.n_bins - n_hidden
        self._memory = _SHORT_MEMORY / train.bin_size
        recency = recency_weights(train.n_windows, half_life)
        self.mean, self._profile = _hidden_bin_rates(train.counts, first, half_life, recency)
        weights = torch.from_numpy(recency).float()
        earlier = [first - j * n_hidden for j in range(1, n_cuts)]
        features, targets = [], []
        for cut in [first] + [cut for cut in earlier if cut >= max(1, first // 2)]:
            past = past_means(train.counts[:, :cut], self._memory)
            center = torch.einsum("k,knm->nm", weights, past)
            features.append(past - center)
            count = torch.from_numpy(train.counts[:, cut : cut + n_hidden].mean(axis=1, dtype=np.float32))
            base = self.mean if cut == first else weights @ count
            targets.append((count - base) / self.mean.sqrt())
            if cut == first:
                self._center = center
        stacked = torch.cat(features)
        self._scale = stacked.std(0, correction=0) + _MIN_SPREAD
        standardized = (stacked / self._scale).double()  # (samples, units, memories)
        target = torch.cat(targets).double()  # (samples, units)
        self._axes = principal_axes(standardized.flatten(1))
        scores = standardized.flatten(1) @ self._axes  # (samples, rank)
        self._axes = self._axes.float()
        # All that the solutions for any penalty need: products of scores S, own features Z and targets Y.
        self._n_samples, n_units, n_memories = standardized.shape
        self._ss = scores.square().sum(0)
        self._sy = scores.T @ target
        self._sz = (scores.T @ standardized.flatten(1)).view(-1, n_units, n_memories).transpose(0, 1)
        self._zz = torch.einsum("snl,snm->nlm", standardized, standardized)
        self._zy = torch.einsum("snm,sn->nm", standardized, target)

    def weights(self, alpha: float, owns: Sequence[float]) -> list[tuple[Tensor, Tensor]]:
        """Weights of the scores ``(rank, units)`` and own ones ``(units, memories)`` for each ``own``."""
        penalty = alpha * self._n_samples
        diagonal = (self._ss + penalty)[:, None]  # (rank, 1)
        divided = self._sz / diagonal  # (units, rank, memories)
        system = self._zz - self._sz.mT @ divided
        right = self._zy - torch.einsum("nrm,rn->nm", divided, self._sy)
        solutions = []
        for own in owns:
            penalized = own**2 * system
            penalized.diagonal(dim1=1, dim2=2).add_(penalty)
            own_weights = own**2 * torch.linalg.solve(penalized, right)
            shared = self._sy / diagonal - torch.einsum("nrm,nm->rn", divided, own_weights)
            solutions.append((shared.float(), own_weights.float()))
        return solutions

    def rates(self, counts: np.ndarray, weights: tuple[Tensor, Tensor]) -> Tensor:
        """Rates, ``(windows, bins, units)``, not floored; bins that are not hidden get the mean rate."""
        shared, own = weights
        features = (past_means(counts[:, : self._first], self._memory) - self._center) / self._scale
        departure = features.flatten(1) @ self._axes @ shared + (features * own).sum(2)
        hidden = (self.mean + self.mean.sqrt() * departure)[:, None, :] * self._profile
        rates = self.mean.expand(counts.shape).clone()
        rates[:, self._first :] = hidden
        return rates


def past_means(counts: np.ndarray, memory: float) -> Tensor:
    """Means of square-root counts over the bins given, ``(windows, units, 2)`` float32.

    The first weighs bins by ``exp(-age / memory)`` with the age in bins, the second weighs them alike.
    """
    n_bins = counts.shape[1]
    recent = np.exp(-np.arange(n_bins - 1, -1, -1) / memory)
    kernels = np.stack([recent / recent.sum(), np.full(n_bins, 1 / n_bins)]).astype(np.float32)
    roots = torch.from_numpy(np.sqrt(counts, dtype=np.float32))
    return torch.einsum("mt,ktn->knm", torch.from_numpy(kernels), roots)


def principal_axes(features: Tensor) -> Tensor:
    """Orthonormal axes, ``(features, rank)``, on which ``(samples, features)`` have uncorrelated scores."""
    n_samples, n_features = features.shape
    if n_features <= n_samples:
        values, axes = torch.linalg.eigh(features.T @ features)
        return axes[:, values > values[-1].clamp_min(1e-300) * 1e-12]
    values, vectors = torch.linalg.eigh(features @ features.T)
    kept = values > values[-1].clamp_min(1e-300) * 1e-12
    return features.T @ (vectors[:, kept] / values[kept].sqrt())


def _hidden_bin_rates(
    counts: np.ndarray, first: int, half_life: float | None, recency: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Mean rate of each unit over the hidden bins, and its profile over them, with mean 1."""
    n_windows, n_bins, _ = counts.shape
    effective = 1 / np.square(recency).sum()
    recent = np.tensordot(recency, counts[:, first:].mean(axis=1), axes=(0, 0))
    overall = recent_rates(counts, half_life)
    mean = (effective * recent + _PRIOR_WINDOWS * overall) / (effective + _PRIOR_WINDOWS)
    by_bin = counts[:, first:].sum(axis=0, dtype=np.int64) + _PRIOR_SPIKES
    mean = np.maximum(mean, 0.5 / (n_windows * n_bins))
    return torch.from_numpy(mean).float(), torch.from_numpy(by_bin / by_bin.mean(axis=0)).float()
