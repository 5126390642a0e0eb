"""What the ops' GPU path is given in the place of a GPU's memory."""

import numpy as np
import pytest
from cuda_emulation.build import emulated_module
from cuda_emulation.emulated import DeviceMemory, bytes_of

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float64"])
def test_fresh_arrays_are_aligned_and_hold_rubbish_unless_filled(kind, dtype):
    memory = DeviceMemory(emulated_module())
    like = np.zeros(1) if kind == "numpy" else torch.zeros(1)
    fresh, filled = (memory.new_array(like, (3, 5), dtype, fill) for fill in (None, 1))
    assert fresh.shape == filled.shape == (3, 5)
    assert str(fresh.dtype).removeprefix("torch.") == dtype
    assert (filled == 1).all()
    assert (np.asarray(fresh).view(np.uint8) == 0xA5).all()
    assert all(np.asarray(array).ctypes.data % 256 == 0 for array in (fresh, filled))


@pytest.mark.parametrize("cut", [np.s_[:], np.s_[::-1], np.s_[1:, ::-2], np.s_[:0], np.s_[2]])
def test_the_bytes_of_a_view_reach_from_its_lowest_to_its_highest(cut):
    whole = np.arange(60, dtype=np.int32).reshape(6, 10).copy()
    view = whole[cut]
    lowest, n_bytes = bytes_of(view)
    first, last = (int(view.min()), int(view.max())) if view.size else (0, -1)
    assert n_bytes == 4 * (last - first + 1)
    if view.size == 0:
        return
    assert lowest == whole.ctypes.data + 4 * first
    if all(stride >= 0 for stride in view.strides):
        assert bytes_of(torch.from_numpy(view)) == (lowest, n_bytes)
