"""Decoding of labels, with the penalty of the read-out chosen inside of the training folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from neurokern._check import check_choice
from neurokern.adapters import LDAProbe, LinearProbe, RidgeProbe
from neurokern.adapters._labels import Features, Labels, check_features
from neurokern.encoding.folds import Fold
from neurokern.evaluation._nested_folds import DIFFERENCE, choose_baseline, folds_within, make_folds, varying
from neurokern.evaluation.resampling import draw_counts, interval
from neurokern.metrics import balanced_accuracy, roc_auc

__all__ = ["decode_labels"]

_Readout = LinearProbe | RidgeProbe | LDAProbe

# Of each read-out: how it is made for one candidate, and the candidates, from the strongest penalty on.
_READOUTS: dict[str, tuple[Callable[[float], _Readout], tuple[float, ...]]] = {
    "logistic": (lambda c: LinearProbe(c, standardize=True), tuple(10.0**e for e in range(-2, 3))),
    "ridge": (lambda alpha: RidgeProbe(alpha, standardize=True), tuple(10.0**e for e in range(3, -4, -1))),
    "lda": (lambda gamma: LDAProbe(gamma, standardize=True), (1.0, 0.9, 0.7, 0.5, 0.3, 0.1)),
}


def decode_labels(
    features: Mapping[str, Features],
    labels: Labels,
    *,
    folds: int | Sequence[tuple[Any, Any]] = 5,
    gap: int = 0,
    groups: np.ndarray | None = None,
    readout: str = "logistic",
    inner_folds: int = 4,
    baseline: str | None = None,
    confidence: float = 0.95,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Decode a label of each trial (choice, side, stimulus) by nested cross-validation.

    A read-out is fitted on the training trials of each fold, its penalty chosen by folds within them, and
    scored on the trials that it has not seen. Scores are of all tested trials together.

    Parameters
    ----------
    features : mapping of name to array of shape (trials, features)
        What to decode from: embeddings, rates, raw counts; in order of time.
    labels : array of shape (trials,)
    folds : int or list of (train, test), default 5
        A number of contiguous stretches of trials, or of sets of whole groups where ``groups`` are given; or
        pairs of indices. A single pair is the published protocol: fit on training and validation trials,
        score on test trials.
    gap : int, default 0
        Trials on either side of a test stretch that are left out of training, here and in the inner folds.
    groups : array of shape (trials,), optional
        Label of each trial's block or session. Trials of one block share a prior, a state and a drift, so
        that a fold that tests a part of it leaks.
    readout : {"logistic", "ridge", "lda"}, default "logistic"
    inner_folds : int, default 4
    baseline : str, optional
        Features to compare the others with; "raw counts" if they are among them.
    confidence, n_bootstrap, seed
        Of the bootstrap over tested trials, or over groups where given.

    Returns
    -------
    table : DataFrame
        One row for each kind of features: ``features, readout, balanced_accuracy, low, high, auc, accuracy,
        chance, difference, difference_low, difference_high`` (balanced accuracy minus that of the baseline on
        the same trials; NaN without a baseline), ``n_trials, n_folds``. The interval holds for other trials
        of this session, with the fitted read-outs as they are.

    Raises
    ------
    ValueError
        If labels are missing or of one class, in all trials or in the training trials of a fold; or folds,
        shapes or names are bad.
    """
    check_choice("decode_labels", "readout", readout, tuple(_READOUTS))
    tables = {name: check_features("decode_labels", values) for name, values in features.items()}
    truth = _checked_labels(labels, {name: len(values) for name, values in tables.items()})
    classes = np.unique(truth)
    pairs = make_folds("decode_labels", folds, len(truth), gap, groups)
    _check_training_classes(truth, pairs)
    baseline = choose_baseline("decode_labels", baseline, tables)
    tested = np.concatenate([test for _, test in pairs])
    draws = draw_counts(tested if groups is None else np.asarray(groups)[tested], n_bootstrap, seed)
    scored = {}
    for name, values in tables.items():
        parts = [
            _fold_scores(values, truth, classes, pair, readout, gap, groups, inner_folds) for pair in pairs
        ]
        scored[name] = _Scored.of(np.concatenate(parts), truth[tested], classes, draws)
    rows = [
        {
            "features": name,
            "readout": readout,
            **one.columns(None if name == baseline or baseline is None else scored[baseline], confidence),
            "n_trials": len(tested),
            "n_folds": len(pairs),
        }
        for name, one in scored.items()
    ]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Scored:
    """Scores of one kind of features on all tested trials, and on each draw of them."""

    balanced: float
    auc: float
    accuracy: float
    chance: float
    by_draw: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, truth: np.ndarray, classes: np.ndarray, draws: np.ndarray) -> _Scored:
        predicted = classes[scores.argmax(1)]
        right = predicted == truth
        return cls(
            balanced=balanced_accuracy(predicted, truth),
            auc=roc_auc(scores, truth, classes),
            accuracy=float(right.mean()),
            chance=1 / len(np.unique(truth)),
            by_draw=_balanced_over_draws(right, truth, draws),
        )

    def columns(self, rival: _Scored | None, confidence: float) -> dict[str, float]:
        low, high = interval(self.by_draw, confidence)
        difference = (np.nan,) * 3
        if rival is not None:
            ends = interval(self.by_draw - rival.by_draw, confidence)
            difference = (self.balanced - rival.balanced, *ends)
        return {
            "balanced_accuracy": self.balanced,
            "low": low,
            "high": high,
            "auc": self.auc,
            "accuracy": self.accuracy,
            "chance": self.chance,
            **dict(zip(DIFFERENCE, difference, strict=True)),
        }


def _checked_labels(labels: Labels, lengths: Mapping[str, int]) -> np.ndarray:
    truth = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if not lengths:
        raise ValueError("decode_labels: features must name at least one kind, got none")
    if truth.ndim != 1 or pd.isna(truth).any():
        raise ValueError(
            "decode_labels: labels must be one per trial and not NaN or None; leave out trials without one"
        )
    wrong = {name: length for name, length in lengths.items() if length != len(truth)}
    if wrong:
        raise ValueError(
            f"decode_labels: features must have a row for each of {len(truth)} labels, got {wrong}"
        )
    if len(np.unique(truth)) < 2:
        raise ValueError(
            f"decode_labels: labels must hold at least 2 classes, got {np.unique(truth).tolist()}"
        )
    return truth


def _check_training_classes(truth: np.ndarray, pairs: Sequence[Fold]) -> None:
    for number, (train, _) in enumerate(pairs):
        seen = np.unique(truth[train]).tolist()
        if len(seen) < 2:
            raise ValueError(
                f"decode_labels: the training trials of fold {number} must hold at least 2 classes, got "
                f"{seen}; use other folds or groups"
            )


def _fold_scores(
    values: Tensor,
    truth: np.ndarray,
    classes: np.ndarray,
    fold: Fold,
    readout: str,
    gap: int,
    groups: np.ndarray | None,
    n_inner: int,
) -> np.ndarray:
    """Decision scores of the test trials, ``(tested, classes)``; -inf for a class not seen in training."""
    make, candidates = _READOUTS[readout]
    train, test = fold
    values = values[:, varying(values[train])]
    losses = np.zeros(len(candidates))
    for kept, held_out in folds_within(train, gap, groups, n_inner):
        fitted_on = train[kept]
        if len(np.unique(truth[fitted_on])) < 2:
            continue
        for at, candidate in enumerate(candidates):
            model = make(candidate).fit(values[fitted_on], truth[fitted_on])
            scores = _scores_of(model, values[train[held_out]], classes)
            losses[at] += _log_loss(scores, truth[train[held_out]], classes) / len(held_out)
    # The first of equals has the strongest penalty; without any inner fold the middle one is taken.
    chosen = candidates[int(losses.argmin()) if losses.any() else len(candidates) // 2]
    return _scores_of(make(chosen).fit(values[train], truth[train]), values[test], classes)


def _scores_of(model: _Readout, values: Tensor, classes: np.ndarray) -> np.ndarray:
    scores = np.full((len(values), len(classes)), -np.inf)
    known = np.searchsorted(classes, model.classes_)
    scores[:, known] = model.decision_function(values).double().cpu().numpy()
    return scores


def _log_loss(scores: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    """Sum of minus log-probabilities, none above that of one in a million."""
    shifted = scores - scores.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    own = log_p[np.arange(len(labels)), np.searchsorted(classes, labels)]
    return float(-np.maximum(own, np.log(1e-6)).sum())


def _balanced_over_draws(right: np.ndarray, labels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Balanced accuracy of each draw ``(draws, trials)`` of how often a trial counts."""
    recalls = []
    for label in np.unique(labels):
        inside = labels == label
        size = draws[:, inside].sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            recalls.append(draws[:, inside] @ right[inside].astype(float) / size)
    return np.mean(recalls, axis=0)
