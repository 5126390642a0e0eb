"""Representational dissimilarity matrices: how different the patterns of each two conditions are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neurokern._check import check_choice, check_memory
from neurokern.alignment._patterns import BLOCK_ELEMENTS, as_patterns, center, square_distances
from neurokern.encoding._arrays import as_tensor, like

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = [
    "RDM_METRICS",
    "compute_rdm",
    "cross_validated_rdm",
    "n_conditions",
    "noise_covariance",
    "square_rdm",
]

RDM_METRICS = ("correlation", "cosine", "euclidean", "sqeuclidean", "mahalanobis")
_ADVICE = "take fewer conditions, or average them by class"


def compute_rdm(patterns: Array, metric: str = "correlation", *, noise: Array | None = None) -> Array:
    r"""Dissimilarity of each pair of conditions, for any number of layers, regions and times at once.

    Parameters
    ----------
    patterns : array or tensor of shape (..., conditions, features)
        Any real type, computed in float64.
    metric : {"correlation", "cosine", "euclidean", "sqeuclidean", "mahalanobis"}
        As in ``scipy.spatial.distance``: one minus the correlation or the cosine of the two patterns, the
        distance, its square, or :math:`\sqrt{(x - y)^T \Sigma^{-1} (x - y)}`.
    noise : array or tensor of shape (features, features), optional
        :math:`\Sigma`, for "mahalanobis" only; :func:`noise_covariance` makes one from residuals.

    Returns
    -------
    rdm : array or tensor of shape (..., conditions * (conditions - 1) / 2), float64
        Pairs in the order (0, 1), (0, 2), ..., (1, 2), ...; :func:`square_rdm` makes matrices of them. With
        "correlation" and "cosine" the pairs of a pattern without variance, or of zeros, are NaN: they have
        no such dissimilarity. Distances that are rounding alone are 0.

    Raises
    ------
    ValueError
        If there are fewer than two conditions, a value is not finite, the result would not fit into memory,
        or ``noise`` does not fit.

    Notes
    -----
    Rows are worked on in blocks: beside the result, the memory is that of the patterns in float64.

    References
    ----------
    .. [1] Kriegeskorte, Mur, Bandettini, "Representational similarity analysis", Front. Syst. Neurosci. 2
       (2008), 4.

    Examples
    --------
    >>> compute_rdm(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]), "euclidean")
    array([5.        , 1.        , 4.24264069])
    """
    function = "compute_rdm"
    check_choice(function, "metric", metric, RDM_METRICS)
    if (noise is not None) != (metric == "mahalanobis"):
        raise ValueError(
            f"{function}: noise must be given for 'mahalanobis' and no other metric, got metric={metric!r}"
        )
    values = as_patterns(function, "patterns", patterns)
    _check_pairs(function, values)
    if metric == "correlation":
        values = values - values.mean(-1, keepdim=True)
    if metric in ("correlation", "cosine"):
        return like(patterns, _pairs_of(_unit(values, as_tensor(function, "patterns", patterns)), _angles))
    values = center(values)  # distances stay, and cancel less
    if metric == "mahalanobis":
        values = _whiten(function, values, noise)
    rdm = _pairs_of(values, square_distances)
    return like(patterns, rdm if metric == "sqeuclidean" else rdm.sqrt())


def cross_validated_rdm(partitions: Array, *, noise: Array | None = None) -> Array:
    r"""Squared distances whose noise averages to 0: those of independent measurements, multiplied.

    Each pair of conditions gets the mean, over all pairs of different partitions, of the products of the two
    pattern differences, per feature: :math:`\frac{1}{M (M - 1) P} \sum_{m \neq n} \delta_m^T \Sigma^{-1}
    \delta_n`. Without ``noise`` this is the cross-validated Euclidean distance, with it the linear
    discriminant contrast or "crossnobis" distance [1]_.

    Parameters
    ----------
    partitions : array or tensor of shape (..., partitions, conditions, features)
        Mean patterns of at least two independent parts of the data, such as runs or halves of the trials.
    noise : array or tensor of shape (features, features), optional
        :math:`\Sigma`, of :func:`noise_covariance`. Its residuals must be of single trials or volumes about
        the mean of their own partition and condition: with residuals of the partitions' means about their
        common mean the noise that is to average out is shrunk by itself, and any result looks reliable.

    Returns
    -------
    rdm : array or tensor of shape (..., pairs), float64
        As :func:`compute_rdm`. Equal conditions give 0 on average, and so values below 0.

    Raises
    ------
    ValueError
        As :func:`compute_rdm`, or if there are fewer than two partitions.

    References
    ----------
    .. [1] Walther et al., "Reliability of dissimilarity measures for multi-voxel pattern analysis",
       NeuroImage 137 (2016), 188-200.
    """
    function = "cross_validated_rdm"
    values = as_patterns(function, "partitions", partitions)
    if values.ndim < 3 or values.shape[-3] < 2:
        raise ValueError(
            f"{function}: partitions must have shape (..., partitions, conditions, features) with at least 2 "
            f"partitions, got {tuple(values.shape)}"
        )
    _check_pairs(function, values)
    n_partitions, _, n_features = values.shape[-3:]
    values = center(values)
    if noise is not None:
        values = _whiten(function, values, noise)
    together = _pairs_of(values.sum(-3), square_distances)
    apart = sum(_pairs_of(part, square_distances) for part in values.unbind(-3))
    return like(partitions, (together - apart) / (n_partitions * (n_partitions - 1) * n_features))


def noise_covariance(residuals: Array, *, shrinkage: float | None = None) -> Array:
    r"""Covariance of features from residuals, shrunk so that it can be inverted.

    :math:`(1 - g) S + g \frac{\operatorname{tr} S}{P} I` with the sample covariance S of P features.

    Parameters
    ----------
    residuals : array or tensor of shape (samples, features)
        Responses less the mean of their condition. The means over samples are taken off.
    shrinkage : float within [0, 1], optional
        :math:`g`; by default the one that is expected to be best, after Ledoit and Wolf [1]_.

    Returns
    -------
    covariance : array or tensor of shape (features, features), float64

    References
    ----------
    .. [1] Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", J.
       Multivar. Anal. 88 (2004), 365-411.
    """
    function = "noise_covariance"
    X = as_patterns(function, "residuals", residuals)
    if X.ndim != 2:
        raise ValueError(f"{function}: residuals must have shape (samples, features), got {tuple(X.shape)}")
    n_samples, n_features = X.shape
    X = center(X)
    sample = X.mT @ X / n_samples
    size = float(sample.diagonal().mean())
    if size == 0:
        raise ValueError(f"{function}: residuals must vary, got only constant features")
    identity = torch.eye(n_features, dtype=X.dtype, device=X.device)
    if shrinkage is None:
        distance = float((sample - size * identity).square().sum())
        fourth = float(X.square().sum(1).square().sum())  # sum of |x|^4 over samples
        noise = (fourth / n_samples - float(sample.square().sum())) / n_samples
        shrinkage = min(max(noise, 0.0) / distance, 1.0) if distance else 1.0
    elif not 0 <= shrinkage <= 1:
        raise ValueError(f"{function}: shrinkage must lie within [0, 1], got {shrinkage!r}")
    return like(residuals, (1 - shrinkage) * sample + shrinkage * size * identity)


def square_rdm(rdm: Array) -> Array:
    """Return RDMs (..., pairs) as symmetric matrices (..., conditions, conditions) with an empty diagonal.

    Raises
    ------
    ValueError
        If the number of pairs is not that of any number of conditions.
    """
    pairs = as_tensor("square_rdm", "rdm", rdm)
    size = n_conditions("square_rdm", pairs)
    check_memory(
        "square_rdm", f"matrices of {size} conditions", 8.0 * pairs[..., 0].numel() * size**2, _ADVICE
    )
    row, column = torch.triu_indices(size, size, 1, device=pairs.device)
    matrix = pairs.new_zeros(*pairs.shape[:-1], size, size)
    matrix[..., row, column] = pairs
    matrix[..., column, row] = pairs
    return like(rdm, matrix)


def n_conditions(function: str, rdm: Tensor) -> int:
    """Return the number of conditions of RDMs (..., pairs), or raise ValueError if none has as many pairs."""
    pairs = rdm.shape[-1] if rdm.ndim else 0
    size = (1 + math.isqrt(1 + 8 * pairs)) // 2
    if pairs < 1 or size * (size - 1) // 2 != pairs:
        raise ValueError(
            f"{function}: rdm must have shape (..., pairs) with n * (n - 1) / 2 pairs of n conditions, got "
            f"{tuple(rdm.shape)}; take the upper triangle of a square matrix"
        )
    return size


def _check_pairs(function: str, patterns: Tensor) -> None:
    size = patterns.shape[-2]
    n_rdms = math.prod(patterns.shape[:-2])
    check_memory(function, f"RDMs of {size} conditions", 4.0 * n_rdms * size * (size - 1), _ADVICE)


def _unit(values: Tensor, given: Tensor) -> Tensor:
    """Scale patterns to length 1; those whose length is rounding alone become NaN."""
    length = values.norm(dim=-1, keepdim=True)
    largest = given.to(torch.float64).abs().amax(-1, keepdim=True) * math.sqrt(values.shape[-1])
    return torch.where(length > 2.0**-48 * largest, values / length, torch.nan)


def _angles(rows: Tensor, columns: Tensor) -> Tensor:
    # From the difference of unit vectors: 1 - cos loses all digits for patterns that are nearly the same.
    return square_distances(rows, columns) / 2


def _whiten(function: str, values: Tensor, noise: Any) -> Tensor:
    n_features = values.shape[-1]
    covariance = as_patterns(function, "noise", noise, least=1).to(values.device)
    if covariance.shape != (n_features, n_features):
        raise ValueError(
            f"{function}: noise must have shape ({n_features}, {n_features}), got {tuple(covariance.shape)}"
        )
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if int(failed) or not torch.allclose(covariance, covariance.mT, rtol=1e-6):
        raise ValueError(
            f"{function}: noise must be symmetric and positive definite; shrink it (noise_covariance)"
        )
    return torch.linalg.solve_triangular(factor, values.mT, upper=False).mT


def _pairs_of(values: Tensor, distances: Any) -> Tensor:
    """Upper triangles of ``distances(rows, all)``, block of rows by block of rows."""
    *batch, size, _ = values.shape
    pairs = values.new_empty(*batch, size * (size - 1) // 2)
    step = max(1, BLOCK_ELEMENTS // max(1, math.prod(batch) * size))
    filled = 0
    for first in range(0, size - 1, step):
        last = min(first + step, size - 1)
        block = distances(values[..., first:last, :], values[..., first + 1 :, :])
        for row in range(last - first):
            n_pairs = size - 1 - first - row
            pairs[..., filled : filled + n_pairs] = block[..., row, row:]
            filled += n_pairs
    return pairs
