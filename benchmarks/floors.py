"""The machine's own limits, to hold timings against: bytes read and written per second.

    python benchmarks/floors.py --save    # a few seconds and 1 GiB; lines go to benchmarks/results

CPU time of a thread, best of many runs: other jobs stretch the wall clock.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import harness
import torch

GIB = 2**30
REPEATS = 25


def best_rate(run: Callable[[], object], n_bytes: int) -> float:
    """Gigabytes per second of all threads together in the best of several runs."""
    best = float("inf")
    for _ in range(REPEATS):
        before = time.process_time()
        run()
        best = min(best, time.process_time() - before)
    return round(n_bytes * torch.get_num_threads() / best / 1e9, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save", action="store_true", help="keep the lines in benchmarks/results")
    arguments = parser.parse_args()
    x, y = torch.ones(GIB // 8), torch.empty(GIB // 8)  # float32, half a GiB each: beyond any cache
    lines = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        y.zero_()
        rates = {
            "read": best_rate(x.max, x.nbytes),
            "write": best_rate(y.zero_, y.nbytes),
            "copy": best_rate(lambda: y.copy_(x), 2 * x.nbytes),  # read and written together
        }
        facts = harness.machine_facts(("torch",)) | {"threads": threads}
        name = "1 thread" if threads == 1 else f"{threads} threads"
        lines.append({"workload": name, "gigabytes_per_second": rates, "machine": facts})
        sys.stdout.write(f"{name}: {rates} GB/s\n")
    if arguments.save:
        harness.RESULTS.mkdir(exist_ok=True)
        text = "\n".join(json.dumps(line) for line in lines) + "\n"
        (harness.RESULTS / "floors.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
