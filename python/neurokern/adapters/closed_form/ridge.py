"""Ridge read-outs: of classes and of continuous targets, about zero or about weights learned before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_choice, check_positive
from neurokern.adapters._labels import Features, Scaler, check_features, class_counts
from neurokern.adapters._readout import ClassReadout, Readout
from neurokern.adapters.closed_form._calibration import calibrate
from neurokern.adapters.closed_form._episodes import fit_episodes, in_units, starting_weights
from neurokern.adapters.closed_form._probe import ClosedFormProbe, Solution

RELATIVE_ALPHAS = tuple(10.0**exponent for exponent in range(-3, 4))


class RidgeProbe(ClosedFormProbe):
    r"""Ridge regression on classes as numbers, the penalty chosen by leave-one-out on the support set.

    Parameters
    ----------
    alphas : float or sequence of floats, default seven decades around 1
        Candidate penalties, relative to the mean squared norm of the centered support samples, so that they
        mean the same for ten features and for ten thousand. One is chosen for all classes, by the squared
        error summed over them.
    standardize : bool, default False
        Divide features by their spread over the support set. Counts, rates and factors come in units
        of their own; spreads over a few samples would blow up the rarest of them.
    targets : {"one-hot", "signed"}, default "one-hot"
        Regress on 1 for the class of a sample and 0 for the others, or on 1 and -1. Predictions are the same;
        decision scores are those of scikit-learn's RidgeClassifier with "signed".
    priors : fitted RidgeProbe of the same classes, or sequence of them, optional
        Penalize the distance to their weights instead of to 0:
        :math:`W = W_0 + \mathrm{ridge}(X, Y - X W_0)`, so that a strong penalty keeps them. Of several, the
        one is taken that leaves the smallest leave-one-out error. The intercept is fitted anew.
    calibrate : bool, default False
        Turn decision scores into logits by a scale and a bias for each class, fitted to the scores of support
        samples that were left out: ``predict_proba`` then gives probabilities. Without it they are a softmax
        of regression scores.

    Attributes
    ----------
    alpha_ : float
        The relative penalty that was chosen; of a stack (episodes,), as all that follow.
    prior_ : int
        Which of the priors was chosen; -1 without.
    scale_ : float
        Of the calibrated logits; 1 without.

    Notes
    -----
    The intercept is not penalized. With only one sample of a class, leaving it out leaves nothing to learn
    the class from but a prior; without one the middle candidate is taken then, and nothing is calibrated.

    References
    ----------
    .. [1] Bertinetto et al., "Meta-learning with differentiable closed-form solvers", ICLR 2019: scale and
       bias of ridge logits.

    Examples
    --------
    >>> features = np.array([[0.0, 1.0], [0.2, 1.1], [3.0, 1.0], [2.9, 0.8]])
    >>> probe = RidgeProbe().fit(features, ["left", "left", "right", "right"])
    >>> probe.predict(np.array([[0.1, 1.0], [2.0, 1.0]])).tolist()
    ['left', 'right']
    """

    def __init__(
        self,
        alphas: float | Sequence[float] = RELATIVE_ALPHAS,
        *,
        standardize: bool = False,
        targets: str = "one-hot",
        priors: ClassReadout | Sequence[ClassReadout] = (),
        calibrate: bool = False,
    ) -> None:
        super().__init__(standardize=standardize)
        check_choice("RidgeProbe", "targets", targets, ("one-hot", "signed"))
        self._alphas = checked_alphas("RidgeProbe", alphas)
        self._priors = _as_priors("RidgeProbe", priors)
        self._signed, self._calibrate = targets == "signed", calibrate
        self.alpha_: float | Tensor = float("nan")
        self.prior_: int | Tensor = -1
        self.scale_: float | Tensor = 1.0

    def _solve(self, features: Tensor, number: Tensor, scaler: Scaler) -> Solution:
        counts = class_counts(number, len(self.classes_))
        Y = torch.nn.functional.one_hot(number, len(self.classes_)).to(features.dtype)
        Y = 2 * Y - 1 if self._signed else Y
        X, unit = in_units(features)
        starts = starting_weights("RidgeProbe", self._priors, X.shape[2], self.classes_)
        factors = [self._of_its_targets(prior) for prior in self._priors]
        starts = [factor * start for factor, start in zip(factors, starts, strict=True)]
        starts = [start.to(X) * (scaler.scale * unit[:, None])[:, :, None] for start in starts]
        several = (counts.amin(1) >= 2) | bool(starts)
        fit = fit_episodes(X, Y, self._alphas, starts, several, shared=True)
        weights, bias, scale = fit.weights, fit.intercept, torch.ones_like(fit.alphas[:, 0])
        some = counts.amin(1) >= 2
        if self._calibrate and bool(some.any()):
            left_out = (Y.double() - fit.residuals(X))[some]
            scale[some], shift = calibrate(left_out, number[some], counts[some])
            bias = bias.double() * scale[:, None]
            bias[some] += shift
            weights = weights * scale[:, None, None].to(weights.dtype)
        weights = weights / unit[:, None, None]
        return Solution(
            weights, bias, {"alpha_": fit.alphas[:, 0], "prior_": fit.prior[:, 0], "scale_": scale}
        )

    def _of_its_targets(self, prior: Readout) -> float:
        """What turns the decision scores of a prior into the targets of this probe, but for a constant."""
        if not isinstance(prior, RidgeProbe):
            return 1.0
        return (1 + self._signed) / (1 + prior._signed) / float(prior.scale_)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that predicting needs, as tensors that a safetensors file can hold.

        Labels are kept as JSON text.
        """
        return super().state_dict() | {
            "signed": torch.tensor(self._signed),
            "logit_scale": torch.tensor(float(self.scale_), dtype=torch.float64),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> RidgeProbe:
        """Return a fitted read-out from what ``state_dict`` returned.

        Raises
        ------
        ValueError
            If tensors are missing or do not fit together.
        """
        probe = super().from_state(state)
        probe._signed = bool(state.get("signed", False))
        probe.scale_ = float(state.get("logit_scale", 1.0))
        return probe


class RidgeReadout(Readout):
    """Ridge regression of continuous targets (behavior), the penalty of each chosen by leave-one-out.

    Parameters
    ----------
    alphas : float or sequence of floats
        As in :class:`RidgeProbe`. With fewer than 3 samples nothing is learned by leaving one out; the middle
        candidate is taken then.
    standardize : bool, default True
    priors : fitted RidgeReadout of the same targets, or sequence of them, optional
        As in :class:`RidgeProbe`; chosen for each target.

    Attributes
    ----------
    alphas_ : tensor of shape (targets,), float64
        Relative penalties that were chosen; of a stack (episodes, targets), as ``priors_``.
    priors_ : int64 tensor of shape (targets,)
        Which of the priors was chosen; -1 without.
    """

    _of_episodes: ClassVar[tuple[str, ...]] = ("weights_", "bias_", "alphas_", "priors_")

    def __init__(
        self,
        alphas: float | Sequence[float] = RELATIVE_ALPHAS,
        *,
        standardize: bool = True,
        priors: Readout | Sequence[Readout] = (),
    ) -> None:
        self._alphas = checked_alphas("RidgeReadout", alphas)
        self._priors = _as_priors("RidgeReadout", priors)
        self._standardize = standardize
        self._one_target = False

    def fit(self, features: Features, targets: Features) -> RidgeReadout:
        """Fit on ``(samples, features)`` and ``(samples,)`` or ``(samples, targets)``."""
        name = f"{type(self).__name__}.fit"
        values = check_features(name, features)
        Y = _check_targets(name, targets, values, ("samples", "targets"))
        self._one_target = np.ndim(targets) == 1
        self._fit_stack(values[None], Y[None])
        for name in self._of_episodes:
            setattr(self, name, getattr(self, name)[0])
        self._scaler = Scaler(self._scaler.mean[0], self._scaler.scale[0])
        return self

    def fit_batched(self, features: Features, targets: Features) -> RidgeReadout:
        """Fit a stack of episodes at once: the same as a loop over :meth:`fit`.

        Parameters
        ----------
        features : array or tensor of shape (episodes, samples, features)
        targets : array or tensor of shape (episodes, samples, targets) or (episodes, samples)
        """
        axes = ("episodes", "samples", "features")
        name = f"{type(self).__name__}.fit_batched"
        values = check_features(name, features, axes=axes)
        Y = _check_targets(name, targets, values, (*axes[:2], "targets"))
        self._one_target = np.ndim(targets) == 2
        self._fit_stack(values, Y)
        return self

    def predict(self, features: Features) -> Tensor:
        """Predicted targets, ``(samples,)`` or ``(samples, targets)``."""
        outputs = self._outputs(features)
        return outputs[..., 0] if self._one_target else outputs

    def predict_batched(self, features: Features) -> Tensor:
        """Predicted targets, ``(episodes, samples)`` or ``(episodes, samples, targets)``.

        Parameters
        ----------
        features : array or tensor of shape (episodes, samples, features) or (samples, features)
            Of each episode, or the same ones for all.
        """
        outputs = self._outputs_of_stack(features)
        return outputs[..., 0] if self._one_target else outputs

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that predicting needs, as tensors that a safetensors file can hold."""
        return super().state_dict() | {"one_target": torch.tensor(self._one_target)}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> RidgeReadout:
        """Return a fitted read-out from what ``state_dict`` returned.

        Raises
        ------
        ValueError
            If tensors are missing or do not fit together.
        """
        readout = super().from_state(state)
        readout._one_target = bool(state.get("one_target", False))
        return readout

    def _fit_stack(self, values: Tensor, Y: Tensor) -> None:
        self._scaler = Scaler.fit(values, self._standardize)
        X, unit = in_units(self._scaler(values))
        starts = starting_weights("RidgeReadout", self._priors, X.shape[2], Y.shape[2])
        starts = [start.to(X) * (self._scaler.scale * unit[:, None])[:, :, None] for start in starts]
        n_least = 2 if starts else 3
        several = torch.full((len(X),), X.shape[1] >= n_least, device=X.device)
        fit = fit_episodes(X, Y.to(X), self._alphas, starts, several, shared=False)
        self.weights_, self.bias_ = fit.weights / unit[:, None, None], fit.intercept
        self.alphas_, self.priors_ = fit.alphas, fit.prior


def checked_alphas(function: str, alphas: float | Sequence[float]) -> list[float]:
    """Return candidate penalties in ascending order, without duplicates."""
    on_host = alphas.detach().cpu() if isinstance(alphas, Tensor) else alphas
    try:
        values = np.asarray(on_host, dtype=np.float64).ravel().tolist()
    except (TypeError, ValueError):
        raise TypeError(f"{function}: alphas must be a number or numbers, got {alphas!r}") from None
    if not values:
        raise ValueError(f"{function}: alphas must hold at least one penalty, got none")
    return sorted({check_positive(function, "alphas", value) for value in values})


def _as_priors(function: str, priors: object) -> list[Readout]:
    some = [priors] if isinstance(priors, Readout) else list(priors)  # type: ignore[call-overload]
    wrong = [type(prior).__name__ for prior in some if not isinstance(prior, Readout)]
    if wrong:
        raise TypeError(f"{function}: priors must be fitted read-outs, got {', '.join(wrong)}")
    return some


def _check_targets(function: str, targets: Features, values: Tensor, axes: tuple[str, ...]) -> Tensor:
    targets = targets if isinstance(targets, Tensor) else np.asarray(targets)
    if targets.ndim == len(axes) - 1:
        targets = targets[..., None]
    try:
        Y = check_features(function, targets, axes=axes)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("features", "targets")) from None
    if Y.shape[:-1] != values.shape[:-1]:
        raise ValueError(
            f"{function}: targets must have one row per sample {tuple(values.shape[:-1])}, got "
            f"{tuple(Y.shape)}"
        )
    return Y.to(values.device)
