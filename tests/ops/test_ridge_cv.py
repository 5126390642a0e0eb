"""ridge_cv: the scores, choices and weights of a loop that fits every fold with every penalty in float64."""

import itertools
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurokern.ops import (
    _ridge_blas,
    _ridge_blocks,
    _ridge_cv,
    _ridge_parts,
    _ridge_plan,
    _ridge_tall,
    _ridge_wide,
)
from neurokern.ops._ridge_folds import make_folds
from neurokern.ops._ridge_reference import cv_reference, ridge_reference
from neurokern.ops.solve_ridge import ridge_cv, solve_ridge

ALPHAS = np.geomspace(1, 1e5, 9)
ROUTES = ["tall", "wide", "blocks"]


@pytest.fixture(params=["numpy", "torch"])
def as_on_a_gpu(request, monkeypatch):
    """Also run the path of tensors on a GPU, on tensors of the CPU."""
    if request.param == "torch":
        monkeypatch.setattr(_ridge_blas, "device_of", lambda tensor: tensor.device)
    return request.param


@pytest.fixture
def route(request, monkeypatch):
    """Take one route whatever it costs."""
    plan = _ridge_plan.RidgePlan(request.param, {request.param: np.inf})
    monkeypatch.setattr(_ridge_cv, "choose_route", lambda *arguments, **options: plan)
    return request.param


@pytest.fixture
def float32_products(monkeypatch):
    """Let small problems of float32 be computed as large ones are."""
    monkeypatch.setattr(_ridge_cv, "SMALL", 0)
    monkeypatch.setattr(_ridge_cv, "FEW", 0)
    monkeypatch.setattr(_ridge_wide, "_LARGE", 0)
    monkeypatch.setattr(_ridge_parts, "_WORTH_CUTTING", 0)


def data(n, p, v, seed=0, noise=2.0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, p)) + 3
    return X, X @ random.normal(size=(p, v)) / p**0.5 + noise * random.normal(size=(n, v)) - 3


def pairs_of(folds, n, runs=None):
    if folds == "leave-one-out":
        return [(np.delete(np.arange(n), left), [left]) for left in range(n)]
    if not isinstance(folds, list):
        return [(fold.train, np.arange(n)[fold.test]) for fold in make_folds("", folds, runs, n)]
    return folds


def gaps(n):
    """Pairs that leave samples aside, and some of them in no test set."""
    every = np.arange(n)
    return [(every[12:], every[:8]), (every[: n - 10], every[n - 6 :]), (np.r_[0:2, 9:n], every[3:7])]


@pytest.mark.parametrize(
    ("route", "folds"),
    # Blocks are residuals of training on all other samples, without a gap.
    [
        pair
        for pair in itertools.product(ROUTES, ["contiguous", "runs", "gaps"])
        if pair != ("blocks", "gaps")
    ],
    indirect=["route"],
)
@pytest.mark.parametrize("shape", [(60, 10, 5), (24, 60, 7)])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_every_route_gives_the_scores_of_the_loop(route, shape, folds, fit_intercept, as_on_a_gpu):
    X, Y = data(*shape)
    n = len(X)
    runs = np.arange(n) % 4 if folds == "runs" else None
    given = {"contiguous": 5, "runs": "leave-one-run-out", "gaps": gaps(n)}[folds]
    weight = np.random.default_rng(1).random(n) + 0.1
    pairs = pairs_of(given, n, runs)
    for scoring in ("r2", "mse", "pearson"):
        for pooled in (False, True):
            options = {"scoring": scoring, "pooled": pooled, "fit_intercept": fit_intercept}
            right = cv_reference(X, Y, ALPHAS, pairs, sample_weight=weight, **options)
            found = ridge_cv(
                torch.tensor(X),
                torch.tensor(Y),
                ALPHAS,
                given,
                runs=runs,
                sample_weight=weight,
                return_alpha_scores=True,
                **options,
            )
            np.testing.assert_allclose(found.alpha_scores, right, atol=1e-9 * max(1, np.abs(right).max()))
            best = right.argmin(0) if scoring == "mse" else right.argmax(0)
            np.testing.assert_array_equal(found.alphas, ALPHAS[best])
            np.testing.assert_allclose(found.scores, right[best, np.arange(len(best))], atol=1e-9)
            weights, intercept = ridge_reference(X, Y, found.alphas, weight, fit_intercept)
            np.testing.assert_allclose(found.weights, weights, atol=1e-9)
            np.testing.assert_allclose(found.intercept, intercept, atol=1e-8)


@pytest.mark.parametrize("shape", [(40, 9, 4), (20, 33, 4), (5, 3, 2)])
@pytest.mark.parametrize("scoring", ["r2", "mse", "pearson"])
def test_leave_one_out_is_the_loop_over_samples(shape, scoring, as_on_a_gpu):
    X, Y = data(*shape)
    weight = np.random.default_rng(1).random(len(X)) + 0.1
    for fit_intercept in (False, True):
        pairs = pairs_of("leave-one-out", len(X))
        options = {"scoring": scoring, "sample_weight": weight, "fit_intercept": fit_intercept}
        right = cv_reference(X, Y, ALPHAS, pairs, pooled=True, **options)
        found = ridge_cv(
            torch.tensor(X), torch.tensor(Y), ALPHAS, "leave-one-out", return_alpha_scores=True, **options
        )
        np.testing.assert_allclose(found.alpha_scores, right, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(40, 9, 4), (20, 33, 4)])
def test_gcv_replaces_leverages_by_their_mean(shape):
    X, Y = data(*shape)
    found = ridge_cv(X, Y, ALPHAS, "gcv", scoring="mse", return_alpha_scores=True)
    centered = X - X.mean(0)
    for alpha, scores in zip(ALPHAS, found.alpha_scores, strict=True):
        hat = centered @ np.linalg.solve(centered.T @ centered + alpha * np.eye(shape[1]), centered.T)
        hat += 1 / len(X)
        residuals = Y - hat @ Y
        right = (residuals**2).mean(0) / (1 - np.trace(hat) / len(X)) ** 2
        np.testing.assert_allclose(scores, right, rtol=1e-8)


@pytest.mark.parametrize("route", [*ROUTES, "leave-one-out"], indirect=True)
@pytest.mark.parametrize("shape", [(150, 30, 30), (50, 100, 30)])
def test_float32_selects_as_float64_and_scores_to_1e_6(route, shape, float32_products, as_on_a_gpu):
    X, Y = (values.astype(np.float32) for values in data(*shape))
    folds = "leave-one-out" if route == "leave-one-out" else 5
    right = cv_reference(X, Y, ALPHAS, pairs_of(folds, len(X)), pooled=route == "leave-one-out")
    found = ridge_cv(torch.tensor(X), torch.tensor(Y), ALPHAS, folds, return_alpha_scores=True)
    assert found.weights.dtype == torch.float32
    np.testing.assert_allclose(found.alpha_scores, right, atol=1e-6 * (1 + np.abs(right).max()))
    np.testing.assert_array_equal(found.alphas, ALPHAS[right.argmax(0)])
    weights, _ = ridge_reference(X, Y, found.alphas)
    np.testing.assert_allclose(found.weights, weights, atol=1e-5 * np.abs(weights).max())


@pytest.mark.parametrize("route", [*ROUTES, "leave-one-out"], indirect=True)
def test_a_long_grid_costs_few_solutions_and_keeps_its_scores(route, float32_products):
    alphas = np.geomspace(1e-1, 1e7, 60)
    X, Y = (values.astype(np.float32) for values in data(90, 30, 6))
    folds = "leave-one-out" if route == "leave-one-out" else 5
    found = ridge_cv(X, Y, alphas, folds, return_alpha_scores=True, return_plan=True)
    assert found.plan.n_solved <= (60 if route == "blocks" else 25)
    right = cv_reference(X, Y, alphas, pairs_of(folds, 90), pooled=route == "leave-one-out")
    np.testing.assert_allclose(found.alpha_scores, right, atol=3e-6)


@pytest.mark.parametrize("route", ROUTES, indirect=True)
def test_chunks_of_targets_and_of_rows_change_nothing(route, monkeypatch, float32_products):
    X, Y = (values.astype(np.float32) for values in data(300, 250 if route == "tall" else 40, 500))
    whole = ridge_cv(X, Y, ALPHAS, return_plan=True)
    assert whole.plan.chunk == 500
    for module in (_ridge_tall, _ridge_wide):
        monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
        monkeypatch.setattr(module, "_STACK_BYTES", 1)
    monkeypatch.setattr(_ridge_parts, "_BUFFER_BYTES", 1)
    monkeypatch.setattr(_ridge_blocks, "_KEPT_BYTES", 1)
    monkeypatch.setattr(_ridge_wide, "_KEPT_BYTES", 1)
    monkeypatch.setattr(_ridge_tall, "ROWS", 16)
    cut = ridge_cv(X, Y, ALPHAS, return_plan=True)
    assert cut.plan.chunk < 500
    np.testing.assert_array_equal(cut.alphas, whole.alphas)
    np.testing.assert_allclose(cut.scores, whole.scores, atol=2e-6)
    np.testing.assert_allclose(cut.weights, whole.weights, atol=1e-5 * np.abs(whole.weights).max())
    np.testing.assert_allclose(cut.intercept, whole.intercept, atol=1e-4)


@settings(max_examples=25)
@given(
    st.integers(4, 30),
    st.integers(1, 30),
    st.integers(1, 4),
    st.integers(2, 4),
    st.booleans(),
    st.integers(0, 99),
)
def test_any_shape_gives_the_scores_of_the_loop(n, p, v, folds, pooled, seed):
    X, Y = data(n, p, v, seed)
    found = ridge_cv(X, Y, ALPHAS, folds, scoring="mse", pooled=pooled, return_alpha_scores=True)
    right = cv_reference(X, Y, ALPHAS, pairs_of(folds, n), scoring="mse", pooled=pooled)
    np.testing.assert_allclose(found.alpha_scores, right, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", [(4000, 40, 3), (300, 600, 3), (60, 10, 4)])
def test_the_plan_takes_the_route_with_the_least_work(shape):
    X, Y = data(*shape)
    plan = ridge_cv(X, Y, [1.0, 10.0], 20, return_plan=True).plan
    assert plan.route == min(plan.operations, key=plan.operations.get)
    assert plan.route == ("blocks" if shape[0] < shape[1] else "tall")
    assert ridge_cv(X, Y, [1.0]).plan is None


def test_a_shared_alpha_is_the_one_with_the_best_mean(monkeypatch):
    X, Y = data(60, 10, 200, noise=1)
    Y[:, 7] = 2.5  # has no score, and no say
    for _ in range(2):
        found = ridge_cv(X, Y, ALPHAS, shared_alpha=True, return_alpha_scores=True)
        others = np.delete(found.alpha_scores, 7, axis=1)
        assert set(found.alphas) == {ALPHAS[others.mean(1).argmax()]}
        weights, _ = ridge_reference(X, Y, found.alphas)
        np.testing.assert_allclose(found.weights, weights, atol=1e-9)
        monkeypatch.setattr(_ridge_tall, "_CHUNK_BYTES", 1)


def test_large_means_lose_no_digits(float32_products):
    X, Y = data(200, 20, 5)
    for route_shape in (slice(None), slice(0, 15)):  # more samples than features, and fewer
        x = (X[route_shape] + 200).astype(np.float32)
        y = (Y[route_shape] + 200).astype(np.float32)
        right = cv_reference(x, y, ALPHAS, pairs_of(5, len(x)), scoring="mse")
        found = ridge_cv(x, y, ALPHAS, scoring="mse", return_alpha_scores=True)
        np.testing.assert_allclose(found.alpha_scores, right, rtol=3e-6)


def test_constant_targets_have_no_score_and_the_largest_alpha():
    X, Y = data(40, 5, 3)
    Y[:, 1] = 4.25
    Y[:8, 2] = 1.5  # constant in the first of five folds
    for scoring in ("r2", "pearson"):
        found = ridge_cv(X, Y, ALPHAS, 5, scoring=scoring, return_alpha_scores=True)
        assert np.isnan(found.scores[1])
        assert found.alphas[1] == ALPHAS[-1]
        np.testing.assert_allclose(found.weights[:, 1], 0, atol=1e-12)
        np.testing.assert_allclose(found.intercept[1], 4.25)
        right = cv_reference(X, Y[:, 2:], ALPHAS, pairs_of(5, 40)[1:], scoring=scoring)
        np.testing.assert_allclose(found.alpha_scores[:, 2:], right, atol=1e-9)
    assert ridge_cv(X, Y, ALPHAS, 5, scoring="mse").scores[1] < 1e-20


def test_singular_and_constant_features_change_no_prediction():
    X, Y = data(40, 5, 3)
    doubled = np.column_stack([X, np.full(40, 3.0), np.zeros(40)])
    plain, found = ridge_cv(X, Y, ALPHAS), ridge_cv(doubled, Y, ALPHAS)
    np.testing.assert_allclose(found.scores, plain.scores, atol=1e-9)
    np.testing.assert_allclose(found.predict(doubled), plain.predict(X), atol=1e-9)
    repeated = ridge_cv(np.column_stack([X, X]), Y, ALPHAS)
    np.testing.assert_allclose(repeated.weights[:5], repeated.weights[5:], atol=1e-9)


def test_all_features_constant_predict_the_mean():
    _, Y = data(20, 1, 2)
    found = ridge_cv(np.ones((20, 3)), Y, ALPHAS, 4)
    np.testing.assert_allclose(found.weights, 0, atol=1e-12)
    np.testing.assert_allclose(found.intercept, Y.mean(0))


def test_alphas_are_sorted_and_lose_duplicates():
    X, Y = data(40, 5, 3)
    found = ridge_cv(X, Y, [10, 1, 100, 10, 1e-3], return_alpha_scores=True)
    np.testing.assert_array_equal(found.candidates, [1e-3, 1, 10, 100])
    assert found.alpha_scores.shape == (4, 3)
    np.testing.assert_array_equal(found.alphas, ridge_cv(X, Y, [1e-3, 1, 10, 100]).alphas)


def test_one_target_has_no_axis_of_targets():
    X, Y = data(40, 5, 1)
    found = ridge_cv(torch.tensor(X), torch.tensor(Y[:, 0]), ALPHAS, return_alpha_scores=True)
    assert found.weights.shape == (5,)
    assert found.alphas.shape == found.scores.shape == found.intercept.shape == ()
    assert found.alpha_scores.shape == (9,)
    assert found.predict(torch.tensor(X)).shape == (40,)


@pytest.mark.parametrize("shape", [(25, 6), (6, 25)])
def test_leave_one_out_chooses_as_scikit_learn(shape):
    from sklearn.linear_model import RidgeCV

    rng = np.random.default_rng(0)
    X = rng.normal(2.0, 1.0, shape)
    Y = X @ rng.normal(size=(shape[1], 3)) + rng.normal(size=(shape[0], 3)) + 3
    alphas = [0.01, 0.3, 5.0, 100.0]
    theirs = RidgeCV(alphas, alpha_per_target=True).fit(X, Y)
    fit = ridge_cv(X, Y, alphas, "leave-one-out")
    np.testing.assert_allclose(fit.alphas, theirs.alpha_)
    np.testing.assert_allclose(fit.weights, theirs.coef_.T, atol=1e-8)


@pytest.mark.parametrize("shape", [(35, 6), (16, 25)])
def test_one_pair_of_folds_is_a_validation_set(shape):
    rng = np.random.default_rng(1)
    X = rng.normal(size=shape)
    Y = X @ rng.normal(size=(shape[1], 3)) + 2 * rng.normal(size=(shape[0], 3))
    train, test = np.arange(shape[0] - 10), np.arange(shape[0] - 10, shape[0])
    alphas = [0.01, 0.3, 5.0, 100.0]
    fit = ridge_cv(X, Y, alphas, [(train, test)], return_alpha_scores=True)
    fits = [solve_ridge(X[train], Y[train], alpha) for alpha in alphas]
    errors = [np.square(Y[test] - X[test] @ weights - intercept).sum(0) for weights, intercept in fits]
    total = np.square(Y[test] - Y[test].mean(0)).sum(0)
    np.testing.assert_allclose(fit.alpha_scores, 1 - np.array(errors) / total, rtol=1e-7)
    np.testing.assert_array_equal(fit.alphas, np.asarray(alphas)[np.argmin(errors, 0)])


def test_a_splitter_of_scikit_learn_makes_the_folds():
    model_selection = pytest.importorskip("sklearn.model_selection")
    X, Y = data(40, 5, 2)
    splitter = model_selection.KFold(4, shuffle=True, random_state=0)
    found = ridge_cv(X, Y, ALPHAS, splitter, return_alpha_scores=True)
    right = cv_reference(X, Y, ALPHAS, list(splitter.split(X)))
    np.testing.assert_allclose(found.alpha_scores, right, atol=1e-9)
    groups = np.repeat(np.arange(4), 10)
    grouped = ridge_cv(X, Y, ALPHAS, model_selection.LeaveOneGroupOut(), runs=groups)
    by_name = ridge_cv(X, Y, ALPHAS, "leave-one-run-out", runs=groups)
    np.testing.assert_allclose(grouped.scores, by_name.scores, rtol=1e-9)


def test_masks_and_indices_make_the_same_folds():
    X, Y = data(40, 5, 2)
    masks = [(np.arange(40) >= 10, np.arange(40) < 8), (np.arange(40) < 30, np.arange(40) >= 32)]
    indices = [(np.flatnonzero(train), torch.tensor(np.flatnonzero(test))) for train, test in masks]
    np.testing.assert_array_equal(
        ridge_cv(X, Y, ALPHAS, masks).scores, ridge_cv(X, Y, ALPHAS, indices).scores
    )


X0, Y0 = data(10, 3, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, r"folds must lie between 2 and the number of samples, 10, got 1"),
        ({"folds": 11}, r"folds must lie between 2 and the number of samples, 10, got 11"),
        ({"folds": "loo"}, r"folds must be a number, .* got 'loo'"),
        ({"folds": "leave-one-run-out"}, r"needs runs"),
        ({"folds": "leave-one-run-out", "runs": np.zeros(10)}, r"at least 2 different labels, got 1"),
        ({"folds": "leave-one-run-out", "runs": np.arange(9)}, r"runs must have shape \(10,\)"),
        ({"folds": "leave-one-run-out", "runs": [0.0, np.nan] * 5}, r"runs must not be NaN, got 5"),
        ({"folds": 3, "runs": np.arange(10)}, r"runs goes with"),
        ({"folds": []}, r"at least one pair"),
        ({"folds": [([0, 1], [])]}, r"test samples of fold 0 must hold at least one sample"),
        ({"folds": [([], [0, 1])]}, r"training samples of fold 0 must hold at least one sample"),
        ({"folds": [([0, 1, 2], [2, 3])]}, r"fold 0 tests on 1 of its training samples"),
        ({"folds": [([0, 1, 10], [2, 3])]}, r"must lie in \[0, 10\)"),
        ({"folds": [([0, 0, 1], [2, 3])]}, r"without duplicates"),
        ({"folds": [np.arange(3)]}, r"fold 0 must be a pair"),
        ({"alphas": []}, r"alphas must hold at least one penalty"),
        ({"alphas": [1, -1]}, r"alphas must be finite and above 0, got -1"),
        ({"alphas": [0.0]}, r"above 0, got 0"),
        ({"alphas": [np.inf]}, r"above 0, got inf"),
        ({"scoring": "rho"}, r"scoring must be one of 'r2', 'pearson', 'mse', got 'rho'"),
        ({"folds": "leave-one-out", "pooled": False}, r"pooled must be True"),
        ({"folds": "gcv", "scoring": "pearson"}, r"needs predictions"),
        ({"sample_weight": np.full(10, 1e200)}, r"sample_weight must be finite .* a sum of 1e\+201"),
        ({"sample_weight": np.r_[np.zeros(2), np.ones(8)]}, r"not be 0 on all test samples of fold 0"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    arguments = {"alphas": [1.0, 2.0], "folds": 5} | options
    alphas = arguments.pop("alphas")
    with pytest.raises(ValueError, match=message):
        ridge_cv(X0, Y0, alphas, **arguments)


def test_wrong_kinds_are_named():
    with pytest.raises(TypeError, match="folds must be an integer"):
        ridge_cv(X0, Y0, [1.0], 2.5)
    with pytest.raises(TypeError, match="must be whole numbers"):
        ridge_cv(X0, Y0, [1.0], [([0.5, 1.5], [3, 4])])
    with pytest.raises(ValueError, match="on one device"):
        ridge_cv(X0, torch.tensor(Y0), [1.0])
    with pytest.raises(ValueError, match="number of samples, 1,"):
        ridge_cv(X0[:1], Y0[:1], [1.0], 2)


@pytest.mark.parametrize("route", ["tall", "wide"], indirect=True)
def test_nearly_perfect_fits_are_scored_in_float64(route, float32_products):
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 6)).astype(np.float32)
    Y = X @ random.normal(size=(6, 4)).astype(np.float32)
    Y[:, :3] += (1e-5 * random.normal(size=(60, 3))).astype(np.float32)
    Y[:, 3] += 2 * random.normal(size=60).astype(np.float32)
    alphas = np.geomspace(1e-5, 1e2, 8)
    right = cv_reference(X, Y, alphas, pairs_of(5, 60))
    found = ridge_cv(X, Y, alphas, 5)
    assert found.weights.dtype == np.float32
    np.testing.assert_allclose(1 - found.scores[:3], 1 - right.max(0)[:3], rtol=1e-2)
    assert (right.max(0) - right[np.searchsorted(alphas, found.alphas * 0.999), np.arange(4)] < 1e-7).all()


def test_an_ill_conditioned_problem_is_reported():
    X, Y = (values.astype(np.float32) for values in data(4000, 60, 40))
    X[:, 1] = X[:, 0] * 1.0001
    with pytest.warns(RuntimeWarning, match="the problem with alpha=1e-12 has the condition"):
        found = ridge_cv(X, Y, [1e-12, 1.0], 2, return_plan=True)
    assert found.plan.condition > 1e15
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ridge_cv(X, Y, [1.0, 10.0], 2, return_plan=True).plan.condition < 1e5


@pytest.mark.parametrize("folds", [4, "leave-one-out"])
def test_missing_samples_leave_a_target_with_those_that_it_has(folds, as_on_a_gpu):
    X, Y = data(48, 5, 6)
    missing = np.zeros(Y.shape, bool)
    missing[:7, 1] = missing[:7, 4] = missing[10::5, 2] = True
    missing[:12, 5] = True  # the whole first fold
    holes = np.where(missing, np.nan, Y)
    found = ridge_cv(
        torch.tensor(X), torch.tensor(holes), ALPHAS, folds, nan_policy="mask", return_alpha_scores=True
    )
    solved = solve_ridge(torch.tensor(X), torch.tensor(holes), 2.0, nan_policy="mask")
    every = np.arange(48)
    for target in range(6):
        rows = ~missing[:, target]
        if folds == 4:
            pairs = [(every[train][rows[train]], every[test][rows[test]]) for train, test in pairs_of(4, 48)]
            pairs = [pair for pair in pairs if len(pair[1])]
        else:
            pairs = [(np.setdiff1d(every[rows], [left]), [left]) for left in every[rows]]
        y = Y[:, target : target + 1]
        right = cv_reference(X, y, ALPHAS, pairs, pooled=folds != 4)
        np.testing.assert_allclose(found.alpha_scores[:, target], right[:, 0], atol=1e-9)
        weights, intercept = ridge_reference(X[rows], y[rows], found.alphas[target])
        np.testing.assert_allclose(found.weights[:, target], weights[:, 0], atol=1e-9)
        weights, intercept = ridge_reference(X[rows], y[rows], 2.0)
        np.testing.assert_allclose(solved.weights[:, target], weights[:, 0], atol=1e-9)
        np.testing.assert_allclose(solved.intercept[target], intercept[0], atol=1e-9)


def test_masks_that_leave_nothing_are_named():
    X, Y = data(20, 3, 3)
    Y[:, 1] = np.nan
    for call in (
        lambda: ridge_cv(X, Y, ALPHAS, 4, nan_policy="mask"),
        lambda: solve_ridge(X, Y, 1.0, nan_policy="mask"),
    ):
        with pytest.raises(ValueError, match="got none of 1 targets, the first of them number 1"):
            call()
    Y[3, 1] = 1
    with pytest.raises(ValueError, match="samples on both sides of a fold, got none of 1 targets"):
        ridge_cv(X, Y, ALPHAS, 4, nan_policy="mask")
    Y[:, 1] = np.inf
    with pytest.raises(ValueError, match="Y must not be infinite, got infinity in 20 rows"):
        ridge_cv(X, Y, ALPHAS, 4, nan_policy="mask")
    with pytest.raises(ValueError, match="nan_policy must be one of 'raise', 'mask', got 'omit'"):
        ridge_cv(X, Y, ALPHAS, 4, nan_policy="omit")


@pytest.mark.parametrize("shape", [(60, 12), (12, 60)])
def test_memory_beyond_the_result_does_not_grow_with_the_targets(shape):
    random = np.random.default_rng(0)
    X = random.standard_normal(shape, np.float32)
    Y = random.standard_normal((shape[0], 200_000), np.float32)
    ridge_cv(X, Y[:, :50], ALPHAS)
    tracemalloc.start()
    try:
        found = ridge_cv(X, Y, np.geomspace(1, 1e5, 60))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    result = sum(values.nbytes for values in (found.weights, found.intercept, found.alphas, found.scores))
    # Predictions of all targets for all penalties would take 2.9 GB, scores alone 96 MB.
    assert peak - result < 300 << 20
