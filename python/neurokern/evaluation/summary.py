"""Tables of scores, averaged over units and compared between predictors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from neurokern.metrics import bootstrap_interval, hierarchical_interval

_SESSION_COLUMNS = ("session_low", "session_high", "n_sessions")


def summarize(
    table: pd.DataFrame,
    by: Sequence[str] = ("predictor", "task"),
    *,
    score: str = "bits_per_spike",
    min_spikes: int = 1,
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Average a score over units, with bootstrap intervals over units, and over sessions and units.

    Parameters
    ----------
    table : DataFrame
        Of :func:`neurokern.evaluation.evaluate_masked_prediction`, or several of them concatenated.
    by : sequence of str, default ("predictor", "task")
        One row of the result for each combination; add "session" or "region" for finer tables.
    score : str, default "bits_per_spike"
        Column to average.
    min_spikes : int, default 1
        Units with fewer spikes in the scored bins are left out and counted in ``n_left_out``. The published
        average takes every unit that fired at all; rare units make it noisy.
    confidence, n_bootstrap, seed
        As in :func:`neurokern.metrics.bootstrap_interval`.

    Returns
    -------
    summary : DataFrame
        Columns ``by``, then ``mean, low, high, median, pooled, n_units, n_left_out, session_low,
        session_high, n_sessions``. ``pooled`` weighs units by their spikes: for bits per spike it is the
        total information over the total number of spikes. ``low, high`` hold for other units of these very
        sessions; ``session_low, session_high`` draw sessions, then units within them, and hold for other
        sessions. They are NaN with fewer than two sessions, of which nothing follows about others.

    Raises
    ------
    ValueError
        If a column is missing.
    """
    _check_columns("summarize", table, (*by, score, "n_spikes"))
    rows = []
    for key, group in table.groupby(list(by), sort=False):
        kept = group[(group["n_spikes"] >= min_spikes) & group[score].notna()]
        values, weights = kept[score].to_numpy(), kept["n_spikes"].to_numpy()
        interval = bootstrap_interval(values, confidence=confidence, n_bootstrap=n_bootstrap, seed=seed)
        center = (values.mean(), *interval, np.median(values)) if len(values) else (np.nan,) * 4
        pooled = values @ weights / weights.sum() if weights.sum() else np.nan
        over_sessions = _session_interval(kept, values, confidence, n_bootstrap, seed)
        rows.append((*key, *center, pooled, len(kept), len(group) - len(kept), *over_sessions))
    columns = [*by, "mean", "low", "high", "median", "pooled", "n_units", "n_left_out", *_SESSION_COLUMNS]
    return pd.DataFrame(rows, columns=columns)


def paired_differences(
    table: pd.DataFrame,
    predictor: str,
    baseline: str,
    by: Sequence[str] = ("task",),
    *,
    score: str = "bits_per_spike",
    min_spikes: int = 1,
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare two predictors unit by unit.

    Units differ much more in their scores than predictors do on one unit, so the interval of the difference
    is narrower than those of the two means.

    Parameters
    ----------
    table : DataFrame
        Of :func:`neurokern.evaluation.evaluate_masked_prediction` for both predictors on the same windows.
    predictor, baseline : str
        Names in the column ``predictor``.
    by : sequence of str, default ("task",)
        One row of the result for each combination; add "session" or "region" for finer tables.
    score, min_spikes, confidence, n_bootstrap, seed
        As in :func:`summarize`.

    Returns
    -------
    differences : DataFrame
        Columns ``by``, then ``mean`` (predictor minus baseline), ``low, high`` (bootstrap interval over
        units), ``wins`` (share of units that ``predictor`` scores higher on), ``n_units``, ``session_low,
        session_high, n_sessions`` (as in :func:`summarize`), ``sessions_won`` (number of sessions whose mean
        difference is above 0).

    Raises
    ------
    ValueError
        If a column or a predictor is missing, or one has two rows for one unit and task.
    """
    keys = ["session", "task", "unit"]
    _check_columns("paired_differences", table, (*keys, *by, score, "n_spikes", "predictor"))
    known = table["predictor"].unique().tolist()
    if not {predictor, baseline} <= set(known):
        raise ValueError(
            f"paired_differences: predictor and baseline must be in the table ({known}), "
            f"got {predictor!r} and {baseline!r}"
        )
    sides = []
    for name in (predictor, baseline):
        side = table[table["predictor"] == name].set_index(keys)
        if side.index.has_duplicates:
            raise ValueError(f"paired_differences: {name!r} has several rows for one session, task and unit")
        sides.append(side)
    paired = sides[0].assign(difference=sides[0][score] - sides[1][score])
    kept = paired[(paired["n_spikes"] >= min_spikes) & paired["difference"].notna()].reset_index()
    rows = []
    for key, group in kept.groupby(list(by), sort=False):
        values = group["difference"].to_numpy()
        interval = bootstrap_interval(values, confidence=confidence, n_bootstrap=n_bootstrap, seed=seed)
        over_sessions = _session_interval(group, values, confidence, n_bootstrap, seed)
        won = int((group.groupby("session")["difference"].mean() > 0).sum())
        rows.append((*key, values.mean(), *interval, (values > 0).mean(), len(values), *over_sessions, won))
    columns = [*by, "mean", "low", "high", "wins", "n_units", *_SESSION_COLUMNS, "sessions_won"]
    return pd.DataFrame(rows, columns=columns)


def _session_interval(
    group: pd.DataFrame, values: np.ndarray, confidence: float, n_bootstrap: int, seed: int
) -> tuple[float, float, int]:
    """Interval over sessions and units, NaN where there are fewer than two, and the number of sessions."""
    if "session" not in group:
        return np.nan, np.nan, 0
    sessions = group["session"].to_numpy()
    n_sessions = len(set(sessions.tolist()))
    if n_sessions < 2:
        return np.nan, np.nan, n_sessions
    low, high = hierarchical_interval(
        values, sessions, confidence=confidence, n_bootstrap=n_bootstrap, seed=seed
    )
    return low, high, n_sessions


def _check_columns(function: str, table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{function}: table must have the columns {missing}, got {list(table.columns)}")
