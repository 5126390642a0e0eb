"""Tables of units and trials as plain arrays in a ``.npz``, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

__all__ = ["arrays_of_table", "check_format", "number", "take_prefixed", "text"]


def arrays_of_table(function: str, prefix: str, table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the columns as arrays named ``<prefix><column>``; missing strings become ""."""
    arrays = {}
    for name, column in table.items():
        values = column.to_numpy()
        if values.dtype.kind not in "biuf":
            missing = column.isna().to_numpy()
            if not all(isinstance(value, str) for value in values[~missing]):
                raise ValueError(
                    f"{function}: column {name!r} holds neither numbers nor strings; drop or convert it"
                )
            values = np.array(
                ["" if gone else value for value, gone in zip(values, missing, strict=True)], dtype=str
            )
        arrays[f"{prefix}{name}"] = values
    return arrays


def take_prefixed(arrays: Mapping[str, np.ndarray], prefixes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the columns in arrays whose name begins with a prefix, by the rest of the name."""
    columns: dict[str, np.ndarray] = {}
    for name, values in arrays.items():
        prefix = next((p for p in prefixes if name.startswith(p) and len(name) > len(p)), None)
        if prefix is not None:
            columns |= columns_of_array(name[len(prefix) :], values)
    return columns


def columns_of_array(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Return (n,) and (n, 1) arrays as one column, (n, 2) and (n, 3) as ``name_0``, ...; others as none."""
    if values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1):
        return {name: values.reshape(-1)}
    if values.ndim == 2 and values.shape[1] in (2, 3):
        return {f"{name}_{k}": values[:, k] for k in range(values.shape[1])}
    return {}


def number(function: str, arrays: Mapping[str, np.ndarray], name: str) -> float | None:
    """Return a stored number, or None if there is none of that name.

    Raises
    ------
    ValueError
        If it is more than one, or no number.
    """
    if name not in arrays:
        return None
    values = arrays[name].reshape(-1)
    if values.size != 1 or values.dtype.kind not in "iufb":
        raise ValueError(
            f"{function}: {name} must be one number, got shape {arrays[name].shape} of {values.dtype}"
        )
    return float(values[0])


def check_format(function: str, arrays: Mapping[str, np.ndarray], known: str) -> None:
    """Raise if a file says that it is of our own kind, but of a version that this code does not know."""
    name = text(arrays, "format") or ""
    if name != known and name.partition("/")[0] == known.partition("/")[0]:
        raise ValueError(
            f"{function}: format must be {known!r}, got {name!r}; a newer neurokern wrote it, update"
        )


def text(arrays: Mapping[str, np.ndarray], name: str, default: str | None = None) -> str | None:
    """Return a stored string, or the default if there is none or it is empty."""
    if name not in arrays or arrays[name].size != 1:
        return default
    return str(arrays[name].reshape(-1)[0]) or default
