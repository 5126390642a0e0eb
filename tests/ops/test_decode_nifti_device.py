"""decode_nifti on a device: the bits of the CPU."""

import numpy as np
import pytest
from nifti_files import CODES, random_raw, scattered_mask, write_nifti

from neurokern.ops import ParcelAtlas, decode_nifti

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("own_cache")

SHAPE = (7, 5, 3, 11)


# ---- values


@pytest.mark.parametrize("dtype", sorted(CODES))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("slope", [0.0, 0.37])
def test_a_device_gives_the_bits_of_the_cpu(tmp_path, small_buffers, device, dtype, order, slope):
    raw, mask = random_raw(dtype, SHAPE), scattered_mask(SHAPE[:3])
    for suffix in (".nii", ".nii.gz"):
        path = write_nifti(tmp_path / f"a{suffix}", raw, order=order, slope=slope, inter=-2.5)
        wanted = decode_nifti(path, mask, start=1)
        assert torch.equal(decode_nifti(path, mask, start=1, device=device).cpu(), wanted)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_windows_boxes_and_packed_runs(tmp_path, small_buffers, device, dtype):
    path = write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE), slope=0.01)
    window = {"mask": scattered_mask(SHAPE[:3]), "start": 2, "stop": 9}
    crop = ((1, 5), (0, 4), (1, 3))
    for options in ({}, window, window | {"cache": True}, {"crop": crop}, {"start": 4, "stop": 4}):
        options["dtype"] = getattr(torch, dtype)
        wanted = decode_nifti(path, **options)
        values = decode_nifti(path, device=device, **options)
        assert values.dtype == wanted.dtype
        assert torch.equal(values.cpu(), wanted)


@pytest.mark.parametrize("n_confounds", [0, 1, 6])
@pytest.mark.parametrize("standardize", [False, True])
def test_cleaning_on_a_device_gives_the_bits_of_the_cpu(tmp_path, device, n_confounds, standardize):
    raw = random_raw("float32", SHAPE)
    raw[0, 0, 0], raw[1, 0, 0, 3], raw[2, 0, 0, 0] = 7, np.nan, np.inf
    path = write_nifti(tmp_path / "a.nii", raw, slope=0.5, inter=1000)
    confounds = np.random.default_rng(0).normal(size=(SHAPE[3], n_confounds)) if n_confounds else None
    options = {"detrend": True, "standardize": standardize, "confounds": confounds}
    wanted = decode_nifti(path, **options)
    values = decode_nifti(path, device=device, **options).cpu()
    assert torch.equal(values.isnan(), wanted.isnan())
    assert torch.equal(values.nan_to_num(), wanted.nan_to_num())


@pytest.mark.cpu_only
def test_cleaning_by_pytorchs_own_operations_is_near(tmp_path):
    from neurokern.ops._nifti_clean import clean_rows, make_basis
    from neurokern.ops._nifti_reference import clean_reference

    values = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)) + 500
    values[:, 0], values[3, 1] = 7, torch.nan
    basis = make_basis(40, True, np.random.default_rng(0).normal(size=(40, 5)), True, None, None)
    near = values.clone()
    clean_rows(values, basis, True)
    clean_reference(near, torch.from_numpy(basis), True)
    torch.testing.assert_close(near, values, rtol=0, atol=1e-4, equal_nan=True)
    assert not values[:, 0].any()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_means_of_parcels_are_those_of_the_cpu(tmp_path, device, dtype):
    path = write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE), slope=0.01)
    labels = np.random.default_rng(0).integers(0, 4, SHAPE[:3])
    weights = np.random.default_rng(0).random((*SHAPE[:3], 3))
    for atlas in (ParcelAtlas(labels), ParcelAtlas(weights)):
        options = {"labels": atlas, "dtype": getattr(torch, dtype), "standardize": True}
        values = decode_nifti(path, device=device, **options)
        assert torch.equal(values.cpu(), decode_nifti(path, **options))
