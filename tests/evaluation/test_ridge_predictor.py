"""The ridge baseline against brute-force fits, and on sessions with known structure."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_sessions import make_session, poisson_session

from neurokern.datasets import split_session
from neurokern.evaluation import TASKS, RidgePredictor, UnitMeanPredictor, evaluate_masked_prediction
from neurokern.evaluation._forward_ridge import ForwardRidge, past_means, principal_axes
from neurokern.evaluation._unit_ridge import (
    UnitRidge,
    gaussian_smoother,
    leave_own_region_out,
    leave_own_unit_out,
)

FEW = {"alphas": (0.3, 3.0), "smoothing": (0.02,), "half_lives": (None, 10.0), "floors": (0.1, 0.3)}


def split(session):
    return split_session(session, test=0.25, validation=0.15)


def brute_force(features: np.ndarray, targets: np.ndarray, alpha: float, groups: np.ndarray) -> np.ndarray:
    """One ridge fit per target, without the features of the target's group."""
    weights = np.zeros((features.shape[1], targets.shape[1]))
    n_extra = features.shape[1] - len(groups)
    for target in range(targets.shape[1]):
        kept = np.concatenate([groups != groups[target], np.ones(n_extra, dtype=bool)])
        X = features[:, kept]
        gram = X.T @ X + alpha * np.eye(kept.sum())
        weights[kept, target] = np.linalg.solve(gram, X.T @ targets[:, target])
    return weights


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.integers(2, 9), st.integers(0, 4), st.floats(0.01, 100))
def test_leaving_units_and_regions_out_equals_refitting_without_them(seed, n_units, n_extra, alpha):
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(20, n_units + n_extra))
    targets = generator.normal(size=(20, n_units))
    regions = generator.integers(0, 3, n_units)
    inverse = np.linalg.inv(features.T @ features + alpha * np.eye(n_units + n_extra))
    full = inverse @ features.T @ targets
    inverse, full = torch.from_numpy(inverse), torch.from_numpy(full)
    np.testing.assert_allclose(
        leave_own_unit_out(inverse, full),
        brute_force(features, targets, alpha, np.arange(n_units)),
        atol=1e-8,
    )
    np.testing.assert_allclose(
        leave_own_region_out(inverse, full, torch.from_numpy(regions)),
        brute_force(features, targets, alpha, regions),
        atol=1e-8,
    )


@pytest.mark.parametrize("task", ["co-smoothing", "inter-region", "intra-region"])
def test_weights_of_a_task_equal_refitting_each_unit_on_what_it_sees(task):
    session, _ = poisson_session(12, 10, 7)
    model = UnitRidge(session, 0.02, 5.0)
    alpha, n_samples = 0.4, 120
    features = model.features(session.counts).double().numpy()
    mean = model.mean.double().numpy()
    targets = (session.counts.reshape(n_samples, 7) - mean) / np.sqrt(mean)
    regions = session.region_index[0]
    expected = np.zeros((17, 7))
    for unit in range(7):
        others = np.arange(7) != unit
        seen = {
            "co-smoothing": others,
            "inter-region": regions != regions[unit],
            "intra-region": others & (regions == regions[unit]),
        }[task]
        seen = np.concatenate([seen, np.ones(10, dtype=bool)])
        X = features[:, seen]
        gram = X.T @ X + alpha * n_samples * np.eye(seen.sum())
        expected[seen, unit] = np.linalg.solve(gram, X.T @ targets[:, unit])
    np.testing.assert_allclose(model.weights([task], alpha)[task], expected, atol=1e-5)


def test_forward_weights_equal_one_fit_per_unit_with_doubled_own_features():
    session, _ = poisson_session(15, 20, 4)
    model = ForwardRidge(session, None, 1)
    alpha, own = 0.5, 3.0
    shared, own_weights = model.weights(alpha, [1.0, own])[1]
    shared = model._axes @ shared
    past = past_means(session.counts[:, :18], 4.0).double().numpy()  # 0.08 s are 4 bins
    past = (past - past.mean(0)) / (past.std(0) + 1e-3)
    mean = model.mean.double().numpy()
    targets = (session.counts[:, 18:].mean(1) - mean) / np.sqrt(mean)
    for unit in range(4):
        X = np.concatenate([past.reshape(15, -1), own * past[:, unit]], axis=1)
        solution = np.linalg.solve(X.T @ X + alpha * 15 * np.eye(10), X.T @ targets[:, unit])
        np.testing.assert_allclose(shared[:, unit], solution[:8], atol=1e-4)
        np.testing.assert_allclose(own_weights[unit], own * solution[8:], atol=1e-4)


@pytest.mark.parametrize("shape", [(5, 12), (12, 5), (6, 6)])
def test_principal_axes_span_the_rows_and_uncorrelate_them(shape):
    features = torch.from_numpy(np.random.default_rng(0).normal(size=shape))
    features[:, 1] = features[:, 0]
    axes = principal_axes(features)
    scores = features @ axes
    np.testing.assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-8)
    np.testing.assert_allclose(scores @ axes.T, features, atol=1e-8)
    gram = (scores.T @ scores).numpy()
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-8)


def test_smoothing_keeps_a_constant_signal():
    smoother = gaussian_smoother(7, 1.3)
    np.testing.assert_allclose(smoother.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(gaussian_smoother(3, 0.0), np.eye(3))


def test_rates_never_depend_on_what_a_task_hides():
    session, _ = poisson_session(30, 20, 9)
    train, validation, test = (getattr(split(session), name) for name in ("train", "validation", "test"))
    predictor = RidgePredictor.fit(train, validation, **FEW)
    counts = torch.from_numpy(test.counts.astype(np.float32))
    nothing = torch.zeros(1, 1, 1, dtype=torch.bool)
    regions = torch.from_numpy(test.region_index[0])
    other = counts + torch.rand(counts.shape) * 5
    for unit in (0, 4):
        hidden_units = {
            "co-smoothing": torch.arange(9) == unit,
            "inter-region": regions == regions[unit],
            "intra-region": (regions != regions[unit]) | (torch.arange(9) == unit),
        }
        for task, hidden in hidden_units.items():
            changed = torch.where(hidden, other, counts)
            expected = predictor.predict(counts, task, nothing)[:, :, unit]
            assert torch.equal(predictor.predict(changed, task, nothing)[:, :, unit], expected)
    future = torch.where(torch.arange(20)[:, None] >= 18, other, counts)
    task = "forward-prediction"
    assert torch.equal(predictor.predict(future, task, nothing), predictor.predict(counts, task, nothing))


def test_one_pass_gives_the_scores_of_one_pass_per_query():
    session, _ = poisson_session(30, 20, 9)
    parts = split(session)
    predictor = RidgePredictor.fit(parts.train, parts.validation, **FEW)
    at_once = evaluate_masked_prediction(predictor, parts.test)
    predictor.leaves_out_by_itself = False
    one_by_one = evaluate_masked_prediction(predictor, parts.test)
    np.testing.assert_allclose(at_once["bits_per_spike"], one_by_one["bits_per_spike"], atol=1e-5)


def test_beats_the_unit_mean_where_units_share_signals():
    session, _ = poisson_session(120, 20, 30, size=1.5)
    parts = split(session)
    ridge = evaluate_masked_prediction(RidgePredictor.fit(parts.train, parts.validation, **FEW), parts.test)
    mean = evaluate_masked_prediction(UnitMeanPredictor.fit(parts.train), parts.test)
    gain = ridge.groupby("task")["bits_per_spike"].mean() - mean.groupby("task")["bits_per_spike"].mean()
    assert set(gain.index) == set(TASKS)
    assert (gain > 0.05).all(), gain


def test_the_best_candidate_on_the_validation_windows_is_kept():
    session, _ = poisson_session(60, 20, 8)
    parts = split(session)
    wide = RidgePredictor.fit(parts.train, parts.validation, refit=False, **FEW)
    for alpha in FEW["alphas"]:
        narrow = RidgePredictor.fit(
            parts.train, parts.validation, refit=False, **{**FEW, "alphas": (alpha,), "half_lives": (None,)}
        )
        for task in TASKS:
            best, other = wide.settings[task].validation_score, narrow.settings[task].validation_score
            assert best >= other
    scored = evaluate_masked_prediction(wide, parts.validation, ["co-smoothing"])
    kept = scored[scored["n_spikes"] >= 10]["bits_per_spike"].mean()
    assert kept == pytest.approx(wide.settings["co-smoothing"].validation_score, abs=1e-5)


def test_refitting_uses_the_validation_windows():
    session, _ = poisson_session(40, 20, 6)
    parts = split(session)
    counts = torch.from_numpy(parts.test.counts.astype(np.float32))
    nothing = torch.zeros(1, 1, 1, dtype=torch.bool)
    rates = [
        RidgePredictor.fit(parts.train, parts.validation, ["co-smoothing"], refit=refit, **FEW).predict(
            counts, "co-smoothing", nothing
        )
        for refit in (True, False)
    ]
    assert not torch.allclose(*rates)


def test_silent_units_and_regions_of_one_unit_are_predicted():
    session, _ = poisson_session(20, 10, 5)
    counts = session.counts.copy()
    counts[:, :, 1] = 0
    session = make_session(counts, ["CA1", "CA1", "LP", "VISp", "VISp"])
    parts = split(session)
    predictor = RidgePredictor.fit(parts.train, parts.validation, **FEW)
    table = evaluate_masked_prediction(predictor, parts.test)
    assert table.loc[table["unit"] == 101, "bits_per_spike"].isna().all()
    alone = table[(table["unit"] == 102) & (table["task"] == "intra-region")]
    assert np.isfinite(alone["bits_per_spike"]).all()


def test_bad_sessions_and_tasks_are_refused():
    session, _ = poisson_session(10, 10, 3)
    with pytest.raises(ValueError, match="same bins and units"):
        RidgePredictor.fit(session, session.select_units([0, 1]))
    with pytest.raises(ValueError, match="validation must have at least one window"):
        RidgePredictor.fit(session, session.select(slice(0, 0)))
    with pytest.raises(ValueError, match="got 'decoding'"):
        RidgePredictor.fit(session, session, ["decoding"])
    predictor = RidgePredictor.fit(session, session, ["co-smoothing"], **FEW)
    nothing = torch.zeros(1, 1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="'co-smoothing', got 'inter-region'"):
        predictor.predict(torch.zeros(1, 10, 3), "inter-region", nothing)
    with pytest.raises(ValueError, match=r"\(windows, bins, 3\)"):
        predictor.predict(torch.zeros(1, 10, 4), "co-smoothing", nothing)


def test_ridge_explains_a_real_recording(shared_data):
    from neurokern.datasets import load_binned_npz

    file = shared_data / "spikes" / "steinmetz2019" / "session03.npz"
    session = load_binned_npz(file).rebin(2).select_units(np.arange(0, 619, 3))
    parts = split_session(session, test=0.2, validation=0.1)
    predictor = RidgePredictor.fit(
        parts.train, parts.validation, alphas=(0.3, 1.0, 30.0), smoothing=(0.02,), half_lives=(20.0,)
    )
    table = evaluate_masked_prediction(predictor, parts.test)
    mean = evaluate_masked_prediction(UnitMeanPredictor.fit(parts.train, half_life=20.0), parts.test)
    active = table["n_spikes"] >= 20
    gain = (table["bits_per_spike"] - mean["bits_per_spike"])[active].groupby(table["task"]).mean()
    assert (gain > 0.02).all(), gain
