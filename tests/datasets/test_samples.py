"""The packaged recording: real, complete, quick to load, and noticed."""

from __future__ import annotations

import pickle
import zipfile
from importlib import resources

import numpy as np
import pytest

from neurokern.datasets import load_alf
from neurokern.samples import load_sample
from neurokern.samples._convert import FIXTURE, convert


def test_sample_has_the_documented_size():
    sample = load_sample()
    assert (sample.n_units, sample.n_spikes, sample.start, sample.stop) == (289, 124_905, 0.0, 120.0)
    assert int(sample.unit_table["id"].max()) == 499
    assert sample.trials is None


def test_units_of_the_sample_respect_their_refractory_period():
    # Sorted neurons hardly ever fire twice within 1 ms; at these rates, chance would give 50 times as many.
    sample = load_sample()
    order = np.lexsort((sample.times, sample.units))
    same_unit = np.diff(sample.units[order]) == 0
    intervals = np.diff(sample.times[order])[same_unit]
    assert np.mean(intervals < 0.001) < 0.01


def test_sample_equals_the_shared_copy(shared_data):
    sample, shared = load_sample(), load_alf(shared_data / "spikes" / "ibl_alf_120s")
    np.testing.assert_array_equal(sample.times, shared.times)
    np.testing.assert_array_equal(sample.units, shared.units)
    np.testing.assert_array_equal(sample.unit_table["id"], shared.unit_table["id"])


def test_notice_names_source_licence_and_changes():
    notice = (resources.files("neurokern.samples") / "NOTICE.md").read_text()
    for part in (
        "ibllib",
        "MIT License",
        "International Brain Laboratory",
        "Changed",
        "doi:10.1038/s41592-022-01742-6",
    ):
        assert part in notice


def wheel_with(path, fixture):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(FIXTURE, pickle.dumps(fixture))
    return path


def test_conversion_keeps_every_bit(tmp_path):
    times, clusters = np.array([0.1, 1 / 3]), np.array([7, 499], dtype=np.uint32)
    wheel = wheel_with(tmp_path / "w.whl", {"spike_times": times, "spike_clusters": clusters})
    convert(wheel, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as made:
        np.testing.assert_array_equal(made["spike_times_s"], times)
        np.testing.assert_array_equal(made["spike_units"], clusters)


def test_conversion_runs_no_code_from_the_pickle(tmp_path):
    wheel = wheel_with(tmp_path / "w.whl", {"spike_times": pytest.raises})
    with pytest.raises(pickle.UnpicklingError, match="is not part of a numpy array"):
        convert(wheel, tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()
