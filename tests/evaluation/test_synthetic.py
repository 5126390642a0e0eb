"""The simulated sessions are what their documentation says, and the true rates are the ceiling."""

from __future__ import annotations

import numpy as np
import pytest

from neurokern.evaluation import (
    GLMPredictor,
    RidgePredictor,
    UnitMeanPredictor,
    evaluate_masked_prediction,
    score_true_rates,
    simulate_sessions,
)

PLAIN = {"side_effect": 0.0, "lag": 0.0, "frequency": 0.0}


def region_signals(units, shared, n_windows=3000, n_bins=6, **options):
    """Log-rates of one unit of each region, standardized: ``(windows, bins, regions)``."""
    settings = PLAIN | {"units_per_region": units, "shared": shared, "n_windows": n_windows, "n_bins": n_bins}
    (one,) = simulate_sessions(1, **(settings | options))
    log_rates = np.log(one.rates.astype(np.float64))
    return (log_rates - log_rates.mean((0, 1))) / log_rates.std((0, 1))


def test_counts_are_poisson_around_the_rates():
    (one,) = simulate_sessions(1, n_windows=2000, n_bins=10)
    rates, counts = one.rates.astype(np.float64), one.session.counts.astype(np.float64)
    spread = np.sqrt(rates.sum((0, 1)))
    assert (np.abs(counts.sum((0, 1)) - rates.sum((0, 1))) < 5 * spread).all()
    fano = np.square(counts - rates).sum((0, 1)) / rates.sum((0, 1))
    assert fano.mean() == pytest.approx(1, abs=0.02)  # single units have heavy tails
    np.testing.assert_allclose(fano, 1, atol=0.3)


def test_a_seed_gives_one_result_and_sessions_share_regions_but_no_units():
    first, again = (simulate_sessions(2, n_windows=5, seed=3) for _ in range(2))
    other = simulate_sessions(2, n_windows=5, seed=4)
    for one, same, different in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.session.counts, same.session.counts)
        assert not np.array_equal(one.rates, different.rates)
    assert first[0].session.regions.tolist() == first[1].session.regions.tolist()
    assert first[0].session.session != first[1].session.session
    assert not np.array_equal(first[0].rates, first[1].rates)


def test_the_autocorrelation_has_the_time_constant():
    signals = region_signals([1], 0.5, time_constant=0.2, bin_size=0.05)[:, :, 0]
    for lag in (1, 3):
        found = (signals[:, lag:] * signals[:, :-lag]).mean()
        assert found == pytest.approx(np.exp(-0.05 * lag / 0.2), abs=0.06)


def test_units_of_a_region_lie_in_two_dimensions_and_regions_share_only_the_common_part():
    def variances(shared):
        signals = region_signals([4, 4], shared).reshape(-1, 8)
        return np.linalg.svd(signals, compute_uv=False) ** 2

    for shared, rank in ((1.0, 2), (0.0, 4)):
        values = variances(shared)
        assert values[:rank].min() > 0.01 * values.sum()
        assert values[rank:].sum() < 1e-6 * values.sum()


def test_the_second_region_follows_the_first_by_the_lag():
    signals = region_signals([3, 3], 1.0, lag=0.1, bin_size=0.05, n_bins=8)
    now, later = signals[:, :-2, :3].reshape(-1, 3), signals[:, 2:, 3:].reshape(-1, 3)
    now = np.column_stack([now, np.ones(len(now))])
    left_over = later - now @ np.linalg.lstsq(now, later, rcond=None)[0]
    assert np.abs(left_over).max() < 1e-3


def test_sides_move_the_common_signal():
    (one,) = simulate_sessions(1, n_windows=4000, n_bins=2, side_effect=2.0, shared=1.0)
    right = one.session.trials["side"].to_numpy() == "right"
    log_rates = np.log(one.rates).mean(1)
    moved = np.abs(log_rates[right].mean(0) - log_rates[~right].mean(0))
    assert (moved > 0.2).mean() > 0.7
    assert 0.4 < right.mean() < 0.6


def test_no_predictor_beats_the_true_rates_and_ridge_and_glm_come_closer_than_the_mean():
    (one,) = simulate_sessions(1, n_windows=160, n_bins=12, units_per_region=(8, 8), seed=1)
    parts = one.split()
    ceiling = score_true_rates(one.select(slice(-len(parts.test), None)))
    best = ceiling.groupby("task")["bits_per_spike"].mean()
    means = {}
    for predictor in (
        UnitMeanPredictor.fit(parts.train),
        RidgePredictor.fit(parts.train, parts.validation),
        GLMPredictor.fit(parts.train, parts.validation),
    ):
        table = evaluate_masked_prediction(predictor, parts.test)
        means[predictor.name] = table.groupby("task")["bits_per_spike"].mean()
        assert (means[predictor.name] < best).all()
    for name in ("ridge", "GLM"):
        assert (means[name] > means["unit mean"] + 0.03).all()
    assert means["GLM"]["co-smoothing"] > 0.5 * best["co-smoothing"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_sessions": 0}, "n_sessions must be at least 1"),
        ({"n_bins": 1}, "n_bins must be at least 2"),
        ({"units_per_region": ()}, "units_per_region"),
        ({"units_per_region": (3, 0)}, "units_per_region"),
        ({"shared": 1.5}, "shared"),
        ({"mean_rate": 0.0}, "mean_rate"),
        ({"lag": -0.1}, "lag"),
        ({"modulation": float("nan")}, "modulation"),
    ],
)
def test_impossible_simulations_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_sessions(**arguments)
