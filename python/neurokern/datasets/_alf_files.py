"""The files of an ALF folder, found by the rule ``[_namespace_]object.attribute[.extra...].extension``.

It is the rule of the International Brain Laboratory: https://int-brain-lab.github.io/ONE/alf_intro.html.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from neurokern.datasets._files import read_npy
from neurokern.datasets._tables import columns_of_array

__all__ = ["AlfFolder", "find_collections", "read_object"]

NAME = re.compile(
    r"(?:_(?P<namespace>[A-Za-z0-9]+)_)?(?P<object>[A-Za-z_]\w*)\.(?P<attribute>\w+)(?:\.(?P<extra>.+))?"
    r"\.(?P<extension>npy|csv|tsv|pqt|parquet)"
)
REVISION = re.compile(r"#.*#")
# Folders below the one given; the longest path in use is lab/Subjects/mouse/date/number/alf/probe/sorter.
DEEPEST = 7


class AlfFolder:
    """The ALF files of one folder, newer revisions (``#2024-05-06#/``) before older ones.

    Parameters
    ----------
    path : Path
        Folder that exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.revision = ""
        self._files: dict[tuple[str, str], list[Path]] = {}
        revisions = sorted(p for p in path.iterdir() if p.is_dir() and REVISION.fullmatch(p.name))
        for folder in (path, *revisions):
            found: dict[tuple[str, str], list[Path]] = {}
            for file in sorted(folder.iterdir()):
                match = NAME.fullmatch(file.name)
                if match and file.is_file():
                    found.setdefault((match["object"], match["attribute"]), []).append(file)
            self._files |= found
            if found and folder is not path:
                self.revision = folder.name

    def find(self, function: str, name: str, attribute: str) -> Path | None:
        """Return the file of an attribute, or None; ValueError if several files claim to be it."""
        files = self._files.get((name, attribute), [])
        arrays = [file for file in files if file.suffix == ".npy"] or files
        if len(arrays) > 1:
            raise ValueError(
                f"{function}: several files hold {name}.{attribute}: {[file.name for file in arrays]}"
            )
        return arrays[0] if arrays else None

    def objects(self) -> list[str]:
        """Return the objects that have files here, sorted."""
        return sorted({name for name, _ in self._files})

    def attributes(self, name: str) -> list[str]:
        """Return the attributes that an object has, sorted."""
        return sorted(attribute for object_, attribute in self._files if object_ == name)


def find_collections(root: Path, name: str, attribute: str) -> list[Path]:
    """Return the folders at or below ``root`` that hold ``name.attribute``, sorted; any attribute for "".

    A revision counts as the folder that it revises.
    """
    found = set()
    for folder, subfolders, files in os.walk(root):
        here = Path(folder)
        if len(here.relative_to(root).parts) >= DEEPEST:
            subfolders.clear()
        matches = (NAME.fullmatch(file) for file in files)
        if any(m and m["object"] == name and attribute in ("", m["attribute"]) for m in matches):
            found.add(here.parent if REVISION.fullmatch(here.name) else here)
    return sorted(found)


def read_object(function: str, folder: AlfFolder, name: str) -> pd.DataFrame | None:
    """Return all attributes of an object as columns of one table, or None if there are none.

    Arrays of more than three columns are left out. A table (``trials.table.pqt``) gives its columns too,
    unless an array of the same name gives them.

    Raises
    ------
    ValueError
        If a file is damaged or pickled, or the attributes differ in length.
    """
    columns: dict[str, np.ndarray] = {}
    for attribute in folder.attributes(name):
        file = folder.find(function, name, attribute)
        if file is not None and file.suffix == ".npy" and _is_column(function, file):
            columns |= columns_of_array(attribute, _native(read_npy(function, file)))
    lengths = {f"{name}.{column}": len(values) for column, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{function}: the attributes of {name} must have one length, got {lengths}")
    table = read_table(function, folder, name, "table")
    if table is not None:
        if columns and len(table) != len(next(iter(columns.values()))):
            raise ValueError(f"{function}: {name}.table has {len(table)} rows, but the arrays have {lengths}")
        columns = {str(column): table[column].to_numpy() for column in table.columns} | columns
    return pd.DataFrame(columns) if columns else None


def read_table(function: str, folder: AlfFolder, name: str, attribute: str) -> pd.DataFrame | None:
    """Return a ``.csv``, ``.tsv`` or parquet table, or None if there is none.

    Warns and returns None if it is parquet and nothing can read that.
    """
    file = folder.find(function, name, attribute)
    if file is None or file.suffix == ".npy":
        return None
    try:
        if file.suffix in (".csv", ".tsv"):
            return pd.read_csv(file, sep="\t" if file.suffix == ".tsv" else ",")
        return pd.read_parquet(file)
    except ImportError:
        warnings.warn(f"{function}: {file.name} is left out; `pip install pyarrow` to read it", stacklevel=3)
        return None
    except Exception as error:  # csv and parquet readers raise many kinds
        raise ValueError(f"{function}: cannot read {file.name}: {error}") from error


def parents_within(folder: Path, root: Path) -> Iterable[Path]:
    """Return the folder and its parents up to ``root``, or to a folder ``alf`` that ``root`` lies in."""
    tops = [p for p in (root, *root.parents) if p.name == "alf"]
    top = tops[0] if tops else root
    return [p for p in (folder, *folder.parents) if p == top or top in p.parents]


def _is_column(function: str, file: Path) -> bool:
    # The shape alone is read, so that an array of waveforms costs nothing.
    shape = read_npy(function, file, memory_map=True).shape
    return len(shape) == 1 or (len(shape) == 2 and shape[1] <= 3)


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("="), copy=False)
