"""The region ops in PyTorch: gradients, registration, compilation."""

import pytest

pytest.importorskip("torch")
import torch
from mask_batches import counts, mask, six_regions

from neurokern import gather_regions, mask_regions, scatter_regions
from neurokern.ops import region_index
from neurokern.ops._mask_reference import SCHEMES

pytestmark = pytest.mark.usefixtures("device")

THRESHOLDS = [2**30] * 6


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradient_passes_where_the_input_is_visible(scheme):
    x = counts(2, 3, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mask(x, scheme, replacement=2.0).inputs, x)
    assert torch.autograd.gradgradcheck(lambda x: mask(x, scheme).inputs, x)


def test_replaced_entries_pass_no_gradient():
    x = counts().requires_grad_()
    batch = mask(x, "random", replacement="random")
    batch.inputs.sum().backward()
    assert torch.equal(x.grad == 0, batch.target_mask)


def test_the_target_mask_and_the_region_need_no_gradient():
    batch = mask(counts().requires_grad_())
    assert batch.inputs.requires_grad
    assert not batch.target_mask.requires_grad
    assert not batch.region.requires_grad


@pytest.mark.parametrize(
    ("scheme", "dtype", "requires_grad"),
    [
        (1, torch.float32, True),
        (2, torch.bfloat16, False),
        (3, torch.float64, True),
        (5, torch.int16, False),
    ],
)
def test_mask_regions_is_registered_correctly(scheme, requires_grad, dtype, device):
    x = counts(2, 3, 5, device).to(dtype).requires_grad_(requires_grad)
    arrays = (six_regions(5, device), None, None, None)
    settings = (scheme, THRESHOLDS, 3, 4, -1, False, 1, 0, 0.0, None)
    torch.library.opcheck(torch.ops.neurokern.mask_regions.default, (x, *arrays, *settings))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_masking_in_place_is_registered_correctly(dtype, device):
    x = counts(2, 3, 5, device).to(dtype)
    arrays = (
        six_regions(5, device),
        torch.tensor([5, 2], device=device),
        None,
        torch.tensor([2, 5], device=device),
    )
    settings = (0, THRESHOLDS, 3, 4, -1, True, 1, 0, 0.0, None)
    torch.library.opcheck(torch.ops.neurokern.mask_regions_.default, (x, *arrays, *settings))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_gather_and_scatter_are_registered_correctly(requires_grad, padded, device):
    x = counts(2, 3, 5, device).requires_grad_(requires_grad)
    index = region_index(
        torch.tensor([[True, False, True, True, False], [False, True] * 2 + [False]], device=device)
    )
    parts = (index.samples, index.units, index.rows, index.cu_seqlens, 3 if padded else None, None)
    gather = torch.ops.neurokern.gather_regions
    torch.library.opcheck(gather.default, (x, *parts))
    rows = gather(x, *parts).detach().requires_grad_(requires_grad)
    torch.library.opcheck(torch.ops.neurokern.scatter_regions.default, (rows, *parts))


@pytest.mark.parametrize("max_targets", [None, 0, 7, 100])
def test_packing_targets_is_registered_correctly(max_targets, device):
    target_mask = counts(2, 3, 5, device) > 4
    torch.library.opcheck(torch.ops.neurokern.pack_targets.default, (target_mask, max_targets, None))


@pytest.mark.slow
def test_masking_compiles_into_one_graph_and_draws_the_same_bits(device):
    regions = six_regions(30, device)

    def step(x, number):
        options = {"return_index": True, "max_targets": 900}
        batch = mask_regions(x, regions, "intra-region", seed=1, offset=number * 4, **options)
        return batch, (batch.inputs * 2).sum()

    compiled = torch.compile(step, fullgraph=True)
    for number in range(3):
        x = counts(4, 20, 30, device).requires_grad_()
        expected, _ = step(x.detach(), number)
        batch, total = compiled(x, number)
        total.backward()
        assert torch.equal(batch.inputs, expected.inputs)
        assert torch.equal(batch.target_mask, expected.target_mask)
        assert torch.equal(batch.region, expected.region)
        assert torch.equal(batch.index, expected.index)
        assert torch.equal(batch.cu_seqlens, expected.cu_seqlens)
        assert torch.equal(x.grad, 2.0 * (expected.inputs != 0))


@pytest.mark.slow
def test_packing_compiles_into_one_graph(device):
    index = region_index(six_regions(30, device), 2, n_samples=4)

    def there_and_back(x):
        rows, _ = gather_regions(x, index)
        block, block_mask = gather_regions(x, index, padded=True)
        return scatter_regions(rows * 2, index) + scatter_regions(block, index), block_mask

    x = counts(4, 20, 30, device).requires_grad_()
    expected, _ = there_and_back(x)
    moved, _ = torch.compile(there_and_back, fullgraph=True)(x)
    moved.sum().backward()
    assert torch.equal(moved, expected)
    assert torch.equal(x.grad, 3.0 * (six_regions(30, device) == 2).expand_as(x))


@pytest.mark.gpu
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("n_units", [64, 61])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("replacement", ["zero", "random"])
def test_the_gpu_gives_the_bits_of_the_cpu(scheme, n_units, dtype, replacement):
    x = counts(5, 21, n_units).to(dtype)
    regions = six_regions(n_units)
    options = {"replacement": replacement, "seed": 9, "region_choice": "sample", "offset": 2**33}
    there = mask_regions(x.cuda(), regions.cuda(), scheme, **options)
    here = mask_regions(x, regions, scheme, **options)
    assert torch.equal(there.inputs.cpu(), here.inputs)
    assert torch.equal(there.target_mask.cpu(), here.target_mask)
    assert torch.equal(there.region.cpu(), here.region)


def everything(x, regions, room):
    """Mask, index and move a batch; with room given, its shapes depend on no value on the device."""
    options = {"region_choice": "sample", "return_index": True, "max_targets": room}
    batch = mask_regions(x, regions, "intra-region", seed=0, **options)
    index = region_index(regions, batch.region, n_samples=len(x), n_rows=room, max_rows=room)
    rows, _ = gather_regions(x, index)
    block, _ = gather_regions(x, index, padded=True)
    back = scatter_regions(rows, index), scatter_regions(block, index)
    return batch.inputs, batch.target_mask, batch.region, batch.index, batch.cu_seqlens, rows, block, *back


@pytest.mark.gpu
def test_on_a_gpu_nothing_waits_for_the_device():
    x, regions = counts(device="cuda"), six_regions(device="cuda")
    everything(x, regions, 60)
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = everything(x, regions, 60)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for on_gpu, on_cpu in zip(there, everything(x.cpu(), regions.cpu(), 60), strict=True):
        assert torch.equal(on_gpu.cpu(), on_cpu)


@pytest.mark.gpu
def test_a_cuda_graph_replays_all_ops_on_new_data():
    x, regions = counts(device="cuda"), six_regions(device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # warm up, as capturing asks for
        everything(x, regions, 60)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = everything(x, regions, 60)
    for shift in (1, 2):
        x.copy_(counts(device="cuda") + shift)
        graph.replay()
        expected = everything(counts() + shift, six_regions(), 60)
        for on_gpu, on_cpu in zip(captured, expected, strict=True):
            assert torch.equal(on_gpu.cpu(), on_cpu)


@pytest.mark.gpu
def test_kernels_run_on_the_current_stream():
    x, regions = counts(64, 100, 800, "cuda"), six_regions(800, "cuda")
    expected = mask_regions(x, regions, "inter-region", seed=0).inputs
    late = torch.zeros_like(x)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # on another stream the op would not wait, and read zeros
        late.copy_(x)
        masked = mask_regions(late, regions, "inter-region", seed=0).inputs
    stream.synchronize()
    assert torch.equal(masked, expected)


@pytest.mark.slow
def test_everything_with_given_room_compiles_into_one_graph(device):
    x, regions = counts(device=device), six_regions(device=device)
    compiled = torch.compile(everything, fullgraph=True)
    for ours, eager in zip(compiled(x, regions, 60), everything(x, regions, 60), strict=True):
        assert torch.equal(ours, eager)
