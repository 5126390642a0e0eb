"""Spikes under names of one's own, in Matlab's .mat files, HDF5 and .npz."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from neurokern._check import check_positive
from neurokern.datasets._clean import as_vector
from neurokern.datasets._files import read_npz
from neurokern.datasets._hdf5 import child, open_hdf5, read_values
from neurokern.datasets._mat5 import Mat5File, is_mat5
from neurokern.datasets.recording import SpikeRecording, make_recording, unit_columns
from neurokern.datasets.series import TimeSeries

__all__ = ["load_variables"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_MOST_CELLS = 1 << 20


def load_variables(
    path: str | os.PathLike[str],
    *,
    times: str,
    units: str | None = None,
    counts: str | None = None,
    regions: str | None = None,
    depths: str | None = None,
    unit_columns_of: Mapping[str, str] | None = None,
    trials: Mapping[str, str] | None = None,
    series: Mapping[str, tuple[str, str | Sequence[str]]] | None = None,
    sfreq: float | None = None,
    session: str | None = None,
    subject: str | None = None,
) -> SpikeRecording:
    """Load spikes from a ``.mat`` (v5 or v7.3), HDF5 or ``.npz`` file whose variables you name.

    Names lead into structures and groups by dots: ``"data.spikes.times"``.

    Parameters
    ----------
    path : path-like
    times : str
        Variable with the spike times in seconds (integer samples with ``sfreq``): all of them, or a cell
        array with those of one unit in each cell.
    units : str, optional
        Variable with the unit of each spike.
    counts : str, optional
        Instead: variable with the number of spikes of each unit, whose times follow each other.
    regions, depths : str, optional
        Variables with the region and the depth (micrometers) of each unit.
    unit_columns_of : mapping of str to str, optional
        Further columns of the unit table: its name to the variable.
    trials : mapping of str to str, optional
        Columns of the trials: name to variable.
    series : mapping of str to (str, str or sequence of str), optional
        Behavior: name to the variables of its times (seconds) and values; several become columns.
    sfreq : float, hertz, optional
        Sampling rate of times in samples; Matlab's doubles that are whole numbers count as such.
    session, subject : str, optional
        Names; the session's default is the file's name.

    Returns
    -------
    SpikeRecording

    Raises
    ------
    FileNotFoundError, ImportError
        If there is no such file, or h5py is missing for v7.3 and HDF5.
    ValueError
        If the file is damaged, a variable is not there (the message lists those that are) or of a wrong type,
        or lengths disagree.

    Examples
    --------
    >>> load_variables("waves.h5", times="spikes", counts="sCount")  # doctest: +SKIP
    >>> load_variables("rat.mat", times="spk.t", units="spk.id", trials={"go": "task.go"})  # doctest: +SKIP
    """
    if (units is not None) + (counts is not None) > 1:
        raise ValueError("load_variables: give units or counts, not both")
    with _variables(path) as read:
        seconds, ids, n_units = _spikes(read, times, units, counts)
        columns = {name: _column(name, read(of)) for name, of in (unit_columns_of or {}).items()}
        columns |= {
            name: _column(name, read(of)) for name, of in (("region", regions), ("depth", depths)) if of
        }
        table = unit_columns(columns, "load_variables")
        if n_units is not None:
            if len(table.columns) and len(table) != n_units:
                raise ValueError(f"load_variables: {len(table)} rows of unit columns for {n_units} units")
            table.insert(0, "id", np.arange(n_units))
        trial_columns = {name: _column(name, read(of)) for name, of in (trials or {}).items()}
        lengths = {name: len(values) for name, values in trial_columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"load_variables: columns of trials must have one length, got {lengths}")
        found = {name: _series(read, *of) for name, of in (series or {}).items()}
    if sfreq is not None and seconds.dtype.kind == "f":
        rate, sfreq = check_positive("load_variables", "sfreq", sfreq), None
        seconds = seconds / rate
    return make_recording(
        "load_variables",
        seconds,
        ids,
        sfreq=sfreq,
        session=session or Path(path).stem,
        subject=subject,
        unit_table=table,
        trials=pd.DataFrame(trial_columns) if trial_columns else None,
        series=found,
    )


def _spikes(
    read: Any, times: str, units: str | None, counts: str | None
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Return times, unit ids and, where the file tells, the number of units."""
    found = read(times)
    if isinstance(found, list):
        trains = [as_vector("load_variables", times, train if train.size else np.zeros(0)) for train in found]
        ids = np.repeat(np.arange(len(trains)), [len(train) for train in trains])
        return np.concatenate(trains) if trains else np.zeros(0), ids, len(trains)
    seconds = as_vector("load_variables", times, found)
    if counts is not None:
        per_unit = as_vector("load_variables", counts, read(counts)).astype(np.int64)
        if (per_unit < 0).any() or int(per_unit.sum()) != len(seconds):
            raise ValueError(
                f"load_variables: {counts} must add up to {len(seconds)} spikes, got {per_unit.sum()}"
            )
        return seconds, np.repeat(np.arange(len(per_unit)), per_unit), len(per_unit)
    if units is None:
        raise ValueError(
            f"load_variables: {times} is one array; give units= or counts=, which say whose spikes"
        )
    return seconds, as_vector("load_variables", units, read(units)), None


def _column(name: str, values: Any) -> np.ndarray:
    if isinstance(values, list):
        if not all(item.dtype.kind == "U" and item.size == 1 for item in values):
            raise ValueError(f"load_variables: {name} must be numbers or texts, one for each row")
        return np.array([str(item.reshape(-1)[0]) for item in values])
    return as_vector("load_variables", name, values)


def _series(read: Any, times: str, values: str | Sequence[str]) -> TimeSeries:
    names = [values] if isinstance(values, str) else list(values)
    columns = [np.asarray(read(name), np.float64) for name in names]
    if len(columns) == 1:
        return TimeSeries.from_arrays(read(times), columns[0])
    flat = [as_vector("load_variables", name, column) for name, column in zip(names, columns, strict=True)]
    if len({len(column) for column in flat}) > 1:
        raise ValueError(f"load_variables: {', '.join(names)} must have one length")
    return TimeSeries.from_arrays(read(times), np.stack(flat, axis=1), columns=tuple(names))


@contextmanager
def _variables(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Give a reader of variables by name, of whatever kind the file is."""
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"load_variables: no such file: {source}")
    with source.open("rb") as stream:
        start = stream.read(1024)
    if start.startswith(b"PK"):
        arrays = read_npz("load_variables", source)
        yield lambda name: _named(name, arrays.get(name), sorted(arrays))
    elif start.startswith(_HDF5) or start[512:520] == _HDF5:  # Matlab's v7.3 writes 512 bytes before
        with open_hdf5("load_variables", source) as file:
            yield functools.partial(_of_hdf5, file)
    elif is_mat5(start):
        yield functools.partial(_of_mat5, Mat5File("load_variables", source))
    else:
        raise ValueError(f"load_variables: {source.name} is no .mat (v5, v7.3), HDF5 or .npz file")


def _named(name: str, value: Any, known: Sequence[str]) -> Any:
    if value is None:
        raise ValueError(
            f"load_variables: there is no variable {name!r}; there are {', '.join(known) or 'none'}"
        )
    return value


def _of_hdf5(file: Any, name: str) -> Any:
    import h5py

    stored = child(file, name.replace(".", "/"), "load_variables")
    _named(name, stored, sorted(key for key in file if not key.startswith("#")))
    if isinstance(stored, h5py.Dataset) and h5py.check_ref_dtype(stored.dtype) is h5py.Reference:
        if stored.size > _MOST_CELLS:
            raise ValueError(
                f"load_variables: {name} must have at most {_MOST_CELLS} cells, got {stored.size}"
            )
        return [_cell(file, name, reference) for reference in stored[()].reshape(-1)]
    return _matlab(stored, read_values("load_variables", stored, kinds="biufOSU"))


def _cell(file: Any, name: str, reference: Any) -> np.ndarray:
    import h5py

    stored = file[reference] if reference else None
    if not isinstance(stored, h5py.Dataset):
        raise ValueError(f"load_variables: {name} must have arrays in its cells")
    return _matlab(stored, read_values("load_variables", stored, kinds="biufSU"))


def _matlab(stored: Any, values: np.ndarray) -> np.ndarray:
    """Return an array as Matlab means it: axes reversed, text from its numbers, empty ones empty."""
    kind = stored.attrs.get("MATLAB_class", b"")
    kind = kind.decode(errors="replace") if isinstance(kind, bytes) else str(kind)
    if stored.attrs.get("MATLAB_empty", 0):
        return np.zeros(0)
    if kind == "char":
        return np.array(["".join(map(chr, values.reshape(-1).tolist()))])
    return values.T if kind else values


def _of_mat5(file: Mat5File, name: str) -> Any:
    """Return a variable of a file of version 5; dots lead into structures of one row."""
    first, *below = name.split(".")
    _named(name, first if first in file.names else None, file.names)
    value = file.read(first)
    for part in below:
        fields = sorted(value) if isinstance(value, dict) else []
        if part not in fields:
            raise ValueError(
                f"load_variables: {name} is not there; {first} has {', '.join(fields) or 'no fields'}"
            )
        value = value[part]
    if isinstance(value, dict) or (
        isinstance(value, list) and not all(isinstance(v, np.ndarray) for v in value)
    ):
        raise ValueError(f"load_variables: {name} must be numbers, texts, or cells of them")
    return value
