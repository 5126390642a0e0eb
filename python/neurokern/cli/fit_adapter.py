"""Fit one adapter to all labeled training windows of a recording, score it and keep it."""

from __future__ import annotations

import pathlib
import sys
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from neurokern.cli._common import write_csv
from neurokern.cli.adapter_names import make_adapter
from neurokern.cli.labels import choose_label, make_split_labels

if TYPE_CHECKING:
    from neurokern.datasets import BinnedSession, Splits
    from neurokern.models import MtM

__all__ = ["ADAPTER_SCORES", "check_adapter_label", "fit_adapter"]

ADAPTER_SCORES = "adapter_scores.csv"  # beside the adapter's folder
_EPOCHS = 60


def check_adapter_label(label: str | None, parts: Splits[BinnedSession]) -> str:
    """Return the label to be learned, or raise a ValueError where the recording has none."""
    train, test = parts.train.trials, parts.test.trials
    found = label or (None if train is None or test is None else choose_label(train, test))
    if found is None or train is None or test is None:
        raise ValueError("--adapter learns a label of the trials; name one with --label")
    make_split_labels(found, train, test)
    return found


def fit_adapter(
    model: MtM, parts: Splits[BinnedSession], label: str, name: str, folder: pathlib.Path, seed: int
) -> str:
    """Fit the adapter called ``name``, write it and its scores, and return what it scores, in words."""
    from neurokern.adapters import FineTuneOptions, RidgeProbe, Support, count_features, score_predictions

    halves = (parts.train, parts.test)
    trials = [part.trials for part in halves]
    assert trials[0] is not None  # check_adapter_label saw to it
    assert trials[1] is not None
    labels = [one.values for one in make_split_labels(label, trials[0], trials[1])]
    train, test = (
        part.select(np.flatnonzero(values >= 0)) for part, values in zip(halves, labels, strict=True)
    )
    known, asked = (values[values >= 0] for values in labels)
    options = FineTuneOptions(max_epochs=_EPOCHS, seed=seed, progress=sys.stderr.isatty())
    adapted = make_adapter(name, options).fit(model, Support.of(train, known))
    adapted.save(folder)
    raw = RidgeProbe().fit(count_features(train)["raw counts"], known)
    of_raw = score_predictions(np.asarray(raw.predict(count_features(test)["raw counts"])), asked)
    of_raw.insert(0, "method", "ridge on raw counts")
    scores = pd.concat([adapted.score(test, asked), of_raw], ignore_index=True)
    write_csv(folder.parent / ADAPTER_SCORES, scores)
    said = [f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" for _, row in scores.iterrows()]
    return (
        f"{label} from {len(known)} labeled windows: balanced accuracy {said[0]} on {len(asked)} test "
        f"windows, ridge on raw counts {said[1]}, chance {scores['chance'][0]:.2f}; "
        f"{adapted.n_trainable} weights learned in {adapted.seconds:.1f} s"
    )
