"""The protocol: what predictors see, what is scored, and how scores are summed up."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic_sessions import make_session, poisson_session

from neurokern.evaluation import (
    TASKS,
    GLMPredictor,
    MtMPredictor,
    ReducedRankPredictor,
    RidgePredictor,
    UnitMeanPredictor,
    evaluate_masked_prediction,
)
from neurokern.metrics import bits_per_spike, psth_r2, r2
from neurokern.models import MtM, MtMConfig


class Spy:
    """Predicts 1 + the sum of what it sees, so that every leak changes its rates."""

    name = "spy"
    leaves_out_by_itself = False

    def __init__(self):
        self.calls = []

    def predict(self, counts, task, hidden):
        self.calls.append((task, counts.clone(), hidden.expand(counts.shape).clone()))
        return (1 + counts.sum((1, 2), keepdim=True)).expand(counts.shape)


class Oracle:
    """Knows the true rates of each window by its counts."""

    name = "oracle"
    leaves_out_by_itself = True

    def __init__(self, rates):
        self.rates = torch.from_numpy(rates).float()

    def predict(self, counts, task, hidden):
        return self.rates


def brute_force_scores(counts, regions, task):
    """Scores of the spy, one query at a time."""
    n_units = counts.shape[2]
    counts = counts.astype(float)
    scores = []
    for unit in range(n_units):
        visible = counts.copy()
        first = 0
        if task == "co-smoothing":
            visible[:, :, unit] = 0
        elif task == "forward-prediction":
            first = counts.shape[1] - max(1, counts.shape[1] // 10)
            visible[:, first:] = 0
        elif task == "intra-region":
            visible[:, :, unit] = 0
            visible[:, :, regions != regions[unit]] = 0
        else:
            visible[:, :, regions == regions[unit]] = 0
        rates = np.broadcast_to(1 + visible.sum((1, 2))[:, None, None], counts.shape)
        part = (slice(None), slice(first, None), slice(unit, unit + 1))
        scores.append(bits_per_spike(rates[part], counts[part])[0])
    return np.array(scores)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("batch_size", "n_windows"), [(None, 5), (1, 5), (7, 5), (None, 18), (7, 18)])
def test_matches_one_query_at_a_time(task, batch_size, n_windows):
    session, _ = poisson_session(n_windows, 20, 7)
    table = evaluate_masked_prediction(Spy(), session, [task], batch_size=batch_size)
    expected = brute_force_scores(session.counts, session.regions, task)
    np.testing.assert_allclose(table["bits_per_spike"], expected, rtol=1e-5)


def test_hidden_counts_are_zero_and_marked_and_visible_ones_untouched():
    session, _ = poisson_session(4, 10, 6)
    counts = torch.from_numpy(session.counts.astype(np.float32))
    spy = Spy()
    evaluate_masked_prediction(spy, session)
    assert {task for task, _, _ in spy.calls} == set(TASKS)
    for _, seen, hidden in spy.calls:
        assert (seen[hidden] == 0).all()
        assert hidden.any()
    _, seen, hidden = next(call for call in spy.calls if call[0] == "forward-prediction")
    assert torch.equal(seen, counts.masked_fill(hidden, 0))
    assert session.counts.dtype == np.uint8


def test_true_rates_beat_the_mean_and_a_constant_never_exceeds_zero():
    session, rates = poisson_session(200, 20, 6)
    best = evaluate_masked_prediction(Oracle(rates), session)
    assert (best["bits_per_spike"] > 0).all()
    assert (best["r2"] > 0).all()
    constant = evaluate_masked_prediction(UnitMeanPredictor.fit(session), session)
    assert (constant["bits_per_spike"] <= 1e-6).all()
    assert (constant.loc[constant["task"] == "co-smoothing", "bits_per_spike"] > -1e-4).all()


def test_one_row_per_task_and_unit_with_the_metrics_of_its_bins():
    trials = pd.DataFrame({"side": ["left", "right", "left", "left", "right"]})
    session, rates = poisson_session(5, 20, 7)
    session = make_session(session.counts, trials=trials)
    table = evaluate_masked_prediction(Oracle(rates), session, conditions=["side"])
    assert len(table) == 4 * 7
    row = table[(table["task"] == "forward-prediction") & (table["unit"] == 103)].iloc[0]
    last = (slice(None), slice(18, None), slice(3, 4))
    predicted = rates.astype(np.float32)[last]
    assert (row["predictor"], row["session"], row["subject"], row["region"]) == (
        "oracle",
        "monday",
        "mouse",
        "CA1",
    )
    assert row["n_spikes"] == session.counts[last].sum()
    assert row["bits_per_spike"] == pytest.approx(bits_per_spike(predicted, session.counts[last])[0])
    assert row["r2"] == pytest.approx(r2(predicted, session.counts[last])[0], nan_ok=True)
    assert row["psth_r2"] == pytest.approx(
        psth_r2(predicted, session.counts[last], trials["side"].to_numpy())[0], nan_ok=True
    )


def test_conditions_may_be_labels_and_default_to_one_condition_only_for_trials():
    session, rates = poisson_session(6, 20, 4)
    labels = np.array(["a", "b"] * 3)
    by_label = evaluate_masked_prediction(Oracle(rates), session, ["co-smoothing"], conditions=labels)
    expected = psth_r2(rates.astype(np.float32), session.counts, labels)
    np.testing.assert_allclose(by_label["psth_r2"], expected)
    assert evaluate_masked_prediction(Oracle(rates), session)["psth_r2"].isna().all()
    with_trials = make_session(session.counts, trials=pd.DataFrame({"x": range(6)}))
    one = evaluate_masked_prediction(Oracle(rates), with_trials, ["co-smoothing"])
    np.testing.assert_allclose(one["psth_r2"], psth_r2(rates.astype(np.float32), session.counts, np.zeros(6)))


def test_silent_unit_has_nan_scores_and_the_others_are_as_before():
    session, rates = poisson_session(8, 20, 5)
    silenced = session.counts.copy()
    silenced[:, :, 2] = 0
    table = evaluate_masked_prediction(Oracle(rates), make_session(silenced), ["co-smoothing"])
    scores = table["bits_per_spike"].to_numpy()
    assert np.isnan(scores[2])
    np.testing.assert_array_equal(np.isnan(np.delete(scores, 2)), False)
    assert table["n_spikes"][2] == 0


def test_region_with_one_unit_is_predicted_from_nothing_in_intra_region():
    session, _ = poisson_session(4, 10, 3)
    spy = Spy()
    table = evaluate_masked_prediction(
        spy, make_session(session.counts, ["CA1", "CA1", "LP"]), ["intra-region"]
    )
    assert len(table) == 3
    ones = np.ones((4, 10, 1))
    assert table["bits_per_spike"][2] == pytest.approx(bits_per_spike(ones, session.counts[:, :, 2:])[0])


def test_units_without_a_region_have_no_region_task():
    session, rates = poisson_session(4, 10, 3)
    session = make_session(session.counts, ["CA1", "", "LP"])
    table = evaluate_masked_prediction(Oracle(rates), session)
    assert table.groupby("task").size().to_dict() == {
        "co-smoothing": 3,
        "forward-prediction": 3,
        "intra-region": 2,
        "inter-region": 2,
    }


def test_a_subset_of_units_is_the_same_for_every_predictor_and_task():
    session, rates = poisson_session(4, 10, 9)
    tables = [
        evaluate_masked_prediction(predictor, session, max_units=4, seed=1)
        for predictor in (Oracle(rates), Spy())
    ]
    for table in tables:
        assert set(table.groupby("task").size()) == {4}
        assert table["unit"].nunique() == 4
    assert tables[0]["unit"].tolist() == tables[1]["unit"].tolist()


class Broken:
    name = "broken"
    leaves_out_by_itself = True

    def __init__(self, rates):
        self.rates = rates

    def predict(self, counts, task, hidden):
        return self.rates


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_impossible_rates_name_the_predictor(value):
    session, _ = poisson_session(3, 10, 2)
    rates = torch.ones(3, 10, 2)
    rates[1, 2, 1] = value
    with pytest.raises(ValueError, match=r"'broken', co-smoothing of 'monday'.*finite and not negative"):
        evaluate_masked_prediction(Broken(rates), session)


def test_rates_of_a_wrong_shape_name_the_predictor():
    session, _ = poisson_session(3, 10, 2)
    with pytest.raises(ValueError, match=r"'broken'.*\(3, 10, 2\), got \(3, 10\)"):
        evaluate_masked_prediction(Broken(torch.ones(3, 10)), session)


@pytest.mark.parametrize(
    ("session", "arguments", "message"),
    [
        (make_session(np.zeros((0, 10, 2))), {}, "at least one window"),
        (make_session(np.ones((2, 10, 0))), {}, "at least one window"),
        (make_session(np.ones((2, 10, 2))), {"tasks": ["decoding"]}, "'co-smoothing'.*got 'decoding'"),
        (make_session(np.ones((2, 10, 2))), {"tasks": []}, "sequence of names"),
        (make_session(np.ones((2, 1, 2))), {}, "at least 2 bins"),
        (make_session(np.ones((2, 10, 2)), ["", ""]), {}, "names no region"),
        (make_session(np.ones((2, 10, 2))), {"conditions": ["side"]}, "columns of the session's trials"),
        (make_session(np.ones((2, 10, 2))), {"conditions": np.zeros(3)}, "one label for each of 2 windows"),
        (make_session(np.ones((2, 10, 2))), {"max_units": 0}, "max_units"),
    ],
)
def test_bad_arguments_are_refused(session, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate_masked_prediction(Spy(), session, **arguments)


def test_a_model_is_scored_on_every_task_and_unit():
    session, _ = poisson_session(12, 10, 5)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "n_layers": 1, "n_heads": 2, "mlp_size": 16, "stitch_size": 4}
    model = MtM(MtMConfig.small(n_bins=10, **sizes))
    model.add_session("monday", 5, session.regions.tolist(), session.counts)
    table = evaluate_masked_prediction(MtMPredictor(model, "monday"), session, batch_size=5)
    assert len(table) == 4 * 5
    assert np.isfinite(table.loc[table["n_spikes"] > 0, "bits_per_spike"]).all()
    again = evaluate_masked_prediction(MtMPredictor(model, "monday"), session)
    np.testing.assert_allclose(again["bits_per_spike"], table["bits_per_spike"], atol=1e-4)


BASELINES = {
    "ridge": (RidgePredictor, TASKS),
    "GLM": (GLMPredictor, TASKS),
    "reduced rank": (ReducedRankPredictor, ("forward-prediction", "inter-region")),
}
SESSIONS = {
    "silent": lambda counts: make_session(np.zeros_like(counts)),
    "one-unit regions": lambda counts: make_session(counts, list("ABCDEF")),
    "one region": lambda counts: make_session(counts, ["A"] * 6),
    "two bins": lambda counts: make_session(counts[:, :2]),
    "one unit that fires": lambda counts: make_session(counts * (np.arange(6) == 2)),
}


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("kind", SESSIONS)
def test_odd_sessions_are_fitted_and_scored(name, kind):
    baseline, tasks = BASELINES[name]
    session = SESSIONS[kind](poisson_session(30, 20, 6)[0].counts)
    predictor = baseline.fit(session.select(slice(0, 20)), session.select(slice(20, 24)), tasks)
    table = evaluate_masked_prediction(predictor, session.select(slice(24, 30)), tasks)
    fired = table["n_spikes"] > 0
    assert np.isfinite(table.loc[fired, "bits_per_spike"]).all()
    assert table.loc[~fired, "bits_per_spike"].isna().all()


@pytest.mark.parametrize("name", BASELINES)
def test_sessions_without_regions_have_the_other_tasks(name):
    baseline, tasks = BASELINES[name]
    session = make_session(poisson_session(30, 20, 4)[0].counts, [""] * 4)
    kept = [task for task in tasks if "region" not in task]
    predictor = baseline.fit(session.select(slice(0, 20)), session.select(slice(20, 24)), kept)
    table = evaluate_masked_prediction(predictor, session.select(slice(24, 30)), kept)
    assert np.isfinite(table["bits_per_spike"]).all()
    with pytest.raises(ValueError, match="names no region"):
        evaluate_masked_prediction(predictor, session, ["inter-region"])


@pytest.mark.parametrize("name", BASELINES)
def test_units_unseen_in_fitting_and_windows_shorter_than_the_horizon_are_refused(name):
    baseline, tasks = BASELINES[name]
    session, _ = poisson_session(20, 10, 4)
    predictor = baseline.fit(session, session, tasks[:1])
    with pytest.raises(ValueError, match="as in training"):
        evaluate_masked_prediction(predictor, poisson_session(4, 10, 5)[0], tasks[:1])
    short = make_session(session.counts[:, :1])
    with pytest.raises(ValueError, match="at least 2 bins"):
        baseline.fit(short, short, ["forward-prediction"])
