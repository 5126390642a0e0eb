"""All options of bin_spikes against a plain loop; pieces that add up; memory of any kind and size."""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neurokern as nk

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("device")

MOST = {"uint8": 255, "int16": 32767, "int32": 2**31 - 1, "float16": 2048, "float32": 2**24}


# ---- Any combination of options, against the definition in plain Python


@dataclass
class Case:
    """Arguments of a call, and what they mean: per window the edges and the last closed one."""

    times: np.ndarray
    ids: np.ndarray  # of each spike
    options: dict[str, Any]
    grids: list[list[float]]
    tolerance: float
    n_units: int
    table: list[int] | None
    args: tuple[Any, ...] = field(default=())


def plain_counts(case):
    """Return counts before saturation, and how many spikes have no place."""
    counts = np.zeros((len(case.grids), len(case.grids[0]) - 1, case.n_units), np.int64)
    n_bins, uncounted_inside, counted = counts.shape[1], 0, 0
    for window, plain in enumerate(case.grids):
        for time, unit in zip(case.times.tolist(), case.ids.tolist(), strict=True):
            bins = [
                k for k in range(n_bins) if plain[k] - case.tolerance <= time < plain[k + 1] - case.tolerance
            ]
            if case.options["closed_last"] and plain[-1] - case.tolerance <= time <= plain[-1]:
                bins = bins or [n_bins - 1]
            if not bins:
                continue
            column = unit
            if case.table is not None:
                column = case.table[unit] if 0 <= unit < len(case.table) else -1
            if 0 <= column < case.n_units:
                counts[window, bins[0], column] += 1
                counted += 1
            else:
                uncounted_inside += 1
    by_window = "windows" in case.options
    return counts, uncounted_inside if by_window else len(case.times) - counted


@st.composite
def cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    in_samples = draw(st.booleans())
    n_bins, n_spikes = draw(st.integers(1, 9)), draw(st.integers(0, 60))
    rate = draw(st.sampled_from([50, 3, 10]))
    sfreq, per_bin = 300 * rate, 300
    kind = draw(st.sampled_from(["session", "windows", "pairs", "edges"]))
    start_bins = draw(st.integers(-4, 4))
    options: dict[str, Any] = {"closed_last": draw(st.booleans())}
    args: tuple[Any, ...] = ()
    k = range(n_bins + 1)
    if in_samples:
        tolerance, start = 0.0, start_bins * per_bin
        offsets = [per_bin * i for i in k]
        pool = rng.integers(-6 * per_bin, 14 * per_bin, 40)
    else:
        tolerance, start = draw(st.sampled_from([0.0, 1e-9])), start_bins / rate
        offsets = [i / rate for i in k]
        pool = rng.uniform(-6 / rate, 14 / rate, 40)
        options["edge_tolerance"] = tolerance
    starts = [start]
    if kind in ("windows", "pairs"):
        starts = [start + offsets[i % (n_bins + 1)] for i in draw(st.lists(st.integers(0, 9), max_size=4))]
        starts += [pool[0].item()]
    if kind == "edges":
        edges = np.sort(rng.choice(pool, n_bins + 1))
        options["edges"] = edges
        grids = [edges.tolist()]
        if in_samples:
            options["sfreq"] = sfreq
    else:
        grids = [[s + offset for offset in offsets] for s in starts]
        args = (1 / rate, n_bins / rate)
        if in_samples:
            options["sfreq"] = float(sfreq)
        if kind == "session":
            options["start"] = start_bins / rate
        else:
            windows = np.array(starts)
            length = per_bin * n_bins if in_samples else n_bins / rate
            options["windows"] = windows if kind == "windows" else np.stack([windows, windows + length], 1)
    near = rng.choice(np.array([edge for grid in grids for edge in grid]), n_spikes)
    times = np.where(rng.random(n_spikes) < 0.5, near, rng.choice(pool, n_spikes))
    if not in_samples:
        towards = rng.choice([-np.inf, 0.0, np.inf], n_spikes)
        times = np.where(towards == 0, times, np.nextafter(times, towards))
        times = np.where(rng.random(n_spikes) < 0.05, rng.choice([np.nan, np.inf, -np.inf]), times)
    if draw(st.booleans()):
        times = np.sort(times)
    if draw(st.booleans()) and np.isfinite(times).all() and (np.diff(times) >= 0).all():
        options["sorted"] = True
    n_ids = draw(st.integers(1, 6))
    ids = rng.integers(-1, n_ids + 1, n_spikes)
    table, n_units = None, n_ids
    if draw(st.booleans()):
        n_units = draw(st.integers(1, 4))
        table = rng.integers(-1, n_units, n_ids).tolist()
        options["unit_map"] = np.array(table)
    options["n_units"] = n_units
    if draw(st.booleans()):
        ids = np.sort(np.clip(ids, 0, None))
        options["train_ends"] = np.searchsorted(ids, np.arange(n_ids + 2), side="right")
        options.pop("sorted", None)
    return Case(times, ids, options, grids, tolerance, n_units, table, args)


@settings(max_examples=300)
@given(
    case=cases(),
    dtype=st.sampled_from(sorted(MOST)),
    tensors=st.booleans(),
    wide=st.booleans(),
    backend=st.sampled_from([None, "reference"]),
)
def test_any_options_together_are_those_of_the_definition(case, dtype, tensors, wide, backend):
    kind = torch.from_numpy if tensors else np.asarray
    options = {
        name: kind(value) if isinstance(value, np.ndarray) else value for name, value in case.options.items()
    }
    units = kind(case.ids.astype(np.int64 if wide else np.int32))
    counts, dropped = nk.bin_spikes(
        kind(case.times),
        None if "train_ends" in options else units,
        *case.args,
        **options,
        dtype=getattr(torch, dtype) if tensors else dtype,
        overflow="saturate",
        return_dropped=True,
        backend=backend,
    )
    expected, expected_dropped = plain_counts(case)
    shape = expected.shape if "windows" in case.options else expected.shape[1:]
    np.testing.assert_array_equal(np.asarray(counts), np.minimum(expected, MOST[dtype]).reshape(shape))
    assert int(dropped) == expected_dropped


# ---- Pieces add up to the whole


def recording(n=30_000, seconds=20, n_units=11, seed=0):
    rng = np.random.default_rng(seed)
    samples = np.sort(rng.integers(0, seconds * 30_000, n))
    return samples, samples / 30_000, rng.integers(0, n_units, n).astype(np.int32)


@pytest.mark.parametrize("bins_per_window", [1, 7, 50, 1000])
@pytest.mark.parametrize("in_samples", [False, True])
def test_windows_that_tile_a_session_are_the_session(bins_per_window, in_samples):
    samples, times, units = recording()
    times = samples if in_samples else times
    options = {"n_units": 11, "dtype": "int32"} | ({"sfreq": 30_000} if in_samples else {})
    whole = nk.bin_spikes(times, units, 0.02, 20.0, **options)
    first_bins = np.arange(0, 1000, bins_per_window)
    starts = first_bins * 600 if in_samples else first_bins / 50
    tiles = nk.bin_spikes(times, units, 0.02, bins_per_window / 50, windows=starts, **options)
    np.testing.assert_array_equal(tiles.reshape(-1, 11)[:1000], whole)


@pytest.mark.parametrize("n_bins", [1, 13, 250])
def test_stretches_of_a_session_binned_one_by_one_are_the_session(n_bins):
    _, times, units = recording()
    whole = nk.bin_spikes(times, units, 0.02, 20.0, n_units=11)
    parts = [
        nk.bin_spikes(times, units, 0.02, start=k / 50, stop=min(k + n_bins, 1000) / 50, n_units=11)
        for k in range(0, 1000, n_bins)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("cuts", [[15_000], [1, 2, 17, 29_999], list(range(0, 30_000, 999))])
def test_counts_of_parts_of_the_spikes_add_up(cuts):
    _, times, units = recording()
    whole = nk.bin_spikes(times, units, 0.02, 20.0, n_units=11)
    spikes = zip(np.split(times, cuts), np.split(units, cuts), strict=True)
    parts = [nk.bin_spikes(t, u, 0.02, 20.0, n_units=11) for t, u in spikes]
    np.testing.assert_array_equal(sum(parts), whole)


def test_columns_of_single_units_are_those_of_all():
    _, times, units = recording()
    whole = nk.bin_spikes(times, units, 0.02, 20.0, n_units=11)
    for unit in range(11):
        alone = nk.bin_spikes(
            times[units == unit], np.zeros((units == unit).sum(), int), 0.02, 20.0, n_units=1
        )
        np.testing.assert_array_equal(alone[:, 0], whole[:, unit])


# ---- Memory of any kind


def misaligned(array):
    """Return a copy that begins one byte off."""
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    copy = memory.view(array.dtype) if array.itemsize == 1 else np.frombuffer(memory, array.dtype)
    copy = copy.reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.cpu_only  # a GPU's tensors are aligned to their elements, and its loads must be
@pytest.mark.parametrize("windows", [None, np.array([0.5, 3.0])])
@pytest.mark.parametrize("shuffled", [False, True])
def test_misaligned_arrays_count_alike(windows, shuffled):
    _, times, units = recording(5000)
    if shuffled:
        times = times[::-1].copy()
    options = {"n_units": 11, "unit_map": np.arange(11)[::-1].copy()}
    expected = nk.bin_spikes(times, units, 0.02, 10.0, windows=windows, **options)
    options["unit_map"] = misaligned(options["unit_map"])
    starts = None if windows is None else misaligned(windows)
    counts = nk.bin_spikes(misaligned(times), misaligned(units), 0.02, 10.0, windows=starts, **options)
    np.testing.assert_array_equal(counts, expected)
    edges = np.arange(101) / 10
    expected = nk.bin_spikes(times, units, edges=edges, n_units=11)
    counts = nk.bin_spikes(misaligned(times), misaligned(units), edges=misaligned(edges), n_units=11)
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("name", ["times", "units", "windows", "edges", "unit_map", "train_ends"])
def test_every_array_may_be_strided(name):
    _, times, units = recording(4000)
    arrays = {"times": times, "units": units, "unit_map": np.arange(11)}
    grid: tuple[Any, ...] = (0.1, 5.0)
    if name == "edges":
        arrays["edges"], grid = np.arange(101) / 5, ()
    elif name == "windows":
        arrays["windows"] = np.array([1.0, 0.0, 12.5])
    elif name == "train_ends":
        order = np.argsort(units, kind="stable")
        arrays |= {"times": times[order], "units": None, "train_ends": np.cumsum(np.bincount(units))}

    def count(arrays):
        rest = {key: value for key, value in arrays.items() if key not in ("times", "units")}
        return np.asarray(nk.bin_spikes(arrays["times"], arrays["units"], *grid, n_units=11, **rest))

    expected = count(arrays)
    array = arrays[name]
    every_third = np.repeat(array, 3)[::3]
    backwards = array[::-1].copy()[::-1]
    for strided in (every_third, backwards):
        np.testing.assert_array_equal(count(arrays | {name: strided}), expected)
    tensors = {key: None if value is None else torch.from_numpy(value) for key, value in arrays.items()}
    strided = torch.from_numpy(np.repeat(array, 3))[::3]
    np.testing.assert_array_equal(count(tensors | {name: strided}), expected)


@pytest.mark.parametrize("name", ["times", "units", "windows", "edges", "unit_map", "train_ends"])
def test_an_out_in_the_memory_of_any_input_is_refused(name):
    memory = np.zeros(64, np.int64)
    arrays: dict[str, Any] = {"times": np.array([0.1, 0.2]), "units": np.array([0, 1])}
    arrays |= {"unit_map": np.array([0, 1])}
    dtype, grid = "int64", (0.5, 1.0)
    if name in ("times", "windows", "edges"):
        memory, dtype = np.zeros(64), "float64"
    if name == "edges":
        grid, arrays["edges"] = (), np.array([0.0, 0.5, 1.0])
    elif name == "windows":
        arrays["windows"] = np.array([0.0])
    elif name == "train_ends":
        arrays |= {"units": None, "train_ends": np.array([1, 2])}
    view = memory[3 : 3 + len(arrays[name])]  # ends inside the four cells of out
    view[:] = arrays[name]
    shape = (1, 2, 2) if name == "windows" else (2, 2)
    inputs = arrays | {name: view}
    times, units = inputs.pop("times"), inputs.pop("units")
    with pytest.raises(ValueError, match="out must not share memory"):
        nk.bin_spikes(times, units, *grid, n_units=2, dtype=dtype, out=memory[:4].reshape(shape), **inputs)
    apart = memory[16:20].reshape(shape)  # the same buffer, other bytes
    nk.bin_spikes(times, units, *grid, n_units=2, dtype=dtype, out=apart, **inputs)
    assert apart.sum() == 2


def test_an_out_that_cannot_be_written_or_lies_off_its_alignment_is_refused():
    out = np.zeros((2, 2), np.float32)
    out.flags.writeable = False
    for bad in (out, misaligned(np.zeros((2, 2), np.float32))):
        with pytest.raises(ValueError, match="out must be contiguous, aligned and writable"):
            nk.bin_spikes(np.array([0.1, 0.2]), np.array([0, 1]), 0.5, 1.0, out=bad)


@pytest.mark.cpu_only
@pytest.mark.parametrize("name", ["windows", "edges", "unit_map", "train_ends", "out"])
def test_every_array_must_be_on_the_device_of_times(name):
    times, units = torch.tensor([0.1, 0.2], dtype=torch.float64), torch.tensor([0, 1])
    grid = () if name == "edges" else (0.5, 1.0)
    units = None if name == "train_ends" else units
    elsewhere = torch.zeros(2, dtype=torch.float64 if name in ("windows", "edges") else torch.int64).to(
        "meta"
    )
    if name == "out":
        elsewhere = torch.zeros(2, 2, device="meta")
    with pytest.raises(ValueError, match=f"{name} must be on the device of times, cpu, got meta"):
        nk.bin_spikes(times, units, *grid, n_units=2, **{name: elsewhere})


# ---- Sizes: none, and beyond 32 bits


@pytest.mark.parametrize("n_spikes", [0, 5])
@pytest.mark.parametrize("n_units", [0, 3])
@pytest.mark.parametrize("n_windows", [None, 0, 2])
@pytest.mark.parametrize("n_bins", [0, 4])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_dimensions_of_zero_give_empty_or_zero_counts(n_spikes, n_units, n_windows, n_bins, dtype):
    times, units = np.linspace(0, 0.3, n_spikes), np.full(n_spikes, 7)
    windows = None if n_windows is None else np.zeros(n_windows)
    counts, dropped = nk.bin_spikes(
        times, units, 0.1, n_bins / 10, windows=windows, n_units=n_units, dtype=dtype, return_dropped=True
    )
    assert counts.shape == ((n_bins, n_units) if windows is None else (n_windows, n_bins, n_units))
    assert not counts.any()
    inside = (n_spikes if n_bins else 0) * (n_windows or 0)
    assert dropped == (n_spikes if windows is None else inside)


@pytest.mark.cpu_only
def test_shapes_beyond_32_bits_are_worked_out_in_64():
    many = 2**31 + 9
    times = torch.empty(many, dtype=torch.float64, device="meta")
    units = torch.empty(many, dtype=torch.int32, device="meta")
    counts = nk.bin_spikes(times, units, 0.001, stop=3_000_000.0, n_units=800, dtype=torch.uint8)
    assert counts.shape == (3_000_000_000, 800)
    windows = torch.empty(2**31 + 1, dtype=torch.float64, device="meta")
    counts = nk.bin_spikes(times, units, 0.02, 2.0, n_units=800, windows=windows)
    assert counts.shape == (2**31 + 1, 100, 800)


@pytest.mark.parametrize("windows", [None, 3])
def test_counts_that_no_memory_holds_are_refused_without_asking_for_it(windows):
    starts = None if windows is None else np.zeros(windows)
    with pytest.raises(ValueError, match=r"counts of shape .* more than the .* GiB of memory that are free"):
        nk.bin_spikes(np.array([0.1]), np.array([0]), 1e-3, 2.0**31, n_units=2**20, windows=starts)


@pytest.mark.cpu_only
@pytest.mark.slow
def test_cells_beyond_32_bits_are_counted_where_they_belong():
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if free < 8 * 2**30:
        pytest.skip("needs 8 GiB of free memory")
    n_units = 65_521  # prime
    n_bins = 2**32 // n_units + 3
    bins = np.array([0, 2**31 // n_units - 1, 2**31 // n_units, 2**31 // n_units + 1, n_bins - 2, n_bins - 1])
    units = np.array([5, n_units - 1, 0, 77, n_units - 1, 3])
    out = np.empty((n_bins, n_units), np.uint8)
    for order in (slice(None), slice(None, None, -1)):
        out[bins] = 9
        nk.bin_spikes(bins[order] + 0.5, units[order], 1.0, float(n_bins), n_units=n_units, out=out)
        assert (out[bins, units] == 1).all()
        assert int(out[bins].sum(dtype=np.int64)) == len(bins)


# ---- Odd ids and large counts


@pytest.mark.parametrize("sorted", [None, False])
def test_strict_looks_only_at_spikes_inside_the_bins(sorted):
    times = np.array([-0.1, 0.1, 0.2, 1.0, 7.0, np.nan, np.inf])
    units = np.array([99, 0, 1, -5, 2**40, -1, 99])
    counts = nk.bin_spikes(times, units, 0.5, 1.0, n_units=2, strict=True, sorted=sorted)
    np.testing.assert_array_equal(counts, [[1, 1], [0, 0]])
    for bad in (-1, 2, 2**31, -(2**63), 2**63 - 1):
        units[1] = bad
        with pytest.raises(ValueError, match=r"units must lie in 0 ... 1, got 1 spikes inside the bins"):
            nk.bin_spikes(times, units, 0.5, 1.0, n_units=2, strict=True, sorted=sorted)


@pytest.mark.parametrize("n", [255, 256, 511])
@pytest.mark.parametrize("path", ["session", "shuffled", "windows", "edges", "train", "summed", "samples"])
def test_a_count_of_255_fits_a_byte_and_one_more_does_not(n, path):
    times = np.full(n + 2, 0.25)
    times[[0, -1]] = 0.6, 0.9  # another bin
    if path != "shuffled":
        times.sort()
    units: Any = np.zeros(n + 2, np.int32)
    options: dict[str, Any] = {"n_units": 2, "dtype": "uint8"}
    grid: tuple[Any, ...] = (0.5, 1.0)
    if path == "windows":
        options["windows"] = np.array([0.0])
    elif path == "edges":
        grid, options["edges"] = (), np.array([0.0, 0.5, 1.0])
    elif path == "train":
        units, options["train_ends"] = None, np.array([n + 2])
    elif path == "summed":
        units = np.arange(n + 2, dtype=np.int32) % 2  # each has half of them
        options["unit_map"] = np.array([0, 0])
    elif path == "samples":
        times, options["sfreq"] = np.round(times * 100).astype(np.int64), 100
    counts = nk.bin_spikes(times, units, *grid, overflow="saturate", **options).reshape(2, 2)
    np.testing.assert_array_equal(counts, [[min(n, 255), 0], [2, 0]])
    if n > 255:
        with pytest.raises(ValueError, match=f"dtype uint8 must hold the largest count, got {n} spikes"):
            nk.bin_spikes(times, units, *grid, **options)
    else:
        nk.bin_spikes(times, units, *grid, **options)


@pytest.mark.cpu_only
@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("form", ["session", "windows", "edges", "map"])
def test_every_form_gives_the_same_bits_on_one_to_four_threads(n_threads, shuffled, form):
    samples, times, units = recording(250_000, seconds=100)
    if shuffled:
        order = np.random.default_rng(4).permutation(len(times))
        samples, times, units = samples[order], times[order], units[order]
    grid: tuple[Any, ...] = (0.01, 100.0)
    options: dict[str, Any] = {"n_units": 11, "dtype": "uint16", "return_dropped": True}
    if form == "windows":
        grid, options["windows"] = (0.01, 3.0), np.linspace(-1, 99, 41)
    elif form == "edges":
        grid, options["edges"] = (), np.sort(np.random.default_rng(5).uniform(0, 100, 7000))
    elif form == "map":
        options["unit_map"] = np.array([3, 1, -1, 0, 0, 2, -1, 1, 4, 4, 10])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(n_threads)
        counts, dropped = nk.bin_spikes(times, units, *grid, **options)
    finally:
        torch.set_num_threads(before)
    expected, expected_dropped = nk.bin_spikes(times, units, *grid, **options, backend="reference")
    np.testing.assert_array_equal(counts, expected)
    assert dropped == expected_dropped
