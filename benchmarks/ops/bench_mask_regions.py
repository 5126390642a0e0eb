"""mask_regions against PyTorch: the same batch, one thread.

    python benchmarks/ops/bench_mask_regions.py --quick        # does it run?
    python benchmarks/ops/bench_mask_regions.py --save         # a table; rows to benchmarks/results
    python -m pytest benchmarks/ops/bench_mask_regions.py      # the same candidates under pytest-benchmark

Peers: mask_peers.py. "copy" copies the batch and writes a byte per entry, the floor for anything that returns
new tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import neurokern as nk

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
from mask_peers import N_SAMPLES, RATIO, REGIONS, counts, lean_bert, lean_zero, pack, published_sequence

SCHEMES = ("temporal", "causal", "neuron", "intra-region", "inter-region", "random")
OURS = "neurokern"


def masking(
    n_samples: int,
    scheme: str,
    replacement: str,
    *,
    dtype: torch.dtype = torch.float32,
    index: bool = False,
    compiled: bool = False,
) -> harness.Candidates:
    x = counts(n_samples, dtype)
    out, flags = torch.empty_like(x), torch.empty(x.shape, dtype=torch.bool)
    zero = replacement == "zero"
    lean = lean_zero if zero else lean_bert
    options = {"ratio": RATIO, "seed": 0, "replacement": replacement, "return_index": index}

    def copy() -> None:
        out.copy_(x)
        flags.fill_(False)

    def with_index(masked: Any) -> Any:
        return pack(masked) if index else masked

    calls: harness.Candidates = {
        OURS: lambda: nk.mask_regions(x, REGIONS, scheme, **options),
        "lean eager": lambda: with_index(lean(x, scheme)),
        "published sequence": lambda: with_index(published_sequence(x, scheme, 1.0 if zero else 0.8)),
        "copy": copy,
    }
    if compiled:
        torch.compiler.reset()
        compiled_lean = torch.compile(lambda x: lean_zero(x, scheme))
        calls["torch.compile of lean"] = lambda: compiled_lean(x)
    return calls


def _with_index(scheme: str, replacement: str) -> Callable[[int], harness.Candidates]:
    return lambda n: masking(n, scheme, replacement, index=True)


def _plain(scheme: str, replacement: str, compiled: bool) -> Callable[[int], harness.Candidates]:
    return lambda n: masking(n, scheme, replacement, compiled=compiled and n == N_SAMPLES)


WORKLOADS: dict[str, Callable[[int], harness.Candidates]] = {
    **{f"{scheme}, zero": _plain(scheme, "zero", scheme != "causal") for scheme in SCHEMES},
    **{f"{scheme}, random": _plain(scheme, "random", False) for scheme in SCHEMES},
    "temporal, zero, bfloat16": lambda n: masking(n, "temporal", "zero", dtype=torch.bfloat16),
    "neuron, random, bfloat16": lambda n: masking(n, "neuron", "random", dtype=torch.bfloat16),
    **{f"{scheme}, zero, index": _with_index(scheme, "zero") for scheme in ("temporal", "neuron", "random")},
    "random, random, index": _with_index("random", "random"),
}


def check(workload: str) -> None:
    """Ours must have the reference's bits before it is timed."""
    scheme, replacement, *more = workload.split(", ")
    x = counts(4, torch.bfloat16 if "bfloat16" in more else torch.float32)
    options = {"seed": 0, "replacement": replacement, "return_index": "index" in more}
    ours = nk.mask_regions(x, REGIONS, scheme, **options)
    reference = nk.mask_regions(x, REGIONS, scheme, backend="reference", **options)
    same = torch.equal(ours.inputs, reference.inputs) and torch.equal(ours.target_mask, reference.target_mask)
    if "index" in more:
        same &= torch.equal(ours.index, ours.target_mask.flatten().nonzero().squeeze(1))
    if not same:
        raise AssertionError(f"{workload}: neurokern differs from its reference")


def pytest_generate_tests(metafunc: Any) -> None:
    names = [(workload, name) for workload, make in WORKLOADS.items() for name in make(2)]
    metafunc.parametrize(("workload", "candidate"), names)


def test_speed(benchmark: Any, workload: str, candidate: str) -> None:
    torch.set_num_threads(1)
    check(workload)
    benchmark.group = workload
    benchmark(WORKLOADS[workload](16)[candidate])


def main() -> None:
    arguments = harness.arguments(__doc__, repeats=15).parse_args()
    torch.set_num_threads(1)
    n_samples, repeats = (4, 2) if arguments.quick else (N_SAMPLES, arguments.repeats)
    rows = []
    for workload, make in WORKLOADS.items():
        if arguments.workload in workload:
            check(workload)
            calls, items = make(n_samples), counts(n_samples).numel()
            size = 2 if "bfloat16" in workload else 4
            options = {
                "repeats": repeats,
                "budget": arguments.budget,
                "traffic": (items * size, items * (size + 1)),
            }
            rows += harness.compare(workload, OURS, calls, items=items, **options)
    harness.report("mask_regions", rows, harness.machine_facts(("torch",)), arguments.save)


if __name__ == "__main__":
    main()
