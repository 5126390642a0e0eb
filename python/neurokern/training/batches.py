"""Which windows each step trains on, and what is read from all of them before."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from neurokern.datasets import BinnedSession, SessionBatchSampler, WindowedRecording


class Plan:
    """The batches of a run from one step to its end; an epoch is planned when it is reached."""

    def __init__(self, sampler: SessionBatchSampler, step: int, total_steps: int) -> None:
        self.sampler, self.step, self.total_steps = sampler, step, total_steps

    def __iter__(self) -> Iterator[list[int]]:
        epoch, done = divmod(self.step, self.sampler.batches_per_epoch)
        left = self.total_steps - self.step
        while left > 0:
            batches = self.sampler.plan(epoch)[done : done + left]
            yield from batches
            left, epoch, done = left - len(batches), epoch + 1, 0


def all_counts(session: BinnedSession | WindowedRecording) -> np.ndarray:
    """Return the counts of all windows, small integers of shape (n_windows, n_bins, n_units)."""
    return session.counts if isinstance(session, BinnedSession) else session.bin().counts


def mean_counts(session: BinnedSession | WindowedRecording) -> Tensor:
    """Return the mean count of each unit per bin, at least half a spike in all windows, ``(n_units,)``."""
    total = np.zeros(session.n_units)
    for start in range(0, session.n_windows, 64):
        rows = np.arange(start, min(start + 64, session.n_windows))
        total += session.read(rows).sum(axis=(0, 1), dtype=np.float64)
    return torch.from_numpy(np.maximum(total, 0.5) / (session.n_windows * session.n_bins)).float()
