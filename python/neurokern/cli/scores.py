"""Score a model and the baselines on held-out windows, as a table, as text, and as files."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from neurokern.cli._common import text_table, write_csv
from neurokern.evaluation import (
    TASKS,
    GLMPredictor,
    MtMPredictor,
    ReducedRankPredictor,
    RidgePredictor,
    UnitMeanPredictor,
    evaluate_masked_prediction,
    paired_differences,
    score_rates,
    summarize,
    training_mean,
    tuned_psth_rates,
)
from neurokern.evaluation.tasks import sample_units
from neurokern.report.sections import MIN_SPIKES
from neurokern.report.summary import OTHER_SCORES, difference_rows, score_table

if TYPE_CHECKING:
    from neurokern.datasets import BinnedSession, Splits
    from neurokern.evaluation import Predictor
    from neurokern.models import MtM

__all__ = [
    "FAST_BASELINES",
    "differences_text",
    "predictors_of",
    "score_sessions",
    "scores_text",
    "write_scores",
]


FAST_BASELINES = ("ridge", "unit mean")


def predictors_of(
    model: MtM,
    splits: Splits[BinnedSession],
    baselines: Sequence[str] = FAST_BASELINES,
    *,
    max_units: int | None = None,
) -> list[Predictor]:
    """Return the model and the baselines for one session, fitted on its training and validation windows.

    "PSTH" is no predictor of its own: :func:`score_sessions` adds it. With ``max_units`` the GLM is fitted
    only for the units that :func:`score_sessions` will ask for.
    """
    train, validation, tasks = splits.train, splits.validation, possible_tasks(splits.train)
    predictors: list[Predictor] = [MtMPredictor(model, train.session)]
    if "ridge" in baselines:
        predictors.append(RidgePredictor.fit(train, validation, tasks))
    if "reduced rank" in baselines:
        shared = [task for task in tasks if task in ("forward-prediction", "inter-region")]
        predictors.append(ReducedRankPredictor.fit(train, validation, shared))
    if "GLM" in baselines:
        units = sample_units(train.region_index[0], max_units, 0)
        predictors.append(GLMPredictor.fit(train, validation, tasks, units=units))
    if "unit mean" in baselines:
        predictors.append(UnitMeanPredictor.fit(train))
    return predictors


def score_sessions(
    predictors: Mapping[str, Sequence[Predictor]],
    splits: Mapping[str, Splits[BinnedSession]],
    *,
    max_units: int | None = None,
    conditions: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return the scores of all predictors on the test windows of each session; no column names a subject.

    ``conditions`` are columns of the trials: they add the predictor "PSTH" where the session has trials, and
    say what "psth_r2" averages over. With () all windows are one condition; with None there is no "PSTH".
    """
    tables = []
    for session, parts in splits.items():
        tasks = possible_tasks(parts.test)
        asked = None if parts.test.trials is None else conditions
        for predictor in predictors[session]:
            table = evaluate_masked_prediction(
                predictor,
                parts.test,
                getattr(predictor, "tasks", tasks),
                conditions=asked or None,
                train_mean=training_mean(parts.train),
                max_units=max_units,
                progress=sys.stderr.isatty(),
            )
            tables.append(table.drop(columns="subject"))
        if asked is not None:
            rates = tuned_psth_rates(parts.train, parts.validation, parts.test, asked)
            given = score_rates(
                rates,
                parts.test,
                tasks,
                name="PSTH",
                conditions=asked or None,
                train_mean=training_mean(parts.train),
                max_units=max_units,
            )
            tables.append(given.drop(columns="subject"))
    return pd.concat(tables, ignore_index=True)


def possible_tasks(session: BinnedSession) -> tuple[str, ...]:
    """Return the tasks that make sense: those between and within regions need two regions."""
    if len(set(session.regions.tolist()) - {""}) >= 2:
        return TASKS
    return tuple(task for task in TASKS if "region" not in task)


def scores_text(scores: pd.DataFrame) -> str:
    """Return bits per spike as a text table: one row per task, mean over units and interval per predictor."""
    header, rows, _ = score_table(scores, MIN_SPIKES)
    return text_table(header, rows)


def differences_text(scores: pd.DataFrame) -> str:
    """Return MtM minus each baseline as a text table, with intervals over units and over sessions."""
    return text_table(*difference_rows(scores, MIN_SPIKES))


def _with_other_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Return bits per spike with intervals, and the means over the same units of the other scores."""
    summary = summarize(scores, min_spikes=MIN_SPIKES)
    kept = scores[scores["n_spikes"] >= MIN_SPIKES].groupby(["predictor", "task"])
    return summary.merge(kept[OTHER_SCORES].mean(), how="left", on=["predictor", "task"])


def write_scores(folder: pathlib.Path, scores: pd.DataFrame) -> list[pathlib.Path]:
    """Write one row per unit, the means over units, and the paired differences with each baseline."""
    differences = [
        paired_differences(scores, "MtM", rival, min_spikes=MIN_SPIKES).assign(baseline=rival)
        for rival in dict.fromkeys(scores["predictor"])
        if rival != "MtM"
    ]
    return [
        write_csv(folder / "scores_per_unit.csv", scores),
        write_csv(folder / "scores.csv", _with_other_scores(scores)),
        *([write_csv(folder / "differences.csv", pd.concat(differences))] if differences else []),
    ]
