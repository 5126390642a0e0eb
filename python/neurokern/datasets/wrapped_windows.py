"""What datasets around windows share: the windows' own places, and items by whole batches."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from neurokern.datasets.window_items import LazyItems

__all__ = ["WrappedWindows"]

_Self = TypeVar("_Self", bound="WrappedWindows")


class WrappedWindows(Dataset[dict[str, Any]]):
    """Windows with more beside them; samplers, streams and splits take it like the windows themselves."""

    def __init__(self, windows: Any) -> None:
        self.windows = windows
        self._spans = windows.spans()

    @property
    def offsets(self) -> NDArray[np.int64]:
        """First window of each recording, and the number of windows."""
        offsets: NDArray[np.int64] = self.windows.offsets
        return offsets

    @property
    def runs(self) -> list[Any]:
        """The recordings of the windows."""
        runs: list[Any] = self.windows.runs
        return runs

    @property
    def extractor(self) -> Any:
        """The extractor of the windows."""
        return self.windows.extractor

    @property
    def extractors(self) -> list[Any]:
        """The extractors of all that the windows hold."""
        return list(getattr(self.windows, "extractors", [self.extractor]))

    @property
    def events(self) -> pd.DataFrame:
        """The event of each window."""
        events: pd.DataFrame = self.windows.events
        return events

    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the recording of each window, and the seconds that it begins and ends at."""
        spans: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]] = self._spans
        return spans

    def reach(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return as ``spans`` does from when to when all is that a window holds, of other streams, too."""
        found: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
        found = getattr(self.windows, "reach", self.windows.spans)()
        return found

    def select(self: _Self, indices: Any) -> _Self:
        """Return the dataset of some of the windows, in this dataset's order."""
        part = copy.copy(self)
        part.windows = self.windows.select(indices)
        part._spans = part.windows.spans()
        return part

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.windows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Return a window."""
        return LazyItems(self.batch([i]))[0]

    def __getitems__(self, indices: Sequence[int]) -> LazyItems:
        """Return windows; PyTorch's DataLoader calls this where it exists."""
        return LazyItems(self.batch(indices, shared=get_worker_info() is not None))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def batch(self, indices: Sequence[int], *, shared: bool = False) -> dict[str, Any]:
        """Return windows as one batch."""
        batch: dict[str, Any] = dict(self.windows.batch(indices, shared=shared))
        for name, values in self._beside(indices).items():
            if name in batch:
                raise ValueError(
                    f"{type(self).__name__}: {name} is a name of the windows', too; choose another"
                )
            batch[name] = values
        return batch

    def _beside(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return what is added to a batch: here nothing."""
        return {}
