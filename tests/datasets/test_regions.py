"""Groups that stand in for regions: near-equal sizes along the probe, and honest about the order."""

from __future__ import annotations

import numpy as np
import pytest

from neurokern.datasets import SpikeRecording, depth_groups, with_region_groups


def test_units_are_grouped_by_depth():
    recording = SpikeRecording.from_arrays([0.1] * 4, [0, 1, 2, 3], depths=[400.0, 10.0, 300.0, 20.0])
    groups, basis = depth_groups(recording, 2)
    assert groups.tolist() == ["group 2", "group 1", "group 2", "group 1"]
    assert basis == "depth"


@pytest.mark.parametrize("depths", [None, [1.0, np.nan, 0.0, 2.0]])
def test_without_all_depths_units_are_grouped_by_id_and_that_is_said(depths):
    recording = SpikeRecording.from_arrays([0.1] * 4, [30, 10, 20, 40], depths=depths)
    grouped = with_region_groups(recording, 2)
    assert grouped.regions.tolist() == ["group 1", "group 1", "group 2", "group 2"]
    assert "in order of id (no depths are known" in grouped.notes[-1]
    assert "stand in for brain regions" in grouped.notes[-1]
    assert recording.regions.tolist() == [""] * 4


def test_sizes_differ_by_at_most_one_and_names_sort():
    recording = SpikeRecording.from_arrays(np.full(25, 0.1), np.arange(25))
    groups, _ = depth_groups(recording, 11)
    names, sizes = np.unique(groups, return_counts=True)
    assert sizes.tolist().count(3) + sizes.tolist().count(2) == 11
    assert names[0] == "group 01"
    assert names[-1] == "group 11"


@pytest.mark.parametrize("n_groups", [0, 5, 1.5, -1])
def test_number_of_groups_must_fit_the_units(n_groups):
    recording = SpikeRecording.from_arrays([0.1] * 4, [0, 1, 2, 3])
    with pytest.raises(ValueError, match="n_groups must be 1 to 4"):
        depth_groups(recording, n_groups)
