"""Alignment by linear maps: Procrustes distance, canonical correlations, partial least squares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from neurokern._check import check_flag, check_fraction, check_integer
from neurokern.alignment._patterns import as_patterns, center, check_same_samples
from neurokern.encoding._arrays import like

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["PlsFit", "canonical_correlations", "fit_pls", "procrustes_distance"]

_RANK = 2.0**-40  # singular values below this share of the largest are rounding


def procrustes_distance(X: Array, Y: Array, *, angular: bool = False) -> Array:
    r"""Distance of two shapes after the best rotation: a metric on representations [1]_.

    Both are centered and scaled to Frobenius norm 1; then :math:`\min_Q \|X Q - Y\|_F = \sqrt{2 - 2 \|X^T
    Y\|_*}` with the nuclear norm.

    Parameters
    ----------
    X, Y : arrays or tensors of shape (..., samples, features)
        The numbers of features may differ (zeros are added, as it were). Leading axes are broadcast.
    angular : bool, default False
        Give :math:`\arccos \|X^T Y\|_*` in radians, 0 to pi / 2.

    Returns
    -------
    distance : array or tensor of the broadcast leading shape, float64
        0 to :math:`\sqrt 2`; NaN where X or Y never varies.

    References
    ----------
    .. [1] Williams et al., "Generalized shape metrics on neural representations", NeurIPS 2021.
    """
    function = "procrustes_distance"
    check_flag(function, "angular", angular)
    a, b = _pair(function, X, Y)
    nuclear = nuclear_products(unit_shape(a), unit_shape(b))
    return like(X, nuclear.arccos() if angular else (2 - 2 * nuclear).sqrt())


def unit_shape(X: Tensor) -> Tensor:
    """Center X (..., samples, features), scale it to norm 1 and rotate features beyond samples away."""
    X = center(X)
    X = _over(X, X.flatten(-2).norm(dim=-1)[..., None, None])
    return _compressed(X)


def nuclear_products(a: Tensor, b: Tensor) -> Tensor:
    """Nuclear norm of a'b, which is the cosine of two shapes after the best rotation; NaN of NaN."""
    bad = a.isnan().any(-1).any(-1) | b.isnan().any(-1).any(-1)
    nuclear = torch.linalg.svdvals(a.nan_to_num().mT @ b.nan_to_num()).sum(-1).clamp(0, 1)
    return nuclear.masked_fill(bad, math.nan)


def canonical_correlations(X: Array, Y: Array, *, variance: float = 0.99) -> Array:
    r"""Canonical correlations of the leading principal components of X and Y (SVCCA [1]_), largest first.

    Parameters
    ----------
    X, Y : arrays or tensors of shape (samples, features)
    variance : float within (0, 1], default 0.99
        Share of the variance that the components kept must explain. With as many components as samples
        all correlations are 1 whatever the data: keep fewer, or take many samples.

    Returns
    -------
    correlations : array or tensor of shape (components,), float64
        Their mean is SVCCA's similarity, the mean of their squares over the components of Y the variance of
        whitened Y that X explains linearly. Empty where X or Y never varies.

    References
    ----------
    .. [1] Raghu et al., "SVCCA", NeurIPS 2017, arXiv:1706.05806.
    """
    function = "canonical_correlations"
    check_fraction(function, "variance", variance)
    a, b = _pair(function, X, Y)
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"{function}: X and Y must have shape (samples, features), got {tuple(a.shape)}")
    return like(
        X, torch.linalg.svdvals(leading_basis(a, variance).mT @ leading_basis(b, variance)).clamp(0, 1)
    )


def leading_basis(X: Tensor, variance: float = 0.99) -> Tensor:
    """Return left singular vectors (samples, components) of centered X that carry a share of its variance."""
    U, S, _ = torch.linalg.svd(X, full_matrices=False)
    power = S.square().cumsum(0)
    share = power / power[-1].clamp_min(torch.finfo(power.dtype).tiny)
    needed = min(int((share < variance * (1 - 1e-12)).sum()) + 1, int((_RANK * S[0] < S).sum()))
    return U[:, :needed]


class PlsFit(NamedTuple):
    """Weights ``(features, targets)`` and intercept ``(targets,)`` of :func:`fit_pls`."""

    weights: Tensor
    intercept: Tensor


def fit_pls(X: Tensor, Y: Tensor, n_components: int) -> PlsFit:
    """Fit partial least squares regression, as NIPALS with deflation of X does, by deflating X'Y alone.

    Parameters
    ----------
    X : tensor of shape (samples, features)
    Y : tensor of shape (samples, targets)
    n_components : int
        Fewer are used when X or its share with Y is exhausted.

    References
    ----------
    .. [1] Dayal & MacGregor, "Improved PLS algorithms", J. Chemom. 11 (1997), 73-85.
    """
    n_components = check_integer("fit_pls", "n_components", n_components)
    a, b = as_patterns("fit_pls", "X", X), as_patterns("fit_pls", "Y", Y)
    check_same_samples("fit_pls", a, b)
    if n_components < 1 or a.ndim != 2 or b.ndim != 2:
        raise ValueError(
            f"fit_pls: n_components must be at least 1 and X and Y have 2 axes, got {n_components} and "
            f"{tuple(a.shape)}, {tuple(b.shape)}"
        )
    x_mean, y_mean = a.mean(0), b.mean(0)
    a, b = a - x_mean, b - y_mean
    cross = a.mT @ b
    at_first, size = cross.norm(), a.square().sum()
    loadings: list[Tensor] = []  # of X
    rotations: list[Tensor] = []
    weights = torch.zeros_like(cross)
    for _ in range(min(n_components, len(a) - 1, a.shape[1])):
        if cross.norm() <= 1e-10 * at_first:
            break
        direction = _leading_left_vector(cross)
        rotation = direction
        for loading, earlier in zip(loadings, rotations, strict=True):
            rotation = rotation - (loading @ direction) * earlier
        score = a @ rotation
        power = score.square().sum()
        if power <= _RANK**2 * size:
            break
        loading = a.mT @ score / power
        of_targets = cross.mT @ rotation / power
        cross = cross - power * loading[:, None] * of_targets
        weights = weights + rotation[:, None] * of_targets
        loadings.append(loading)
        rotations.append(rotation)
    return PlsFit(weights, y_mean - x_mean @ weights)


def _leading_left_vector(cross: Tensor) -> Tensor:
    """Leading left singular vector, from the smaller of the two products."""
    if cross.shape[0] <= cross.shape[1]:
        return torch.linalg.eigh(cross @ cross.mT).eigenvectors[:, -1]
    vector = cross @ torch.linalg.eigh(cross.mT @ cross).eigenvectors[:, -1]
    return vector / vector.norm()


def _pair(function: str, X: Array, Y: Array) -> tuple[Tensor, Tensor]:
    a = as_patterns(function, "X", X)
    b = as_patterns(function, "Y", Y).to(a.device)
    check_same_samples(function, a, b)
    return center(a), center(b)


def _over(values: Tensor, size: Tensor) -> Tensor:
    return torch.where(size > 0, values / size, math.nan)


def _compressed(X: Tensor) -> Tensor:
    """Rotate features beyond the number of samples away; NaN stays NaN."""
    if X.shape[-1] <= X.shape[-2] or bool(X.isnan().any()):
        return X
    return torch.linalg.qr(X.mT, mode="r").R.mT
