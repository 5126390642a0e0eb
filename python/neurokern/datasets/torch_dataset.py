"""Windows of many sessions as one map-style dataset for PyTorch's DataLoader."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from neurokern.datasets.batch import SpikeBatch, SpikeSample
from neurokern.datasets.binned import BinnedSession, index_regions
from neurokern.datasets.series import TimeSeries
from neurokern.datasets.windowed import WindowedRecording

__all__ = ["SpikeWindows"]


class SpikeWindows(Dataset[SpikeSample]):
    """Windows of one or several sessions; window k of session s is item ``offsets[s] + k``.

    Use it with ``collate_fn=collate_spikes``, and with ``batch_sampler=SessionBatchSampler(...)`` for batches
    of one session each. A batch is read at once, not window by window, in the process that asks for it. The
    dataset holds no open file, so workers may be forked or spawned.

    Parameters
    ----------
    sessions : sequence of BinnedSession or WindowedRecording
        With distinct names, and with windows of one number of bins and one bin size.
    labels : sequence of str, default ()
        Numeric columns of the trials to put into each batch's ``labels``: integers and truth values as int64,
        others as float32.
    series : sequence of str, default ()
        Series of the recordings, such as ``"wheel.position"``, to read in the middle of each bin into each
        batch's ``series``, with ``series_valid``; of :class:`~neurokern.datasets.WindowedRecording` alone.

    Attributes
    ----------
    region_names : tuple of str
        Regions of all sessions, sorted; a batch's ``regions`` are numbers into it.
    offsets : ndarray of shape (n_sessions + 1,), int64
        First item of each session, and the number of items.

    Raises
    ------
    ValueError
        If there are no sessions, two have one name, their bins differ, a label is missing or not numeric, or
        a series is missing or differs in its columns.

    Examples
    --------
    >>> dataset = SpikeWindows([session_a, session_b])
    >>> sampler = SessionBatchSampler(dataset, batch_size=16, seed=1)
    >>> loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collate_spikes, num_workers=2)
    """

    def __init__(
        self,
        sessions: Sequence[BinnedSession | WindowedRecording],
        labels: Sequence[str] = (),
        series: Sequence[str] = (),
    ) -> None:
        self.sessions = tuple(sessions)
        _check_sessions(self.sessions)
        self.offsets = np.concatenate([[0], np.cumsum([s.n_windows for s in self.sessions])]).astype(np.int64)
        self.region_names = tuple(sorted({str(name) for s in self.sessions for name in s.regions} - {""}))
        self._regions = [
            torch.from_numpy(index_regions(s.regions, self.region_names)[0]) for s in self.sessions
        ]
        self._labels = {name: _label_columns(self.sessions, name) for name in labels}
        self._series = {name: _series_of(self.sessions, name) for name in series}

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def __getitem__(self, index: int) -> SpikeSample:
        """Return one window."""
        session, window = self.locate([index])
        batch = self._read(session, window)
        return SpikeSample(
            counts=batch.counts[0],
            regions=batch.regions[0],
            session=batch.session[0],
            session_index=int(session[0]),
            window=int(window[0]),
            labels={name: values[0] for name, values in batch.labels.items()},
            series={name: values[0] for name, values in batch.series.items()},
            series_valid={name: valid[0] for name, valid in batch.series_valid.items()},
        )

    def __getitems__(self, indices: Sequence[int]) -> SpikeBatch:
        """Return many windows as one batch; PyTorch's DataLoader calls this where it exists."""
        return self._read(*self.locate(indices))

    def batch(self, indices: Sequence[int], *, shared: bool = False) -> SpikeBatch:
        """Return many windows as one batch, as :class:`~neurokern.datasets.WindowStream` asks for it."""
        return self._read(*self.locate(indices))

    def without_counts(self, indices: Sequence[int]) -> SpikeBatch:
        """Return what :meth:`batch` says of these windows but for behavior, with zeros in place of counts.

        Reads nothing; the zeros are one number, expanded.
        """
        session, window = self.locate(indices)
        numbers = session.tolist()
        regions = pad_sequence([self._regions[s] for s in numbers], batch_first=True, padding_value=-1)
        return SpikeBatch(
            counts=torch.zeros(1, 1, 1).expand(len(window), self.sessions[0].n_bins, regions.shape[1]),
            n_units=torch.tensor([self.sessions[s].n_units for s in numbers]),
            regions=regions,
            session=[self.sessions[s].session for s in numbers],
            session_index=torch.from_numpy(session),
            window=torch.from_numpy(window),
        )

    def locate(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of each item's session and window, int64; IndexError if there is no item."""
        items = np.array(indices, dtype=np.int64)
        if items.size and (items.min() < 0 or items.max() >= len(self)):
            items[items < 0] += len(self)
            if items.min() < 0 or items.max() >= len(self):
                raise IndexError(f"SpikeWindows: items are 0 to {len(self) - 1}, got {list(indices)}")
        session = self.offsets.searchsorted(items, side="right") - 1
        return session, items - self.offsets[session]

    def _read(self, session: np.ndarray, window: np.ndarray) -> SpikeBatch:
        numbers = session.tolist()
        present = sorted(set(numbers))
        if len(present) == 1:  # the usual batch: nothing to pad
            counts = torch.from_numpy(self.sessions[present[0]].read(window))
            regions = self._regions[present[0]].repeat(len(window), 1)
        else:
            counts, regions = self._read_padded(session, window, present)
        return SpikeBatch(
            counts=counts,
            n_units=torch.tensor([self.sessions[s].n_units for s in numbers]),
            regions=regions,
            session=[self.sessions[s].session for s in numbers],
            session_index=torch.from_numpy(session),
            window=torch.from_numpy(window),
            labels=self._read_labels(session, window) if self._labels else {},
            **(self._read_series(session, window) if self._series else {}),
        )

    def _read_labels(self, session: np.ndarray, window: np.ndarray) -> dict[str, torch.Tensor]:
        items = torch.from_numpy(self.offsets[session] + window)
        return {name: values[items] for name, values in self._labels.items()}

    def _read_series(self, session: np.ndarray, window: np.ndarray) -> dict[str, dict[str, torch.Tensor]]:
        """Return behavior in the middle of each bin, and where it is known."""
        found: dict[str, dict[str, torch.Tensor]] = {"series": {}, "series_valid": {}}
        for name, by_session in self._series.items():
            shape = (len(window), self.sessions[0].n_bins)
            values = np.empty((*shape, *by_session[0].values.shape[1:]), np.float32)
            valid = np.empty(shape, bool)
            for s in np.unique(session).tolist():
                windows = self.sessions[s].windows
                assert windows is not None  # a recording's always are
                rows = session == s
                values[rows], valid[rows] = by_session[s].in_windows(
                    windows[window[rows]], self.sessions[s].bin_size
                )
            found["series"][name] = torch.from_numpy(values)
            found["series_valid"][name] = torch.from_numpy(valid)
        return found

    def _read_padded(
        self, session: np.ndarray, window: np.ndarray, present: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        widest = max(self.sessions[s].n_units for s in present)
        counts = torch.zeros(len(window), self.sessions[0].n_bins, widest)
        regions = torch.full((len(window), widest), -1)
        for s in present:
            rows = torch.from_numpy(np.flatnonzero(session == s))
            n_units = self.sessions[s].n_units
            counts[rows, :, :n_units] = torch.from_numpy(self.sessions[s].read(window[session == s]))
            regions[rows, :n_units] = self._regions[s]
        return counts, regions


def _check_sessions(sessions: tuple[BinnedSession | WindowedRecording, ...]) -> None:
    if not sessions:
        raise ValueError("SpikeWindows: there are no sessions")
    names = [s.session for s in sessions]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"SpikeWindows: sessions must have distinct names, got {twice} more than once")
    shapes = {s.session: (s.n_bins, s.bin_size) for s in sessions}
    first = shapes[names[0]]
    different = {
        name: shape
        for name, shape in shapes.items()
        if shape[0] != first[0] or abs(shape[1] - first[1]) > 1e-9
    }
    if different:
        raise ValueError(
            f"SpikeWindows: all sessions must have the (n_bins, bin_size) of {names[0]!r}, {first}, "
            f"got {different}; rebin them or take windows of one length"
        )


def _series_of(sessions: tuple[BinnedSession | WindowedRecording, ...], name: str) -> list[TimeSeries]:
    found = []
    for s in sessions:
        known = s.recording.series if isinstance(s, WindowedRecording) else {}
        if name not in known:
            raise ValueError(
                f"SpikeWindows: session {s.session!r} has no series {name!r}; it has {sorted(known)}, and "
                "counts that are binned already have none"
            )
        found.append(known[name])
    widths = {one.values.shape[1:] for one in found}
    if len(widths) > 1:
        raise ValueError(f"SpikeWindows: series {name!r} must have the same columns everywhere, got {widths}")
    return found


def _label_columns(sessions: tuple[BinnedSession | WindowedRecording, ...], name: str) -> torch.Tensor:
    columns = []
    for s in sessions:
        if s.trials is None or name not in s.trials:
            known = [] if s.trials is None else list(s.trials.columns)
            raise ValueError(
                f"SpikeWindows: session {s.session!r} has no label {name!r}; its columns are {known}"
            )
        values = s.trials[name].to_numpy()
        if values.dtype.kind not in "biuf":
            raise ValueError(
                f"SpikeWindows: label {name!r} of session {s.session!r} must be numeric, got {values.dtype}"
            )
        columns.append(values)
    together = np.concatenate(columns)
    return torch.from_numpy(together.astype(np.float32 if together.dtype.kind == "f" else np.int64))
