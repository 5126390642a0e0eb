"""solve_ridge_batched of arrays, and of tensors as a registered op with its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern.ops import _library
from neurokern.ops import _ridge_batched_reference as reference
from neurokern.ops._library import torch
from neurokern.ops._ridge_arguments import LARGEST

if TYPE_CHECKING:
    from torch import Tensor

_FUNCTION = "solve_ridge_batched"


def solve(
    X: Any, Y: Any, alphas: Any, counts: Any, fit_intercept: bool, shared_alpha: bool, backend: str | None
) -> tuple[Any, Any, Any, Any]:
    """Return weights, intercept, the chosen alphas and scores, of the kind of X."""
    call = _solve if isinstance(X, np.ndarray) else torch.ops.neurokern.solve_ridge_batched
    weights, intercept, _, choice, scores = call(X, Y, alphas, counts, fit_intercept, shared_alpha, backend)
    return weights, intercept, alphas[choice], scores


def _contiguous(array: Any) -> Any:
    return np.ascontiguousarray(array) if isinstance(array, np.ndarray) else array.detach().contiguous()


def _uses_kernel(X: Any, backend: str | None) -> bool:
    chosen = _library.choose_backend(_FUNCTION, _library.device_type(X), backend)
    core = _library.core
    limit = core.max_cuda_ridge_side if _library.runs_on_gpu(X) else core.max_ridge_side
    fits = min(X.shape[1], X.shape[2]) <= limit
    if backend == "native" and not fits:
        raise ValueError(
            f"{_FUNCTION}: backend='native' takes at most {limit} samples or {limit} features, got "
            f"{X.shape[1]} and {X.shape[2]}; leave backend out"
        )
    if backend == "triton":
        raise ValueError(f"{_FUNCTION}: no Triton kernel; backend must be None, 'native' or 'reference'")
    return chosen == "native" and fits


def _arguments(X: Any, alphas: Any, counts: Any, n_targets: int, fit_intercept: bool) -> dict[str, Any]:
    """Name what both directions take; the caller keeps the arrays alive."""
    unused = dict.fromkeys(("Y", "weights", "intercept", "dual", "choice", "scores", "shared_alpha"), 0)
    return unused | {
        "X": _library.address(X),
        "alphas": _library.address(alphas),
        "counts": _library.address(counts),
        "n_problems": X.shape[0],
        "n_samples": X.shape[1],
        "n_features": X.shape[2],
        "n_targets": n_targets,
        "n_alphas": len(alphas),
        "double_precision": str(X.dtype).endswith("float64"),
        "fit_intercept": fit_intercept,
    }


def _call(name: str, X: Any, arguments: dict[str, Any]) -> int:
    """Run a kernel; return how many problems hold NaN or infinity, as far as the host may know."""
    if not _library.runs_on_gpu(X):
        return int(getattr(_library.core, name)(arguments, _library.thread_count()) or 0)
    with _library.gpu_module(X) as (module, stream):
        room = _library.new_array(X, (module.ridge_room(arguments),), "float64")
        getattr(module, name)(arguments, _library.address(room), stream)
    return 0


def _check_finite(X: Any, n_bad: int) -> None:
    if n_bad:
        raise ValueError(
            f"{_FUNCTION}: X and Y must be finite, got NaN, infinity or numbers too large to be squared in "
            f"{n_bad} of {len(X)} problems; drop or fill those samples"
        )


def _solve(
    X: Any, Y: Any, alphas: Any, counts: Any, fit_intercept: bool, shared_alpha: bool, backend: str | None
) -> tuple[Any, Any, Any, Any, Any]:
    X, Y, alphas = _contiguous(X), _contiguous(Y), _contiguous(alphas)
    if not _uses_kernel(X, backend):
        return _solve_by_reference(X, Y, alphas, counts, fit_intercept, shared_alpha)
    (n_problems, n, p), q = X.shape, Y.shape[2]
    weights, intercept, dual = (
        _library.new_array(X, shape, X.dtype)
        for shape in ((n_problems, p, q), (n_problems, q), (n_problems, n, q))
    )
    choice = _library.new_array(X, (n_problems, q), "int64")
    scores = _library.new_array(X, (n_problems, len(alphas) if len(alphas) > 1 else 0, q), "float64")
    arguments = _arguments(X, alphas, counts, q, fit_intercept) | {
        "Y": _library.address(Y),
        "weights": _library.address(weights),
        "intercept": _library.address(intercept),
        "dual": _library.address(dual),
        "choice": _library.address(choice),
        "scores": _library.address(scores),
        "shared_alpha": shared_alpha,
    }
    _check_finite(X, _call(_FUNCTION, X, arguments))
    return weights, intercept, dual, choice, scores


def _solve_by_reference(
    X: Any, Y: Any, alphas: Any, counts: Any, fit_intercept: bool, shared_alpha: bool
) -> tuple[Any, ...]:
    if _library.device_type(X) == "cpu":  # another device is not waited for
        there = slice(None) if counts is None else _there(X, counts)
        finite = [
            (np.abs(np.asarray(values)[there]) < LARGEST).all(-1)  # NaN is not
            for values in (X, Y)
        ]
        if not (finite[0].all() and finite[1].all()):
            problems = np.arange(len(X))[:, None].repeat(X.shape[1], 1)[there]
            _check_finite(X, len(np.unique(problems[~(finite[0] & finite[1])])))
    return reference.solve(X, Y, alphas, counts, fit_intercept, shared_alpha)


def _there(X: Any, counts: Any) -> Any:
    return np.arange(X.shape[1]) < np.asarray(counts)[:, None]


def _differentiate(
    X: Any,
    alphas: Any,
    counts: Any,
    weights: Any,
    dual: Any,
    grad_weights: Any,
    grad_intercept: Any,
    fit_intercept: bool,
    backend: str | None,
) -> tuple[Any, Any, Any]:
    read = (X, alphas, weights, dual, grad_weights, grad_intercept)
    X, alphas, weights, dual, grad_weights, grad_intercept = (_contiguous(part) for part in read)
    if not _uses_kernel(X, backend):
        return reference.differentiate(
            X, alphas, counts, weights, dual, grad_weights, grad_intercept, fit_intercept
        )
    q = weights.shape[2]
    grad_X = _library.new_array(X, tuple(X.shape), X.dtype)
    grad_Y = _library.new_array(X, (*X.shape[:2], q), X.dtype)
    grad_alphas = _library.new_array(X, (X.shape[0], q), "float64")
    arguments = _arguments(X, alphas, counts, q, fit_intercept) | {
        "weights": _library.address(weights),
        "dual": _library.address(dual),
        "grad_weights": _library.address(grad_weights),
        "grad_intercept": _library.address(grad_intercept),
        "grad_X": _library.address(grad_X),
        "grad_Y": _library.address(grad_Y),
        "grad_alphas": _library.address(grad_alphas),
    }
    _call(f"{_FUNCTION}_backward", X, arguments)
    return grad_X, grad_Y, grad_alphas


# ---- the registered ops


def _fake(
    X: Tensor,
    Y: Tensor,
    alphas: Tensor,
    counts: Tensor | None,
    fit_intercept: bool,
    shared_alpha: bool,
    backend: str | None,
) -> tuple[Tensor, ...]:
    (n_problems, n, p), q = X.shape, Y.shape[2]
    n_scores = alphas.shape[0] if alphas.shape[0] > 1 else 0
    return (
        X.new_empty((n_problems, p, q)),
        X.new_empty((n_problems, q)),
        X.new_empty((n_problems, n, q)),
        X.new_empty((n_problems, q), dtype=torch.int64),
        X.new_empty((n_problems, n_scores, q), dtype=torch.float64),
    )


def _fake_backward(X: Tensor, alphas: Tensor, counts: Tensor | None, weights: Tensor, *rest: Any) -> Any:
    q = weights.shape[2]
    return X.new_empty(X.shape), X.new_empty((*X.shape[:2], q)), torch.empty_like(alphas)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    X, _, alphas, counts, ctx.fit_intercept, _, ctx.backend = inputs
    weights, _, dual, choice, scores = output
    ctx.save_for_backward(X, alphas, counts, weights, dual, choice)
    ctx.mark_non_differentiable(dual, choice, scores)


def _backward(ctx: Any, grad_weights: Tensor, grad_intercept: Tensor, *unused: Any) -> tuple[Any, ...]:
    X, alphas, counts, weights, dual, choice = ctx.saved_tensors
    grad_X, grad_Y, grad_each = torch.ops.neurokern.solve_ridge_batched_backward(
        X,
        alphas[choice],
        counts,
        weights,
        dual,
        grad_weights,
        grad_intercept,
        ctx.fit_intercept,
        ctx.backend,
    )
    grad_alphas = None
    if ctx.needs_input_grad[2]:
        grad_alphas = torch.zeros_like(alphas).index_add(0, choice.flatten(), grad_each.flatten())
    return grad_X, grad_Y, grad_alphas, None, None, None, None


_library.register(
    "solve_ridge_batched(Tensor X, Tensor Y, Tensor alphas, Tensor? n_samples, bool fit_intercept, "
    "bool shared_alpha, str? backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    cpu=_solve,
    cuda=_solve,
    fake=_fake,
    backward=_backward,
    setup_context=_save,
)
_library.register(
    "solve_ridge_batched_backward(Tensor X, Tensor alphas, Tensor? n_samples, Tensor weights, Tensor dual, "
    "Tensor grad_weights, Tensor grad_intercept, bool fit_intercept, str? backend) "
    "-> (Tensor, Tensor, Tensor)",
    cpu=_differentiate,
    cuda=_differentiate,
    fake=_fake_backward,
    backward=None,
)
