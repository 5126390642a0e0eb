"""Runs of a BIDS folder, chosen by their entities; signals come from extractors."""

from __future__ import annotations

import copy
import functools
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import pandas as pd

from neurokern._check import check_choice
from neurokern.datasets._bids_rows import KINDS, NAMES, check_runs, choose, fitting, of_dataset, once_each
from neurokern.datasets._bids_tables import read_json, read_names
from neurokern.datasets.bids_index import BIDSIndex
from neurokern.datasets.bids_run import REPETITION_TIME, UNREAD, BIDSRun, MEEGRun, RunWithConfounds

if TYPE_CHECKING:
    from neurokern.datasets.anatomical import AnatomicalImages
    from neurokern.datasets.fmri_windows import FMRIExtractor, FMRIWindows
    from neurokern.datasets.meeg_windows import MEEGWindows
    from neurokern.extractors.meeg import MEEGExtractor

__all__ = ["BIDSDataset", "BIDSRun", "MEEGRun"]

_TR = REPETITION_TIME


class BIDSDataset:
    """Runs of a BIDS folder: structure without signals.

    Parameters
    ----------
    root_dir : path or BIDSIndex
        A BIDS folder, raw or a derivative such as fMRIPrep's; or its index, to ask it again.
    modality : {"func", "anat", "eeg", "meg", "ieeg"}, several of them, or None for all
        Kind of data.
    derivatives : bool or str, optional
        Take images below ``derivatives`` instead of raw ones; a name takes those of one pipeline. Default: if
        ``space`` or ``description`` is asked for, which raw images do not have.
    suffix : str or sequence of str, optional
        Last part of the files' names; default ``bold`` of fMRI, ``T1w`` of anatomy (others are ``T2w``,
        ``FLAIR``, ...), and the modality of others.
    **entities : str, int or list of them
        What to take, by the entities' full names: ``subject=["01", "02"], task="rest", run=1, space="T1w"``.

    Attributes
    ----------
    table : DataFrame
        A row per run: ``path``, its entities and, where there are several, ``datatype`` and ``suffix``. A
        recording of MEG that is split over files is one row.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If no run fits; the message lists what there is.
    TypeError
        If an entity's name is unknown.

    Warns
    -----
    UserWarning
        If images that fit are links to nowhere, as in a clone without all of its data, or are there twice, in
        two formats.

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
        root_dir: str | os.PathLike[str] | BIDSIndex,
        modality: str | Sequence[str] | None = "func",
        *,
        derivatives: bool | str | None = None,
        suffix: str | Sequence[str] | None = None,
        **entities: Any,
    ) -> None:
        names = tuple(KINDS) if modality is None else (modality,) if isinstance(modality, str) else modality
        self.modalities = tuple(check_choice("BIDSDataset", "modality", name, KINDS) for name in names)
        self.index = root_dir if isinstance(root_dir, BIDSIndex) else BIDSIndex(root_dir)
        self._suffixes = None if suffix is None else (suffix,) if isinstance(suffix, str) else tuple(suffix)
        self._derivatives = derivatives
        files = self._files(self.index.select)
        chosen = of_dataset(files, derivatives, entities)
        check_runs(self.index, self.modalities, self._suffixes, derivatives, files, chosen)
        self._entities = entities
        self._rows = choose(self.index.root, chosen, entities)
        self._warn_of_lost()

    def _files(self, select: Callable[[str, str, Sequence[str]], pd.DataFrame]) -> pd.DataFrame:
        """Return the files of the modalities, of which an earlier format goes before a later one."""
        found = [
            select(modality, suffix, KINDS[modality][1])
            for modality in self.modalities
            for suffix in self._suffixes or (KINDS[modality][0],)
        ]
        found = [files for files in found if len(files)]
        if not found:
            return pd.DataFrame()
        files = pd.concat(found, ignore_index=True) if len(found) > 1 else found[0]
        files = files.astype(object).where(files.notna(), None)
        if "split" in files:  # what follows the first file of a split recording is read with it
            files = files[files["split"].map(lambda part: part is None or part.strip("0") == "1")]
        return once_each(files)

    def _warn_of_lost(self) -> None:
        """Warn of runs that fit and are links to nowhere."""
        lost = of_dataset(self._files(self.index.lost), self._derivatives, self._entities)
        if len(lost):
            lost = lost[fitting(lost, self._entities)]
        if len(lost):
            warnings.warn(
                f"BIDSDataset: left out {len(lost)} runs of {len(lost) + len(self)} that are links to "
                "nowhere; fetch them first, with `datalad get` for instance",
                stacklevel=3,
            )

    @property
    def root(self) -> Path:
        """The folder."""
        return self.index.root

    @functools.cached_property
    def modality(self) -> str | None:
        """The kind of all runs, or None if there are several."""
        kinds = set(self._rows["datatype"])
        return str(kinds.pop()) if len(kinds) == 1 else None

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """Return a row per run."""
        several = {name for name in ("datatype", "suffix") if self._rows[name].nunique() > 1}
        wanted = {"path", *several, *NAMES}
        return self._rows[[c for c in self._rows if c in wanted and self._rows[c].notna().any()]]

    def query(self, modality: str | Sequence[str] | None = None, **entities: Any) -> BIDSDataset:
        """Return the runs of this dataset that fit, too; the folder is not looked through again.

        Parameters
        ----------
        modality : str or sequence of str, optional
            One or some of the dataset's kinds.
        **entities : str, int or list of them
            As in :class:`BIDSDataset`.
        """
        kinds = (
            self.modalities if modality is None else (modality,) if isinstance(modality, str) else modality
        )
        rows = self._rows[
            self._rows["datatype"].isin(
                [check_choice("BIDSDataset.query", "modality", kind, self.modalities) for kind in kinds]
            )
        ]
        part = copy.copy(self)
        for name in ("modality", "table"):
            part.__dict__.pop(name, None)
        part._rows = choose(self.root, rows, entities)
        return part

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self._rows)

    def __repr__(self) -> str:
        """Return a line that names no subject."""
        counts = self._rows["datatype"].value_counts()
        kinds = ", ".join(f"{kind}: {n} runs" for kind, n in counts.items())
        return f"BIDSDataset({self.root.name!r}, {kinds})"

    def run(self, i: int) -> BIDSRun:
        """Return run ``i`` with its metadata and tables, read now; confounds when they are asked for."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"BIDSDataset.run: i must lie in 0 ... {len(self) - 1}, got {i}")
        row = self._rows.iloc[i]
        path, kind = row["path"], row["datatype"]
        entities = {name: row[name] for name in self._rows.columns if name in NAMES and row[name] is not None}
        metadata = self.index.metadata(path)
        if kind == "anat":
            return BIDSRun(path, entities, metadata, None)
        events = self.index.table(path, "events")
        if row["derivative"] is not None and (events is None or _TR not in metadata):
            raw = self.index.matching(path, [row["suffix"]], KINDS[kind][1])
            raw = raw[raw["derivative"].isna()] if len(raw) else raw
            if len(raw):
                source = raw["path"].iloc[0]
                events = self.index.table(source, "events") if events is None else events
                inherited = self.index.metadata(source)
                metadata = {name: inherited[name] for name in (_TR,) if name in inherited} | metadata
        if kind == "func":
            return RunWithConfounds(path, entities, metadata, events, UNREAD, self._confounds(path))
        return MEEGRun(path, entities, metadata, events, **self._sensors(path))

    @overload
    def with_extractor(self, extractor: MEEGExtractor, **windows: Any) -> MEEGWindows: ...

    @overload
    def with_extractor(self, extractor: FMRIExtractor, **windows: Any) -> FMRIWindows: ...

    def with_extractor(
        self, extractor: FMRIExtractor | MEEGExtractor, **windows: Any
    ) -> FMRIWindows | MEEGWindows | AnatomicalImages:
        """Return the dataset with signals: windows of every run.

        Parameters
        ----------
        extractor : object of :mod:`neurokern.extractors`
            What to take out of a run: voxels, parcels, volumes; channels.
        **windows
            Length and place of the windows, see :class:`~neurokern.datasets.FMRIWindows` and
            :class:`~neurokern.datasets.MEEGWindows`; whole runs without. Anatomical images have none.

        Returns
        -------
        FMRIWindows, MEEGWindows or AnatomicalImages
            A map-style PyTorch dataset; :class:`~neurokern.datasets.WindowStream` reads windows run by run.
        """
        if self.modality is None:
            raise ValueError(
                f"with_extractor: runs must be of one modality, got {self!r}; take one with "
                ".query(modality=...), and an extractor for each"
            )
        runs = [self.run(i) for i in range(len(self))]
        if self.modality == "anat":
            from neurokern.datasets.anatomical import AnatomicalImages

            return AnatomicalImages(runs, extractor, **windows)  # type: ignore[arg-type]
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

    def _confounds(self, path: Path) -> Path | None:
        found = self.index.matching(path, ["timeseries", "regressors"], [".tsv"])
        if "description" not in found:
            return None
        found = found[found["description"].eq("confounds")]
        return found["path"].iloc[0] if len(found) else None
