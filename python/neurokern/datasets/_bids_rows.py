"""Rows of a BIDS dataset: which kinds of files are runs, and which of them are asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neurokern.datasets.bids_index import BIDSIndex
from neurokern.datasets.bids_names import ENTITIES

__all__ = ["KINDS", "NAMES", "check_runs", "choose", "fitting", "of_dataset", "once_each"]

# Suffix and extensions of the files that runs are rows of; those that lie beside them (.eeg, .fdt) are none.
KINDS = {
    "func": ("bold", (".nii", ".nii.gz")),
    "anat": ("T1w", (".nii", ".nii.gz")),
    "eeg": ("eeg", (".vhdr", ".edf", ".bdf", ".set", ".cnt", ".fif")),
    "meg": ("meg", (".fif", ".ds", ".sqd", ".con", ".kdf", ".mhd", ".chn")),
    "ieeg": ("ieeg", (".vhdr", ".edf", ".set", ".mefd", ".nwb", ".fif")),
}
NAMES = set(ENTITIES.values())


def once_each(files: pd.DataFrame) -> pd.DataFrame:
    """Return files without those that are there in an earlier format, too: one recording is one row."""
    stems = [_stem(path) for path in files["path"]]
    if len(set(stems)) == len(stems):
        return files
    ranks = [extension for _, found in KINDS.values() for extension in found]
    best: dict[str, int] = {}
    for row, (stem, extension) in enumerate(zip(stems, files["extension"], strict=True)):
        other = best.setdefault(stem, row)
        if ranks.index(extension) < ranks.index(files["extension"].iloc[other]):
            best[stem] = row
    gone = sorted(set(range(len(files))) - set(best.values()))
    warnings.warn(
        f"BIDSDataset: left out {len(gone)} files that are there in another format, too, such as "
        f"{files['path'].iloc[gone[0]].name}",
        stacklevel=4,
    )
    return files.iloc[sorted(best.values())]


def _stem(path: Path) -> str:
    return os.fspath(path.parent / path.name.partition(".")[0])


def of_dataset(files: pd.DataFrame, derivatives: bool | str | None, entities: dict[str, Any]) -> pd.DataFrame:
    """Return the raw files, those of all derivatives, or of one."""
    if not len(files):
        return files
    if isinstance(derivatives, str):
        return files[files["derivative"].eq(derivatives)]
    wanted = "space" in entities or "description" in entities if derivatives is None else derivatives
    raw = files["derivative"].isna()
    # A derivative's own folder holds no other derivatives: its images are what is asked for.
    return files[raw] if not wanted or raw.all() else files[~raw]


def check_runs(
    index: BIDSIndex,
    modalities: Sequence[str],
    suffixes: Sequence[str] | None,
    derivatives: bool | str | None,
    files: pd.DataFrame,
    chosen: pd.DataFrame,
) -> None:
    """Raise if there are no runs at all, with what may be the reason."""
    if len(chosen):
        return
    if isinstance(derivatives, str) and len(files):
        names = sorted({str(name) for name in files["derivative"] if name is not None})
        raise ValueError(
            f"BIDSDataset: derivatives must name a folder below {index.root.name}/derivatives with such runs "
            f"({', '.join(names) or 'there is none'}), got {derivatives!r}"
        )
    modality = modalities[0]
    suffix, extensions = KINDS[modality]
    suffix = suffixes[0] if suffixes else suffix
    example = extensions[-1] if modality in ("func", "anat") else extensions[0]
    name = f"sub-01_{suffix}" if modality == "anat" else f"sub-01_task-rest_{suffix}"
    lost = index.links_to_nowhere()
    hint = "is it the folder that holds those of the subjects?"
    if lost:
        hint = f"{len(lost)} files are links to nowhere; fetch them first, with `datalad get` for instance"
    raise ValueError(
        f"BIDSDataset: {index.root} must hold runs such as sub-01/{modality}/{name}{example}, got none; "
        f"{hint}"
    )


def choose(root: Path, files: pd.DataFrame, entities: dict[str, Any]) -> pd.DataFrame:
    unknown = sorted(set(entities) - NAMES)
    if unknown:
        short = {full: key for key, full in ENTITIES.items()}
        known = ", ".join(name for name in short if name in ("subject", "session", "task", "run", "space"))
        raise TypeError(
            f"BIDSDataset: entities go by their full names ({known}, ...), got {', '.join(unknown)}"
        )
    found = files[fitting(files, entities)]
    if not len(found):
        there = {n: sorted({str(v) for v in files[n] if v is not None}) for n in files if n in NAMES}
        asked = ", ".join(f"{n}={v!r}" for n, v in entities.items()) or "any"
        raise ValueError(
            f"BIDSDataset: no run in {root} fits {asked}; there are {len(files)} runs with {there}"
        )
    return found.reset_index(drop=True)


def fitting(files: pd.DataFrame, entities: dict[str, Any]) -> pd.Series:
    """Return which rows have the entities that are asked for."""
    fits = pd.Series(True, index=files.index)
    for name, wanted in entities.items():
        if wanted is None:
            continue
        values = files[name] if name in files else pd.Series([None] * len(files), index=files.index)
        options = wanted if isinstance(wanted, (list, tuple, set)) else [wanted]
        fits &= values.map(lambda value, options=options, name=name: _fits(name, value, options)).astype(bool)
    return fits


def _fits(name: str, value: Any, options: Any) -> bool:
    key = {full: short for short, full in ENTITIES.items()}[name]
    for option in options:
        text = str(option).removeprefix(f"{key}-")
        if value is not None and (
            value == text or (value.isdigit() and text.isdigit() and int(value) == int(text))
        ):
            return True
    return False
