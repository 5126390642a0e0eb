r"""Cross-validation from sums over folds, for fewer features than samples.

All that a fold needs of its samples is :math:`X^T X`, :math:`X^T Y` and a few sums, each of which is computed
once; those of the training samples are the sums over all samples less those of the samples left out. In the
eigenbasis :math:`V, \lambda` of the training Gram matrix a solution is :math:`V (d \circ z)` with :math:`z =
V^T X^T y` and :math:`d_i = 1 / (\lambda_i + \alpha)`, and the squared norm of the predictions of the test
samples is :math:`\|R (d \circ z)\|^2` with a triangular R, :math:`R^T R = V^T X_{test}^T X_{test} V`. No
prediction is formed.

A last column of ones (of roots of weights) in X carries the sums of X and Y along in the same products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_folds import Fold, Rows, is_partition
from neurokern.ops._ridge_parts import Block, Operator, blocks_of, cut
from neurokern.ops._ridge_scores import FoldSums, Scores
from neurokern.ops._ridge_skeleton import Skeleton
from neurokern.ops._ridge_sums import ROWS, blocks, means, rounded, shifted

_BLOCK_ROWS = 128  # rows of R in one product: R is triangular, and the zeros beside a block are left out
_STACK_BYTES = 1 << 26  # of R times the functions of a block of eigenvalues
_CHUNK_BYTES = 3 << 25  # of the cross products of all folds with a chunk of targets


@dataclass
class TargetSums:
    """Sums over some samples that involve a chunk of targets."""

    cross: Any  # (targets, features + 1): Y'[X, 1]
    y_squared: Any  # (targets,) float64
    # Sums of y, (targets,), in float64 like those of its squares: their difference tells whether a target
    # varies in a fold, and the last column of a float32 product would leave 1e-7 of noise there.
    y: Any

    def less(self, other: TargetSums) -> TargetSums:
        return TargetSums(self.cross - other.cross, self.y_squared - other.y_squared, self.y - other.y)


class Moments(Protocol):
    """Sums over the samples of folds: of a matrix in memory, or of a stream."""

    algebra: Algebra
    dtype: str
    n_features: int
    n_targets: int
    n_test: list[int]
    x_shift: Any | None
    y_shift: Any | None

    def grams(self) -> tuple[Any, list[Any], list[Any]]:
        """Gram matrices of [X, 1] over all samples, over each test set, over all that a fold leaves out."""

    def chunk(self, targets: slice) -> tuple[TargetSums, list[TargetSums], list[TargetSums]]:
        """The same sums with targets."""

    def test_rows(self, fold: int) -> Any | None:
        """Rows [X, 1] of a test set, if they are at hand."""


class MatrixMoments:
    """Sums over the folds of a matrix in memory."""

    def __init__(self, algebra: Algebra, problem: Any, folds: list[Fold], fit_intercept: bool) -> None:
        self.algebra, self.dtype = algebra, problem.dtype
        self._Y, self._folds = problem.Y, folds
        n_samples, self.n_features, self.n_targets = problem.shape
        self.n_test = [fold.n_test for fold in folds]
        self._partition = is_partition(folds, n_samples)
        weight = problem.weight
        self._root = None if weight is None else weight**0.5
        self.x_shift = self.y_shift = None
        if fit_intercept:
            self.x_shift = rounded(algebra, means(algebra, problem.X, weight), self.dtype)
            self.y_shift = rounded(algebra, means(algebra, problem.Y, weight), self.dtype)
        self.X = algebra.empty((n_samples, self.n_features + 1), self.dtype)
        self.X[:, -1] = 1.0 if self._root is None else algebra.cast(self._root, self.dtype)
        for rows in blocks(n_samples, self.n_features):
            root = None if self._root is None else self._root[rows]
            self.X[rows, :-1] = shifted(algebra, problem.X[rows], self.x_shift, root, self.dtype)

    def grams(self) -> tuple[Any, list[Any], list[Any]]:
        tests = [self._gram(fold.test) for fold in self._folds]
        total = sum(tests) if self._partition else self._gram(slice(None))
        out = [
            test if fold.aside is None else test + self._gram(fold.aside)
            for fold, test in zip(self._folds, tests, strict=True)
        ]
        return total, tests, out

    def chunk(self, targets: slice) -> tuple[TargetSums, list[TargetSums], list[TargetSums]]:
        tests = [self._sums(fold.test, targets) for fold in self._folds]
        total = _added(tests) if self._partition else self._sums(slice(None), targets)
        out = [
            test if fold.aside is None else _added([test, self._sums(fold.aside, targets)])
            for fold, test in zip(self._folds, tests, strict=True)
        ]
        return total, tests, out

    def targets(self, rows: slice, targets: slice) -> Any:
        """Y about its shift, weighted, transposed: (targets, rows)."""
        root = None if self._root is None else self._root[rows]
        shift = None if self.y_shift is None else self.y_shift[targets]
        return shifted(self.algebra, self._Y[rows, targets], shift, root, self.dtype).T

    def test_rows(self, fold: int) -> Any | None:
        return self.X[self._folds[fold].test]

    def _gram(self, rows: Rows) -> Any:
        X = self.X[rows]
        total = self.algebra.zeros((X.shape[1], X.shape[1]), "float64")
        for part in blocks(*X.shape):
            total += self.algebra.gram(self.algebra.cast(X[part], "float64"))
        return total

    def _sums(self, rows: Rows, targets: slice) -> TargetSums:
        algebra, X, Y = self.algebra, self.X[rows], self._Y[rows, targets]
        root = None if self._root is None else self._root[rows]
        shift = None if self.y_shift is None else self.y_shift[targets]
        total: Any = 0.0
        y_sum: Any = 0.0
        y_squared: Any = 0.0
        for part in blocks(Y.shape[0], Y.shape[1], ROWS):
            y = shifted(algebra, Y[part], shift, None if root is None else root[part], self.dtype)
            wide = algebra.cast(y, "float64")
            y_squared = y_squared + algebra.xp.einsum("nc,nc->c", wide, wide)
            y_sum = y_sum + algebra.cast(X[part][:, -1], "float64") @ wide
            product = algebra.mm(y.T, X[part])
            # Sums over blocks in float64; a single block needs none.
            whole = Y.shape[0] == part.stop - part.start
            total = product if whole else total + algebra.cast(product, "float64")
        return TargetSums(algebra.cast(total, self.dtype), y_squared, y_sum)


def _added(parts: list[TargetSums]) -> TargetSums:
    cross = parts[0].cross + 0.0
    for part in parts[1:]:
        cross += part.cross
    return TargetSums(cross, sum(part.y_squared for part in parts), sum(part.y for part in parts))


def descending(algebra: Algebra, values: Any, vectors: Any) -> tuple[Any, Any]:
    """Eigenvalues with the largest first, and 0 for those that are rounding, with their vectors."""
    values = algebra.xp.where(values > values[-1] * 2.3e-16 * len(values), values, 0.0 * values)
    return algebra.xp.flip(values, (0,)), algebra.xp.flip(vectors, (1,))


def by_target(algebra: Algebra, shrink: Callable[[Any], Any], alphas: Any, dtype: str) -> Any:
    """Return ``shrink`` (eigenvalues, alphas) of each target's own alpha, as (targets, eigenvalues)."""
    distinct, index = np.unique(algebra.host(alphas), return_inverse=True)
    table = algebra.cast(shrink(algebra.array(distinct, "float64")), dtype).T
    return table[algebra.array(index.reshape(-1), "int64")]


@dataclass
class Basis:
    """Eigenvectors of a centered Gram matrix."""

    values: Any  # (features,) float64, descending; 0 for those that are rounding alone
    rotation: Any  # (features + 1, features): V, and a last row that takes the mean off
    mean: Any  # (features,) of X about its shift
    weight: float

    @classmethod
    def of(cls, algebra: Algebra, gram: Any, fit_intercept: bool, dtype: str) -> Basis:
        """Decompose the Gram matrix of [X, 1]."""
        weight = float(gram[-1, -1])
        mean = gram[:-1, -1] / weight if fit_intercept else 0.0 * gram[:-1, -1]
        centered = gram[:-1, :-1] - weight * mean[:, None] * mean[None, :]
        values, vectors = descending(algebra, *algebra.eigh(centered))
        rotation = algebra.empty((len(mean) + 1, len(mean)), dtype)
        rotation[:-1] = algebra.cast(vectors, dtype)
        rotation[-1] = algebra.cast(-(mean @ vectors), dtype)
        return cls(values, rotation, mean, weight)

    def shrink(self, alphas: Any) -> Any:
        """``1 / (values + alpha)`` in float64, (features, alphas); 0 for values of 0, where X'y is 0, too."""
        return (self.values > 0)[:, None] / (self.values[:, None] + alphas[None, :])


class TallFold:
    """What scoring one fold needs that does not depend on the targets."""

    def __init__(
        self,
        algebra: Algebra,
        basis: Basis,
        test_gram: Any,
        test_rows: Any | None,
        dtype: str,
        *,
        as_they_are: bool,
    ) -> None:
        """With ``as_they_are`` R is the test rows themselves: more rows, for a factorization less."""
        self.basis, self._algebra, self._dtype = basis, algebra, dtype
        self.cuts: list[slice] | None = None  # of eigenvalues into blocks
        self.weight = float(test_gram[-1, -1])
        n_features = len(basis.mean)
        moved = basis.mean * self.weight
        sums = test_gram[:-1, -1]
        vectors = algebra.cast(basis.rotation[:-1], "float64")
        self.sum_of_rotated = (sums - moved) @ vectors
        self.triangular = False
        if test_rows is not None and as_they_are:
            self.root = algebra.mm(test_rows, basis.rotation)
            return
        if test_rows is not None and len(test_rows) < n_features:
            rows = algebra.cast(test_rows, "float64")
            root = algebra.triangle((rows[:, :-1] - rows[:, -1:] * basis.mean) @ vectors)
        else:
            cross = sums[:, None] * basis.mean[None, :]
            centered = test_gram[:-1, :-1] - cross - cross.T + moved[:, None] * basis.mean[None, :]
            root = _root_of(algebra, vectors.T @ centered @ vectors)
        self.root = algebra.cast(root, dtype)
        self.triangular = root.shape[0] <= n_features and bool(abs(root[-1, : root.shape[0] - 1]).sum() == 0)

    def squared_norms(self, Z: Any, skeleton: Skeleton) -> Any:
        """Return ``|R (d o z)|^2`` for each z (targets, features) and each penalty: (targets, alphas)."""
        algebra, dtype, few = self._algebra, self._dtype, skeleton.alphas
        shrink = self.basis.shrink(algebra.array(few, "float64"))
        blocks = self._blocks(shrink, Z.shape[0])
        bases = [algebra.array(block.basis, "float64") for block in blocks]
        functions = [
            algebra.cast(shrink[one.columns] @ basis, dtype) for one, basis in zip(blocks, bases, strict=True)
        ]
        complete = skeleton.complete
        total = algebra.zeros((Z.shape[0], few.size if complete else skeleton.n_pairs), "float64")
        for rows in self._row_blocks(blocks):
            operator = Operator(algebra, rows.stop - rows.start, few.size, dtype)
            for block, function in zip(blocks, functions, strict=True):
                start = max(block.columns.start, rows.start if self.triangular else 0)
                if start < block.columns.stop:
                    columns = slice(start, block.columns.stop)
                    inside = function[start - block.columns.start :]
                    operator.add_rows(block, columns, self.root[rows, columns], inside, Z.shape[0])
            operator.add_sums(total, Z, pairs=not complete)
        return total if complete else skeleton.squares(total)

    def _blocks(self, shrink: Any, n_targets: int) -> list[Block]:
        """Blocks of eigenvalues; a function's share is that in predictions of targets of white noise."""
        algebra = self._algebra
        norms = (algebra.cast(self.root, "float64") ** 2).sum(0)
        share = norms * (self.basis.weight / max(self.weight, 1e-300))
        functions = algebra.host((share * self.basis.values)[:, None] ** 0.5 * shrink)
        if self.cuts is None:
            n_rows = n_targets * self.root.shape[0]
            self.cuts = cut(functions, self._dtype, n_rows, triangular=self.triangular)
        return blocks_of(functions, self.cuts, self._dtype)

    def _row_blocks(self, blocks: list[Block]) -> Iterator[slice]:
        """Rows of R that are taken together; R is triangular, and the zeros in front are left out."""
        n_rows = self.root.shape[0]
        step = _BLOCK_ROWS if self.triangular and n_rows > 2 * _BLOCK_ROWS else n_rows
        most = max((block.basis.shape[1] for block in blocks), default=1)
        step = min(step, max(16, _STACK_BYTES // (8 * most * self.root.shape[1])))
        for first in range(0, n_rows, max(step, 1)):
            yield slice(first, min(first + step, n_rows))


def _few_targets(moments: Moments, fold: int, n_alphas: int) -> bool:
    """Whether a triangular factor of a test set takes longer than it saves."""
    n_test, n_features = moments.n_test[fold], moments.n_features
    rank = min(n_test, n_features)
    saved = min(n_alphas, 16) * moments.n_targets * (2 * n_test * n_features - rank * (2 * n_features - rank))
    return saved < 8 * rank**2 * n_features


def _root_of(algebra: Algebra, matrix: Any) -> Any:
    """R with ``R'R`` equal to a positive semidefinite matrix: upper triangular if it has full rank."""
    factor = algebra.cholesky(matrix)
    if factor is not None:
        return factor.T
    values, vectors = algebra.eigh(matrix)
    return (values.clip(0) ** 0.5)[:, None] * vectors.T


class TallSolver:
    """Scores and weights of chunks of targets, from :class:`Moments`."""

    def __init__(
        self, moments: Moments, alphas: np.ndarray, fit_intercept: bool, *, score_folds: bool = True
    ) -> None:
        algebra, self.dtype = moments.algebra, moments.dtype
        self.moments, self._algebra, self._alphas = moments, algebra, alphas
        total, tests, out = moments.grams()
        self.full = Basis.of(algebra, total, fit_intercept, self.dtype)
        self.folds = [
            TallFold(
                algebra,
                Basis.of(algebra, total - left_out, fit_intercept, self.dtype),
                test,
                moments.test_rows(number),
                self.dtype,
                as_they_are=_few_targets(moments, number, alphas.size),
            )
            for number, (test, left_out) in enumerate(zip(tests, out, strict=True))
            if score_folds
        ]
        self._fit_intercept = fit_intercept
        self.x_shift, self.y_shift = moments.x_shift, moments.y_shift
        self.x_mean = self.full.mean if self.x_shift is None else self.full.mean + self.x_shift
        spectra = [algebra.host(fold.basis.values) for fold in self.folds]
        smallest = min((float(values[values > 0].min(initial=np.inf)) for values in spectra), default=0.0)
        largest = float(self.full.values.max())
        self.spectrum = float(self.full.values.min()), largest
        self.skeleton = Skeleton(algebra, alphas, smallest, largest, self.dtype)

    def chunks(self) -> Iterator[slice]:
        """Chunks of targets with bounded memory."""
        size = 4 if self.dtype == "float32" else 8
        per_target = (len(self.folds) + 4) * (self.moments.n_features + 1) * size
        per_target += self.skeleton.bytes_per_target
        step = max(64, _CHUNK_BYTES // per_target)
        for first in range(0, self.moments.n_targets, step):
            yield slice(first, min(first + step, self.moments.n_targets))

    def load(self, targets: slice) -> None:
        """Take up a chunk of targets."""
        self.total, self._tests, self._out = self.moments.chunk(targets)

    def score(self, scores: Scores) -> Any:
        """Scores (targets, alphas) of the chunk."""
        alphas = self._algebra.array(self._alphas, "float64")
        if not self.folds:  # nothing is left out, and nothing known
            return self.total.y_squared[:, None] * alphas[None, :] * float("nan")
        for fold, test, left_out in zip(self.folds, self._tests, self._out, strict=True):
            fold.cuts = fold.cuts or self.folds[0].cuts
            scores.add(self._fold_sums(fold, self.total.less(left_out), test, alphas, scores.needs_products))
        return scores.result()

    def _fold_sums(
        self, fold: TallFold, train: TargetSums, test: TargetSums, alphas: Any, products: bool
    ) -> FoldSums:
        algebra, basis = self._algebra, fold.basis
        cast = algebra.cast
        origin = cast(train.y, "float64") / basis.weight
        origin = origin if self._fit_intercept else 0.0 * origin
        shrink = basis.shrink(alphas)
        Z = algebra.mm(train.cross, basis.rotation)
        G = algebra.mm(test.cross, basis.rotation)
        G *= Z
        guess = cast(algebra.mm(Z, cast(fold.sum_of_rotated[:, None] * shrink, self.dtype)), "float64")
        y_guess = cast(algebra.mm(G, cast(shrink, self.dtype)), "float64") - origin[:, None] * guess
        squared = fold.squared_norms(Z, self.skeleton)
        test_y = cast(test.y, "float64")
        y_squared = test.y_squared + origin * (fold.weight * origin - 2 * test_y)
        error = y_squared[:, None] + squared - 2 * y_guess
        sums = FoldSums(fold.weight, origin, test_y - fold.weight * origin, y_squared, error.clip(0))
        if not products:
            return sums
        return FoldSums(sums.weight, origin, sums.y, y_squared, sums.error, guess, squared, y_guess)

    def weights(self, alphas: Any) -> tuple[Any, Any]:
        """Weights (features, targets), and the mean of y about its shift, with a penalty for each target."""
        algebra, basis = self._algebra, self.full
        Z = algebra.mm(self.total.cross, basis.rotation)
        Z *= by_target(algebra, basis.shrink, alphas, self.dtype)
        return algebra.mm(basis.rotation[:-1], Z.T), algebra.cast(self.total.y, "float64") / basis.weight
