"""Find recordings on disk and make binned sessions of them, saying what was chosen and assumed."""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import math
import pathlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import pandas as pd

from neurokern._check import check_positive
from neurokern.datasets import (
    BinnedSession,
    SpikeRecording,
    Splits,
    bin_windows,
    load_recording,
    select_good_units,
    sliding_windows,
    split_session,
    trial_windows,
    with_region_groups,
)
from neurokern.datasets.packed_session import read_session, session_entry, source_key

if TYPE_CHECKING:
    from neurokern.ops._array_cache import CacheEntry

__all__ = [
    "LoadedSession",
    "SplitSettings",
    "WindowSettings",
    "check_parts",
    "find_sources",
    "from_recording",
    "keep_apart",
    "load_session",
    "load_sessions",
    "make_session",
    "naming",
    "prepared_entry",
    "sample_path",
    "split_for_training",
]

T = TypeVar("T")

_ALIGN_COLUMNS = (
    "stimOn_times",
    "goCue_times",
    "go_cue_times",
    "visual_stimulus_time",
    "start_time",
    "onset",
)
_LEAST_TRIALS = 20
_SHORT_RECORDING = 600.0  # seconds; below, windows overlap so that training sees more of them
_LEAST_UNITS = 5
_LEAST_WINDOWS = 20


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """How spike times become windows of counts; files that are binned already only use ``bin_size``.

    Attributes
    ----------
    bin_size : float, seconds
    align : str
        Column of the trials with the event's time; "auto" looks for a usual one, "none" takes sliding
        windows.
    tmin, tmax : float, seconds
        Window around the event.
    length, stride : float, seconds
        Sliding windows, where there are no trials. Without a stride: a quarter of the length for recordings
        below ten minutes, else the length. Validation and test windows are thinned until none overlap.
    groups : int
        Depth-ordered groups of units that stand in for regions where the data name none.
    min_rate, max_isi_violations, min_presence, unit_labels
        Units to keep, as in :func:`neurokern.datasets.select_good_units` (``unit_labels`` are its
        ``labels``); all without.
    """

    bin_size: float = 0.02
    align: str = "auto"
    tmin: float = -0.5
    tmax: float = 1.5
    length: float = 1.0
    stride: float | None = None
    groups: int = 6
    min_rate: float | None = None
    max_isi_violations: float | None = None
    min_presence: float | None = None
    unit_labels: tuple[str, ...] | None = None

    @property
    def quality(self) -> dict[str, Any]:
        """The conditions that units must meet, by the names of ``select_good_units``."""
        given = {
            "min_rate": self.min_rate,
            "max_isi_violations": self.max_isi_violations,
            "min_presence": self.min_presence,
            "labels": self.unit_labels,
        }
        return {name: value for name, value in given.items() if value is not None}

    def __post_init__(self) -> None:
        for name in ("bin_size", "length", "stride", "groups"):
            if getattr(self, name) is not None:
                check_positive("windows", name, getattr(self, name))
        if not (math.isfinite(self.tmin) and math.isfinite(self.tmax) and self.tmin < self.tmax):
            raise ValueError(f"windows: tmin must lie below tmax, got {self.tmin:g} and {self.tmax:g}")


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """Fractions of the windows held out, as in :func:`neurokern.datasets.split_session`."""

    test: float = 0.2
    validation: float = 0.1
    by: Literal["time", "random"] = "time"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class LoadedSession:
    """A binned session with how it came about.

    Attributes
    ----------
    session : BinnedSession
    spikes : SpikeRecording, callable that loads it, or None
        The spike times; None for files that were binned already.
    how : str
        The windows in words.
    stand_in : bool
        Whether depth-ordered groups of units stand in for regions.
    notes : tuple of str
        What loading, windowing and grouping dropped, repaired or assumed.
    """

    session: BinnedSession
    spikes: SpikeRecording | Callable[[], SpikeRecording] | None
    how: str
    stand_in: bool
    notes: tuple[str, ...]

    @functools.cached_property
    def recording(self) -> SpikeRecording | None:
        """The spike times; of a prepared session they are loaded now."""
        return self.spikes() if callable(self.spikes) else self.spikes


def find_sources(paths: Iterable[str]) -> list[pathlib.Path]:
    """Return the recordings that files and folders name: ``.npz`` and ``.nwb`` files, folders of ALF or
    Kilosort, or folders of these.

    A folder is one recording if spikes lie in it, in its ``alf``, or in its folders named like a probe; else
    each folder in it is looked at in the same way.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or a folder holds no recording.
    """
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"no such file or folder: {path}")
        inside = _recordings_in(path) if path.is_dir() else [path]
        if not inside:
            raise FileNotFoundError(
                f"{path} holds no recording: expected spikes.times.npy and spikes.clusters.npy, "
                "spike_times.npy of Kilosort, or .npz or .nwb files"
            )
        found += inside
    return found


def _recordings_in(folder: pathlib.Path) -> list[pathlib.Path]:
    if (folder / "spike_times.npy").is_file():
        return [folder]
    spikes = [file.relative_to(folder).parts[:-1] for file in folder.glob("**/spikes.times*.npy")]
    if spikes and all(not parts or parts[0] == "alf" or parts[0].startswith("probe") for parts in spikes):
        return [folder]
    below = [found for entry in sorted(folder.iterdir()) if entry.is_dir() for found in _recordings_in(entry)]
    return [*sorted([*folder.glob("*.npz"), *folder.glob("*.nwb")]), *below]


def load_session(path: pathlib.Path, settings: WindowSettings) -> LoadedSession:
    """Return one recording, binned as the settings say: from the cache if it was prepared, or loaded.

    Raises
    ------
    ValueError
        If it is too short or has too few units for a model; the message says what is needed.
    """
    prepared = read_session(source_key(path, settings))
    if prepared is None:
        return make_session(path, settings)
    session, facts = prepared
    return LoadedSession(
        session=session,
        spikes=(lambda: _load_spikes(path, settings)[0]) if facts["has_spikes"] else None,
        how=facts["how"],
        stand_in=facts["stand_in"],
        notes=tuple(facts["notes"]),
    )


def prepared_entry(path: pathlib.Path, settings: WindowSettings) -> CacheEntry:
    """Load one recording, and return the file of the cache that :func:`load_session` then finds."""
    key = source_key(path, settings)
    loaded = make_session(path, settings)
    facts = {
        "has_spikes": loaded.spikes is not None,
        "how": loaded.how,
        "stand_in": loaded.stand_in,
        "notes": loaded.notes,
    }
    return session_entry(key, loaded.session, facts)


def make_session(path: pathlib.Path, settings: WindowSettings) -> LoadedSession:
    """Load one recording and bin it as the settings say; errors as for :func:`load_session`."""
    with naming(path.name):
        recording = load_recording(path)
        if isinstance(recording, BinnedSession):
            if settings.quality:
                raise ValueError(
                    f"is binned already; windows.{next(iter(settings.quality))} needs spike times"
                )
            loaded = _with_column_groups(_from_counts(recording, settings), settings.groups)
        else:
            loaded = from_recording(recording, settings)
        return _check_size(loaded, path)


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Let a ValueError say which of many recordings it is about, where it does not yet."""
    try:
        yield
    except ValueError as error:
        if re.search(rf"(?<!\w){re.escape(pathlib.Path(name).stem)}(?!\w)", str(error)):
            raise
        raise ValueError(f"{name}: {error}") from error


def _load_spikes(path: pathlib.Path, settings: WindowSettings) -> tuple[SpikeRecording, bool]:
    recording = load_recording(path)
    if isinstance(recording, BinnedSession):
        raise ValueError(f"{path.name}: was changed since it was prepared; start again")
    return _chosen_units(recording, settings)


def _chosen_units(recording: SpikeRecording, settings: WindowSettings) -> tuple[SpikeRecording, bool]:
    """Return the recording with good units in regions, and whether groups stand in for these."""
    if settings.quality:
        recording = select_good_units(recording, **settings.quality)
    stand_in = not _has_regions(recording.regions)
    if stand_in:
        recording = with_region_groups(recording, min(settings.groups, recording.n_units))
    return recording, stand_in


def load_sessions(paths: Sequence[str], settings: WindowSettings) -> list[LoadedSession]:
    """Load all recordings that the paths name; two with one session name are an error."""
    loaded: dict[str, LoadedSession] = {}
    for source in find_sources(paths):
        one = load_session(source, settings)
        if one.session.session in loaded:
            raise ValueError(
                f"two recordings are named {one.session.session!r}, the second in {source}; rename one of "
                "them"
            )
        loaded[one.session.session] = one
    return list(loaded.values())


def from_recording(recording: SpikeRecording, settings: WindowSettings) -> LoadedSession:
    """Window and bin a recording: around trials where it has them, else sliding."""
    recording, stand_in = _chosen_units(recording, settings)
    align = _choose_align(recording.trials, settings.align)
    trials: pd.DataFrame | None
    if align is None:
        overlap = 4 if recording.duration < _SHORT_RECORDING else 1
        stride = settings.length / overlap if settings.stride is None else settings.stride
        try:
            windows: np.ndarray = sliding_windows(recording, settings.length, stride)
        except ValueError as error:
            raise ValueError(f"{error}; set windows.length or windows.stride") from None
        trials = None
        said: list[str] = []
        how = f"sliding windows of {settings.length:g} s every {stride:g} s"
    else:
        (windows, trials), said = _collect_warnings(
            lambda: trial_windows(recording, align, settings.tmin, settings.tmax)
        )
        how = f"trials, {settings.tmin:g} to {settings.tmax:g} s around {align}"
    session = bin_windows(recording, windows, settings.bin_size, trials=trials)
    notes = (*recording.notes, *said)
    return LoadedSession(session=session, spikes=recording, how=how, stand_in=stand_in, notes=notes)


def _choose_align(trials: pd.DataFrame | None, align: str) -> str | None:
    """Return the column to align to, or None for sliding windows."""
    if align == "none" or (align == "auto" and trials is None):
        return None
    if align != "auto":
        return align
    assert trials is not None  # for the type checker; the first line has returned
    for name in _ALIGN_COLUMNS:
        if (
            name in trials
            and np.isfinite(pd.to_numeric(trials[name], errors="coerce")).sum() >= _LEAST_TRIALS
        ):
            return name
    return None


def _from_counts(session: BinnedSession, settings: WindowSettings) -> LoadedSession:
    factor = round(settings.bin_size / session.bin_size)
    if factor < 1 or abs(factor * session.bin_size - settings.bin_size) > 1e-6:
        raise ValueError(
            f"{session.session}: binned at {session.bin_size:g} s, so windows.bin_size must be a multiple of "
            f"that, got {settings.bin_size:g}"
        )
    if session.n_bins % factor:
        raise ValueError(
            f"{session.session}: {session.n_bins} bins of {session.bin_size:g} s make no whole number of "
            f"{settings.bin_size:g} s; set windows.bin_size to {session.bin_size:g} times a divisor of "
            f"{session.n_bins}"
        )
    session = session.rebin(factor) if factor > 1 else session
    how = f"windows as binned in the file, {session.n_bins * session.bin_size:g} s"
    return LoadedSession(session=session, spikes=None, how=how, stand_in=False, notes=session.notes)


def _has_regions(regions: np.ndarray) -> bool:
    return len(set(regions.tolist()) - {""}) >= 2


def _with_column_groups(loaded: LoadedSession, n_groups: int) -> LoadedSession:
    """Let groups of neighboring columns stand in for regions where a file of counts names fewer than two."""
    session = loaded.session
    if _has_regions(session.regions):
        return loaded
    n_groups = min(n_groups, session.n_units)
    groups = [f"group {unit * n_groups // session.n_units + 1}" for unit in range(session.n_units)]
    note = f"regions are {n_groups} groups of units in the order of the file; they stand in for brain regions"
    session = replace(session, regions=np.asarray(groups))
    return replace(loaded, session=session, stand_in=True, notes=(*loaded.notes, note))


def _check_size(loaded: LoadedSession, path: pathlib.Path) -> LoadedSession:
    session = loaded.session
    if session.n_units < _LEAST_UNITS:
        raise ValueError(
            f"{path.name}: has {session.n_units} units; at least {_LEAST_UNITS} are needed: leave it out"
        )
    if session.n_windows < _LEAST_WINDOWS:
        raise ValueError(
            f"{path.name}: gives {session.n_windows} windows ({loaded.how}); at least {_LEAST_WINDOWS} are "
            "needed. "
            "Give a longer recording, or set shorter windows: windows.length and windows.stride"
        )
    return loaded


def split_for_training(session: BinnedSession, settings: SplitSettings) -> Splits[BinnedSession]:
    """Split a session; of overlapping validation and test windows keep those that share no spike."""
    splits = split_session(
        session, test=settings.test, validation=settings.validation, by=settings.by, seed=settings.seed
    )
    return replace(splits, validation=keep_apart(splits.validation), test=keep_apart(splits.test))


def check_parts(parts: Splits[BinnedSession]) -> None:
    """Raise ValueError unless there are windows to tune baselines on and windows to score."""
    for name, part in (("validation", parts.validation), ("test", parts.test)):
        if not len(part):
            raise ValueError(f"split.{name} must leave windows to score by, got 0; --set split.{name}=0.1")


def keep_apart(session: BinnedSession) -> BinnedSession:
    """Return the windows that are left when each must start after the one before has ended."""
    if session.windows is None:
        return session
    kept, free_from = [], -np.inf
    for index in np.argsort(session.windows[:, 0], kind="stable"):
        start, stop = session.windows[index]
        if start >= free_from - 1e-6:
            kept.append(index)
            free_from = stop
    return session.select(np.sort(kept))


def _collect_warnings(function: Callable[[], T]) -> tuple[T, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function()
    return result, [str(warning.message) for warning in caught]


def sample_path() -> pathlib.Path:
    """Return the file of the recording that ships with the package."""
    return pathlib.Path(str(importlib.resources.files("neurokern.samples"))) / "ibl_120s.npz"
