"""The rules of bin_spikes, each as a test with its name, on every kind of input and both backends."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import neurokern as nk

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")

COUNT_DTYPES = [
    "uint8",
    "int16",
    "uint16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
]


@pytest.fixture(params=["numpy", "torch", "reference"])
def bin_spikes(request):
    """bin_spikes with numpy arrays, with tensors, and by the reference; returns numpy."""

    def call(times, units, *args, **kwargs):
        times, units = np.asarray(times), np.asarray(units)
        if request.param == "torch":
            times, units = torch.from_numpy(times.copy()), torch.from_numpy(units.copy())
            result = nk.bin_spikes(times, units, *args, **kwargs)
            return tuple(part.numpy() for part in result) if isinstance(result, tuple) else result.numpy()
        backend = "reference" if request.param == "reference" else None
        return nk.bin_spikes(times, units, *args, backend=backend, **kwargs)

    return call


def count_by_comparison(times, units, edges, n_units):
    """The definition in plain numpy: no quotient, one comparison per edge."""
    counts = np.zeros((len(edges) - 1, n_units), np.int64)
    for k, (left, right) in enumerate(itertools.pairwise(edges)):
        np.add.at(counts[k], units[(left <= times) & (times < right)], 1)
    return counts


# ---- Bins ----


def test_counts_by_hand(bin_spikes):
    counts = bin_spikes([0.01, 0.02, 0.07, 0.10], [0, 1, 0, 1], 0.05, 0.15)
    np.testing.assert_array_equal(counts, [[1, 1], [1, 0], [0, 1]])
    assert counts.dtype == np.float32


def test_a_spike_on_an_edge_belongs_to_the_later_bin(bin_spikes):
    counts = bin_spikes([0.0, 0.05, 0.1, 0.15], [0, 0, 0, 0], 0.05, 0.15)
    np.testing.assert_array_equal(counts[:, 0], [1, 1, 1])


def test_closed_last_keeps_a_spike_on_the_last_edge(bin_spikes):
    counts = bin_spikes([0.05, 0.15], [0, 0], 0.05, 0.15, closed_last=True)
    np.testing.assert_array_equal(counts[:, 0], [0, 1, 1])


def test_neighbours_of_every_edge_are_told_apart(bin_spikes):
    edges = 3.7 + np.arange(101) / 50
    times = np.sort(np.concatenate([edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)]))
    units = np.zeros(len(times), np.int32)
    counts = bin_spikes(times, units, 0.02, start=3.7, stop=5.7, edge_tolerance=0)
    np.testing.assert_array_equal(counts, count_by_comparison(times, units, edges, 1))
    assert counts[0, 0] == 3


@pytest.mark.parametrize(
    ("bin_size", "samples"), [(0.001, 30), (0.01, 300), (0.02, 600), (0.05, 1500), (1 / 60, 500)]
)
def test_no_spike_of_a_30_khz_clock_is_in_the_wrong_bin(bin_size, samples):
    samples_of_edges = np.arange(0, 60 * 30_000, samples)
    sample = np.unique(np.concatenate([samples_of_edges, samples_of_edges + 1, samples_of_edges[1:] - 1]))
    times = sample / 30_000
    units = np.zeros(len(times), np.int64)
    n_bins = 60 * 30_000 // samples
    expected = np.bincount(sample // samples, minlength=n_bins)
    for tolerance in (0.0, 1e-9):
        counts = nk.bin_spikes(times, units, bin_size, 60.0, dtype="int32", edge_tolerance=tolerance)
        np.testing.assert_array_equal(counts[:, 0], expected)


def test_edge_tolerance_repairs_times_that_had_an_event_subtracted():
    sample = np.arange(0, 30_000 * 20, 600)
    times = sample / 30_000 + 1234.56789 - 1234.56789
    assert (times < sample / 30_000).any()
    counts = nk.bin_spikes(times, np.zeros(len(times), int), 0.02, 20.0)
    np.testing.assert_array_equal(counts, np.ones((1000, 1)))


def test_a_bin_size_that_is_no_unit_fraction_has_edges_at_its_multiples(bin_spikes):
    edges = 0.3 + np.arange(11) * 0.03
    times = np.sort(np.concatenate([edges, np.nextafter(edges, 0)]))
    units = np.zeros(len(times), np.int64)
    counts = bin_spikes(times, units, 0.03, 0.3, start=0.3, edge_tolerance=0)
    np.testing.assert_array_equal(counts, count_by_comparison(times, units, edges, 1))


def test_a_remainder_of_the_duration_gets_a_whole_bin(bin_spikes):
    counts = bin_spikes([0.0, 0.11, 0.124, 0.126], [0, 0, 0, 0], 0.025, 0.11)
    np.testing.assert_array_equal(counts[:, 0], [1, 0, 0, 0, 2])
    assert len(bin_spikes([], [], 0.1, 0.3)) == 3


def test_without_duration_the_bins_end_with_the_last_spike(bin_spikes):
    times = [0.05, np.nan, 0.3, np.inf]
    assert bin_spikes(times, [0, 0, 1, 1], 0.1).shape == (4, 2)
    assert bin_spikes([0.05], [0], 0.1, start=1.0).shape == (0, 1)
    assert bin_spikes([600], [0], 0.02, sfreq=30_000).shape == (2, 1)


def test_start_shifts_the_bins(bin_spikes):
    counts = bin_spikes([-0.05, 0.0, 0.95, 1.0], [0, 0, 0, 0], 0.5, start=-0.5, stop=1.0)
    np.testing.assert_array_equal(counts[:, 0], [1, 1, 1])


# ---- Explicit edges ----


@settings(deadline=None, max_examples=60)
@given(
    edges=st.lists(st.floats(-50, 50), min_size=2, max_size=12).map(sorted),
    times=st.lists(st.floats(-60, 60), max_size=40),
)
def test_edges_match_numpy_histogram_bit_for_bit(edges, times):
    edges = np.array(edges)
    near = [np.nextafter(edges, -np.inf), edges, np.nextafter(edges, np.inf)]
    times = np.concatenate([np.array(times), *near])
    units = np.zeros(len(times), np.int32)
    closed = nk.bin_spikes(times, units, edges=edges, edge_tolerance=0, closed_last=True, dtype="int64")
    np.testing.assert_array_equal(closed[:, 0], np.histogram(times, edges)[0])
    half_open = nk.bin_spikes(np.sort(times), units, edges=edges, edge_tolerance=0, dtype="int64")
    expected = np.histogram(times[times < edges[-1]], edges)[0]
    np.testing.assert_array_equal(half_open[:, 0], expected)


def test_edges_in_samples(bin_spikes):
    counts = bin_spikes(np.array([0, 9, 10, 25, 30]), [0] * 5, edges=np.array([0, 10, 30]))
    np.testing.assert_array_equal(counts[:, 0], [2, 2])
    counts = bin_spikes(np.array([0, 9, 10, 25, 30]), [0] * 5, edges=[0.0, 0.1, 0.3], sfreq=100)
    np.testing.assert_array_equal(counts[:, 0], [2, 2])


# ---- Integer samples ----


@settings(deadline=None, max_examples=60)
@given(
    numerator=st.integers(1, 3000),
    denominator=st.integers(1, 70),
    first=st.integers(-1000, 1000),
    data=st.data(),
)
def test_integer_times_are_binned_in_exact_rational_arithmetic(numerator, denominator, first, data):
    # At 1000 Hz, a bin of numerator / denominator ms is numerator / denominator samples.
    width = Fraction(numerator, denominator)
    samples = np.array(data.draw(st.lists(st.integers(first - 50, first + 20_000), max_size=60)), np.int64)
    if data.draw(st.booleans()):
        samples.sort()
    n_bins = data.draw(st.integers(0, 30))
    counts = nk.bin_spikes(
        samples,
        np.zeros(len(samples), np.int64),
        float(width) / 1000,
        n_bins * float(width) / 1000,
        start=first / 1000,
        sfreq=1000,
        n_units=1,
        dtype="int64",
    )
    expected = np.zeros(n_bins, np.int64)
    for sample in samples.tolist():
        k = (sample - first) / width // 1
        if 0 <= k < n_bins:
            expected[int(k)] += 1
    np.testing.assert_array_equal(counts[:, 0], expected)


@pytest.mark.parametrize("dtype", ["int16", "int32", "int64", "uint16", "uint32", "uint64"])
def test_integer_times_of_any_width_count_alike(dtype):
    samples = np.array([0, 599, 600, 1199, 1200], dtype)
    counts = nk.bin_spikes(samples, np.zeros(5, np.int32), 0.02, 0.06, sfreq=30_000)
    np.testing.assert_array_equal(counts[:, 0], [2, 2, 1])


def test_extreme_samples_do_not_wrap_around(bin_spikes):
    info = np.iinfo(np.int64)
    counts = bin_spikes(np.array([info.min, -1, 0, info.max]), [0, 0, 0, 0], 0.02, 0.04, sfreq=30_000)
    np.testing.assert_array_equal(counts[:, 0], [1, 0])


def test_a_calibrated_sampling_rate_is_read_as_its_decimals():
    # 29999.9754 Hz: bin 50,000 of 20 ms begins at sample 29,999,975.4, so at the next one.
    samples = np.array([29_999_975, 29_999_976])
    counts = nk.bin_spikes(samples, np.zeros(2, int), 0.02, 1001.0, sfreq=29999.9754)
    assert np.flatnonzero(counts[:, 0]).tolist() == [49_999, 50_000]


# ---- Odd spikes ----


def test_nan_infinite_and_outside_times_are_not_counted(bin_spikes):
    times = [np.nan, -np.inf, -0.01, 0.03, 0.1, 0.2, np.inf, np.nan]
    for order in (slice(None), slice(None, None, -1)):
        counts, dropped = bin_spikes(times[order], [0] * 8, 0.1, 0.2, return_dropped=True)
        np.testing.assert_array_equal(counts[:, 0], [1, 1])
        assert dropped == 6


def test_a_spike_just_before_the_start_beside_a_nan_is_not_counted(bin_spikes):
    times = np.full(40, np.nan)
    times[:16] = [0.2] * 7 + [-0.01] + [0.3] * 7 + [np.nan]  # eight lie between the two
    counts = bin_spikes(times, np.zeros(40, np.int64), 0.5, 1.0, n_units=1, sorted=False)
    np.testing.assert_array_equal(counts[:, 0], [14, 0])


def test_a_closed_last_edge_shared_by_many_bins_of_less_than_a_sample(bin_spikes):
    # At 1 Hz, bins of 1/7 s: bins 8 ... 14 all begin at sample 2, the last edge.
    counts = bin_spikes(np.array([0, 1, 2]), [0, 0, 0], 1 / 7, 2.0, sfreq=1, closed_last=True)
    assert counts.sum() == 3
    assert np.flatnonzero(counts[:, 0]).tolist() == [0, 7, 13]


def test_negative_and_unknown_ids_are_not_counted(bin_spikes):
    units = np.array([-1, 0, 2, -(2**40), 2**40, 1])
    counts, dropped = bin_spikes(np.linspace(0, 0.1, 6), units, 0.2, 0.2, n_units=2, return_dropped=True)
    np.testing.assert_array_equal(counts, [[1, 1]])
    assert dropped == 4


def test_strict_raises_for_an_unknown_id_and_says_how_many(bin_spikes):
    with pytest.raises(ValueError, match=r"units must lie in 0 ... 1, got 2 spikes"):
        bin_spikes([0.0, 0.1, 0.2], [0, -1, 2], 0.5, 0.5, n_units=2, strict=True)


def test_strict_ignores_spikes_outside_the_bins_and_units_left_out_on_purpose(bin_spikes):
    counts = bin_spikes([0.0, 0.1, 7.0], [0, 1, 99], 0.5, 0.5, unit_map=[0, -1], strict=True)
    np.testing.assert_array_equal(counts, [[1]])


def test_dropped_with_windows_counts_spikes_without_a_column(bin_spikes):
    times, units = [0.1, 0.2, 0.3, 5.0], [0, -1, 7, -1]
    _, dropped = bin_spikes(
        times, units, 0.5, 0.5, n_units=1, windows=np.array([0.0, 0.05]), return_dropped=True
    )
    assert dropped == 4


def test_a_unit_without_spikes_keeps_its_column(bin_spikes):
    assert bin_spikes([0.1], [1], 0.5, 0.5, n_units=4).shape == (1, 4)


@pytest.mark.parametrize("n_spikes", [0, 1, 16, 17, 33])
def test_few_spikes_and_none(bin_spikes, n_spikes):
    times = np.linspace(0, 0.9, n_spikes)
    counts = bin_spikes(times, np.zeros(n_spikes, np.int64), 0.1, 1.0, n_units=1)
    assert counts.shape == (10, 1)
    assert counts.sum() == n_spikes


def test_zero_units_and_zero_bins(bin_spikes):
    assert bin_spikes([0.1], [0], 0.1, 1.0, n_units=0).shape == (10, 0)
    assert bin_spikes([0.1], [0], 0.1, 0.0).shape == (0, 1)
    counts, dropped = bin_spikes([0.0], [0], 0.1, 0.0, closed_last=True, return_dropped=True)
    assert counts.shape == (0, 1)
    assert dropped == 1
    assert bin_spikes([0.1], [0], 0.1, 1.0, windows=np.zeros(0)).shape == (0, 10, 1)


# ---- Any order, any kind ----


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_spikes=st.integers(0, 700),
    n_units=st.integers(1, 70),
    n_bins=st.integers(1, 90),
    bin_size=st.sampled_from([0.001, 0.01, 0.02, 1 / 60, 0.03, 0.7, 2.0]),
    start=st.sampled_from([0.0, -3.0, 1.2345, 4000.1]),
    order=st.sampled_from(["sorted", "shuffled", "almost"]),
    windows=st.integers(0, 6),
    wide=st.booleans(),
)
def test_matches_the_comparison_with_edges(
    seed, n_spikes, n_units, n_bins, bin_size, start, order, windows, wide
):
    rng = np.random.default_rng(seed)
    length = n_bins * bin_size
    times = np.sort(start + rng.uniform(-0.1, 1.1, n_spikes) * length)
    on_edge = rng.random(n_spikes) < 0.2
    rate = round(1 / bin_size)
    k = rng.integers(0, n_bins + 1, n_spikes)
    offsets = k / rate if rate and abs(1 / bin_size - rate) < 1e-9 * rate else k * bin_size
    times = np.sort(np.where(on_edge, start + offsets, times))
    if order == "shuffled":
        rng.shuffle(times)
    elif order == "almost" and n_spikes > 1:
        times[[0, -1]] = times[[-1, 0]]
    units = rng.integers(-1, n_units + 1, n_spikes).astype(np.int64 if wide else np.int32)
    known = (units >= 0) & (units < n_units)
    by_rate = rate > 0 and abs(1 / bin_size - rate) < 1e-9 * rate
    offsets = np.arange(n_bins + 1) / rate if by_rate else np.arange(n_bins + 1) * bin_size
    starts = start + rng.uniform(-0.5, 0.7, windows) * length if windows else np.array([start])
    expected = np.stack(
        [count_by_comparison(times[known], units[known], (s + offsets) - 1e-9, n_units) for s in starts]
    )
    options = {"n_units": n_units, "dtype": "int32"}
    if windows:
        counts = nk.bin_spikes(times, units, bin_size, length, windows=starts, **options)
    else:
        counts = nk.bin_spikes(times, units, bin_size, length, start=start, **options)[None]
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize("where", [0, 1, 15, 16, 17, 500, 4999])
@pytest.mark.parametrize("windows", [None, np.array([0.0, 2.5, 1.0])])
def test_one_spike_out_of_order_anywhere_changes_nothing(where, windows):
    rng = np.random.default_rng(where)
    times = np.sort(rng.uniform(0, 5, 5000))
    units = rng.integers(0, 9, 5000)
    times[where] = 4.99 if where < 4000 else 0.01
    order = np.argsort(times)
    options = {"bin_size": 0.02, "duration": 5.0, "windows": windows}
    np.testing.assert_array_equal(
        nk.bin_spikes(times, units, **options), nk.bin_spikes(times[order], units[order], **options)
    )


@pytest.mark.parametrize("windows", [None, np.array([0.0, 2.5])])
def test_a_false_claim_of_order_stays_in_bounds(windows):
    rng = np.random.default_rng(3)
    times, units = rng.uniform(-1, 6, 5000), rng.integers(-2, 12, 5000)
    counts = nk.bin_spikes(times, units, 0.02, 5.0, n_units=9, windows=windows, sorted=True)
    assert counts.min() >= 0
    assert counts.sum() <= 5000 * (1 if windows is None else 2)


@pytest.mark.parametrize("dtype", COUNT_DTYPES)
def test_every_dtype_holds_the_same_counts(dtype):
    rng = np.random.default_rng(0)
    times, units = np.sort(rng.uniform(0, 4, 20_000)), rng.integers(0, 37, 20_000)
    expected = nk.bin_spikes(times, units, 0.1, 4.0, dtype="int64")
    tensors = torch.from_numpy(times), torch.from_numpy(units)
    counts = nk.bin_spikes(*tensors, 0.1, 4.0, dtype=getattr(torch, dtype))
    assert counts.dtype == getattr(torch, dtype)
    np.testing.assert_array_equal(counts.double().numpy(), expected)
    if dtype != "bfloat16":
        np.testing.assert_array_equal(nk.bin_spikes(times, units, 0.1, 4.0, dtype=dtype), expected)


@pytest.mark.cpu_only
@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_same_counts_for_every_number_of_threads(n_threads, shuffled):
    rng = np.random.default_rng(1)
    times, units = np.sort(rng.uniform(0, 100, 300_000)), rng.integers(0, 61, 300_000)
    if shuffled:
        times = rng.permutation(times)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(n_threads)
        whole = nk.bin_spikes(times, units, 0.01, 100.0)
        windows = nk.bin_spikes(times, units, 0.01, 3.0, windows=np.linspace(-1, 99, 23))
    finally:
        torch.set_num_threads(before)
    edges = np.arange(10_001) / 100 - 1e-9
    expected = np.histogram2d(times, units, (edges, np.arange(62) - 0.5))[0]
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(
        windows,
        nk.bin_spikes(np.sort(times), units[np.argsort(times)], 0.01, 3.0, windows=np.linspace(-1, 99, 23)),
    )


@pytest.mark.cpu_only
@pytest.mark.parametrize("n_units", [1, 5, 37, 800, 6000])
def test_large_outputs_streamed_past_the_caches_are_whole(n_units):
    n_bins = (6 << 20) // n_units
    rng = np.random.default_rng(2)
    times, units = np.sort(rng.uniform(0, n_bins, 50_000)), rng.integers(0, n_units, 50_000)
    flat = np.bincount(np.floor(times).astype(int) * n_units + units, minlength=n_bins * n_units)
    for dtype in ("uint8", "float32"):
        memory = np.full(n_bins * n_units + 3, 77, dtype)  # 3 off: no alignment to rely on
        out = memory[3:].reshape(n_bins, n_units)
        counts = nk.bin_spikes(times, units, 1.0, float(n_bins), n_units=n_units, edge_tolerance=0, out=out)
        assert counts is out
        np.testing.assert_array_equal(out.ravel(), flat)
        np.testing.assert_array_equal(memory[:3], 77)


@pytest.mark.many_launches
@pytest.mark.parametrize("n_units", [3, 70_000])
def test_unsorted_spikes_of_few_and_of_very_many_units(n_units):
    rng = np.random.default_rng(7)
    times, units = rng.uniform(-1, 41, 60_000), rng.integers(-1, n_units + 1, 60_000)
    order = np.argsort(times)
    options = {
        "bin_size": 0.5,
        "duration": 40.0,
        "n_units": n_units,
        "dtype": "uint16",
        "return_dropped": True,
    }
    counts, dropped = nk.bin_spikes(times, units, **options)
    expected, expected_dropped = nk.bin_spikes(times[order], units[order], **options)
    np.testing.assert_array_equal(counts, expected)
    assert dropped == expected_dropped == 60_000 - counts.sum(dtype=int)


def test_strided_reversed_and_byte_swapped_arrays_are_read_right():
    rng = np.random.default_rng(5)
    table = np.stack([np.sort(rng.uniform(0, 3, 400)), rng.integers(0, 5, 400)], axis=1)
    expected = nk.bin_spikes(table[:, 0].copy(), table[:, 1].astype(int), 0.1, 3.0)
    np.testing.assert_array_equal(nk.bin_spikes(table[:, 0], table[:, 1].astype(int), 0.1, 3.0), expected)
    backwards = nk.bin_spikes(table[::-1, 0], table[::-1, 1].astype(">i4"), 0.1, 3.0)
    np.testing.assert_array_equal(backwards, expected)
    strided = torch.from_numpy(table)
    np.testing.assert_array_equal(nk.bin_spikes(strided[:, 0], strided[:, 1].long(), 0.1, 3.0), expected)


def test_the_same_kind_comes_out_as_went_in():
    times, units = np.array([0.1]), np.array([0])
    assert isinstance(nk.bin_spikes(times, units, 0.5, 1.0), np.ndarray)
    assert isinstance(nk.bin_spikes([0.1], [0], 0.5, 1.0), np.ndarray)
    assert isinstance(nk.bin_spikes(torch.from_numpy(times), units, 0.5, 1.0), torch.Tensor)


def test_inputs_are_not_written_to():
    times, units = np.array([0.3, 0.1, np.nan]), np.array([0, 5, -1])
    before = times.copy(), units.copy()
    nk.bin_spikes(times, units, 0.1, 0.5)
    np.testing.assert_array_equal(times, before[0])
    np.testing.assert_array_equal(units, before[1])


# ---- Windows ----


def test_windows_may_overlap_be_unsorted_and_lie_outside(bin_spikes):
    times, units = [0.1, 0.6, 1.1, 1.6], [0, 1, 0, 1]
    counts = bin_spikes(times, units, 0.5, 1.0, windows=np.array([1.0, 0.0, 0.5, 99.0, -0.5]))
    expected = [[[1, 0], [0, 1]], [[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, 0], [0, 0]], [[0, 0], [1, 0]]]
    np.testing.assert_array_equal(counts, expected)


def test_windows_by_start_and_stop(bin_spikes):
    counts = bin_spikes([0.1, 0.6], [0, 0], 0.5, windows=np.array([[0.0, 1.0], [0.5, 1.5]]))
    np.testing.assert_array_equal(counts[..., 0], [[1, 1], [1, 0]])


def test_start_and_stop_are_relative_to_events(bin_spikes):
    times = [9.6, 10.0, 11.4, 11.6]
    counts = bin_spikes(times, [0] * 4, 0.5, start=-0.5, stop=1.5, windows=np.array([10.0]))
    np.testing.assert_array_equal(counts[0, :, 0], [1, 1, 0, 1])


@pytest.mark.many_launches
def test_windows_on_the_sampling_grid_are_exact_with_the_default_tolerance():
    rng = np.random.default_rng(0)
    sample = np.sort(rng.integers(0, 30_000 * 600, 200_000))
    event = rng.integers(0, 30_000 * 590, 50)
    counts = nk.bin_spikes(
        sample / 30_000, np.zeros(len(sample), int), 0.02, 2.0, windows=event / 30_000, dtype="int32"
    )
    exact = nk.bin_spikes(
        sample, np.zeros(len(sample), int), 0.02, 2.0, windows=event, sfreq=30_000, dtype="int32"
    )
    np.testing.assert_array_equal(counts, exact)
    expected = [
        np.bincount((sample - e)[(sample >= e) & (sample < e + 60_000)] // 600, minlength=100) for e in event
    ]
    np.testing.assert_array_equal(exact[..., 0], expected)


def test_float_windows_of_integer_times_begin_at_the_next_sample():
    samples = np.array([9, 10, 11, 12])
    counts = nk.bin_spikes(samples, np.zeros(4, int), 0.001, 0.002, windows=[0.0101, 0.010], sfreq=1000)
    np.testing.assert_array_equal(counts[..., 0], [[1, 1], [1, 1]])
    assert nk.bin_spikes(np.array([10]), np.array([0]), 0.001, 0.001, windows=[0.0101], sfreq=1000).sum() == 0


@pytest.mark.cpu_only
def test_windows_that_are_not_finite_are_refused_with_their_row(bin_spikes):
    with pytest.raises(ValueError, match=r"got nan in row 1 \(1 such rows\); leave out trials"):
        bin_spikes([0.1], [0], 0.1, 1.0, windows=np.array([0.0, np.nan]))


def test_windows_of_different_lengths_are_refused(bin_spikes):
    with pytest.raises(ValueError, match="one length"):
        bin_spikes([0.1], [0], 0.1, windows=np.array([[0.0, 1.0], [1.0, 2.5]]))


# ---- Unit map ----


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_unit_map_selects_permutes_and_sums(shuffled, wide):
    rng = np.random.default_rng(4)
    times, units = np.sort(rng.uniform(0, 10, 20_000)), rng.integers(-3, 45, 20_000)
    units = units.astype(np.int64 if wide else np.int32)
    if shuffled:
        times = times[::-1].copy()
    unit_map = rng.integers(-1, 7, 40)
    every_id = nk.bin_spikes(times, units, 0.05, 10.0, n_units=40, dtype="int64")
    expected = np.zeros((200, 7), np.int64)
    for unit, column in enumerate(unit_map):
        if column >= 0:
            expected[:, column] += every_id[:, unit]
    counts, dropped = nk.bin_spikes(
        times, units, 0.05, 10.0, unit_map=unit_map, n_units=7, return_dropped=True
    )
    np.testing.assert_array_equal(counts, expected)
    assert dropped == len(times) - expected.sum()


@pytest.mark.cpu_only
def test_unit_map_beyond_the_columns_is_refused(bin_spikes):
    with pytest.raises(ValueError, match=r"unit_map must map to columns below n_units=2, got 2"):
        bin_spikes([0.1], [0], 0.1, 1.0, unit_map=[0, 2], n_units=2)


# ---- Narrow counters ----

OVERFLOWS = [("uint8", 255), ("int16", 32767), ("uint16", 65535), ("float16", 2048)]


@pytest.mark.parametrize(("dtype", "limit"), OVERFLOWS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_counts_saturate_or_raise_and_never_wrap(dtype, limit, shuffled):
    times = np.full(limit + 1, 0.25)
    times[-1] = 0.1 if shuffled else 0.25
    units = np.zeros(limit + 1, np.int32)
    counts = nk.bin_spikes(times, units, 0.5, 0.5, dtype=dtype, overflow="saturate")
    assert int(counts[0, 0]) == limit
    with pytest.raises(ValueError, match=rf"dtype {dtype} .* got {limit + 1} spikes .*overflow='saturate'"):
        nk.bin_spikes(times, units, 0.5, 0.5, dtype=dtype)
    fits = nk.bin_spikes(times[1:], units[1:], 0.5, 0.5, dtype=dtype)
    assert int(fits[0, 0]) == limit


def test_bfloat16_holds_256_and_saturates_there():
    times, units = torch.zeros(300, dtype=torch.float64), torch.zeros(300, dtype=torch.int64)
    assert nk.bin_spikes(times[:256], units[:256], 1.0, 1.0, dtype=torch.bfloat16).item() == 256
    assert nk.bin_spikes(times, units, 1.0, 1.0, dtype=torch.bfloat16, overflow="saturate").item() == 256


# ---- Refusals ----

REFUSALS = [
    ({"bin_size": 0.0}, ValueError, "bin_size must be a finite number above 0, got 0.0"),
    ({"bin_size": -1.0}, ValueError, "bin_size must be a finite number above 0, got -1.0"),
    ({"bin_size": float("nan")}, ValueError, "bin_size must be a finite number"),
    ({"bin_size": None}, ValueError, "bin_size must be given"),
    ({"duration": -1.0}, ValueError, "must not end before they start, got duration -1.0"),
    ({"duration": float("inf")}, ValueError, "duration must be a finite number"),
    ({"duration": None, "start": 2.0, "stop": 1.0}, ValueError, "got start 2.0 and stop 1.0"),
    ({"stop": 1.0}, ValueError, "duration or stop, not both"),
    ({"start": float("nan")}, ValueError, "start must be a finite number"),
    ({"edge_tolerance": -1.0}, ValueError, "edge_tolerance must not be negative"),
    ({"edges": [0.0, 1.0]}, ValueError, "edges must come without bin_size"),
    ({"sfreq": 30_000.0}, ValueError, "sfreq must be left out for times in seconds"),
    ({"overflow": "wrap"}, ValueError, "overflow must be one of 'raise', 'saturate'"),
    ({"backend": "fast"}, ValueError, "backend must be"),
    ({"n_units": -1}, ValueError, "n_units must lie in"),
    ({"dtype": "complex64"}, TypeError, "dtype must be one of uint8"),
    ({"windows": np.zeros((2, 3))}, ValueError, r"windows must have shape \(n,\) or \(n, 2\)"),
    ({"windows": np.zeros(2), "duration": None}, ValueError, "need duration"),
    ({"unit_map": [0.5]}, TypeError, "unit_map must hold integer columns"),
    ({"unit_map": [[0]]}, ValueError, "unit_map must have one dimension"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSALS)
def test_a_bad_argument_is_named_with_its_value(change, error, message):
    arguments = {"bin_size": 0.5, "duration": 1.0} | change
    with pytest.raises(error, match=f"^bin_spikes: .*{message}"):
        nk.bin_spikes(np.array([0.1, 0.2]), np.array([0, 1]), **arguments)


def test_bad_arrays_are_named():
    with pytest.raises(ValueError, match="same length, got 2 and 1"):
        nk.bin_spikes(np.zeros(2), np.zeros(1, int), 0.5, 1.0)
    with pytest.raises(ValueError, match="times must have one dimension"):
        nk.bin_spikes(np.zeros((2, 1)), np.zeros(2, int), 0.5, 1.0)
    with pytest.raises(TypeError, match="units must be integer ids, got float64"):
        nk.bin_spikes(np.zeros(2), np.zeros(2), 0.5, 1.0)
    with pytest.raises(TypeError, match="times must be seconds"):
        nk.bin_spikes(np.array(["a"]), np.zeros(1, int), 0.5, 1.0)
    with pytest.raises(ValueError, match="sfreq must be given for integer times"):
        nk.bin_spikes(np.zeros(2, int), np.zeros(2, int), 0.5, 1.0)


@pytest.mark.cpu_only
def test_edges_that_are_none_are_refused():
    with pytest.raises(ValueError, match="edges must not decrease"):
        nk.bin_spikes(np.zeros(2), np.zeros(2, int), edges=[0.0, 2.0, 1.0])
    with pytest.raises(ValueError, match="edges must be finite"):
        nk.bin_spikes(np.zeros(2), np.zeros(2, int), edges=[0.0, np.inf])


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.zeros((2, 2)), ValueError, "dtype float32"),
        (np.zeros((2, 3), np.float32), ValueError, r"shape \(2, 2\), got \(2, 3\)"),
        (np.zeros((2, 4), np.float32)[:, ::2], ValueError, "contiguous"),
        (torch.zeros(2, 2), TypeError, "kind of times"),
        ([[0, 0], [0, 0]], TypeError, "kind of times"),
    ],
)
def test_an_out_that_does_not_fit_is_refused(out, error, message):
    with pytest.raises(error, match=message):
        nk.bin_spikes(np.array([0.1, 0.2]), np.array([0, 1]), 0.5, 1.0, out=out, dtype="float32")


def test_an_out_that_shares_memory_with_an_input_is_refused():
    times = np.zeros(4)
    with pytest.raises(ValueError, match="share memory"):
        nk.bin_spikes(times, np.zeros(4, int), 0.5, 2.0, out=times.reshape(4, 1))
    tensor = torch.zeros(4, dtype=torch.float64)
    with pytest.raises(ValueError, match="share memory"):
        nk.bin_spikes(tensor, torch.zeros(4, dtype=torch.int64), 0.5, 2.0, out=tensor.reshape(4, 1))


# ---- sizes and kinds that no caller means


@pytest.mark.parametrize("bin_size", [1e-12, 1e-15, 1e-300, 5e-324])
def test_bins_too_narrow_for_the_memory_are_refused_before_it_is_asked_for(bin_spikes, bin_size):
    with pytest.raises(ValueError, match=r"bin_spikes: (counts of shape|bin_size must be wide enough)"):
        bin_spikes(np.array([0.0, 0.1]), np.array([0, 1]), bin_size)


@pytest.mark.parametrize("stop", [1e15, 1e300])
def test_a_stop_beyond_all_memory_is_refused(bin_spikes, stop):
    with pytest.raises(ValueError, match="bin_spikes: "):
        bin_spikes(np.array([0.0, 0.1]), np.array([0, 1]), 0.01, stop=stop)


def test_a_start_far_behind_the_last_spike_gives_no_bins(bin_spikes):
    assert bin_spikes(np.array([0.0, 0.1]), np.array([0, 1]), 0.01, start=1e308).shape == (0, 2)


@pytest.mark.parametrize("name", ["units", "times"])
def test_uint64_numbers_that_int64_cannot_hold_are_refused(bin_spikes, name):
    spikes = {"times": np.array([3, 6], dtype=np.uint64), "units": np.array([0, 1], dtype=np.uint64)}
    spikes[name][1] = 2**64 - 1  # as int64 it would be -1
    with pytest.raises(ValueError, match=rf"{name} must be below 2\*\*63"):
        bin_spikes(spikes["times"], spikes["units"], 0.1, sfreq=30.0, start=-1.0, stop=1.0)


def test_a_sampling_rate_beyond_64_bit_samples_is_refused(bin_spikes):
    with pytest.raises(ValueError, match="sfreq must keep all edges within"):
        bin_spikes(np.array([3, 6]), np.array([0, 1]), 0.1, sfreq=1e300, stop=1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bin_size": "x"}, "bin_size must be a number"),
        ({"n_units": 1.5}, "n_units must be an integer"),
        ({"n_units": True}, "n_units must be an integer"),
        ({"bin_size": "0.05"}, "bin_size must be a number"),
        ({"bin_size": True}, "bin_size must be a number"),
        ({"sorted": "yes"}, "sorted must be True or False"),
        ({"strict": "no"}, "strict must be True or False"),
        ({"closed_last": 1}, "closed_last must be True or False"),
        ({"out": [0]}, "out must be of the kind of times"),
        ({"windows": ["a"], "duration": 0.1}, "windows must be numbers"),
    ],
)
def test_an_argument_of_a_wrong_kind_is_a_type_error_that_names_it(bin_spikes, changes, message):
    arguments = {"times": np.array([0.0, 0.1]), "units": np.array([0, 1]), "bin_size": 0.05, **changes}
    with pytest.raises(TypeError, match=f"bin_spikes: {message}"):
        bin_spikes(**arguments)


def test_a_masked_array_is_refused_since_its_mask_would_be_lost():
    with pytest.raises(TypeError, match="bin_spikes: times must not be a masked array"):
        nk.bin_spikes(np.ma.array([0.0, 0.1], mask=[False, True]), np.array([0, 1]), 0.05)


def test_a_flag_may_be_a_bool_of_numpy():
    counts = nk.bin_spikes(np.array([0.0, 0.1]), np.array([0, 1]), 0.05, 0.1, sorted=np.bool_(True))
    assert counts.sum() == 1


def test_lists_of_unequal_length_are_no_times():
    with pytest.raises(TypeError, match="bin_spikes: times must be an array of numbers"):
        nk.bin_spikes([[0.1], [0.1, 0.2]], [0, 1], 0.05)


def test_a_clock_too_slow_for_the_arithmetic_of_samples_is_refused():
    with pytest.raises(ValueError, match="sfreq must be at least 1e-6 Hz, got 1e-07"):
        nk.bin_spikes(np.array([0, 1]), np.array([0, 1]), 0.05, 0.15, sfreq=1e-7)
