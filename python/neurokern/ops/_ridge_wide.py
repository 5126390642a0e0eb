r"""Cross-validation from the samples' kernel matrix :math:`K = X X^T`, for fewer samples than features.

Predictions of test samples are a matrix times the training targets. It comes from the eigenvectors of the
training samples' kernel, or, for many folds, from those of the whole kernel alone: the residuals of block b,
had it been left out, are :math:`(I - H_{bb})^{-1} (y - \hat y)_b` with the hat matrix H of all samples [1]_.
There the eigenvalue of the constant vector, 0 in a centered kernel, is lifted to the mean of the others,
since two numbers of size one would cancel.

References
----------
.. [1] Cook, Weisberg, "Residuals and influence in regression", Chapman and Hall, 1982, section 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_folds import Fold
from neurokern.ops._ridge_scores import FoldSums, Scores
from neurokern.ops._ridge_skeleton import skeleton
from neurokern.ops._ridge_sums import blocks, kernel, means, shifted

_LARGE = 1 << 32  # multiply-adds of the kernel, above which float32 input is multiplied in float32
_STACK_BYTES = 1 << 26  # of the prediction matrices of some penalties
_OUT_BYTES = 1 << 22  # of the predictions of some targets: stays in cache
_CHUNK_BYTES = 1 << 27  # of a chunk of targets
_KEPT_BYTES = 1 << 28  # of eigenvectors that are kept between chunks of targets


class WideSolver:
    """Scores and weights of chunks of targets; ``by_blocks`` takes one decomposition for all folds."""

    def __init__(
        self,
        algebra: Algebra,
        problem: Problem,
        folds: list[Fold],
        alphas: np.ndarray,
        fit_intercept: bool,
        by_blocks: bool,
    ) -> None:
        self._algebra, self._problem, self._folds, self._alphas = algebra, problem, folds, alphas
        self.dtype, self._by_blocks, self._fit_intercept = problem.dtype, by_blocks, fit_intercept
        weight = problem.weight
        self._root = None if weight is None else weight**0.5
        ones = algebra.array(np.ones(problem.shape[0]), "float64")
        self._ones = ones if self._root is None else self._root  # what a constant is after weighting
        self.x_shift = means(algebra, problem.X, weight) if fit_intercept else None
        self.y_shift = means(algebra, problem.Y, weight) if fit_intercept else None
        n_samples, n_features, _ = problem.shape
        # With fewer features than samples most eigenvalues are 0, and must not be the rounding of float32.
        large = n_samples**2 * n_features > _LARGE and n_features > n_samples
        self._kernel = kernel(
            algebra, problem.X, self.x_shift, self._root, self.dtype if large else "float64"
        )
        self._lift = 0.0
        centered = self._kernel
        if fit_intercept:
            centered = _centered(centered, self._ones)
            self._lift = float(centered.diagonal().sum()) / len(centered) or 1.0
            centered = centered + self._lift * self._ones[:, None] * self._ones[None, :]
        values, self._vectors = algebra.eigh(centered)
        self._values = values.clip(0)
        # Kernels of fewer samples have no smaller eigenvalues, unless this one has many of 0.
        smallest, largest = float(self._values[0]), float(self._values[-1])
        chosen, weights = skeleton(alphas, smallest, largest, self.dtype)
        self.solved = alphas[chosen]
        self._spread = None if len(chosen) == alphas.size else algebra.array(weights, "float64")
        self._kept: dict[int, tuple[Any, Any, Any]] = {}
        self.x_mean = self.x_shift

    def chunks(self) -> Iterator[slice]:
        """Chunks of targets with bounded memory."""
        n_samples, _, n_targets = self._problem.shape
        size = 4 if self.dtype == "float32" else 8
        step = max(256, _CHUNK_BYTES // (size * n_samples + 32 * self._alphas.size))
        for first in range(0, n_targets, step):
            yield slice(first, min(first + step, n_targets))

    def load(self, targets: slice) -> None:
        """Take up a chunk of targets: (targets, samples), about their means, weighted."""
        algebra, Y = self._algebra, self._problem.Y
        self._U = algebra.empty((targets.stop - targets.start, Y.shape[0]), self.dtype)
        shift = None if self.y_shift is None else self.y_shift[targets]
        for rows in blocks(Y.shape[0], targets.stop - targets.start):
            root = None if self._root is None else self._root[rows]
            self._U[:, rows] = shifted(algebra, Y[rows, targets], shift, root, self.dtype).T
        self._Z: Any = None

    @property
    def _rotated(self) -> Any:
        """Targets in the basis of the whole kernel's eigenvectors."""
        if self._Z is None:
            self._Z = self._algebra.mm(self._U, self._algebra.cast(self._vectors, self.dtype))
        return self._Z

    def score(self, scores: Scores) -> Any:
        """Scores (targets, alphas) of the chunk."""
        for number, fold in enumerate(self._folds):
            scores.add(self._block_sums(fold, scores) if self._by_blocks else self._fold_sums(number, scores))
        return scores.result()

    def weights(self, alphas: Any) -> tuple[Any, Any]:
        """Weights (features, targets), and the mean of y about its shift, with a penalty for each target."""
        algebra, X = self._algebra, self._problem.X
        shrunk = self._rotated / algebra.cast(self._values[None, :] + alphas[:, None], self.dtype)
        duals = algebra.mm(algebra.cast(self._vectors, self.dtype), shrunk.T)
        if self._fit_intercept:  # the lifted direction has no part in it
            ones = algebra.cast(self._ones, self.dtype)
            duals = duals - ones[:, None] * ((ones @ duals) / (ones @ ones))[None, :]
        weights = algebra.empty((X.shape[1], duals.shape[1]), self.dtype)
        for columns in blocks(X.shape[1], X.shape[0]):
            shift = None if self.x_shift is None else self.x_shift[columns]
            block = shifted(algebra, X[:, columns], shift, self._root, self.dtype)
            weights[columns] = algebra.mm(block.T, duals)
        return weights, algebra.zeros((duals.shape[1],), "float64")

    # ---- a decomposition for each fold

    def _decomposed(self, number: int) -> tuple[Any, Any, Any]:
        """Eigenvalues, eigenvectors and rotated test rows of the centered kernel of a fold."""
        if number in self._kept:
            return self._kept[number]
        algebra, fold, ones = self._algebra, self._folds[number], self._ones
        train, test = fold.train, fold.test
        inner = self._kernel[train][:, train]
        cross = self._kernel[test][:, train]
        if self._fit_intercept:
            own = ones[train]
            weight = own @ own
            mean_row = (own @ inner) / weight
            cross = cross - ones[test][:, None] * mean_row[None, :]
            cross = cross - ((cross @ own) / weight)[:, None] * own[None, :]
            inner = _centered(inner, own)
        values, vectors = algebra.eigh(inner)
        values = algebra.xp.where(values > values[-1] * 2.3e-16 * len(values), values, 0.0 * values)
        rows = algebra.cast(cross @ vectors, self.dtype)
        if self._fit_intercept:  # so that it may be applied to targets that are not centered
            vectors = vectors - own[:, None] * ((own @ vectors) / weight)[None, :]
        found = values, algebra.cast(vectors, self.dtype), rows
        size = 4 if self.dtype == "float32" else 8
        if len(self._folds) * size * self._problem.shape[0] ** 2 <= _KEPT_BYTES:
            self._kept[number] = found
        return found

    def _fold_sums(self, number: int, scores: Scores) -> FoldSums:
        algebra, fold = self._algebra, self._folds[number]
        values, vectors, rows = self._decomposed(number)
        train = self._U[:, fold.train]
        own = algebra.cast(self._ones[fold.train], self.dtype)
        origin = (train @ own) / (own @ own) if self._fit_intercept else 0.0 * train[:, 0]
        ones = algebra.cast(self._ones[fold.test], self.dtype)
        U = self._U[:, fold.test] - origin[:, None] * ones[None, :]
        shrink = (values > 0)[:, None] / (values[:, None] + algebra.array(self.solved, "float64")[None, :])
        shrink = algebra.cast(shrink, self.dtype)
        rotate = len(U) < len(self.solved) * fold.n_test
        Z = algebra.mm(train, vectors) if rotate else train

        def operator(alphas: slice) -> Any:
            stacked = rows.T[:, None, :] * shrink[:, alphas, None]
            stacked = stacked.reshape(stacked.shape[0], -1)
            return stacked if rotate else algebra.mm(vectors, stacked)

        return self._sums(operator, Z, U, ones, origin, scores, are_residuals=False)

    # ---- one decomposition for all folds

    def _block_sums(self, fold: Fold, scores: Scores) -> FoldSums:
        algebra = self._algebra
        vectors, ones = self._vectors[fold.test], self._ones[fold.test]

        def operator(alphas: slice) -> Any:
            parts = [self._residuals(vectors, ones, alpha) for alpha in self.solved[alphas].tolist()]
            return algebra.xp.concatenate([algebra.cast(part, self.dtype).T for part in parts], 1)

        bulk_ones = algebra.cast(ones, self.dtype)
        U = self._U[:, fold.test]
        origin = 0.0 * U[:, 0]
        return self._sums(operator, self._rotated, U, bulk_ones, origin, scores, are_residuals=True)

    def _residuals(self, vectors: Any, ones: Any, alpha: float) -> Any:
        """Matrix from rotated targets to the residuals of samples left out together: (samples, rank)."""
        kept = vectors * (alpha / (self._values + alpha))[None, :]
        own = kept @ vectors.T
        if self._fit_intercept:
            total = float(self._ones @ self._ones)
            own = own - alpha / (alpha + self._lift * total) / total * ones[:, None] * ones[None, :]
        return self._algebra.solve(own, kept)

    # ---- both

    def _sums(
        self, operator: Any, Z: Any, U: Any, ones: Any, origin: Any, scores: Scores, *, are_residuals: bool
    ) -> FoldSums:
        """Sums of one fold; ``operator(alphas)`` is (rank, alphas * test samples), Z its (targets, rank)."""
        algebra, xp = self._algebra, self._algebra.xp
        n_targets, n_test = U.shape
        n_solved = len(self.solved)
        U = xp.ascontiguousarray(U) if xp is np else U.contiguous()
        error, guess, squared, product = (algebra.zeros((n_targets, n_solved), "float64") for _ in range(4))
        group = max(1, _STACK_BYTES // (4 * n_test * Z.shape[1]))
        for first in range(0, n_solved, group):
            alphas = slice(first, min(first + group, n_solved))
            stacked = operator(alphas)
            width = max(64, _OUT_BYTES // (4 * stacked.shape[1]))
            for at in range(0, n_targets, width):
                rows = slice(at, min(at + width, n_targets))
                out = algebra.mm(Z[rows], stacked).reshape(-1, alphas.stop - first, n_test)
                truth = U[rows][:, None, :]
                if scores.needs_products:
                    guessed = truth - out if are_residuals else out
                    guess[rows, alphas] = guessed @ ones
                    squared[rows, alphas] = algebra.sum_squares(guessed)
                    product[rows, alphas] = (guessed * truth).sum(-1)
                if not are_residuals:
                    out -= truth
                error[rows, alphas] = algebra.sum_squares(out)
        U64 = algebra.cast(U, "float64")
        ones = algebra.cast(ones, "float64")
        y, y_squared = U64 @ ones, (U64 * U64).sum(1)
        sums = [
            float(ones @ ones),
            algebra.cast(origin, "float64"),
            y,
            y_squared,
            self._at_all(error).clip(0),
        ]
        if scores.needs_products:
            sums += [self._at_all(values) for values in (guess, squared, product)]
        return FoldSums(*sums)

    def _at_all(self, values: Any) -> Any:
        """From the penalties that were solved to all."""
        return values if self._spread is None else values @ self._spread


def _centered(matrix: Any, ones: Any) -> Any:
    """``P matrix P`` with ``P = I - 11'/1'1``, of a symmetric matrix."""
    unit = ones / (ones @ ones) ** 0.5
    row = unit @ matrix
    twice = unit[:, None] * row[None, :]
    return matrix - twice - twice.T + (row @ unit) * unit[:, None] * unit[None, :]
