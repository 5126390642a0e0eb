"""Signals of fMRI runs: voxels of a mask, means of parcels, whole or cropped volumes."""

from __future__ import annotations

import fnmatch
import functools
import resource
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurokern.extractors.confounds import Confounds
from neurokern.ops import (
    CleaningFit,
    NiftiFile,
    NiftiHeader,
    PackedRun,
    ParcelAtlas,
    StoredRun,
    VoxelBox,
    VoxelMask,
    decode_nifti,
    fit_cleaning,
)
from neurokern.ops._array_cache import CacheEntry
from neurokern.ops._cleaned_run import CleanedRun, clean_run, cleaned_entry
from neurokern.ops._nifti_clean import check_cleaning
from neurokern.ops._nifti_fit import fit_entry
from neurokern.ops._nifti_resident import DECODED_TYPES
from neurokern.ops._packed_run import check_place, packed_entry
from neurokern.ops._run_windows import gather_into, row_stride

if TYPE_CHECKING:
    import pandas as pd

    from neurokern.datasets.bids import BIDSRun

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_FIT_BYTES = 256 << 20  # of coefficients that could not be mapped from the cache


def _most_open() -> int:
    """Return the runs that an extractor holds open, each of which takes up to three file descriptors.

    Batches drawn from more runs open some of them again each time, which takes longer than reading.
    """
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1024 if allowed < 0 else max(_STREAMS_OPEN, min(1024, allowed // 8))


_STREAMS_OPEN = 64  # without a cache: seek points of each lie in memory
_RUNS_OPEN = _most_open()


@dataclass
class _OpenRun:
    """What a process knows of a run: its image, and, once needed, packed values and coefficients."""

    file: NiftiFile
    packed: PackedRun | None = None
    looked_for_packed: bool = False
    fits: bool = False  # whether the mask or atlas was found to
    fit: CleaningFit | None = None
    stored: StoredRun | None = None


class _FMRIExtractor(ABC):
    """What the three kinds share: cleaning, the cache, and open files."""

    def __init__(
        self,
        *,
        normalize: bool = False,
        detrend: bool | str = False,
        high_pass: float | None = None,
        low_pass: float | None = None,
        confounds: Sequence[str] | Confounds = (),
        fit_on: tuple[float, float] = (0.0, 1.0),
        dtype: torch.dtype = torch.float32,
        cache: bool | str = "auto",
    ) -> None:
        if cache not in (True, False, "auto", "cleaned"):
            raise ValueError(f"extractor: cache must be True, False, 'auto' or 'cleaned', got {cache!r}")
        check_cleaning("extractor", detrend, normalize, high_pass, low_pass, "normalize")
        if len(fit_on) != 2 or not 0 <= fit_on[0] < fit_on[1] <= 1:
            raise ValueError(
                "extractor: fit_on must be a part of the run such as (0.0, 0.8), as shares in ascending "
                f"order, got {fit_on!r}"
            )
        if dtype not in _DTYPES:
            raise ValueError(f"extractor: dtype must be one of {', '.join(map(str, _DTYPES))}, got {dtype!r}")
        if isinstance(confounds, str):
            raise TypeError(
                f"extractor: confounds must be a sequence of names, got the text {confounds!r}; put it into "
                "a list"
            )
        self.normalize, self.detrend, self.dtype = normalize, detrend, dtype
        self.high_pass, self.low_pass = high_pass, low_pass
        self.confounds = confounds if isinstance(confounds, Confounds) else tuple(confounds)
        self.fit_on, self.cache = (float(fit_on[0]), float(fit_on[1])), cache
        self._runs: OrderedDict[Path, _OpenRun] = OrderedDict()
        self._every: dict[tuple[int, int, int], VoxelMask] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files and signals behind; a worker opens its own."""
        return self.__dict__ | {"_runs": OrderedDict(), "_every": {}}

    @property
    def cleans(self) -> bool:
        """Whether signals are cleaned, which takes a look at the whole run, once."""
        confounds = self.confounds
        projects = confounds.takes_columns if isinstance(confounds, Confounds) else bool(confounds)
        return bool(self.normalize or self.detrend or self.low_pass or projects)

    def n_volumes(self, run: BIDSRun) -> int:
        """Return the volumes (TRs) of a run, from its header."""
        return self._open(run).file.header.n_volumes

    def feature_shape(self, run: BIDSRun) -> tuple[int, ...]:
        """Return the shape of a volume's signal."""
        target = self._target(self._open(run).file.header)
        return (target.n_voxels if isinstance(target, VoxelMask) else target.n_parcels,)

    def feature_dim(self, run: BIDSRun) -> int | tuple[int, ...]:
        """Return the size of a volume's signal."""
        shape = self.feature_shape(run)
        return shape[0] if len(shape) == 1 else shape

    def kept(self, run: BIDSRun) -> NDArray[np.bool_]:
        """Return the volumes of a run that are not scrubbed, (trs,); the others are not ``valid``."""
        if not isinstance(self.confounds, Confounds):
            return np.ones(self.n_volumes(run), dtype=bool)
        return self.confounds.kept(self._table(run))

    def prepare(self, run: BIDSRun) -> None:
        """Fill the cache with all that windows of this run need; nothing stays open."""
        opened = _OpenRun(NiftiFile(run.path, cache=self.cache is not False))
        if self._keeps_cleaned:
            self._clean(opened, run)
            return
        packed = self._packed(opened)
        if self.cleans:
            self._fit(opened, run, packed)

    def cache_entries(self, run: BIDSRun) -> list[CacheEntry]:
        """Return the files of the cache that windows of this run are read from, made or not."""
        if self.cache is False:
            return []
        opened = _OpenRun(NiftiFile(run.path))
        target = self._target(opened.file.header)
        if self._keeps_cleaned:
            return [cleaned_entry(opened.file, target, self._dtype_name, **self._fit_options(run))]
        packs = self._packs(opened)
        entries = [packed_entry(opened.file, target)] if packs else []
        if self.cleans:
            packed = functools.partial(PackedRun, opened.file, target) if packs else None
            entries.append(fit_entry(opened.file, target, packed=packed, **self._fit_options(run)))
        return entries

    def extract(self, run: BIDSRun, start: int, stop: int, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return volumes ``start`` ... ``stop - 1`` of a run, time first; in ``out`` if given."""
        opened = self._open(run)
        if out is None:
            out = torch.empty((stop - start, *self.feature_shape(run)), dtype=self.dtype)
        rows = out.view(stop - start, -1)
        stored = self.stored(run)
        if stored is not None:
            if not 0 <= start <= stop <= stored.shape[0]:
                raise ValueError(
                    f"extract: start and stop must lie in order within the {stored.shape[0]} volumes of the "
                    f"run, got {start} and {stop}"
                )
            gather_into(rows[None], [stored], np.array([start]), stride=row_stride(rows))
        elif not self.cleans:
            self._decode(opened, start, stop, rows)
        else:
            self._decode_and_clean(opened, run, start, stop, rows)
        return out

    def stored(self, run: BIDSRun) -> StoredRun | None:
        """Return the run as :func:`~neurokern.ops.gather_windows` takes it, or None if it is not packed."""
        opened = self._open(run)
        if opened.stored is None:
            if self._keeps_cleaned:
                opened.stored = self._clean(opened, run).stored()
                return opened.stored
            packed = self._packed(opened)
            if packed is None:
                return None
            fit = self._fit(opened, run, packed) if self.cleans else None
            opened.stored = packed.stored(fit)
        return opened.stored

    def _decode_and_clean(self, opened: _OpenRun, run: BIDSRun, start: int, stop: int, out: Any) -> None:
        values = out if out.dtype == torch.float32 else torch.empty(out.shape)
        whole = stop - start == opened.file.header.n_volumes
        if whole:  # one pass serves both the fit and the result
            self._decode(opened, start, stop, values)
        fit = self._fit(opened, run, None, values if whole else None)
        if not whole:
            self._decode(opened, start, stop, values)
        fit.apply(values, start, out)

    def _decode(self, opened: _OpenRun, start: int, stop: int, out: Any) -> None:
        target = self._target(opened.file.header)
        if not opened.fits:
            check_place(opened.file, target)
            opened.fits = True
        if isinstance(target, VoxelMask) and 0 <= start < stop <= opened.file.header.n_volumes:
            # What decode_nifti would do, without looking at all its arguments for every window.
            opened.file.decode_into(out, target, start, DECODED_TYPES[str(out.dtype).removeprefix("torch.")])
            return
        place = {"mask": target} if isinstance(target, VoxelMask) else {"labels": target}
        decode_nifti(opened.file, **place, start=start, stop=stop, out=out)

    def _open(self, run: BIDSRun) -> _OpenRun:
        opened = self._runs.get(run.path)
        if opened is None:
            opened = self._runs[run.path] = _OpenRun(NiftiFile(run.path, cache=self.cache is not False))
            most = min(_RUNS_OPEN, _STREAMS_OPEN) if self.cache is False else _RUNS_OPEN
            while len(self._runs) > most:
                self._runs.popitem(last=False)
        self._runs.move_to_end(run.path)
        return opened

    def _packed(self, opened: _OpenRun) -> PackedRun | None:
        if opened.looked_for_packed:
            return opened.packed
        if self._packs(opened):
            try:
                opened.packed = opened.file.pack(self._target(opened.file.header))
            except OSError:
                if self.cache != "auto":
                    raise
        opened.looked_for_packed = True
        return opened.packed

    def _packs(self, opened: _OpenRun) -> bool:
        """Whether the run's values go to the cache."""
        if self.cache == "auto":
            return opened.file.is_compressed and self._chooses
        return self.cache is not False and not self._keeps_cleaned

    @property
    def _keeps_cleaned(self) -> bool:
        """Whether cleaned signals go to the cache, instead of the image's values."""
        return self.cache == "cleaned" and self.cleans

    @property
    def _dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def _clean(self, opened: _OpenRun, run: BIDSRun) -> CleanedRun:
        target = self._target(opened.file.header)
        return clean_run(opened.file, target, self._dtype_name, **self._fit_options(run))

    def _fit(self, opened: _OpenRun, run: BIDSRun, packed: PackedRun | None, rows: Any = None) -> CleaningFit:
        if opened.fit is None:
            opened.fit = fit_cleaning(
                opened.file,
                self._target(opened.file.header),
                packed=packed,
                rows=rows,
                cache=self.cache is not False,
                **self._fit_options(run),
            )
            self._forget_fits()
        return opened.fit

    def _fit_options(self, run: BIDSRun) -> dict[str, Any]:
        return {
            "detrend": self.detrend,
            "standardize": self.normalize,
            "confounds": self._columns(run),
            "high_pass": self.high_pass,
            "low_pass": self.low_pass,
            "tr": None if self.high_pass is None and self.low_pass is None else run.repetition_time,
            "fitted": self._fitted(run),
        }

    def _forget_fits(self) -> None:
        """Drop the oldest coefficients in memory, but those just used, beyond the bound."""
        held = [opened for opened in self._runs.values() if opened.fit is not None and opened.fit.n_bytes]
        n_bytes = sum(opened.fit.n_bytes for opened in held if opened.fit is not None)
        for opened in held[:-1]:
            if n_bytes <= _FIT_BYTES:
                return
            n_bytes -= opened.fit.n_bytes if opened.fit is not None else 0
            opened.fit = opened.stored = None

    def _fitted(self, run: BIDSRun) -> NDArray[np.bool_]:
        """Return the volumes that cleaning is fitted on, (trs,)."""
        kept = self.kept(run).copy()
        first, last = (round(share * len(kept)) for share in self.fit_on)
        kept[:first] = kept[last:] = False
        if kept.sum() < 2:
            raise ValueError(
                f"{run.path}: of {len(kept)} volumes {int(kept.sum())} are left to fit cleaning on, after "
                f"scrubbing and with fit_on={self.fit_on}; leave the run out, or scrub less"
            )
        return kept

    def _table(self, run: BIDSRun) -> pd.DataFrame:
        if run.confounds is None:
            raise ValueError(
                f"{run.path}: confounds are asked for, the run has no table of them "
                "(_desc-confounds_timeseries.tsv)"
            )
        if len(run.confounds) != self.n_volumes(run):
            raise ValueError(
                f"{run.path}: the table of confounds must have a row for each of {self.n_volumes(run)} "
                f"volumes, it has {len(run.confounds)}"
            )
        return run.confounds

    def _columns(self, run: BIDSRun) -> NDArray[np.float64] | None:
        """Return the run's confounds, (trs, n)."""
        if not self.confounds:
            return None
        table = self._table(run)
        names = self._names(run.path, table)
        if not names:
            return None
        texts = [name for name in names if table[name].infer_objects().dtype.kind not in "biuf"]
        if texts:
            raise ValueError(f"{run.path}: confounds must be columns of numbers, {', '.join(texts)} are none")
        values = table[names].to_numpy(dtype=np.float64, copy=True, na_value=np.nan)
        # Derivatives and displacements have no first value: the second stands in for it.
        if len(values) > 1:
            values[0] = np.where(np.isnan(values[0]), values[1], values[0])
        unknown = [
            name for name, column in zip(names, values.T, strict=True) if not np.isfinite(column).all()
        ]
        if unknown:
            raise ValueError(
                f"{run.path}: confounds must have a number for each volume, {', '.join(unknown[:6])} have not"
            )
        return values

    def _names(self, path: Path, table: pd.DataFrame) -> list[str]:
        """Return the columns to project out."""
        if isinstance(self.confounds, Confounds):
            return self.confounds.columns(table)
        names: dict[str, None] = {}
        columns = [str(name) for name in table]
        for wanted in self.confounds:
            found = [name for name in columns if fnmatch.fnmatchcase(name, wanted)]
            if not found:
                raise ValueError(
                    f"{path}: confounds must be columns of its table, there is no {wanted}; there are "
                    f"{', '.join(columns[:12])}{', ...' if len(columns) > 12 else ''}"
                )
            names.update(dict.fromkeys(found))
        return list(names)

    def _all(self, header: NiftiHeader) -> VoxelMask:
        if header.shape not in self._every:
            self._every[header.shape] = VoxelMask.all(header.shape)
        return self._every[header.shape]

    @property
    @abstractmethod
    def _chooses(self) -> bool:
        """Whether less than whole volumes are taken."""

    @abstractmethod
    def _target(self, header: NiftiHeader) -> VoxelMask | ParcelAtlas:
        """Return the voxels or parcels to take of an image."""


class FMRIVoxelExtractor(_FMRIExtractor):
    """Signals of the voxels of a mask, ``(trs, voxels)``.

    Parameters
    ----------
    mask : VoxelMask, array, tensor, path or nibabel image, optional
        Voxels to take, in the order of ``volume[mask]``; all without.
    normalize : bool, default False
        Mean 0 and standard deviation 1 of each voxel over the run; 0 where it has no variance.
    detrend : bool or {"linear", "cosine"}, default False
        Remove the run's mean and slope, or all slower than ``high_pass``.
    high_pass : float, optional
        Cut-off in Hz of ``detrend="cosine"``.
    low_pass : float, optional
        Remove all faster than this, in Hz, by cosines in the same projection.
    confounds : Confounds or sequence of str
        What is projected out of the run's table of confounds: by what it is (:class:`Confounds`, which
        scrubs, too), or by name; ``*`` and ``?`` stand for any text and any character (``"trans_*"``). Where
        a column has no first value, as derivatives, the second is taken.
    fit_on : (float, float), default (0.0, 1.0)
        The part of each run, as shares, that mean, scale, trends and confounds are estimated on; the rest is
        cleaned by what was found there. To predict the last fifth of a run from what came before, (0.0, 0.8).
    dtype : torch.dtype, default float32
        float32, float16 or bfloat16.
    cache : {"auto", True, False, "cleaned"}, default "auto"
        Keep what was decoded in the cache folder (``NEUROKERN_CACHE``, else ``~/.cache/neurokern``), and map
        it in later epochs, other workers and other programs. True: the chosen voxels of every run, packed in
        the type of the image (:meth:`~neurokern.ops.NiftiFile.pack`). "auto": of compressed images of which a
        mask, parcels or a crop is taken; and where the folder cannot be written, or is full (50 GiB, or
        ``NEUROKERN_CACHE_GIB``), go without. Both keep the coefficients of cleaning. "cleaned": signals that
        are cleaned already, in ``dtype`` and with the same bits; twice the bytes of int16 in float32, and
        windows cost no more than without cleaning, which pays with many confounds. False: nothing is
        written. ``neurokern.ops.prune_cache`` removes what was kept.

    Notes
    -----
    Normalizing, detrending and confounds look at the whole run, once; windows are then cleaned by themselves
    (:class:`~neurokern.ops.CleaningFit`). For prediction, split by run, or use ``fit_on``.
    """

    def __init__(self, mask: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.mask = mask if mask is None or isinstance(mask, VoxelMask) else VoxelMask(mask)

    @property
    def _chooses(self) -> bool:
        return self.mask is not None

    def _target(self, header: NiftiHeader) -> VoxelMask:
        return self._all(header) if self.mask is None else self.mask


class FMRIParcelExtractor(_FMRIExtractor):
    """Mean signals of parcels, ``(trs, parcels)``.

    Parameters
    ----------
    labels : ParcelAtlas, array, tensor, path or nibabel image
        Whole numbers (x, y, z), 0 outside; or weights (x, y, z, parcels).
    normalize, detrend, high_pass, low_pass, confounds, fit_on, dtype, cache
        As in :class:`FMRIVoxelExtractor`, of the parcels' means.
    """

    def __init__(self, labels: Any, **options: Any) -> None:
        super().__init__(**options)
        self.atlas = labels if isinstance(labels, ParcelAtlas) else ParcelAtlas(labels)

    @property
    def _chooses(self) -> bool:
        return True

    def _target(self, header: NiftiHeader) -> ParcelAtlas:
        return self.atlas


class FMRIVolumeExtractor(_FMRIExtractor):
    """Volumes, whole or cropped, ``(trs, x, y, z)``.

    Parameters
    ----------
    crop : VoxelBox, three pairs (start, stop), or a mask (VoxelMask, array, path, image), optional
        Take this box of each volume alone; of a mask, the smallest box that holds it.
    normalize, detrend, high_pass, low_pass, confounds, fit_on, dtype, cache
        As in :class:`FMRIVoxelExtractor`, of every voxel.

    Notes
    -----
    ``extractor.box(run)`` is the box, whose ``put_back`` puts cropped volumes to their place.
    """

    def __init__(self, crop: Any = None, **options: Any) -> None:
        super().__init__(**options)
        is_bounds = isinstance(crop, (tuple, list)) and len(crop) == 3
        self.crop = crop if crop is None or is_bounds or isinstance(crop, VoxelBox) else VoxelBox.around(crop)

    @property
    def _chooses(self) -> bool:
        return self.crop is not None

    def box(self, run: BIDSRun) -> VoxelBox:
        """Return the box that is taken of a run's volumes."""
        return self._box(self._open(run).file.header)

    def feature_shape(self, run: BIDSRun) -> tuple[int, ...]:
        """Return the voxels along x, y and z."""
        return self.box(run).shape

    def _box(self, header: NiftiHeader) -> VoxelBox:
        if self.crop is None:
            return VoxelBox([(0, n) for n in header.shape], header.shape)
        if not isinstance(self.crop, VoxelBox):
            self.crop = VoxelBox(self.crop, header.shape)
        return self.crop

    def _target(self, header: NiftiHeader) -> VoxelMask:
        return self._all(header) if self.crop is None else self._box(header).mask
