"""Smoothed counts: scipy's results, one order of float32 arithmetic, every kind of input."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import neurokern as nk
from neurokern.ops._spike_smoothing import smoothing_weights

torch = pytest.importorskip("torch")
ndimage = pytest.importorskip("scipy.ndimage")
signal = pytest.importorskip("scipy.signal")

pytestmark = pytest.mark.usefixtures("device")

KINDS = ["gaussian", "exponential"]
FLOATS = ["float16", "bfloat16", "float32", "float64"]


@pytest.fixture(params=["numpy", "torch", "reference"])
def bin_spikes(request):
    """bin_spikes with numpy arrays, with tensors, and by the reference; takes and returns numpy."""

    def call(times, units, *args, **kwargs):
        times, units = np.asarray(times), np.asarray(units)
        if request.param == "torch":
            return nk.bin_spikes(torch.from_numpy(times), torch.from_numpy(units), *args, **kwargs).numpy()
        backend = "reference" if request.param == "reference" else None
        return nk.bin_spikes(times, units, *args, backend=backend, **kwargs)

    return call


def session(n_spikes=4000, n_units=23, seconds=10.0, seed=0):
    rng = np.random.default_rng(seed)
    return np.sort(rng.uniform(0, seconds, n_spikes)), rng.integers(0, n_units, n_spikes)


def smooth(kind, width):
    return {"smoothing": kind, "smoothing_width": width}


def expected_of(counts, kind, bins):
    """What scipy makes of counts, in float64."""
    if kind == "gaussian":
        return ndimage.gaussian_filter1d(np.float64(counts), bins, axis=-2, mode="constant", truncate=4.0)
    decay = np.exp(-1 / bins)
    return signal.lfilter([1 - decay], [1, -decay], np.float64(counts), axis=-2)


# ---- What smoothing is


def test_gaussian_by_hand(bin_spikes):
    # Sigma of a quarter of a bin: exp(-8) to either side, normalised.
    side = np.exp(-8) / (1 + 2 * np.exp(-8))
    rates = bin_spikes([0.55], [0], 0.1, 1.0, **smooth("gaussian", 0.025))
    np.testing.assert_allclose(rates[4:7, 0], [side, 1 - 2 * side, side], rtol=1e-6)
    assert rates[:4].sum() == rates[7:].sum() == 0


def test_exponential_is_causal_and_decays_by_its_time_constant(bin_spikes):
    rates = bin_spikes([0.25], [0], 0.1, 0.6, **smooth("exponential", 0.1 / np.log(2)))
    np.testing.assert_allclose(rates[:, 0], [0, 0, 0.5, 0.25, 0.125, 0.0625], rtol=1e-6)


@pytest.mark.parametrize("bins", [0.3, 1.0, 2.5, 7.0])
@pytest.mark.parametrize("kind", KINDS)
def test_smoothed_counts_are_those_of_scipy(bin_spikes, kind, bins):
    spikes = session()
    counts = nk.bin_spikes(*spikes, 0.05, 10.0)
    rates = bin_spikes(*spikes, 0.05, 10.0, **smooth(kind, bins * 0.05))
    # Float32 has 24 bits, and a sum of few terms loses two or three of them.
    np.testing.assert_allclose(rates, expected_of(counts, kind, bins), atol=1e-6 * counts.max())
    assert rates.dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_each_window_is_smoothed_by_itself_with_zeros_around(bin_spikes, kind):
    spikes = session()
    windows = np.array([3.0, -1.0, 2.5, 9.5, 40.0])
    counts = nk.bin_spikes(*spikes, 0.05, 2.0, windows=windows)
    rates = bin_spikes(*spikes, 0.05, 2.0, windows=windows, **smooth(kind, 0.15))
    np.testing.assert_allclose(rates, expected_of(counts, kind, 3.0), atol=1e-6 * counts.max())


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_rate_keeps_its_level(kind):
    times = np.arange(2000) / 1000 + 0.0005
    rates = nk.bin_spikes(times, np.zeros(2000, int), 0.01, 2.0, **smooth(kind, 0.1))
    np.testing.assert_allclose(rates[150 if kind == "exponential" else 50 : -50], 10, rtol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_width_of_a_fraction_of_a_bin_leaves_the_counts(bin_spikes, kind):
    spikes = session(500)
    rates = bin_spikes(*spikes, 0.05, 10.0, **smooth(kind, 1e-4))
    np.testing.assert_array_equal(rates, nk.bin_spikes(*spikes, 0.05, 10.0))


@pytest.mark.parametrize("n_bins", [1, 2, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_wider_than_the_window(bin_spikes, kind, n_bins):
    spikes = session(500)
    counts = nk.bin_spikes(*spikes, 0.05, n_bins * 0.05)
    rates = bin_spikes(*spikes, 0.05, n_bins * 0.05, **smooth(kind, 20 * 0.05))
    np.testing.assert_allclose(rates, expected_of(counts, kind, 20.0), atol=1e-6 * counts.max())


def test_a_decay_that_has_faded_is_zero(bin_spikes):
    rates = bin_spikes([0.05], [0], 0.1, 30.0, **smooth("exponential", 0.1))[:, 0]
    assert (rates[:60] > 0).all()
    assert not rates[75:].any()  # exp(-70) is below 2**-100


@pytest.mark.parametrize("bins", [0.1, 0.6, 2.5, 40.0])
def test_gaussian_weights_are_those_of_scipy(bins):
    weights = smoothing_weights("gaussian", bins * 0.02, 0.02)
    radius = int(4 * bins + 0.5)
    impulse = np.zeros(2 * radius + 1)
    impulse[radius] = 1
    expected = ndimage.gaussian_filter1d(impulse, bins, mode="constant", truncate=4.0)[radius:]
    np.testing.assert_array_equal(weights, expected.astype(np.float32))


# ---- The same bits everywhere


@given(
    seed=st.integers(0, 2**32 - 1),
    n_spikes=st.integers(0, 600),
    n_units=st.integers(0, 70),
    n_bins=st.integers(0, 300),
    kind=st.sampled_from(KINDS),
    bins=st.sampled_from([1e-9, 0.13, 1.0, 2.5, 9.0, 100.0, 5000.0]),
    dtype=st.sampled_from(FLOATS),
    integer=st.booleans(),
    order=st.sampled_from(["sorted", "shuffled", "nan"]),
    windows=st.none() | st.integers(0, 5),
    mapped=st.booleans(),
)
def test_kernel_and_reference_give_the_same_bits(
    seed, n_spikes, n_units, n_bins, kind, bins, dtype, integer, order, windows, mapped
):
    rng = np.random.default_rng(seed)
    length = n_bins * 0.02
    times = np.sort(rng.uniform(-0.1, 1.1, n_spikes) * length + rng.choice([0, 0.5]))
    if order == "shuffled":
        rng.shuffle(times)
    if order == "nan" and n_spikes:
        times[rng.integers(n_spikes)] = np.nan
    more = {"sfreq": 1000.0} if integer else {}
    if integer:
        times = (np.nan_to_num(times) * 1000).astype(np.int64)
    starts = None if windows is None else torch.from_numpy(rng.uniform(-0.5, 1.0, windows) * length)
    spikes = torch.from_numpy(times), torch.from_numpy(rng.integers(-1, n_units + 1, n_spikes))
    unit_map = torch.from_numpy(rng.integers(-1, max(n_units, 1), 80)) if mapped and n_units else None
    options = {"windows": starts, "unit_map": unit_map, "n_units": n_units, "return_dropped": True}
    options |= {"dtype": dtype, **smooth(kind, bins * 0.02), **more}
    rates, dropped = nk.bin_spikes(*spikes, 0.02, length, **options)
    expected, expected_dropped = nk.bin_spikes(*spikes, 0.02, length, backend="reference", **options)
    torch.testing.assert_close(rates, expected, rtol=0, atol=0)
    assert dropped == expected_dropped


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("windows", [None, np.linspace(-1, 90, 17)])
@pytest.mark.cpu_only
def test_order_and_threads_change_no_bit(kind, windows):
    rng = np.random.default_rng(1)
    times, units = np.sort(rng.uniform(0, 100, 300_000)), rng.integers(0, 61, 300_000)
    options = {"bin_size": 0.01, "duration": 100.0 if windows is None else 3.0, "windows": windows}
    options |= smooth(kind, 0.053)
    expected = nk.bin_spikes(times, units, **options)
    shuffled = rng.permutation(300_000)
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2, 5):
            torch.set_num_threads(n_threads)
            np.testing.assert_array_equal(nk.bin_spikes(times, units, **options), expected)
            np.testing.assert_array_equal(
                nk.bin_spikes(times[shuffled], units[shuffled], **options), expected
            )
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_units", [1, 16, 37, 1024, 5000])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.cpu_only
def test_large_outputs_streamed_past_the_caches_are_whole(n_units, kind, dtype):
    n_bins = (3 << 20) // n_units
    rng = np.random.default_rng(2)
    times, units = np.sort(rng.uniform(0, n_bins, 20_000)), rng.integers(0, n_units, 20_000)
    counts = nk.bin_spikes(times, units, 1.0, float(n_bins), n_units=n_units)
    memory = torch.full((n_bins * n_units + 3,), 77, dtype=getattr(torch, dtype))  # 3 off: no alignment
    out = memory[3:].reshape(n_bins, n_units)
    spikes = torch.from_numpy(times), torch.from_numpy(units)
    nk.bin_spikes(*spikes, 1.0, float(n_bins), n_units=n_units, out=out, **smooth(kind, 2.0))
    tolerance = {"float16": 1e-3, "bfloat16": 8e-3}.get(dtype, 1e-6)
    expected = expected_of(counts, kind, 2.0)
    np.testing.assert_allclose(out.double().numpy(), expected, rtol=tolerance, atol=1e-6 * counts.max())
    assert (memory[:3] == 77).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_narrow_floats_are_the_nearest_to_float32(kind, dtype):
    times, units = (torch.from_numpy(part) for part in session(20_000, 3))
    single = nk.bin_spikes(times, units, 0.01, 10.0, **smooth(kind, 0.005))
    narrow = nk.bin_spikes(times, units, 0.01, 10.0, dtype=dtype, **smooth(kind, 0.005))
    assert torch.equal(narrow, single.to(getattr(torch, dtype)))


# ---- Limits and refusals


def test_counts_beyond_float16_saturate_or_raise_before_they_are_smoothed():
    times, units = np.full(70_000, 0.05), np.zeros(70_000, np.int64)
    options = {"dtype": "float16", **smooth("gaussian", 0.05)}
    with pytest.raises(ValueError, match=r"dtype float16 must hold the largest count, got 70000 .* 65504"):
        nk.bin_spikes(times, units, 0.1, 0.1, **options)
    rates = nk.bin_spikes(times, units, 0.1, 0.1, overflow="saturate", **options)
    assert 0.7 * 65504 < rates.item() < 65504
    assert nk.bin_spikes(times[:65_504], units[:65_504], 0.1, 0.1, **options).item() == rates.item()


REFUSALS = [
    ({"smoothing": "boxcar"}, ValueError, "smoothing must be one of 'gaussian', 'exponential', got 'boxcar'"),
    ({"smoothing_width": None}, ValueError, "smoothing_width must be given, in seconds"),
    ({"smoothing_width": 0.0}, ValueError, "smoothing_width must be a finite number above 0, got 0.0"),
    ({"smoothing_width": -0.05}, ValueError, "smoothing_width must be a finite number above 0, got -0.05"),
    ({"smoothing_width": float("nan")}, ValueError, "smoothing_width must be a finite number above 0"),
    ({"smoothing_width": "wide"}, TypeError, "smoothing_width must be a number, got 'wide'"),
    ({"smoothing_width": 1e6}, ValueError, r"smoothing_width must be at most 2\*\*18 bins, got 1e\+06 s"),
    ({"smoothing": None}, ValueError, "smoothing_width must be left out without smoothing, got 0.05"),
    ({"dtype": "int32"}, ValueError, "dtype must be float16, bfloat16, float32 or float64 with smoothing"),
    (
        {"bin_size": None, "duration": None, "edges": [0.0, 1.0]},
        ValueError,
        "smoothing must come with bin_size",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSALS)
@pytest.mark.cpu_only
def test_a_bad_argument_is_named_with_its_value(change, error, message):
    arguments = {"bin_size": 0.5, "duration": 1.0, **smooth("gaussian", 0.05)} | change
    with pytest.raises(error, match=f"^bin_spikes: {message}"):
        nk.bin_spikes(np.array([0.1, 0.2]), np.array([0, 1]), **arguments)


def test_an_integer_out_is_refused():
    with pytest.raises(ValueError, match="with smoothing, got uint8"):
        nk.bin_spikes([0.1], [0], 0.5, 1.0, out=np.zeros((2, 1), np.uint8), **smooth("gaussian", 0.05))


# ---- Real recordings


@pytest.mark.many_launches
@pytest.mark.parametrize("kind", KINDS)
def test_a_real_recording_is_smoothed_as_scipy_does(shared_data, kind):
    folder = shared_data / "spikes" / "ibl_alf_120s"
    spikes = np.load(folder / "spikes.times.npy"), np.load(folder / "spikes.clusters.npy")
    counts = nk.bin_spikes(*spikes, 0.02, 120.0)
    rates = nk.bin_spikes(*spikes, 0.02, 120.0, **smooth(kind, 0.05))
    np.testing.assert_allclose(rates, expected_of(counts, kind, 2.5), atol=1e-6 * counts.max())
