"""What headers and tables say of a recording, kept in the cache: files need not be opened again for it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurokern.datasets.bids_run import MEEGRun
from neurokern.datasets.channels import Channels
from neurokern.extractors import _meeg_files as files
from neurokern.ops._gzip_cache import cache_folder
from neurokern.ops._kept_json import keep_json, kept_json

__all__ = ["Facts", "kept_facts"]

_FORMAT = 1
_SETTLED = 2 * 10**9  # ns; a file written to as recently may be written to again within one tick of its clock
_ARRAYS = {"positions": np.float32, "orientations": np.float32, "bad": np.bool_}


@dataclass(frozen=True)
class Facts:
    """What a process needs to know of a recording to find its signals; it travels to workers."""

    channels: Channels
    rows: tuple[int, ...]  # of the file's channels
    sfreq: float
    n_samples: int
    own: tuple[float, int]  # rate and samples of the file, before resampling
    events: pd.DataFrame
    files: tuple[Path, ...]
    signature: tuple[tuple[int, int, int], ...]
    key: str

    def is_current(self) -> bool:
        """Return whether the files still are what was opened."""
        try:
            return files.signature(self.files) == self.signature
        except FileNotFoundError:
            return False


def kept_facts(run: MEEGRun, options: tuple[Any, ...], look: Callable[[], Facts]) -> Facts:
    """Return what was found when the same files, tables and options were looked at before, or look now.

    What was warned of is warned of again.
    """
    fields = (_FORMAT, files.import_mne().__version__, run.key, run.events is None, options)
    name = hashlib.blake2b(repr(fields).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    place = cache_folder() / "headers" / f"{name}.listing"
    facts, told = _read(run, kept_json(place))
    if facts is None:
        before = time.time_ns()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            facts = look()
        told = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
        with contextlib.suppress(OSError, TypeError):  # no room, or what JSON has no word for
            _keep(run, place, facts, told, before)
    for message in told:
        warnings.warn(message, stacklevel=5)
    return facts


def _states(paths: tuple[Path, ...]) -> list[list[int]]:
    found = [os.stat(path) for path in paths]
    return [[s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns] for s in found]


def _keep(run: MEEGRun, place: Path, facts: Facts, told: list[str], before: int) -> None:
    states = _states(facts.files)
    if not facts.is_current() or any(max(state[2:]) + _SETTLED > before for state in states):
        return
    channels = facts.channels
    values = {
        "names": [os.path.relpath(path, run.path.parent) for path in facts.files],
        "states": states,
        "told": told,
        "channels": {
            "names": channels.names,
            "types": channels.types,
            "frame": channels.frame,
            "regions": channels.regions,
            **{name: getattr(channels, name).tolist() for name in _ARRAYS},
        },
        "rows": facts.rows,
        "rates": [facts.sfreq, facts.n_samples, *facts.own],
        "events": facts.events.to_dict("list"),
        "key": facts.key,
    }
    keep_json(place, values)


def _read(run: MEEGRun, values: Any) -> tuple[Facts | None, list[str]]:
    """Return what was kept, if the files are still the same."""
    if not isinstance(values, dict):
        return None, []
    paths = tuple(Path(os.path.normpath(run.path.parent / name)) for name in values["names"])
    try:
        if _states(paths) != values["states"]:
            return None, []
    except OSError:
        return None, []
    told = values["channels"]
    arrays: dict[str, Any] = {name: np.array(told[name], dtype) for name, dtype in _ARRAYS.items()}
    for name in ("positions", "orientations"):
        arrays[name] = arrays[name].reshape(-1, 3)
    channels = Channels(
        names=tuple(told["names"]),
        types=tuple(told["types"]),
        frame=told["frame"],
        regions=tuple(told["regions"]),
        **arrays,
    )
    sfreq, n_samples, own_rate, own_samples = values["rates"]
    facts = Facts(
        channels=channels,
        rows=tuple(values["rows"]),
        sfreq=sfreq,
        n_samples=n_samples,
        own=(own_rate, own_samples),
        events=pd.DataFrame(values["events"]),
        files=paths,
        signature=tuple((state[0], state[1], state[2]) for state in values["states"]),
        key=values["key"],
    )
    return facts, values["told"]
