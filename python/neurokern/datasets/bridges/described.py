"""M/EEG windows at given samples, with the table that another package keeps of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neurokern.datasets.bids_run import MEEGRun
from neurokern.datasets.meeg_windows import NO_CONDITION, NO_EVENT, MEEGWindows
from neurokern.datasets.window_places import sorted_indices
from neurokern.extractors.meeg import MEEGExtractor

__all__ = ["DescribedWindows"]

TARGET = "target"


class DescribedWindows(MEEGWindows):
    """Windows whose samples are given instead of found; made by :func:`from_braindecode`.

    Parameters
    ----------
    runs : sequence of MEEGRun
    extractor : MEEGExtractor
        Must leave the rate as it is: windows are given in samples.
    starts : sequence of int64 arrays
        First sample of the windows of each recording.
    lengths : sequence of int
        Samples of each recording's windows.
    conditions : sequence of str
        Names, in the order of their codes.
    codes : int64 array of shape (n_windows,)
        Condition of each window, -1 without one.
    metadata : DataFrame of n_windows rows
        What is known of each window. Its column ``target``, if it holds numbers, is in each batch.
    """

    def __init__(
        self,
        runs: Sequence[MEEGRun],
        extractor: MEEGExtractor,
        starts: Sequence[NDArray[np.int64]],
        lengths: Sequence[int],
        conditions: Sequence[str],
        codes: NDArray[np.int64],
        metadata: pd.DataFrame,
    ) -> None:
        super().__init__(runs, extractor, skip_bad=False)
        self.conditions = tuple(conditions)
        self.metadata = metadata.reset_index(drop=True)
        self._lengths = np.asarray(lengths, np.int64)
        first = [float(run.data.times[0]) if hasattr(run.data, "event_id") else 0.0 for run in self.runs]
        ends = np.cumsum([len(part) for part in starts])[:-1]
        parts = zip(starts, first, np.split(np.where(codes < 0, NO_CONDITION, codes), ends), strict=True)
        self._put(
            [
                pd.DataFrame({"start": start, "onset": onset, "condition": condition, "event": NO_EVENT})
                for start, onset, condition in parts
            ]
        )
        stop = self._start + self._lengths[self._recording]
        if self._start.min(initial=0) < 0 or (stop > self._n_samples[self._recording]).any():
            raise ValueError("windows must lie within their recordings; is the extractor's rate the file's?")

    @property
    def table(self) -> pd.DataFrame:
        """A row per window: recording, start, condition, and the metadata."""
        own = super().table
        return own.join(self.metadata[[name for name in self.metadata if name not in own]])

    @property
    def events(self) -> pd.DataFrame:
        """The metadata: a row per window."""
        return self.metadata

    def select(self, indices: Any) -> DescribedWindows:
        """Return the dataset of some of the windows, in this dataset's order."""
        part = super().select(indices)
        assert isinstance(part, DescribedWindows)
        rows = sorted_indices("MEEGWindows.select", indices, len(self))
        part.metadata = self.metadata.iloc[rows].reset_index(drop=True)
        return part

    def batch(self, indices: Sequence[int], *, shared: bool = False) -> dict[str, Any]:
        """Return windows as one batch, with ``target`` where it is a number."""
        batch = super().batch(indices, shared=shared)
        if TARGET in self.metadata and self.metadata[TARGET].dtype.kind in "biuf":
            values = self.metadata[TARGET].to_numpy()[np.asarray(indices, np.int64)]
            batch[TARGET] = torch.from_numpy(
                values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
            )
        return batch
