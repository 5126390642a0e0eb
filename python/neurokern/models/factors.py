"""Read-in and read-out by factor analysis: what to do with hundreds of units and few trials.

A linear read-in has more weights than a short session has spikes to fit them, and takes a hidden unit for a
silent one. Here a session's units are noisy readings of a few common factors. What the model reads in is the
expected factors given the *visible* counts, so hiding a unit removes evidence and adds none; both maps start
in closed form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from neurokern.models.stitching import SessionParts

if TYPE_CHECKING:
    from neurokern.models.config import MtMConfig

CHUNK = 64  # windows at a time, so that a session of any length takes little memory
MIN_SPREAD = 0.02  # of smoothed square roots: below it a unit's few spikes would be blown up to outliers
PRIOR_WINDOWS = 2.0  # weight of the session's mean rate against its recent mean
SPIKES_OF_SILENCE = 0.5  # in all windows: a unit that was silent may yet fire
ITERATIONS = 30
RIDGE = 0.02  # of the mean variance, added to the covariance before factors are sought
TYPICAL_LOG_MEAN, SPREAD_OF_LOG_MEANS = -3.0, 1.5  # of counts per bin: calibration sees numbers around 0
SOFTNESS = 6.0  # of the corner where the rate meets its floor


class FactorParts(SessionParts):
    """Read a session's units as noisy sums of common factors.

    With ``u = (sqrt(counts) - center) * scale``, smoothed over time, the model is ``u = C z + noise``, ``z ~
    N(0, I)`` and ``noise ~ N(0, diag(r))``. The trunk gets the posterior mean of ``z`` given the visible
    units, ``(I + C' V/r C)^-1 C' V/r u`` with V = 1 where visible. Rates depart from each unit's recent mean
    m, ``rate = m * g(1 + (z + f(states)) W / sqrt(m))``, where f is what the trunk adds, and g is the
    identity above a floor, with a soft corner.

    In the scheme "causal", u is averaged over the visible past with an exponential memory, and each unit's
    own past adds to its departure.

    Parameters
    ----------
    config : MtMConfig
    n_units : int
    regions : sequence of str of length n_units, optional
    counts : array of shape (windows, bins, n_units), optional
        Counts of the training windows in the order of time; without them the parts wait for stored weights.
    """

    center: Tensor
    scale: Tensor
    log_mean: Tensor

    def __init__(
        self,
        config: MtMConfig,
        n_units: int,
        regions: Sequence[str] | None = None,
        counts: NDArray[np.generic] | None = None,
    ) -> None:
        super().__init__(config, n_units, regions)
        self.smoothing, self.memory, self.rate_floor = config.smoothing, config.memory, config.rate_floor
        self.loadings = nn.Parameter(torch.zeros(n_units, config.stitch_size))  # C
        self.log_noise = nn.Parameter(torch.zeros(n_units))  # log r
        self.read_out_weights = nn.Parameter(torch.zeros(config.stitch_size, n_units))  # W
        self.own_history = nn.Parameter(torch.zeros(n_units))
        self.register_buffer("center", torch.zeros(n_units))
        self.register_buffer("scale", torch.ones(n_units))
        self.register_buffer("log_mean", torch.zeros(n_units))
        if counts is not None:
            self.start_from(counts, config)

    def read_in(
        self, counts: Tensor, hidden: Tensor | None, causal: bool, evidence: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """Return the expected factors ``(B, T, stitch_size)`` and the departure from them ``(B, T, N)``."""
        with torch.autocast(counts.device.type, enabled=False):  # the covariance must stay positive definite
            values = counts.to(self.center.dtype).sqrt()
            if values.requires_grad:  # for a gradient by the counts, sqrt keeps its result
                values = values.clone()
            values = values.sub_(self.center).mul_(self.scale)
            visible = values.new_ones(1, 1, 1)
            if hidden is not None:
                values, visible = values.masked_fill_(hidden, 0.0), (~hidden).to(values.dtype)
            values, share = self._average_over_time(values, visible, causal)
            factors = self._expected_factors(values, share * evidence)
            departure = factors @ self.read_out_weights
            return factors, departure + values * self.own_history if causal else departure

    def read_out(self, states: Tensor, bypass: Tensor | None, calibration: Tensor | None = None) -> Tensor:
        """Return log-rates: the recent mean, moved by the factors and by what the trunk adds to them.

        ``calibration`` holds logarithm of a gain, its slope on the unit's log mean, an offset, and its slope.
        """
        departure = states @ self.read_out_weights
        if bypass is not None:
            departure = departure + bypass
        log_gain, offset = -0.5 * self.log_mean, torch.zeros_like(self.log_mean)
        if calibration is not None:
            activity = (self.log_mean - TYPICAL_LOG_MEAN) / SPREAD_OF_LOG_MEANS
            log_gain = log_gain + calibration[0] + calibration[1] * activity
            offset = calibration[2] + calibration[3] * activity
        # Few passes over (B, T, N), and in place where no gradient needs what was there.
        moved = torch.addcmul(offset + (1.0 - self.rate_floor), departure, log_gain.exp())
        above = F.softplus(moved, beta=SOFTNESS)
        return above.add_(self.rate_floor).log().add_(self.log_mean)

    def _average_over_time(self, values: Tensor, visible: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
        """Return local means over the visible bins (hidden values are 0), and the evidence behind each."""
        weights = self._time_weights(values.shape[1], causal, values.device).to(values.dtype)
        if visible.shape[1] == 1:  # the same units all along: nothing to make up for
            return (weights / weights.sum(1, keepdim=True)) @ values, visible
        seen = weights @ visible  # (B, T, N or 1)
        averaged = weights @ values / seen.clamp(min=1e-3)
        if causal and seen.shape[2] == 1:  # where nothing was seen, values are 0 and the evidence is moot
            return averaged, visible.new_ones(1, 1, 1)
        if causal:
            return averaged, (seen > 0).to(values.dtype)
        return averaged, seen / weights.sum(1, keepdim=True)

    def _time_weights(self, n_bins: int, causal: bool, device: torch.device | None = None) -> Tensor:
        """Weight of the column's bin for the row's: a normal curve, or an exponential memory of the past."""
        time = torch.arange(n_bins, dtype=torch.float32, device=device)
        lag = time[:, None] - time
        if causal:
            return torch.exp(-lag.clamp(min=0) / self.memory) * (lag >= 0)
        return torch.exp(-0.5 * (lag / self.smoothing) ** 2)

    def _expected_factors(self, values: Tensor, evidence: Tensor) -> Tensor:
        """Return the posterior mean of the factors; ``evidence`` is (B or 1, T or 1, N or 1)."""
        n_factors = self.loadings.shape[1]
        precision = evidence * (-self.log_noise).exp()  # (B or 1, T or 1, N)
        if precision.shape[1] == 1:  # the same units all along: weigh their loadings, not their values
            weighed = precision.mT * self.loadings  # (B or 1, N, D)
            covariance = (weighed.mT @ self.loadings)[:, None]  # (B or 1, 1, D, D)
            projected = values @ weighed  # (B, T, D)
        else:
            # One product for all covariances: each unit adds its outer product as far as it is visible.
            outer = (self.loadings[:, :, None] * self.loadings[:, None, :]).flatten(1)  # (N, D * D)
            covariance = (precision @ outer).unflatten(-1, (n_factors, n_factors))  # (B or 1, T, D, D)
            projected = (values * precision) @ self.loadings  # (B, T, D)
        covariance = covariance + torch.eye(n_factors, dtype=values.dtype, device=values.device)
        factor = torch.linalg.cholesky(covariance)
        if covariance.shape[1] > 1:
            return torch.cholesky_solve(projected[..., None], factor)[..., 0]
        factor = factor[:, 0]
        if factor.shape[0] == 1:  # one system for every bin
            return torch.cholesky_solve(projected.flatten(0, 1).T, factor[0]).T.unflatten(0, values.shape[:2])
        return torch.cholesky_solve(projected.mT, factor).mT

    @torch.no_grad()
    def start_from(self, counts: NDArray[np.generic], config: MtMConfig) -> None:
        """Estimate everything but the token from counts, in closed form but for the factor analysis."""
        weight = 0.5 ** (np.arange(len(counts))[::-1] / config.half_life)
        mean, center = recent_means(counts, weight / weight.sum())
        smooth = self._time_weights(counts.shape[1], causal=False)
        smooth = smooth / smooth.sum(1, keepdim=True)
        spread = _spread(counts, smooth)
        self.log_mean.copy_(mean.log())
        self.center.copy_(center)
        self.scale.copy_(spread.clamp(min=MIN_SPREAD) ** -config.scale_power)
        covariance, cross = self._second_moments(counts, smooth)
        n_factors = min(config.stitch_size, self.n_units)
        loadings, noise = factor_analysis(covariance, n_factors)
        noise = noise * config.noise_factor
        gain = loadings / noise[:, None]
        posterior = torch.linalg.inv(torch.eye(n_factors, dtype=torch.float64) + loadings.T @ gain)
        project = posterior @ gain.T  # from values to expected factors
        weights = torch.linalg.solve(project @ covariance @ project.T + posterior, project @ cross)
        self.loadings[:, :n_factors].copy_(loadings)
        self.log_noise.copy_(noise.log())
        self.read_out_weights[:n_factors].copy_(weights)
        self.own_history.copy_(self._own_history(counts))

    def _departures(self, counts: Tensor) -> Tensor:
        """Return counts minus their recent mean, over the spread that Poisson counts would have."""
        mean = self.log_mean.exp()
        return (counts - mean) / mean.sqrt()

    def _second_moments(self, counts: NDArray[np.generic], smooth: Tensor) -> tuple[Tensor, Tensor]:
        """Return the second moments of values, and of values with departures: ``(N, N)`` float64 each."""
        covariance, cross = (torch.zeros(self.n_units, self.n_units, dtype=torch.float64) for _ in range(2))
        for chunk in _chunks(counts):
            values = ((smooth @ chunk.sqrt() - self.center) * self.scale).flatten(0, 1)
            covariance += (values.T @ values).double()
            cross += (values.T @ self._departures(chunk).flatten(0, 1)).double()
        n_samples = counts.shape[0] * counts.shape[1]
        return covariance / n_samples, cross / n_samples

    def _own_history(self, counts: NDArray[np.generic]) -> Tensor:
        """Return the shrunken slope of each unit's departure, in the bins after a cut, on its own past."""
        n_bins = counts.shape[1]
        horizon = max(1, n_bins // 10)
        covariance, variance = torch.zeros(self.n_units), torch.zeros(self.n_units)
        for chunk in _chunks(counts):
            values, departures = (chunk.sqrt() - self.center) * self.scale, self._departures(chunk)
            for cut in np.unique(np.linspace(n_bins // 2, n_bins - horizon, 5).astype(int)).tolist():
                if cut > 0:
                    past, future = values[:, :cut].mean(1), departures[:, cut : cut + horizon].mean(1)
                    covariance += (past * future).sum(0)
                    variance += (past * past).sum(0)
        return 0.5 * covariance / (variance + 0.3 * variance.mean() + 1e-6)


def recent_means(counts: NDArray[np.generic], weight: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Return the recent mean of each unit's counts and of their square roots, ``(n_units,)`` float32 each.

    Rates drift over a session, and what comes next is nearest to what was last. The mean count is drawn
    toward that of the whole session, the more so the fewer windows the weights rest on.

    Parameters
    ----------
    counts : array of shape (windows, bins, n_units)
        In the order of time.
    weight : array of shape (windows,)
        Adds up to 1.
    """
    n_windows, n_bins, n_units = counts.shape
    total, recent, recent_root = np.zeros((3, n_units))
    for start in range(0, n_windows, CHUNK):
        chunk, w = counts[start : start + CHUNK], weight[start : start + CHUNK]
        per_window = chunk.sum(axis=1, dtype=np.float64)
        total += per_window.sum(axis=0)
        recent += w @ per_window / n_bins
        recent_root += w @ np.sqrt(chunk, dtype=np.float32).sum(axis=1, dtype=np.float64) / n_bins
    effective_windows = 1.0 / (weight**2).sum()
    overall = total / (n_windows * n_bins)
    mean = (effective_windows * recent + PRIOR_WINDOWS * overall) / (effective_windows + PRIOR_WINDOWS)
    mean = np.maximum(mean, SPIKES_OF_SILENCE / (n_windows * n_bins))
    return torch.from_numpy(mean).float(), torch.from_numpy(recent_root).float()


def factor_analysis(covariance: Tensor, n_factors: int) -> tuple[Tensor, Tensor]:
    """Fit loadings and noise variances to a covariance by expectation maximization.

    Parameters
    ----------
    covariance : float64 tensor of shape (n_units, n_units)
    n_factors : int

    Returns
    -------
    loadings : tensor of shape (n_units, n_factors)
    noise : tensor of shape (n_units,)

    References
    ----------
    .. [1] Rubin and Thayer, "EM algorithms for ML factor analysis", Psychometrika 47, 1982.
    """
    n_units = len(covariance)
    diagonal = covariance.diagonal()
    ridge = RIDGE * diagonal.mean() + 1e-8
    covariance = covariance + ridge * torch.eye(n_units, dtype=covariance.dtype)
    diagonal = covariance.diagonal()
    noise = 0.5 * diagonal
    values, vectors = torch.linalg.eigh(covariance)
    strength = (values[-n_factors:] - noise.median()).clamp(min=1e-3)
    loadings = vectors[:, -n_factors:] * strength.sqrt()
    identity = torch.eye(n_factors, dtype=covariance.dtype)
    for _ in range(ITERATIONS):
        gain = loadings / noise[:, None]
        posterior = torch.linalg.inv(identity + loadings.T @ gain)
        project = posterior @ gain.T  # (factors, units)
        with_factors = covariance @ project.T  # moment of values with factors
        second = posterior + project @ with_factors  # moment of factors
        loadings = torch.linalg.solve(second, with_factors.T).T
        noise = torch.maximum(diagonal - (loadings * with_factors).sum(1), 0.01 * diagonal + 1e-4)
    return loadings, noise


def _spread(counts: NDArray[np.generic], smooth: Tensor) -> Tensor:
    """Return the standard deviation of each unit's smoothed square roots."""
    total, squares = torch.zeros(2, counts.shape[2], dtype=torch.float64)
    for chunk in _chunks(counts):
        values = smooth @ chunk.sqrt()
        total += values.sum((0, 1)).double()
        squares += values.square().sum((0, 1)).double()
    n_samples = counts.shape[0] * counts.shape[1]
    return (squares / n_samples - (total / n_samples) ** 2).clamp(min=0).sqrt().float()


def _chunks(counts: NDArray[np.generic]) -> Iterator[Tensor]:
    for start in range(0, len(counts), CHUNK):
        yield torch.from_numpy(np.asarray(counts[start : start + CHUNK], dtype=np.float32))
