"""The CUDA kernels of bin_spikes, executed on the CPU: the same bits as the CPU kernel."""

import importlib

import numpy as np
import pytest
from cuda_emulation.emulated_bin_spikes import count_emulated
from hypothesis import given, settings
from hypothesis import strategies as st

import neurokern as nk

op = importlib.import_module("neurokern.ops.bin_spikes")


def both(times, units, *args, **options):
    native = nk.bin_spikes(times, units, *args, return_dropped=True, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(op, "count_on_cpu", count_emulated)
        emulated = nk.bin_spikes(times, units, *args, return_dropped=True, **options)
    return native, emulated


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_spikes=st.integers(0, 400),
    n_units=st.integers(0, 40),
    n_bins=st.integers(0, 60),
    bin_size=st.sampled_from([0.001, 0.02, 1 / 60, 0.03, 2.0]),
    samples=st.booleans(),
    shuffled=st.booleans(),
    windows=st.integers(0, 4),
    mapped=st.booleans(),
    closed_last=st.booleans(),
    wide=st.booleans(),
    dtype=st.sampled_from(["uint8", "int16", "int32", "int64", "float16", "float32", "float64"]),
)
def test_emulated_cuda_gives_the_bits_of_the_cpu(
    seed, n_spikes, n_units, n_bins, bin_size, samples, shuffled, windows, mapped, closed_last, wide, dtype
):
    rng = np.random.default_rng(seed)
    length = n_bins * bin_size
    ticks = np.sort(rng.integers(-100, max(int(length * 30_000), 1) + 100, n_spikes))
    if shuffled:
        rng.shuffle(ticks)
    times = ticks if samples else ticks / 30_000
    units = rng.integers(-2, n_units + 2, n_spikes).astype(np.int64 if wide else np.int32)
    options = {"n_units": n_units, "dtype": dtype, "closed_last": closed_last, "overflow": "saturate"}
    if samples:
        options["sfreq"] = 30_000
    if mapped:
        options["unit_map"] = rng.integers(-1, max(n_units, 1), 30) if n_units else np.full(30, -1)
    if windows:
        options["windows"] = rng.uniform(-0.5, 0.8, windows) * length
    (counts, dropped), (emulated, dropped_there) = both(times, units, bin_size, length, **options)
    np.testing.assert_array_equal(counts, emulated)
    assert dropped == dropped_there


def test_more_cells_than_threads_of_the_grid():
    rng = np.random.default_rng(0)
    times, units = np.sort(rng.uniform(0, 400, 5000)), rng.integers(0, 3000, 5000)
    (counts, _), (emulated, _) = both(times, units, 1.0, 400.0, n_units=3000, dtype="uint8")
    np.testing.assert_array_equal(counts, emulated)


def test_saturation_and_the_largest_count_on_emulated_cuda(monkeypatch):
    monkeypatch.setattr(op, "count_on_cpu", count_emulated)
    times, units = np.zeros(300), np.zeros(300, np.int32)
    assert nk.bin_spikes(times, units, 1.0, 1.0, dtype="uint8", overflow="saturate")[0, 0] == 255
    with pytest.raises(ValueError, match="got 300 spikes of one unit in one bin"):
        nk.bin_spikes(times, units, 1.0, 1.0, dtype="uint8")
