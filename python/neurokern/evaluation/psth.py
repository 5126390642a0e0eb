"""The trial-averaged time course of each condition, as a prediction: what a label alone tells of the
spikes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from neurokern.datasets import BinnedSession
from neurokern.evaluation.predictors import recency_weights, recent_rates
from neurokern.metrics import bits_per_spike

__all__ = ["psth_rates", "tuned_psth_rates"]

_MIN_SPIKES = 10  # units with fewer validation spikes say too little to choose by


def psth_rates(
    train: BinnedSession,
    test: BinnedSession,
    conditions: Sequence[str] = (),
    *,
    smoothing: float = 0.0,
    prior_windows: float = 2.0,
    half_life: float | None = None,
) -> np.ndarray:
    """Predict test windows by the mean training window of their condition.

    Parameters
    ----------
    train, test : BinnedSession
        The same bins and units; training windows in order of time.
    conditions : sequence of str, default ()
        Columns of both trial tables; a condition is a combination of their values, missing ones being a value
        like any other. Without any, all windows are one condition.
    smoothing : float, default 0, seconds
        Standard deviation of a Gaussian over bins.
    prior_windows : float, default 2
        How many windows' worth the mean of a condition is drawn to the time course over all windows, and that
        to the unit's mean rate.
    half_life : float or None, windows
        As in :class:`neurokern.evaluation.UnitMeanPredictor`.

    Returns
    -------
    rates : float32 array of shape (n_windows, n_bins, n_units) of ``test``, spikes per bin
        For :func:`neurokern.evaluation.score_rates`. A condition that training does not have gets the time
        course over all windows.

    Raises
    ------
    ValueError
        If ``train`` is empty, bins or units differ, a column is missing in either table, or an option is
        negative or not finite.
    """
    if train.counts.size == 0 or train.counts.shape[1:] != test.counts.shape[1:]:
        raise ValueError(
            "psth_rates: train must hold something and have the bins and units of test, "
            f"got {train.counts.shape} and {test.counts.shape}"
        )
    for name, value in (("smoothing", smoothing), ("prior_windows", prior_windows)):
        if not 0 <= value < np.inf:
            raise ValueError(f"psth_rates: {name} must be a finite number of at least 0, got {value!r}")
    smoother = _smoother(train.n_bins, smoothing / train.bin_size)
    weights = recency_weights(train.n_windows, half_life)
    mean = np.broadcast_to(recent_rates(train.counts, half_life), train.counts.shape[1:])
    overall = _drawn_to(mean, train.counts, weights, prior_windows, smoother)
    rates = np.broadcast_to(overall, test.counts.shape).astype(np.float32)
    if not conditions:
        return rates
    of_train, of_test = _numbers(train, test, conditions)
    for condition in np.intersect1d(of_train, of_test):
        rows = of_train == condition
        own = _drawn_to(overall, train.counts[rows], weights[rows], prior_windows, smoother)
        rates[of_test == condition] = own
    return rates


def tuned_psth_rates(
    train: BinnedSession,
    validation: BinnedSession,
    test: BinnedSession,
    conditions: Sequence[str] = (),
    *,
    smoothing: Sequence[float] = (0.02, 0.05, 0.15),
    prior_windows: Sequence[float] = (2.0, 10.0, 50.0),
    half_lives: Sequence[float | None] = (20.0, None),
) -> np.ndarray:
    """Return :func:`psth_rates` of training and validation windows, its options chosen on the latter.

    Parameters
    ----------
    train, validation, test : BinnedSession
    conditions : sequence of str, default ()
    smoothing, prior_windows, half_lives : sequences
        Candidates; the combination with the best mean bits per spike of the validation windows is taken.

    Returns
    -------
    rates : float32 array of shape (n_windows, n_bins, n_units) of ``test``, spikes per bin

    Raises
    ------
    ValueError
        As :func:`psth_rates`; or if there is no validation window.
    """
    if not len(validation):
        raise ValueError("tuned_psth_rates: validation must have at least one window, got none")
    observed = validation.counts.astype(np.float32)
    best, chosen = -np.inf, (smoothing[0], prior_windows[0], half_lives[0])
    for candidate in itertools.product(smoothing, prior_windows, half_lives):
        rates = psth_rates(train, validation, conditions, **_options(candidate))
        scores = bits_per_spike(torch.from_numpy(rates), torch.from_numpy(observed)).numpy()
        enough = observed.sum((0, 1)) >= _MIN_SPIKES
        kept = scores[enough] if enough.any() else scores[~np.isnan(scores)]
        if len(kept) and kept.mean() > best:
            best, chosen = float(kept.mean()), candidate
    return psth_rates(_joined(train, validation), test, conditions, **_options(chosen))


def _options(candidate: tuple[float, float, float | None]) -> dict[str, float]:
    return dict(zip(("smoothing", "prior_windows", "half_life"), candidate, strict=True))  # type: ignore[arg-type]


def _joined(first: BinnedSession, second: BinnedSession) -> BinnedSession:
    trials = None
    if first.trials is not None and second.trials is not None:
        trials = pd.concat([first.trials, second.trials], ignore_index=True)
    counts = np.concatenate([first.counts, second.counts])
    return replace(first, counts=counts, windows=None, trials=trials)


def _drawn_to(
    prior: np.ndarray, counts: np.ndarray, weights: np.ndarray, prior_windows: float, smoother: np.ndarray
) -> np.ndarray:
    """Weighted and smoothed mean window, mixed with a prior that counts as so many windows."""
    share = weights / weights.sum()
    effective = 1 / np.square(share).sum()
    mean = smoother @ np.tensordot(share, counts, axes=(0, 0))
    return (effective * mean + prior_windows * prior) / (effective + prior_windows)


def _smoother(n_bins: int, sigma: float) -> np.ndarray:
    """Matrix ``(bins, bins)`` whose rows sum to 1 at the ends of the window too."""
    if sigma == 0:
        return np.eye(n_bins)
    lag = np.arange(n_bins)
    weights = np.exp(-0.5 * ((lag[:, None] - lag) / sigma) ** 2)
    return weights / weights.sum(1, keepdims=True)


def _numbers(
    train: BinnedSession, test: BinnedSession, conditions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Number of each window's condition, the same numbers in both sessions."""
    tables = []
    for name, session in (("train", train), ("test", test)):
        known = [] if session.trials is None else list(session.trials.columns)
        if session.trials is None or not set(conditions) <= set(known):
            raise ValueError(
                f"psth_rates: conditions must be columns of the trials of {name} ({known}), "
                f"got {list(conditions)}"
            )
        tables.append(session.trials[list(conditions)])
    both = pd.concat(tables, ignore_index=True)
    number = both.groupby(list(conditions), dropna=False).ngroup().to_numpy()
    return number[: train.n_windows], number[train.n_windows :]
