"""decode_nifti against numpy, torch, nibabel, nilearn, medrs and the gzip packages: the same file.

    python benchmarks/ops/bench_decode_nifti.py --quick        # does it run?
    python benchmarks/ops/bench_decode_nifti.py --save         # a table; rows to benchmarks/results
    python -m pytest benchmarks/ops/bench_decode_nifti.py      # the same candidates under pytest-benchmark

The run is made (int16, noise about a smooth volume) and lies in the page cache. One thread and CPU time,
except in the workloads that say otherwise.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurokern.ops import NiftiFile, ParcelAtlas, VoxelMask, decode_nifti

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import harness
import nifti_gzip_peers
import nifti_peers
from nifti_runs import Run, make_run

OURS = "neurokern"
STARTS = range(0, 240, 10)  # of windows


@dataclass(frozen=True)
class Workload:
    """What is decoded, by whom, and the least that must be read and written."""

    candidates: harness.Candidates
    items: int
    traffic: tuple[int, int]
    right: Callable[[], Any] | None = None  # makes the result, if it is not that of Run.expected


def masked_run(run: Run, *, reuse: bool, all_peers: bool = False) -> Workload:
    """Return the run's voxels, whole run."""
    file, mask, out = NiftiFile(run.path), VoxelMask(run.mask), torch.empty(run.n_volumes, run.n_voxels)
    ours: Callable[[], Any] = (
        (lambda: decode_nifti(file, mask, out=out)) if reuse else (lambda: decode_nifti(run.path, run.mask))
    )
    calls = {OURS: ours} | nifti_peers.masked_run(run, all_peers=all_peers)
    return Workload(calls, run.n_values, (run.n_volumes * run.touched_bytes, 4 * run.n_values))


def threaded_run(run: Run) -> Workload:
    """Return the run's voxels, the ways that use threads and the best that does not."""
    file, mask = NiftiFile(run.path), VoxelMask(run.mask)
    memory = run.memmap()
    calls: harness.Candidates = {OURS: lambda: decode_nifti(file, mask)}
    calls |= {nifti_peers.TAKE: lambda: nifti_peers.take(run, memory)} | nifti_peers.torch_ways(run)
    return Workload(calls, run.n_values, (run.n_volumes * run.touched_bytes, 4 * run.n_values))


def windows(run: Run) -> Workload:
    """Return windows of 16 volumes; the last one is the result."""
    file, mask, out = NiftiFile(run.path), VoxelMask(run.mask), torch.empty(16, run.n_voxels)
    starts = [start for start in STARTS if start + 16 <= run.n_volumes]

    def ours() -> torch.Tensor:
        for start in starts:
            decode_nifti(file, mask, start=start, stop=start + 16, out=out)
        return out

    n_values = len(starts) * 16 * run.n_voxels
    calls = {OURS: ours} | nifti_peers.windows(run, starts)
    traffic = (len(starts) * 16 * run.touched_bytes, 4 * n_values)
    return Workload(calls, n_values, traffic, lambda: run.expected(starts[-1], starts[-1] + 16))


def compressed(run: Run) -> Workload:
    """Return the run's voxels from .nii.gz, first pass: no seek points yet, none kept."""
    mask, packed = VoxelMask(run.mask), run.compressed()
    calls: harness.Candidates = {OURS: lambda: decode_nifti(NiftiFile(packed, cache=False), mask)}
    calls |= nifti_peers.compressed(run) | nifti_gzip_peers.first_pass(run)
    return Workload(calls, run.n_values, (run.file_bytes, 4 * run.n_values))


def compressed_windows(run: Run) -> Workload:
    """Return windows of 16 volumes from .nii.gz, the index of every reader warm."""
    file, mask = NiftiFile(run.compressed()), VoxelMask(run.mask)
    n = min(16, run.n_volumes)
    starts = [start for start in range(3, 300, 50) if start + n <= run.n_volumes] or [0]
    decode_nifti(file, mask, out=torch.empty(run.n_volumes, run.n_voxels))
    out = torch.empty(n, run.n_voxels)

    def ours() -> torch.Tensor:
        for start in starts:
            decode_nifti(file, mask, start=start, stop=start + n, out=out)
        return out

    n_values = len(starts) * n * run.n_voxels
    calls: harness.Candidates = {OURS: ours} | nifti_gzip_peers.windows(run, starts, n)
    traffic = (len(starts) * n * run.volume_bytes, 4 * n_values)
    return Workload(calls, n_values, traffic, lambda: run.expected(starts[-1], starts[-1] + n))


def parcels(run: Run) -> Workload:
    """Return the means of 400 parcels: each voxel belongs to the nearest of 400 random ones."""
    from scipy.spatial import cKDTree

    inside = np.argwhere(run.mask)
    centers = inside[np.random.default_rng(0).choice(len(inside), min(400, len(inside)), replace=False)]
    labels = np.zeros(run.mask.shape, np.int32)
    labels[run.mask] = cKDTree(centers).query(inside)[1] + 1
    file, atlas = NiftiFile(run.path), ParcelAtlas(labels)
    peers = nifti_peers.parcels(run, labels, atlas.sizes)
    return Workload(
        {OURS: lambda: decode_nifti(file, labels=atlas)} | peers,
        run.n_values,
        (run.n_volumes * run.touched_bytes, 4 * run.n_volumes * len(centers)),
        peers["scipy CSR on the memmap"],
    )


def cleaned(run: Run, n_confounds: int) -> Workload:
    """Return the run's voxels without slope and confounds, standardized."""
    file, mask, out = NiftiFile(run.path), VoxelMask(run.mask), torch.empty(run.n_volumes, run.n_voxels)
    n_confounds = min(n_confounds, run.n_volumes // 4)
    confounds = np.random.default_rng(0).normal(size=(run.n_volumes, n_confounds)) if n_confounds else None
    peers = nifti_peers.cleaned(run, confounds)

    def ours() -> Any:
        return decode_nifti(file, mask, detrend=True, standardize=True, confounds=confounds, out=out)

    traffic = (run.n_volumes * run.touched_bytes, 4 * run.n_values)
    return Workload({OURS: ours} | peers, run.n_values, traffic, peers["torch closed form"])


@dataclass(frozen=True)
class Case:
    """A line of the table: what is decoded, from which run."""

    make: Callable[[Run], Workload]
    run: dict[str, Any] = field(default_factory=dict)
    threads: int = 1


FRESH = functools.partial(masked_run, reuse=False)
CASES: dict[str, Case] = {
    "whole run, fresh output": Case(functools.partial(FRESH, all_peers=True)),
    "whole run, handle and output kept": Case(functools.partial(masked_run, reuse=True)),
    "windows of 16 volumes": Case(windows),
    "compressed, first pass": Case(compressed),
    "compressed, windows of 16 volumes": Case(compressed_windows),
    "400 parcel means": Case(parcels),
    "mask, detrend, standardize": Case(functools.partial(cleaned, n_confounds=0)),
    "mask, detrend, 24 confounds, standardize": Case(functools.partial(cleaned, n_confounds=24)),
    "whole run, 40,000 voxels": Case(FRESH, {"n_voxels": 40_000, "brain": 150_000}),
    "whole run, float32": Case(FRESH, {"dtype": "<f4"}),
    "whole run, float32 with NaN": Case(FRESH, {"dtype": "<f4", "with_nan": True}),
    "whole run, big-endian": Case(FRESH, {"dtype": ">i2"}),
    "whole run, NIfTI-2": Case(FRESH, {"version": 2}),
    "whole run, 2 threads, wall time": Case(threaded_run, threads=2),
}


def small_run(case: Case) -> dict[str, Any]:
    """Return the size of a run on which all candidates are quick."""
    size = {"shape": (24, 24, 12), "n_volumes": 20, "n_voxels": 3000}
    return size | ({"brain": 6000} if "brain" in case.run else {})


def differing(right: np.ndarray, result: Any) -> int | None:
    """Values that are not right to float32 rounding."""
    values = np.asarray(result)
    if values.shape != right.shape:
        return None
    size = np.abs(right[np.isfinite(right)]).max()
    return int((~np.isclose(values, right, rtol=0, atol=2e-5 * size, equal_nan=True)).sum())


def measure(name: str, case: Case, folder: Path, arguments: argparse.Namespace) -> list[harness.Row]:
    """Check and time the candidates of one line."""
    run = make_run(folder, **case.run | (small_run(case) if arguments.quick else {}))
    work = case.make(run)
    torch.set_num_threads(case.threads)
    try:
        return harness.compare(
            name,
            OURS,
            work.candidates,
            functools.partial(differing, np.asarray((work.right or run.expected)())),
            items=work.items,
            traffic=work.traffic,
            repeats=2 if arguments.quick else arguments.repeats,
            budget=arguments.budget,
            clock=time.process_time if case.threads == 1 else time.perf_counter,
        )
    finally:
        torch.set_num_threads(1)


def main() -> None:
    arguments = harness.arguments(__doc__, repeats=5).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEUROKERN_CACHE"] = folder
        rows = []
        for name, case in CASES.items():
            if arguments.workload in name:
                rows += measure(name, case, Path(folder), arguments)
        packages = (
            "numpy",
            "torch",
            "scipy",
            "nibabel",
            "nilearn",
            "medrs",
            "isal",
            "zlib-ng",
            "rapidgzip",
            "indexed_gzip",
        )
        harness.report("decode_nifti", rows, harness.machine_facts(packages), arguments.save)


def pytest_generate_tests(metafunc: Any) -> None:
    names = [(name, peer) for name in CASES for peer in (OURS, nifti_peers.TAKE, "isal + take")]
    metafunc.parametrize(("workload", "candidate"), names)


def test_speed(benchmark: Any, tmp_path: Path, workload: str, candidate: str) -> None:
    torch.set_num_threads(1)
    case = CASES[workload]
    size = {"shape": (48, 48, 30), "n_volumes": 40, "n_voxels": 15_000}
    brain = {"brain": 30_000} if "brain" in case.run else {}
    calls = case.make(make_run(tmp_path, **case.run | size | brain)).candidates
    benchmark.group = workload
    benchmark(calls.get(candidate, calls[OURS]))


if __name__ == "__main__":
    main()
