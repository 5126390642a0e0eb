"""Ranks, and Kendall's tau-a without looking at every pair of pairs."""

from __future__ import annotations

import torch
from torch import Tensor


def average_ranks(values: Tensor) -> Tensor:
    """Return ranks from 1 along the last axis in float64; equal values share the mean of theirs."""
    ordered, order = values.sort(dim=-1)
    first, last = _runs(ordered[..., 1:] != ordered[..., :-1])
    middle = (first + last).to(torch.float64) / 2 + 1
    return torch.empty_like(middle).scatter_(-1, order, middle)


def kendall_tau_a(a: Tensor, b: Tensor) -> Tensor:
    """Return concordant less discordant pairs over all pairs, for each row of two tensors (rows, n).

    O(n log^2 n): sorted by ``a`` (ties by ``b``), the discordant pairs are the inversions of ``b``.
    """
    n = a.shape[1]
    by_b = b.argsort(dim=1, stable=True)
    a, b = a.gather(1, by_b), b.gather(1, by_b)
    b_step = b[:, 1:] != b[:, :-1]
    b_rank = torch.cat([torch.zeros_like(b[:, :1], dtype=torch.bool), b_step], 1).cumsum(1)
    a, by_a = a.sort(dim=1, stable=True)
    b_rank = b_rank.gather(1, by_a)
    a_step = a[:, 1:] != a[:, :-1]
    both_step = a_step | (b_rank[:, 1:] != b_rank[:, :-1])
    pairs = n * (n - 1) // 2
    tied = _tied_pairs(a_step) + _tied_pairs(b_step) - _tied_pairs(both_step)
    return (pairs - tied - 2 * _inversions(b_rank)).to(torch.float64) / pairs


def _runs(step: Tensor) -> tuple[Tensor, Tensor]:
    """Index of the first and of the last of each run of equal values; ``step`` marks the beginnings."""
    n = step.shape[-1] + 1
    index = torch.arange(n, device=step.device).expand(*step.shape[:-1], n)
    edge = torch.ones_like(step[..., :1])
    if not step.shape[-1]:
        return index.clone(), index.clone()
    first = index.where(torch.cat([edge, step], -1), 0).cummax(-1).values
    last = index.where(torch.cat([step, edge], -1), n).flip(-1).cummin(-1).values.flip(-1)
    return first, last


def _tied_pairs(step: Tensor) -> Tensor:
    first, _ = _runs(step)
    index = torch.arange(first.shape[-1], device=step.device)
    return (index - first).sum(-1)


def _inversions(ranks: Tensor) -> Tensor:
    """Pairs ``i < j`` with ``ranks[i] > ranks[j]`` in each row.

    Bit by bit from the highest: among values that agree in the bits above, a pair is an inversion if the
    earlier one has the bit and the later one has not; then the values are brought in the order of these bits.
    """
    total = torch.zeros(len(ranks), dtype=torch.int64, device=ranks.device)
    for bit in range(int(ranks.max()).bit_length() - 1, -1, -1):
        above = ranks >> (bit + 1)
        first, _ = _runs(above[:, 1:] != above[:, :-1])
        one = (ranks >> bit) & 1
        ones = one.cumsum(1) - one  # before each place
        in_group = ones - ones.gather(1, first)
        total += (in_group * (1 - one)).sum(1)
        ranks = ranks.gather(1, (ranks >> bit).argsort(dim=1, stable=True))
    return total
