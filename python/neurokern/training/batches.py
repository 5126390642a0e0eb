"""Which windows each step trains on, and which of them go through the model in which process."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from neurokern.datasets import BinnedSession, SessionBatchSampler, WindowedRecording


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a batch that go through the model at once, alone or with parts of other batches.

    Attributes
    ----------
    number : int
        Of the batch in the run. Its scheme and its masks follow from it and the seed.
    place : int
        Of the batch in its step.
    batch : list of int
        Windows of the whole batch, as items of the dataset.
    first, stop : int
        First row of this part in the batch, and the row after its last one.
    counted : bool
        False for a part that only keeps a process in step with the others.
    """

    number: int
    place: int
    batch: list[int]
    first: int
    stop: int
    counted: bool = True

    @property
    def items(self) -> list[int]:
        """The windows of this part."""
        return self.batch[self.first : self.stop]

    @property
    def n_windows(self) -> int:
        """Number of windows of this part."""
        return self.stop - self.first

    @property
    def is_whole(self) -> bool:
        """Whether this part is all of its batch."""
        return self.n_windows == len(self.batch)


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
        Most windows in a pass. If given, the passes do not depend on the number of processes.
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
        self._plan = functools.lru_cache(maxsize=2)(sampler.plan)  # who reads may be an epoch ahead

    def batches(self, step: int) -> list[list[int]]:
        """Return the batches of a step, each a list of items of the dataset."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._plan(epoch)[place * self.batches_per_step : (place + 1) * self.batches_per_step]

    def passes(self, step: int) -> list[list[Part]]:
        """Return what this process takes of a step, in order: parts of batches that share a pass."""
        shares = self._shares(step)
        own = shares[self.rank]
        if self.even:
            filler = next(part for share in shares for one in share for part in one)
            idle = [replace(filler, stop=filler.first + 1, counted=False)]
            own = own + [idle] * (max(map(len, shares)) - len(own))
        return own

    def parts(self, step: int) -> list[Part]:
        """Return the parts of the passes of this process, in order."""
        return [part for one in self.passes(step) for part in one]

    def items(self, step: int, stop: int) -> Iterator[list[int]]:
        """Give the items of all parts of this process from one step to before another."""
        for number in range(step, stop):
            yield from (part.items for part in self.parts(number))

    def _shares(self, step: int) -> list[list[list[Part]]]:
        """Return the passes of every process."""
        batches = self.batches(step)
        n_windows = sum(map(len, batches))
        cuts = [n_windows * rank // self.world_size for rank in range(self.world_size + 1)]
        size = self.micro_batch_size
        if size is None:
            own = [self._between(step, batches, *between) for between in itertools.pairwise(cuts)]
            return [packed(parts, self.sampler.batch_size) for parts in own]
        parts = [
            self._part(step, place, batch, first, min(first + size, len(batch)))
            for place, batch in enumerate(batches)
            for first in range(0, len(batch), size)
        ]
        shares: list[list[list[Part]]] = [[] for _ in range(self.world_size)]
        offset = 0
        for one in packed(parts, size):  # to the process that has the middle of the pass
            own_windows = sum(part.n_windows for part in one)
            shares[bisect.bisect_right(cuts, offset + own_windows // 2) - 1].append(one)
            offset += own_windows
        return shares

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
        return Part(step * self.batches_per_step + place, place, batch, low, high)


def packed(parts: Sequence[Part], most: int) -> list[list[Part]]:
    """Put parts into passes of at most so many windows, in order and without cutting any."""
    passes: list[list[Part]] = []
    room = 0
    for part in parts:
        if not passes or part.n_windows > room:
            passes.append([])
            room = most
        passes[-1].append(part)
        room -= part.n_windows
    return passes


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
