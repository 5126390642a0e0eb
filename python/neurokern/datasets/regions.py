"""Groups of units that stand in for brain regions where a recording has none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from neurokern.datasets.recording import SpikeRecording

__all__ = ["depth_groups", "with_region_groups"]


def depth_groups(recording: SpikeRecording, n_groups: int) -> tuple[np.ndarray, str]:
    """Cut the units into groups of nearly equal size along the probe.

    Ordered by depth if every unit has one, else by id. Spike sorters of the Kilosort family number their
    templates along the probe, so neighbors in id are mostly neighbors in depth; that is an assumption, and
    the second result says so.

    Parameters
    ----------
    recording : SpikeRecording
    n_groups : int
        At least 1 and at most the number of units.

    Returns
    -------
    groups : ndarray of shape (n_units,), str
        "group 1" (smallest depth or id) to "group <n_groups>", with leading zeros where names would sort
        wrongly.
    basis : str
        What the order rests on, in words.

    Raises
    ------
    ValueError
        If ``n_groups`` is not between 1 and the number of units.
    """
    if n_groups != int(n_groups) or not 1 <= n_groups <= recording.n_units:
        raise ValueError(
            f"depth_groups: n_groups must be 1 to {recording.n_units} (the units), got {n_groups!r}"
        )
    depth = recording.unit_table["depth"].to_numpy(dtype=np.float64)
    by_depth = bool(np.isfinite(depth).all())
    order = np.argsort(depth if by_depth else recording.unit_table["id"].to_numpy(), kind="stable")
    width = len(str(int(n_groups)))
    names = np.array([f"group {k + 1:0{width}d}" for k in range(int(n_groups))])
    groups = np.empty(recording.n_units, dtype=names.dtype)
    groups[order] = names[np.arange(recording.n_units) * int(n_groups) // recording.n_units]
    return groups, "depth" if by_depth else "id (no depths are known; sorters number units along the probe)"


def with_region_groups(recording: SpikeRecording, n_groups: int) -> SpikeRecording:
    """Return the recording with :func:`depth_groups` as its regions; ``notes`` says so."""
    groups, basis = depth_groups(recording, n_groups)
    note = f"regions are {n_groups} groups of units in order of {basis}; they stand in for brain regions"
    return replace(
        recording,
        unit_table=recording.unit_table.assign(region=groups.tolist()),
        notes=(*recording.notes, note),
    )
