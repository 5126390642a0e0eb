"""Extractors: what to take out of a run. Swapping one for another is one line and touches no dataset."""

from neurokern.extractors.confounds import Confounds
from neurokern.extractors.connectivity import functional_connectivity
from neurokern.extractors.fmri import FMRIParcelExtractor, FMRIVolumeExtractor, FMRIVoxelExtractor
from neurokern.extractors.meeg import MEEGExtractor

fMRIVoxelExtractor = FMRIVoxelExtractor

__all__ = [
    "Confounds",
    "FMRIParcelExtractor",
    "FMRIVolumeExtractor",
    "FMRIVoxelExtractor",
    "MEEGExtractor",
    "fMRIVoxelExtractor",
    "functional_connectivity",
]
