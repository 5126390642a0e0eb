"""How Triton kernels are started, the same way for each."""

from __future__ import annotations

import struct
from typing import Any

import torch

THREADS = 128


def launch(kernel: Any, n_programs: int, first: torch.Tensor, *arguments: Any, **constants: Any) -> None:
    """Run ``n_programs`` programs of a kernel on the device of ``first``, on torch's current stream.

    Nothing waits. Products and sums are never fused: results have the bits of the C++ kernels.
    """
    if n_programs == 0:
        return
    constants = {"num_warps": THREADS // 32, "enable_fp_fusion": False} | constants
    if first.device.type == "cpu":  # interpreted
        kernel[(n_programs,)](first, *arguments, **constants)
        return
    with torch.cuda.device(first.device):
        kernel[(n_programs,)](first, *arguments, **constants)


def bits_of(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` as integers of its width: what only moves has no meaning."""
    return x.view(getattr(torch, f"int{8 * x.element_size()}"))


def double_bits(number: float) -> int:
    """Return the bits of a float64, for ``as_double``: Triton takes Python's floats as float32."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])
