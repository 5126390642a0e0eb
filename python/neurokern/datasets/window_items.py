"""Items of a batch that was read at once; collating them gives that batch, and copies nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

__all__ = ["LazyItems", "WindowItem"]


class WindowItem(dict[str, Any]):
    """A window as the dataset gives it. PyTorch's own collate function knows the batch it was read with."""


class LazyItems(Sequence[WindowItem]):
    """The items of a batch that was read at once, each made when it is asked for."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch["signal"])

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return list(self)[i]
        return WindowItem({name: _row(values, i) for name, values in self.batch.items()})

    def __iter__(self) -> Iterator[WindowItem]:
        columns = {name: _rows(values) for name, values in self.batch.items()}
        return (WindowItem(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _row(values: Any, i: int) -> Any:
    row = values[i]
    return row.item() if isinstance(row, torch.Tensor) and not row.ndim else row


def _rows(values: Any) -> list[Any]:
    if isinstance(values, torch.Tensor):
        return list(values.tolist()) if values.ndim == 1 else list(values)
    return list(values)


def _collated(batch: Sequence[WindowItem], **_: Any) -> Any:
    if isinstance(batch, LazyItems):
        return batch.batch
    return default_collate([dict(item) for item in batch])


_collators: dict[Any, Callable[..., Any]] = default_collate_fn_map
_collators[WindowItem] = _collated
