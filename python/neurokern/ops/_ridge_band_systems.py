r"""Held-out errors of ridge systems with band weights of each target's own, and their gradients.

The gradient of the squared error of samples left out with respect to the logarithms of band weights follows
from one more solution with the same matrix [1]_.

References
----------
.. [1] Bengio, "Gradient-based optimization of hyperparameters", Neural Computation 12 (2000), 1889-1900.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_band_fit import (
    BandKernels,
    Inverse,
    solver_by_features,
    solver_by_samples,
    weighted_sum,
)
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_folds import Fold
from neurokern.ops._ridge_scores import FoldSums
from neurokern.ops._ridge_sums import shifted
from neurokern.ops._ridge_tall import MatrixMoments, TargetSums
from neurokern.ops._ridge_wide import about_means

_KEPT_BYTES = 1 << 28  # of kernels of folds that are kept


@dataclass
class Memory:
    """Solutions of a system for some targets, from which the next ones start."""

    solution: Any = None
    adjoint: Any = None

    def of(self, targets: Any) -> Memory:
        """Return those of some targets, by their indices."""
        return Memory(
            None if self.solution is None else self.solution[targets],
            None if self.adjoint is None else self.adjoint[targets],
        )


class BandSystem(Protocol):
    """One fold: training samples to fit, test samples to be wrong about."""

    @property
    def weight(self) -> float:
        """Of the test samples."""

    @property
    def y_squared(self) -> Any:
        """Sum of squares of the test samples about the mean of the training samples, (targets,) float64."""

    @property
    def spread(self) -> Any:
        """The same about their own mean."""

    def of(self, targets: Any) -> BandSystem:
        """Return the same for some targets, by their indices."""

    def errors(self, log_weights: Any, share: Any, memory: Memory, tolerance: float) -> tuple[Any, Any]:
        """Squared errors times ``share`` (targets,), and their gradient (targets, bands)."""

    def sums(self, log_weights: Any, tolerance: float) -> FoldSums:
        """Sums that all scores are made of, with one penalty."""


@dataclass
class TallSystem:
    """A fold of a problem with fewer features than samples, from sums over its samples."""

    algebra: Algebra
    dtype: str
    band: Any  # (features,) index of each feature's band
    gram: Any  # (features, features) of the training samples about their means
    cross: Any  # (targets, features)
    test_gram: Any  # of the test samples about the means of the training samples
    test_cross: Any
    test_sums: Any  # (features,)
    weight: float  # of the test samples
    origin: Any  # (targets,) float64: the mean of the training samples
    y: Any  # (targets,) float64, about the origin
    y_squared: Any

    def of(self, targets: Any) -> TallSystem:
        """Return the same for some targets, by their indices."""
        own = {
            name: getattr(self, name)[targets] for name in ("cross", "test_cross", "origin", "y", "y_squared")
        }
        return TallSystem(**{name: getattr(self, name) for name in self.__dataclass_fields__} | own)

    def solve(self, log_weights: Any, memory: Memory, tolerance: float) -> tuple[Any, Any, Inverse]:
        """Weights (targets, features), their scales, and what solves with the same matrices."""
        algebra = self.algebra
        scale = algebra.cast(algebra.xp.exp(0.5 * log_weights)[:, self.band], self.dtype)
        inverse = solver_by_features(algebra, self.gram, scale, tolerance)
        memory.solution = inverse(scale * self.cross, memory.solution)
        return scale * memory.solution, scale, inverse

    def errors(self, log_weights: Any, share: Any, memory: Memory, tolerance: float) -> tuple[Any, Any]:
        algebra = self.algebra
        weights, scale, inverse = self.solve(log_weights, memory, tolerance)
        of_weights = algebra.mm(weights, self.test_gram) - self.test_cross  # X'(predictions - y)
        narrow = algebra.cast(share, self.dtype)[:, None]
        memory.adjoint = inverse(2 * narrow * scale * of_weights, memory.adjoint)
        by_feature = memory.adjoint * memory.solution
        gradient = by_band(algebra, by_feature, self.band, log_weights.shape[1])
        error = self.y_squared + algebra.cast(weights * (of_weights - self.test_cross), "float64").sum(1)
        return share * error, gradient

    def sums(self, log_weights: Any, tolerance: float) -> FoldSums:
        algebra = self.algebra
        weights, _, _ = self.solve(log_weights, Memory(), tolerance)
        squared = (weights * algebra.mm(weights, self.test_gram)).sum(1)[:, None]
        product = (weights * self.test_cross).sum(1)[:, None]
        error = (self.y_squared[:, None] + squared - 2 * product).clip(0)
        guess = (weights @ self.test_sums)[:, None]
        return FoldSums(self.weight, self.origin, self.y, self.y_squared, error, guess, squared, product)

    @property
    def spread(self) -> Any:
        return self.y_squared - self.y * self.y / self.weight


def by_band(algebra: Algebra, values: Any, band: Any, n_bands: int) -> Any:
    """Sums (targets, bands) of values (targets, features) in float64."""
    member = algebra.array(np.arange(n_bands)[None, :] == algebra.host(band)[:, None], "float64")
    return algebra.cast(values, "float64") @ member


class TallSystems:
    """Folds of a problem with fewer features than samples."""

    def __init__(
        self,
        algebra: Algebra,
        problem: Problem,
        folds: list[Fold],
        band: np.ndarray,
        fit_intercept: bool,
        moments: MatrixMoments | None = None,
    ) -> None:
        """With ``moments``, those of the same folds, they are not computed again."""
        self._algebra, self._band = algebra, algebra.array(band, "int64")
        self._moments = moments or MatrixMoments(algebra, problem, folds, fit_intercept)
        self._fit_intercept, self._dtype = fit_intercept, problem.dtype
        total, tests, out = self._moments.grams()
        self._parts = []
        for test, left_out in zip(tests, out, strict=True):
            centered, mean = self._about_mean(total - left_out)
            sums, weight = test[:-1, -1], float(test[-1, -1])
            cross = sums[:, None] * mean[None, :]
            about = test[:-1, :-1] - cross - cross.T + weight * mean[:, None] * mean[None, :]
            self._parts.append(
                (centered, mean, about, sums - weight * mean, weight, total[-1, -1] - left_out[-1, -1])
            )
        self.bytes_per_target = (
            (8 if problem.dtype == "float64" else 4) * (len(folds) + 1) * 5 * (len(band) + 1)
        )

    def _about_mean(self, gram: Any) -> tuple[Any, Any]:
        weight = gram[-1, -1]
        mean = gram[:-1, -1] / weight if self._fit_intercept else 0.0 * gram[:-1, -1]
        return gram[:-1, :-1] - weight * mean[:, None] * mean[None, :], mean

    def load(self, targets: slice, dtype: str) -> list[TallSystem]:
        """The folds with a chunk of targets, products in ``dtype``."""
        total, tests, out = self._moments.chunk(targets)
        return [
            self._system(parts, total.less(left_out), test, dtype)
            for parts, test, left_out in zip(self._parts, tests, out, strict=True)
        ]

    def _system(self, parts: Any, train: TargetSums, test: TargetSums, dtype: str) -> TallSystem:
        algebra = self._algebra
        gram, mean, test_gram, test_sums, weight, train_weight = parts
        origin = train.y / train_weight if self._fit_intercept else 0.0 * train.y
        cross = algebra.cast(train.cross[:, :-1], "float64") - train.y[:, None] * mean[None, :]
        test_cross = algebra.cast(test.cross[:, :-1], "float64") - test.y[:, None] * mean[None, :]
        test_cross = test_cross - origin[:, None] * test_sums[None, :]
        cast = algebra.cast
        return TallSystem(
            algebra,
            dtype,
            self._band,
            cast(gram, dtype),
            cast(cross, dtype),
            cast(test_gram, dtype),
            cast(test_cross, dtype),
            cast(test_sums, dtype),
            weight,
            origin,
            test.y - weight * origin,
            test.y_squared + origin * (weight * origin - 2 * test.y),
        )


@dataclass
class WideSystem:
    """A fold of a problem with fewer samples than features, from the kernel of each band."""

    algebra: Algebra
    dtype: str
    kernels: Callable[[], tuple[Any, Any]]  # (bands, train, train), (bands, test, train), about the means
    right: Any  # (targets, train) about their mean
    truth: Any  # (targets, test) about the same
    ones: Any  # (test,) roots of weights
    origin: Any  # (targets,) float64

    def of(self, targets: Any) -> WideSystem:
        """Return the same for some targets, by their indices."""
        own = {name: getattr(self, name)[targets] for name in ("right", "truth", "origin")}
        return WideSystem(**{name: getattr(self, name) for name in self.__dataclass_fields__} | own)

    def solve(self, log_weights: Any, inner: Any, memory: Memory, tolerance: float) -> tuple[Any, Inverse]:
        """Weights of the bands, and what solves with the same matrices; the memory gets the coefficients."""
        algebra = self.algebra
        weights = algebra.cast(algebra.xp.exp(log_weights), self.dtype)
        inverse = solver_by_samples(algebra, inner, weights, tolerance)
        memory.solution = inverse(self.right, memory.solution)
        return weights, inverse

    def errors(self, log_weights: Any, share: Any, memory: Memory, tolerance: float) -> tuple[Any, Any]:
        algebra = self.algebra
        inner, cross = self.kernels()
        weights, inverse = self.solve(log_weights, inner, memory, tolerance)
        parts = [algebra.mm(memory.solution, one.T) for one in cross]  # predictions of each band
        missed = -self.truth
        for number, part in enumerate(parts):
            missed = missed + weights[:, number, None] * part
        slope = 2 * algebra.cast(share, self.dtype)[:, None] * missed
        back = [algebra.mm(slope, one) for one in cross]
        right = sum(weights[:, number, None] * one for number, one in enumerate(back))
        memory.adjoint = inverse(right, memory.adjoint)
        columns = []
        for number, one in enumerate(inner):
            of_fit = memory.solution * (back[number] - algebra.mm(memory.adjoint, one))
            columns.append(algebra.cast(weights[:, number] * of_fit.sum(1), "float64"))
        error = (algebra.cast(missed, "float64") ** 2).sum(1)
        return share * error, algebra.xp.stack(columns, 1)

    def sums(self, log_weights: Any, tolerance: float) -> FoldSums:
        algebra, memory = self.algebra, Memory()
        inner, cross = self.kernels()
        weights, _ = self.solve(log_weights, inner, memory, tolerance)
        guess = weighted_sum(algebra, memory.solution, [one.T for one in cross], weights)
        wide, truth, ones = (algebra.cast(one, "float64") for one in (guess, self.truth, self.ones))
        parts = (((truth - wide) ** 2).sum(1), wide @ ones, (wide * wide).sum(1), (truth * wide).sum(1))
        y, squared = truth @ ones, (truth * truth).sum(1)
        return FoldSums(float(ones @ ones), self.origin, y, squared, *(part[:, None] for part in parts))

    @property
    def weight(self) -> float:
        ones = self.algebra.cast(self.ones, "float64")
        return float(ones @ ones)

    @property
    def y_squared(self) -> Any:
        return (self.algebra.cast(self.truth, "float64") ** 2).sum(1)

    @property
    def spread(self) -> Any:
        truth, ones = (self.algebra.cast(one, "float64") for one in (self.truth, self.ones))
        return self.y_squared - (truth @ ones) ** 2 / self.weight


class WideSystems:
    """Folds of a problem with fewer samples than features."""

    def __init__(self, kernels: BandKernels, folds: list[Fold]) -> None:
        self._kernels, self._folds = kernels, folds
        self._algebra, self._problem = kernels.algebra, kernels.problem
        self._kept: dict[tuple[int, str], tuple[Any, Any]] = {}
        n_samples = self._problem.shape[0]
        self.bytes_per_target = (
            (8 if self._problem.dtype == "float64" else 4) * (len(folds) + 1) * 5 * n_samples
        )

    def load(self, targets: slice, dtype: str) -> list[WideSystem]:
        """The folds with a chunk of targets, products in ``dtype``."""
        algebra, ones = self._algebra, self._kernels.ones
        root = None if self._problem.weight is None else ones
        Y = shifted(algebra, self._problem.Y[:, targets], None, root, "float64").T
        return [self._system(number, fold, Y, dtype) for number, fold in enumerate(self._folds)]

    def _system(self, number: int, fold: Fold, Y: Any, dtype: str) -> WideSystem:
        algebra, ones = self._algebra, self._kernels.ones
        own, other = ones[fold.train], ones[fold.test]
        train, test = Y[:, fold.train], Y[:, fold.test]
        origin = (train @ own) / (own @ own) if self._kernels.fit_intercept else 0.0 * train[:, 0]
        return WideSystem(
            algebra,
            dtype,
            lambda: self._of_fold(number, fold, dtype),
            algebra.cast(train - origin[:, None] * own[None, :], dtype),
            algebra.cast(test - origin[:, None] * other[None, :], dtype),
            algebra.cast(other, dtype),
            origin,
        )

    def _of_fold(self, number: int, fold: Fold, dtype: str) -> tuple[Any, Any]:
        if (number, dtype) in self._kept:
            return self._kept[number, dtype]
        algebra, kernels, ones = self._algebra, self._kernels.kernels, self._kernels.ones
        n_test, n_train = fold.n_test, len(fold.train)
        inner = algebra.empty((len(kernels), n_train, n_train), dtype)
        cross = algebra.empty((len(kernels), n_test, n_train), dtype)
        for band, whole in enumerate(kernels):
            one, other = whole[fold.train][:, fold.train], whole[fold.test][:, fold.train]
            if self._kernels.fit_intercept:
                one, other = about_means(one, other, ones[fold.train], ones[fold.test])
            inner[band], cross[band] = algebra.cast(one, dtype), algebra.cast(other, dtype)
        size = (
            (4 if dtype == "float32" else 8) * len(self._folds) * len(kernels) * n_train * (n_train + n_test)
        )
        if size <= _KEPT_BYTES:
            self._kept[number, dtype] = inner, cross
        return inner, cross
