"""Few-shot batches for solve_ridge_batched, and how else they are solved: torch, scikit-learn."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurokern import solve_ridge_batched

N_FEATURES, N_TARGETS, ONE_ALPHA = 128, 4, 10.0
ALPHAS = np.geomspace(1e-2, 1e4, 16)


def make_episodes(n_problems: int, n: int) -> tuple[Tensor, Tensor]:
    """X (problems, n, 128) and Y (problems, n, 4), a noisy linear function of X."""
    generator = torch.Generator().manual_seed(n)
    X = torch.randn(n_problems, n, N_FEATURES, generator=generator) + 0.5
    truth = torch.randn(N_FEATURES, N_TARGETS, generator=generator) / N_FEATURES**0.5
    return X, X @ truth + torch.randn(n_problems, n, N_TARGETS, generator=generator)


def _center(X: Tensor, Y: Tensor) -> tuple[Tensor, ...]:
    x_mean, y_mean = X.mean(1, keepdim=True), Y.mean(1, keepdim=True)
    return X - x_mean, Y - y_mean, x_mean, y_mean


def _finish(
    errors: Tensor, duals: Tensor, x: Tensor, x_mean: Tensor, y_mean: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights and intercepts by the best alpha of each target; errors and duals have an axis of alphas."""
    choice = errors.square().sum(2).argmin(1)
    best = duals.take_along_dim(choice[:, None, None, :], 1)[:, 0]
    weights = x.mT @ best
    return weights, (y_mean - x_mean @ weights)[:, 0]


def by_eigh(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """One batched eigendecomposition of the lifted Gram matrices for all alphas."""
    x, y, x_mean, y_mean = _center(X, Y)
    n, alphas = X.shape[1], torch.from_numpy(ALPHAS).to(X.dtype)
    gram = x @ x.mT
    lift = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None]
    values, vectors = torch.linalg.eigh(gram + lift[:, :, None])
    inverse = 1 / (values[:, None] + alphas[:, None])  # (problems, alphas, n)
    duals = vectors[:, None] @ (inverse[..., None] * (vectors.mT @ y)[:, None])
    diagonal = inverse @ vectors.square().mT - (1 / (n * (alphas + lift * n)))[:, :, None]
    return _finish(duals / diagonal[..., None], duals, x, x_mean, y_mean)


def by_cholesky(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """A batched Cholesky factor for each alpha."""
    x, y, x_mean, y_mean = _center(X, Y)
    n = X.shape[1]
    gram = x @ x.mT
    lift = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    gram = gram + lift
    errors, duals = [], []
    for alpha in ALPHAS.tolist():
        factor = torch.linalg.cholesky(gram + alpha * torch.eye(n, dtype=X.dtype))
        inverse = torch.cholesky_inverse(factor)
        duals.append(inverse @ y)
        diagonal = inverse.diagonal(dim1=1, dim2=2)[:, :, None] - 1 / (n * (alpha + lift * n))
        errors.append(duals[-1] / diagonal)
    return _finish(torch.stack(errors, 1), torch.stack(duals, 1), x, x_mean, y_mean)


def one_alpha_dual(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Nothing is chosen: samples x samples systems for one alpha."""
    x, y, x_mean, y_mean = _center(X, Y)
    weights = x.mT @ torch.linalg.solve(x @ x.mT + ONE_ALPHA * torch.eye(X.shape[1], dtype=X.dtype), y)
    return weights, (y_mean - x_mean @ weights)[:, 0]


def one_alpha_primal(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Nothing is chosen: features x features systems for one alpha."""
    x, y, x_mean, y_mean = _center(X, Y)
    system = x.mT @ x + ONE_ALPHA * torch.eye(X.shape[2], dtype=X.dtype)
    weights = torch.linalg.solve(system, x.mT @ y)
    return weights, (y_mean - x_mean @ weights)[:, 0]


def sklearn_loop(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """scikit-learn's RidgeCV for one problem after the other; it computes in float64."""
    from sklearn.linear_model import RidgeCV

    weights, intercepts = [], []
    for x, y in zip(X.numpy(), Y.numpy(), strict=True):
        fit = RidgeCV(ALPHAS, alpha_per_target=True).fit(x, y)
        weights.append(fit.coef_.T)
        intercepts.append(fit.intercept_)
    return torch.from_numpy(np.stack(weights)), torch.from_numpy(np.stack(intercepts))


def few_shot(n: int, n_problems: int, ours: str) -> tuple[Any, Callable[[Any], int | None], int, Any]:
    """Return candidates, a count of weights that are wrong, entries of Y, and least traffic in bytes."""
    X, Y = make_episodes(n_problems, n)
    right = by_eigh(X.double(), Y.double())[0]

    def solve() -> tuple[Tensor, Tensor]:
        solution = solve_ridge_batched(X, Y, ALPHAS)
        return solution.weights, solution.intercept

    calls: dict[str, Callable[[], Any]] = {
        ours: solve,
        "torch.linalg.eigh": lambda: by_eigh(X, Y),
        "torch.linalg.eigh, float64": lambda: by_eigh(X.double(), Y.double()),  # chooses as ours does
        "torch.linalg.cholesky for each alpha": lambda: by_cholesky(X, Y),
        "torch.linalg.solve, samples, one alpha": lambda: one_alpha_dual(X, Y),
        "torch.linalg.solve, features, one alpha": lambda: one_alpha_primal(X, Y),
    }
    if importlib.util.find_spec("sklearn") is not None:
        calls["scikit-learn RidgeCV, loop"] = lambda: sklearn_loop(X, Y)
    one = one_alpha_dual(X, Y)[0]

    def differing(found: tuple[Tensor, Tensor]) -> int | None:
        if torch.allclose(found[0].float(), one, rtol=1e-3, atol=1e-5):
            return None  # another problem: nothing was chosen
        error = (found[0] - right).abs()
        return int((error > 1e-5 * right.abs().amax((1, 2), keepdim=True)).sum())

    return calls, differing, Y.numel(), (X.nbytes + Y.nbytes, right.numel() * 4)
