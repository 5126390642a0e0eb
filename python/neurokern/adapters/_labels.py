"""What all read-outs share: checked inputs, classes, scaling learned on the support set, saving."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

_LARGEST = 1e150  # squares of larger numbers overflow when they are summed

Features = Tensor | np.ndarray
Labels = Tensor | np.ndarray | Sequence[object]
Self = TypeVar("Self", bound="Readout")


@dataclass(frozen=True, slots=True)
class Scaler:
    """Centers features and divides them by their spread over the support set."""

    mean: Tensor  # (..., features)
    scale: Tensor  # (..., features)

    @classmethod
    def fit(cls, features: Tensor, standardize: bool) -> Scaler:
        """Learn from support features (..., samples, features).

        Without ``standardize``, and for a feature that never varies there, features are only centered: that
        changes no read-out, and saves float32 from differences of large numbers.
        """
        mean = features.mean(-2, dtype=torch.float64).to(features.dtype)
        if not standardize:
            return cls(mean, torch.ones_like(mean))
        # In float64: squares of large float32 numbers overflow, those of small ones vanish.
        length = torch.linalg.vector_norm(features - mean[..., None, :], dim=-2, dtype=torch.float64)
        spread = (length / features.shape[-2] ** 0.5).to(features.dtype)
        varies = spread > 1e-6 * mean.abs()
        return cls(mean, torch.where(varies, spread, torch.ones_like(spread)))

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean[..., None, :]).div_(self.scale[..., None, :])


def check_support(function: str, features: Features, labels: Labels) -> tuple[Tensor, np.ndarray, Tensor]:
    """Return features as float, the sorted classes, and the class number of each sample.

    Raises
    ------
    ValueError
        If shapes do not match, a feature is not finite, or there are fewer than two classes.
    """
    values = check_features(function, features)
    classes, number = _numbered(function, labels, (len(values),))
    return values, classes, number.to(values.device)


def check_support_stack(
    function: str, features: Features, labels: Labels
) -> tuple[Tensor, np.ndarray, Tensor]:
    """As :func:`check_support` for episodes ``(episodes, samples, features)`` of the same classes."""
    values = check_features(function, features, axes=("episodes", "samples", "features"))
    classes, number = _numbered(function, labels, tuple(values.shape[:2]))
    missing = int((class_counts(number, len(classes)) == 0).any(1).sum())
    if missing:
        raise ValueError(
            f"{function}: every episode must have a sample of each of the {len(classes)} classes, got "
            f"{missing} of {len(number)} episodes without; fit those apart"
        )
    return values, classes, number.to(values.device)


def class_counts(number: Tensor, n_classes: int) -> Tensor:
    """Samples of each class, (..., classes), for class numbers (..., samples)."""
    return torch.nn.functional.one_hot(number, n_classes).sum(-2)


def _numbered(function: str, labels: Labels, shape: tuple[int, ...]) -> tuple[np.ndarray, Tensor]:
    names = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if names.shape != shape:
        wanted = f"({shape[0]})" if len(shape) == 1 else f"{shape}"
        raise ValueError(f"{function}: labels must have one entry per sample {wanted}, got {names.shape}")
    if names.dtype == object:
        names = _plain_labels(function, names)
    if names.dtype.kind not in "biufU":
        raise TypeError(f"{function}: labels must be words or numbers, got {names.dtype}")
    if names.dtype.kind == "f" and np.isnan(names).any():
        raise ValueError(f"{function}: labels must not be NaN; leave out samples without a label")
    classes, number = np.unique(names, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"{function}: labels must hold at least 2 classes, got {classes.tolist()}")
    return classes, torch.from_numpy(number.reshape(shape).astype(np.int64))


def _plain_labels(function: str, names: np.ndarray) -> np.ndarray:
    """Return labels that lie in an array of objects as an array of their own type."""
    plain = np.asarray(names.tolist())
    if plain.shape != names.shape or plain.dtype == object:
        missing = sum(name is None for name in names.ravel())
        raise ValueError(
            f"{function}: labels must be words or numbers, got {missing} None or labels of several kinds; "
            "leave out samples without a label"
        )
    return plain


def check_features(
    function: str,
    features: Features,
    n_features: int | None = None,
    *,
    axes: tuple[str, ...] = ("samples", "features"),
) -> Tensor:
    """Return features as a float32 or float64 tensor of shape (samples, features), or raise a ValueError."""
    if not isinstance(features, Tensor):
        features = np.asarray(features)
        if features.dtype.kind not in "biuf":
            raise TypeError(f"{function}: features must be numbers, got {features.dtype}")
        features = features.astype(features.dtype.newbyteorder("="), copy=False)
        features = features.astype(np.float64) if features.dtype.itemsize > 8 else features
        if any(step < 0 for step in features.strides) or not features.flags.writeable:
            features = features.copy()  # torch takes no negative strides, and warns of read-only arrays
    values = torch.as_tensor(features)
    if values.layout != torch.strided or values.is_meta:
        raise TypeError(f"{function}: features must be a dense tensor that holds values")
    if values.is_complex():
        raise TypeError(f"{function}: features must be real numbers, got {values.dtype}")
    # Whole numbers above 2**24 do not fit into float32.
    wide = values.dtype in (torch.int32, torch.int64, torch.uint32, torch.uint64, torch.float64)
    values = values.to(torch.float64 if values.dtype == torch.float64 or wide else torch.float32)
    if values.ndim != len(axes) or 0 in values.shape or n_features not in (None, values.shape[-1]):
        wanted = ", ".join([*axes[:-1], axes[-1] if n_features is None else str(n_features)])
        raise ValueError(
            f"{function}: features must have shape ({wanted}) and hold something, got {tuple(values.shape)}"
        )
    low, high = values.aminmax()
    if not (low > -_LARGEST and high < _LARGEST):  # NaN fails both
        bad = int((~values.isfinite()).any(-1).sum())
        raise ValueError(
            f"{function}: features must be finite, got NaN or infinity in {bad} of "
            f"{values[..., 0].numel()} samples"
            if bad
            else f"{function}: features must be below {_LARGEST:g} in size; give them in another unit"
        )
    return values.detach()


class Readout:
    """A linear read-out, ``scaled features @ weights + bias``; subclasses fit it."""

    weights_: Tensor  # (features, outputs); (episodes, features, outputs) of a stack
    bias_: Tensor  # (outputs,); (episodes, outputs) of a stack
    _scaler: Scaler
    _unit_length = False  # whether samples are brought to unit length first

    @property
    def is_stack(self) -> bool:
        """Whether a whole stack of episodes was fitted."""
        return hasattr(self, "weights_") and self.weights_.ndim == 3

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Weights and bias for features as they are given, without the scaling in between.

        Returns
        -------
        weights : tensor of shape (features, outputs)
        bias : tensor of shape (outputs,)
        """
        self._check_fitted(stack=False)
        weights = self.weights_ / self._scaler.scale[:, None]
        return weights, self.bias_ - self._scaler.mean @ weights

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that predicting needs, as tensors that a safetensors file can hold."""
        self._check_fitted(stack=False)
        return {
            "weights": self.weights_,
            "bias": self.bias_,
            "mean": self._scaler.mean,
            "scale": self._scaler.scale,
            "unit_length": torch.tensor(self._unit_length),
        }

    @classmethod
    def from_state(cls: type[Self], state: Mapping[str, Tensor]) -> Self:
        """Return a fitted read-out from what ``state_dict`` returned.

        Raises
        ------
        ValueError
            If tensors are missing or do not fit together.
        """
        needed = ("weights", "bias", "mean", "scale", "unit_length")
        missing = [name for name in needed if name not in state]
        if missing:
            raise ValueError(f"{cls.__name__}.from_state: state must hold {', '.join(missing)}")
        weights, bias, mean, scale = (torch.as_tensor(state[name]) for name in needed[:4])
        fits = weights.ndim == 2 and bias.shape == weights.shape[1:] and mean.shape == scale.shape
        if not fits or mean.shape != weights.shape[:1]:
            raise ValueError(
                f"{cls.__name__}.from_state: weights (features, outputs) must fit bias, mean and scale, got "
                f"{tuple(weights.shape)}, {tuple(bias.shape)}, {tuple(mean.shape)} and {tuple(scale.shape)}"
            )
        readout = cls.__new__(cls)
        cls.__init__(readout)  # the settings of a fit are not kept
        readout.weights_, readout.bias_, readout._scaler = weights, bias, Scaler(mean, scale)
        readout._unit_length = bool(state["unit_length"])
        return readout

    def _check_fitted(self, stack: bool) -> None:
        name = type(self).__name__
        if not hasattr(self, "weights_"):
            raise RuntimeError(f"{name}: call fit before predicting")
        if stack != self.is_stack:
            how = ("fit_batched", "predict_batched") if self.is_stack else ("fit", "predict")
            raise RuntimeError(f"{name}: it was fitted by {how[0]}; ask it by {how[1]}")

    def _outputs(self, features: Features) -> Tensor:
        self._check_fitted(stack=False)
        values = check_features(type(self).__name__, features, len(self.weights_)).to(self.weights_)
        if self._unit_length:
            values = unit_length(values)
        return self._scaler(values) @ self.weights_ + self.bias_

    def _outputs_of_stack(self, features: Features) -> Tensor:
        """Outputs (episodes, samples, outputs) of samples for each episode, or of the same ones for all."""
        self._check_fitted(stack=True)
        name, n_features = type(self).__name__, self.weights_.shape[1]
        shared = np.ndim(features) == 2
        axes = ("samples", "features") if shared else ("episodes", "samples", "features")
        values = check_features(name, features, n_features, axes=axes).to(self.weights_)
        if not shared and len(values) != len(self.weights_):
            raise ValueError(
                f"{name}: features must be of {len(self.weights_)} episodes, or of shape (samples, "
                f"{n_features}) for all, got {tuple(values.shape)}"
            )
        if self._unit_length:
            values = unit_length(values)
        if not shared:
            return self._scaler(values) @ self.weights_ + self.bias_[:, None]
        # One product for all episodes, about a center that is near to all of theirs.
        center = self._scaler.mean.mean(0)
        weights = self.weights_ / self._scaler.scale[:, :, None]
        bias = self.bias_ - ((self._scaler.mean - center)[:, None] @ weights)[:, 0]
        n_episodes, _, n_outputs = weights.shape
        wide = (values - center) @ weights.permute(1, 0, 2).reshape(n_features, -1)
        return wide.unflatten(1, (n_episodes, n_outputs)).transpose(0, 1) + bias[:, None]


class ClassReadout(Readout):
    """A linear read-out of classes; subclasses fit it."""

    classes_: np.ndarray  # (classes,), sorted labels

    def decision_function(self, features: Features) -> Tensor:
        """Scores of the classes, ``(samples, classes)``; the largest one is predicted.

        Raises
        ------
        RuntimeError
            Before ``fit``.
        ValueError
            If ``features`` do not have the fitted number of columns, or are not finite.
        """
        return self._outputs(features)

    def predict(self, features: Features) -> np.ndarray:
        """Labels of shape (samples,), of the kind given to ``fit``, as a numpy array."""
        number = self._outputs(features).argmax(-1).cpu().numpy()
        return self.classes_[number]

    def predict_proba(self, features: Features) -> Tensor:
        """Softmax of the decision scores, ``(samples, classes)``."""
        return self._outputs(features).softmax(-1)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that predicting needs, as tensors that a safetensors file can hold.

        Labels are kept as JSON text.
        """
        state = super().state_dict()
        text = json.dumps(self.classes_.tolist()).encode()
        return state | {"classes": torch.frombuffer(bytearray(text), dtype=torch.uint8)}

    @classmethod
    def from_state(cls: type[Self], state: Mapping[str, Tensor]) -> Self:
        """Return a fitted read-out from what ``state_dict`` returned.

        Raises
        ------
        ValueError
            If tensors are missing or do not fit together.
        """
        readout = super().from_state(state)
        assert isinstance(readout, ClassReadout)
        try:
            classes = np.asarray(json.loads(bytes(torch.as_tensor(state["classes"]).cpu().tolist())))
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{cls.__name__}.from_state: classes must be JSON text, got {error}") from None
        if classes.shape != readout.bias_.shape:
            raise ValueError(
                f"{cls.__name__}.from_state: classes must be {len(readout.bias_)}, got {classes.shape}"
            )
        readout.classes_ = classes
        return readout


def unit_length(features: Tensor) -> Tensor:
    """Divide samples by their length; one of zeros stays."""
    length = features.norm(dim=-1, keepdim=True)
    return features / torch.where(length > 0, length, torch.ones_like(length))
