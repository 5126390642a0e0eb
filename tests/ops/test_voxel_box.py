"""Cropping: only the box is decoded, and it can be put back."""

import numpy as np
import pytest

from neurokern.ops import NiftiFile, VoxelBox, VoxelMask, decode_nifti

torch = pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")

from nifti_files import random_raw, write_nifti  # noqa: E402

SHAPE = (7, 6, 5)
BOUNDS = [(2, 6), (1, 4), (0, 5)]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_crop_is_the_slice_of_the_volumes(tmp_path, monkeypatch, suffix):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path))
    path = write_nifti(tmp_path / f"bold{suffix}", random_raw("int16", (*SHAPE, 9)), slope=0.5, inter=1.0)
    whole = decode_nifti(path)[2:8]
    for crop in (BOUNDS, VoxelBox(BOUNDS, SHAPE), [slice(2, 6), slice(1, 4), slice(None)]):
        cropped = decode_nifti(path, crop=crop, start=2, stop=8)
        assert torch.equal(cropped, whole[:, 2:6, 1:4])
    out = torch.empty(6, 4, 3, 5)
    assert decode_nifti(path, crop=BOUNDS, start=2, stop=8, out=out) is out
    assert torch.equal(out, whole[:, 2:6, 1:4])


def test_a_mask_gives_the_smallest_box_around_it(tmp_path):
    mask = np.zeros(SHAPE, bool)
    mask[3, 1:3, 2], mask[5, 2, 4] = True, True
    path = write_nifti(tmp_path / "bold.nii", random_raw("float32", (*SHAPE, 4)))
    for given in (mask, VoxelMask(mask), torch.from_numpy(mask)):
        assert VoxelBox.around(given).bounds == ((3, 6), (1, 3), (2, 5))
        assert torch.equal(decode_nifti(path, crop=given), decode_nifti(path)[:, 3:6, 1:3, 2:5])
    assert VoxelBox.around(mask, margin=2).bounds == ((1, 7), (0, 5), (0, 5))


def test_a_box_is_put_back_where_it_was_and_its_affine_moves_with_it(tmp_path):
    path = write_nifti(tmp_path / "bold.nii", random_raw("int16", (*SHAPE, 3)))
    box = VoxelBox(BOUNDS, SHAPE)
    whole = decode_nifti(path)
    for values in (decode_nifti(path, crop=box), np.asarray(decode_nifti(path, crop=box))):
        back = box.put_back(values, fill=-7)
        assert tuple(back.shape) == (3, *SHAPE)
        assert bool((back[:, 2:6, 1:4] == values).all())
        assert float(back[0, 0, 0, 0]) == -7
    image = nibabel.load(path)
    np.testing.assert_allclose(box.affine_of(image.affine), image.slicer[2:6, 1:4, 0:5].affine)
    assert torch.equal(box.put_back(whole[:, 2:6, 1:4])[:, 2:6, 1:4], whole[:, 2:6, 1:4])


def test_a_crop_reads_no_other_voxels(tmp_path):
    box = VoxelBox(BOUNDS, SHAPE)
    assert box.mask.n_voxels == 4 * 3 * 5
    positions = np.ravel_multi_index(np.mgrid[2:6, 1:4, 0:5].reshape(3, -1), SHAPE, order="F")
    np.testing.assert_array_equal(box.mask.positions, positions)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([(0, 8), (0, 6), (0, 5)], "along x must lie in order within the 7 voxels"),
        ([(0, 7), (3, 3), (0, 5)], "along y must lie in order"),
        ([(0, 7), (0, 6), (-1, 5)], "along z must lie in order"),
        ([(0, 7), (0, 6)], "must be of x, y and z"),
        ([slice(0, 7, 2), (0, 6), (0, 5)], "must have no step"),
    ],
)
def test_boxes_that_make_no_sense_are_an_error(bounds, message):
    with pytest.raises(ValueError, match=message):
        VoxelBox(bounds, SHAPE)


def test_crops_that_do_not_fit_are_an_error(tmp_path):
    path = write_nifti(tmp_path / "bold.nii", random_raw("int16", (*SHAPE, 3)))
    with pytest.raises(ValueError, match="crop alone"):
        decode_nifti(path, np.ones(SHAPE, bool), crop=BOUNDS)
    with pytest.raises(ValueError, match="crop must be of an image of the shape"):
        decode_nifti(path, crop=np.ones((3, 3, 3), bool))
    moved = VoxelMask(np.ones(SHAPE, bool), np.eye(4))
    with pytest.raises(ValueError, match="crop must have the affine of the image"):
        decode_nifti(path, crop=moved)
    with pytest.raises(ValueError, match="margin must be at least 0"):
        VoxelBox.around(np.ones(SHAPE, bool), margin=-1)
    with pytest.raises(ValueError, match="must end with the shape"):
        VoxelBox(BOUNDS, SHAPE).put_back(np.zeros((3, 3, 3)))
    assert decode_nifti(NiftiFile(path), crop=BOUNDS, dtype=np.float32).shape == (3, 4, 3, 5)
