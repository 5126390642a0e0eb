"""The Triton kernels, interpreted: the same bits as the kernels of the CPU, over all options of the ops."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from triton_kernels.interpreted import GuardedMemory

import neurokern as nk
from neurokern.ops import _library, region_index
from neurokern.ops._mask_reference import SCHEMES

torch = pytest.importorskip("torch")
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
if torch.cuda.is_available():
    pytest.skip("a GPU runs the Triton kernels themselves", allow_module_level=True)
os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which is not before the first launch

SPARSE_BINS = st.sampled_from(
    [0.001, 0.02, 1 / 60, 0.03, 2.0, 1e-9]
)  # the last far from zero: no safe quotient


def assert_same_bits(a, b):
    assert a.dtype == b.dtype
    assert torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_spikes=st.integers(0, 1500),
    n_units=st.integers(0, 40),
    n_bins=st.integers(0, 60),
    bin_size=SPARSE_BINS,
    samples=st.booleans(),
    order=st.sampled_from(["sorted", "claimed", "shuffled"]),
    grid=st.sampled_from(["session", "windows", "edges"]),
    form=st.sampled_from(["ids", "map", "trains"]),
    smoothing=st.sampled_from([None, None, "gaussian", "exponential"]),
    closed_last=st.booleans(),
    tolerance=st.sampled_from([0.0, 1e-9, 0.5]),
    dtype=st.sampled_from(["uint8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]),
)
def test_spikes_are_binned_with_the_bits_of_the_cpu(
    seed, n_spikes, n_units, n_bins, bin_size, samples, order,
    grid, form, smoothing, closed_last, tolerance, dtype,
):  # fmt: skip
    rng = np.random.default_rng(seed)
    samples = samples and bin_size > 1e-6
    length, start = n_bins * bin_size, 0.0 if samples else float(rng.choice([0.0, -3.0, 1.2345, 1e6]))
    times = start + rng.uniform(-0.1, 1.1, n_spikes) * length
    times = np.round(times * 30_000) / 30_000 if bin_size > 1e-6 else times
    if samples:
        times = np.round(times * 30_000).astype(np.int64)
    if order != "shuffled":
        times.sort()
    options = {"n_units": n_units, "closed_last": closed_last, "edge_tolerance": tolerance}
    options |= {"dtype": getattr(torch, dtype), "overflow": "saturate", "return_dropped": True}
    units = torch.from_numpy(rng.integers(-2, n_units + 2, n_spikes).astype(rng.choice([np.int32, np.int64])))
    if form == "trains":
        sizes = rng.multinomial(n_spikes, np.full(n_units + 1, 1 / (n_units + 1)))
        units, options["train_ends"] = None, torch.from_numpy(np.cumsum(sizes))
    elif form == "map":
        columns = rng.integers(-1, n_units, 30) if n_units else np.full(30, -1)
        options["unit_map"] = torch.from_numpy(columns)
    if grid == "edges":
        edges = np.sort(start + rng.uniform(0, 1, 20) * length)
        options["edges"] = np.round(edges * 30_000).astype(np.int64) if samples else edges
    else:
        options |= {"bin_size": bin_size, "duration": length}
        options |= {"sfreq": 30_000.0} if samples else {}
        if smoothing and "float" in dtype:
            options |= {"smoothing": smoothing, "smoothing_width": 2.5 * bin_size}
    if grid == "session":
        options["start"] = start
    elif grid == "windows":
        options["windows"] = start + rng.uniform(-0.5, 1, rng.integers(0, 9)) * length
        options["sorted"] = True if order == "claimed" and form != "trains" else None
    expected, dropped = nk.bin_spikes(torch.from_numpy(times), units, **options)
    counts, dropped_there = nk.bin_spikes(torch.from_numpy(times), units, backend="triton", **options)
    assert_same_bits(counts, expected)
    assert int(dropped_there) == int(dropped)


@pytest.mark.parametrize("start", [0.0, 1e4])
def test_bins_narrower_than_doubles_can_tell_apart_are_those_of_the_cpu(start):
    times = start + torch.linspace(-1e-11, 6e-11, 200, dtype=torch.float64)
    arguments = (times, torch.zeros(200, dtype=torch.int64), 1e-12, 5e-11)
    expected = nk.bin_spikes(*arguments, start=start, edge_tolerance=0, n_units=1)
    assert_same_bits(
        nk.bin_spikes(*arguments, start=start, edge_tolerance=0, n_units=1, backend="triton"), expected
    )


def test_a_faded_exponential_is_zero_as_on_the_cpu():
    arguments = (torch.tensor([0.05], dtype=torch.float64), torch.tensor([0]), 0.1, 60.0)
    options = {"smoothing": "exponential", "smoothing_width": 0.2}
    rates = nk.bin_spikes(*arguments, backend="triton", **options)
    assert_same_bits(rates, nk.bin_spikes(*arguments, **options))
    assert rates[-1].item() == 0


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 13), st.sampled_from([0, 1, 3, 65, 130])),
    scheme=st.sampled_from([*SCHEMES, "mixed"]),
    seed=st.sampled_from([0, 2**63 - 1]),
    offset=st.sampled_from([0, 2**32 - 1, 2**50]),
    ratio=st.sampled_from([0.0, 0.3, 1.0]),
    choice=st.sampled_from(["batch", "sample"]),
    replacement=st.sampled_from(["zero", "random", 3.0]),
    span=st.sampled_from([1, 2, 6, 20]),
    padded=st.booleans(),
    per_sample_regions=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.uint8]),
    room=st.sampled_from([None, 0, 40, 9000]),
)
def test_batches_are_masked_and_packed_with_the_bits_of_the_cpu(
    shape, scheme, seed, offset, ratio, choice, replacement, span, padded, per_sample_regions, dtype, room
):
    n_samples, n_bins, n_units = shape
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randint(1, 9, shape, generator=generator).to(dtype)
    regions = torch.randint(-1, 5, (n_samples, n_units), generator=generator)
    regions[:, :1] = 2
    if not per_sample_regions:
        regions = regions[0] if n_samples else torch.full((n_units,), 2)
    options = {"seed": seed, "offset": offset, "ratio": ratio, "region_choice": choice}
    options |= {"replacement": replacement, "span": span if scheme in ("temporal", "causal") else 1}
    options |= {"return_index": True, "max_targets": room}
    if padded:
        options["n_units"] = torch.randint(0, n_units + 1, (n_samples,), generator=generator)
        options["n_bins"] = torch.randint(0, n_bins + 1, (n_samples,), generator=generator)
    if scheme == "mixed":
        scheme = [SCHEMES[b % 6] for b in range(n_samples)]
    expected = nk.mask_regions(x, regions, scheme, **options)
    masked = nk.mask_regions(x, regions, scheme, backend="triton", **options)
    for name in ("inputs", "target_mask", "region", "index", "cu_seqlens"):
        assert_same_bits(getattr(masked, name), getattr(expected, name))


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 70)),
    seed=st.integers(0, 999),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.uint8, torch.bfloat16, torch.complex64]),
    transposed=st.booleans(),
    room=st.sampled_from([{}, {"n_rows": 20, "max_rows": 7}, {"n_rows": 300, "max_rows": 80}]),
)
def test_rows_are_moved_as_on_the_cpu(shape, seed, dtype, transposed, room):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 9, shape, generator=generator).to(dtype)
    if transposed:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    index = region_index(torch.rand(shape[0], shape[2], generator=generator) < 0.4, **room)
    for padded in (False, True):
        expected = nk.gather_regions(x, index, padded=padded).values
        assert_same_bits(nk.gather_regions(x, index, padded=padded, backend="triton").values, expected)
        back = nk.scatter_regions(expected, index, backend="triton")
        assert_same_bits(back, nk.scatter_regions(expected, index))


def test_gradients_go_through_the_triton_kernels():
    x = torch.rand(2, 3, 5, dtype=torch.float64, requires_grad=True)
    index = region_index(torch.tensor([[True, False, True, True, False], [False, True] * 2 + [False]]))

    def loss(x, backend):
        rows = nk.gather_regions(x, index, backend=backend).values
        masked = nk.mask_regions(x, None, "random", seed=3, backend=backend).inputs
        return (nk.scatter_regions(rows * 2, index, backend=backend) * masked).sum()

    gradients = [torch.autograd.grad(loss(x, backend), x)[0] for backend in ("triton", "native")]
    assert torch.equal(*gradients)
    assert gradients[0].any()


# ---- where Triton runs, and where it does not


def test_on_the_cpu_triton_must_be_asked_to_interpret(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(
        ValueError, match="bin_spikes: backend='triton' needs arrays on a GPU, got arrays on the CPU"
    ):
        nk.bin_spikes(torch.tensor([0.1]), torch.tensor([0]), 0.5, 1.0, backend="triton")
    with pytest.raises(ValueError, match="mask_regions: backend='triton' needs arrays on a GPU"):
        nk.mask_regions(torch.ones(1, 2, 3), None, "neuron", seed=0, backend="triton")


def test_an_unknown_backend_is_refused_with_the_names_of_all():
    with pytest.raises(ValueError, match="must be None, 'native', 'triton' or 'reference', got 'cuda'"):
        nk.mask_regions(torch.ones(1, 2, 3), None, "neuron", seed=0, backend="cuda")


def test_without_triton_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(_library, "_triton_installed", lambda: False)
    with pytest.raises(
        RuntimeError, match=r"needs triton, which is not installed; pip install 'neurokern\[triton\]'"
    ):
        nk.bin_spikes(torch.tensor([0.1]), torch.tensor([0]), 0.5, 1.0, backend="triton")


@pytest.mark.parametrize(
    ("cuda_built", "triton_installed", "backend"),
    [(True, True, "native"), (False, True, "triton"), (False, False, "reference")],
)
def test_a_gpu_takes_cuda_then_triton_then_the_reference(monkeypatch, cuda_built, triton_installed, backend):
    monkeypatch.setattr(_library, "_cuda_built", lambda: cuda_built)
    monkeypatch.setattr(_library, "_triton_installed", lambda: triton_installed)
    assert _library.choose_backend("bin_spikes", "cuda", None) == backend


def test_the_package_and_its_ops_do_not_import_triton():
    script = (
        "import sys, torch, neurokern as nk\n"
        "nk.bin_spikes(torch.tensor([0.1]), torch.tensor([0]), 0.5, 1.0)\n"
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_write_outside_of_an_array_is_noticed():
    memory = GuardedMemory()
    array = memory.allocate(8)
    memory.check()
    array.base[array.ctypes.data - array.base.ctypes.data + 8] = 0
    with pytest.raises(AssertionError, match="wrote outside of an array of 8 bytes"):
        memory.check()
