"""Means, intervals and paired differences of a few-shot comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from neurokern.metrics import hierarchical_interval

__all__ = ["few_shot_differences", "summarize_few_shot"]


def summarize_few_shot(
    table: pd.DataFrame, *, confidence: float = 0.95, baselines: Sequence[str] = (), seed: int = 0
) -> pd.DataFrame:
    """Average the table of :func:`few_shot_episodes`; see :func:`evaluate_few_shot` for what comes out."""
    rows = []
    for (features, adapter, k), group in table.groupby(["features", "adapter", "shots"], sort=False):
        learned, control = group[~group["shuffled"]], group[group["shuffled"]]
        by_session = learned.groupby("session")
        mean, low, high = _interval(learned, "score", confidence, seed)
        rows.append(
            {
                "method": f"{features}, {adapter}",
                "features": features,
                "adapter": adapter,
                "shots": k,
                "metric": learned["metric"].iloc[0],
                "mean": mean,
                "low": low,
                "high": high,
                "chance": by_session["chance"].first().mean(),
                "shuffled": control.groupby("session")["score"].mean().mean(),
                "n_sessions": by_session.ngroups,
                "n_subjects": learned["subject"].nunique(),
                "n_episodes": learned["episode"].nunique(),
                "n_query": by_session["n_query"].first().mean(),
                "n_trainable": learned["n_trainable"].mean(),
                "seconds": learned["seconds"].mean(),
            }
        )
    summary = pd.DataFrame(rows).sort_values("shots", kind="stable", ignore_index=True)
    for baseline in baselines:
        found = few_shot_differences(table, baseline, confidence=confidence, seed=seed)
        ends = {"mean": "", "low": " low", "high": " high"}
        renamed = {name: f"minus {baseline}{end}" for name, end in ends.items()}
        found = found[["method", "shots", "mean", "low", "high"]].rename(columns=renamed)
        summary = summary.merge(found, on=["method", "shots"], how="left")
    return summary


def few_shot_differences(
    table: pd.DataFrame, baseline: str, *, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Compare every method with a baseline, episode by episode.

    Support sets and queries are the same for all methods, so the interval of a difference is much narrower
    than those of the two means.

    Parameters
    ----------
    table : DataFrame
        Of :func:`few_shot_episodes`.
    baseline : str
        A method, "features, adapter", such as "raw counts, ridge".
    confidence, seed
        As in :func:`evaluate_few_shot`.

    Returns
    -------
    differences : DataFrame
        Columns ``method, shots, mean`` (method minus baseline), ``low, high`` (hierarchical bootstrap over
        subjects and sessions; over episodes where there is one session), ``sessions_won, n_sessions``.

    Raises
    ------
    ValueError
        If the table has no such method.
    """
    learned = table[~table["shuffled"]]
    methods = learned["features"] + ", " + learned["adapter"]
    if baseline not in set(methods):
        raise ValueError(
            f"few_shot_differences: baseline must be one of {sorted(set(methods))}, got {baseline!r}"
        )
    keys = ["session", "shots", "episode"]
    reference = learned[methods == baseline].set_index(keys)["score"]
    paired = learned.assign(method=methods).join(reference.rename("reference"), on=keys)
    paired["difference"] = paired["score"] - paired["reference"]
    rows = []
    for (method, k), group in paired[methods != baseline].groupby(["method", "shots"], sort=False):
        won = int((group.groupby("session")["difference"].mean() > 0).sum())
        interval = _interval(group, "difference", confidence, seed)
        rows.append((method, k, *interval, won, group["session"].nunique()))
    columns = ["method", "shots", "mean", "low", "high", "sessions_won", "n_sessions"]
    return pd.DataFrame(rows, columns=columns)


def _interval(group: pd.DataFrame, column: str, confidence: float, seed: int) -> tuple[float, float, float]:
    """Mean over sessions of the means over episodes, with its interval."""
    means = group.groupby("session").agg({column: "mean", "subject": "first"})
    if len(means) == 1:
        values = group[column].to_numpy()
        subjects = np.zeros(len(values))
    else:
        values, subjects = means[column].to_numpy(), means["subject"].to_numpy()
    low, high = hierarchical_interval(values, subjects, confidence=confidence, seed=seed)
    return float(means[column].mean()), low, high
