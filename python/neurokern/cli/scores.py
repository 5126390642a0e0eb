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
    MtMPredictor,
    RidgePredictor,
    UnitMeanPredictor,
    evaluate_masked_prediction,
    summarize,
)
from neurokern.report.sections import MIN_SPIKES
from neurokern.report.summary import score_rows

if TYPE_CHECKING:
    from neurokern.datasets import BinnedSession, Splits
    from neurokern.evaluation import Predictor
    from neurokern.models import MtM

__all__ = ["predictors_of", "score_sessions", "scores_text", "write_scores"]


def predictors_of(model: MtM, splits: Splits[BinnedSession]) -> list[Predictor]:
    """Return the model and the baselines for one session, fitted on its training and validation windows."""
    return [
        MtMPredictor(model, splits.train.session),
        RidgePredictor.fit(splits.train, splits.validation, possible_tasks(splits.train)),
        UnitMeanPredictor.fit(splits.train),
    ]


def score_sessions(
    predictors: Mapping[str, Sequence[Predictor]],
    splits: Mapping[str, Splits[BinnedSession]],
    *,
    max_units: int | None = None,
) -> pd.DataFrame:
    """Return the scores of all predictors on the test windows of each session; no column names a subject."""
    tables = []
    for session, parts in splits.items():
        tasks = possible_tasks(parts.test)
        for predictor in predictors[session]:
            table = evaluate_masked_prediction(
                predictor, parts.test, tasks, max_units=max_units, progress=sys.stderr.isatty()
            )
            tables.append(table.drop(columns="subject"))
    return pd.concat(tables, ignore_index=True)


def possible_tasks(session: BinnedSession) -> tuple[str, ...]:
    """Return the tasks that make sense: those between and within regions need two regions."""
    if len(set(session.regions.tolist()) - {""}) >= 2:
        return TASKS
    return tuple(task for task in TASKS if "region" not in task)


def scores_text(scores: pd.DataFrame) -> str:
    """Return bits per spike as a text table: one row per task, mean over units and interval per predictor."""
    header, rows, _ = score_rows(scores, MIN_SPIKES)
    return text_table(header, rows)


def write_scores(folder: pathlib.Path, scores: pd.DataFrame) -> list[pathlib.Path]:
    """Write one row per unit, and the means over units."""
    return [
        write_csv(folder / "scores_per_unit.csv", scores),
        write_csv(folder / "scores.csv", summarize(scores, min_spikes=MIN_SPIKES)),
    ]
