"""How sure an RSA is: models against subjects, resampled over subjects and conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neurokern._check import check_choice, check_integer
from neurokern.alignment.rdm import n_conditions, square_rdm
from neurokern.alignment.rdm_comparison import RDM_COMPARISONS, compare_rdms, compare_rows, rdm_noise_ceiling
from neurokern.encoding._arrays import as_tensor

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["RsaResult", "evaluate_models"]

RESAMPLED = ("both", "subjects", "conditions")
_FEWEST_CONDITIONS = 3  # two have one dissimilarity, which has no correlation with anything


@dataclass(frozen=True, kw_only=True)
class RsaResult:
    """Result of :func:`evaluate_models`.

    Attributes
    ----------
    scores : array of shape (models,), float64
        Mean similarity to the subjects' RDMs.
    low, high : arrays of shape (models,), float64
        Percentile bootstrap interval.
    samples : array of shape (bootstrap samples, models), float64
    ceiling : tuple of float or None
        Lower and upper noise ceiling (:func:`rdm_noise_ceiling`); None for a single subject.
    """

    scores: np.ndarray
    low: np.ndarray
    high: np.ndarray
    samples: np.ndarray
    ceiling: tuple[float, float] | None

    def compare(self, first: int, second: int) -> tuple[float, float]:
        """Return the difference of two models' scores and its two-sided bootstrap p value."""
        change = self.samples[:, first] - self.samples[:, second]
        below, n = int((change <= 0).sum()), len(change)
        above = int((change >= 0).sum())
        p_value = min(1.0, 2 * (min(below, above) + 1) / (n + 1))
        return float(self.scores[first] - self.scores[second]), p_value

    def table(self, names: Sequence[str]) -> pd.DataFrame:
        """Return a row per model: its name, score, interval and the noise ceilings."""
        lower, upper = self.ceiling or (np.nan, np.nan)
        columns = {"model": list(names), "score": self.scores, "low": self.low, "high": self.high}
        return pd.DataFrame(columns).assign(ceiling_lower=lower, ceiling_upper=upper)


def evaluate_models(
    models: Array,
    subjects: Array,
    method: str = "spearman",
    *,
    resample: str = "both",
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RsaResult:
    """Compare model RDMs with those of subjects, with bootstrap intervals and a noise ceiling.

    Parameters
    ----------
    models : array or tensor of shape (models, pairs)
    subjects : array or tensor of shape (subjects, pairs)
    method : str
        As in :func:`compare_rdms`.
    resample : {"both", "subjects", "conditions"}
        What another experiment would draw anew. Over subjects the result speaks of the population of
        subjects, over conditions of that of stimuli. "both" is on the safe side: its variance counts the
        measurement noise more than once [1]_.
    n_bootstrap : int, default 1000
    confidence : float, default 0.95
    seed : int, default 0

    Returns
    -------
    result : RsaResult

    Raises
    ------
    ValueError
        If arrays do not fit, RDMs hold NaN or never vary, or there is nothing to resample.

    Notes
    -----
    A condition that is drawn twice has no dissimilarity to itself: those pairs are left out.

    References
    ----------
    .. [1] Schuett, Kipnis, Diedrichsen, Kriegeskorte, "Statistical inference on representational
       geometries", eLife 12 (2023), e82566.
    """
    function = "evaluate_models"
    check_choice(function, "resample", resample, RESAMPLED)
    check_choice(function, "method", method, RDM_COMPARISONS)
    n_bootstrap = check_integer(function, "n_bootstrap", n_bootstrap)
    if n_bootstrap < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"{function}: n_bootstrap must be at least 1 and confidence within (0, 1), got {n_bootstrap} and "
            f"{confidence!r}"
        )
    rdms = _rows(function, "models", models), _rows(function, "subjects", subjects)
    similarity = torch.as_tensor(compare_rdms(*rdms, method))
    if not bool(torch.isfinite(similarity).all()):
        raise ValueError(f"{function}: RDMs must be finite and vary over pairs, got one that does not")
    if resample != "subjects" and method.startswith("whitened"):
        raise ValueError(f"{function}: {method!r} needs all pairs of conditions; use resample='subjects'")
    if resample == "subjects" and len(rdms[1]) < 2:
        raise ValueError(f"{function}: one subject cannot be resampled; use resample='conditions'")
    samples = _bootstrap(rdms, similarity, method, resample, n_bootstrap, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(samples, [tail, 1 - tail], axis=0)
    ceiling = rdm_noise_ceiling(rdms[1], method) if len(rdms[1]) > 1 else None
    scores = similarity.mean(1).cpu().numpy()
    return RsaResult(scores=scores, low=low, high=high, samples=samples, ceiling=ceiling)


def _rows(function: str, name: str, rdms: Array) -> Tensor:
    values = as_tensor(function, name, rdms).to(torch.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"{function}: {name} must have shape ({name}, pairs), got {tuple(values.shape)}")
    if n_conditions(function, values) < _FEWEST_CONDITIONS:
        raise ValueError(f"{function}: {name} must be RDMs of at least {_FEWEST_CONDITIONS} conditions")
    return values


def _bootstrap(
    rdms: tuple[Tensor, Tensor],
    similarity: Tensor,
    method: str,
    resample: str,
    n_bootstrap: int,
    generator: np.random.Generator,
) -> np.ndarray:
    n_subjects, size = len(rdms[1]), n_conditions("evaluate_models", rdms[0])
    by_subject = resample in ("both", "subjects") and n_subjects > 1
    samples = np.empty((n_bootstrap, len(rdms[0])))
    squares = [square_rdm(side) for side in rdms]
    for row in range(n_bootstrap):
        scores = similarity
        if resample != "subjects":
            scores = _of_conditions(squares, _draw(generator, size), method)
        drawn = generator.integers(0, n_subjects, n_subjects) if by_subject else np.arange(n_subjects)
        samples[row] = scores[:, torch.from_numpy(drawn)].nanmean(1).cpu().numpy()
    return samples


def _draw(generator: np.random.Generator, size: int) -> np.ndarray:
    """Draw conditions with replacement, in order, so often that enough are different."""
    while True:
        drawn = np.sort(generator.integers(0, size, size))
        if len(np.unique(drawn)) >= _FEWEST_CONDITIONS:
            return drawn


def _of_conditions(squares: list[Tensor], drawn: np.ndarray, method: str) -> Tensor:
    row, column = np.triu_indices(len(drawn), 1)
    row, column = drawn[row], drawn[column]
    kept = row != column
    sides = [square[:, row[kept], column[kept]] for square in squares]
    return compare_rows(sides[0], sides[1], method)
