"""Which targets are predicted better than by chance: permutations of blocks of time, false discoveries."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_choice, check_integer
from neurokern.encoding._arrays import as_tensor, check_finite_values, like, run_lengths
from neurokern.encoding.scores import is_constant

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["PermutationTest", "adjust_p_values", "permutation_test"]

_TABLE_ELEMENTS = 1 << 22  # float64 products of stretches held at a time (32 MiB)
_MOST_BLOCKS = 512  # more would make the table of products larger than the work that it saves
_TIE = 1e-9  # correlations that differ by less are the same arrangement, summed in another order


@dataclass(frozen=True, kw_only=True)
class PermutationTest:
    """Correlations and how often chance reaches them; made by :func:`permutation_test`.

    Attributes
    ----------
    scores : array or tensor of shape (targets,), float64
        Pearson correlation of prediction and target. NaN for a constant target, 0 for a constant prediction.
    p_values : array or tensor of shape (targets,), float64
        One-sided: share of arrangements, the observed one included, with a correlation at least as high.
        NaN where the score is.
    p_family : array or tensor of shape (targets,), float64
        The same against the highest correlation of all targets in each arrangement, which bounds the chance
        of a single false discovery among them.
    n_permutations : int
    """

    scores: Array
    p_values: Array
    p_family: Array
    n_permutations: int


def permutation_test(
    predictions: Array,
    targets: Array,
    *,
    method: str = "blocks",
    block_size: int | None = None,
    runs: Array | None = None,
    n_permutations: int = 1000,
    seed: int = 0,
) -> PermutationTest:
    r"""Test for each target whether its prediction is better than that of another stretch of time.

    Predictions must come from held-out samples. They stay as they are, while the targets are rearranged in
    time in stretches that keep their autocorrelation, which a permutation of single samples would destroy
    and so call chance a discovery. All targets are rearranged alike, so that their dependence stays, too.

    Parameters
    ----------
    predictions, targets : arrays or tensors of shape (samples, targets)
    method : {"blocks", "circular"}
        "blocks" permutes blocks of ``block_size`` samples; "circular" shifts each run by a random number of
        samples, at least ``block_size``, in a circle.
    block_size : int, optional
        Longer than the noise is correlated. Default: a tenth of the shortest run, at least 1. Samples behind
        the last whole block of a run keep their place. The length of the runs with ``runs=None`` permutes
        whole runs.
    runs : array of shape (samples,), optional
        Label of each sample's run. Nothing is moved across runs.
    n_permutations : int, default 1000
        p-values are at least 1 / (n_permutations + 1).
    seed : int, default 0

    Returns
    -------
    test : PermutationTest

    Raises
    ------
    ValueError
        If shapes do not match, a value is not finite, or there is nothing to rearrange.

    Warns
    -----
    UserWarning
        If there are fewer arrangements than permutations: the smallest p-value is then not reached.

    Notes
    -----
    p-values are :math:`(1 + \#\{r^* \ge r\}) / (1 + n)` [1]_. A rearranged target keeps its mean and
    variance, so R2 and explained variance order the arrangements as the correlation does, and have the same
    p-values.
    The products of all pairs of blocks (by FFT for shifts) are formed once; each arrangement is a sum of a
    few of them, so that the work per permutation is that of blocks, not of samples.

    References
    ----------
    .. [1] Phipson & Smyth, "Permutation p-values should never be zero", Stat. Appl. Genet. Mol. Biol. 9
       (2010), 39.
    .. [2] Nichols & Holmes, "Nonparametric permutation tests for functional neuroimaging", Hum. Brain Mapp.
       15 (2002), 1-25: the highest statistic over targets.
    """
    function = "permutation_test"
    check_choice(function, "method", method, ("blocks", "circular"))
    predicted, observed = _checked_pair(function, predictions, targets)
    n_permutations = check_integer(function, "n_permutations", n_permutations)
    if n_permutations < 1:
        raise ValueError(f"{function}: n_permutations must be at least 1, got {n_permutations}")
    lengths = run_lengths(function, runs, len(observed))
    size = (
        max(1, min(lengths) // 10)
        if block_size is None
        else check_integer(function, "block_size", block_size)
    )
    if size < 1:
        raise ValueError(f"{function}: block_size must be at least 1, got {size}")
    if check_integer(function, "seed", seed) < 0:
        raise ValueError(f"{function}: seed must not be negative, got {seed}")
    generator = np.random.default_rng(seed)
    plan: _Blocks | _Shifts
    if method == "blocks":
        plan = _Blocks(lengths, size, n_permutations, generator)
    else:
        plan = _Shifts(lengths, size, n_permutations, generator)
    if plan.log_arrangements < math.log(n_permutations + 1):
        warnings.warn(
            f"permutation_test: the stretches can be arranged in {math.exp(plan.log_arrangements):.0f} ways, "
            f"fewer than {n_permutations} permutations; p-values are coarse: use shorter stretches",
            stacklevel=2,
        )
    scores, reached, highest = _count(plan, predicted, observed, n_permutations)
    no_score = scores.isnan()
    p_values = ((1 + reached) / (1 + n_permutations)).masked_fill(no_score, math.nan)
    above = (highest[None, :] >= scores[:, None] - _TIE).sum(1, dtype=torch.float64)
    p_family = ((1 + above) / (1 + n_permutations)).masked_fill(no_score, math.nan)
    return PermutationTest(
        scores=like(targets, scores),
        p_values=like(targets, p_values),
        p_family=like(targets, p_family),
        n_permutations=n_permutations,
    )


def adjust_p_values(p_values: Array) -> Array:
    r"""Adjust p-values for the false discovery rate by Benjamini and Hochberg's procedure.

    Calling all targets with an adjusted value of at most q discoveries keeps the expected share of false ones
    at or below q, for p-values that are independent or positively dependent (neighboring voxels).

    Parameters
    ----------
    p_values : array or tensor of any shape
        Within [0, 1]; NaN is left out, and stays.

    Returns
    -------
    adjusted : array or tensor, float64
        The smallest q at which each is a discovery: :math:`\min_{j \ge i} p_{(j)} m / j`.

    References
    ----------
    .. [1] Benjamini & Hochberg, "Controlling the false discovery rate", J. R. Stat. Soc. B 57
       (1995), 289-300.

    Examples
    --------
    >>> adjust_p_values([0.01, 0.02, 0.5]).tolist()
    [0.03, 0.03, 0.5]
    """
    values = as_tensor("adjust_p_values", "p_values", p_values).to(torch.float64)
    flat = values.flatten()
    kept = ~flat.isnan()
    known = flat[kept]
    if ((known < 0) | (known > 1)).any():
        raise ValueError("adjust_p_values: p_values must lie in [0, 1], got values outside")
    ordered, order = known.sort(descending=True, stable=True)
    n = len(known)
    ranks = torch.arange(n, 0, -1, dtype=torch.float64, device=flat.device)
    adjusted = torch.empty_like(known)
    if n:
        adjusted[order] = (ordered * n / ranks).cummin(0).values
    result = torch.full_like(flat, math.nan)
    result[kept] = adjusted
    return like(p_values, result.reshape(values.shape))


class _Blocks:
    """Permutations of blocks within runs."""

    def __init__(
        self, lengths: Sequence[int], size: int, n_permutations: int, generator: np.random.Generator
    ) -> None:
        counts = [length // size for length in lengths]
        if max(counts) < 2:
            raise ValueError(
                f"permutation_test: block_size must leave at least 2 blocks in a run, got {size} with a "
                f"longest run of {max(lengths)} samples"
            )
        starts = np.cumsum([0, *lengths[:-1]])
        first = np.concatenate([s + size * np.arange(n) for s, n in zip(starts, counts, strict=True)])
        self.rows = torch.from_numpy(first[:, None] + np.arange(size))  # (blocks, size) of samples
        kept = np.ones(sum(lengths), dtype=bool)
        kept[self.rows.numpy().ravel()] = False
        self.fixed = torch.from_numpy(np.flatnonzero(kept))
        bounds = np.cumsum([0, *counts])
        self.orders = np.empty((n_permutations, len(first)), dtype=np.int64)
        for start, stop in itertools.pairwise(bounds):
            within = generator.random((n_permutations, stop - start)).argsort(axis=1)
            self.orders[:, start:stop] = start + within
        self.log_arrangements = sum(math.lgamma(n + 1) for n in counts)
        self.n_blocks = len(first)
        table = self.n_blocks**2 if self.n_blocks <= _MOST_BLOCKS else sum(lengths)
        self.per_target = table + 4 * sum(lengths) + n_permutations

    def products(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """Return the sums of products, (permutations, targets), of centered (samples, targets)."""
        fixed = (predicted[self.fixed] * observed[self.fixed]).sum(0)
        p, y = predicted[self.rows], observed[self.rows]  # (blocks, size, targets)
        if self.n_blocks > _MOST_BLOCKS:
            orders = torch.from_numpy(self.orders)
            return torch.stack([(p * y[order]).sum((0, 1)) for order in orders]) + fixed
        table = p.permute(2, 0, 1) @ y.permute(2, 1, 0)  # (targets, blocks, blocks)
        rows = table.permute(1, 2, 0).reshape(self.n_blocks**2, -1).contiguous()
        index = torch.from_numpy(np.arange(self.n_blocks) * self.n_blocks + self.orders)
        return _sum_rows(rows, index) + fixed


class _Shifts:
    """Circular shifts within runs."""

    def __init__(
        self, lengths: Sequence[int], size: int, n_permutations: int, generator: np.random.Generator
    ) -> None:
        choices = [length - 2 * size + 1 for length in lengths]
        if min(choices) < 1:
            raise ValueError(
                f"permutation_test: block_size must be at most half of the shortest run ({min(lengths)} "
                f"samples) for circular shifts, got {size}"
            )
        self.lengths = list(lengths)
        drawn = [size + generator.integers(0, n, n_permutations) for n in choices]
        starts = np.cumsum([0, *lengths[:-1]])
        self.index = torch.from_numpy(np.stack([s + d for s, d in zip(starts, drawn, strict=True)], axis=1))
        self.log_arrangements = sum(math.log(n) for n in choices)
        self.per_target = 6 * sum(lengths) + n_permutations

    def products(self, predicted: Tensor, observed: Tensor) -> Tensor:
        """Return the sums of products, (permutations, targets), of centered (samples, targets)."""
        tables = []
        for p, y in zip(predicted.split(self.lengths), observed.split(self.lengths), strict=True):
            spectrum = torch.fft.rfft(p, dim=0) * torch.fft.rfft(y, dim=0).conj()
            tables.append(torch.fft.irfft(spectrum, n=len(p), dim=0))  # row d: sum over t of p[t] y[t - d]
        return _sum_rows(torch.cat(tables), self.index)


def _sum_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Sum the rows that each line of ``index`` names, without gathering them."""
    return torch.nn.functional.embedding_bag(index.to(rows.device), rows, mode="sum")


def _checked_pair(function: str, predictions: Any, targets: Any) -> tuple[Tensor, Tensor]:
    observed = as_tensor(function, "targets", targets)
    predicted = as_tensor(function, "predictions", predictions).to(observed.device)
    if observed.ndim != 2 or predicted.shape != observed.shape or len(observed) < 2:
        raise ValueError(
            f"{function}: predictions and targets must have the same shape (samples, targets) with at least "
            f"2 samples, got {tuple(predicted.shape)} and {tuple(observed.shape)}"
        )
    check_finite_values(function, "predictions", predicted)
    check_finite_values(function, "targets", observed)
    return predicted, observed


def _count(
    plan: _Blocks | _Shifts, predicted: Tensor, observed: Tensor, n_permutations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores, how many arrangements reach them, and the highest score of each arrangement."""
    n_targets = observed.shape[1]
    scores = torch.empty(n_targets, dtype=torch.float64, device=observed.device)
    reached = torch.empty_like(scores)
    highest = torch.full((n_permutations,), -math.inf, dtype=torch.float64, device=observed.device)
    step = max(1, _TABLE_ELEMENTS // plan.per_target)
    for first in range(0, n_targets, step):
        columns = slice(first, first + step)
        p, y, norm = _centered(predicted[:, columns], observed[:, columns])
        scores[columns] = (p * y).sum(0) / norm
        permuted = plan.products(p, y) / norm  # NaN for constant targets
        reached[columns] = (permuted >= scores[columns] - _TIE).sum(0, dtype=torch.float64)
        highest = torch.maximum(highest, permuted.nan_to_num(nan=-math.inf).amax(1))
    return scores, reached, highest


def _centered(predicted: Tensor, observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Center both; the norm makes a sum of products a correlation: NaN for constant targets."""
    p, y = predicted.to(torch.float64), observed.to(torch.float64)
    p_mean, y_mean = p.mean(0), y.mean(0)
    p, y = p - p_mean, y - y_mean
    p_squares, y_squares = p.square().sum(0), y.square().sum(0)
    flat = is_constant(p_squares, p_mean, len(p))
    constant = is_constant(y_squares, y_mean, len(y))
    p = p.masked_fill(flat, 0.0)
    norm = (p_squares * y_squares).sqrt().masked_fill(flat, 1.0).masked_fill(constant, math.nan)
    return p, y, norm
