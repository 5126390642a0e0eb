"""The training loss of masked spike counts."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from neurokern._check import check_choice

Reduction = Literal["sum", "mean", "none"]


def poisson_loss(
    log_rates: Tensor,
    counts: Tensor,
    target_mask: Tensor | None = None,
    reduction: Reduction = "sum",
    weights: Tensor | None = None,
) -> Tensor:
    """Return the Poisson negative log likelihood of counts, without the term that no weight changes.

    ``exp(f) - y f`` for each entry of ``target_mask``; ``log(y!)`` is left out. Entries outside the mask add
    neither to the value nor to the gradient, whatever they hold.

    Parameters
    ----------
    log_rates : tensor of shape (B, T, N), float
        Natural logarithm of the expected count of each bin. Half precision is summed in float32.
    counts : tensor of shape (B, T, N)
        Spikes per bin, before masking.
    target_mask : bool tensor that broadcasts to (B, T, N), optional
        True where the loss counts; everywhere when not given.
    reduction : {"sum", "mean", "none"}, default "sum"
        "sum" is the published loss [1]_; "mean" divides by the number of targets, which keeps the size of a
        gradient independent of the scheme and the number of units; "none" keeps the shape, with zeros outside
        the mask.
    weights : tensor that broadcasts to (B, T, N), optional
        Factor of each entry's loss, such as one for each unit. The mean is still over targets, not over
        weights.

    Returns
    -------
    loss : float32 tensor, a scalar unless ``reduction="none"``

    Raises
    ------
    ValueError
        If the shapes differ or the reduction is unknown.

    References
    ----------
    .. [1] Zhang et al., "Towards a 'universal translator' for neural dynamics at single-cell, single-spike
       resolution", arXiv:2407.14668, 2024.

    Examples
    --------
    >>> poisson_loss(torch.zeros(1, 1, 2), torch.tensor([[[0.0, 3.0]]]), reduction="mean")
    tensor(1.)
    """
    check_choice("poisson_loss", "reduction", reduction, ("sum", "mean", "none"))
    mask_shape = counts.shape if target_mask is None else target_mask.shape
    if log_rates.shape != counts.shape or not _broadcasts(mask_shape, counts.shape):
        raise ValueError(
            f"poisson_loss: log_rates and counts must have the same shape, and target_mask broadcast to it, "
            f"got {tuple(log_rates.shape)}, {tuple(counts.shape)} and {tuple(mask_shape)}"
        )
    weighed = torch.ones((), device=counts.device) if weights is None else weights
    if not (counts.requires_grad or weighed.requires_grad) and reduction != "none":
        total = _MaskedSum.apply(log_rates, counts, target_mask, weighed)
    else:
        entries = _entries(log_rates.float(), counts, target_mask) * weighed
        if reduction == "none":
            return entries
        total = entries.sum()
    if reduction == "sum":
        return total
    if target_mask is None:
        return total / max(counts.numel(), 1)
    return total / count_targets(target_mask, counts.shape).clamp(min=1)


def _entries(f: Tensor, counts: Tensor, target_mask: Tensor | None) -> Tensor:
    """Return ``exp(f) - y f``, 0 outside the mask."""
    if target_mask is None:
        return f.exp() - counts * f
    # Filled before exp as well: an overflow outside the mask would turn its zero gradient into 0 * inf.
    f = f.masked_fill(~target_mask, 0.0)
    return (f.exp() - counts * f).masked_fill(~target_mask, 0.0)


class _MaskedSum(torch.autograd.Function):
    """The weighed sum of the entries, with its gradient made on the way: half the passes over memory."""

    @staticmethod
    def forward(
        ctx: Any, log_rates: Tensor, counts: Tensor, target_mask: Tensor | None, weights: Tensor
    ) -> Tensor:
        f = log_rates.float()
        outside = None if target_mask is None else ~target_mask
        if outside is not None:
            f = f.masked_fill(outside, 0.0)
        gradient = f.exp()  # becomes exp(f) - y
        entries = gradient - counts * f
        gradient = gradient.sub_(counts)
        if outside is not None:
            entries.masked_fill_(outside, 0.0)
            gradient.masked_fill_(outside, 0.0)
        ctx.save_for_backward(gradient.mul_(weights))
        ctx.dtype = log_rates.dtype
        return entries.mul_(weights).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (own,) = ctx.saved_tensors
        return (own * gradient).to(ctx.dtype), None, None, None


def count_targets(target_mask: Tensor, shape: torch.Size) -> Tensor:
    """Return how many entries are targets once the mask is broadcast to a shape."""
    repeats = math.prod(n for n, m in zip(shape, target_mask.shape, strict=True) if m != n)
    return target_mask.sum() * repeats


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    return len(shape) == len(to) and all(m in (1, n) for m, n in zip(shape, to, strict=True))
