"""mask_regions: what each scheme hides, what hidden entries become, and what it reads and writes."""

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from mask_batches import IN_TIME, counts, mask, six_regions

from neurokern import mask_regions
from neurokern.ops._mask_reference import SCHEMES

pytestmark = pytest.mark.usefixtures("device")

# ---- what each scheme hides


@pytest.mark.parametrize("scheme", IN_TIME)
def test_temporal_and_causal_hide_whole_bins(scheme, device):
    batch = mask(counts(device=device), scheme, ratio=0.5)
    rows = batch.target_mask.float().mean(2)
    assert set(rows.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(batch.inputs == 0, batch.target_mask)


def test_neuron_hides_whole_units(device):
    batch = mask(counts(device=device), "neuron", ratio=0.5)
    columns = batch.target_mask.float().mean(1)
    assert set(columns.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(batch.inputs == 0, batch.target_mask)


def test_random_hides_single_entries(device):
    batch = mask(counts(device=device), "random", ratio=0.5)
    assert 0.4 < batch.target_mask.float().mean() < 0.6
    assert batch.target_mask.float().mean(1).min() > 0
    assert batch.target_mask.float().mean(2).max() < 1
    assert torch.equal(batch.inputs == 0, batch.target_mask)


def test_inter_region_hides_one_region_of_all_samples(device):
    x, regions = counts(device=device), six_regions(device=device)
    batch = mask(x, "inter-region")
    inside = (regions == batch.region[0]).expand(x.shape)
    assert batch.region.unique().numel() == 1
    assert torch.equal(batch.target_mask, inside)
    assert torch.equal(batch.inputs, x.masked_fill(inside, 0))


def test_intra_region_hides_all_outside_and_counts_the_hidden_inside(device):
    x, regions = counts(n_units=600, device=device), six_regions(600, device)
    batch = mask(x, "intra-region", ratio=0.5)
    outside = (regions != batch.region[0]).expand(x.shape)
    hidden = batch.inputs == 0
    assert torch.equal(hidden & outside, outside)
    assert torch.equal(batch.target_mask, hidden & ~outside)
    assert 0.35 < batch.target_mask[~outside].float().mean() < 0.65
    assert set(batch.target_mask.float().mean(1).unique().tolist()) == {0.0, 1.0}


def test_a_scheme_by_hand():
    x = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])
    regions = torch.tensor([5, -1, 9])
    inter = mask_regions(x, regions, "inter-region", region=9, seed=0)
    assert inter.inputs.tolist() == [[[1, 2, 0], [4, 5, 0]]]
    assert inter.target_mask.tolist() == [[[False, False, True]] * 2]
    intra = mask_regions(x, regions, "intra-region", region=9, ratio=0, seed=0)
    assert intra.inputs.tolist() == [[[0, 0, 3], [0, 0, 6]]]
    assert not intra.target_mask.any()
    assert inter.region.tolist() == intra.region.tolist() == [9]


def test_one_scheme_per_sample_equals_each_scheme_alone():
    x = counts(6)
    mixed = mask(x, list(SCHEMES), region=2)
    numbered = mask(x, torch.arange(6), region=2)
    for b, scheme in enumerate(SCHEMES):
        alone = mask(x, scheme, region=2)
        assert torch.equal(mixed.inputs[b], alone.inputs[b])
        assert torch.equal(mixed.target_mask[b], alone.target_mask[b])
        assert mixed.region[b] == alone.region[b] == (2 if "region" in scheme else -1)
    assert torch.equal(mixed.inputs, numbered.inputs)


def test_a_region_of_one_unit_is_masked_like_any_other():
    regions = torch.zeros(70, dtype=torch.int64)
    regions[13] = 4
    batch = mask(scheme="inter-region", regions=regions, region=4)
    assert batch.target_mask.any(1).nonzero()[:, 1].tolist() == [13] * 4


def test_a_sample_without_the_region_has_no_target():
    regions = six_regions().repeat(4, 1)
    regions[1][regions[1] == 2] = 3
    inter = mask(scheme="inter-region", regions=regions, region=2)
    intra = mask(scheme="intra-region", regions=regions, region=2, ratio=1.0)
    assert not inter.target_mask[1].any()
    assert not intra.target_mask[1].any()
    assert torch.equal(inter.inputs[1], counts()[1])
    assert not intra.inputs[1].any()
    assert inter.target_mask[0].any()
    assert intra.target_mask[0].any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ratio_zero_hides_no_target_and_ratio_one_hides_all(scheme, device):
    x, regions = counts(device=device), six_regions(device=device)
    none = mask(x, scheme, ratio=0.0, region=1)
    every = mask(x, scheme, ratio=1.0, region=1)
    inside = (regions == 1).expand(x.shape)
    scope = inside if "region" in scheme else torch.ones_like(inside)
    assert torch.equal(every.target_mask, scope)
    if scheme != "inter-region":  # it has no ratio
        assert not none.target_mask.any()
    if scheme not in ("intra-region", "inter-region"):
        assert torch.equal(none.inputs, x)


@pytest.mark.many_launches
def test_a_ratio_for_each_scheme():
    x = counts(2, 4000, 8)
    batch = mask(x, ["temporal", "causal"], ratio={"causal": 0.6})
    assert batch.target_mask[0].float().mean() == pytest.approx(0.3, abs=0.04)
    assert batch.target_mask[1].float().mean() == pytest.approx(0.6, abs=0.04)


# ---- replacement


def test_a_value_replaces_every_hidden_entry():
    x = counts()
    batch = mask(x, "intra-region", replacement=-2.5, ratio=0.5)
    hidden = mask(x, "intra-region", ratio=0.5).inputs == 0
    assert torch.equal(batch.inputs, torch.where(hidden, torch.tensor(-2.5), x))


def test_random_replacement_zeroes_80_takes_10_from_another_bin_and_leaves_10_percent():
    n_bins = 200
    x = torch.arange(1.0, n_bins + 1)[None, :, None] + 1000 * torch.arange(1.0, 401)  # tells bin and unit
    batch = mask_regions(x, None, "neuron", ratio=0.5, replacement="random", seed=0)
    target, inputs = batch.target_mask, batch.inputs
    assert torch.equal(inputs[~target], x[~target])
    n = int(target.sum())
    zero, kept = inputs[target] == 0, inputs[target] == x[target]
    other = ~zero & ~kept
    assert float(zero.float().mean()) == pytest.approx(0.8, abs=5 * np.sqrt(0.16 / n))
    assert float(other.float().mean()) == pytest.approx(0.1 * (1 - 1 / n_bins), abs=5 * np.sqrt(0.09 / n))
    assert torch.equal(inputs[target][other] // 1000, x[target][other] // 1000)  # the same unit
    source = (inputs[target][other] % 1000).int() - 1
    assert source.bincount(minlength=n_bins).min() > 0


def test_random_replacement_hides_the_units_outside_the_region():
    x, regions = counts(), six_regions()
    batch = mask(x, "intra-region", replacement="random", ratio=1.0)
    assert not batch.inputs[(regions != batch.region[0]).expand(x.shape)].any()


def test_random_replacement_never_takes_padded_bins():
    x = counts(3, 20, 200)
    x[:, 10:] = 1000
    batch = mask(x, "neuron", regions=six_regions(200), ratio=1.0, replacement="random", n_bins=[10, 10, 10])
    assert batch.inputs[:, :10].max() < 1000
    assert torch.equal(batch.inputs[:, 10:], x[:, 10:])


# ---- padding


@pytest.mark.parametrize("scheme", SCHEMES)
def test_padding_is_never_a_target(scheme):
    n_units, n_bins = torch.tensor([0, 70, 33, 1]), torch.tensor([20, 0, 7, 1])
    batch = mask(scheme=scheme, ratio=1.0, n_units=n_units, n_bins=n_bins)
    assert not (batch.target_mask & ~batch.valid_mask).any()
    assert batch.valid_mask.sum(dim=(1, 2)).tolist() == [0, 0, 231, 1]
    assert batch.target_mask[2].any() or "region" in scheme
    padded_bins = torch.arange(20) >= n_bins[:, None]
    assert torch.equal(batch.inputs[padded_bins], counts()[padded_bins])


def test_unknown_regions_count_as_padding_only_without_unit_counts():
    regions = torch.tensor([0, 0, -1, -1])
    x = torch.ones(1, 1, 4)
    without = mask_regions(x, regions, "neuron", ratio=1.0, seed=0)
    given_counts = mask_regions(x, regions, "neuron", ratio=1.0, seed=0, n_units=[3])
    assert (
        without.target_mask.flatten().tolist()
        == without.unit_mask.flatten().tolist()
        == [True, True, False, False]
    )
    assert given_counts.target_mask.flatten().tolist() == [True, True, True, False]


def test_without_padding_there_is_no_mask_of_it():
    assert mask_regions(counts(), None, "neuron", seed=0).valid_mask is None
    by_bins = mask_regions(counts(), None, "neuron", seed=0, n_bins=[20, 3, 0, 1])
    assert by_bins.valid_mask.shape == (4, 20, 1)
    assert by_bins.valid_mask.sum() == 24


# ---- inputs and outputs


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "expanded", "sliced", "strided"])
def test_never_writes_its_input_and_reads_any_strides(scheme, layout):
    base = counts(4, 20, 70)
    x = {
        "contiguous": base,
        "transposed": base.transpose(1, 2).contiguous().transpose(1, 2),
        "expanded": base[:1].expand(4, 20, 70),
        "sliced": torch.nn.functional.pad(base, (3, 5, 1, 1))[:, 1:-1, 3:-5],
        "strided": base.repeat_interleave(2, dim=2)[:, :, ::2],
    }[layout]
    before = x.clone()
    batch = mask(x, scheme, replacement="random")
    expected = mask(before, scheme, replacement="random")
    assert torch.equal(x, before)
    assert torch.equal(batch.inputs, expected.inputs)
    assert batch.inputs.is_contiguous()
    assert batch.inputs.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_works_in_place_only_when_asked(scheme, backend):
    x = torch.nn.functional.pad(counts(), (0, 4))[:, :, :70]
    expected = mask(x, scheme)
    batch = mask(x, scheme, inplace=True, backend=backend)
    assert batch.inputs is x
    assert torch.equal(x, expected.inputs)
    assert torch.equal(batch.target_mask, expected.target_mask)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint8", "int16", "int64", "bool"])
def test_numpy_arrays_give_numpy_arrays_with_the_same_bits(scheme, dtype):
    x = counts(3, 7, 30).numpy().astype(dtype)
    regions = six_regions(30).numpy()
    ours = mask_regions(x, regions, scheme, seed=4)
    torch_batch = mask_regions(torch.from_numpy(x), torch.from_numpy(regions), scheme, seed=4)
    reference = mask_regions(x, regions, scheme, seed=4, backend="reference")
    assert isinstance(ours.inputs, np.ndarray)
    assert ours.inputs.dtype == dtype
    assert ours.target_mask.dtype == bool
    assert ours.region.dtype == np.int64
    for batch in (torch_batch, reference):
        np.testing.assert_array_equal(ours.inputs, batch.inputs)
        np.testing.assert_array_equal(ours.target_mask, batch.target_mask)
        np.testing.assert_array_equal(ours.region, batch.region)


def test_numpy_in_place_and_without_a_copy_for_strided_arrays():
    x = counts().numpy()
    expected = mask_regions(x, None, "random", seed=0)
    batch = mask_regions(x, None, "random", seed=0, inplace=True)
    assert batch.inputs is x
    np.testing.assert_array_equal(x, expected.inputs)
    backwards = mask_regions(x[::-1, :, ::-1], None, "random", seed=0)
    np.testing.assert_array_equal(
        backwards.inputs, mask_regions(x[::-1, :, ::-1].copy(), None, "random", seed=0).inputs
    )


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_the_index_lists_the_targets_sample_by_sample(kind):
    x = counts() if kind == "torch" else counts().numpy()
    batch = mask_regions(x, None, "random", seed=0, return_index=True)
    targets = np.asarray(batch.target_mask)
    np.testing.assert_array_equal(batch.index, np.flatnonzero(targets))
    for b in range(4):
        part = np.asarray(batch.index)[batch.cu_seqlens[b] : batch.cu_seqlens[b + 1]]
        np.testing.assert_array_equal(part - b * 20 * 70, np.flatnonzero(targets[b]))
    assert mask_regions(x, None, "random", seed=0).index is None


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("max_targets", [0, 1, 2000, 4 * 20 * 70 + 3])
def test_an_index_of_given_size_is_cut_or_filled_up(kind, backend, max_targets):
    x = counts() if kind == "torch" else counts().numpy()
    options = {"seed": 0, "return_index": True, "backend": backend}
    exact = mask_regions(x, None, "random", **options)
    batch = mask_regions(x, None, "random", max_targets=max_targets, **options)
    assert batch.index.shape == (max_targets,)
    n = min(len(exact.index), max_targets)
    assert batch.index[:n].tolist() == exact.index[:n].tolist()
    assert (batch.index[n:] == -1).all()
    assert batch.cu_seqlens.tolist() == exact.cu_seqlens.tolist()  # the true numbers
    assert str(batch.index.dtype).endswith("int64")
    assert str(batch.cu_seqlens.dtype).endswith("int32")


@pytest.mark.parametrize("max_targets", [None, 0, 5])
def test_the_index_of_an_empty_batch_is_empty(max_targets):
    for shape in [(0, 4, 5), (3, 0, 5), (3, 4, 0)]:
        batch = mask_regions(
            torch.zeros(shape), None, "neuron", seed=0, return_index=True, max_targets=max_targets
        )
        assert batch.index.tolist() == [-1] * (max_targets or 0)
        assert batch.cu_seqlens.tolist() == [0] * (shape[0] + 1)


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0), (0, 0, 0)])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_empty_batch_gives_an_empty_result(shape, scheme):
    batch = mask_regions(torch.zeros(shape), torch.zeros(shape[2], dtype=torch.long), scheme, seed=0)
    assert batch.inputs.shape == batch.target_mask.shape == shape
    assert batch.region.tolist() == [-1] * shape[0]


def test_hidden_nan_becomes_zero_and_visible_values_keep_their_bits():
    x = counts()
    x[:] = float("nan")
    x[0] = -0.0
    batch = mask(x, "neuron")
    assert (batch.inputs[batch.target_mask] == 0).all()
    visible = ~batch.target_mask
    assert torch.equal(batch.inputs.view(torch.int32)[visible], x.view(torch.int32)[visible])
