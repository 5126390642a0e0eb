"""Bootstrap intervals of means, over independent values or values in groups."""

from __future__ import annotations

import math

import numpy as np

from neurokern.metrics._blocks import BLOCK_ELEMENTS


def bootstrap_interval(
    values: np.ndarray, *, confidence: float = 0.95, n_bootstrap: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean; NaN values are left out.

    Parameters
    ----------
    values : array of shape (n,), float
        Independent draws (units, episodes, sessions).
    confidence : float, default 0.95
        Within (0, 1).
    n_bootstrap : int, default 2000
    seed : int, default 0
        The same seed gives the same interval.

    Returns
    -------
    low, high : float
        Both NaN when no value is left, both the value itself when there is only one.

    Raises
    ------
    ValueError
        If ``confidence`` is not within (0, 1) or ``n_bootstrap`` is below 1.
    """
    _check_bootstrap("bootstrap_interval", confidence, n_bootstrap)
    kept = np.asarray(values, dtype=np.float64).ravel()
    kept = kept[~np.isnan(kept)]
    if kept.size == 0:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK_ELEMENTS // kept.size)
    means = [
        kept[generator.integers(0, kept.size, (min(rows, n_bootstrap - first), kept.size))].mean(1)
        for first in range(0, n_bootstrap, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def hierarchical_interval(
    values: np.ndarray,
    groups: np.ndarray,
    *,
    confidence: float = 0.95,
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of the mean when values come in groups: groups are drawn, then values within them.

    Units of one session share its animal, its day and its probe, so an interval over units alone is too
    narrow for a claim about other sessions.

    Parameters
    ----------
    values : array of shape (n,), float
        NaN values are left out.
    groups : array of shape (n,)
        Label of each value's group (session, subject).
    confidence, n_bootstrap, seed
        As in :func:`bootstrap_interval`.

    Returns
    -------
    low, high : float
        Of the mean over all values, groups weighing as much as they hold. With one group, the interval over
        its values: nothing can then be said about other groups. Both NaN when no value is left.

    Raises
    ------
    ValueError
        As :func:`bootstrap_interval`; or if the two differ in length.

    References
    ----------
    .. [1] Saravanan, Berman, Sober, "Application of the hierarchical bootstrap to multi-level data in
       neuroscience", Neurons, Behavior, Data Analysis, and Theory 3 (2020).
    """
    flat, labels = np.asarray(values, dtype=np.float64).ravel(), np.asarray(groups).ravel()
    if flat.shape != labels.shape:
        raise ValueError(
            f"hierarchical_interval: groups must label each of {len(flat)} values, got {len(labels)} labels"
        )
    kept = ~np.isnan(flat)
    names, number = np.unique(labels[kept], return_inverse=True)
    if len(names) < 2:
        return bootstrap_interval(flat, confidence=confidence, n_bootstrap=n_bootstrap, seed=seed)
    _check_bootstrap("hierarchical_interval", confidence, n_bootstrap)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(
        0, len(names), (n_bootstrap, len(names))
    )  # a group for each place of each draw
    sums, sizes = np.zeros(n_bootstrap), np.zeros(n_bootstrap)
    for group in range(len(names)):
        members = flat[kept][number == group]
        draw_of = np.nonzero(drawn == group)[0]
        np.add.at(sizes, draw_of, len(members))
        rows = max(1, BLOCK_ELEMENTS // len(members))
        for first in range(0, len(draw_of), rows):
            part = draw_of[first : first + rows]
            resampled = members[generator.integers(0, len(members), (len(part), len(members)))]
            np.add.at(sums, part, resampled.sum(1))
    low, high = np.quantile(sums / sizes, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check_bootstrap(function: str, confidence: float, n_bootstrap: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"{function}: confidence must lie within (0, 1), got {confidence!r}")
    if n_bootstrap < 1:
        raise ValueError(f"{function}: n_bootstrap must be at least 1, got {n_bootstrap!r}")
