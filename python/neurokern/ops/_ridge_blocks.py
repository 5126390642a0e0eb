r"""Cross-validation from one decomposition of the samples' kernel, for many folds or leave-one-out.

The residuals of block b, had it been left out, are :math:`(I - H_{bb})^{-1} (y - \hat y)_b` with the hat
matrix H of all samples [1]_, and :math:`I - H = Q \, \mathrm{diag}(\alpha / (\lambda + \alpha)) Q^T` comes
from the eigenvectors of the kernel. Their part along the constant vector is taken off; its eigenvalue, 0 in a
centered kernel, is lifted to the mean of the others, since two numbers of size one would cancel.

References
----------
.. [1] Cook, Weisberg, "Residuals and influence in regression", Chapman and Hall, 1982, section 3.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_folds import Fold
from neurokern.ops._ridge_parts import Operator, blocks_of, cut
from neurokern.ops._ridge_score_op import ridge_combinations, ridge_sums
from neurokern.ops._ridge_scores import FoldSums, Scores
from neurokern.ops._ridge_wide import KernelSolver, TestSums

_KEPT_BYTES = 1 << 27  # of inverses that are kept between chunks of targets
_AMPLIFIED = 50.0  # norm of an inverse from which on R2 is off by 1e-6 in float32


class _LiftedSolver(KernelSolver):
    def _lifted_share(self, alpha: Any) -> Any:
        """What the lifted direction adds to each product of ones."""
        total = float(self._ones @ self._ones)
        return alpha / (alpha + self._lift * total) / total


class BlockSolver(_LiftedSolver):
    """Folds without samples aside: all residuals of a fold from one matrix for each penalty."""

    def _fold_sums(self, number: int, fold: Fold, scores: Scores) -> FoldSums:
        algebra = self._algebra
        ones = algebra.cast(self._ones[fold.test], self.dtype)
        U = self._U[:, fold.test]
        origin = 0.0 * U[:, 0]
        if self._fit_intercept:  # the mean of the training samples: of it residuals know nothing
            origin = (U @ ones) / float(ones @ ones - self._ones @ self._ones)
            U = U - origin[:, None] * ones[None, :]
        sums = TestSums(algebra, self.skeleton, len(U), products=scores.needs_products)
        sums.add(_Residuals(self, number, len(U)), self._rotated, U, ones, residuals=True)
        return sums.result(U, ones, origin)

    _kept: dict[int, list[Any]] | None = None  # inverses of folds, kept between chunks of targets

    @property
    def inexact(self) -> np.ndarray:
        """Penalties of which residuals are so much larger than those of the fit that its rounding shows."""
        return self.skeleton.alphas[self._amplified]

    @functools.cached_property
    def _amplified(self) -> np.ndarray:
        return np.zeros(len(self.skeleton), bool)

    def inverses(self, number: int, fold: Fold) -> list[Any]:
        """``-(I - H_bb)^-1`` for each skeleton penalty: (samples of the fold, samples of the fold)."""
        if self._kept is None:
            elements = len(self.skeleton) * sum(one.n_test**2 for one in self._folds)
            self._kept = {} if 8 * elements <= _KEPT_BYTES else None
        if self._kept is None:
            return self._inverted(fold)
        if number not in self._kept:
            self._kept[number] = self._inverted(fold)
        return self._kept[number]

    def _inverted(self, fold: Fold) -> list[Any]:
        algebra, vectors, ones = self._algebra, self._vectors[fold.test], self._ones[fold.test]
        found: list[Any] = []
        for alpha in self.skeleton.alphas.tolist():
            own = (vectors * (alpha / (self._values + alpha))[None, :]) @ vectors.T
            if self._fit_intercept:
                own = own - self._lifted_share(alpha) * ones[:, None] * ones[None, :]
            inverse = algebra.inverse(own)
            self._amplified[len(found)] |= float(abs(inverse).sum(1).max()) > _AMPLIFIED
            found.append(algebra.cast(-inverse, self.dtype))
        return found

    def operator(self, fold: Fold, n_targets: int) -> Operator:
        """From rotated targets to the residuals of a fit to all samples."""
        algebra = self._algebra
        alphas = algebra.array(self.skeleton.alphas, "float64")
        kept = alphas[None, :] / (self._values[:, None] + alphas[None, :])
        functions = algebra.host(kept)
        if self._cuts is None:
            self._cuts = cut(functions, self.dtype, n_targets * fold.n_test)
        rows = algebra.cast(self._vectors[fold.test], self.dtype)
        operator = Operator(algebra, fold.n_test, len(self.skeleton), self.dtype)
        for block in blocks_of(functions, self._cuts, self.dtype):
            function = algebra.cast(kept[block.columns] @ algebra.array(block.basis, "float64"), self.dtype)
            operator.add_rows(block, block.columns, rows[:, block.columns], function, n_targets)
        return operator


class _Residuals:
    """Of samples left out together, less in number than a tile of predictions: as an operator."""

    def __init__(self, solver: BlockSolver, number: int, n_targets: int) -> None:
        fold = solver._folds[number]
        self._operator, self._inverses = solver.operator(fold, n_targets), solver.inverses(number, fold)
        self._algebra, self._dtype = solver._algebra, solver.dtype
        self._ones: Any = None

    def add_constant(self, ones: Any) -> None:
        """As :meth:`neurokern.ops._ridge_parts.Operator.add_constant`."""
        self._ones = ones

    def add_sums(self, total: Any, Z: Any, truth: Any | None = None, **options: Any) -> None:
        """As :meth:`neurokern.ops._ridge_parts.Operator.add_sums`."""
        algebra, mix, n_few = self._algebra, self._operator.mix, len(self._inverses)
        for some, parts in self._operator.parts(Z):
            fitted = ridge_combinations(parts, mix)
            n_targets, _, n_samples = fitted.shape
            missed = algebra.empty((n_targets, n_few + (self._ones is not None), n_samples), self._dtype)
            for number, inverse in enumerate(self._inverses):
                algebra.mm_to(fitted[:, number], inverse, missed[:, number])
            if self._ones is not None:
                missed[:, -1] = self._ones
            total[some] += ridge_sums(missed, None, None if truth is None else truth[some], **options)


class SingleWide(_LiftedSolver):
    """Leave-one-out (or generalized) for fewer samples than features."""

    def __init__(
        self, algebra: Algebra, problem: Problem, alphas: np.ndarray, fit_intercept: bool, gcv: bool
    ) -> None:
        everything = [Fold(slice(None), None, np.arange(0), problem.shape[0])]
        super().__init__(algebra, problem, everything, alphas, fit_intercept)
        self._gcv = gcv

    def _fold_sums(self, number: int, fold: Fold, scores: Scores) -> FoldSums:
        algebra, dtype = self._algebra, self.dtype
        alphas = algebra.array(self._alphas, "float64")
        kept = alphas[None, :] / (self._values[:, None] + alphas[None, :])
        # Leverages depend on a penalty in another way than predictions do: all are computed.
        own = (self._vectors**2) @ kept
        if self._fit_intercept:
            own = own - (self._ones**2)[:, None] * self._lifted_share(alphas)[None, :]
        if self._gcv:
            own = 0.0 * own + own.mean(0)
        scale = algebra.cast(-1 / own, dtype).T
        U, ones = self._U, algebra.cast(self._ones, dtype)
        functions = algebra.host(kept)
        if self._cuts is None:
            self._cuts = cut(functions, dtype, U.shape[0] * U.shape[1])
        found = blocks_of(functions, self._cuts, dtype)
        shape = (4, len(self._alphas)) if scores.needs_products else (len(self._alphas),)
        total = algebra.zeros((len(U), *shape), "float64")
        for samples in self._some(U.shape[1], found):
            operator = Operator(algebra, samples.stop - samples.start, len(self._alphas), dtype)
            for block in found:
                function = algebra.cast(kept[block.columns] @ algebra.array(block.basis, "float64"), dtype)
                rows = algebra.cast(self._vectors[samples, block.columns], dtype)
                operator.add_rows(block, block.columns, rows, function, len(U))
            products = {"ones": ones[samples]} if scores.needs_products else {}
            truth = U[:, samples] if products else None
            operator.add_sums(
                total, self._rotated, truth, scale=scale[:, samples], residuals=True, **products
            )
        wide, ones = algebra.cast(U, "float64"), algebra.cast(ones, "float64")
        parts = [total[:, k] for k in range(4)] if scores.needs_products else [total]
        origin = 0.0 * wide[:, 0]
        return FoldSums(float(ones @ ones), origin, wide @ ones, (wide * wide).sum(1), *parts)
