"""Batches of windows: taken as they were read, or put together from items of different lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import default_collate

from neurokern.datasets.meeg_batch import stack_channels
from neurokern.datasets.window_items import LazyItems

__all__ = ["collate_windows"]

_NO_CONDITION = -1


def collate_windows(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of windows of any lengths, padded at their ends; ``collate_fn`` of a DataLoader.

    A batch that :class:`~neurokern.datasets.FMRIWindows` or :class:`~neurokern.datasets.MEEGWindows` read at
    once is taken as it lies in memory, as PyTorch's own function takes it, too; items that were asked for one
    by one (through a ``ConcatDataset``, say) are copied and padded.

    Parameters
    ----------
    items : sequence of dict
        Windows as the dataset gives them, of one number of voxels or parcels; those of channels may differ.

    Returns
    -------
    batch : dict
        ``signal`` (batch, trs, features), 0 where ``valid`` (batch, trs) is False and ``conditions`` -1.

    Raises
    ------
    ValueError
        If there are no items, or they differ in their features.
    """
    if isinstance(items, LazyItems):
        return items.batch
    if not items:
        raise ValueError("collate_windows: there are no windows")
    if "channel_mask" in items[0]:
        return stack_channels(items)
    features = {tuple(item["signal"].shape[1:]) for item in items}
    if len(features) > 1:
        raise ValueError(f"collate_windows: windows must have the same features, got {sorted(features)}")
    longest = max(len(item["signal"]) for item in items)
    fill = {"signal": 0, "valid": False, "conditions": _NO_CONDITION}
    padded = [
        item | {name: _lengthened(item[name], longest, value) for name, value in fill.items()}
        for item in items
    ]
    batch: dict[str, Any] = default_collate(padded)
    return batch


def _lengthened(values: torch.Tensor, n: int, fill: float) -> torch.Tensor:
    missing = n - len(values)
    if not missing:
        return values
    return torch.cat([values, values.new_full((missing, *values.shape[1:]), fill)])
