"""Predictors that ignore the visible spikes, and a model told the scheme of each task."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_sessions import make_session, poisson_session

from neurokern.evaluation import MtMPredictor, Predictor, TimeCoursePredictor, UnitMeanPredictor
from neurokern.evaluation.predictors import recency_weights, recent_rates

NOTHING = torch.zeros(1, 1, 1, dtype=torch.bool)


def test_unit_mean_is_the_training_mean():
    counts = np.array([[[1, 0], [3, 0]], [[0, 2], [0, 0]]])
    predictor = UnitMeanPredictor.fit(make_session(counts))
    rates = predictor.predict(torch.zeros(3, 2, 2), "co-smoothing", NOTHING)
    np.testing.assert_allclose(rates, np.broadcast_to([1.0, 0.5], (3, 2, 2)))
    assert isinstance(predictor, Predictor)


def test_a_unit_silent_in_training_keeps_half_a_spike():
    counts = np.zeros((4, 5, 1))
    rates = UnitMeanPredictor.fit(make_session(counts)).predict(torch.zeros(1, 5, 1), "co-smoothing", NOTHING)
    np.testing.assert_allclose(rates, 0.5 / 20)


def test_half_life_halves_the_weight_of_a_window():
    weights = recency_weights(5, 2.0)
    assert weights[4] == pytest.approx(2 * weights[2]) == pytest.approx(4 * weights[0])
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(recency_weights(4, None), 0.25)
    with pytest.raises(ValueError, match="half_life"):
        recency_weights(4, 0.0)


def test_recent_rates_follow_a_drift_part_of_the_way():
    counts = np.repeat(np.arange(40)[:, None, None], 3, axis=1)
    plain, recent = recent_rates(counts, None)[0], recent_rates(counts, 5.0)[0]
    assert plain == pytest.approx(19.5)
    assert 30 < recent < 39


def test_time_course_has_the_shape_of_training_and_half_that_of_two_windows():
    counts = np.zeros((2, 4, 1))
    counts[:, 1] = 4
    predictor = TimeCoursePredictor.fit(make_session(counts))
    rates = predictor.predict(torch.zeros(1, 4, 1), "co-smoothing", NOTHING)[0, :, 0]
    np.testing.assert_allclose(
        rates, [0.5, 2.5, 0.5, 0.5]
    )  # two windows and two pseudo-windows at the mean 1


def test_sessions_of_another_shape_are_refused():
    session, _ = poisson_session(4, 6, 3)
    for predictor in (UnitMeanPredictor.fit(session), TimeCoursePredictor.fit(session)):
        with pytest.raises(ValueError, match=r"3\) as in training"):
            predictor.predict(torch.zeros(1, 6, 4), "co-smoothing", NOTHING)
    with pytest.raises(ValueError, match="6 bins"):
        TimeCoursePredictor.fit(session).predict(torch.zeros(1, 5, 3), "co-smoothing", NOTHING)
    with pytest.raises(ValueError, match="at least one window"):
        UnitMeanPredictor.fit(make_session(np.zeros((0, 6, 3))))


class RecordingModel:
    def __init__(self):
        self.calls = []

    def predict_rates(self, counts, session, scheme, hidden=None):
        self.calls.append((session, scheme, hidden))
        return counts.double() + 1


@pytest.mark.parametrize(
    ("task", "scheme"),
    [
        ("co-smoothing", "neuron"),
        ("forward-prediction", "causal"),
        ("intra-region", "intra-region"),
        ("inter-region", "inter-region"),
    ],
)
def test_the_model_is_told_the_scheme_of_the_task(task, scheme):
    model = RecordingModel()
    hidden = torch.ones(1, 1, 2, dtype=torch.bool)
    rates = MtMPredictor(model, "monday").predict(torch.zeros(2, 3, 2), task, hidden)
    assert rates.dtype == torch.float32
    assert (rates == 1).all()
    session, told, unseen = model.calls[0]
    assert (session, told) == ("monday", scheme)
    assert torch.equal(unseen, hidden)
