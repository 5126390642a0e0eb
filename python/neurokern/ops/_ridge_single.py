r"""Leave-one-out and generalized cross-validation: every sample a test set of its own, none of them refitted.

A sample left out is missed by :math:`(y_i - \hat y_i) / (1 - h_i)` with its leverage :math:`h_i`; generalized
cross-validation replaces the leverages by their mean [1]_. With fewer samples than features
:math:`I - H = Q \, \mathrm{diag}(\alpha / (\lambda + \alpha)) Q^T` comes from the eigenvectors of the kernel,
with the eigenvalue of the constant vector lifted (see ``_ridge_wide``).

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
from neurokern.ops._ridge_scores import FoldSums, Scores
from neurokern.ops._ridge_skeleton import Skeleton
from neurokern.ops._ridge_tall import MatrixMoments, TallSolver, TargetSums
from neurokern.ops._ridge_wide import WideSolver

_OUT_ELEMENTS = 1 << 20  # of the predictions of some samples and targets
_COLUMNS = 1024  # samples times penalties in one product


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
        self._spread = algebra.cast(self.skeleton.weights, self.dtype)
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
        sums = [algebra.zeros((Z.shape[0], len(self._alphas)), "float64") for _ in range(4)]
        step = max(1, _COLUMNS // len(self.skeleton))
        for first in range(0, moments.X.shape[0], step):
            rows = slice(first, min(first + step, moments.X.shape[0]))
            self._add_rows(rows, Z, algebra.cast(origin, self.dtype), sums, scores.needs_products)
        y = algebra.cast(total.y, "float64")
        y_squared = total.y_squared + origin * (weight * origin - 2 * y)
        found = sums if scores.needs_products else [sums[0]]
        scores.add(FoldSums(weight, origin, y - weight * origin, y_squared, *found))
        return scores.result()

    def _add_rows(self, rows: slice, Z: Any, origin: Any, sums: list[Any], needs_products: bool) -> None:
        """Add squared errors (and products) of some samples that are left out one by one."""
        algebra, basis, moments = self._algebra, self.full, self._moments
        B = algebra.mm(moments.X[rows], basis.rotation)
        shrink = basis.shrink(algebra.array(self._alphas, "float64"))
        leverage = algebra.cast(B, "float64") ** 2 @ shrink
        ones = moments.X[rows, -1]
        if self._intercept:
            leverage = leverage + (algebra.cast(ones, "float64") ** 2 / basis.weight)[:, None]
        scale = algebra.cast(1 / (1 - leverage), self.dtype)
        few = algebra.cast(basis.shrink(algebra.array(self.skeleton.alphas, "float64")), self.dtype)
        stacked = (B.T[:, :, None] * few[:, None, :]).reshape(B.shape[1], -1)
        y = moments.targets(rows, self._targets) - origin[:, None] * ones[None, :]
        width = max(1, _OUT_ELEMENTS // (len(self._alphas) * len(B)))
        for at in range(0, Z.shape[0], width):
            part = slice(at, min(at + width, Z.shape[0]))
            fits = algebra.mm(Z[part], stacked)
            if not self.skeleton.complete:
                fits = algebra.mm(fits.reshape(-1, len(self.skeleton)), self._spread)
            missed = fits.reshape(-1, len(B), len(self._alphas))  # written over
            truth = y[part][:, :, None]
            missed -= truth
            missed *= scale[None, :, :]
            sums[0][part] += algebra.xp.einsum("cra,cra->ca", missed, missed)
            if needs_products:
                guessed = truth + missed
                sums[1][part] += (guessed * ones[None, :, None]).sum(1)
                sums[2][part] += (guessed * guessed).sum(1)
                sums[3][part] += (guessed * truth).sum(1)


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


class SingleWide(WideSolver):
    """Leave-one-out for fewer samples than features: all residuals from one matrix per penalty."""

    _rows_apart = True

    def __init__(
        self, algebra: Algebra, problem: Problem, alphas: np.ndarray, fit_intercept: bool, gcv: bool
    ) -> None:
        everything = [Fold(slice(None), None, np.arange(0), problem.shape[0])]
        super().__init__(algebra, problem, everything, alphas, fit_intercept, by_blocks=True)
        self._gcv = gcv
        # The leverages depend on a penalty in another way than predictions do: all are solved.
        self.skeleton = Skeleton(algebra, alphas, 0.0, 0.0, self.dtype)

    def _residuals(self, vectors: Any, ones: Any, samples: slice, alpha: float) -> Any:
        kept = vectors * (alpha / (self._values + alpha))[None, :]
        own = (kept * vectors).sum(1)
        if self._fit_intercept:
            own = own - self._lifted_share(alpha) * ones**2
        if self._gcv:
            own = 0.0 * own + own.sum() / len(own)
        return kept[samples] / own[samples][:, None]
