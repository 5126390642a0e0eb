"""Banded ridge against plain solves of scaled features, candidate by candidate, in float64."""

import itertools

import numpy as np
import pytest
import torch

from neurokern.ops import _ridge_bands, _ridge_cv, _ridge_parts, _ridge_tall, banded_ridge_cv, ridge_cv

ALPHAS = (0.1, 3.0, 100.0, 3000.0)
BANDS = np.array(["b", "a", "b", "a", "a", "c", "c", "b"])


def problem(n_samples=60, repeat=1, n_targets=5, seed=0):
    """Targets that follow one band each, or two."""
    generator = np.random.default_rng(seed)
    bands = np.tile(BANDS, repeat)
    X = generator.normal(2, 1, (n_samples, len(bands)))
    weights = generator.normal(size=(len(bands), n_targets))
    for target, used in enumerate(["a", "b", "c", "ab", "abc"]):
        weights[~np.isin(bands, list(used)), target] = 0
    return X, X @ weights + generator.normal(size=(n_samples, n_targets)) * 2 + 3, bands


def plain_fit(X, Y, alpha):
    centered = X - X.mean(0)
    weights = centered.T @ np.linalg.solve(centered @ centered.T + alpha * np.eye(len(X)), Y - Y.mean(0))
    return weights, Y.mean(0) - X.mean(0) @ weights


def plain_search(X, Y, bands, candidates, n_folds, scoring):
    """Mean score over folds, (candidates, alphas, targets)."""
    edges = np.linspace(0, len(X), n_folds + 1).round().astype(int)
    scores = np.zeros((len(candidates), len(ALPHAS), Y.shape[1]))
    for c, gamma in enumerate(candidates):
        scaled = X * np.sqrt(gamma)[np.unique(bands, return_inverse=True)[1]]
        for a, alpha in enumerate(ALPHAS):
            for start, stop in itertools.pairwise(edges):
                test = np.arange(start, stop)
                train = np.setdiff1d(np.arange(len(X)), test)
                weights, intercept = plain_fit(scaled[train], Y[train], alpha)
                guess, y = scaled[test] @ weights + intercept, Y[test]
                if scoring == "mse":
                    score = -((y - guess) ** 2).mean(0)
                elif scoring == "r2":
                    score = 1 - ((y - guess) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
                else:
                    score = [np.corrcoef(guess[:, t], y[:, t])[0, 1] for t in range(Y.shape[1])]
                scores[c, a] += np.array(score) / n_folds
    return scores


@pytest.mark.parametrize("repeat", [1, 12], ids=["tall", "wide"])
@pytest.mark.parametrize("scoring", ["r2", "pearson", "mse"])
def test_the_best_candidate_and_alpha_of_each_target_are_found(repeat, scoring):
    X, Y, bands = problem(repeat=repeat)
    fit = banded_ridge_cv(X, Y, bands, ALPHAS, 3, n_candidates=8, scoring=scoring)
    scores = plain_search(X, Y, bands, fit.candidates, 3, scoring)
    best = scores.reshape(-1, 5).max(0)
    np.testing.assert_allclose(fit.scores * (-1 if scoring == "mse" else 1), best, rtol=1e-7)
    for target in range(5):
        candidate, alpha = np.unravel_index(scores[:, :, target].argmax(), scores.shape[:2])
        gamma = fit.candidates[candidate]
        np.testing.assert_array_equal(fit.band_weights[:, target], gamma)
        assert fit.alphas[target] == ALPHAS[alpha]
        scale = np.sqrt(gamma)[np.unique(bands, return_inverse=True)[1]]
        weights, intercept = plain_fit(X * scale, Y[:, target], ALPHAS[alpha])
        np.testing.assert_allclose(fit.weights[:, target], weights * scale, atol=1e-8)
        np.testing.assert_allclose(fit.intercept[target], intercept, atol=1e-7)


def test_bands_that_say_nothing_lose_their_weight():
    X, Y, bands = problem(n_samples=150, repeat=8)
    fit = banded_ridge_cv(X, Y, bands, ALPHAS, n_candidates=60)
    assert fit.bands.tolist() == ["a", "b", "c"]
    for target, used in enumerate(["a", "b", "c"]):
        assert fit.band_weights["abc".index(used), target] > 0.9
    plain = ridge_cv(X, Y, ALPHAS)
    assert (fit.scores >= plain.scores - 1e-9).all()


def test_one_band_is_plain_ridge():
    X, Y, _ = problem()
    fit, plain = banded_ridge_cv(X, Y, np.zeros(8), ALPHAS), ridge_cv(X, Y, ALPHAS)
    assert fit.candidates.tolist() == [[1.0]]
    np.testing.assert_array_equal(fit.alphas, plain.alphas)
    np.testing.assert_allclose(fit.weights, plain.weights, atol=1e-9)
    np.testing.assert_allclose(fit.scores, plain.scores, rtol=1e-9)


@pytest.mark.parametrize("repeat", [1, 12], ids=["tall", "wide"])
@pytest.mark.parametrize("kept", [0, 1 << 30])
def test_float32_tensors_and_chunks_give_the_same_choice(repeat, kept, monkeypatch):
    monkeypatch.setattr(_ridge_bands, "_KEPT_BYTES", kept)
    monkeypatch.setattr(_ridge_cv, "SMALL", 0)
    monkeypatch.setattr(_ridge_cv, "FEW", 0)
    monkeypatch.setattr("neurokern.ops._ridge_tall._CHUNK_BYTES", 1)
    X, Y, bands = problem(repeat=repeat, n_targets=5)
    X, Y = np.tile(X, (4, 1)).astype(np.float32), np.tile(Y, (4, 30)).astype(np.float32)
    arguments = (bands, ALPHAS, 3)
    single = banded_ridge_cv(torch.from_numpy(X), torch.from_numpy(Y), *arguments, n_candidates=6)
    double = banded_ridge_cv(X.astype(np.float64), Y.astype(np.float64), *arguments, n_candidates=6)
    assert isinstance(single.band_weights, torch.Tensor)
    assert single.weights.dtype == torch.float32
    np.testing.assert_array_equal(single.band_weights, double.band_weights)
    np.testing.assert_array_equal(single.alphas, double.alphas)
    np.testing.assert_allclose(single.scores, double.scores, atol=1e-5)
    np.testing.assert_allclose(single.weights, double.weights, atol=1e-3)


def test_a_band_alone_may_leave_rows_of_a_factor_without_parts(monkeypatch):
    X, Y, bands = problem()
    plain = banded_ridge_cv(X, Y, bands, ALPHAS, 3, band_weights=np.eye(3))
    monkeypatch.setattr(_ridge_tall, "_BLOCK_ROWS", 2)
    monkeypatch.setattr(_ridge_parts, "_WORTH_CUTTING", 0)
    cut = banded_ridge_cv(X, Y, bands, ALPHAS, 3, band_weights=np.eye(3))
    np.testing.assert_allclose(cut.scores, plain.scores, rtol=1e-9)


def test_candidates_of_ones_own_gaps_and_runs():
    X, Y, bands = problem()
    own = [[1, 0, 0], [0.5, 0.5, 0]]
    pairs = [(np.arange(25, 60), np.arange(20)), (np.arange(35), np.arange(40, 60))]
    fit = banded_ridge_cv(X, Y[:, 0], bands, ALPHAS, pairs, band_weights=own)
    assert fit.band_weights.tolist() in own
    assert fit.weights.shape == (8,)
    assert float(np.abs(fit.weights[bands == "c"]).max()) == 0
    runs = np.repeat([0, 1, 2], 20)
    by_run = banded_ridge_cv(X, Y, bands, ALPHAS, "leave-one-run-out", runs=runs, n_candidates=5)
    three = banded_ridge_cv(X, Y, bands, ALPHAS, 3, n_candidates=5)
    np.testing.assert_array_equal(by_run.weights, three.weights)
    assert not banded_ridge_cv(X, Y, bands, ALPHAS, fit_intercept=False, n_candidates=2).intercept.any()


def test_constant_targets_keep_all_bands_and_the_largest_alpha():
    X, Y, bands = problem()
    Y[:, 2] = 7.0
    fit = banded_ridge_cv(X, Y, bands, ALPHAS, n_candidates=6)
    assert np.isnan(fit.scores[2])
    np.testing.assert_allclose(fit.band_weights[:, 2], 1 / 3)
    assert fit.alphas[2] == max(ALPHAS)
    np.testing.assert_allclose(fit.weights[:, 2], 0, atol=1e-12)


@pytest.mark.parametrize("search", ["random", "gradient"])
def test_names_and_order_of_bands_and_features_change_no_fit(search):
    X, Y, bands = problem()
    order = np.random.default_rng(4).permutation(len(bands))
    options = {"n_candidates": 5, "search": search}
    named = banded_ridge_cv(X, Y, bands, ALPHAS, 3, **options)
    numbers = np.searchsorted(["a", "b", "c"], bands)[order] * 10 - 7
    moved = banded_ridge_cv(X[:, order], Y, torch.from_numpy(numbers), ALPHAS, 3, **options)
    assert moved.bands.tolist() == [-7, 3, 13]
    np.testing.assert_allclose(moved.scores, named.scores, rtol=1e-6)
    np.testing.assert_allclose(moved.weights, named.weights[order], atol=1e-4)


def test_the_seed_decides_the_candidates():
    X, Y, bands = problem()
    runs = [banded_ridge_cv(X, Y, bands, ALPHAS, n_candidates=9, seed=seed).candidates for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    np.testing.assert_allclose(runs[0].sum(1), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": [0] * 7}, "one label per feature"),
        ({"bands": []}, "one label per feature"),
        ({"bands": np.eye(8)}, r"one label per feature \(8\), got shape \(8, 8\)"),
        ({"bands": [0.0, np.nan] * 4}, "bands must not be NaN, got 4"),
        ({"band_weights": np.ones((0, 3))}, r"shape \(candidates, 3\)"),
        ({"band_weights": [1, 1, 1]}, r"shape \(candidates, 3\)"),
        ({"band_weights": [[1, np.nan, 0]]}, "finite"),
        ({"band_weights": [[1, np.inf, 0]]}, "finite"),
        ({"search": "grid"}, "search must be one of"),
        ({"Y": np.zeros((59, 2))}, "one row per row of X"),
        ({"band_weights": [[1, 1]]}, r"shape \(candidates, 3\)"),
        ({"band_weights": [[0, 0, 0]]}, "not all 0"),
        ({"band_weights": [[1, -1, 0]]}, "not negative"),
        ({"n_candidates": 0}, "at least 1"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"folds": "leave-one-out"}, "sets of samples"),
        ({"scoring": "accuracy"}, "scoring must be one of"),
        ({"alphas": [0.0]}, "above 0"),
        ({"X": np.full((60, 8), np.nan)}, "X must be finite"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    X, Y, bands = problem()
    arguments = {"X": X, "Y": Y, "bands": bands, "alphas": ALPHAS} | change
    with pytest.raises(ValueError, match=message):
        banded_ridge_cv(**arguments)


def test_labels_without_an_order_are_refused():
    X, Y, _ = problem()
    with pytest.raises(TypeError, match="bands must be labels of one kind that can be sorted"):
        banded_ridge_cv(X, Y, np.array(["a", None] * 4, object), ALPHAS)
