"""Ridge against plain solves, brute-force leave-one-out and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeCV

from neurokern.encoding import fit_ridge
from neurokern.encoding import ridge as ridge_module

ALPHAS = (0.01, 0.3, 5.0, 100.0)


def problem(n_samples: int, n_features: int, n_targets: int = 3, seed: int = 0, mean: float = 2.0):
    generator = np.random.default_rng(seed)
    X = generator.normal(mean, 1.0, (n_samples, n_features))
    Y = X @ generator.normal(size=(n_features, n_targets)) + generator.normal(size=(n_samples, n_targets)) + 3
    return X, Y


def plain_ridge(X: np.ndarray, Y: np.ndarray, alpha: float, intercept: bool) -> tuple[np.ndarray, np.ndarray]:
    x_mean, y_mean = (X.mean(0), Y.mean(0)) if intercept else (np.zeros(X.shape[1]), np.zeros(Y.shape[1]))
    centered = X - x_mean
    weights = np.linalg.solve(centered.T @ centered + alpha * np.eye(X.shape[1]), centered.T @ (Y - y_mean))
    return weights, y_mean - x_mean @ weights


SHAPES = [(30, 5), (5, 30), (12, 12), (2, 7), (40, 1)]


@pytest.mark.parametrize(("n_samples", "n_features"), SHAPES)
@pytest.mark.parametrize("intercept", [True, False])
def test_matches_the_normal_equations(n_samples, n_features, intercept):
    X, Y = problem(n_samples, n_features)
    fit = fit_ridge(X, Y, 0.7, intercept=intercept)
    weights, offset = plain_ridge(X, Y, 0.7, intercept)
    np.testing.assert_allclose(fit.weights, weights, atol=1e-9)
    np.testing.assert_allclose(fit.intercept, offset, atol=1e-9)
    np.testing.assert_allclose(fit.predict(X), X @ weights + offset, atol=1e-8)
    assert fit.scores is None


@pytest.mark.parametrize(("n_samples", "n_features"), SHAPES)
@pytest.mark.parametrize("intercept", [True, False])
def test_leave_one_out_scores_match_refitting_without_each_sample(n_samples, n_features, intercept):
    X, Y = problem(n_samples, n_features)
    fit = fit_ridge(X, Y, ALPHAS, intercept=intercept)
    center = Y.mean(0) if intercept else 0
    for row, alpha in enumerate(ALPHAS):
        residuals = []
        for left_out in range(n_samples):
            kept = np.arange(n_samples) != left_out
            weights, offset = plain_ridge(X[kept], Y[kept], alpha, intercept)
            residuals.append(Y[left_out] - X[left_out] @ weights - offset)
        expected = 1 - np.square(residuals).sum(0) / np.square(Y - center).sum(0)
        np.testing.assert_allclose(fit.scores[row], expected, rtol=1e-7, atol=1e-9)
    chosen = np.searchsorted(ALPHAS, fit.alphas.numpy())
    np.testing.assert_allclose(fit.scores.numpy()[chosen, np.arange(3)], fit.scores.numpy().max(0))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(3, 20), st.integers(1, 20))
def test_each_target_is_solved_with_its_own_alpha(seed, n_samples, n_features):
    X, Y = problem(n_samples, n_features, seed=seed)
    fit = fit_ridge(X, Y, ALPHAS)
    for target, alpha in enumerate(fit.alphas.tolist()):
        weights, _ = plain_ridge(X, Y[:, [target]], alpha, True)
        np.testing.assert_allclose(fit.weights[:, target], weights[:, 0], atol=1e-7)


@pytest.mark.parametrize(("n_samples", "n_features"), [(25, 6), (6, 25)])
def test_agrees_with_scikit_learn(n_samples, n_features):
    X, Y = problem(n_samples, n_features)
    theirs = RidgeCV(alphas=ALPHAS, alpha_per_target=True).fit(X, Y)
    fit = fit_ridge(X, Y, ALPHAS)
    np.testing.assert_allclose(fit.alphas, theirs.alpha_)
    np.testing.assert_allclose(fit.weights, theirs.coef_.T, atol=1e-8)
    one = fit_ridge(X, Y[:, 0], 2.0)
    np.testing.assert_allclose(one.weights, Ridge(2.0).fit(X, Y[:, 0]).coef_, atol=1e-8)
    assert one.intercept.shape == ()
    assert one.predict(X).shape == (n_samples,)


@pytest.mark.parametrize(("n_samples", "n_features"), [(25, 6), (6, 25)])
def test_alpha_is_chosen_on_the_validation_set_when_given(n_samples, n_features):
    X, Y = problem(n_samples + 10, n_features)
    train, held_out = (X[:-10], Y[:-10]), (X[-10:], Y[-10:])
    fit = fit_ridge(*train, ALPHAS, validation=held_out)
    errors = []
    for alpha in ALPHAS:
        weights, offset = plain_ridge(*train, alpha, True)
        errors.append(np.square(held_out[1] - held_out[0] @ weights - offset).sum(0))
    total = np.square(held_out[1] - held_out[1].mean(0)).sum(0)
    np.testing.assert_allclose(fit.scores, 1 - np.array(errors) / total, rtol=1e-7)
    np.testing.assert_array_equal(fit.alphas, np.asarray(ALPHAS)[np.argmin(errors, 0)])


def test_the_strongest_penalty_wins_a_tie():
    # Of two samples, each is predicted by the other's target whatever the penalty.
    X, Y = problem(2, 7)
    assert fit_ridge(X, np.round(Y), ALPHAS).alphas.tolist() == [max(ALPHAS)] * 3


@pytest.mark.parametrize("shape", [(25, 6), (6, 25)])
def test_fits_are_the_same_on_every_device(shape, device):
    X, Y = problem(*shape)
    fit = fit_ridge(torch.from_numpy(X).to(device), Y, ALPHAS)
    assert fit.weights.device.type == device
    np.testing.assert_allclose(fit.weights.cpu(), fit_ridge(X, Y, ALPHAS).weights, atol=1e-9)
    np.testing.assert_allclose(fit.predict(X).cpu(), fit_ridge(X, Y, ALPHAS).predict(X), atol=1e-8)


def test_shared_alpha_is_the_one_with_the_best_mean_score():
    X, Y = problem(20, 15, n_targets=6)
    fit = fit_ridge(X, Y, ALPHAS, shared_alpha=True)
    assert fit.alphas.unique().tolist() == [ALPHAS[int(fit.scores.mean(1).argmax())]]


def test_blocks_do_not_change_the_result(monkeypatch):
    for shape in ((23, 6), (6, 23)):
        X, Y = problem(*shape)
        whole = fit_ridge(X, Y, ALPHAS)
        with monkeypatch.context() as patched:
            patched.setattr(ridge_module, "_BLOCK_ELEMENTS", 20)
            parts = fit_ridge(X, Y, ALPHAS)
        np.testing.assert_allclose(parts.weights, whole.weights, atol=1e-10)
        np.testing.assert_allclose(parts.scores, whole.scores, atol=1e-10)


@pytest.mark.parametrize("shape", [(60, 8), (8, 60)])
def test_float32_features_with_a_large_mean_lose_no_accuracy(shape):
    X, Y = problem(*shape, mean=300.0)
    X = X.astype(np.float32)
    fit = fit_ridge(X, Y, ALPHAS)
    exact = fit_ridge(X.astype(np.float64), Y, ALPHAS)
    assert fit.weights.dtype == torch.float32
    np.testing.assert_allclose(fit.scores, exact.scores, rtol=1e-9)
    np.testing.assert_allclose(fit.weights, exact.weights, rtol=1e-5, atol=1e-6)


def test_constant_target_gets_the_strongest_penalty_and_nan_scores():
    X, Y = problem(10, 3)
    Y[:, 1] = 4.0
    fit = fit_ridge(X, Y, ALPHAS)
    assert fit.scores[:, 1].isnan().all()
    assert fit.alphas[1] == max(ALPHAS)
    np.testing.assert_allclose(fit.predict(X)[:, 1], 4.0)
    assert torch.isfinite(fit_ridge(X, Y, ALPHAS, shared_alpha=True).weights).all()


def test_constant_features_and_identical_samples_are_harmless():
    fit = fit_ridge(np.ones((3, 8)), np.arange(3.0), ALPHAS)
    np.testing.assert_allclose(fit.weights, 0, atol=1e-12)
    assert float(fit.intercept) == pytest.approx(1.0)


def test_integer_counts_are_accepted():
    X = torch.tensor([[0, 1], [2, 0], [3, 3]], dtype=torch.uint8)
    fit = fit_ridge(X, X[:, 0], 1e-6)
    np.testing.assert_allclose(fit.predict(X), [0, 2, 3], atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.ones(4)}, "samples, features"),
        ({"Y": np.ones((3, 1))}, "one row per row"),
        ({"X": np.ones((0, 2)), "Y": np.ones((0, 1))}, "at least one"),
        ({"X": np.full((4, 2), np.nan)}, "X must be finite"),
        ({"Y": np.full((4, 1), np.inf)}, "Y must be finite"),
        ({"alphas": (1.0, 0.0)}, "alphas must be a finite number above 0"),
        ({"alphas": ()}, "at least one penalty"),
        ({"X": np.ones((1, 2)), "Y": np.ones((1, 1))}, "at least 2 samples"),
        ({"validation": (np.ones((2, 3)), np.ones((2, 1)))}, "validation must have 2 features"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {"X": np.ones((4, 2)), "Y": np.ones((4, 1)), "alphas": ALPHAS} | change
    with pytest.raises(ValueError, match=message):
        fit_ridge(**arguments)


def test_prediction_needs_the_fitted_number_of_features():
    fit = fit_ridge(*problem(5, 2), 1.0)
    with pytest.raises(ValueError, match=r"\(samples, 2\)"):
        fit.predict(np.ones((4, 3)))
