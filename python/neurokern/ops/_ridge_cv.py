"""Choose penalties by cross-validation and fit with them: chunk of targets by chunk of targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_folds import Fold
from neurokern.ops._ridge_plan import RidgePlan, choose_route
from neurokern.ops._ridge_scores import Scores, best_alphas
from neurokern.ops._ridge_single import SingleTall, SingleWide
from neurokern.ops._ridge_tall import MatrixMoments, TallSolver
from neurokern.ops._ridge_wide import WideSolver

SMALL = 1 << 31  # operations of a problem that is computed in float64 altogether
TIE = {"float32": 1e-7, "float64": 1e-12}  # scores that differ by less are equal


class Solver(Protocol):
    """What a route does with a chunk of targets."""

    dtype: str
    solved: np.ndarray
    x_mean: Any | None
    y_shift: Any | None

    def chunks(self) -> Iterator[slice]: ...
    def load(self, targets: slice) -> None: ...
    def score(self, scores: Scores) -> Any: ...
    def weights(self, alphas: Any) -> tuple[Any, Any]: ...


@dataclass
class Fit:
    """Arrays of :func:`ridge_cv`'s result, of the algebra that made them."""

    weights: Any
    intercept: Any
    alphas: Any
    scores: Any
    alpha_scores: Any | None


def make_solver(
    algebra: Algebra, problem: Problem, folds: list[Fold] | str, alphas: np.ndarray, fit_intercept: bool
) -> tuple[Solver, RidgePlan]:
    """Choose a route and decompose what it needs."""
    if isinstance(folds, str):
        n_samples, n_features, n_targets = problem.shape
        if n_samples * n_features * (n_targets * alphas.size + min(n_samples, n_features)) < SMALL:
            problem = dataclasses.replace(problem, X=algebra.cast(problem.X, "float64"), dtype="float64")
        kind = SingleTall if n_features <= n_samples else SingleWide
        return kind(algebra, problem, alphas, fit_intercept, folds == "gcv"), RidgePlan(folds)
    plan = choose_route(
        problem.shape,
        [fold.n_test for fold in folds],
        alphas.size,
        any_aside=any(fold.aside is not None for fold in folds),
        float64=problem.dtype == "float64",
    )
    if plan.operations[plan.route] < SMALL and problem.dtype == "float32":
        problem = dataclasses.replace(problem, X=algebra.cast(problem.X, "float64"), dtype="float64")
    if plan.route == "tall":
        moments = MatrixMoments(algebra, problem, folds, fit_intercept)
        return TallSolver(moments, alphas, fit_intercept), plan
    return WideSolver(algebra, problem, folds, alphas, fit_intercept, plan.route == "blocks"), plan


def run(
    algebra: Algebra,
    solver: Solver,
    plan: RidgePlan,
    problem: Problem,
    alphas: np.ndarray,
    *,
    scoring: str,
    pooled: bool,
    shared: bool,
    fit_intercept: bool,
    keep_scores: bool,
) -> tuple[Fit, RidgePlan]:
    """Score, choose and fit."""
    _, n_features, n_targets = problem.shape
    tolerance = TIE[solver.dtype]
    candidates = algebra.array(alphas, "float64")
    fit = Fit(
        algebra.empty((n_features, n_targets), problem.dtype),
        algebra.zeros((n_targets,), problem.dtype),
        algebra.empty((n_targets,), "float64"),
        algebra.empty((n_targets,), "float64"),
        algebra.empty((len(alphas), n_targets), "float64") if keep_scores else None,
    )
    chunks = list(solver.chunks())
    best_of_all = _best_of_all(algebra, solver, chunks, scoring, pooled, tolerance) if shared else None
    for targets in chunks:
        if len(chunks) > 1 or best_of_all is None:
            solver.load(targets)
        if best_of_all is None:
            scores = solver.score(Scores(algebra, scoring, pooled))
            best = best_alphas(scores, scoring, tolerance, algebra)
        else:
            index, all_scores = best_of_all
            scores = all_scores[targets]
            best = algebra.array(np.full(scores.shape[0], index), "int64")
        fit.alphas[targets] = candidates[best]
        fit.scores[targets] = scores[algebra.array(np.arange(scores.shape[0]), "int64"), best]
        if fit.alpha_scores is not None:
            fit.alpha_scores[:, targets] = scores.T
        weights, y_mean = solver.weights(candidates[best])
        fit.weights[:, targets] = algebra.cast(weights, problem.dtype)
        if fit_intercept and solver.x_mean is not None and solver.y_shift is not None:
            of_mean = solver.x_mean @ algebra.cast(weights, "float64")
            fit.intercept[targets] = algebra.cast(solver.y_shift[targets] + y_mean - of_mean, problem.dtype)
    chunk = chunks[0].stop - chunks[0].start if chunks else 0
    return fit, dataclasses.replace(plan, n_solved=len(solver.solved), chunk=chunk)


def _best_of_all(
    algebra: Algebra, solver: Solver, chunks: list[slice], scoring: str, pooled: bool, tolerance: float
) -> tuple[int, Any]:
    """The alpha with the best mean score over targets that have one; and all scores (targets, alphas)."""
    found = []
    for targets in chunks:
        solver.load(targets)
        found.append(solver.score(Scores(algebra, scoring, pooled)))
    scores = algebra.xp.concatenate(found, 0)
    valid = ~algebra.xp.isnan(scores).any(1)
    mean = scores[valid].sum(0)[None] / max(int(valid.sum()), 1)
    return int(best_alphas(mean, scoring, tolerance, algebra)[0]), scores
