"""bin_spikes as a citizen of PyTorch: compile, opcheck, autograd, DataLoader workers."""

import os
import subprocess
import sys

import numpy as np
import pytest

import neurokern as nk
from neurokern import _core

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("device")


def spikes(n=5000, seed=0):
    rng = np.random.default_rng(seed)
    times = torch.from_numpy(np.sort(rng.uniform(0, 10, n)))
    return times, torch.from_numpy(rng.integers(0, 12, n))


def test_opcheck_passes():
    nk.bin_spikes(*spikes(20), 0.1, 1.0)  # registers
    times, units = spikes(20)
    grid = (0.1, 0.0, 10, 0.0, 1e-9, False)
    rules = (None, False, False, "gaussian", 0.1, None)
    windows = torch.tensor([0.0, 5.0], dtype=torch.float64)
    for starts in (None, windows):
        for ids, train_ends in ((units, None), (None, torch.arange(9, 21))):
            arguments = (times, ids, starts, None, None, train_ends, *grid, 12, *rules)
            torch.library.opcheck(torch.ops.neurokern.bin_spikes.default, (*arguments, torch.float32))
            out = torch.zeros((10, 12) if starts is None else (2, 10, 12))
            torch.library.opcheck(torch.ops.neurokern.bin_spikes_out.default, (*arguments, out))


@pytest.mark.parametrize("windows", [False, True])
def test_compiles_without_a_graph_break(windows):
    starts = torch.tensor([0.0, 5.0, 2.5], dtype=torch.float64) if windows else None

    @torch.compile(fullgraph=True, backend="aot_eager")
    def loss(times, units):
        counts = nk.bin_spikes(times, units, 0.1, 2.0, n_units=12, windows=starts)
        return (counts * 2).sum(-1)

    for n in (100, 5000):  # the second length makes shapes dynamic
        times, units = spikes(n)
        expected = (nk.bin_spikes(times, units, 0.1, 2.0, n_units=12, windows=starts) * 2).sum(-1)
        torch.testing.assert_close(loss(times, units), expected, rtol=0, atol=0)


@pytest.mark.parametrize("smoothing", ["gaussian", "exponential"])
def test_compiles_with_trains_and_smoothing(smoothing):
    @torch.compile(fullgraph=True, backend="aot_eager")
    def rates(times, train_ends):
        smoothed = {"smoothing": smoothing, "smoothing_width": 0.2}
        return nk.bin_spikes(times, None, 0.1, 2.0, train_ends=train_ends, **smoothed) * 10

    for n in (100, 5000):
        times, train_ends = spikes(n)[0], torch.tensor([n // 3, n // 3, n])
        expected = 10 * nk.bin_spikes(
            times, None, 0.1, 2.0, train_ends=train_ends, smoothing=smoothing, smoothing_width=0.2
        )
        torch.testing.assert_close(rates(times, train_ends), expected, rtol=0, atol=0)


def test_compiles_with_integer_samples_and_out():
    times, units = spikes()
    samples = (times * 30_000).long()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def count(samples, units, out):
        return nk.bin_spikes(samples, units, 0.02, 2.0, n_units=12, sfreq=30_000.0, out=out)

    out = torch.full((100, 12), -1, dtype=torch.int32)
    expected = nk.bin_spikes(samples, units, 0.02, 2.0, n_units=12, sfreq=30_000.0, dtype="int32")
    torch.testing.assert_close(count(samples, units, out), expected)
    torch.testing.assert_close(out, expected)


def test_backward_raises_and_says_why():
    times, units = spikes(10)
    counts = nk.bin_spikes(times.requires_grad_(), units, 0.1, 1.0)
    with pytest.raises(RuntimeError, match="has no gradient"):
        counts.sum().backward()


def test_devices_that_differ_are_refused():
    times, units = spikes(10)
    with pytest.raises(ValueError, match="units must be on the device of times, cpu, got meta"):
        nk.bin_spikes(times, units.to("meta"), 0.1, 1.0, n_units=2)


class BinInWorker(torch.utils.data.Dataset):
    def __init__(self):
        self.times, self.units = spikes(20_000)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        window = torch.tensor([float(index)], dtype=torch.float64)
        return nk.bin_spikes(self.times, self.units, 0.01, 1.0, n_units=12, windows=window)[0]


@pytest.mark.cpu_only
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_dataloader_workers_count_the_same_and_do_not_hang(method):
    dataset = BinInWorker()
    many = torch.from_numpy(np.sort(np.random.default_rng(0).uniform(0, 10, 400_000)))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        nk.bin_spikes(many, torch.zeros(400_000, dtype=torch.int64), 0.01, 10.0)  # the parent's pool is awake
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=2, num_workers=2, multiprocessing_context=method, timeout=120
        )
        batches = torch.cat(list(loader))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(batches, torch.stack([dataset[i] for i in range(8)]), rtol=0, atol=0)


@pytest.mark.cpu_only
@pytest.mark.parametrize("isa", ["v2", "v3", "v4"])
def test_every_instruction_set_counts_the_same(isa):
    levels = ["base", "v2", "v3", "v4"]
    if _core.best_isa() == "base" or levels.index(isa) > levels.index(_core.best_isa()):
        pytest.skip(f"this CPU has no {isa}")
    script = (
        "import numpy as np, zlib, neurokern as nk\n"
        "rng = np.random.default_rng(0)\n"
        "s = np.sort(rng.integers(0, 3_000_000, 60_000)); u = rng.integers(-1, 73, 60_000)\n"
        "hash = 0\n"
        "for t, more in ((s / 30000, {}), (s, dict(sfreq=30000)), (s[::-1] / 30000, {})):\n"
        "  for d in ('uint8', 'float16', 'float32'):\n"
        "    for w in (None, np.array([3.0, 1.5, 99.0])):\n"
        "      c = nk.bin_spikes(t, u, 0.02, 90.0, n_units=72, dtype=d, windows=w, **more)\n"
        "      hash = zlib.crc32(c.tobytes(), hash)\n"
        "ends = 24 + 833 * np.arange(1, 73)\n"
        "for t, ids in ((s / 30000, (u, None)), (s[::-1] / 30000, (u, None)), (s / 30000, (None, ends))):\n"
        "  for d in ('float16', 'float32', 'float64'):\n"
        "    for w in (None, np.array([3.0, 1.5, 99.0])):\n"
        "      for k in ('gaussian', 'exponential'):\n"
        "        more = dict(n_units=72, dtype=d, windows=w, smoothing=k, smoothing_width=0.17)\n"
        "        c = nk.bin_spikes(t, ids[0], 0.02, 90.0, train_ends=ids[1], **more)\n"
        "        hash = zlib.crc32(c.tobytes(), hash)\n"
        "print(hash)"
    )
    results = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"NEUROKERN_ISA": level},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for level in ("v2", isa)
    }
    assert len(results) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.float16, torch.float32])
def test_cuda_counts_as_the_cpu_does(shuffled, windows, dtype):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    times, units = spikes(50_000)
    if shuffled:
        times = times.flip(0)
    starts = torch.linspace(-1, 9.5, 7, dtype=torch.float64) if windows else None
    options = {"n_units": 11, "dtype": dtype, "return_dropped": True}
    expected, dropped = nk.bin_spikes(times, units, 0.01, 2.0, windows=starts, **options)
    starts = starts.cuda() if windows else None
    counts, dropped_there = nk.bin_spikes(times.cuda(), units.cuda(), 0.01, 2.0, windows=starts, **options)
    assert torch.equal(counts.cpu(), expected)
    assert dropped_there.item() == dropped.item()


def test_meta_tensors_give_the_shape_of_the_counts():
    times, units = torch.empty(4, dtype=torch.float64, device="meta"), torch.empty(4).long().to("meta")
    counts = nk.bin_spikes(times, units, 0.1, stop=1.0, n_units=3, dtype=torch.uint8)
    assert (counts.shape, counts.dtype, counts.device.type) == ((10, 3), torch.uint8, "meta")


def test_meta_tensors_cannot_give_a_default_that_depends_on_values():
    times, units = torch.empty(4, dtype=torch.float64, device="meta"), torch.empty(4).long().to("meta")
    with pytest.raises(ValueError, match="n_units must be given"):
        nk.bin_spikes(times, units, 0.1, stop=1.0)
    with pytest.raises(ValueError, match="stop must be given"):
        nk.bin_spikes(times, units, 0.1, n_units=3)


def test_sparse_tensors_are_refused():
    with pytest.raises(TypeError, match="times must be a dense tensor"):
        nk.bin_spikes(torch.tensor([0.1, 0.2]).to_sparse(), torch.tensor([0, 1]), 0.1)


def test_counts_beyond_the_memory_are_refused_for_tensors_too():
    with pytest.raises(ValueError, match=r"more than the .* GiB of memory that are free"):
        nk.bin_spikes(torch.tensor([0.0, 0.1]), torch.tensor([0, 1]), 1e-12)


def test_compiles_for_changing_sizes():
    times, units = torch.tensor([0.05, 0.15, 0.95], dtype=torch.float64), torch.tensor([0, 1, 2])
    count = torch.compile(
        lambda t, u, n: nk.bin_spikes(t, u, 0.1, stop=1.0, n_units=n),
        fullgraph=True,
        dynamic=True,
        backend="eager",
    )
    for n_units in (3, 4, 5):
        assert torch.equal(
            count(times, units, n_units), nk.bin_spikes(times, units, 0.1, stop=1.0, n_units=n_units)
        )
