"""The highest scores that noise allows, from repeats of the same stimuli."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurokern._check import check_integer
from neurokern.alignment._measures import Named, by_name, measure_of
from neurokern.alignment._patterns import as_patterns
from neurokern.encoding.ceilings import normalize_scores, spearman_brown, split_half_reliability

__all__ = ["response_ceilings"]

FITTED = ("ridge", "pls", "gaussian")  # methods that score each target


def response_ceilings(
    repeats: Named,
    *,
    method: str = "ridge",
    metric: str = "correlation",
    comparison: str = "spearman",
    n_splits: int = 100,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Highest scores that a noiseless model could be expected to reach, from repeats of the same samples.

    Parameters
    ----------
    repeats : mapping of str to array of shape (repeats, samples, [times,] targets)
        The table's responses must be the means over these repeats.
    method : {"ridge", "pls", "gaussian", "rsa", "trsa"}
        For the first three, the square root of each target's split-half reliability. For RSA that of the
        RDM's: the similarity of halves' RDMs, carried to the whole by the Spearman-Brown formula.
    metric, comparison : str
        As in :func:`alignment_table`.
    n_splits, seed : int
        As in :func:`neurokern.encoding.split_half_reliability`.

    Returns
    -------
    ceilings : dict of str to array of shape (targets,) or (times, targets), or (,) or (times,) for RSA
        NaN where the reliability is 0 or below.
    """
    function = "response_ceilings"
    if method not in (*FITTED, "rsa", "trsa"):
        raise ValueError(
            f"{function}: method must be 'ridge', 'pls', 'gaussian', 'rsa' or 'trsa', got {method!r}"
        )
    if check_integer(function, "n_splits", n_splits) < 1:
        raise ValueError(f"{function}: n_splits must be at least 1, got {n_splits}")
    found = {}
    for name, values in by_name(function, "repeats", repeats).items():
        tensor = as_patterns(function, f"repeats[{name!r}]", values)
        if tensor.ndim not in (3, 4) or len(tensor) < 2:
            raise ValueError(
                f"{function}: repeats[{name!r}] must have shape (repeats, samples, [times,] targets) with at "
                f"least 2 repeats, got {tuple(tensor.shape)}"
            )
        if method in FITTED:
            flat = split_half_reliability(tensor.flatten(2), n_splits=n_splits, seed=seed)
            reliability = flat.reshape(tensor.shape[2:])
        else:
            reliability = _rdm_reliability(tensor, str(method), metric, comparison, n_splits, seed)
        found[name] = reliability.where(reliability > 0, math.nan).sqrt().cpu().numpy()
    return found


def _rdm_reliability(
    repeats: Tensor, method: str, metric: str, comparison: str, n_splits: int, seed: int
) -> Tensor:
    measure = measure_of(method, metric, comparison)
    generator = np.random.default_rng(seed)
    half = len(repeats) // 2
    shape = repeats.shape[2:-1]
    by_time = repeats.reshape(*repeats.shape[:2], -1, repeats.shape[-1]).movedim(2, 1)
    total = by_time.new_zeros(by_time.shape[1])
    for _ in range(n_splits):
        order = torch.from_numpy(generator.permutation(len(repeats)))
        first, second = (by_time[part].mean(0) for part in (order[:half], order[half : 2 * half]))
        pairs = zip(first, second, strict=True)
        total += torch.cat([measure.compare(measure.prepare(a), measure.prepare(b)) for a, b in pairs])
    return torch.as_tensor(spearman_brown(total / n_splits, len(repeats) / half)).reshape(shape)


class Ceilings:
    """Ceilings of regions, checked, and what they make of scores."""

    def __init__(
        self,
        function: str,
        ceilings: Mapping[str, Any] | None,
        regions: dict[str, Tensor],
        *,
        per_target: bool,
    ) -> None:
        self.has_time = any(Y.ndim == 3 for Y in regions.values())
        self.values: dict[str, np.ndarray] = {}
        if ceilings is None:
            return
        if unknown := sorted(set(ceilings) - set(regions)):
            raise ValueError(f"{function}: ceilings must be of the regions {list(regions)}, got {unknown}")
        for name, given in ceilings.items():
            Y = regions[name]
            shape = Y.shape[1:] if per_target else Y.shape[1:-1]
            array = np.asarray(given.cpu() if isinstance(given, Tensor) else given, dtype=np.float64)
            if array.ndim and array.shape != tuple(shape):
                raise ValueError(
                    f"{function}: ceilings[{name!r}] must be a number or have shape {tuple(shape)}, got "
                    f"{array.shape}"
                )
            if (array < 0).any() or np.isinf(array).any():
                raise ValueError(f"{function}: ceilings[{name!r}] must be numbers of at least 0 (or NaN)")
            n_times = Y.shape[1] if Y.ndim == 3 else 1
            full = np.broadcast_to(array, shape)
            self.values[name] = full.reshape(n_times, -1) if per_target else full.reshape(n_times)

    def of_targets(self, region: str, time: int, scores: np.ndarray) -> tuple[float, float]:
        """Return the mean ceiling and the mean normalized score of targets."""
        if region not in self.values:
            return math.nan, math.nan
        ceiling = self.values[region][time]
        normalized = normalize_scores(scores, ceiling**2).scores
        return mean_of(ceiling), mean_of(np.asarray(normalized))

    def of_score(self, region: str, time: int, score: float) -> tuple[float, float]:
        """Return the ceiling and the score's share of it."""
        if region not in self.values:
            return math.nan, math.nan
        ceiling = float(self.values[region][time])
        return ceiling, score / ceiling if ceiling > 0 else math.nan


def mean_of(values: np.ndarray) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else math.nan
