"""The bootstrap as counts: how often each sample takes part in each draw."""

from __future__ import annotations

import numpy as np

__all__ = ["draw_counts", "interval"]


def draw_counts(labels: np.ndarray, n_draws: int, seed: int) -> np.ndarray:
    """Return how often each sample counts in each draw, float64 ``(draws, samples)``.

    Labels are drawn with replacement, with all samples that bear them: windows, trials, blocks or sessions.
    Different scores of the same samples share the draws, so that differences are paired.
    """
    if n_draws < 1:
        raise ValueError(f"draw_counts: n_bootstrap must be at least 1, got {n_draws!r}")
    _, number = np.unique(labels, return_inverse=True)
    n_labels = int(number.max()) + 1
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n_labels, np.full(n_labels, 1 / n_labels), n_draws)
    return drawn[:, number].astype(np.float64)


def interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the percentile interval of draws, NaN ones left out; NaN with nothing left."""
    if not 0 < confidence < 1:
        raise ValueError(f"interval: confidence must lie within (0, 1), got {confidence!r}")
    kept = values[~np.isnan(values)]
    if not len(kept):
        return float("nan"), float("nan")
    low, high = np.quantile(kept, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
