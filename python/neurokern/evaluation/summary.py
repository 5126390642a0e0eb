"""Tables of scores, averaged over units and compared between predictors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from neurokern.metrics import bootstrap_interval


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
    """Average a score over units, with bootstrap intervals over units.

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
        Columns ``by``, then ``mean, low, high, median, pooled, n_units, n_left_out``. ``pooled`` weighs units
        by their spikes: for bits per spike it is the total information over the total number of spikes.

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
        rows.append((*key, *center, pooled, len(kept), len(group) - len(kept)))
    columns = [*by, "mean", "low", "high", "median", "pooled", "n_units", "n_left_out"]
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
        units), ``wins`` (share of units that ``predictor`` scores higher on), ``n_units``.

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
        rows.append((*key, values.mean(), *interval, (values > 0).mean(), len(values)))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "wins", "n_units"])


def _check_columns(function: str, table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{function}: table must have the columns {missing}, got {list(table.columns)}")
