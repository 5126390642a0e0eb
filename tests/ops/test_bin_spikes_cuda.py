"""The ways of the CUDA kernels: parts made so small that a small problem has many of each kind."""

import contextlib

import numpy as np
import pytest
from cuda_emulation.emulated import emulated_gpu

import neurokern as nk
from neurokern.ops import _spike_calls

torch = pytest.importorskip("torch")


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)], scope="module")
def gpu(request):
    """Where tensors must lie for the CUDA kernels."""
    with emulated_gpu() if request.param == "emulated" else contextlib.nullcontext():
        yield "cpu" if request.param == "emulated" else "cuda"


# Fields of CudaLimits in csrc/bin_spikes/bin_spikes.h.
LIMITS = {
    "the usual": {},
    "few rows to an item": {"tile_cells": 96},
    "rows wider than a tile": {"tile_cells": 16},
    "every item heavy": {"tile_cells": 96, "heavy_spikes": 16},
    "more heavy items than slots": {"tile_cells": 96, "heavy_spikes": 16, "heavy_slots": 2},
    "buckets of several items": {"tile_cells": 96, "buckets": 3, "shares": 2},
    "heavy buckets": {"tile_cells": 48, "buckets": 4, "heavy_spikes": 64, "heavy_slots": 3},
    "one item of many rows": {"wanted_items": 1},
}
ORDERS = ["sorted", "shuffled", "first and last swapped", "all at once"]


@pytest.fixture(params=LIMITS)
def limits(request, monkeypatch):
    monkeypatch.setattr(_spike_calls, "cuda_limits", LIMITS[request.param])


def draw_spikes(order, n_spikes=900, n_ids=21, seed=0):
    """Times in [-1, 11) s, a fifth of them on 20 ms edges, ids with some unknown ones."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(-1, 11, n_spikes))
    on_edge = rng.random(n_spikes) < 0.2
    times = np.sort(np.where(on_edge, np.round(times * 50) / 50, times))
    units = rng.integers(-1, n_ids + 1, n_spikes)
    if order == "shuffled":
        rng.shuffle(times)
    elif order == "first and last swapped":
        times[[0, -1]] = times[[-1, 0]]
    elif order == "all at once":
        times[:], units[:] = 3.1, 5
    return times, units


def check(gpu, times, units, *args, **options):
    """The counts on the GPU are those of the reference, bit for bit."""
    times, units = torch.from_numpy(times), None if units is None else torch.from_numpy(units)
    on_gpu = times.to(gpu), None if units is None else units.to(gpu)
    # backend="reference" makes the emulation step aside.
    expected = nk.bin_spikes(times, units, *args, return_dropped=True, backend="reference", **options)
    for name in ("windows", "edges", "unit_map", "train_ends"):
        if options.get(name) is not None:
            options[name] = torch.as_tensor(options[name]).to(gpu)
    for claim in (None, False):
        result = nk.bin_spikes(*on_gpu, *args, return_dropped=True, sorted=claim, **options)
        assert torch.equal(result[0].cpu(), expected[0])
        assert int(result[1]) == int(expected[1])
    return expected[0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_a_session(gpu, limits, order, dtype):
    times, units = draw_spikes(order)
    check(gpu, times, units, 0.2, 10.0, n_units=21, dtype=dtype, overflow="saturate")


@pytest.mark.parametrize("order", ORDERS)
def test_a_claim_of_order(gpu, limits, order):
    times, units = torch.from_numpy(draw_spikes(order)[0]), torch.from_numpy(draw_spikes(order)[1])
    expected = nk.bin_spikes(times, units, 0.2, 10.0, n_units=21, backend="reference")
    counts = nk.bin_spikes(times.to(gpu), units.to(gpu), 0.2, 10.0, n_units=21, sorted=True).cpu()
    if order in ("sorted", "all at once"):
        assert torch.equal(counts, expected)
    else:  # a false one: no more spikes than there are
        assert bool((counts <= expected).all())


@pytest.mark.parametrize("order", ORDERS)
def test_windows_that_overlap(gpu, limits, order):
    times, units = draw_spikes(order, n_spikes=500)
    windows = np.array([0.3, 2.5, 2.48, -5.0, 9.9, 0.3])
    check(gpu, times, units, 0.1, 1.0, n_units=21, windows=windows, dtype="int16")


@pytest.mark.parametrize("closed_last", [False, True])
@pytest.mark.parametrize("order", ORDERS[:2])
def test_given_edges(gpu, limits, order, closed_last):
    times, units = draw_spikes(order)
    edges = np.concatenate([[0.0, 0.02, 0.02, 0.5, 3.1, 3.1], np.linspace(3.2, 9.0, 30)])
    check(gpu, times, units, edges=edges, n_units=21, closed_last=closed_last, edge_tolerance=0.0)


@pytest.mark.parametrize("tolerance", [0.0, 1e-9, 0.05])
def test_a_closed_last_edge_and_tolerances_of_any_size(gpu, limits, tolerance):
    times, units = draw_spikes("sorted")
    check(gpu, times, units, 0.02, 5.0, n_units=21, closed_last=True, edge_tolerance=tolerance)
    check(gpu, times, units, 0.02, 5.0, n_units=21, edge_tolerance=tolerance)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bin_size", [0.2, 1 / 7])
def test_integer_samples(gpu, limits, order, bin_size):
    times, units = draw_spikes(order)
    samples = np.round(times * 1000).astype(np.int64)
    check(gpu, samples, units.astype(np.int32), bin_size, 9.0, sfreq=1000.0, n_units=21, closed_last=True)


@pytest.mark.parametrize("order", ORDERS[:2])
def test_sums_over_a_map_of_units(gpu, limits, order):
    times, units = draw_spikes(order)
    unit_map = np.random.default_rng(1).integers(-1, 4, 20)
    check(gpu, times, units, 0.02, 10.0, unit_map=unit_map, n_units=4, dtype="int32")


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_nan_infinite_times_and_no_units_at_all(gpu, limits, order):
    times, units = draw_spikes(order)
    times[-7:] = [np.inf, np.nan, -np.inf, np.nan, 1e300, np.nan, np.nan]
    check(gpu, times, units, 0.2, 10.0, n_units=21)
    check(gpu, times, units, 0.2, 10.0, n_units=0)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16", "bfloat16", "float32"])
@pytest.mark.parametrize("offset", range(0, 16, 3))
def test_an_output_at_any_address(gpu, dtype, offset):
    times, units = (torch.from_numpy(array) for array in draw_spikes("sorted"))
    dtype = getattr(torch, dtype)
    options = {"n_units": 13, "overflow": "saturate"}
    expected = nk.bin_spikes(times, units, 0.2, 10.0, dtype=dtype, backend="reference", **options)
    memory = torch.full((50 * 13 + 32,), 77, dtype=dtype, device=gpu)
    out = memory[offset : offset + 50 * 13].view(50, 13)
    nk.bin_spikes(times.to(gpu), units.to(gpu), 0.2, 10.0, out=out, **options)
    assert torch.equal(out.cpu(), expected)
    assert (memory[:offset] == 77).all()
    assert (memory[offset + 50 * 13 :] == 77).all()


@pytest.mark.parametrize("tile_cells", [18, 24448])
def test_more_spikes_in_a_tile_than_16_bits_count(gpu, monkeypatch, tile_cells):
    # Of 18 cells, a tile of 18 counters of 16 bits holds only a part with 32.
    monkeypatch.setattr(_spike_calls, "cuda_limits", {"tile_cells": tile_cells, "wanted_items": 1})
    rng = np.random.default_rng(0)
    times, units = np.full(140_000, 0.05), np.repeat([3, 4], 70_000)
    times[-20_000:] = 0.15
    rng.shuffle(units)
    counts = check(gpu, times, units, 0.1, 0.2, n_units=9, dtype="int32")
    assert counts.max() > 2**15


# ---- Trains


def draw_trains(order, n_trains=21):
    """Trains of very different lengths, some empty, each in this order; and their ends."""
    times, units = draw_spikes("all at once" if order == "all at once" else "shuffled")
    units = np.sort(np.minimum(units.clip(0), 3 + units % (n_trains - 3)))
    ends = np.searchsorted(units, np.arange(n_trains), side="right")
    ends[-1] = len(times)
    for begin, end in zip([0, *ends], ends, strict=False):
        if order == "sorted" or (order == "first and last swapped" and begin > 0):
            times[begin:end].sort()
    return times, ends


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("windows", [None, np.array([0.3, 2.5, 2.48, -5.0, 3.0])])
def test_trains(gpu, limits, order, windows):
    times, ends = draw_trains(order)
    options = {"train_ends": ends, "dtype": "int32", "windows": windows}
    check(gpu, times, None, 0.2, 10.0 if windows is None else 1.0, **options)
    unit_map = np.random.default_rng(2).integers(-1, 4, 18)  # and three trains unknown
    check(gpu, times, None, 0.2, 10.0 if windows is None else 1.0, unit_map=unit_map, n_units=4, **options)


def test_windows_of_trains_with_more_spikes_than_16_bits_count(gpu):
    times, ends = np.full(70_000, 0.05), np.array([10, 69_999, 70_000])
    counts = check(gpu, times, None, 0.1, 0.2, windows=np.array([0.0, -0.1]), train_ends=ends, dtype="int32")
    assert counts.max() == 69_989


@pytest.mark.parametrize("windows", [None, [0.0, 1.0]])
@pytest.mark.parametrize("ends", [[7, 3, -5], [10**12, 2, 900], [-(10**15), 10**15, 5]])
def test_ends_that_no_trains_have_stay_in_bounds(gpu, ends, windows):
    times, _ = draw_spikes("sorted")
    windows = None if windows is None else torch.tensor(windows, dtype=torch.float64, device=gpu)
    counts = nk.bin_spikes(
        torch.from_numpy(times).to(gpu),
        None,
        0.2,
        10.0,
        n_units=3,
        windows=windows,
        train_ends=torch.tensor(ends, device=gpu),
    )
    assert int(counts.sum()) <= len(times) * (1 if windows is None else 2 * 3)


# ---- Smoothing


CHUNKS = {
    "the usual": {},
    "chunks that begin right": {"smooth_chunk": 7, "smooth_warm_up": 400},
    "chunks of which some begin wrong": {"smooth_chunk": 7, "smooth_warm_up": 20},
    "chunks that begin wrong": {"smooth_chunk": 16, "smooth_warm_up": 0},
}


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("windows", [None, np.array([0.3, 2.5, 2.48, -5.0])])
def test_an_exponential_cut_into_chunks(gpu, monkeypatch, chunks, dtype, windows):
    monkeypatch.setattr(_spike_calls, "cuda_limits", CHUNKS[chunks])
    times, units = draw_spikes("sorted")
    options = {"n_units": 21, "windows": windows, "dtype": dtype, "smoothing": "exponential"}
    check(gpu, times, units, 0.02, 3.0, smoothing_width=0.05, **options)


@pytest.mark.parametrize("width", [0.001, 0.05, 0.7, 5.0])  # the last two: more taps than bins
@pytest.mark.parametrize("n_units", [1, 21, 70])
@pytest.mark.parametrize("windows", [None, np.array([0.3, 2.5, 2.48, -5.0])])
def test_gaussians_narrow_and_wider_than_the_window(gpu, width, n_units, windows):
    times, units = draw_spikes("shuffled", n_ids=n_units)
    options = {"n_units": n_units, "windows": windows, "smoothing": "gaussian"}
    check(gpu, times, units, 0.02, 3.0, smoothing_width=width, **options)


def test_a_gaussian_of_more_taps_than_shared_memory_holds(gpu):
    times, units = draw_spikes("sorted")
    check(gpu, times, units, 0.01, 10.0, n_units=3, smoothing="gaussian", smoothing_width=0.5)


# ---- What only a GPU can show


def cuda_calls():
    """Calls of every way, for arrays that are on the GPU already."""
    times, units = (torch.from_numpy(array).cuda() for array in draw_spikes("sorted"))
    shuffled = times.flip(0).contiguous()
    trains, ends = (torch.from_numpy(array).cuda() for array in draw_trains("sorted"))
    windows = torch.tensor([0.3, 2.5], dtype=torch.float64, device="cuda")
    options = {"n_units": 21, "overflow": "saturate", "dtype": torch.float32}
    smooth = {"smoothing": "exponential", "smoothing_width": 0.05}
    return [
        lambda out=None: nk.bin_spikes(times, units, 0.2, 10.0, out=out, **options),
        lambda out=None: nk.bin_spikes(shuffled, units, 0.2, 10.0, out=out, **options),
        lambda out=None: nk.bin_spikes(times, units, 0.2, 10.0, sorted=True, out=out, **options),
        lambda out=None: nk.bin_spikes(times, units, 0.1, 1.0, windows=windows, out=out, **options),
        lambda out=None: nk.bin_spikes(trains, None, 0.2, 10.0, train_ends=ends, out=out, **options),
        lambda out=None: nk.bin_spikes(times, units, 0.2, 10.0, out=out, **smooth, **options),
    ]


@pytest.mark.gpu
def test_nothing_waits_for_the_device():
    calls = cuda_calls()
    expected = [call() for call in calls]  # brings the smoothing weights over, which waits
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [call() for call in calls]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for result, counts in zip(results, expected, strict=True):
        assert torch.equal(result, counts)


@pytest.mark.gpu
@pytest.mark.parametrize("way", range(6))
def test_a_captured_graph_counts_again(way):
    call = cuda_calls()[way]
    expected = call()
    out = torch.full_like(expected, 77)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call(out)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call(out)
    for _ in range(2):
        out.fill_(77)
        graph.replay()
        assert torch.equal(out, expected)
