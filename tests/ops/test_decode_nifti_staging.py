"""The way of decode_nifti to a device: half the bytes, in order, and no buffer written too early."""

import os
from collections import deque

import pytest
from nifti_files import random_raw, scattered_mask, write_nifti

from neurokern.ops import NiftiFile, _library, _nifti_device, decode_nifti

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("own_cache")

SHAPE = (7, 5, 3, 11)


class Stream:
    """A GPU as late as one may be: copies and kernels are done when a mark is waited for, or at the end."""

    def __init__(self, patch, marks_wait):
        self.waiting, self.done, self.copied, self.marks_wait = deque(), 0, [], marks_wait
        decode_to = _nifti_device.decode_to
        patch.setattr(_library, "gpu_like", lambda device: None if device is None else torch.empty(0))
        patch.setattr(_library, "new_array", lambda like, shape, dtype: torch.full(shape, torch.nan))
        patch.setattr(_library, "pinned_bytes", lambda n: torch.full((n,), 0xA5, dtype=torch.uint8))
        patch.setattr(_library, "to_gpu", self.to_gpu)
        patch.setattr(_library, "copy_mark", lambda like: Mark(self, self.done + len(self.waiting)))
        patch.setattr(_nifti_device, "decode_to", lambda *call: self.waiting.append(lambda: decode_to(*call)))

    def to_gpu(self, host, like):
        there = torch.full_like(host, 0x5A)
        self.copied.append(host)
        self.waiting.append(lambda: there.copy_(host))
        return there

    def run(self, until=None):
        while self.waiting and (until is None or self.done < until):
            self.waiting.popleft()()
            self.done += 1


class Mark:
    def __init__(self, stream, place):
        self.stream, self.place = stream, place

    def synchronize(self):
        if self.stream.marks_wait:
            self.stream.run(self.place)


@pytest.mark.parametrize("marks_wait", [True, False])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_buffer_is_not_filled_before_its_last_copy_is_made(
    tmp_path, small_buffers, monkeypatch, marks_wait, suffix
):
    shape = (*SHAPE[:3], 40)
    path, mask = write_nifti(tmp_path / f"a{suffix}", random_raw("int16", shape)), scattered_mask(SHAPE[:3])
    wanted = decode_nifti(path, mask)
    stream = Stream(monkeypatch, marks_wait)
    for _ in range(2):  # the second call finds buffers that are still to be copied
        values = decode_nifti(path, mask, device="cpu")
        assert not torch.equal(values, wanted)  # the GPU has yet to work
        later = decode_nifti(path, mask, device="cpu")
        stream.run()
        # Without the wait the test would see rubbish: it can fail.
        assert torch.equal(values, wanted) == marks_wait
        assert torch.equal(later, wanted) or not marks_wait


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32"])
def test_what_crosses_the_bus_is_what_the_file_stores_in_order(tmp_path, small_buffers, monkeypatch, dtype):
    raw, mask = random_raw(dtype, SHAPE), scattered_mask(SHAPE[:3])
    file = NiftiFile(write_nifti(tmp_path / "a.nii", raw, order=">", slope=0.37))
    stored = torch.from_numpy(file.read_raw(mask).view(f"i{raw.dtype.itemsize}"))
    stream, crossed = Stream(monkeypatch, True), []

    def to_gpu(host, like):
        crossed.append(host.clone())
        return stream.to_gpu(host, like)

    monkeypatch.setattr(_library, "to_gpu", to_gpu)
    decode_nifti(file, mask, device="cpu")
    assert torch.equal(torch.cat(crossed), stored)
    assert sum(block.nbytes for block in crossed) == SHAPE[3] * mask.n_voxels * raw.dtype.itemsize
    buffers = {block.untyped_storage().data_ptr() for block in stream.copied}
    assert len(buffers) == min(_nifti_device.N_BUFFERS, len(crossed)) > 1
    assert all(block.nbytes <= _nifti_device.BUFFER_BYTES for block in crossed)


def test_a_compressed_file_is_inflated_once_though_it_goes_in_pieces(tmp_path, small_buffers, monkeypatch):
    raw = random_raw("int16", SHAPE)
    file = NiftiFile(write_nifti(tmp_path / "a.nii.gz", raw), cache=False)
    stream = Stream(monkeypatch, True)
    decode_nifti(file, scattered_mask(SHAPE[:3]), device="cpu")
    assert len(stream.copied) == 3
    assert file._stream.n_inflated == 352 + raw.nbytes


@pytest.mark.parametrize(
    ("n_voxels", "value_bytes", "volumes"),
    [(150_000, 2, 12), (150_000, 1, 24), (150_000, 8, 3), (1 << 22, 2, 1), (10, 4, 104_856)],
)
def test_a_buffer_takes_whole_groups_of_volumes(n_voxels, value_bytes, volumes):
    assert _nifti_device.volumes_at_once(n_voxels, value_bytes) == volumes


def test_buffers_are_kept_unless_they_are_large(monkeypatch, small_buffers):
    Stream(monkeypatch, True)
    with _nifti_device.buffers_of(300) as first, _nifti_device.buffers_of(300) as meanwhile:
        assert meanwhile is not first
    with _nifti_device.buffers_of(320) as again:
        assert again is first or again is meanwhile
    with _nifti_device.buffers_of(321) as large:
        assert large is not again
    assert len(_nifti_device._kept) == 1
    assert _nifti_device._kept[0] is again


def test_a_forked_child_leaves_its_parents_buffers_alone(monkeypatch, small_buffers):
    Stream(monkeypatch, True)
    with _nifti_device.buffers_of(300):
        pass
    child = os.fork()
    if child == 0:
        os._exit(0 if not _nifti_device._kept and _nifti_device._of_parents else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _nifti_device._kept


def test_a_damaged_file_is_an_error_and_the_next_call_is_right(tmp_path, small_buffers, monkeypatch):
    path = write_nifti(tmp_path / "a.nii.gz", random_raw("int16", (*SHAPE[:3], 40)))
    good = write_nifti(tmp_path / "b.nii.gz", random_raw("int16", (*SHAPE[:3], 40), 1))
    wanted = decode_nifti(good, scattered_mask(SHAPE[:3]))
    path.write_bytes(path.read_bytes()[:-2000])
    stream = Stream(monkeypatch, True)
    with pytest.raises(ValueError, match="ends"):
        decode_nifti(path, scattered_mask(SHAPE[:3]), device="cpu")
    values = decode_nifti(good, scattered_mask(SHAPE[:3]), device="cpu")
    stream.run()
    assert torch.equal(values, wanted)


# ---- which device


def test_a_device_and_out_are_an_error(tmp_path):
    path = write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE))
    with pytest.raises(ValueError, match="not both"):
        decode_nifti(path, device="meta", out=torch.empty(SHAPE[3], *SHAPE[:3]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_an_error_with_the_remedy(tmp_path):
    path = write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE))
    with pytest.raises(RuntimeError, match="got 'cuda' without a CUDA device; leave it out"):
        decode_nifti(path, device="cuda")


def test_other_devices_are_sent_values(tmp_path):
    path = write_nifti(tmp_path / "a.nii", random_raw("int16", SHAPE))
    values = decode_nifti(path, scattered_mask(SHAPE[:3]), device="meta")
    assert (values.device.type, values.shape) == ("meta", (SHAPE[3], 40))


# ---- on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_work_goes_to_the_current_stream(tmp_path, small_buffers, suffix):
    path, mask = (
        write_nifti(tmp_path / f"a{suffix}", random_raw("int16", (*SHAPE[:3], 200))),
        scattered_mask(SHAPE[:3]),
    )
    stream = torch.cuda.Stream()
    busy = torch.zeros(1 << 26, device="cuda")
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(50):
            busy += 1  # the stream is behind the host
        values = decode_nifti(path, mask, detrend=True, device="cuda")
        copied = values.to("cpu", non_blocking=False)
    assert torch.equal(copied, decode_nifti(path, mask, detrend=True))


@pytest.mark.gpu
def test_nothing_waits_for_the_gpu(tmp_path, small_buffers):
    path, mask = (
        write_nifti(tmp_path / "a.nii", random_raw("int16", (*SHAPE[:3], 200))),
        scattered_mask(SHAPE[:3]),
    )
    options = {"detrend": True, "standardize": True, "device": "cuda"}
    decode_nifti(path, mask, **options)
    torch.cuda.set_sync_debug_mode("error")
    try:
        values = decode_nifti(path, mask, **options)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(values.cpu(), decode_nifti(path, mask, detrend=True, standardize=True))


@pytest.mark.gpu
def test_the_memory_of_buffers_is_pinned():
    with _nifti_device.buffers_of(1000) as buffers:
        assert all(buffer.memory.is_pinned() for buffer in buffers)
