"""What the memory of emulated kernels notices."""

import numpy as np
import pytest
from cuda_emulation.emulated import DeviceMemory


@pytest.mark.parametrize("n_bytes", [0, 1, 255, 4096])
@pytest.mark.parametrize("where", ["before", "behind"])
def test_a_write_beside_an_array_is_noticed(n_bytes, where):
    memory = DeviceMemory()
    array = memory.allocate(n_bytes)
    array[:] = 0
    memory.check()
    block, start, stop = memory.blocks[0]
    block()[start - 1 if where == "before" else stop] = 0
    with pytest.raises(AssertionError, match=f"wrote outside of an array of {n_bytes} bytes"):
        memory.check()


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float64"])
def test_fresh_arrays_are_aligned_and_hold_rubbish_unless_filled(kind, dtype):
    memory = DeviceMemory()
    like = np.zeros(1)
    if kind == "torch":
        like = pytest.importorskip("torch").from_numpy(like)
    fresh, filled = (memory.new_array(like, (3, 5), dtype, fill) for fill in (None, 1))
    assert fresh.shape == filled.shape == (3, 5)
    assert str(fresh.dtype).removeprefix("torch.") == dtype
    assert (filled == 1).all()
    assert (np.asarray(fresh).view(np.uint8) == 0xA5).all()
    assert all(np.asarray(array).ctypes.data % 256 == 0 for array in (fresh, filled))
