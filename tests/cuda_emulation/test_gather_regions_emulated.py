"""The CUDA kernels of the region ops, executed on the CPU: the same bits as the CPU kernel and as torch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
import torch
from cuda_emulation.emulated_gather_regions import core_on_emulated_cuda

from neurokern import mask_regions
from neurokern.ops import _library
from neurokern.ops._mask_reference import SCHEMES


def both(x, regions, scheme, **options):
    native = mask_regions(x, regions, scheme, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_library, "core", core_on_emulated_cuda())
        emulated = mask_regions(x, regions, scheme, **options)
    return native, emulated


def assert_same(native, emulated):
    assert torch.equal(native.inputs, emulated.inputs)
    assert torch.equal(native.target_mask, emulated.target_mask)
    assert torch.equal(native.region, emulated.region)


@given(
    shape=st.tuples(st.integers(0, 4), st.integers(0, 13), st.sampled_from([0, 1, 3, 8, 64, 65])),
    scheme=st.sampled_from([*SCHEMES, "mixed"]),
    seed=st.sampled_from([0, 2**63 - 1]),
    offset=st.sampled_from([0, 2**33 + 5]),
    ratio=st.sampled_from([0.0, 0.3, 1.0]),
    choice=st.sampled_from(["batch", "sample"]),
    replacement=st.sampled_from(["zero", "random", 3.0]),
    span=st.sampled_from([1, 2, 6, 20]),
    padded=st.booleans(),
    per_sample_regions=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.uint8]),
    layout=st.sampled_from(["contiguous", "expanded", "sliced"]),
)
def test_emulated_cuda_masks_with_the_bits_of_the_cpu(
    shape, scheme, seed, offset, ratio, choice, replacement, span, padded, per_sample_regions, dtype, layout
):
    n_samples, n_bins, n_units = shape
    generator = torch.Generator().manual_seed(sum(shape))
    x = torch.randint(1, 9, (n_samples, n_bins, n_units + 3), generator=generator).to(dtype)
    x = x[:, :, 3:] if layout == "sliced" else x[:, :, :n_units].contiguous()
    if layout == "expanded" and n_samples:
        x = x[:1].expand(shape)
    regions = torch.randint(-1, 5, (n_samples, n_units), generator=generator)
    regions[:, :1] = 2
    if not per_sample_regions:
        regions = regions[0] if n_samples else torch.full((n_units,), 2)
    options = {"seed": seed, "offset": offset, "ratio": ratio, "region_choice": choice}
    options |= {"replacement": replacement, "span": span if scheme in ("temporal", "causal") else 1}
    if padded:
        options["n_units"] = torch.randint(0, n_units + 1, (n_samples,), generator=generator)
        options["n_bins"] = torch.randint(0, n_bins + 1, (n_samples,), generator=generator)
    if scheme == "mixed":
        scheme = [SCHEMES[b % 6] for b in range(n_samples)]
    assert_same(*both(x, regions, scheme, **options))


@pytest.mark.parametrize("inplace", [False, True])
def test_more_entries_than_a_block_of_threads(inplace):
    x = torch.rand(3, 40, 1000, generator=torch.Generator().manual_seed(0))
    options = {"seed": 1, "region_choice": "sample"}
    native = mask_regions(x, torch.arange(1000) % 7, "intra-region", **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_library, "core", core_on_emulated_cuda())
        emulated = mask_regions(x.clone(), torch.arange(1000) % 7, "intra-region", inplace=inplace, **options)
    assert_same(native, emulated)
