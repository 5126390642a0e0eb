"""Condition means as predictions, and scores of rates that were made elsewhere."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from synthetic_sessions import make_session, poisson_session

from neurokern.evaluation import (
    UnitMeanPredictor,
    evaluate_masked_prediction,
    psth_rates,
    score_rates,
    training_mean,
    tuned_psth_rates,
)
from neurokern.metrics import bits_per_spike


def sided_session(n_windows, sides, seed=0):
    generator = np.random.default_rng(seed)
    rates = np.where(np.asarray(sides)[:, None, None] == "left", [[0.2, 2.0]], [[2.0, 0.2]])
    counts = generator.poisson(np.broadcast_to(rates, (n_windows, 6, 2)))
    return make_session(counts, ["A", "B"], trials=pd.DataFrame({"side": sides}))


def test_each_condition_gets_its_own_mean_and_an_unseen_one_the_mean_of_all():
    train = sided_session(400, ["left", "right"] * 200)
    test = sided_session(3, ["left", "right", "middle"])
    rates = psth_rates(train, test, ["side"]).mean(1)
    np.testing.assert_allclose(rates[0], [0.2, 2.0], atol=0.12)
    np.testing.assert_allclose(rates[1], [2.0, 0.2], atol=0.12)
    np.testing.assert_allclose(rates[2], [1.1, 1.1], atol=0.12)
    assert rates.dtype == np.float32
    pooled = psth_rates(train, test)
    assert np.ptp(pooled, axis=0).max() == 0


def test_a_condition_with_one_window_is_drawn_to_the_mean_of_all():
    train = sided_session(21, ["left"] + ["right"] * 20)
    rates = psth_rates(train, train, ["side"])[0]
    overall = psth_rates(train, train)[0]
    np.testing.assert_allclose(rates, (train.counts[0] + 2 * overall) / 3, rtol=1e-5)


def test_smoothing_spreads_over_bins_and_strong_priors_give_the_mean():
    counts = np.zeros((4, 9, 1))
    counts[:, 4] = 8
    train = make_session(counts)
    sharp, smooth = (psth_rates(train, train, smoothing=s)[0, :, 0] for s in (0.0, 0.02))
    assert sharp[4] > 5 > smooth[4] > smooth[3] > sharp[3]
    flat = psth_rates(train, train, prior_windows=1e9)
    np.testing.assert_allclose(flat, 8 / 9, rtol=1e-5)


def test_options_are_chosen_on_validation_windows():
    steady = sided_session(60, ["left", "right"] * 30)
    parts = steady.select(slice(0, 30)), steady.select(slice(30, 50)), steady.select(slice(50, 60))
    tuned = tuned_psth_rates(*parts, ["side"])
    scores = {
        name: score_rates(rates, parts[2], ["co-smoothing"])["bits_per_spike"].mean()
        for name, rates in (("tuned", tuned), ("one bin each", psth_rates(parts[0], parts[2], ["side"])))
    }
    assert scores["tuned"] > scores["one bin each"]
    with pytest.raises(ValueError, match="validation must have"):
        tuned_psth_rates(steady, steady.select(slice(0, 0)), steady)
    with pytest.raises(ValueError, match="smoothing"):
        psth_rates(steady, steady, smoothing=-1.0)


def test_sessions_and_columns_that_do_not_fit_are_refused():
    train = sided_session(4, ["left", "right"] * 2)
    with pytest.raises(ValueError, match="trials of test"):
        psth_rates(train, make_session(train.counts), ["side"])
    with pytest.raises(ValueError, match=r"trials of train \(\['side'\]\)"):
        psth_rates(train, train, ["choice"])
    with pytest.raises(ValueError, match="bins and units"):
        psth_rates(train, train.select_units([0]))


def test_given_rates_score_as_a_predictor_with_these_rates():
    session, _ = poisson_session(30, 20, 6)
    train, test = session.select(slice(0, 20)), session.select(slice(20, 30))
    predictor = UnitMeanPredictor.fit(train)
    rates = np.broadcast_to(training_mean(train), test.counts.shape)
    given = score_rates(rates, test, name="unit mean", train_mean=training_mean(train))
    asked = evaluate_masked_prediction(predictor, test, train_mean=training_mean(train))
    pd.testing.assert_frame_equal(given, asked, rtol=1e-5)


def test_the_training_mean_is_a_null_model_of_its_own():
    session, rates = poisson_session(40, 20, 5)
    train, test = session.select(slice(0, 25)), session.select(slice(25, 40))
    table = score_rates(rates[25:], test, ["co-smoothing"], train_mean=training_mean(train))
    expected = bits_per_spike(rates[25:], test.counts, training_mean(train))
    np.testing.assert_allclose(table["bits_per_spike_over_training_mean"], expected, rtol=1e-5)
    assert (table["bits_per_spike_over_training_mean"] > table["bits_per_spike"]).all()
    assert "bits_per_spike_over_training_mean" not in score_rates(rates[25:], test, ["co-smoothing"])


def test_bad_rates_and_means_are_refused():
    session, rates = poisson_session(5, 10, 3)
    with pytest.raises(ValueError, match="shape"):
        score_rates(rates[:4], session)
    with pytest.raises(ValueError, match="finite and not negative"):
        score_rates(-rates, session)
    for mean in (np.ones(2), np.full(3, np.nan), -np.ones(3)):
        with pytest.raises(ValueError, match="train_mean"):
            score_rates(rates, session, train_mean=mean)
    with pytest.raises(ValueError, match="at least one window"):
        training_mean(session.select(slice(0, 0)))


def test_one_window_is_scored_against_itself():
    session, rates = poisson_session(1, 20, 4, size=0.3)
    table = score_rates(rates, session)
    fired = table["n_spikes"] > 0
    assert np.isfinite(table.loc[fired, "bits_per_spike"]).all()
    assert table.loc[~fired, "bits_per_spike"].isna().all()
