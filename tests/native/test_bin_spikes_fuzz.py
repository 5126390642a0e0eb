"""The CPU kernel of bin_spikes on thousands of odd problems, under sanitizers and against the rule."""

import shutil
import subprocess
from pathlib import Path

import pytest

from neurokern import _core

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_odd_problems_stay_in_bounds_and_count_right(tmp_path):
    program, level = tmp_path / "fuzz", _core.best_isa()
    march = [] if level == "base" else [f"-march=x86-64-{level}"]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    options = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-Wno-psabi", f"-DNEUROKERN_ISA=isa_{level}"]
    source = ROOT / "tests/native/bin_spikes_fuzz.cpp"
    subprocess.run(
        ["g++", *options, *march, *sanitizers, "-I", str(ROOT / "csrc"), str(source), "-o", str(program)],
        check=True,
    )
    run = subprocess.run([program, "3000"], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
