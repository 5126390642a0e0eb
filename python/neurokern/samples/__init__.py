"""A real recording that ships with the package; ``NOTICE.md`` beside it gives source, licence and changes."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neurokern.datasets.recording import SpikeRecording

__all__ = ["load_sample"]


def load_sample() -> SpikeRecording:
    """Load 120 s of a Neuropixels recording of the International Brain Laboratory.

    289 units and 124,905 spikes, from 0 to 120 s. There are no trials, no depths and no regions; the ids, 0
    to 499, run along the probe, so :func:`neurokern.datasets.with_region_groups` can make stand-ins for
    regions.

    Returns
    -------
    SpikeRecording

    Examples
    --------
    >>> load_sample()
    SpikeRecording('ibl_120s': 289 units, 124905 spikes, 0 to 120 s, no trials)
    """
    from neurokern.datasets.npz import load_npz  # loads pandas

    with resources.as_file(resources.files(__package__) / "ibl_120s.npz") as path:
        return load_npz(path)
