"""From the plan of a run to masked windows on the device of the model, some parts ahead of training."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from neurokern.datasets import SpikeWindows, collate_spikes
from neurokern.training.batches import Plan
from neurokern.training.config import TrainingConfig
from neurokern.training.interruption import leave_signals_to_parent
from neurokern.training.part import MaskedPart, mask_part

MOST_AHEAD = 16  # parts
BYTES_AHEAD = 2**24  # of counts


def masked_parts(
    windows: SpikeWindows,
    plan: Plan,
    config: TrainingConfig,
    device: torch.device,
    steps: range,
) -> Iterator[MaskedPart]:
    """Give the parts of all steps in order; one set of workers serves all epochs.

    Several are read and masked at a time: both take so little beside a step that most of it would be the
    fetching of their code and tables, which the step has driven out of the processor's caches.
    """
    loader = DataLoader(
        windows,
        batch_sampler=plan.items(steps.start, steps.stop),
        collate_fn=collate_spikes,
        num_workers=config.n_workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_signals_to_parent,
    )
    parts = (part for step in steps for part in plan.parts(step))
    loaded = zip(parts, loader, strict=True)
    n_ahead = parts_ahead(windows, config)
    while ahead := deque(
        mask_part(part, batch.to(device, non_blocking=True), windows, config)
        for part, batch in itertools.islice(loaded, n_ahead)
    ):
        while ahead:
            yield ahead.popleft()


def parts_ahead(windows: SpikeWindows, config: TrainingConfig) -> int:
    """Return how many parts to hold at a time: one where they are large."""
    n_units = max(session.n_units for session in windows.sessions)
    part_bytes = 4 * config.batch_size * windows.sessions[0].n_bins * n_units
    return min(max(BYTES_AHEAD // max(part_bytes, 1), 1), MOST_AHEAD)
