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
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unknown-pragmas"]
OPTIONS = ["-std=c++17", "-g1", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden"]
# The compiler's half of the sanitizers; what it calls is ours (checker.cpp, undefined.cpp).
CHECKS = [
    "-fsanitize=thread,undefined,float-cast-overflow",
    "-fno-sanitize=vptr",
    "-fno-sanitize-recover=all",
]
KERNELS = ["-O1", *CHECKS, *WARNINGS, "-include", "cuda_emulation.h", "-x", "c++"]
RUNTIME = ["-O2", *WARNINGS]


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


def digest(*paths: Path) -> str:
    """Return a digest of these files, and of all files in these folders."""
    state = hashlib.sha256(repr((OPTIONS, KERNELS, RUNTIME)).encode())
    for path in paths:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in (file for file in files if file.is_file()):
            state.update(f"{file.name}\n".encode() + file.read_bytes())
    return state.hexdigest()[:16]


@functools.cache
def emulated_module() -> ModuleType:
    """Return the module with the CUDA kernels of all ops."""
    declarations = "".join(f"void bind_{op}(pybind11::module_& m);\n" for op in ops())
    calls = "".join(f"  neurokern::bind_{op}(m);\n" for op in ops())
    entry = (
        "#include <pybind11/pybind11.h>\n"
        '#include "checker.h"\n'
        f"namespace neurokern {{\n{declarations}}}\n"
        "PYBIND11_MODULE(cuda_emulated, m) {\n"
        '  m.def("add_array", &cuda_emulation::add_array);\n'
        '  m.def("forget_arrays", &cuda_emulation::forget_arrays);\n'
        f"{calls}}}\n"
    )
    stems = [ROOT / "csrc" / op / op for op in ops()]
    bindings = [stem.with_name(f"{stem.name}_bind.cpp") for stem in stems]
    kernels = [stem.with_name(f"{stem.name}_cuda.cu") for stem in stems]
    return build_module("cuda_emulated", entry, bindings, kernels)


def build_module(name: str, entry: str, bindings: list[Path], kernels: list[Path]) -> ModuleType:
    """Return a Python module of C++ sources, CUDA sources and the emulation, built if any of them changed.

    Parameters
    ----------
    name, entry : str
        The module's name, and the source that defines it.
    bindings, kernels : list of Path
        Sources compiled as they are, and with the emulation's header and checks.
    """
    pybind11 = pytest.importorskip("pybind11", reason="the CUDA emulation needs pybind11's headers")
    csrc = ROOT / "csrc"
    folders = dict.fromkeys(path.parent for path in [*bindings, *kernels])
    folder = BUILD / f"{name}-{digest(HERE, csrc / 'common', *folders)}"
    target = folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{name}.lock").open("w") as lock:  # test processes run side by side; one builds
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            for old in BUILD.glob(f"{name}-*"):
                shutil.rmtree(old)
            folder.mkdir()
            (folder / "entry.cpp").write_text(entry)
            _build(target, [folder / "entry.cpp", *bindings], kernels, pybind11.get_include())
    spec = importlib.util.spec_from_file_location(name, target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(target: Path, bindings: list[Path], kernels: list[Path], pybind11_include: str) -> None:
    options = [*OPTIONS, "-DNEUROKERN_CUDA_MODULE", "-I", str(ROOT / "csrc"), "-I", str(HERE)]
    options += ["-isystem", pybind11_include, "-isystem", sysconfig.get_path("include")]
    sources = [[*KERNELS, str(path)] for path in kernels] + [[str(path)] for path in bindings]
    sources += [[*RUNTIME, str(path)] for path in sorted(HERE.glob("*.cpp"))]
    objects = [str(target.parent / f"{i}.o") for i in range(len(sources))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = zip(sources, objects, strict=True)
        list(pool.map(lambda job: run_compiler(*options, *job[0], "-c", "-o", job[1]), jobs))
    whole = target.with_suffix(".whole")
    run_compiler("-shared", *objects, "-o", str(whole), "-ldl")
    whole.rename(target)
