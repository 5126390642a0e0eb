"""Batched ridge problems by one eigendecomposition each, in float64, for numpy arrays and tensors alike.

What the kernels are compared with, and what solves problems that are too large for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurokern.ops import _library
from neurokern.ops._library import torch


def _algebra(array: Any) -> Any:
    return np if isinstance(array, np.ndarray) else torch


def _wide(array: Any) -> Any:
    return array.astype(np.float64) if isinstance(array, np.ndarray) else array.double()


def _turned(array: Any) -> Any:
    return array.swapaxes(1, 2)


class Decomposed:
    """Centered problems of one size, and the eigenvectors of the smaller of their Gram matrices."""

    def __init__(self, X: Any, fit_intercept: bool) -> None:
        xp = _algebra(X)
        self.n = X.shape[1]
        self.fit_intercept = fit_intercept
        self.primal = X.shape[2] < self.n
        x = _wide(X)
        self.mean = x.mean(1) if fit_intercept else 0 * x.sum(1)
        self.x = x - self.mean[:, None]
        gram = _turned(self.x) @ self.x if self.primal else self.x @ _turned(self.x)
        self.lift = 0 * gram[:, :1, :1]
        if fit_intercept and not self.primal:
            # Any lift is right on paper; without one, two numbers of size 1 / alpha would cancel.
            trace = (self.x * self.x).sum((1, 2))[:, None, None]
            self.lift = xp.where(trace > 0, trace / self.n, 1 + 0 * trace)
            gram = gram + self.lift
        values, self.vectors = xp.linalg.eigh(gram)
        self.values = values.clip(0)[:, :, None]
        self.samples = self.x @ self.vectors if self.primal else self.vectors

    def center(self, Y: Any) -> tuple[Any, Any]:
        """Return the targets' means and the centered targets."""
        y = _wide(Y)
        mean = y.mean(1) if self.fit_intercept else 0 * y.sum(1)
        y = y - mean[:, None]
        constant = (Y[:, :1] == Y).all(1)[:, None] & self.fit_intercept
        return mean, _algebra(Y).where(constant, 0 * y, y)

    def errors(self, y: Any, alpha: float) -> Any:
        """Leave-one-out sums of squares (problems, targets)."""
        missed = self.residuals(y, alpha)
        return (missed * missed).sum(1)

    def residuals(self, y: Any, alpha: Any) -> Any:
        """Leave-one-out residuals (problems, samples, targets); alpha is a number or (problems, 1, 1)."""
        shrunk = self.samples / _turned(self.values + alpha)
        fitted = shrunk @ (_turned(self.samples) @ y)
        leverage = (shrunk * self.samples).sum(2)[:, :, None]
        if self.primal:
            return (y - fitted) / (1 - leverage - (1 / self.n if self.fit_intercept else 0))
        centering = 1 / (self.n * (alpha + self.lift * self.n)) if self.fit_intercept else 0
        return fitted / (leverage - centering)

    def solve(self, right: Any, alphas: Any) -> tuple[Any, Any]:
        """Return (Xc'Xc + alpha)^-1 Xc' right and (Xc Xc' + alpha)^-1 right, alphas being for each target."""
        turned = _turned(self.samples) @ right / (self.values + alphas[:, None])
        if not self.primal:
            dual = self.samples @ turned
            return _turned(self.x) @ dual, dual
        weights = self.vectors @ turned
        return weights, (right - self.x @ weights) / alphas[:, None]


def solve_group(
    X: Any, Y: Any, alphas: Any, fit_intercept: bool, shared_alpha: bool
) -> tuple[Any, Any, Any, Any, Any]:
    """Solve problems of equal size; as :func:`solve`."""
    xp = _algebra(X)
    t = Decomposed(X, fit_intercept)
    y_mean, y = t.center(Y)
    if len(alphas) > 1:
        errors = xp.stack([t.errors(y, float(alpha)) for alpha in alphas], 1)
        total = (y * y).sum(1)[:, None]
        scores = xp.where(total > 0, 1 - errors / xp.where(total > 0, total, 1 + 0 * total), np.nan)
        judged = errors.sum(2)[:, :, None] + 0 * errors if shared_alpha else errors
        equal = judged <= xp.amin(judged, 1)[:, None] * (1 + 1e-10)  # within rounding: the last of them
        choice = len(alphas) - 1 - (xp.flip(equal, (1,)) * 1).argmax(1)
    else:
        scores = y[:, :0]
        choice = _library.new_array(X, (len(X), Y.shape[2]), "int64", 0)
    weights, dual = t.solve(y, alphas[choice])
    intercept = y_mean - (t.mean[:, None] @ weights)[:, 0]
    return weights, intercept, dual, choice, scores


def _groups(X: Any, counts: Any) -> list[tuple[int, Any]]:
    """Return each number of samples, and the problems that have it."""
    if counts is None:
        return [(X.shape[1], slice(None))]
    return [(int(n), counts == n) for n in _algebra(counts).unique(counts)]


def solve(
    X: Any, Y: Any, alphas: Any, counts: Any, fit_intercept: bool, shared_alpha: bool
) -> tuple[Any, ...]:
    """Weights, intercept, dual coefficients, places of the chosen alphas, leave-one-out R2."""
    (n_problems, n, p), q = X.shape, Y.shape[2]
    n_scores = len(alphas) if len(alphas) > 1 else 0
    weights, intercept, dual = (
        _library.new_array(X, shape, X.dtype, 0)
        for shape in ((n_problems, p, q), (n_problems, q), (n_problems, n, q))
    )
    choice = _library.new_array(X, (n_problems, q), "int64", 0)
    scores = _library.new_array(X, (n_problems, n_scores, q), "float64", 0)
    for size, chosen in _groups(X, counts) if n_problems else []:
        solved = solve_group(X[chosen, :size], Y[chosen, :size], alphas, fit_intercept, shared_alpha)
        weights[chosen], intercept[chosen] = (_like(part, X) for part in solved[:2])
        dual[chosen, :size] = _like(solved[2], X)
        choice[chosen] = solved[3]
        scores[chosen] = solved[4] if n_scores else scores[chosen]
    return weights, intercept, dual, choice, scores


def _like(values: Any, X: Any) -> Any:
    return values.astype(X.dtype) if isinstance(X, np.ndarray) else values.to(X.dtype)


def differentiate(
    X: Any,
    alphas: Any,
    counts: Any,
    weights: Any,
    dual: Any,
    grad_weights: Any,
    grad_intercept: Any,
    fit_intercept: bool,
) -> tuple[Any, Any, Any]:
    """Gradients of X, Y and of each target's alpha; ``alphas`` is (problems, targets)."""
    (n_problems, n, p), q = X.shape, weights.shape[2]
    grad_X = _library.new_array(X, (n_problems, n, p), X.dtype, 0)
    grad_Y = _library.new_array(X, (n_problems, n, q), X.dtype, 0)
    grad_alphas = _library.new_array(X, (n_problems, q), "float64", 0)
    for size, chosen in _groups(X, counts) if n_problems else []:
        t = Decomposed(X[chosen, :size], fit_intercept)
        w, g, b = (_wide(part[chosen]) for part in (weights, grad_weights, grad_intercept))
        c = _wide(dual[chosen, :size])
        g = g - t.mean[:, :, None] * b[:, None] if fit_intercept else g
        if t.primal:
            v = t.vectors @ ((_turned(t.vectors) @ g) / (t.values + alphas[chosen][:, None]))
            s, rest = t.x @ v, v * alphas[chosen][:, None]
        else:
            v, s = t.solve(t.x @ g, alphas[chosen])
            rest = g - v
        by_x, by_y = c @ _turned(rest) - s @ _turned(w), s
        if fit_intercept:
            by_x = by_x - (w @ b[:, :, None]).swapaxes(1, 2) / size
            by_y = by_y + b[:, None] / size
        grad_X[chosen, :size], grad_Y[chosen, :size] = _like(by_x, X), _like(by_y, X)
        grad_alphas[chosen] = -(s * c).sum(1)
    return grad_X, grad_Y, grad_alphas
