"""Puts the emulated CUDA kernels behind the ops: their GPU path then runs on numpy arrays and CPU tensors."""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda_emulation.build import emulated_module

from neurokern.ops import _library

RUBBISH, GUARD = 0xA5, 0x5C  # what fresh memory holds, and the bytes around it
ALIGNMENT = 256  # as a GPU's allocator aligns


class DeviceMemory:
    """Hands out arrays full of rubbish, and notices writes just before and behind them."""

    def __init__(self) -> None:
        # The last ones: those of the call that is checked.
        self.blocks: deque[tuple[weakref.ref[np.ndarray], int, int]] = deque(maxlen=32)

    def allocate(self, n_bytes: int) -> np.ndarray:
        """Return uninitialised bytes with guards around them."""
        block = np.full(n_bytes + 3 * ALIGNMENT, GUARD, np.uint8)
        start = 2 * ALIGNMENT - block.ctypes.data % ALIGNMENT
        block[start : start + n_bytes] = RUBBISH
        self.blocks.append((weakref.ref(block), start, start + n_bytes))
        return block[start : start + n_bytes]

    def check(self) -> None:
        """Raise if a guard has been written to."""
        for reference, start, stop in self.blocks:
            block = reference()
            if block is not None and (block[:start].min() != GUARD or block[stop:].min() != GUARD):
                raise AssertionError(f"a kernel wrote outside of an array of {stop - start} bytes")

    def new_array(self, like: Any, shape: tuple[int, ...], dtype: Any, fill: float | None = None) -> Any:
        """Stand in for ``_library.new_array``."""
        if not isinstance(like, np.ndarray):
            torch = _library.torch
            dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
            n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            array: Any = torch.from_numpy(self.allocate(n_bytes)).view(dtype).view(shape)
        else:
            dtype = np.dtype(dtype)
            n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            array = self.allocate(n_bytes).view(dtype).reshape(shape)
        if fill is not None:
            array[...] = fill
        return array


class CheckedModule:
    """A module with kernels; after each call the guards of all memory must be whole."""

    def __init__(self, module: Any, memory: DeviceMemory) -> None:
        self.module, self.memory = module, memory

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.module, name)
        if isinstance(attribute, type):
            return attribute

        def call(*arguments: Any) -> Any:
            result = attribute(*arguments)
            self.memory.check()
            return result

        return call


@contextlib.contextmanager
def emulated_gpu() -> Iterator[None]:
    """Let numpy arrays and CPU tensors count as a GPU's."""
    memory = DeviceMemory()
    module = CheckedModule(emulated_module(), memory)

    @contextlib.contextmanager
    def gpu_module(array: Any) -> Iterator[tuple[Any, int]]:
        yield module, 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_library, "runs_on_gpu", lambda array: True)
        patch.setattr(_library, "gpu_module", gpu_module)
        patch.setattr(_library, "new_array", memory.new_array)
        yield
