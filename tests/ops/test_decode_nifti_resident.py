"""decode_voxels: raw values in memory, on the CPU, on emulated CUDA and on a GPU."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nifti_files import CODES, as_tensor, header_like, random_raw, write_nifti

from neurokern.ops import (
    NiftiFile,
    ParcelAtlas,
    VoxelMask,
    _library,
    decode_nifti,
    decode_parcels,
    decode_voxels,
    parcel_index,
)

torch = pytest.importorskip("torch")

SHAPE = (7, 5, 3, 6)


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
        None,
    )
    torch.library.opcheck(torch.ops.neurokern.decode_voxels.default, arguments)


@pytest.mark.cpu_only
@pytest.mark.parametrize("dtype", sorted(CODES))
@pytest.mark.parametrize("order", ["little", "big"])
def test_pytorchs_own_operations_give_the_bits_of_the_kernels(dtype, order):
    raw, positions = random_raw(dtype, SHAPE), torch.tensor([3, 104, 0, 7])
    rows = as_tensor(raw.astype(raw.dtype.newbyteorder(order)))
    for slope, inter in ((1.0, 0.0), (float(np.float32(0.37)), -2.5), (0.1, 3.3)):
        header = header_like(dtype, slope, inter, order)
        for decoded in (torch.float32, torch.float16, torch.bfloat16):
            for columns in (None, positions):
                wanted = decode_voxels(rows, header, columns, dtype=decoded)
                values = decode_voxels(rows, header, columns, dtype=decoded, backend="reference")
                assert torch.equal(values, wanted)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_a_window_may_begin_at_any_address(device, dtype, first):
    raw = random_raw(dtype, (7, 1, 1, 6))
    rows, header = as_tensor(raw).to(device), header_like(dtype, 0.5, 1.0)
    for decoded in (torch.float32, torch.bfloat16):
        wanted = decode_voxels(as_tensor(raw), header, dtype=decoded)[first:]
        assert torch.equal(decode_voxels(rows[first:], header, dtype=decoded).cpu(), wanted)


def test_positions_outside_of_a_row_read_no_other_memory(device):
    rows = as_tensor(random_raw("int16", SHAPE)).to(device)
    positions = torch.tensor([-1, 2**40, 7], device=device)
    if _library.gpu_like(device) is None:
        pytest.skip("the CPU refuses them")
    values = decode_voxels(rows, header_like("int16", 1.0, 0.0), positions)
    assert torch.equal(values[:, 2].cpu(), rows[:, 7].cpu().float())


@pytest.mark.cpu_only
def test_the_ops_compile_without_a_break():
    raw, header = as_tensor(random_raw("int16", SHAPE)), header_like("int16", 0.5, 1.0)
    index, positions = parcel_index(ParcelAtlas(np.arange(105).reshape(7, 5, 3) % 4)), torch.tensor([2, 0])

    def signals(rows):
        return decode_parcels(rows, header, index) * 2, decode_voxels(rows, header, positions) * 2

    compiled = torch.compile(signals, fullgraph=True, backend="aot_eager")
    for ours, wanted in zip(compiled(raw), signals(raw), strict=True):
        assert torch.equal(ours, wanted)


@pytest.mark.gpu
def test_windows_of_a_resident_run_are_captured_in_a_graph():
    raw = as_tensor(random_raw("int16", (20, 20, 10, 70))).cuda()
    header, positions = header_like("int16", 0.5, 1.0), torch.arange(0, 4000, 3, device="cuda")
    index = parcel_index(ParcelAtlas(np.arange(4000).reshape(20, 20, 10) % 7), device="cuda")
    window = raw[:16].clone()

    def signals(rows):
        return decode_voxels(rows, header, positions), decode_parcels(rows, header, index)

    signals(window)  # what is made at the first call cannot be captured
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = signals(window)
    window.copy_(raw[30:46])
    graph.replay()
    for ours, wanted in zip(captured, signals(raw[30:46]), strict=True):
        assert torch.equal(ours, wanted)
