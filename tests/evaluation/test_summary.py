"""Averages of scores over units, and paired comparisons."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from neurokern.evaluation import paired_differences, summarize


def test_summary_averages_units_and_leaves_rare_ones_out():
    table = pd.DataFrame(
        {
            "predictor": "p",
            "task": ["a"] * 4 + ["b"],
            "session": ["x", "x", "y", "y", "y"],
            "n_spikes": [10, 30, 2, 0, 5],
            "bits_per_spike": [1.0, 2.0, -9.0, np.nan, 4.0],
        }
    )
    summary = summarize(table, min_spikes=5).set_index("task")
    assert summary.loc["a", "mean"] == 1.5
    assert summary.loc["a", "median"] == 1.5
    assert summary.loc["a", "pooled"] == pytest.approx((10 + 60) / 40)
    assert (summary.loc["a", "n_units"], summary.loc["a", "n_left_out"]) == (2, 2)
    assert 1 <= summary.loc["a", "low"] <= summary.loc["a", "high"] <= 2
    assert summary.loc["b", "low"] == summary.loc["b", "high"] == 4
    per_session = summarize(table, ("predictor", "task", "session"))
    assert per_session["mean"].tolist() == [1.5, -9.0, 4.0]
    assert np.isnan(summarize(table, min_spikes=100)["mean"]).all()
    with pytest.raises(ValueError, match="depth"):
        summarize(table, ("depth",))


def scores(predictor: str, values: list[float], n_spikes: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "predictor": predictor,
            "session": "x",
            "task": ["a", "a", "a", "b"],
            "unit": [1, 2, 3, 1],
            "n_spikes": n_spikes,
            "bits_per_spike": values,
        }
    )


def test_differences_are_paired_by_session_task_and_unit():
    counts = [9, 9, 1, 9]
    ours = scores("ours", [1.0, 2.0, 50.0, 0.5], counts)
    theirs = scores("theirs", [0.5, 2.5, 0.0, np.nan], counts).iloc[::-1]
    result = paired_differences(pd.concat([ours, theirs]), "ours", "theirs", min_spikes=5)
    assert result["task"].tolist() == ["a"]  # the only pair of task b is undefined
    row = result.iloc[0]
    assert (row["mean"], row["wins"], row["n_units"]) == (0.0, 0.5, 2)
    assert -0.5 <= row["low"] <= row["high"] <= 0.5


def test_paired_differences_refuse_missing_and_doubled_rows():
    table = scores("ours", [1.0, 2.0, 3.0, 4.0], [1, 1, 1, 1])
    with pytest.raises(ValueError, match=r"must be in the table \(\['ours'\]\)"):
        paired_differences(table, "ours", "ridge")
    with pytest.raises(ValueError, match="several rows"):
        paired_differences(pd.concat([table, table]), "ours", "ours")
    with pytest.raises(ValueError, match="depth"):
        paired_differences(table, "ours", "ours", ("depth",))


def many_sessions(n_sessions, units=30, seed=0):
    """Two predictors whose difference varies from session to session more than from unit to unit."""
    generator = np.random.default_rng(seed)
    rows = []
    for session in range(n_sessions):
        base = generator.normal(size=units)
        gain = 0.1 + 0.3 * generator.normal() + 0.05 * generator.normal(size=units)
        for name, values in (("theirs", base), ("ours", base + gain)):
            rows += [(name, f"s{session}", "a", unit, 20, value) for unit, value in enumerate(values)]
    return pd.DataFrame(rows, columns=["predictor", "session", "task", "unit", "n_spikes", "bits_per_spike"])


def test_intervals_over_sessions_are_wider_and_missing_with_one_session():
    table = many_sessions(8)
    result = paired_differences(table, "ours", "theirs").iloc[0]
    assert result["session_low"] < result["low"] < result["mean"] < result["high"] < result["session_high"]
    gains = table.pivot(index=["session", "unit"], columns="predictor", values="bits_per_spike")
    won = ((gains["ours"] - gains["theirs"]).groupby("session").mean() > 0).sum()
    assert (result["n_sessions"], result["sessions_won"]) == (8, won)
    one = summarize(many_sessions(1)).iloc[0]
    assert one["n_sessions"] == 1
    assert np.isnan(one["session_low"])
    assert np.isfinite(one["low"])
