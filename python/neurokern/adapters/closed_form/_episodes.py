"""Ridge for stacks of episodes, about zero or about weights that were learned before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from neurokern.adapters._readout import ClassReadout, Readout
from neurokern.ops import ridge_cv, solve_ridge, solve_ridge_batched
from neurokern.ops._ridge_batched_reference import Decomposed

_LARGEST_SIDE = 512  # of the kernel for many small problems


class EpisodeFits(NamedTuple):
    """Ridge regressions of a stack of episodes."""

    weights: Tensor  # (episodes, features, targets)
    intercept: Tensor  # (episodes, targets)
    alphas: Tensor  # (episodes, targets), float64
    prior: Tensor  # (episodes, targets), int64; -1 without
    remainder: Tensor  # (episodes, samples, targets): targets less what the prior predicts

    def residuals(self, X: Tensor) -> Tensor:
        """By how much each sample is missed when it is left out, in float64."""
        return left_out_residuals(Decomposed(X, True), self.remainder, self.alphas)


def fit_episodes(
    X: Tensor, Y: Tensor, alphas: Sequence[float], starts: Sequence[Tensor], several: Tensor, *, shared: bool
) -> EpisodeFits:
    """Solve ``W = W0 + ridge(X, Y - X W0)`` for each episode, with alpha and W0 chosen by leave-one-out.

    Parameters
    ----------
    X : tensor of shape (episodes, samples, features)
    Y : tensor of shape (episodes, samples, targets)
    alphas : ascending floats
    starts : tensors of shape (episodes, features, targets)
        W0 to choose from; none is 0.
    several : bool tensor of shape (episodes,)
        Where there is something to be learned from leaving a sample out; the others take the middle alpha.
    shared : bool
        One choice for all targets of an episode.
    """
    remainders = [Y - X @ start for start in starts] or [Y]
    fits = [_fit_one(X, remainder, alphas, several, shared) for remainder in remainders]
    if not starts:
        return fits[0]
    best = torch.zeros_like(fits[0].prior)
    if len(fits) > 1:
        basis = Decomposed(X, True)
        errors = [
            left_out_residuals(basis, fit.remainder, fit.alphas).square().sum(1, keepdim=True) for fit in fits
        ]
        each = torch.cat(errors, 1)  # (episodes, priors, targets)
        best = (each.sum(2, keepdim=True).expand_as(each) if shared else each).argmin(1)
    return EpisodeFits(
        _choose([fit.weights + start for fit, start in zip(fits, starts, strict=True)], best[:, None]),
        _choose([fit.intercept for fit in fits], best),
        _choose([fit.alphas for fit in fits], best),
        best,
        _choose([fit.remainder for fit in fits], best[:, None]),
    )


def _choose(candidates: list[Tensor], best: Tensor) -> Tensor:
    return torch.take_along_dim(torch.stack(candidates), best[None], 0)[0]


def _fit_one(X: Tensor, Y: Tensor, alphas: Sequence[float], several: Tensor, shared: bool) -> EpisodeFits:
    none = torch.full((len(X), Y.shape[2]), -1, device=X.device)
    middle = list(alphas)[len(alphas) // 2 :][:1]
    chosen = list(alphas) if bool(several.any()) else middle
    weights, intercept, found = _solve(X, Y, chosen, shared)
    if len(chosen) > 1 and not bool(several.all()):
        plain = _solve(X, Y, middle, shared)
        weights = torch.where(several[:, None, None], weights, plain[0])
        intercept = torch.where(several[:, None], intercept, plain[1])
        found = torch.where(several[:, None], found, plain[2])
    return EpisodeFits(weights, intercept, found, none, Y)


def _solve(X: Tensor, Y: Tensor, alphas: Sequence[float], shared: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, intercepts and the alphas (episodes, targets) with the smallest leave-one-out error."""
    if min(X.shape[1:]) <= _LARGEST_SIDE:
        fit = solve_ridge_batched(X, Y, list(alphas), shared_alpha=shared)
        return fit.weights, fit.intercept, fit.alphas
    # Large problems one by one, by the solver that takes X in blocks.
    parts = []
    for x, y in zip(X, Y, strict=True):
        if len(alphas) == 1:
            weights, intercept = solve_ridge(x, y, alphas[0])
            same = torch.full(y.shape[1:], alphas[0], dtype=torch.float64, device=y.device)
            parts.append((weights, intercept, same))
            continue
        one = ridge_cv(x, y, alphas, "leave-one-out", scoring="mse", shared_alpha=shared)
        parts.append((one.weights, one.intercept, one.alphas))
    weights, intercept, found = (torch.stack(part) for part in zip(*parts, strict=True))
    return weights, intercept, found


def left_out_residuals(basis: Decomposed, Y: Tensor, alphas: Tensor) -> Tensor:
    """Residuals (episodes, samples, targets) of samples that are left out one by one, in float64."""
    _, centered = basis.center(Y)
    columns = [basis.residuals(centered[:, :, [at]], alphas[:, None, [at]]) for at in range(Y.shape[2])]
    return torch.cat(columns, 2)


def in_units(features: Tensor) -> tuple[Tensor, Tensor]:
    """Divide centered features of each episode, in place, by the root of their samples' mean squared norm.

    Returns
    -------
    features : tensor of shape (episodes, samples, features)
        Samples have the mean squared norm 1; then alpha means the same in all episodes.
    unit : tensor of shape (episodes,)
        What they were divided by; 1 for samples that are all the same.
    """
    length = torch.linalg.vector_norm(features, dim=(1, 2), dtype=torch.float64)  # no overflow in float32
    unit = (length / features.shape[1] ** 0.5).to(features.dtype)
    unit = torch.where(unit > 0, unit, torch.ones_like(unit))
    return features.div_(unit[:, None, None]), unit


def starting_weights(
    function: str, priors: Sequence[Readout], n_features: int, outputs: int | np.ndarray
) -> list[Tensor]:
    """Return the weights (features, outputs) of priors for features as they were given.

    ``outputs`` are their number, or the classes, of which a prior may know more.
    """
    found = []
    for prior in priors:
        weights, _ = prior.coefficients()
        if isinstance(outputs, np.ndarray):
            weights = weights[:, _places(function, prior, outputs)]
        wanted = (n_features, len(outputs) if isinstance(outputs, np.ndarray) else outputs)
        if tuple(weights.shape) != wanted:
            raise ValueError(
                f"{function}: priors must have weights of shape {wanted}, got {tuple(weights.shape)}"
            )
        found.append(weights)
    return found


def _places(function: str, prior: Readout, classes: np.ndarray) -> list[int]:
    known = prior.classes_.tolist() if isinstance(prior, ClassReadout) else []
    missing = [name for name in classes.tolist() if name not in known]
    if missing:
        raise ValueError(f"{function}: priors must know all classes, got one without {missing}")
    return [known.index(name) for name in classes.tolist()]
