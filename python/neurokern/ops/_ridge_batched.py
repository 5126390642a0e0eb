"""Many small ridge problems at once, each with its penalty chosen by leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern.ops import _ridge_batched_op  # registers the ops
from neurokern.ops._library import torch
from neurokern.ops._ridge_arguments import EXACT_IN_FLOAT32, EXACT_IN_FLOAT64, check_alphas

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["BatchedRidge", "solve_ridge_batched"]

_FUNCTION = "solve_ridge_batched"


@dataclass(frozen=True, slots=True)
class BatchedRidge:
    """Solved problems; made by :func:`solve_ridge_batched`. Without the axis of targets if Y had none.

    Attributes
    ----------
    weights : array or tensor of shape (problems, features, targets)
    intercept : array or tensor of shape (problems, targets)
    alphas : array or tensor of shape (problems, targets), float64
        The penalty that each target was fitted with.
    scores : array or tensor of shape (problems, alphas, targets), float64, or None
        Leave-one-out R2 of every candidate, in ascending order of alpha; NaN for a target that does not vary.
        Without an intercept it is about 0, not about the mean: 1 less squared errors over squares of Y.
        None if there was one candidate and so nothing to choose.
    """

    weights: Array
    intercept: Array
    alphas: Array
    scores: Array | None

    def predict(self, X: Array) -> Array:
        """Return predictions (problems, samples, targets) for X of shape (problems, samples, features)."""
        if X.ndim != 3 or X.shape[0] != self.weights.shape[0] or X.shape[2] != self.weights.shape[1]:
            raise ValueError(
                f"BatchedRidge.predict: X must have shape ({self.weights.shape[0]}, samples, "
                f"{self.weights.shape[1]}), got {tuple(X.shape)}"
            )
        if self.weights.ndim == 2:
            return (X @ self.weights[:, :, None])[:, :, 0] + self.intercept[:, None]
        return X @ self.weights + self.intercept[:, None]


def solve_ridge_batched(
    X: Array,
    Y: Array,
    alphas: Array | float,
    *,
    n_samples: Array | None = None,
    fit_intercept: bool = True,
    shared_alpha: bool = False,
    backend: str | None = None,
) -> BatchedRidge:
    r"""Solve :math:`\min_{W, b} \|X W + 1 b - Y\|^2 + \sum_t \alpha_t \|w_t\|^2` for each problem of a batch.

    Made for few-shot episodes, searchlights and sessions: thousands of problems of up to some hundred samples
    or features. The penalty is chosen from a grid by the exact leave-one-out error, for each problem and
    target. Differentiable with respect to X, Y and alphas, with the choice held.

    Parameters
    ----------
    X : array or tensor of shape (problems, samples, features)
    Y : array or tensor of shape (problems, samples, targets) or (problems, samples)
        Of the kind and on the device of X. Arrays of half precision, of bool and of integers of up to 16 bits
        are computed as float32, integers of 32 and 64 bits as float64.
    alphas : float, or sequence, array or tensor of floats
        Candidate penalties above 0; a duplicate counts once.
    n_samples : array or tensor of integers of shape (problems,), optional
        Samples that each problem has, if not all: the first ones. What lies behind them is not read.
    fit_intercept : bool, default True
        The intercept is not penalized.
    shared_alpha : bool, default False
        One alpha for all targets of a problem, that of the smallest sum of squared errors, instead of one for
        each target.
    backend : {None, "native", "reference"}, optional
        Which implementation runs. By default the kernel where min(samples, features) is at most 512, on a
        GPU 128, else the reference: a batched eigendecomposition in float64.

    Returns
    -------
    solution : BatchedRidge
        Weights and intercepts in float64 if X or Y demands it, else in float32. Of errors that are equal but
        for rounding (1e-10) the largest alpha is chosen, as by :func:`neurokern.ops.ridge_cv`: of models that
        predict alike the one with the smaller weights. A target that does not vary has it, too.

    Raises
    ------
    ValueError, TypeError
        If shapes, devices or types do not fit, an alpha is not above 0, a problem has no sample, or one
        sample with several alphas to choose from, or values are NaN or infinite (the message counts the
        problems).
        On a GPU, which is not waited for, results of such a problem are NaN instead.

    Notes
    -----
    The smaller of the Gram matrices :math:`X X^T` and :math:`X^T X` of the centered samples is brought to
    tridiagonal form once, :math:`Q^T G Q = T`, so that each alpha costs :math:`O(m)` for a factor of
    :math:`T + \alpha` and :math:`O(m)` a sample for the diagonal of the inverse: :math:`O(n m (p + m + a q))`
    in all, for n samples, m = min(n, p), a alphas and q targets. All of it is in float64, whatever the type
    of X; results are the same bits on every device and instruction set. In the dual form the leave-one-out
    residuals are :math:`c_i / (A^{-1}_{ii} - 1 / (n (\alpha + \kappa n)))` with
    :math:`A = K + \kappa 1 1^T + \alpha I` and :math:`c = A^{-1} y`: lifting the constant vector's eigenvalue
    from 0 to :math:`\kappa n`, with :math:`\kappa` the mean of K's diagonal, avoids that two numbers of
    size :math:`1 / \alpha` cancel. Second derivatives raise.

    References
    ----------
    .. [1] Golub, Van Loan, "Matrix Computations", 4th ed., sections 4.3 and 8.3.
    .. [2] Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning", 2nd ed., section 7.10.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.arange(24.0).reshape(2, 6, 2) % 7
    >>> Y = X @ np.array([[1.0], [2.0]]) + 3
    >>> solution = solve_ridge_batched(X, Y, [1e-6, 1.0, 1e3])
    >>> solution.weights[1, :, 0].round(3), solution.intercept[1].round(3), solution.alphas[1]
    (array([1., 2.]), array([3.]), array([1.e-06]))
    """
    X, Y, one_target = _check_arrays(X, Y)
    candidates = _check_alphas(alphas, X)
    counts = _check_counts(n_samples, X, len(candidates))
    weights, intercept, chosen, scores = _ridge_batched_op.solve(
        X, Y, candidates, counts, bool(fit_intercept), bool(shared_alpha), backend
    )
    found = scores if len(candidates) > 1 else None
    if one_target:
        weights, intercept, chosen = weights[:, :, 0], intercept[:, 0], chosen[:, 0]
        found = None if found is None else found[:, :, 0]
    return BatchedRidge(weights, intercept, chosen, found)


def _check_arrays(X: Any, Y: Any) -> tuple[Any, Any, bool]:
    is_tensor = torch is not None and isinstance(X, torch.Tensor)
    if is_tensor != (torch is not None and isinstance(Y, torch.Tensor)) or (
        is_tensor and X.device != Y.device
    ):
        raise ValueError(
            f"{_FUNCTION}: X and Y must both be numpy arrays, or tensors on one device, got {_place(X)} and "
            f"{_place(Y)}"
        )
    if not is_tensor:
        X, Y = np.asarray(X), np.asarray(Y)
    if X.ndim != 3 or X.shape[1] == 0:
        raise ValueError(
            f"{_FUNCTION}: X must have shape (problems, samples, features) with at least one sample, got "
            f"{tuple(X.shape)}"
        )
    if Y.ndim not in (2, 3) or tuple(Y.shape[:2]) != tuple(X.shape[:2]):
        raise ValueError(
            f"{_FUNCTION}: Y must have shape ({X.shape[0]}, {X.shape[1]}, targets) or ({X.shape[0]}, "
            f"{X.shape[1]}), one row per row of X, got {tuple(Y.shape)}"
        )
    names = {name: str(array.dtype).removeprefix("torch.") for name, array in (("X", X), ("Y", Y))}
    for name, given in names.items():
        if given not in EXACT_IN_FLOAT32 | EXACT_IN_FLOAT64:
            raise TypeError(f"{_FUNCTION}: {name} must hold real numbers of at most 64 bits, got {given}")
    wide = not EXACT_IN_FLOAT64.isdisjoint(names.values())
    one_target = Y.ndim == 2
    Y = Y[:, :, None] if one_target else Y
    if is_tensor:
        kind = torch.float64 if wide else torch.float32
        return X.to(kind), Y.to(kind), one_target
    dtype = np.float64 if wide else np.float32
    return X.astype(dtype, copy=False), Y.astype(dtype, copy=False), one_target


def _place(array: Any) -> str:
    is_tensor = torch is not None and isinstance(array, torch.Tensor)
    return f"a tensor on {array.device}" if is_tensor else f"a {type(array).__name__}"


def _check_alphas(alphas: Any, X: Any) -> Any:
    """Return the candidates, ascending, as float64 of the kind and on the device of X."""
    values = check_alphas(_FUNCTION, alphas)
    if isinstance(X, np.ndarray):
        return values
    if torch.is_tensor(alphas) and alphas.requires_grad:
        _, first = np.unique(alphas.detach().cpu().double().numpy(), return_index=True)
        places = torch.from_numpy(first).to(alphas.device)
        return alphas.reshape(-1)[places].to(X.device, torch.float64)
    return torch.from_numpy(values).to(X.device)


def _check_counts(counts: Any, X: Any, n_alphas: int) -> Any:
    """Return the samples of each problem as int64 of the kind and on the device of X; None for all."""
    least, n = (2 if n_alphas > 1 else 1), X.shape[1]
    remedy = "; one sample leaves nothing to choose an alpha by: pass one alpha" if least == 2 else ""
    if counts is None:
        if n < least:
            raise ValueError(f"{_FUNCTION}: X must hold at least 2 samples of each problem, got {n}{remedy}")
        return None
    is_tensor = torch is not None and isinstance(counts, torch.Tensor)
    counts = counts if is_tensor else np.asarray(counts)
    whole = str(counts.dtype).removeprefix("torch.").startswith(("int", "uint"))
    if tuple(counts.shape) != (X.shape[0],) or not whole:
        raise ValueError(
            f"{_FUNCTION}: n_samples must hold one integer per problem, {X.shape[0]} in all, got shape "
            f"{tuple(counts.shape)} of {counts.dtype}"
        )
    if not is_tensor or counts.device.type == "cpu":  # another device is not waited for
        on_host = np.asarray(counts)
        bad = on_host[(on_host < least) | (on_host > n)]
        if bad.size:
            raise ValueError(
                f"{_FUNCTION}: n_samples must lie in [{least}, {n}], got {bad[0]} "
                f"({bad.size} of {on_host.size} problems){remedy}"
            )
    if isinstance(X, np.ndarray):
        return np.ascontiguousarray(counts, np.int64)
    return torch.as_tensor(counts, dtype=torch.int64, device=X.device).contiguous()
