"""Tables of scores as text and pairs, from what the evaluation returns."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["pair_scores", "wide_scores"]

_KEYS = ["session", "task", "unit"]


def pair_scores(
    scores: pd.DataFrame, first: str, second: str, *, score: str = "bits_per_spike", min_spikes: int = 1
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return, for each task, the scores of two predictors for the same units, in the same order.

    Parameters
    ----------
    scores : DataFrame
        One row per predictor, session, task and unit, as ``evaluate_masked_prediction`` returns.
    first, second : str
        Names of predictors; a task that one of them did not do is left out.
    min_spikes : int
        Units with fewer spikes in the scored bins are left out.
    """
    kept = scores[scores["n_spikes"] >= min_spikes]
    pairs = {}
    for task, group in kept.groupby("task", sort=False):
        wide = group.pivot(index=_KEYS, columns="predictor", values=score)
        if first in wide and second in wide:
            pairs[str(task)] = (wide[first].to_numpy(float), wide[second].to_numpy(float))
    return pairs


def wide_scores(summary: pd.DataFrame) -> tuple[list[str], list[list[str]], frozenset[tuple[int, int]]]:
    """Return a summary as header, rows of text (one per task), and the cells with the highest mean.

    ``summary`` is what ``neurokern.evaluation.summarize`` returns, by predictor and task.
    """
    predictors = list(dict.fromkeys(summary["predictor"]))
    header = ["task", *predictors, "units"]
    rows: list[list[str]] = []
    strong = set()
    for number, (task, group) in enumerate(summary.groupby("task", sort=False)):
        by_name = group.set_index("predictor").reindex(predictors)
        means = by_name["mean"].to_numpy(float)
        intervals = by_name[["low", "high"]].to_numpy(float)
        cells = [_cell(mean, *interval) for mean, interval in zip(means, intervals, strict=True)]
        rows.append([str(task), *cells, str(int(group["n_units"].max()))])
        if np.isfinite(means).any():
            strong.add((number, 1 + int(np.nanargmax(means))))
    return header, rows, frozenset(strong)


def _cell(mean: float, low: float, high: float) -> str:
    if not np.isfinite(mean):
        return "no score"
    interval = f" [{low:.3f}, {high:.3f}]" if np.isfinite(low) else ""
    return f"{mean:.3f}{interval}"
