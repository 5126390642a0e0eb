"""mask_regions, gather_regions and scatter_regions against PyTorch: the same batch, one thread.

    python benchmarks/ops/bench_gather_regions.py              # table; --json FILE keeps the numbers
    python -m pytest benchmarks/ops/bench_gather_regions.py    # the same candidates under pytest-benchmark

Candidates of a workload mean the same but for the numbers that they draw. "published sequence" is our own
transcription of what the published masker runs, with region numbers in place of its strings: Bernoulli draws
of full size, boolean-index assignment, int64 targets. "lean eager" is the least that we found in plain
PyTorch. "copy" copies the batch and writes a byte per entry: the floor for anything that returns new tensors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import neurokern as nk
from neurokern import _core
from neurokern.ops import region_index

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness

N_SAMPLES, N_BINS, N_UNITS, N_REGIONS, RATIO = 64, 100, 800, 20, 0.3
SCHEMES = ("temporal", "neuron", "random", "intra-region", "inter-region")

Masked = tuple[torch.Tensor, torch.Tensor]
Candidates = dict[str, Callable[[], Any]]


def counts(n_samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.poisson(torch.full((n_samples, N_BINS, N_UNITS), 0.3), generator=generator)


REGIONS = torch.arange(N_UNITS) // (N_UNITS // N_REGIONS)


# ---- what others run


def lean_targets(x: torch.Tensor, scheme: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a broadcastable target mask, and for intra-region which units lie outside."""
    n_samples, n_bins, n_units = x.shape
    if scheme == "temporal":
        return torch.rand(n_samples, n_bins, 1) < RATIO, None
    if scheme == "neuron":
        return torch.rand(n_samples, 1, n_units) < RATIO, None
    if scheme == "random":
        return torch.rand(x.shape) < RATIO, None
    present = torch.unique(REGIONS)
    inside = present[torch.randint(len(present), ())] == REGIONS
    if scheme == "inter-region":
        return inside[None, None], None
    return (torch.rand(n_samples, 1, n_units) < RATIO) & inside, ~inside


def lean_zero(x: torch.Tensor, scheme: str) -> Masked:
    target, outside = lean_targets(x, scheme)
    hidden = target if outside is None else target | outside
    return x.masked_fill(hidden, 0), target.expand(x.shape).contiguous()


def lean_bert(x: torch.Tensor, scheme: str) -> Masked:
    target, outside = lean_targets(x, scheme)
    draw = torch.rand(x.shape)
    zeroed = target & (draw < 0.8)
    inputs = x.masked_fill(zeroed if outside is None else zeroed | outside, 0)
    sample, bins, unit = (target & (draw >= 0.8) & (draw < 0.9)).nonzero(as_tuple=True)
    inputs[sample, bins, unit] = x[sample, torch.randint(N_BINS, (len(bins),)), unit]
    return inputs, target.expand(x.shape).contiguous()


def published_sequence(x: torch.Tensor, scheme: str, zero_ratio: float) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone()  # it writes into its input; the batch must survive here
    target, outside = bernoulli_targets(x, scheme)
    mask = target if outside is None else target | outside
    zeroed = torch.bernoulli(torch.full(x.shape, zero_ratio)).bool() & mask
    x[zeroed] = 0
    other = torch.bernoulli(torch.full(x.shape, 0.5)).bool() & mask & ~zeroed
    random_counts = x.max() * torch.rand(x.shape)
    x[other] = random_counts[other]
    return x, target.to(torch.int64)


def bernoulli_targets(x: torch.Tensor, scheme: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    n_samples, n_bins, n_units = x.shape
    shapes = {"temporal": (n_samples, n_bins, 1), "random": x.shape}
    draw = torch.bernoulli(torch.full(shapes.get(scheme, (n_samples, 1, n_units)), RATIO)).bool()
    target = draw.expand(x.shape).clone()
    if scheme not in ("intra-region", "inter-region"):
        return target, None
    present = torch.unique(REGIONS)
    inside = (present[torch.randint(len(present), ())] == REGIONS).expand(x.shape)
    return (inside.clone(), None) if scheme == "inter-region" else (target & inside, ~inside)


# ---- workloads


def masking(n_samples: int, scheme: str, replacement: str) -> Candidates:
    x = counts(n_samples)
    out, flags = torch.empty_like(x), torch.empty(x.shape, dtype=torch.bool)

    def copy() -> None:
        out.copy_(x)
        flags.fill_(False)

    zero = replacement == "zero"
    return {
        "neurokern": lambda: nk.mask_regions(
            x, REGIONS, scheme, ratio=RATIO, seed=0, replacement=replacement
        ),
        "lean eager": lambda: (lean_zero if zero else lean_bert)(x, scheme),
        "published sequence": lambda: published_sequence(x, scheme, 1.0 if zero else 0.8),
        "copy": copy,
    }


def packing(n_samples: int, fraction: float) -> Candidates:
    x = counts(n_samples)
    generator = torch.Generator().manual_seed(1)
    chosen = torch.rand(n_samples, N_UNITS, generator=generator) < fraction
    index = region_index(chosen)

    def argsort_gather() -> torch.Tensor:
        order = chosen.to(torch.int8).argsort(stable=True, dim=1, descending=True)
        order = order[:, : int(chosen.sum(1).max())]
        return x.gather(2, order[:, None].expand(-1, N_BINS, -1)).transpose(1, 2)

    def select_rows() -> torch.Tensor:
        rows = chosen.flatten().nonzero().squeeze(1)
        return x.transpose(1, 2).reshape(-1, N_BINS).index_select(0, rows)

    return {
        "neurokern": lambda: nk.gather_regions(x, index).values,
        "neurokern with region_index": lambda: nk.gather_regions(x, region_index(chosen)).values,
        "x.transpose(1, 2)[mask]": lambda: x.transpose(1, 2)[chosen],
        "nonzero + index_select": select_rows,
        "argsort + gather": argsort_gather,
    }


def scattering(n_samples: int, fraction: float) -> Candidates:
    x = counts(n_samples)
    generator = torch.Generator().manual_seed(1)
    chosen = torch.rand(n_samples, N_UNITS, generator=generator) < fraction
    index = region_index(chosen)
    rows = nk.gather_regions(x, index).values

    def assign() -> torch.Tensor:
        back = torch.zeros(x.shape)
        back.transpose(1, 2)[chosen] = rows
        return back

    def copy_rows() -> torch.Tensor:
        back = torch.zeros(n_samples * N_UNITS, N_BINS)
        back.index_copy_(0, chosen.flatten().nonzero().squeeze(1), rows)
        return back.view(n_samples, N_UNITS, N_BINS).transpose(1, 2).contiguous()

    return {
        "neurokern": lambda: nk.scatter_regions(rows, index),
        "boolean assignment": assign,
        "index_copy_ + transpose": copy_rows,
    }


WORKLOADS: dict[str, Callable[[int], Candidates]] = {
    **{
        f"{scheme}, {replacement}": lambda n, s=scheme, r=replacement: masking(n, s, r)  # type: ignore[misc]
        for replacement in ("zero", "random")
        for scheme in SCHEMES
    },
    "gather 1 region of 20": lambda n: packing(n, 1 / N_REGIONS),
    "gather half of the units": lambda n: packing(n, 0.5),
    "scatter 1 region of 20": lambda n: scattering(n, 1 / N_REGIONS),
    "scatter half of the units": lambda n: scattering(n, 0.5),
}


def check(workload: str) -> None:
    """Ours must be exact before it is timed: the reference's bits, or the rows of plain indexing."""
    x = counts(4)
    scheme, _, replacement = workload.partition(", ")
    if replacement:
        ours, reference = (
            nk.mask_regions(x, REGIONS, scheme, seed=0, replacement=replacement, backend=backend)
            for backend in (None, "reference")
        )
        same = torch.equal(ours.inputs, reference.inputs) and torch.equal(
            ours.target_mask, reference.target_mask
        )
    else:
        made = WORKLOADS[workload](4)
        results = [run() for run in made.values()]
        same = torch.equal(results[0], results[1])
        same &= all(torch.equal(results[0], r) for r in results[1:] if r.shape == results[0].shape)
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=N_SAMPLES)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--workload", default="", help="only those whose name contains this")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for workload, make in WORKLOADS.items():
        if arguments.workload in workload:
            check(workload)
            candidates = make(arguments.samples)
            rows += harness.compare(workload, "neurokern", candidates, repeats=arguments.repeats)
    facts = harness.machine_facts(("torch",))
    sys.stdout.write(harness.as_table(rows) + "\n\n")
    shape = f"{arguments.samples} samples x {N_BINS} bins x {N_UNITS} units float32"
    sys.stdout.write(f"{facts['cpu']}, {_core.isa()}, 1 thread, load {facts['load']}, {shape}\n")
    if arguments.json is not None:
        arguments.json.write_text(harness.as_json_lines(rows, facts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
