"""The machine's own limits, to hold timings against: bytes read and written per second on one thread.

Run it with ``python benchmarks/floors.py``; it takes a few seconds and 1 GiB.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

GIB = 2**30
REPEATS = 9


def best_rate(run: Callable[[], object], n_bytes: int) -> float:
    """Gigabytes per CPU second in the best of several runs."""
    best = float("inf")
    for _ in range(REPEATS):
        before = time.process_time()
        run()
        best = min(best, time.process_time() - before)
    return n_bytes / best / 1e9


def main() -> None:
    torch.set_num_threads(1)
    x, y = torch.ones(GIB // 8), torch.empty(GIB // 8)  # float32, half a GiB each: beyond any cache
    y.zero_()
    print(f"read        {best_rate(x.max, x.nbytes):6.1f} GB/s")
    print(f"write       {best_rate(y.zero_, y.nbytes):6.1f} GB/s")
    print(f"copy        {best_rate(lambda: y.copy_(x), 2 * x.nbytes):6.1f} GB/s, read and written together")


if __name__ == "__main__":
    main()
