"""gather_regions and scatter_regions: packed and padded rows, there and back, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
import torch
from mask_batches import counts, mask, six_regions

from neurokern import gather_regions, mask_regions, scatter_regions
from neurokern.ops import RegionIndex, region_index

pytestmark = pytest.mark.usefixtures("device")

CHOSEN = [[False, True, True], [False, False, False], [True, False, True]]


def chosen(device: str = "cpu") -> torch.Tensor:
    return torch.tensor(CHOSEN, device=device)


def numbered(device: str = "cpu") -> torch.Tensor:
    """Three samples, two bins, three units; the entry tells them: 100 * sample + 10 * unit + bin."""
    n = torch.arange(3.0, device=device)
    return 100 * n[:, None, None] + 10 * n + n[:2, None]


# ---- by hand


def test_packed_rows_stand_by_sample_then_unit(device):
    values, cu_seqlens = gather_regions(numbered(device), region_index(chosen(device)))
    assert values.tolist() == [[10, 11], [20, 21], [200, 201], [220, 221]]
    assert cu_seqlens.tolist() == [0, 2, 2, 4]
    assert cu_seqlens.dtype == torch.int32


def test_padded_rows_come_with_their_mask(device):
    values, block_mask = gather_regions(numbered(device), region_index(chosen(device)), padded=True)
    assert values.tolist() == [[[10, 11], [20, 21]], [[0, 0], [0, 0]], [[200, 201], [220, 221]]]
    assert block_mask.tolist() == [[True, True], [False, False], [True, True]]


def test_scatter_puts_rows_back_and_leaves_zeros(device):
    x, index = numbered(device), region_index(chosen(device))
    expected = x * chosen(device)[:, None, :]
    assert torch.equal(scatter_regions(gather_regions(x, index).values, index), expected)
    assert torch.equal(scatter_regions(gather_regions(x, index, padded=True).values, index), expected)


def test_scatter_does_not_read_the_padding_of_a_block(device):
    index = region_index(torch.tensor([[True, True], [False, True]], device=device))
    block = torch.ones(2, 2, 1, device=device)
    block[1, 1] = float("nan")
    assert scatter_regions(block, index).tolist() == [[[1, 1]], [[0, 1]]]


def test_region_numbers_choose_the_units_of_a_region():
    regions = torch.tensor([[4, 7, 4], [7, 7, -1]])
    assert region_index(regions, 7).units.tolist() == [1, 0, 1]
    per_sample = region_index(regions, torch.tensor([4, 7]))
    assert (per_sample.samples.tolist(), per_sample.units.tolist()) == ([0, 0, 1, 1], [0, 2, 0, 1])
    assert region_index(torch.tensor([4, 7, 4]), 4, n_samples=2).units.tolist() == [0, 2, 0, 2]


def test_a_negative_region_chooses_nothing():
    regions = torch.tensor([[4, -1]])
    assert region_index(regions, -1).units.tolist() == []
    assert region_index(regions, torch.tensor([-1])).units.tolist() == []


def test_a_masked_batch_chooses_its_target_units():
    x = counts()
    batch = mask(x, "intra-region", ratio=0.5)
    index = region_index(batch)
    values, cu_seqlens = gather_regions(x, index)
    targets = batch.target_mask[:, 0]
    assert torch.equal(values, x.transpose(1, 2)[targets])
    assert cu_seqlens.tolist() == [0, *targets.sum(1).cumsum(0).tolist()]
    assert torch.equal(
        region_index(six_regions(), batch.region, n_samples=4).cu_seqlens.diff().unique(),
        (six_regions() == batch.region[0]).sum().int()[None],
    )


# ---- given room


def test_rows_that_are_not_there_are_marked_and_zero(device):
    index = region_index(chosen(device), n_rows=6, max_rows=3)
    assert index.samples.tolist() == [0, 0, 2, 2, -1, -1]
    assert index.units.tolist() == [1, 2, 0, 2, -1, -1]
    assert index.rows.tolist() == [[-1, 0, 1], [-1, -1, -1], [2, -1, 3]]
    assert index.cu_seqlens.tolist() == [0, 2, 2, 4]
    x = numbered(device)
    assert gather_regions(x, index).values[4:].tolist() == [[0, 0], [0, 0]]
    padded, block_mask = gather_regions(x, index, padded=True)
    assert padded.shape == (3, 3, 2)
    assert block_mask.tolist() == [[True, True, False], [False] * 3, [True, True, False]]
    assert not padded[~block_mask].any()
    rows = torch.full((6, 2), float("nan"), device=device)
    rows[:4] = gather_regions(x, region_index(chosen(device))).values
    assert torch.equal(scatter_regions(rows, index), x * chosen(device)[:, None, :])


def test_rows_without_room_are_left_out(device):
    x = numbered(device)
    cut = region_index(chosen(device), n_rows=3, max_rows=1)
    assert cut.cu_seqlens.tolist() == [0, 2, 2, 4]  # the true numbers
    assert cut.rows.tolist() == [[-1, 0, 1], [-1, -1, -1], [2, -1, -1]]
    assert gather_regions(x, cut).values.tolist() == [[10, 11], [20, 21], [200, 201]]
    assert gather_regions(x, cut, padded=True).values.tolist() == [[[10, 11]], [[0, 0]], [[200, 201]]]
    ones = torch.ones(3, 1, 2, device=device)
    assert scatter_regions(ones, cut)[:, 0].tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]


# ---- properties


@given(
    shape=st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 9)),
    seed=st.integers(0, 999),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool]),
    layout=st.sampled_from(["contiguous", "transposed", "expanded"]),
    padded=st.booleans(),
    room=st.sampled_from([None, (0, 0), (1, 2), (5, 1), (40, 12)]),
)
def test_there_and_back_for_any_choice_dtype_and_strides(shape, seed, dtype, layout, padded, room):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 9, shape, generator=generator).to(dtype)
    if layout == "transposed":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "expanded" and shape[0]:
        x = x[:1].expand(shape)
    taken = torch.rand(shape[0], shape[2], generator=generator) < 0.4
    n_rows, max_rows = room or (int(taken.sum()), int(taken.sum(1).max()) if shape[0] else 0)
    index = region_index(taken, n_rows=n_rows, max_rows=max_rows) if room else region_index(taken)
    has_row = taken & (taken.flatten().cumsum(0).reshape(taken.shape) <= n_rows)
    in_block = has_row & (taken.cumsum(1) <= max_rows)
    rows = gather_regions(x, index, padded=padded)
    if not padded:
        assert torch.equal(rows.values[: has_row.sum()], x.transpose(1, 2)[has_row])
        assert rows.values.shape[0] == n_rows
        assert not rows.values[has_row.sum() :].any()
    else:
        assert torch.equal(rows.mask.sum(1), in_block.sum(1))
        assert torch.equal(rows.values[rows.mask], x.transpose(1, 2)[in_block])
        assert rows.values.shape[1] == max_rows
        assert not rows.values[~rows.mask].any()
    back = scatter_regions(rows.values, index)
    kept = in_block if padded else has_row
    assert torch.equal(back, torch.where(kept[:, None], x, torch.zeros((), dtype=dtype)))
    reference = gather_regions(x, index, padded=padded, backend="reference").values
    assert torch.equal(rows.values, reference)
    assert torch.equal(back, scatter_regions(reference, index, backend="reference"))
    on_numpy = region_index(taken.numpy(), n_rows=n_rows, max_rows=max_rows)
    np.testing.assert_array_equal(gather_regions(x.numpy(), on_numpy, padded=padded).values, rows.values)
    np.testing.assert_array_equal(scatter_regions(rows.values.numpy(), on_numpy), back)


@pytest.mark.parametrize("padded", [False, True])
def test_gathering_and_scattering_are_each_others_gradient(padded):
    x = numbered().double().requires_grad_()
    index = region_index(chosen())
    assert torch.autograd.gradcheck(lambda x: gather_regions(x, index, padded=padded).values, x)
    assert torch.autograd.gradgradcheck(lambda x: gather_regions(x, index, padded=padded).values, x)
    rows = gather_regions(x, index, padded=padded).values.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: scatter_regions(rows, index), rows)


@pytest.mark.parametrize("padded", [False, True])
def test_numpy_arrays_give_numpy_arrays(padded):
    x, index = numbered().numpy(), region_index(np.array(CHOSEN))
    ours = gather_regions(x, index, padded=padded)
    expected = gather_regions(numbered(), region_index(chosen()), padded=padded)
    for array, tensor in zip(ours, expected, strict=True):
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, tensor.numpy())
    back = scatter_regions(ours.values, index)
    np.testing.assert_array_equal(back, scatter_regions(expected.values, region_index(chosen())))
    batch = mask_regions(x, np.array([0, 1, 1]), "inter-region", region=1, seed=0)
    assert region_index(batch).units.tolist() == [1, 2] * 3


def test_gathering_never_writes_its_input():
    x, index = numbered(), region_index(chosen())
    rows = gather_regions(x, index).values
    before = rows.clone()
    scatter_regions(rows, index).add_(1)
    rows.mul_(2)
    assert torch.equal(x, numbered())
    assert torch.equal(rows, before * 2)


@pytest.mark.parametrize("n_rows", [0, 3, 1000])
def test_the_reference_gives_the_same_rows(n_rows, device):
    x = counts(4, 13, 700, device)
    taken = torch.zeros(4 * 700, dtype=torch.bool, device=device)
    taken[torch.randperm(2800, generator=torch.Generator().manual_seed(0))[:n_rows].to(device)] = True
    index = region_index(taken.reshape(4, 700))
    for padded in (False, True):
        ours = gather_regions(x, index, padded=padded).values
        reference = gather_regions(x, index, padded=padded, backend="reference").values
        assert torch.equal(ours, reference)
        assert torch.equal(
            scatter_regions(ours, index), scatter_regions(reference, index, backend="reference")
        )


# ---- what is refused


def test_an_index_of_another_batch_is_refused():
    index = region_index(chosen())
    with pytest.raises(
        ValueError,
        match=r"x must have the shape \(3, n_bins, 3\) of the index, got \(3, 2, 4\)",
    ):
        gather_regions(torch.zeros(3, 2, 4), index)
    with pytest.raises(ValueError, match=r"gather_regions: x must have the shape"):
        gather_regions(torch.zeros(2, 2, 3), index)
    with pytest.raises(ValueError, match=r"values must have the shape \(4, n_bins\) or \(3, 2, n_bins\)"):
        scatter_regions(torch.zeros(5, 2), index)


def test_an_index_of_another_kind_is_refused():
    index = region_index(chosen())
    with pytest.raises(TypeError, match="gather_regions: index must be of the kind of x, ndarray"):
        gather_regions(np.zeros((3, 2, 3)), index)
    with pytest.raises(TypeError, match="gather_regions: index must come from region_index, got Tensor"):
        gather_regions(numbered(), chosen())
    with pytest.raises(TypeError, match="scatter_regions: values must be a torch tensor or a numpy array"):
        scatter_regions([[1.0]], index)
    on_meta = RegionIndex(
        *(t.to("meta") for t in (index.samples, index.units, index.rows)),
        index.cu_seqlens,
        index.padding_mask,
    )
    with pytest.raises(ValueError, match="gather_regions: index must be on the device of x, cpu, got meta"):
        gather_regions(numbered(), on_meta)


@pytest.mark.parametrize(
    ("units", "options", "message"),
    [
        (torch.zeros(3, dtype=torch.long), {"region": 0}, "n_samples must be given for units of shape"),
        (torch.zeros(2, 3, 4, dtype=torch.bool), {}, r"units must have the shape .* got \(2, 3, 4\)"),
        (torch.zeros(2, 3, dtype=torch.bool), {"n_samples": 3}, r"got \(2, 3\) with n_samples=3"),
        (torch.zeros(2, 3, dtype=torch.long), {}, "region must be given with region numbers"),
        (torch.zeros(2, 3, dtype=torch.bool), {"region": 1}, "region must be given with region numbers"),
        (torch.zeros(2, 3, dtype=torch.long), {"region": torch.arange(3)}, r"region must .* shape \(2,\)"),
    ],
)  # fmt: skip
def test_an_index_that_cannot_be_built_says_why(units, options, message):
    with pytest.raises(ValueError, match=f"region_index: .*{message}"):
        region_index(units, **options)


@pytest.mark.parametrize("region", [1.5, "VISp", [0.5, 1.0, 2.0]])
def test_a_region_is_an_integer(region):
    for units in (np.array([0, 0, 1]), torch.tensor([0, 0, 1])):
        with pytest.raises(TypeError, match="region_index: region must be integers"):
            region_index(units, region, n_samples=3)


@pytest.mark.parametrize("name", ["n_rows", "max_rows"])
def test_room_is_a_size(name):
    with pytest.raises(ValueError, match=rf"region_index: {name} must lie in \[0, 2\*\*31\), got -1"):
        region_index(chosen(), **{name: -1})
    with pytest.raises(TypeError, match=f"region_index: {name} must be an integer"):
        region_index(chosen(), **{name: 2.0})


def test_the_number_of_samples_is_a_whole_number_and_not_negative():
    with pytest.raises(ValueError, match="n_samples must be at least 0, got -1"):
        region_index(torch.tensor([0, 0, 1]), 1, n_samples=-1)
    with pytest.raises(TypeError, match="n_samples must be an integer"):
        region_index(torch.tensor([0, 0, 1]), 1, n_samples="three")


@pytest.mark.cpu_only
def test_the_backend_of_numpy_arrays_is_checked_too():
    index = region_index(np.array(CHOSEN))
    x = np.ones((3, 2, 3))
    with pytest.raises(ValueError, match="gather_regions: backend must be None, 'native'"):
        gather_regions(x, index, backend="fast")
    with pytest.raises(ValueError, match="scatter_regions: backend must be None, 'native'"):
        scatter_regions(gather_regions(x, index).values, index, backend="fast")
