"""From EEG to batches in five lines, recordings of other channels side by side; then the average response.

Run it with ``python examples/eeg_to_batches.py FOLDER`` on a BIDS folder with EEG, or give a file that MNE
reads.
"""

from __future__ import annotations

import sys
from pathlib import Path

from torch.utils.data import DataLoader

from neurokern.datasets import BIDSDataset, MEEGWindows, collate_windows
from neurokern.extractors import MEEGExtractor


def main(source: str) -> None:
    """Show what comes out."""
    extractor = MEEGExtractor("eeg", l_freq=0.5, h_freq=30, resample=100)
    around = {"events": True, "tmin": -0.2, "tmax": 0.8}
    if Path(source).is_dir():
        ready = BIDSDataset(source, modality="eeg").with_extractor(extractor, **around)
    else:
        ready = MEEGWindows(source, extractor, **around)
    for batch in DataLoader(ready, batch_size=16, shuffle=True, num_workers=2, collate_fn=collate_windows):
        print("signal", tuple(batch["signal"].shape), "channels", batch["channel_mask"].sum(1).tolist())
        break

    names = ready.channels(0).names
    for code, condition in enumerate(ready.conditions):
        chosen = [i for i, name in enumerate(ready.table["condition"]) if name == condition]
        batch = ready.batch(chosen)
        channels = batch["channel_mask"].all(0)
        response = batch["signal"][:, :, channels].mean(0)
        time, channel = divmod(int(response.abs().argmax()), response.shape[1])
        size, seconds = response.abs().max() * 1e6, batch["onset"][0] + time / batch["sfreq"][0]
        where = f"at {seconds:.2f} s, {names[channel]}"
        print(f"{code} {condition}: {len(chosen)} windows, largest average {size:.1f} uV {where}")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["."])
