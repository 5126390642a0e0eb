"""Batched Poisson regression against one fit per unit, and the baseline built on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from synthetic_sessions import make_session, poisson_session

from neurokern.evaluation import GLMPredictor, evaluate_masked_prediction, fit_poisson_glm


def regression_case(n_samples=400, n_features=5, n_units=4, seed=0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n_samples, n_features)) + 0.5
    weights = generator.normal(size=(n_features, n_units)) * 0.3
    return x.astype(dtype), generator.poisson(np.exp(x @ weights - 1)).astype(dtype)


def reference(x, y, penalty, allowed):
    """Weights and intercept of one unit by scipy, with features that are not allowed left out."""
    used = x[:, allowed]

    def loss(parameters):
        eta = used @ parameters[:-1] + parameters[-1]
        value = np.exp(eta).sum() - y @ eta + 0.5 * (penalty[allowed] * parameters[:-1] ** 2).sum()
        residual = np.exp(eta) - y
        slope = np.append(used.T @ residual + penalty[allowed] * parameters[:-1], residual.sum())
        return value, slope

    found = minimize(
        loss,
        np.zeros(used.shape[1] + 1),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000},
    )
    weights = np.zeros(x.shape[1])
    weights[allowed] = found.x[:-1]
    return weights, found.x[-1]


@pytest.mark.parametrize("masked", [False, True])
def test_matches_one_fit_per_unit(masked):
    x, y = regression_case()
    generator = np.random.default_rng(1)
    penalty = generator.uniform(0.5, 20, (x.shape[1], y.shape[1]))
    allowed = generator.random(penalty.shape) < 0.6 if masked else np.ones(penalty.shape, dtype=bool)
    model = fit_poisson_glm(
        x, y, torch.from_numpy(penalty), allowed=torch.from_numpy(allowed), tolerance=1e-12, max_iter=400
    )
    for unit in range(y.shape[1]):
        weights, intercept = reference(x, y[:, unit], penalty[:, unit], allowed[:, unit])
        np.testing.assert_allclose(model.weights[:, unit], weights, atol=2e-3)
        assert float(model.intercept[unit]) == pytest.approx(intercept, abs=2e-3)
        assert (model.weights[~allowed[:, unit], unit] == 0).all()


def test_units_do_not_depend_on_each_other_and_a_start_changes_nothing():
    x, y = regression_case(seed=2)
    together = fit_poisson_glm(x, y, 3.0, tolerance=1e-9)
    alone = fit_poisson_glm(x, y[:, 1:2], 3.0, tolerance=1e-9)
    torch.testing.assert_close(together.weights[:, 1:2], alone.weights, atol=2e-3, rtol=0)
    warm = fit_poisson_glm(x, y, 3.0, tolerance=1e-9, start=fit_poisson_glm(x, y, 30.0))
    torch.testing.assert_close(together.weights, warm.weights, atol=2e-3, rtol=0)
    assert together.converged.all()


@settings(max_examples=15)
@given(
    st.integers(1, 40), st.integers(1, 8), st.integers(1, 4), st.floats(0.1, 50), st.integers(0, 2**32 - 1)
)
def test_fits_keep_the_number_of_spikes_and_ignore_the_order_of_samples(
    n_samples, n_features, n_units, penalty, seed
):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(n_samples, n_features)) * 10 ** generator.uniform(-2, 1, n_features)
    y = generator.poisson(10 ** generator.uniform(-2, 1, n_units), (n_samples, n_units)).astype(float)
    model = fit_poisson_glm(x, y, penalty, tolerance=1e-10)
    fired = y.sum(0) > 0
    # The intercept is free, so at the optimum each unit's expected number of spikes is the observed one.
    expected = model.log_rates(x).exp().sum(0).numpy()
    np.testing.assert_allclose(expected[fired], y.sum(0)[fired], rtol=2e-2)
    assert (model.weights.numpy()[:, ~fired] == 0).all()
    order = generator.permutation(n_samples)
    shuffled = fit_poisson_glm(x[order], y[order], penalty, tolerance=1e-10)
    torch.testing.assert_close(shuffled.log_rates(x).exp(), model.log_rates(x).exp(), rtol=0.05, atol=0.02)


def test_units_that_are_done_early_leave_the_others_to_go_on():
    x, y = regression_case(seed=4, n_units=12)
    y[:, :8] = np.random.default_rng(0).poisson(1.0, (len(y), 8))  # nothing to find: done at once
    penalty = torch.full((x.shape[1], 12), 0.01, dtype=torch.float64)
    penalty[:, :8] = 1e6
    together = fit_poisson_glm(x, y, penalty, tolerance=1e-9)
    alone = fit_poisson_glm(x, y[:, 8:], penalty[:, 8:], tolerance=1e-9)
    assert together.converged.all()
    assert together.n_iterations == alone.n_iterations > 2
    torch.testing.assert_close(together.weights[:, 8:], alone.weights, atol=1e-3, rtol=0)
    stopped = fit_poisson_glm(x, y, penalty, tolerance=1e-9, max_iter=2)
    assert stopped.converged[:8].all()
    assert not stopped.converged[8:].any()


def test_silent_units_extreme_counts_and_constant_features_stay_finite():
    x, y = regression_case(seed=3, dtype=np.float32)
    x[:, 2] = 7.0
    y[:, 0] = 0
    y[5, 1] = 60_000
    model = fit_poisson_glm(x, y, 1.0)
    assert torch.isfinite(model.weights).all()
    assert (model.weights[:, 0] == 0).all()
    assert float(model.intercept[0]) == pytest.approx(np.log(0.5 / len(y)))
    rates = model.log_rates(x).exp()
    assert float(rates[:, 1].sum()) == pytest.approx(float(y[:, 1].sum()), rel=1e-3)


@pytest.mark.parametrize(
    ("x", "y", "penalty", "message"),
    [
        (np.ones((3, 2)), np.ones((4, 2)), 1.0, "shapes"),
        (np.ones((0, 2)), np.ones((0, 2)), 1.0, "something in them"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), 1.0, "features must be finite"),
        (np.ones((3, 2)), np.full((3, 2), np.inf), 1.0, "counts must be finite"),
        (np.ones((3, 2)), -np.ones((3, 2)), 1.0, "negative"),
        (np.ones((3, 2)), np.ones((3, 2)), 0.0, "penalty"),
        (np.ones((3, 2)), np.ones((3, 2)), torch.ones(3, 2), "penalty"),
    ],
)
def test_bad_input_is_refused(x, y, penalty, message):
    with pytest.raises(ValueError, match=message):
        fit_poisson_glm(x, y, penalty)


@pytest.mark.parametrize("task", ["co-smoothing", "intra-region", "inter-region", "forward-prediction"])
def test_hidden_counts_never_reach_the_predicted_rates(task):
    session, _ = poisson_session(24, 12, 6)
    predictor = GLMPredictor.fit(session.select(slice(0, 16)), session.select(slice(16, 20)), [task])
    counts = torch.from_numpy(session.counts[20:].astype(np.float32))
    regions = session.region_index[0]
    rates = predictor.predict(counts, task, torch.zeros(1, 1, 1, dtype=torch.bool))
    for unit in range(session.n_units):
        changed = counts.clone()
        if task == "forward-prediction":
            changed[:, -1:] += 5
        else:
            hidden = np.arange(session.n_units) == unit
            if task == "inter-region":
                hidden |= regions == regions[unit]
            if task == "intra-region":
                hidden |= regions != regions[unit]
            changed[:, :, torch.from_numpy(hidden)] += 5
        again = predictor.predict(changed, task, torch.zeros(1, 1, 1, dtype=torch.bool))
        torch.testing.assert_close(rates[:, -1:, unit], again[:, -1:, unit], rtol=0, atol=0)


def test_rates_are_capped_where_features_leave_their_range():
    session, _ = poisson_session(20, 10, 4, size=2.0)
    predictor = GLMPredictor.fit(
        session.select(slice(0, 14)), session.select(slice(14, 20)), ["co-smoothing"]
    )
    wild = torch.full((1, 10, 4), 255.0)
    rates = predictor.predict(wild, "co-smoothing", torch.zeros(1, 1, 1, dtype=torch.bool))
    assert (rates.numpy() <= session.counts.max(axis=(0, 1)) + 1e-3).all()


def test_sessions_that_do_not_fit_are_refused():
    session, _ = poisson_session(12, 10, 4)
    with pytest.raises(ValueError, match="at least one window"):
        GLMPredictor.fit(session, session.select(slice(0, 0)))
    with pytest.raises(ValueError, match="same bins and units"):
        GLMPredictor.fit(session, session.select_units([0, 1]))
    with pytest.raises(ValueError, match="alphas"):
        GLMPredictor.fit(session, session, alphas=())
    with pytest.raises(ValueError, match="tasks"):
        GLMPredictor.fit(session, session, ["decoding"])
    fitted = GLMPredictor.fit(session, session, ["co-smoothing"], alphas=(10.0,))
    with pytest.raises(ValueError, match="forward-prediction"):
        evaluate_masked_prediction(fitted, session, ["forward-prediction"])
    unseen = make_session(np.ones((2, 10, 5)))
    with pytest.raises(ValueError, match=r"10, 4\)|4\) as in training"):
        evaluate_masked_prediction(fitted, unseen, ["co-smoothing"])
