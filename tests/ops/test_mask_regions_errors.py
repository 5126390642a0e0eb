"""mask_regions: what it refuses, and the words it uses."""

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from mask_batches import counts, mask, six_regions

from neurokern import mask_regions

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "telepathy"}, "scheme must be one of 'temporal'.* got 'telepathy'"),
        ({"scheme": ["neuron", "neuron", "neuron", "x"]}, "scheme must be one of"),
        ({"scheme": ["neuron"]}, r"scheme must have one entry per sample, shape \(4,\)"),
        ({"ratio": -0.1}, r"ratio must lie in \[0, 1\], got -0.1"),
        ({"ratio": 1.5}, "ratio must lie"),
        ({"ratio": float("nan")}, "ratio must lie"),
        ({"ratio": {"all": 0.3}}, "ratio's scheme must be one of"),
        ({"seed": -1}, "seed must lie in"),
        ({"seed": 2**63}, "seed must lie in"),
        ({"offset": -1}, "offset must lie in"),
        ({"span": 0, "scheme": "temporal"}, "span must be at least 1 bin, got 0"),
        ({"span": 2, "scheme": "neuron"}, "span must be 1 but for 'temporal' and 'causal', got 2"),
        ({"region_choice": "trial"}, "region_choice must be one of 'batch', 'sample'"),
        ({"region": -1}, "region must lie in"),
        ({"replacement": "ones"}, "replacement must be one of"),
        ({"regions": torch.arange(69)}, r"regions must have the shape \(70,\) or \(4, 70\) of x, got \(69"),
        ({"n_units": [70]}, "n_units must have one entry per sample"),
        ({"backend": "magic"}, "backend must be"),
        ({"span": 2**70, "scheme": "temporal"}, r"span must be below 2\*\*31 bins"),
        ({"x": torch.zeros(4, 20, 70).half(), "replacement": 1e300}, "replacement must be a value of"),
        ({"x": torch.zeros(4, 20, 70).long(), "replacement": 2**53 + 1}, "replacement must be a value of"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=f"mask_regions: {message}"):
        mask(**options)


@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": torch.tensor([0, 1, 2, 6])}, r"scheme must hold numbers in \[0, 6\), got 6 for sample 3"),
        ({"region": 17, "scheme": "inter-region"}, "region must be one of the batch's regions, got 17"),
        ({"regions": torch.full((70,), -1), "scheme": "intra-region"}, "regions must know the region"),
        ({"regions": torch.full((70,), 2**31), "scheme": "intra-region"}, r"regions must be below 2"),
        ({"n_units": [70, 70, 71, 70]}, r"n_units must lie in \[0, 70\], got 71 for sample 2"),
        ({"n_bins": [-1, 0, 0, 0]}, r"n_bins must lie in \[0, 20\], got -1 for sample 0"),
    ],
)  # fmt: skip
def test_bad_values_in_arrays_are_named(options, message):
    with pytest.raises(ValueError, match=f"mask_regions: {message}"):
        mask(**options)


@pytest.mark.parametrize("scheme", ["intra-region", "inter-region", ["neuron", "inter-region"]])
def test_a_region_scheme_needs_regions(scheme):
    with pytest.raises(ValueError, match="mask_regions: regions must be given for"):
        mask_regions(counts(2), None, scheme, seed=0)


@pytest.mark.cpu_only
def test_a_region_scheme_given_by_number_needs_regions():
    with pytest.raises(ValueError, match="mask_regions: regions must be given for"):
        mask_regions(counts(2), None, torch.tensor([2, 4]), seed=0)


def test_x_must_be_a_batch_of_numbers():
    with pytest.raises(
        ValueError, match=r"mask_regions: x must have the shape \(n_samples, n_bins, n_units\), got \(2, 3\)"
    ):
        mask_regions(torch.zeros(2, 3), None, "neuron", seed=0)
    with pytest.raises(TypeError, match=r"x must be floating point, integer or bool, got torch\.complex64"):
        mask_regions(torch.zeros(2, 3, 4, dtype=torch.complex64), None, "neuron", seed=0)
    with pytest.raises(TypeError, match="mask_regions: x must be a torch tensor or a numpy array, got list"):
        mask_regions([[[1.0]]], None, "neuron", seed=0)
    with pytest.raises(TypeError, match=r"regions must be integers, got torch\.float32"):
        mask_regions(torch.zeros(1, 1, 2), torch.zeros(2), "inter-region", seed=0)


@pytest.mark.parametrize(("dtype", "value"), [(torch.uint8, -1), (torch.int16, 0.5), (torch.uint8, 256)])
def test_a_replacement_must_be_a_value_of_the_dtype(dtype, value):
    with pytest.raises(ValueError, match="mask_regions: replacement must be a value of"):
        mask(counts().to(dtype), replacement=value)


def test_in_place_is_refused_where_it_cannot_work():
    x = counts()
    with pytest.raises(ValueError, match="replacement='random' reads other bins"):
        mask(x, inplace=True, replacement="random")
    with pytest.raises(ValueError, match="must not require a gradient"):
        mask(x.clone().requires_grad_(), inplace=True)
    for shared in (x[:1].expand(4, 20, 70), x.transpose(1, 2), x[:, :, ::2]):
        with pytest.raises(ValueError, match="no shared memory with inplace=True"):
            mask(shared, inplace=True)
    frozen = x.numpy().copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        mask_regions(frozen, None, "neuron", seed=0, inplace=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1.5}, "seed must be an integer"),
        ({"offset": None}, "offset must be an integer"),
        ({"span": 1.5, "scheme": "temporal"}, "span must be an integer"),
        ({"region": "VISp", "scheme": "inter-region"}, "region must be an integer"),
        ({"ratio": "half"}, "ratio must be a number"),
        ({"replacement": None}, "replacement must be a number"),
        ({"regions": np.array(["VISp"] * 70)}, "regions must be integers"),
        ({"x": torch.zeros(4, 20, 70).to_sparse()}, "x must be a dense tensor"),
    ],
)
def test_an_argument_of_a_wrong_kind_is_a_type_error_that_names_it(options, message):
    with pytest.raises(TypeError, match=f"mask_regions: {message}"):
        mask(**options)


def test_regions_may_come_in_any_byte_order_and_as_a_column_of_pandas():
    pd = pytest.importorskip("pandas")
    x, regions = counts(2), np.arange(70) % 3
    wanted = mask_regions(x, torch.from_numpy(regions), "inter-region", seed=0).inputs
    for same in (regions.astype(">i4"), pd.Series(regions, index=range(5, 75)), regions.tolist()):
        assert torch.equal(mask_regions(x, same, "inter-region", seed=0).inputs, wanted)


def test_max_targets_is_a_size_and_comes_with_the_index():
    x = torch.ones(2, 3, 4)
    with pytest.raises(ValueError, match="max_targets must come with return_index=True, got 5 without"):
        mask_regions(x, None, "neuron", seed=0, max_targets=5)
    with pytest.raises(ValueError, match=r"max_targets must lie in \[0, 2\*\*31\), got -1"):
        mask_regions(x, None, "neuron", seed=0, max_targets=-1, return_index=True)
    with pytest.raises(TypeError, match="max_targets must be an integer"):
        mask_regions(x, None, "neuron", seed=0, max_targets=1.5, return_index=True)


def test_an_index_of_more_entries_than_int32_counts_is_refused():
    x = torch.zeros(1, 1, 1).expand(2**11, 2**10, 2**10)
    with pytest.raises(ValueError, match=r"x must have fewer than 2\*\*31 entries with return_index=True"):
        mask_regions(x, None, "neuron", seed=0, return_index=True)


def test_an_array_off_its_alignment_is_masked_alike_but_not_in_place():
    def misaligned(array):
        copy = np.frombuffer(np.empty(array.nbytes + 1, np.uint8)[1:], array.dtype).reshape(array.shape)
        copy[...] = array
        assert not copy.flags.aligned
        return copy

    x, regions = counts().numpy(), six_regions().numpy()
    expected = mask_regions(x, regions, "inter-region", seed=0)
    found = mask_regions(misaligned(x), misaligned(regions), "inter-region", seed=0)
    np.testing.assert_array_equal(found.inputs, expected.inputs)
    with pytest.raises(ValueError, match="writeable and aligned with inplace"):
        mask_regions(misaligned(x), regions, "neuron", seed=0, inplace=True)
