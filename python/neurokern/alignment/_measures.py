"""Similarities of layers and regions in two steps, so that each layer and region is prepared once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neurokern._check import check_choice
from neurokern.alignment._patterns import center
from neurokern.alignment.cka import compare_prepared, prepare_cka
from neurokern.alignment.geo_topological import geo_topological
from neurokern.alignment.rdm import compute_rdm
from neurokern.alignment.rdm_comparison import RDM_COMPARISONS, compare_scored, score_rows
from neurokern.alignment.shape import leading_basis, nuclear_products, unit_shape

Named = Mapping[str, Any] | Iterable[tuple[str, Any]]
Similarity = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Measure:
    """A similarity in two steps, so that each layer and region is prepared once."""

    prepare: Callable[[Tensor], Any]
    compare: Callable[[Any, Any], Tensor]  # layer (samples, p) with region (times, samples, q): (times,)


def by_name(function: str, what: str, values: Named) -> dict[str, Any]:
    """Return arrays by name, or raise for none, for a name that comes twice, and for arrays without names."""
    pairs = list(values.items() if isinstance(values, Mapping) else values)
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
        raise TypeError(
            f"{function}: {what} must be a mapping of names to arrays, got {type(values).__name__}"
        )
    names = [str(name) for name, _ in pairs]
    if not names:
        raise ValueError(f"{function}: {what} must hold at least one array, got none")
    if len(set(names)) < len(names):
        again = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{function}: {what} must have different names, got {again!r} twice")
    return dict(zip(names, (value for _, value in pairs), strict=True))


def measure_of(method: str | Similarity, metric: str, comparison: str) -> Measure:
    if callable(method):
        function = method
        return Measure(lambda X: X, lambda X, Y: torch.tensor([float(function(X, y)) for y in Y]).double())
    if method in ("rsa", "trsa"):
        check_choice("alignment_table", "comparison", comparison, RDM_COMPARISONS)
        return Measure(
            lambda X: score_rows(_rdm_rows(X, metric, geometric=method == "rsa"), comparison),
            lambda a, b: compare_scored(a, b, comparison)[0],
        )
    if method in ("cka", "debiased-cka"):
        return Measure(lambda X: prepare_cka(X, debiased=method == "debiased-cka"), compare_prepared)
    if method == "procrustes":
        return Measure(unit_shape, nuclear_products)
    return Measure(
        _leading_bases, lambda one, all_times: torch.stack([_agreement(one[0], y) for y in all_times])
    )


def _rdm_rows(X: Tensor, metric: str, *, geometric: bool) -> Tensor:
    """RDMs (times, pairs), geo-topological unless ``geometric``; those with NaN stay NaN."""
    rdms = torch.as_tensor(compute_rdm(X, metric))
    rdms = rdms.reshape(-1, rdms.shape[-1])
    if geometric:
        return rdms
    bad = rdms.isnan().any(-1, keepdim=True)
    return geo_topological(rdms.masked_fill(bad, 0.0)).masked_fill(bad, math.nan)


def _leading_bases(X: Tensor) -> list[Tensor]:
    return [leading_basis(one) for one in center(X).reshape(-1, *X.shape[-2:])]


def _agreement(first: Tensor, second: Tensor) -> Tensor:
    return torch.linalg.svdvals(first.mT @ second).clamp(0, 1).mean()  # NaN of none
