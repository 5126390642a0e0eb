"""Which windows each step trains on, and which of them go through the model in which process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurokern.datasets import BinnedSession, SessionBatchSampler, WindowedRecording


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a batch that go through the model at once.

    Attributes
    ----------
    number : int
        Of the batch in the run. Its scheme and its masks follow from it and the seed.
    place : int
        Of the batch in its step.
    first, n_rows : int
        First row of this part in the batch, and rows of the whole batch.
    items : list of int
        Windows of the dataset, one for each row of this part.
    counted : bool
        False for a part that only keeps a process in step with the others.
    """

    number: int
    place: int
    first: int
    n_rows: int
    items: list[int]
    counted: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether this part is all of its batch."""
        return len(self.items) == self.n_rows


class Plan:
    """The steps of a run: their batches, and the parts that each process takes.

    The batches of a step are a function of the sampler and the number of the step alone. The processes share
    their windows as evenly as it goes, so that none waits for another, whatever the sizes of the sessions.

    Parameters
    ----------
    sampler : SessionBatchSampler
    batches_per_step : int
        An epoch ends with a step of fewer batches if its number of batches is no multiple.
    micro_batch_size : int, optional
        Most windows in a part. If given, the parts do not depend on the number of processes.
    rank, world_size : int
        This process and how many there are.
    even : bool
        Give every process as many parts as every other, with parts that do not count where it has fewer:
        sharded weights are gathered by all processes at once.
    """

    def __init__(
        self,
        sampler: SessionBatchSampler,
        batches_per_step: int = 1,
        micro_batch_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        even: bool = False,
    ) -> None:
        self.sampler, self.batches_per_step, self.micro_batch_size = (
            sampler,
            batches_per_step,
            micro_batch_size,
        )
        self.rank, self.world_size, self.even = rank, world_size, even
        self.steps_per_epoch = -(-sampler.batches_per_epoch // batches_per_step)
        self._epoch = -1
        self._batches: list[list[int]] = []

    def batches(self, step: int) -> list[list[int]]:
        """Return the batches of a step, each a list of items of the dataset."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self.sampler.plan(epoch)
        return self._batches[place * self.batches_per_step : (place + 1) * self.batches_per_step]

    def parts(self, step: int) -> list[Part]:
        """Return what this process takes of a step, in order."""
        shares = self._shares(step)
        own = shares[self.rank]
        if self.even:
            filler = shares[0][0] if shares[0] else next(part for share in shares for part in share)
            idle = Part(filler.number, filler.place, filler.first, filler.n_rows, filler.items[:1], False)
            own = own + [idle] * (max(map(len, shares)) - len(own))
        return own

    def items(self, step: int, stop: int) -> Iterator[list[int]]:
        """Give the items of all parts of this process from one step to before another."""
        for number in range(step, stop):
            yield from (part.items for part in self.parts(number))

    def _shares(self, step: int) -> list[list[Part]]:
        """Return the parts of every process."""
        batches = self.batches(step)
        ranks = range(self.world_size)
        if self.micro_batch_size is not None:
            starts = [range(0, len(batch), self.micro_batch_size) for batch in batches]
            parts = [
                self._part(step, place, batch, first, first + self.micro_batch_size)
                for place, batch in enumerate(batches)
                for first in starts[place]
            ]
            cuts = [len(parts) * rank // self.world_size for rank in range(self.world_size + 1)]
            return [parts[cuts[rank] : cuts[rank + 1]] for rank in ranks]
        n_windows = sum(map(len, batches))
        cuts = [n_windows * rank // self.world_size for rank in range(self.world_size + 1)]
        return [self._between(step, batches, cuts[rank], cuts[rank + 1]) for rank in ranks]

    def _between(self, step: int, batches: list[list[int]], start: int, stop: int) -> list[Part]:
        """Return the windows ``start ... stop - 1`` of a step, cut where a batch ends."""
        parts, offset = [], 0
        for place, batch in enumerate(batches):
            low, high = max(start - offset, 0), min(stop - offset, len(batch))
            if low < high:
                parts.append(self._part(step, place, batch, low, high))
            offset += len(batch)
        return parts

    def _part(self, step: int, place: int, batch: list[int], low: int, high: int) -> Part:
        return Part(step * self.batches_per_step + place, place, low, len(batch), batch[low:high])


def all_counts(session: BinnedSession | WindowedRecording) -> np.ndarray:
    """Return the counts of all windows, small integers of shape (n_windows, n_bins, n_units)."""
    return session.counts if isinstance(session, BinnedSession) else session.bin().counts


def joined_counts(
    earlier: BinnedSession | WindowedRecording, later: BinnedSession | WindowedRecording
) -> np.ndarray:
    """Return the counts of both parts of a session, in the order of time where it is known."""
    both = (earlier, later)
    counts = np.concatenate([all_counts(session) for session in both])
    if all(session.windows is not None for session in both):
        starts = np.concatenate([np.asarray(session.windows)[:, 0] for session in both])
        counts = counts[np.argsort(starts, kind="stable")]
    return counts


def mean_counts(session: BinnedSession | WindowedRecording) -> Tensor:
    """Return the mean count of each unit per bin, at least half a spike in all windows, ``(n_units,)``."""
    total = np.zeros(session.n_units)
    for start in range(0, session.n_windows, 64):
        rows = np.arange(start, min(start + 64, session.n_windows))
        total += session.read(rows).sum(axis=(0, 1), dtype=np.float64)
    return torch.from_numpy(np.maximum(total, 0.5) / (session.n_windows * session.n_bins)).float()
