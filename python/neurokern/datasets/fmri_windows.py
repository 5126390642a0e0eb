"""Windows of fMRI runs, with what happened in them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from neurokern._check import check_integer, check_number, check_positive
from neurokern.datasets.fmri_events import conditions_of_runs, event_times, trial_types
from neurokern.datasets.fmri_reader import FMRIReader, Places
from neurokern.datasets.labeled_windows import events_of_windows
from neurokern.datasets.window_items import LazyItems
from neurokern.datasets.window_places import at_events, at_stride, sorted_indices

if TYPE_CHECKING:
    from neurokern.datasets.bids import BIDSRun

NO_CONDITION = -1
NO_EVENT = -1


class FMRIExtractor(Protocol):
    """What a dataset asks of an extractor."""

    def n_volumes(self, run: BIDSRun) -> int:
        """Return the volumes of a run."""

    def extract(self, run: BIDSRun, start: int, stop: int, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return volumes ``start`` ... ``stop - 1``, time first; written into ``out`` if it is given."""

    def feature_shape(self, run: BIDSRun) -> tuple[int, ...]:
        """Return the shape of a volume's signal."""

    def feature_dim(self, run: BIDSRun) -> int | tuple[int, ...]:
        """Return the size of a volume's signal."""

    def kept(self, run: BIDSRun) -> NDArray[np.bool_]:
        """Return the volumes of a run that were not scrubbed."""

    def prepare(self, run: BIDSRun) -> None:
        """Do ahead what windows of this run need."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of the signals."""


class Window(NamedTuple):
    """Where a window lies."""

    run: int
    start: int  # volume; below 0 where a padded window begins before its run
    onset: float  # seconds from the event to the window's first volume; 0 without events
    condition: int  # of the event; NO_CONDITION without
    event: int = NO_EVENT  # row of the run's table


class FMRIWindows(Dataset[dict[str, Any]]):
    """Windows of runs as a map-style dataset, for any DataLoader and number of workers.

    Without ``length`` and ``duration`` an item is a whole run. A batch of runs of different lengths is padded
    to the longest, with ``valid`` False where nothing was recorded; no collate function is needed for it.
    A DataLoader's batch is read at once, to where it stays; without workers by PyTorch's threads.

    Parameters
    ----------
    runs : sequence of BIDSRun
    extractor : object of :mod:`neurokern.extractors`
    length : int, optional
        Volumes (TRs) of a window.
    duration : float, optional
        Seconds of a window instead; the volumes that begin in it, at least one.
    stride : int, optional
        Volumes from one window to the next; default ``length``, so that windows touch.
    events : bool, str or sequence of str, default False
        Windows at events: all (True), or those of these ``trial_type``.
    tmin : float, default 0.0
        Seconds from the event to the window's start.
    hrf_delay : float, default 0.0
        Seconds that the signal follows the event; windows, and the conditions of volumes, move by it.
    pad : bool, default False
        Keep windows that reach beyond their run: those at events, and a last one for the volumes that no
        whole window holds. What lies beyond is 0 in ``signal``, False in ``valid`` and -1 in ``conditions``.
        By default such windows are left out.

    Attributes
    ----------
    windows : list of Window
    offsets : int64 array of shape (n_runs + 1,)
        First window of each run, and the number of windows, as
        :class:`~neurokern.datasets.SessionBatchSampler` takes it: shuffled batches of one run each, and a
        place to resume from.
    conditions : tuple of str
        Names of ``trial_type``, in the order of their codes.

    Raises
    ------
    ValueError
        If options contradict each other, no window fits, or runs have no events where they are asked for.

    Warns
    -----
    UserWarning
        If windows of events are left out: all that reach beyond their run, or with ``pad`` those that hold
        nothing of it.
    """

    def __init__(
        self,
        runs: Sequence[BIDSRun],
        extractor: FMRIExtractor,
        *,
        length: int | None = None,
        duration: float | None = None,
        stride: int | None = None,
        events: bool | str | Sequence[str] = False,
        tmin: float = 0.0,
        hrf_delay: float = 0.0,
        pad: bool = False,
    ) -> None:
        if isinstance(extractor, type) or not hasattr(extractor, "n_volumes"):
            kind = extractor.__name__ if isinstance(extractor, type) else type(extractor).__name__
            raise TypeError(
                "FMRIWindows: extractor must be an object of neurokern.extractors, such as "
                f"FMRIVoxelExtractor(mask), got {kind}"
            )
        if length is not None and duration is not None:
            raise ValueError(f"FMRIWindows: give length or duration, not both, got {length} and {duration}")
        if (events is not False or stride is not None) and length is None and duration is None:
            raise ValueError("FMRIWindows: events and stride need length (volumes) or duration (seconds)")
        if events is not False and stride is not None:
            raise ValueError(
                f"FMRIWindows: stride must be left out where windows lie at events, got {stride}"
            )
        self.runs, self.extractor, self.pad = list(runs), extractor, bool(pad)
        self.tmin = check_number("FMRIWindows", "tmin", tmin)
        self.hrf_delay = check_number("FMRIWindows", "hrf_delay", hrf_delay)
        self.conditions = conditions_of_runs(self.runs)
        self._codes = {name: code for code, name in enumerate(self.conditions)}
        self._n_volumes = [extractor.n_volumes(run) for run in self.runs]
        lengths = [self._length(i, length, duration) for i in range(len(self.runs))]
        self._lengths = lengths
        chosen = self._chosen(events)
        by_run, outside = [], 0
        for i in range(len(self.runs)):
            found, lost = self._strided(i, stride) if chosen is None else self._at_events(i, chosen)
            by_run.append(found)
            outside += lost
        self.windows = [window for found in by_run for window in found]
        self.offsets = np.cumsum([0, *map(len, by_run)], dtype=np.int64)
        self._places = _places_of(self.windows)
        self._reader = FMRIReader(
            self.runs,
            extractor,
            self._n_volumes,
            lengths,
            self._codes,
            self.hrf_delay,
            whole=not self.pad,
        )
        if outside and not self.windows:
            raise ValueError(
                f"FMRIWindows: all {outside} windows at events reach beyond their run, {max(lengths)} "
                f"volumes each in runs of {max(self._n_volumes)}; see tmin, hrf_delay, length and pad"
            )
        if outside:
            warnings.warn(
                f"FMRIWindows: left out {outside} windows that "
                + ("hold nothing of their run" if self.pad else "reach beyond their run"),
                stacklevel=3,
            )
        if not self.windows:
            raise ValueError(
                f"FMRIWindows: no window of {max(lengths, default=0)} volumes fits into runs of "
                f"{max(self._n_volumes, default=0)}"
            )

    def _length(self, i: int, length: int | None, duration: float | None) -> int:
        if duration is not None:
            seconds = check_positive("FMRIWindows", "duration", duration)
            return max(int(np.floor(seconds / self.runs[i].repetition_time + 1e-6)), 1)
        if length is None:
            return self._n_volumes[i]
        if check_integer("FMRIWindows", "length", length) < 1:
            raise ValueError(f"FMRIWindows: length must be at least 1 volume, got {length}")
        return length

    def _chosen(self, events: bool | str | Sequence[str]) -> set[str] | None:
        if events is False:
            return None
        if not self.conditions:
            raise ValueError(
                "FMRIWindows: events are asked for, no run has a table of them (_events.tsv) with a "
                "trial_type"
            )
        names = self.conditions if events is True else (events,) if isinstance(events, str) else tuple(events)
        unknown = sorted(set(names) - set(self.conditions))
        if unknown:
            raise ValueError(
                f"FMRIWindows: events must be of {', '.join(self.conditions)}, got {', '.join(unknown)}"
            )
        return set(names)

    def _strided(self, i: int, stride: int | None) -> tuple[list[Window], int]:
        length, n_volumes = self._lengths[i], self._n_volumes[i]
        step = length if stride is None else check_integer("FMRIWindows", "stride", stride)
        if step < 1:
            raise ValueError(f"FMRIWindows: stride must be at least 1, got {step}")
        starts = at_stride(n_volumes, length, step, pad=self.pad).tolist()
        return [Window(i, start, 0.0, NO_CONDITION) for start in starts], 0

    def _at_events(self, i: int, chosen: set[str]) -> tuple[list[Window], int]:
        """Return a window for each event of a run, and how many were left out."""
        run = self.runs[i]
        windows: list[Window] = []
        if run.events is None:
            return windows, 0
        tr, onsets = run.repetition_time, event_times(run)[0]
        named = enumerate(zip(onsets, trial_types(run), strict=True))
        events = [(row, *event) for row, event in named if event[1] in chosen and np.isfinite(event[0])]
        shift = self.tmin + self.hrf_delay
        starts, kept = at_events(
            np.array([onset for _, onset, _ in events]),
            tr,
            shift,
            self._lengths[i],
            self._n_volumes[i],
            pad=self.pad,
        )
        for (row, onset, name), start, keep in zip(events, starts.tolist(), kept.tolist(), strict=True):
            if keep and name is not None:
                windows.append(Window(i, start, start * tr - onset, self._codes[name], row))
        return windows, len(events) - len(windows)

    @property
    def events(self) -> pd.DataFrame:
        """The event of each window: a row per window, with all columns of its run's table."""
        rows = [(window.run, window.event) for window in self.windows]
        return events_of_windows("FMRIWindows", [run.events for run in self.runs], rows)

    @property
    def feature_dim(self) -> int | tuple[int, ...]:
        """Size of a volume's signal: voxels, parcels, or voxels along x, y and z."""
        return self.extractor.feature_dim(self.runs[0])

    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the run of each window, and the seconds that it begins and ends at."""
        run = np.array([window.run for window in self.windows], dtype=np.int64)
        start = np.array([window.start for window in self.windows], dtype=np.float64)
        tr = np.array([run.repetition_time for run in self.runs])[run]
        return run, start * tr, (start + np.array(self._lengths)[run]) * tr

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> FMRIWindows:
        """Return the dataset of some of the windows, in this dataset's order.

        Parameters
        ----------
        indices : sequence of int
            Numbers of windows, each at most once.
        """
        chosen = sorted_indices("FMRIWindows.select", indices, len(self))
        part = copy.copy(self)
        part.windows = [self.windows[i] for i in chosen]
        part._places = self._places.take(chosen)
        runs = [window.run for window in part.windows]
        part.offsets = np.searchsorted(runs, np.arange(len(self.runs) + 1)).astype(np.int64)
        return part

    def prepare(self, threads: int = 1) -> FMRIWindows:
        """Decode, pack and fit all runs ahead of the first epoch, several at once; return the dataset.

        Without it a run is prepared when its first window is asked for, by the worker that needs it, while
        others that need it, too, wait. What the extractor does not cache is not prepared.

        Parameters
        ----------
        threads : int, default 1
            Runs at a time; decoding does not hold Python's lock.
        """
        if check_integer("FMRIWindows.prepare", "threads", threads) < 1:
            raise ValueError(f"FMRIWindows.prepare: threads must be at least 1, got {threads}")
        used = sorted({window.run for window in self.windows})
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda i: self.extractor.prepare(self.runs[i]), used):
                pass
        return self

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.windows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Return a window.

        Returns
        -------
        item : dict
            ``signal`` (trs, features); ``valid`` (trs,) bool, True where a volume was recorded
            and not scrubbed;
            ``conditions`` (trs,) int64, code of the event that the volume falls into (moved by ``hrf_delay``)
            or -1; ``condition`` int, code of the event that the window lies at or -1; ``onset`` seconds from
            that event to the first volume; ``start`` seconds of the first volume in its run; ``subject``,
            ``session``, ``task``, ``run`` str, empty where a file's name has none.
        """
        return LazyItems(self.batch([i]))[0]

    def __getitems__(self, indices: Sequence[int]) -> LazyItems:
        """Return windows, padded to the longest; PyTorch's DataLoader calls this where it exists."""
        return LazyItems(self.batch(indices, shared=get_worker_info() is not None))

    def batch(self, indices: Sequence[int], *, shared: bool = False) -> dict[str, Any]:
        """Return windows as one batch, each read to its place in it, padded to the longest.

        Windows whose runs lie ready in memory or in the cache are written by one native call, on as many
        threads as PyTorch has. Memory is used again once nothing refers to an earlier batch, or to any view
        of it; a batch that is held is never written over.

        Parameters
        ----------
        indices : sequence of int
        shared : bool, default False
            In memory that a worker can hand over without copying.

        Returns
        -------
        batch : dict
            As that of a DataLoader over this dataset: ``signal`` (batch, trs, features), and so on.
        """
        items = np.asarray(indices, dtype=np.int64)
        items = np.where(items < 0, items + len(self), items)
        if not items.size or items.min() < 0 or items.max() >= len(self):
            raise IndexError(f"FMRIWindows: items must be 0 to {len(self) - 1}, got {list(indices)}")
        return self._reader.read(self._places.take(items), shared=shared)


def _places_of(windows: Sequence[Window]) -> Places:
    run, start, onset, condition, _ = zip(*windows, strict=True) if windows else ((),) * 5
    return Places(
        np.array(run, np.int64),
        np.array(start, np.int64),
        np.array(onset, np.float64),
        np.array(condition, np.int64),
    )
