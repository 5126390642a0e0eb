"""Noise ceilings against their definitions, written out, and against responses of known signal and noise."""

import itertools

import numpy as np
import pytest
import torch

from neurokern.encoding import (
    explainable_variance,
    normalize_scores,
    score_predictions,
    spearman_brown,
    split_half_reliability,
)


def responses(n_repeats, n_samples=300, n_targets=4, signal=1.0, seed=0):
    """A signal of variance ``signal`` that all repeats share, and noise of variance 1 in each."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(0, signal**0.5, (n_samples, n_targets))
    return shared, shared + generator.normal(size=(n_repeats, n_samples, n_targets))


def split_half_by_definition(repeats):
    n_repeats = len(repeats)
    half = n_repeats // 2
    correlations = []
    for first in itertools.combinations(range(n_repeats), half):
        for second in itertools.combinations(sorted(set(range(n_repeats)) - set(first)), half):
            means = repeats[list(first)].mean(0), repeats[list(second)].mean(0)
            correlations.append(score_predictions(*means, "pearson"))
    factor, r = n_repeats / half, np.mean(correlations, axis=0)
    return factor * r / (1 + (factor - 1) * r)


@pytest.mark.parametrize("n_repeats", [2, 3, 4, 5])
def test_few_repeats_are_split_in_all_ways(n_repeats):
    repeats = responses(n_repeats, n_samples=20)[1] + 50
    expected = split_half_by_definition(repeats)
    np.testing.assert_allclose(split_half_reliability(repeats), expected, rtol=1e-9)
    np.testing.assert_array_equal(split_half_reliability(repeats), split_half_reliability(repeats, seed=1))


def test_random_splits_follow_the_seed_and_come_near_all_of_them():
    repeats = responses(8)[1]
    drawn = split_half_reliability(repeats, n_splits=20)
    np.testing.assert_array_equal(drawn, split_half_reliability(repeats, n_splits=20))
    assert not np.array_equal(drawn, split_half_reliability(repeats, n_splits=20, seed=1))
    np.testing.assert_allclose(drawn, split_half_reliability(repeats, n_splits=35), atol=0.02)


@pytest.mark.parametrize("signal", [0.25, 1.0, 4.0])
def test_known_signal_and_noise_are_found(signal):
    shared, repeats = responses(6, n_samples=20_000, n_targets=1, signal=signal)
    of_mean = signal / (signal + 1 / 6)
    assert split_half_reliability(repeats) == pytest.approx(of_mean, abs=0.02)
    assert explainable_variance(repeats) == pytest.approx(signal / (signal + 1), abs=0.02)
    assert spearman_brown(explainable_variance(repeats), 6) == pytest.approx(of_mean, abs=0.02)
    true_model = score_predictions(shared, repeats.mean(0), "pearson")
    assert normalize_scores(true_model, split_half_reliability(repeats)).scores == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("standardize", [False, True])
def test_explainable_variance_is_that_of_the_mean_response(standardize):
    repeats = responses(3, n_samples=15)[1] + np.arange(3)[:, None, None]
    centered = repeats - repeats.mean(1, keepdims=True)
    if standardize:
        centered = centered / centered.std(1, keepdims=True)
    plain = centered.mean(0).var(0) / centered.var(1).mean(0)
    uncorrected = explainable_variance(repeats, bias_correction=False, standardize=standardize)
    np.testing.assert_allclose(uncorrected, plain, rtol=1e-9)
    corrected = explainable_variance(repeats, standardize=standardize)
    np.testing.assert_allclose(corrected, plain - (1 - plain) / 2, rtol=1e-9)


def test_noise_has_no_ceiling_on_average_and_identical_repeats_have_the_highest():
    noise = responses(4, n_samples=200, n_targets=400, signal=0.0)[1]
    for estimate in (split_half_reliability(noise), explainable_variance(noise)):
        assert abs(estimate.mean()) < 0.03
    assert explainable_variance(noise, bias_correction=False).mean() == pytest.approx(1 / 4, abs=0.01)
    same = np.repeat(responses(1)[1], 3, axis=0)
    np.testing.assert_allclose(split_half_reliability(same), 1)
    np.testing.assert_allclose(explainable_variance(same), 1)


def test_constant_targets_have_no_ceiling():
    repeats = responses(4)[1]
    repeats[:, :, 0] = 0.1
    repeats[1, :, 1] = 3.0  # in one repeat
    assert np.isnan(split_half_reliability(repeats)).tolist() == [True, False, False, False]
    assert np.isnan(explainable_variance(repeats)).tolist() == [True, False, False, False]
    standardized = explainable_variance(repeats, standardize=True)
    assert np.isnan(standardized).tolist() == [True, True, False, False]


def test_tensors_of_single_precision_are_computed_in_double():
    repeats = torch.from_numpy(responses(3)[1] + 1000).float()
    for function in (split_half_reliability, explainable_variance):
        result = function(repeats)
        assert isinstance(result, torch.Tensor)
        np.testing.assert_allclose(result, function(repeats.double().numpy()), rtol=1e-12)


def test_spearman_brown_has_no_value_beyond_its_pole():
    assert np.isnan(spearman_brown([-1.0], 2)).all()
    np.testing.assert_allclose(spearman_brown(spearman_brown([0.3], 3), 1 / 3), 0.3)


def test_low_and_unknown_ceilings_are_counted_and_give_nan():
    scores = np.array([0.4, 0.4, 0.4, np.nan])
    result = normalize_scores(scores, np.array([0.64, 0.05, np.nan, 0.5]))
    np.testing.assert_allclose(result.scores, [0.5, np.nan, np.nan, np.nan])
    assert (result.n_too_low, result.n_unknown) == (1, 2)
    assert normalize_scores(scores, np.full(4, 0.8), "r2").scores[0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: split_half_reliability(np.ones((1, 5, 2))), "at least 2 repeats"),
        (lambda: split_half_reliability(np.ones((3, 1, 2))), "2 samples"),
        (lambda: explainable_variance(np.ones((5, 2))), "repeats, samples, targets"),
        (lambda: split_half_reliability(np.full((2, 5, 2), np.nan)), "NaN or infinity in 10 of 10"),
        (lambda: split_half_reliability(np.ones((2, 5, 2)), n_splits=0), "n_splits"),
        (lambda: spearman_brown(0.5, 0), "factor"),
        (lambda: normalize_scores(np.ones(2), np.ones(3)), "same shape"),
        (lambda: normalize_scores(np.ones(2), np.ones(2), "mse"), "metric"),
        (lambda: normalize_scores(np.ones(2), np.ones(2), minimum=0), "minimum"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
