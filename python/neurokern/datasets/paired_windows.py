"""Windows of one stream with what others recorded at the same time: EEG and fMRI, brain and video."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from neurokern._check import check_memory, check_positive
from neurokern.datasets.clock import Clock
from neurokern.datasets.series import TimeSeries
from neurokern.datasets.wrapped_windows import WrappedWindows

__all__ = ["PairedWindows", "SampledSeries"]

_SAME = ("subject", "session", "task", "run")
_TOLERANCE = 1e-6  # of a sample


@dataclass(frozen=True, eq=False)
class SampledSeries:
    """Series beside the recordings, read at a rate: behavior, or features of video frames by time.

    Parameters
    ----------
    series : sequence of TimeSeries or None
        One for each recording of the windows that they are paired with (``windows.runs``), None where there
        is none.
    rate : float, hertz
        At which they are read, by linear interpolation.
    """

    series: Sequence[TimeSeries | None]
    rate: float

    def __post_init__(self) -> None:
        check_positive("SampledSeries", "rate", self.rate)
        widths = {one.values.shape[1:] for one in self.series if one is not None}
        if len(widths) != 1:
            raise ValueError(f"SampledSeries: series must have the same columns, got {sorted(widths)}")


class _Stream(Protocol):
    def counterpart(self, i: int, run: Any) -> int | None:
        """Return the stream's recording that belongs to recording ``i`` of the reference."""

    def rate(self, recording: int) -> float:
        """Return samples per second."""

    def n_samples(self, recording: int) -> int:
        """Return the samples of a recording."""

    def shape(self, recording: int) -> tuple[int, ...]:
        """Return the shape of a sample."""

    def read(self, recording: int, start: int, stop: int, out: torch.Tensor) -> torch.Tensor:
        """Write samples to ``out``, and return which of them are valid."""


class PairedWindows(WrappedWindows):
    """Windows of one stream, each with what other streams recorded at the same time.

    A recording's counterpart has the same subject, session, task and run (where both have names for them). A
    stream is read at its own rate: the sample nearest to where it is to begin, and how far off that is stands
    in ``NAME_lag``; nothing is resampled unasked. To splits by time a window is all that ``within`` takes.

    Parameters
    ----------
    windows : FMRIWindows or MEEGWindows
        The reference, whose windows these are.
    streams : mapping of str to FMRIWindows, MEEGWindows or SampledSeries
        What to read beside them, under names of your choice. Of windows only the recordings and the extractor
        count.
    within : mapping of str to (float, float), seconds, optional
        What to take of a stream, from the start of the reference's window: ``{"eeg": (-16.0, 0.0)}`` is the
        16 s before it. Default: as long as the window.
    clocks : mapping of str to Clock, optional
        How the clock of a stream runs beside that of the reference; default: they are the same.
    pad : bool, default False
        Keep windows of which a stream has a part only, or nothing; ``NAME_valid`` is False there, and the
        signal 0. By default they are left out.

    Attributes
    ----------
    offsets : int64 array of shape (n_runs + 1,)
        First window of each recording, and their number.

    Raises
    ------
    ValueError
        If names clash, a recording has several counterparts, or nothing can be paired.

    Warns
    -----
    UserWarning
        If windows are left out.

    Examples
    --------
    >>> bold = BIDSDataset("ds", task="rest").with_extractor(parcels, length=1)  # doctest: +SKIP
    >>> extractor = MEEGExtractor(resample=200)  # doctest: +SKIP
    >>> eeg = BIDSDataset("ds", "eeg", task="rest").with_extractor(extractor)  # doctest: +SKIP
    >>> pairs = PairedWindows(bold, {"eeg": eeg}, within={"eeg": (-16.0, 0.0)})  # doctest: +SKIP
    >>> pairs[0]["eeg_signal"].shape  # doctest: +SKIP
    torch.Size([3200, 64])
    """

    def __init__(
        self,
        windows: Any,
        streams: Mapping[str, Any],
        *,
        within: Mapping[str, tuple[float, float]] | None = None,
        clocks: Mapping[str, Clock] | None = None,
        pad: bool = False,
    ) -> None:
        within, clocks = dict(within or {}), dict(clocks or {})
        for what, given in (("within", within), ("clocks", clocks)):
            if unknown := sorted(set(given) - set(streams)):
                raise ValueError(f"PairedWindows: {what} names {', '.join(unknown)}, which are no streams")
        if not streams:
            raise ValueError("PairedWindows: streams must hold at least one")
        for name, (low, high) in within.items():
            if not (np.isfinite([low, high]).all() and low < high):
                raise ValueError(
                    f"PairedWindows: within[{name!r}] must be (from, to) in seconds, got {low, high}"
                )
        self.streams = {name: _as_stream(name, stream, windows) for name, stream in streams.items()}
        self._within, self._clocks = within, {name: clocks.get(name, Clock()) for name in streams}
        self._partner = {name: self._counterparts(name, windows.runs) for name in streams}
        super().__init__(self._paired(windows, pad))

    @property
    def extractors(self) -> list[Any]:
        """The extractors of the reference and of the streams."""
        streams = [stream.extractor for stream in self.streams.values() if isinstance(stream, _RunStream)]
        return [*super().extractors, *streams]

    def reach(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return as ``spans`` does from when to when all is that a window holds, of the streams, too."""
        recording, begin, end = super().reach()
        start = self.spans()[1]
        for low, high in self._within.values():
            begin, end = np.minimum(begin, start + low), np.maximum(end, start + high)
        return recording, begin, end

    def _counterparts(self, name: str, runs: Sequence[Any]) -> list[int | None]:
        found = [self.streams[name].counterpart(i, run) for i, run in enumerate(runs)]
        if all(one is None for one in found):
            raise ValueError(
                f"PairedWindows: no recording has a counterpart in {name!r}, with the same subject, "
                "session, task and run"
            )
        return found

    def _paired(self, windows: Any, pad: bool) -> Any:
        """Return the windows that are kept."""
        if pad:
            return windows
        keep = np.ones(len(windows), dtype=bool)
        recording, begin, end = windows.spans()
        for name in self.streams:
            for i in np.unique(recording).tolist():
                own = recording == i
                partner = self._partner[name][i]
                if partner is None:
                    keep[own] = False
                    continue
                start, stop, _ = self._samples(name, partner, begin[own], end[own])
                keep[own] &= (start >= 0) & (stop <= self.streams[name].n_samples(partner))
        if not keep.any():
            raise ValueError(
                f"PairedWindows: of {len(keep)} windows none lies within all of {', '.join(self.streams)}; "
                "see within, clocks and pad"
            )
        if not keep.all():
            warnings.warn(
                f"PairedWindows: left out {int((~keep).sum())} windows that {', '.join(self.streams)} have "
                "no or not all samples of",
                stacklevel=4,
            )
        return windows.select(np.flatnonzero(keep))

    def _samples(
        self, name: str, partner: int, begin: NDArray[np.float64], end: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return first sample, the one after the last, and the lag in seconds, for each window."""
        rate, clock = self.streams[name].rate(partner), self._clocks[name]
        low, high = self._within.get(name, (0.0, None))
        asked = clock(begin + low) * rate
        start = np.floor(asked + 0.5).astype(np.int64)
        seconds = (end - begin) if high is None else np.full(len(begin), high - low)
        length = np.maximum(np.floor(seconds * clock.rate * rate + 0.5 - _TOLERANCE), 1).astype(np.int64)
        return start, start + length, (start - asked) / rate

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Return a window.

        Returns
        -------
        item : dict
            What the reference gives, and of each stream ``NAME_signal`` (samples, features), ``NAME_valid``
            (samples,) bool, and ``NAME_lag``, by how many seconds its first sample is late.
        """
        return super().__getitem__(i)

    def _beside(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return what the streams recorded; those of different lengths are padded at their end."""
        found: dict[str, Any] = {}
        recording, begin, end = (values[np.asarray(indices)] for values in self.spans())
        for name in self.streams:
            fields = self._read(name, recording, begin, end)
            names = (f"{name}_{field}" for field in ("signal", "valid", "lag"))
            found |= dict(zip(names, fields, strict=True))
        return found

    def _read(
        self,
        name: str,
        recording: NDArray[np.int64],
        begin: NDArray[np.float64],
        end: NDArray[np.float64],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        stream, partners = self.streams[name], self._partner[name]
        known = [(partner if partner is not None else -1) for partner in partners]
        which = np.array(known, dtype=np.int64)[recording]
        shapes = {stream.shape(i) for i in set(which.tolist()) - {-1}} or {stream.shape(max(known))}
        if len(shapes) > 1:
            raise ValueError(
                f"PairedWindows: {name!r} must have the same features in a batch, got {sorted(shapes)}; "
                "choose channels by name, or batches of one recording"
            )
        start, stop = np.zeros(len(which), np.int64), np.zeros(len(which), np.int64)
        lag = np.full(len(which), np.nan)
        for i in set(which.tolist()) - {-1}:
            own = which == i
            start[own], stop[own], lag[own] = self._samples(name, i, begin[own], end[own])
        shape = (len(which), int((stop - start).max()), *shapes.pop())
        check_memory("PairedWindows", "a batch", 4 * int(np.prod(shape)), "take fewer or shorter windows")
        signal, valid = torch.zeros(shape), torch.zeros(shape[:2], dtype=torch.bool)
        for row, (i, first, last) in enumerate(
            zip(which.tolist(), start.tolist(), stop.tolist(), strict=True)
        ):
            if i < 0:
                continue
            low, high = max(first, 0), min(last, stream.n_samples(i))
            if low < high:
                place = slice(low - first, high - first)
                valid[row, place] = stream.read(i, low, high, signal[row, place])
        return signal, valid, torch.from_numpy(lag)


def _as_stream(name: str, stream: Any, windows: Any) -> _Stream:
    if isinstance(stream, SampledSeries):
        if len(stream.series) != len(windows.runs):
            raise ValueError(
                f"PairedWindows: {name!r} must have a series for each of {len(windows.runs)} recordings, got "
                f"{len(stream.series)}"
            )
        return _SeriesStream(stream)
    if hasattr(stream, "runs") and hasattr(stream, "extractor"):
        return _RunStream(name, stream, len(windows.runs))
    raise TypeError(
        f"PairedWindows: streams[{name!r}] must be FMRIWindows, MEEGWindows or SampledSeries, got "
        f"{type(stream).__name__}"
    )


class _SeriesStream:
    def __init__(self, stream: SampledSeries) -> None:
        self._stream = stream

    def counterpart(self, i: int, run: Any) -> int | None:
        return None if self._stream.series[i] is None else i

    def rate(self, recording: int) -> float:
        return self._stream.rate

    def n_samples(self, recording: int) -> int:
        times = self._series(recording).times
        return int(np.floor(times[-1] * self._stream.rate + _TOLERANCE)) + 1 if len(times) else 0

    def shape(self, recording: int) -> tuple[int, ...]:
        return self._series(recording).values.shape[1:] or (1,)

    def read(self, recording: int, start: int, stop: int, out: torch.Tensor) -> torch.Tensor:
        series = self._series(recording)
        seconds = np.arange(start, stop) / self._stream.rate
        # Rounding must not take a sample at the very end of a series to beyond it.
        slack = _TOLERANCE / self._stream.rate
        last = series.times[-1]
        values, valid = series.at(np.where(np.abs(seconds - last) <= slack, last, seconds))
        out.numpy()[...] = np.nan_to_num(values.reshape(out.shape))
        return torch.from_numpy(valid)

    def _series(self, recording: int) -> TimeSeries:
        series = self._stream.series[recording]
        assert series is not None
        return series


class _RunStream:
    """Recordings of images or M/EEG, read through their extractor."""

    def __init__(self, name: str, windows: Any, n_others: int) -> None:
        self._runs, self.extractor = windows.runs, windows.extractor
        self._of_images = hasattr(windows.extractor, "n_volumes")
        self._name = name
        named = any(run.entities for run in self._runs)
        if not named and len(self._runs) != n_others:
            raise ValueError(
                f"PairedWindows: recordings without names are paired one by one, got {n_others} and "
                f"{len(self._runs)} in {name!r}"
            )
        self._named = named
        self._kept: dict[int, torch.Tensor] = {}  # of each recording of images, once looked at

    def counterpart(self, i: int, run: Any) -> int | None:
        if not self._named or not run.entities:
            return i if i < len(self._runs) else None
        found = [k for k, other in enumerate(self._runs) if _is_same(run.entities, other.entities)]
        if len(found) > 1:
            raise ValueError(
                f"PairedWindows: {run.path} has {len(found)} counterparts in {self._name!r}, such as "
                f"{self._runs[found[0]].path} and {self._runs[found[1]].path}; choose by more entities"
            )
        return found[0] if found else None

    def rate(self, recording: int) -> float:
        run = self._runs[recording]
        return 1 / run.repetition_time if self._of_images else float(self.extractor.sfreq(run))

    def n_samples(self, recording: int) -> int:
        run = self._runs[recording]
        return int(self.extractor.n_volumes(run) if self._of_images else self.extractor.n_samples(run))

    def shape(self, recording: int) -> tuple[int, ...]:
        run = self._runs[recording]
        if self._of_images:
            return tuple(self.extractor.feature_shape(run))
        return (len(self.extractor.channels(run)),)

    def read(self, recording: int, start: int, stop: int, out: torch.Tensor) -> torch.Tensor:
        run = self._runs[recording]
        if out.dtype == self.extractor.dtype:
            self.extractor.extract(run, start, stop, out)
        else:
            out[...] = self.extractor.extract(run, start, stop)
        if self._of_images:
            if recording not in self._kept:
                self._kept[recording] = torch.from_numpy(self.extractor.kept(run))
            return self._kept[recording][start:stop]
        return torch.ones(stop - start, dtype=torch.bool)


def _is_same(entities: Mapping[str, str], other: Mapping[str, str]) -> bool:
    shared = [name for name in _SAME if name in entities and name in other]
    return bool(shared) and all(entities[name] == other[name] for name in shared)
