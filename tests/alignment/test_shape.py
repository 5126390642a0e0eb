"""Procrustes distance, canonical correlations and PLS are those of scipy and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes, subspace_angles
from sklearn.cross_decomposition import PLSRegression

from neurokern.alignment import canonical_correlations, fit_pls, procrustes_distance


def shapes(p=4, q=4, n=15, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 2
    return X, X @ rng.normal(size=(p, q)) + 0.5 * rng.normal(size=(n, q))


@pytest.mark.parametrize(("p", "q"), [(4, 4), (30, 30), (3, 40)])
def test_procrustes_is_the_distance_after_the_best_rotation(p, q):
    X, Y = shapes(p, q)
    a, b = ((one - one.mean(0)) / np.linalg.norm(one - one.mean(0)) for one in (X, Y))
    wide = max(p, q)
    a, b = (np.pad(one, ((0, 0), (0, wide - one.shape[1]))) for one in (a, b))
    rotation, nuclear = orthogonal_procrustes(a, b)
    np.testing.assert_allclose(procrustes_distance(X, Y), np.linalg.norm(a @ rotation - b))
    np.testing.assert_allclose(procrustes_distance(X, Y, angular=True), np.arccos(nuclear))


def test_procrustes_of_batches_and_of_what_never_varies():
    X, Y = shapes()
    batch = np.stack([Y, np.ones_like(Y)])
    result = procrustes_distance(X, batch)
    np.testing.assert_allclose(result[0], procrustes_distance(X, Y))
    assert np.isnan(result[1])
    assert procrustes_distance(X, 3 * X[:, ::-1] + 1) < 1e-7
    assert np.isnan(procrustes_distance(np.ones((15, 40)), Y))


def test_angular_distance_is_a_metric():
    rng = np.random.default_rng(1)
    for a, b, c in rng.normal(size=(20, 3, 8, 3)):
        ab, bc, ac = (float(procrustes_distance(*two, angular=True)) for two in ((a, b), (b, c), (a, c)))
        assert ac <= ab + bc + 1e-12


def test_canonical_correlations_are_cosines_of_angles_between_subspaces():
    X, Y = shapes(4, 6, n=40)
    expected = np.cos(subspace_angles(X - X.mean(0), Y - Y.mean(0)))[::-1]
    np.testing.assert_allclose(canonical_correlations(X, Y, variance=1.0), expected, atol=1e-9)


def test_canonical_correlations_keep_the_components_that_carry_the_variance():
    rng = np.random.default_rng(2)
    X = np.concatenate([10 * rng.normal(size=(50, 2)), 0.1 * rng.normal(size=(50, 5))], 1)
    assert len(canonical_correlations(X, rng.normal(size=(50, 9)))) == 2
    assert len(canonical_correlations(X, np.ones((50, 3)))) == 0
    doubled = np.concatenate([X, X], 1)  # of rank 7
    np.testing.assert_allclose(canonical_correlations(doubled, X, variance=1.0), np.ones(7))


@pytest.mark.parametrize(("n_targets", "n_components"), [(1, 3), (5, 2), (5, 4), (40, 3)])
def test_pls_is_that_of_scikit_learn(n_targets, n_components):
    X, Y = shapes(8, n_targets, n=30)
    fit = fit_pls(torch.from_numpy(X), torch.from_numpy(Y), n_components)
    expected = PLSRegression(n_components, scale=False, tol=1e-14, max_iter=10000).fit(X, Y)
    np.testing.assert_allclose(fit.weights.numpy().T, expected.coef_, atol=1e-5)
    predicted = X @ fit.weights.numpy() + fit.intercept.numpy()
    np.testing.assert_allclose(predicted, expected.predict(X).reshape(Y.shape), atol=1e-4)


def test_pls_stops_when_nothing_is_left():
    X, Y = (torch.from_numpy(one) for one in shapes(3, 2, n=20))
    least_squares = torch.linalg.lstsq(X - X.mean(0), Y - Y.mean(0)).solution
    torch.testing.assert_close(fit_pls(X, Y, 50).weights, least_squares)
    assert (fit_pls(X * 0 + 0.1, Y, 5).weights == 0).all()
    wide = torch.randn(6, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fit = fit_pls(wide, Y[:6], 50)  # five components reach the responses exactly
    torch.testing.assert_close(wide @ fit.weights + fit.intercept, Y[:6])


def test_bad_input_is_an_error_that_names_it():
    X, Y = shapes()
    with pytest.raises(ValueError, match="same samples, got 15 and 14 rows"):
        procrustes_distance(X, Y[:14])
    with pytest.raises(ValueError, match="X must be finite"):
        canonical_correlations(X * np.nan, Y)
    with pytest.raises(ValueError, match=r"must have shape \(samples, features\)"):
        canonical_correlations(np.stack([X, X]), Y)
    with pytest.raises(ValueError, match="n_components must be at least 1"):
        fit_pls(torch.from_numpy(X), torch.from_numpy(Y), 0)
