"""Kernel objects must hold no weak symbol: the linker keeps one copy of those, perhaps the AVX-512 one."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPS = re.search(r"set\(NEUROKERN_OPS([^)]*)\)", (ROOT / "CMakeLists.txt").read_text())[1].split()
LEVELS = ("v2", "v3", "v4")


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("level", LEVELS)
def test_a_kernel_object_has_no_weak_symbols(op, level, tmp_path):
    compiler, nm = shutil.which("g++"), shutil.which("nm")
    if compiler is None or nm is None:
        pytest.skip("needs g++ and nm")
    machine = subprocess.run([compiler, "-dumpmachine"], capture_output=True, text=True, check=True).stdout
    if not machine.startswith("x86_64"):
        pytest.skip(f"instruction sets are an x86-64 matter, this is {machine.strip()}")
    target = tmp_path / "kernel.o"
    source = ROOT / "csrc" / op / f"{op}_cpu.cpp"
    options = ["-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti"]
    subprocess.run(
        [compiler, *options, f"-march=x86-64-{level}", f"-DNEUROKERN_ISA=isa_{level}",
         "-I", str(ROOT / "csrc"), "-c", str(source), "-o", str(target)],
        check=True, capture_output=True,
    )  # fmt: skip
    listing = subprocess.run([nm, "-C", str(target)], capture_output=True, text=True, check=True).stdout
    assert f"isa_{level}::" in listing
    assert [line for line in listing.splitlines() if re.search(r" [uvVwW] ", line)] == []
