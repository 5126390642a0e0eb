"""A Poisson generalized linear model as a baseline of every masked-prediction task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_choice, check_positive
from neurokern.datasets import BinnedSession
from neurokern.evaluation._features import PastFeatures, UnitFeatures
from neurokern.evaluation.poisson_glm import PoissonGLM, capped_rates, fit_poisson_glm
from neurokern.evaluation.predictors import check_sessions, check_units, recent_rates
from neurokern.evaluation.tasks import TASKS, n_forward_bins
from neurokern.metrics import bits_per_spike

_OWN = 5.0  # forward prediction: a unit's own past is penalized 1 / own ** 2 times as much as others'
_TOLERANCE = 0.01  # nats of a unit's likelihood: its choice of features is far less certain
_MIN_SPIKES = 10  # units with fewer validation spikes say too little to choose a penalty by


@dataclass(frozen=True, kw_only=True, slots=True)
class GLMSettings:
    """What was chosen on the validation windows for one task; see :meth:`GLMPredictor.fit`."""

    alpha: float
    half_life: float | None
    validation_score: float = -np.inf


class GLMPredictor:
    """Predict hidden counts log-linearly from visible ones, all units in one fit. Made by :meth:`fit`.

    In the three tasks that hide units the log-rate of a unit in a bin is linear in the smoothed square roots
    of the visible units' counts in that bin and in the bin's number. In forward prediction it is linear in
    means of all units over the past, with a short and with an endless memory; the hidden bins share it.

    Attributes
    ----------
    settings : dict of str to GLMSettings
        What was chosen for each task.
    """

    name = "GLM"
    leaves_out_by_itself = True

    def __init__(self, fitted: dict[str, _Fitted], settings: dict[str, GLMSettings]) -> None:
        self.settings, self._fitted = settings, fitted

    @classmethod
    def fit(
        cls,
        train: BinnedSession,
        validation: BinnedSession,
        tasks: Sequence[str] = TASKS,
        *,
        alphas: Sequence[float] = (10000.0, 3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0),
        smoothing: float = 0.05,
        half_lives: Sequence[float | None] = (20.0, None),
        units: np.ndarray | None = None,
        refit: bool = True,
        max_iter: int = 50,
    ) -> GLMPredictor:
        """Fit on training windows, choose the penalty on validation windows.

        Parameters
        ----------
        train, validation : BinnedSession
            The same units and bins; windows in order of time.
        tasks : sequence of str, default all four
        alphas : sequence of float
            Precisions of the weights' prior; the best one for each task is taken for all units. Fitted from
            the strongest to the weakest, each starting from the one before; ends at the first that does
            worse.
        smoothing : float, default 0.05, seconds
            Standard deviation of the Gaussian over bins.
        half_lives : sequence of float or None, windows
            Of the recency weights of the mean rate, as in :class:`UnitMeanPredictor`.
        units : int array, optional
            Units to fit, all by default; the others are predicted by their mean rate. The time grows with
            their number; all units serve as features in any case.
        refit : bool, default True
            Once the penalty is chosen, fit on training and validation windows together.
        max_iter : int, default 50
            For each penalty.

        Raises
        ------
        ValueError
            If a session is empty or the two have different units or bins, or a task is unknown.
        """
        check_sessions("GLMPredictor.fit", train, validation, tasks)
        if not len(alphas):
            raise ValueError("GLMPredictor.fit: alphas must hold at least one penalty, got none")
        check_positive("GLMPredictor.fit", "smoothing", smoothing)
        fitted, settings = {}, {}
        wanted = torch.arange(train.n_units) if units is None else torch.from_numpy(np.asarray(units))
        everything = replace(
            train, counts=np.concatenate([train.counts, validation.counts]), windows=None, trials=None
        )
        for task in tasks:
            model = _model_of(task, train, smoothing, wanted)
            chosen, glm = _choose(task, model, train, validation, alphas, half_lives, max_iter)
            if refit:
                model = _model_of(task, everything, smoothing, wanted)
                glm = model.fit(chosen.alpha, glm, max_iter)
            fitted[task] = _Fitted(model, glm, _Means.of(everything if refit else train, chosen.half_life))
            settings[task] = chosen
        return cls(fitted, settings)

    def predict(self, counts: Tensor, task: str, hidden: Tensor) -> Tensor:
        """Return rates, ``(B, T, N)``; those of hidden entries do not depend on the counts there."""
        check_choice("GLMPredictor.predict", "task", task, tuple(self._fitted))
        fitted = self._fitted[task]
        check_units(self.name, len(fitted.means.rates), counts)
        return fitted.means.around(fitted.model, fitted.glm, counts)


class _BinModel:
    """The three tasks that hide units: targets are the counts of a bin."""

    def __init__(self, task: str, train: BinnedSession, smoothing: float, wanted: Tensor) -> None:
        self.wanted, self._counts = wanted, train.counts
        self._features = UnitFeatures(train.counts, train.bin_size, smoothing)
        regions = torch.from_numpy(train.region_index[0])
        same = (regions[:, None] == regions) & (regions >= 0)
        itself = torch.eye(train.n_units, dtype=torch.bool)
        visible = {"co-smoothing": ~itself, "intra-region": same & ~itself, "inter-region": ~(same | itself)}
        every_bin = torch.ones(train.n_bins, train.n_units, dtype=torch.bool)
        self._allowed = torch.cat([visible[task], every_bin])[:, wanted]

    def fit(self, alpha: float, start: PoissonGLM | None, max_iter: int) -> PoissonGLM:
        y = torch.from_numpy(self._counts[:, :, self.wanted.numpy()].astype(np.float32)).flatten(0, 1)
        features = self._features(torch.from_numpy(self._counts))
        return fit_poisson_glm(
            features, y, alpha, allowed=self._allowed, start=start, max_iter=max_iter, tolerance=_TOLERANCE
        )

    def log_rates(self, counts: Tensor, glm: PoissonGLM) -> Tensor:
        """Return those of the wanted units, ``(windows, bins, wanted)``."""
        return glm.log_rates(self._features(counts)).unflatten(0, counts.shape[:2])


class _ForwardModel:
    """Forward prediction: targets are mean counts over the hidden bins, which share their rate."""

    def __init__(self, train: BinnedSession, wanted: Tensor) -> None:
        self.wanted = wanted
        self._features = PastFeatures(train.counts, train.bin_size)
        own = torch.eye(train.n_units, dtype=torch.bool)[:, wanted].repeat(2, 1)
        self._relative_penalty = torch.where(own, _OWN**-2, 1.0)

    def fit(self, alpha: float, start: PoissonGLM | None, max_iter: int) -> PoissonGLM:
        # A mean over the horizon weighs as much as its bins did: its penalty is divided by their number.
        penalty = self._relative_penalty * (alpha / self._features.horizon)
        after = self._features.after[:, self.wanted]
        return fit_poisson_glm(
            self._features.past, after, penalty, start=start, max_iter=max_iter, tolerance=_TOLERANCE
        )

    def log_rates(self, counts: Tensor, glm: PoissonGLM) -> Tensor:
        """Return those of the wanted units, ``(windows, bins, wanted)``; all bins have the same."""
        log_rates = glm.log_rates(self._features(counts))
        return log_rates[:, None, :].expand(-1, counts.shape[1], -1)


@dataclass(frozen=True, slots=True)
class _Means:
    """What is known of each unit without looking at others."""

    rates: Tensor  # (units,), recent ones
    log_shift: Tensor  # by how much they lie above the mean ones
    largest: Tensor  # largest count of a bin

    @classmethod
    def of(cls, source: BinnedSession, half_life: float | None) -> _Means:
        recent, mean = recent_rates(source.counts, half_life), recent_rates(source.counts, None)
        values = (recent, np.log(recent / mean), source.counts.max(axis=(0, 1)))
        return cls(*(torch.from_numpy(value.astype(np.float32)) for value in values))

    def around(self, model: _BinModel | _ForwardModel, glm: PoissonGLM, counts: Tensor) -> Tensor:
        """Return the rates of all units: of the wanted ones by the model, of the others the recent mean."""
        rates = self.rates.expand(counts.shape).clone()
        log_rates = model.log_rates(counts, glm) + self.log_shift[model.wanted]
        rates[:, :, model.wanted] = capped_rates(log_rates, self.largest[model.wanted])
        return rates


@dataclass(frozen=True, slots=True)
class _Fitted:
    """Features, weights and means of one task."""

    model: _BinModel | _ForwardModel
    glm: PoissonGLM
    means: _Means


def _model_of(
    task: str, source: BinnedSession, smoothing: float, wanted: Tensor
) -> _BinModel | _ForwardModel:
    if task == "forward-prediction":
        return _ForwardModel(source, wanted)
    return _BinModel(task, source, smoothing, wanted)


def _choose(
    task: str,
    model: _BinModel | _ForwardModel,
    train: BinnedSession,
    validation: BinnedSession,
    alphas: Sequence[float],
    half_lives: Sequence[float | None],
    max_iter: int,
) -> tuple[GLMSettings, PoissonGLM]:
    """Return the best settings and the weights for them."""
    seen = torch.from_numpy(validation.counts)
    means = {half_life: _Means.of(train, half_life) for half_life in half_lives}
    best: tuple[GLMSettings, PoissonGLM] | None = None
    glm: PoissonGLM | None = None
    for alpha in sorted(alphas, reverse=True):
        glm = model.fit(alpha, glm, max_iter)
        tried = [
            GLMSettings(
                alpha=alpha,
                half_life=half_life,
                validation_score=_score(task, mean.around(model, glm, seen), validation, model.wanted),
            )
            for half_life, mean in means.items()
        ]
        settings = max(tried, key=lambda one: one.validation_score)
        if best is not None and settings.validation_score <= best[0].validation_score:
            break  # a weaker penalty only overfits more
        best = settings, glm
    assert best is not None  # for the type checker: there is at least one penalty
    return best


def _score(task: str, rates: Tensor, validation: BinnedSession, wanted: Tensor) -> float:
    n_bins = validation.n_bins
    first = n_bins - n_forward_bins(n_bins) if task == "forward-prediction" else 0
    target = torch.from_numpy(validation.counts[:, first:, wanted.numpy()].astype(np.float32))
    scores = bits_per_spike(rates[:, first:, wanted], target)
    enough = target.sum((0, 1)) >= _MIN_SPIKES
    return float(np.nan_to_num(float((scores[enough] if enough.any() else scores).nanmean()), nan=-1e9))
