"""Topological RSA: RDMs of which only the middle range of distances counts, or paths between neighbors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neurokern._check import check_flag, check_fraction, check_integer
from neurokern.alignment._ranks import average_ranks
from neurokern.alignment.rdm import n_conditions, square_rdm
from neurokern.encoding._arrays import as_tensor, check_finite_values, like

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["geo_topological", "geodesic_rdm"]


def geo_topological(rdm: Array, lower: float = 0.2, upper: float = 0.8) -> Array:
    r"""Flatten the smallest and the largest dissimilarities of an RDM (the RGTM of [1]_).

    Dissimilarities become ranks within [0, 1] first, so that only their order counts. With their quantiles
    :math:`d_l` and :math:`d_u` at ``lower`` and ``upper``, those below :math:`d_l` become 0 (noise decides on
    them), those above :math:`d_u` become 1 (subjects differ in them), and in between :math:`(d - d_l) / (d_u
    - d_l)`. What remains is who neighbors whom, and the geometry of middle distances.

    Parameters
    ----------
    rdm : array or tensor of shape (..., pairs)
    lower, upper : float within [0, 1]
        0 and 1 leave the ranks alone; two equal numbers make an adjacency matrix.

    Returns
    -------
    rgtm : array or tensor of shape (..., pairs), float64
        An RDM to be compared with others (:func:`compare_rdms`). An RDM that never varies gives zeros.

    Raises
    ------
    ValueError
        If ``rdm`` is no RDM or not finite, or the thresholds are not in order.

    References
    ----------
    .. [1] Lin & Kriegeskorte, "The topology and geometry of neural representations", PNAS 121 (2024),
       arXiv:2309.11028.
    """
    function = "geo_topological"
    lower, upper = check_fraction(function, "lower", lower), check_fraction(function, "upper", upper)
    if lower > upper:
        raise ValueError(f"{function}: lower must not lie above upper, got {lower} and {upper}")
    ranks = _unit_ranks(_checked(function, rdm))
    low, high = _quantiles(ranks, lower), _quantiles(ranks, upper)
    middle = (ranks - low) / (high - low)
    flat = torch.where(ranks > low, 1.0, 0.0).to(ranks)
    return like(rdm, torch.where(high > low, middle.clamp(0, 1), flat))


def geodesic_rdm(
    rdm: Array, *, keep: float = 0.8, neighbors: int | None = None, ranked: bool = True
) -> Array:
    """Shortest paths through the graph of similar conditions (the RGDM of [1]_).

    Dissimilarities become ranks within [0, 1]; the edges of the graph are the smallest of them; the new
    dissimilarity of two conditions is the length of the shortest path.

    Parameters
    ----------
    rdm : array or tensor of shape (..., pairs)
        Also a :func:`geo_topological` one.
    keep : float within [0, 1], default 0.8
        Quantile of the dissimilarities up to which pairs are edges; 1 keeps all.
    neighbors : int, optional
        Edges are those between a condition and its so many nearest ones (of either end) in place of ``keep``.
    ranked : bool, default True
        Give the ranks of the path lengths, within [0, 1], in which conditions without a path share the
        largest. False gives lengths, infinite where there is no path.

    Returns
    -------
    rgdm : array or tensor of shape (..., pairs), float64

    Raises
    ------
    ValueError
        If ``rdm`` is no RDM or not finite, or ``neighbors`` is not within [1, conditions).

    Notes
    -----
    Floyd and Warshall's algorithm, O(conditions^3) for all RDMs of the batch at once.

    References
    ----------
    .. [1] Lin & Kriegeskorte, PNAS 121 (2024), arXiv:2309.11028.
    """
    function = "geodesic_rdm"
    keep = check_fraction(function, "keep", keep)
    check_flag(function, "ranked", ranked)
    ranks = _unit_ranks(_checked(function, rdm))
    size = n_conditions(function, ranks)
    lengths = square_rdm(ranks)
    if neighbors is None:
        edges = lengths <= _quantiles(ranks, keep)[..., None]
    else:
        if not 1 <= check_integer(function, "neighbors", neighbors) < size:
            raise ValueError(f"{function}: neighbors must lie within [1, {size}), got {neighbors!r}")
        nearest = lengths.diagonal_scatter(lengths.new_full(lengths.shape[:-1], math.inf), 0, -2, -1)
        edges = nearest <= nearest.kthvalue(neighbors, dim=-1, keepdim=True).values
        edges = edges | edges.mT
    paths = torch.where(edges, lengths, math.inf)
    paths.diagonal(dim1=-2, dim2=-1).zero_()
    for via in range(size):
        paths = torch.minimum(paths, paths[..., :, via, None] + paths[..., via, None, :])
    row, column = torch.triu_indices(size, size, 1, device=paths.device)
    pairs = paths[..., row, column]
    return like(rdm, _unit_ranks(pairs) if ranked else pairs)


def _checked(function: str, rdm: Array) -> Tensor:
    values = as_tensor(function, "rdm", rdm).to(torch.float64)
    n_conditions(function, values)
    check_finite_values(function, "rdm", values)
    return values


def _unit_ranks(values: Tensor) -> Tensor:
    """Ranks within [0, 1]; zeros where all are equal."""
    ranks = average_ranks(values)
    low, high = ranks.amin(-1, keepdim=True), ranks.amax(-1, keepdim=True)
    return torch.where(high > low, (ranks - low) / (high - low), 0.0)


def _quantiles(values: Tensor, share: float) -> Tensor:
    """Quantile of the last axis, kept, with linear interpolation; also of more than torch.quantile takes."""
    ordered = values.sort(-1).values
    place = share * (values.shape[-1] - 1)
    below = math.floor(place)
    above = min(below + 1, values.shape[-1] - 1)
    return torch.lerp(ordered[..., below, None], ordered[..., above, None], place - below)
