"""Similarities of RDMs are those of scipy and of their definitions, for ties and any number of pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from neurokern.alignment import RDM_COMPARISONS, compare_rdms, compute_rdm, evaluate_models, rdm_noise_ceiling

REFERENCE = {
    "pearson": lambda a, b: stats.pearsonr(a, b)[0],
    "spearman": lambda a, b: stats.spearmanr(a, b)[0],
    "cosine": lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b),
}


def tau_a(a, b):
    agree = np.sign(a[:, None] - a) * np.sign(b[:, None] - b)
    return agree.sum() / (len(a) * (len(a) - 1))


def whitened(a, b, *, centered):
    """Cosine under the covariance of squared distances of noise (Diedrichsen et al. 2021, eq. 11)."""
    n = int((1 + np.sqrt(1 + 8 * len(a))) / 2)
    row, column = np.triu_indices(n, 1)
    contrasts = np.eye(n)[row] - np.eye(n)[column]
    inverse = np.linalg.inv((contrasts @ contrasts.T) ** 2)
    if centered:
        a, b = a - a.mean(), b - b.mean()
    return a @ inverse @ b / np.sqrt((a @ inverse @ a) * (b @ inverse @ b))


def tied_rdms(seed, n_rdms, n_pairs=28):
    return np.random.default_rng(seed).integers(0, 6, (n_rdms, n_pairs)).astype(float)


@pytest.mark.parametrize("method", RDM_COMPARISONS)
def test_a_similarity_is_its_definition_also_with_ties(method):
    reference = REFERENCE | {
        "kendall": tau_a,
        "whitened-cosine": lambda a, b: whitened(a, b, centered=False),
        "whitened-pearson": lambda a, b: whitened(a, b, centered=True),
    }
    first, second = tied_rdms(0, 6).reshape(2, 3, 28), tied_rdms(1, 2)
    result = compare_rdms(first, second, method)
    assert result.shape == (2, 3, 2)
    for index in np.ndindex(result.shape):
        expected = reference[method](first[index[:2]], second[index[2]])
        np.testing.assert_allclose(result[index], expected, atol=1e-12)


@given(arrays(np.int8, 15, elements=st.integers(-3, 3)), arrays(np.int8, 15, elements=st.integers(-3, 3)))
def test_kendall_counts_every_pair_of_pairs(a, b):
    a, b = a.astype(float), b.astype(float)
    np.testing.assert_allclose(compare_rdms(a, b, "kendall"), tau_a(a, b), atol=1e-12)


def test_kendall_takes_rdms_of_hundreds_of_conditions():
    a, b = np.random.default_rng(2).random((2, 44850))  # 300 conditions: 1e9 pairs of pairs
    np.testing.assert_allclose(compare_rdms(a, b, "kendall"), stats.kendalltau(a, b)[0], atol=1e-12)


@given(arrays(np.float64, 10, elements=st.floats(0, 1e3, width=16), unique=True))
def test_ranks_see_the_order_alone(rdm):
    for method in ("spearman", "kendall"):
        assert float(compare_rdms(rdm, np.sqrt(rdm) + 3, method)) == pytest.approx(1)


def test_whitened_cosine_of_squared_distances_is_linear_cka():
    from neurokern.alignment import cka

    X, Y = np.random.default_rng(3).normal(size=(2, 8, 5))
    rdms = compute_rdm(X, "sqeuclidean"), compute_rdm(Y, "sqeuclidean")
    np.testing.assert_allclose(compare_rdms(*rdms, "whitened-cosine"), cka(X, Y))


@pytest.mark.parametrize("method", RDM_COMPARISONS)
def test_what_has_no_similarity_is_nan_and_the_rest_is_not(method):
    rdms = tied_rdms(4, 3)
    rdms[1, 5] = np.nan
    rdms[2] = 0.0
    result = compare_rdms(rdms, rdms[:1], method)[:, 0]
    assert result[0] > 0.7
    assert np.isnan(result[1])
    assert np.isnan(result[2]) or method == "kendall"


def test_tensors_stay_tensors():
    rdms = torch.from_numpy(tied_rdms(5, 2)).float()
    assert compare_rdms(rdms, rdms, "kendall").dtype == torch.float64


@pytest.mark.parametrize("method", RDM_COMPARISONS)
def test_one_pair_and_no_rdm_at_all_are_no_accident(method):
    one = compare_rdms(np.ones(1), np.full(1, 2.0), method)
    assert np.isnan(one) or float(one) == pytest.approx(1)
    assert compare_rdms(np.zeros((0, 3)), np.zeros((2, 3)), method).shape == (0, 2)


def test_rdms_of_other_conditions_are_an_error():
    with pytest.raises(ValueError, match="of the same conditions, got 4 and 3 conditions"):
        compare_rdms(np.zeros(6), np.zeros(3))
    with pytest.raises(ValueError, match="upper triangle of a square matrix"):
        compare_rdms(np.zeros((4, 4)), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="method must be one of 'pearson'"):
        compare_rdms(np.zeros(6), np.zeros(6), "tau")


# ---- noise ceilings and intervals ----


@pytest.mark.parametrize("method", RDM_COMPARISONS)
def test_the_ceiling_is_that_of_the_mean_rdm_with_and_without_the_subject(method):
    rdms = np.random.default_rng(6).random((5, 28)) + np.linspace(0, 2, 28)
    lower, upper = rdm_noise_ceiling(rdms, method)
    assert lower < upper <= 1
    if method == "cosine":
        unit = rdms / np.linalg.norm(rdms, axis=1, keepdims=True)
        expected = np.mean([REFERENCE["cosine"](one, unit.sum(0)) for one in unit])
        assert upper == pytest.approx(expected)
    if method == "spearman":
        ranks = np.stack([stats.rankdata(one) for one in rdms])
        others = [REFERENCE["pearson"](one, stats.rankdata(ranks.sum(0) - one)) for one in ranks]
        assert lower == pytest.approx(np.mean(others))


def test_a_ceiling_needs_subjects_whose_rdms_vary():
    with pytest.raises(ValueError, match="at least 2 subjects"):
        rdm_noise_ceiling(np.zeros((1, 6)))
    with pytest.raises(ValueError, match="vary over pairs"):
        rdm_noise_ceiling(np.zeros((2, 6)), "pearson")


def simulated(n_subjects, n_conditions=10, noise=0.5, seed=7):
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(n_conditions, 30))
    subjects = compute_rdm(patterns + noise * rng.normal(size=(n_subjects, n_conditions, 30)), "sqeuclidean")
    models = compute_rdm(np.stack([patterns, rng.normal(size=patterns.shape)]), "sqeuclidean")
    return models, subjects


@pytest.mark.parametrize("resample", ["subjects", "conditions", "both"])
def test_the_model_that_made_the_data_wins_and_lies_within_the_ceiling(resample):
    models, subjects = simulated(6)
    result = evaluate_models(models, subjects, resample=resample, n_bootstrap=100)
    assert result.low[0] <= result.scores[0] <= result.high[0]
    assert result.ceiling is not None
    assert result.ceiling[0] < result.scores[0] < result.ceiling[1] + 0.02
    difference, p_value = result.compare(0, 1)
    assert difference > 0.3
    assert p_value < 0.05
    table = result.table(["true", "other"])
    assert table["score"].is_monotonic_decreasing
    again = evaluate_models(models, subjects, resample=resample, n_bootstrap=100)
    np.testing.assert_array_equal(result.samples, again.samples)


def test_the_bootstrap_over_subjects_has_the_spread_of_the_mean():
    models, subjects = simulated(12)
    result = evaluate_models(models[:1], subjects, "pearson", resample="subjects", n_bootstrap=2000)
    own = compare_rdms(models[:1], subjects, "pearson")[0]
    assert result.samples[:, 0].std() == pytest.approx(own.std() / np.sqrt(12), rel=0.1)


def test_inference_refuses_what_it_cannot_resample():
    models, subjects = simulated(2)
    with pytest.raises(ValueError, match="one subject cannot be resampled"):
        evaluate_models(models, subjects[:1], resample="subjects")
    with pytest.raises(ValueError, match="needs all pairs of conditions"):
        evaluate_models(models, subjects, "whitened-cosine")
    with pytest.raises(ValueError, match="at least 3 conditions"):
        evaluate_models(models[:, :1], subjects[:, :1])
    with pytest.raises(ValueError, match="finite and vary"):
        evaluate_models(models * 0, subjects)
    one = evaluate_models(models, subjects[:1], n_bootstrap=10)
    assert one.ceiling is None
