"""decode_parcels: means over parcels of raw values in memory, with the bits of those of a file."""

import contextlib

import numpy as np
import pytest
from nifti_files import CODES, as_tensor, header_like, random_raw, write_nifti

from neurokern.ops import NiftiFile, ParcelAtlas, decode_nifti, decode_parcels, parcel_index
from neurokern.ops._nifti_header import VOXEL_TYPES

torch = pytest.importorskip("torch")

SHAPE = (7, 5, 3, 6)


def some_labels():
    return np.random.default_rng(2).integers(0, 5, SHAPE[:3]) * 3


@pytest.mark.parametrize("dtype", sorted(CODES))
@pytest.mark.parametrize("order", ["<", ">"])
def test_parcels_in_memory_have_the_bits_of_those_of_a_file(tmp_path, device, dtype, order):
    raw, atlas = random_raw(dtype, SHAPE), ParcelAtlas(some_labels())
    path = write_nifti(tmp_path / "a.nii", raw, order=order, slope=0.37, inter=-2.5)
    file = NiftiFile(path)
    volumes = as_tensor(raw.astype(raw.dtype.newbyteorder(order))).to(device)
    voxels = torch.from_numpy(file.read_raw(atlas.mask).view(f"i{raw.dtype.itemsize}")).to(device)
    wanted = decode_nifti(path, labels=atlas)
    means = decode_parcels(volumes, file.header, parcel_index(atlas, device=device))
    assert torch.equal(means.cpu(), wanted)
    packed = parcel_index(atlas, device=device, packed=True)
    assert torch.equal(decode_parcels(voxels, file.header.in_memory, packed).cpu(), wanted)


@pytest.mark.parametrize("dtype", ["int16", "float64"])
def test_parcels_of_many_runs_and_volumes(tmp_path, device, dtype):
    raw, rng = random_raw(dtype, (40, 9, 3, 5)), np.random.default_rng(0)
    labels = rng.integers(0, 3, (40, 9, 3))
    if dtype == "float64":  # large numbers that cancel: their sum is another in any other order
        for parcel in (1, 2):
            signs = np.resize([1e15, -1e15], (labels == parcel).sum() // 2 * 2)
            voxels = np.argwhere(labels == parcel)[: len(signs)].T
            raw[tuple(voxels)] += rng.permutation(signs)[:, None]
    atlas = ParcelAtlas(labels)
    path = write_nifti(tmp_path / "a.nii", raw)
    index = parcel_index(atlas, device=device)
    assert bool((index.parcel_runs.diff() > 64).all())
    means = decode_parcels(as_tensor(raw).to(device), NiftiFile(path).header, index)
    assert torch.equal(means.cpu(), decode_nifti(path, labels=atlas))
    if dtype == "float64":
        turned = write_nifti(tmp_path / "b.nii", raw[::-1])
        assert not torch.equal(means.cpu(), decode_nifti(turned, labels=ParcelAtlas(labels[::-1])))


@pytest.mark.cpu_only
@pytest.mark.parametrize("dtype", sorted(CODES))
def test_pytorchs_own_operations_give_the_bits_of_the_kernels(dtype):
    raw, index = random_raw(dtype, SHAPE), parcel_index(ParcelAtlas(some_labels()))
    for order in ("little", "big"):
        rows = as_tensor(raw.astype(raw.dtype.newbyteorder(order)))
        header = header_like(dtype, 0.1, 3.3, order)
        wanted = decode_parcels(rows, header, index)
        assert torch.equal(decode_parcels(rows, header, index, backend="reference"), wanted)


def test_weights_in_memory_give_weighted_means(tmp_path, device):
    raw, weights = random_raw("int16", SHAPE), np.random.default_rng(0).random((*SHAPE[:3], 4))
    path = write_nifti(tmp_path / "a.nii", raw, slope=0.5, inter=3)
    atlas, header = ParcelAtlas(weights), NiftiFile(path).header
    voxels = torch.from_numpy(NiftiFile(path).read_raw(atlas.mask)).to(device)
    wanted = decode_nifti(path, labels=atlas)
    for rows, packed in ((as_tensor(raw).to(device), False), (voxels, True)):
        means = decode_parcels(rows, header, parcel_index(atlas, device=device, packed=packed))
        torch.testing.assert_close(means.cpu(), wanted, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_an_index_that_points_anywhere_reads_no_other_memory(device, dtype):
    rows = as_tensor(random_raw(dtype, SHAPE)).to(device)
    runs = torch.tensor([-5, 3, 2**40]), torch.tensor([-(2**40), 1, 1, 2**40])
    for positions in (torch.tensor([-1, 2**40, 5, 104]), torch.tensor([0])):
        parts = (part.to(device) for part in (positions, *runs, torch.ones(3, dtype=torch.float64)))
        with contextlib.suppress(ValueError):  # which the CPU raises
            means = torch.ops.neurokern.decode_parcels(
                rows, *parts, VOXEL_TYPES[dtype], False, 1.0, 0.0, None
            )
            assert means.shape == (SHAPE[3], 3)


@pytest.mark.cpu_only
def test_the_op_is_a_good_torch_op():
    raw, index = as_tensor(random_raw("int16", SHAPE)), parcel_index(ParcelAtlas(some_labels()))
    parts = (index.positions, index.run_starts, index.parcel_runs, index.sizes)
    arguments = (raw, *parts, VOXEL_TYPES["int16"], False, 0.5, 1.0, None)
    torch.library.opcheck(torch.ops.neurokern.decode_parcels.default, arguments)


@pytest.mark.cpu_only
@pytest.mark.parametrize(
    ("rows", "index", "error", "message"),
    [
        (torch.zeros(3, 104, dtype=torch.int16), None, ValueError, "must have the 105 values"),
        (torch.zeros(3, 105, dtype=torch.int32), None, ValueError, "of 2 bytes each"),
        (torch.zeros(3, 105, dtype=torch.int16), 7, TypeError, "must come from parcel_index"),
    ],
)
def test_what_does_not_fit_is_an_error(rows, index, error, message):
    index = parcel_index(ParcelAtlas(some_labels())) if index is None else index
    with pytest.raises(error, match=message):
        decode_parcels(rows, header_like("int16", 1.0, 0.0), index)
