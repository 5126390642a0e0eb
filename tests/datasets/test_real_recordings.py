"""Real recordings load, with the numbers that their description gives."""

from __future__ import annotations

import numpy as np
import pytest

from neurokern.datasets import (
    BinnedSession,
    SpikeRecording,
    bin_windows,
    load_npz,
    load_recording,
    sliding_windows,
)


@pytest.mark.parametrize(
    ("file", "n_units", "n_spikes"),
    [
        ("hippocampus_ca1/linear_track.npz", 31, 28_829),
        ("locust_antennal_lobe/locust20000421.npz", 9, 133_338),
        ("locust_antennal_lobe/locust20000613.npz", 9, 98_377),
    ],
)
def test_files_of_times_and_ids_load(shared_data, file, n_units, n_spikes):
    recording = load_npz(shared_data / "spikes" / file)
    assert (recording.n_units, recording.n_spikes) == (n_units, n_spikes)
    assert isinstance(load_recording(shared_data / "spikes" / file), SpikeRecording)


def test_tetrodes_of_ca1_become_a_column(shared_data):
    recording = load_npz(shared_data / "spikes" / "hippocampus_ca1" / "linear_track.npz")
    assert len(recording.unit_table["tetrode"]) == 31
    assert (recording.start, recording.stop) == (4397.0, 6366.0)


def test_folder_of_ibl_is_counted_completely(shared_data):
    recording = load_recording(shared_data / "spikes" / "ibl_alf_120s")
    session = bin_windows(recording, sliding_windows(recording, 2.0), 0.02)
    assert session.counts.shape == (60, 100, 289)
    assert int(session.counts.sum(dtype=np.int64)) == 124_905


def test_sessions_of_steinmetz_load_with_regions_and_labels(shared_data):
    files = sorted((shared_data / "spikes" / "steinmetz2019").glob("*.npz"))
    assert len(files) == 12
    for file in files:
        session = load_recording(file)
        assert isinstance(session, BinnedSession)
        with np.load(file) as source:
            n_trials, n_neurons, n_bins = source["counts"].shape
            assert session.counts.shape == (n_trials, n_bins, n_neurons)
            np.testing.assert_array_equal(session.counts[3, :, 5], source["counts"][3, 5])
            assert session.subject == str(source["mouse"])
        assert {"contrast_left", "contrast_right", "feedback"} <= set(session.trials.columns)
        assert 5 <= len(session.region_index[1]) <= 16
        assert (np.diff(session.windows[:, 0]) > 0).all()
        assert session.notes == ()
