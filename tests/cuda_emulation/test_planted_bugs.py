"""Each check of the CUDA emulation finds a planted bug, and is silent about the same kernel without it."""

from __future__ import annotations

from types import ModuleType

import pytest
from cuda_emulation.build import HERE, build_module

# The bug, and what must be said of it.
BUGS = {
    "missing_barrier": r"race: block 0 thread \d+ writes 4 bytes, planted.cu:\d+; block 0 thread \d+ wrote",
    "missing_syncwarp": r"race: .* reads 4 bytes, planted.cu:\d+; block 0 thread \d+ wrote",
    "divergent_barrier": r"deadlock; block 0 thread \d+ waits at __syncthreads, .*; 28 of 128 threads",
    "early_return": r"deadlock; .* waits at __syncthreads, .*; 28 of 128 threads have returned",
    "two_barriers": r"deadlock; .* waits at __syncthreads, .*; .* waits at __syncthreads, .*; 0 of 128",
    "lane_outside_its_mask": r"wrong mask: .* calls a shuffle without its own lane",
    "shuffle_from_an_absent_lane": r"wrong mask: .* reads lane 20, which does not take part",
    "mask_of_lanes_that_never_come": r"deadlock; .* waits at a vote, .* with mask 0xffffffff; 64 of 128",
    "sum_of_blocks": r"race: block \d thread \d+ reads 4 bytes, .*; block \d thread \d+ wrote .* no barrier",
    "plain_read_of_an_atomic": r"race: .*( reads 4 bytes, .* atomically changed|changes atomically .* read)",
    "reused_tile": r"race: block 0 thread \d+ (writes|reads) 4 bytes, .*; .* (read|wrote) byte .* of tile",
    "shared_overflow": r"out of bounds: .*; nearest is byte 512 of values of 512 bytes",
    "shared_index": r"undefined: index beyond the array, .*planted.cu:\d+",
    "dynamic_shared_overflow": r"out of bounds: .* byte 512 of dynamic shared memory of 512 bytes",
    "global_overflow": r"out of bounds: block 0 thread \d+ reads 4 bytes, planted.cu:\d+; .* byte 4000 of",
    "tail_block": r"out of bounds: block 2 thread \d+ writes 4 bytes",
    "misaligned_wide_load": r"undefined: null or misaligned address",
    "host_memory": r"out of bounds: .* reads 4 bytes",
    "uninitialised_shared": r"uninitialised: block 0 thread 127 reads 4 bytes, .* byte 512 of values",
    "uninitialised_global": r"uninitialised: .* reads 4 bytes, planted.cu:\d+; nothing was written to byte",
    "signed_index_overflow": r"undefined: signed overflow of a product",
    "unsigned_index_overflow": r"race: .* writes 1 bytes, planted.cu:\d+; block 0 thread \d wrote byte",
    "shift_too_far": r"thread 31 undefined: shift too far",
    "too_much_static_shared": r"too much shared memory: 50176 bytes with values",
    "too_many_threads": r"invalid launch of does_nothing: block",
    "empty_grid": r"invalid launch of does_nothing: grid",
    "too_much_dynamic_shared": r"invalid launch .* dynamic shared memory beyond 227 KiB",
}


@pytest.fixture(scope="module")
def planted() -> ModuleType:
    """Return the module with the planted kernels."""
    entry = (
        "#include <pybind11/pybind11.h>\n#include <pybind11/stl.h>\n"
        '#include "checker.h"\nvoid plant(const std::string& name, bool bug);\n'
        "PYBIND11_MODULE(planted_bugs, m) {\n"
        '  m.def("plant", &plant);\n  m.def("forget_arrays", &cuda_emulation::forget_arrays);\n}\n'
    )
    return build_module("planted_bugs", entry, [], [HERE / "planted" / "planted.cu"])


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_found_and_its_correct_twin_passes(planted, name):
    planted.plant(name, False)
    planted.forget_arrays()
    with pytest.raises(RuntimeError, match=BUGS[name]):
        planted.plant(name, True)
    planted.forget_arrays()
    planted.plant(name, False)  # an error leaves nothing behind
    planted.forget_arrays()
