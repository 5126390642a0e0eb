"""Extractors: what to take out of a run. Swapping one for another is one line and touches no dataset."""

from neurokern.extractors.fmri import FMRIParcelExtractor, FMRIVolumeExtractor, FMRIVoxelExtractor

fMRIVoxelExtractor = FMRIVoxelExtractor

__all__ = ["FMRIParcelExtractor", "FMRIVolumeExtractor", "FMRIVoxelExtractor", "fMRIVoxelExtractor"]
