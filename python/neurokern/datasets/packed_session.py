"""Binned sessions kept in the cache: one mapped file each, by the content of its source and the settings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurokern.datasets.binned import BinnedSession
from neurokern.ops._array_cache import ArraySpec, CacheEntry, can_be_kept, map_arrays
from neurokern.ops._gzip_cache import cache_folder, sampled_content

__all__ = ["read_session", "session_entry", "source_bytes", "source_key"]

_FORMAT = "1"
_TRIAL = "trials."
# Endings of what the loaders of spikes read; of others in the folder, size and time of writing must do.
_READ = {".npy", ".npz", ".nwb", ".tsv", ".csv", ".json", ".pqt", ".parquet", ".mat", ".py", ".xml"}


def source_key(source: Path, settings: object) -> str:
    """Return what tells a recording binned by some settings from all others; it names nobody.

    A file that was written again, added or removed gives another key.

    Parameters
    ----------
    source : Path
        A file, or a folder of files.
    settings : object
        Whatever else decides the result; its ``repr`` counts.
    """
    digest = hashlib.blake2b(repr((_FORMAT, settings)).encode(), digest_size=16)
    for file in _files_of(source):
        status = file.stat()
        name = os.fspath(file.relative_to(source)) if file != source else file.suffix
        digest.update(os.fsencode(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"))
        if file.suffix.lower() in _READ:
            with file.open("rb") as stream:
                digest.update(sampled_content(stream.fileno(), status.st_size).encode())
    return digest.hexdigest()


def source_bytes(source: Path) -> int:
    """Return the bytes of a recording's files."""
    return sum(file.stat().st_size for file in _files_of(source))


def _files_of(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    found = []
    for folder, _, names in os.walk(source):  # links to folders are not followed: they may lead back
        found += [Path(folder, name) for name in names]
    return sorted(file for file in found if file.is_file())


def session_entry(key: str, session: BinnedSession, extra: Mapping[str, Any]) -> CacheEntry:
    """Return the file of the cache that is to hold a session, with more facts about it (JSON).

    Raises
    ------
    ValueError
        If a column of the trials holds something else than numbers, truth values and text.
    """
    arrays: dict[str, np.ndarray] = {"counts": session.counts}
    facts: dict[str, Any] = {
        "bin_size": session.bin_size,
        "regions": session.regions.tolist(),
        "session": session.session,
        "subject": session.subject,
        "notes": list(session.notes),
        "columns": None if session.trials is None else [],
        "extra": dict(extra),
    }
    _put("unit_ids", session.unit_ids, arrays, facts)
    if session.windows is not None:
        arrays["windows"] = session.windows
    for name, column in {} if session.trials is None else session.trials.items():
        if not isinstance(name, str):
            raise ValueError(f"a column of the trials must have a name to be kept, got {name!r}")
        facts["columns"].append([name, str(column.dtype)])
        _put(_TRIAL + name, _plain(name, column), arrays, facts)
    # The widest first, so that each lies at a multiple of its own size.
    arrays = dict(sorted(arrays.items(), key=lambda item: -item[1].itemsize))

    def fill(places: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            places[name][...] = array

    return CacheEntry(
        _path(key),
        {name: ArraySpec(str(array.dtype), array.shape) for name, array in arrays.items()},
        {"format": _FORMAT, "key": key, "facts": json.dumps(facts)},
        fill,
    )


def read_session(key: str) -> tuple[BinnedSession, dict[str, Any]] | None:
    """Return a session of the cache with the facts beside it; None if it is not there, or damaged.

    Its counts are mapped: processes share them until one writes to them, which no other one sees.
    """
    found = map_arrays(_path(key))
    if found is None or found[1].get("key") != key or found[1].get("format") != _FORMAT:
        return None
    arrays, facts = found[0], json.loads(found[1]["facts"])
    trials = None
    if facts["columns"] is not None:
        columns = {
            name: pd.Series(_take(_TRIAL + name, arrays, facts), dtype=dtype)
            for name, dtype in facts["columns"]
        }
        trials = pd.DataFrame(columns, index=range(len(arrays["counts"])))
    session = BinnedSession(
        counts=arrays["counts"],
        bin_size=facts["bin_size"],
        regions=np.array(facts["regions"], dtype=str),
        unit_ids=np.asarray(_take("unit_ids", arrays, facts)),
        session=facts["session"],
        windows=arrays.get("windows"),
        trials=trials,
        subject=facts["subject"],
        notes=tuple(facts["notes"]),
    )
    return session, facts["extra"]


def _path(key: str) -> Path:
    return cache_folder() / "packed_sessions" / f"{key}.safetensors"


def _plain(name: str, column: pd.Series[Any]) -> np.ndarray:
    """Return a column as an array of numbers, or of objects that JSON holds exactly."""
    if column.dtype.kind in "biuf" and isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    values = column.to_numpy(dtype=object)
    kept = all(value is None or type(value) in (str, bool, int, float) for value in values)
    if not kept or isinstance(column.dtype, pd.CategoricalDtype):
        raise ValueError(
            f"column {name!r} of the trials holds neither numbers nor text ({column.dtype}), and cannot be "
            "kept"
        )
    return values


def _put(name: str, values: np.ndarray, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    if can_be_kept(values.dtype):
        arrays[name] = values
    else:
        facts[name] = values.tolist()


def _take(name: str, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> Any:
    return arrays[name] if name in arrays else facts[name]
