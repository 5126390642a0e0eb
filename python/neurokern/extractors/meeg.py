"""Signals of EEG, MEG and intracranial recordings: chosen channels, filtered, kept in the cache, mapped."""

from __future__ import annotations

import ctypes
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurokern._check import check_choice, check_flag, check_memory, check_positive
from neurokern.datasets.channels import Channels
from neurokern.extractors import _meeg_files as files
from neurokern.extractors._meeg_facts import Facts, kept_facts
from neurokern.ops._array_cache import ArraySpec, CachedArrays, CacheEntry
from neurokern.ops._gzip_cache import cache_folder
from neurokern.ops._stored_run import StoredRun

if TYPE_CHECKING:
    import pandas as pd

    from neurokern.datasets.bids_run import MEEGRun

_FORMAT = "1"
_BLOCK = 1 << 22  # values that are read at a time where nothing is filtered
_RUNS_OPEN = 256
_HELD = 2 << 30  # bytes of recordings in memory, where the cache is not used


@dataclass
class _Signals:
    """Signals that are mapped from the cache or held in memory, (samples, channels)."""

    values: NDArray[np.float32]
    cached: CachedArrays | None
    stored: StoredRun = field(init=False)

    def __post_init__(self) -> None:
        files = [] if self.cached is None else [self.cached.file]
        place, owner = self.values.ctypes.data, self.values
        self.stored = StoredRun.at_address(place, self.values.shape, "float32", owner=owner, files=files)


class MEEGExtractor:
    """Signals of channels, ``(samples, channels)``, float32 in SI units: volts, tesla, tesla per meter.

    Steps run in this order, through MNE, once for a recording; what comes out is kept in the cache and
    mapped: bad channels, notch, band-pass, reference, resampling.

    Parameters
    ----------
    picks : str or sequence of str, default "data"
        "data" (EEG, MEG, sEEG, ECoG, DBS), "all", types of channels by MNE's names (``"eeg"``, ``"mag"``,
        ``"grad"``, ``"meg"``, ``"eog"``, ...), or names, which give their order to the columns.
    resample : float, optional
        Rate in Hz that all recordings are brought to.
    l_freq, h_freq : float, optional
        Lower and upper edge of the pass band in Hz, as those of :meth:`mne.io.Raw.filter`.
    notch : float or sequence of float, optional
        Frequencies of the mains in Hz.
    reference : "average", or sequence of str, optional
        New reference of the EEG or intracranial channels; of names, also channels that are not picked.
    bads : {"drop", "keep", "interpolate"}, default "drop"
        What becomes of channels marked bad in the file or its ``_channels.tsv``. Kept ones are True in a
        batch's ``channel_bad``.
    montage : str, optional
        Standard positions by name (:func:`mne.channels.make_standard_montage`) for EEG channels, where
        neither the file nor an ``_electrodes.tsv`` has any.
    rename : bool, default True
        Write names of EEG channels as the 10-05 system does: ``"Fc5."`` becomes ``"FC5"``
        (:func:`~neurokern.datasets.channel_name`).
    regions : str, optional
        Column of ``_channels.tsv`` or ``_electrodes.tsv`` with the region of each channel.
    stim_channel : str, optional
        Trigger channel whose onsets are the events, named by their values (``"5"``), of recordings without a
        table of events: ``"STI 014"``, ``"Status"``; "auto" for the file's usual one. Its samples are read
        when the recording is opened. Without it the annotations in the file are its events.
    cache : {"auto", True, False}, default "auto"
        Keep prepared signals in the cache folder (``NEUROKERN_CACHE``, else ``~/.cache/neurokern``) and map
        them; and what headers tell, so that files are opened once. "auto": in memory where the folder cannot
        be written, or is full. False: always in memory.

    Raises
    ------
    ImportError
        If MNE is not installed, when a recording is first opened.

    Notes
    -----
    Filtering looks at the whole recording, both ways in time: for prediction, split by recording. A file that
    was written again, other options or another version of MNE give another entry of the cache.
    """

    dtype = torch.float32

    def __init__(
        self,
        picks: str | Sequence[str] = "data",
        *,
        resample: float | None = None,
        l_freq: float | None = None,
        h_freq: float | None = None,
        notch: float | Sequence[float] | None = None,
        reference: str | Sequence[str] | None = None,
        bads: str = "drop",
        montage: str | None = None,
        rename: bool = True,
        regions: str | None = None,
        stim_channel: str | None = None,
        cache: bool | str = "auto",
    ) -> None:
        if cache not in (True, False, "auto"):
            raise ValueError(f"MEEGExtractor: cache must be True, False or 'auto', got {cache!r}")
        if isinstance(reference, str) and reference != "average":
            raise ValueError(
                f"MEEGExtractor: reference must be 'average' or a list of channels' names, got {reference!r}"
            )
        self.picks = picks if isinstance(picks, str) else tuple(picks)
        self.resample = _hertz("resample", resample)
        self.l_freq, self.h_freq = _hertz("l_freq", l_freq), _hertz("h_freq", h_freq)
        if self.l_freq is not None and self.h_freq is not None and self.l_freq >= self.h_freq:
            raise ValueError(
                f"MEEGExtractor: l_freq must lie below h_freq, got {self.l_freq:g} and {self.h_freq:g}"
            )
        lines = () if notch is None else notch if isinstance(notch, Sequence) else (notch,)
        self.notch = tuple(check_positive("MEEGExtractor", "notch", line) for line in lines)
        self.reference = reference if reference is None or isinstance(reference, str) else tuple(reference)
        self.bads = check_choice("MEEGExtractor", "bads", bads, ("drop", "keep", "interpolate"))
        self.rename = check_flag("MEEGExtractor", "rename", rename)
        self.montage, self.regions, self.cache = montage, regions, cache
        self.stim_channel = stim_channel
        self._facts: dict[str, Facts] = {}  # by the key of the recording, as signals
        self._signals: OrderedDict[str, _Signals] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Leave mapped signals behind; a worker maps its own."""
        return self.__dict__ | {"_signals": OrderedDict()}

    def channels(self, run: MEEGRun) -> Channels:
        """Return the channels that are taken of a recording."""
        return self._facts_of(run).channels

    def sfreq(self, run: MEEGRun) -> float:
        """Return the samples per second that come out."""
        return self._facts_of(run).sfreq

    def n_samples(self, run: MEEGRun) -> int:
        """Return the samples that come out, from the header."""
        return self._facts_of(run).n_samples

    def events(self, run: MEEGRun) -> pd.DataFrame:
        """Return the events of its table, or the annotations in the file: seconds from the first sample."""
        return self._facts_of(run).events if run.events is None else run.events

    def prepare(self, run: MEEGRun) -> None:
        """Fill the cache with all that windows of this recording need."""
        self._signals_of(run)

    def cache_entries(self, run: MEEGRun) -> list[CacheEntry]:
        """Return the files of the cache that windows of this recording are read from, made or not."""
        entry = self._entry(run, self._facts_of(run))
        return [] if entry is None else [entry]

    def extract(self, run: MEEGRun, start: int, stop: int, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return samples ``start`` ... ``stop - 1``, time first; in ``out`` if given."""
        values = self.values(run)
        if not 0 <= start <= stop <= len(values):
            raise ValueError(f"extract: start and stop must lie in 0 ... {len(values)}, got {start}, {stop}")
        if out is None:
            out = torch.empty((stop - start, values.shape[1]), dtype=torch.float32)
        out.numpy()[...] = values[start:stop]
        self.check_unchanged(run)
        return out

    def values(self, run: MEEGRun) -> NDArray[np.float32]:
        """Return all signals, (samples, channels), read-only: mapped, valid while this object lives.

        Whoever reads from them calls :meth:`check_unchanged` afterwards.
        """
        return self._signals_of(run).values

    def stored(self, run: MEEGRun) -> StoredRun:
        """Return all signals as :func:`~neurokern.ops.gather_windows` takes them."""
        return self._signals_of(run).stored

    def check_unchanged(self, run: MEEGRun) -> None:
        """Raise if the mapped file was cut or written over while it was read."""
        signals = self._signals.get(run.key)
        if signals is not None and signals.cached is not None and not signals.cached.is_unchanged():
            del self._signals[run.key]
            raise RuntimeError(f"{signals.cached.path} was changed while it was read; try again")

    def _facts_of(self, run: MEEGRun) -> Facts:
        """Return what is known of a recording; a file that was written again is looked at again."""
        facts = self._facts.get(run.key)
        if facts is None or not facts.is_current():
            self._signals.pop(run.key, None)
            if run.data is not None or self.cache is False:
                facts = self._look(run)
            else:
                facts = kept_facts(run, self._options(), lambda: self._look(run))
                files.check_rate(run, *facts.own)
            self._facts[run.key] = facts
        return facts

    def _options(self) -> tuple[Any, ...]:
        """Return what decides on channels, rates, events and the key of a recording."""
        choice = (self.picks, self.bads, self.montage, self.rename, self.regions, self.stim_channel)
        return (*choice, *self._steps_key())

    def _steps_key(self) -> tuple[Any, ...]:
        return (self.resample, self.l_freq, self.h_freq, self.notch, self.reference, self.bads)

    def _look(self, run: MEEGRun) -> Facts:
        """Read headers and tables."""
        if _is_epochs(run.data):
            return self._look_at_epochs(run)
        raw = files.open_raw(run)
        channels, rows = self._choose(run, raw)
        sfreq = float(raw.info["sfreq"])
        n_samples = int(raw.n_times)
        if n_samples < 1:
            raise ValueError(f"{run.path}: holds no samples")
        own = (sfreq, n_samples)
        if run.data is not None or self.cache is False:
            files.check_rate(run, *own)
        if self.resample is not None and self.resample != sfreq:
            n_samples, sfreq = round(n_samples * self.resample / sfreq), self.resample
        found = () if run.data is not None else files.files_of(run, raw)
        if run.events is None and self.stim_channel is not None:
            events = files.triggered_events(run, raw, self.stim_channel)
        else:
            events = files.annotated_events(raw)
        key = self._key(run, channels, rows, raw, found)
        return Facts(channels, rows, sfreq, n_samples, own, events, found, files.signature(found), key)

    def _look_at_epochs(self, run: MEEGRun) -> Facts:
        if self.filters or self.resample is not None:
            raise ValueError(
                "MEEGExtractor: epochs are too short to filter or resample; do that to the recording before"
            )
        epochs = run.data.copy()
        channels, rows = self._choose(run, epochs)
        names = {code: name for name, code in epochs.event_id.items()}
        length = len(epochs.times)
        rate = float(epochs.info["sfreq"])
        onset = np.arange(len(epochs)) * (length / rate) - epochs.times[0]
        import pandas as pd

        kinds = [names[code] for code in epochs.events[:, 2]]
        events = pd.DataFrame({"onset": onset, "duration": 0.0, "trial_type": kinds})
        n_samples = len(epochs) * length
        return Facts(channels, rows, rate, n_samples, (rate, n_samples), events, (), (), "")

    def _choose(self, run: MEEGRun, raw: Any) -> tuple[Channels, tuple[int, ...]]:
        self._add_montage(raw)
        every = files.describe_channels(run, raw, rename=self.rename, regions=self.regions)
        rows = files.pick_rows(run, every, list(raw.ch_names), self.picks)
        if self.bads == "drop":
            rows = [row for row in rows if not every.bad[row]]
        if not rows:
            raise ValueError(f"{run.path}: all chosen channels are marked bad; see bads='keep'")
        chosen = every.select(rows)
        if self.bads == "interpolate":
            chosen.bad[:] = False
        return chosen, tuple(rows)

    def _add_montage(self, raw: Any) -> None:
        if self.montage is None or raw.get_montage() is not None:
            return
        mne = files.import_mne()
        montage = mne.channels.make_standard_montage(self.montage)
        places = {name.lower(): name for name in montage.ch_names}
        kinds = zip(raw.ch_names, raw.get_channel_types(), strict=True)
        found = {n: places.get(files.channel_name(n).lower()) for n, kind in kinds if kind == "eeg"}
        # MNE matches by name: the montage gets the recording's.
        montage.rename_channels({place: name for name, place in found.items() if place is not None})
        raw.set_montage(montage, on_missing="ignore", verbose=files.QUIET)

    @property
    def filters(self) -> bool:
        """Whether signals are filtered, so that a sample depends on those around it."""
        return bool(self.notch or self.l_freq is not None or self.h_freq is not None)

    def _has_steps(self, channels: Channels) -> bool:
        return self.filters or self.reference is not None or self.bads == "interpolate"

    def _key(
        self, run: MEEGRun, channels: Channels, rows: tuple[int, ...], raw: Any, found: tuple[Path, ...]
    ) -> str:
        """Return what tells these signals from all others; it names nobody."""
        if run.data is not None:
            return ""
        options = self._steps_key()
        places = channels.positions.tobytes() if self.bads == "interpolate" else b""
        fields = (
            _FORMAT, files.import_mne().__version__, files.content_of(found), options, rows, channels.types,
            tuple(raw.get_channel_types()), tuple(raw.info["bads"]), places,
        )  # fmt: skip
        return hashlib.blake2b(repr(fields).encode(), digest_size=16).hexdigest()

    def _signals_of(self, run: MEEGRun) -> _Signals:
        signals = self._signals.get(run.key)
        if signals is None:
            facts = self._facts.get(run.key) or self._facts_of(run)
            if not facts.is_current():
                raise RuntimeError(f"{run.path} was changed since it was opened; make the windows again")
            signals = self._signals[run.key] = self._map(run, facts)
            self._forget()
        self._signals.move_to_end(run.key)
        return signals

    def _forget(self) -> None:
        """Let go of those not used for longest: mapped ones take addresses, others memory."""
        held = 0
        for key, signals in reversed(list(self._signals.items())):
            held += signals.values.nbytes if signals.cached is None else 0
            newest = next(reversed(self._signals))
            if key != newest and (held > _HELD or len(self._signals) > _RUNS_OPEN):
                del self._signals[key]

    def _map(self, run: MEEGRun, facts: Facts) -> _Signals:
        shape = (facts.n_samples, len(facts.channels))
        entry = self._entry(run, facts)
        if entry is not None:
            try:
                cached = entry.make()
                return _Signals(_view(cached, shape), cached)
            except OSError:
                if self.cache is True:
                    raise
        check_memory("MEEGExtractor", "a recording", 4 * shape[0] * shape[1], "use the cache")
        values = np.empty(shape, np.float32)
        self._fill(run, facts, values)
        values.flags.writeable = False
        return _Signals(values, None)

    def _entry(self, run: MEEGRun, facts: Facts) -> CacheEntry | None:
        shape = (facts.n_samples, len(facts.channels))
        if not facts.key or self.cache is False or 0 in shape:
            return None
        return CacheEntry(
            cache_folder() / "packed_runs" / f"{facts.key}.safetensors",
            {"values": ArraySpec("float32", shape)},
            {"format": _FORMAT, "key": facts.key},
            lambda arrays: self._fill(run, facts, arrays["values"]),
        )

    def _fill(self, run: MEEGRun, facts: Facts, values: NDArray[np.float32]) -> None:
        """Write the whole recording to its place, through MNE."""
        if _is_epochs(run.data):
            epochs = self._processed(run, run.data.copy(), facts)
            data = epochs.get_data(copy=False)[:, list(facts.rows)]
            values[...] = data.transpose(0, 2, 1).reshape(values.shape)
            return
        raw = files.open_raw(run)
        try:
            if self._has_steps(facts.channels) or facts.sfreq != raw.info["sfreq"]:
                n_bytes = 8 * raw.n_times * len(raw.ch_names)
                check_memory("MEEGExtractor", "filtering a recording", 2 * n_bytes, "take fewer channels")
                raw = self._processed(run, raw, facts)
            self._copy(run, raw, facts, values)
        finally:
            raw.close()

    def _copy(self, run: MEEGRun, raw: Any, facts: Facts, values: NDArray[np.float32]) -> None:
        if raw.n_times != len(values):
            raise ValueError(f"{run.path}: gives {raw.n_times} samples where {len(values)} were expected")
        rows = list(facts.rows)
        step = max(_BLOCK // max(len(raw.ch_names), 1), 1)
        for start in range(0, len(values), step):
            stop = min(start + step, len(values))
            try:
                block = raw[rows, start:stop][0]
            except (OSError, ValueError, IndexError, RuntimeError) as error:
                raise ValueError(
                    f"{run.path}: samples {start} to {stop} cannot be read: {error}; is the file cut short?"
                ) from error
            values[start:stop] = block.T

    def _processed(self, run: MEEGRun, raw: Any, facts: Facts) -> Any:
        """Return the recording after all steps; its channels stay in their places."""
        try:
            return self._steps(raw, facts)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{run.path}: cannot be prepared: {error}") from error

    def _steps(self, raw: Any, facts: Facts) -> Any:
        self._add_montage(raw)
        with files.import_mne().use_log_level(files.QUIET):
            raw.load_data()
        if self.bads == "interpolate" and raw.info["bads"]:
            raw.interpolate_bads(reset_bads=True, verbose=files.QUIET)
        signals = [i for i, kind in enumerate(raw.get_channel_types()) if kind != "stim"]
        if self.notch:
            raw.notch_filter(list(self.notch), picks=signals, verbose=files.QUIET)
        if self.l_freq is not None or self.h_freq is not None:
            raw.filter(self.l_freq, self.h_freq, picks=signals, verbose=files.QUIET)
        if self.reference is not None:
            names = [self.reference] if self.reference != "average" else "average"
            if names != "average":
                alike = {files.channel_name(name): name for name in raw.ch_names}
                names = [n if n in raw.ch_names else alike.get(n, n) for n in self.reference]
            raw.set_eeg_reference(names, projection=False, verbose=files.QUIET)
        if facts.sfreq != raw.info["sfreq"]:
            raw.resample(facts.sfreq, verbose=files.QUIET)
        return raw


def _is_epochs(data: Any) -> bool:
    return data is not None and hasattr(data, "event_id")


def _view(cached: CachedArrays, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return mapped values as an array that cannot be written, and that keeps them mapped."""
    memory = (ctypes.c_float * (shape[0] * shape[1])).from_address(cached.addresses["values"])
    memory.owner = cached  # type: ignore[attr-defined]
    values: NDArray[np.float32] = np.ctypeslib.as_array(memory).reshape(shape)
    values.flags.writeable = False
    return values


def _hertz(name: str, value: float | None) -> float | None:
    return None if value is None else check_positive("MEEGExtractor", name, value)
