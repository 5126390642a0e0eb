"""Puts the emulated CUDA kernels in the place of the CPU kernel of bin_spikes."""

from __future__ import annotations

from typing import Any

import numpy as np
from cuda_emulation.emulated import emulated_module

from neurokern.ops import _spike_calls as calls


def count_emulated(
    spikes: calls.Spikes, counts: Any, count_type: str, n_units: int, grid: Any, rules: calls.Rules
) -> int:
    """Do what ``count_on_cuda`` does, with arrays on the CPU and memory that holds rubbish at first."""
    module = emulated_module("bin_spikes")
    calls.check_values(spikes, n_units)
    totals = np.full(counts.shape, -77, np.int32)
    report = np.full(5, -77, np.int64)
    problem = calls.problem_of(module, spikes, counts, count_type, n_units, grid, rules, None)
    module.bin_spikes(problem, calls.address(totals), calls.address(report), 0)
    outside, unknown, unmapped, largest = report[:4].tolist()
    calls.check_report(unknown, largest, spikes, count_type, n_units, rules)
    return outside + unknown + unmapped
