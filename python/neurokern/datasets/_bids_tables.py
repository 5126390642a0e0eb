"""Tables and sidecars of a BIDS folder as they are found: byte order marks, any line ends, loose ends."""

from __future__ import annotations

import csv
import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["read_json", "read_names", "read_tsv"]

# What stands for a missing number in tables that other programs wrote; of texts only n/a does.
_WORDS = frozenset(("None", "none", "null"))
_NO_NUMBER = frozenset(("N/A", "NA", "na", "NaN", "nan", "NAN", "<NA>")) | _WORDS


def read_tsv(path: Path) -> pd.DataFrame:
    """Return a table; a byte order mark, any line ends, and spaces around values are read over.

    Columns of numbers become numbers, with NaN for ``n/a`` (and for what other programs write instead); in
    columns of text ``n/a`` alone is missing, so that a condition may be called ``None``.

    Raises
    ------
    FileNotFoundError
        If it is a link to nowhere.
    ValueError
        If it is no table, or a row has more values than the heading.
    """
    table = _read(path, keep_default_na=False, na_values=["n/a", ""])
    for name, dtype in table.dtypes.items():
        if dtype.kind not in "biuf":
            table[name] = _numbers_or_texts(table[name])
    return table


def read_names(path: Path) -> pd.DataFrame:
    """Return a table of channels or electrodes: ``name`` as text, so that a channel may be called NA or 1.

    Raises
    ------
    FileNotFoundError
        If it is a link to nowhere.
    ValueError
        If it is no table, or has no column ``name``.
    """
    try:  # tables of some hundred texts: pandas takes ten times as long
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, delimiter="\t") if row]
    except FileNotFoundError:
        raise FileNotFoundError(_lost(path)) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} must be a table with tabs, in UTF-8: {error}") from None
    heading = [name.strip() for name in rows[0]] if rows else []
    if "name" not in heading:
        raise ValueError(f"{path} must have a column name, got {', '.join(heading) or 'none'}")
    width = max(len(heading), 1)
    if any(text.strip() for row in rows for text in row[width:]) or len(set(heading)) < width:
        raise ValueError(
            f"{path} must be a table with tabs, with a name of its own for each column, and as many values "
            "in each row"
        )
    texts = [["" if text.strip() == "n/a" else text.strip() for text in row[:width]] for row in rows[1:]]
    padded = [row + [""] * (width - len(row)) for row in texts]
    return pd.DataFrame(padded, columns=heading, dtype=object)


def _read(path: Path, **options: Any) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # Of a row that is longer than the heading pandas would else make the first value a row's name,
            # and move all others by one column. Tabs at the ends of all rows do no harm.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, sep="\t", index_col=False, encoding="utf-8-sig", **options)
        with path.open("rb") as file:
            heading = [name.strip() for name in file.readline().decode("utf-8-sig").split("\t")]
    except FileNotFoundError:
        raise FileNotFoundError(_lost(path)) from None
    except (pd.errors.ParserWarning, pd.errors.ParserError) as error:
        raise ValueError(
            f"{path} must be a table with tabs, with as many values in each row as names in the heading"
            + ("" if isinstance(error, Warning) else f": {str(error).strip()}")
        ) from None
    except (pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be a table with tabs, in UTF-8: {error}") from None
    twice = sorted({name for name in heading if name and heading.count(name) > 1})
    if twice:
        raise ValueError(f"{path} must have one column of each name, there are several of {', '.join(twice)}")
    if len(table.columns) == 1 and "," in heading[0]:
        raise ValueError(f"{path} must have tabs between its columns, got the heading {heading[0]!r}")
    if heading[-1] == "" and len(heading) > 1:  # a tab at the end of the heading, too
        table = table.drop(columns=table.columns[len(heading) - 1 :])
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    return table


def _numbers_or_texts(column: pd.Series) -> pd.Series:
    """Return a column that was not read as numbers as such, if some were only missing, else as texts."""
    values = [value.strip() if isinstance(value, str) else value for value in column.tolist()]
    if any(isinstance(value, bool) for value in values):
        return column
    there = [value for value in values if isinstance(value, str) and value not in _NO_NUMBER]
    if all(map(_is_number, there)) and (there or not _WORDS & set(values)):
        numbers = [float(v) if isinstance(v, str) and v not in _NO_NUMBER else math.nan for v in values]
        return pd.Series(numbers, column.index, dtype=np.float64)
    texts = [math.nan if value in ("n/a", "") else value for value in values]
    return pd.Series(texts, column.index, dtype=object)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # which Python reads over


def read_json(path: Path) -> dict[str, Any]:
    """Return the fields of a sidecar.

    Raises
    ------
    FileNotFoundError
        If it is a link to nowhere.
    ValueError
        If it is no JSON, no object of fields, or gives a field twice with different values.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except FileNotFoundError:
        raise FileNotFoundError(_lost(path)) from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, numbers of thousands of digits
        raise ValueError(f"{path} must be JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold an object of fields, got {type(fields).__name__}")
    return fields


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        for name, value in pairs:
            if value != fields[name]:
                raise ValueError(f"{name} is there twice, as {value!r} and as {fields[name]!r}")
    return fields


def _lost(path: Path) -> str:
    if os.path.islink(path):
        return f"{path} is a link to nowhere; fetch it first, with `datalad get` for instance"
    return f"no such file: {path}"
