"""Read-outs that are solved, not trained: ridge and linear discriminant analysis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_fraction, check_positive
from neurokern.adapters._labels import (
    ClassReadout,
    Features,
    Labels,
    Scaler,
    check_features,
    check_support,
)
from neurokern.encoding import fit_ridge

RELATIVE_ALPHAS = tuple(10.0**exponent for exponent in range(-3, 4))


class RidgeProbe(ClassReadout):
    """Ridge regression on one-hot classes, the penalty chosen by leave-one-out on the support set.

    Parameters
    ----------
    alphas : float or sequence of floats, default seven decades around 1
        Candidate penalties, relative to the mean squared norm of the centered support samples, so that they
        mean the same for ten features and for ten thousand.
    standardize : bool, default False
        Divide features by their spread over the support set. Counts, rates and factors come in units
        of their own; spreads over a few samples would blow up the rarest of them.

    Notes
    -----
    The targets are 1 for the class of a sample and 0 for the others, and the intercept is not penalized. With
    only one sample of a class, leaving it out leaves nothing to learn the class from; the middle candidate is
    then taken. ``predict_proba`` is a softmax of regression scores and not calibrated.
    """

    def __init__(
        self, alphas: float | Sequence[float] = RELATIVE_ALPHAS, *, standardize: bool = False
    ) -> None:
        self._alphas = _checked_alphas("RidgeProbe", alphas)
        self._standardize = standardize
        self.alpha_: float = float("nan")  # the relative penalty that was chosen

    def fit(self, features: Features, labels: Labels) -> RidgeProbe:
        """Fit on a support set: ``(samples, features)`` and one label per sample."""
        values, self.classes_, number = check_support("RidgeProbe.fit", features, labels)
        self._scaler = Scaler.fit(values, self._standardize)
        scaled = self._scaler(values)
        targets = torch.nn.functional.one_hot(number, len(self.classes_)).to(scaled.dtype)
        alphas = self._alphas
        if torch.bincount(number).min() < 2:
            alphas = alphas[len(alphas) // 2 :][:1]
        unit = _mean_squared_norm(scaled)
        fit = fit_ridge(scaled, targets, [alpha * unit for alpha in alphas], shared_alpha=True)
        self.alpha_ = float(fit.alphas[0]) / unit
        self.weights_, self.bias_ = fit.weights, fit.intercept
        return self


class RidgeReadout:
    """Ridge regression of continuous targets (behavior), the penalty of each chosen by leave-one-out.

    Parameters
    ----------
    alphas : float or sequence of floats
        As in :class:`RidgeProbe`.
    standardize : bool, default True
    """

    def __init__(
        self, alphas: float | Sequence[float] = RELATIVE_ALPHAS, *, standardize: bool = True
    ) -> None:
        self._alphas = _checked_alphas("RidgeReadout", alphas)
        self._standardize = standardize

    def fit(self, features: Features, targets: Features) -> RidgeReadout:
        """Fit on ``(samples, features)`` and ``(samples,)`` or ``(samples, targets)``."""
        values = check_features("RidgeReadout.fit", features)
        self._scaler = Scaler.fit(values, self._standardize)
        scaled = self._scaler(values)
        unit = _mean_squared_norm(scaled)
        self._fit = fit_ridge(scaled, targets, [alpha * unit for alpha in self._alphas])
        return self

    def predict(self, features: Features) -> Tensor:
        """Predicted targets, ``(samples,)`` or ``(samples, targets)``."""
        if not hasattr(self, "_fit"):
            raise RuntimeError("RidgeReadout: call fit before predicting")
        values = check_features("RidgeReadout.predict", features, len(self._fit.weights))
        return self._fit.predict(self._scaler(values.to(self._fit.weights.dtype)))


class LDAProbe(ClassReadout):
    r"""Linear discriminant analysis with a shrunk covariance.

    The covariance within classes :math:`S` (over all n samples, divided by n) is replaced by
    :math:`(1 - \gamma) S + \gamma \, \mathrm{tr}(S) / p \, I`; weights are :math:`S^{-1} \mu_c` and biases
    :math:`-\mu_c^T S^{-1} \mu_c / 2 + \ln \pi_c` [1]_.

    Parameters
    ----------
    shrinkage : "ledoit-wolf" or float in [0, 1], default "ledoit-wolf"
        :math:`\gamma`, or the estimate of [2]_ from the samples about their class means.
    standardize : bool, default False
        Divide features by their spread over the support set. Counts, rates and factors come in units
        of their own; spreads over a few samples would blow up the rarest of them.
    uniform_prior : bool, default False
        Take all classes as equally likely instead of in their share of the support set.

    Notes
    -----
    With more features than samples the inverse is applied through the samples' Gram matrix, so that no matrix
    of size features x features is formed. With one sample per class there is no covariance within classes,
    and the nearest class mean wins.

    References
    ----------
    .. [1] Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning", 2nd ed., section 4.3.
    .. [2] Ledoit & Wolf, "A well-conditioned estimator for large-dimensional covariance matrices",
       J. Multivariate Anal. 88 (2004), 365-411.
    """

    def __init__(
        self,
        shrinkage: float | str = "ledoit-wolf",
        *,
        standardize: bool = False,
        uniform_prior: bool = False,
    ) -> None:
        if shrinkage != "ledoit-wolf":
            if isinstance(shrinkage, str):
                raise ValueError(f'LDAProbe: shrinkage must be "ledoit-wolf" or a number, got {shrinkage!r}')
            shrinkage = check_fraction("LDAProbe", "shrinkage", shrinkage)
        self._shrinkage = shrinkage
        self._standardize = standardize
        self._uniform_prior = uniform_prior
        self.shrinkage_: float = float("nan")  # the gamma that was used

    def fit(self, features: Features, labels: Labels) -> LDAProbe:
        """Fit on a support set: ``(samples, features)`` and one label per sample.

        Raises
        ------
        ValueError
            If the inputs are bad, or ``shrinkage`` is 0 and the covariance cannot be inverted.
        """
        values, self.classes_, number = check_support("LDAProbe.fit", features, labels)
        self._scaler = Scaler.fit(values, self._standardize)
        scaled = self._scaler(values).double()
        n_per_class = torch.bincount(number).double()
        one_hot = torch.nn.functional.one_hot(number, len(self.classes_)).double()
        means = (one_hot.T @ scaled) / n_per_class[:, None]  # (classes, features)
        within = scaled - means[number]
        weights = self._apply_inverse(within, means.T)
        prior = torch.ones_like(n_per_class) if self._uniform_prior else n_per_class
        bias = (prior / prior.sum()).log() - 0.5 * (means.T * weights).sum(0)
        self.weights_, self.bias_ = weights.to(values.dtype), bias.to(values.dtype)
        return self

    def _apply_inverse(self, within: Tensor, right: Tensor) -> Tensor:
        """Solve with the shrunk covariance of ``within`` (samples, features) for ``right`` (features, k)."""
        n_samples, n_features = within.shape
        variance = float(within.square().sum()) / (n_samples * n_features)
        if variance == 0:
            self.shrinkage_ = 1.0
            return right.clone()
        dual = n_features > n_samples
        gram = (within @ within.T if dual else within.T @ within) / n_samples
        gamma = self._gamma(within, gram, variance)
        ridge = gamma * variance
        if gamma == 1:
            return right / ridge
        system = (1 - gamma) * gram
        if dual:
            # (a X'X + b I)^-1 = (I - a X' (a X X' + b I)^-1 X) / b
            if ridge == 0:
                raise ValueError(_singular(n_features, n_samples))
            system.diagonal().add_(ridge)
            projected = within @ right * (1 - gamma) / n_samples
            return (right - within.T @ torch.linalg.solve(system, projected)) / ridge
        system.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(system)
        if failed:
            raise ValueError(_singular(n_features, n_samples))
        return torch.cholesky_solve(right, factor)

    def _gamma(self, within: Tensor, gram: Tensor, variance: float) -> float:
        if isinstance(self._shrinkage, float):
            self.shrinkage_ = self._shrinkage
            return self._shrinkage
        n_samples, n_features = within.shape
        size = float(gram.square().sum())  # |S|^2, the same for either Gram matrix
        distance = size - n_features * variance**2  # |S - variance I|^2
        fourth = float(within.square().sum(1).square().sum())
        noise = (fourth / n_samples - size) / n_samples
        self.shrinkage_ = min(max(noise / distance, 0.0), 1.0) if distance > 1e-12 * size else 1.0
        return self.shrinkage_


def _singular(n_features: int, n_samples: int) -> str:
    return (
        f"LDAProbe.fit: the covariance of {n_features} features over {n_samples} samples cannot be inverted; "
        "use a shrinkage above 0"
    )


def _mean_squared_norm(features: Tensor) -> float:
    return float((features - features.mean(0)).square().sum(1).mean()) or 1.0


def _checked_alphas(function: str, alphas: float | Sequence[float]) -> list[float]:
    values = np.atleast_1d(np.asarray(alphas, dtype=np.float64)).tolist()
    if not values:
        raise ValueError(f"{function}: alphas must hold at least one penalty, got none")
    return sorted(check_positive(function, "alphas", value) for value in values)
