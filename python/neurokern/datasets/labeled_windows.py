"""Windows with values of one's own: targets from tables of events, features of the stimulus shown."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from neurokern.datasets.window_places import sorted_indices
from neurokern.datasets.wrapped_windows import WrappedWindows

__all__ = ["LabeledWindows", "events_of_windows"]


class LabeledWindows(WrappedWindows):
    """Windows, each with values of your own in its batch.

    Parameters
    ----------
    windows : FMRIWindows, MEEGWindows or PairedWindows
    labels : DataFrame, or mapping of str to array
        By name, a value for each window: numbers, truth values or texts, (n_windows,), or rows of numbers
        (n_windows, ...). Or a pair (rows, index): the row of each window by number, so that features of a
        stimulus that was shown often are held once.

    Raises
    ------
    ValueError
        If there is not a value for each window, or an index leads out of the rows.

    Examples
    --------
    >>> ready = brain.with_extractor(extractor, length=4, events=True, hrf_delay=4.0)  # doctest: +SKIP
    >>> labeled = LabeledWindows(ready, ready.events[["response_time", "stim_file"]])  # doctest: +SKIP
    >>> next(iter(DataLoader(labeled, batch_size=8)))["response_time"].shape  # doctest: +SKIP
    torch.Size([8])
    """

    def __init__(self, windows: Any, labels: pd.DataFrame | Mapping[str, Any]) -> None:
        if not all(hasattr(windows, name) for name in ("spans", "select", "batch")):
            raise TypeError(
                f"LabeledWindows: windows must be of images or M/EEG, got {type(windows).__name__}"
            )
        super().__init__(windows)
        if not len(labels.keys()):
            raise ValueError("LabeledWindows: labels must hold at least one")
        given = {str(name): values for name, values in labels.items()}
        self._labels = {name: _Label(name, values, len(windows)) for name, values in given.items()}

    def select(self, indices: Any) -> LabeledWindows:
        """Return the dataset of some of the windows, in this dataset's order."""
        chosen = sorted_indices("LabeledWindows.select", indices, len(self))
        part = super().select(chosen)
        part._labels = {name: label.take(chosen) for name, label in self._labels.items()}
        return part

    def label(self, name: str) -> Any:
        """Return the values of all windows, in their order."""
        if name not in self._labels:
            raise KeyError(f"LabeledWindows: there is no {name!r}, but {', '.join(self._labels)}")
        return self._labels[name].of(np.arange(len(self)))

    def _beside(self, indices: Sequence[int]) -> dict[str, Any]:
        return {name: label.of(np.asarray(indices)) for name, label in self._labels.items()}


class _Label:
    """Rows of numbers, or texts, and which one is each window's."""

    def __init__(self, name: str, given: Any, n: int) -> None:
        rows, index = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        if isinstance(rows, (str, bytes)) or not hasattr(rows, "__len__"):
            raise TypeError(f"LabeledWindows: {name} must be a value for each window, got {rows!r}")
        self._rows = _as_rows(name, rows)
        self._index = np.arange(len(rows)) if index is None else np.asarray(index)
        if self._index.shape != (n,) or self._index.dtype.kind not in "iu":
            raise ValueError(
                f"LabeledWindows: {name} must have a value for each of {n} windows, got "
                f"{self._index.shape[0] if self._index.ndim else self._index}"
            )
        if n and not 0 <= self._index.min() <= self._index.max() < len(rows):
            raise ValueError(
                f"LabeledWindows: the index of {name} must lie in 0 ... {len(rows) - 1}, got "
                f"{self._index.min()} to {self._index.max()}"
            )

    def take(self, chosen: NDArray[np.int64]) -> _Label:
        part = copy.copy(self)
        part._index = self._index[chosen]
        return part

    def of(self, windows: NDArray[np.int64]) -> Any:
        rows = self._index[windows]
        if isinstance(self._rows, list):
            return [self._rows[row] for row in rows.tolist()]
        return self._rows[torch.from_numpy(rows.astype(np.int64))]


def _as_rows(name: str, rows: Any) -> torch.Tensor | list[str]:
    """Return numbers as a tensor and texts as a list, "" where there is none."""
    if isinstance(rows, torch.Tensor):
        return rows
    values = rows.to_numpy() if isinstance(rows, pd.Series) else np.asarray(rows)
    if values.dtype.kind in "biuf":
        return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("=")))
    missing = pd.isna(values)
    there = values[~missing].tolist()
    if all(isinstance(value, (bool, int, float)) for value in there):  # numbers, some of them n/a
        numbers = torch.full((len(values),), torch.nan, dtype=torch.float64)
        numbers[torch.from_numpy(~missing)] = torch.tensor(there, dtype=torch.float64)
        return numbers
    if values.ndim != 1 or not all(isinstance(value, str) for value in there):
        raise TypeError(f"LabeledWindows: {name} must be numbers or texts, got both, or other objects")
    return ["" if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]


def events_of_windows(
    function: str, tables: Sequence[pd.DataFrame | None], rows: Sequence[tuple[int, int]]
) -> pd.DataFrame:
    """Return the event of each window, by recording and row of its table.

    Raises
    ------
    ValueError
        If a window does not lie at an event.
    """
    if any(row < 0 or tables[recording] is None for recording, row in rows):
        raise ValueError(f"{function}.events: windows must lie at events; make them with events=True")
    used = sorted({recording for recording, _ in rows})
    first, total = {}, 0
    for recording in used:
        first[recording] = total
        table = tables[recording]
        total += 0 if table is None else len(table)
    together = pd.concat([tables[recording] for recording in used], ignore_index=True)
    return together.iloc[[first[recording] + row for recording, row in rows]].reset_index(drop=True)
