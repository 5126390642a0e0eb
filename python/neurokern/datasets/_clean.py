"""From raw arrays to clean spikes: check, drop what cannot be used, sort, number the units, and say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurokern._check import check_positive

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["as_ids", "as_vector", "check_table", "clean_spikes", "rows_of_ids"]

LOOKUP_LIMIT = 1 << 24  # ids below this are renumbered by a table, larger ones by sorting


def as_vector(function: str, name: str, values: ArrayLike) -> np.ndarray:
    """Return values as a 1-D array in native byte order; a column (n, 1), as Matlab writes it, too."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        raise TypeError(f"{function}: {name} must be an array of numbers, got {values!r}") from None
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim != 1:
        raise ValueError(f"{function}: {name} must be 1-D, got shape {array.shape}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_ids(function: str, name: str, ids: ArrayLike) -> np.ndarray:
    """Return ids as int64; floats that are whole numbers are accepted, anything else is a ValueError."""
    array = as_vector(function, name, ids)
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{function}: {name} must be integers, got dtype {array.dtype}")
    limit = 2**63
    if array.dtype.kind == "f" and not (np.isfinite(array) & (array == np.floor(array))).all():
        raise ValueError(
            f"{function}: {name} must be whole numbers, got fractions or NaN of dtype {array.dtype}"
        )
    if array.dtype.kind in "uf" and (array.max() >= limit or array.min() < -limit):
        raise ValueError(f"{function}: {name} must fit into 64-bit integers")
    return array.astype(np.int64, copy=False)


def check_table(function: str, name: str, table: object) -> None:
    """Raise unless ``table`` is a DataFrame or None."""
    if not (table is None or isinstance(table, pd.DataFrame)):
        raise TypeError(f"{function}: {name} must be a pandas DataFrame or None, got {type(table).__name__}")


def clean_spikes(
    function: str, times: ArrayLike, ids: ArrayLike, sfreq: float | None = None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return sorted float64 times, int64 ids and notes; what is dropped is counted in the notes."""
    seconds = _seconds(function, times, sfreq)
    numbers = as_ids(function, "unit ids", ids)
    if len(seconds) != len(numbers):
        raise ValueError(f"{function}: {len(seconds)} spike times, but {len(numbers)} unit ids")
    notes = []
    usable = np.isfinite(seconds)
    usable &= seconds >= 0
    if not usable.all():
        notes.append(f"dropped {int((~usable).sum())} spikes with a NaN, infinite or negative time")
    negative = numbers < 0
    if negative.any():
        notes.append(f"dropped {int((negative & usable).sum())} spikes with a negative unit id")
        usable &= ~negative
    if not usable.all():
        seconds, numbers = seconds[usable], numbers[usable]
    if not (seconds[1:] >= seconds[:-1]).all():
        notes.append("sorted the spikes: their times were not in order")
        order = np.argsort(seconds, kind="stable")
        seconds, numbers = seconds[order], numbers[order]
    if not len(seconds):
        notes.append("the recording has no spikes")
    return seconds, numbers, notes


def rows_of_ids(
    function: str, ids: np.ndarray, unit_table: pd.DataFrame | None
) -> tuple[pd.DataFrame, np.ndarray, list[str]]:
    """Return the complete unit table in id order, the table row of each spike (int32), and notes.

    A table without a column ``id`` belongs to the ids that occur, ascending, if it has as many rows; if it
    has more, its row numbers are the ids.
    """
    occurring = _unique(ids)
    table = pd.DataFrame() if unit_table is None else unit_table.copy()
    if "id" not in table:
        table.insert(0, "id", _implied_ids(function, occurring, len(table), len(table.columns) > 0))
    table["id"] = as_ids(function, "ids of the unit table", table["id"].to_numpy())
    table = table.sort_values("id", kind="stable").reset_index(drop=True)
    known = table["id"].to_numpy()
    if len(known) and (known[0] < 0 or (known[1:] == known[:-1]).any()):
        raise ValueError(f"{function}: ids of the unit table must be distinct and not negative")
    unknown = np.setdiff1d(occurring, known)
    if len(unknown):
        raise ValueError(
            f"{function}: {len(unknown)} unit ids of spikes have no row in the unit table of {len(known)} "
            f"units; the first are {unknown[:5].tolist()}"
        )
    return (
        _with_standard_columns(function, table),
        _renumber(ids, known),
        _notes_on_units(known, len(occurring)),
    )


def _seconds(function: str, times: ArrayLike, sfreq: float | None) -> np.ndarray:
    array = as_vector(function, "spike times", times)
    if array.size == 0:
        return np.zeros(0)
    if array.dtype.kind in "iu":
        if sfreq is None:
            raise ValueError(
                f"{function}: spike times are integers ({array.dtype}), so they look like samples; "
                "pass sfreq=, the sampling rate in hertz"
            )
        return array / check_positive(function, "sfreq", sfreq)
    if array.dtype.kind != "f":
        raise ValueError(f"{function}: spike times must be numbers, got dtype {array.dtype}")
    if sfreq is not None:
        raise ValueError(f"{function}: sfreq is for integer samples, but the spike times are {array.dtype}")
    return array.astype(np.float64, copy=False)


def _unique(ids: np.ndarray) -> np.ndarray:
    if not len(ids) or ids.max() >= LOOKUP_LIMIT:
        return np.unique(ids)
    present = np.zeros(int(ids.max()) + 1, dtype=bool)
    present[ids] = True
    return np.flatnonzero(present)


def _renumber(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    if not len(known) or known[-1] >= LOOKUP_LIMIT:
        return np.searchsorted(known, ids).astype(np.int32)
    row_of = np.zeros(int(known[-1]) + 1, dtype=np.int32)
    row_of[known] = np.arange(len(known), dtype=np.int32)
    return row_of[ids]


def _implied_ids(function: str, occurring: np.ndarray, n_rows: int, has_columns: bool) -> np.ndarray:
    if not has_columns or n_rows == len(occurring):
        return occurring
    if n_rows < len(occurring) or occurring[-1:].sum() >= n_rows:
        raise ValueError(
            f"{function}: the unit table has {n_rows} rows, but {len(occurring)} unit ids occur, up to "
            f"{occurring[-1:].sum()}; give the id of each row"
        )
    return np.arange(n_rows)


def _with_standard_columns(function: str, table: pd.DataFrame) -> pd.DataFrame:
    region = table["region"] if "region" in table else pd.Series([""] * len(table), dtype=object)
    table["region"] = region.astype(object).where(region.notna(), "").map(str)
    depth = table["depth"] if "depth" in table else np.full(len(table), np.nan)
    try:
        table["depth"] = np.asarray(depth, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{function}: depths of units must be numbers in micrometers ({error})") from error
    first = ["id", "region", "depth"]
    return table[first + [name for name in table.columns if name not in first]]


def _notes_on_units(known: np.ndarray, n_firing: int) -> list[str]:
    notes = []
    if len(known) and known[-1] != len(known) - 1:
        notes.append(
            f"numbered {len(known)} units 0 to {len(known) - 1}; unit_table has their ids, up to {known[-1]}"
        )
    if n_firing < len(known):
        notes.append(f"{len(known) - n_firing} of {len(known)} units never fire; they are kept")
    return notes
