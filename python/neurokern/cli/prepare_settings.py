"""What ``neurokern prepare`` takes out of runs: settings, and the extractors that they mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from neurokern.cli.sessions import WindowSettings

if TYPE_CHECKING:
    from neurokern.extractors import MEEGExtractor
    from neurokern.extractors.fmri import FMRIParcelExtractor, FMRIVolumeExtractor, FMRIVoxelExtractor

__all__ = ["FMRISettings", "MEEGSettings", "PrepareSettings"]


@dataclass(frozen=True, kw_only=True)
class FMRISettings:
    """Signals of fMRI, as the extractors of :mod:`neurokern.extractors` take them.

    Attributes
    ----------
    mask, labels, crop : str or None
        Files, at most one of them: voxels of a mask, parcels of an atlas, or volumes cropped to a mask.
    volumes : bool
        Whole volumes, where no file is given; voxels without.
    normalize, detrend, high_pass, low_pass, confounds, fit_on, cache
        As in :class:`~neurokern.extractors.FMRIVoxelExtractor`.
    """

    mask: str | None = None
    labels: str | None = None
    crop: str | None = None
    volumes: bool = False
    normalize: bool = False
    detrend: bool | Literal["linear", "cosine"] = False
    high_pass: float | None = None
    low_pass: float | None = None
    confounds: tuple[str, ...] = ()
    fit_on: tuple[float, ...] = (0.0, 1.0)
    cache: bool | Literal["auto"] = "auto"

    def extractor(self) -> FMRIVoxelExtractor | FMRIParcelExtractor | FMRIVolumeExtractor:
        """Return the extractor that these settings mean."""
        from neurokern.extractors import FMRIParcelExtractor, FMRIVolumeExtractor, FMRIVoxelExtractor

        given = [name for name in ("mask", "labels", "crop") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"fmri: give one of mask, labels and crop, got {' and '.join(given)}")
        options: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("normalize", "detrend", "high_pass", "low_pass", "confounds", "fit_on", "cache")
        }
        if self.labels is not None:
            return FMRIParcelExtractor(self.labels, **options)
        if self.crop is not None or (self.volumes and self.mask is None):
            return FMRIVolumeExtractor(self.crop, **options)
        return FMRIVoxelExtractor(self.mask, **options)


@dataclass(frozen=True, kw_only=True)
class MEEGSettings:
    """Signals of EEG, MEG and intracranial EEG, by :class:`~neurokern.extractors.MEEGExtractor`'s options."""

    picks: str | tuple[str, ...] = "data"
    resample: float | None = None
    l_freq: float | None = None
    h_freq: float | None = None
    notch: float | tuple[float, ...] | None = None
    reference: Literal["average"] | tuple[str, ...] | None = None
    bads: Literal["drop", "keep", "interpolate"] = "drop"
    montage: str | None = None
    rename: bool = True
    regions: str | None = None
    stim_channel: str | None = None

    def extractor(self) -> MEEGExtractor:
        """Return the extractor that these settings mean."""
        from neurokern.extractors import MEEGExtractor

        return MEEGExtractor(**vars(self), cache=True)


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """Everything that decides what is prepared.

    Attributes
    ----------
    data : tuple of str
        BIDS folders, images, recordings, or folders of recordings.
    select : mapping
        Entities of the runs to take, such as ``{"subject": "01", "task": "rest"}``; all without.
    derivatives : bool or None
        As in :class:`~neurokern.datasets.BIDSDataset`.
    windows
        How spikes are binned: the settings of the same name that training has.
    fmri, meeg
        See their classes.
    """

    data: tuple[str, ...] = ()
    select: dict[str, Any] = field(default_factory=dict)
    derivatives: bool | None = None
    windows: WindowSettings = field(default_factory=WindowSettings)
    fmri: FMRISettings = field(default_factory=FMRISettings)
    meeg: MEEGSettings = field(default_factory=MEEGSettings)

    def __post_init__(self) -> None:
        if not isinstance(self.select, dict):
            raise ValueError(f"select must hold entities and values, got {self.select!r}")
