"""Ridge regression of many targets on shared features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurokern._check import check_choice
from neurokern.ops import _ridge_autograd  # registers the ops
from neurokern.ops._library import torch
from neurokern.ops._ridge_arguments import check_alpha, check_alphas, check_problem
from neurokern.ops._ridge_batched import BatchedRidge, solve_ridge_batched
from neurokern.ops._ridge_blas import algebra_for
from neurokern.ops._ridge_cv import make_solver, run
from neurokern.ops._ridge_direct import solve_direct
from neurokern.ops._ridge_folds import make_folds
from neurokern.ops._ridge_plan import RidgePlan
from neurokern.ops._ridge_scores import SCORINGS

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = [
    "BatchedRidge",
    "RidgeCVResult",
    "RidgePlan",
    "RidgeSolution",
    "ridge_cv",
    "solve_ridge",
    "solve_ridge_batched",
]


class RidgeSolution(NamedTuple):
    """What :func:`solve_ridge` returns: ``weights, intercept = solve_ridge(...)``."""

    weights: Array  # (features, targets), or (features,) for Y of one axis
    intercept: Array  # (targets,), or () for Y of one axis


def solve_ridge(
    X: Array,
    Y: Array,
    alpha: Array | float,
    *,
    sample_weight: Array | None = None,
    fit_intercept: bool = True,
) -> RidgeSolution:
    r"""Solve :math:`\min_{W, b} \sum_i s_i \|x_i W + b - y_i\|^2 + \sum_t \alpha_t \|w_t\|^2`.

    Features are not scaled, and the intercept is not penalized. Differentiable with respect to X, Y, alpha
    and the weights of samples, if these are tensors that ask for it.

    Parameters
    ----------
    X : array or tensor of shape (samples, features)
    Y : array or tensor of shape (samples, targets) or (samples,)
        Of the kind and on the device of X. Arrays of half precision, of bool and of integers of up to 16 bits
        are computed in float32, which holds them exactly, integers of 32 and 64 bits in float64.
    alpha : float, or array or tensor of shape (targets,)
        Penalties, above 0.
    sample_weight : array or tensor of shape (samples,), optional
        Not negative; a weight of 2 counts a sample twice.
    fit_intercept : bool, default True

    Returns
    -------
    solution : RidgeSolution
        Weights ``(features, targets)`` and intercept ``(targets,)`` in float64 if X or Y demands it, else in
        float32, on the device of X; without the axis of targets if Y had none. The intercept is 0 without
        ``fit_intercept``.

    Raises
    ------
    ValueError, TypeError
        If shapes, devices or types do not fit, values are NaN or infinite (the message counts the rows), or
        an alpha is not above 0.

    Notes
    -----
    With at most as many features as samples the features' Gram matrix is solved (primal form), otherwise the
    samples' (dual form): one Cholesky factorization for one alpha, one eigendecomposition for one alpha per
    target. Means, Gram matrix and its solution are in float64 also for float32 input. Copies of X and Y are
    made by blocks only, unless gradients are asked for. Gradients follow from the solution by the implicit
    function theorem and reuse its factor; second derivatives raise.

    References
    ----------
    .. [1] Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning", 2nd ed., sections 3.4 and
    12.3.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [2.0]])
    >>> weights, intercept = solve_ridge(X, 3 * X[:, 0] + 1, 1e-9)
    >>> print(weights.round(4), intercept.round(4))
    [3.] 1.0
    """
    problem = check_problem("solve_ridge", X, Y, sample_weight)
    alphas = check_alpha("solve_ridge", alpha, problem.shape[2])
    if _wants_gradient(X, Y, alpha, sample_weight):
        weights, intercept = _differentiable(X, Y, alpha, sample_weight, fit_intercept, problem.dtype)
    else:
        with algebra_for(problem.device) as algebra:
            solved = solve_direct(algebra, problem, alphas, fit_intercept)
        weights, intercept = (problem.give(values) for values in solved)
    if problem.one_target:
        return RidgeSolution(weights[:, 0], intercept[0])
    return RidgeSolution(weights, intercept)


def _wants_gradient(*arguments: Any) -> bool:
    if torch is None or not torch.is_grad_enabled():
        return False
    return any(isinstance(value, torch.Tensor) and value.requires_grad for value in arguments)


def _differentiable(
    X: Any, Y: Any, alpha: Any, sample_weight: Any, fit_intercept: bool, dtype: str
) -> tuple[Any, Any]:
    """Cast and shape the arguments by operations that torch records."""
    if not (isinstance(X, torch.Tensor) and isinstance(Y, torch.Tensor)):
        raise TypeError("solve_ridge: X and Y must be tensors if a gradient is asked for, got numpy arrays")
    X, Y = X.to(getattr(torch, dtype)), Y.to(getattr(torch, dtype)).reshape(len(Y), -1)
    alpha = torch.as_tensor(alpha, dtype=torch.float64, device=X.device).reshape(-1)
    if sample_weight is not None:
        sample_weight = torch.as_tensor(sample_weight, dtype=torch.float64, device=X.device)
    return _ridge_autograd.solve_with_gradient(X, Y, alpha, sample_weight, fit_intercept)


@dataclass(frozen=True, slots=True)
class RidgeCVResult:
    """A ridge regression with cross-validated penalties; made by :func:`ridge_cv`.

    Arrays are of the kind and on the device of the input; without the axis of targets if Y had none.

    Attributes
    ----------
    weights : (features, targets)
        Of the fit to all samples.
    intercept : (targets,)
    alphas : (targets,), float64
        The penalty that was chosen.
    scores : (targets,), float64
        Its cross-validated score.
    scoring : str
        What the scores are: ``"r2, mean over folds"``, ``"pearson, pooled"`` ...
    candidates : numpy array of shape (alphas,), float64
        Penalties, ascending, without duplicates.
    alpha_scores : (alphas, targets), float64, or None
        Scores of all candidates, with ``return_alpha_scores=True``.
    plan : RidgePlan or None
        How it was computed, with ``return_plan=True``.
    """

    weights: Array
    intercept: Array
    alphas: Array
    scores: Array
    scoring: str
    candidates: np.ndarray
    alpha_scores: Array | None = None
    plan: RidgePlan | None = None

    def predict(self, X: Array) -> Array:
        """Predictions (samples, targets) for X (samples, features)."""
        return X @ self.weights + self.intercept


def ridge_cv(
    X: Array,
    Y: Array,
    alphas: Array,
    folds: Any = 5,
    *,
    runs: Array | None = None,
    scoring: str = "r2",
    pooled: bool | None = None,
    shared_alpha: bool = False,
    sample_weight: Array | None = None,
    fit_intercept: bool = True,
    return_alpha_scores: bool = False,
    return_plan: bool = False,
) -> RidgeCVResult:
    r"""Choose a penalty for each target by cross-validation, and fit all samples with it.

    Solves :math:`\min_{W, b} \sum_i s_i \|x_i W + b - y_i\|^2 + \sum_t \alpha_t \|w_t\|^2`.

    Parameters
    ----------
    X : array or tensor of shape (samples, features)
    Y : array or tensor of shape (samples, targets) or (samples,)
        Kinds, devices and types as in :func:`solve_ridge`.
    alphas : sequence of floats
        Candidate penalties, above 0, in any order.
    folds : default 5
        A number of contiguous blocks of samples; ``"leave-one-run-out"`` with ``runs``; pairs ``(train,
        test)`` of indices or masks, where samples in neither (a gap) are left aside; a splitter of
        scikit-learn; ``"leave-one-out"``, or its approximation ``"gcv"``. The last two are too hopeful where
        neighboring samples are correlated, as those of time series are.
    runs : array of shape (samples,), optional
        Labels of runs, or groups for a splitter.
    scoring : {"r2", "pearson", "mse"}, default "r2"
        What the choice is made by.
    pooled : bool, optional
        True scores the predictions of all folds together, False each fold by itself and takes the mean over
        folds. The two differ: a mean over folds forgives errors of a fold's level. Default False, but True
        for leave-one-out and gcv.
    shared_alpha : bool, default False
        One penalty for all targets, with the best mean score, instead of one each.
    sample_weight : array or tensor of shape (samples,), optional
        Weights in fits and scores. Not negative.
    fit_intercept : bool, default True
    return_alpha_scores, return_plan : bool, default False
        Add ``alpha_scores`` and ``plan`` to the result.

    Returns
    -------
    result : RidgeCVResult

    Raises
    ------
    ValueError, TypeError
        If arguments do not fit: see :func:`solve_ridge`; or if a fold has no sample on a side, or one on
        both.

    Warns
    -----
    RuntimeWarning
        If the smallest penalty is below what the type of the products resolves beside the largest eigenvalue:
        the scores of such penalties are rounding errors.

    Notes
    -----
    A fold in which a target does not vary is left out of its mean; a target that varies in no fold gets the
    score NaN and the largest penalty. Among penalties whose scores are equal to 1e-7 (1e-12 in float64) the
    largest is taken. Scores are computed without predictions where there are more samples than features, from
    the kernel of the samples where there are fewer, by the cheapest route; ``return_plan`` shows it.
    Penalties of a long grid that others stand for are not solved. Targets are computed in chunks, so that
    memory beyond input and result is bounded.

    Examples
    --------
    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> X = random.normal(size=(200, 4))
    >>> Y = X @ random.normal(size=(4, 3)) + random.normal(size=(200, 3))
    >>> ridge_cv(X, Y, [0.1, 1.0, 1e3], folds=4).alphas
    array([1., 1., 1.])
    """
    check_choice("ridge_cv", "scoring", scoring, SCORINGS)
    problem = check_problem("ridge_cv", X, Y, sample_weight)
    candidates = check_alphas("ridge_cv", alphas)
    splits = make_folds("ridge_cv", folds, runs, problem.shape[0])
    if isinstance(splits, str) and pooled is False and scoring != "mse":
        raise ValueError(f"ridge_cv: pooled must be True with folds={splits!r}: one sample has no {scoring}")
    if splits == "gcv" and scoring == "pearson":
        raise ValueError("ridge_cv: scoring='pearson' needs predictions, which folds='gcv' has none of")
    if problem.weight is not None and not isinstance(splits, str):
        _check_fold_weights(splits, problem.weight)
    pool = isinstance(splits, str) if pooled is None else pooled
    with algebra_for(problem.device) as algebra:
        solver, plan = make_solver(algebra, problem, splits, candidates, fit_intercept)
        fit, plan = run(
            algebra,
            solver,
            plan,
            problem,
            candidates,
            scoring=scoring,
            pooled=pool,
            shared=shared_alpha,
            fit_intercept=fit_intercept,
            keep_scores=return_alpha_scores,
        )

    def give(values: Any) -> Any:
        values = problem.give(values)
        return values[..., 0] if problem.one_target else values

    return RidgeCVResult(
        give(fit.weights),
        give(fit.intercept),
        give(fit.alphas),
        give(fit.scores),
        scoring=f"{scoring}, {'pooled' if pool else 'mean over folds'}",
        candidates=candidates,
        alpha_scores=None if fit.alpha_scores is None else give(fit.alpha_scores),
        plan=plan if return_plan else None,
    )


def _check_fold_weights(folds: list[Any], weight: Any) -> None:
    for number, fold in enumerate(folds):
        for side, rows in (("training", fold.train), ("test", fold.test)):
            if not float(weight[rows].sum()) > 0:
                raise ValueError(
                    f"ridge_cv: sample_weight must not be 0 on all {side} samples of fold {number}"
                )
