"""Delays against row-by-row copies; nothing crosses a run."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neurokern.encoding import complete_rows, delay_features, seconds_to_delays

RUNS = np.array(["b"] * 4 + ["a"] * 3)


def moved(X, delays, runs):
    """Look up every row's source."""
    delayed = np.zeros((len(X), len(delays), X.shape[1]), X.dtype)
    for row in range(len(X)):
        for at, delay in enumerate(delays):
            source = row - delay
            if 0 <= source < len(X) and runs[source] == runs[row]:
                delayed[row, at] = X[source]
    return delayed.reshape(len(X), -1)


@given(st.sets(st.integers(-6, 6), min_size=1, max_size=4).map(list))
def test_each_copy_holds_the_rows_of_its_delay_and_zeros_where_the_run_has_none(delays):
    X = np.arange(1, 15, dtype=np.int32).reshape(7, 2)
    np.testing.assert_array_equal(delay_features(X, delays, runs=RUNS), moved(X, delays, RUNS))
    sources = moved(np.ones((7, 1)), delays, RUNS).all(axis=1)
    np.testing.assert_array_equal(complete_rows(7, delays, runs=RUNS), sources)


def test_a_tensor_gives_a_tensor_of_its_type():
    X = torch.arange(6, dtype=torch.float16).reshape(3, 2)
    delayed = delay_features(X, [1])
    assert isinstance(delayed, torch.Tensor)
    assert delayed.dtype == torch.float16
    assert delayed.tolist() == [[0, 0], [0, 1], [2, 3]]


def test_views_and_foreign_byte_order_are_taken():
    X = np.arange(8, dtype=">f4").reshape(4, 2)[::-1]
    np.testing.assert_array_equal(delay_features(X, [0, 2]), moved(X, [0, 2], np.zeros(4)))


@pytest.mark.parametrize(
    ("seconds", "interval", "delays"),
    [([2, 4, 6, 8], 2.0, [1, 2, 3, 4]), ([0.0, -1.5], 1.5, [0, -1]), ([2.9], 2.0, [1]), ([3.0], 2.0, [2])],
)
def test_seconds_round_to_the_nearest_sample(seconds, interval, delays):
    assert seconds_to_delays(seconds, interval) == delays


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"X": np.ones(7)}, ValueError, "samples, features"),
        ({"X": np.ones((7, 1), complex)}, TypeError, "real numbers"),
        ({"delays": []}, ValueError, "at least one"),
        ({"delays": [1, 1]}, ValueError, "different integers"),
        ({"delays": [0.5]}, TypeError, "an integer"),
        ({"runs": [0, 0, 1, 1, 0, 0, 0]}, ValueError, "got run 0 in several places"),
        ({"runs": [0, 1]}, ValueError, "one label per sample"),
        ({"runs": [np.nan] * 7}, ValueError, "got NaN"),
    ],
)
def test_bad_delays_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        delay_features(**{"X": np.ones((7, 1)), "delays": [0, 1]} | arguments)


@pytest.mark.parametrize(
    ("seconds", "interval", "message"),
    [([], 1.0, "at least one"), ([np.inf], 1.0, "finite"), ([1, 1.2], 1.0, "differ"), ([1], 0, "interval")],
)
def test_seconds_without_samples_of_their_own_are_refused(seconds, interval, message):
    with pytest.raises(ValueError, match=message):
        seconds_to_delays(seconds, interval)
