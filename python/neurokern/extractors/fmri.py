"""Signals of fMRI runs: voxels of a mask, means of parcels, whole volumes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neurokern.ops import NiftiFile, ParcelAtlas, VoxelMask, decode_nifti

if TYPE_CHECKING:
    from neurokern.datasets.bids import BIDSRun

_RUNS_KEPT = 2  # cleaned runs that a process keeps: cleaning looks at a whole run, windows at parts


class _FMRIExtractor(ABC):
    """What the three kinds share: cleaning, open files, and runs that were cleaned already."""

    def __init__(
        self,
        *,
        normalize: bool = False,
        detrend: bool | str = False,
        high_pass: float | None = None,
        confounds: Sequence[str] = (),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.normalize, self.detrend, self.high_pass, self.dtype = normalize, detrend, high_pass, dtype
        self.confounds = tuple(confounds)
        self._files: dict[Path, NiftiFile] = {}
        self._cleaned: OrderedDict[Path, torch.Tensor] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files and signals behind; a worker opens its own."""
        return self.__dict__ | {"_files": {}, "_cleaned": OrderedDict()}

    @property
    def cleans(self) -> bool:
        """Whether signals are cleaned, which takes a look at the whole run."""
        return bool(self.normalize or self.detrend or self.confounds)

    def n_volumes(self, run: BIDSRun) -> int:
        """Return the volumes (TRs) of a run, from its header."""
        return self._file(run).header.n_volumes

    def extract(self, run: BIDSRun, start: int, stop: int) -> torch.Tensor:
        """Return volumes ``start`` ... ``stop - 1`` of a run, time first."""
        if not self.cleans:
            return self._decode(run, start=start, stop=stop)
        rows = self._cleaned.get(run.path)
        if rows is None:
            rows = self._decode(run, **self._cleaning(run))
            self._cleaned[run.path] = rows
            while len(self._cleaned) > _RUNS_KEPT:
                self._cleaned.popitem(last=False)
        self._cleaned.move_to_end(run.path)
        return rows[start:stop].clone()

    def _cleaning(self, run: BIDSRun) -> dict[str, Any]:
        columns = None
        if self.confounds:
            if run.confounds is None:
                raise ValueError(
                    f"{run.path}: confounds {list(self.confounds)} are asked for, the run has no table of "
                    "them"
                )
            missing = [name for name in self.confounds if name not in run.confounds]
            if missing:
                raise ValueError(
                    f"{run.path}: confounds must be columns of its table, there is no {', '.join(missing)}"
                )
            columns = run.confounds[list(self.confounds)].to_numpy(dtype=np.float64)
        return {
            "detrend": self.detrend,
            "standardize": self.normalize,
            "confounds": columns,
            "high_pass": self.high_pass,
            "tr": None if self.high_pass is None else run.repetition_time,
        }

    def _file(self, run: BIDSRun) -> NiftiFile:
        file = self._files.get(run.path)
        if file is None:
            file = self._files[run.path] = NiftiFile(run.path)
        return file

    def _decode(self, run: BIDSRun, **options: Any) -> torch.Tensor:
        values: torch.Tensor = decode_nifti(self._file(run), dtype=self.dtype, **self._place(), **options)
        return values

    @abstractmethod
    def _place(self) -> dict[str, Any]:
        """Return what of :func:`~neurokern.decode_nifti` says where to look."""

    @abstractmethod
    def feature_dim(self, run: BIDSRun) -> int | tuple[int, ...]:
        """Return the size of a volume's signal."""


class FMRIVoxelExtractor(_FMRIExtractor):
    """Signals of the voxels of a mask, ``(trs, voxels)``.

    Parameters
    ----------
    mask : VoxelMask, array, tensor, path or nibabel image, optional
        Voxels to take, in the order of ``volume[mask]``; all without.
    normalize : bool, default False
        Mean 0 and standard deviation 1 of each voxel over the run.
    detrend : bool or {"linear", "cosine"}, default False
        Remove the run's mean and slope, or all slower than ``high_pass``.
    high_pass : float, optional
        Cut-off in Hz of ``detrend="cosine"``.
    confounds : sequence of str
        Columns of the run's table of confounds that are projected out.
    dtype : torch.dtype, default float32
        float32, float16 or bfloat16.

    Notes
    -----
    Normalizing, detrending and confounds look at the whole run: for prediction, split by run.
    """

    def __init__(self, mask: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.mask = mask if mask is None or isinstance(mask, VoxelMask) else VoxelMask(mask)

    def _place(self) -> dict[str, Any]:
        return {"mask": self.mask} if self.mask is not None else {}

    def _decode(self, run: BIDSRun, **options: Any) -> torch.Tensor:
        return super()._decode(run, **options).flatten(1)

    def feature_dim(self, run: BIDSRun) -> int:
        """Return the number of voxels."""
        return self.mask.n_voxels if self.mask is not None else self._file(run).header.n_voxels


class FMRIParcelExtractor(_FMRIExtractor):
    """Mean signals of parcels, ``(trs, parcels)``.

    Parameters
    ----------
    labels : ParcelAtlas, array, tensor, path or nibabel image
        Whole numbers (x, y, z), 0 outside; or weights (x, y, z, parcels).
    normalize, detrend, high_pass, confounds, dtype
        As in :class:`FMRIVoxelExtractor`, of the parcels' means.
    """

    def __init__(self, labels: Any, **options: Any) -> None:
        super().__init__(**options)
        self.atlas = labels if isinstance(labels, ParcelAtlas) else ParcelAtlas(labels)

    def _place(self) -> dict[str, Any]:
        return {"labels": self.atlas}

    def feature_dim(self, run: BIDSRun) -> int:
        """Return the number of parcels."""
        return self.atlas.n_parcels


class FMRIVolumeExtractor(_FMRIExtractor):
    """Whole volumes, ``(trs, x, y, z)``.

    Parameters
    ----------
    normalize, detrend, high_pass, confounds, dtype
        As in :class:`FMRIVoxelExtractor`, of every voxel.
    """

    def _place(self) -> dict[str, Any]:
        return {}

    def feature_dim(self, run: BIDSRun) -> tuple[int, int, int]:
        """Return the voxels along x, y and z."""
        return self._file(run).header.shape
