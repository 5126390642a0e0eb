"""The check of what CUDA kernels take: how it reads the assembler, and that it can fail."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import cuda_resources

ROOT = Path(__file__).parents[2]
LOG = """
ptxas info    : Compiling entry function '_Z1kILi256EEvPfl' for 'sm_90'
ptxas info    : Function properties for _Z1kILi256EEvPfl
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 10 registers, used 1 barriers, 1024 bytes smem
ptxas info    : Compiling entry function '_Z1jv' for 'sm_80'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
"""


def accepted():
    return json.loads(cuda_resources.ACCEPTED.read_text())


def test_the_assemblers_numbers_are_read_per_kernel_and_architecture():
    assert cuda_resources.parse(LOG) == {
        "_Z1kILi256EEvPfl": {"sm_90": {"registers": 10, "shared": 1024, "stack": 8, "spills": 16}},
        "_Z1jv": {"sm_80": {"registers": 8, "shared": 0, "stack": 0, "spills": 0}},
    }


@pytest.mark.parametrize(
    ("threads", "registers", "shared", "blocks"),
    [
        (256, 32, 0, 8),  # 2,048 threads
        (256, 33, 0, 6),  # 40 registers a thread: 12 warps in each quarter
        (256, 64, 0, 4),
        (1024, 65, 0, 0),  # 28 warps fit, the block has 32
        (64, 32, 0, 32),  # 32 blocks
        (256, 32, 48 * 1024, 4),  # 228 KiB in parts of 49
        (33, 32, 0, 32),  # two warps
    ],
)
def test_the_occupancy_follows_from_an_h100s_limits(threads, registers, shared, blocks):
    assert cuda_resources.blocks_on_an_h100(threads, registers, shared) == blocks


def test_names_are_readable():
    mangled = ["_ZN9neurokern12_GLOBAL__N_13hotIhLi4EEEvi", "_Z1jv"]
    if shutil.which("c++filt") is None:
        pytest.skip("needs c++filt")
    assert cuda_resources.readable(mangled) == ["hot<unsigned char, 4>", "j"]


@pytest.mark.parametrize("what", ["registers", "shared", "stack", "spills"])
def test_a_change_of_any_number_is_a_difference(what):
    before = accepted()["kernels"]
    after = copy.deepcopy(before)
    op = next(iter(after))
    name = next(iter(after[op]))
    after[op][name]["sm_90"][what] += 1
    old = before[op][name]["sm_90"][what]
    assert cuda_resources.compare(before, before) == []
    assert cuda_resources.compare(before, after) == [f"{op} {name} sm_90 {what}: {old} -> {old + 1}"]
    assert bool(cuda_resources.spills(after)) == (what == "spills")


def test_a_new_and_a_missing_kernel_are_differences():
    before = accepted()["kernels"]
    after = copy.deepcopy(before)
    op = next(iter(after))
    after[op]["other"] = after[op].pop(next(iter(after[op])))
    text = "\n".join(cuda_resources.compare(before, after))
    assert "other threads: new -> " in text
    assert "-> gone" in text


def test_the_accepted_kernels_do_not_spill_and_the_page_shows_them():
    file = accepted()
    assert cuda_resources.spills(file["kernels"]) == []
    assert cuda_resources.PAGE.read_text() == cuda_resources.page(file["nvcc"], file["kernels"])


def test_without_nvcc_the_check_is_skipped_by_name():
    script = ROOT / "benchmarks" / "cuda_resources.py"
    done = subprocess.run(
        [sys.executable, script, "--check"], env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stdout.startswith("skipped: ")
