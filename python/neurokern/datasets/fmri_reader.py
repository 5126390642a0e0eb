"""Reads batches of fMRI windows: signals by one call, and what is known of their volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from neurokern.datasets.batch_memory import BatchMemory
from neurokern.datasets.fmri_events import conditions_of_volumes
from neurokern.ops._run_windows import gather_into

if TYPE_CHECKING:
    from neurokern.datasets.bids import BIDSRun
    from neurokern.datasets.fmri_windows import FMRIExtractor

__all__ = ["FMRIReader", "Places"]

_NO_CONDITION = -1
_NAMES = ("subject", "session", "task", "run")


class Places(NamedTuple):
    """Where windows lie, an entry of each array per window."""

    run: NDArray[np.int64]
    start: NDArray[np.int64]  # volume; below 0 where a padded window begins before its run
    onset: NDArray[np.float64]  # seconds from the event to the window's first volume; 0 without events
    condition: NDArray[np.int64]  # code of the event, or -1

    def take(self, indices: NDArray[np.int64]) -> Places:
        """Return some of them."""
        run, start, onset, condition = self
        return Places(run[indices], start[indices], onset[indices], condition[indices])


class FMRIReader:
    """What is known of runs, looked up once, and the memory of batches.

    Parameters
    ----------
    runs : sequence of BIDSRun
    extractor : FMRIExtractor
    n_volumes, lengths : sequence of int
        Volumes of each run, and of its windows.
    codes : dict
        Code of each condition.
    hrf_delay : float, seconds
    whole : bool
        Whether no window reaches beyond its run.
    """

    def __init__(
        self,
        runs: Sequence[BIDSRun],
        extractor: FMRIExtractor,
        n_volumes: Sequence[int],
        lengths: Sequence[int],
        codes: dict[str, int],
        hrf_delay: float,
        whole: bool,
    ) -> None:
        self.runs, self.extractor, self._codes, self._hrf_delay = runs, extractor, codes, hrf_delay
        self._n_volumes = np.array(n_volumes, dtype=np.int64)
        self._lengths = np.array(lengths, dtype=np.int64)
        self._are_alike = whole and len(set(lengths)) == 1
        # Of all volumes, run after run; the first entry stands for what lies outside of a run.
        self._first = np.cumsum([1, *n_volumes], dtype=np.int64)
        self._kept = np.zeros(self._first[-1], dtype=bool)
        self._conditions = np.full(self._first[-1], _NO_CONDITION, dtype=np.int64)
        self._tr = np.full(len(runs), np.nan)
        self._shapes: dict[int, tuple[int, ...]] = {}  # of the runs that were looked at
        self._names = {name: [run.entities.get(name, "") for run in runs] for name in _NAMES}
        self._memory = BatchMemory("FMRIWindows")

    def read(self, places: Places, *, shared: bool) -> dict[str, Any]:
        """Return windows as a batch, padded to the longest."""
        run, start = places.run, places.start
        numbers = run.tolist()
        used = dict.fromkeys(numbers)
        for i in used:
            if i not in self._shapes:
                self._look_at(i)
        shapes = {self._shapes[i] for i in used}
        if len(shapes) > 1:
            raise ValueError(
                f"FMRIWindows: a batch must be of images of one shape, got {sorted(shapes)}; "
                "take the voxels of a mask or parcels, or batches of one run each"
            )
        lengths = None if self._are_alike else self._lengths[run]
        longest = int((self._lengths if lengths is None else lengths).max())
        shape = (len(run), longest, *shapes.pop())
        signal = self._memory.take(shape, self.extractor.dtype, shared=shared)
        self._read_signals(signal, numbers, start, lengths)
        place = self._places_of_volumes(run, start, lengths, longest)
        batch: dict[str, Any] = {
            "signal": signal,
            "valid": torch.from_numpy(self._kept[place]),
            "conditions": torch.from_numpy(self._conditions[place]),
            "condition": torch.from_numpy(places.condition),
            "onset": torch.from_numpy(places.onset),
            "start": torch.from_numpy(start * self._tr[run]),
        }
        for name, values in self._names.items():
            batch[name] = [values[i] for i in numbers]
        return batch

    def _places_of_volumes(
        self,
        run: NDArray[np.int64],
        start: NDArray[np.int64],
        lengths: NDArray[np.int64] | None,
        longest: int,
    ) -> NDArray[np.int64]:
        """Return each volume's entry in what is known of all, (batch, trs); 0 outside of the run."""
        offset = np.arange(longest)
        if lengths is None:
            return (self._first[run] + start)[:, None] + offset
        volume = start[:, None] + offset
        inside = (volume >= 0) & (volume < self._n_volumes[run][:, None]) & (offset < lengths[:, None])
        return np.where(inside, self._first[run][:, None] + volume, 0)

    def _read_signals(
        self,
        signal: torch.Tensor,
        numbers: list[int],
        start: NDArray[np.int64],
        lengths: NDArray[np.int64] | None,
    ) -> None:
        """Write windows to their places; by one native call if their runs lie ready, else one by one."""
        stored = getattr(self.extractor, "stored", None)
        if stored is not None:
            found = {i: stored(self.runs[i]) for i in dict.fromkeys(numbers)}
            if all(run is not None for run in found.values()):
                gather_into(signal, [found[i] for i in numbers], start, lengths)
                return
        for place, i, first in zip(signal, numbers, start.tolist(), strict=True):
            low, high = max(first, 0), min(first + int(self._lengths[i]), int(self._n_volumes[i]))
            inside = slice(low - first, high - first)
            self.extractor.extract(self.runs[i], low, high, place[inside])
            if inside != slice(0, len(place)):
                place[: inside.start].zero_()
                place[inside.stop :].zero_()

    def _look_at(self, i: int) -> None:
        """Learn what is known of a run; its sidecar is believed when a window is first asked for."""
        run, n = self.runs[i], int(self._n_volumes[i])
        tr = run.repetition_time
        volumes = slice(self._first[i], self._first[i] + n)
        self._conditions[volumes] = conditions_of_volumes(run, n, tr, self._hrf_delay, self._codes)
        self._kept[volumes] = self.extractor.kept(run)
        self._tr[i] = tr
        self._shapes[i] = tuple(self.extractor.feature_shape(run))
