"""Without torch the ops run on numpy arrays. Argument: the instruction set to expect."""

import importlib.util
import sys

import numpy as np

import neurokern as nk
from neurokern import _core

assert importlib.util.find_spec("torch") is None, "this check needs a Python without torch"
if len(sys.argv) > 1:
    assert _core.isa() == sys.argv[1], f"expected instruction set {sys.argv[1]}, got {_core.isa()}"

times = np.array([0.01, 0.02, 0.07, 0.1, 0.19])
units = np.array([0, 1, 0, 1, 1])
counts = nk.bin_spikes(times, units, bin_size=0.05, stop=0.2, n_units=2)
np.testing.assert_array_equal(counts, [[1, 1], [1, 0], [0, 1], [0, 1]])

rng = np.random.default_rng(0)
times = np.sort(rng.uniform(0, 60, 50_000))
units = rng.integers(0, 90, 50_000)
counts = nk.bin_spikes(times, units, bin_size=0.02, stop=60.0, n_units=90)
expected = np.histogram2d(times, units, bins=(np.arange(3001) / 50, np.arange(91)))[0]
np.testing.assert_array_equal(counts, expected)

print(f"neurokern {nk.__version__} without torch on instruction set {_core.isa()}: ok")
