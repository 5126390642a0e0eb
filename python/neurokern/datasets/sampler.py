"""Batches of one session each, shuffled anew in every epoch, and the place in the epoch to resume from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Sampler

from neurokern.datasets._random import permutation

if TYPE_CHECKING:
    from neurokern.datasets.fmri_windows import FMRIWindows
    from neurokern.datasets.meeg_windows import MEEGWindows
    from neurokern.datasets.torch_dataset import SpikeWindows

__all__ = ["EpochSampler", "SessionBatchSampler"]


class EpochSampler(Sampler[list[int]], ABC):
    """Batches whose order is a function of ``(seed, epoch)``, with a place in the epoch to resume from.

    Of several processes that train together this one takes batches ``rank``, ``rank + world_size``, ...
    """

    def __init__(self, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"{type(self).__name__}: rank must be 0 to {world_size - 1}, got {rank!r}")
        self.seed, self.rank, self.world_size = int(seed), int(rank), int(world_size)
        self.epoch = 0
        self._start = 0  # first batch of the next pass; above 0 only after load_state_dict
        self._drawn = 0  # batches of this epoch that were drawn so far, by all processes
        # Whether the next pass is the next epoch; workers finish drawing before training does.
        self._finished = False

    @property
    def sampler(self) -> EpochSampler:
        """Itself: where Lightning and accelerate look for ``set_epoch``."""
        return self

    @property
    @abstractmethod
    def batches_per_epoch(self) -> int:
        """Number of batches in a whole epoch, for all processes together."""

    @abstractmethod
    def plan(self, epoch: int) -> list[list[int]]:
        """Return all batches of an epoch, each a list of items of the dataset. Changes nothing."""

    @abstractmethod
    def _identity(self) -> dict[str, Any]:
        """Return what the order depends on, as plain values."""

    def __len__(self) -> int:
        """Number of batches that the next pass gives: fewer than a whole epoch only right after resuming."""
        return (self.batches_per_epoch - self._start) // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        if self._finished:
            self.epoch, self._finished = self.epoch + 1, False
        batches = self.plan(self.epoch)
        self._drawn, self._start = self._start, 0
        while self._drawn + self.world_size <= len(batches):
            self._drawn += self.world_size
            # Some loops stop at the last batch and never ask for one more.
            self._finished = self._drawn + self.world_size > len(batches)
            yield batches[self._drawn - self.world_size + self.rank]
        self._finished = True

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass. After ``load_state_dict``, the loaded epoch keeps its place."""
        if epoch < 0 or epoch != int(epoch):
            raise ValueError(
                f"{type(self).__name__}.set_epoch: epoch must be an integer of at least 0, got {epoch!r}"
            )
        if int(epoch) != self.epoch:
            self.epoch, self._start, self._drawn = int(epoch), 0, 0
        self._finished = False

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Return the place in the epoch and what it depends on, as plain numbers.

        Parameters
        ----------
        consumed : int, optional
            Batches of this epoch already trained on, by all processes together, those before a resumption
            included. Default: the number drawn, which is right without workers.
        """
        batch = self._drawn or self._start if consumed is None else int(consumed)
        if not 0 <= batch <= self.batches_per_epoch:
            raise ValueError(
                f"{type(self).__name__}.state_dict: consumed must be 0 to {self.batches_per_epoch}, "
                f"got {consumed!r}"
            )
        return {"epoch": self.epoch, "batch": batch, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved place. ValueError if the saved order belongs to other data or settings."""
        identity = self._identity()
        different = {
            name: (state.get(name), value) for name, value in identity.items() if state.get(name) != value
        }
        if different:
            raise ValueError(f"{type(self).__name__}.load_state_dict: (saved, now) differ: {different}")
        epoch, batch = state.get("epoch"), state.get("batch")
        if not (
            isinstance(epoch, int)
            and isinstance(batch, int)
            and 0 <= batch <= self.batches_per_epoch
            and epoch >= 0
        ):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: no such place: epoch {epoch!r}, batch {batch!r}"
            )
        done = self.batches_per_epoch - batch < self.world_size
        self.epoch, self._start, self._drawn = (epoch + 1, 0, 0) if done else (epoch, batch, 0)
        self._finished = False


class SessionBatchSampler(EpochSampler):
    """Draw every window once an epoch, in batches that hold windows of one session only.

    Each epoch shuffles the windows within each session, cuts them into batches and shuffles the batches of
    all sessions, so that both the order and the composition of batches change. The batches of an epoch depend
    on ``(seed, epoch)`` alone: not on the number of workers or processes, what was drawn before, or the
    version of numpy.

    Parameters
    ----------
    dataset : SpikeWindows, FMRIWindows or MEEGWindows
    batch_size : int
        Windows in a batch. The last batch of a session may hold fewer.
    seed : int, default 0
    shuffle : bool, default True
        If False: sessions and windows in their order, the same in every epoch.
    drop_last : bool, default False
        Leave out the smaller last batch of each session. By default no window is left out.
    rank, world_size : int, default 0 and 1
        Of several processes that train together this one takes batches ``rank``, ``rank + world_size``, ...;
        those that would not give every process as many are left out.

    Notes
    -----
    A pass that was drawn to its end is followed by the next epoch; ``set_epoch`` chooses one. To resume in
    the middle: ``state_dict(consumed=n)`` with the number of batches of this epoch that all processes
    together were trained on (worker processes draw batches ahead of the training loop, so the sampler cannot
    know it), and ``load_state_dict`` in the new processes, of which there may be more or fewer.
    """

    def __init__(
        self,
        dataset: SpikeWindows | FMRIWindows | MEEGWindows,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(
                f"SessionBatchSampler: batch_size must be an integer of at least 1, got {batch_size!r}"
            )
        super().__init__(seed, rank, world_size)
        self.sizes = np.diff(dataset.offsets)
        self.offsets = dataset.offsets[:-1]
        self.batch_size = batch_size
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        if not self.batches_per_epoch:
            raise ValueError(
                f"SessionBatchSampler: {int(self.sizes.sum())} windows in {len(self.sizes)} sessions give no "
                f"batch of {batch_size} with drop_last={drop_last}"
            )

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in a whole epoch, for all processes together."""
        whole = self.sizes // self.batch_size if self.drop_last else -(-self.sizes // self.batch_size)
        return int(whole.sum())

    def plan(self, epoch: int) -> list[list[int]]:
        """Return all batches of an epoch, each a list of items of the dataset. Changes nothing."""
        batches: list[list[int]] = []
        for number, (offset, size) in enumerate(zip(self.offsets.tolist(), self.sizes.tolist(), strict=True)):
            windows = permutation(size, self.seed, epoch, number) if self.shuffle else np.arange(size)
            items = (windows + offset).tolist()
            stop = size - size % self.batch_size if self.drop_last else size
            batches += [items[k : min(k + self.batch_size, stop)] for k in range(0, stop, self.batch_size)]
        if not self.shuffle:
            return batches
        return [batches[k] for k in permutation(len(batches), self.seed, epoch, len(self.sizes)).tolist()]

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "windows": self.sizes.tolist(),
        }
