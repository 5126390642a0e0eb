"""Ops: one page each with contract, reference and dispatch; kernels lie in ``csrc/`` under the same name."""
