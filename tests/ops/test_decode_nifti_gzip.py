"""decode_nifti on .nii.gz: what is inflated, seek points and where they are kept, damaged streams.

Costs are counted in inflated bytes, which do not depend on the machine.
"""

import gzip
import os
import pickle
import struct
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nifti_files import header_bytes, random_raw, write_nifti

from neurokern.ops import NiftiFile, NiftiFormatError, VoxelMask, decode_nifti

pytestmark = pytest.mark.usefixtures("own_cache")

SHAPE = (64, 64, 32, 24)
VOLUME_BYTES = 2 * 64 * 64 * 32
N_BYTES = 352 + VOLUME_BYTES * SHAPE[3]
SEEK_BYTES = 2 * VOLUME_BYTES  # between seek points
MEMBER_HEADER = b"\x1f\x8b\x08\x00" + bytes(6)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A compressed run of 6 MB, its voxels as they must be decoded, and a mask."""
    raw = (np.random.default_rng(0).normal(300, 30, SHAPE)).astype(np.int16)
    path = tmp_path_factory.mktemp("run") / "a.nii.gz"
    whole = bytes(header_bytes(SHAPE, "int16")) + bytes(4) + raw.tobytes(order="F")
    path.write_bytes(gzip.compress(whole, 1))
    mask = np.random.default_rng(1).random(SHAPE[:3]) < 0.2
    return path, raw[mask].T.astype(np.float32), mask


@pytest.fixture
def run(made, tmp_path):
    """The same in a file of the test's own."""
    path, values, mask = made
    (tmp_path / "a.nii.gz").write_bytes(path.read_bytes())
    return tmp_path / "a.nii.gz", values, VoxelMask(mask)


def inflated(file):
    return file._stream.n_inflated


def kept_files(folder):
    return sorted(folder.glob("cache/gzip_index/*")) + sorted(folder.glob("*.nkindex"))


def members(whole, size):
    """The bytes as gzip members of `size` inflated bytes."""
    return b"".join(gzip.compress(whole[i : i + size], 1) for i in range(0, len(whole), size))


# ---- what is inflated


def test_a_window_near_the_start_inflates_no_more_than_it_needs(run):
    path, values, mask = run
    file = NiftiFile(path)
    np.testing.assert_array_equal(decode_nifti(file, mask, stop=3), values[:3])
    assert inflated(file) == 352 + 3 * VOLUME_BYTES


def test_windows_one_after_the_other_cost_one_pass(run):
    path, values, mask = run
    file = NiftiFile(path)
    for start in range(0, 24, 2):
        np.testing.assert_array_equal(
            decode_nifti(file, mask, start=start, stop=start + 2), values[start : start + 2]
        )
    assert inflated(file) == N_BYTES


def test_windows_by_path_cost_two_passes_at_most(run):
    path, values, mask = run
    total = 0
    for start in range(0, 24, 2):
        file = NiftiFile(path)  # knows what the handle before it kept
        np.testing.assert_array_equal(
            decode_nifti(file, mask, start=start, stop=start + 2), values[start : start + 2]
        )
        file.save_seek_points()
        total += inflated(file)
    assert total < 2 * N_BYTES
    before = len(kept_files(path.parent))
    np.testing.assert_array_equal(decode_nifti(path, mask, start=5, stop=9), values[5:9])
    assert before == len(kept_files(path.parent)) == 1


@pytest.mark.parametrize("start", [0, 1, 7, 22])
def test_a_window_that_was_passed_starts_at_a_seek_point(run, start):
    path, values, mask = run
    file = NiftiFile(path, cache=False)
    decode_nifti(file, mask)
    before = inflated(file)
    np.testing.assert_array_equal(
        decode_nifti(file, mask, start=start, stop=start + 2), values[start : start + 2]
    )
    assert inflated(file) - before < 2 * VOLUME_BYTES + SEEK_BYTES


@settings(max_examples=15)
@given(
    windows=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24), st.integers(1, 3)), max_size=5),
    cache=st.booleans(),
)
def test_any_order_of_windows_and_threads_gives_the_same_bits(made, windows, cache):
    torch = pytest.importorskip("torch")
    path, values, mask = made
    file, threads = NiftiFile(path, cache=cache), torch.get_num_threads()
    try:
        for start, stop, n in windows:
            torch.set_num_threads(n)
            start, stop = sorted((start, stop))
            np.testing.assert_array_equal(
                decode_nifti(file, mask, start=start, stop=stop), values[start:stop]
            )
    finally:
        torch.set_num_threads(threads)


def test_threads_of_python_may_share_a_handle(run):
    path, values, mask = run
    file, wrong = NiftiFile(path), []

    def read(starts):
        for start in starts:
            if not np.array_equal(
                decode_nifti(file, mask, start=start, stop=start + 3), values[start : start + 3]
            ):
                wrong.append(start)

    threads = [threading.Thread(target=read, args=(range(first, 22, 3),)) for first in (0, 1, 2, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("size", [40_000, 65_536, 700_001])
def test_small_members_have_seek_points_too(tmp_path, run, size):
    path, values, mask = run
    path.write_bytes(members(gzip.decompress(path.read_bytes()), size))
    file = NiftiFile(path)
    np.testing.assert_array_equal(decode_nifti(file, mask), values)
    before = inflated(file)
    np.testing.assert_array_equal(decode_nifti(file, mask, start=20, stop=22), values[20:22])
    assert inflated(file) - before < 2 * VOLUME_BYTES + SEEK_BYTES + size


def test_blocks_longer_than_volumes_are_read_right(tmp_path):
    raw = np.zeros(SHAPE, np.int16)
    raw[::9, ::7, 3, ::2] = 1
    file = NiftiFile(write_nifti(tmp_path / "a.nii.gz", raw))
    for start in (0, 22, 7, 3):
        values = decode_nifti(file, start=start, stop=start + 2)
        np.testing.assert_array_equal(values, np.moveaxis(raw[..., start : start + 2], -1, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_private_memory_grows_by_the_output_and_16_mb(tmp_path):
    pytest.importorskip("torch")
    shape = (96, 96, 60, 50)
    raw = np.zeros(shape, np.int16)
    raw[:20] = np.random.default_rng(0).integers(0, 99, (20, *shape[1:]))
    path = write_nifti(tmp_path / "a.nii.gz", raw)
    code = f"""
import numpy as np, torch
from neurokern.ops import NiftiFile, VoxelMask, decode_nifti
def peak(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]) / 1000
torch.set_num_threads(1)
mask = np.zeros({shape[:3]}, bool); mask[20:60, 10:70, 10:50] = True
mask = VoxelMask(mask)
decode_nifti({str(path)!r}, mask, stop=1)
file, out, before = NiftiFile({str(path)!r}, cache=False), torch.ones(50, mask.n_voxels), peak()
for _ in range(2): decode_nifti(file, mask, out=out)
print(peak() - before)
"""
    grown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(grown) < 16


# ---- seek points in files


def test_seek_points_are_kept_at_the_end_of_the_stream_and_found_again(run):
    path, values, mask = run
    decode_nifti(path, mask)
    assert len(kept_files(path.parent)) == 1
    for file in (NiftiFile(path), pickle.loads(pickle.dumps(NiftiFile(path)))):
        np.testing.assert_array_equal(decode_nifti(file, mask, start=20, stop=23), values[20:23])
        assert inflated(file) < 3 * VOLUME_BYTES + SEEK_BYTES


def test_a_forked_child_and_its_parent_go_on_with_a_pass_apart(run):
    path, values, mask = run
    file = NiftiFile(path)
    decode_nifti(file, mask, stop=6)
    child = os.fork()
    if child == 0:
        right = np.array_equal(decode_nifti(file, mask, start=6), values[6:])
        right &= np.array_equal(decode_nifti(file, mask, start=8, stop=10), values[8:10])
        os._exit(0 if right else 1)
    np.testing.assert_array_equal(decode_nifti(file, mask, start=6, stop=18), values[6:18])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for start in (15, 1, 9, 20):
        np.testing.assert_array_equal(
            decode_nifti(file, mask, start=start, stop=start + 2), values[start:][:2]
        )


def test_without_a_folder_to_write_to_seek_points_stay_in_memory(run, tmp_path, monkeypatch):
    path, values, mask = run
    (tmp_path / "occupied").write_bytes(b"")
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "occupied"))
    file = NiftiFile(path)
    decode_nifti(file, mask)
    before = inflated(file)
    np.testing.assert_array_equal(decode_nifti(file, mask, start=20, stop=22), values[20:22])
    assert inflated(file) - before <= 2 * VOLUME_BYTES + 2 * SEEK_BYTES


def test_a_handle_learns_what_another_one_kept(run):
    path, values, mask = run
    file = NiftiFile(path)
    decode_nifti(file, mask, stop=1)
    decode_nifti(NiftiFile(path), mask)
    before = inflated(file)
    np.testing.assert_array_equal(decode_nifti(file, mask, start=20, stop=22), values[20:22])
    assert inflated(file) - before < 2 * VOLUME_BYTES + SEEK_BYTES


def test_a_pass_goes_on_in_another_handle_and_still_checks_the_whole(run):
    path, values, mask = run
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 1  # the checksum
    path.write_bytes(whole)
    file = NiftiFile(path)
    np.testing.assert_array_equal(decode_nifti(file, mask, stop=20), values[:20])
    file.save_seek_points()
    again = NiftiFile(path)
    np.testing.assert_array_equal(decode_nifti(again, mask, start=20, stop=23), values[20:23])
    assert inflated(again) < 3 * VOLUME_BYTES + SEEK_BYTES
    with pytest.raises(NiftiFormatError, match="must have the checksum"):
        decode_nifti(again, mask, start=22)


def test_seek_points_may_lie_beside_the_file(run, monkeypatch):
    path, values, mask = run
    path.chmod(0o640)
    decode_nifti(NiftiFile(path, cache="beside"), mask)
    (kept,) = kept_files(path.parent)
    assert kept == path.with_name("a.nii.gz.nkindex")
    assert kept.stat().st_mode & 0o777 == 0o640  # it holds pieces of the data
    file = NiftiFile(path)
    np.testing.assert_array_equal(decode_nifti(file, mask, start=20, stop=22), values[20:22])
    assert inflated(file) < 2 * VOLUME_BYTES + SEEK_BYTES
    kept.unlink()
    monkeypatch.setenv("NEUROKERN_GZIP_INDEX", "beside")
    decode_nifti(path, mask)
    assert kept_files(path.parent) == [kept]
    monkeypatch.setenv("NEUROKERN_GZIP_INDEX", "besides")
    with pytest.raises(ValueError, match="NEUROKERN_GZIP_INDEX must be 'cache' or 'beside'"):
        NiftiFile(path)


def test_without_a_cache_nothing_is_written(run):
    path, values, mask = run
    file = NiftiFile(path, cache=False)
    for _ in range(2):
        np.testing.assert_array_equal(decode_nifti(file, mask), values)
    file.save_seek_points()
    assert kept_files(path.parent) == []


def test_a_folder_that_cannot_be_written_is_no_error(run, monkeypatch):
    path, values, mask = run
    (path.parent / "cache").write_text("a file where the folder should be")
    np.testing.assert_array_equal(decode_nifti(path, mask), values)


def patched(kept, at, value):
    damaged = bytearray(kept)
    damaged[at] ^= value
    return bytes(damaged)


DAMAGE = {
    "empty": lambda kept: b"",
    "cut short in front": lambda kept: kept[100:],
    "cut short behind": lambda kept: kept[:-1],
    "only a footer": lambda kept: kept[-80:],
    "a flipped bit in a window": lambda kept: patched(kept, 40, 1),
    "a flipped bit in the last window": lambda kept: patched(kept, -80 - 48 * 11 - 9, 1),
    "a flipped bit in the table": lambda kept: patched(kept, -90, 4),
    "another key": lambda kept: patched(kept, -80, 4),
    "another size of the file": lambda kept: patched(kept, -48, 4),
    "other spacing": lambda kept: patched(kept, -32, 4),
    "too many points": lambda kept: patched(kept, -18, 255),
    "another version": lambda kept: patched(kept, -1, 1),
    "rubbish": lambda kept: os.urandom(5000),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_seek_points_is_built_again(run, damage):
    path, values, mask = run
    decode_nifti(path, mask)
    (kept,) = kept_files(path.parent)
    right = kept.read_bytes()
    kept.write_bytes(DAMAGE[damage](right))
    file = NiftiFile(path)
    for start in (1, 2, 22):
        np.testing.assert_array_equal(
            decode_nifti(file, mask, start=start, stop=start + 2), values[start:][:2]
        )
    np.testing.assert_array_equal(decode_nifti(file, mask), values)
    assert kept.read_bytes() == right


ROW = struct.Struct("<4q4I")
FOOTER_BYTES = 80


def rewritten(kept, change):
    """The file with its rows changed and the checksum made right, so that only what it says is wrong."""
    footer = bytearray(kept[-FOOTER_BYTES:])
    n_points = struct.unpack_from("<q", footer, 56)[0]
    begin = len(kept) - FOOTER_BYTES - n_points * ROW.size
    rows = [list(row) for row in ROW.iter_unpack(kept[begin:-FOOTER_BYTES])]
    change(rows)
    table = b"".join(ROW.pack(*row) for row in rows)
    struct.pack_into("<q", footer, 56, len(rows))
    struct.pack_into("<I", footer, 68, 0)
    struct.pack_into("<I", footer, 68, zlib.crc32(footer, zlib.crc32(table)))
    return kept[:begin] + table + bytes(footer)


def set_field(row, field, value):
    def change(rows):
        rows[row][field] = value(rows[row][field])

    return change


LIES = {
    "offsets that run backwards": set_field(3, 0, lambda out: 5),
    "an offset past the values": set_field(-1, 0, lambda out: 1 << 60),
    "a place in the file that is none": set_field(4, 1, lambda place: 1 << 40),
    "a place next to the block": set_field(4, 1, lambda place: place + 1),
    "other bits": set_field(4, 5, lambda bits: (bits + 1) % 8),
    "too many bits": set_field(4, 5, lambda bits: 77),
    "a member before the file": set_field(4, 2, lambda member: -1),
    "a window beyond the file": set_field(-1, 3, lambda place: 1 << 40),
    "a window that is too long": set_field(4, 6, lambda n: 1 << 31),
    "a shifted offset": set_field(4, 0, lambda out: out + 2),
    "another checksum": set_field(5, 4, lambda crc: crc ^ 1),
    "negative places": set_field(0, 3, lambda place: -9),
}


@pytest.mark.parametrize("lie", LIES)
def test_seek_points_that_lie_are_found_out(run, lie):
    path, values, mask = run
    decode_nifti(path, mask)
    (kept,) = kept_files(path.parent)
    kept.write_bytes(rewritten(kept.read_bytes(), LIES[lie]))
    file = NiftiFile(path)
    np.testing.assert_array_equal(decode_nifti(file, mask), values)
    np.testing.assert_array_equal(decode_nifti(file, mask, start=8, stop=11), values[8:11])


def test_seek_points_that_vanish_while_the_handle_is_open_are_found_again(run):
    path, values, mask = run
    file = NiftiFile(path)
    decode_nifti(file, mask)
    (kept,) = kept_files(path.parent)
    kept.unlink()
    np.testing.assert_array_equal(decode_nifti(file, mask, start=8, stop=11), values[8:11])
    np.testing.assert_array_equal(decode_nifti(file, mask), values)
    assert kept.exists()


def test_a_rewritten_file_is_not_read_by_old_seek_points(run):
    path, _, mask = run
    voxels = decode_nifti(path, mask, dtype=np.float32)
    for seed in (1, 2):
        raw = np.random.default_rng(seed).normal(300, 30, SHAPE).astype(np.int16)
        write_nifti(path, raw[..., :6])
        wanted = decode_nifti(NiftiFile(path, cache=False), mask, dtype=np.float32)
        assert not np.array_equal(wanted, voxels[:6])
        for _ in range(2):
            np.testing.assert_array_equal(decode_nifti(path, mask, start=3, stop=5), wanted[3:5])


def test_several_writers_leave_one_whole_file(run):
    path, values, mask = run
    threads = [threading.Thread(target=decode_nifti, args=(NiftiFile(path), mask)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept_files(path.parent)) == len(list((path.parent / "cache" / "gzip_index").iterdir())) == 1
    file = NiftiFile(path)
    np.testing.assert_array_equal(decode_nifti(file, mask, start=20, stop=22), values[20:22])
    assert inflated(file) < 2 * VOLUME_BYTES + SEEK_BYTES


# ---- damaged and odd streams


def small(tmp_path):
    raw = random_raw("int16", (16, 16, 8, 12))
    path = write_nifti(tmp_path / "a.nii.gz", raw)
    return path, gzip.decompress(path.read_bytes()), np.moveaxis(raw, -1, 0).astype(np.float32)


def deflated(whole):
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(whole) + packer.flush()


def trailer(whole):
    return struct.pack("<2I", zlib.crc32(whole), len(whole))


@pytest.mark.parametrize("flags", [0, 1, 2, 4, 8, 16, 6, 30, 31])
def test_every_field_of_a_members_header_is_read_over(tmp_path, flags):
    path, whole, values = small(tmp_path)
    header = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    header += struct.pack("<H", 700) + bytes(range(1, 101)) * 7 if flags & 4 else b""
    header += b"bold.nii\0" if flags & 8 else b""
    header += b"made up\0" if flags & 16 else b""
    header += struct.pack("<H", zlib.crc32(header) & 0xFFFF) if flags & 2 else b""
    path.write_bytes(header + deflated(whole) + trailer(whole))
    np.testing.assert_array_equal(decode_nifti(path), values)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\x1f\x8b\x08\x02" + bytes(6) + b"\x12\x34", "member at byte 0 is damaged: its header's checksum"),
        (b"\x1f\x8b\x08\x20" + bytes(6), "member at byte 0 is damaged: its flags must be below 32, got 32"),
        (b"\x1f\x8b\x07\x00" + bytes(6), "member at byte 0 is damaged: its method must be 8, got 7"),
        (b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 9, "stream ends at byte 19, after 0 inflated bytes"),
        (b"\x1f\x8b\x08\x04" + bytes(6) + b"\xff\xff", "stream ends at byte 12, after 0 inflated bytes"),
        (b"\x1f\x8b\x08\x00", "stream ends at byte 4, after 0 inflated bytes"),
    ],
)
def test_a_damaged_members_header_names_file_and_place(tmp_path, header, message):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(header)
    with pytest.raises(NiftiFormatError, match=message) as error:
        decode_nifti(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (lambda whole: struct.pack("<2I", 1, len(whole)), "must have the checksum 1, it has"),
        (
            lambda whole: struct.pack("<2I", zlib.crc32(whole), 7),
            r"must have the length 7 modulo 2\^32, it has",
        ),
        (lambda whole: b"", "it is cut short"),
        (lambda whole: trailer(whole)[:5], "it is cut short"),
    ],
)
def test_a_damaged_members_end_names_file_and_place(tmp_path, end, message):
    path, whole, _ = small(tmp_path)
    path.write_bytes(MEMBER_HEADER + deflated(whole) + end(whole))
    with pytest.raises(NiftiFormatError, match=message) as error:
        decode_nifti(path)
    assert str(path) in str(error.value)
    assert f"byte {path.stat().st_size}" in str(error.value)


def test_a_flipped_bit_spoils_what_lies_behind_it_only(run):
    path, values, mask = run
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0x10
    path.write_bytes(whole)
    file = NiftiFile(path)
    np.testing.assert_array_equal(decode_nifti(file, mask, stop=10), values[:10])
    for _ in range(2):
        with pytest.raises(NiftiFormatError, match=r"a\.nii\.gz: .*(damaged|checksum).* byte \d+"):
            decode_nifti(file, mask)
    np.testing.assert_array_equal(decode_nifti(file, mask, start=4, stop=10), values[4:10])


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_stream_cut_short_names_the_volume_and_spoils_none_before(run, share):
    path, values, mask = run
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    file = NiftiFile(path)
    with pytest.raises(NiftiFormatError, match=rf"ends at byte {int(len(whole) * share)}, after .*in volume"):
        decode_nifti(file, mask)
    n = int(24 * share) - 1
    if n > 0:
        np.testing.assert_array_equal(decode_nifti(file, mask, stop=n), values[:n])


@pytest.mark.parametrize("padding", [b"", b"\0", b"\0" * 300_000])
@pytest.mark.parametrize("behind", [b"", b"rubbish", b"\x1f", b"\x1f\x00\x8b"])
def test_padding_of_zeros_and_trailing_bytes_are_read_over(tmp_path, padding, behind):
    path, whole, values = small(tmp_path)
    path.write_bytes(members(whole, 9000) + padding + behind)
    file = NiftiFile(path)
    for start, stop in ((9, 11), (0, 12), (2, 8)):
        np.testing.assert_array_equal(decode_nifti(file, start=start, stop=stop), values[start:stop])


def test_a_damaged_second_member_is_an_error(tmp_path):
    path, whole, _ = small(tmp_path)
    path.write_bytes(members(whole, 9000)[:-30] + b"\0" * 30)
    with pytest.raises(NiftiFormatError, match=r"byte \d+"):
        decode_nifti(path)


def test_a_small_file_cannot_promise_more_than_it_can_hold(tmp_path):
    path, whole, _ = small(tmp_path)
    bomb = bytes(header_bytes((16, 16, 8, 12), "int16", dim=[4, 1000, 1000, 1000, 30, 1, 1, 1])) + whole[348:]
    path.write_bytes(gzip.compress(bomb))
    size = path.stat().st_size
    with pytest.raises(
        NiftiFormatError,
        match=rf"promises 60000000000 bytes .* can hold {1032 * size} at most",
    ):
        NiftiFile(path)
