"""LoRA: a frozen weight matrix plus a trained one of low rank."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neurokern.adapters.selection import match_names

__all__ = ["add_low_rank", "low_rank_parameters", "merge_low_rank"]

DOWN, UP = "low_rank_down", "low_rank_up"  # A, (rank, inputs), and B, (outputs, rank)


def add_low_rank(
    model: nn.Module, targets: str | Sequence[str] = "*", rank: int = 8, alpha: float | None = None
) -> list[str]:
    r"""Put low-rank updates on linear layers of a model, in place.

    A weight W becomes :math:`W + \frac{\alpha}{r} B A` with new parameters A, drawn from torch's global
    generator, and B, which is 0, so that nothing changes at first [1]_. The layer keeps its name and its own
    parameters theirs. The update belongs to the weight and not to the layer's call, so that it also counts
    where a module reads its layers' weights itself, as ``nn.MultiheadAttention`` and the fast path of
    ``nn.TransformerEncoderLayer`` do. ``in_proj_weight`` gets one update for query, key and value.

    Parameters
    ----------
    model : nn.Module
    targets : str or sequence of str, default "*"
        Shell patterns for names of ``nn.Linear`` or ``nn.MultiheadAttention`` modules, such as ``"*qkv"``.
    rank : int, default 8
        A weight with a smaller side gets an update of that rank.
    alpha : float, optional
        ``rank`` by default.

    Returns
    -------
    names : list of str
        Of the layers.

    Raises
    ------
    ValueError
        If a pattern matches no such layer, a layer has an update already, or ``rank`` is below 1.

    References
    ----------
    .. [1] Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022.
    """
    layers = {name: module for name, module in model.named_modules() if _matrix_of(module) is not None}
    names = match_names("add_low_rank", layers, targets, "linear layer")
    if rank < 1:
        raise ValueError(f"add_low_rank: rank must be at least 1, got {rank}")
    if updated := [name for name in names if hasattr(type(layers[name]), "plain_class")]:
        raise ValueError(f"add_low_rank: {updated[0]!r} has an update already; merge it first")
    for name in names:
        layer, matrix = layers[name], _matrix_of(layers[name])
        weight = layer._parameters.get(matrix or "")
        if weight is None:
            raise ValueError(f"add_low_rank: {name!r} has no weight of its own (a parametrization?)")
        size = min(rank, *weight.shape)
        down, up = weight.new_empty(size, weight.shape[1]), weight.new_zeros(weight.shape[0], size)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        layer.register_parameter(DOWN, nn.Parameter(down))
        layer.register_parameter(UP, nn.Parameter(up))
        layer.low_rank_scale = (rank if alpha is None else alpha) / rank
        plain: Any = type(layer)
        layer.__class__ = _low_rank_class(plain, matrix or "")
    return names


def merge_low_rank(model: nn.Module) -> nn.Module:
    """Add every low-rank update to its weight and remove it, in place; the names are the base model's again.

    Outputs stay the same bits: an updated layer computes the same sum at each call.
    """
    for layer in _updated(model).values():
        plain, matrix = type(layer).plain_class, type(layer).matrix  # type: ignore[attr-defined]
        with torch.no_grad():
            layer._parameters[matrix].copy_(getattr(layer, matrix))  # type: ignore[union-attr]
        layer.__class__ = plain
        del layer._parameters[DOWN], layer._parameters[UP]
        del layer.low_rank_scale
    return model


def low_rank_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of all updates by their names in the model."""
    found = {}
    for name, layer in _updated(model).items():
        for part in (DOWN, UP):
            found[f"{name}.{part}" if name else part] = layer._parameters[part]
    return found  # type: ignore[return-value]


def _updated(model: nn.Module) -> dict[str, nn.Module]:
    return {name: layer for name, layer in model.named_modules() if hasattr(type(layer), "plain_class")}


def _matrix_of(module: nn.Module) -> str | None:
    """Name of the matrix that an update goes on, or None."""
    if isinstance(module, nn.Linear):
        return "weight"
    one_matrix = isinstance(module, nn.MultiheadAttention) and module._qkv_same_embed_dim
    return "in_proj_weight" if one_matrix else None


@functools.cache
def _low_rank_class(plain: type[nn.Module], matrix: str) -> type[nn.Module]:
    """Return the class of a layer with an update: its matrix, when read, is the sum.

    ``torch.nn.utils.parametrize`` does the same with a class for each layer, which deep copies share, so that
    removing the parametrization of a copy breaks the original.
    """

    def read(self: Any) -> Tensor:
        own = self._parameters
        return torch.addmm(own[matrix], own[UP], own[DOWN], alpha=self.low_rank_scale)

    members = {matrix: property(read), "plain_class": plain, "matrix": matrix}
    return type(f"LowRank{plain.__name__}", (plain,), members)
