"""Where a spike on or next to an edge belongs: every edge of many grids, real clocks, numpy.histogram."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import neurokern as nk

pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("device")

CLOCK = 30_000  # Hz, of Neuropixels probes
CLOCK_GRIDS = [(0.001, 30), (0.01, 300), (0.02, 600), (0.05, 1500), (1 / 60, 500)]  # seconds, samples


def neighbours(values):
    """Return the values with the doubles just below and above each."""
    return np.concatenate([np.nextafter(values, -np.inf), values, np.nextafter(values, np.inf)])


def count_between(times, units, edges, n_units):
    """One comparison per spike and edge, by bisection; spikes outside are left out."""
    bins = np.searchsorted(edges, times, side="right") - 1
    inside = (bins >= 0) & (bins < len(edges) - 1)
    counts = np.zeros((len(edges) - 1, n_units), np.int64)
    np.add.at(counts, (bins[inside], units[inside]), 1)
    return counts


# ---- Neighbours of edges


@pytest.mark.parametrize("path", ["sorted", "shuffled", "window", "several windows", "train", "edges"])
@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
@pytest.mark.parametrize("start", [0.0, 0.1, -7.3, 1234.5678, 86_400.25])
@pytest.mark.parametrize("bin_size", [0.001, 0.005, 0.01, 0.02, 0.05, 1 / 60, 1 / 3, 0.03, 0.0123456789, 0.7])
def test_the_neighbours_of_every_edge_are_told_apart(bin_size, start, tolerance, path):
    n_bins, rate = 300, round(1 / bin_size)
    by_rate = rate > 0 and abs(1 / bin_size - rate) <= 1e-9 * rate
    # The documented edges, in Python's own doubles.
    plain = np.array([start + (k / rate if by_rate else k * bin_size) for k in range(n_bins + 1)])
    edges = plain - tolerance
    times = np.sort(np.concatenate([neighbours(plain), neighbours(edges), plain[:-1] + bin_size / 2]))
    if path == "shuffled":
        times = np.random.default_rng(0).permutation(times)
    units = np.arange(len(times), dtype=np.int32) % 7  # neighbours fall to different units
    expected = count_between(times, units, edges, 7)
    options = {"n_units": 7, "dtype": "int32", "edge_tolerance": tolerance}
    if path == "edges":
        counts = nk.bin_spikes(times, units, edges=plain, **options)
    elif path == "train":
        order = np.argsort(units, kind="stable")
        ends = np.cumsum(np.bincount(units))
        counts = nk.bin_spikes(
            times[order], None, bin_size, n_bins * bin_size, start=start, train_ends=ends, **options
        )
    elif path in ("window", "several windows"):
        windows = np.full(1 if path == "window" else 3, start)
        every = nk.bin_spikes(times, units, bin_size, n_bins * bin_size, windows=windows, **options)
        counts = every[-1]
        assert (every == counts).all()
    else:
        counts = nk.bin_spikes(times, units, bin_size, n_bins * bin_size, start=start, **options)
    np.testing.assert_array_equal(counts, expected)


# ---- The clock of a recording: truth by integer arithmetic


def clock_samples(n, spacing, samples_per_bin, seed=0):
    """Return ascending sample numbers; a third lies on an edge or next to one."""
    rng = np.random.default_rng(seed)
    samples = np.cumsum(rng.integers(0, 2 * spacing, n))
    near = rng.random(n) < 1 / 3
    on_edge = samples // samples_per_bin * samples_per_bin + rng.integers(-1, 2, n)
    return np.sort(np.where(near, np.maximum(on_edge, 0), samples))


@pytest.mark.cpu_only
@pytest.mark.parametrize(("bin_size", "samples_per_bin"), CLOCK_GRIDS)
def test_of_ten_million_spikes_of_a_clock_none_is_in_the_wrong_bin(bin_size, samples_per_bin):
    n = 10_000_000
    samples = clock_samples(n, 10, samples_per_bin)  # an hour
    units = (np.arange(n) % 3).astype(np.int32)
    n_bins = int(samples[-1]) // samples_per_bin + 1
    truth = np.bincount(samples // samples_per_bin * 3 + units, minlength=3 * n_bins).reshape(n_bins, 3)
    for times in (samples / CLOCK, samples * (1 / CLOCK)):  # both ways in which files are written
        for tolerance in (0.0, 1e-9):
            counts = nk.bin_spikes(
                times, units, bin_size, n_bins * bin_size, dtype="uint16", edge_tolerance=tolerance
            )
            np.testing.assert_array_equal(counts, truth)
    counts = nk.bin_spikes(samples, units, bin_size, n_bins * bin_size, sfreq=CLOCK, dtype="uint16")
    np.testing.assert_array_equal(counts, truth)


@pytest.mark.parametrize(("bin_size", "samples_per_bin"), CLOCK_GRIDS)
@pytest.mark.parametrize("offset", [1, 77_777, 30_000 * 600 + 1, 30_000 * 3600 * 24 + 7])
def test_times_from_which_a_start_was_subtracted_are_right_with_the_default_tolerance(
    bin_size, samples_per_bin, offset
):
    samples = clock_samples(20_000, 100, samples_per_bin)
    times = (samples + offset) / CLOCK - offset / CLOCK  # has lost a few bits
    units = np.arange(len(samples), dtype=np.int32) % 3
    n_bins = int(samples[-1]) // samples_per_bin + 1
    cells = samples // samples_per_bin * 3 + units
    truth = np.bincount(cells, minlength=3 * n_bins).reshape(n_bins, 3)
    counts = nk.bin_spikes(times, units, bin_size, n_bins * bin_size, dtype="int32")
    np.testing.assert_array_equal(counts, truth)


def test_without_a_tolerance_subtracted_starts_do_move_spikes():
    samples = np.arange(1, 20_000) * 600  # each on an edge
    offset = 30_000 * 600 + 1
    times = (samples + offset) / CLOCK - offset / CLOCK
    units = np.zeros(len(times), np.int32)
    exact = nk.bin_spikes(times, units, 0.02, 400.0, dtype="int32")
    plain = nk.bin_spikes(times, units, 0.02, 400.0, dtype="int32", edge_tolerance=0)
    assert (exact[1:20_000] == 1).all()
    assert (plain != exact).any()


@pytest.mark.parametrize(("bin_size", "samples_per_bin"), CLOCK_GRIDS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_windows_around_events_on_the_clock_are_right_with_the_default_tolerance(
    bin_size, samples_per_bin, shuffled
):
    samples = clock_samples(40_000, 200, samples_per_bin)
    events = np.random.default_rng(1).integers(0, samples[-1], 12)
    events[:6] = samples[1000:7000:1000]  # some spikes are events, so lie on the first edge
    units = np.arange(len(samples), dtype=np.int32) % 3
    n_bins = 40
    truth = np.zeros((len(events), n_bins, 3), np.int64)
    for window, event in enumerate(events):
        bins = (samples - event) // samples_per_bin
        inside = (bins >= 0) & (bins < n_bins)
        np.add.at(truth[window], (bins[inside], units[inside]), 1)
    order = np.random.default_rng(2).permutation(len(samples)) if shuffled else slice(None)
    counts = nk.bin_spikes(
        samples[order] / CLOCK,
        units[order],
        bin_size,
        n_bins * bin_size,
        windows=events / CLOCK,
        dtype="int32",
    )
    np.testing.assert_array_equal(counts, truth)


# ---- numpy.histogram, bit for bit


def as_histogram(times, edges):
    times = np.asarray(times)
    units = np.zeros(len(times), np.int32)
    options = {"edge_tolerance": 0, "closed_last": True, "dtype": "int64", "n_units": 1}
    return nk.bin_spikes(times, units, edges=edges, **options)[:, 0]


# Few values, so that edges repeat and spikes lie on them; and the ends of what doubles hold.
ODD = [0.0, -0.0, 5e-324, -5e-324, 1.0, np.nextafter(1.0, 2.0), 0.1, 0.3, 1e300, -1e300, 1.5e308, -1.5e308]


@given(
    edges=st.lists(st.sampled_from(ODD), min_size=2, max_size=9).map(sorted),
    times=st.lists(st.sampled_from([*ODD, np.nan, np.inf, -np.inf]), max_size=40),
    ascending=st.booleans(),
)
def test_repeated_and_extreme_edges_are_those_of_numpy(edges, times, ascending):
    edges, times = np.array(edges), np.array(times)
    if ascending:
        times = np.sort(times)
    np.testing.assert_array_equal(as_histogram(times, edges), np.histogram(times, edges)[0])


@given(
    edges=st.lists(st.integers(-30, 30), min_size=2, max_size=12).map(sorted),
    times=st.lists(st.integers(-40, 40), max_size=60),
)
def test_integer_edges_are_those_of_numpy(edges, times):
    times, edges = np.array(times, np.int64), np.array(edges)
    np.testing.assert_array_equal(as_histogram(times, edges), np.histogram(times, edges)[0])


@pytest.mark.parametrize("ascending", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.7, 11.1), (1e-3, 1e3), (1234.5678, 1235.5678)])
@pytest.mark.parametrize("n_bins", [1, 7, 50, 1000])
def test_a_number_of_bins_over_a_range_is_that_of_numpy(n_bins, low, high, ascending):
    edges = np.linspace(low, high, n_bins + 1)
    random = np.random.default_rng(n_bins).uniform(low - 0.1, high + 0.1, 5000)
    times = np.concatenate([neighbours(edges), random])
    if ascending:
        times.sort()
    expected = np.histogram(times, n_bins, (low, high))[0]
    np.testing.assert_array_equal(as_histogram(times, edges), expected)


@pytest.mark.parametrize("ascending", [False, True])
def test_unequal_edges_of_a_large_recording_are_those_of_numpy(ascending):
    rng = np.random.default_rng(3)
    edges = np.cumsum(rng.exponential(0.02, 3000))
    edges[rng.integers(1, 3000, 100)] = edges[rng.integers(1, 3000, 100)]  # some repeat
    edges.sort()
    times = np.concatenate([neighbours(edges), rng.uniform(-1, edges[-1] + 1, 30_000)])
    if ascending:
        times.sort()
    units = rng.integers(0, 5, len(times)).astype(np.int32)
    options = {"edge_tolerance": 0, "closed_last": True, "dtype": "int32"}
    counts = nk.bin_spikes(times, units, edges=edges, **options)
    for unit in range(5):
        np.testing.assert_array_equal(counts[:, unit], np.histogram(times[units == unit], edges)[0])
