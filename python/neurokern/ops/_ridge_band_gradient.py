"""Descend the error of samples left out along the logarithms of band weights, each target by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from neurokern.ops._ridge_band_systems import BandSystem, Memory
from neurokern.ops._ridge_blas import Algebra

_STEPS = 40  # at most; each is one evaluation of the error and its gradient
_LONGEST = 2.0  # change of a logarithm in one step
_SHORTER = 0.3  # of a step that did not lead down, when it is tried again
_SHORTEST = 0.02  # share of a step below which none leads down
_SLOPE = 1e-4  # share of the descent that the gradient promises, to be kept at least
_LEVEL = 1e-4  # gradient, in R2 for each factor e of a weight, that counts as none
_GAIN = 2e-6  # of R2 by a step, below which the next are not worth taking
_COMPACT = 0.7  # share of targets on their way, below which the others are left out
PRECISION = {"float32": 1e-5, "float64": 1e-6}  # residuals of the systems on the way


def shares_of(
    algebra: Algebra, systems: Sequence[BandSystem], scoring: str, pooled: bool
) -> tuple[np.ndarray, np.ndarray]:
    """What squared errors of each fold count (folds, targets), and which targets vary.

    The sum is on the scale of 1 - R2. Correlations are descended by the error that R2 has.
    """
    weights = np.array([system.weight for system in systems])[:, None]
    spreads = np.array([algebra.host(system.spread) for system in systems])
    squares = np.array([algebra.host(system.y_squared) for system in systems])
    valid = spreads > 1e-12 * squares
    total = np.where(valid, spreads, 0.0).sum(0)
    if pooled:
        shares = np.ones_like(spreads) / np.where(total > 0, total, 1.0)
    elif scoring == "mse":
        level = (spreads / weights).sum(0)
        shares = 1 / (weights * np.where(total > 0, level, 1.0))
    else:
        shares = valid / (np.where(valid, spreads, 1.0) * np.maximum(valid.sum(0), 1))
    return shares, np.asarray(valid.any(0))


class Descent:
    """Steps of a quasi-Newton method (BFGS) in the few logarithms of each target, all targets at a time."""

    def __init__(
        self,
        algebra: Algebra,
        systems: Sequence[BandSystem],
        shares: np.ndarray,
        bounds: tuple[float, float],
        tolerance: float,
    ) -> None:
        self._algebra, self._tolerance, self._bounds = algebra, tolerance, bounds
        self._systems, self._shares = list(systems), shares
        self._memories = [Memory() for _ in systems]

    def errors(self, log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted sum of squared errors (targets,), and its gradient (targets, bands)."""
        algebra = self._algebra
        wide = algebra.array(log_weights, "float64")
        total, slope = np.zeros(len(log_weights)), np.zeros(log_weights.shape)
        for system, share, memory in zip(self._systems, self._shares, self._memories, strict=True):
            found = system.errors(wide, algebra.array(share, "float64"), memory, self._tolerance)
            total += algebra.host(found[0])
            slope += algebra.host(found[1])
        return total, slope

    def run(self, start: np.ndarray) -> np.ndarray:
        """Return logarithms (targets, bands) whose error is at most that of ``start``."""
        found = start.clip(*self._bounds)
        going = np.arange(len(start))  # targets of the arrays below
        at = found.copy()
        error, slope = self.errors(at)
        curvature, fresh = _identities(at.shape), np.ones(len(at), bool)
        share, done = np.ones(len(at)), self._level(at, slope)
        step = self._direction(at, slope, curvature)
        for _ in range(_STEPS):
            if done.all():
                break
            if (~done).mean() < _COMPACT:
                kept = np.flatnonzero(~done)
                self._keep(kept)
                going, done, fresh = going[kept], done[kept], fresh[kept]
                at, slope, step, curvature = at[kept], slope[kept], step[kept], curvature[kept]
                error, share = error[kept], share[kept]
            trial = (at + share[:, None] * step).clip(*self._bounds)
            new_error, new_slope = self.errors(trial)
            promised = ((trial - at) * slope).sum(1)
            down = (new_error <= error + _SLOPE * np.minimum(promised, 0.0)) & ~done
            _update(curvature, fresh, trial - at, new_slope - slope, down)
            done |= down & (error - new_error < _GAIN)
            at[down], error[down], slope[down] = trial[down], new_error[down], new_slope[down]
            share = np.where(down, 1.0, share * _SHORTER)
            step[down] = self._direction(at[down], slope[down], curvature[down])
            done |= (share < _SHORTEST) | self._level(at, slope)
            found[going] = at
        return found

    def _keep(self, targets: np.ndarray) -> None:
        index = self._algebra.array(targets, "int64")
        self._systems = [system.of(index) for system in self._systems]
        self._shares = self._shares[:, targets]
        self._memories = [memory.of(index) for memory in self._memories]

    def _free(self, at: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Which logarithms may go where the error falls."""
        low, high = self._bounds
        return ~(((at <= low) & (slope > 0)) | ((at >= high) & (slope < 0)))

    def _level(self, at: np.ndarray, slope: np.ndarray) -> np.ndarray:
        return (np.abs(slope) * self._free(at, slope)).max(1) < _LEVEL

    def _direction(self, at: np.ndarray, slope: np.ndarray, curvature: np.ndarray) -> np.ndarray:
        free = self._free(at, slope)
        downhill = -slope * free
        step = np.einsum("tij,tj->ti", curvature, downhill) * free
        uphill = (step * downhill).sum(1) <= 0
        curvature[uphill] = np.eye(at.shape[1])
        step[uphill] = downhill[uphill]
        longest = np.abs(step).max(1)
        return step * np.minimum(1.0, _LONGEST / np.where(longest > 0, longest, 1.0))[:, None]


def _identities(shape: tuple[int, int]) -> np.ndarray:
    # A gradient is the change of R2 by a factor of e: a first step of 1 for 0.1 is neither short nor bold.
    return np.tile(10.0 * np.eye(shape[1]), (shape[0], 1, 1))


def _update(
    curvature: np.ndarray, fresh: np.ndarray, step: np.ndarray, change: np.ndarray, down: np.ndarray
) -> None:
    """Update inverse curvatures (targets, bands, bands) in place, by BFGS, where a step led down."""
    product = (step * change).sum(1)
    square = (change * change).sum(1)
    some = np.flatnonzero(down & (product > 1e-12) & (square > 0))
    step, change, product, square = step[some], change[some], product[some], square[some]
    eye = np.eye(step.shape[1])
    first = fresh[some]
    curvature[some[first]] = eye * (product / square)[first, None, None]
    fresh[some] = False
    left = eye - step[:, :, None] * change[:, None, :] / product[:, None, None]
    own = step[:, :, None] * step[:, None, :] / product[:, None, None]
    curvature[some] = left @ curvature[some] @ left.transpose(0, 2, 1) + own
