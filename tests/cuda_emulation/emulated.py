"""Builds an op's CUDA source as a CPU module: the same ``.cu`` file, the same binding, no GPU."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
HEADER = Path(__file__).with_name("cuda_emulation.h")
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]


def _newest(*paths: Path) -> float:
    return max(path.stat().st_mtime for path in paths)


@functools.cache
def emulated_module(op: str) -> ModuleType:
    """Return the module with the op's CUDA kernels, compiled as C++ into ``build/cuda_emulation``."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the CUDA emulation needs g++")
    pybind11 = pytest.importorskip("pybind11", reason="the CUDA emulation needs pybind11's headers")
    folder = ROOT / "build" / "cuda_emulation"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{op}_emulated"
    target = folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    sources = [*(ROOT / "csrc" / op).iterdir(), *(ROOT / "csrc" / "common").iterdir(), HEADER, Path(__file__)]
    if not target.exists() or target.stat().st_mtime < _newest(*sources):
        _compile(compiler, op, name, target, pybind11.get_include())
    spec = importlib.util.spec_from_file_location(name, target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compile(compiler: str, op: str, name: str, target: Path, pybind11_include: str) -> None:
    options = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden"]
    options += ["-DNEUROKERN_CUDA_MODULE", "-I", str(ROOT / "csrc")]
    options += ["-isystem", pybind11_include, "-isystem", sysconfig.get_path("include")]
    # A sanitizer that is preloaded for the tests has no business in the compiler.
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    # Test processes run side by side: each builds in a folder of its own, and the module appears whole.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        entry, kernels, module = (Path(folder) / part for part in ("entry.cpp", "kernels.o", "module.so"))
        entry.write_text(
            "#include <pybind11/pybind11.h>\n"
            f"namespace neurokern {{ void bind_{op}(pybind11::module_& m); }}\n"
            f"PYBIND11_MODULE({name}, m) {{ neurokern::bind_{op}(m); }}\n"
        )
        source, binding = (str(ROOT / "csrc" / op / f"{op}{suffix}") for suffix in ("_cuda.cu", "_bind.cpp"))
        emulate = [*WARNINGS, "-include", str(HEADER), "-x", "c++", "-c", source, "-o", str(kernels)]
        subprocess.run([compiler, *options, *emulate], check=True, env=environment)
        link = ["-shared", str(entry), binding, str(kernels), "-o", str(module)]
        subprocess.run([compiler, *options, *link], check=True, env=environment)
        module.replace(target)
