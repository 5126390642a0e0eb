"""Ridge regression of many targets on shared features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from neurokern._check import check_choice
from neurokern.ops import _ridge_autograd  # registers the ops
from neurokern.ops._library import torch
from neurokern.ops._ridge_accumulator import RidgeAccumulator
from neurokern.ops._ridge_arguments import Problem, check_alpha, check_alphas, check_problem
from neurokern.ops._ridge_batched import BatchedRidge, solve_ridge_batched
from neurokern.ops._ridge_blas import Algebra, algebra_for
from neurokern.ops._ridge_cv import Fit, cross_validate, empty_fit
from neurokern.ops._ridge_direct import solve_direct
from neurokern.ops._ridge_folds import Fold, make_folds
from neurokern.ops._ridge_masked import folds_of, groups_by_missing, subproblem
from neurokern.ops._ridge_plan import RidgePlan
from neurokern.ops._ridge_result import RidgeCVResult, make_result
from neurokern.ops._ridge_scores import SCORINGS

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = [
    "BatchedRidge",
    "RidgeAccumulator",
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
    nan_policy: str = "raise",
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
    nan_policy : {"raise", "mask"}, default "raise"
        "mask" takes NaN in Y for missing samples: each target is fitted to those that it has. Targets that
        miss the same samples are solved together, so that a few patterns are as fast as none, and thousands
        are not.

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
    problem = check_problem("solve_ridge", X, Y, sample_weight, nan_policy=nan_policy)
    alphas = check_alpha("solve_ridge", alpha, problem.shape[2])
    if _wants_gradient(X, Y, alpha, sample_weight):
        if nan_policy != "raise":
            raise ValueError("solve_ridge: nan_policy must be 'raise' if a gradient is asked for, got 'mask'")
        weights, intercept = _differentiable(X, Y, alpha, sample_weight, fit_intercept, problem.dtype)
    else:
        with algebra_for(problem.device) as algebra:
            if nan_policy == "mask":
                solved = _solve_masked(algebra, problem, alphas, fit_intercept)
            else:
                solved = solve_direct(algebra, problem, alphas, fit_intercept)
        weights, intercept = (problem.give(values) for values in solved)
    if problem.one_target:
        return RidgeSolution(weights[:, 0], intercept[0])
    return RidgeSolution(weights, intercept)


def _solve_masked(
    algebra: Algebra, problem: Problem, alphas: np.ndarray, fit_intercept: bool
) -> tuple[Any, Any]:
    _, n_features, n_targets = problem.shape
    weights = algebra.empty((n_features, n_targets), problem.dtype)
    intercept = algebra.empty((n_targets,), problem.dtype)
    for targets, samples in groups_by_missing(algebra, problem.Y):
        _check_samples("solve_ridge", targets, samples)
        columns = algebra.array(targets, "int64")
        own = alphas if alphas.size == 1 else alphas[targets]
        part = subproblem(algebra, problem, targets, samples)
        weights[:, columns], intercept[columns] = solve_direct(algebra, part, own, fit_intercept)
    return weights, intercept


def _check_samples(function: str, targets: np.ndarray, samples: np.ndarray) -> None:
    if not len(samples):
        raise ValueError(
            f"{function}: Y must hold at least one sample of every target, got none of {len(targets)} "
            f"targets, the first of them number {targets[0]}"
        )


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
    nan_policy: str = "raise",
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
    nan_policy : {"raise", "mask"}, default "raise"
        "mask" takes NaN in Y for missing samples: each target is scored by and fitted to those that it has.
        Targets that miss the same samples are solved together, so that a few patterns are as fast as none,
        and thousands are not.
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
    A fold in which a target does not vary is left out of its mean; a target that varies in no fold gets
    the score NaN and the largest penalty. Among penalties whose scores are equal to 1e-7 (1e-12 in
    float64) the largest is taken, of models that predict alike the one with the smaller weights. Scores
    are computed without predictions where there are more samples than features, from the kernel of the
    samples where there are fewer, by the cheapest route; ``return_plan`` shows it. Penalties of a long
    grid that others stand for are not solved. Targets are computed in chunks, so that memory beyond input
    and result is bounded.

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
    problem = check_problem("ridge_cv", X, Y, sample_weight, nan_policy=nan_policy)
    candidates = check_alphas("ridge_cv", alphas)
    splits = make_folds("ridge_cv", folds, runs, problem.shape[0])
    if isinstance(splits, str) and pooled is False and scoring != "mse":
        raise ValueError(f"ridge_cv: pooled must be True with folds={splits!r}: one sample has no {scoring}")
    if splits == "gcv" and scoring == "pearson":
        raise ValueError("ridge_cv: scoring='pearson' needs predictions, which folds='gcv' has none of")
    if problem.weight is not None and not isinstance(splits, str):
        _check_fold_weights(splits, problem.weight)
    pool = isinstance(splits, str) if pooled is None else pooled
    options = {
        "fit_intercept": fit_intercept,
        "scoring": scoring,
        "pooled": pool,
        "shared": shared_alpha,
        "keep_scores": return_alpha_scores,
    }
    if nan_policy == "mask" and shared_alpha:
        raise ValueError("ridge_cv: shared_alpha must be False with nan_policy='mask', which solves apart")
    with algebra_for(problem.device) as algebra:
        if nan_policy == "mask":
            fit, plan = _masked(algebra, problem, splits, candidates, options)
        else:
            fit, plan = cross_validate(algebra, problem, splits, candidates, **options)
    return make_result(problem, fit, candidates, scoring, pool, plan if return_plan else None)


def _masked(
    algebra: Algebra, problem: Problem, splits: list[Fold] | str, alphas: np.ndarray, options: dict[str, Any]
) -> tuple[Fit, RidgePlan]:
    """Cross-validate targets with the same missing samples; the plan is that of the last of them."""
    fit, plan = empty_fit(algebra, problem, alphas, options["keep_scores"]), RidgePlan("masked")
    for targets, samples in groups_by_missing(algebra, problem.Y):
        _check_samples("ridge_cv", targets, samples)
        own = splits if isinstance(splits, str) else folds_of(splits, samples, problem.shape[0])
        if not own or len(samples) < 2:
            raise ValueError(
                f"ridge_cv: Y must hold samples on both sides of a fold, got none of {len(targets)} targets, "
                f"the first of them number {targets[0]}"
            )
        part = subproblem(algebra, problem, targets, samples)
        found, plan = cross_validate(algebra, part, own, alphas, **options)
        fit.take(algebra.array(targets, "int64"), found)
    return fit, plan


def _check_fold_weights(folds: list[Any], weight: Any) -> None:
    for number, fold in enumerate(folds):
        for side, rows in (("training", fold.train), ("test", fold.test)):
            if not float(weight[rows].sum()) > 0:
                raise ValueError(
                    f"ridge_cv: sample_weight must not be 0 on all {side} samples of fold {number}"
                )
