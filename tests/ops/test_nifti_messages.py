"""What a message about a mask, labels or an image says: which file, which field, which value, what to do."""

import numpy as np
import pytest
from nifti_files import write_nifti

from neurokern.ops import NiftiFile, ParcelAtlas, VoxelMask, decode_nifti

SHAPE = (5, 4, 3)


@pytest.fixture
def run(tmp_path):
    return write_nifti(tmp_path / "bold.nii", np.ones((*SHAPE, 6), np.int16))


def inside():
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:4, 1:3, 1] = 1
    return mask


def test_a_mask_of_another_grid_is_named_with_its_file(run, tmp_path):
    path = write_nifti(tmp_path / "small.nii", inside()[1:])
    with pytest.raises(
        ValueError, match=r"mask .*small.nii must have the shape .*\(5, 4, 3\), got \(4, 4, 3\)"
    ):
        decode_nifti(run, mask=path)
    with pytest.raises(ValueError, match=r"labels .*small.nii must have the shape .*; resample it"):
        decode_nifti(run, labels=path)
    path = write_nifti(tmp_path / "moved.nii", inside(), sform=[2.0, 0, 0, 9, 0, 2, 0, 4, 0, 0, 3, 7])
    with pytest.raises(ValueError, match=r"mask .*moved.nii must have the affine"):
        decode_nifti(run, mask=path)


def test_an_empty_mask_is_named_with_its_file(tmp_path):
    path = write_nifti(tmp_path / "empty.nii", inside() * 0)
    with pytest.raises(ValueError, match=r"mask .*empty.nii must have at least one voxel inside"):
        VoxelMask(path)
    with pytest.raises(ValueError, match=r"^mask must have at least one voxel inside"):
        VoxelMask(np.full(SHAPE, np.nan))
    with pytest.raises(ValueError, match=r"labels .*empty.nii must have at least one voxel in a parcel"):
        ParcelAtlas(path)


def test_a_run_as_a_mask_says_what_to_do():
    with pytest.raises(ValueError, match=r"got \(5, 4, 3, 6\); of a run, take the mean"):
        VoxelMask(np.ones((*SHAPE, 6)))


@pytest.mark.parametrize("what", [VoxelMask, ParcelAtlas])
def test_a_missing_file_is_named_with_its_argument(what, tmp_path):
    name = {VoxelMask: "mask", ParcelAtlas: "labels"}[what]
    with pytest.raises(FileNotFoundError, match=rf"{name} .*none.nii could not be read: No such file"):
        what(tmp_path / "none.nii")
    with pytest.raises(IsADirectoryError, match=rf"{name} .* could not be read: must be a NIfTI file"):
        what(tmp_path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("value", "said"), [(1.5, "1.5"), (np.nan, "nan"), (np.inf, "inf"), (1e30, r"1e\+30")]
)
def test_labels_that_are_no_whole_numbers_are_shown(value, said, tmp_path):
    labels = np.where(inside() > 0, value, 0.0)
    with pytest.raises(
        ValueError, match=rf"labels must be whole numbers, got {said} and 5 more that are not"
    ):
        ParcelAtlas(labels)
    path = write_nifti(tmp_path / "odd.nii", labels)
    with pytest.raises(ValueError, match=rf"labels .*odd.nii must be whole numbers, got {said}"):
        ParcelAtlas(path)


def test_whole_labels_may_be_stored_as_floats(run):
    labels = np.where(inside() > 0, 7.0, 0.0)
    assert ParcelAtlas(labels).labels.tolist() == [7]
    assert decode_nifti(run, labels=labels).shape == (6, 1)


@pytest.mark.parametrize("image", [None, 5, np.zeros(SHAPE), ["bold.nii"]])
def test_what_is_no_path_is_named_by_its_kind(image):
    with pytest.raises(TypeError, match=f"image must be a path or a NiftiFile, got {type(image).__name__}"):
        NiftiFile(image)
