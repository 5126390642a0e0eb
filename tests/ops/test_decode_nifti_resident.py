"""decode_voxels: raw values in memory, on the CPU, on emulated CUDA and on a GPU."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nifti_files import CODES, random_raw, write_nifti

from neurokern.ops import NiftiFile, VoxelMask, decode_nifti, decode_voxels

torch = pytest.importorskip("torch")

SHAPE = (7, 5, 3, 6)


def as_tensor(raw):
    """Values of any type and byte order as integers of their width, (trs, values)."""
    rows = raw.reshape(int(np.prod(raw.shape[:3])), raw.shape[3], order="F").T
    width = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}[raw.dtype.itemsize]
    return torch.from_numpy(np.ascontiguousarray(rows).view(width).copy())


@pytest.mark.parametrize("dtype", sorted(CODES))
@pytest.mark.parametrize("order", ["<", ">"])
def test_raw_values_decode_to_what_the_file_gives(tmp_path, device, dtype, order):
    raw, mask = random_raw(dtype, SHAPE), np.random.default_rng(1).random(SHAPE[:3]) < 0.5
    path = write_nifti(tmp_path / "a.nii", raw, order=order, slope=0.37, inter=-2.5)
    voxels, header = VoxelMask(mask), NiftiFile(path).header
    rows = as_tensor(raw.astype(raw.dtype.newbyteorder(order))).to(device)
    positions = torch.from_numpy(voxels.positions).to(device)
    values = decode_voxels(rows, header, positions)
    np.testing.assert_array_equal(values.cpu(), decode_nifti(path, voxels))


@given(
    n_volumes=st.integers(0, 9),
    n_values=st.integers(1, 700),
    dtype=st.sampled_from(["uint8", "int16", "float32", "float64"]),
    decoded=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    scaled=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_size_and_type(device, n_volumes, n_values, dtype, decoded, scaled, seed):
    raw = random_raw(dtype, (n_values, 1, 1, n_volumes), seed)
    slope, inter = (np.float32(0.11), np.float32(77)) if scaled else (1.0, 0.0)
    header = header_like(dtype, float(slope), float(inter))
    values = decode_voxels(as_tensor(raw).to(device), header, dtype=decoded)
    exact = raw[:, 0, 0].T.astype(np.longdouble) * np.longdouble(slope) + np.longdouble(inter)
    wanted = torch.from_numpy(exact.astype(np.float32)).to(decoded)
    if dtype == "float64" and scaled:  # rounded to double before
        torch.testing.assert_close(
            values.cpu(), wanted, rtol=2**-8 if decoded != torch.float32 else 2**-22, atol=0
        )
    else:
        assert torch.equal(values.cpu(), wanted)


def header_like(dtype, slope, inter):
    from neurokern.ops import NiftiHeader

    eye = np.eye(4)
    return NiftiHeader(
        (1, 1, 1), 1, False, dtype, slope, inter, eye, "none", (1, 1, 1), "mm", None, 1, "little", 352, 0, ""
    )


def test_read_raw_is_what_the_file_holds_in_this_byte_order(tmp_path):
    raw, mask = random_raw("int16", SHAPE), VoxelMask(np.ones(SHAPE[:3]))
    file = NiftiFile(write_nifti(tmp_path / "a.nii.gz", raw, order=">", slope=3))
    np.testing.assert_array_equal(file.read_raw(mask, 1, 4), raw.reshape(-1, SHAPE[3])[:, 1:4].T)
    assert file.header.swapped
    assert not file.header.in_memory.swapped


@pytest.mark.parametrize(
    ("raw", "options", "message"),
    [
        (torch.zeros(3, 4, dtype=torch.int32), {}, "of 2 bytes each"),
        (torch.zeros(12, dtype=torch.int16), {}, "must have the shape"),
        (torch.zeros(3, 4, dtype=torch.int16), {"dtype": torch.int8}, "dtype must be one of"),
        (torch.zeros(3, 4, dtype=torch.int16), {"positions": torch.zeros(2)}, "positions must be int64"),
    ],
)
def test_what_does_not_fit_is_an_error(raw, options, message):
    with pytest.raises(ValueError, match=message):
        decode_voxels(raw, header_like("int16", 1.0, 0.0), **options)


@pytest.mark.cpu_only
def test_the_op_is_a_good_torch_op():
    arguments = (
        torch.arange(12, dtype=torch.int16).reshape(3, 4),
        torch.tensor([2, 0]),
        3,
        False,
        0.5,
        1.0,
        torch.float32,
    )
    torch.library.opcheck(torch.ops.neurokern.decode_voxels.default, arguments)


@pytest.mark.gpu
def test_a_file_decoded_on_a_gpu_equals_the_cpu(tmp_path):
    raw, mask = random_raw("int16", (20, 20, 10, 70)), np.random.default_rng(1).random((20, 20, 10)) < 0.5
    path = write_nifti(tmp_path / "a.nii.gz", raw, slope=0.37, inter=-2.5)
    for chosen in (mask, None):
        assert torch.equal(decode_nifti(path, chosen, device="cuda").cpu(), decode_nifti(path, chosen))


def test_a_device_goes_with_plain_decoding_alone(tmp_path):
    path = write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE))
    with pytest.raises(ValueError, match="computed on the CPU"):
        decode_nifti(path, detrend=True, device="cuda")
    with pytest.raises(ValueError, match="not both"):
        decode_nifti(path, device="cuda", out=torch.empty(SHAPE[3], *SHAPE[:3]))
