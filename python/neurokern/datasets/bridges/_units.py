"""Tables of units between ours and those of other packages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["UNIT_ID", "arrays_of_columns", "unit_table"]

UNIT_ID = "unit_id"  # column of ids that are no ascending numbers
_REGION = ("region", "brain_region", "brain_area", "area", "location")


def unit_table(table: pd.DataFrame, ids: NDArray[Any]) -> pd.DataFrame:
    """Return the table with our columns first; their ids as ours where they are numbers in order."""
    numbers = _as_numbers(ids)
    if numbers is None:
        table = table.rename(columns={"id": UNIT_ID})
        numbers = np.arange(len(table), dtype=np.int64)
    named = next((name for name in _REGION if name in table), None)
    known = [None] * len(table) if named is None else table[named].tolist()
    region = ["" if pd.isna(value) else str(value) for value in known]
    depth = table["depth"] if "depth" in table else np.full(len(table), np.nan)
    ours = pd.DataFrame({"id": numbers, "region": region, "depth": np.asarray(depth, np.float64)})
    ours["region"] = ours["region"].astype(object)
    taken = {"id", "region", "depth", *({named} & {"brain_region"})}
    rest = [name for name in table if name not in taken]
    return pd.concat([ours, table[rest]], axis=1)


def _as_numbers(ids: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return ids as ascending numbers that are not negative, or None if they are none."""
    if ids.dtype.kind in "UST":
        texts = [str(name) for name in ids.astype(str)]
        if not all(name.isdecimal() and name == str(int(name)) and len(name) < 18 for name in texts):
            return None
        ids = np.array([int(name) for name in texts], np.int64)
    if ids.dtype.kind not in "iu" or (len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= 2**63)):
        return None
    numbers = ids.astype(np.int64)
    return numbers if (numbers[1:] > numbers[:-1]).all() else None


def arrays_of_columns(table: pd.DataFrame, where: str, left: list[str]) -> dict[str, NDArray[Any]]:
    """Return the columns as arrays without Python objects."""
    arrays = {}
    for name, column in table.items():
        values = column.to_numpy()
        if values.dtype.kind not in "biufU":
            if not all(isinstance(value, str) for value in values):
                left.append(f"{where}.{name}")
                continue
            values = values.astype(str)
        arrays[str(name)] = values
    return arrays
