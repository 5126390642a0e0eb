"""The transformer layer of MtM: attention and a two-layer network, each behind a LayerNorm."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurokern.models.dropout import Dropout, dropout

ROTARY_BASE = 10_000.0


class SelfAttention(nn.Module):
    """Multi-head attention with dropout on the attention weights and before the output projection.

    Query, key and value share one matrix product: its three row blocks are those of three separate
    projections.
    """

    def __init__(self, hidden_size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.weight_dropout = dropout
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.dropout = Dropout(dropout)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, attend: Tensor | None, turns: Tensor | None = None) -> Tensor:
        batch, length, hidden_size = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.n_heads, hidden_size // self.n_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, L, D / heads) each
        if turns is not None:
            query, key = rotate(query, turns), rotate(key, turns)
        p = self.weight_dropout if self.training else 0.0
        mixed = attention(query, key, value, attend, p)
        mixed = mixed.transpose(1, 2).reshape(batch, length, hidden_size)
        return self.out_proj(self.dropout(mixed))


def attention(query: Tensor, key: Tensor, value: Tensor, attend: Tensor | None, p: float) -> Tensor:
    """Return ``dropout(softmax(query key' / sqrt(d))) value``, by torch's kernels where they are faster.

    On a CPU torch has no kernel with dropout: it writes the weights out as well, checks them for rows that
    see nothing, which no token of ours is, and draws with :func:`torch.nn.functional.dropout`.
    """
    if p == 0.0 or query.device.type != "cpu" or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(query, key, value, attn_mask=attend, dropout_p=p)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if attend is not None:
        scores = scores.masked_fill_(~attend, -torch.inf)
    return dropout(scores.softmax(-1), p) @ value


class EncoderLayer(nn.Module):
    """Pre-LN encoder layer: ``x + attention(norm(x))``, then ``x + mlp(norm(x))`` with a GELU.

    Parameters
    ----------
    hidden_size, mlp_size, n_heads : int
        Width of the stream and of the hidden layer of the network, number of heads.
    dropout : float
        Used in three places: attention weights, attention output, output of the network.
    """

    def __init__(self, hidden_size: int, mlp_size: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden_size)
        self.attention = SelfAttention(hidden_size, n_heads, dropout)
        self.mlp_norm = nn.LayerNorm(hidden_size)
        self.up_proj = nn.Linear(hidden_size, mlp_size)
        self.down_proj = nn.Linear(mlp_size, hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, attend: Tensor | None, turns: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), attend, turns)
        return x + self.dropout(self.down_proj(F.gelu(self.up_proj(self.mlp_norm(x)))))

    @torch.no_grad()
    def scale_for_depth(self, n_layers: int) -> None:
        """Shrink the default weights so that ``n_layers`` residual branches start at a bounded sum.

        The projections out of attention and of the network are scaled by ``0.67 L^(-1/4)``, the values by
        sqrt(2) times that: Huang et al., "Improving transformer optimization through better initialization",
        ICML 2020.
        """
        scale = 0.67 * n_layers**-0.25
        for projection in (self.attention.out_proj, self.up_proj, self.down_proj):
            projection.weight.mul_(scale)
        value_rows = self.attention.qkv.weight.chunk(3)[2]
        value_rows.mul_(scale * math.sqrt(2.0))


def rotary_turns(times: Tensor, head_size: int) -> Tensor:
    """Return cosine and sine of the angles by which tokens turn, ``(2, L, head_size / 2)`` float32.

    Pair k of a head turns by ``time * 10000^(-2 k / head_size)``: products of queries and keys then depend on
    differences of times alone (Su et al., "RoFormer", arXiv:2104.09864, section 3.2).

    Parameters
    ----------
    times : tensor of shape (L,)
        Number of each token's bin.
    head_size : int
        Even.
    """
    pairs = torch.arange(0, head_size, 2, device=times.device, dtype=torch.float32)
    angles = times.float()[:, None] * ROTARY_BASE ** (-pairs / head_size)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the pairs (k, k + d / 2) of ``(B, heads, L, d)`` by the angles of :func:`rotary_turns`."""
    cosine, sine = turns.to(x.dtype).unbind(0)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def attention_mask(
    n_prefix: int,
    n_bins: int,
    *,
    causal: bool,
    strict: bool,
    tokens_per_bin: int = 1,
    device: torch.device | None = None,
) -> Tensor | None:
    """Say which token may look at which.

    Parameters
    ----------
    n_prefix, n_bins : int
        Prefix tokens come first, then the tokens of the first bin, of the second, and so on.
    causal : bool
        A bin sees itself and earlier bins only.
    strict : bool
        With ``causal``, prefix tokens see only the prefix. Otherwise they see every bin and every bin sees
        them, as published: from the second layer on, a bin then depends on later bins through the prefix.
    tokens_per_bin : int, default 1
        The tokens of a bin see each other.

    Returns
    -------
    attend : bool tensor of shape (L, L), L = n_prefix + n_bins * tokens_per_bin, or None
        True where the row's token sees the column's; None when everything sees everything.
    """
    if not causal:
        return None
    bins = torch.arange(n_bins, device=device).repeat_interleave(tokens_per_bin)
    seen_from = torch.cat([bins.new_full((n_prefix,), -1), bins])
    sees_until = torch.cat([bins.new_full((n_prefix,), -1 if strict else n_bins), bins])
    return seen_from <= sees_until[:, None]
