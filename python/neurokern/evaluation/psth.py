"""The trial-averaged time course of each condition, as a prediction: what a label alone tells of the
spikes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from neurokern.datasets import BinnedSession
from neurokern.evaluation.predictors import PSEUDO_WINDOWS, recency_weights, recent_rates

__all__ = ["psth_rates"]


def psth_rates(
    train: BinnedSession,
    test: BinnedSession,
    conditions: Sequence[str] = (),
    *,
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
    half_life : float or None, windows
        As in :class:`neurokern.evaluation.UnitMeanPredictor`.

    Returns
    -------
    rates : float32 array of shape (n_windows, n_bins, n_units) of ``test``, spikes per bin
        For :func:`neurokern.evaluation.score_rates`. The mean of a condition is drawn to the time course over
        all windows, and that to the unit's mean rate, by two pseudo-windows each; a condition that training
        does not have gets the time course over all windows.

    Raises
    ------
    ValueError
        If ``train`` is empty, bins or units differ, or a column is missing in either table.
    """
    if train.counts.size == 0 or train.counts.shape[1:] != test.counts.shape[1:]:
        raise ValueError(
            "psth_rates: train must hold something and have the bins and units of test, "
            f"got {train.counts.shape} and {test.counts.shape}"
        )
    weights = recency_weights(train.n_windows, half_life)
    mean = recent_rates(train.counts, half_life)
    overall = _drawn_to(np.broadcast_to(mean, train.counts.shape[1:]), train.counts, weights)
    if not conditions:
        return np.broadcast_to(overall, test.counts.shape).astype(np.float32)
    of_train, of_test = _numbers(train, test, conditions)
    rates = np.broadcast_to(overall, test.counts.shape).astype(np.float32)
    for condition in np.intersect1d(of_train, of_test):
        rows = of_train == condition
        rates[of_test == condition] = _drawn_to(overall, train.counts[rows], weights[rows])
    return rates


def _drawn_to(prior: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean window, mixed with a prior that counts as two windows."""
    share = weights / weights.sum()
    effective = 1 / np.square(share).sum()
    mean = np.tensordot(share, counts, axes=(0, 0))
    return (effective * mean + PSEUDO_WINDOWS * prior) / (effective + PSEUDO_WINDOWS)


def _numbers(
    train: BinnedSession, test: BinnedSession, conditions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Number of each window's condition, the same numbers in both sessions."""
    tables = []
    for name, session in (("train", train), ("test", test)):
        known = [] if session.trials is None else list(session.trials.columns)
        if session.trials is None or not set(conditions) <= set(known):
            raise ValueError(
                f"psth_rates: conditions must be columns of the trials of {name} ({known}), got "
                f"{list(conditions)}"
            )
        tables.append(session.trials[list(conditions)])
    both = pd.concat(tables, ignore_index=True)
    number = both.groupby(list(conditions), dropna=False).ngroup().to_numpy()
    return number[: train.n_windows], number[train.n_windows :]
