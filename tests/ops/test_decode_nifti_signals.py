"""decode_nifti: parcel means, trends, confounds and standardizing, against plain float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nifti_files import CODES, random_raw, write_nifti

from neurokern.ops import NiftiFile, ParcelAtlas, decode_nifti

SHAPE = (9, 8, 7, 30)


def bold(seed=0, shape=SHAPE):
    """Signals with a large mean, a slope and noise, as scanners give them."""
    rng = np.random.default_rng(seed)
    time = np.linspace(-1, 1, shape[3])
    mean, slope = rng.uniform(500, 3000, shape[:3]), rng.normal(0, 50, shape[:3])
    return (mean[..., None] + slope[..., None] * time + rng.normal(0, 20, shape)).astype(np.int16)


def some_labels(n_parcels=5, seed=0, shape=SHAPE[:3]):
    return np.random.default_rng(seed).integers(0, n_parcels + 1, shape) * 3


def mean_by_parcel(values, labels):
    return np.stack([values[labels == label].mean(0) for label in np.unique(labels[labels > 0])], axis=1)


# ---- parcels


@pytest.mark.parametrize("dtype", sorted(CODES))
@pytest.mark.parametrize("order", ["<", ">"])
def test_parcel_means_of_every_type(tmp_path, dtype, order):
    raw, labels = random_raw(dtype, SHAPE), some_labels()
    path = write_nifti(tmp_path / "a.nii", raw, order=order, slope=0.25, inter=-8)
    wanted = mean_by_parcel(raw.astype(np.float64), labels) * 0.25 - 8
    means = decode_nifti(path, labels=labels, dtype=np.float32)
    scale = np.abs(raw.astype(np.float64)).max() * 0.25
    np.testing.assert_allclose(means, wanted, rtol=1e-6, atol=1e-6 * scale)


@given(
    shape=st.tuples(*[st.integers(1, 30)] * 3, st.integers(1, 11)),
    dtype=st.sampled_from(["uint8", "int16", "float32"]),
    n_parcels=st.integers(1, 40),
    seed=st.integers(0, 99),
    compressed=st.booleans(),
)
def test_parcel_means_of_any_image(tmp_path_factory, shape, dtype, n_parcels, seed, compressed):
    raw, labels = random_raw(dtype, shape, seed), some_labels(n_parcels, seed, shape[:3])
    labels[-1, -1, -1] = 3
    name = "a.nii.gz" if compressed else "a.nii"
    path = write_nifti(tmp_path_factory.mktemp("parcels") / name, raw)
    means = decode_nifti(NiftiFile(path, cache=False), labels=labels, start=shape[3] // 3, dtype=np.float32)
    wanted = mean_by_parcel(raw.astype(np.float64), labels)[shape[3] // 3 :]
    np.testing.assert_allclose(means, wanted, rtol=1e-6, atol=1e-5 * np.abs(wanted).max(initial=1))


def test_a_parcel_of_more_voxels_than_a_run_may_have(tmp_path):
    raw = np.full((300, 300, 2, 4), 32767, np.int16)
    path = write_nifti(tmp_path / "a.nii", raw)
    np.testing.assert_array_equal(decode_nifti(path, labels=np.ones((300, 300, 2), np.int32)), 32767)


def test_columns_are_the_labels_in_ascending_order(tmp_path):
    labels = np.zeros(SHAPE[:3], np.int32)
    labels[0, 0, 0], labels[1, 0, 0], labels[2, 0, 0] = 70, 7, 700
    atlas = ParcelAtlas(labels)
    assert atlas.labels.tolist() == [7, 70, 700]
    raw = random_raw("int16", SHAPE)
    means = decode_nifti(write_nifti(tmp_path / "a.nii", raw), labels=atlas)
    np.testing.assert_array_equal(means, raw[[1, 0, 2], 0, 0].T)


def test_a_map_of_weights_gives_weighted_means(tmp_path):
    raw = bold()
    weights = np.random.default_rng(1).random((*SHAPE[:3], 3)) * (
        np.random.default_rng(2).random((*SHAPE[:3], 3)) < 0.3
    )
    wanted = np.einsum("xyzt,xyzp->tp", raw.astype(np.float64), weights) / weights.sum((0, 1, 2))
    means = decode_nifti(write_nifti(tmp_path / "a.nii", raw), labels=weights)
    np.testing.assert_allclose(means, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(SHAPE[:3]), "at least one voxel"),
        (np.full(SHAPE[:3], 0.5), "whole numbers"),
        (np.full(SHAPE[:3], -1), "must not be negative"),
        (np.ones((3, 3)), "must have the shape"),
        (np.ones((2, 8, 7), int), "must have the shape of the image"),
        (-np.ones((*SHAPE[:3], 2)), "must not be negative"),
    ],
)
def test_labels_that_make_no_sense_are_an_error(tmp_path, labels, message):
    path = write_nifti(tmp_path / "a.nii", bold())
    with pytest.raises(ValueError, match=message):
        decode_nifti(path, labels=labels)


# ---- trends, confounds, standardizing


def cleaned(values, columns, standardize):
    """Ordinary least squares on the columns and a constant, in float64."""
    design = np.column_stack([np.ones(len(values)), *columns])
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return rest / rest.std(0, ddof=1) if standardize else rest


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("detrend", [False, True, "linear"])
@pytest.mark.parametrize("n_confounds", [0, 1, 11])
def test_trends_and_confounds_are_projected_out_at_once(tmp_path, detrend, standardize, n_confounds):
    if not (detrend or standardize or n_confounds):
        return
    raw, mask = bold(), np.random.default_rng(3).random(SHAPE[:3]) < 0.7
    confounds = np.random.default_rng(4).normal(1e4, 1, (SHAPE[3], n_confounds)) if n_confounds else None
    path = write_nifti(tmp_path / "a.nii", raw, slope=0.1, inter=30)
    columns = ([np.arange(SHAPE[3])] if detrend else []) + ([] if confounds is None else list(confounds.T))
    wanted = cleaned(raw[mask].T * np.float64(np.float32(0.1)) + 30, columns, standardize)
    values = decode_nifti(path, mask, detrend=detrend, standardize=standardize, confounds=confounds)
    np.testing.assert_allclose(values, wanted, atol=2e-5 * np.abs(wanted).max())


def test_cosines_slower_than_the_cutoff_are_removed(tmp_path):
    time = np.arange(200) * 2.0
    slow, fast = np.sin(2 * np.pi * time / 300), np.sin(2 * np.pi * time / 40)
    raw = np.broadcast_to(1000 + 100 * slow + 100 * fast, (4, 4, 4, 200)).astype(np.float32)
    path = write_nifti(tmp_path / "a.nii", np.asfortranarray(raw))
    values = np.asarray(decode_nifti(path, np.ones((4, 4, 4)), detrend="cosine", high_pass=1 / 128, tr=2.0))
    assert abs(np.corrcoef(values[:, 0], slow)[0, 1]) < 0.05
    assert np.corrcoef(values[:, 0], fast)[0, 1] > 0.99


def test_constant_voxels_become_zero_and_nan_stays_in_its_voxel(tmp_path):
    raw = bold().astype(np.float32)
    raw[0, 0, 0], raw[1, 0, 0, 3] = 1234.5, np.nan
    values = decode_nifti(
        write_nifti(tmp_path / "a.nii", raw), detrend=True, standardize=True, dtype=np.float32
    )
    assert (values[:, 0, 0, 0] == 0).all()
    assert np.isnan(values[:, 1, 0, 0]).all()
    assert np.isfinite(np.delete(values.reshape(30, -1), SHAPE[1] * SHAPE[2], axis=1)).all()


def test_confounds_that_repeat_each_other_do_no_harm(tmp_path):
    raw = bold()
    one = np.random.default_rng(5).normal(size=(SHAPE[3], 2))
    path = write_nifti(tmp_path / "a.nii", raw)
    twice = np.column_stack([one, one[:, 0] + one[:, 1], np.ones(SHAPE[3]), np.arange(SHAPE[3])])
    values = decode_nifti(path, confounds=twice, detrend=True, dtype=np.float32)
    np.testing.assert_allclose(
        values, decode_nifti(path, confounds=one, detrend=True, dtype=np.float32), atol=1e-3
    )


def test_threads_and_half_types_and_parcels_are_cleaned_alike(tmp_path):
    torch = pytest.importorskip("torch")
    raw, labels = bold(shape=(40, 40, 20, 40)), some_labels(9, shape=(40, 40, 20))
    path = write_nifti(tmp_path / "a.nii", raw)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = decode_nifti(path, detrend=True, standardize=True)
        torch.set_num_threads(3)
        three = decode_nifti(path, detrend=True, standardize=True)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one, three)
    assert torch.equal(
        decode_nifti(path, detrend=True, standardize=True, dtype=torch.bfloat16), one.bfloat16()
    )
    means = mean_by_parcel(raw.astype(np.float64), labels)
    wanted = cleaned(means, [np.arange(40)], standardize=True)
    np.testing.assert_allclose(
        decode_nifti(path, labels=labels, detrend=True, standardize=True), wanted, atol=1e-3
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detrend": "quadratic"}, "detrend must be"),
        ({"detrend": "cosine"}, "high_pass must be given"),
        ({"high_pass": 0.01}, "high_pass must be given"),
        ({"detrend": "cosine", "high_pass": -1.0}, "high_pass must be"),
        ({"confounds": np.zeros((29, 2))}, r"must have the shape \(30, n\)"),
        ({"confounds": np.full((30, 2), np.nan)}, r"NaN or infinity in columns \[0, 1\]"),
    ],
)
def test_cleaning_that_makes_no_sense_is_an_error(tmp_path, options, message):
    path = write_nifti(tmp_path / "a.nii", bold())
    with pytest.raises(ValueError, match=message):
        decode_nifti(path, **options)
