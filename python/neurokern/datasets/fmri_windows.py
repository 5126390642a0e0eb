"""Windows of fMRI runs, with what happened in them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from neurokern._check import check_integer, check_number, check_positive

if TYPE_CHECKING:
    from neurokern.datasets.bids import BIDSRun

NO_CONDITION = -1
INSTANT = 1e-3  # seconds that an event without duration fills


class FMRIExtractor(Protocol):
    """What a dataset asks of an extractor."""

    def n_volumes(self, run: BIDSRun) -> int:
        """Return the volumes of a run."""

    def extract(self, run: BIDSRun, start: int, stop: int) -> torch.Tensor:
        """Return volumes ``start`` ... ``stop - 1``, time first."""

    def feature_dim(self, run: BIDSRun) -> int | tuple[int, ...]:
        """Return the size of a volume's signal."""


class Window(NamedTuple):
    """Where a window lies."""

    run: int
    start: int  # volume
    onset: float  # seconds from the event to the window's first volume; 0 without events
    condition: int  # of the event; NO_CONDITION without


class FMRIWindows(Dataset[dict[str, Any]]):
    """Windows of runs as a map-style dataset, for any DataLoader and number of workers.

    Without ``length`` and ``duration`` an item is a whole run.

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

    Attributes
    ----------
    windows : list of Window
    conditions : tuple of str
        Names of ``trial_type``, in the order of their codes.

    Raises
    ------
    ValueError
        If options contradict each other, no window fits, or runs have no events where they are asked for.

    Warns
    -----
    UserWarning
        If windows of events reach beyond their run and are left out.
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
    ) -> None:
        if length is not None and duration is not None:
            raise ValueError(f"FMRIWindows: give length or duration, not both, got {length} and {duration}")
        if (events is not False or stride is not None) and length is None and duration is None:
            raise ValueError("FMRIWindows: events and stride need length (volumes) or duration (seconds)")
        if events is not False and stride is not None:
            raise ValueError(
                f"FMRIWindows: stride must be left out where windows lie at events, got {stride}"
            )
        self.runs, self.extractor = list(runs), extractor
        self.tmin = check_number("FMRIWindows", "tmin", tmin)
        self.hrf_delay = check_number("FMRIWindows", "hrf_delay", hrf_delay)
        self.conditions = _conditions(self.runs)
        self._codes = {name: code for code, name in enumerate(self.conditions)}
        self._n_volumes = [extractor.n_volumes(run) for run in self.runs]
        lengths = [self._length(i, length, duration) for i in range(len(self.runs))]
        self._lengths = lengths
        self.windows: list[Window] = []
        chosen = self._chosen(events)
        outside = 0
        for i in range(len(self.runs)):
            if chosen is None:
                step = lengths[i] if stride is None else check_integer("FMRIWindows", "stride", stride)
                if step < 1:
                    raise ValueError(f"FMRIWindows: stride must be at least 1, got {step}")
                starts = range(0, self._n_volumes[i] - lengths[i] + 1, step)
                self.windows += [Window(i, start, 0.0, NO_CONDITION) for start in starts]
            else:
                outside += self._add_events(i, chosen)
        if outside:
            warnings.warn(
                f"FMRIWindows: left out {outside} windows that reach beyond their run", stacklevel=3
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
            raise ValueError("FMRIWindows: events are asked for, no run has a table of them")
        names = self.conditions if events is True else (events,) if isinstance(events, str) else tuple(events)
        unknown = sorted(set(names) - set(self.conditions))
        if unknown:
            raise ValueError(
                f"FMRIWindows: events must be of {', '.join(self.conditions)}, got {', '.join(unknown)}"
            )
        return set(names)

    def _add_events(self, i: int, chosen: set[str]) -> int:
        """Add a window for each event of a run; return how many reach beyond it."""
        run, outside = self.runs[i], 0
        if run.events is None:
            return 0
        tr = run.repetition_time
        for onset, name in zip(run.events["onset"], _trial_types(run), strict=True):
            if name not in chosen or not np.isfinite(onset):
                continue
            wanted = onset + self.tmin + self.hrf_delay
            start = int(np.floor(wanted / tr + 0.5))  # the nearest volume; what is left over is told
            if start < 0 or start + self._lengths[i] > self._n_volumes[i]:
                outside += 1
                continue
            self.windows.append(Window(i, start, start * tr - onset, self._codes[name]))
        return outside

    @property
    def feature_dim(self) -> int | tuple[int, ...]:
        """Size of a volume's signal: voxels, parcels, or voxels along x, y and z."""
        return self.extractor.feature_dim(self.runs[0])

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.windows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Return a window.

        Returns
        -------
        item : dict
            ``signal`` (trs, features); ``valid`` (trs,) bool, True where a volume was recorded;
            ``conditions`` (trs,) int64, code of the event that the volume falls into (moved by ``hrf_delay``)
            or -1; ``condition`` int, code of the event that the window lies at or -1; ``onset`` seconds from
            that event to the first volume; ``start`` seconds of the first volume in its run; ``subject``,
            ``session``, ``task``, ``run`` str, empty where a file's name has none.
        """
        window = self.windows[i]
        run, n = self.runs[window.run], self._lengths[window.run]
        signal = self.extractor.extract(run, window.start, window.start + n)
        tr = run.repetition_time
        item: dict[str, Any] = {
            "signal": signal,
            "valid": torch.ones(len(signal), dtype=torch.bool),
            "conditions": torch.from_numpy(self._conditions_of(run, window.start, n, tr)),
            "condition": window.condition,
            "onset": window.onset,
            "start": window.start * tr,
        }
        return item | {name: run.entities.get(name, "") for name in ("subject", "session", "task", "run")}

    def _conditions_of(self, run: BIDSRun, start: int, n: int, tr: float) -> np.ndarray:
        """Return for each volume the condition that fills most of its time, or none."""
        codes = np.full(n, NO_CONDITION, dtype=np.int64)
        if run.events is None or not len(run.events):
            return codes
        begin = ((start + np.arange(n)) * tr - self.hrf_delay)[:, None]
        onset = run.events["onset"].to_numpy(dtype=np.float64)
        duration = np.maximum(np.nan_to_num(run.events["duration"].to_numpy(dtype=np.float64)), INSTANT)
        shared = np.minimum(begin + tr, onset + duration) - np.maximum(begin, onset)
        filled = np.zeros((n, len(self.conditions)))
        event_codes = [self._codes[name] for name in _trial_types(run)]
        np.add.at(filled.T, event_codes, np.nan_to_num(shared).clip(min=0).T)
        best = filled.argmax(axis=1)
        return np.where(filled[np.arange(n), best] > 0, best, codes)


def _trial_types(run: BIDSRun) -> list[str]:
    """Return the condition of each event; events of a table without ``trial_type`` are all "event"."""
    if run.events is None:
        return []
    missing = {"onset", "duration"} - set(run.events)
    if missing:
        raise ValueError(
            f"{run.path}: its events must have columns onset and duration, there is no {', '.join(missing)}"
        )
    if "trial_type" not in run.events:
        return ["event"] * len(run.events)
    return [str(name) for name in run.events["trial_type"]]


def _conditions(runs: Sequence[BIDSRun]) -> tuple[str, ...]:
    return tuple(sorted({name for run in runs for name in _trial_types(run)}))
