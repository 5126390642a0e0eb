"""What baselines that are fitted to many units at once look at: units in a bin, and units over the past."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neurokern.evaluation.tasks import n_forward_bins

_MIN_SPREAD = 0.05  # of smoothed roots: a nearly silent unit is not blown up to an outlier
_SCALE_POWER = (
    0.5  # features are divided by spread ** power: between equal say (1) and little for rare units (0)
)
_TIME_SCALE = 0.3  # size of the time features against a unit's: how easily a time course is learned
_SHORT_MEMORY = 0.08  # seconds
_N_CUTS = 4  # samples of the past that each window gives


class UnitFeatures:
    """Smoothed roots of the counts of each unit in a bin, and the bin's number.

    Parameters
    ----------
    counts : array of shape (windows, bins, units)
        Training windows: center and scale are theirs.
    bin_size, smoothing : float, seconds
    """

    def __init__(self, counts: np.ndarray, bin_size: float, smoothing: float) -> None:
        n_bins = counts.shape[1]
        lag = torch.arange(n_bins, dtype=torch.float32)
        weights = torch.exp(-0.5 * ((lag[:, None] - lag) * bin_size / smoothing) ** 2)
        self._smoother = weights / weights.sum(1, keepdim=True)
        self._time = _TIME_SCALE * n_bins**0.5 * (torch.eye(n_bins) - 1 / n_bins)
        smooth = self._smooth(torch.from_numpy(counts)).flatten(0, 1)
        self._center, self._scale = _center_and_scale(smooth)

    def __call__(self, counts: Tensor) -> Tensor:
        """Return ``(windows * bins, units + bins)``."""
        units = (self._smooth(counts) - self._center) * self._scale
        return torch.cat([units, self._time.expand(len(counts), -1, -1)], dim=2).flatten(0, 1)

    def _smooth(self, counts: Tensor) -> Tensor:
        return self._smoother @ counts.float().sqrt()


class PastFeatures:
    """Means of each unit's roots over the bins before a cut, with a short and with an endless memory.

    Parameters
    ----------
    counts : array of shape (windows, bins, units)
        Training windows. Each gives a sample that ends where forward prediction begins to hide, and up to
        three earlier ones.
    bin_size : float, seconds

    Attributes
    ----------
    horizon : int
        Number of bins after a cut.
    past : tensor of shape (samples, 2 * units)
    after : tensor of shape (samples, units)
        Mean counts over the bins after the cut.
    """

    def __init__(self, counts: np.ndarray, bin_size: float) -> None:
        n_bins = counts.shape[1]
        self.horizon = n_forward_bins(n_bins)
        self._first = n_bins - self.horizon
        self._memory = _SHORT_MEMORY / bin_size
        cuts = [self._first - step * self.horizon for step in range(_N_CUTS)]
        cuts = [cut for cut in cuts if cut >= max(1, self._first // 2)] or [self._first]
        seen = torch.from_numpy(counts)
        past = torch.cat([self._means(seen[:, :cut]) for cut in cuts])
        self._center, self._scale = _center_and_scale(past)
        self.past = (past - self._center) * self._scale
        self.after = torch.cat([seen[:, cut : cut + self.horizon].float().mean(1) for cut in cuts])

    def __call__(self, counts: Tensor) -> Tensor:
        """Return ``(windows, 2 * units)``; the bins that forward prediction hides are not looked at."""
        return (self._means(counts[:, : self._first]) - self._center) * self._scale

    def _means(self, counts: Tensor) -> Tensor:
        n_bins = counts.shape[1]
        recent = torch.exp(-torch.arange(n_bins - 1, -1, -1) / self._memory)
        kernels = torch.stack([recent / recent.sum(), torch.full((n_bins,), 1 / n_bins)])
        return (kernels @ counts.float().sqrt()).flatten(1)


def _center_and_scale(values: Tensor) -> tuple[Tensor, Tensor]:
    spread = values.std(0, correction=0).clamp_min(_MIN_SPREAD)
    return values.mean(0), spread**-_SCALE_POWER
