"""Reduced-rank ridge against the books' formula, full ridge, brute-force folds and known ranks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurokern.ops import reduced_rank_ridge_cv, ridge_cv, solve_ridge
from neurokern.ops._ridge_folds import make_folds

SHAPES = [(30, 6, 4), (30, 6, 12), (12, 40, 5), (12, 40, 30)]  # tall and wide, few and many targets


def problem(n, p, q, rank=2, noise=1.0, seed=0, mean=3.0):
    rng = np.random.default_rng(seed)
    X = rng.normal(mean, 1.0, (n, p))
    Y = X @ rng.normal(size=(p, rank)) @ rng.normal(size=(rank, q)) / p**0.5
    return X, Y + noise * rng.normal(size=(n, q)) + 5


def reference(X, Y, alpha, rank, fit_intercept=True):
    """Ridge weights, projected onto the leading directions of the fitted values of the augmented problem."""
    x_mean, y_mean = (X.mean(0), Y.mean(0)) if fit_intercept else (0 * X[0], 0 * Y[0])
    Xc, Yc = X - x_mean, Y - y_mean
    rows = np.vstack([Xc, alpha**0.5 * np.eye(X.shape[1])])
    full = np.linalg.lstsq(rows, np.vstack([Yc, np.zeros((X.shape[1], Y.shape[1]))]), rcond=None)[0]
    U = np.linalg.svd(rows @ full, full_matrices=False)[2][:rank].T
    weights = full @ U @ U.T
    return weights, y_mean - x_mean @ weights


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("rank", [1, 3])
def test_equals_projected_ridge_weights(shape, fit_intercept, rank):
    X, Y = problem(*shape)
    fit = reduced_rank_ridge_cv(X, Y, 2.0, ranks=rank, fit_intercept=fit_intercept)
    weights, intercept = reference(X, Y, 2.0, rank, fit_intercept)
    np.testing.assert_allclose(fit.weights, weights, atol=1e-8)
    np.testing.assert_allclose(fit.intercept, intercept, atol=1e-7)
    np.testing.assert_allclose(fit.projections @ fit.loadings, fit.weights, atol=1e-10)
    np.testing.assert_allclose(fit.loadings @ fit.loadings.T, np.eye(rank), atol=1e-10)
    assert fit.rank == rank
    assert np.isnan(fit.score)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_full_rank_is_ridge(shape):
    X, Y = problem(*shape)
    fit = reduced_rank_ridge_cv(X, Y, 0.5, ranks=1000)
    weights, intercept = solve_ridge(X, Y, 0.5)
    np.testing.assert_allclose(fit.weights, weights, atol=1e-8)
    np.testing.assert_allclose(fit.predict(X), X @ weights + intercept, atol=1e-7)


@settings(max_examples=15)
@given(st.sampled_from(SHAPES), st.integers(0, 2**31), st.booleans(), st.sampled_from([3, "pairs"]))
def test_scores_are_those_of_a_loop_over_folds_penalties_and_ranks(shape, seed, fit_intercept, folds):
    X, Y = problem(*shape, seed=seed)
    if folds == "pairs":  # uneven, shuffled, with samples in neither
        order = np.random.default_rng(seed).permutation(shape[0])
        folds = [(order[4:], order[:3]), (order[:7], order[8:])]
    alphas, ranks = np.array([0.1, 3.0]), np.arange(1, 1 + min(shape))
    fit = reduced_rank_ridge_cv(X, Y, alphas, folds, fit_intercept=fit_intercept)
    scores = np.zeros((2, len(ranks)))
    splits = make_folds("test", folds, None, shape[0])
    for fold in splits:
        test = np.arange(shape[0])[fold.test]
        total = np.square(Y[test] - Y[test].mean(0)).sum()
        for i, alpha in enumerate(alphas):
            for j, rank in enumerate(ranks):
                weights, intercept = reference(X[fold.train], Y[fold.train], alpha, rank, fit_intercept)
                errors = Y[test] - X[test] @ weights - intercept
                scores[i, j] += (1 - np.square(errors).sum() / total) / len(splits)
    np.testing.assert_allclose(fit.scores, scores, rtol=1e-6, atol=1e-7)
    assert fit.score == pytest.approx(scores.max(), abs=1e-6)
    weights, _ = reference(X, Y, fit.alpha, fit.rank, fit_intercept)
    np.testing.assert_allclose(fit.weights, weights, atol=1e-7)


@pytest.mark.parametrize("shape", [(200, 30, 40), (80, 200, 40)])
def test_the_rank_of_the_signal_is_found_and_beats_full_ridge(shape):
    X, Y = problem(*shape, rank=3, noise=1.0)
    X_new, Y_new = problem(*shape, rank=3, noise=1.0)
    rng = np.random.default_rng(7)
    X_new = rng.normal(3.0, 1.0, X.shape)
    truth = np.linalg.lstsq(X, problem(*shape, rank=3, noise=0.0)[1] - 5, rcond=None)[0]
    Y_new = X_new @ truth + 5
    alphas = np.logspace(-1, 3, 9)
    fit = reduced_rank_ridge_cv(X, Y, alphas)
    assert 2 <= fit.rank <= 4
    full = ridge_cv(X, Y, alphas)
    assert np.square(fit.predict(X_new) - Y_new).sum() < np.square(full.predict(X_new) - Y_new).sum()


def test_float32_tensors_single_targets_and_half_precision():
    X, Y = problem(30, 6, 4)
    wide = reduced_rank_ridge_cv(X, Y, [0.1, 1.0])
    fit = reduced_rank_ridge_cv(torch.from_numpy(X).float(), torch.from_numpy(Y).float(), [0.1, 1.0])
    assert fit.weights.dtype == torch.float32
    np.testing.assert_allclose(fit.weights, wide.weights, atol=1e-4)
    one = reduced_rank_ridge_cv(X, Y[:, 0], [1.0])
    assert (one.weights.shape, one.intercept.shape, one.loadings.shape) == ((6,), (), (1,))
    np.testing.assert_allclose(one.weights, solve_ridge(X, Y[:, 0], 1.0).weights, atol=1e-9)
    half = reduced_rank_ridge_cv(X.astype(np.float16), Y.astype(np.float16), 1.0)
    assert half.weights.dtype == np.float32


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_same_on_the_algebra_of_a_gpu(shape, fit_intercept, monkeypatch):
    from neurokern.ops import _ridge_blas

    X, Y = (torch.from_numpy(values) for values in problem(*shape))
    folds = [([0, 2, 4, 6, 8, 10], [1, 3]), (range(4, 12), [0, 1, 2, 3])]
    here = reduced_rank_ridge_cv(X, Y, [0.1, 1.0], folds, fit_intercept=fit_intercept)
    monkeypatch.setattr(_ridge_blas, "device_of", lambda tensor: tensor.device)
    there = reduced_rank_ridge_cv(X, Y, [0.1, 1.0], folds, fit_intercept=fit_intercept)
    np.testing.assert_allclose(there.weights, here.weights, atol=1e-10)
    np.testing.assert_allclose(there.scores, here.scores, atol=1e-10)


def test_constant_targets_and_features_do_no_harm():
    X, Y = problem(20, 5, 3)
    X[:, 2] = 7
    Y[:, 1] = -4
    fit = reduced_rank_ridge_cv(X, Y, [0.1, 1.0])
    np.testing.assert_allclose(fit.predict(X)[:, 1], -4)
    np.testing.assert_allclose(fit.weights[2], 0, atol=1e-12)
    nothing = reduced_rank_ridge_cv(np.ones((6, 2)), np.arange(6.0), [0.1, 1.0], 2)
    np.testing.assert_allclose(nothing.predict(np.ones((1, 2))), 2.5)
    constant = reduced_rank_ridge_cv(X, np.full((20, 3), 2.0), [0.1, 1.0], 4)
    assert np.isnan(constant.scores).all()
    assert (constant.alpha, constant.rank) == (1.0, 1)
    np.testing.assert_allclose(constant.predict(X), 2.0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"ranks": 0}, ValueError, "at least 1, got"),
        ({"ranks": []}, ValueError, "at least one integer"),
        ({"ranks": 1.5}, TypeError, "ranks must be an integer"),
        ({"alphas": 0.0}, ValueError, "alphas must be finite and above 0"),
        ({"alphas": []}, ValueError, "at least one penalty"),
        ({"folds": "leave-one-out"}, ValueError, "folds must be sets of samples"),
        ({"folds": 1}, ValueError, "folds must lie between"),
        ({"Y": np.ones((6, 0))}, ValueError, "at least one target"),
        ({"X": np.ones((6, 0))}, ValueError, "at least one feature"),
        ({"X": np.full((6, 2), np.nan)}, ValueError, "6 of 6 rows"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    given = {"X": np.eye(6)[:, :2], "Y": np.eye(6)[:, 2:4], "alphas": [1.0, 2.0], "folds": 2}
    with pytest.raises(error, match=message):
        reduced_rank_ridge_cv(**given | change)
