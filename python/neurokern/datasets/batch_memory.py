"""Memory of batches: used again once nobody holds what lay in it, or shared with the process that asked."""

from __future__ import annotations

import math
import weakref
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from neurokern._check import check_memory
from neurokern.ops import _library

__all__ = ["BatchMemory"]

_MOST_BLOCKS = 4  # kept for later batches


class _Block(NamedTuple):
    memory: NDArray[np.uint8]
    handed_out: weakref.ref[NDArray[np.uint8]]  # the view that a batch's tensors hold


class BatchMemory:
    """Gives memory to batches, one after the other.

    A block is given again only when nothing refers to it any more: not the batch, nor any tensor, view or
    array that was made of it without copying. So a batch that is kept is never written over: the next one
    then gets a block of its own. A loop that holds one batch while the next is read uses two blocks in turn,
    whose pages are in place, where fresh memory would cost as much again as the reading.

    Notes
    -----
    The tensors hold a view, an object of numpy's, and let go of it with their storage: a weak reference to it
    tells whether any is left. Memory that is pinned for copies to a GPU is not used again here, since such a
    copy goes on after its source was let go; PyTorch keeps its own, which waits for copies.
    """

    def __init__(self, user: str) -> None:
        self._user = user
        self._blocks: deque[_Block] = deque()

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchMemory, (self._user,)

    def take(self, shape: tuple[int, ...], dtype: torch.dtype, *, shared: bool) -> torch.Tensor:
        """Return memory for a batch, uninitialised; ``shared`` if a worker will hand it over."""
        n_bytes = math.prod(shape) * dtype.itemsize
        if not n_bytes:
            return torch.empty(shape, dtype=dtype)
        if shared:
            self._check(n_bytes)
            storage = torch.UntypedStorage._new_shared(n_bytes)
            return torch.empty(0, dtype=dtype).set_(storage).view(shape)
        memory = self._find(n_bytes)
        if memory is None:
            self._check(n_bytes)
            fresh = torch.empty(n_bytes, dtype=torch.uint8)
            _library.core.advise_huge_pages(fresh.data_ptr(), n_bytes)
            memory = fresh.numpy()
        view = memory[:n_bytes]
        # Added last: a block that another thread can see is marked as handed out.
        self._blocks.append(_Block(memory, weakref.ref(view)))
        return torch.from_numpy(view).view(dtype).view(shape)

    def _check(self, n_bytes: int) -> None:
        check_memory(self._user, "a batch", n_bytes, "take fewer or shorter windows, or a mask")

    def _find(self, n_bytes: int) -> NDArray[np.uint8] | None:
        """Take a free block that is large enough off the ring, and let go of what is of no use."""
        found = None
        for _ in range(len(self._blocks)):
            try:
                block = self._blocks.popleft()
            except IndexError:  # another thread has it
                break
            is_free = block.handed_out() is None
            if is_free and found is None and n_bytes <= block.memory.nbytes <= 4 * n_bytes:
                found = block.memory
            elif len(self._blocks) < _MOST_BLOCKS - 1 and not (is_free and block.memory.nbytes < n_bytes):
                self._blocks.append(block)
        return found
