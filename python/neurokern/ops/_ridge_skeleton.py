r"""A few penalties that stand for a long grid.

Sums of squares of predictions depend on a penalty through products :math:`g_i(\alpha) g_j(\alpha)` with
:math:`g_i(\alpha) = \lambda_i / (\lambda_i + \alpha)`, smooth functions of :math:`\alpha`. Their matrix over
a grid has a low numerical rank, so that the sums at a few penalties of the grid, weighted, give those at all
others.
"""

from __future__ import annotations

import numpy as np

# Of the sums, in units of their largest: above the rounding of the products, and below 1e-6 of R2.
TOLERANCE = {"float32": 2e-7, "float64": 1e-12}
_EIGENVALUES = 40  # that stand for the spectrum


def skeleton(
    alphas: np.ndarray, smallest: float, largest: float, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    """Choose penalties from a grid, for training samples with eigenvalues from ``smallest`` to ``largest``.

    Returns
    -------
    chosen : (few,) indices into ``alphas``
    weights : (few, alphas)
        Sums at the chosen penalties times these weights are the sums at all.
    """
    if alphas.size < 8 or not largest > 0:
        return np.arange(alphas.size), np.eye(alphas.size)
    lowest = max(smallest, 1e-9 * alphas[0], 1e-15 * largest)
    spectrum = np.geomspace(min(lowest, largest), largest, _EIGENVALUES)
    g = np.column_stack([np.ones(alphas.size), spectrum / (spectrum + alphas[:, None])])
    first, second = np.triu_indices(g.shape[1])
    return _interpolated(g[:, first] * g[:, second], TOLERANCE[dtype])


def few_predictions(alphas: np.ndarray, values: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The same for the predictions themselves, which depend on a penalty through each g alone."""
    positive = np.unique(values[values > 1e-15 * values.max(initial=0)])
    if positive.size == 0 or alphas.size < 4:
        return np.arange(alphas.size), np.eye(alphas.size)
    some = positive[np.linspace(0, positive.size - 1, min(positive.size, 5 * _EIGENVALUES)).astype(int)]
    return _interpolated(some / (some + alphas[:, None]), TOLERANCE[dtype])


def _interpolated(rows: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stand for all, and the weights (few, all) with which they do."""
    chosen = _pivots(rows, tolerance)
    if len(chosen) == len(rows):
        return chosen, np.eye(len(rows))
    return chosen, np.linalg.lstsq(rows[chosen].T, rows.T, rcond=None)[0]


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
