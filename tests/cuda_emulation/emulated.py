"""Puts the emulated CUDA kernels behind the ops: their GPU path then runs on numpy arrays and CPU tensors."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda_emulation.build import emulated_module

from neurokern.ops import _library

RUBBISH = 0xA5  # what fresh memory holds
ALIGNMENT = 256  # as a GPU's allocator aligns


def bytes_of(array: Any) -> tuple[int, int]:
    """Return the address of an array's first element, and the bytes from the lowest to the highest."""
    if isinstance(array, np.ndarray):
        size, first, strides = array.itemsize, array.ctypes.data, array.strides
    else:
        size, first = array.element_size(), array.data_ptr()
        strides = tuple(stride * size for stride in array.stride())
    if 0 in array.shape:
        return first, 0
    spans = [(length - 1) * stride for length, stride in zip(array.shape, strides, strict=True)]
    lowest = first + sum(span for span in spans if span < 0)
    return lowest, size + sum(abs(span) for span in spans)


class DeviceMemory:
    """Hands out arrays full of rubbish, and tells the checks what memory a call may touch."""

    def __init__(self, module: Any) -> None:
        self.module = module
        # Arrays that nothing was written to before the next call, by address.
        self.fresh: dict[int, weakref.ref[np.ndarray]] = {}

    def allocate(self, n_bytes: int) -> np.ndarray:
        """Return uninitialised bytes, aligned as by a GPU's allocator."""
        block = np.full(n_bytes + ALIGNMENT, RUBBISH, np.uint8)
        start = -block.ctypes.data % ALIGNMENT
        self.fresh[block.ctypes.data + start] = weakref.ref(block)
        return block[start : start + n_bytes]

    def address(self, array: Any) -> int:
        """Stand in for ``_library.address``."""
        if array is None:
            return 0
        lowest, n_bytes = bytes_of(array)
        is_fresh = self.fresh.get(lowest, lambda: None)() is not None
        self.module.add_array(lowest, n_bytes, is_fresh)
        return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data_ptr())

    def forget(self) -> None:
        """End a call: the caller may write to what is left of its arrays."""
        self.fresh.clear()
        self.module.forget_arrays()

    def pinned_bytes(self, n_bytes: int) -> Any:
        """Stand in for ``_library.pinned_bytes``: no kernel may touch it, as all that is not of the GPU."""
        return _library.torch.from_numpy(np.full(n_bytes, RUBBISH, np.uint8))

    def to_gpu(self, host: Any, like: Any) -> Any:
        """Stand in for ``_library.to_gpu``; the copy is made at once."""
        there = self.new_array(like, tuple(host.shape), host.dtype)
        there.copy_(host)
        self.fresh.pop(bytes_of(there)[0], None)
        return there

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
            self.fresh.pop(bytes_of(array)[0], None)
        return array


class Reached:
    """Stands in for the mark of a place in a stream, where copies are made at once."""

    def synchronize(self) -> None:
        """Wait for nothing."""


def patch_memory(patch: pytest.MonkeyPatch, memory: DeviceMemory) -> None:
    """Let the CPU be the device of a GPU's arrays, which come from ``memory``."""
    patch.setattr(_library, "gpu_like", lambda device: None if device is None else _library.torch.empty(0))
    patch.setattr(_library, "new_array", memory.new_array)
    patch.setattr(_library, "pinned_bytes", memory.pinned_bytes)
    patch.setattr(_library, "to_gpu", memory.to_gpu)
    patch.setattr(_library, "copy_mark", lambda like: Reached())


@contextlib.contextmanager
def emulated_gpu() -> Iterator[None]:
    """Let numpy arrays and CPU tensors count as a GPU's."""
    module = emulated_module()
    memory = DeviceMemory(module)

    @contextlib.contextmanager
    def gpu_module(array: Any) -> Iterator[tuple[Any, int]]:
        try:
            yield module, 0
        finally:
            memory.forget()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_library, "runs_on_gpu", lambda array: True)
        patch.setattr(_library, "gpu_module", gpu_module)
        patch.setattr(_library, "address", memory.address)
        patch_memory(patch, memory)
        yield
