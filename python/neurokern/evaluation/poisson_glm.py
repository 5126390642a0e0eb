"""Poisson regression of many units on shared features at once."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_integer
from neurokern.metrics import RATE_FLOOR

__all__ = ["PoissonGLM", "fit_poisson_glm"]

_BLOCK_ELEMENTS = 1 << 22  # rates computed at a time (16 MiB as float32)
_MEMORY = 6  # pairs of steps and changes of gradient that L-BFGS keeps
_SHRINK, _MOST_CUTS, _SUFFICIENT = 0.3, 25, 1e-4  # of the search along a direction
_SHARE_TO_DROP = 0.2  # of units that are done, from which on the others go on without them
_ROUNDING = 1e-6  # of a unit's loss: sums of float32 terms are no more exact


@dataclass(frozen=True, kw_only=True)
class PoissonGLM:
    """Weights of :func:`fit_poisson_glm`.

    Attributes
    ----------
    weights : tensor of shape (features, units)
    intercept : tensor of shape (units,)
        Log-rate where all features are 0.
    n_iterations : int
    converged : bool tensor of shape (units,)
        Whether less than ``tolerance`` is left to gain for the unit; False where the iterations ran out.
    """

    weights: Tensor
    intercept: Tensor
    n_iterations: int
    converged: Tensor

    def log_rates(self, features: Tensor | np.ndarray) -> Tensor:
        """Return log-rates ``(samples, units)`` of features ``(samples, features)``."""
        return torch.as_tensor(features).to(self.weights.dtype) @ self.weights + self.intercept


def fit_poisson_glm(
    features: Tensor | np.ndarray,
    counts: Tensor | np.ndarray,
    penalty: float | Tensor,
    *,
    allowed: Tensor | None = None,
    start: PoissonGLM | None = None,
    max_iter: int = 100,
    tolerance: float = 1e-3,
) -> PoissonGLM:
    r"""Fit log-linear Poisson models of all units with one batched optimizer.

    For each unit n, minimizes :math:`\sum_s e^{\eta_{sn}} - y_{sn} \eta_{sn} + \frac{1}{2} \sum_f
    \lambda_{fn} w_{fn}^2` with :math:`\eta = X W + b`; the intercept is not penalized.

    Parameters
    ----------
    features : tensor or array of shape (samples, features)
        Finite. Standardize them, or nearly so, for one penalty to suit all.
    counts : tensor or array of shape (samples, units)
        0 and above; means over bins are fine, too.
    penalty : float, or tensor of shape (features, units)
        Precision of the normal prior of the weights, above 0.
    allowed : bool tensor of shape (features, units), optional
        Weights that are False stay exactly 0: what a unit must not be predicted from.
    start : PoissonGLM, optional
        Where to begin, such as the fit for a neighboring penalty.
    max_iter : int, default 100
    tolerance : float, default 1e-3, nats
        A unit is done when a Newton-like step promises to gain less than this, plus a millionth of its loss.

    Returns
    -------
    model : PoissonGLM
        A unit without a spike gets weights of 0 and the rate of half a spike in all samples.

    Raises
    ------
    ValueError
        If shapes disagree, something is not finite, a count is negative or the penalty is not above 0.

    Notes
    -----
    The problems of the units are independent, so each has its own step length and its own inner products,
    while each pass over the samples serves all. The preconditioner is the inverse of the Hessian at
    weights of 0, :math:`m_n X^T X + \lambda`, in the eigenbasis of :math:`X^T X`: one decomposition for all
    units.

    References
    ----------
    .. [1] Truccolo et al., "A point process framework for relating neural spiking activity to spiking
    history,
       neural ensemble, and extrinsic covariate effects", J. Neurophysiol. 93 (2005), 1074-1089.
    .. [2] Nocedal & Wright, "Numerical Optimization", 2nd ed., algorithm 7.4.
    """
    x, y = _checked(features, counts)
    n_units = y.shape[1]
    check_integer("fit_poisson_glm", "max_iter", max_iter)
    penalties = _checked_penalty(penalty, x.shape[1], n_units).to(x)
    silent = y.sum(0) == 0
    free = torch.ones(x.shape[1] + 1, n_units, dtype=x.dtype, device=x.device)
    if allowed is not None:
        if allowed.shape != (x.shape[1], n_units):
            raise ValueError(
                f"fit_poisson_glm: allowed must have shape {(x.shape[1], n_units)}, got "
                f"{tuple(allowed.shape)}"
            )
        free[:-1] = allowed.to(free)
    free[:, silent] = 0
    center = x.mean(0)
    problem = _Problem(x - center, y, penalties, free)
    first = problem.start(silent)
    if start is not None:
        first[:-1] = start.weights.to(x) * free[:-1]
        first[-1] = torch.where(silent, first[-1], start.intercept.to(x) + center @ first[:-1])
    solution, n_iterations, converged = _minimize(problem, first, max_iter, tolerance)
    weights = solution[:-1]
    return PoissonGLM(
        weights=weights,
        intercept=solution[-1] - center @ weights,
        n_iterations=n_iterations,
        converged=converged,
    )


class _Problem:
    """Loss, gradient and preconditioner for parameters ``(features + 1, units)``, the intercept last."""

    def __init__(self, features: Tensor, counts: Tensor, penalty: Tensor, free: Tensor) -> None:
        self.features, self.counts, self.penalty, self.free = features, counts, penalty, free
        self.mean = counts.mean(0).clamp_min(0.5 / len(counts))
        values, self._axes = torch.linalg.eigh((features.T @ features).double())
        typical = penalty.double().mean(0) if penalty.ndim == 2 else penalty.double()
        self._axes = self._axes.to(features)
        curvature = values.clamp_min(0)[:, None] * self.mean.double() + typical
        self._inverse_curvature = (1 / curvature).to(features)
        self._inverse_intercept = 1 / (self.mean * len(counts))

    def of(self, units: Tensor) -> _Problem:
        """Return the problem of some units, with what is known of the features."""
        part = copy.copy(self)
        part.counts, part.free, part.mean = self.counts[:, units], self.free[:, units], self.mean[units]
        part.penalty = self.penalty[:, units] if self.penalty.ndim == 2 else self.penalty
        part._inverse_curvature = self._inverse_curvature[:, units]
        part._inverse_intercept = self._inverse_intercept[units]
        return part

    def start(self, silent: Tensor) -> Tensor:
        first = torch.zeros_like(self.free)
        first[-1] = torch.where(silent, 0.5 / len(self.counts), self.mean).log()
        return first

    def __call__(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each unit, float64, and the gradient; infinite where a rate overflows."""
        weights, intercept = parameters[:-1], parameters[-1]
        loss = 0.5 * (self.penalty * weights.square()).sum(0).double()
        gradient = torch.zeros_like(parameters)
        gradient[:-1] = self.penalty * weights
        n_rows = max(1, _BLOCK_ELEMENTS // self.counts.shape[1])
        for first in range(0, len(self.counts), n_rows):
            rows = slice(first, first + n_rows)
            x, y = self.features[rows], self.counts[rows]
            eta = x @ weights + intercept
            residual = eta.exp()
            loss += (residual - y * eta).sum(0).double()
            residual -= y
            gradient[:-1] += x.T @ residual
            gradient[-1] += residual.sum(0)
        return loss, gradient * self.free

    def precondition(self, gradient: Tensor) -> Tensor:
        rotated = self._axes.T @ gradient[:-1]
        weights = self._axes @ (rotated * self._inverse_curvature)
        intercept = gradient[-1] * self._inverse_intercept
        return torch.cat([weights, intercept[None]]) * self.free


def _minimize(
    problem: _Problem, parameters: Tensor, max_iter: int, tolerance: float
) -> tuple[Tensor, int, Tensor]:
    """L-BFGS on all columns at once, each with its own step length; those that are done drop out."""
    solution = parameters.clone()
    finished = torch.zeros(parameters.shape[1], dtype=torch.bool)
    columns = torch.arange(parameters.shape[1])  # that are still worked on
    loss, gradient = problem(parameters)
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=_MEMORY)
    for iteration in range(max_iter):
        direction, slope = _downhill(problem, gradient, pairs)
        done = -slope.double() <= tolerance + _ROUNDING * loss.abs()
        solution[:, columns], finished[columns] = parameters, done.cpu()
        if done.all():
            return solution, iteration, finished
        if done.float().mean() > _SHARE_TO_DROP:
            left = ~done
            problem, columns = problem.of(left), columns[left.cpu()]
            parameters, gradient, direction = (
                values[:, left] for values in (parameters, gradient, direction)
            )
            loss, slope, done = loss[left], slope[left], done[left]
            kept = [(step[:, left], change[:, left], weight[left]) for step, change, weight in pairs]
            pairs = deque(kept, maxlen=_MEMORY)
        direction = direction.masked_fill(done, 0)
        moved, new_loss, new_gradient = _search(
            problem, parameters, direction, (loss, gradient), slope.double()
        )
        step, change = moved - parameters, new_gradient - gradient
        product = (step * change).sum(0)
        pairs.append((step, change, torch.where(product > 0, 1 / product.clamp_min(1e-30), 0)))
        parameters, loss, gradient = moved, new_loss, new_gradient
    solution[:, columns] = parameters
    return solution, max_iter, finished


def _downhill(
    problem: _Problem, gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Direction of each column, and the slope of its loss along it."""
    direction = -_apply_history(gradient, pairs, problem.precondition)
    slope = (direction * gradient).sum(0)
    uphill = ~(slope < 0)
    if uphill.any():  # rounding near the optimum, or a pair that does not fit: start again from the Hessian
        direction = torch.where(uphill, -problem.precondition(gradient), direction)
        slope = (direction * gradient).sum(0)
    return direction, slope


def _search(
    problem: _Problem, parameters: Tensor, direction: Tensor, now: tuple[Tensor, Tensor], slope: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Shorten the step of each column until its loss falls; a column where it never does stays where it is.

    ``now`` is the loss and the gradient at ``parameters``. Only columns still searching are computed again.
    """
    start_loss, start_gradient = now
    enough = start_loss + _ROUNDING * start_loss.abs()
    moved = parameters + direction
    loss, gradient = problem(moved)
    left = (~(loss <= enough + _SUFFICIENT * slope)).nonzero()[:, 0]
    size = 1.0
    for _ in range(_MOST_CUTS):
        if not len(left):
            return moved, loss, gradient
        size *= _SHRINK
        tried = parameters[:, left] + size * direction[:, left]
        tried_loss, tried_gradient = problem.of(left)(tried)
        fell = tried_loss <= enough[left] + _SUFFICIENT * size * slope[left]
        found, left = left[fell], left[~fell]
        moved[:, found], gradient[:, found] = tried[:, fell], tried_gradient[:, fell]
        loss[found] = tried_loss[fell]
    moved[:, left], gradient[:, left] = parameters[:, left], start_gradient[:, left]
    loss[left] = start_loss[left]
    return moved, loss, gradient


def _apply_history(
    gradient: Tensor, pairs: deque[tuple[Tensor, Tensor, Tensor]], precondition: Callable[[Tensor], Tensor]
) -> Tensor:
    """The two-loop recursion, column by column; a pair with weight 0 is skipped by its column."""
    direction = gradient.clone()
    factors = []
    for step, change, weight in reversed(pairs):
        factor = weight * (step * direction).sum(0)
        direction -= factor * change
        factors.append(factor)
    direction = precondition(direction)
    for (step, change, weight), factor in zip(pairs, reversed(factors), strict=True):
        direction += (factor - weight * (change * direction).sum(0)) * step
    return direction


def _checked(features: Tensor | np.ndarray, counts: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
    x, y = torch.as_tensor(features), torch.as_tensor(counts)
    x = x if x.dtype == torch.float64 else x.float()
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or 0 in x.shape or 0 in y.shape:
        raise ValueError(
            "fit_poisson_glm: features and counts must have shapes (samples, features) and (samples, units) "
            f"with something in them, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    y = y.to(x)
    for name, values in (("features", x), ("counts", y)):
        low, high = values.aminmax()
        if not (low > -torch.inf and high < torch.inf):  # NaN fails both
            raise ValueError(f"fit_poisson_glm: {name} must be finite, got NaN or infinity")
    if y.min() < 0:
        raise ValueError("fit_poisson_glm: counts must not be negative")
    return x, y


def _checked_penalty(penalty: float | Tensor, n_features: int, n_units: int) -> Tensor:
    values = torch.as_tensor(penalty)
    if values.shape not in ((), (n_features, n_units)) or not ((values > 0) & torch.isfinite(values)).all():
        raise ValueError(
            "fit_poisson_glm: penalty must be a finite number above 0, or one for each of "
            f"{n_features} features and {n_units} units, got shape {tuple(values.shape)}"
        )
    return values


def capped_rates(log_rates: Tensor, largest: Tensor) -> Tensor:
    """Return rates, not above the largest count that each unit showed in training (and at least 1).

    Exponentials run away where features leave the range that they were fitted on.
    """
    return torch.minimum(log_rates, largest.clamp_min(1).log().to(log_rates)).exp().clamp_min(RATE_FLOOR)
