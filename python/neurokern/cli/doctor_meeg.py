"""What is wrong with a recording of EEG, MEG or intracranial EEG."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from neurokern.cli.doctor_images import Look

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from neurokern.datasets import MEEGRun

__all__ = ["MODALITIES", "check_recording"]

MODALITIES = ("eeg", "meg", "ieeg")
_MOST_CLIPPED = 1e-3  # of the samples at a channel's own highest or lowest value
_MOST_NAMES = 8


def check_recording(run: MEEGRun) -> tuple[Look, list[tuple[str, str]]]:
    """Read a recording to its end; return how long that took, and what is wrong with channels and events."""
    from neurokern.extractors import MEEGExtractor

    extractor = MEEGExtractor(bads="keep", cache=False)
    names = extractor.channels(run).names  # its header is read now, and with it MNE is imported
    begun = time.perf_counter()
    values = extractor.values(run)
    look = Look("recordings", time.perf_counter() - begun, values.nbytes)
    lost = ~np.isfinite(values).all(axis=0)
    low, high = values.min(axis=0), values.max(axis=0)
    flat = ~lost & (low == high)
    at_ends = np.maximum((values == low).mean(axis=0), (values == high).mean(axis=0))
    clipped = ~lost & ~flat & (at_ends > _MOST_CLIPPED) & (len(values) * at_ends > 10)
    for i in np.flatnonzero(clipped):
        clipped[i] = _piles_up(values[:, i])
    found = []
    for level, channels, what in (
        ("error", lost, "have NaN or infinity"),
        ("warning", flat, "are flat"),
        ("warning", clipped, "stay at their highest or lowest value: clipped?"),
    ):
        chosen = np.flatnonzero(channels)
        if len(chosen):
            listed = ", ".join(names[i] for i in chosen[:_MOST_NAMES]) + ", ..." * (len(chosen) > _MOST_NAMES)
            found.append((level, f"{len(chosen)} channels {what}: {listed}"))
    seconds = len(values) / extractor.sfreq(run)
    return look, found + _event_findings(extractor.events(run), seconds)


def _piles_up(values: NDArray[np.float32]) -> bool:
    """Return whether an end is met more often than the value next to it, as it is where a signal is cut off.

    A small signal in coarse steps meets its ends often, too; but what lies further in more often still.
    """
    counts = np.unique(values, return_counts=True)[1]
    return bool(len(counts) > 1 and (counts[0] > counts[1] or counts[-1] > counts[-2]))


def _event_findings(events: pd.DataFrame, seconds: float) -> list[tuple[str, str]]:
    import pandas as pd

    if "onset" not in events:
        return [("error", "its events have no column onset")]
    onset = pd.to_numeric(events["onset"], errors="coerce").to_numpy(np.float64)
    found = []
    if unknown := int((~np.isfinite(onset)).sum()):
        found.append(("warning", f"{unknown} events have no onset"))
    if late := int((np.nan_to_num(onset, nan=0.0) >= seconds).sum()):
        found.append(("error", f"{late} events begin after the end of the recording at {seconds:g} s"))
    kinds = [name for name in ("onset", "trial_type", "value") if name in events]
    if repeated := int(events.duplicated(kinds).sum()):
        found.append(("warning", f"{repeated} events repeat the onset and kind of another"))
    return found
