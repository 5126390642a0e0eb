"""mask_regions: the same bits on every path, and what draws depend on (their statistics: another file)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
import torch
from mask_batches import IN_TIME, counts, mask, six_regions

from neurokern import mask_regions
from neurokern.ops._mask_reference import SCHEMES

pytestmark = pytest.mark.usefixtures("device")

OPTIONS = st.fixed_dictionaries(
    {
        "seed": st.sampled_from([0, 1, 2**40 + 7, 2**63 - 1]),
        "offset": st.sampled_from([0, 5, 2**32 - 1, 2**50]),
        "ratio": st.sampled_from([0.0, 1e-3, 0.3, 0.5, 1.0]),
        "region_choice": st.sampled_from(["batch", "sample"]),
        "replacement": st.sampled_from(["zero", "random", 3.0]),
        "span": st.sampled_from([1, 2, 7]),
    }
)


@given(
    shape=st.tuples(st.integers(0, 5), st.integers(0, 9), st.sampled_from([0, 1, 3, 64, 65, 130])),
    scheme=st.sampled_from([*SCHEMES, "mixed"]),
    options=OPTIONS,
    padded=st.booleans(),
    per_sample_regions=st.booleans(),
    dtype=st.sampled_from(
        [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int16]
    ),
    data_seed=st.integers(0, 99),
)
def test_matches_the_reference_bit_for_bit(
    shape, scheme, options, padded, per_sample_regions, dtype, data_seed
):
    generator = torch.Generator().manual_seed(data_seed)
    x = torch.randint(0, 9, shape, generator=generator).to(dtype)
    regions = torch.randint(-1, 4, (shape[0], shape[2]), generator=generator)
    regions[:, :1] = 2
    if not per_sample_regions:
        regions = regions[0] if shape[0] else torch.full((shape[2],), 2)
    if scheme == "mixed":
        scheme = [SCHEMES[(data_seed + b) % 6] for b in range(shape[0])]
    if scheme not in IN_TIME:
        options = {**options, "span": 1}
    if padded:
        options = options | {
            "n_units": torch.randint(0, shape[2] + 1, shape[:1], generator=generator),
            "n_bins": torch.randint(0, shape[1] + 1, shape[:1], generator=generator),
        }
    ours = mask_regions(x, regions, scheme, **options)
    reference = mask_regions(x, regions, scheme, backend="reference", **options)
    assert torch.equal(ours.inputs, reference.inputs)
    assert torch.equal(ours.target_mask, reference.target_mask)
    assert torch.equal(ours.region, reference.region)


@pytest.mark.parametrize("shape", [(3, 5, 1023), (2, 3, 1025), (2, 30, 2100), (40, 100, 600)])
@pytest.mark.parametrize("scheme", ["temporal", "neuron", "random", "intra-region"])
@pytest.mark.parametrize("replacement", ["zero", "random"])
def test_matches_the_reference_where_rows_are_cut_and_streamed(shape, scheme, replacement):
    x = counts(*shape)  # the last is written past the caches
    ours = mask(x, scheme, replacement=replacement)
    reference = mask(x, scheme, replacement=replacement, backend="reference")
    assert torch.equal(ours.inputs, reference.inputs)
    assert torch.equal(ours.target_mask, reference.target_mask)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_batch_at_once_equals_its_samples_one_at_a_time(scheme, device):
    x = counts(5, device=device)
    options = {"offset": 1000, "region_choice": "sample", "replacement": "random", "seed": 3}
    whole = mask(x, scheme, **options)
    for b in range(5):
        alone = mask(x[b : b + 1], scheme, **(options | {"offset": 1000 + b}))
        assert torch.equal(whole.inputs[b], alone.inputs[0])
        assert torch.equal(whole.target_mask[b], alone.target_mask[0])
        assert whole.region[b] == alone.region[0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_padding_does_not_move_draws(scheme):
    x = counts(3, 20, 70)
    larger = torch.nn.functional.pad(x, (0, 13, 0, 6))
    regions = torch.nn.functional.pad(six_regions().expand(3, 70), (0, 13), value=-1)
    sizes = {"n_units": torch.full((3,), 70), "n_bins": torch.full((3,), 20)}
    alone = mask(x, scheme)
    padded = mask(larger, scheme, regions=regions, **sizes)
    assert torch.equal(padded.inputs[:, :20, :70], alone.inputs)
    assert torch.equal(padded.target_mask[:, :20, :70], alone.target_mask)
    assert padded.target_mask.sum() == alone.target_mask.sum()
    assert padded.valid_mask.sum() == x.numel()


@pytest.mark.parametrize("scheme", ["neuron", "random", "intra-region", "temporal"])
def test_the_thread_count_does_not_change_the_result(scheme):
    x = counts(40, 100, 100)  # large enough for threads
    one = mask(x, scheme, replacement="random")
    torch.set_num_threads(3)
    try:
        three = mask(x, scheme, replacement="random")
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one.inputs, three.inputs)
    assert torch.equal(one.target_mask, three.target_mask)


@pytest.mark.parametrize("scheme", ["temporal", "causal", "neuron", "intra-region", "random"])
def test_samples_have_masks_of_their_own(scheme):
    batch = mask(counts(8, 60, 600), scheme, ratio=0.5, region=3)
    flat = batch.target_mask.flatten(1)
    assert torch.unique(flat, dim=0).shape[0] == 8


def test_seed_and_offset_change_the_draws_and_nothing_else_does():
    first = mask(scheme="random")
    torch.manual_seed(123)
    assert torch.equal(first.target_mask, mask(scheme="random").target_mask)
    assert not torch.equal(first.target_mask, mask(scheme="random", seed=1).target_mask)
    assert not torch.equal(first.target_mask, mask(scheme="random", offset=4).target_mask)
    assert torch.equal(first.target_mask[1:], mask(scheme="random", offset=1).target_mask[:3])


@pytest.mark.parametrize("choice", ["batch", "sample"])
def test_regions_are_chosen_uniformly_however_many_units_they_have(choice):
    regions = torch.tensor([3] * 60 + [8] * 6 + [21] * 3 + [900_000] + [-1] * 10)
    n, x = 4000, torch.ones(1, 1, 80)
    if choice == "sample":
        drawn = mask_regions(
            x.expand(n, 1, 80), regions, "inter-region", seed=1, region_choice="sample"
        ).region
    else:
        drawn = torch.cat(
            [mask_regions(x, regions, "inter-region", seed=1, offset=i).region for i in range(n)]
        )
    found, frequency = drawn.unique(return_counts=True)
    assert found.tolist() == [3, 8, 21, 900_000]
    assert ((frequency - n / 4) ** 2 / (n / 4)).sum() < 21.1  # chi squared, 3 degrees of freedom, p = 1e-4


def test_a_choice_per_sample_takes_a_region_of_that_sample():
    regions = torch.arange(8)[:, None] * 10 + torch.arange(70) % 3
    chosen = mask(counts(8), "inter-region", regions=regions, region_choice="sample").region
    assert (chosen // 10).tolist() == list(range(8))


@pytest.mark.parametrize("span", [1, 2, 5, 40])
def test_spans_keep_the_ratio_of_every_bin_and_hide_runs(span):
    hidden = mask(
        counts(3000, 30, 1), "temporal", span=span, ratio=0.3, regions=torch.zeros(1).long()
    ).target_mask[:, :, 0]
    standard_error = np.sqrt(0.21 / 3000)
    assert (hidden.float().mean(0) - 0.3).abs().max() < 5 * standard_error
    text = ["".join("x" if h else "." for h in row) for row in hidden.tolist()]
    inner = [run for row in text for run in row.strip("x").replace(".", " ").split()]
    assert all(len(run) >= span for run in inner)
