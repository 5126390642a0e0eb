"""What lies in a BIDS folder: one row per file with its entities, and the metadata that it inherits.

Inheritance follows the Brain Imaging Data Structure (Gorgolewski et al. 2016, doi:10.1038/sdata.2016.44).
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neurokern.datasets._bids_tables import read_json, read_tsv
from neurokern.datasets._bids_tree import Tree
from neurokern.datasets.bids_names import ENTITIES, OF_RUNS, BIDSName, dataset_of

__all__ = ["BIDSIndex"]

_DATA = (".nii", ".nii.gz", ".vhdr", ".eeg", ".edf", ".bdf", ".set", ".fdt", ".fif", ".sqd", ".snirf", ".nwb")
_SIDECARS = (".json", ".tsv")


class _Sidecars:
    """Metadata files by folder; a file inherits from its own folder and those above, within its dataset."""

    def __init__(self, root: Path, tree: Tree) -> None:
        self.root, self._tree = root, tree
        self._by_folder: dict[str, dict[tuple[str, str], list[tuple[BIDSName, Path]]]] = {}
        self._above: dict[str, list[str]] = {}
        self._fields: dict[Path, tuple[tuple[int, ...], dict[str, Any]]] = {}
        # A link to nowhere is told when its file is asked for: what it would say is not known.
        self._lost: dict[str, list[str]] = {}
        for folder, name in tree.lost:
            self._lost.setdefault(folder, []).append(name)

    def _of_folder(self, folder: str) -> dict[tuple[str, str], list[tuple[BIDSName, Path]]]:
        found = self._by_folder.get(folder)
        if found is None:
            found = self._by_folder[folder] = {}
            for file in (*self._tree.files.get(folder, ()), *self._lost.get(folder, ())):
                name = BIDSName.parse(file) if file.endswith(_SIDECARS) else None
                if name is not None:
                    path = Path(folder, file)
                    found.setdefault((name.suffix, name.extension), []).append((name, path))
        return found

    def of(self, path: Path, suffix: str, extension: str, beyond: Sequence[str] = ()) -> list[Path]:
        """Return those that apply to a file, the most general first.

        ``beyond`` names entities that they may have and the file not; those without come last.
        """
        return [found for _, _, found in self._ranked(path, suffix, extension, beyond)]

    def _ranked(
        self, path: Path, suffix: str, extension: str, beyond: Sequence[str] = ()
    ) -> list[tuple[str, int, Path]]:
        """Return folder, number of entities and path of those that apply, the most general first."""
        folder, file = os.path.split(path)
        name = BIDSName.parse(file)
        if name is None:
            return []
        if folder not in self._above:
            self._above[folder] = self._folders_to(path)
        found: list[tuple[str, int, Path]] = []
        for above in self._above[folder]:
            fitting = []
            for other, other_path in self._of_folder(above).get((suffix, extension), ()):
                own = other.entities
                if beyond:
                    own = {key: value for key, value in own.items() if key not in beyond}
                if own.items() <= name.entities.items():
                    fitting.append((len(own) == len(other.entities), len(own), other_path))
            found += [(above, n, other_path) for _, n, other_path in sorted(fitting)]
        return found

    def _folders_to(self, path: Path) -> list[str]:
        """Return the folders from the dataset's down to the file's."""
        folders = [path.parent, *path.parent.parents]
        own = folders[: folders.index(dataset_of(self.root, path)) + 1]
        return [os.fspath(folder) for folder in reversed(own) if self._of_folder(os.fspath(folder))]

    def metadata(self, path: Path, suffix: str) -> dict[str, Any]:
        """Return the fields that a file inherits, the nearest sidecar deciding."""
        fields: dict[str, Any] = {}
        level: list[tuple[str, int, Path]] = []
        for sidecar in self._ranked(path, suffix, ".json"):
            own = self.fields(sidecar[2])
            # BIDS has one sidecar for a file in a folder; where there are several they may not disagree.
            level = [other for other in level if other[0] == sidecar[0]]
            for other in level:
                self._compare(other, sidecar)
            level.append(sidecar)
            fields |= own
        return fields

    def _compare(self, general: tuple[str, int, Path], near: tuple[str, int, Path]) -> None:
        one, other = self.fields(general[2]), self.fields(near[2])
        for name in one.keys() & other.keys():
            if one[name] == other[name]:
                continue
            told = (
                f"{general[2]} and {near[2].name} beside it are of the same files and give their {name} as "
                f"{_short(one[name])} and {_short(other[name])}"
            )
            if general[1] == near[1]:
                raise ValueError(f"{told}; remove one of them")
            warnings.warn(f"{told}; the one with more entities decides", stacklevel=6)

    def fields(self, path: Path) -> dict[str, Any]:
        """Return the fields of a sidecar, read again only when the file was written again."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return read_json(path)  # which says what is wrong
        state = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        known = self._fields.get(path)
        if known is None or known[0] != state:
            known = self._fields[path] = (state, read_json(path))
        return known[1]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."


class BIDSIndex:
    """The files of a BIDS folder; reads names and small tables, never signals.

    Parameters
    ----------
    root : path
        Folder with ``sub-*`` folders, raw or a derivative. Links to folders elsewhere are followed, those
        that lead back into it are not.
    cache : {"auto", True, False}, default "auto"
        Keep the listing in the cache folder (``NEUROKERN_CACHE``, else ``~/.cache/neurokern``), and list
        again only folders that were written to since. "auto": of datasets with thousands of files. Sidecars
        and tables are read when they are asked for.

    Attributes
    ----------
    root : Path
    files : DataFrame
        A row per data file: ``path``, ``datatype`` (such as ``"func"``), ``suffix``, ``extension``,
        ``derivative`` (name of the folder below ``derivatives``, or None) and a column for every entity that
        occurs, by its full name; None where a file has none.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If the folder does not exist, or is none.
    """

    def __init__(self, root: str | os.PathLike[str], *, cache: bool | str = "auto") -> None:
        if not isinstance(root, (str, os.PathLike)):
            raise TypeError(f"BIDSIndex: root must be the path of a folder, got {type(root).__name__}")
        if cache not in (True, False, "auto"):
            raise ValueError(f"BIDSIndex: cache must be True, False or 'auto', got {cache!r}")
        self.root = Path(root).absolute()
        if not self.root.exists():
            raise FileNotFoundError(f"BIDSIndex: root must be a folder, {self.root} does not exist")
        if not self.root.is_dir():
            raise NotADirectoryError(
                f"BIDSIndex: root must be a folder with folders sub-*, {self.root} is a file"
            )
        self._tree = Tree(self.root, cache)
        self._sidecars = _Sidecars(self.root, self._tree)
        self._runs: dict[tuple[Any, ...], dict[tuple[Any, ...], list[dict[str, Any]]]] = {}

    @functools.cached_property
    def files(self) -> pd.DataFrame:
        """Return a row per data file."""
        return self._table(self._rows())

    def select(self, datatype: str, suffix: str, extensions: Sequence[str]) -> pd.DataFrame:
        """Return the rows of ``files`` of one kind, without looking at the others' names.

        Parameters
        ----------
        datatype : str
            Such as ``"func"``.
        suffix : str
            Such as ``"bold"``.
        extensions : sequence of str
            Such as ``(".nii", ".nii.gz")``.
        """
        rows = self._rows(tuple(f"_{suffix}{extension}" for extension in extensions))
        return self._table([row for row in rows if row["datatype"] == datatype])

    def lost(self, datatype: str, suffix: str, extensions: Sequence[str]) -> pd.DataFrame:
        """Return files of one kind that are links to nowhere, as :meth:`select` does those that are there."""
        rows: list[dict[str, Any]] = []
        for folder, name in self._tree.lost:
            if name.endswith(tuple(f"_{suffix}{extension}" for extension in extensions)):
                self._add(folder, [name], rows)
        return self._table([row for row in rows if row["datatype"] == datatype])

    def _table(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        columns = dict.fromkeys(column for row in rows for column in row)
        return pd.DataFrame({name: [row.get(name) for row in rows] for name in columns}, dtype=object)

    def _rows(self, endings: tuple[str, ...] | None = None) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for folder, names in self._tree.files.items():
            chosen = names if endings is None else [name for name in names if name.endswith(endings)]
            if chosen:
                self._add(folder, chosen, rows)
        return rows

    def _add(self, folder: str, names: list[str], rows: list[dict[str, Any]]) -> None:
        """Take in the files of a folder."""
        place, fixed = Path(folder), None
        for file in names:
            name = BIDSName.parse(file)
            if name is None or name.extension == ".json" or "subject" not in name.entities:
                continue
            path = place / file
            if fixed is None:
                dataset = dataset_of(self.root, path)
                fixed = {
                    "datatype": place.name if place != self.root else "",
                    "derivative": None if dataset == self.root else dataset.name,
                }
            rows.append(
                {"path": path, "suffix": name.suffix, "extension": name.extension, **fixed, **name.entities}
            )

    def links_to_nowhere(self) -> list[Path]:
        """Return data files that are links to what is not here, as in a clone without its data."""
        return [Path(folder, name) for folder, name in self._tree.lost if name.endswith(_DATA)]

    def metadata(self, path: Path) -> dict[str, Any]:
        """Return the metadata of a file: its sidecars' fields, the nearest file deciding.

        Raises
        ------
        FileNotFoundError
            If a sidecar is a link to nowhere.
        ValueError
            If a sidecar is no JSON, or two in one folder with as many entities contradict each other.

        Warns
        -----
        UserWarning
            If two in one folder contradict each other, and one has more entities: it decides.
        """
        name = BIDSName.parse(path.name)
        return self._sidecars.metadata(path, name.suffix if name else "")

    def inherited(self, path: Path, suffix: str, extension: str, beyond: Sequence[str] = ()) -> list[Path]:
        """Return the files of a suffix that a file inherits from, the nearest last.

        ``beyond`` names entities that they may have though the file has not, as ``space`` of electrodes.
        """
        return self._sidecars.of(path, suffix, extension, beyond)

    def space_of(self, path: Path) -> str | None:
        """Return the space that a file's name tells, or None."""
        name = BIDSName.parse(path.name)
        return None if name is None else name.entities.get("space")

    def matching(self, path: Path, suffixes: Sequence[str], extensions: Sequence[str]) -> pd.DataFrame:
        """Return files of other kinds, or of other datasets, that are of the same run as a file.

        All entities that tell runs apart are the same (none where the file has none), others that such a file
        has are the file's, too; ``description`` may be any. The most alike come first: those of the same
        dataset, then those that share most entities.
        """
        name = BIDSName.parse(path.name)
        if name is None:
            return self._table([])
        own_dataset, found = dataset_of(self.root, path), []
        for row in self._by_run(suffixes, extensions).get(_run_of(name.entities), ()):
            entities = {key: value for key, value in row.items() if key in _OTHERS}
            if row["path"] != path and entities.items() <= name.entities.items():
                found.append((dataset_of(self.root, row["path"]) != own_dataset, -len(entities), row))
        return self._table([row for _, _, row in sorted(found, key=lambda item: item[:2])])

    def _by_run(
        self, suffixes: Sequence[str], extensions: Sequence[str]
    ) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
        """Return the files of some kinds by the entities of their runs."""
        key = (tuple(suffixes), tuple(extensions))
        if key not in self._runs:
            groups = self._runs[key] = {}
            for row in self._rows(tuple(f"_{s}{e}" for s in suffixes for e in extensions)):
                groups.setdefault(_run_of(row), []).append(row)
        return self._runs[key]

    def table(self, path: Path, suffix: str) -> pd.DataFrame | None:
        """Return the nearest table of this suffix for a file, or None: ``"events"`` for instance."""
        tables = self._sidecars.of(path, suffix, ".tsv")
        return read_tsv(tables[-1]) if tables else None


_OTHERS = frozenset(ENTITIES.values()) - set(OF_RUNS) - {"description"}


def _run_of(entities: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entities.get(name) for name in OF_RUNS)
