"""Band weights by gradient, and penalties of each band and target, against plain float64 solves."""

import numpy as np
import pytest
import torch

from neurokern.encoding import BandedRidgeEncoder
from neurokern.ops import _ridge_band_fit, banded_ridge_cv, solve_banded_ridge
from neurokern.ops._ridge_arguments import check_problem
from neurokern.ops._ridge_band_fit import BandKernels
from neurokern.ops._ridge_band_gradient import Descent, shares_of
from neurokern.ops._ridge_band_systems import TallSystems, WideSystems
from neurokern.ops._ridge_blas import algebra_for
from neurokern.ops._ridge_folds import make_folds
from neurokern.ops._ridge_scores import Scores

pytestmark = [pytest.mark.cpu_only]
ALPHAS = (0.1, 3.0, 100.0, 3000.0)
SHAPES = pytest.mark.parametrize(("n", "p"), [(60, 9), (32, 60)], ids=["tall", "wide"])


def problem(n, p, seed=0, n_targets=4):
    """Targets that follow the first band alone, the first two, or all."""
    random = np.random.default_rng(seed)
    band = np.arange(p) % 3
    X = random.normal(2, 1, (n, p)) * np.array([1.0, 0.3, 2.0])[band]
    strength = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]])[np.arange(n_targets) % 4]
    weights = random.normal(size=(p, n_targets)) * strength.T[band]
    return X, X @ weights + 2 * random.normal(size=(n, n_targets)) + 3, band


def plain_fit(X, Y, penalties, weight):
    """Weights and intercept of each target with penalties (features, targets)."""
    share, root = weight / weight.sum(), np.sqrt(weight)[:, None]
    x_mean, y_mean = share @ X, share @ Y
    A, B = (X - x_mean) * root, (Y - y_mean) * root
    columns = [np.linalg.solve(A.T @ A + np.diag(penalties[:, t]), A.T @ B[:, t]) for t in range(Y.shape[1])]
    return np.stack(columns, 1), y_mean - x_mean @ np.stack(columns, 1)


def plain_error(X, Y, band, log_weights, folds, weight):
    """1 - R2, mean over folds, of each target; log_weights (targets, bands)."""
    total = np.zeros(Y.shape[1])
    for fold in folds:
        test = np.arange(len(X))[fold.test]
        W, c = plain_fit(X[fold.train], Y[fold.train], np.exp(-log_weights).T[band], weight[fold.train])
        share, y = weight[test], Y[test]
        spread = share @ (y - share @ y / share.sum()) ** 2
        total += share @ (y - X[test] @ W - c) ** 2 / spread / len(folds)
    return total


@SHAPES
@pytest.mark.parametrize("weighted", [False, True])
def test_errors_and_their_gradient_are_those_of_the_written_out_problem(n, p, weighted):
    X, Y, band = problem(n, p)
    random = np.random.default_rng(1)
    weight = random.random(n) + 0.2 if weighted else np.ones(n)
    folds, given = make_folds("", 4, None, n), check_problem("", X, Y, weight if weighted else None)
    at = random.normal(-3, 2, (4, 3))
    with algebra_for(None) as algebra:
        if p < n:
            sums = TallSystems(algebra, given, folds, band, True)
        else:
            sums = WideSystems(BandKernels(algebra, given, band, True), folds)
        systems = sums.load(slice(0, 4), "float64")
        shares, varies = shares_of(algebra, systems, "r2", False)
        descent = Descent(algebra, systems, shares, (-20.0, 20.0), 1e-13)
        error, slope = descent.errors(at)
        scores = Scores(algebra, "r2", False)
        for system in systems:
            scores.add(system.sums(at, 1e-13))
    assert varies.all()
    right = plain_error(X, Y, band, at, folds, weight)
    np.testing.assert_allclose(error, right, rtol=1e-10)
    np.testing.assert_allclose(1 - scores.result()[:, 0], right, rtol=1e-10)
    step = 1e-5
    for b in range(3):
        moved = [plain_error(X, Y, band, at + sign * step * np.eye(3)[b], folds, weight) for sign in (1, -1)]
        np.testing.assert_allclose(slope[:, b], (moved[0] - moved[1]) / (2 * step), atol=1e-8)


@SHAPES
@pytest.mark.parametrize("scoring", ["r2", "pearson", "mse"])
def test_the_gradient_ends_where_no_neighbor_is_better_and_never_below_its_start(n, p, scoring):
    X, Y, band = problem(n, p)
    start = banded_ridge_cv(X, Y, band, ALPHAS, 4, n_candidates=5, scoring=scoring)
    end = banded_ridge_cv(X, Y, band, ALPHAS, 4, n_candidates=5, scoring=scoring, search="gradient")
    sign = -1 if scoring == "mse" else 1
    assert (sign * (end.scores - start.scores) >= 0).all()
    assert (sign * (end.scores - start.scores) > 5e-4).any()
    np.testing.assert_allclose(end.band_weights.sum(0), 1)
    # What is reported is the score and the fit of those weights.
    again = [
        banded_ridge_cv(
            X, Y[:, t], band, [end.alphas[t]], 4, band_weights=end.band_weights[None, :, t], scoring=scoring
        )
        for t in range(4)
    ]
    np.testing.assert_allclose(end.scores, [float(one.scores) for one in again], rtol=1e-7)
    np.testing.assert_allclose(end.weights, np.stack([one.weights for one in again], 1), atol=1e-7)
    np.testing.assert_allclose(end.intercept, [float(one.intercept) for one in again], atol=1e-7)
    if scoring != "r2":
        return
    folds, penalties = make_folds("", 4, None, n), end.alphas / np.maximum(end.band_weights, 1e-12)
    here = plain_error(X, Y, band, -np.log(penalties).T, folds, np.ones(n))
    inside = (penalties > min(ALPHAS) / 10 * 1.5) & (penalties < max(ALPHAS) * 1e5 / 1.5)
    for b in range(3):
        for sign in (1, -1):
            moved = plain_error(
                X, Y, band, -np.log(penalties).T + sign * 0.3 * np.eye(3)[b], folds, np.ones(n)
            )
            assert (moved > here - 3e-4)[inside[b]].all()


@SHAPES
def test_float32_chunks_and_tensors_end_at_the_same_scores(n, p, monkeypatch):
    monkeypatch.setattr(_ridge_band_fit, "_CHUNK_BYTES", 1)
    monkeypatch.setattr("neurokern.ops._ridge_cv.SMALL", 0)
    monkeypatch.setattr("neurokern.ops._ridge_cv.FEW", 0)
    X, Y, band = problem(n, p, n_targets=70)
    X, Y = X.astype(np.float32), Y.astype(np.float32)
    options = {"n_candidates": 4, "search": "gradient"}
    single = banded_ridge_cv(torch.from_numpy(X), torch.from_numpy(Y), band, ALPHAS, 3, **options)
    double = banded_ridge_cv(X.astype(float), Y.astype(float), band, ALPHAS, 3, **options)
    assert isinstance(single.weights, torch.Tensor)
    assert single.weights.dtype == torch.float32
    assert np.quantile(np.abs(single.scores.numpy() - double.scores), 0.9) < 1e-4


def test_it_says_the_same_through_the_estimator_and_of_one_target():
    X, Y, band = problem(60, 9)
    fitted = BandedRidgeEncoder(bands=band, alphas=ALPHAS, n_candidates=4, search="gradient").fit(X, Y[:, 1])
    found = banded_ridge_cv(X, Y[:, 1], band, ALPHAS, 5, n_candidates=4, search="gradient")
    np.testing.assert_array_equal(fitted.coef_, found.weights)
    assert found.alphas not in ALPHAS
    with pytest.raises(ValueError, match="search must be one of"):
        BandedRidgeEncoder(bands=band, search="annealing").fit(X, Y)


def test_constant_targets_and_single_bands_take_the_gradient_in_their_stride():
    X, Y, band = problem(60, 9)
    Y[:, 2] = 7.0
    found = banded_ridge_cv(X, Y, band, ALPHAS, n_candidates=3, search="gradient")
    assert np.isnan(found.scores[2])
    assert found.alphas[2] == max(ALPHAS)
    assert not found.weights[:, 2].any()
    alone = banded_ridge_cv(X, Y[:, :2], np.zeros(9), ALPHAS, search="gradient")
    assert (alone.band_weights == 1).all()
    assert (alone.scores >= banded_ridge_cv(X, Y[:, :2], np.zeros(9), ALPHAS).scores).all()
    silent = banded_ridge_cv(X, np.full((60, 2), 3.0), band, ALPHAS, n_candidates=3, search="gradient")
    assert np.isnan(silent.scores).all()


@SHAPES
@pytest.mark.parametrize("weighted", [False, True])
def test_penalties_of_bands_and_targets_give_the_plain_solution(n, p, weighted):
    X, Y, band = problem(n, p)
    random = np.random.default_rng(2)
    weight = random.random(n) + 0.2
    penalties = 10 ** random.uniform(-2, 4, (3, 4))
    found = solve_banded_ridge(X, Y, band, penalties, sample_weight=weight if weighted else None)
    right = plain_fit(X, Y, penalties[band], weight if weighted else np.ones(n))
    np.testing.assert_allclose(found.weights, right[0], atol=1e-7)
    np.testing.assert_allclose(found.intercept, right[1], atol=1e-6)
    single = solve_banded_ridge(torch.from_numpy(X).float(), torch.from_numpy(Y).float(), band, penalties)
    np.testing.assert_allclose(single.weights, plain_fit(X, Y, penalties[band], np.ones(n))[0], atol=1e-4)


@SHAPES
@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_penalties_orders_of_magnitude_apart_are_solved_as_exactly_as_one(n, p, kind, monkeypatch):
    X, Y, band = problem(n, p)
    X, Y = (30 * X).astype(kind), Y.astype(kind)
    penalties = np.array([[1e-3, 1e3], [10.0, 1e-3], [1e4, 1e-6]])[:, [0, 1, 0, 1]]
    right, _ = plain_fit(np.float64(X), np.float64(Y), penalties[band], np.ones(n))
    monkeypatch.setattr(_ridge_band_fit, "_MATRIX_BYTES", 1)  # one matrix at a time
    for make in (np.asarray, torch.from_numpy):
        found = solve_banded_ridge(make(X), make(Y), band, penalties)
        error = np.abs(np.asarray(found.weights, np.float64) - right).max(0)
        assert (error < {"float64": 1e-8, "float32": 2e-7}[kind] * np.abs(right).max(0)).all()


def test_an_infinite_penalty_leaves_a_band_out_and_one_target_loses_its_axis():
    X, Y, band = problem(60, 9)
    found = solve_banded_ridge(X, Y[:, 0], band, [np.inf, 2.0, 3.0], fit_intercept=False)
    assert found.weights.shape == (9,)
    assert found.intercept == 0
    assert not found.weights[band == 0].any()
    some = X[:, band != 0]
    penalty = np.diag(np.array([2.0, 3.0])[band[band != 0] - 1])
    right = np.linalg.solve(some.T @ some + penalty, some.T @ Y[:, 0])
    np.testing.assert_allclose(found.weights[band != 0], right, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"penalties": [1.0, 2.0]}, r"penalties must have shape \(3,\) or \(3, 4\)"),
        ({"penalties": [1.0, 0.0, 2.0]}, "penalties must be above 0, got 0"),
        ({"penalties": [1.0, np.nan, 2.0]}, "penalties must be above 0, got nan"),
        ({"bands": np.zeros((9, 1))}, "one label per feature"),
        ({"bands": [0.0, 1.0, np.nan] * 3}, "bands must not be NaN, got 3"),
        ({"X": np.full((60, 9), np.inf)}, "X must be finite"),
    ],
)
def test_bad_penalties_are_refused(change, message):
    X, Y, band = problem(60, 9)
    with pytest.raises(ValueError, match=message):
        solve_banded_ridge(**({"X": X, "Y": Y, "bands": band, "penalties": [1.0, 2.0, 3.0]} | change))
