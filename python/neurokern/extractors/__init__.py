"""Extractors: what to take out of a run. Swapping one for another is one line and touches no dataset."""

from neurokern.extractors.confounds import Confounds
from neurokern.extractors.connectivity import functional_connectivity
from neurokern.extractors.fmri import FMRIParcelExtractor, FMRIVolumeExtractor, FMRIVoxelExtractor
from neurokern.extractors.meeg import MEEGExtractor
from neurokern.extractors.stimulus import StimulusFeatures
from neurokern.extractors.stimulus_files import AudioClip, read_audio, read_image

fMRIVoxelExtractor = FMRIVoxelExtractor

__all__ = [
    "AudioClip",
    "Confounds",
    "FMRIParcelExtractor",
    "FMRIVolumeExtractor",
    "FMRIVoxelExtractor",
    "MEEGExtractor",
    "StimulusFeatures",
    "fMRIVoxelExtractor",
    "functional_connectivity",
    "read_audio",
    "read_image",
]
