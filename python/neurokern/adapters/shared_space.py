"""Inputs of different sizes into one space: a linear layer for each subject, behind pooling if need be."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurokern._check import check_choice

__all__ = ["SubjectInput", "SubjectLayers"]


class SubjectInput(nn.Module):
    """One subject's own layer into the shared space.

    Parameters
    ----------
    n_inputs : int
        Voxels, channels or units of the subject: the last axis of its inputs.
    size : int
        Of the shared space.
    pool_size : int, optional
        First pool the inputs to so many by adaptive pooling over the last axis, as MindBridge does to 8,192
        voxels [1]_; the linear layer then has as many weights for every subject. Neighbors on the axis should
        be neighbors in the brain.
    pooling : {"max", "mean"}, default "max"
    linear : bool, default True
        False leaves pooling alone; ``pool_size`` must then be ``size``.

    References
    ----------
    .. [1] Wang et al., "MindBridge: A cross-subject brain decoding framework", CVPR 2024 (arXiv:2404.07850).
    """

    def __init__(
        self,
        n_inputs: int,
        size: int,
        pool_size: int | None = None,
        pooling: str = "max",
        linear: bool = True,
    ) -> None:
        super().__init__()
        check_choice("SubjectInput", "pooling", pooling, ("max", "mean"))
        if min(n_inputs, size, 1 if pool_size is None else pool_size) < 1:
            raise ValueError(
                f"SubjectInput: sizes must be at least 1, got n_inputs={n_inputs}, size={size}, "
                f"pool_size={pool_size}"
            )
        if not linear and (pool_size or n_inputs) != size:
            raise ValueError(
                f"SubjectInput: without a linear layer pool_size must be size={size}, got {pool_size}"
            )
        self.spec = {
            "n_inputs": n_inputs,
            "size": size,
            "pool_size": pool_size,
            "pooling": pooling,
            "linear": linear,
        }
        self.n_inputs, self.pool_size, self.pooling = n_inputs, pool_size, pooling
        self.linear: nn.Module = nn.Linear(pool_size or n_inputs, size) if linear else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(..., n_inputs)`` to ``(..., size)``."""
        if inputs.shape[-1] != self.n_inputs:
            raise ValueError(
                f"SubjectInput: inputs must have shape (..., {self.n_inputs}), got {tuple(inputs.shape)}"
            )
        if self.pool_size is not None:
            pool = F.adaptive_max_pool1d if self.pooling == "max" else F.adaptive_avg_pool1d
            inputs = pool(inputs.reshape(-1, 1, self.n_inputs), self.pool_size).reshape(
                *inputs.shape[:-1], self.pool_size
            )
        return self.linear(inputs)


class SubjectLayers(nn.Module):
    """The layers of several subjects, for pretraining one model on all of them.

    Parameters
    ----------
    n_inputs : mapping of str to int
        Size of each subject's inputs; more come in with :meth:`add`.
    size : int
        Of the shared space.
    pool_size, pooling
        As for :class:`SubjectInput`.
    """

    def __init__(
        self, n_inputs: Mapping[str, int], size: int, pool_size: int | None = None, pooling: str = "max"
    ) -> None:
        super().__init__()
        self.size, self.pool_size, self.pooling = size, pool_size, pooling
        self.layers = nn.ModuleList()  # by number: names of subjects may hold dots, which torch forbids
        self._index_of: dict[str, int] = {}
        for subject, number in n_inputs.items():
            self.add(subject, number)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Known subjects, in the order in which they came."""
        return tuple(self._index_of)

    def add(self, subject: str, n_inputs: int) -> None:
        """Give a new subject a layer; ValueError if it has one."""
        if subject in self._index_of:
            raise ValueError(f"SubjectLayers.add: {subject!r} is known already; choose another name")
        layer = SubjectInput(n_inputs, self.size, self.pool_size, self.pooling)
        self._index_of[subject] = len(self.layers)
        reference = next(self.parameters(), None)
        self.layers.append(layer if reference is None else layer.to(reference.device, reference.dtype))

    def forward(self, inputs: Tensor, subject: str) -> Tensor:
        """Map one subject's inputs ``(..., n_inputs)`` to ``(..., size)``."""
        if subject not in self._index_of:
            known = ", ".join(map(repr, self._index_of)) or "none"
            raise ValueError(f"SubjectLayers: {subject!r} is unknown (known: {known}); call add(...) first")
        return self.layers[self._index_of[subject]](inputs)

    @torch.no_grad()
    def mean_layer(self, n_inputs: int) -> SubjectInput:
        """Return the mean of all layers, a start for a subject of which nothing is known.

        ValueError where the layers have different shapes: pooling to one size makes them equal.
        """
        linears: list[nn.Linear] = [layer.linear for layer in self.layers]  # type: ignore[misc]
        shapes = {(self.size, self.pool_size or n_inputs), *(tuple(one.weight.shape) for one in linears)}
        if not linears or len(shapes) > 1:
            raise ValueError(
                "SubjectLayers.mean_layer: there must be layers, all of one shape with the new one, got "
                f"{sorted(shapes)}; pass pool_size= to SubjectLayers"
            )
        mean = nn.Linear(self.pool_size or n_inputs, self.size)
        mean.weight.copy_(torch.stack([one.weight for one in linears]).mean(0))
        mean.bias.copy_(torch.stack([one.bias for one in linears]).mean(0))
        found = SubjectInput(n_inputs, self.size, self.pool_size, self.pooling)
        found.linear = mean
        return found
