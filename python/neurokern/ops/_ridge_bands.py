"""Search over the weights of bands of features: sums over samples are computed once for all of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_band_fit import EXACT, BandKernels, chunks_of, fit_by_bands, fits_memory
from neurokern.ops._ridge_band_gradient import PRECISION, Descent, shares_of
from neurokern.ops._ridge_band_systems import TallSystems, WideSystems
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_blocks import BlockSolver
from neurokern.ops._ridge_cv import TIE, Solver, make_solver, plan_search
from neurokern.ops._ridge_direct import solve_direct
from neurokern.ops._ridge_folds import Fold
from neurokern.ops._ridge_scores import Scores, best_alphas
from neurokern.ops._ridge_tall import MatrixMoments, TallSolver, TargetSums
from neurokern.ops._ridge_wide import WideSolver

_KEPT_BYTES = 1 << 30  # of cross products with all targets, kept from candidate to candidate
# Gradients may leave the grid: penalties of bands lie between the smallest alpha over the one and the largest
# times the other.
_BELOW, _ABOVE = 10.0, 1e5
_LEAST = 1e-3  # weight, beside the largest, at which a band starts that was left out: 0 has no gradient


@dataclass
class Choice:
    """The best candidate of each target so far."""

    candidate: np.ndarray  # (targets,) int64
    band_weights: np.ndarray  # (targets, bands) float64
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
        self,
        algebra: Algebra,
        problem: Problem,
        folds: list[Fold],
        band: np.ndarray,
        alphas: np.ndarray,
        fit_intercept: bool,
    ) -> None:
        self._algebra, self._folds = algebra, folds
        self._alphas, self._fit_intercept = alphas, fit_intercept
        problem, plan = plan_search(algebra, problem, folds, alphas)
        self._problem, self._route, self._band = problem, plan.route, band
        self._moments = self._scaled = None
        if plan.route == "tall":
            self._moments = MatrixMoments(algebra, problem, folds, fit_intercept)
            self._scaled = ScaledMoments(self._moments)
        self.kernels: BandKernels | None = None
        if plan.route != "tall" and fits_memory(int(band.max()) + 1, problem.shape[0]):
            self.kernels = BandKernels(algebra, problem, band, fit_intercept)

    def best(self, candidates: np.ndarray, scoring: str, pooled: bool) -> Choice:
        """Try every row of band weights (candidates, bands); the first of equally good ones is taken."""
        n_targets = self._problem.shape[2]
        choice = Choice(
            np.zeros(n_targets, np.int64),
            np.tile(candidates[0], (n_targets, 1)),
            np.full(n_targets, self._alphas[-1]),
            np.full(n_targets, np.nan),
        )
        for candidate, weights in enumerate(candidates):
            solver = self._solver(weights)
            for targets in solver.chunks():
                solver.load(targets)
                scores = solver.score(Scores(self._algebra, scoring, pooled))
                index = self._algebra.host(best_alphas(scores, scoring, TIE[solver.dtype], self._algebra))
                found = self._algebra.host(scores)[np.arange(len(index)), index]
                better = _better(choice.scores[targets], found, scoring, TIE[solver.dtype])
                choice.candidate[targets][better] = candidate
                choice.band_weights[targets][better] = weights
                choice.alphas[targets][better] = self._alphas[index][better]
                choice.scores[targets][better] = found[better]
        return choice

    def descend(self, choice: Choice, scoring: str, pooled: bool) -> None:
        """Go on from each target's choice along the gradient of its error; what gets better is taken.

        Those targets have the candidate -1.
        """
        algebra, problem = self._algebra, self._problem
        if problem.shape[1] <= problem.shape[0]:
            folds: TallSystems | WideSystems = TallSystems(
                algebra, problem, self._folds, self._band, self._fit_intercept, self._moments
            )
        else:
            self.kernels = self.kernels or BandKernels(algebra, problem, self._band, self._fit_intercept)
            folds = WideSystems(self.kernels, self._folds)
        low, high = self._alphas[0] / _BELOW, self._alphas[-1] * _ABOVE
        for targets in chunks_of(problem.shape[2], folds.bytes_per_target):
            systems = folds.load(targets, problem.dtype)
            shares, varies = shares_of(algebra, systems, scoring, pooled)
            if not varies.any():
                continue
            weights = choice.band_weights[targets]
            weights = np.maximum(weights, _LEAST * weights.max(1, keepdims=True))
            start = np.log(weights / choice.alphas[targets, None])
            descent = Descent(
                algebra, systems, shares, (-np.log(high), -np.log(low)), PRECISION[problem.dtype]
            )
            end = descent.run(start)
            self._take(choice, targets, folds.load(targets, "float64"), end, scoring, pooled)

    def _take(
        self,
        choice: Choice,
        targets: slice,
        systems: list[Any],
        log_weights: np.ndarray,
        scoring: str,
        pooled: bool,
    ) -> None:
        """Score what was found in float64, and take it where it is better."""
        scores = Scores(self._algebra, scoring, pooled)
        wide = self._algebra.array(log_weights, "float64")
        for system in systems:
            scores.add(system.sums(wide, EXACT))
        found = self._algebra.host(scores.result())[:, 0]
        better = _better(choice.scores[targets], found, scoring, TIE[self._problem.dtype])
        strengths = np.exp(log_weights[better])
        total = strengths.sum(1)
        choice.candidate[targets][better] = -1
        choice.band_weights[targets][better] = strengths / total[:, None]
        choice.alphas[targets][better] = 1 / total
        choice.scores[targets][better] = found[better]

    def _solver(self, weights: np.ndarray) -> Solver:
        scale = np.sqrt(weights)[self._band]
        if self._scaled is not None:
            return TallSolver(self._scaled.scaled(scale), self._alphas, self._fit_intercept)
        if self.kernels is not None:
            by_kernel = BlockSolver if self._route == "blocks" else WideSolver
            kernel = self.kernels.mixed(weights)
            return by_kernel(
                self._algebra, self._problem, self._folds, self._alphas, self._fit_intercept, kernel
            )
        scaled = scaled_problem(self._algebra, self._problem, scale)
        return make_solver(self._algebra, scaled, self._folds, self._alphas, self._fit_intercept)[0]


def _better(before: np.ndarray, found: np.ndarray, scoring: str, tie: float) -> np.ndarray:
    """Which scores are above those before by more than a tie, or the first ones."""
    gain = before - found if scoring == "mse" else found - before
    slack = tie * np.abs(before) if scoring == "mse" else tie
    return (np.isnan(before) & ~np.isnan(found)) | (gain > slack)


def scaled_problem(algebra: Algebra, problem: Problem, scale: np.ndarray) -> Problem:
    """Return the problem with each feature times its scale."""
    return dataclasses.replace(problem, X=problem.X * algebra.array(scale, problem.dtype))


def refit(
    algebra: Algebra,
    problem: Problem,
    band: np.ndarray,
    candidates: np.ndarray,
    choice: Choice,
    fit_intercept: bool,
    kernels: BandKernels | None = None,
) -> tuple[Any, Any]:
    """Fit the targets of each candidate, and of none; weights (features, targets) and intercept."""
    scales = np.sqrt(candidates)[:, band]
    _, n_features, n_targets = problem.shape
    weights = algebra.empty((n_features, n_targets), problem.dtype)
    intercept = algebra.zeros((n_targets,), problem.dtype)
    for candidate in np.unique(choice.candidate):
        chosen = np.flatnonzero(choice.candidate == candidate)
        columns = algebra.array(chosen, "int64")
        alphas = choice.alphas[chosen]
        if candidate < 0:
            own = dataclasses.replace(problem, Y=problem.Y[:, columns])
            logs = np.log(choice.band_weights[chosen] / alphas[:, None])
            found = fit_by_bands(algebra, own, band, logs, fit_intercept, kernels)
            weights[:, columns], intercept[columns] = found
            continue
        scaled = scaled_problem(algebra, problem, scales[candidate])
        scaled = dataclasses.replace(scaled, Y=problem.Y[:, columns])
        alphas = alphas[:1] if (alphas == alphas[0]).all() else alphas
        solved, offset = solve_direct(algebra, scaled, alphas, fit_intercept)
        scale = algebra.array(scales[candidate], "float64")[:, None]
        weights[:, columns] = algebra.cast(solved * scale, problem.dtype)
        intercept[columns] = algebra.cast(offset, problem.dtype)
    return weights, intercept
