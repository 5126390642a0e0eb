r"""The gradient of a ridge solution, from the solution itself: no step of the solver is recorded.

With :math:`W = (X^T X + \alpha)^{-1} X^T Y` and :math:`g = \partial L / \partial W`, each target's penalty
its own,

.. math::
    S = (X^T X + \alpha)^{-1} g, \quad \partial Y = X S, \quad
    \partial X = (Y - X W) S^T - X S W^T, \quad \partial \alpha_t = - s_t \cdot w_t

and for more features than samples, with :math:`C = (X X^T + \alpha)^{-1} Y` and
:math:`S = (X X^T + \alpha)^{-1} X g`,

.. math::
    \partial Y = S, \quad \partial X = C g^T - (S C^T + C S^T) X, \quad \partial \alpha_t = - s_t \cdot c_t
"""

from __future__ import annotations

from typing import Any

from neurokern.ops import _library, _ridge_blas
from neurokern.ops._library import torch
from neurokern.ops._ridge_blas import Algebra, algebra_for

_SCHEMA = "ridge_weights(Tensor X, Tensor Y, Tensor alpha) -> (Tensor, Tensor, Tensor, Tensor)"
_BACKWARD = (
    "ridge_weights_backward(Tensor grad, Tensor X, Tensor Y, Tensor alpha, Tensor weights, Tensor duals, "
    "Tensor factor, Tensor eigenvalues) -> (Tensor, Tensor, Tensor)"
)


def _sizes(X: Any, Y: Any) -> tuple[bool, int]:
    return X.shape[0] < X.shape[1], min(X.shape[0], X.shape[1])


def _inverse_times(algebra: Algebra, factor: Any, eigenvalues: Any, alpha: Any, right: Any) -> Any:
    """Apply (A + alpha)^-1 in the factor's type: the inverse, or eigenvectors for one alpha per target."""
    right = algebra.cast(right, str(factor.dtype).removeprefix("torch."))
    if eigenvalues.shape[0] == 0:
        return algebra.mm(factor, right)
    rotated = algebra.mm(factor.T, right)
    rotated /= eigenvalues[:, None] + alpha
    return algebra.mm(factor, rotated)


def _forward(X: Any, Y: Any, alpha: Any) -> tuple[Any, ...]:
    """Weights, dual coefficients (or nothing), inverse or eigenvectors, eigenvalues (or nothing)."""
    dual, rank = _sizes(X, Y)
    with algebra_for(_ridge_blas.device_of(X)) as algebra:
        x, y, penalty = (_inside(values) for values in (X, Y, alpha))
        wide = algebra.cast(x, "float64")
        matrix = algebra.gram(wide.T if dual else wide)
        eigenvalues = algebra.zeros((0,), "float64")
        if alpha.shape[0] > 1:
            eigenvalues, factor = algebra.eigh(matrix)
            eigenvalues = eigenvalues.clip(0)
        else:
            identity = algebra.xp.eye(rank, dtype=matrix.dtype, **_on(X))
            factor = algebra.inverse(matrix + penalty * identity)
        right = y if dual else algebra.mm(x.T, y)
        solved = algebra.cast(_inverse_times(algebra, factor, eigenvalues, penalty, right), _dtype(X))
        weights = algebra.mm(x.T, solved) if dual else solved
        duals = solved if dual else algebra.zeros((0, Y.shape[1]), _dtype(X))
        return tuple(_outside(values, X) for values in (weights, duals, factor, eigenvalues))


def _backward(
    grad: Any, X: Any, Y: Any, alpha: Any, weights: Any, duals: Any, factor: Any, eigenvalues: Any
) -> tuple[Any, ...]:
    dual, _ = _sizes(X, Y)
    with algebra_for(_ridge_blas.device_of(X)) as algebra:
        g, x, y, penalty, w, c, inverse, values = (
            _inside(tensor) for tensor in (grad, X, Y, alpha, weights, duals, factor, eigenvalues)
        )
        mm = algebra.mm
        right = mm(x, g) if dual else g
        inverse = algebra.cast(
            inverse, _dtype(X)
        )  # the weights were solved in float64; a gradient may be rounded
        s = _inverse_times(algebra, inverse, values, penalty, right)
        if dual:
            y_grad = s
            half = mm(s, c.T)
            x_grad = mm(c, g.T) - mm(half + half.T, x)
            products = algebra.cast(s, "float64") * algebra.cast(c, "float64")
        else:
            y_grad = mm(x, s)
            x_grad = mm(y - mm(x, w), s.T) - mm(y_grad, w.T)
            products = algebra.cast(s, "float64") * algebra.cast(w, "float64")
        per_target = -products.sum(0)
        alpha_grad = per_target if alpha.shape[0] > 1 else per_target.sum().reshape(1)
        return tuple(_outside(values, X) for values in (x_grad, y_grad, alpha_grad))


def _on(X: Any) -> dict[str, Any]:
    return {} if _ridge_blas.device_of(X) is None else {"device": X.device}


def _inside(tensor: Any) -> Any:
    return tensor.detach().numpy() if _ridge_blas.device_of(tensor) is None else tensor.detach()


def _outside(values: Any, X: Any) -> Any:
    tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(values)
    return tensor.contiguous()


def _dtype(X: Any) -> str:
    return str(X.dtype).removeprefix("torch.")


def _fake_forward(X: Any, Y: Any, alpha: Any) -> tuple[Any, ...]:
    dual, rank = _sizes(X, Y)
    n_targets = Y.shape[1]
    return (
        X.new_empty(X.shape[1], n_targets),
        X.new_empty(X.shape[0] if dual else 0, n_targets),
        X.new_empty(rank, rank, dtype=torch.float64),
        X.new_empty(rank if alpha.shape[0] > 1 else 0, dtype=torch.float64),
    )


def _fake_backward(grad: Any, X: Any, Y: Any, alpha: Any, *saved: Any) -> tuple[Any, ...]:
    return torch.empty_like(X), torch.empty_like(Y), torch.empty_like(alpha)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    ctx.save_for_backward(*inputs, *output)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Any, *unused: Any) -> tuple[Any, ...]:
    if grad is None:
        return None, None, None
    return tuple(torch.ops.neurokern.ridge_weights_backward(grad, *ctx.saved_tensors))


_library.register(
    _BACKWARD, cpu=_backward, cuda=_backward, fake=_fake_backward, backward=None
)  # a second derivative raises
_library.register(
    _SCHEMA, cpu=_forward, cuda=_forward, fake=_fake_forward, backward=_gradients, setup_context=_setup
)


def solve_with_gradient(
    X: Any, Y: Any, alpha: Any, sample_weight: Any | None, fit_intercept: bool
) -> tuple[Any, Any]:
    """Weights (features, targets) and intercept (targets,) of tensors, differentiable in all of them.

    Means and weights of samples are ordinary operations of torch around the solver's own gradient.
    """
    share = None
    if sample_weight is not None:
        share = (sample_weight / sample_weight.sum()).to(X.dtype)
    x_mean = y_mean = None
    if fit_intercept:
        x_mean = X.mean(0) if share is None else share @ X
        y_mean = Y.mean(0) if share is None else share @ Y
        X, Y = X - x_mean, Y - y_mean
    if sample_weight is not None:
        root = sample_weight.to(X.dtype).sqrt()[:, None]
        X, Y = X * root, Y * root
    weights = torch.ops.neurokern.ridge_weights(X.contiguous(), Y.contiguous(), alpha)[0]
    if x_mean is None or y_mean is None:
        return weights, weights.new_zeros(weights.shape[1])
    return weights, y_mean - x_mean @ weights
