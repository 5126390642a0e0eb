"""Puts the Triton kernels behind the ops: on a GPU, or run by Triton's interpreter on arrays of the CPU."""

from __future__ import annotations

import contextlib
import importlib.util
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda_emulation.emulated import ALIGNMENT, RUBBISH, DeviceMemory, patch_memory

from neurokern.ops import _library

GUARD = 0x5C  # what lies around an array


class GuardedMemory(DeviceMemory):
    """Hands out arrays full of rubbish, and notices writes just before and behind them."""

    def __init__(self) -> None:
        super().__init__(None)
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


class CheckedKernels:
    """The module of an op's Triton kernels; after each call the guards of all memory must be whole."""

    def __init__(self, module: Any, memory: GuardedMemory) -> None:
        self.module, self.memory = module, memory

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            result = getattr(self.module, name)(*arguments)
            self.memory.check()
            return result

        return call


@contextlib.contextmanager
def triton_by_default(on_device: str) -> Iterator[None]:
    """Let ops that are not told otherwise run their Triton kernels on one kind of device."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    choose_backend = _library.choose_backend

    def choose(function: str, device_type: str, backend: str | None) -> str:
        by_default = "triton" if device_type == on_device else None
        return choose_backend(function, device_type, backend or by_default)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_library, "choose_backend", choose)
        yield


@contextlib.contextmanager
def interpreted_triton() -> Iterator[None]:
    """Let ops that are not told otherwise run their Triton kernels, in memory that is watched."""
    memory = GuardedMemory()
    triton_kernels = _library.triton_kernels
    with triton_by_default("cpu"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_library, "triton_kernels", lambda op: CheckedKernels(triton_kernels(op), memory))
        patch_memory(patch, memory)
        yield
