"""RDMs are those of scipy, cross-validated ones have no bias, and no size or value is a surprise."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import pdist, squareform
from sklearn.covariance import ledoit_wolf

from neurokern.alignment import compute_rdm, cross_validated_rdm, noise_covariance, rdm, square_rdm


@pytest.mark.parametrize("metric", ["correlation", "cosine", "euclidean", "sqeuclidean"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "float16"])
def test_all_layers_regions_and_times_at_once_agree_with_scipy(metric, dtype):
    values = (100 + 20 * np.random.default_rng(0).normal(size=(2, 3, 9, 6))).astype(dtype)
    expected = [[pdist(one.astype(float), metric) for one in row] for row in values]
    np.testing.assert_allclose(compute_rdm(values, metric), expected, rtol=1e-9, atol=1e-12)


def test_mahalanobis_agrees_with_scipy():
    rng = np.random.default_rng(1)
    values, noise = rng.normal(size=(7, 5)), noise_covariance(rng.normal(size=(20, 5)))
    expected = pdist(values, "mahalanobis", VI=np.linalg.inv(noise))
    np.testing.assert_allclose(compute_rdm(values, "mahalanobis", noise=noise), expected)


def test_the_kind_and_device_of_the_input_come_back():
    values = torch.arange(12).reshape(4, 3)
    assert isinstance(compute_rdm(values, "euclidean"), torch.Tensor)
    assert compute_rdm(values, "euclidean").dtype == torch.float64
    assert isinstance(compute_rdm(values.numpy(), "euclidean"), np.ndarray)


def test_blocks_of_rows_change_nothing(monkeypatch):
    values = np.random.default_rng(2).normal(size=(2, 23, 4))
    whole = compute_rdm(values, "euclidean")
    monkeypatch.setattr(rdm, "BLOCK_ELEMENTS", 100)
    np.testing.assert_allclose(compute_rdm(values, "euclidean"), whole, rtol=1e-12)


def test_patterns_that_are_the_same_have_distance_zero_far_from_the_origin():
    values = np.full((3, 4), 1e6)
    values[2] += np.arange(4)
    result = compute_rdm(np.concatenate([values, values]), "euclidean")
    assert (square_rdm(result)[[0, 0, 1, 2], [1, 3, 4, 5]] == 0).all()


def test_yes_and_no_are_numbers_too():
    answers = np.array([[True, False, True], [False, False, True], [True, True, False]])
    for metric in ("correlation", "cosine", "euclidean"):
        np.testing.assert_allclose(compute_rdm(answers, metric), pdist(answers.astype(float), metric))


def test_a_pattern_without_variance_has_no_correlation_distance():
    values = np.array([[0.1, 0.1, 0.1], [1.0, 2.0, 4.0], [3.0, 1.0, 2.0]])
    assert np.isnan(compute_rdm(values)).tolist() == [True, True, False]
    assert np.isnan(compute_rdm(values * [[0], [1], [1]], "cosine")).tolist() == [True, True, False]
    assert np.isfinite(compute_rdm(values, "euclidean")).all()


@given(arrays(np.float64, (5, 3), elements=st.floats(-1e3, 1e3)), st.permutations(range(5)))
def test_the_order_of_conditions_moves_the_pairs_alone(values, order):
    there = squareform(compute_rdm(values, "sqeuclidean"))[np.ix_(order, order)]
    np.testing.assert_allclose(squareform(compute_rdm(values[order], "sqeuclidean")), there, atol=1e-6)


def test_cross_validated_distances_are_the_mean_product_of_independent_differences():
    rng = np.random.default_rng(3)
    parts = rng.normal(size=(2, 4, 5, 6))
    noise = noise_covariance(rng.normal(size=(30, 6)))
    for matrix in (None, noise):
        precision = np.eye(6) if matrix is None else np.linalg.inv(matrix)
        result = square_rdm(cross_validated_rdm(parts, noise=matrix))
        for batch, i, j in [(0, 0, 1), (1, 2, 4)]:
            d = parts[batch, :, i] - parts[batch, :, j]
            products = [d[m] @ precision @ d[n] for m in range(4) for n in range(4) if m != n]
            np.testing.assert_allclose(result[batch, i, j], np.mean(products) / 6)


def test_cross_validation_removes_the_bias_of_noise():
    noise = np.random.default_rng(4).normal(size=(10, 4, 8, 500))
    assert abs(cross_validated_rdm(noise).mean()) < 0.02
    assert compute_rdm(noise.mean(1), "sqeuclidean").mean() / 500 > 0.4


def test_noise_covariance_is_that_of_ledoit_and_wolf():
    residuals = np.random.default_rng(5).normal(size=(15, 10)) * np.arange(1, 11)
    np.testing.assert_allclose(noise_covariance(residuals), ledoit_wolf(residuals)[0])
    np.testing.assert_allclose(
        noise_covariance(residuals, shrinkage=0), np.cov(residuals, rowvar=False, bias=True)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0, 2.0]],), r"at least 2 samples and 1 feature, got \(1, 2\)"),
        ((np.zeros((3, 0)),), r"got \(3, 0\)"),
        ((np.zeros(3),), r"must have shape \(\.\.\., samples, features\)"),
        ((np.array([[1.0, np.nan], [0, 1], [2, np.inf]]),), "NaN or infinity in 2 patterns"),
        ((np.full((3, 2), 1e80),), r"must lie within \+-1e\+60"),
        ((np.eye(3), "manhattan"), "metric must be one of 'correlation'"),
        ((np.eye(3), "mahalanobis"), "noise must be given for 'mahalanobis'"),
        ((np.broadcast_to(np.float32(0), (2_000_000, 1)),), "more than the .* GiB of memory that are free"),
    ],
)
def test_bad_patterns_are_errors_that_say_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        compute_rdm(*arguments)


def test_noise_must_fit_and_be_positive_definite():
    values = np.random.default_rng(6).normal(size=(4, 3))
    with pytest.raises(ValueError, match=r"noise must have shape \(3, 3\), got \(2, 2\)"):
        compute_rdm(values, "mahalanobis", noise=np.eye(2))
    with pytest.raises(ValueError, match="positive definite"):
        compute_rdm(values, "mahalanobis", noise=np.ones((3, 3)))
    with pytest.raises(ValueError, match="must vary"):
        noise_covariance(np.ones((4, 3)))
    with pytest.raises(ValueError, match="at least 2 partitions"):
        cross_validated_rdm(values)
    with pytest.raises(TypeError, match="real numbers"):
        compute_rdm(values * 1j)
    with pytest.raises(ValueError, match="n \\* \\(n - 1\\) / 2 pairs"):
        square_rdm(np.zeros(4))
