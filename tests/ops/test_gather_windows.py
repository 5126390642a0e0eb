"""Batches of windows of stored runs: numpy's values, validity at the ends, files that change, errors."""

import os
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurokern.ops import (
    NiftiFile,
    NiftiFormatError,
    StoredRun,
    VoxelMask,
    _array_cache,
    decode_nifti,
    fit_cleaning,
    gather_windows,
)
from neurokern.ops._stored_run import STORED_TYPES

torch = pytest.importorskip("torch")

from nifti_files import random_raw, write_nifti  # noqa: E402

pytestmark = pytest.mark.cpu_only
SHORT = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def random_values(dtype, shape, seed=0):
    """Return stored values of a type, a tensor for the two short floats."""
    rng = np.random.default_rng(seed)
    if dtype in SHORT:
        return torch.from_numpy(rng.normal(0, 100, shape).astype(np.float32)).to(SHORT[dtype])
    if dtype.startswith("float"):
        return rng.normal(0, 100, shape).astype(dtype)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return rng.integers(low, high, shape, dtype=dtype, endpoint=True)


def as_float64(values):
    return values.double().numpy() if isinstance(values, torch.Tensor) else values.astype(np.float64)


def reference(runs, run, start, length):
    """Return windows of float64 runs one by one, and where they lie inside."""
    signal = np.zeros((len(run), length, runs[0].shape[1]))
    valid = np.zeros((len(run), length), bool)
    for place, (number, first) in enumerate(zip(run, start, strict=True)):
        for t in range(length):
            if 0 <= first + t < len(runs[number]):
                signal[place, t], valid[place, t] = runs[number][first + t], True
    return signal, valid


# ---- values


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(sorted(STORED_TYPES)),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    n_columns=st.integers(0, 40),
    places=st.lists(st.tuples(st.integers(0, 2), st.integers(-12, 12)), max_size=7),
    length=st.integers(1, 6),
    scale=st.sampled_from([(1.0, 0.0), (0.5, -3.0), (1 / 3, 0.1)]),
    decoded=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    some=st.booleans(),
)
def test_windows_are_slices_of_the_scaled_runs_and_zero_where_they_are_not_valid(
    dtype, sizes, n_columns, places, length, scale, decoded, some
):
    values = [random_values(dtype, (n, n_columns), seed) for seed, n in enumerate(sizes)]
    columns = np.random.default_rng(1).permutation(n_columns)[: n_columns // 2] if some else None
    slope, inter = scale
    runs = [StoredRun(v, slope=slope, inter=inter, columns=columns) for v in values]
    run = np.array([number % len(sizes) for number, _ in places], np.int64)
    start = np.array([first for _, first in places], np.int64)
    signal, valid = gather_windows(runs, run, start, length, dtype=decoded)
    scaled = [slope * as_float64(v) + inter for v in values]
    scaled = scaled if columns is None else [v[:, columns] for v in scaled]
    expected, inside = reference(scaled, run, start, length)
    np.testing.assert_array_equal(valid.numpy(), inside)
    assert signal.dtype == decoded
    rounded = torch.from_numpy(expected).float()  # once to float32, and from there
    if decoded == torch.float32:
        torch.testing.assert_close(signal, rounded, rtol=2e-7, atol=0)
    else:
        torch.testing.assert_close(signal, rounded.to(decoded), rtol=8e-3, atol=0)
    assert (signal[~valid] == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_floats_that_are_stored_come_out_exactly_with_infinities_and_nan(dtype):
    bits = np.arange(2**16, dtype=np.uint16)
    values = torch.from_numpy(bits.view(np.int16)).view(SHORT.get(dtype, torch.float16)).reshape(64, -1)
    values = values if dtype in SHORT else values.float()
    signal, valid = gather_windows([StoredRun(values)], [0], [0], 64)
    assert valid.all()
    torch.testing.assert_close(signal[0], values.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("n_columns", [1, 1023, 1024, 5000])
@pytest.mark.parametrize("cleans", [False, True])
def test_batches_are_the_same_for_any_number_of_threads_and_wherever_they_begin(tmp_path, n_columns, cleans):
    raw = random_raw("int16", (n_columns, 1, 1, 30))
    path = write_nifti(tmp_path / "bold.nii", raw, slope=0.25, inter=3.0)
    mask = VoxelMask(np.ones((n_columns, 1, 1), bool))
    fit = fit_cleaning(NiftiFile(path), mask, detrend=True, standardize=True, cache=False) if cleans else None
    run = StoredRun(raw.reshape(n_columns, 30).T.copy(), slope=0.25, inter=3.0, cleaning=fit)
    whole = decode_nifti(path, mask, dtype=torch.float32)
    whole = fit.apply(whole, 0) if cleans else whole
    numbers, starts = np.zeros(40, np.int64), np.random.default_rng(0).integers(-4, 30, 40)
    expected, _ = reference([whole.numpy()], numbers, starts, 8)
    threads = torch.get_num_threads()
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            signal, _ = gather_windows([run], numbers, starts, 8)
            np.testing.assert_array_equal(signal.numpy(), expected)
            out = torch.empty(signal.numel() + 1)[1:].view(signal.shape)  # no row begins with a cache line
            assert gather_windows([run], numbers, starts, 8, out=out)[0] is out
            np.testing.assert_array_equal(out.numpy(), expected)
    finally:
        torch.set_num_threads(threads)


def test_a_start_at_the_end_of_all_numbers_is_outside():
    starts = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max, -3, 4], np.int64)
    signal, valid = gather_windows([StoredRun(np.ones((4, 3), np.float32))], np.zeros(4, int), starts, 3)
    assert not valid.any()
    assert not signal.any()


def test_rows_may_lie_apart_and_an_array_be_written():
    store = np.random.default_rng(0).integers(-9, 9, (10, 7)).astype(np.int16)
    out = np.empty((2, 3, 4), np.float32)
    signal, _ = gather_windows([StoredRun(store[:, 2:6])], [0, 0], [1, 5], 3, out=out)
    assert signal is out
    np.testing.assert_array_equal(out, np.stack([store[1:4, 2:6], store[5:8, 2:6]]))


def test_threads_that_gather_at_once_do_not_meet():
    values = np.random.default_rng(0).normal(size=(50, 3000)).astype(np.float32)
    run, wrong = StoredRun(values), []

    def work(seed):
        for start in np.random.default_rng(seed).integers(0, 42, 20):
            signal, _ = gather_windows([run], [0, 0], [start, start + 1], 8)
            if not np.array_equal(signal[1].numpy(), values[start + 1 : start + 9]):
                wrong.append(start)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- files


def test_runs_are_mapped_from_npy_and_from_raw_files(tmp_path):
    values = random_values("int16", (9, 5))
    np.save(tmp_path / "run.npy", values)
    (tmp_path / "run.bin").write_bytes(b"x" * 6 + values.tobytes())
    short = torch.from_numpy(values).to(torch.bfloat16)
    (tmp_path / "short.bin").write_bytes(short.view(torch.int16).numpy().tobytes())
    npy = StoredRun.open(tmp_path / "run.npy", slope=0.5)
    raw = StoredRun.open(tmp_path / "run.bin", dtype="int16", shape=(9, 5), offset=6, slope=0.5)
    brief = StoredRun.open(tmp_path / "short.bin", dtype="bfloat16", shape=(9, 5), slope=0.5)
    signal, _ = gather_windows([npy, raw, brief], [0, 1, 2], [2, 2, 2], 4)
    for window in signal[:2]:
        np.testing.assert_array_equal(window, 0.5 * values[2:6])
    np.testing.assert_array_equal(signal[2], 0.5 * short[2:6].float())
    assert repr(raw) == "StoredRun(shape=(9, 5), dtype=int16)"


@pytest.mark.parametrize("change", ["cut", "cut to nothing", "written over"])
def test_a_file_that_changes_while_it_is_mapped_is_an_error_and_no_crash(tmp_path, change):
    path = tmp_path / "run.npy"
    np.save(path, np.ones((4000, 64), np.float32))
    run = StoredRun.open(path)
    gather_windows([run], [0], [3990], 10)
    if change == "written over":
        np.save(path, np.zeros((4000, 64), np.float32))
        os.utime(path, ns=(1, 1))
    else:
        os.truncate(path, 4096 if change == "cut" else 0)
    with pytest.raises(ValueError, match=r"run\.npy: the file was changed while it was mapped"):
        gather_windows([run], [0, 0], [0, 3990], 10)


def test_a_packed_run_that_changes_says_so_as_ever(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_array_cache, "_LEAST_FREE", 0)
    path = write_nifti(tmp_path / "bold.nii", random_raw("int16", (5, 4, 3, 9)))
    packed = NiftiFile(path).pack(VoxelMask(np.ones((5, 4, 3), bool)))
    run = packed.stored()
    signal, _ = gather_windows([run], [0], [2], 4)
    assert torch.equal(signal[0], packed.decode(2, 6))
    os.truncate(next((tmp_path / "cache" / "packed_runs").iterdir()), 100)
    with pytest.raises(NiftiFormatError, match="packed run was changed by another program"):
        gather_windows([run], [0], [2], 4)


def test_files_that_cannot_hold_the_run_are_errors(tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros(5))
    np.save(tmp_path / "swapped.npy", np.zeros((2, 2), ">i2"))
    np.save(tmp_path / "columns.npy", np.asfortranarray(np.zeros((3, 4))))
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    np.save(tmp_path / "cut.npy", np.zeros((30, 4)))
    os.truncate(tmp_path / "cut.npy", 200)
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, message in {
        "flat": "one array of .trs, columns.",
        "swapped": "byte order, got >i2",
        "columns": "in C order",
        "text": "byte order, got <U1",
        "cut": "cannot be mapped|cut short",
        "empty": "cannot be mapped",
    }.items():
        with pytest.raises(ValueError, match=message):
            StoredRun.open(tmp_path / f"{name}.npy")
    with pytest.raises(FileNotFoundError):
        StoredRun.open(tmp_path / "none.bin", dtype="int16", shape=(1, 1))
    (tmp_path / "short.bin").write_bytes(bytes(9))
    with pytest.raises(ValueError, match="are 10 bytes with the offset, the file has 9"):
        StoredRun.open(tmp_path / "short.bin", dtype="int16", shape=(5, 1))
    with pytest.raises(ValueError, match="dtype must be one of"):
        StoredRun.open(tmp_path / "short.bin", dtype="complex64", shape=(1, 1))
    with pytest.raises(ValueError, match="dtype and shape together"):
        StoredRun.open(tmp_path / "short.bin", dtype="int16")
    with pytest.raises(ValueError, match="must not be negative"):
        StoredRun.open(tmp_path / "short.bin", dtype="int16", shape=(-1, 1))


# ---- arguments


def test_wrong_arguments_say_what_must_be():
    run, other = StoredRun(np.zeros((5, 3), np.int16)), StoredRun(np.zeros((5, 4), np.int16))
    for arguments, error, message in [
        (([], [0], [0], 2), TypeError, "at least one"),
        (([np.zeros((5, 3))], [0], [0], 2), TypeError, "sequence of StoredRun"),
        (([run, other], [0], [0], 2), ValueError, "the same columns"),
        (([run], [1], [0], 2), ValueError, "run must be 0 to 0"),
        (([run], [-1], [0], 2), ValueError, "run must be 0 to 0"),
        (([run], [0], [0, 1], 2), ValueError, "as many, got 1 and 2"),
        (([run], [0.5], [0], 2), TypeError, "run must be whole numbers"),
        (([run], [0], [[0]], 2), TypeError, "start must be whole numbers"),
        (([run], [0], [0], 0), ValueError, "length must be at least 1"),
        (([run], [0], [0], 2**40), ValueError, "memory that are free"),
    ]:
        with pytest.raises(error, match=message):
            gather_windows(*arguments)
    with pytest.raises(ValueError, match="dtype must be one of"):
        gather_windows([run], [0], [0], 2, dtype=torch.float64)
    read_only = np.zeros((1, 2, 3), np.float32)
    read_only.flags.writeable = False
    for out in (
        torch.empty(1, 2, 4),
        torch.empty(1, 2, 3, dtype=torch.float64),
        torch.empty(1, 3, 2).transpose(1, 2),
        np.empty((1, 2, 3), np.float64),
        read_only,
    ):
        with pytest.raises(ValueError, match="out must be contiguous"):
            gather_windows([run], [0], [0], 2, out=out)


def test_values_that_cannot_be_stored_runs_say_why(tmp_path):
    for values, error, message in [
        (np.zeros((2, 2), ">i2"), TypeError, "this machine's byte order"),
        (np.zeros((2, 2), complex), TypeError, "must be of uint8"),
        (np.zeros(4), ValueError, "must be .trs, columns."),
        (np.zeros((4, 6))[:, ::2], ValueError, "next to each other"),
        (np.zeros((4, 6))[::-1], ValueError, "rows in their order"),
        (torch.zeros(2, 2, device="meta"), ValueError, "memory of the CPU"),
    ]:
        with pytest.raises(error, match=message):
            StoredRun(values)
    for columns, error in (([3], ValueError), ([-1], ValueError), ([0.5], TypeError), ([[0]], TypeError)):
        with pytest.raises(error, match="columns must be"):
            StoredRun(np.zeros((2, 3), np.int16), columns=columns)
    path = write_nifti(tmp_path / "bold.nii", random_raw("int16", (3, 1, 1, 9)))
    fit = fit_cleaning(NiftiFile(path), VoxelMask(np.ones((3, 1, 1), bool)), detrend=True, cache=False)
    with pytest.raises(ValueError, match=r"cleaning must be fitted to .* \(9, 4\), got \(9, 3\)"):
        StoredRun(np.zeros((9, 4), np.int16), cleaning=fit)
    with pytest.raises(TypeError, match="cannot be sent to another process"):
        pickle.dumps(StoredRun(np.zeros((2, 2))))
