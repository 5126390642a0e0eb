"""Cleaning by coefficients: any window is the slice of the cleaned run."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurokern.ops import (
    NiftiFile,
    NiftiFormatError,
    ParcelAtlas,
    VoxelMask,
    _array_cache,
    decode_nifti,
    fit_cleaning,
)

torch = pytest.importorskip("torch")

from nifti_files import write_nifti  # noqa: E402

SHAPE, N = (6, 5, 4), 70
MASK = np.random.default_rng(3).random(SHAPE) < 0.6
CONFOUNDS = np.random.default_rng(4).normal(size=(N, 11)).cumsum(0) + 500
OPTIONS = {
    "mean": {"standardize": True},
    "line": {"detrend": True},
    "line and scale": {"detrend": "linear", "standardize": True},
    "cosines": {"detrend": "cosine", "high_pass": 0.01, "tr": 2.0, "standardize": True},
    "confounds": {"detrend": True, "standardize": True, "confounds": CONFOUNDS},
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_array_cache, "_LEAST_FREE", 0)
    return tmp_path / "cache" / "fits"


def drifting_run(tmp_path, suffix=".nii.gz"):
    rng = np.random.default_rng(0)
    values = 9000 + rng.normal(0, 40, (*SHAPE, N)) + np.linspace(0, 300, N)
    values[2, 2, 2] = 123  # constant
    values[3, 3, 3] = 5 * np.arange(N)  # nothing but drift
    mask = MASK.copy()
    mask[2, 2, 2] = mask[3, 3, 3] = True
    return write_nifti(tmp_path / f"bold{suffix}", values.astype(np.int16), slope=0.1, inter=7.0), VoxelMask(
        mask
    )


def float64_reference(values, detrend=False, standardize=False, confounds=None, high_pass=None, tr=None):
    """Least squares on the definition, in float64."""
    time = np.arange(len(values))
    columns = [np.ones(len(values))]
    if detrend in (True, "linear"):
        columns.append(time / len(values))
    if detrend == "cosine":
        n = int(np.floor(2 * len(values) * tr * high_pass))
        columns += [np.cos(np.pi * (time + 0.5) * k / len(values)) for k in range(1, n + 1)]
    if confounds is not None:
        columns += list((confounds - confounds.mean(0)).T)
    design = np.column_stack(columns)
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    if not standardize:
        return rest
    deviation = rest.std(0, ddof=1)
    flat = deviation < 1e-6 * np.maximum(values.std(0), 1e-3)
    return np.where(flat, 0, rest / np.where(flat, 1, deviation))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_cleaned_run_is_that_of_decode_nifti_and_of_least_squares(tmp_path, options):
    path, mask = drifting_run(tmp_path)
    file = NiftiFile(path)
    cleaned = file.pack(mask).decode(cleaning=fit_cleaning(file, mask, **options))
    scale = float(cleaned.std())
    torch.testing.assert_close(cleaned, decode_nifti(path, mask, **options), rtol=2e-5, atol=2e-5 * scale)
    exact = float64_reference(decode_nifti(path, mask).double().numpy(), **options)
    np.testing.assert_allclose(cleaned, exact, rtol=2e-5, atol=3e-5 * scale)


@settings(max_examples=20)
@given(st.integers(0, N), st.integers(0, N), st.sampled_from(sorted(OPTIONS)))
def test_any_window_has_the_bits_of_the_cleaned_run(tmp_path_factory, a, b, name):
    folder = tmp_path_factory.getbasetemp() / "fits"
    folder.mkdir(exist_ok=True)
    path, mask = drifting_run(folder)
    file, (start, stop) = NiftiFile(path), sorted((a, b))
    packed, fit = file.pack(mask), fit_cleaning(file, mask, cache=False, **OPTIONS[name])
    whole = packed.decode(cleaning=fit)
    assert torch.equal(packed.decode(start, stop, cleaning=fit), whole[start:stop])
    assert torch.equal(fit.apply(decode_nifti(file, mask, start=start, stop=stop), start), whole[start:stop])


def test_the_fit_is_the_same_from_the_image_the_packed_run_or_rows_in_memory(tmp_path):
    path, mask = drifting_run(tmp_path)
    file, options = NiftiFile(path), OPTIONS["confounds"]
    rows = decode_nifti(file, mask)
    fits = [
        fit_cleaning(file, mask, cache=False, **options),
        fit_cleaning(file, mask, packed=file.pack(mask), cache=False, **options),
        fit_cleaning(file, mask, rows=rows, cache=False, **options),
        fit_cleaning(file, mask, **options),
        fit_cleaning(NiftiFile(path), mask, **options),  # mapped from the cache
    ]
    cleaned = [fit.apply(rows.clone(), 0) for fit in fits]
    assert all(torch.equal(cleaned[0], other) for other in cleaned[1:])
    assert [fit.n_bytes > 0 for fit in fits] == [True, True, True, False, False]


def test_parcels_are_cleaned_alike(tmp_path):
    labels = np.random.default_rng(1).integers(0, 5, SHAPE)
    path, _ = drifting_run(tmp_path)
    for atlas in (ParcelAtlas(labels), ParcelAtlas(np.random.default_rng(2).random((*SHAPE, 3)))):
        file, options = NiftiFile(path), OPTIONS["line and scale"]
        expected = decode_nifti(file, labels=atlas, **options)
        fit = fit_cleaning(file, atlas, **options)
        torch.testing.assert_close(
            fit.apply(decode_nifti(file, labels=atlas), 0), expected, rtol=2e-5, atol=2e-5
        )


def test_columns_without_variance_become_zero_and_those_with_nan_stay_nan(tmp_path):
    values = np.random.default_rng(0).normal(100, 5, (*SHAPE, N)).astype(np.float32)
    values[0, 0, 0], values[1, 1, 1], values[1, 1, 2, 3] = 7.25, np.linspace(0, 1, N), np.nan
    path = write_nifti(tmp_path / "bold.nii", values)
    mask = np.zeros(SHAPE, bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[1, 1, 2] = mask[1, 1, 3] = True
    file, mask = NiftiFile(path), VoxelMask(mask)
    cleaned = file.pack(mask).decode(cleaning=fit_cleaning(file, mask, detrend=True, standardize=True))
    assert (cleaned[:, :2] == 0).all()
    assert cleaned[:, 2].isnan().all()
    torch.testing.assert_close(cleaned[:, 3].std(), torch.tensor(1.0))


def test_half_types_are_rounded_once_from_the_cleaned_value(tmp_path):
    path, mask = drifting_run(tmp_path)
    file = NiftiFile(path)
    packed, fit = file.pack(mask), fit_cleaning(file, mask, **OPTIONS["line and scale"])
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(packed.decode(cleaning=fit, dtype=dtype), packed.decode(cleaning=fit).to(dtype))


def test_threads_give_the_same_bits(tmp_path):
    raw = np.random.default_rng(0).integers(0, 999, (40, 40, 40, 9)).astype(np.int16)
    file, mask = NiftiFile(write_nifti(tmp_path / "wide.nii", raw)), VoxelMask(np.ones((40, 40, 40), bool))
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            fit = fit_cleaning(file, mask, detrend=True, standardize=True, cache=False)
            results.append(file.pack(mask).decode(cleaning=fit))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_coefficients_that_change_while_mapped_are_an_error_and_made_again(tmp_path, cache):
    path, mask = drifting_run(tmp_path)
    file = NiftiFile(path)
    packed, fit = file.pack(mask), fit_cleaning(file, mask, detrend=True)
    expected = packed.decode(cleaning=fit)
    (made,) = cache.iterdir()
    os.truncate(made, 64)
    with pytest.raises(NiftiFormatError, match="coefficients were changed"):
        packed.decode(cleaning=fit)
    assert torch.equal(packed.decode(cleaning=fit_cleaning(file, mask, detrend=True)), expected)


def test_each_set_of_options_has_coefficients_of_its_own(tmp_path, cache):
    path, mask = drifting_run(tmp_path)
    for options in OPTIONS.values():
        fit_cleaning(NiftiFile(path), mask, **options)
    assert len(list(cache.iterdir())) == len(OPTIONS)


def test_a_cache_that_cannot_be_written_means_coefficients_in_memory(tmp_path, monkeypatch):
    path, mask = drifting_run(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "file"))
    assert fit_cleaning(NiftiFile(path), mask, detrend=True).n_bytes == 4 * mask.n_voxels * 4


def test_asking_for_nothing_or_for_confounds_of_another_length_is_an_error(tmp_path):
    path, mask = drifting_run(tmp_path)
    with pytest.raises(ValueError, match="nothing is asked for"):
        fit_cleaning(NiftiFile(path), mask)
    with pytest.raises(ValueError, match=r"confounds must have the shape \(70, n\)"):
        fit_cleaning(NiftiFile(path), mask, confounds=np.zeros((N - 1, 2)))
