"""A target that is constant in a fold (a unit that is silent for a while) says nothing there."""

import numpy as np
import pytest

from neurokern.ops import RidgeAccumulator, _ridge_cv, _ridge_plan, _ridge_wide
from neurokern.ops.banded_ridge import banded_ridge_cv
from neurokern.ops.solve_ridge import ridge_cv

ALPHAS = np.geomspace(1, 1e4, 7)


def silent_at_first():
    """Roots of counts of which half of the units are silent in the first of four folds; float32."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(400, 30)).astype(np.float32)
    rates = np.exp(0.3 * X @ generator.normal(size=(30, 20)) - 1)
    Y = np.sqrt(generator.poisson(rates)).astype(np.float32)
    Y[:100, :10] = 0
    return X, Y


@pytest.fixture(autouse=True)
def float32_products(monkeypatch):
    """Let small problems of float32 be computed as large ones are."""
    monkeypatch.setattr(_ridge_cv, "SMALL", 0)
    monkeypatch.setattr(_ridge_cv, "FEW", 0)
    monkeypatch.setattr(_ridge_wide, "_LARGE", 0)


def assert_same(single, double):
    np.testing.assert_allclose(single.scores, double.scores, atol=1e-5)
    np.testing.assert_array_equal(single.alphas, double.alphas)


@pytest.mark.parametrize("route", ["tall", "wide", "blocks"])
@pytest.mark.parametrize("scoring", ["r2", "pearson"])
def test_the_fold_is_left_out_of_the_mean(route, scoring, monkeypatch):
    plan = _ridge_plan.RidgePlan(route, {route: np.inf})
    monkeypatch.setattr(_ridge_cv, "choose_route", lambda *arguments, **options: plan)
    X, Y = silent_at_first()
    single = ridge_cv(X, Y, ALPHAS, 4, scoring=scoring)
    double = ridge_cv(X.astype(np.float64), Y.astype(np.float64), ALPHAS, 4, scoring=scoring)
    assert_same(single, double)
    others = [(np.delete(np.arange(400), test), test) for test in np.arange(100, 400).reshape(3, 100)]
    without = ridge_cv(X.astype(float), Y[:, :10].astype(float), ALPHAS, others, scoring=scoring)
    np.testing.assert_allclose(double.scores[:10], without.scores)


def test_it_is_left_out_of_a_stream_too():
    X, Y = silent_at_first()
    stream = RidgeAccumulator()
    for first in range(0, 400, 50):
        stream.update(X[first : first + 50], Y[first : first + 50], first // 100)
    assert_same(stream.solve(ALPHAS), ridge_cv(X.astype(float), Y.astype(float), ALPHAS, 4))


def test_it_is_left_out_of_the_search_for_bands():
    X, Y = silent_at_first()
    bands = np.repeat([0, 1], 15)
    single = banded_ridge_cv(X, Y, bands, ALPHAS, 4, n_candidates=5)
    double = banded_ridge_cv(X.astype(float), Y.astype(float), bands, ALPHAS, 4, n_candidates=5)
    assert_same(single, double)
    np.testing.assert_array_equal(single.band_weights, double.band_weights)
