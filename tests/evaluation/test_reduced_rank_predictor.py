"""The reduced-rank baseline: finds the shared dimensions, and never looks at what a task hides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_sessions import make_session, poisson_session

from neurokern.evaluation import (
    ReducedRankPredictor,
    UnitMeanPredictor,
    evaluate_masked_prediction,
    simulate_sessions,
)

NOTHING = torch.zeros(1, 1, 1, dtype=torch.bool)


def test_beats_the_mean_where_regions_share_two_dimensions_and_finds_few():
    (one,) = simulate_sessions(
        1, n_windows=240, n_bins=12, units_per_region=(14, 14), shared=0.9, mean_rate=20
    )
    parts = one.split()
    predictor = ReducedRankPredictor.fit(parts.train, parts.validation, half_life=None)
    assert set(predictor.ranks) == {"A", "B", "forward-prediction"}
    assert max(predictor.ranks["A"], predictor.ranks["B"]) <= 5
    for task in predictor.tasks:
        ours, mean = (
            evaluate_masked_prediction(one, parts.test, [task])["bits_per_spike"].mean()
            for one in (predictor, UnitMeanPredictor.fit(parts.train))
        )
        assert ours > mean + 0.1


def test_hidden_counts_never_reach_the_predicted_rates():
    session, _ = poisson_session(24, 12, 6)
    predictor = ReducedRankPredictor.fit(session.select(slice(0, 16)), session.select(slice(16, 20)))
    counts = torch.from_numpy(session.counts[20:].astype(np.float32))
    late = counts.clone()
    late[:, -1:] += 5
    before, after = (predictor.predict(x, "forward-prediction", NOTHING) for x in (counts, late))
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    rates = predictor.predict(counts, "inter-region", NOTHING)
    for region in np.unique(session.regions):
        inside = torch.from_numpy(session.regions == region)
        changed = counts.clone()
        changed[:, :, inside] += 5
        again = predictor.predict(changed, "inter-region", NOTHING)
        torch.testing.assert_close(rates[:, :, inside], again[:, :, inside], rtol=0, atol=0)


def test_a_lone_region_and_units_without_one_get_their_means():
    session, _ = poisson_session(16, 10, 4)
    named = make_session(session.counts, ["CA1", "CA1", "CA1", ""])
    predictor = ReducedRankPredictor.fit(
        named.select(slice(0, 12)), named.select(slice(12, 16)), half_life=None
    )
    rates = predictor.predict(torch.zeros(1, 10, 4), "inter-region", NOTHING)
    assert torch.isfinite(rates).all()
    assert float(rates[0, 0, 3]) == pytest.approx(session.counts[..., 3].mean(), rel=1e-5)


def test_other_tasks_and_sessions_are_refused():
    session, _ = poisson_session(12, 10, 4)
    with pytest.raises(ValueError, match="tasks"):
        ReducedRankPredictor.fit(session, session, ["co-smoothing"])
    with pytest.raises(ValueError, match="same bins and units"):
        ReducedRankPredictor.fit(session, session.select_units([0]))
    with pytest.raises(ValueError, match="must hold windows"):
        ReducedRankPredictor.fit(session, session.select(slice(0, 0)))
    fitted = ReducedRankPredictor.fit(session, session, ["inter-region"])
    with pytest.raises(ValueError, match="forward-prediction"):
        evaluate_masked_prediction(fitted, session, ["forward-prediction"])
