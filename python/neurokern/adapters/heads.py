"""Heads that turn an encoder's features into classes, values or embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from neurokern._check import check_choice

__all__ = ["HEADS", "POOLS", "AttentionPool", "Head", "pool_features"]

HEADS = ("linear", "mlp", "attention")
POOLS = ("mean", "flatten", "none")


def pool_features(features: Tensor, pool: str) -> Tensor:
    """Turn features ``(samples, ..., features)`` into ``(samples, features)``, unless ``pool`` is "none".

    "mean" averages over all axes between the first and the last (bins, tokens), "flatten" lays them out.
    """
    if pool == "none" or features.ndim == 2:
        return features
    return features.flatten(1) if pool == "flatten" else features.flatten(1, -2).mean(1)


class AttentionPool(nn.Module):
    """Weighted mean over bins or tokens, the weights from a learned query for each head.

    Parameters
    ----------
    n_features : int
        Must be a multiple of ``n_heads``.
    n_heads : int, default 4

    Notes
    -----
    Keys are layer-normalized features through a linear map; the values are the features themselves, of which
    each head averages its own share. It starts as the plain mean: the query is 0.
    """

    def __init__(self, n_features: int, n_heads: int = 4) -> None:
        super().__init__()
        if n_features % n_heads:
            raise ValueError(
                f"AttentionPool: n_heads must divide the {n_features} features, got {n_heads}; "
                "pass another number of heads"
            )
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(n_features)
        self.key = nn.Linear(n_features, n_features)
        self.query = nn.Parameter(torch.zeros(n_heads, n_features // n_heads))

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(samples, ..., features)`` to ``(samples, features)``."""
        tokens = features.reshape(len(features), -1, features.shape[-1])  # (S, L, F)
        shape = (*tokens.shape[:2], self.n_heads, -1)
        keys, values = self.key(self.norm(tokens)).view(shape), tokens.view(shape)
        scores = torch.einsum("slhd,hd->slh", keys, self.query) / keys.shape[-1] ** 0.5
        return torch.einsum("slh,slhd->shd", scores.softmax(1), values).flatten(1)


class Head(nn.Module):
    """Pooling and a linear layer, with a hidden layer or attention before it.

    Parameters
    ----------
    kind : {"linear", "mlp", "attention"}
        "mlp": LayerNorm, one hidden layer with a GELU. "attention": :class:`AttentionPool` in place of
        ``pool``.
    n_features, n_outputs : int
    pool : {"mean", "flatten", "none"}
        See :func:`pool_features`; "none" gives an output for each bin.
    hidden : int, default 64
        Of "mlp".
    n_heads : int, default 4
        Of "attention".
    """

    def __init__(
        self, kind: str, n_features: int, n_outputs: int, pool: str, hidden: int = 64, n_heads: int = 4
    ) -> None:
        super().__init__()
        check_choice("Head", "kind", kind, HEADS)
        check_choice("Head", "pool", pool, POOLS)
        self.spec: dict[str, Any] = {
            "kind": kind,
            "n_features": n_features,
            "n_outputs": n_outputs,
            "pool": pool,
            "hidden": hidden,
            "n_heads": n_heads,
        }
        self.pool = pool
        self.body: nn.Module = nn.Identity()
        width = n_features
        if kind == "mlp":
            self.body = nn.Sequential(nn.LayerNorm(n_features), nn.Linear(n_features, hidden), nn.GELU())
            width = hidden
        elif kind == "attention":
            self.body, self.pool = AttentionPool(n_features, n_heads), "none"
        self.out = nn.Linear(width, n_outputs)
        nn.init.zeros_(
            self.out.weight
        )  # all classes alike, or the mean of the values, until something is learned
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features to ``(samples, outputs)``, or to ``(samples, ..., outputs)`` without pooling."""
        return self.out(self.body(pool_features(features, self.pool)))

    @torch.no_grad()
    def rescale(self, mean: Tensor, spread: Tensor) -> None:
        """Change the outputs from standardized values to values."""
        self.out.weight.mul_(spread[:, None])
        self.out.bias.mul_(spread).add_(mean)
