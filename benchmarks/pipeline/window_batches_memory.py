"""Memory of a process that reads batches of the whole brain: at its peak, and before.

    python benchmarks/pipeline/window_batches_memory.py --save     # lines go to benchmarks/results

Each candidate of bench_window_batches.py reads three epochs in a process of its own, whose resident memory
counts: what the packages take, what is private, and the pages of mapped files that are in memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import bench_window_batches as bench
import harness

WORKLOAD = "brain of 35,640 voxels"


def brain_epoch(folder: bench.Folder, name: str) -> bench.Epoch:
    """Return an epoch by one candidate, and nothing of the others."""
    if name == bench.MAPPED:
        copies = bench.Copies(folder.values("brain"), folder.places)
        return bench.through(copies, folder.order)
    if name.startswith("neuralset"):
        return bench.neuralset_epochs(folder, "brain")[name]
    options = {"dtype": torch.bfloat16} if "bfloat16" in name else {}
    return bench.through(folder.windows("brain", **options), folder.order)


def run_child(folder: bench.Folder, name: str) -> None:
    """Read an epoch, then say what the process holds, and holds at most during two more."""
    call = brain_epoch(folder, name)
    before = status("VmRSS")
    call()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here: preparing is over
    for _ in range(2):
        call()
    sys.stdout.write(json.dumps({"before_bytes": before, "peak_bytes": status("VmHWM")}) + "\n")


def status(field: str) -> int:
    """Return a size of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise ValueError(f"/proc/self/status has no {field}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small inputs: does it run?")
    parser.add_argument("--save", action="store_true", help="keep the lines in benchmarks/results")
    parser.add_argument("--folder", type=Path, help="where the made runs lie, or are put")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.folder or Path(temporary)
        os.environ["NEUROKERN_CACHE"] = str(root / "cache")
        folder = bench.Folder(root, **(bench.SMALL if arguments.quick else bench.SIZES))
        if arguments.child:
            run_child(folder, arguments.child)
            return
        own = (bench.OURS, f"{bench.OURS}, bfloat16", bench.MAPPED)
        for name in (*own, *bench.neuralset_epochs(folder, "brain")):  # prepares what they cache
            brain_epoch(folder, name)
            command = [sys.executable, __file__, "--folder", str(root), "--child", name]
            command += ["--quick"] * arguments.quick
            output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            found = json.loads(output.splitlines()[-1])
            lines.append({"workload": WORKLOAD, "candidate": name, **found})
            sys.stdout.write(
                f"{name}: {found['peak_bytes'] / 1e6:.0f} MB, {found['before_bytes'] / 1e6:.0f} before\n"
            )
    if arguments.save:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (harness.RESULTS / "window_batches_memory.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
