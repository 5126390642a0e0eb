"""Ops: one page each with contract, reference and dispatch; kernels lie in ``csrc/`` under the same name."""

from neurokern.ops.bin_spikes import bin_spikes

__all__ = ["bin_spikes"]
