"""Ridge regression of many targets on shared features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from neurokern.ops import _ridge_autograd  # registers the ops
from neurokern.ops._library import torch
from neurokern.ops._ridge_arguments import check_alpha, check_problem
from neurokern.ops._ridge_blas import algebra_for
from neurokern.ops._ridge_direct import solve_direct

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["RidgeSolution", "solve_ridge"]


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
