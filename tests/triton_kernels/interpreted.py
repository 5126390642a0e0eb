"""Puts the Triton kernels behind the ops, run by Triton's interpreter on numpy arrays and CPU tensors."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator

import pytest
from cuda_emulation.emulated import CheckedModule, DeviceMemory

from neurokern.ops import _library


@contextlib.contextmanager
def interpreted_triton() -> Iterator[None]:
    """Let ops that are not told otherwise run their Triton kernels, in memory that is watched."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    memory = DeviceMemory()
    choose_backend, triton_kernels = _library.choose_backend, _library.triton_kernels

    def choose(function: str, device_type: str, backend: str | None) -> str:
        return choose_backend(function, device_type, backend or "triton")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_library, "choose_backend", choose)
        patch.setattr(_library, "triton_kernels", lambda op: CheckedModule(triton_kernels(op), memory))
        patch.setattr(_library, "new_array", memory.new_array)
        yield
