"""Builds the CUDA sources of all ops as one CPU module: the same ``.cu`` files, the same bindings, no GPU."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
BUILD = ROOT / "build" / "cuda_emulation"
MODULE = "cuda_emulated"
EMULATE = ["-I", str(HERE), "-include", "cuda_emulation.h", "-x", "c++"]
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unknown-pragmas"]
OPTIONS = ["-std=c++17", "-O1", "-g1", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden"]


def ops() -> list[str]:
    """Return the names of all ops, as the build lists them."""
    listed = re.search(r"set\(NEUROKERN_OPS([^)]*)\)", (ROOT / "CMakeLists.txt").read_text())
    assert listed is not None
    return listed[1].split()


def compiler() -> str:
    """Return the C++ compiler; skips the test where there is none."""
    path = shutil.which("g++")
    if path is None:
        pytest.skip("the CUDA emulation needs g++")
    return path


def run_compiler(*arguments: str) -> None:
    """Compile; a sanitizer that is preloaded for the tests has no business in the compiler."""
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    subprocess.run([compiler(), *arguments], check=True, env=environment)


def digest(*folders: Path) -> str:
    """Return a digest of all files directly in the folders."""
    files = sorted(path for folder in folders for path in folder.iterdir() if path.is_file())
    state = hashlib.sha256()
    for path in files:
        state.update(f"{path.name}\n".encode() + path.read_bytes())
    return state.hexdigest()[:16]


@functools.cache
def emulated_module() -> ModuleType:
    """Return the module with the CUDA kernels of all ops, compiled as C++ into ``build/cuda_emulation``."""
    pybind11 = pytest.importorskip("pybind11", reason="the CUDA emulation needs pybind11's headers")
    csrc = ROOT / "csrc"
    key = digest(HERE, csrc, csrc / "common", *(csrc / op for op in ops()))
    target = BUILD / key / f"{MODULE}{sysconfig.get_config_var('EXT_SUFFIX')}"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:  # test processes run side by side; one builds
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            for old in BUILD.glob("*/"):
                shutil.rmtree(old)
            _build(target, pybind11.get_include())
    spec = importlib.util.spec_from_file_location(MODULE, target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(target: Path, pybind11_include: str) -> None:
    folder = target.parent
    folder.mkdir()
    declarations = "".join(f"void bind_{op}(pybind11::module_& m);\n" for op in ops())
    calls = "".join(f"  neurokern::bind_{op}(m);\n" for op in ops())
    (folder / "module.cpp").write_text(
        f"#include <pybind11/pybind11.h>\nnamespace neurokern {{\n{declarations}}}\n"
        f"PYBIND11_MODULE({MODULE}, m) {{\n{calls}}}\n"
    )
    options = [*OPTIONS, "-DNEUROKERN_CUDA_MODULE", "-I", str(ROOT / "csrc")]
    options += ["-isystem", pybind11_include, "-isystem", sysconfig.get_path("include")]
    sources = [[str(folder / "module.cpp")], *([*WARNINGS, str(path)] for path in sorted(HERE.glob("*.cpp")))]
    for op in ops():
        source = str(ROOT / "csrc" / op / op)
        sources += [[f"{source}_bind.cpp"], [*WARNINGS, *EMULATE, f"{source}_cuda.cu"]]
    objects = [str(folder / f"{i}.o") for i in range(len(sources))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = zip(sources, objects, strict=True)
        list(pool.map(lambda job: run_compiler(*options, *job[0], "-c", "-o", job[1]), jobs))
    whole = folder / "whole.so"
    run_compiler("-shared", *objects, "-o", str(whole))
    whole.rename(target)
