"""Windows of M/EEG from and to the datasets of braindecode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurokern._check import check_memory
from neurokern.datasets.bids_run import MEEGRun
from neurokern.datasets.bridges._peer import import_peer, say_left_out
from neurokern.datasets.meeg_sources import as_run

if TYPE_CHECKING:
    from neurokern.datasets.bridges.described import DescribedWindows
    from neurokern.datasets.meeg_windows import MEEGWindows
    from neurokern.extractors.meeg import MEEGExtractor

__all__ = ["from_braindecode", "to_braindecode"]

_ENTITIES = ("subject", "session", "task", "run")
_TARGET, _CONDITION = "target", "condition"
_START, _STOP = "i_start_in_trial", "i_stop_in_trial"


class _Part(NamedTuple):
    """Windows of one recording, as braindecode has them."""

    run: MEEGRun
    starts: NDArray[np.int64]
    length: int
    metadata: pd.DataFrame
    names: list[str | None]


def from_braindecode(dataset: Any, extractor: MEEGExtractor | None = None) -> DescribedWindows:
    """Return the windows of a braindecode dataset: the same samples, read when they are asked for.

    Parameters
    ----------
    dataset : braindecode.datasets.BaseConcatDataset, or one dataset of it
        Of ``EEGWindowsDataset`` or ``WindowsDataset``; a ``RawDataset`` is one window.
    extractor : MEEGExtractor, optional
        Steps to take; default none, and all channels, bad ones marked. The rate must stay.

    Returns
    -------
    DescribedWindows
        A :class:`~neurokern.datasets.MEEGWindows` whose ``metadata`` has the columns of braindecode's
        metadata and description, a row per window. Its ``subject``, ``session``, ``task`` and ``run`` serve
        to split. ``condition`` codes count the targets; their names come from a column ``condition``, else
        from the mapping of the windower, else they are the targets as text. Numeric targets are in each
        batch.

    Raises
    ------
    ImportError
        If braindecode is not installed.
    TypeError, ValueError
        If it is another kind of dataset, or the windows of one recording differ in length.

    Warns
    -----
    UserWarning
        If datasets have a ``transform``: it belongs into the training loop, and is left out.

    Examples
    --------
    >>> windows = from_braindecode(create_windows_from_events(dataset))  # doctest: +SKIP
    >>> splits = split_windows(windows, by="subject")  # doctest: +SKIP
    """
    peer = import_peer("from_braindecode", "braindecode.datasets", "braindecode")
    from neurokern.datasets.bridges.described import DescribedWindows
    from neurokern.extractors.meeg import MEEGExtractor

    parts = list(dataset.datasets) if isinstance(dataset, peer.BaseConcatDataset) else [dataset]
    found = [_part(peer, part) for part in parts]
    if any(getattr(part, "transform", None) is not None for part in parts):
        say_left_out("from_braindecode", "a dataset of windows", ["transform"], "apply it to batches")
    metadata = pd.concat([part.metadata for part in found], ignore_index=True)
    conditions, codes = _conditions(metadata, [name for part in found for name in part.names])
    return DescribedWindows(
        [part.run for part in found],
        extractor or MEEGExtractor("all", bads="keep", rename=False),
        [part.starts for part in found],
        [part.length for part in found],
        conditions,
        codes,
        metadata,
    )


def _part(peer: Any, part: Any) -> _Part:
    if isinstance(part, peer.WindowsDataset):
        signals, metadata = part.windows, part.windows.metadata
        length = len(signals.times)
        starts = np.arange(len(signals), dtype=np.int64) * length
    elif isinstance(part, peer.EEGWindowsDataset):
        signals, metadata = part.raw, part.metadata
        starts = metadata[_START].to_numpy(np.int64)
        length = _one_length(metadata[_STOP].to_numpy(np.int64) - starts)
    elif isinstance(part, peer.RawDataset):
        signals, length, starts = part.raw, int(part.raw.n_times), np.zeros(1, np.int64)
        target = None if part.target_name is None else part.description[part.target_name]
        metadata = pd.DataFrame({_TARGET: [target]})
    else:
        raise TypeError(
            "from_braindecode: dataset must be a BaseConcatDataset of windows or recordings, got "
            f"{type(part).__name__}"
        )
    described = {} if part.description is None else part.description.to_dict()
    names = _names(part, metadata)
    entities = {name: str(described[name]) for name in _ENTITIES if name in described}
    new = {name: [value] * len(metadata) for name, value in described.items() if name not in metadata}
    table = pd.concat([metadata.reset_index(drop=True), pd.DataFrame(new)], axis=1)
    run = as_run(signals)
    return _Part(
        MEEGRun(path=run.path, entities=entities, metadata={}, events=None, data=signals),
        starts,
        length,
        table,
        names,
    )


def _one_length(lengths: NDArray[np.int64]) -> int:
    if not len(lengths) or lengths.min() != lengths.max() or lengths[0] < 1:
        raise ValueError(
            "from_braindecode: the windows of a recording must be of one length, got "
            f"{sorted(set(lengths.tolist()))} samples"
        )
    return int(lengths[0])


def _names(part: Any, metadata: pd.DataFrame) -> list[str | None]:
    """Return the name of each window's target, None where it is none that names a class."""
    if _CONDITION in metadata:
        return [name if isinstance(name, str) else None for name in metadata[_CONDITION]]
    called: dict[Any, list[str]] = {}
    for _, options in getattr(part, "window_kwargs", ()):
        for name, code in (options.get("mapping") or {}).items():
            called.setdefault(code, []).append(str(name))
    targets = metadata[_TARGET].tolist() if _TARGET in metadata else [None] * len(metadata)
    return [_name(target, called) for target in targets]


def _name(target: Any, called: dict[Any, list[str]]) -> str | None:
    if isinstance(target, (list, tuple, np.ndarray, dict)) or target is None:
        return None
    if target in called:
        return ", ".join(called[target])
    if isinstance(target, float) and not target.is_integer():
        return None  # a value, no class
    return str(int(target)) if isinstance(target, float) else str(target)


def _conditions(metadata: pd.DataFrame, names: list[str | None]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names in the order of their targets, and the number of each window's."""
    targets = metadata[_TARGET].tolist() if _TARGET in metadata else [None] * len(metadata)
    first: dict[str, tuple[float, str]] = {}
    for name, target in zip(names, targets, strict=True):
        if name is not None:
            number = float(target) if isinstance(target, (int, float)) else np.inf
            first[name] = min(first.get(name, (np.inf, name)), (number, name))
    conditions = tuple(sorted(first, key=lambda name: first[name]))
    code = {name: number for number, name in enumerate(conditions)}
    return conditions, np.array([-1 if name is None else code[name] for name in names], np.int64)


def to_braindecode(windows: MEEGWindows, *, target: str | Sequence[Any] | None = None) -> Any:
    """Return windows as a ``BaseConcatDataset``, a part for each recording: the same samples in order.

    Prepared signals are held in memory, in the 8 bytes a sample that MNE wants. Channels keep names, types,
    places, orientations and marks as bad, the recording its events as annotations. Metadata have ``target``,
    ``condition``, ``onset``, and what the windows' own table has; descriptions the entities, so that
    ``dataset.split("subject")`` works.

    Parameters
    ----------
    windows : MEEGWindows
    target : str or sequence, optional
        Column of ``windows.table``, or a value per window; default ``target`` of windows that came from
        braindecode, else the codes of conditions.

    Raises
    ------
    ImportError
        If braindecode is not installed.
    ValueError
        If no window lies within its recording, or ``target`` does not fit.

    Warns
    -----
    UserWarning
        Of windows that reach beyond their recording (braindecode marks no sample as invalid), and of regions.
    """
    peer = import_peer("to_braindecode", "braindecode.datasets", "braindecode")
    table = windows.table
    targets = _targets(windows, table, target)
    start, recording = windows._start, windows._recording
    stop = start + windows._lengths[recording]
    inside = (start >= 0) & (stop <= windows._n_samples[recording])
    if not inside.any():
        raise ValueError("to_braindecode: no window lies within its recording")
    left = [] if inside.all() else [f"{int((~inside).sum())} windows that reach beyond their recording"]
    left += ["regions of channels"] if windows.region_names else []
    say_left_out("to_braindecode", "braindecode's datasets", left)
    own = table.drop(columns=["recording", "start", _CONDITION])
    columns = {
        "i_window_in_trial": 0,
        _START: start,
        _STOP: stop,
        _TARGET: targets,
        _CONDITION: table[_CONDITION].to_numpy(),
        "onset": windows._onset,
    }
    metadata = pd.DataFrame(columns).join(own[[name for name in own if name not in columns]])
    parts = []
    for i in np.unique(recording[inside]).tolist():
        rows = np.flatnonzero(inside & (recording == i))
        parts.append(_as_part(peer, windows, i, rows, metadata.iloc[rows].reset_index(drop=True)))
    return peer.BaseConcatDataset(parts)


def _targets(windows: MEEGWindows, table: pd.DataFrame, target: Any) -> list[Any]:
    if target is None:
        target = _TARGET if _TARGET in table else windows._condition.tolist()
    if isinstance(target, str):
        if target not in table:
            raise ValueError(
                f"to_braindecode: target must be a column of the windows' table, got {target!r}; there are "
                f"{', '.join(map(str, table))}"
            )
        return list(table[target].tolist())
    if len(target) != len(windows):
        raise ValueError(f"to_braindecode: target must have {len(windows)} values, got {len(target)}")
    return list(target)


def _as_part(peer: Any, windows: MEEGWindows, i: int, rows: NDArray[np.int64], metadata: pd.DataFrame) -> Any:
    description = {name: value for name, value in windows.runs[i].entities.items() if value}
    if hasattr(windows.runs[i].data, "event_id"):
        epochs = windows.to_epochs(rows.tolist())
        epochs.metadata = metadata.assign(**{_START: 0, _STOP: len(epochs.times)})
        return peer.WindowsDataset(epochs, description=description)
    return peer.EEGWindowsDataset(_as_raw(windows, i), metadata, description=description)


def _as_raw(windows: MEEGWindows, i: int) -> Any:
    from neurokern.datasets.meeg_epochs import info_of
    from neurokern.extractors._meeg_files import QUIET, import_mne

    mne = import_mne()
    run, extractor = windows.runs[i], windows.extractor
    values = extractor.values(run)
    check_memory("to_braindecode", "a recording", 8 * values.size, "take fewer channels, or resample")
    raw = mne.io.RawArray(
        values.T.astype(np.float64), info_of(windows.channels(i), windows.sfreqs[i]), verbose=QUIET
    )
    extractor.check_unchanged(run)
    events = windows._events[i]
    known = events["onset"].notna() & events["trial_type"].notna()
    events = events[known]
    raw.set_annotations(
        mne.Annotations(events["onset"], events["duration"], events["trial_type"].astype(str)), verbose=QUIET
    )
    return raw
