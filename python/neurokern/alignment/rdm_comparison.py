"""How alike RDMs are, and how alike they could be at best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from neurokern._check import check_choice
from neurokern.alignment._patterns import BLOCK_ELEMENTS, center_kernel
from neurokern.alignment._ranks import average_ranks, kendall_tau_a
from neurokern.alignment.rdm import n_conditions, square_rdm
from neurokern.encoding._arrays import as_tensor, like

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["RDM_COMPARISONS", "compare_rdms", "rdm_noise_ceiling"]

RDM_COMPARISONS = (
    "pearson",
    "spearman",
    "kendall",
    "cosine",
    "whitened-pearson",
    "whitened-cosine",
)


def compare_rdms(first: Array, second: Array, method: str = "spearman") -> Array:
    r"""Similarity of each RDM of one array to each of another.

    Parameters
    ----------
    first : array or tensor of shape (..., pairs)
        Such as layers.
    second : array or tensor of shape (..., pairs)
        Such as regions x times. The same conditions in the same order.
    method : str
        "pearson" and "spearman" correlation, "kendall" (tau-a, which unlike the others does not prefer models
        that predict ties [1]_), "cosine", or "whitened-pearson" and "whitened-cosine", which weigh the pairs
        by the covariance that noise gives their estimates [2]_. The last equals linear CKA of the patterns
        when the RDMs are squared Euclidean distances.

    Returns
    -------
    similarity : array or tensor of shape first.shape[:-1] + second.shape[:-1], float64
        NaN where an RDM holds NaN, or (but for "kendall") never varies: it has no correlation with anything.

    Raises
    ------
    ValueError
        If the numbers of pairs differ, or belong to no number of conditions.

    References
    ----------
    .. [1] Nili et al., "A toolbox for representational similarity analysis", PLoS Comput. Biol. 10 (2014),
       e1003553.
    .. [2] Diedrichsen et al., "Comparing representational geometries using whitened unbiased-distance-matrix
       similarity", Neurons Behav. Data Anal. Theory (2021), arXiv:2007.02789.

    Examples
    --------
    >>> round(float(compare_rdms(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]), "spearman")), 6)
    1.0
    """
    check_choice("compare_rdms", "method", method, RDM_COMPARISONS)
    mine = as_tensor("compare_rdms", "first", first).to(torch.float64)
    other = as_tensor("compare_rdms", "second", second).to(mine)
    for rdm in (mine, other):
        n_conditions("compare_rdms", rdm)
    if mine.shape[-1] != other.shape[-1]:
        raise ValueError(
            "compare_rdms: first and second must be RDMs of the same conditions, got "
            f"{n_conditions('compare_rdms', mine)} and {n_conditions('compare_rdms', other)} conditions"
        )
    shape = mine.shape[:-1] + other.shape[:-1]
    rows, columns = mine.reshape(-1, mine.shape[-1]), other.reshape(-1, mine.shape[-1])
    similarity = mine.new_empty(shape)
    if similarity.numel():
        similarity = compare_rows(rows, columns, method).reshape(shape)
    return like(first, similarity)


def rdm_noise_ceiling(rdms: Array, method: str = "spearman") -> tuple[float, float]:
    """Range in which the mean similarity of the true RDM to those of the subjects lies, after [1]_.

    Parameters
    ----------
    rdms : array or tensor of shape (subjects, pairs)
        RDMs of one region in at least two subjects (or runs, or halves of the data).
    method : str
        As in :func:`compare_rdms`.

    Returns
    -------
    lower : float
        Mean similarity of each subject's RDM to the mean RDM of the others.
    upper : float
        The same with the mean of all, which each subject is a part of. Means are taken of RDMs brought to one
        scale as the method sees it: ranks, z-scores, or length 1.

    Raises
    ------
    ValueError
        If there are fewer than two RDMs, or one of them holds NaN or never varies.

    References
    ----------
    .. [1] Nili et al., PLoS Comput. Biol. 10 (2014), e1003553.
    """
    check_choice("rdm_noise_ceiling", "method", method, RDM_COMPARISONS)
    values = as_tensor("rdm_noise_ceiling", "rdms", rdms).to(torch.float64)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(
            "rdm_noise_ceiling: rdms must have shape (subjects, pairs) with at least 2 subjects, got "
            f"{tuple(values.shape)}"
        )
    n_conditions("rdm_noise_ceiling", values)
    scaled = _to_one_scale(values, method)
    if not bool(torch.isfinite(scaled).all()):
        raise ValueError("rdm_noise_ceiling: rdms must be finite and vary over pairs; drop that subject")
    total = scaled.sum(0)
    upper = compare_rows(scaled, total[None], method).mean()
    others = torch.cat(
        [compare_rows(scaled[k : k + 1], (total - own)[None], method) for k, own in enumerate(scaled)]
    )
    return float(others.mean()), float(upper)


def compare_rows(rows: Tensor, columns: Tensor, method: str) -> Tensor:
    """Similarities (rows, columns) of RDMs (rows, pairs) and (columns, pairs)."""
    return compare_scored(score_rows(rows, method), score_rows(columns, method), method)


class Scored(NamedTuple):
    """RDMs in the form that a method compares, and which of them are not finite."""

    values: Tensor  # (rdms, entries)
    bad: Tensor  # (rdms,)


def score_rows(rdms: Tensor, method: str) -> Scored:
    """Do once what is the same for every comparison of RDMs (rdms, pairs)."""
    bad = ~torch.isfinite(rdms).all(1)
    return Scored(rdms.nan_to_num() if method == "kendall" else _scored(rdms, method), bad)


def compare_scored(a: Scored, b: Scored, method: str) -> Tensor:
    """Return the similarity of each RDM of ``a`` to each of ``b``."""
    similarity = _kendall(a.values, b.values) if method == "kendall" else _cosines(a.values, b.values)
    return similarity.masked_fill(a.bad[:, None] | b.bad[None], math.nan)


def _scored(rdms: Tensor, method: str) -> Tensor:
    """Return vectors of which ``method`` is the cosine; zeros where there is none."""
    rdms = rdms.nan_to_num()
    if method == "spearman":
        rdms = average_ranks(rdms)
    if method in ("pearson", "spearman", "whitened-pearson"):
        mean = rdms.mean(1, keepdim=True)
        constant = (rdms - mean).abs().amax(1, keepdim=True) <= 2.0**-48 * mean.abs()
        rdms = (rdms - mean).masked_fill(constant, 0.0)
    if method.startswith("whitened"):
        # The whitened product of two RDMs is the product of their centered kernels (Diedrichsen et al.).
        rdms = center_kernel(-0.5 * square_rdm(rdms)).flatten(1)
    return rdms


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    lengths = a.norm(dim=1)[:, None] * b.norm(dim=1)[None]
    return torch.where(lengths > 0, (a @ b.mT / lengths).clamp(-1, 1), math.nan)


def _kendall(rows: Tensor, columns: Tensor) -> Tensor:
    step = max(1, BLOCK_ELEMENTS // (8 * columns.numel()))
    parts = []
    for first in range(0, len(rows), step):
        block = rows[first : first + step]
        shape = (len(block), len(columns), rows.shape[1])
        both = block[:, None].expand(shape), columns[None].expand(shape)
        parts.append(kendall_tau_a(*(side.reshape(-1, rows.shape[1]) for side in both)).view(shape[:2]))
    return torch.cat(parts)


def _to_one_scale(rdms: Tensor, method: str) -> Tensor:
    if method in ("spearman", "kendall"):
        return average_ranks(rdms)
    if method in ("pearson", "whitened-pearson"):
        rdms = rdms - rdms.mean(1, keepdim=True)
    return rdms / _scored(rdms, method).norm(dim=1, keepdim=True)
