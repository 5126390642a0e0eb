"""Ridge regression as the baseline of every masked-prediction task."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_choice
from neurokern.datasets import BinnedSession
from neurokern.evaluation._forward_ridge import ForwardRidge
from neurokern.evaluation._unit_ridge import UnitRidge
from neurokern.evaluation.predictors import check_sessions, check_units
from neurokern.evaluation.tasks import TASKS, n_forward_bins
from neurokern.metrics import bits_per_spike

_CUTS = (1, 5)  # forward prediction: samples per window that are tried
_OWN = (5.0, 15.0, 45.0)  # forward prediction: sizes of a unit's own features against others' that are tried
_MIN_SPIKES = 10  # units with fewer validation spikes say too little to choose a penalty by


@dataclass(frozen=True, kw_only=True, slots=True)
class RidgeSettings:
    """What was chosen on the validation windows for one task; see :meth:`RidgePredictor.fit`.

    Attributes
    ----------
    alpha, floor, half_life
        As there.
    smoothing : float or None, seconds
        None in forward prediction, which has means over the past in its place.
    n_cuts : int
        Forward prediction only: training samples taken from each window.
    own : float
        Forward prediction only: a unit's own past is penalized ``1 / (1 + own ** 2)`` times as much as
        others'.
    validation_score : float
        Mean bits per spike over the validation windows' units.
    """

    alpha: float
    half_life: float | None
    smoothing: float | None = None
    n_cuts: int = 1
    own: float = 0.0
    floor: float = 0.0
    validation_score: float = -np.inf


class RidgePredictor:
    """Predict hidden counts linearly from visible ones, with all settings chosen on validation windows.

    Made by :meth:`fit`. In the three tasks that hide units, the rate of unit n in bin t is

    ``m_n + sqrt(m_n) * (z(t) @ w_n + b_n(t))``, at least ``floor * m_n``

    with z the centered and scaled square roots of the visible units' counts, smoothed over time, and ``b_n``
    a penalized time course. In forward prediction, z are means over the past bins with a short and with an
    endless memory, and a unit's own past is penalized less.

    Attributes
    ----------
    settings : dict of str to RidgeSettings
        What was chosen for each task.
    """

    name = "ridge"
    leaves_out_by_itself = True

    def __init__(self, source: BinnedSession, settings: dict[str, RidgeSettings]) -> None:
        self.settings = settings
        self._fitted = _fit_tasks(source, settings)

    @classmethod
    def fit(
        cls,
        train: BinnedSession,
        validation: BinnedSession,
        tasks: Sequence[str] = TASKS,
        *,
        alphas: Sequence[float] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
        smoothing: Sequence[float] = (0.02, 0.05),
        half_lives: Sequence[float | None] = (20.0, None),
        floors: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7),
        refit: bool = True,
    ) -> RidgePredictor:
        """Fit all candidates on the training windows; keep the best of each task on the validation windows.

        Parameters
        ----------
        train, validation : BinnedSession
            Windows of one session in order of time, the validation windows after the training windows.
        tasks : sequence of str, default all four
        alphas : sequence of floats
            Penalties, per training sample.
        smoothing : sequence of floats, seconds
            Standard deviations of the Gaussian that smooths the visible counts.
        half_lives : sequence of floats or None, windows
            Of the weights of the mean rates and mean features, see :meth:`UnitMeanPredictor.fit`.
        floors : sequence of floats
            Least predicted rate, as a fraction of the unit's mean rate.
        refit : bool, default True
            Once the settings are chosen, fit on training and validation windows together, so that only test
            windows stay unused: where rates drift, the last windows before the test matter most. False keeps
            the fit to the training windows, for a comparison with a model that saw no others.

        Returns
        -------
        predictor : RidgePredictor

        Raises
        ------
        ValueError
            If a session is empty or the two have different units or bins, or a task is unknown.

        Notes
        -----
        Leave-one-unit-out regressions of all N units come from one inverse instead of N. With
        :math:`P = (X^T X + \\alpha I)^{-1}` and :math:`u = P X^T y`, the solution without the features r is
        :math:`u_o - P_{or} P_{rr}^{-1} u_r`, by inverting :math:`P` in blocks.
        """
        check_sessions("RidgePredictor.fit", train, validation, tasks)
        search = _Search(validation.counts, tuple(floors))
        unit_tasks = [task for task in tasks if task != "forward-prediction"]
        if unit_tasks:
            for sigma, half_life in itertools.product(smoothing, half_lives):
                model = UnitRidge(train, sigma, half_life)
                features = model.features(validation.counts)
                for alpha in alphas:
                    settings = RidgeSettings(alpha=alpha, half_life=half_life, smoothing=sigma)
                    for task, weights in model.weights(unit_tasks, alpha).items():
                        search.try_rates(task, settings, model.rates(features, weights), model.mean)
        if "forward-prediction" in tasks:
            for half_life, n_cuts in itertools.product(half_lives, _CUTS):
                forward = ForwardRidge(train, half_life, n_cuts)
                for alpha in alphas:
                    for own, solution in zip(_OWN, forward.weights(alpha, _OWN), strict=True):
                        settings = RidgeSettings(alpha=alpha, half_life=half_life, n_cuts=n_cuts, own=own)
                        rates = forward.rates(validation.counts, solution)
                        search.try_rates("forward-prediction", settings, rates, forward.mean)
        return cls(_joined(train, validation) if refit else train, search.best)

    def predict(self, counts: Tensor, task: str, hidden: Tensor) -> Tensor:
        """Return rates, ``(B, T, N)``; those of hidden entries do not depend on the counts there."""
        check_choice("RidgePredictor.predict", "task", task, tuple(self._fitted))
        fitted = self._fitted[task]
        check_units(self.name, len(fitted.mean), counts)
        return torch.maximum(fitted.rates(counts.cpu().numpy()), self.settings[task].floor * fitted.mean)


class _Search:
    """The best settings so far of each task, by mean bits per spike of the validation windows."""

    def __init__(self, counts: np.ndarray, floors: tuple[float, ...]) -> None:
        self.best: dict[str, RidgeSettings] = {}
        self._target = torch.from_numpy(counts.astype(np.float32))
        self._floors = floors

    def try_rates(self, task: str, settings: RidgeSettings, rates: Tensor, mean: Tensor) -> None:
        """Keep the settings, with the best floor, if nothing tried before for the task was better."""
        n_bins = self._target.shape[1]
        first = n_bins - n_forward_bins(n_bins) if task == "forward-prediction" else 0
        target = self._target[:, first:]
        enough = target.sum((0, 1)) >= _MIN_SPIKES
        for floor in self._floors:
            scores = bits_per_spike(torch.maximum(rates[:, first:], floor * mean), target)
            score = float((scores[enough] if enough.any() else scores).nanmean())
            if task not in self.best or score > self.best[task].validation_score:
                self.best[task] = replace(settings, floor=floor, validation_score=score)


@dataclass(frozen=True, slots=True)
class _Fitted:
    """Features and weights of one task."""

    mean: Tensor  # (units,)
    rates: Callable[[np.ndarray], Tensor]  # of counts (windows, bins, units), not floored


def _fit_tasks(source: BinnedSession, settings: dict[str, RidgeSettings]) -> dict[str, _Fitted]:
    models: dict[tuple[float, float | None], UnitRidge] = {}
    fitted = {}
    for task, chosen in settings.items():
        if chosen.smoothing is None:
            fitted[task] = _fit_forward(ForwardRidge(source, chosen.half_life, chosen.n_cuts), chosen)
            continue
        key = (chosen.smoothing, chosen.half_life)
        if key not in models:
            models[key] = UnitRidge(source, *key)
        fitted[task] = _fit_units(models[key], task, chosen)
    return fitted


def _fit_forward(model: ForwardRidge, chosen: RidgeSettings) -> _Fitted:
    weights = model.weights(chosen.alpha, [chosen.own])[0]
    return _Fitted(model.mean, lambda counts: model.rates(counts, weights))


def _fit_units(model: UnitRidge, task: str, chosen: RidgeSettings) -> _Fitted:
    weights = model.weights([task], chosen.alpha)[task]
    return _Fitted(model.mean, lambda counts: model.rates(model.features(counts), weights))


def _joined(train: BinnedSession, validation: BinnedSession) -> BinnedSession:
    """Both sessions' counts as one; windows and trials, which the fit does not look at, are left out."""
    counts = np.concatenate([train.counts, validation.counts])
    return replace(train, counts=counts, windows=None, trials=None)
