"""How well responses could be predicted at best, from repeats of the same stimuli."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_choice, check_integer, check_positive
from neurokern.encoding._arrays import as_tensor, check_finite_values, like, target_chunks
from neurokern.encoding.scores import is_constant

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = [
    "NormalizedScores",
    "explainable_variance",
    "normalize_scores",
    "spearman_brown",
    "split_half_reliability",
]


def split_half_reliability(repeats: Array, *, n_splits: int = 100, seed: int = 0) -> Array:
    r"""Reliability of the mean response over all repeats, from halves of them.

    The repeats are split into two halves; the mean responses of the halves are correlated over samples; the
    correlations are averaged over splits, and carried from half the repeats to all by the Spearman-Brown
    formula.

    Parameters
    ----------
    repeats : array or tensor of shape (repeats, samples, targets)
        Responses to the same stimuli, sample by sample. With an odd number of repeats one, another for each
        split, is left out of the halves.
    n_splits : int, default 100
        Random splits; all of them, each once, where there are no more.
    seed : int, default 0

    Returns
    -------
    reliability : array or tensor of shape (targets,), float64
        Fraction of the mean response's variance that comes back, at most 1. Its square root is the highest
        correlation with the mean response that a model may be expected to reach. Noise gives values about 0,
        also below; NaN for a target that is constant in a half, or so far below 0 that the formula has no
        value.

    Raises
    ------
    ValueError
        If there are fewer than two repeats or two samples, or a value is not finite.

    References
    ----------
    .. [1] Spearman, "Correlation calculated from faulty data", Br. J. Psychol. 3 (1910), 271-295.
    .. [2] Brown, "Some experimental results in the correlation of mental abilities", Br. J. Psychol. 3
       (1910), 296-322.
    """
    values = _checked("split_half_reliability", repeats)
    n_splits = check_integer("split_half_reliability", "n_splits", n_splits)
    if n_splits < 1:
        raise ValueError(f"split_half_reliability: n_splits must be at least 1, got {n_splits}")
    if check_integer("split_half_reliability", "seed", seed) < 0:
        raise ValueError(f"split_half_reliability: seed must not be negative, got {seed}")
    n_repeats = len(values)
    halves = torch.from_numpy(_halves(n_repeats, n_splits, seed)).to(values.device)  # (2, splits, repeats)
    first, second = halves[0], halves[1]
    reliability = torch.empty(values.shape[2], dtype=torch.float64, device=values.device)
    for targets in target_chunks(n_repeats * values.shape[1], values.shape[2]):
        products, _ = _products_of_repeats(values[:, :, targets])
        shared = torch.einsum("sr,trq,sq->ts", first, products, second)
        spread = torch.einsum("hsr,trq,hsq->hts", halves, products, halves).clamp_min(0).prod(0).sqrt()
        reliability[targets] = (shared / spread).mean(1)  # 0 / 0 is NaN: a half without variance
    return like(repeats, _carry(reliability, n_repeats / (n_repeats // 2)))


def explainable_variance(repeats: Array, *, bias_correction: bool = True, standardize: bool = False) -> Array:
    r"""Fraction of the variance of single responses that repeats of the same stimuli share.

    Without the correction this is the variance of the mean response over the mean variance of the responses,
    which noise alone raises to :math:`1 / R` with R repeats; with it, noise gives 0 on average:
    :math:`(R \cdot EV - 1) / (R - 1)`, which is signal power over total power of [1]_ and the corrected
    explainable variance of [2]_ and [3]_.

    Parameters
    ----------
    repeats : array or tensor of shape (repeats, samples, targets)
    bias_correction : bool, default True
    standardize : bool, default False
        Give the responses of each repeat mean 0 and variance 1 over samples first, as [3]_ do. The means of
        repeats are always taken off.

    Returns
    -------
    explainable : array or tensor of shape (targets,), float64
        At most 1. It is the highest R2 that a model of the stimuli may be expected to reach on single
        responses; :func:`spearman_brown` with factor n carries it to the mean of n of them. NaN for a target
        that never varies, or, standardized, does not vary in a repeat.

    Raises
    ------
    ValueError
        As :func:`split_half_reliability`.

    References
    ----------
    .. [1] Sahani & Linden, "How linear are auditory cortical responses?", NeurIPS 15 (2003), 125-132.
    .. [2] Schoppe et al., "Measuring the performance of neural models", Front. Comput. Neurosci. 10 (2016).
    .. [3] Dupre la Tour, Visconti di Oleggio Castello, Gallant, "The Voxelwise Encoding Model framework",
       Imaging Neurosci. 3 (2025).
    """
    values = _checked("explainable_variance", repeats)
    n_repeats = len(values)
    explained = torch.empty(values.shape[2], dtype=torch.float64, device=values.device)
    for targets in target_chunks(n_repeats * values.shape[1], values.shape[2]):
        products, constant = _products_of_repeats(values[:, :, targets])
        if standardize:
            scale = products.diagonal(dim1=1, dim2=2).sqrt()
            products = products / (scale[:, :, None] * scale[:, None, :])
            constant = constant.any(1)
        else:
            constant = constant.all(1)
        own = products.diagonal(dim1=1, dim2=2).sum(1)
        fraction = products.sum((1, 2)) / (n_repeats * own)
        explained[targets] = fraction.masked_fill(constant, math.nan)
    if bias_correction:
        explained = (n_repeats * explained - 1) / (n_repeats - 1)
    return like(repeats, explained)


def spearman_brown(reliability: Array | float, factor: float) -> Array:
    r"""Reliability of a measurement ``factor`` times as long: :math:`k r / (1 + (k - 1) r)`.

    Parameters
    ----------
    reliability : float or array
    factor : float
        Above 0: 2 from halves to the whole, 1 / n from the mean of n responses to single ones.

    Returns
    -------
    reliability : array or tensor, float64
        NaN where it is too far below 0 for the formula to have a value.

    Examples
    --------
    >>> float(spearman_brown(0.5, 2))
    0.6666666666666666
    """
    factor = check_positive("spearman_brown", "factor", factor)
    values = as_tensor("spearman_brown", "reliability", reliability).to(torch.float64)
    return like(reliability, _carry(values, factor))


@dataclass(frozen=True, kw_only=True)
class NormalizedScores:
    """Scores as a share of what noise allows; made by :func:`normalize_scores`.

    Attributes
    ----------
    scores : array or tensor of shape (targets,), float64
        NaN where the ceiling is too low, unknown, or there is no score. They may lie above 1: score and
        ceiling are both estimates.
    n_too_low : int
        Targets whose reliability is below the minimum.
    n_unknown : int
        Targets without a reliability or without a score.
    """

    scores: Array
    n_too_low: int
    n_unknown: int


def normalize_scores(
    scores: Array, reliability: Array, metric: str = "pearson", *, minimum: float = 0.1
) -> NormalizedScores:
    r"""Divide scores by the highest that noise lets them reach.

    Correlations are divided by :math:`\sqrt{\text{reliability}}` (Spearman's correction for attenuation, for
    a prediction without noise of its own), R2 and explained variance by the reliability.

    Parameters
    ----------
    scores, reliability : arrays or tensors of shape (targets,)
        The reliability of the very responses that were predicted: :func:`split_half_reliability` for the mean
        over all repeats, :func:`explainable_variance` for single responses.
    metric : {"pearson", "r2", "explained_variance"}
    minimum : float, default 0.1
        Targets with a lower reliability get NaN: a quotient of noise by noise says nothing, and would rule a
        mean over targets.

    References
    ----------
    .. [1] Spearman, "The proof and measurement of association between two things", Am. J. Psychol. 15 (1904),
       72-101.
    .. [2] Schoppe et al., Front. Comput. Neurosci. 10 (2016), 10.
    """
    check_choice("normalize_scores", "metric", metric, ("pearson", "r2", "explained_variance"))
    minimum = check_positive("normalize_scores", "minimum", minimum)
    values = as_tensor("normalize_scores", "scores", scores).to(torch.float64)
    share = as_tensor("normalize_scores", "reliability", reliability).to(values)
    if values.shape != share.shape:
        raise ValueError(
            "normalize_scores: scores and reliability must have the same shape, got "
            f"{tuple(values.shape)} and {tuple(share.shape)}"
        )
    unknown = share.isnan() | values.isnan()
    too_low = (share < minimum) & ~unknown
    ceiling = share.clamp_min(minimum)
    normalized = values / (ceiling.sqrt() if metric == "pearson" else ceiling)
    return NormalizedScores(
        scores=like(scores, normalized.masked_fill(unknown | too_low, math.nan)),
        n_too_low=int(too_low.sum()),
        n_unknown=int(unknown.sum()),
    )


def _checked(function: str, repeats: Any) -> Tensor:
    values = as_tensor(function, "repeats", repeats)
    if values.ndim != 3 or values.shape[0] < 2 or values.shape[1] < 2:
        raise ValueError(
            f"{function}: repeats must have shape (repeats, samples, targets) with at least 2 repeats and 2 "
            f"samples, got {tuple(values.shape)}"
        )
    check_finite_values(function, "repeats", values)
    return values


def _halves(n_repeats: int, n_splits: int, seed: int) -> np.ndarray:
    """Mark the repeats of both halves, (2, splits, repeats)."""
    half = n_repeats // 2
    if math.comb(n_repeats, half) * math.comb(n_repeats - half, half) // 2 <= n_splits:
        chosen = _all_halves(n_repeats, half)
    else:
        generator = np.random.default_rng(seed)
        orders = np.stack([generator.permutation(n_repeats) for _ in range(n_splits)])
        chosen = [(order[:half], order[half : 2 * half]) for order in orders]
    marks = np.zeros((2, len(chosen), n_repeats))
    for split, pair in enumerate(chosen):
        for side, members in enumerate(pair):
            marks[side, split, members] = 1
    return marks


def _all_halves(n_repeats: int, half: int) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for first in itertools.combinations(range(n_repeats), half):
        rest = sorted(set(range(n_repeats)) - set(first))
        for second in itertools.combinations(rest, half):
            if first < second:  # each pair once
                found.append((np.array(first), np.array(second)))
    return found


def _products_of_repeats(values: Tensor) -> tuple[Tensor, Tensor]:
    """Products of centered responses, (targets, repeats, repeats), and the constant ones, (targets, repeats).

    All that is asked of halves and means follows from these, without another look at the samples.
    """
    responses = values.to(torch.float64).permute(2, 0, 1)
    means = responses.mean(2, keepdim=True)
    centered = responses - means
    products = centered @ centered.mT
    constant = is_constant(products.diagonal(dim1=1, dim2=2), means[:, :, 0], values.shape[1])
    products = products.masked_fill(constant[:, :, None] | constant[:, None, :], 0.0)
    return products, constant


def _carry(reliability: Tensor, factor: float) -> Tensor:
    divisor = 1 + (factor - 1) * reliability
    return (factor * reliability / divisor).masked_fill(divisor <= 0, math.nan)
