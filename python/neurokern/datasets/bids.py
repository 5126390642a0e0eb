"""Runs of a BIDS folder, chosen by their entities; signals come from extractors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import pandas as pd

from neurokern._check import check_choice
from neurokern.datasets.bids_index import ENTITIES, BIDSIndex, dataset_of, read_json, read_names, read_tsv
from neurokern.datasets.bids_run import REPETITION_TIME, BIDSRun, MEEGRun

if TYPE_CHECKING:
    from neurokern.datasets.fmri_windows import FMRIExtractor, FMRIWindows
    from neurokern.datasets.meeg_windows import MEEGWindows
    from neurokern.extractors.meeg import MEEGExtractor

__all__ = ["BIDSDataset", "BIDSRun", "MEEGRun"]

# Suffix and extensions of the files that runs are rows of; those that lie beside them (.eeg, .fdt) are none.
_KINDS = {
    "func": ("bold", (".nii", ".nii.gz")),
    "eeg": ("eeg", (".vhdr", ".edf", ".bdf", ".set", ".cnt", ".fif")),
    "meg": ("meg", (".fif", ".ds", ".sqd", ".con", ".kdf", ".mhd", ".chn")),
    "ieeg": ("ieeg", (".vhdr", ".edf", ".set", ".mefd", ".nwb", ".fif")),
}
_TR = REPETITION_TIME


class BIDSDataset:
    """Runs of a BIDS folder: structure without signals.

    Parameters
    ----------
    root_dir : path
        A BIDS folder, raw or a derivative such as fMRIPrep's.
    modality : {"func", "eeg", "meg", "ieeg"}
        Kind of data.
    derivatives : bool, optional
        Take images below ``derivatives`` instead of raw ones. Default: if ``space`` or ``description`` is
        asked for, which raw images do not have.
    **entities : str, int or list of them
        What to take, by the entities' full names: ``subject=["01", "02"], task="rest", run=1, space="T1w"``.

    Attributes
    ----------
    table : DataFrame
        A row per run: ``path`` and its entities. A recording of MEG that is split over files is one row.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If no run fits; the message lists what there is.
    TypeError
        If an entity's name is unknown.

    Examples
    --------
    >>> from neurokern.extractors import FMRIVoxelExtractor
    >>> brain = BIDSDataset("ds000001", task="rest")  # doctest: +SKIP
    >>> windows = brain.with_extractor(FMRIVoxelExtractor(mask="mask.nii.gz"), length=16)  # doctest: +SKIP
    >>> windows[0]["signal"].shape  # doctest: +SKIP
    torch.Size([16, 150000])
    """

    def __init__(
        self,
        root_dir: str | os.PathLike[str],
        modality: str = "func",
        *,
        derivatives: bool | None = None,
        **entities: Any,
    ) -> None:
        self.modality = check_choice("BIDSDataset", "modality", modality, _KINDS)
        self._suffix, self._extensions = _KINDS[modality]
        self.index = BIDSIndex(root_dir)
        files = self.index.files
        if len(files):
            chosen = files["datatype"].eq(modality) & files["suffix"].eq(self._suffix)
            files = files[chosen & files["extension"].isin(self._extensions)]
            if "split" in files:  # what follows the first file of a split recording is read with it
                files = files[files["split"].map(lambda part: part is None or part.strip("0") == "1")]
            from_derivatives = (
                "space" in entities or "description" in entities if derivatives is None else derivatives
            )
            raw = files["derivative"].isna()
            # A derivative's own folder holds no other derivatives: its images are what is asked for.
            files = files[raw] if not from_derivatives or raw.all() else files[~raw]
        _check_runs(self.index, modality, files)
        self.table = _choose(self.index.root, files, entities)

    @property
    def root(self) -> Path:
        """The folder."""
        return self.index.root

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.table)

    def __repr__(self) -> str:
        """Return a line that names no subject."""
        return f"BIDSDataset({self.root.name!r}, {self.modality}: {len(self)} runs)"

    def run(self, i: int) -> BIDSRun:
        """Return run ``i`` with its metadata and tables, read now."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"BIDSDataset.run: i must lie in 0 ... {len(self) - 1}, got {i}")
        row = self.table.iloc[i]
        path = row["path"]
        entities = {
            name: row[name] for name in self.table.columns if name in _NAMES and row[name] is not None
        }
        metadata, events = self.index.metadata(path), self.index.table(path, "events")
        if dataset_of(self.root, path) != self.root and (events is None or _TR not in metadata):
            raw = self.index.matching(path, [self._suffix], self._extensions)
            raw = raw[raw["derivative"].isna()]
            if len(raw):
                source = raw["path"].iloc[0]
                events = self.index.table(source, "events") if events is None else events
                inherited = self.index.metadata(source)
                metadata = {name: inherited[name] for name in (_TR,) if name in inherited} | metadata
        if self.modality == "func":
            return BIDSRun(path, entities, metadata, events, self._confounds(path))
        return MEEGRun(path, entities, metadata, events, **self._sensors(path))

    @overload
    def with_extractor(self, extractor: MEEGExtractor, **windows: Any) -> MEEGWindows: ...

    @overload
    def with_extractor(self, extractor: FMRIExtractor, **windows: Any) -> FMRIWindows: ...

    def with_extractor(
        self, extractor: FMRIExtractor | MEEGExtractor, **windows: Any
    ) -> FMRIWindows | MEEGWindows:
        """Return the dataset with signals: windows of every run.

        Parameters
        ----------
        extractor : object of :mod:`neurokern.extractors`
            What to take out of a run: voxels, parcels, volumes; channels.
        **windows
            Length and place of the windows, see :class:`~neurokern.datasets.FMRIWindows` and
            :class:`~neurokern.datasets.MEEGWindows`; whole runs without.

        Returns
        -------
        FMRIWindows or MEEGWindows
            A map-style PyTorch dataset; :class:`~neurokern.datasets.WindowStream` reads it run after run.
        """
        runs = [self.run(i) for i in range(len(self))]
        if self.modality == "func":
            from neurokern.datasets.fmri_windows import FMRIWindows

            return FMRIWindows(runs, extractor, **windows)  # type: ignore[arg-type]
        from neurokern.datasets.meeg_windows import MEEGWindows

        return MEEGWindows(runs, extractor, **windows)  # type: ignore[arg-type]

    def _sensors(self, path: Path) -> dict[str, Any]:
        """Return the tables of channels and electrodes; of electrodes in several spaces those without one."""
        channels = self.index.inherited(path, "channels", ".tsv")
        electrodes = self.index.inherited(path, "electrodes", ".tsv", beyond=("space",))
        systems = self.index.inherited(path, "coordsystem", ".json", beyond=("space",))
        chosen = electrodes[-1] if electrodes else None
        space = None if chosen is None else self.index.space_of(chosen)
        systems = [system for system in systems if self.index.space_of(system) == space]
        return {
            "channels": read_names(channels[-1]) if channels else None,
            "electrodes": None if chosen is None else read_names(chosen),
            "coordinates": read_json(systems[-1]) if systems else {},
        }

    def _confounds(self, path: Path) -> pd.DataFrame | None:
        found = self.index.matching(path, ["timeseries", "regressors"], [".tsv"])
        if "description" not in found or not len(found):
            return None
        found = found[found["description"].eq("confounds")]
        return read_tsv(found["path"].iloc[0]) if len(found) else None


_NAMES = set(ENTITIES.values())


def _check_runs(index: BIDSIndex, modality: str, files: pd.DataFrame) -> None:
    """Raise if there are no runs at all, with what may be the reason."""
    if len(files):
        return
    suffix, extensions = _KINDS[modality]
    example = extensions[-1] if modality == "func" else extensions[0]
    lost = index.links_to_nowhere()
    hint = "is it the folder that holds those of the subjects?"
    if lost:
        hint = f"{len(lost)} files are links to nowhere; fetch them first, with `datalad get` for instance"
    raise ValueError(
        f"BIDSDataset: {index.root} must hold runs such as "
        f"sub-01/{modality}/sub-01_task-rest_{suffix}{example}, got none; {hint}"
    )


def _choose(root: Path, files: pd.DataFrame, entities: dict[str, Any]) -> pd.DataFrame:
    unknown = sorted(set(entities) - _NAMES)
    if unknown:
        short = {full: key for key, full in ENTITIES.items()}
        known = ", ".join(name for name in short if name in ("subject", "session", "task", "run", "space"))
        raise TypeError(
            f"BIDSDataset: entities go by their full names ({known}, ...), got {', '.join(unknown)}"
        )
    found = files
    for name, wanted in entities.items():
        if wanted is None or not len(found):
            continue
        values = found[name] if name in found else pd.Series([None] * len(found), index=found.index)
        options = wanted if isinstance(wanted, (list, tuple, set)) else [wanted]
        found = found[values.map(lambda value, options=options, name=name: _fits(name, value, options))]
    if not len(found):
        there = {n: sorted({str(v) for v in files[n] if v is not None}) for n in files if n in _NAMES}
        asked = ", ".join(f"{n}={v!r}" for n, v in entities.items()) or "any"
        raise ValueError(
            f"BIDSDataset: no run in {root} fits {asked}; there are {len(files)} runs with {there}"
        )
    present = [c for c in found if c in ("path", *_NAMES) and found[c].notna().any()]
    return found[present].reset_index(drop=True)


def _fits(name: str, value: Any, options: Any) -> bool:
    key = {full: short for short, full in ENTITIES.items()}[name]
    for option in options:
        text = str(option).removeprefix(f"{key}-")
        if value is not None and (
            value == text or (value.isdigit() and text.isdigit() and int(value) == int(text))
        ):
            return True
    return False
