"""Sums over samples and features: means, Gram matrices, cross products.

Values are shifted by their means before they are multiplied: without it a float32 (or even a float64) Gram
matrix of features with a large mean has lost what it is about. Sums over blocks are in float64, blocks are
small beside X.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from neurokern.ops._ridge_blas import Algebra

BLOCK = 1 << 21  # elements of X or Y that are shifted and cast together
ROWS = 4096  # samples that one float32 product sums; sums of such blocks are in float64


def blocks(length: int, width: int, most: int | None = None) -> Iterator[slice]:
    """Cut ``length`` rows of ``width`` elements into blocks."""
    step = max(1, BLOCK // max(width, 1))
    step = min(step, most) if most else step
    for first in range(0, length, step):
        yield slice(first, min(first + step, length))


def means(algebra: Algebra, values: Any, weight: Any | None) -> Any:
    """Return the (weighted) mean of each column in float64."""
    total = algebra.zeros((values.shape[1],), "float64")
    for rows in blocks(*values.shape):
        block = algebra.cast(values[rows], "float64")
        total += block.sum(0) if weight is None else weight[rows] @ block
    return total / (values.shape[0] if weight is None else weight.sum())


def shifted(algebra: Algebra, values: Any, shift: Any | None, root: Any | None, dtype: str) -> Any:
    """Return rows less a shift, times the roots of their weights, in ``dtype``; not always a copy."""
    block = algebra.cast(values, dtype)
    block = block - algebra.cast(shift, dtype) if shift is not None else block
    return block * algebra.cast(root, dtype)[:, None] if root is not None else block


def rounded(algebra: Algebra, mean: Any, dtype: str) -> Any:
    """A mean as a shift: a number of ``dtype``, so that values less the shift are rounded once."""
    return algebra.cast(algebra.cast(mean, dtype), "float64")


def gram(algebra: Algebra, X: Any, mean: Any | None, root: Any | None) -> Any:
    """Return X'X of the shifted, weighted X in float64: (features, features)."""
    total = algebra.zeros((X.shape[1], X.shape[1]), "float64")
    for rows in blocks(*X.shape):
        total += algebra.gram(shifted(algebra, X[rows], mean, _part(root, rows), "float64"))
    return total


def kernel(algebra: Algebra, X: Any, mean: Any | None, root: Any | None, dtype: str = "float64") -> Any:
    """Return XX' of the shifted, weighted X in float64, from products in ``dtype``: (samples, samples)."""
    total = algebra.zeros((X.shape[0], X.shape[0]), "float64")
    for columns in blocks(X.shape[1], X.shape[0], ROWS):
        block = shifted(algebra, X[:, columns], _part(mean, columns), root, dtype)
        total += algebra.gram(block.T)
    return total


def cross(algebra: Algebra, X: Any, x_mean: Any | None, Y: Any, root: Any | None, dtype: str) -> Any:
    """Return X'Y in float64 from products in ``dtype``; Y is shifted and weighted already."""
    total = algebra.zeros((X.shape[1], Y.shape[1]), "float64")
    for rows in blocks(X.shape[0], X.shape[1], ROWS):
        block = shifted(algebra, X[rows], x_mean, _part(root, rows), dtype)
        total += algebra.mm(block.T, algebra.cast(Y[rows], dtype))
    return total


def _part(values: Any | None, part: slice) -> Any | None:
    return None if values is None else values[part]
