"""What alignment functions accept, and the small algebra that they share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from neurokern._check import check_memory
from neurokern.encoding._arrays import as_tensor

BLOCK_ELEMENTS = 1 << 22  # elements of a temporary block (32 MiB in float64)
_LARGEST = 1e60  # the fourth power is a number
_ROUNDING = 2.0**-44  # of the size of the numbers that a difference is taken of


def as_patterns(function: str, name: str, values: Any, *, least: int = 2) -> Tensor:
    """Return patterns (..., samples, features) as a finite tensor in float64.

    Parameters
    ----------
    least : int, default 2
        Fewest samples that mean anything.

    Raises
    ------
    ValueError
        If an axis is missing or empty, there are too few samples, or a value is not finite.
    TypeError
        If the values are not real numbers.
    """
    tensor = as_tensor(function, name, values)
    if tensor.ndim < 2 or tensor.shape[-2] < least or not math.prod(tensor.shape):
        raise ValueError(
            f"{function}: {name} must have shape (..., samples, features) with at least {least} samples and "
            f"1 feature, got {tuple(tensor.shape)}"
        )
    if tensor.dtype != torch.float64:
        check_memory(function, f"{name} in float64", 8.0 * tensor.numel(), "take fewer samples or features")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).any(-1).sum())
        raise ValueError(
            f"{function}: {name} must be finite, got NaN or infinity in {bad} patterns; drop or fill them"
        )
    values = tensor.to(torch.float64)
    low, high = values.aminmax()
    if float(high) > _LARGEST or float(low) < -_LARGEST:
        raise ValueError(
            f"{function}: {name} must lie within +-{_LARGEST:g}, whose squares are numbers; scale it"
        )
    return values


def check_same_samples(function: str, X: Tensor, Y: Tensor, names: tuple[str, str] = ("X", "Y")) -> None:
    """Raise unless both have the same number of samples, and leading axes that can be broadcast."""
    if X.shape[-2] != Y.shape[-2]:
        raise ValueError(
            f"{function}: {names[0]} and {names[1]} must have the same samples, got {X.shape[-2]} and "
            f"{Y.shape[-2]} rows"
        )
    try:
        torch.broadcast_shapes(X.shape[:-2], Y.shape[:-2])
    except RuntimeError:
        raise ValueError(
            f"{function}: the leading axes of {names[0]} and {names[1]} must be the same or 1, got "
            f"{tuple(X.shape)} and {tuple(Y.shape)}"
        ) from None


def center(X: Tensor) -> Tensor:
    """Take the mean over samples off each feature; a constant one becomes 0 and not its rounding."""
    mean = X.mean(-2, keepdim=True)
    rest = X - mean
    constant = rest.abs().amax(-2, keepdim=True) <= 2.0**-48 * mean.abs()
    return rest.masked_fill(constant, 0.0)


def center_kernel(K: Tensor) -> Tensor:
    """Take row and column means off a kernel (..., samples, samples)."""
    rows = K.mean(-1, keepdim=True)
    return K - rows - rows.mT + rows.mean(-2, keepdim=True)


def square_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Squared Euclidean distances (..., rows, columns); what is only rounding is 0."""
    sizes = rows.square().sum(-1)[..., :, None] + columns.square().sum(-1)[..., None, :]
    distances = (rows @ columns.mT).mul_(-2).add_(sizes)
    return distances.masked_fill_(distances <= sizes.mul_(_ROUNDING), 0.0)
