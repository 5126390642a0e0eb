"""mask_regions and the row ops in any memory: odd alignments and strides, borders of blocks, far offsets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
import torch
from mask_batches import counts, mask

from neurokern import gather_regions, mask_regions, scatter_regions
from neurokern.ops import region_index
from neurokern.ops._mask_reference import SCHEMES

pytestmark = pytest.mark.usefixtures("device")

SIZES = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32, 8: torch.float64}


def embedded(shape: tuple[int, int, int], dtype: torch.dtype, before: int, between: int, behind: int):
    """A batch inside of a larger block: ``before`` entries ahead, ``between`` after each row."""
    n_samples, n_bins, n_units = shape
    strides = (n_bins * (n_units + between) + behind, n_units + between, 1)
    block = torch.arange(before + n_samples * strides[0] + 16).remainder(101).to(dtype) + 1
    return block, block.as_strided(shape, strides, before)


@settings(max_examples=120)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.sampled_from([1, 2, 3, 5, 16, 17, 31, 64, 67])),
    size=st.sampled_from([1, 2, 4, 8]),
    before=st.integers(0, 17),
    between=st.integers(0, 17),
    behind=st.integers(0, 5),
    scheme=st.sampled_from(SCHEMES),
    replacement=st.sampled_from(["zero", "random", 3.0]),
    inplace=st.booleans(),
)
def test_rows_of_any_alignment_and_stride(shape, size, before, between, behind, scheme, replacement, inplace):
    block, x = embedded(shape, SIZES[size], before, between, behind)
    inplace = inplace and replacement != "random"
    outside = torch.ones_like(block, dtype=torch.bool)
    outside.as_strided(x.shape, x.stride(), before).zero_()
    expected = mask(x.clone(), scheme, replacement=replacement, backend="reference")
    untouched = block.clone()
    ours = mask(x, scheme, replacement=replacement, inplace=inplace)
    assert torch.equal(ours.inputs, expected.inputs)
    assert torch.equal(ours.target_mask, expected.target_mask)
    assert torch.equal(block[outside], untouched[outside])
    assert inplace or torch.equal(block, untouched)


@pytest.mark.parametrize("n_units", [1, 1023, 2047, 2048, 2049, 4100])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("replacement", ["zero", "random"])
def test_units_of_more_than_one_block(n_units, size, replacement):
    x = counts(2, 3, n_units).to(SIZES[size])
    for scheme in ("temporal", "neuron", "intra-region", "random"):
        ours = mask(x, scheme, replacement=replacement, region_choice="sample")
        reference = mask(x, scheme, replacement=replacement, region_choice="sample", backend="reference")
        assert torch.equal(ours.inputs, reference.inputs)
        assert torch.equal(ours.target_mask, reference.target_mask)
        assert torch.equal(ours.region, reference.region)


@pytest.mark.parametrize("choice", ["batch", "sample"])
@pytest.mark.parametrize("shape", [(3, 2, 40), (70, 1, 80), (2, 2, 5000)])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n_units", [None, "given"])
def test_a_region_is_chosen_alike_however_many_units_there_are(choice, shape, shared, n_units):
    generator = torch.Generator().manual_seed(0)
    regions = torch.randint(-1, 300, (shape[0], shape[2]), generator=generator)
    regions = regions[0] if shared else regions
    options = {"region_choice": choice, "regions": regions}
    if n_units is not None:
        options["n_units"] = torch.randint(1, shape[2] + 1, shape[:1], generator=generator)
    for seed in range(3):
        ours = mask(counts(*shape), "inter-region", seed=seed, **options)
        reference = mask(counts(*shape), "inter-region", seed=seed, backend="reference", **options)
        assert torch.equal(ours.region, reference.region)
        assert torch.equal(ours.target_mask, reference.target_mask)


@pytest.mark.parametrize("n_bins", [1, 31, 32, 33, 300])
@pytest.mark.parametrize("span", [1, 5, 1000])
def test_bins_of_more_than_one_block(n_bins, span):
    for scheme in ("temporal", "causal"):
        ours = mask(counts(2, n_bins, 3), scheme, span=span)
        reference = mask(counts(2, n_bins, 3), scheme, span=span, backend="reference")
        assert torch.equal(ours.target_mask, reference.target_mask)


@pytest.mark.parametrize("n_entries", [1, 15, 17, 4079, 4080, 4081, 9000])
@pytest.mark.parametrize("n_samples", [1, 3])
def test_targets_are_packed_across_the_borders_of_blocks(n_entries, n_samples):
    x = torch.ones(n_samples, 1, n_entries)
    for ratio in (0.0, 0.5, 1.0):
        options = {"ratio": ratio, "seed": 0, "return_index": True}
        batch = mask_regions(x, None, "random", **options)
        assert torch.equal(batch.index, batch.target_mask.flatten().nonzero().squeeze(1))
        ends = batch.target_mask.flatten(1).sum(1).cumsum(0).tolist()
        assert batch.cu_seqlens.tolist() == [0, *ends]
        for room in (0, 1, ends[-1], ends[-1] + 300):
            fixed = mask_regions(x, None, "random", max_targets=room, **options)
            n = min(room, ends[-1])
            assert torch.equal(fixed.index[:n], batch.index[:n])
            assert (fixed.index[n:] == -1).all()


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 65, 33), (1, 130, 31), (3, 5, 100)])
@pytest.mark.parametrize("padded", [False, True])
def test_rows_are_moved_across_the_borders_of_tiles(size, shape, padded):
    _, x = embedded(shape, SIZES[size], before=3, between=2, behind=1)
    chosen = torch.rand(shape[0], shape[2], generator=torch.Generator().manual_seed(0)) < 0.6
    index = region_index(chosen)
    rows = gather_regions(x, index, padded=padded)
    reference = gather_regions(x, index, padded=padded, backend="reference")
    assert torch.equal(rows.values, reference.values)
    assert torch.equal(scatter_regions(rows.values, index), x * chosen[:, None])


def test_a_gpu_block_that_takes_several_parts():
    x = counts(4100, 1, 32)  # more samples than a launch has blocks
    batch = mask(x, "neuron", return_index=True)
    reference = mask(x, "neuron", return_index=True, backend="reference")
    assert torch.equal(batch.inputs, reference.inputs)
    assert torch.equal(batch.target_mask, reference.target_mask)
    assert torch.equal(batch.index, reference.index)
    assert torch.equal(batch.cu_seqlens, reference.cu_seqlens)
    index = region_index(batch.target_mask[:, 0])
    rows = gather_regions(x, index).values
    assert torch.equal(rows, x.transpose(1, 2)[batch.target_mask[:, 0]])
    assert torch.equal(scatter_regions(rows, index), x * batch.target_mask)


@pytest.mark.parametrize("size", [1, 8])
def test_offsets_beyond_32_bits(size):
    """Memory that is asked for but not touched costs nothing; only the rows of the batch are."""
    far = 2**32 // size + 24  # entries from one sample to the next: 4 GiB
    try:
        block = torch.empty(far + 4096, dtype=SIZES[size])
    except RuntimeError:
        pytest.skip("no room for 4 GiB of addresses")
    x = block.as_strided((2, 3, 40), (far, 64, 1))
    x.copy_(counts(2, 3, 40))
    near = x.clone()
    regions = torch.arange(40) % 3
    ours = mask_regions(x, regions, "intra-region", seed=0)
    assert torch.equal(ours.inputs, mask_regions(near, regions, "intra-region", seed=0).inputs)
    index = region_index(regions, 1, n_samples=2)
    assert torch.equal(gather_regions(x, index).values, gather_regions(near, index).values)
    mask_regions(x, regions, "intra-region", seed=0, inplace=True)
    assert torch.equal(x, ours.inputs)
