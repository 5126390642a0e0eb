"""Linear probe: multinomial logistic regression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_positive
from neurokern.adapters._labels import Features, Labels, Scaler, check_support
from neurokern.adapters._readout import ClassReadout


class LinearProbe(ClassReadout):
    r"""Logistic regression with an L2 penalty, by L-BFGS.

    Minimizes :math:`\|W\|^2 / 2 + C \sum_i -\ln p(y_i | x_i)`; the intercept is not penalized. Two classes
    have one weight vector, more classes one each.

    Parameters
    ----------
    C : float or sequence of floats, default 1.0
        Inverse strength of the penalty. Of several, the one with the best cross-validated log-likelihood on
        the support set is taken (stratified folds; needs at least 2 samples of each class, else the middle
        one).
    standardize : bool, default False
        Divide features by their spread over the support set and by the square root of their number. A
        sample then has about unit length, and C means the same for ten features and for ten thousand.
    folds : int, default 4
        Most folds in choosing C.
    max_iter : int, default 200

    Notes
    -----
    The best weights lie in the span of the support samples. With fewer samples than features the problem is
    therefore rotated to at most as many dimensions as samples, which changes neither the loss nor the
    penalty.

    References
    ----------
    .. [1] Hastie, Tibshirani, Friedman, "The Elements of Statistical Learning", 2nd ed., sections 4.4 and
       18.3.5.
    """

    def __init__(
        self,
        C: float | Sequence[float] = 1.0,
        *,
        standardize: bool = False,
        folds: int = 4,
        max_iter: int = 200,
    ) -> None:
        values = np.atleast_1d(np.asarray(C, dtype=np.float64)).tolist()
        if not values:
            raise ValueError("LinearProbe: C must hold at least one value, got none")
        self._candidates = sorted(check_positive("LinearProbe", "C", value) for value in values)
        if folds < 2:
            raise ValueError(f"LinearProbe: folds must be at least 2, got {folds}")
        self._standardize, self._folds, self._max_iter = standardize, folds, max_iter
        self.C_: float = float("nan")  # the value that was used

    def fit(self, features: Features, labels: Labels) -> LinearProbe:
        """Fit on a support set: ``(samples, features)`` and one label per sample."""
        values, self.classes_, number = check_support("LinearProbe.fit", features, labels)
        scaler = Scaler.fit(values, self._standardize)
        if self._standardize:
            scaler = Scaler(scaler.mean, scaler.scale * values.shape[1] ** 0.5)
        self._scaler = scaler
        axes, scores = _rotated(scaler(values).double())
        n_classes = len(self.classes_)
        self.C_ = self._chosen(scores, number, n_classes)
        weights, bias = _minimize(scores, number, n_classes, self.C_, self._max_iter)
        weights = weights if axes is None else axes @ weights
        if n_classes == 2:  # one logit: half of it to each class gives the same differences
            weights, bias = torch.cat([-weights, weights], 1) / 2, torch.cat([-bias, bias]) / 2
        self.weights_, self.bias_ = weights.to(values.dtype), bias.to(values.dtype)
        return self

    def _chosen(self, scores: Tensor, number: Tensor, n_classes: int) -> float:
        """The C with the best held-out log-likelihood over stratified folds; the smallest of equals."""
        candidates = self._candidates
        smallest_class = int(torch.bincount(number).min())
        if len(candidates) == 1 or smallest_class < 2:
            return candidates[len(candidates) // 2]
        n_folds = min(self._folds, smallest_class)
        fold = _stratified_folds(number, n_folds)
        losses = torch.zeros(len(candidates), dtype=torch.float64)
        for held_out in range(n_folds):
            kept, left = fold != held_out, fold == held_out
            for at, C in enumerate(candidates):
                weights, bias = _minimize(scores[kept], number[kept], n_classes, C, self._max_iter)
                losses[at] += _loss(scores[left] @ weights + bias, number[left]).cpu()
        return candidates[int(losses.argmin())]


def _rotated(features: Tensor) -> tuple[Tensor | None, Tensor]:
    """Axes ``(features, rank)`` and coordinates of wide data on them; tall data stays as it is."""
    n_samples, n_features = features.shape
    if n_features <= n_samples:
        return None, features
    values, vectors = torch.linalg.eigh(features @ features.T)
    kept = values > values[-1].clamp_min(1e-300) * 1e-12
    roots = values[kept].sqrt()
    return features.T @ (vectors[:, kept] / roots), vectors[:, kept] * roots


def _minimize(
    features: Tensor, number: Tensor, n_classes: int, C: float, max_iter: int
) -> tuple[Tensor, Tensor]:
    """Weights ``(features, outputs)`` and bias ``(outputs,)``; one output for two classes."""
    n_outputs = 1 if n_classes == 2 else n_classes
    parameters = torch.zeros(
        features.shape[1] + 1, n_outputs, dtype=features.dtype, device=features.device, requires_grad=True
    )
    optimizer = torch.optim.LBFGS(
        [parameters],
        max_iter=max_iter,
        tolerance_grad=1e-7 * max(1.0, C),
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        weights, bias = parameters[:-1], parameters[-1]
        loss = 0.5 * weights.square().sum() + C * _loss(features @ weights + bias, number)
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    solution = parameters.detach()
    return solution[:-1], solution[-1]


def _loss(logits: Tensor, number: Tensor) -> Tensor:
    """Negative log-likelihood, summed over samples."""
    if logits.shape[1] == 1:
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits[:, 0], number.to(logits.dtype), reduction="sum"
        )
    return torch.nn.functional.cross_entropy(logits, number, reduction="sum")


def _stratified_folds(number: Tensor, n_folds: int) -> Tensor:
    """Fold of each sample: the samples of each class are dealt out in order."""
    fold = torch.empty_like(number)
    for label in number.unique():
        of_class = (number == label).nonzero()[:, 0]
        fold[of_class] = torch.arange(len(of_class), device=number.device) % n_folds
    return fold
