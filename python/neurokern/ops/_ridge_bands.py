"""Search over the weights of bands of features: sums over samples are computed once for all of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_cv import TIE, Solver, make_solver, plan_search
from neurokern.ops._ridge_direct import solve_direct
from neurokern.ops._ridge_folds import Fold
from neurokern.ops._ridge_scores import Scores, best_alphas
from neurokern.ops._ridge_tall import MatrixMoments, TallSolver, TargetSums

_KEPT_BYTES = 1 << 30  # of cross products with all targets, kept from candidate to candidate


@dataclass
class Choice:
    """The best candidate of each target so far."""

    candidate: np.ndarray  # (targets,) int64
    alphas: np.ndarray  # (targets,) float64
    scores: np.ndarray  # (targets,) float64, NaN for targets that never vary


class ScaledMoments:
    """Sums over folds of features times a scale each, from those of the features themselves.

    With :math:`D` the diagonal matrix of the scales, Gram matrices are :math:`D G D` and cross products
    :math:`D C`: neither X nor Y is read again.
    """

    def __init__(self, moments: MatrixMoments) -> None:
        self._moments = moments
        self.algebra, self.dtype = moments.algebra, moments.dtype
        self.n_features, self.n_targets, self.n_test = moments.n_features, moments.n_targets, moments.n_test
        self.x_shift, self.y_shift = moments.x_shift, moments.y_shift
        self._grams = moments.grams()
        per_target = (
            (2 * len(self.n_test) + 1) * (self.n_features + 1) * (4 if self.dtype == "float32" else 8)
        )
        self._kept: dict[int, Any] | None = {} if per_target * self.n_targets <= _KEPT_BYTES else None
        self._set_scale(np.ones(self.n_features))

    def scaled(self, scale: np.ndarray) -> ScaledMoments:
        """Return the same sums of features times ``scale`` (features,)."""
        other = object.__new__(ScaledMoments)
        other.__dict__.update(self.__dict__)
        other._set_scale(scale)
        return other

    def _set_scale(self, scale: np.ndarray) -> None:
        with_ones = np.append(scale, 1.0)
        self._wide = self.algebra.array(with_ones, "float64")
        self._narrow = self.algebra.array(with_ones, self.dtype)

    def grams(self) -> tuple[Any, list[Any], list[Any]]:
        """As :class:`neurokern.ops._ridge_tall.Moments` asks."""
        outer = self._wide[:, None] * self._wide[None, :]
        total, tests, out = self._grams
        return total * outer, [one * outer for one in tests], [one * outer for one in out]

    def chunk(self, targets: slice) -> tuple[TargetSums, list[TargetSums], list[TargetSums]]:
        """As :class:`neurokern.ops._ridge_tall.Moments` asks."""
        if self._kept is None:
            sums = self._moments.chunk(targets)
        else:
            if targets.start not in self._kept:
                self._kept[targets.start] = self._moments.chunk(targets)
            sums = self._kept[targets.start]
        total, tests, out = sums
        return self._times(total), [self._times(one) for one in tests], [self._times(one) for one in out]

    def test_rows(self, fold: int) -> Any | None:
        """As :class:`neurokern.ops._ridge_tall.Moments` asks."""
        rows = self._moments.test_rows(fold)
        return None if rows is None else rows * self._narrow

    def _times(self, sums: TargetSums) -> TargetSums:
        return TargetSums(sums.cross * self._narrow, sums.y_squared, sums.y)


class BandSearch:
    """Cross-validated scores of every candidate, chunk of targets by chunk of targets."""

    def __init__(
        self, algebra: Algebra, problem: Problem, folds: list[Fold], alphas: np.ndarray, fit_intercept: bool
    ) -> None:
        self._algebra, self._folds = algebra, folds
        self._alphas, self._fit_intercept = alphas, fit_intercept
        problem, plan = plan_search(algebra, problem, folds, alphas)
        self._problem = problem
        self._moments = None
        if plan.route == "tall":
            self._moments = ScaledMoments(MatrixMoments(algebra, problem, folds, fit_intercept))

    def best(self, scales: np.ndarray, scoring: str, pooled: bool) -> Choice:
        """Try every row of ``scales`` (candidates, features); the first of equally good ones is taken."""
        n_targets = self._problem.shape[2]
        choice = Choice(
            np.zeros(n_targets, np.int64), np.full(n_targets, self._alphas[-1]), np.full(n_targets, np.nan)
        )
        for candidate, scale in enumerate(scales):
            solver = self._solver(scale)
            for targets in solver.chunks():
                solver.load(targets)
                scores = solver.score(Scores(self._algebra, scoring, pooled))
                index = self._algebra.host(best_alphas(scores, scoring, TIE[solver.dtype], self._algebra))
                found = self._algebra.host(scores)[np.arange(len(index)), index]
                self._take(choice, candidate, targets, found, self._alphas[index], scoring, solver.dtype)
        return choice

    def _solver(self, scale: np.ndarray) -> Solver:
        if self._moments is not None:
            return TallSolver(self._moments.scaled(scale), self._alphas, self._fit_intercept)
        scaled = scaled_problem(self._algebra, self._problem, scale)
        return make_solver(self._algebra, scaled, self._folds, self._alphas, self._fit_intercept)[0]

    @staticmethod
    def _take(
        choice: Choice,
        candidate: int,
        targets: slice,
        found: np.ndarray,
        alphas: np.ndarray,
        scoring: str,
        dtype: str,
    ) -> None:
        before = choice.scores[targets]
        gain = before - found if scoring == "mse" else found - before
        slack = TIE[dtype] * np.abs(before) if scoring == "mse" else TIE[dtype]
        better = (np.isnan(before) & ~np.isnan(found)) | (gain > slack)
        choice.candidate[targets][better] = candidate
        choice.alphas[targets][better] = alphas[better]
        choice.scores[targets][better] = found[better]


def scaled_problem(algebra: Algebra, problem: Problem, scale: np.ndarray) -> Problem:
    """Return the problem with each feature times its scale."""
    return dataclasses.replace(problem, X=problem.X * algebra.array(scale, problem.dtype))


def refit(
    algebra: Algebra, problem: Problem, scales: np.ndarray, choice: Choice, fit_intercept: bool
) -> tuple[Any, Any]:
    """Fit the targets of each candidate that was chosen; weights (features, targets) and intercept."""
    _, n_features, n_targets = problem.shape
    weights = algebra.empty((n_features, n_targets), problem.dtype)
    intercept = algebra.zeros((n_targets,), problem.dtype)
    for candidate in np.unique(choice.candidate):
        chosen = np.flatnonzero(choice.candidate == candidate)
        columns = algebra.array(chosen, "int64")
        scaled = scaled_problem(algebra, problem, scales[candidate])
        scaled = dataclasses.replace(scaled, Y=problem.Y[:, columns])
        alphas = choice.alphas[chosen]
        alphas = alphas[:1] if (alphas == alphas[0]).all() else alphas
        solved, offset = solve_direct(algebra, scaled, alphas, fit_intercept)
        scale = algebra.array(scales[candidate], "float64")[:, None]
        weights[:, columns] = algebra.cast(solved * scale, problem.dtype)
        intercept[columns] = algebra.cast(offset, problem.dtype)
    return weights, intercept
