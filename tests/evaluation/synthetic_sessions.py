"""Synthetic sessions with known rates."""

from __future__ import annotations

import numpy as np

from neurokern.datasets import BinnedSession


def latent_rates(n_windows: int, n_bins: int, n_units: int, seed: int = 0, size: float = 1.0) -> np.ndarray:
    """Rates of units that follow two slow shared signals, ``(windows, bins, units)`` spikes per bin."""
    generator = np.random.default_rng(seed)
    loadings = generator.normal(size=(2, n_units)) * size
    phase = generator.uniform(0, 2 * np.pi, (n_windows, 1, 2))
    bins = np.arange(n_bins)[None, :, None]
    signals = np.sin(2 * np.pi * bins / n_bins * np.array([0.5, 1.0]) + phase)
    return np.exp(signals @ loadings * 0.7 - 0.7)


def make_session(counts: np.ndarray, regions: list[str] | None = None, **changes: object) -> BinnedSession:
    n_units = counts.shape[2]
    names = regions or [("CA1", "VISp", "LP")[unit % 3] for unit in range(n_units)]
    fields: dict[str, object] = {
        "counts": counts.astype(np.uint8),
        "bin_size": 0.02,
        "regions": np.array(names, dtype=str),
        "unit_ids": np.arange(n_units) + 100,
        "session": "monday",
        "subject": "mouse",
    }
    return BinnedSession(**(fields | changes))  # type: ignore[arg-type]


def poisson_session(
    n_windows: int = 30, n_bins: int = 20, n_units: int = 9, seed: int = 0, size: float = 1.0
) -> tuple[BinnedSession, np.ndarray]:
    rates = latent_rates(n_windows, n_bins, n_units, seed, size)
    return make_session(np.random.default_rng(seed + 1).poisson(rates)), rates
