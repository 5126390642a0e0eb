"""Batches of several sessions, of numbers of units so near to each other that little is padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern._check import check_number
from neurokern.datasets._random import permutation
from neurokern.datasets.sampler import SessionBatchSampler

if TYPE_CHECKING:
    from neurokern.datasets.torch_dataset import SpikeWindows

__all__ = ["BucketBatchSampler"]


class BucketBatchSampler(SessionBatchSampler):
    """Draw every window once an epoch, in batches that mix the sessions of a bucket.

    Sessions in the order of their number of units are put into one bucket as long as the largest has at most
    ``1 + max_padding`` times the units of the smallest. Each epoch shuffles the windows of each bucket, cuts
    them into batches and shuffles the batches. Models see sessions side by side in a step that way, as with
    ``MtM.forward_batch``, and at most a share ``max_padding`` of a batch is computed for nothing.

    Parameters
    ----------
    dataset : SpikeWindows
    batch_size : int
        Windows in a batch. The last batch of a bucket may hold fewer.
    max_padding : float, default 0.25
        0 puts only sessions of equally many units together; infinity puts all into one bucket.
    seed, shuffle, drop_last
        As for :class:`SessionBatchSampler`, like resuming and what an epoch depends on.

    Attributes
    ----------
    buckets : list of list of int
        Numbers of the sessions of each bucket.
    """

    def __init__(
        self,
        dataset: SpikeWindows,
        batch_size: int,
        max_padding: float = 0.25,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        self.max_padding = check_number("BucketBatchSampler", "max_padding", max_padding)
        if not self.max_padding >= 0:
            raise ValueError(f"BucketBatchSampler: max_padding must be at least 0, got {max_padding!r}")
        self.buckets = _buckets([session.n_units for session in dataset.sessions], self.max_padding)
        super().__init__(dataset, batch_size, seed, shuffle, drop_last)

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in a whole epoch."""
        sizes = [int(self.sizes[bucket].sum()) for bucket in self.buckets]
        return sum(n // self.batch_size if self.drop_last else -(-n // self.batch_size) for n in sizes)

    def plan(self, epoch: int) -> list[list[int]]:
        """Return all batches of an epoch, each a list of items of the dataset. Changes nothing."""
        batches: list[list[int]] = []
        for number, bucket in enumerate(self.buckets):
            items = np.concatenate([np.arange(self.sizes[s]) + self.offsets[s] for s in bucket])
            if self.shuffle:
                items = items[permutation(len(items), self.seed, epoch, number)]
            stop = len(items) - len(items) % self.batch_size if self.drop_last else len(items)
            cuts = range(0, stop, self.batch_size)
            batches += [items[k : min(k + self.batch_size, stop)].tolist() for k in cuts]
        if not self.shuffle:
            return batches
        return [batches[k] for k in permutation(len(batches), self.seed, epoch, len(self.buckets)).tolist()]

    def _identity(self) -> dict[str, Any]:
        return {**super()._identity(), "buckets": self.buckets}


def _buckets(n_units: list[int], max_padding: float) -> list[list[int]]:
    """Return the numbers of the sessions in each bucket, from few units to many."""
    buckets: list[list[int]] = []
    for session in sorted(range(len(n_units)), key=lambda s: (n_units[s], s)):
        if buckets and n_units[session] <= n_units[buckets[-1][0]] * (1 + max_padding):
            buckets[-1].append(session)
        else:
            buckets.append([session])
    return buckets
