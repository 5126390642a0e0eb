"""The pool of threads under many callers, after fork, and under ThreadSanitizer."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def build(folder: Path, *flags: str) -> str:
    program = str(folder / "thread_pool_stress")
    sources = [ROOT / "tests/native/thread_pool_stress.cpp", ROOT / "csrc/common/thread_pool.cpp"]
    command = ["g++", "-std=c++17", "-O1", "-g", *flags, f"-I{ROOT / 'csrc'}", *map(str, sources)]
    subprocess.run([*command, "-pthread", "-o", program], check=True, timeout=120)
    return program


def test_concurrent_callers_and_forked_children_get_every_task_done_once(tmp_path):
    run = subprocess.run([build(tmp_path)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout


def test_no_data_race(tmp_path):
    # setarch: the sanitizer of older compilers cannot map its shadow under high address-space randomisation.
    program = build(tmp_path, "-fsanitize=thread")
    prefix = ["setarch", "-R"] if shutil.which("setarch") else []
    run = subprocess.run([*prefix, program, "no-fork"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr
