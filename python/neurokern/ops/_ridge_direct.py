"""Solve for given penalties: a factor for one alpha, eigenvectors for one per target; primal or dual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_sums import blocks, cross, gram, kernel, means, shifted

_CHUNK_BYTES = 1 << 26  # of right-hand sides in float64
_LARGE = 1 << 30  # multiply-adds with all targets, above which float32 input is multiplied in float32


@dataclass(frozen=True)
class Inverse:
    """(A + alpha)^-1 of a positive semidefinite A, for one alpha or one per right-hand side."""

    algebra: Algebra
    shifted: Any = None  # A + alpha, one alpha for all
    values: Any = None  # eigenvalues and eigenvectors of A, one alpha for each
    vectors: Any = None
    alphas: Any = None
    explicit: Any = None  # the inverse itself, for more right-hand sides than rows

    @classmethod
    def of(cls, algebra: Algebra, matrix: Any, alphas: np.ndarray, n_right: int, dtype: str) -> Inverse:
        """Factor A; ``dtype`` is that of the products with more right-hand sides than rows."""
        if alphas.size > 1:
            values, vectors = algebra.eigh(matrix)
            return cls(algebra, None, values.clip(0), vectors, algebra.array(alphas, "float64"))
        identity = algebra.array(np.eye(len(matrix)), "float64")
        total = matrix + float(alphas[0]) * identity
        if n_right <= len(matrix):
            return cls(algebra, total)
        return cls(algebra, None, explicit=algebra.cast(algebra.inverse(total), dtype))

    def times(self, right: Any, targets: slice) -> Any:
        """Apply to right-hand sides (rows, targets) in float64."""
        algebra = self.algebra
        if self.explicit is not None:
            return algebra.mm(self.explicit, algebra.cast(right, _name(self.explicit)))
        if self.shifted is not None:
            return algebra.solve(self.shifted, right)
        rotated = algebra.mm(self.vectors.T, right)
        rotated /= self.values[:, None] + self.alphas[targets]
        return algebra.mm(self.vectors, rotated)


def _name(values: Any) -> str:
    return str(values.dtype).removeprefix("torch.")


def solve_direct(
    algebra: Algebra, problem: Problem, alphas: np.ndarray, fit_intercept: bool
) -> tuple[Any, Any]:
    """Return weights (features, targets) and intercept (targets,)."""
    n_samples, n_features, n_targets = problem.shape
    root = None if problem.weight is None else problem.weight**0.5
    x_mean = means(algebra, problem.X, problem.weight) if fit_intercept else None
    y_mean = means(algebra, problem.Y, problem.weight) if fit_intercept else None
    dual = n_samples < n_features
    rank = min(n_samples, n_features)
    # With few targets the Gram matrix is most of the work, and then all of it may as well be float64.
    large = n_targets > rank and n_samples * n_features * n_targets > _LARGE
    dtype = problem.dtype if large else "float64"
    matrix = (kernel if dual else gram)(algebra, problem.X, x_mean, root)
    inverse = Inverse.of(algebra, matrix, alphas, n_targets, dtype)
    weights = algebra.empty((n_features, n_targets), problem.dtype)
    step = max(1, _CHUNK_BYTES // (8 * n_features + 8 * n_samples))
    for first in range(0, n_targets, step):
        targets = slice(first, min(first + step, n_targets))
        mean = None if y_mean is None else y_mean[targets]
        Y = shifted(algebra, problem.Y[:, targets], mean, root, "float64")
        if not dual:
            C = cross(algebra, problem.X, x_mean, Y, root, dtype)
            weights[:, targets] = algebra.cast(inverse.times(C, targets), problem.dtype)
            continue
        duals = algebra.cast(inverse.times(Y, targets), dtype)
        for columns in blocks(n_features, n_samples):
            part = None if x_mean is None else x_mean[columns]
            block = shifted(algebra, problem.X[:, columns], part, root, dtype)
            weights[columns, targets] = algebra.cast(algebra.mm(block.T, duals), problem.dtype)
    return weights, intercept_of(algebra, weights, x_mean, y_mean, n_targets)


def intercept_of(algebra: Algebra, weights: Any, x_mean: Any, y_mean: Any, n_targets: int) -> Any:
    """Intercepts (targets,) of the weights' type; zeros without means."""
    dtype = _name(weights)
    if x_mean is None:
        return algebra.zeros((n_targets,), dtype)
    total = algebra.zeros((n_targets,), "float64")
    for rows in blocks(*weights.shape):
        total += x_mean[rows] @ algebra.cast(weights[rows], "float64")
    return algebra.cast(y_mean - total, dtype)
