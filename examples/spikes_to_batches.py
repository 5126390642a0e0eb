"""From spike times to batches for a model: the packaged recording, one second at a time.

Run it with ``python examples/spikes_to_batches.py``, or give a folder of ALF files or a ``.npz`` of your own.
"""

from __future__ import annotations

import sys

from torch.utils.data import DataLoader

from neurokern.datasets import (
    SessionBatchSampler,
    SpikeRecording,
    SpikeWindows,
    WindowedRecording,
    collate_spikes,
    load_recording,
    sliding_windows,
    split_session,
    with_region_groups,
)
from neurokern.samples import load_sample


def main(path: str | None = None) -> None:
    """Show what the data look like at each step."""
    recording = load_sample() if path is None else load_recording(path)
    if not isinstance(recording, SpikeRecording):
        raise SystemExit(f"{path} holds counts that are binned already")
    if not recording.regions.any():
        recording = with_region_groups(recording, n_groups=4)
    print(recording, *recording.notes, sep="\n  ")

    # Overlapping windows, counted only when a batch asks for them; no moment is on two sides of the split.
    session = WindowedRecording(recording, sliding_windows(recording, length=1.0, stride=0.5), bin_size=0.02)
    splits = split_session(session, test=0.2, validation=0.1)
    print(splits.note)

    dataset = SpikeWindows([splits.train])
    sampler = SessionBatchSampler(dataset, batch_size=16, seed=1)
    for number, batch in enumerate(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate_spikes)):
        rate = batch.counts.mean().item() / session.bin_size
        print(f"batch {number}: counts {tuple(batch.counts.shape)}, {rate:.2f} spikes per second and unit")
    print(f"regions: {', '.join(dataset.region_names)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
