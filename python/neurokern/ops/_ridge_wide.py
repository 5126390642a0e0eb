r"""Cross-validation from the samples' kernel matrix :math:`K = X X^T`, for fewer samples than features.

Predictions of test samples are a matrix times the training targets, from the eigenvectors of the training
samples' kernel. The weights of the fit to all samples come from the eigenvectors of the whole kernel; in it
the eigenvalue of the constant vector, 0 in a centered kernel, is lifted to the mean of the others.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_folds import Fold
from neurokern.ops._ridge_parts import Block, Operator, blocks_of, cut
from neurokern.ops._ridge_scores import FoldSums, Scores
from neurokern.ops._ridge_skeleton import Skeleton
from neurokern.ops._ridge_sums import blocks, kernel, means, rounded, shifted
from neurokern.ops._ridge_tall import by_target, descending

_LARGE = 1 << 32  # multiply-adds of the kernel, above which float32 input is multiplied in float32
_STACK_BYTES = 1 << 26  # of the prediction matrices of a block of eigenvalues for some samples
_FEW_RUNS = 16  # of samples next to each other
_ROWS = 256  # test samples that are taken together
_CHUNK_BYTES = 1 << 27  # of a chunk of targets
_KEPT_BYTES = 1 << 28  # of eigenvectors that are kept between chunks of targets


class Predictor(Protocol):
    """What gives sums of predictions, or of residuals, of some samples."""

    def add_constant(self, ones: Any) -> None: ...
    def add_sums(self, total: Any, Z: Any, truth: Any | None = None, **options: Any) -> None: ...


class TestSums:
    """Sums over test samples, of predictions or of residuals, that the scores of a fold are made of."""

    def __init__(self, algebra: Algebra, skeleton: Skeleton, n_targets: int, *, products: bool) -> None:
        self._algebra, self._skeleton, self._products = algebra, skeleton, products
        self._total: Any = None
        self._n_targets = n_targets

    def add(self, operator: Predictor, Z: Any, truth: Any, ones: Any, *, residuals: bool = False) -> None:
        """Add the samples of an operator; with ``residuals`` it gives predictions less the truth."""
        self._residuals = residuals
        if self._skeleton.complete:
            options = {"ones": ones if self._products else None, "residuals": residuals}
            shape: tuple[int, ...] = (4, len(self._skeleton)) if self._products else (len(self._skeleton),)
            total = self._room(shape)
            operator.add_sums(total, Z, truth if self._products or not residuals else None, **options)
            return
        if self._products:
            operator.add_constant(ones)
        n_vectors = len(self._skeleton) + self._products + 1
        total = self._room((n_vectors * (n_vectors + 1) // 2,))
        operator.add_sums(total, Z, truth, pairs=True)

    def _room(self, shape: tuple[int, ...]) -> Any:
        if self._total is None:
            self._total = self._algebra.zeros((self._n_targets, *shape), "float64")
        return self._total

    def result(self, U: Any, ones: Any, origin: Any) -> FoldSums:
        """Sums of the fold; U (targets, samples) is the truth about ``origin``."""
        algebra = self._algebra
        wide, ones = algebra.cast(U, "float64"), algebra.cast(ones, "float64")
        y, y_squared = wide @ ones, algebra.xp.einsum("cr,cr->c", wide, wide)
        first = float(ones @ ones), algebra.cast(origin, "float64"), y, y_squared
        if self._skeleton.complete:
            parts = [self._total[:, k] for k in range(4)] if self._products else [self._total]
            return FoldSums(*first, *parts)
        return FoldSums(*first, *self._of_pairs(y[:, None], y_squared[:, None]))

    def _of_pairs(self, y: Any, y_squared: Any) -> list[Any]:
        skeleton, total, n = self._skeleton, self._total, len(self._skeleton)
        squares, at, guess = skeleton.squares(total[:, : skeleton.n_pairs]), skeleton.n_pairs, None
        if self._products:
            guess, at = skeleton.sums(total[:, at : at + n]), at + n + 1
        product = skeleton.sums(total[:, at : at + n])
        if self._residuals:
            # What stands for predictions does so for residuals with the rest of the truth.
            rest = skeleton.weights.sum(0)
            guess = None if guess is None else guess + rest * y
            squares = squares + 2 * (rest - 1) * product + (rest - 1) ** 2 * y_squared
            error, product = squares.clip(0), product + rest * y_squared
            squares = error - y_squared + 2 * product
        else:
            error = (y_squared + squares - 2 * product).clip(0)
        return [error, guess, squares.clip(0), product] if self._products else [error]


class KernelSolver(ABC):
    """Weights of chunks of targets from the whole kernel; how folds are scored is a subclass's matter."""

    _by_predictions = False  # or by residuals

    def __init__(
        self,
        algebra: Algebra,
        problem: Problem,
        folds: list[Fold],
        alphas: np.ndarray,
        fit_intercept: bool,
        kernel: Any | None = None,
    ) -> None:
        """With ``kernel``, that of features about any means, X is not read and there are scores alone."""
        self._algebra, self._problem, self._folds, self._alphas = algebra, problem, folds, alphas
        self.dtype, self._fit_intercept = problem.dtype, fit_intercept
        weight = problem.weight
        self._root = None if weight is None else weight**0.5
        ones = algebra.array(np.ones(problem.shape[0]), "float64")
        self._ones = ones if self._root is None else self._root  # what a constant is after weighting
        self.x_mean = self.x_shift = self.y_shift = None
        if fit_intercept:
            self.y_shift = rounded(algebra, means(algebra, problem.Y, weight), self.dtype)
        if fit_intercept and kernel is None:
            self.x_mean = means(algebra, problem.X, weight)
            self.x_shift = rounded(algebra, self.x_mean, self.dtype)
        self._kernel = kernel if kernel is not None else kernel_of(algebra, problem, self.x_shift, self._root)
        if kernel is not None and self._by_predictions:  # folds are decomposed, and no weights are asked for
            self.spectrum = 0.0, float(self._kernel.diagonal().sum())
        else:
            self._decompose()
        # Kernels of fewer samples have no smaller eigenvalues, unless this one has many of 0.
        smallest, largest = self.spectrum
        # Residuals are solved for every penalty: those of some do not stand for others' where samples left
        # out together make their errors large.
        self.skeleton = Skeleton(algebra, alphas, smallest, largest * self._by_predictions, self.dtype)
        self._cuts: list[slice] | None = None  # of eigenvalues into blocks
        self._to_weights: Any = None

    def _decompose(self) -> None:
        """Eigenvalues and eigenvectors of the kernel of all samples, centered and lifted."""
        algebra, self._lift, centered = self._algebra, 0.0, self._kernel
        if self._fit_intercept:
            centered = _centered(centered, self._ones)
            # Any lift is right on paper; this one makes its eigenvalue the mean of the others.
            mean = float(centered.diagonal().sum()) / len(centered) or 1.0
            self._lift = mean / float(self._ones @ self._ones)
            centered = centered + self._lift * self._ones[:, None] * self._ones[None, :]
        values, vectors = algebra.eigh(centered)
        self._values, self._vectors = algebra.xp.flip(values.clip(0), (0,)), algebra.xp.flip(vectors, (1,))
        self.spectrum = float(self._values[-1]), float(self._values[0])

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
            scores.add(self._fold_sums(number, fold, scores))
        return scores.result()

    @abstractmethod
    def _fold_sums(self, number: int, fold: Fold, scores: Scores) -> FoldSums:
        """Return the sums that the scores of a fold are made of."""

    def weights(self, alphas: Any) -> tuple[Any, Any]:
        """Weights (features, targets), and the mean of y about its shift, with a penalty for each target."""
        algebra = self._algebra

        def shrink(few: Any) -> Any:
            return 1 / (self._values[:, None] + few[None, :])

        shrunk = self._rotated * by_target(algebra, shrink, alphas, self.dtype)
        vectors = algebra.cast(self._without_mean(self._vectors), self.dtype)
        if self._problem.shape[2] <= self._problem.shape[1]:
            return self._features_times(algebra.mm(vectors, shrunk.T)), self._y_mean
        if self._to_weights is None:  # with more targets than features this product is the smaller one
            self._to_weights = self._features_times(vectors)
        return algebra.mm(self._to_weights, shrunk.T), self._y_mean

    def _without_mean(self, values: Any) -> Any:
        """Take the lifted direction off: it has no part in weights."""
        if not self._fit_intercept:
            return values
        ones = self._ones
        return values - ones[:, None] * ((ones @ values) / (ones @ ones))[None, :]

    def _features_times(self, values: Any) -> Any:
        """X' times (samples, columns): (features, columns)."""
        algebra, X = self._algebra, self._problem.X
        product = algebra.empty((X.shape[1], values.shape[1]), self.dtype)
        for columns in blocks(X.shape[1], X.shape[0]):
            shift = None if self.x_shift is None else self.x_shift[columns]
            block = shifted(algebra, X[:, columns], shift, self._root, self.dtype)
            product[columns] = algebra.mm(block.T, values)
        return product

    def _some(self, n_test: int, found: list[Block]) -> Iterator[slice]:
        """Test samples that are taken together."""
        most = max((one.basis.shape[1] * (one.columns.stop - one.columns.start) for one in found), default=1)
        n_steps = max(1, -(-n_test // _ROWS), -(-n_test * most * 8 // _STACK_BYTES))
        edges = np.linspace(0, n_test, min(n_steps, n_test) + 1).round().astype(int)
        return (slice(int(a), int(b)) for a, b in itertools.pairwise(edges))


class WideSolver(KernelSolver):
    """A decomposition for each fold."""

    _by_predictions = True

    def __init__(
        self,
        algebra: Algebra,
        problem: Problem,
        folds: list[Fold],
        alphas: np.ndarray,
        fit_intercept: bool,
        kernel: Any | None = None,
    ) -> None:
        super().__init__(algebra, problem, folds, alphas, fit_intercept, kernel)
        self._kept: dict[int, tuple[Any, Any, Any]] = {}

    def _decomposed(self, number: int) -> tuple[Any, Any, Any]:
        """Eigenvalues, eigenvectors and rotated test rows of the centered kernel of a fold."""
        if number in self._kept:
            return self._kept[number]
        algebra, fold, ones = self._algebra, self._folds[number], self._ones
        train, test = fold.train, fold.test
        inner = self._kernel[train][:, train]
        cross = self._kernel[test][:, train]
        own = ones[train]
        if self._fit_intercept:
            inner, cross = about_means(inner, cross, own, ones[test])
        values, vectors = descending(algebra, *algebra.eigh(inner))
        rows = algebra.cast(cross @ vectors, self.dtype)
        if self._fit_intercept:  # so that it may be applied to targets that are not centered
            vectors = vectors - own[:, None] * ((own @ vectors) / (own @ own))[None, :]
        found = values, algebra.cast(vectors, self.dtype), rows
        size = 4 if self.dtype == "float32" else 8
        if len(self._folds) * size * self._problem.shape[0] ** 2 <= _KEPT_BYTES:
            self._kept[number] = found
        return found

    def _fold_sums(self, number: int, fold: Fold, scores: Scores) -> FoldSums:
        algebra = self._algebra
        values, vectors, rows = self._decomposed(number)
        train = self._columns(fold.train)
        own = algebra.cast(self._ones[fold.train], self.dtype)
        origin = (train @ own) / (own @ own) if self._fit_intercept else 0.0 * train[:, 0]
        ones = algebra.cast(self._ones[fold.test], self.dtype)
        U = self._U[:, fold.test] - origin[:, None] * ones[None, :]
        alphas = algebra.array(self.skeleton.alphas, "float64")
        shrink = (values > 0)[:, None] / (values[:, None] + alphas[None, :])
        found = self._blocks(rows, shrink, len(U))
        functions = [
            algebra.cast(shrink[one.columns] @ algebra.array(one.basis, "float64"), self.dtype)
            for one in found
        ]
        Z = algebra.mm(train, vectors)
        sums = TestSums(algebra, self.skeleton, len(U), products=scores.needs_products)
        for samples in self._some(fold.n_test, found):
            operator = Operator(algebra, samples.stop - samples.start, len(self.skeleton), self.dtype)
            for block, function in zip(found, functions, strict=True):
                part = rows[samples, block.columns]
                operator.add_rows(block, block.columns, part, function, len(U))
            sums.add(operator, Z, U[:, samples], ones[samples])
        return sums.result(U, ones, origin)

    def _columns(self, index: np.ndarray) -> Any:
        """Some samples of all targets; copies of runs of samples take less time than one by one."""
        ends = np.flatnonzero(np.diff(index) != 1) + 1
        if len(ends) > _FEW_RUNS:
            return self._U[:, index]
        runs = [self._U[:, int(run[0]) : int(run[-1]) + 1] for run in np.split(index, ends)]
        return self._algebra.xp.concatenate(runs, 1)

    def _blocks(self, rows: Any, shrink: Any, n_targets: int) -> list[Block]:
        """Blocks of eigenvalues; a function's share is that in predictions of targets of white noise."""
        algebra = self._algebra
        mean_squares = (algebra.cast(rows, "float64") ** 2).sum(0) / len(rows)
        functions = algebra.host((mean_squares * len(shrink))[:, None] ** 0.5 * shrink)
        if self._cuts is None:
            self._cuts = cut(functions, self.dtype, n_targets * len(rows))
        return blocks_of(functions, self._cuts, self.dtype)


def kernel_of(algebra: Algebra, problem: Problem, shift: Any | None, root: Any | None) -> Any:
    """XX' of the shifted, weighted X in float64; of many float32 features from products in float32."""
    n_samples, n_features, _ = problem.shape
    # With fewer features than samples most eigenvalues are 0, and must not be the rounding of float32.
    large = n_samples**2 * n_features > _LARGE and n_features > n_samples
    return kernel(algebra, problem.X, shift, root, problem.dtype if large else "float64")


def about_means(inner: Any, cross: Any, own: Any, other: Any) -> tuple[Any, Any]:
    """Kernels among training samples, and of test samples with them, about the mean of the training samples.

    ``own`` and ``other`` are the roots of the weights of training and test samples.
    """
    weight = own @ own
    cross = cross - other[:, None] * ((own @ inner) / weight)[None, :]
    return _centered(inner, own), cross - ((cross @ own) / weight)[:, None] * own[None, :]


def _centered(matrix: Any, ones: Any) -> Any:
    """``P matrix P`` with ``P = I - 11'/1'1``, of a symmetric matrix."""
    unit = ones / (ones @ ones) ** 0.5
    row = unit @ matrix
    twice = unit[:, None] * row[None, :]
    return matrix - twice - twice.T + (row @ unit) * unit[:, None] * unit[None, :]
