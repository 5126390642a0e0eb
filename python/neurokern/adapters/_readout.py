"""A linear read-out, fitted to one support set or to a stack of them: outputs, coefficients, saving."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from neurokern.adapters._labels import Features, Scaler, check_features, unit_length

Self = TypeVar("Self", bound="Readout")


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
