"""What a predictor is, and the two that ignore the visible spikes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_choice
from neurokern.datasets import BinnedSession
from neurokern.evaluation.tasks import TASKS

PSEUDO_WINDOWS = 2.0  # windows of the overall mean mixed into a mean of few effective windows


@runtime_checkable
class Predictor(Protocol):
    """Anything that predicts rates of one session's units from partly hidden counts.

    Attributes
    ----------
    name : str
        Appears in tables and errors.
    leaves_out_by_itself : bool
        True if, in the tasks that hide units, the rate of every asked unit is by construction independent of
        all counts that its query hides. One pass over the full counts then answers all queries of such a
        task.
    """

    name: str
    leaves_out_by_itself: bool

    def predict(self, counts: Tensor, task: str, hidden: Tensor) -> Tensor:
        """Predict rates, ``(B, T, N)`` spikes per bin, of the hidden entries; others are ignored.

        Parameters
        ----------
        counts : tensor of shape (B, T, N), float32
            Hidden entries are 0.
        task : str
            One of ``TASKS``.
        hidden : bool tensor broadcastable to (B, T, N)
        """


class UnitMeanPredictor:
    """Predict each unit's mean training rate, whatever is visible. Made by :meth:`fit`."""

    name = "unit mean"
    leaves_out_by_itself = True

    def __init__(self, rates: Tensor) -> None:
        self._rates = rates  # (units,)

    @classmethod
    def fit(cls, train: BinnedSession, *, half_life: float | None = None) -> UnitMeanPredictor:
        """Average the counts of each unit.

        Parameters
        ----------
        train : BinnedSession
            Windows in order of time.
        half_life : float or None, windows
            None weighs all windows alike. A number weighs them by ``0.5 ** (age / half_life)``, which follows
            drifting rates: test windows usually come after the training windows.
        """
        _check_train("UnitMeanPredictor.fit", train)
        return cls(torch.from_numpy(recent_rates(train.counts, half_life)).float())

    def predict(self, counts: Tensor, task: str, hidden: Tensor) -> Tensor:
        """Return the mean rates, expanded to the shape of ``counts``."""
        check_units(self.name, len(self._rates), counts)
        return self._rates.expand(counts.shape)


class TimeCoursePredictor:
    """Predict each unit's training mean in each bin (its PSTH over all windows). Made by :meth:`fit`."""

    name = "time course"
    leaves_out_by_itself = True

    def __init__(self, rates: Tensor) -> None:
        self._rates = rates  # (bins, units)

    @classmethod
    def fit(cls, train: BinnedSession, *, half_life: float | None = None) -> TimeCoursePredictor:
        """Average the counts of each unit in each bin, with two pseudo-windows at the unit's mean rate.

        Parameters are those of :meth:`UnitMeanPredictor.fit`.
        """
        _check_train("TimeCoursePredictor.fit", train)
        weights = recency_weights(train.n_windows, half_life)
        effective = 1 / np.square(weights).sum()
        by_bin = np.tensordot(weights, train.counts, axes=(0, 0))
        mean = recent_rates(train.counts, half_life)
        rates = (effective * by_bin + PSEUDO_WINDOWS * mean) / (effective + PSEUDO_WINDOWS)
        return cls(torch.from_numpy(rates).float())

    def predict(self, counts: Tensor, task: str, hidden: Tensor) -> Tensor:
        """Return the time courses, expanded to the shape of ``counts``."""
        check_units(self.name, self._rates.shape[1], counts)
        if counts.shape[1] != len(self._rates):
            raise ValueError(
                f"{self.name}: windows must have {len(self._rates)} bins as in training, "
                f"got {counts.shape[1]}"
            )
        return self._rates.expand(counts.shape)


def recency_weights(n_windows: int, half_life: float | None) -> np.ndarray:
    """Return weights of windows in order of time, summing to 1; equal without a half-life (in windows)."""
    if half_life is None:
        return np.full(n_windows, 1 / n_windows)
    if not half_life > 0:
        raise ValueError(f"recency_weights: half_life must be above 0 windows, got {half_life!r}")
    weights = 0.5 ** (np.arange(n_windows - 1, -1, -1) / half_life)
    return weights / weights.sum()


def recent_rates(counts: np.ndarray, half_life: float | None) -> np.ndarray:
    """Return each unit's mean count per bin, ``(units,)`` float64, with later windows weighing more.

    A mean over few effective windows is drawn to the mean over all by two pseudo-windows. No rate is below
    half a spike in all windows: a unit that was silent in training may yet fire.
    """
    n_windows, n_bins, _ = counts.shape
    weights = recency_weights(n_windows, half_life)
    effective = 1 / np.square(weights).sum()
    per_window = counts.sum(axis=1, dtype=np.int64) / n_bins  # (windows, units)
    mixed = (effective * (weights @ per_window) + PSEUDO_WINDOWS * per_window.mean(0)) / (
        effective + PSEUDO_WINDOWS
    )
    return np.maximum(mixed, 0.5 / (n_windows * n_bins))


def check_units(name: str, n_units: int, counts: Tensor) -> None:
    """Raise if ``counts`` are not of the session that a predictor was fitted on."""
    if counts.ndim != 3 or counts.shape[2] != n_units:
        raise ValueError(
            f"{name}: counts must have shape (windows, bins, {n_units}) as in training, "
            f"got {tuple(counts.shape)}"
        )


def _check_train(function: str, train: BinnedSession) -> None:
    if train.counts.size == 0:
        raise ValueError(
            f"{function}: train must have at least one window, bin and unit, got {train.counts.shape}"
        )


def check_sessions(
    function: str, train: BinnedSession, validation: BinnedSession, tasks: Sequence[str]
) -> None:
    """Raise unless a predictor can be fitted on one session and tuned on the other for these tasks."""
    for task in tasks:
        check_choice(function, "tasks", task, TASKS)
    for name, session in (("train", train), ("validation", validation)):
        if session.counts.size == 0:
            raise ValueError(
                f"{function}: {name} must have at least one window, bin and unit, got {session.counts.shape}"
            )
    if train.counts.shape[1:] != validation.counts.shape[1:]:
        raise ValueError(
            f"{function}: train and validation must have the same bins and units, "
            f"got {train.counts.shape[1:]} and {validation.counts.shape[1:]}"
        )
