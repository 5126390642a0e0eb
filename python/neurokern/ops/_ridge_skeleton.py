r"""A few penalties that stand for a long grid.

Predictions depend on a penalty through :math:`\lambda_i / (\lambda_i + \alpha)`, smooth functions of it.
Their matrix over a grid has a low numerical rank, so that the predictions for a few penalties of the grid,
weighted, are those for all others, and products of the few give sums of squares for all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurokern.ops._ridge_blas import Algebra

# Of predictions; their squared errors change by far less, since the weights fit all eigenvalues at once.
TOLERANCE = {"float32": 3e-6, "float64": 1e-13}
_PARTS = 30  # what a prediction is a combination of; products of pairs of the few must be less work
_EIGENVALUES = 100  # that stand for the spectrum


class Skeleton:
    """Penalties chosen from an ascending grid.

    Parameters
    ----------
    alphas : (alphas,)
    smallest, largest : float
        Between which the eigenvalues of all training samples lie, except for those of 0.
    dtype : str
        Of the products.
    """

    def __init__(
        self,
        algebra: Algebra,
        alphas: np.ndarray,
        smallest: float,
        largest: float,
        dtype: str,
        *,
        relative: bool = True,
    ) -> None:
        chosen = np.arange(alphas.size)
        if alphas.size > 2 and largest > 0:
            lowest = max(smallest, 1e-9 * float(alphas[0]), 1e-15 * largest)
            spectrum = np.geomspace(min(lowest, largest), largest, _EIGENVALUES)
            shares = spectrum / (spectrum + alphas[:, None])
            # Correlations do not forgive large penalties a larger error beside their small predictions.
            sizes = shares.max(1)
            shares /= sizes[:, None]
            chosen = _pivots(shares, TOLERANCE[dtype])
            if _PARTS * (alphas.size - chosen.size) < chosen.size * (chosen.size + 1) / 2:
                chosen = np.arange(alphas.size)
        self.alphas = alphas[chosen]
        self.complete = chosen.size == alphas.size
        weights = np.eye(alphas.size)
        if not self.complete:
            weights = np.linalg.lstsq(shares[chosen].T, shares.T, rcond=None)[0]
            weights *= sizes / sizes[chosen, None]
        self.weights = algebra.array(weights, "float64")  # (few, alphas)
        first, second = np.tril_indices(chosen.size)
        pairs = weights[first] * weights[second] * np.where(first == second, 1.0, 2.0)[:, None]
        self._pairs = algebra.array(pairs, "float64")
        self._algebra = algebra

    def __len__(self) -> int:
        return int(self.alphas.size)

    @property
    def bytes_per_target(self) -> int:
        """Memory of the sums of a fold and of the scores, per target."""
        return 8 * (8 * int(self.weights.shape[1]) + len(self) ** 2)

    def sums(self, values: Any) -> Any:
        """Sums of predictions, (targets, few), to those of all penalties."""
        return values if self.complete else self._algebra.cast(values, "float64") @ self.weights

    @property
    def n_pairs(self) -> int:
        return len(self) * (len(self) + 1) // 2

    def squares(self, pairs: Any) -> Any:
        """Sums of products of pairs (targets, pairs) to sums of squares (targets, alphas)."""
        return (pairs @ self._pairs).clip(0)


def _pivots(rows: np.ndarray, tolerance: float) -> np.ndarray:
    """Rows by which all others can be written to the tolerance: greedy, as in a QR with pivots."""
    rest = rows.copy()
    chosen: list[int] = []
    for _ in range(len(rows)):
        largest = np.abs(rest).max(axis=1)
        pivot = int(largest.argmax())
        if largest[pivot] <= tolerance:
            break
        chosen.append(pivot)
        direction = rest[pivot] / np.linalg.norm(rest[pivot])
        rest -= np.outer(rest @ direction, direction)
    return np.sort(np.array(chosen))
