"""Series beside the recordings from files: BIDS physio and stim recordings, tables with a column of times."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from neurokern._check import check_choice
from neurokern.datasets.bids_index import ENTITIES, BIDSName
from neurokern.datasets.series import TimeSeries

if TYPE_CHECKING:
    from neurokern.datasets.bids import BIDSDataset

__all__ = ["read_series", "series_of_runs"]

_KINDS = ("physio", "stim")
_OF_RUNS = ("subject", "session", "task", "run")  # entities that a recording has if its run has them
_DAMAGED = (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, EOFError, zlib.error)


def read_series(
    path: str | os.PathLike[str], time: str = "time", columns: Sequence[str] | None = None
) -> TimeSeries:
    """Return the columns of a table by their times: ``.csv``, else ``.tsv`` (``n/a`` is NaN), also gzipped.

    Parameters
    ----------
    path : path
    time : str, default "time"
        Column of the times in seconds on the recording's clock; ``"onset"`` in tables of BIDS.
    columns : sequence of str, optional
        Columns to take; default: all that hold numbers.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, or a column is not there or holds no numbers.
    """
    names = Path(path).name.lower().removesuffix(".gz")
    table = _read(Path(path), sep="," if names.endswith(".csv") else "\t")
    wanted = [time, *columns] if columns is not None else [time]
    if missing := [name for name in wanted if name not in table]:
        raise ValueError(
            f"read_series: {path} has no column {', '.join(missing)}; it has {', '.join(map(str, table))}"
        )
    if columns is None:
        numbers = table.select_dtypes("number")
        columns = [str(name) for name in numbers if name != time]
        if not columns:
            raise ValueError(f"read_series: {path} has no column of numbers beside {time}")
    return _series(Path(path), table, _numbers(path, table[[time]])[:, 0], columns)


def series_of_runs(
    dataset: BIDSDataset,
    kind: str = "physio",
    *,
    columns: Sequence[str] | None = None,
    recording: str | None = None,
) -> list[TimeSeries | None]:
    """Return the physiological or stimulus recording of each run of a BIDS folder.

    These are ``_physio.tsv.gz`` and ``_stim.tsv.gz``, tables without a header whose sidecars tell
    ``SamplingFrequency``, ``StartTime`` (from the run's first volume or sample) and ``Columns``. With
    :class:`~neurokern.datasets.SampledSeries` they are read beside windows.

    Parameters
    ----------
    dataset : BIDSDataset
    kind : {"physio", "stim"}
    columns : sequence of str, optional
        Columns to take; default: all of the first recording found.
    recording : str, optional
        The ``recording`` entity, where a run has several.

    Returns
    -------
    series : list of TimeSeries or None
        In the order of the dataset's runs.

    Raises
    ------
    ValueError
        If there is none at all, sidecars or files are damaged, or a run has several.
    """
    check_choice("series_of_runs", "kind", kind, _KINDS)
    found: list[TimeSeries | None] = []
    for path in dataset.table["path"]:
        files = _files_of(dataset, path, kind)
        if recording is not None:
            files = files[files["recording"].eq(recording)] if "recording" in files else files[:0]
        if len(files) > 1:
            names = ", ".join(sorted(file.name for file in files["path"])[:4])
            raise ValueError(f"series_of_runs: {path} has several of kind {kind}: {names}; give recording=")
        if len(files):
            table, times = _continuous(dataset, files["path"].iloc[0])
            columns = [str(name) for name in table] if columns is None else columns
            found.append(_series(files["path"].iloc[0], table, times, columns))
        else:
            found.append(None)
    if all(one is None for one in found):
        raise ValueError(f"series_of_runs: no run of {dataset!r} has a _{kind}.tsv.gz")
    return found


def _files_of(dataset: BIDSDataset, path: Path, kind: str) -> pd.DataFrame:
    """Return the recordings of a kind that belong to a run: what their names tell, its name tells, too."""
    files = dataset.index.files
    files = files[files["suffix"].eq(kind) & files["extension"].isin([".tsv.gz", ".tsv"])]
    name = BIDSName.parse(path.name)
    own = {} if name is None else name.entities
    fits = pd.Series(True, index=files.index)
    for entity in ({str(column) for column in files} & set(ENTITIES.values())) - {"recording"}:
        same = files[entity].eq(own[entity]) if entity in own else files[entity].isna()
        may_lack = entity in own and entity not in _OF_RUNS
        fits &= same | files[entity].isna() if may_lack else same
    return files[fits]


def _continuous(dataset: BIDSDataset, path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Return a recording by its columns' names, and its times."""
    fields = dataset.index.metadata(path)
    rate, start = (_number(path, fields, name) for name in ("SamplingFrequency", "StartTime"))
    names = fields.get("Columns")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not rate > 0:
        raise ValueError(
            f"{path}: its sidecar must have Columns, a list of names, and a SamplingFrequency above 0 Hz, "
            f"got {names!r} and {rate:g}"
        )
    table = _read(path, sep="\t", header=None)
    if len(table) and [str(value) for value in table.iloc[0]] == names:  # some write a header all the same
        table = table.iloc[1:]
    if table.shape[1] != len(names):
        raise ValueError(
            f"{path}: it must have the {len(names)} Columns of its sidecar, has {table.shape[1]}"
        )
    table.columns = pd.Index(names)
    return table, start + np.arange(len(table)) / rate


def _series(path: Path, table: pd.DataFrame, times: np.ndarray, columns: Sequence[str]) -> TimeSeries:
    wanted = list(columns)
    if missing := [name for name in wanted if name not in table]:
        raise ValueError(
            f"{path}: there is no column {', '.join(missing)}; there are {', '.join(map(str, table))}"
        )
    return TimeSeries.from_arrays(
        times, _numbers(path, table[wanted]), tuple(wanted) if len(wanted) > 1 else ()
    )


def _number(path: Path, fields: dict[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{path}: its sidecar must have {name}, a number, got {value!r}")
    return float(value)


def _read(path: Path, **options: Any) -> pd.DataFrame:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            return pd.read_csv(file, na_values=["n/a"], encoding="utf-8-sig", **options)
    except (*_DAMAGED, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} must be a table in UTF-8: {error}") from None


def _numbers(path: str | os.PathLike[str], table: pd.DataFrame) -> np.ndarray:
    try:
        return table.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: columns must hold numbers or n/a: {error}") from None
