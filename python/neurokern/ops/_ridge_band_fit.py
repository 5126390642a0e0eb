r"""Ridge systems of which every target has band weights of its own, solved for all targets together.

With the logarithms :math:`\delta_b` of the weights of bands over the penalty, a solution for fewer
features than samples is :math:`D u, \; (D G D + 1) u = D c` with :math:`D^2 = e^\delta` by features.
For fewer samples it is :math:`X^T u` by bands times :math:`e^{\delta_b}` with :math:`(\sum_b
e^{\delta_b} K_b + 1) u = y`. Matrices differ between targets, but what they are made of does not:
conjugate gradients multiply one Gram matrix (or one kernel for each band) by the vectors of all
targets. Both systems have eigenvalues of at least 1, so that a residual bounds the error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from neurokern.ops._ridge_arguments import Problem
from neurokern.ops._ridge_blas import Algebra
from neurokern.ops._ridge_direct import intercept_of
from neurokern.ops._ridge_sums import cross, gram, kernel, means, rounded, shifted
from neurokern.ops._ridge_wide import about_means, kernel_of

_MOST_STEPS = 1000  # of conjugate gradients on the way of a search
_MOST_EXACT_STEPS = 300  # of those for the user; systems that need more are factored
_MATRIX_BYTES = 1 << 27  # of matrices that are factored together
_KERNEL_BYTES = 1 << 30  # of kernels of bands
_CHUNK_BYTES = 1 << 27  # of vectors of a chunk of targets
EXACT = 1e-10  # residual of a solution that is given to the user
Inverse = Callable[[Any, Any | None], Any]  # solves for right-hand sides (targets, n), from a start


def conjugate_gradients(
    algebra: Algebra,
    times: Callable[[Any], Any],
    diagonal: Any,
    right: Any,
    start: Any | None,
    tolerance: float,
    matrices: Callable[[Any], Any] | None = None,
) -> Any:
    """Solve for each row of ``right`` (targets, n) with a positive definite matrix of its own.

    ``times`` multiplies rows by their matrices, whose diagonals are given. A residual below ``tolerance`` of
    the right-hand side, both over the roots of the diagonal, ends it, for all targets at once. Of targets
    that stay above it, whose penalties are orders of magnitude apart, ``matrices`` makes the matrices
    themselves (targets, n, n) from their indices, to be factored.
    """
    xp = algebra.xp

    def products(a: Any, b: Any) -> Any:
        return xp.einsum("tn,tn->t", a, b)

    inverse = 1 / diagonal
    x = right * inverse
    wanted = tolerance**2 * products(right, x)
    x = x if start is None else start + 0.0
    residual = right - times(x)
    direction = residual * inverse
    power = products(residual, direction)
    for _ in range(_MOST_STEPS if matrices is None else _MOST_EXACT_STEPS):
        if bool((power <= wanted).all()):
            break
        image = times(direction)
        curvature = products(direction, image)
        step = (power / xp.where(curvature > 0, curvature, 0.0 * curvature + 1.0))[:, None]
        x += step * direction
        image *= step
        residual -= image
        scaled = xp.multiply(residual, inverse, out=image)
        before, power = power, products(residual, scaled)
        direction *= (power / xp.where(before > 0, before, 0.0 * before + 1.0))[:, None]
        direction += scaled
    if matrices is not None:
        residual = right - times(x)  # what is carried from step to step drifts away from it
        reached = products(residual, residual * inverse) <= 4 * wanted
        _factored(algebra, matrices, right, x, np.flatnonzero(~algebra.host(reached)))
    return x


def _factored(
    algebra: Algebra, matrices: Callable[[Any], Any], right: Any, x: Any, targets: np.ndarray
) -> None:
    """Replace solutions of some targets by those from factors of their matrices."""
    n = right.shape[1]
    step = max(1, _MATRIX_BYTES // (8 * n * n))
    identity = algebra.array(np.eye(n), "float64")
    for first in range(0, len(targets), step):
        some = algebra.array(targets[first : first + step], "int64")
        x[some] = algebra.xp.linalg.solve(matrices(some) + identity, right[some][:, :, None])[:, :, 0]


def solver_by_features(algebra: Algebra, gram: Any, scale: Any, tolerance: float) -> Inverse:
    """Solve with ``D G D + 1`` for scales D (targets, features)."""
    diagonal = 1 + scale * scale * algebra.cast(gram.diagonal(), _name(scale))

    def times(u: Any) -> Any:
        product = algebra.mm(scale * u, gram)
        product *= scale
        product += u
        return product

    def matrices(some: Any) -> Any:
        own = scale[some]
        return own[:, :, None] * gram * own[:, None, :]

    dense = matrices if tolerance <= EXACT else None
    return lambda right, start: conjugate_gradients(algebra, times, diagonal, right, start, tolerance, dense)


def solver_by_samples(algebra: Algebra, kernels: Any, weights: Any, tolerance: float) -> Inverse:
    """Solve with the sum of weights times kernels, plus 1: (targets, bands), (bands, samples, samples)."""
    diagonal = 1 + weights @ algebra.xp.einsum("bnn->bn", kernels)

    def times(u: Any) -> Any:
        product = weighted_sum(algebra, u, kernels, weights)
        product += u
        return product

    def matrices(some: Any) -> Any:
        return algebra.xp.einsum("tb,bnm->tnm", weights[some], kernels)

    dense = matrices if tolerance <= EXACT else None
    return lambda right, start: conjugate_gradients(algebra, times, diagonal, right, start, tolerance, dense)


def _name(values: Any) -> str:
    return str(values.dtype).removeprefix("torch.")


def weighted_sum(algebra: Algebra, u: Any, matrices: Any, weights: Any) -> Any:
    """Sum over bands of weights (targets, bands) times ``u @ matrix``."""
    total: Any = None
    for number, matrix in enumerate(matrices):
        product = algebra.mm(u, matrix)
        product *= weights[:, number, None]
        total = product if total is None else total + product
    return total


class BandKernels:
    """The kernel of each band over all samples, of features about their means: X is read once.

    For a search those of many float32 features are sums of products in float32, unless ``exact``.
    """

    def __init__(
        self,
        algebra: Algebra,
        problem: Problem,
        band: np.ndarray,
        fit_intercept: bool,
        *,
        exact: bool = False,
    ) -> None:
        self.algebra, self.problem, self.fit_intercept = algebra, problem, fit_intercept
        n_samples = problem.shape[0]
        root = None if problem.weight is None else problem.weight**0.5
        self.ones = algebra.array(np.ones(n_samples), "float64") if root is None else root
        n_bands = int(band.max()) + 1
        self.kernels = algebra.empty((n_bands, n_samples, n_samples), "float64")
        for number in range(n_bands):
            part = band_of(algebra, problem, band, number)
            shift = (
                rounded(algebra, means(algebra, part.X, part.weight), part.dtype) if fit_intercept else None
            )
            self.kernels[number] = (
                kernel(algebra, part.X, shift, root) if exact else kernel_of(algebra, part, shift, root)
            )

    def mixed(self, weights: np.ndarray) -> Any:
        """The kernel of all features with band weights (bands,)."""
        return self.algebra.xp.einsum("b,bnm->nm", self.algebra.array(weights, "float64"), self.kernels)


def band_of(algebra: Algebra, problem: Problem, band: np.ndarray, number: int) -> Problem:
    """Return the problem with the features of one band."""
    columns = algebra.array(np.flatnonzero(band == number), "int64")
    return dataclasses.replace(problem, X=problem.X[:, columns])


def fits_memory(n_bands: int, n_samples: int) -> bool:
    """Whether the kernels of all bands may be kept."""
    return 8 * n_bands * n_samples**2 <= _KERNEL_BYTES


def chunks_of(n_targets: int, bytes_per_target: int) -> Iterator[slice]:
    """Chunks of targets with bounded memory."""
    step = max(64, _CHUNK_BYTES // bytes_per_target)
    for first in range(0, n_targets, step):
        yield slice(first, min(first + step, n_targets))


def fit_by_bands(
    algebra: Algebra,
    problem: Problem,
    band: np.ndarray,
    log_weights: np.ndarray,
    fit_intercept: bool,
    kernels: BandKernels | None = None,
) -> tuple[Any, Any]:
    """Weights (features, targets) and intercept, with band weights of each target's own.

    ``log_weights`` (targets, bands) are logarithms of weights over the penalty; minus infinity leaves a band
    out. Solved in float64.
    """
    n_samples, n_features, n_targets = problem.shape
    weights = algebra.empty((n_features, n_targets), problem.dtype)
    root = None if problem.weight is None else problem.weight**0.5
    x_mean = means(algebra, problem.X, problem.weight) if fit_intercept else None
    y_mean = means(algebra, problem.Y, problem.weight) if fit_intercept else None
    dual = n_samples < n_features
    if dual:
        kernels = kernels or BandKernels(algebra, problem, band, fit_intercept, exact=True)
        inner = kernels.kernels
        if fit_intercept:
            inner = algebra.xp.stack(
                [about_means(one, one[:0], kernels.ones, kernels.ones[:0])[0] for one in inner]
            )
    else:
        inner = gram(algebra, problem.X, x_mean, root)
    for targets in chunks_of(n_targets, 8 * 8 * max(n_samples, n_features)):
        own = algebra.array(log_weights[targets], "float64")
        Y = shifted(
            algebra, problem.Y[:, targets], None if y_mean is None else y_mean[targets], root, "float64"
        )
        if dual:
            strength = algebra.xp.exp(own)
            duals = solver_by_samples(algebra, inner, strength, EXACT)(Y.T, None)
            for number in range(own.shape[1]):
                part = band_of(algebra, problem, band, number)
                columns = algebra.array(np.flatnonzero(band == number), "int64")
                mean = None if x_mean is None else x_mean[columns]
                # In float64: duals of small penalties cancel in their sum over samples.
                found = cross(algebra, part.X, mean, (strength[:, number, None] * duals).T, root, "float64")
                weights[columns, targets] = algebra.cast(found, problem.dtype)
        else:
            C = cross(algebra, problem.X, x_mean, Y, root, "float64").T
            scale = algebra.xp.exp(0.5 * own)[:, algebra.array(band, "int64")]
            solved = scale * solver_by_features(algebra, inner, scale, EXACT)(scale * C, None)
            weights[:, targets] = algebra.cast(solved.T, problem.dtype)
    return weights, intercept_of(algebra, weights, x_mean, y_mean, n_targets)
