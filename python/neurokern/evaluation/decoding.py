"""Decoding of labels and of continuous behavior, with everything that is chosen chosen inside the training
folds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurokern._check import check_choice
from neurokern.adapters import LDAProbe, LinearProbe, RidgeProbe
from neurokern.adapters._labels import Features, Labels, check_features
from neurokern.datasets import BinnedSession
from neurokern.encoding import (
    RidgeEncoder,
    check_folds,
    complete_rows,
    contiguous_folds,
    delay_features,
    group_folds,
)
from neurokern.evaluation.resampling import draw_counts, interval
from neurokern.metrics import balanced_accuracy, roc_auc

if TYPE_CHECKING:
    from neurokern.encoding.folds import Fold
    from neurokern.models import MtM

__all__ = ["decode_behavior", "decode_labels", "region_features"]

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
    truth = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    tables = {name: check_features("decode_labels", values) for name, values in features.items()}
    _check_trials("decode_labels", {name: len(values) for name, values in tables.items()}, len(truth))
    if truth.ndim != 1 or pd.isna(truth).any():
        raise ValueError(
            "decode_labels: labels must be one per trial and not NaN or None; leave out trials without one"
        )
    classes = np.unique(truth)
    if len(classes) < 2:
        raise ValueError(f"decode_labels: labels must hold at least 2 classes, got {classes.tolist()}")
    pairs = make_folds("decode_labels", folds, len(truth), gap, groups)
    for number, (train, _) in enumerate(pairs):
        if len(np.unique(truth[train])) < 2:
            raise ValueError(
                f"decode_labels: the training trials of fold {number} must hold at least 2 classes, got "
                f"{np.unique(truth[train]).tolist()}; use other folds or groups"
            )
    tested = np.concatenate([test for _, test in pairs])
    scores = {
        name: np.concatenate(
            [_fold_scores(values, truth, classes, fold, readout, gap, groups, inner_folds) for fold in pairs]
        )
        for name, values in tables.items()
    }
    units = tested if groups is None else np.asarray(groups)[tested]
    draws = draw_counts(units, n_bootstrap, seed)
    right = {name: classes[score.argmax(1)] == truth[tested] for name, score in scores.items()}
    by_draw = {name: _balanced_over_draws(hits, truth[tested], draws) for name, hits in right.items()}
    if baseline is None and "raw counts" in tables:
        baseline = "raw counts"
    if baseline is not None:
        check_choice("decode_labels", "baseline", baseline, tuple(tables))
    rows = []
    for name, score in scores.items():
        predicted = classes[score.argmax(1)]
        found = balanced_accuracy(predicted, truth[tested])
        row = [name, readout, found, *interval(by_draw[name], confidence)]
        row += [roc_auc(score, truth[tested], classes), float(right[name].mean())]
        row += [1 / len(np.unique(truth[tested]))]
        if baseline is None or name == baseline:
            row += [np.nan] * 3
        else:
            rival = balanced_accuracy(classes[scores[baseline].argmax(1)], truth[tested])
            row += [found - rival, *interval(by_draw[name] - by_draw[baseline], confidence)]
        rows.append([*row, len(tested), len(pairs)])
    columns = [
        "features",
        "readout",
        "balanced_accuracy",
        "low",
        "high",
        "auc",
        "accuracy",
        "chance",
        *_DIFFERENCE,
    ]
    return pd.DataFrame(rows, columns=[*columns, "n_trials", "n_folds"])


_LEAST_SPREAD = 1e-6  # of the typical one over features
_DIFFERENCE = ("difference", "difference_low", "difference_high")


def decode_behavior(
    features: Mapping[str, Tensor | np.ndarray],
    behavior: Tensor | np.ndarray,
    *,
    lags: Sequence[int] = (0,),
    folds: int | Sequence[tuple[Any, Any]] = 5,
    gap: int = 0,
    groups: np.ndarray | None = None,
    alphas: Sequence[float] = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6),
    names: Sequence[str] | None = None,
    baseline: str | None = None,
    confidence: float = 0.95,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Decode a continuous signal (velocity, position, pupil) in each bin by ridge regression.

    Parameters
    ----------
    features : mapping of name to array of shape (windows, bins, features)
        In order of time.
    behavior : array of shape (windows, bins) or (windows, bins, signals)
        Bins where any signal is NaN are neither fitted nor scored.
    lags : sequence of int, default (0,), bins
        Positive ones look back: features of bin t - lag help to decode bin t. Lags do not reach across
        windows; bins without a source for every lag are left out.
    folds, gap, groups
        As in :func:`decode_labels`, of windows: bins of one window are never on two sides. A long recording
        without trials is to be cut into windows first, with a gap as long as the signal's autocorrelation and
        the lags.
    alphas : sequence of float
        Penalties on standardized features; the best for each signal is chosen by folds of windows within the
        training windows.
    names : sequence of str, optional
        Of the signals.
    baseline, confidence, n_bootstrap, seed
        As in :func:`decode_labels`; the bootstrap is over windows or groups.

    Returns
    -------
    table : DataFrame
        One row for each kind of features and signal: ``features, target, r2`` (of all tested bins together,
        about their mean), ``low, high, difference, difference_low, difference_high, n_bins, n_windows,
        n_left_out, n_folds``.

    Raises
    ------
    ValueError
        If shapes disagree, all bins are left out, the signal is infinite somewhere, or folds are bad.
    """
    signal = torch.as_tensor(behavior).double()
    signal = signal[:, :, None] if signal.ndim == 2 else signal
    if signal.ndim != 3 or 0 in signal.shape or torch.isinf(signal).any():
        raise ValueError(
            "decode_behavior: behavior must have shape (windows, bins) or (windows, bins, signals), hold "
            f"something, and not be infinite, got {tuple(signal.shape)}"
        )
    n_windows, n_bins, n_signals = signal.shape
    names = [f"signal {number + 1}" for number in range(n_signals)] if names is None else list(names)
    if len(names) != n_signals:
        raise ValueError(f"decode_behavior: names must name {n_signals} signals, got {names}")
    runs = np.repeat(np.arange(n_windows), n_bins)
    usable = complete_rows(len(runs), list(lags), runs=runs) & ~signal.isnan().any(2).flatten().numpy()
    if not usable.any():
        raise ValueError(
            "decode_behavior: no bin is left: behavior is NaN, or windows are no longer than the longest lag "
            f"({max(lags, default=0)} of {n_bins} bins)"
        )
    pairs = make_folds("decode_behavior", folds, n_windows, gap, groups)
    target = signal.flatten(0, 1)
    tested = np.concatenate([test for _, test in pairs])
    units = tested if groups is None else np.asarray(groups)[tested]
    draws = draw_counts(units, n_bootstrap, seed)
    if baseline is None and "raw counts" in features:
        baseline = "raw counts"
    if baseline is not None:
        check_choice("decode_behavior", "baseline", baseline, tuple(features))
    r2: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, values in features.items():
        design = _design(name, values, n_windows, n_bins, lags, runs)
        residual = torch.full_like(target, torch.nan)
        for train, test in pairs:
            _fold_residuals(design, target, residual, usable, runs, (train, test), (gap, groups), alphas)
        r2[name] = _r2_over_draws(residual, target, usable, tested, n_bins, draws)
    counted = int(usable.reshape(n_windows, n_bins)[tested].sum())
    left_out = len(tested) * n_bins - counted
    rows = []
    for name, (found, by_draw) in r2.items():
        for at, target_name in enumerate(names):
            row = [name, target_name, found[at], *interval(by_draw[:, at], confidence)]
            if baseline is None or name == baseline:
                row += [np.nan] * 3
            else:
                rival, rival_by_draw = r2[baseline]
                difference = by_draw[:, at] - rival_by_draw[:, at]
                row += [found[at] - rival[at], *interval(difference, confidence)]
            rows.append([*row, counted, len(tested), left_out, len(pairs)])
    columns = ["features", "target", "r2", "low", "high", *_DIFFERENCE]
    return pd.DataFrame(rows, columns=[*columns, "n_bins", "n_windows", "n_left_out", "n_folds"])


@torch.inference_mode()
def region_features(
    session: BinnedSession, model: MtM | None = None, *, min_units: int = 1, name: str | None = None
) -> dict[str, Tensor]:
    """Features of each region alone, to see what can be decoded from where.

    Parameters
    ----------
    session : BinnedSession
    model : MtM, optional
        With a model: the log-rates, averaged over bins, that it predicts for the region's units when it sees
        nothing but them, told "intra-region" (as published). Without: the region's spike counts.
    min_units : int, default 1
        Regions with fewer units are left out.
    name : str, optional
        Under which the model knows the session; ``session.session`` by default.

    Returns
    -------
    features : dict of region to float32 tensor of shape (windows, units of the region)
        For :func:`decode_labels`. Units of unknown region have none.

    Raises
    ------
    ValueError
        If no region is left.
    """
    numbers, names = session.region_index
    counts = torch.from_numpy(session.read(range(session.n_windows)))
    features = {}
    for number, region in enumerate(names):
        inside = torch.from_numpy(numbers == number)
        if int(inside.sum()) < min_units:
            continue
        if model is None:
            features[region] = counts[:, :, inside].sum(1)
            continue
        hidden = ~inside[None, None]
        device = next(model.parameters()).device
        seen = counts.masked_fill(hidden, 0).to(device)
        rates = model.predict_rates(seen, name or session.session, "intra-region", hidden.to(device))
        features[region] = rates[:, :, inside.to(device)].log().mean(1).cpu()
    if not features:
        raise ValueError(
            f"region_features: session {session.session!r} must have a region of at least {min_units} units, "
            f"got {list(names) or 'no region'}"
        )
    return features


def make_folds(
    function: str, folds: int | Sequence[tuple[Any, Any]], n: int, gap: int, groups: np.ndarray | None
) -> list[Fold]:
    """Outer folds of trials or windows; no trial is tested twice, and no group is on two sides."""
    if groups is not None and np.shape(groups) != (n,):
        raise ValueError(
            f"{function}: groups must have one label for each of {n} trials, got {np.shape(groups)}"
        )
    if isinstance(folds, (int, np.integer)):
        if groups is None:
            return contiguous_folds(n, int(folds), gap=gap)
        return group_folds(groups, int(folds))
    pairs = check_folds(folds, n)
    tested = np.concatenate([test for _, test in pairs])
    if len(np.unique(tested)) < len(tested):
        raise ValueError(f"{function}: folds must test a trial at most once")
    for number, (train, test) in enumerate(pairs):
        shared = set() if groups is None else set(np.asarray(groups)[train]) & set(np.asarray(groups)[test])
        if shared:
            raise ValueError(
                f"{function}: fold {number} must not have a group on both sides, got {sorted(shared)[:3]}"
            )
    return pairs


def inner_folds(train: NDArray[np.int64], gap: int, groups: np.ndarray | None, n_folds: int) -> list[Fold]:
    """Folds of positions in ``train``, by the same rule as the outer ones; none where there is too little."""
    if groups is not None:
        n_groups = len(np.unique(np.asarray(groups)[train]))
        return group_folds(np.asarray(groups)[train], min(n_folds, n_groups)) if n_groups > 1 else []
    while n_folds > 1:
        if n_folds <= len(train):
            try:
                return contiguous_folds(len(train), n_folds, gap=gap)
            except ValueError:  # the gap leaves nothing to train on
                pass
        n_folds -= 1
    return []


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
    values = values[:, _varying(values[train])]
    losses = np.zeros(len(candidates))
    for kept, held_out in inner_folds(train, gap, groups, n_inner):
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


def _design(
    name: str, values: Tensor | np.ndarray, n_windows: int, n_bins: int, lags: Sequence[int], runs: np.ndarray
) -> Tensor:
    features = torch.as_tensor(values)
    if features.ndim != 3 or features.shape[:2] != (n_windows, n_bins) or not features.shape[2]:
        raise ValueError(
            f"decode_behavior: features {name!r} must have shape ({n_windows}, {n_bins}, features) like "
            f"behavior, "
            f"got {tuple(features.shape)}"
        )
    flat = check_features("decode_behavior", features.flatten(0, 1))
    return delay_features(flat, list(lags), runs=runs)


def _fold_residuals(
    design: Tensor,
    target: Tensor,
    residual: Tensor,
    usable: np.ndarray,
    runs: np.ndarray,
    fold: Fold,
    apart: tuple[int, np.ndarray | None],
    alphas: Sequence[float],
) -> None:
    """Fit one fold and write what is left of its test bins."""
    train, test = fold
    rows = np.flatnonzero(usable & np.isin(runs, train))
    asked = np.flatnonzero(usable & np.isin(runs, test))
    if not len(rows):
        raise ValueError("decode_behavior: the training windows of a fold must have a bin to fit, got none")
    if not len(asked):
        return  # the signal is missing in all its bins
    inner = []
    for kept, held_out in inner_folds(train, *apart, 4):
        sides = (np.flatnonzero(np.isin(runs[rows], train[side])) for side in (kept, held_out))
        fitted_on, scored_on = sides
        if len(fitted_on) > 1 and len(scored_on):
            inner.append((fitted_on, scored_on))
    design = design[:, _varying(design[rows])]
    alphas = list(alphas) if inner else [float(np.median(alphas))]
    encoder = RidgeEncoder(alphas=alphas, folds=inner or 2, standardize=True)
    encoder.fit(design[rows], target[rows].to(design.dtype))
    residual[asked] = target[asked] - encoder.predict(design[asked]).double()


def _varying(values: Tensor) -> Tensor:
    """Tell which features vary over the training samples, or keep the first if none does.

    One that a unit silent in training leaves at rounding errors would, divided by its spread, rule the test
    samples.
    """
    spread = values.double().std(0, correction=0)
    varies = spread > _LEAST_SPREAD * spread.square().mean().sqrt()
    varies[0] |= not varies.any()
    return varies


def _r2_over_draws(
    residual: Tensor, target: Tensor, usable: np.ndarray, tested: np.ndarray, n_bins: int, draws: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """R2 of each signal ``(signals,)`` and of each draw of windows ``(draws, signals)``."""
    keep = torch.from_numpy(usable)[:, None]
    parts = []
    for values in (residual.square(), target, target.square(), torch.ones_like(target)):
        sums = torch.where(keep, values, 0).unflatten(0, (-1, n_bins)).sum(1)
        parts.append(sums.numpy()[tested])
    everything = np.concatenate([np.ones((1, len(tested))), draws])
    errors, first, second, n = (everything @ part for part in parts)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = second - first**2 / n
        r2 = np.where(total > 1e-12 * second, 1 - errors / total, np.nan)
    return r2[0], r2[1:]


def _check_trials(function: str, lengths: Mapping[str, int], n: int) -> None:
    if not lengths:
        raise ValueError(f"{function}: features must name at least one kind, got none")
    wrong = {name: length for name, length in lengths.items() if length != n}
    if wrong:
        raise ValueError(f"{function}: features must have a row for each of {n} labels, got {wrong}")
