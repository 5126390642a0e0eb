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

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_folds import Fold
from neurokern.ops._ridge_scores import FoldSums, Scores
from neurokern.ops._ridge_skeleton import Skeleton
from neurokern.ops._ridge_sums import blocks, kernel, means, rounded, shifted

_LARGE = 1 << 32  # multiply-adds of the kernel, above which float32 input is multiplied in float32
_STACK_BYTES = 1 << 26  # of the prediction matrices of all penalties for some samples
_OUT_BYTES = 1 << 22  # of the predictions of some targets: stays in cache
_CHUNK_BYTES = 1 << 27  # of a chunk of targets
_KEPT_BYTES = 1 << 28  # of eigenvectors that are kept between chunks of targets


class WideSolver:
    """Scores and weights of chunks of targets; ``by_blocks`` takes one decomposition for all folds."""

    _rows_apart = False  # whether the residuals of some samples can be had without those of their block

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
        self.x_mean = means(algebra, problem.X, weight) if fit_intercept else None
        self.x_shift = self.y_shift = None
        if fit_intercept:
            self.x_shift = rounded(algebra, self.x_mean, self.dtype)
            self.y_shift = rounded(algebra, means(algebra, problem.Y, weight), self.dtype)
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
            # Any lift is right on paper; this one makes its eigenvalue the mean of the others.
            mean = float(centered.diagonal().sum()) / len(centered) or 1.0
            self._lift = mean / float(self._ones @ self._ones)
            centered = centered + self._lift * self._ones[:, None] * self._ones[None, :]
        values, self._vectors = algebra.eigh(centered)
        self._values = values.clip(0)
        # Kernels of fewer samples have no smaller eigenvalues, unless this one has many of 0.
        smallest, largest = float(self._values[0]), float(self._values[-1])
        self.spectrum = smallest, largest
        self.skeleton = Skeleton(algebra, alphas, smallest, largest, self.dtype)
        self._kept: dict[int, tuple[Any, Any, Any]] = {}

    def chunks(self) -> Iterator[slice]:
        """Chunks of targets with bounded memory."""
        n_samples, _, n_targets = self._problem.shape
        size = 4 if self.dtype == "float32" else 8
        step = max(256, _CHUNK_BYTES // (3 * size * n_samples + self.skeleton.bytes_per_target))
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
        self._y_mean = 0.0 * algebra.cast(self._U[:, 0], "float64")  # about the shift
        if self._fit_intercept:
            ones = algebra.cast(self._ones, self.dtype)
            mean = (self._U @ ones) / (ones @ ones)
            self._U -= mean[:, None] * ones[None, :]
            self._y_mean = algebra.cast(mean, "float64")

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
        return weights, self._y_mean

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
        alphas = algebra.array(self.skeleton.alphas, "float64")
        shrink = algebra.cast((values > 0)[:, None] / (values[:, None] + alphas[None, :]), self.dtype)
        rotate = len(U) < len(alphas) * fold.n_test
        Z = algebra.mm(train, vectors) if rotate else train

        def operator(samples: slice) -> Any:
            stacked = rows[samples].T[:, None, :] * shrink[:, :, None]
            stacked = stacked.reshape(stacked.shape[0], -1)
            return stacked if rotate else algebra.mm(vectors, stacked)

        return self._sums(operator, Z, U, ones, origin, scores)

    # ---- one decomposition for all folds

    def _block_sums(self, fold: Fold, scores: Scores) -> FoldSums:
        algebra = self._algebra
        vectors, ones = self._vectors[fold.test], self._ones[fold.test]

        def operator(samples: slice) -> Any:
            parts = [
                algebra.cast(self._residuals(vectors, ones, samples, alpha), self.dtype).T
                for alpha in self.skeleton.alphas.tolist()
            ]
            return algebra.xp.concatenate(parts, 1)

        U = self._U[:, fold.test]
        own = algebra.cast(ones, self.dtype)
        origin = 0.0 * U[:, 0]
        if self._rows_apart:
            return self._sums(operator, self._rotated, U, own, origin, scores)
        if (
            self._fit_intercept
        ):  # the mean of the training samples: about it, predictions vanish as alpha grows
            origin = (U @ own) / float(ones @ ones - self._ones @ self._ones)
            U = U - origin[:, None] * own[None, :]
        return self._sums(operator, self._rotated, U, own, origin, scores, fold.n_test)

    def _residuals(self, vectors: Any, ones: Any, samples: slice, alpha: float) -> Any:
        """Matrix from rotated targets to the residuals of samples left out together: (samples, rank)."""
        kept = vectors * (alpha / (self._values + alpha))[None, :]
        own = kept @ vectors.T
        if self._fit_intercept:
            own = own - self._lifted_share(alpha) * ones[:, None] * ones[None, :]
        return self._algebra.inverse(own) @ kept

    def _lifted_share(self, alpha: float) -> float:
        """What the lifted direction adds to each product of ones."""
        total = float(self._ones @ self._ones)
        return alpha / (alpha + self._lift * total) / total

    # ---- both

    def _sums(
        self,
        operator: Callable[[slice], Any],
        Z: Any,
        U: Any,
        ones: Any,
        origin: Any,
        scores: Scores,
        whole: int | None = None,
    ) -> FoldSums:
        """Sums of one fold from ``Z @ operator(samples)``, Z being (targets, rank).

        The operator gives (rank, few alphas * samples): predictions about ``origin``, or residuals of blocks;
        test samples are taken some at a time, or ``whole`` at once.
        """
        algebra, skeleton = self._algebra, self.skeleton
        n_targets, n_test = U.shape
        squares = skeleton.empty_squares(n_targets)
        product, guess = (algebra.zeros((n_targets, len(skeleton)), "float64") for _ in range(2))
        step = whole or max(1, _STACK_BYTES // (4 * len(skeleton) * Z.shape[1]))
        for first in range(0, n_test, step):
            samples = slice(first, min(first + step, n_test))
            stacked = operator(samples)
            width = max(64, _OUT_BYTES // (4 * stacked.shape[1]))
            for at in range(0, n_targets, width):
                rows = slice(at, min(at + width, n_targets))
                out = algebra.mm(Z[rows], stacked).reshape(-1, len(skeleton), samples.stop - first)
                truth = U[rows, samples]
                if self._by_blocks:
                    out = truth[:, None, :] - out
                skeleton.add_squares(squares[rows], out)
                product[rows] += (out @ truth[:, :, None])[:, :, 0]
                if scores.needs_products:
                    guess[rows] += out @ ones[samples]
        U, ones = algebra.cast(U, "float64"), algebra.cast(ones, "float64")
        y, y_squared = U @ ones, (U * U).sum(1)
        squared, product = skeleton.squares(squares), skeleton.sums(product)
        error = (y_squared[:, None] + squared - 2 * product).clip(0)
        sums = float(ones @ ones), algebra.cast(origin, "float64"), y, y_squared, error
        return FoldSums(*sums, skeleton.sums(guess), squared, product)


def _centered(matrix: Any, ones: Any) -> Any:
    """``P matrix P`` with ``P = I - 11'/1'1``, of a symmetric matrix."""
    unit = ones / (ones @ ones) ** 0.5
    row = unit @ matrix
    twice = unit[:, None] * row[None, :]
    return matrix - twice - twice.T + (row @ unit) * unit[:, None] * unit[None, :]
