"""Ops: each one page with contract, reference and dispatch; the compiled kernels lie in ``csrc/`` under the same name."""
