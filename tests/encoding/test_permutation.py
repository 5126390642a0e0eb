"""Permutation tests against loops over arrangements, and p-values that keep their promise under no effect."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from neurokern.encoding import adjust_p_values, permutation, permutation_test, score_predictions

RUNS = np.repeat([0, 1], [7, 9])


def pair(n_samples=16, n_targets=3, effect=0.5, seed=0):
    generator = np.random.default_rng(seed)
    p = generator.normal(size=(n_samples, n_targets))
    return p, effect * p + generator.normal(size=p.shape) + 5


def arranged(y, size):
    """Targets under all permutations of whole blocks."""
    n_blocks = len(y) // size
    rest = np.arange(n_blocks * size, len(y))
    for order in itertools.permutations(range(n_blocks)):
        blocks = [np.arange(b * size, (b + 1) * size) for b in order]
        yield y[np.concatenate([*blocks, rest])]


def test_block_permutations_reach_the_exact_p_value():
    p, y = pair(16)
    observed = score_predictions(p, y, "pearson")
    null = np.stack([score_predictions(p, one, "pearson") for one in arranged(y, 3)])
    exact = (null >= observed - 1e-9).mean(0)
    with pytest.warns(UserWarning, match="120 ways"):
        test = permutation_test(p, y, block_size=3, n_permutations=4000)
    np.testing.assert_allclose(test.scores, observed)
    np.testing.assert_allclose(test.p_values, exact, atol=0.03)
    exact_family = (null.max(1)[:, None] >= observed - 1e-9).mean(0)
    np.testing.assert_allclose(test.p_family, exact_family, atol=0.03)


def test_circular_shifts_reach_the_exact_p_value_in_each_run():
    p, y = pair()
    observed = score_predictions(p, y, "pearson")
    null = []
    for first, second in itertools.product(range(2, 6), range(2, 8)):
        moved = np.concatenate([np.roll(y[:7], first, 0), np.roll(y[7:], second, 0)])
        null.append(score_predictions(p, moved, "pearson"))
    with pytest.warns(UserWarning, match="24 ways"):
        test = permutation_test(p, y, method="circular", block_size=2, runs=RUNS, n_permutations=4000)
    np.testing.assert_allclose(test.p_values, (null >= observed).mean(0), atol=0.03)


def test_blocks_stay_within_their_run():
    # Runs that differ in their mean correlate whatever is done within them.
    p, y = pair(16, 1, effect=0.0)
    p[RUNS == 1] += 50
    y[RUNS == 1] += 50
    within = permutation_test(p, y, block_size=1, runs=RUNS, n_permutations=200)
    across = permutation_test(p, y, block_size=1, n_permutations=200)
    assert within.p_values[0] > 0.05
    assert across.p_values[0] == pytest.approx(1 / 201)


@pytest.mark.parametrize("method", ["blocks", "circular"])
def test_chunks_and_the_direct_route_give_the_same(method, monkeypatch):
    p, y = pair(40, 7)
    arguments = {"method": method, "block_size": 2, "n_permutations": 30}
    whole = permutation_test(p, y, **arguments)
    monkeypatch.setattr(permutation, "_TABLE_ELEMENTS", 1)
    monkeypatch.setattr(permutation, "_MOST_BLOCKS", 3)
    parts = permutation_test(p, y, **arguments)
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-12)
    np.testing.assert_array_equal(parts.p_values, whole.p_values)
    np.testing.assert_array_equal(parts.p_family, whole.p_family)


@pytest.mark.parametrize("method", ["blocks", "circular"])
def test_p_values_hold_for_slow_noise_where_single_samples_would_mislead(method):
    generator = np.random.default_rng(1)
    slow = generator.normal(size=(2, 420, 200))
    kernel = np.ones(20) / 20
    p, y = np.apply_along_axis(np.convolve, 1, slow, kernel, "valid")[:, :400]
    test = permutation_test(p, y, method=method, block_size=40, n_permutations=200)
    assert (test.p_values < 0.05).mean() < 0.1
    assert test.p_family.min() > 0.01
    naive = permutation_test(p, y, block_size=1, n_permutations=200)
    assert (naive.p_values < 0.05).mean() > 0.25


def test_an_effect_is_found_and_the_seed_decides_the_rest():
    p, y = pair(200, 3, effect=1.0)
    first = permutation_test(torch.from_numpy(p).float(), torch.from_numpy(y), n_permutations=99, seed=3)
    assert isinstance(first.p_values, torch.Tensor)
    np.testing.assert_allclose(first.p_values, 0.01)
    weak = pair(200, 50, effect=0.1)
    runs = [
        permutation_test(*weak, block_size=5, n_permutations=99, seed=seed).p_values for seed in (3, 3, 4)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_constant_targets_have_no_p_value_and_constant_predictions_the_highest():
    p, y = pair(30)
    y[:, 0], p[:, 1] = 0.1, 0.7
    test = permutation_test(p, y, n_permutations=20)
    assert np.isnan(test.p_values).tolist() == [True, False, False]
    assert np.isnan(test.p_family).tolist() == [True, False, False]
    assert test.scores[1] == 0
    assert test.p_values[1] == 1


@given(st.lists(st.floats(0, 1) | st.just(np.nan), max_size=30))
def test_adjusted_p_values_are_those_of_scipy(p_values):
    p = np.array(p_values, dtype=float)
    adjusted = adjust_p_values(p)
    known = ~np.isnan(p)
    expected = false_discovery_control(p[known]) if known.any() else p[known]
    np.testing.assert_allclose(adjusted[known], expected, rtol=1e-12)
    assert np.isnan(adjusted[~known]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": np.ones((15, 3))}, "same shape"),
        ({"targets": np.full((16, 3), np.nan)}, "targets must be finite"),
        ({"predictions": np.full((16, 3), np.inf)}, "predictions must be finite"),
        ({"method": "samples"}, "method must be one of"),
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"block_size": 9}, "at least 2 blocks"),
        ({"method": "circular", "block_size": 9}, "half of the shortest run"),
        ({"n_permutations": 0}, "n_permutations"),
        ({"seed": -1}, "seed must not be negative"),
        ({"runs": [0] * 15}, "one label per sample"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    p, y = pair()
    with pytest.raises(ValueError, match=message):
        permutation_test(**{"predictions": p, "targets": y} | change)


def test_p_values_outside_of_their_range_are_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        adjust_p_values([0.2, 1.2])
