"""Spikes given as trains one after the other: the same counts as with the ids written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import neurokern as nk

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture(params=["numpy", "torch", "reference"])
def bin_trains(request):
    """bin_spikes of trains as numpy arrays, as tensors, and by the reference; takes and returns numpy."""

    def call(times, train_ends, *args, **kwargs):
        times, train_ends = np.asarray(times), np.asarray(train_ends)
        if request.param == "torch":
            ends = torch.from_numpy(train_ends)
            result = nk.bin_spikes(torch.from_numpy(times), None, *args, train_ends=ends, **kwargs)
            return tuple(part.numpy() for part in result) if isinstance(result, tuple) else result.numpy()
        backend = "reference" if request.param == "reference" else None
        return nk.bin_spikes(times, None, *args, train_ends=train_ends, backend=backend, **kwargs)

    return call


def trains(n_trains, n_spikes, seconds, seed=0):
    """Return sorted trains of unequal length, their ends, and the ids written out."""
    rng = np.random.default_rng(seed)
    sizes = rng.multinomial(n_spikes, rng.dirichlet(np.full(n_trains, 0.5)))
    times = np.concatenate([np.sort(rng.uniform(0, seconds, size)) for size in sizes])
    return times, np.cumsum(sizes), np.repeat(np.arange(n_trains), sizes)


# ---- What trains are


def test_trains_by_hand(bin_trains):
    counts = bin_trains([0.01, 0.07, 0.02, 0.11], [2, 2, 4], 0.05, 0.15)
    np.testing.assert_array_equal(counts, [[1, 0, 1], [1, 0, 0], [0, 0, 1]])


def test_a_spike_on_an_edge_belongs_to_the_later_bin(bin_trains):
    edges = 0.5 + np.arange(401) / 50
    times = np.sort(np.concatenate([edges, np.nextafter(edges, -np.inf)]))
    counts = bin_trains(np.tile(times, 3), [802, 1604, 2406], 0.02, 8.0, start=0.5, edge_tolerance=0)
    assert (counts[:-1] == 2).all()
    assert (counts[-1] == 2).all()  # its own edge, and the neighbour of the last
    closed = bin_trains(times, [802], 0.02, 8.0, start=0.5, edge_tolerance=0, closed_last=True)
    assert closed[-1, 0] == 3


def test_units_without_spikes_keep_their_columns(bin_trains):
    assert bin_trains([0.1], [0, 1, 1, 1], 0.5, 0.5).tolist() == [[0, 1, 0, 0]]
    assert bin_trains(np.zeros(0), [0, 0], 0.5, 1.0).tolist() == [[0, 0], [0, 0]]


def test_no_units_at_all(bin_trains):
    assert bin_trains(np.zeros(0), np.zeros(0, np.int64), 0.5, 1.0).shape == (2, 0)
    assert bin_trains([0.1], [1], 0.5, 0.0).shape == (0, 1)


def test_trains_beyond_n_units_are_unknown(bin_trains):
    options = {"n_units": 2, "return_dropped": True}
    counts, dropped = bin_trains([0.1, 0.2, 0.3, 9.0], [1, 2, 4], 0.5, 0.5, **options)
    assert counts.tolist() == [[1, 1]]
    assert dropped == 2
    with pytest.raises(ValueError, match=r"units must lie in 0 ... 1, got 1 spikes inside the bins"):
        bin_trains([0.1, 0.2, 0.3, 9.0], [1, 2, 4], 0.5, 0.5, n_units=2, strict=True)


def test_unit_map_selects_and_sums_trains(bin_trains):
    times, ends, _ = trains(9, 4000, 8.0)
    every = bin_trains(times, ends, 0.1, 8.0)
    unit_map = np.array([2, 0, -1, 2, 1, 1, -1, 0])
    counts, dropped = bin_trains(times, ends, 0.1, 8.0, unit_map=unit_map, return_dropped=True)
    expected = np.stack([every[:, [1, 7]].sum(1), every[:, [4, 5]].sum(1), every[:, [0, 3]].sum(1)], axis=1)
    np.testing.assert_array_equal(counts, expected)
    assert dropped == every[:, [2, 6, 8]].sum()


def test_nan_and_outside_times_are_not_counted(bin_trains):
    times = [-0.1, 0.1, 0.2, np.nan, 0.7, 3.0, 0.3, np.inf, np.nan]
    counts, dropped = bin_trains(times, [6, 9], 0.5, 1.0, return_dropped=True)
    assert counts.tolist() == [[2, 1], [1, 0]]
    assert dropped == 5


# ---- The same as with ids


@given(
    seed=st.integers(0, 2**32 - 1),
    n_spikes=st.integers(0, 3000),
    n_trains=st.integers(0, 40),
    n_bins=st.integers(0, 700),
    bin_size=st.sampled_from([0.001, 0.02, 1 / 60, 0.03]),
    order=st.sampled_from(["sorted", "one train shuffled", "two swapped", "nan"]),
    integer=st.booleans(),
    grid=st.sampled_from(["session", "windows", "edges"]),
    closed_last=st.booleans(),
    mapped=st.booleans(),
    smoothing=st.sampled_from([None, "gaussian", "exponential"]),
    sorted_=st.sampled_from([None, False]),
)
def test_trains_count_as_ids_written_out_do(
    seed, n_spikes, n_trains, n_bins, bin_size, order, integer, grid, closed_last, mapped, smoothing, sorted_
):
    rng = np.random.default_rng(seed)
    length = n_bins * bin_size
    n_spikes = n_spikes if n_trains else 0
    times, ends, ids = (
        trains(n_trains, n_spikes, 1.2 * length, seed)
        if n_trains
        else (np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    )
    on_edge = rng.random(n_spikes) < 0.1
    times[on_edge] = np.round(times[on_edge] / bin_size) * bin_size
    for first, last in zip(ends - np.diff(ends, prepend=0), ends, strict=True):
        times[first:last].sort()
    if order == "one train shuffled" and n_trains:
        u = rng.integers(n_trains)
        rng.shuffle(times[ends[u - 1] if u else 0 : ends[u]])
    elif order == "two swapped" and n_spikes:
        i, j = rng.integers(0, n_spikes, 2)
        times[[i, j]] = times[[j, i]]
    elif order == "nan" and n_spikes:
        times[rng.integers(0, n_spikes, 2)] = np.nan
    options = {"dtype": "float32", "closed_last": closed_last, "return_dropped": True, "n_units": n_trains}
    if integer:
        times = (np.nan_to_num(times) * 30_000).astype(np.int64)
        options["sfreq"] = 30_000.0
    if mapped and n_trains:
        options["unit_map"] = rng.integers(-1, n_trains, rng.integers(1, n_trains + 3))
    if grid == "edges":
        options["edges"] = np.sort(rng.uniform(0, length, 20))
    else:
        options |= {"bin_size": bin_size, "duration": length, "start": 0.1 * length}
        if smoothing:
            options |= {"smoothing": smoothing, "smoothing_width": 2.5 * bin_size}
    if grid == "windows":
        options["windows"] = rng.uniform(-0.5, 1, rng.integers(0, 6)) * length
    expected, expected_dropped = nk.bin_spikes(times, ids, **options)
    counts, dropped = nk.bin_spikes(times, None, train_ends=ends, sorted=sorted_, **options)
    np.testing.assert_array_equal(counts, expected)
    assert dropped == expected_dropped


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("windows", [None, np.linspace(-1, 99, 23)])
@pytest.mark.cpu_only
def test_the_same_counts_for_every_number_of_threads(windows, shuffled):
    times, ends, ids = trains(61, 300_000, 100.0)
    if shuffled:
        times[ends[3] : ends[4]] = times[ends[3] : ends[4]][::-1]
    options = {"bin_size": 0.01, "duration": 100.0 if windows is None else 3.0, "windows": windows}
    expected = nk.bin_spikes(times, ids, **options)
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            np.testing.assert_array_equal(nk.bin_spikes(times, None, train_ends=ends, **options), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "float16", "float64"])
@pytest.mark.parametrize("n_trains", [1, 16, 37, 1024])
def test_every_dtype_and_number_of_units(dtype, n_trains):
    times, ends, ids = trains(n_trains, 30_000, 500.0)
    counts = nk.bin_spikes(times, None, 0.1, 500.0, train_ends=ends, dtype=dtype)
    np.testing.assert_array_equal(counts, nk.bin_spikes(times, ids, 0.1, 500.0, dtype=dtype))


@pytest.mark.parametrize("windows", [None, np.array([0.0, 2.5])])
def test_a_false_claim_of_order_stays_in_bounds(windows):
    rng = np.random.default_rng(3)
    times, ends = rng.uniform(-1, 6, 5000), np.arange(1, 11) * 500
    counts = nk.bin_spikes(times, None, 0.02, 5.0, windows=windows, sorted=True, train_ends=ends)
    assert counts.min() >= 0
    assert counts.sum() <= 5000 * (1 if windows is None else 2)


def test_counts_saturate_or_raise_and_never_wrap():
    times, ends = np.full(600, 0.25), [300, 600]
    counts = nk.bin_spikes(times, None, 0.5, 0.5, train_ends=ends, dtype="uint8", overflow="saturate")
    assert counts.tolist() == [[255, 255]]
    with pytest.raises(ValueError, match="dtype uint8 must hold the largest count, got 300 spikes"):
        nk.bin_spikes(times, None, 0.5, 0.5, train_ends=ends, dtype="uint8")


# ---- Refusals

REFUSALS = [
    ({"train_ends": [2, 1, 3]}, ValueError, "train_ends must not decrease, got 1 after 2 in row 1"),
    ({"train_ends": [-1, 3]}, ValueError, "train_ends must not decrease, got -1 after 0 in row 0"),
    ({"train_ends": [1, 4]}, ValueError, "train_ends must end with the number of times, got 4 and 3 times"),
    ({"train_ends": [1, 2]}, ValueError, r"got 2 and 3 times; for some .* pass times\[:train_ends\[-1\]\]"),
    ({"train_ends": []}, ValueError, "train_ends must end with the number of times, got none and 3 times"),
    ({"train_ends": [1.0, 3.0]}, TypeError, "train_ends must be integers, got float64"),
    ({"train_ends": [[1, 3]]}, ValueError, r"train_ends must have one dimension, got shape \(1, 2\)"),
    ({"train_ends": "ab"}, ValueError, "train_ends must have one dimension"),
    ({"train_ends": None}, ValueError, "units or train_ends must be given, got neither"),
    ({"units": [0, 0, 0]}, ValueError, "units or train_ends must be given, got both"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSALS)
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.cpu_only
def test_a_bad_argument_is_named_with_its_value(change, error, message, backend):
    arguments = {"bin_size": 0.5, "duration": 1.0, "units": None, "train_ends": [1, 3]} | change
    with pytest.raises(error, match=f"^bin_spikes: .*{message}"):
        nk.bin_spikes(np.array([0.1, 0.2, 0.3]), backend=backend, **arguments)


@pytest.mark.cpu_only
def test_train_ends_on_another_device_are_refused():
    ends = torch.empty(1, dtype=torch.int64, device="meta")
    with pytest.raises(ValueError, match="train_ends must be on the device of times, cpu, got meta"):
        nk.bin_spikes(torch.zeros(1), None, 0.5, 1.0, train_ends=ends)


def test_unsigned_ends_as_hdf5_files_hold_them_are_read():
    ends = np.array([1, 3], np.uint8)
    assert nk.bin_spikes([0.1, 0.1, 0.6], None, 0.5, 1.0, train_ends=ends).tolist() == [[1, 1], [0, 1]]


# ---- Real recordings


@pytest.mark.cpu_only
def test_trains_of_a_real_nwb_file(shared_data):
    h5py = pytest.importorskip("h5py")
    with h5py.File(shared_data / "spikes" / "nwb" / "A8604-211122.nwb") as file:
        times, ends = file["units/spike_times"][:], file["units/spike_times_index"][:]
    start, stop = np.floor(times.min()), np.ceil(times.max())
    counts = nk.bin_spikes(times, None, 0.02, start=start, stop=stop, train_ends=ends)
    edges = start + np.arange(len(counts) + 1) / 50 - 1e-9
    for unit, train in enumerate(np.split(times, ends[:-1].astype(int))):
        np.testing.assert_array_equal(counts[:, unit], np.histogram(train, edges)[0])


@pytest.mark.cpu_only
def test_trains_of_a_real_retina(shared_data):
    h5py = pytest.importorskip("h5py")
    with h5py.File(
        shared_data / "spikes" / "retina_waves" / "Maccione2014_P9_m1_r1_bursts_filtered.h5"
    ) as file:
        times, sizes = file["spikes"][:].ravel(), file["sCount"][:].ravel().astype(int)
    options = {"dtype": "uint16", "return_dropped": True}
    counts, dropped = nk.bin_spikes(times, None, 0.5, 1800.0, train_ends=np.cumsum(sizes), **options)
    ids = np.repeat(np.arange(len(sizes)), sizes)
    expected = nk.bin_spikes(times, ids, 0.5, 1800.0, n_units=len(sizes), dtype="uint16")
    np.testing.assert_array_equal(counts, expected)
    assert counts.shape == (3600, 806)
    assert dropped == len(times) - counts.sum(dtype=int)
