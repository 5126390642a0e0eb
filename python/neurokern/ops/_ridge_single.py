r"""Leave-one-out and generalized cross-validation: every sample a test set of its own, none of them refitted.

A sample left out is missed by :math:`(y_i - \hat y_i) / (1 - h_i)` with its leverage :math:`h_i`; generalized
cross-validation replaces the leverages by their mean [1]_. ``_ridge_blocks`` does it for fewer samples than
features.

References
----------
.. [1] Golub, Heath, Wahba, "Generalized cross-validation as a method for choosing a good ridge parameter",
   Technometrics 21, 1979.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_folds import Fold
from neurokern.ops._ridge_parts import Block, Operator, blocks_of, cut
from neurokern.ops._ridge_scores import FoldSums, Scores
from neurokern.ops._ridge_skeleton import Skeleton
from neurokern.ops._ridge_tall import MatrixMoments, TallSolver, TargetSums

_ROWS = 128  # samples that are left out one by one in one product


class SingleTall:
    """Leave-one-out (or generalized) for fewer features than samples."""

    def __init__(
        self, algebra: Algebra, problem: Problem, alphas: np.ndarray, fit_intercept: bool, gcv: bool
    ) -> None:
        everything = [Fold(slice(None), None, np.arange(0), problem.shape[0])]
        self._moments = MatrixMoments(algebra, problem, everything, fit_intercept)
        self.dtype, self._algebra, self._gcv, self._alphas = problem.dtype, algebra, gcv, alphas
        self._intercept = fit_intercept
        self._solver = TallSolver(self._moments, alphas, fit_intercept, score_folds=False)
        self.full, self.x_shift, self.y_shift = (
            self._solver.full,
            self._moments.x_shift,
            self._moments.y_shift,
        )
        values = algebra.host(self.full.values)
        smallest, largest = float(values[values > 0].min(initial=np.inf)), float(values.max())
        self.spectrum = self._solver.spectrum
        self.skeleton = Skeleton(algebra, alphas, smallest, largest, self.dtype)
        self._shrink = self.full.shrink(algebra.array(alphas, "float64"))
        self._cuts: list[slice] | None = None  # of eigenvalues into blocks
        self.x_mean = self._solver.x_mean
        self.chunks, self.weights = self._solver.chunks, self._solver.weights

    def load(self, targets: slice) -> None:
        """Take up a chunk of targets."""
        self._solver.load(targets)
        self._targets = targets

    def score(self, scores: Scores) -> Any:
        """Scores (targets, alphas) of the chunk."""
        algebra, basis, moments = self._algebra, self.full, self._moments
        total: TargetSums = self._solver.total
        Z = algebra.mm(total.cross, basis.rotation)
        if self._gcv:
            return _generalized(
                algebra, scores, basis.values, Z, total, self._alphas, basis.weight, self._intercept
            )
        weight = basis.weight
        origin = algebra.cast(total.y, "float64") / weight if self._intercept else 0.0 * total.y
        products = scores.needs_products
        n_alphas = len(self._alphas)
        sums = algebra.zeros((Z.shape[0], 4, n_alphas) if products else (Z.shape[0], n_alphas), "float64")
        blocks = self._blocks(Z.shape[0] * moments.X.shape[0])
        for first in range(0, moments.X.shape[0], _ROWS):
            rows = slice(first, min(first + _ROWS, moments.X.shape[0]))
            self._add_rows(rows, blocks, Z, algebra.cast(origin, self.dtype), sums, products)
        y = algebra.cast(total.y, "float64")
        y_squared = total.y_squared + origin * (weight * origin - 2 * y)
        found = [sums[:, k] for k in range(4)] if products else [sums]
        scores.add(FoldSums(weight, origin, y - weight * origin, y_squared, *found))
        return scores.result()

    def _blocks(self, n_rows: int) -> list[Block]:
        """Blocks of eigenvalues; leverages are another function of the penalty, so that none is left out."""
        shares = self._algebra.host(self.full.values[:, None] * self._shrink)
        if self._cuts is None:
            self._cuts = cut(shares, self.dtype, n_rows)
        return blocks_of(shares, self._cuts, self.dtype)

    def _add_rows(
        self, rows: slice, blocks: list[Block], Z: Any, origin: Any, sums: Any, products: bool
    ) -> None:
        """Add squared errors (and products) of some samples that are left out one by one."""
        algebra, basis, moments, dtype = self._algebra, self.full, self._moments, self.dtype
        B = algebra.mm(moments.X[rows], basis.rotation)
        leverage = algebra.cast(B, "float64") ** 2 @ self._shrink
        ones = moments.X[rows, -1]
        if self._intercept:
            leverage = leverage + (algebra.cast(ones, "float64") ** 2 / basis.weight)[:, None]
        operator = Operator(algebra, len(B), len(self._alphas), dtype)
        for block in blocks:
            functions = self._shrink[block.columns] @ algebra.array(block.basis, "float64")
            functions = algebra.cast(functions, dtype)
            operator.add_rows(block, block.columns, B[:, block.columns], functions, len(Z))
        y = moments.targets(rows, self._targets) - origin[:, None] * ones[None, :]
        scale = algebra.cast(1 / (1 - leverage), dtype).T
        operator.add_sums(sums, Z, y, scale=scale, ones=ones if products else None)


def _generalized(
    algebra: Algebra,
    scores: Scores,
    values: Any,
    Z: Any,
    total: TargetSums,
    alphas: np.ndarray,
    weight: float,
    fit_intercept: bool,
) -> Any:
    """Generalized cross-validation from sums of squares of targets in the eigenbasis of the features."""
    penalties = algebra.array(alphas, "float64")
    y = algebra.cast(total.y, "float64")
    y_squared = total.y_squared - (y * y / weight if fit_intercept else 0.0)
    positive = algebra.xp.where(values > 0, values, 0.0 * values + 1.0)
    power = algebra.cast(Z, "float64") ** 2 * ((values > 0) / positive)[None, :]  # of y along each direction
    kept = (penalties[None, :] / (values[:, None] + penalties[None, :])) ** 2
    residual = (y_squared - power.sum(1)).clip(0)[:, None] + power @ kept
    freedom = (values[:, None] / (values[:, None] + penalties[None, :])).sum(0) + float(fit_intercept)
    scores.add(
        FoldSums(weight, y / weight, 0.0 * y, y_squared, residual / (1 - freedom / weight)[None, :] ** 2)
    )
    return scores.result()
