"""Batches of windows as a stream: run after run, the same for any number of workers and processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from neurokern._check import check_integer
from neurokern.datasets._random import permutation

__all__ = ["FMRIStream", "WindowStream"]


class _Windows(Protocol):
    """What a stream asks of a dataset of windows."""

    offsets: NDArray[np.int64]

    def batch(self, indices: Sequence[int], *, shared: bool = False) -> Any:
        """Return windows as one batch."""

    def __len__(self) -> int:
        """Return the number of windows."""


class WindowStream(IterableDataset[Any]):
    """All windows of a dataset once an epoch, in whole batches, the windows of a run next to each other.

    Reading goes through one run after the other, which suits compressed images and disks that are far away;
    runs come in an order drawn anew for each epoch. Batch k of an epoch is a function of ``(seed, epoch, k)``
    alone: with any number of workers and processes the same batches come in the same order, so that a run of
    training can be resumed with other numbers. Windows are read to their place in the batch, in workers in
    shared memory.

    Parameters
    ----------
    windows : FMRIWindows, MEEGWindows or SpikeWindows
    batch_size : int
        Windows in a batch; the last one may hold fewer.
    seed : int, default 0
    shuffle : {"runs", "windows", False}, default "runs"
        "runs": runs in a drawn order, windows of each in time. "windows": also the windows within each run,
        for files of which any part is read alike (``.nii``, packed runs). False: as in the dataset.
    drop_last : bool, default False
        Leave out a last batch that is not full.
    rank, world_size : int, default 0 and 1
        Of several processes that train together this one takes batches ``rank``, ``rank + world_size``, ...;
        those that would not give every process as many are left out.

    Notes
    -----
    ``DataLoader(stream, batch_size=None, num_workers=...)``: the stream makes the batches. ``set_epoch``
    chooses the epoch of the next pass, also for persistent workers. To resume in the middle:
    ``state_dict(consumed=n)`` with the number of batches of this epoch that all processes together were
    trained on, and ``load_state_dict`` in the new processes, of which there may be more or fewer. Batches
    that would not give every one of them as many are left out at the end.

    Examples
    --------
    >>> stream = WindowStream(windows, batch_size=16, seed=1)  # doctest: +SKIP
    >>> for epoch in range(10):  # doctest: +SKIP
    ...     stream.set_epoch(epoch)
    ...     for batch in DataLoader(stream, batch_size=None, num_workers=2):
    ...         train(batch["signal"])
    """

    def __init__(
        self,
        windows: _Windows,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: str | bool = "runs",
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if check_integer("WindowStream", "batch_size", batch_size) < 1:
            raise ValueError(f"WindowStream: batch_size must be at least 1, got {batch_size}")
        if shuffle not in ("runs", "windows", False):
            raise ValueError(f"WindowStream: shuffle must be 'runs', 'windows' or False, got {shuffle!r}")
        if not 0 <= rank < world_size:
            raise ValueError(f"WindowStream: rank must be 0 to {world_size - 1}, got {rank}")
        self.windows, self.batch_size, self.shuffle = windows, batch_size, shuffle
        self.seed, self.drop_last, self.rank, self.world_size = int(seed), bool(drop_last), rank, world_size
        # Epoch, and its batches that all processes are done with: shared, so that workers that live on see
        # what set_epoch says.
        self._place = torch.zeros(2, dtype=torch.int64).share_memory_()
        self._iterator_knows = False  # a loaded state told no place: the iterator's own must follow

    @property
    def epoch(self) -> int:
        """The epoch of the next pass."""
        return int(self._place[0])

    @property
    def _n_batches(self) -> int:
        """Batches of an epoch, for all processes together."""
        n = len(self.windows)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    @property
    def batches_per_epoch(self) -> int:
        """Batches that this process gets in a whole epoch."""
        return self._n_batches // self.world_size

    def __len__(self) -> int:
        """Return the batches of the next pass: fewer than a whole epoch only after resuming."""
        return (self._n_batches - int(self._place[1])) // self.world_size

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return all windows of an epoch in their order, as numbers of the dataset's items."""
        offsets = self.windows.offsets
        n_runs = len(offsets) - 1
        runs = permutation(n_runs, self.seed, epoch, n_runs) if self.shuffle else np.arange(n_runs)
        parts = []
        for run in runs.tolist():
            size = int(offsets[run + 1] - offsets[run])
            within = (
                permutation(size, self.seed, epoch, run) if self.shuffle == "windows" else np.arange(size)
            )
            parts.append(offsets[run] + within)
        return np.concatenate(parts)

    def __iter__(self) -> Iterator[Any]:
        return _Pass(self)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass; a loaded epoch keeps its place."""
        if check_integer("WindowStream.set_epoch", "epoch", epoch) < 0:
            raise ValueError(f"WindowStream.set_epoch: epoch must be at least 0, got {epoch}")
        if epoch != self.epoch:
            self._place[0], self._place[1] = epoch, 0

    def state_dict(self, consumed: int | None = None) -> dict[str, Any]:
        """Return the place in the epoch and what it depends on, as plain numbers.

        Parameters
        ----------
        consumed : int, optional
            Batches of this epoch already trained on, by all processes together, those before a resumption
            included. Workers read ahead, so only the training loop knows. Loaders that ask each iterator for
            its own place (torchdata's ``StatefulDataLoader``) leave it out; such a state serves no other.
        """
        if consumed is not None and not 0 <= consumed <= self._n_batches:
            raise ValueError(
                f"WindowStream.state_dict: consumed must be 0 to {self._n_batches}, got {consumed}"
            )
        if consumed is None:
            return {"epoch": self.epoch, "batch": None, "start": int(self._place[1]), **self._identity()}
        return {"epoch": self.epoch, "batch": int(consumed), **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a saved place. ValueError if the saved order belongs to other data or settings."""
        _check_same("WindowStream", state, self._identity())
        epoch, batch = state.get("epoch"), state.get("batch", -1)
        self._iterator_knows = batch is None
        batch = state.get("start") if batch is None else batch
        if not (
            isinstance(epoch, int) and isinstance(batch, int) and epoch >= 0 and 0 <= batch <= self._n_batches
        ):
            raise ValueError(f"WindowStream.load_state_dict: no such place: epoch {epoch!r}, batch {batch!r}")
        done = self._n_batches - batch < self.world_size
        self._place[0], self._place[1] = (epoch + 1, 0) if done else (epoch, batch)

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "windows": np.diff(self.windows.offsets).tolist(),
        }


class _Pass(Iterator[Any]):
    """One pass through an epoch, by one process or worker, which knows its own place."""

    def __init__(self, stream: WindowStream) -> None:
        self.stream = stream
        self.epoch, self.start = stream._place.tolist()
        worker = get_worker_info()
        self.shared = worker is not None
        self.number, self.step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        self._order: NDArray[np.int64] | None = None

    def __next__(self) -> Any:
        stream = self.stream
        if stream._iterator_knows:
            raise RuntimeError(
                "WindowStream: the loaded state does not tell how many batches were trained on; save "
                "state_dict(consumed=...)"
            )
        if self.number >= (stream._n_batches - self.start) // stream.world_size:
            raise StopIteration
        if self._order is None:
            self._order = stream.order(self.epoch)
        at = (self.start + self.number * stream.world_size + stream.rank) * stream.batch_size
        self.number += self.step
        return stream.windows.batch(self._order[at : at + stream.batch_size].tolist(), shared=self.shared)

    def state_dict(self) -> dict[str, Any]:
        """Return this iterator's place, for loaders that keep one of each worker."""
        return {"epoch": self.epoch, "start": self.start, "number": self.number, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at the place of an iterator of the same worker."""
        _check_same("WindowStream", state, self._identity())
        self.epoch, self.start, self.number = (int(state[name]) for name in ("epoch", "start", "number"))
        self._order, self.stream._iterator_knows = None, False

    def _identity(self) -> dict[str, Any]:
        return {**self.stream._identity(), "world_size": self.stream.world_size, "workers": self.step}


def _check_same(function: str, state: dict[str, Any], identity: dict[str, Any]) -> None:
    different = {name: (state.get(name), now) for name, now in identity.items() if state.get(name) != now}
    if different:
        raise ValueError(f"{function}.load_state_dict: (saved, now) differ: {different}")


FMRIStream = WindowStream
