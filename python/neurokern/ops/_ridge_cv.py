"""Choose penalties by cross-validation and fit with them: chunk of targets by chunk of targets."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_blocks import BlockSolver, SingleWide
from neurokern.ops._ridge_folds import Fold
from neurokern.ops._ridge_plan import RidgePlan, choose_route
from neurokern.ops._ridge_scores import Scores, best_alphas
from neurokern.ops._ridge_single import SingleTall
from neurokern.ops._ridge_skeleton import Skeleton
from neurokern.ops._ridge_tall import MatrixMoments, TallSolver
from neurokern.ops._ridge_wide import WideSolver

SMALL = 1 << 31  # operations of a problem that is computed in float64 altogether
FEW = 128  # samples below which all problems are: rounding does not average out over so few
RESOLVED = {"float32": 1e7, "float64": 1e15}  # condition above which rounding decides
_AGAIN = 4096  # targets that are computed again in float64 together
NEARLY_PERFECT = 0.999  # score above which squared errors from sums of squares in float32 are rounding
TIE = {"float32": 1e-7, "float64": 1e-12}  # scores that differ by less are equal


class Solver(Protocol):
    """What a route does with a chunk of targets."""

    dtype: str
    skeleton: Skeleton
    spectrum: tuple[float, float]
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

    def take(self, targets: Any, other: Fit) -> None:
        """Replace the results of some targets, given by their indices or as a slice."""
        dtype = str(self.weights.dtype).removeprefix("torch.")
        for name in ("weights", "intercept", "alphas", "scores", "alpha_scores"):
            mine, new = getattr(self, name), getattr(other, name)
            if mine is None:
                continue
            if name in ("weights", "intercept"):
                new = new.astype(dtype) if isinstance(new, np.ndarray) else new.to(mine.dtype)
            mine[..., targets] = new


def empty_fit(algebra: Algebra, problem: Problem, alphas: np.ndarray, keep_scores: bool) -> Fit:
    """Room for the results of all targets."""
    _, n_features, n_targets = problem.shape
    return Fit(
        algebra.empty((n_features, n_targets), problem.dtype),
        algebra.zeros((n_targets,), problem.dtype),
        algebra.empty((n_targets,), "float64"),
        algebra.empty((n_targets,), "float64"),
        algebra.empty((len(alphas), n_targets), "float64") if keep_scores else None,
    )


def plan_search(
    algebra: Algebra, problem: Problem, folds: list[Fold], alphas: np.ndarray
) -> tuple[Problem, RidgePlan]:
    """Return the route of a search over folds, and the problem in float64 if it is a small one."""
    plan = choose_route(
        problem.shape,
        [fold.n_test for fold in folds],
        alphas.size,
        any_aside=any(fold.aside is not None for fold in folds),
        float64=problem.dtype == "float64",
    )
    small = plan.operations[plan.route] < SMALL or problem.shape[0] < FEW
    if small and problem.dtype == "float32":
        problem = dataclasses.replace(problem, X=algebra.cast(problem.X, "float64"), dtype="float64")
    return problem, plan


def make_solver(
    algebra: Algebra, problem: Problem, folds: list[Fold] | str, alphas: np.ndarray, fit_intercept: bool
) -> tuple[Solver, RidgePlan]:
    """Choose a route and decompose what it needs."""
    if isinstance(folds, str):
        n_samples, n_features, n_targets = problem.shape
        operations = n_samples * n_features * (n_targets * alphas.size + min(n_samples, n_features))
        if operations < SMALL or n_samples < FEW:
            problem = dataclasses.replace(problem, X=algebra.cast(problem.X, "float64"), dtype="float64")
        kind = SingleTall if n_features <= n_samples else SingleWide
        return kind(algebra, problem, alphas, fit_intercept, folds == "gcv"), RidgePlan(folds)
    problem, plan = plan_search(algebra, problem, folds, alphas)
    if plan.route == "tall":
        moments = MatrixMoments(algebra, problem, folds, fit_intercept)
        return TallSolver(moments, alphas, fit_intercept), plan
    by_kernel = BlockSolver if plan.route == "blocks" else WideSolver
    return by_kernel(algebra, problem, folds, alphas, fit_intercept), plan


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
    tolerance = TIE[solver.dtype]
    candidates = algebra.array(alphas, "float64")
    fit = empty_fit(algebra, problem, alphas, keep_scores)
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
    smallest, largest = solver.spectrum
    condition = (largest + float(alphas[0])) / (smallest + float(alphas[0]))
    if condition > RESOLVED[solver.dtype]:
        warnings.warn(
            f"ridge_cv: the problem with alpha={alphas[0]:g} has the condition {condition:.1g}, more than "
            f"{solver.dtype} "
            "resolves; scores and weights for such penalties may be rounding errors. Drop the smallest "
            "penalties, or features that others make up",
            RuntimeWarning,
            stacklevel=3,
        )
    return fit, dataclasses.replace(plan, n_solved=len(solver.skeleton), chunk=chunk, condition=condition)


def cross_validate(
    algebra: Algebra, problem: Problem, folds: list[Fold] | str, alphas: np.ndarray, **options: Any
) -> tuple[Fit, RidgePlan]:
    """Choose a route and take it; ``options`` are those of :func:`run`.

    Targets that are predicted nearly perfectly are done again in float64: their errors are differences of
    sums. So are those whose penalty is so small that samples left out hang on few others.
    """
    solver, plan = make_solver(algebra, problem, folds, alphas, options["fit_intercept"])
    fit, plan = run(algebra, solver, plan, problem, alphas, **options)
    if solver.dtype == "float64" or options["scoring"] == "mse" or options["shared"]:
        return fit, plan
    inexact = np.isin(algebra.host(fit.alphas), getattr(solver, "inexact", ()))
    chosen = np.flatnonzero((algebra.host(fit.scores) > NEARLY_PERFECT) | inexact)
    for first in range(0, len(chosen), _AGAIN):
        index = algebra.array(chosen[first : first + _AGAIN], "int64")
        X = algebra.cast(problem.X, "float64")
        some = dataclasses.replace(problem, X=X, Y=problem.Y[:, index], dtype="float64")
        fit.take(index, cross_validate(algebra, some, folds, alphas, **options)[0])
    return fit, plan


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
