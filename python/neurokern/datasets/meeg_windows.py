"""Windows of EEG, MEG and intracranial recordings, with their channels and what happened in them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from neurokern._check import check_integer, check_number, check_positive
from neurokern.datasets.batch_memory import BatchMemory
from neurokern.datasets.bids_run import MEEGRun
from neurokern.datasets.channels import Channels
from neurokern.datasets.labeled_windows import events_of_windows
from neurokern.datasets.meeg_batch import ChannelTables
from neurokern.datasets.meeg_events import event_table, is_event, touch_bad
from neurokern.datasets.meeg_sources import as_runs
from neurokern.datasets.window_items import LazyItems
from neurokern.datasets.window_places import at_events, at_stride, sorted_indices
from neurokern.ops._run_windows import gather_into
from neurokern.ops._stored_run import StoredRun

if TYPE_CHECKING:
    from neurokern.extractors.meeg import MEEGExtractor

__all__ = ["MEEGWindows"]

NO_CONDITION = -1
NO_EVENT = -1
_NAMES = ("subject", "session", "task", "run")


class MEEGWindows(Dataset[dict[str, Any]]):
    """Windows of recordings as a map-style dataset, for any DataLoader and number of workers.

    Without ``duration`` and ``tmax`` an item is a whole recording. Recordings with other channels, rates or
    lengths are padded in a batch, with ``channel_mask`` and ``valid`` False where nothing was recorded.
    A DataLoader's batch is read at once, to where it stays; without workers by PyTorch's threads.

    Parameters
    ----------
    runs : sequence of MEEGRun, path, mne.io.Raw or mne.Epochs; or one of them
        Recordings: rows of a :class:`~neurokern.datasets.BIDSDataset`, any file that MNE reads, or its
        objects. Each epoch of :class:`mne.Epochs` is a window.
    extractor : MEEGExtractor
    duration : float, optional
        Seconds of a window.
    stride : float, optional
        Seconds from one window to the next; default ``duration``, so that windows touch.
    events : bool, str or sequence of str, default False
        Windows at events: all (True), or those of these ``trial_type``. What marks bad stretches (``BAD``,
        ``BAD_...``, ``Comment/BAD_...``) or joints of files is no event.
    tmin, tmax : float, optional
        Seconds from the event to the window's start (default 0) and end; ``tmax`` instead of ``duration``.
        The sample at ``tmax`` itself is not in it.
    pad : bool, default False
        Keep windows that reach beyond their recording: those at events, and a last one. What lies beyond is 0
        in ``signal`` and False in ``valid``. By default such windows are left out.
    skip_bad : bool, default True
        Leave out windows that touch a stretch that an annotation or ``trial_type`` marks as ``BAD`` or
        ``BAD_...``.

    Attributes
    ----------
    table : DataFrame
        A row per window: ``recording`` (its number), ``start`` (s), ``condition`` (name or None).
    offsets : int64 array of shape (n_recordings + 1,)
        First window of each recording, and the number of windows.
    conditions : tuple of str
        Names of ``trial_type``, in the order of their codes.
    region_names : tuple of str
        Regions of all channels, sorted; a batch's ``regions`` are numbers into it.

    Raises
    ------
    ValueError
        If options contradict each other, no window fits, or there are no events where they are asked for.

    Warns
    -----
    UserWarning
        If windows at events, or in bad stretches, are left out.
    """

    def __init__(
        self,
        runs: Sequence[Any] | Any,
        extractor: MEEGExtractor,
        *,
        duration: float | None = None,
        stride: float | None = None,
        events: bool | str | Sequence[str] = False,
        tmin: float = 0.0,
        tmax: float | None = None,
        pad: bool = False,
        skip_bad: bool = True,
    ) -> None:
        if isinstance(extractor, type) or not hasattr(extractor, "values"):
            kind = extractor.__name__ if isinstance(extractor, type) else type(extractor).__name__
            raise TypeError(f"MEEGWindows: extractor must be an object such as MEEGExtractor(), got {kind}")
        several = isinstance(runs, Sequence) and not isinstance(runs, str)
        self.runs = as_runs(runs if several else [runs])
        if not self.runs:
            raise ValueError("MEEGWindows: there are no recordings")
        self.extractor, self.pad = extractor, bool(pad)
        self.tmin = check_number("MEEGWindows", "tmin", tmin)
        self.duration = self._duration(duration, tmax, events, stride)
        self.stride = None if stride is None else check_positive("MEEGWindows", "stride", stride)
        self.sfreqs = np.array([extractor.sfreq(run) for run in self.runs])
        self._n_samples = np.array([extractor.n_samples(run) for run in self.runs])
        self._events = [_checked_events(run, extractor.events(run)) for run in self.runs]
        names = {name for table in self._events for name in table["trial_type"] if is_event(name)}
        self.conditions = tuple(sorted(names))
        self._lengths = np.array([self._length(i) for i in range(len(self.runs))])
        found = [self._places(i, events) for i in range(len(self.runs))]
        kept = [self._without_bad(i, places) if skip_bad else places for i, (places, _) in enumerate(found)]
        self._put(kept)
        self._check_count(sum(lost for _, lost in found), sum(len(p) for p, _ in found))
        self._channels = ChannelTables([extractor.channels(run) for run in self.runs])
        self.region_names = self._channels.region_names
        self._memory = BatchMemory("MEEGWindows")
        self._names = [{name: run.entities.get(name, "") for name in _NAMES} for run in self.runs]

    @classmethod
    def from_epochs(cls, epochs: Any, extractor: MEEGExtractor | None = None) -> MEEGWindows:
        """Return epochs of MNE as windows; without an extractor all their channels, bad ones marked."""
        from neurokern.extractors.meeg import MEEGExtractor

        return cls([epochs], extractor or MEEGExtractor("all", bads="keep", rename=False))

    @property
    def table(self) -> pd.DataFrame:
        """A row per window: number of the recording, seconds of its start, name of the condition."""
        names = np.array([*self.conditions, None], dtype=object)
        seconds = self._start / self.sfreqs[self._recording]
        columns = {"recording": self._recording, "start": seconds, "condition": names[self._condition]}
        return pd.DataFrame(columns)

    @property
    def events(self) -> pd.DataFrame:
        """The event of each window: a row per window, with all columns of its recording's table."""
        tables = [self.extractor.events(run) for run in self.runs]
        rows = list(zip(self._recording.tolist(), self._event.tolist(), strict=True))
        return events_of_windows("MEEGWindows", tables, rows)

    def channels(self, recording: int) -> Channels:
        """Return the channels of a recording, by its number."""
        return self._channels.of[recording]

    def _put(self, places: Sequence[pd.DataFrame]) -> None:
        """Put the windows of each recording where a table of them says."""
        self.offsets = np.cumsum([0, *map(len, places)], dtype=np.int64)
        self._recording = np.repeat(np.arange(len(self.runs)), [len(table) for table in places])
        rows = pd.concat(places)
        self._start = rows["start"].to_numpy(np.int64)
        self._onset = rows["onset"].to_numpy(np.float64)
        self._condition = rows["condition"].to_numpy(np.int64)
        self._event = rows["event"].to_numpy(np.int64)

    def _duration(
        self, duration: float | None, tmax: float | None, events: Any, stride: float | None
    ) -> float | None:
        if duration is not None and tmax is not None:
            raise ValueError(f"MEEGWindows: give duration or tmax, not both, got {duration} and {tmax}")
        if events is False and (tmax is not None or self.tmin):
            raise ValueError("MEEGWindows: tmin and tmax count from events; give events=True, or duration")
        if events is not False and stride is not None:
            raise ValueError(
                f"MEEGWindows: stride must be left out where windows lie at events, got {stride}"
            )
        if tmax is not None:
            duration = check_number("MEEGWindows", "tmax", tmax) - self.tmin
            if not duration > 0:
                raise ValueError(f"MEEGWindows: tmax must lie above tmin, got {tmax} and {self.tmin}")
        if duration is None and (events is not False or stride is not None):
            raise ValueError("MEEGWindows: events and stride need duration or tmax, in seconds")
        return None if duration is None else check_positive("MEEGWindows", "duration", duration)

    def _length(self, i: int) -> int:
        if _epoch_length(self.runs[i]) is not None:
            if self.duration is not None:
                raise ValueError(
                    "MEEGWindows: each of mne.Epochs is a window; leave duration, tmax and events out"
                )
            return int(_epoch_length(self.runs[i]) or 0)
        if self.duration is None:
            return int(self._n_samples[i])
        # 0.3 s at 100 Hz are 30 samples, though 0.3 * 100 is a little less in binary.
        return max(int(np.floor(self.duration * self.sfreqs[i] + 1e-6)), 1)

    def _places(self, i: int, events: bool | str | Sequence[str]) -> tuple[pd.DataFrame, int]:
        """Return start, onset and condition of the windows of a recording, and how many reach beyond it."""
        n, length, sfreq = int(self._n_samples[i]), int(self._lengths[i]), float(self.sfreqs[i])
        codes = {name: code for code, name in enumerate(self.conditions)}
        if _epoch_length(self.runs[i]) is not None:
            starts = np.arange(0, n, length, dtype=np.int64)
            kinds = [codes.get(name, NO_CONDITION) for name in self._events[i]["trial_type"]]
            onset = np.full(len(starts), float(self.runs[i].data.times[0]))
            rows = np.arange(len(starts))
            return pd.DataFrame({"start": starts, "onset": onset, "condition": kinds, "event": rows}), 0
        if events is False:
            step = length if self.stride is None else max(round(self.stride * sfreq), 1)
            starts = at_stride(n, length, step, pad=self.pad)
            none = {"onset": 0.0, "condition": NO_CONDITION, "event": NO_EVENT}
            return pd.DataFrame({"start": starts, **none}), 0
        chosen = self._chosen(events)
        table = self._events[i]
        wanted = np.array([name in chosen for name in table["trial_type"]], dtype=bool)
        table = table[wanted & np.isfinite(table["onset"].to_numpy())]
        onsets = table["onset"].to_numpy(np.float64)
        starts, keep = at_events(onsets, 1 / sfreq, self.tmin, length, n, pad=self.pad)
        places = pd.DataFrame(
            {
                "start": starts,
                "onset": starts / sfreq - onsets,
                "condition": [codes[name] for name in table["trial_type"]],
                "event": table.index.to_numpy(),
            }
        )
        return places[keep], int((~keep).sum())

    def _chosen(self, events: bool | str | Sequence[str]) -> set[str]:
        if not self.conditions:
            raise ValueError("MEEGWindows: events are asked for, no recording has events or annotations")
        names = self.conditions if events is True else (events,) if isinstance(events, str) else events
        assert not isinstance(names, bool)
        unknown = sorted(set(names) - set(self.conditions))
        if unknown:
            raise ValueError(
                f"MEEGWindows: events must be of {', '.join(self.conditions)}, got {', '.join(unknown)}"
            )
        return set(names)

    def _without_bad(self, i: int, places: pd.DataFrame) -> pd.DataFrame:
        if _epoch_length(self.runs[i]) is not None:
            return places
        begin = places["start"].to_numpy() / self.sfreqs[i]
        return places[~touch_bad(begin, begin + self._lengths[i] / self.sfreqs[i], self._events[i])]

    def _check_count(self, outside: int, inside: int) -> None:
        skipped = inside - int(self.offsets[-1])
        lost = [f"{outside} that reach beyond their recording"] if outside else []
        lost += [f"{skipped} in stretches marked BAD"] if skipped else []
        if not self.offsets[-1]:
            seconds = (self._n_samples / self.sfreqs).max()
            raise ValueError(
                f"MEEGWindows: no window of {self.duration} s fits into recordings of up to {seconds:g} s"
                + (f"; left out {' and '.join(lost)}" if lost else "")
            )
        if lost:
            warnings.warn(f"MEEGWindows: left out windows: {' and '.join(lost)}", stacklevel=3)

    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the recording of each window, and the seconds that it begins and ends at."""
        recording = self._recording.astype(np.int64)
        stop = self._start + self._lengths[recording]
        return recording, self._start / self.sfreqs[recording], stop / self.sfreqs[recording]

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> MEEGWindows:
        """Return the dataset of some of the windows, in this dataset's order.

        Parameters
        ----------
        indices : sequence of int
            Numbers of windows, each at most once.
        """
        chosen = sorted_indices("MEEGWindows.select", indices, len(self))
        part = copy.copy(self)
        for name in ("_recording", "_start", "_onset", "_condition", "_event"):
            setattr(part, name, getattr(self, name)[chosen])
        part.offsets = np.searchsorted(part._recording, np.arange(len(self.runs) + 1)).astype(np.int64)
        return part

    def prepare(self, threads: int = 1) -> MEEGWindows:
        """Filter and keep all recordings ahead of the first epoch, several at once; return the dataset."""
        if check_integer("MEEGWindows.prepare", "threads", threads) < 1:
            raise ValueError(f"MEEGWindows.prepare: threads must be at least 1, got {threads}")
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(self.extractor.prepare, [self.runs[i] for i in np.unique(self._recording)]):
                pass
        return self

    def __len__(self) -> int:
        """Return the number of windows."""
        return int(self.offsets[-1])

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Return a window.

        Returns
        -------
        item : dict
            ``signal`` (time, channels) float32, SI units; ``valid`` (time,) bool.

            Of each channel: ``channel_mask`` bool (False for padding), ``channel_bad`` bool,
            ``channel_types`` int64 (places in ``CHANNEL_TYPES``, -1 for padding), ``channel_names`` str,
            ``positions`` and ``orientations`` (channels, 3) in meters and unit vectors, NaN where unknown,
            ``regions`` int64, -1 where unknown.

            Of the window: ``frame`` of the positions, ``sfreq`` in Hz, ``condition`` code of the event or -1,
            ``onset`` seconds from that event to the first sample, ``start`` seconds of the first sample,
            ``recording`` number, ``subject``, ``session``, ``task``, ``run`` str.
        """
        return LazyItems(self.batch([i]))[0]

    def __getitems__(self, indices: Sequence[int]) -> LazyItems:
        """Return windows, padded to the longest; PyTorch's DataLoader calls this where it exists."""
        return LazyItems(self.batch(indices, shared=get_worker_info() is not None))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def batch(self, indices: Sequence[int], *, shared: bool = False) -> dict[str, Any]:
        """Return windows as one batch, each read to its place in it: ``signal`` (batch, time, channels), ...

        Parameters
        ----------
        indices : sequence of int
        shared : bool, default False
            In memory that a worker can hand over without copying.
        """
        items = np.asarray(indices, dtype=np.int64)
        items = np.where(items < 0, items + len(self), items)
        if not items.size or items.min() < 0 or items.max() >= len(self):
            raise IndexError(f"MEEGWindows: items must be 0 to {len(self) - 1}, got {list(indices)}")
        recording, start = self._recording[items], self._start[items]
        signal, valid = self._read(recording, start, shared)
        facts = self._channels.of_batch(recording)
        batch: dict[str, Any] = {"signal": signal, "valid": valid, **facts}
        sfreq = self.sfreqs[recording]
        batch["sfreq"] = torch.from_numpy(sfreq)
        batch["condition"] = torch.from_numpy(self._condition[items])
        batch["onset"] = torch.from_numpy(self._onset[items])
        batch["start"] = torch.from_numpy(start / sfreq)
        batch["recording"] = torch.from_numpy(recording)
        for name in _NAMES:
            batch[name] = [self._names[i][name] for i in recording.tolist()]
        return batch

    def _read(
        self, recording: NDArray[np.int64], start: NDArray[np.int64], shared: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        lengths, totals = self._lengths[recording], self._n_samples[recording]
        longest = int(lengths.max())
        shape = (len(recording), longest, self._channels.widest(recording))
        signal = self._memory.take(shape, torch.float32, shared=shared)
        stored = {i: self._stored(i) for i in dict.fromkeys(recording.tolist())}
        try:
            gather_into(signal, [stored[i] for i in recording.tolist()], start, lengths)
        except ValueError:
            for i in stored:  # says which, and lets go of it
                self.extractor.check_unchanged(self.runs[i])
            raise
        offset = np.arange(longest)
        sample = start[:, None] + offset
        valid = (sample >= 0) & (sample < totals[:, None]) & (offset < lengths[:, None])
        return signal, torch.from_numpy(valid)

    def _stored(self, i: int) -> StoredRun:
        stored = self.extractor.stored(self.runs[i])
        if stored.shape != (self._n_samples[i], len(self._channels.of[i])):
            raise RuntimeError(f"{self.runs[i].path} was changed since it was opened; make the windows again")
        return stored

    def to_epochs(self, indices: Sequence[int] | None = None) -> Any:
        """Return windows as :class:`mne.EpochsArray`: names, types, places and conditions are kept.

        Parameters
        ----------
        indices : sequence of int, optional
            Windows to take; all without. They must be whole, and of the same channels and rate.
        """
        from neurokern.datasets.meeg_epochs import epochs_of

        return epochs_of(self, np.arange(len(self)) if indices is None else np.asarray(indices))


def _checked_events(run: MEEGRun, events: pd.DataFrame) -> pd.DataFrame:
    try:
        return event_table(events)
    except ValueError as error:
        raise ValueError(f"{run.path}: {error}") from None


def _epoch_length(run: MEEGRun) -> int | None:
    return len(run.data.times) if hasattr(run.data, "event_id") else None
