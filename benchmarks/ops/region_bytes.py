"""What the region ops must move on a GPU, and what the plain PyTorch sequences move: bytes, not time.

    python benchmarks/ops/region_bytes.py     # the tables of docs/performance.md, "CUDA: bytes and bounds"

Sequences are counted while they run on the CPU: the tensors that each call reads and writes, calls that are
no views (at least a kernel each), and calls whose result's size or value the host must wait for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.insert(0, str(Path(__file__).parent))
from mask_peers import N_BINS, N_SAMPLES, N_UNITS, RATIO, counts, lean_bert, lean_zero, published_sequence

BANDWIDTH = 3.35e12  # bytes a second: an H100's memory
CELLS = N_SAMPLES * N_BINS * N_UNITS
SCHEMES = ("temporal", "neuron", "random", "intra-region", "inter-region")
WAITS = ("aten::nonzero", "aten::_local_scalar_dense", "aten::_unique2")


class Traffic(TorchDispatchMode):
    """Counts what calls of PyTorch touch."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.kernels, self.waits = 0, 0, 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = call(*args, **(kwargs or {}))
        name = call._schema.name
        flat, _ = torch.utils._pytree.tree_flatten((args, kwargs or {}, result))
        tensors = {tensor.data_ptr(): tensor for tensor in flat if isinstance(tensor, torch.Tensor)}
        if call.is_view or name in ("aten::empty", "aten::detach"):
            return result
        self.kernels += 1
        self.bytes += sum(distinct(tensor) * tensor.element_size() for tensor in tensors.values())
        self.waits += name in WAITS
        if name in ("aten::index", "aten::index_put_"):
            masks = [t for t in flat if isinstance(t, torch.Tensor) and t.dtype == torch.bool]
            self.waits += len(masks)  # a boolean index is turned into positions first
            self.kernels += len(masks)
        return result


def distinct(tensor: torch.Tensor) -> int:
    """Elements in memory; an expanded axis counts once."""
    shape = [n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride != 0]
    return int(torch.Size(shape).numel())


def count(run: Callable[[], Any]) -> Traffic:
    with Traffic() as traffic:
        run()
    return traffic


def amount(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.1f} MB, {n_bytes / BANDWIDTH * 1e6:.1f} µs"


def masks(dtype: torch.dtype) -> None:
    print(f"\n{dtype}: bytes and their time at {BANDWIDTH / 1e12} TB/s; kernels, waits")
    print("| scheme, replacement | ours | lean eager | | published | |\n|---|---|---|---|---|---|")
    x = counts(N_SAMPLES, dtype)
    ours = CELLS * (2 * dtype.itemsize + 1)  # read x, write inputs and a byte of target mask
    for scheme in SCHEMES:
        for name, lean, ratio in (("zero", lean_zero, 1.0), ("BERT-style", lean_bert, 0.8)):
            eager = count(lambda lean=lean, scheme=scheme: lean(x, scheme))
            published = count(lambda ratio=ratio, scheme=scheme: published_sequence(x, scheme, ratio))
            rest = (f"{amount(c.bytes)} | {c.kernels}, {c.waits}" for c in (eager, published))
            print(f"| {scheme}, {name} | {amount(ours)} | {' | '.join(rest)} |")


def indices_and_rows(dtype: torch.dtype) -> None:
    """Row moves read or write each unit's entry of x where it lies: a sector of 32 bytes if alone there."""
    print(f"\n{dtype}\n| step | ours |\n|---|---|")
    print(f"| pack the positions of 30 % targets | {amount(2 * CELLS + 8 * RATIO * CELLS)} |")
    for name, n_units in (("one region of 20", N_UNITS // 20), ("half of the units", N_UNITS // 2)):
        packed = CELLS // N_UNITS * n_units * dtype.itemsize
        scattered = min(CELLS // N_UNITS * n_units * 32, CELLS * dtype.itemsize)
        print(f"| gather {name}, next to each other | {amount(2 * packed)} |")
        print(f"| gather {name}, scattered | {amount(packed + scattered)} |")
        print(f"| scatter {name} | {amount(packed + CELLS * dtype.itemsize)} |")


if __name__ == "__main__":
    for number_type in (torch.float32, torch.bfloat16):
        masks(number_type)
        indices_and_rows(number_type)
