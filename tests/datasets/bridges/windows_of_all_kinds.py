"""Small datasets of each kind, and equality of their windows to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from neurokern.datasets import (
    SampledSeries,
    SpikeRecording,
    SpikeWindows,
    TimeSeries,
    WindowedRecording,
    sliding_windows,
)
from neurokern.datasets.batch import SpikeSample


def spikes(n: int = 2) -> SpikeWindows:
    sessions = []
    for seed in range(n):
        draw = np.random.default_rng(seed)
        clock = np.arange(0, 20, 0.1)
        recording = SpikeRecording.from_arrays(
            draw.uniform(0, 20, 300),
            draw.integers(0, 3 + seed, 300) * 2,
            regions=["CA1", "", "DG", "CA1"][: 3 + seed],
            unit_ids=np.arange(3 + seed) * 2,
            series={"wheel.Position": TimeSeries(times=clock[5:], values=np.sin(clock[5:]))},
            session=f"session {seed}",
            stop=20.0,
        )
        windows = sliding_windows(recording, 1.0, 0.5)
        trials = pd.DataFrame({"Choice": np.arange(len(windows)) % 2, "choice": np.arange(len(windows)) / 3})
        sessions.append(WindowedRecording(recording, windows, 0.1, trials))
    return SpikeWindows(sessions, labels=["Choice", "choice"], series=["wheel.Position"])


def eeg() -> Any:
    import mne

    from neurokern.datasets import MEEGWindows
    from neurokern.extractors import MEEGExtractor

    raws = []
    for seed, names in enumerate((["Fz", "Cz", "Oz"], ["Cz", "Pz"])):
        info = mne.create_info(names, 100.0, "eeg", verbose="ERROR")
        values = np.random.default_rng(seed).normal(size=(len(names), 900 + seed))
        places = {name: np.array([0.01 * i, 0.02, 0.1]) for i, name in enumerate(names)}
        raw = mne.io.RawArray(values, info, verbose="ERROR")
        raw.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"))
        raw.set_annotations(mne.Annotations([0.1, 2.0, 5.003], 0.0, ["b", "a", "b"]))
        raws.append(raw)
    return MEEGWindows(raws, MEEGExtractor(), events=True, tmin=-0.5, tmax=0.5, pad=True)


def fmri(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    import nibabel

    from neurokern.datasets import FMRIWindows
    from neurokern.datasets.bids_run import BIDSRun
    from neurokern.extractors import FMRIVoxelExtractor

    runs = []
    for seed in range(2):
        values = np.random.default_rng(seed).normal(100, 5, (3, 3, 3, 11 + seed)).astype(np.float32)
        path = folder / f"run-{seed}.nii"
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
        runs.append(BIDSRun(path, {"subject": "1", "run": str(seed)}, {"RepetitionTime": 2.0}, None))
    mask = np.ones((3, 3, 3), bool)
    return FMRIWindows(runs, FMRIVoxelExtractor(mask, dtype=dtype), length=4, pad=True)


def paired(folder: Path) -> Any:
    from neurokern.datasets import PairedWindows

    bold = fmri(folder)
    clock = np.arange(0, 20, 0.5)
    one = TimeSeries(times=clock, values=np.cos(clock))
    return PairedWindows(bold, {"video": SampledSeries([one, one], rate=2.0)}, pad=True)


def assert_same(one: Any, other: Any) -> None:
    """Raise unless two windows have the same entries, of the same kinds, to the last bit."""
    if isinstance(one, SpikeSample):
        assert isinstance(other, SpikeSample)
        one, other = vars(one), vars(other)
    assert sorted(one) == sorted(other)
    for name, value in one.items():
        assert type(value) is type(other[name]), name
        if isinstance(value, torch.Tensor):
            assert value.dtype == other[name].dtype
            assert torch.equal(value.isnan(), other[name].isnan())
            assert torch.equal(value.nan_to_num(), other[name].nan_to_num()), name
        elif isinstance(value, dict):
            assert_same(value, other[name])
        else:
            assert value == other[name] or (value != value and other[name] != other[name])
