"""Compare predictors and features over runs of ``neurokern evaluate`` or ``adapt``, as Markdown tables.

Run it with ``python examples/scores_by_session.py RUN [RUN ...]``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

MIN_SPIKES = 20  # in the scored bins: units with fewer say little each, and are many


def masked_prediction(runs: Sequence[str]) -> str:
    """Return bits per spike, averaged over units and then over sessions, and the sessions that MtM wins."""
    units = pd.concat([pd.read_csv(Path(run) / "scores_per_unit.csv") for run in runs])
    lines = ["| task | units | MtM | ridge | unit mean | MtM above ridge |", "|---|---|---|---|---|---|"]
    kinds = {
        f"≥ {MIN_SPIKES} spikes": units["n_spikes"] >= MIN_SPIKES,
        "all that fire": units["n_spikes"] > 0,
    }
    for kind, kept in kinds.items():
        means = units[kept].groupby(["task", "session", "predictor"])["bits_per_spike"].mean().unstack()
        for task, of_task in means.groupby("task"):
            scores = " | ".join(f"{of_task[name].mean():+.3f}" for name in ("MtM", "ridge", "unit mean"))
            won = int((of_task["MtM"] > of_task["ridge"]).sum())
            lines.append(f"| {task} | {kind} | {scores} | {won} of {len(of_task)} sessions |")
    return "\n".join(lines)


def few_shot(runs: Sequence[str]) -> str:
    """Return balanced accuracy by number of labeled trials per class, averaged over sessions."""
    files = [Path(run) / "few_shot.csv" for run in runs]
    tables = [pd.read_csv(file).assign(run=str(file)) for file in files if file.is_file()]
    if not tables:
        return "no few-shot scores: run `neurokern adapt` with --label"
    scores = pd.concat(tables).pivot_table(index="method", columns="shots", values="mean", sort=False)
    lines = ["| labeled trials per class | " + " | ".join(map(str, scores.columns)) + " |"]
    lines.append("|---" * (len(scores.columns) + 1) + "|")
    lines += [f"| {m} | " + " | ".join(f"{x:.3f}" for x in row) + " |" for m, row in scores.iterrows()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{masked_prediction(sys.argv[1:])}\n\n{few_shot(sys.argv[1:])}\n")
