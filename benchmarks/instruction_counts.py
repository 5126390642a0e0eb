"""Instructions that each CPU kernel executes on a small fixed input, held against a committed file.

    python benchmarks/instruction_counts.py --check     # fails where a count moved by more than 2 %
    python benchmarks/instruction_counts.py --accept    # a change is meant: writes instruction_counts.json

Times differ by tens of percent from run to run on a shared machine; these counts, from valgrind's callgrind,
repeat to a few parts in a million. They belong to one compiler, so with another one the check is skipped, by
name. Instruction sets are v2 (SSE4.2) and v3 (AVX2): valgrind 3.19 knows no AVX-512.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
ACCEPTED = ROOT / "benchmarks" / "instruction_counts.json"
TOLERANCE = 0.02
ISAS = ("v2", "v3")
OPS = ("bin_spikes", "gather_regions", "decode_nifti", "solve_ridge")
PLAIN_SOURCES = (
    "csrc/common/huge_pages.cpp",
    "csrc/common/thread_pool.cpp",
    "csrc/decode_nifti/mask_runs.cpp",
)

Counts = dict[str, int]


def compare(accepted: Counts, measured: Counts) -> list[str]:
    """Return what is wrong, one line per kernel: moved either way beyond the tolerance, gone, or new."""
    problems = []
    for name in sorted(accepted.keys() | measured.keys()):
        if name not in measured:
            problems.append(f"{name}: accepted, but no longer measured")
        elif name not in accepted:
            problems.append(f"{name}: {measured[name]:,} instructions, but no accepted count")
        else:
            change = measured[name] / accepted[name] - 1
            if abs(change) > TOLERANCE:
                problems.append(
                    f"{name}: {accepted[name]:,} -> {measured[name]:,} instructions ({change:+.1%})"
                )
    return problems


def compiler() -> str:
    """First line of ``g++ --version``, which names the distribution's build too; empty without g++."""
    if shutil.which("g++") is None:
        return ""
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )[0]


def kernel_flags() -> list[str]:
    """Flags of kernel files, from the build itself, so that what is counted is what is shipped."""
    text = (ROOT / "cmake" / "kernels.cmake").read_text()
    found = re.search(r"target_compile_options\(\$\{object\} PRIVATE (-O3 [^)]*)\)", text)
    if found is None:
        raise ValueError("cmake/kernels.cmake must set the kernels' flags with -O3 first, found none")
    return found[1].split()


def build(folder: Path) -> Path:
    """Compile the kernels of both instruction sets and the program that runs them."""
    folder.mkdir(parents=True, exist_ok=True)
    base = ["g++", "-std=c++17", "-I", str(ROOT / "csrc"), "-c"]
    commands, objects = [], []

    def add(source: str, name: str, *flags: str) -> None:
        objects.append(str(folder / name))
        commands.append([*base, *flags, str(ROOT / source), "-o", objects[-1]])

    for op in OPS:
        for isa in ISAS:
            march = [f"-march=x86-64-{isa}", f"-DNEUROKERN_ISA=isa_{isa}"]
            add(f"csrc/{op}/{op}_cpu.cpp", f"{op}_{isa}.o", *kernel_flags(), *march)
    for source in PLAIN_SOURCES:
        add(source, f"{Path(source).stem}.o", "-O3")
    add("benchmarks/instruction_counts.cpp", "main.o", "-O2", "-Wall", "-Wextra")
    with ThreadPoolExecutor(2) as pool:
        for done in pool.map(
            lambda command: subprocess.run(command, capture_output=True, text=True), commands
        ):
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(done.args)}\n{done.stderr}")
    program = folder / "instruction_counts"
    subprocess.run(["g++", *objects, "-pthread", "-o", str(program)], check=True)
    return program


def measure(folder: Path) -> Counts:
    """Run the program once under callgrind; each kernel's counts come as a file of their own."""
    program = build(folder)
    for old in folder.glob("callgrind.out*"):
        old.unlink()
    output = folder / "callgrind.out"
    tool = ["valgrind", "--quiet", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={output}"]
    subprocess.run([*tool, str(program)], check=True)
    counts = {}
    for file in folder.glob("callgrind.out.*"):
        text = file.read_text()
        name = re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE)
        total = re.search(r"^totals: (\d+)$", text, re.MULTILINE)
        if name is not None and total is not None:
            counts[name[1]] = int(total[1])
    return dict(sorted(counts.items()))


def cannot_run() -> str | None:
    """Return why there is nothing to compare here, or None."""
    if shutil.which("valgrind") is None or not Path("/usr/include/valgrind/callgrind.h").is_file():
        return "needs Debian's package valgrind"
    if not compiler():
        return "needs g++"
    if "avx2" not in Path("/proc/cpuinfo").read_text():
        return "needs a processor with AVX2"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="compare with the accepted counts")
    what.add_argument("--accept", action="store_true", help="write the measured counts as accepted")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "instruction_counts")
    arguments = parser.parse_args()
    reason = cannot_run()
    if reason is None and arguments.check:
        accepted = json.loads(ACCEPTED.read_text())
        if accepted["compiler"] != compiler():
            reason = f"counts belong to {accepted['compiler']!r}, this is {compiler()!r}"
    if reason is not None:
        sys.stdout.write(f"skipped: instruction counts ({reason})\n")
        return 0 if arguments.check else 1
    measured = measure(arguments.folder)
    if arguments.accept:
        ACCEPTED.write_text(json.dumps({"compiler": compiler(), "counts": measured}, indent=2) + "\n")
        sys.stdout.write(f"wrote {len(measured)} counts\n")
        return 0
    problems = compare(accepted["counts"], measured)
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    if problems:
        sys.stdout.write("If the change is meant: python benchmarks/instruction_counts.py --accept\n")
    else:
        sys.stdout.write(f"{len(measured)} instruction counts within {TOLERANCE:.0%} of the accepted ones\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
