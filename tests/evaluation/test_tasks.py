"""What each task hides and asks for."""

from __future__ import annotations

import numpy as np
import pytest

from neurokern.evaluation import n_forward_bins
from neurokern.evaluation.tasks import queries_of, sample_units

REGIONS = np.array([0, 1, 0, 1, 2, -1])
ALL = np.arange(6)


@pytest.mark.parametrize(("n_bins", "expected"), [(100, 10), (20, 2), (19, 1), (10, 1), (5, 1), (2, 1)])
def test_forward_prediction_hides_the_last_tenth_and_at_least_one_bin(n_bins, expected):
    assert n_forward_bins(n_bins) == expected


def test_forward_prediction_needs_a_past():
    with pytest.raises(ValueError, match="at least 2 bins, got 1"):
        n_forward_bins(1)


def test_co_smoothing_hides_one_unit_at_a_time():
    hidden, scored = queries_of("co-smoothing", REGIONS, ALL)
    np.testing.assert_array_equal(hidden, np.eye(6, dtype=bool))
    np.testing.assert_array_equal(scored, hidden)


def test_intra_region_hides_the_unit_and_every_other_region():
    hidden, scored = queries_of("intra-region", REGIONS, ALL)
    np.testing.assert_array_equal(scored, np.eye(6, dtype=bool)[:5])  # unit 5 has no region
    np.testing.assert_array_equal(
        hidden,
        np.array(
            [
                [1, 1, 0, 1, 1, 1],
                [1, 1, 1, 0, 1, 1],
                [0, 1, 1, 1, 1, 1],
                [1, 0, 1, 1, 1, 1],
                [1, 1, 1, 1, 1, 1],  # alone in its region: nothing is visible
            ],
            dtype=bool,
        ),
    )


def test_inter_region_hides_and_asks_for_one_region_at_a_time():
    hidden, scored = queries_of("inter-region", REGIONS, ALL)
    expected = np.array([[1, 0, 1, 0, 0, 0], [0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 1, 0]], dtype=bool)
    np.testing.assert_array_equal(hidden, expected)
    np.testing.assert_array_equal(scored, expected)


def test_only_the_asked_units_are_scored_and_whole_regions_are_hidden():
    hidden, scored = queries_of("inter-region", REGIONS, np.array([2, 5]))
    np.testing.assert_array_equal(hidden, [[True, False, True, False, False, False]])
    np.testing.assert_array_equal(scored, [[False, False, True, False, False, False]])
    assert len(queries_of("co-smoothing", REGIONS, np.array([2, 5]))[0]) == 2


def test_a_subset_of_units_is_spread_over_regions_in_proportion():
    regions = np.repeat([0, 1, 2], [60, 30, 10])
    units = sample_units(regions, 20, seed=3)
    assert len(set(units.tolist())) == 20
    np.testing.assert_array_equal(np.bincount(regions[units]), [12, 6, 2])
    np.testing.assert_array_equal(units, sample_units(regions, 20, seed=3))
    assert units.tolist() != sample_units(regions, 20, seed=4).tolist()


def test_all_units_are_taken_without_a_limit_or_within_it():
    for limit in (None, 6, 100):
        np.testing.assert_array_equal(sample_units(REGIONS, limit, seed=0), ALL)
    with pytest.raises(ValueError, match="max_units"):
        sample_units(REGIONS, 0, seed=0)
