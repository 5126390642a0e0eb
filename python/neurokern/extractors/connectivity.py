"""Functional connectivity: how the signals of parcels go together, for whole batches at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_choice, check_fraction

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["functional_connectivity"]

_KINDS = ("correlation", "covariance", "partial correlation")


def functional_connectivity(
    signals: Array,
    valid: Any = None,
    *,
    kind: str = "correlation",
    shrinkage: float = 0.0,
    fisher_z: bool = False,
    flatten: bool = False,
) -> Array:
    """Return how the signals of parcels, voxels or channels go together in each window.

    Parameters
    ----------
    signals : tensor or array of shape (..., trs, parcels)
        The batch's ``signal``; float. Sums are made in float64.
    valid : bool tensor or array of shape (..., trs), optional
        The batch's ``valid``: volumes that were padded or scrubbed do not count.
    kind : {"correlation", "covariance", "partial correlation"}
        Partial: of two parcels given all others.
    shrinkage : float in [0, 1), default 0.0
        Share of the mean variance, times the identity, that the covariance is drawn to (Ledoit and Wolf 2004,
        with a share of your choice). Partial correlations of fewer volumes than parcels need some.
    fisher_z : bool, default False
        Return arctanh of the correlations; the diagonal becomes 0.
    flatten : bool, default False
        Return the upper triangle without the diagonal, (..., parcels * (parcels - 1) / 2), in the order of
        ``numpy.triu_indices(parcels, 1)``.

    Returns
    -------
    connectivity : (..., parcels, parcels), of the kind, type and device of ``signals``
        NaN in the rows and columns of parcels that do not vary.

    Raises
    ------
    ValueError
        If a window has fewer than 2 valid volumes, or partial correlations of it are not determined.
    """
    check_choice("functional_connectivity", "kind", kind, _KINDS)
    check_fraction("functional_connectivity", "shrinkage", shrinkage)
    if fisher_z and kind == "covariance":
        raise ValueError("functional_connectivity: fisher_z is of correlations, got kind='covariance'")
    values = torch.as_tensor(signals)
    if values.ndim < 2 or not values.is_floating_point():
        raise ValueError(
            "functional_connectivity: signals must be float, of shape (..., trs, parcels), got "
            f"{values.dtype} of shape {tuple(values.shape)}"
        )
    covariance, n = _covariance(values, _weights(values, valid))
    n_parcels = covariance.shape[-1]
    if shrinkage:
        mean_variance = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        identity = torch.eye(n_parcels, dtype=covariance.dtype, device=covariance.device)
        covariance = (1 - shrinkage) * covariance + shrinkage * mean_variance * identity
    elif kind == "partial correlation" and int(n.min()) <= n_parcels:
        raise ValueError(
            f"functional_connectivity: partial correlations of {n_parcels} parcels need more than as many "
            f"volumes, got {int(n.min())}; set shrinkage, to 0.1 for instance"
        )
    result = covariance
    if kind == "correlation":
        result = _correlation(covariance)
    elif kind == "partial correlation":
        result = _partial_correlation(covariance)
    if fisher_z:
        result = torch.arctanh(result)
        result.diagonal(dim1=-2, dim2=-1).zero_()
    if flatten:
        rows, columns = torch.triu_indices(n_parcels, n_parcels, 1, device=result.device)
        result = result[..., rows, columns]
    result = result.to(values.dtype)
    return result.numpy() if isinstance(signals, np.ndarray) else result


def _weights(values: Tensor, valid: Any) -> Tensor:
    """Return 1 for volumes that count and 0 for others, (..., trs, 1), float64."""
    if valid is None:
        return torch.ones((*values.shape[:-1], 1), dtype=torch.float64, device=values.device)
    mask = torch.as_tensor(valid, device=values.device)
    if mask.shape != values.shape[:-1] or mask.dtype != torch.bool:
        raise ValueError(
            f"functional_connectivity: valid must be bool of shape {tuple(values.shape[:-1])}, got "
            f"{mask.dtype} of shape {tuple(mask.shape)}"
        )
    return mask[..., None].to(torch.float64)


def _covariance(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return covariances (n - 1) over the volumes that count, and their number."""
    n = weights.sum(-2, keepdim=True)
    if values.numel() and int(n.min()) < 2:
        raise ValueError(
            f"functional_connectivity: each window must have at least 2 valid volumes, got {int(n.min())}"
        )
    # From the first volume that counts on, so that what is constant is exactly 0.
    first = weights.argmax(-2, keepdim=True).expand(*values.shape[:-2], 1, values.shape[-1])
    shifted = values.to(torch.float64) - values.gather(-2, first).to(torch.float64)
    # What is not valid may be NaN: 0 times NaN is not 0.
    counted = torch.where(weights > 0, shifted, 0.0)
    rest = torch.where(weights > 0, counted - counted.sum(-2, keepdim=True) / n, 0.0)
    return rest.transpose(-1, -2) @ rest / (n - 1), n


def _correlation(covariance: Tensor) -> Tensor:
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    inverse = torch.where(deviation > 0, 1 / deviation, torch.nan)
    result = (covariance * inverse[..., :, None] * inverse[..., None, :]).clamp(-1, 1)
    diagonal = result.diagonal(dim1=-2, dim2=-1)
    diagonal.copy_(torch.where(deviation > 0, 1.0, torch.nan))
    return result


def _partial_correlation(covariance: Tensor) -> Tensor:
    """Return minus the scaled inverse, parcels that do not vary left out."""
    varies = covariance.diagonal(dim1=-2, dim2=-1) > 0
    known = varies[..., :, None] & varies[..., None, :]
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    factor, failed = torch.linalg.cholesky_ex(torch.where(known, covariance, identity))
    if failed.any():
        raise ValueError(
            "functional_connectivity: partial correlations are not determined, parcels are sums of others; "
            "set shrinkage, to 0.1 for instance"
        )
    result = -_correlation(torch.cholesky_inverse(factor))
    result.diagonal(dim1=-2, dim2=-1).fill_(1.0)
    return torch.where(known, result, torch.nan)
