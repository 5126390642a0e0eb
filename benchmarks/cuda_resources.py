"""What every CUDA kernel takes of a GPU, as nvcc's assembler says, held against a committed file.

    python benchmarks/cuda_resources.py --check     # fails on a warning, a spill, or a difference
    python benchmarks/cuda_resources.py --accept    # a change is meant: writes the file and the page

Every ``.cu`` is compiled for sm_80, sm_90 and sm_100 and as PTX, with the build's flags, warnings as errors.
Registers belong to one compiler: with another nvcc only warnings and spills count, without nvcc nothing does,
and both are said by name. Occupancy is computed from an H100's limits; nothing here ran on one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ACCEPTED = ROOT / "benchmarks" / "cuda_resources.json"
PAGE = ROOT / "docs" / "cuda-resources.md"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
FLAGS = ["-std=c++17", "--fmad=false", "-Xcompiler=-Wall", "--Werror=all-warnings", "-Xptxas=-v,-warn-spills"]

Kernel = dict[
    str, Any
]  # {"threads": ..., "sm_80": {"registers": ..., "shared": ..., "stack": ..., "spills": ...}}
Resources = dict[str, dict[str, Kernel]]  # op, kernel

# One multiprocessor of an H100 (compute capability 9.0), and the units in which it hands out what it has.
THREADS, BLOCKS, WARP = 2048, 32, 32
QUARTERS, REGISTERS_OF_A_QUARTER, REGISTER_UNIT = 4, 16384, 256
SHARED, SHARED_UNIT, SHARED_OF_THE_SYSTEM = 228 * 1024, 128, 1024


def round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def blocks_on_an_h100(threads: int, registers: int, shared: int) -> int:
    """Return how many blocks of this size run at once on one multiprocessor."""
    warps = -(-threads // WARP)
    warps_of_a_quarter = REGISTERS_OF_A_QUARTER // round_up(registers * WARP, REGISTER_UNIT)
    by_registers = QUARTERS * warps_of_a_quarter // warps
    by_shared = SHARED // round_up(shared + SHARED_OF_THE_SYSTEM, SHARED_UNIT)
    return min(BLOCKS, THREADS // (warps * WARP), by_registers, by_shared)


def readable(names: list[str]) -> list[str]:
    """Demangle kernel names; drop parameters, and the namespaces that all of them share."""
    output = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    kernels = []
    for line in output.stdout.splitlines():
        name = re.sub(r"\(anonymous namespace\)::|_GLOBAL__N__\w+::|neurokern::|std::", "", line)
        name = re.sub(r"\(\w+(?: \w+)*\)(?=[\d-])", "", name)  # types of template arguments
        name = re.sub(r"^void ", "", name)
        depth = 0
        for at, letter in enumerate(name):
            depth += (letter == "<") - (letter == ">")
            if letter == "(" and depth == 0:
                name = name[:at]
                break
        kernels.append(name)
    return kernels


def parse(log: str) -> dict[str, dict[str, dict[str, int]]]:
    """Return mangled name, architecture and numbers from what ``ptxas -v`` prints."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for part in log.split("Compiling entry function ")[1:]:
        name, architecture = re.match(r"'(\w+)' for '(\w+)'", part).groups()  # type: ignore[union-attr]

        def number(pattern: str, text: str = part) -> int:
            match = re.search(pattern, text)
            return int(match[1]) if match else 0

        found.setdefault(name, {})[architecture] = {
            "registers": number(r"Used (\d+) registers"),
            "shared": number(r"(\d+) bytes smem"),
            "stack": number(r"(\d+) bytes stack frame"),
            "spills": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        }
    return found


def compile_op(source: Path) -> dict[str, Kernel]:
    """Compile one ``.cu`` for all architectures; raise RuntimeError with the compiler's words."""
    generate = []
    for architecture in ARCHITECTURES:
        virtual = architecture.replace("sm_", "compute_")
        codes = f"[{architecture},{virtual}]" if architecture == ARCHITECTURES[-1] else architecture
        generate += ["-gencode", f"arch={virtual},code={codes}"]
    with tempfile.TemporaryDirectory() as folder:
        keep = ["--keep", "--keep-dir", folder, "-c", "-o", f"{folder}/kernels.o"]
        command = ["nvcc", *FLAGS, *generate, "-I", str(ROOT / "csrc"), *keep, str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = (done.stderr + done.stdout).splitlines()
            said = "\n".join(line for line in lines if not re.match(r"ptxas info|    \d+ bytes stack", line))
            raise RuntimeError(f"{source.name}: nvcc failed\n{said}")
        ptx = "".join(path.read_text() for path in Path(folder).glob("*.ptx"))
    found = parse(done.stderr + done.stdout)
    kernels = {}
    for mangled, name in zip(found, readable(list(found)), strict=True):
        bounds = re.search(rf"\.entry {mangled}\([^)]*\)\s*\.maxntid (\d+)", ptx)
        kernels[name] = {"threads": int(bounds[1]) if bounds else 256, **found[mangled]}
    return dict(sorted(kernels.items()))


def measure() -> Resources:
    """Compile every op's kernels."""
    sources = sorted((ROOT / "csrc").glob("*/*_cuda.cu"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {
            source.parent.name: op for source, op in zip(sources, pool.map(compile_op, sources), strict=True)
        }


def flatten(resources: Resources) -> dict[str, int]:
    """One number per key, such as "bin_spikes count_rows sm_90 registers"."""
    numbers = {}
    for op, kernels in resources.items():
        for name, kernel in kernels.items():
            numbers[f"{op} {name} threads"] = kernel["threads"]
            for architecture in ARCHITECTURES:
                for what, number in kernel[architecture].items():
                    numbers[f"{op} {name} {architecture} {what}"] = number
    return numbers


def spills(resources: Resources) -> list[str]:
    """Return the kernels whose registers do not suffice, one line each."""
    return [
        f"{key}: {number} bytes spilled"
        for key, number in flatten(resources).items()
        if key.endswith(" spills") and number
    ]


def compare(accepted: Resources, measured: Resources) -> list[str]:
    """Return the differences, one line each."""
    before, after = flatten(accepted), flatten(measured)
    return [
        f"{key}: {before.get(key, 'new')} -> {after.get(key, 'gone')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def page(version: str, resources: Resources) -> str:
    """Return docs/cuda-resources.md."""
    lines = [
        "# What the CUDA kernels take of a GPU",
        "",
        f"Written by `python benchmarks/cuda_resources.py --accept` with nvcc {version}; CI fails on a spill",
        "and on a difference. Registers and shared memory are the assembler's. The occupancy is arithmetic",
        "with an H100's limits (65,536 registers, 228 KiB of shared memory, 2,048 threads, 32 blocks a",
        "multiprocessor) and counts no dynamic shared memory: the last column says how much of it a block",
        "may take before the occupancy falls. No kernel spills registers.",
    ]
    header = "kernel | threads | registers on sm_80, sm_90, sm_100 | static shared | H100 occupancy | room"
    for op, kernels in resources.items():
        lines += ["", f"## {op}", f"| {header} |", "| --- | --- | --- | --- | --- | --- |"]
        for name, kernel in kernels.items():
            on_h100, threads = kernel["sm_90"], kernel["threads"]
            blocks = blocks_on_an_h100(threads, on_h100["registers"], on_h100["shared"])
            room = SHARED // blocks // SHARED_UNIT * SHARED_UNIT - SHARED_OF_THE_SYSTEM - on_h100["shared"]
            registers = ", ".join(str(kernel[architecture]["registers"]) for architecture in ARCHITECTURES)
            lines.append(
                f"| `{name}` | {threads} | {registers} | {on_h100['shared']} B "
                f"| {blocks * threads / THREADS:.0%} | {min(room, 227 * 1024) / 1024:.0f} KiB |"
            )
    return "\n".join(lines) + "\n"


def nvcc_version() -> str | None:
    """Return "13.0.88", or None without nvcc."""
    if shutil.which("nvcc") is None:
        return None
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"V(\d+\.\d+\.\d+)", text)
    return match[1] if match else "unknown"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="fail on a warning, a spill, or a difference")
    action.add_argument("--accept", action="store_true", help="write cuda_resources.json and the page")
    accept = parser.parse_args().accept
    version = nvcc_version()
    if version is None:
        print("skipped: what the CUDA kernels take of a GPU needs nvcc")
        return 1 if accept else 0
    measured = measure()
    problems = spills(measured)
    accepted = json.loads(ACCEPTED.read_text()) if ACCEPTED.exists() else {"nvcc": version, "kernels": {}}
    if accept and not problems:
        ACCEPTED.write_text(json.dumps({"nvcc": version, "kernels": measured}, indent=1) + "\n")
        PAGE.write_text(page(version, measured))
    elif not accept and accepted["nvcc"] == version:
        problems += compare(accepted["kernels"], measured)
    elif not accept:
        print(
            f"skipped: registers and shared memory, accepted with nvcc {accepted['nvcc']}, this is {version}"
        )
    print("\n".join(problems) if problems else "no warning, no spill" + ("" if accept else ", no difference"))
    if problems and not accept:
        print("If this is meant: python benchmarks/cuda_resources.py --accept")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
