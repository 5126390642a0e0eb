"""What all read-outs share: checked inputs, classes, and scaling learned on the support set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Features = Tensor | np.ndarray
Labels = Tensor | np.ndarray | Sequence[object]


@dataclass(frozen=True, slots=True)
class Scaler:
    """Centers features and divides them by their spread over the support set."""

    mean: Tensor  # (features,)
    scale: Tensor  # (features,)

    @classmethod
    def fit(cls, features: Tensor, standardize: bool) -> Scaler:
        """Learn from support features. A feature that never varies there is only centered."""
        if not standardize:
            return cls(torch.zeros_like(features[0]), torch.ones_like(features[0]))
        mean = features.mean(0)
        spread = (features - mean).square().mean(0).sqrt()
        varies = spread > 1e-6 * mean.abs()
        return cls(mean, torch.where(varies, spread, torch.ones_like(spread)))

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.scale


def check_support(function: str, features: Features, labels: Labels) -> tuple[Tensor, np.ndarray, Tensor]:
    """Return features as float, the sorted classes, and the class number of each sample.

    Raises
    ------
    ValueError
        If shapes do not match, a feature is not finite, or there are fewer than two classes.
    """
    values = check_features(function, features)
    names = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if names.shape != (len(values),):
        raise ValueError(
            f"{function}: labels must have one entry per sample ({len(values)}), got {names.shape}"
        )
    if names.dtype.kind == "f" and np.isnan(names).any():
        raise ValueError(f"{function}: labels must not be NaN; leave out samples without a label")
    classes, number = np.unique(names, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"{function}: labels must hold at least 2 classes, got {classes.tolist()}")
    return values, classes, torch.from_numpy(number.astype(np.int64)).to(values.device)


def check_features(function: str, features: Features, n_features: int | None = None) -> Tensor:
    """Return features as a floating tensor of shape (samples, features), or raise a ValueError."""
    if not isinstance(features, Tensor):
        features = np.asarray(features)
        if features.dtype.kind not in "biuf":
            raise TypeError(f"{function}: features must be numbers, got {features.dtype}")
        features = features.astype(features.dtype.newbyteorder("="), copy=False)
    values = torch.as_tensor(features)
    values = values if values.dtype.is_floating_point else values.float()
    if values.ndim != 2 or 0 in values.shape or n_features not in (None, values.shape[1]):
        wanted = "features" if n_features is None else str(n_features)
        raise ValueError(
            f"{function}: features must have shape (samples, {wanted}) and hold something, "
            f"got {tuple(values.shape)}"
        )
    low, high = values.aminmax()
    if not (low > -torch.inf and high < torch.inf):  # NaN fails both
        raise ValueError(f"{function}: features must be finite, got NaN or infinity")
    return values.detach()


class ClassReadout:
    """A linear read-out of classes, ``scaled features @ weights + bias``; subclasses fit it."""

    classes_: np.ndarray  # (classes,), sorted labels
    weights_: Tensor  # (features, classes)
    bias_: Tensor  # (classes,)
    _scaler: Scaler

    def decision(self, features: Features) -> Tensor:
        """Scores of the classes, ``(samples, classes)``; the largest one is predicted.

        Raises
        ------
        RuntimeError
            Before ``fit``.
        ValueError
            If ``features`` do not have the fitted number of columns, or are not finite.
        """
        name = type(self).__name__
        if not hasattr(self, "weights_"):
            raise RuntimeError(f"{name}: call fit before predicting")
        values = check_features(name, features, len(self.weights_)).to(self.weights_.dtype)
        return self._scaler(values) @ self.weights_ + self.bias_

    def predict(self, features: Features) -> np.ndarray:
        """Labels of shape (samples,), of the kind given to ``fit``, as a numpy array."""
        number = self.decision(features).argmax(1).cpu().numpy()
        return self.classes_[number]

    def predict_proba(self, features: Features) -> Tensor:
        """Softmax of the decision scores, ``(samples, classes)``."""
        return self.decision(features).softmax(1)
