"""Brain data: spike recordings, BIDS folders of fMRI, EEG and MEG; windows, splits, batches for PyTorch.

Structure first, extraction second: a recording holds spike times and tables; windows say where to look;
counts are made when they are read. A name loads its module when it is first used, so that loading and
splitting work without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_HOME_OF = {
    "AnatomicalImages": "anatomical",
    "BIDSDataset": "bids",
    "BIDSRun": "bids",
    "BIDSIndex": "bids_index",
    "CHANNEL_TYPES": "channels",
    "Channels": "channels",
    "FMRIStream": "window_stream",
    "FMRIWindows": "fmri_windows",
    "MEEGRun": "bids",
    "MEEGWindows": "meeg_windows",
    "HeldOut": "window_splits",
    "StandardizedWindows": "standardized",
    "standardize": "standardized",
    "WindowSplits": "window_splits",
    "check_no_leak": "window_splits",
    "group_windows": "window_splits",
    "k_shot_windows": "window_splits",
    "leave_one_out": "window_splits",
    "split_windows": "window_splits",
    "Clock": "clock",
    "LabeledWindows": "labeled_windows",
    "TimedStimuli": "timed_stimuli",
    "VideoFrames": "video",
    "event_regressors": "event_design",
    "hemodynamic_response": "event_design",
    "read_series": "series_files",
    "series_of_runs": "series_files",
    "PairedWindows": "paired_windows",
    "SampledSeries": "paired_windows",
    "StimulusBatchSampler": "stimulus_sampler",
    "WindowStream": "window_stream",
    "channel_name": "channels",
    "pack_channels": "meeg_batch",
    "collate_windows": "fmri_batch",
    "BinnedSession": "binned",
    "bin_windows": "binned",
    "bright_mask": "brain_mask",
    "load_binned_npz": "binned_npz",
    "SpikeBatch": "batch",
    "collate_spikes": "batch",
    "SpikeRecording": "recording",
    "depth_groups": "regions",
    "with_region_groups": "regions",
    "load_alf": "alf",
    "TimeSeries": "series",
    "load_kilosort": "kilosort",
    "load_npz": "npz",
    "load_nwb": "nwb",
    "load_variables": "variables",
    "select_good_units": "quality",
    "unit_quality": "quality",
    "load_recording": "load",
    "BucketBatchSampler": "bucket_sampler",
    "SessionBatchSampler": "sampler",
    "SpikeWindows": "torch_dataset",
    "Splits": "splits",
    "split_session": "splits",
    "WindowedRecording": "windowed",
    "sliding_windows": "windows",
    "trial_windows": "windows",
}

__all__ = [
    "CHANNEL_TYPES",
    "AnatomicalImages",
    "BIDSDataset",
    "BIDSIndex",
    "BIDSRun",
    "BinnedSession",
    "BucketBatchSampler",
    "Channels",
    "Clock",
    "FMRIStream",
    "FMRIWindows",
    "HeldOut",
    "LabeledWindows",
    "MEEGRun",
    "MEEGWindows",
    "PairedWindows",
    "SampledSeries",
    "SessionBatchSampler",
    "SpikeBatch",
    "SpikeRecording",
    "SpikeWindows",
    "Splits",
    "StandardizedWindows",
    "StimulusBatchSampler",
    "TimeSeries",
    "TimedStimuli",
    "VideoFrames",
    "WindowSplits",
    "WindowStream",
    "WindowedRecording",
    "bin_windows",
    "bright_mask",
    "channel_name",
    "check_no_leak",
    "collate_spikes",
    "collate_windows",
    "depth_groups",
    "event_regressors",
    "group_windows",
    "hemodynamic_response",
    "k_shot_windows",
    "leave_one_out",
    "load_alf",
    "load_binned_npz",
    "load_kilosort",
    "load_npz",
    "load_nwb",
    "load_recording",
    "load_variables",
    "pack_channels",
    "read_series",
    "select_good_units",
    "series_of_runs",
    "sliding_windows",
    "split_session",
    "split_windows",
    "standardize",
    "trial_windows",
    "unit_quality",
    "with_region_groups",
]

if TYPE_CHECKING:
    from neurokern.datasets.alf import load_alf
    from neurokern.datasets.anatomical import AnatomicalImages
    from neurokern.datasets.batch import SpikeBatch, collate_spikes
    from neurokern.datasets.bids import BIDSDataset, BIDSRun, MEEGRun
    from neurokern.datasets.bids_index import BIDSIndex
    from neurokern.datasets.binned import BinnedSession, bin_windows
    from neurokern.datasets.binned_npz import load_binned_npz
    from neurokern.datasets.brain_mask import bright_mask
    from neurokern.datasets.bucket_sampler import BucketBatchSampler
    from neurokern.datasets.channels import CHANNEL_TYPES, Channels, channel_name
    from neurokern.datasets.clock import Clock
    from neurokern.datasets.event_design import event_regressors, hemodynamic_response
    from neurokern.datasets.fmri_batch import collate_windows
    from neurokern.datasets.fmri_windows import FMRIWindows
    from neurokern.datasets.kilosort import load_kilosort
    from neurokern.datasets.labeled_windows import LabeledWindows
    from neurokern.datasets.load import load_recording
    from neurokern.datasets.meeg_batch import pack_channels
    from neurokern.datasets.meeg_windows import MEEGWindows
    from neurokern.datasets.npz import load_npz
    from neurokern.datasets.nwb import load_nwb
    from neurokern.datasets.paired_windows import PairedWindows, SampledSeries
    from neurokern.datasets.quality import select_good_units, unit_quality
    from neurokern.datasets.recording import SpikeRecording
    from neurokern.datasets.regions import depth_groups, with_region_groups
    from neurokern.datasets.sampler import SessionBatchSampler
    from neurokern.datasets.series import TimeSeries
    from neurokern.datasets.series_files import read_series, series_of_runs
    from neurokern.datasets.splits import Splits, split_session
    from neurokern.datasets.standardized import StandardizedWindows, standardize
    from neurokern.datasets.stimulus_sampler import StimulusBatchSampler
    from neurokern.datasets.timed_stimuli import TimedStimuli
    from neurokern.datasets.torch_dataset import SpikeWindows
    from neurokern.datasets.variables import load_variables
    from neurokern.datasets.video import VideoFrames
    from neurokern.datasets.window_splits import (
        HeldOut,
        WindowSplits,
        check_no_leak,
        group_windows,
        k_shot_windows,
        leave_one_out,
        split_windows,
    )
    from neurokern.datasets.window_stream import FMRIStream, WindowStream
    from neurokern.datasets.windowed import WindowedRecording
    from neurokern.datasets.windows import sliding_windows, trial_windows


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'neurokern.datasets' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"neurokern.datasets.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOME_OF)
