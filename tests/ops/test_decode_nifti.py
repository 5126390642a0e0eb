"""decode_nifti: the values of a NIfTI image, as its header says, of the voxels asked for."""

import gzip
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nifti_files import CODES, header_bytes, random_raw, write_nifti

import neurokern as nk
from neurokern.ops import NiftiFile, NiftiFormatError, VoxelMask, decode_nifti

pytestmark = pytest.mark.usefixtures("own_cache")

SHAPE = (5, 4, 3, 6)


def expected(raw, mask, slope=1.0, inter=0.0):
    """The rule, in float64: scaled, rounded to float32, the mask's voxels in C order."""
    slope, inter = np.float64(np.float32(slope)), np.float64(np.float32(inter))
    scaled = raw.astype(np.float64) * slope + inter if (slope, inter) != (1, 0) else raw
    return (
        scaled[mask].T.astype(np.float32)
        if mask is not None
        else np.moveaxis(scaled, -1, 0).astype(np.float32)
    )


def some_mask(shape=SHAPE[:3], seed=0):
    mask = np.random.default_rng(seed).random(shape) < 0.6
    mask[0, 0, 0] = mask[-1, -1, -1] = True
    return mask


# ---- values


@pytest.mark.parametrize("dtype", sorted(CODES))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_type_byte_order_and_version(tmp_path, dtype, order, version, suffix):
    raw, mask = random_raw(dtype, SHAPE), some_mask()
    path = write_nifti(tmp_path / f"a{suffix}", raw, order=order, version=version, slope=0.5, inter=-3.25)
    values = decode_nifti(path, mask, dtype=np.float32)
    np.testing.assert_allclose(values, expected(raw, mask, 0.5, -3.25), rtol=2**-23)
    np.testing.assert_allclose(
        decode_nifti(path, dtype=np.float32), expected(raw, None, 0.5, -3.25), rtol=2**-23
    )


@pytest.mark.parametrize("slope", [0.0, float("nan"), 1.0])
def test_no_scale_leaves_values_as_they_are(tmp_path, slope):
    raw = random_raw("int16", SHAPE)
    path = write_nifti(tmp_path / "a.nii", raw, slope=slope)
    np.testing.assert_array_equal(decode_nifti(path, some_mask()), expected(raw, some_mask()))


def test_a_scaled_value_is_rounded_once(tmp_path):
    raw = np.arange(-32768, 32768, dtype=np.int16).reshape(16, 16, 16, 16)
    slope, inter = np.float32(0.0371), np.float32(1234.567)
    path = write_nifti(tmp_path / "a.nii", raw, slope=slope, inter=inter)
    exact = raw.astype(np.longdouble) * np.longdouble(slope) + np.longdouble(inter)
    values = decode_nifti(path, dtype=np.float32)
    np.testing.assert_array_equal(values, np.moveaxis(exact.astype(np.float32), -1, 0))


def test_nan_and_infinity_of_a_file_are_kept(tmp_path):
    raw = random_raw("float32", SHAPE)
    raw[0, 0, 0], raw[1, 0, 0], raw[2, 0, 0] = np.nan, np.inf, -np.inf
    path = write_nifti(tmp_path / "a.nii", raw)
    np.testing.assert_array_equal(decode_nifti(path, some_mask()), expected(raw, some_mask()))


@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3, st.integers(1, 20)),
    dtype=st.sampled_from(sorted(CODES)),
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
    compressed=st.booleans(),
    swapped=st.booleans(),
    data=st.data(),
)
def test_any_mask_and_window(tmp_path_factory, shape, dtype, density, seed, compressed, swapped, data):
    folder = tmp_path_factory.mktemp("nifti")
    raw = random_raw(dtype, shape, seed)
    mask = np.random.default_rng(seed).random(shape[:3]) < density
    mask[tuple(np.random.default_rng(seed).integers(shape[:3]))] = True
    start = data.draw(st.integers(0, shape[3]))
    stop = data.draw(st.integers(start, shape[3]))
    path = write_nifti(folder / ("a.nii.gz" if compressed else "a.nii"), raw, order=">" if swapped else "<")
    file = NiftiFile(path, cache=False)
    for _ in range(2):  # without and with seek points
        np.testing.assert_array_equal(
            decode_nifti(file, mask, start=start, stop=stop), expected(raw, mask)[start:stop]
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types_are_rounded_from_float32(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    raw = random_raw("float32", (40, 30, 4, 5))
    raw.flat[:8] = [np.nan, np.inf, -np.inf, 7e4, 1e-7, 6e-8, -65519.9, 65520.0]
    path = write_nifti(tmp_path / "a.nii", raw)
    wanted = decode_nifti(path, dtype=torch.float32).to(getattr(torch, dtype))
    values = decode_nifti(path, dtype=getattr(torch, dtype))
    assert torch.equal(torch.nan_to_num(values), torch.nan_to_num(wanted))
    assert torch.equal(values.isnan(), wanted.isnan())


def test_threads_and_pread_and_mapping_give_the_same_bits(tmp_path):
    torch = pytest.importorskip("torch")
    raw, mask = random_raw("int16", (64, 60, 30, 33)), some_mask((64, 60, 30))
    path = write_nifti(tmp_path / "a.nii.gz", raw, slope=0.3, inter=7)
    write_nifti(tmp_path / "a.nii", raw, slope=0.3, inter=7)
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            file = NiftiFile(path, cache=False)
            results += [
                decode_nifti(file, mask),
                decode_nifti(file, mask),
                decode_nifti(tmp_path / "a.nii", mask),
            ]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(results[0], other) for other in results[1:])
    np.testing.assert_array_equal(results[0], expected(raw, mask, 0.3, 7))


# ---- out, dtype, masks


def test_out_is_written_and_returned(tmp_path):
    raw, mask = random_raw("int16", SHAPE), some_mask()
    path = write_nifti(tmp_path / "a.nii", raw)
    block = np.full((SHAPE[3], mask.sum() + 3), -7, np.float32)
    out = block[:, : mask.sum()]
    assert decode_nifti(path, mask, out=out) is out
    np.testing.assert_array_equal(out, expected(raw, mask))
    assert (block[:, mask.sum() :] == -7).all()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((6, 3), np.float32), "must have the shape"),
        (np.empty((6, 60), np.int16), "dtype must be one of"),
        (np.empty((60, 6), np.float32).T, "next to each other"),
    ],
)
def test_a_wrong_out_is_an_error(tmp_path, out, message):
    path = write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE))
    with pytest.raises(ValueError, match=message):
        decode_nifti(path, np.ones(SHAPE[:3], bool), out=out)


def test_mask_of_another_shape_or_affine_is_an_error_with_both(tmp_path):
    path = write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE))
    with pytest.raises(ValueError, match=r"\(5, 4, 3\), got \(5, 4, 2\)"):
        decode_nifti(path, np.ones((5, 4, 2), bool))
    with pytest.raises(ValueError, match="must have the affine of the image"):
        decode_nifti(path, VoxelMask(np.ones((5, 4, 3), bool), affine=np.eye(4)))


def test_an_empty_mask_is_an_error(tmp_path):
    path = write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE))
    with pytest.raises(ValueError, match="at least one voxel"):
        decode_nifti(path, np.zeros(SHAPE[:3], bool))


def test_a_mask_may_be_a_file_an_array_a_tensor_or_prepared(tmp_path):
    torch = pytest.importorskip("torch")
    raw, mask = random_raw("int16", SHAPE), some_mask()
    path = write_nifti(tmp_path / "a.nii", raw)
    mask_path = write_nifti(tmp_path / "mask.nii.gz", mask.astype(np.uint8))
    for given_mask in (mask, mask.astype(float), torch.from_numpy(mask), mask_path, VoxelMask(mask)):
        np.testing.assert_array_equal(decode_nifti(path, given_mask), expected(raw, mask))


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 7)])
def test_a_window_outside_of_the_run_is_an_error(tmp_path, start, stop):
    path = write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE))
    with pytest.raises(ValueError, match="within the 6 volumes"):
        decode_nifti(path, start=start, stop=stop)


# ---- handles


def test_a_handle_survives_pickling(tmp_path):
    raw, mask = random_raw("int16", SHAPE), some_mask()
    file = pickle.loads(pickle.dumps(NiftiFile(write_nifti(tmp_path / "a.nii.gz", raw))))
    np.testing.assert_array_equal(decode_nifti(file, mask), expected(raw, mask))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_that_shrinks_while_open_is_an_error(tmp_path, suffix):
    path = write_nifti(tmp_path / f"a{suffix}", random_raw("int16", (64, 64, 20, 4)))
    file = NiftiFile(path)
    os.truncate(path, 400)
    with pytest.raises(NiftiFormatError, match="changed while it was open"):
        decode_nifti(file)


class ShrinkingFile:
    """An open file that another process cuts short right after it was found unchanged."""

    def __init__(self, file, path):
        self._file, self._path = file, path

    def __getattr__(self, name):
        return getattr(self._file, name)

    def is_unchanged(self):
        unchanged = self._file.is_unchanged()
        os.truncate(self._path, 400)
        return unchanged


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_that_shrinks_while_it_is_decoded_is_an_error(tmp_path, suffix):
    path = write_nifti(tmp_path / f"a{suffix}", random_raw("int16", (64, 64, 20, 4)))
    other = write_nifti(tmp_path / "b.nii", random_raw("int16", SHAPE))
    for _ in range(2):  # the guard must be there again for the next file
        file = NiftiFile(write_nifti(path, random_raw("int16", (64, 64, 20, 4))))
        file._file = ShrinkingFile(file._file, path)
        with pytest.raises(NiftiFormatError, match=r"changed while it was open|cut short|damaged"):
            decode_nifti(file)
    np.testing.assert_array_equal(decode_nifti(other), expected(random_raw("int16", SHAPE), None))


def test_a_bus_error_elsewhere_still_reaches_the_handler_before_ours():
    program = """
import ctypes, faulthandler, mmap, os, tempfile, neurokern as nk
import numpy as np
faulthandler.enable()
from nifti_files import write_nifti
from pathlib import Path
folder = Path(tempfile.mkdtemp())
file = nk.ops.NiftiFile(write_nifti(folder / "a.nii", np.ones((8, 8, 8, 2), "int16")))
(folder / "b").write_bytes(bytes(8192))
with open(folder / "b", "r+b") as stream:
    other = mmap.mmap(stream.fileno(), 8192)
    os.truncate(folder / "b", 0)
    print("about to read", flush=True)
    other[5000]
print("survived")
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60
    )
    sanitized = os.environ.get("NEUROKERN_SANITIZED") == "1"  # its handler was there before ours, too
    assert run.stdout == "about to read\n"
    assert ("AddressSanitizer: BUS" if sanitized else "Bus error") in run.stderr
    assert run.returncode == (1 if sanitized else -signal.SIGBUS)


def test_header_and_values_may_lie_in_two_files(tmp_path):
    raw = random_raw("int16", SHAPE)
    (tmp_path / "a.hdr").write_bytes(header_bytes(SHAPE, "int16", magic=b"ni1\0", vox_offset=0))
    (tmp_path / "a.img").write_bytes(raw.tobytes(order="F"))
    for name in ("a.hdr", "a.img"):
        np.testing.assert_array_equal(decode_nifti(tmp_path / name), expected(raw, None))


def test_the_header_is_read_as_it_stands(tmp_path):
    header = NiftiFile(write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE), slope=2, inter=1)).header
    assert (header.shape, header.n_volumes, header.dtype, header.tr) == ((5, 4, 3), 6, "int16", 1.5)
    assert (header.slope, header.inter, header.spatial_unit, header.affine_source) == (2, 1, "mm", "sform")
    np.testing.assert_array_equal(header.affine[:3], [[2, 0, 0, -9], [0, 2, 0, 4], [0, 0, 3, 7]])


# ---- damaged and odd files


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"magic": b"abc\0"}, "magic must be"),
        ({"dim": [0, 5, 4, 3, 6, 1, 1, 1]}, r"dim\[0\] must be 1 to 7"),
        ({"dim": [8, 5, 4, 3, 6, 1, 1, 1]}, r"dim\[0\] must be 1 to 7"),
        ({"dim": [4, 5, -4, 3, 6, 1, 1, 1]}, r"dim\[2\] must be at least 1, got -4"),
        ({"dim": [4, 5, 0, 3, 6, 1, 1, 1]}, r"dim\[2\] must be at least 1, got 0"),
        ({"dim": [5, 5, 4, 3, 6, 2, 1, 1]}, r"got dim\[5\] = 2"),
        ({"dim": [4, 32767, 32767, 32767, 32767, 1, 1, 1]}, "must hold|fewer than 2"),
        ({"datatype": 9999}, "datatype must be a code of the NIfTI standard, got 9999"),
        ({"datatype": 0}, "datatype must be a code"),
        ({"datatype": 32}, "complex64"),
        ({"datatype": 128}, "RGB24"),
        ({"vox_offset": 0}, "vox_offset must be at least 352 .*, got 0"),
        ({"vox_offset": 350}, "vox_offset must be at least 352"),
        ({"vox_offset": -16}, "vox_offset must be at least 352"),
        ({"vox_offset": float("nan")}, "vox_offset must be a whole number"),
        ({"vox_offset": 1e7}, "vox_offset must lie inside the file"),
        ({"slope": float("inf")}, "scl_slope must be finite"),
        ({"slope": 1, "inter": float("nan")}, "scl_inter must be finite"),
    ],
)
def test_a_header_that_contradicts_itself_is_an_error_with_field_and_value(tmp_path, fields, message):
    path = write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE), **fields)
    with pytest.raises(NiftiFormatError, match=message) as error:
        decode_nifti(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("n_bytes", [0, 1, 100, 347, 348, 352, 500, 1071])
def test_a_file_cut_short_is_an_error(tmp_path, n_bytes):
    path = write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE))
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(NiftiFormatError, match=r"empty|must have 348 bytes|must hold|inside the file"):
        decode_nifti(path)


@pytest.mark.parametrize("as_mask", [False, True])
def test_a_small_file_that_promises_a_huge_volume_is_refused_before_memory_is_asked_for(tmp_path, as_mask):
    dim = [3, 30_000, 30_000, 30_000, 1, 1, 1, 1]
    path = write_nifti(tmp_path / "a.nii.gz", random_raw("int16", SHAPE), dim=dim)
    with pytest.raises(NiftiFormatError, match=r"promises 54000000000000 bytes .*GiB.* can hold"):
        VoxelMask(path) if as_mask else decode_nifti(path)


def test_a_stream_too_short_for_its_header_names_the_volume(tmp_path):
    raw = random_raw("int16", SHAPE)
    whole = gzip.decompress(write_nifti(tmp_path / "a.nii.gz", raw).read_bytes())
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(whole[: 352 + 2 * 60 * 4 + 7]))
    with pytest.raises(NiftiFormatError, match="must hold 6 volumes, it ends in volume 4"):
        decode_nifti(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("at", [-1, -6, -300])
def test_a_flipped_bit_in_a_compressed_file_is_an_error(tmp_path, at):
    path = write_nifti(tmp_path / "a.nii.gz", random_raw("int16", (32, 32, 16, 12)))
    whole = bytearray(path.read_bytes())
    whole[at] ^= 0x10
    path.write_bytes(whole)
    with pytest.raises(NiftiFormatError, match=r"damaged|cut short|ends"):
        decode_nifti(path)


def test_what_is_compressed_is_read_off_the_bytes_not_the_name(tmp_path):
    raw = random_raw("int16", SHAPE)
    write_nifti(tmp_path / "a.nii.gz", raw).rename(tmp_path / "b.nii")
    np.testing.assert_array_equal(decode_nifti(tmp_path / "b.nii"), expected(raw, None))


def test_missing_files_folders_and_pipes_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        decode_nifti(tmp_path / "none.nii")
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        decode_nifti(tmp_path)
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(OSError, match="not a regular file"):
        decode_nifti(tmp_path / "pipe.nii")


@given(where=st.integers(0, 1071), value=st.integers(0, 255), compressed=st.booleans())
def test_no_byte_of_a_file_can_do_more_than_raise(tmp_path_factory, where, value, compressed):
    folder = tmp_path_factory.mktemp("mutated")
    path = write_nifti(folder / ("a.nii.gz" if compressed else "a.nii"), random_raw("int16", SHAPE), slope=2)
    whole = bytearray(path.read_bytes())
    whole[where % len(whole)] = value
    path.write_bytes(whole)
    try:
        values = decode_nifti(path, dtype=np.float32)
    except NiftiFormatError:
        return
    assert values.dtype == np.float32
    assert values.size <= raw_values(whole)


def raw_values(whole):
    return 2**20 if whole[:2] == b"\x1f\x8b" else len(whole)


# ---- real files


def test_real_images_equal_nibabel(shared_data):
    nibabel = pytest.importorskip("nibabel")
    paths = sorted(shared_data.rglob("*.nii*"))
    assert paths
    for path in paths:
        image = nibabel.load(path)
        values = image.get_fdata()
        wanted = (np.moveaxis(values, -1, 0) if values.ndim == 4 else values[None]).astype(np.float32)
        np.testing.assert_array_equal(decode_nifti(path), wanted, err_msg=str(path))
        np.testing.assert_allclose(NiftiFile(path).header.affine, image.affine, atol=1e-5)


def test_the_op_is_at_the_top_level():
    assert nk.decode_nifti is decode_nifti
