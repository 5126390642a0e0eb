"""Tables of scores as text, pairs and sentences, from what the evaluation returns."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from neurokern import evaluation
from neurokern.evaluation import summarize
from neurokern.metrics import bootstrap_interval

__all__ = [
    "OTHER_SCORES",
    "decoding_rows",
    "difference_rows",
    "pair_scores",
    "paired_differences",
    "score_rows",
    "score_table",
    "verdict",
]

OTHER_SCORES = ["bits_per_spike_over_training_mean", "r2", "psth_r2", "poisson_d2"]
_MOST_COLUMNS = 3  # predictors beside each other; more make a table too wide for a page
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


def paired_differences(
    scores: pd.DataFrame, model: str = "MtM", rival: str = "ridge", *, min_spikes: int = 1
) -> dict[str, tuple[float, float, float]]:
    """Return, for each task, the mean over units of model minus rival, and its 95 % bootstrap interval."""
    if not {model, rival} <= set(scores["predictor"]):
        return {}
    table = evaluation.paired_differences(scores, model, rival, min_spikes=min_spikes)
    shown = table[table["n_units"] > 1]
    values = shown[["mean", "low", "high"]].to_numpy(float)
    return {task: (mean, low, high) for task, (mean, low, high) in zip(shown["task"], values, strict=True)}


def difference_rows(
    scores: pd.DataFrame, min_spikes: int, *, model: str = "MtM"
) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of text that compare a model with each baseline: one row per task and
    baseline.
    """
    rivals = [name for name in dict.fromkeys(scores["predictor"]) if name != model]
    header = ["task", "minus", "over units", "units won", "over sessions", "sessions won"]
    tables = {
        rival: evaluation.paired_differences(scores, model, rival, min_spikes=min_spikes).set_index("task")
        for rival in rivals
        if model in set(scores["predictor"])
    }
    rows = []
    for task in dict.fromkeys(scores["task"]):
        for rival, table in tables.items():
            if task not in table.index:
                continue
            row = table.loc[task]
            over_units = _cell(row["mean"], row["low"], row["high"], sign=True)
            over_sessions = _interval(row["session_low"], row["session_high"]) or "one session"
            won = f"{row['wins']:.0%} of {int(row['n_units']):,}"
            of_sessions = f"{int(row['sessions_won'])} of {int(row['n_sessions'])}"
            rows.append([str(task), rival, over_units, won, over_sessions, of_sessions])
    return header, rows


def score_rows(
    scores: pd.DataFrame, min_spikes: int, *, model: str = "MtM", rival: str = "ridge"
) -> tuple[list[str], list[list[str]], frozenset[tuple[int, int]]]:
    """Return scores as header, rows of text (one per task), and the cells with the highest mean.

    One column per predictor, one for the paired difference of model and rival, one for the number of units.
    """
    summary = summarize(scores, min_spikes=min_spikes)
    differences = paired_differences(scores, model, rival, min_spikes=min_spikes)
    predictors = list(dict.fromkeys(summary["predictor"]))
    rows: list[list[str]] = []
    strong = set()
    for number, (task, group) in enumerate(summary.groupby("task", sort=False)):
        by_name = group.set_index("predictor").reindex(predictors)
        means = by_name["mean"].to_numpy(float)
        intervals = by_name[["low", "high"]].to_numpy(float)
        cells = [_cell(mean, *interval) for mean, interval in zip(means, intervals, strict=True)]
        difference = _cell(*differences[str(task)], sign=True) if str(task) in differences else ""
        rows.append([str(task), *cells, difference, str(int(group["n_units"].max()))])
        if np.isfinite(means).any():
            strong.add((number, 1 + int(np.nanargmax(means))))
    return ["task", *predictors, f"{model} − {rival}", "units"], rows, frozenset(strong)


def decoding_rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]], frozenset[tuple[int, int]]]:
    """Return header, rows and best cells of decoding: one row per kind of features, averaged over sessions.

    Intervals are over sessions where there are two or more, else over the trials of the one.
    """
    header = ["features", "balanced accuracy", "AUC", "minus raw counts", "sessions"]
    rows, means = [], []
    for name, group in table.groupby("features", sort=False):
        cells = []
        for column, low, high in (
            ("balanced_accuracy", "low", "high"),
            ("difference", "difference_low", "difference_high"),
        ):
            values = group[column].to_numpy(float)
            if len(values) > 1:
                bounds = bootstrap_interval(values)
            else:
                bounds = (float(group[low].iloc[0]), float(group[high].iloc[0]))
            known = np.isfinite(values).any()
            mean = float(np.nanmean(values)) if known else np.nan
            cells.append(_cell(mean, *bounds, sign=column == "difference") if known else "")
        auc = group["auc"].to_numpy(float)
        area = f"{np.nanmean(auc):.3f}" if np.isfinite(auc).any() else ""
        rows.append([str(name), cells[0], area, cells[1], str(len(group))])
        means.append(float(group["balanced_accuracy"].mean()))
    return header, rows, frozenset({(int(np.argmax(means)), 1)} if means else ())


def score_table(
    scores: pd.DataFrame, min_spikes: int, *, model: str = "MtM", rival: str = "ridge"
) -> tuple[list[str], list[list[str]], frozenset[tuple[int, int]]]:
    """Return :func:`score_rows`, or with more than three predictors one row for each of them.

    The difference of model and rival then has its place in :func:`difference_rows` alone. A task that a
    predictor does not do has an empty cell; the last row gives the number of units.
    """
    predictors = list(dict.fromkeys(scores["predictor"]))
    if len(predictors) <= _MOST_COLUMNS:
        return score_rows(scores, min_spikes, model=model, rival=rival)
    summary = summarize(scores, min_spikes=min_spikes).set_index(["predictor", "task"])
    tasks = list(dict.fromkeys(scores["task"]))
    rows = []
    for name in predictors:
        known = [(name, task) in summary.index for task in tasks]
        found = [summary.loc[(name, task)] if here else None for task, here in zip(tasks, known, strict=True)]
        rows.append([name, *("" if f is None else _cell(f["mean"], f["low"], f["high"]) for f in found)])
    n_units = summary["n_units"].groupby("task").max()
    rows.append(["units", *(f"{int(n_units[task]):,}" for task in tasks)])
    means = summary["mean"].unstack("task").reindex(index=predictors, columns=tasks).to_numpy(float)
    best = {
        (int(np.nanargmax(column)), at + 1) for at, column in enumerate(means.T) if np.isfinite(column).any()
    }
    return ["", *tasks], rows, frozenset(best)


def other_score_rows(scores: pd.DataFrame, min_spikes: int) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the means over units of the other scores: one row per task and predictor."""
    known = [name for name in OTHER_SCORES if name in scores and scores[name].notna().any()]
    header = ["task", "predictor", *(_SHORT_NAMES[name] for name in known)]
    kept = scores[scores["n_spikes"] >= min_spikes]
    tasks, predictors = (list(dict.fromkeys(scores[name])) for name in ("task", "predictor"))
    means = kept.groupby(["task", "predictor"])[known].mean()
    in_order = [pair for pair in itertools.product(tasks, predictors) if pair in means.index]
    means = means.reindex(in_order)
    rows = [
        [str(task), str(predictor), *("" if np.isnan(x) else f"{x:.3f}".replace("-", "−") for x in values)]
        for (task, predictor), values in zip(means.index, means.to_numpy(float), strict=True)
    ]
    return header, rows if known else []


_SHORT_NAMES = {
    "bits_per_spike_over_training_mean": "over the training mean",
    "r2": "R² of single bins",
    "psth_r2": "R² of the PSTH",
    "poisson_d2": "Poisson D²",
}


def verdict(scores: pd.DataFrame, *, min_spikes: int, model: str = "MtM", rival: str = "ridge") -> str:
    """Return a sentence: at which tasks the model beats the rival, loses to it, or neither is shown."""
    better: list[str] = []
    worse: list[str] = []
    undecided: list[str] = []
    for task, (_, low, high) in paired_differences(scores, model, rival, min_spikes=min_spikes).items():
        (better if low > 0 else worse if high < 0 else undecided).append(task)
    parts = [
        f"{model} predicts better than {rival} at {_listed(better)}" if better else "",
        f"{rival} predicts better than {model} at {_listed(worse)}" if worse else "",
        f"neither is shown to be better at {_listed(undecided)}" if undecided else "",
    ]
    said = "; ".join(part for part in parts if part)
    return f"{said[:1].upper()}{said[1:]} (paired over units, 95 % intervals)." if said else ""


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _cell(mean: float, low: float, high: float, *, sign: bool = False) -> str:
    if not np.isfinite(mean):
        return "no score"
    form = "+.3f" if sign else ".3f"
    interval = f" [{low:{form}}, {high:{form}}]" if np.isfinite(low) else ""
    return f"{mean:{form}}{interval}".replace("-", "−")


def _interval(low: float, high: float) -> str:
    return f"[{low:+.3f}, {high:+.3f}]".replace("-", "−") if np.isfinite(low) else ""
