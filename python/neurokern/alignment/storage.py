"""Tables of scores as one JSON file that people and programs can read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from neurokern.checkpoint import check_format, read_json, write_json

__all__ = ["read_tables", "write_tables"]

FORMAT = "neurokern-tables"
FORMAT_VERSION = 1
_PERSONAL = {"subject", "session", "participant", "patient", "animal", "mouse", "monkey", "eid"}


def write_tables(file: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write tables, such as :func:`neurokern.alignment.alignment_table` makes, under their names.

    Raises
    ------
    ValueError
        If a column says who the subjects were, or a cell is no number, text, flag or missing value.
    """
    stored = []
    for name, table in tables.items():
        if personal := [c for c in table.columns if _is_personal(str(c))]:
            raise ValueError(
                f"table {name!r} must not say who the subjects were, got the columns {personal}; "
                "average over them, or number them in a column of another name"
            )
        rows = [[_plain(name, cell) for cell in row] for row in table.itertuples(index=False, name=None)]
        settings = {str(key): _plain(name, value) for key, value in table.attrs.items()}
        stored.append(
            {"name": str(name), "settings": settings, "columns": list(map(str, table.columns)), "rows": rows}
        )
    write_json(file, {"format": FORMAT, "format_version": FORMAT_VERSION, "tables": stored})


def read_tables(file: Path) -> dict[str, pd.DataFrame]:
    """Read tables by name, with their settings in ``attrs``; missing numbers are NaN.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing, damaged, of another format or version, or does not hold tables.
    """
    description = read_json(file)
    check_format(description, file, FORMAT, FORMAT_VERSION)
    tables = {}
    try:
        for stored in description["tables"]:
            table = pd.DataFrame(stored["rows"], columns=stored["columns"])
            for column in ("score", "low", "high", "ceiling", "normalized"):
                if column in table:
                    table[column] = pd.to_numeric(table[column])
            table.attrs = dict(stored["settings"])
            tables[str(stored["name"])] = table
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"{file} does not hold tables: {error}") from error
    return tables


def _is_personal(column: str) -> bool:
    """Whether a column names people or recordings: "subject" and "session_id" do, "session_low" does not."""
    words = set(column.lower().split("_")) - {"id", "name", "label", "code", "key"}
    return bool(words) and words <= _PERSONAL


def _plain(name: str, value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"table {name!r} must hold numbers and text, got {value!r}")
