"""Decoding of continuous behavior in each bin, with penalties chosen inside of the training windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neurokern.adapters._labels import check_features
from neurokern.encoding import RidgeEncoder, complete_rows, delay_features
from neurokern.encoding.folds import Fold
from neurokern.evaluation._nested_folds import DIFFERENCE, choose_baseline, folds_within, make_folds, varying
from neurokern.evaluation.resampling import draw_counts, interval

__all__ = ["decode_behavior"]


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
    baseline = choose_baseline("decode_behavior", baseline, features)
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
    columns = ["features", "target", "r2", "low", "high", *DIFFERENCE]
    return pd.DataFrame(rows, columns=[*columns, "n_bins", "n_windows", "n_left_out", "n_folds"])


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
    for kept, held_out in folds_within(train, *apart, 4):
        sides = (np.flatnonzero(np.isin(runs[rows], train[side])) for side in (kept, held_out))
        fitted_on, scored_on = sides
        if len(fitted_on) > 1 and len(scored_on):
            inner.append((fitted_on, scored_on))
    design = design[:, varying(design[rows])]
    alphas = list(alphas) if inner else [float(np.median(alphas))]
    encoder = RidgeEncoder(alphas=alphas, folds=inner or 2, standardize=True)
    encoder.fit(design[rows], target[rows].to(design.dtype))
    residual[asked] = target[asked] - encoder.predict(design[asked]).double()


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
