"""Memory that decoding takes: growth of a process's private memory during one call, at its peak.

    python benchmarks/ops/nifti_memory.py --save     # a few minutes; lines go to benchmarks/results

Each candidate of bench_decode_nifti.py runs in a process of its own, after a small run has loaded what is
loaded once; this process reads the other's memory all the while. Pages of mapped files do not count.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import select
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import bench_decode_nifti as bench
import harness
import nifti_peers
import torch
from nifti_runs import make_run

PEERS = (
    *(nifti_peers.TAKE, nifti_peers.GET_FDATA, nifti_peers.MASKER, "nilearn NiftiLabelsMasker"),
    *("medrs to_torch + index_select", "nibabel dataobj slices", "torch closed form", "isal + take"),
)
PAGE = os.sysconf("SC_PAGE_SIZE")


def private_bytes(process: int) -> int:
    """Return the resident memory of a process without pages of files."""
    fields = Path(f"/proc/{process}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * PAGE


def run_candidate(name: str, candidate: str, folder: Path, small: bool) -> None:
    """Say when ready, wait for a line, make the call, and say how large its result is."""
    torch.set_num_threads(1)
    case = bench.CASES[name]
    few = bench.small_run(case)
    case.make(make_run(folder, **case.run | few)).candidates[candidate]()
    call = case.make(make_run(folder, **case.run | (few if small else {}))).candidates[candidate]
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not be used again unseen
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(f"{np.asarray(call()).nbytes}\n")
    sys.stdout.flush()
    sys.stdin.readline()


def measure(name: str, candidate: str, folder: Path, small: bool) -> dict[str, int]:
    """Return the growth during one call, and the bytes of its result."""
    command = [sys.executable, __file__, "--folder", str(folder), "--run", name, candidate]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command + ["--quick"] * small, **pipes) as child:  # type: ignore[call-overload]
        while child.stdout.readline() not in ("ready\n", ""):
            pass
        before = peak = private_bytes(child.pid)
        child.stdin.write("go\n")
        child.stdin.flush()
        while not select.select([child.stdout], [], [], 2e-4)[0]:
            peak = max(peak, private_bytes(child.pid))
        answer = child.stdout.readline()
        peak = max(peak, private_bytes(child.pid))
        child.stdin.close()
        if not answer:
            raise RuntimeError(f"{name}, {candidate}: the process ended with {child.wait()}")
    return {"grown_bytes": peak - before, "output_bytes": int(answer)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", default="", help="only those whose name contains this")
    parser.add_argument("--quick", action="store_true", help="small inputs: does it run?")
    parser.add_argument("--save", action="store_true", help="keep the lines in benchmarks/results")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run_candidate(*arguments.run, arguments.folder, arguments.quick)
        return
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["NEUROKERN_CACHE"] = name
        for workload, case in bench.CASES.items():
            if arguments.workload not in workload or case.threads > 1:
                continue
            few = bench.small_run(case)
            make_run(folder, **case.run | (few if arguments.quick else {}))
            for candidate in case.make(make_run(folder, **case.run | few)).candidates:
                if candidate not in (bench.OURS, *PEERS):
                    continue
                found = measure(workload, candidate, folder, arguments.quick)
                lines.append({"workload": workload, "candidate": candidate, **found})
                grown, output = (value / 2**20 for value in found.values())
                sys.stdout.write(f"{workload}, {candidate}: {grown:.1f} MiB for an output of {output:.1f}\n")
    if arguments.save:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (harness.RESULTS / "decode_nifti_memory.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
