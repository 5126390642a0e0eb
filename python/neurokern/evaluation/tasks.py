"""What each masked-prediction task hides and asks for."""

from __future__ import annotations

import numpy as np

TASKS = ("co-smoothing", "forward-prediction", "intra-region", "inter-region")

# The masking scheme that a model is told for each task (arXiv:2407.14668, section 4).
SCHEME_OF_TASK = {
    "co-smoothing": "neuron",
    "forward-prediction": "causal",
    "intra-region": "intra-region",
    "inter-region": "inter-region",
}


def n_forward_bins(n_bins: int) -> int:
    """Return how many bins forward prediction hides: the last tenth of the window, and at least one.

    Raises
    ------
    ValueError
        If the window has fewer than 2 bins, so that nothing would be left to predict from.
    """
    if n_bins < 2:
        raise ValueError(f"n_forward_bins: forward prediction needs windows of at least 2 bins, got {n_bins}")
    return max(1, n_bins // 10)


def queries_of(task: str, regions: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what each pass of a task that hides units hides, and what it is asked for.

    Parameters
    ----------
    task : {"co-smoothing", "intra-region", "inter-region"}
    regions : int array of shape (n_units,)
        Region number of each unit, -1 where unknown.
    units : int array of shape (n_scored,)
        Units to be scored. Those of unknown region have no region task.

    Returns
    -------
    hidden, scored : bool arrays of shape (n_queries, n_units)
        Of one query, the units that it hides in all bins, and the hidden ones whose rates it asks for.
        Co-smoothing and intra-region ask for one unit per query, inter-region for all scored units of a
        region. A unit that is alone in its region has nothing visible in intra-region.
    """
    if task != "co-smoothing":
        units = units[regions[units] >= 0]
    one_unit = np.zeros((len(units), len(regions)), dtype=bool)
    one_unit[np.arange(len(units)), units] = True
    if task == "co-smoothing":
        return one_unit, one_unit
    if task == "intra-region":
        return one_unit | (regions != regions[units][:, None]), one_unit
    hidden = regions == np.unique(regions[units])[:, None]
    return hidden, hidden & one_unit.any(0)


def sample_units(regions: np.ndarray, max_units: int | None, seed: int) -> np.ndarray:
    """Return sorted unit indices: all, or a random ``max_units`` of them in proportion to the regions' sizes.

    Parameters
    ----------
    regions : int array of shape (n_units,)
    max_units : int or None
    seed : int

    Returns
    -------
    units : int64 array of shape (min(n_units, max_units),)
    """
    n_units = len(regions)
    if max_units is None or max_units >= n_units:
        return np.arange(n_units)
    if max_units < 1:
        raise ValueError(f"evaluate_masked_prediction: max_units must be at least 1, got {max_units}")
    shuffled = np.random.default_rng(seed).permutation(n_units)
    _, region, sizes = np.unique(regions[shuffled], return_inverse=True, return_counts=True)
    by_region = np.argsort(region, kind="stable")
    rank = np.empty(n_units, dtype=np.int64)
    rank[by_region] = np.arange(n_units) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Picking by (rank + 1/2) / size takes the same fraction of every region, up to rounding.
    order = np.argsort((rank + 0.5) / sizes[region], kind="stable")
    return np.sort(shuffled[order[:max_units]])
