"""What lies in a BIDS folder: one row per file with its entities, and the metadata that it inherits.

Names and inheritance follow the Brain Imaging Data Structure (Gorgolewski et al. 2016,
doi:10.1038/sdata.2016.44).
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

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
            match = _PART.fullmatch(pair)
            if match is None:
                return None
            entities[ENTITIES.get(match[1], match[1])] = match[2]
        return cls(entities, suffix, dot + extension)


def dataset_of(root: Path, path: Path) -> Path:
    """Return the folder of the dataset that a file belongs to: a derivative is a dataset of its own."""
    parts = path.relative_to(root).parts
    return root / parts[0] / parts[1] if parts[0] == "derivatives" and len(parts) > 2 else root


@dataclass
class _Sidecars:
    """Metadata files by folder; a file inherits from its own folder and those above, within its dataset."""

    root: Path
    by_folder: dict[Path, list[tuple[BIDSName, Path]]] = field(default_factory=dict)

    def add(self, path: Path, name: BIDSName) -> None:
        self.by_folder.setdefault(path.parent, []).append((name, path))

    def of(self, path: Path, suffix: str, extension: str, beyond: Sequence[str] = ()) -> list[Path]:
        """Return those that apply to a file, the most general first.

        ``beyond`` names entities that they may have and the file not; those without come last.
        """
        name = BIDSName.parse(path.name)
        if name is None:
            return []
        found = []
        folders = [path.parent, *path.parent.parents]
        for folder in reversed(folders[: folders.index(dataset_of(self.root, path)) + 1]):
            fitting = []
            for other, other_path in self.by_folder.get(folder, []):
                if other.suffix != suffix or other.extension != extension:
                    continue
                own = {key: value for key, value in other.entities.items() if key not in beyond}
                if own.items() <= name.entities.items():
                    fitting.append((len(own) == len(other.entities), len(own), other_path))
            found += [other_path for *_, other_path in sorted(fitting)]
        return found


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
        rows = []
        for path in _walk(self.root):
            name = BIDSName.parse(path.name)
            if name is None:
                continue
            if name.extension in (".json", ".tsv"):
                self._sidecars.add(path, name)
            if name.extension != ".json" and "subject" in name.entities:
                rows.append(self._row(path, name))
        self.files = pd.DataFrame(rows).astype(object)
        self.files = self.files.where(self.files.notna(), None)

    def links_to_nowhere(self) -> list[Path]:
        """Return data files that are links to what is not here, as in a clone without its data."""
        return [
            Path(folder, name)
            for folder, _, names in os.walk(self.root)
            for name in names
            if name.endswith(_DATA) and not os.path.exists(os.path.join(folder, name))
        ]

    def _row(self, path: Path, name: BIDSName) -> dict[str, Any]:
        dataset = dataset_of(self.root, path)
        fixed = {
            "path": path,
            "datatype": path.parent.name if path.parent != self.root else "",
            "suffix": name.suffix,
            "extension": name.extension,
            "derivative": None if dataset == self.root else dataset.name,
        }
        return {**fixed, **name.entities}

    def metadata(self, path: Path) -> dict[str, Any]:
        """Return the metadata of a file: its sidecars' fields, the nearest file deciding."""
        name = BIDSName.parse(path.name)
        fields: dict[str, Any] = {}
        for sidecar in self._sidecars.of(path, name.suffix if name else "", ".json"):
            fields |= read_json(sidecar)
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


def _walk(folder: Path) -> Iterator[Path]:
    """Yield files in the order of their names; linked folders are not entered, so that no loop is."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except PermissionError:
        warnings.warn(f"BIDSIndex: left out {folder}, which may not be read", stacklevel=3)
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _SKIPPED:
            continue
        if entry.is_dir(follow_symlinks=False):
            if entry.name.endswith(_FOLDERS_OF_DATA):
                yield Path(entry.path)
            else:
                yield from _walk(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)
