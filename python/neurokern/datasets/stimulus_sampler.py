"""Batches in which no stimulus is there twice, for contrastive training."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from neurokern._check import check_integer
from neurokern.datasets._random import permutation
from neurokern.datasets.sampler import EpochSampler

__all__ = ["StimulusBatchSampler"]


class StimulusBatchSampler(EpochSampler):
    """Draw every window once an epoch, in batches of windows with different stimuli.

    A contrastive loss takes every other item of a batch as a wrong answer. Where a stimulus was shown
    several times, its repeats would be wrong answers to each other: here they come in different batches. The
    batches of an epoch depend on ``(seed, epoch)`` alone.

    Parameters
    ----------
    stimuli : sequence of hashable, or array of shape (n_windows,)
        Which stimulus each window shows: a name, a path, a number.
    batch_size : int
        Most windows in a batch; batches differ in size by one at most.
    seed : int, default 0
    drop_last : bool, default False
        Make all batches full, and leave out, in each epoch, a few windows drawn anew.
    rank, world_size : int, default 0 and 1
        Of several processes that train together this one gets its part of batches of
        ``batch_size * world_size`` windows, which hold different stimuli all together.

    Raises
    ------
    ValueError
        If a stimulus was shown more often than there are batches.

    Notes
    -----
    To resume in the middle: as with :class:`~neurokern.datasets.SessionBatchSampler`. A saved place fits any
    number of processes with the same ``batch_size * world_size``.

    Examples
    --------
    >>> sampler = StimulusBatchSampler(["cat", "dog", "cat", "owl"], batch_size=2)
    >>> sorted(len({["cat", "dog", "cat", "owl"][i] for i in batch}) for batch in sampler)
    [2, 2]
    """

    def __init__(
        self,
        stimuli: Sequence[Hashable] | np.ndarray,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(seed)
        if check_integer("StimulusBatchSampler", "batch_size", batch_size) < 1:
            raise ValueError(f"StimulusBatchSampler: batch_size must be at least 1, got {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"StimulusBatchSampler: rank must be 0 to {world_size - 1}, got {rank}")
        names = stimuli.tolist() if isinstance(stimuli, np.ndarray) else list(stimuli)
        number: dict[Hashable, int] = {}
        self.codes = np.array([number.setdefault(name, len(number)) for name in names], dtype=np.int64)
        self.batch_size, self.drop_last = batch_size, bool(drop_last)
        # The parts of a batch go to the processes, where other samplers deal out whole batches.
        self._part, self._n_parts = rank, world_size
        self._check(names)

    def _check(self, names: list[Any]) -> None:
        n, size = len(self.codes), self.batch_size * self._n_parts
        if not self.batches_per_epoch:
            raise ValueError(
                f"StimulusBatchSampler: {n} windows give no batch of {size} with drop_last={self.drop_last}"
            )
        shown = np.bincount(self.codes)
        if shown.max() > self.batches_per_epoch:
            often = names[int(np.flatnonzero(self.codes == shown.argmax())[0])]
            raise ValueError(
                f"StimulusBatchSampler: {often!r} was shown {shown.max()} times, which "
                f"{self.batches_per_epoch} batches of {size} windows cannot keep apart; take batches of at "
                f"most {n // shown.max()}, or a loss that knows of repeats"
            )

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in a whole epoch."""
        n, size = len(self.codes), self.batch_size * self._n_parts
        return n // size if self.drop_last else -(-n // size)

    def plan(self, epoch: int) -> list[list[int]]:
        """Return all batches of an epoch, each a list of items of the dataset. Changes nothing."""
        n, n_batches = len(self.codes), self.batches_per_epoch
        stimuli = permutation(int(self.codes.max()) + 1, self.seed, epoch, 0)
        windows = permutation(n, self.seed, epoch, 1)
        # Repeats next to each other, stimuli and repeats in drawn orders; dealt out like cards.
        dealt = windows[np.argsort(stimuli[self.codes[windows]], kind="stable")]
        shuffled = permutation(n, self.seed, epoch, 2)
        size = self.batch_size * self._n_parts
        batches = []
        for batch in permutation(n_batches, self.seed, epoch, 3).tolist():
            hand = dealt[batch::n_batches]
            hand = hand[np.argsort(shuffled[hand], kind="stable")][:size]
            batches.append(hand[self._part :: self._n_parts].tolist())
        return batches

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "windows_in_batch": self.batch_size * self._n_parts,
            "drop_last": self.drop_last,
            "stimuli": np.bincount(self.codes).tolist(),
        }
