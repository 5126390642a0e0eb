"""Tiny recordings on disk."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")


def draw_spikes(rng, n_units, seconds, shared_rate):
    """Return times and units of spikes that share one slow rate, so that units predict each other."""
    seen = rng.random((n_units, 4 * int(seconds * 10))) < 0.12 * shared_rate(seconds)
    unit, at = np.nonzero(seen)
    times = (at + rng.random(len(at))) / 40
    order = np.argsort(times)
    return times[order], unit[order]


def wave(seconds):
    return 1 + 0.9 * np.sin(np.arange(4 * int(seconds * 10)) / 25)


@pytest.fixture
def recording_folder(tmp_path):
    """An ALF folder: 12 units, 60 s, no trials, no regions."""
    folder = tmp_path / "alf_60s"
    folder.mkdir()
    times, units = draw_spikes(np.random.default_rng(0), 12, 60.0, wave)
    np.save(folder / "spikes.times.npy", times)
    np.save(folder / "spikes.clusters.npy", units)
    return folder


@pytest.fixture
def trials_folder(recording_folder):
    """The same with 50 trials, two regions and a choice."""
    n_units, n_trials = 12, 50
    np.save(recording_folder / "clusters.acronym.npy", np.array(["CA1"] * 6 + ["VISp"] * 6)[:n_units])
    np.save(recording_folder / "trials.stimOn_times.npy", np.linspace(1.0, 58.0, n_trials))
    np.save(recording_folder / "trials.choice.npy", np.where(np.arange(n_trials) % 2, 1.0, -1.0))
    return recording_folder


@pytest.fixture
def binned_file(tmp_path):
    """Counts in bins: 40 trials of 20 bins, 10 units in two regions, contrasts on both sides."""
    rng = np.random.default_rng(1)
    contrast = rng.integers(0, 3, (2, 40)) / 2
    rate = 0.6 + 0.5 * (contrast[0] > contrast[1])[:, None, None] * np.ones((1, 20, 10))
    file = tmp_path / "binned_a.npz"
    np.savez(
        file,
        counts=rng.poisson(rate).astype(np.uint8),
        bin_size_s=0.02,
        brain_area=np.array(["CA1"] * 5 + ["VISp"] * 5),
        contrast_left=contrast[0],
        contrast_right=contrast[1],
        mouse="Somebody",
    )
    return file
