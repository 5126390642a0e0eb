"""What MtM is given: masks that fit and counts that are counts."""

from __future__ import annotations

import torch
from torch import Tensor

from neurokern.models.groups import Group


def check_hidden(hidden: Tensor, counts: Tensor) -> None:
    """Raise unless what is hidden is bool and broadcasts to the counts."""
    broadcasts = hidden.ndim == 3 and all(
        n in (1, m) for n, m in zip(hidden.shape, counts.shape, strict=True)
    )
    if hidden.dtype != torch.bool or not broadcasts:
        raise ValueError(
            f"MtM: hidden must be a bool tensor that broadcasts to the counts, {tuple(counts.shape)}, "
            f"got {hidden.dtype} of shape {tuple(hidden.shape)}"
        )


def check_visible(counts: Tensor, hidden: Tensor | None, group: Group) -> None:
    """Raise for counts that are negative, NaN or infinite; what is hidden or padding may hold anything.

    On a GPU nobody looks: that would wait for the device.
    """
    low, high = counts.detach().aminmax()
    if low >= 0 and high < torch.inf:  # NaN fails both
        return
    for unseen in (hidden, None if group.real is None else ~group.real):
        counts = counts if unseen is None else counts.masked_fill(unseen, 0.0)
    low, high = counts.detach().aminmax()
    if not (low >= 0 and high < torch.inf):
        raise ValueError(
            f"MtM: visible counts of session {group.name!r} must be finite and at least 0, "
            f"got values from {low} to {high}"
        )
