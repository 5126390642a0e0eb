"""What the closed-form probes share: one support set is a stack of one episode."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from neurokern.adapters._labels import (
    Features,
    Labels,
    Scaler,
    check_support,
    check_support_stack,
    unit_length,
)
from neurokern.adapters._readout import ClassReadout

_CHUNK_ELEMENTS = 1 << 24  # features of the episodes that are solved together

Self = TypeVar("Self", bound="ClosedFormProbe")


class Solution(NamedTuple):
    """Read-outs of some episodes."""

    weights: Tensor  # (episodes, features, classes)
    bias: Tensor  # (episodes, classes)
    chosen: dict[str, Tensor]  # what was chosen or estimated, (episodes,) each


class ClosedFormProbe(ClassReadout, ABC):
    """A probe of classes that is solved; subclasses say how."""

    def __init__(self, *, standardize: bool = False) -> None:
        self._standardize = standardize

    @abstractmethod
    def _solve(self, features: Tensor, number: Tensor, scaler: Scaler) -> Solution:
        """Solve for scaled features (episodes, samples, features) and numbers of classes."""

    def fit(self: Self, features: Features, labels: Labels) -> Self:
        """Fit on a support set: ``(samples, features)`` and one label per sample."""
        values, self.classes_, number = check_support(f"{type(self).__name__}.fit", features, labels)
        self._fit_stack(values[None], number[None])
        self.weights_, self.bias_ = self.weights_[0], self.bias_[0]
        self._scaler = Scaler(self._scaler.mean[0], self._scaler.scale[0])
        for name in self._chosen:
            setattr(self, name, getattr(self, name)[0].item())
        return self

    def fit_batched(self: Self, features: Features, labels: Labels) -> Self:
        """Fit a stack of episodes, each by itself, at once: the same as a loop over :meth:`fit`.

        Parameters
        ----------
        features : array or tensor of shape (episodes, samples, features)
        labels : array or tensor of shape (episodes, samples)
            Every episode has samples of all classes.
        """
        name = f"{type(self).__name__}.fit_batched"
        values, self.classes_, number = check_support_stack(name, features, labels)
        self._fit_stack(values, number)
        return self

    def decision_function_batched(self, features: Features) -> Tensor:
        """Scores of the classes, ``(episodes, samples, classes)``.

        Parameters
        ----------
        features : array or tensor of shape (episodes, samples, features) or (samples, features)
            Of each episode, or the same ones for all.
        """
        return self._outputs_of_stack(features)

    def predict_batched(self, features: Features) -> np.ndarray:
        """Labels of shape (episodes, samples); features as in :meth:`decision_function_batched`."""
        number = self._outputs_of_stack(features).argmax(-1).cpu().numpy()
        return self.classes_[number]

    def _fit_stack(self, values: Tensor, number: Tensor) -> None:
        step = max(1, _CHUNK_ELEMENTS // values[0].numel())
        parts: list[Solution] = []
        scalers: list[Scaler] = []
        for first in range(0, len(values), step):
            some = values[first : first + step]
            some = unit_length(some) if self._unit_length else some
            scaler = Scaler.fit(some, self._standardize)
            parts.append(self._solve(scaler(some), number[first : first + step], scaler))
            scalers.append(scaler)
        self.weights_ = torch.cat([part.weights for part in parts]).to(values.dtype)
        self.bias_ = torch.cat([part.bias for part in parts]).to(values.dtype)
        mean, scale = (torch.cat([getattr(s, name) for s in scalers]) for name in ("mean", "scale"))
        self._scaler = Scaler(mean, scale)
        self._chosen = tuple(parts[0].chosen)
        for name in self._chosen:
            setattr(self, name, torch.cat([part.chosen[name] for part in parts]))
