"""What lies in a BIDS folder: one row per file with its entities, and the metadata that it inherits.

Names and inheritance follow the Brain Imaging Data Structure (Gorgolewski et al. 2016,
doi:10.1038/sdata.2016.44).
"""

from __future__ import annotations

import functools
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neurokern.datasets._bids_ignore import Ignored

# key in a file's name -> the entity's full name
ENTITIES = {
    "sub": "subject",
    "ses": "session",
    "sample": "sample",
    "task": "task",
    "tracksys": "tracksys",
    "acq": "acquisition",
    "ce": "ceagent",
    "trc": "tracer",
    "stain": "staining",
    "rec": "reconstruction",
    "dir": "direction",
    "run": "run",
    "mod": "modality",
    "echo": "echo",
    "flip": "flip",
    "inv": "inversion",
    "mt": "mtransfer",
    "part": "part",
    "proc": "processing",
    "hemi": "hemisphere",
    "space": "space",
    "split": "split",
    "recording": "recording",
    "chunk": "chunk",
    "seg": "segmentation",
    "res": "resolution",
    "den": "density",
    "label": "label",
    "desc": "description",
}
_PART = re.compile(r"([a-zA-Z0-9]+)-([a-zA-Z0-9+]+)")
# Entities by which runs of one subject differ; echoes and parts of a run share its events and confounds.
_OF_RUNS = frozenset(
    ("subject", "session", "task", "acquisition", "ceagent", "reconstruction", "direction", "run")
)
_DATA = (".nii", ".nii.gz", ".vhdr", ".eeg", ".edf", ".bdf", ".set", ".fdt", ".fif", ".sqd", ".snirf", ".nwb")
_FOLDERS_OF_DATA = (".ds", ".mefd")  # recordings of CTF and MEF3 are folders of files
_SKIPPED = {"sourcedata", "code", ".git", ".datalad", "stimuli"}


@dataclass(frozen=True)
class BIDSName:
    """A file's name taken apart: ``sub-01_task-rest_bold.nii.gz``."""

    entities: dict[str, str]
    suffix: str
    extension: str

    @classmethod
    def parse(cls, name: str) -> BIDSName | None:
        """Return the parts, or None if the name is not of this form."""
        stem, dot, extension = name.partition(".")
        *pairs, suffix = stem.split("_")
        if not dot or not suffix or "-" in suffix:
            return None
        entities = {}
        for pair in pairs:
            found = _entity(pair)
            if found is None:
                return None
            entities[found[0]] = found[1]
        return cls(entities, suffix, dot + extension)


@functools.lru_cache(maxsize=1 << 14)  # the same few occur in all names
def _entity(pair: str) -> tuple[str, str] | None:
    match = _PART.fullmatch(pair)
    return None if match is None else (ENTITIES.get(match[1], match[1]), match[2])


def dataset_of(root: Path, path: Path) -> Path:
    """Return the folder of the dataset that a file belongs to: a derivative is a dataset of its own."""
    parts = path.relative_to(root).parts
    return root / parts[0] / parts[1] if parts[0] == "derivatives" and len(parts) > 2 else root


class _Sidecars:
    """Metadata files by folder; a file inherits from its own folder and those above, within its dataset."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_folder: dict[str, dict[tuple[str, str], list[tuple[BIDSName, Path]]]] = {}
        self._above: dict[str, list[str]] = {}
        self._fields: dict[Path, tuple[tuple[int, int], dict[str, Any]]] = {}

    def add(self, folder: str, path: Path, name: BIDSName) -> None:
        of_folder = self._by_folder.setdefault(folder, {})
        of_folder.setdefault((name.suffix, name.extension), []).append((name, path))

    def of(self, path: Path, suffix: str, extension: str, beyond: Sequence[str] = ()) -> list[Path]:
        """Return those that apply to a file, the most general first.

        ``beyond`` names entities that they may have and the file not; those without come last.
        """
        folder, file = os.path.split(path)
        name = BIDSName.parse(file)
        if name is None:
            return []
        if folder not in self._above:
            self._above[folder] = self._folders_to(path)
        found: list[Path] = []
        for above in self._above[folder]:
            fitting = []
            for other, other_path in self._by_folder.get(above, {}).get((suffix, extension), ()):
                own = other.entities
                if beyond:
                    own = {key: value for key, value in own.items() if key not in beyond}
                if own.items() <= name.entities.items():
                    fitting.append((len(own) == len(other.entities), len(own), other_path))
            found += [other_path for *_, other_path in sorted(fitting)]
        return found

    def _folders_to(self, path: Path) -> list[str]:
        """Return the folders from the dataset's down to the file's."""
        folders = [path.parent, *path.parent.parents]
        own = folders[: folders.index(dataset_of(self.root, path)) + 1]
        return [os.fspath(folder) for folder in reversed(own) if os.fspath(folder) in self._by_folder]

    def fields(self, path: Path) -> dict[str, Any]:
        """Return the fields of a sidecar, read again only when the file was written again."""
        status = os.stat(path)
        state = (status.st_mtime_ns, status.st_size)
        known = self._fields.get(path)
        if known is None or known[0] != state:
            known = self._fields[path] = (state, read_json(path))
        return known[1]


class BIDSIndex:
    """The files of a BIDS folder; reads names and small tables, never signals.

    Parameters
    ----------
    root : path
        Folder with ``sub-*`` folders, raw or a derivative.

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

    def __init__(self, root: str | os.PathLike[str]) -> None:
        if not isinstance(root, (str, os.PathLike)):
            raise TypeError(f"BIDSIndex: root must be the path of a folder, got {type(root).__name__}")
        self.root = Path(root).absolute()
        if not self.root.exists():
            raise FileNotFoundError(f"BIDSIndex: root must be a folder, {self.root} does not exist")
        if not self.root.is_dir():
            raise NotADirectoryError(
                f"BIDSIndex: root must be a folder with folders sub-*, {self.root} is a file"
            )
        self._sidecars = _Sidecars(self.root)
        rows: list[dict[str, Any]] = []
        for folder, names in _walk(self.root):
            self._add(folder, names, rows)
        columns = dict.fromkeys(column for row in rows for column in row)
        self.files = pd.DataFrame({name: [row.get(name) for row in rows] for name in columns}, dtype=object)

    def _add(self, folder: str, names: list[str], rows: list[dict[str, Any]]) -> None:
        """Take in the files of a folder."""
        place, fixed = Path(folder), None
        for file in names:
            name = BIDSName.parse(file)
            if name is None:
                continue
            path = place / file
            if name.extension in (".json", ".tsv"):
                self._sidecars.add(folder, path, name)
            if name.extension == ".json" or "subject" not in name.entities:
                continue
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
        return [
            Path(folder, name)
            for folder, _, names in os.walk(self.root)
            for name in names
            if name.endswith(_DATA) and not os.path.exists(os.path.join(folder, name))
        ]

    def metadata(self, path: Path) -> dict[str, Any]:
        """Return the metadata of a file: its sidecars' fields, the nearest file deciding."""
        name = BIDSName.parse(path.name)
        fields: dict[str, Any] = {}
        for sidecar in self._sidecars.of(path, name.suffix if name else "", ".json"):
            fields |= self._sidecars.fields(sidecar)
        return fields

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
        files = self.files[self.files["suffix"].isin(suffixes) & self.files["extension"].isin(extensions)]
        if name is None or not len(files):
            return files[:0]
        fits = files["path"] != path
        shared = pd.Series(0, index=files.index)
        present = {str(column) for column in files} & set(ENTITIES.values())
        for entity in sorted(present - {"description"}):
            own, theirs = name.entities.get(entity), files[entity]
            same = theirs.eq(own) if own is not None else theirs.isna()
            fits &= same if entity in _OF_RUNS else same | theirs.isna()
            shared += same.astype(int)
        for entity in _OF_RUNS - present:
            fits &= name.entities.get(entity) is None
        own_dataset = dataset_of(self.root, path)
        alike = files["path"].map(lambda other: dataset_of(self.root, other) == own_dataset)
        order = (alike.astype(int) * 1000 + shared)[fits].sort_values(ascending=False, kind="stable").index
        return files.loc[order]

    def table(self, path: Path, suffix: str) -> pd.DataFrame | None:
        """Return the nearest table of this suffix for a file, or None: ``"events"`` for instance."""
        tables = self._sidecars.of(path, suffix, ".tsv")
        return read_tsv(tables[-1]) if tables else None


def read_tsv(path: Path) -> pd.DataFrame:
    """Return a table with ``n/a`` as NaN; a byte order mark and any line ends are read over."""
    try:
        return pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=True, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be a table with tabs, in UTF-8: {error}") from None


def read_names(path: Path) -> pd.DataFrame:
    """Return a table of channels or electrodes: ``name`` as text, so that a channel may be called NA or 1.

    Raises
    ------
    ValueError
        If it is no table, or has no column ``name``.
    """
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be a table with tabs, in UTF-8: {error}") from None
    if "name" not in table:
        raise ValueError(f"{path} must have a column name, got {', '.join(map(str, table.columns))}")
    return table.apply(lambda column: column.str.strip()).replace("n/a", "")


def read_json(path: Path) -> dict[str, Any]:
    """Return the fields of a sidecar."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} must be JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path} must hold an object of fields, got {type(fields).__name__}")
    return fields


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield folders and their files, both in the order of names.

    Linked folders are not entered, so that no loop is; what ``.bidsignore`` names is left out.
    """
    waiting: list[tuple[str, str, Ignored]] = [(os.fspath(root), "", Ignored(root))]
    while waiting:
        folder, inside, ignored = waiting.pop()
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except PermissionError:
            warnings.warn(f"BIDSIndex: left out {folder}, which may not be read", stacklevel=3)
            continue
        files: list[str] = []
        folders: list[tuple[str, str, Ignored]] = []
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name in _SKIPPED:
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if ignored and ignored.holds(inside + name, folder=is_folder):
                continue
            if is_folder and not name.endswith(_FOLDERS_OF_DATA):
                folders.append(_below(entry.path, inside + name, ignored))
            elif is_folder or entry.is_file():
                files.append(name)
        yield folder, files
        waiting += reversed(folders)


def _below(path: str, inside: str, ignored: Ignored) -> tuple[str, str, Ignored]:
    """Return a folder to walk: a derivative goes by its own ``.bidsignore``."""
    above, _, _ = inside.rpartition("/")
    if above == "derivatives":
        return path, "", Ignored(Path(path))
    return path, f"{inside}/", ignored
