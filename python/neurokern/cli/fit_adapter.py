"""Fit one adapter to all labeled training windows of a recording, score it and keep it."""

from __future__ import annotations

import pathlib
import sys
from typing import TYPE_CHECKING

import numpy as np

from neurokern.cli.adapter_names import make_adapter
from neurokern.cli.labels import choose_label, make_split_labels
from neurokern.metrics import balanced_accuracy

if TYPE_CHECKING:
    from neurokern.datasets import BinnedSession, Splits
    from neurokern.models import MtM

__all__ = ["check_adapter_label", "fit_adapter"]

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
    """Fit the adapter called ``name``, write it to ``folder`` and return what it scores, in words."""
    from neurokern.adapters import FineTuneOptions, RidgeProbe, Support, count_features

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
    scores = (
        balanced_accuracy(adapted.predict(test), asked),
        balanced_accuracy(raw.predict(count_features(test)["raw counts"]), asked),
    )
    return (
        f"{label} from {len(known)} labeled windows: balanced accuracy {scores[0]:.3f} on {len(asked)} test "
        f"windows, ridge on raw counts {scores[1]:.3f}, chance {1 / len(np.unique(asked)):.2f}; "
        f"{adapted.n_trainable} weights learned in {adapted.seconds:.1f} s"
    )
