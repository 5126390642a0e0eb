"""gather_regions and scatter_regions against PyTorch, numpy and einops: the same batch, one thread.

    python benchmarks/ops/bench_gather_regions.py --quick      # does it run?
    python benchmarks/ops/bench_gather_regions.py --save       # a table; rows to benchmarks/results
    python -m pytest benchmarks/ops/bench_gather_regions.py    # the same candidates under pytest-benchmark

Forms that return a padded block are checked for the same rows in it. mask_regions has a file of its own.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import neurokern as nk
from neurokern.ops import region_index

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness
from mask_peers import N_BINS, N_REGIONS, N_SAMPLES, N_UNITS, counts

OURS = "neurokern"


def choose(n_samples: int, fraction: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n_samples, N_UNITS, generator=generator) < fraction


# ---- units to packed (or padded) rows


def packing(n_samples: int, fraction: float) -> harness.Candidates:
    x, keep = counts(n_samples), choose(n_samples, fraction)
    index, numbers = region_index(keep), torch.arange(n_samples)
    array, keep_array = x.numpy(), keep.numpy()

    def fancy() -> torch.Tensor:
        sample, unit = keep.nonzero(as_tuple=True)
        return x[sample, :, unit]

    def select_rows() -> torch.Tensor:
        rows = keep.flatten().nonzero().squeeze(1)
        return x.transpose(1, 2).reshape(-1, N_BINS).index_select(0, rows)

    def argsort_gather() -> torch.Tensor:
        order = keep.to(torch.int8).argsort(stable=True, dim=1, descending=True)
        order = order[:, : int(keep.sum(1).max())]
        return x.gather(2, order[:, None].expand(-1, N_BINS, -1)).transpose(1, 2)

    def topk_take() -> torch.Tensor:
        rank = keep * torch.arange(N_UNITS, 0, -1)
        order = rank.topk(int(keep.sum(1).max()), dim=1).indices
        return torch.take_along_dim(x, order[:, None], dim=2).transpose(1, 2)

    def masked_select() -> torch.Tensor:
        return x.transpose(1, 2).masked_select(keep[:, :, None]).view(-1, N_BINS)

    def padded_loop() -> torch.Tensor:
        rows = [x[b][:, keep[b]].T for b in numbers.tolist()]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def nested() -> torch.Tensor:
        rows = [x[b][:, keep[b]].T for b in numbers.tolist()]
        return torch.nested.nested_tensor(rows, layout=torch.jagged).values()

    calls: harness.Candidates = {
        OURS: lambda: nk.gather_regions(x, index).values,
        "neurokern with region_index": lambda: nk.gather_regions(x, region_index(keep)).values,
        "x.transpose(1, 2)[keep]": lambda: x.transpose(1, 2)[keep],
        "x[sample, :, unit]": fancy,
        "nonzero + index_select": select_rows,
        "argsort + gather": argsort_gather,
        "topk + take_along_dim": topk_take,
        "masked_select": masked_select,
        "loop + pad_sequence": padded_loop,
        "nested tensor (jagged)": nested,
        "numpy x.transpose(0, 2, 1)[keep]": lambda: array.transpose(0, 2, 1)[keep_array],
        "x.max(): reading alone": lambda: x.max(),
    }
    if importlib.util.find_spec("einops") is not None:
        import einops

        calls["einops + boolean"] = lambda: einops.rearrange(x, "b t n -> (b n) t")[keep.flatten()]
    return calls


# ---- packed rows back to units


def scattering(n_samples: int, fraction: float) -> harness.Candidates:
    x, keep = counts(n_samples), choose(n_samples, fraction)
    index = region_index(keep)
    rows = nk.gather_regions(x, index).values
    shape = (n_samples, N_BINS, N_UNITS)

    def assign() -> torch.Tensor:
        back = torch.zeros(shape)
        back.transpose(1, 2)[keep] = rows
        return back

    def copy_rows() -> torch.Tensor:
        back = torch.zeros(n_samples * N_UNITS, N_BINS)
        back.index_copy_(0, keep.flatten().nonzero().squeeze(1), rows)
        return back.view(n_samples, N_UNITS, N_BINS).transpose(1, 2).contiguous()

    def scatter() -> torch.Tensor:
        sample, unit = keep.nonzero(as_tuple=True)
        cells = (sample * N_BINS * N_UNITS + unit)[:, None] + torch.arange(N_BINS) * N_UNITS
        return (
            torch.zeros(n_samples * N_BINS * N_UNITS).scatter_(0, cells.flatten(), rows.flatten()).view(shape)
        )

    def masked_scatter() -> torch.Tensor:
        back = torch.zeros(n_samples, N_UNITS, N_BINS)
        return back.masked_scatter_(keep[:, :, None], rows).transpose(1, 2)

    return {
        OURS: lambda: nk.scatter_regions(rows, index),
        "boolean assignment": assign,
        "index_copy_ + transpose": copy_rows,
        "scatter_": scatter,
        "masked_scatter_": masked_scatter,
    }


WORKLOADS: dict[str, Callable[[int], harness.Candidates]] = {
    "gather 1 region of 20": lambda n: packing(n, 1 / N_REGIONS),
    "gather half of the units": lambda n: packing(n, 0.5),
    "scatter 1 region of 20": lambda n: scattering(n, 1 / N_REGIONS),
    "scatter half of the units": lambda n: scattering(n, 0.5),
}


def differing(right: torch.Tensor, keep: torch.Tensor, result: Any) -> int | None:
    """Entries that are not right; None for reading alone."""
    result = torch.as_tensor(result)
    if result.ndim == 0:
        return None
    if result.ndim == 3 and right.ndim == 2:  # padded: each sample's rows come first
        n_rows = keep.sum(1)
        result = result[torch.arange(result.shape[1]) < n_rows[:, None]]
    return int((result != right).sum())


def pytest_generate_tests(metafunc: Any) -> None:
    names = [(workload, name) for workload, make in WORKLOADS.items() for name in make(2)]
    metafunc.parametrize(("workload", "candidate"), names)


def test_speed(benchmark: Any, workload: str, candidate: str) -> None:
    torch.set_num_threads(1)
    benchmark.group = workload
    benchmark(WORKLOADS[workload](16)[candidate])


def main() -> None:
    arguments = harness.arguments(__doc__, repeats=15).parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # nested tensors are a prototype, it says
    n_samples, repeats = (4, 2) if arguments.quick else (N_SAMPLES, arguments.repeats)
    rows = []
    for workload, make in WORKLOADS.items():
        if arguments.workload in workload:
            calls = make(n_samples)
            right = calls["x.transpose(1, 2)[keep]" if "gather" in workload else "boolean assignment"]()
            keep = choose(n_samples, 0.5 if "half" in workload else 1 / N_REGIONS)
            rows += harness.compare(
                workload,
                OURS,
                calls,
                functools.partial(differing, right, keep),
                items=right.numel(),
                traffic=(right.nbytes, right.nbytes),
                repeats=repeats,
                budget=arguments.budget,
            )
    harness.report(
        "gather_regions", rows, harness.machine_facts(("torch", "numpy", "einops")), arguments.save
    )


if __name__ == "__main__":
    main()
