"""Windows as epochs of MNE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from neurokern.datasets.channels import Channels
    from neurokern.datasets.meeg_windows import MEEGWindows

# FIFF codes of coordinate frames.
_FRAMES, _UNKNOWN = {"head": 4, "device": 1}, 0


def epochs_of(windows: MEEGWindows, indices: NDArray[np.int64]) -> Any:
    """Return windows of the same channels as ``mne.EpochsArray``."""
    from neurokern.extractors._meeg_files import QUIET, import_mne

    mne = import_mne()
    batch = windows.batch(indices.tolist())
    if not bool(batch["valid"].all()):
        raise ValueError("to_epochs: windows must lie within their recordings and be of one length")
    if len(set(batch["channel_names"])) > 1 or len(batch["sfreq"].unique()) > 1:
        raise ValueError(
            "to_epochs: windows must be of the same channels and rate; give indices of one recording"
        )
    channels = windows.channels(int(batch["recording"][0]))
    info = info_of(channels, float(batch["sfreq"][0]))
    codes = batch["condition"].numpy()
    # MNE wants each event at a sample of its own, and positive codes.
    events = np.stack([np.arange(len(codes)), np.zeros(len(codes), np.int64), codes + 2], axis=1)
    names = {code + 2: name for code, name in enumerate(windows.conditions)} | {1: "window"}
    event_id = {names[code]: code for code in np.unique(codes + 2).tolist()}
    onset = batch["onset"].numpy()
    return mne.EpochsArray(
        batch["signal"].numpy().transpose(0, 2, 1),
        info,
        events=events,
        event_id=event_id,
        tmin=float(np.median(onset)),
        verbose=QUIET,
    )


def info_of(channels: Channels, sfreq: float) -> Any:
    """Return MNE's description of channels, places included."""
    from neurokern.extractors._meeg_files import QUIET, import_mne

    mne = import_mne()
    info = mne.create_info(list(channels.names), sfreq, list(channels.types), verbose=QUIET)
    frame = _FRAMES.get(channels.frame, _UNKNOWN)
    for row, channel in enumerate(info["chs"]):
        if np.isfinite(channels.positions[row]).all():
            channel["loc"][:3] = channels.positions[row]
            channel["coord_frame"] = frame
        if np.isfinite(channels.orientations[row]).all():
            channel["loc"][9:12] = channels.orientations[row]
    info["bads"] = [name for name, bad in zip(channels.names, channels.bad, strict=True) if bad]
    return info
