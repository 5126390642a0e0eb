"""decode_nifti against numpy, nibabel, nilearn and the gzip packages: the same file, one thread.

    python benchmarks/ops/bench_decode_nifti.py --quick        # does it run?
    python benchmarks/ops/bench_decode_nifti.py --save         # a table; rows to benchmarks/results
    python -m pytest benchmarks/ops/bench_decode_nifti.py      # the same candidates under pytest-benchmark

The run is made (int16, noise about a smooth volume) and lies in the page cache.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurokern.ops import NiftiFile, ParcelAtlas, VoxelMask, decode_nifti

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import harness
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


def masked_run(run: Run, *, reuse: bool) -> Workload:
    """Return the run's voxels, whole run."""
    file, mask, out = NiftiFile(run.path), VoxelMask(run.mask), torch.empty(run.n_volumes, run.n_voxels)
    ours: Callable[[], Any] = (
        (lambda: decode_nifti(file, mask, out=out)) if reuse else (lambda: decode_nifti(run.path, run.mask))
    )
    calls = {OURS: ours} | nifti_peers.masked_run(run)
    return Workload(calls, run.n_values, (run.file_bytes, 4 * run.n_values))


def windows(run: Run) -> Workload:
    """Return windows of 16 volumes."""
    file, mask, out = NiftiFile(run.path), VoxelMask(run.mask), torch.empty(16, run.n_voxels)
    starts = [start for start in STARTS if start + 16 <= run.n_volumes]

    def ours() -> torch.Tensor:
        for start in starts:
            decode_nifti(file, mask, start=start, stop=start + 16, out=out)
        return out

    n_values = len(starts) * 16 * run.n_voxels
    calls = {OURS: ours} | nifti_peers.windows(run, starts)
    return Workload(calls, n_values, (len(starts) * 16 * run.volume_bytes, 4 * n_values))


def compressed(run: Run) -> Workload:
    """Return the run's voxels from .nii.gz, first pass: no seek points yet, none kept."""
    mask, packed = VoxelMask(run.mask), run.compressed()
    calls: harness.Candidates = {OURS: lambda: decode_nifti(NiftiFile(packed, cache=False), mask)}
    calls |= nifti_peers.compressed(run)
    return Workload(calls, run.n_values, (run.file_bytes, 4 * run.n_values))


def parcels(run: Run) -> Workload:
    """Return the means of 400 parcels: each voxel belongs to the nearest of 400 random ones."""
    from scipy.spatial import cKDTree

    inside = np.argwhere(run.mask)
    centers = inside[np.random.default_rng(0).choice(len(inside), min(400, len(inside)), replace=False)]
    labels = np.zeros(run.mask.shape, np.int32)
    labels[run.mask] = cKDTree(centers).query(inside)[1] + 1
    file, atlas = NiftiFile(run.path), ParcelAtlas(labels)
    calls = {OURS: lambda: decode_nifti(file, labels=atlas)} | nifti_peers.parcels(run, labels, atlas.sizes)
    return Workload(calls, run.n_values, (run.file_bytes, 4 * run.n_volumes * len(centers)))


def cleaned(run: Run, n_confounds: int) -> Workload:
    """Return the run's voxels without slope and confounds, standardized."""
    file, mask, out = NiftiFile(run.path), VoxelMask(run.mask), torch.empty(run.n_volumes, run.n_voxels)
    n_confounds = min(n_confounds, run.n_volumes // 4)
    confounds = np.random.default_rng(0).normal(size=(run.n_volumes, n_confounds)) if n_confounds else None
    calls: harness.Candidates = {
        OURS: lambda: decode_nifti(file, mask, detrend=True, standardize=True, confounds=confounds, out=out)
    }
    calls |= nifti_peers.cleaned(run, confounds)
    return Workload(calls, run.n_values, (run.file_bytes, 4 * run.n_values))


WORKLOADS: dict[str, Callable[[Run], Workload]] = {
    "whole run, fresh output": functools.partial(masked_run, reuse=False),
    "whole run, handle and output kept": functools.partial(masked_run, reuse=True),
    "windows of 16 volumes": windows,
    "compressed, first pass": compressed,
    "400 parcel means": parcels,
    "mask, detrend, standardize": functools.partial(cleaned, n_confounds=0),
    "mask, detrend, 24 confounds, standardize": functools.partial(cleaned, n_confounds=24),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "whole run, 40,000 voxels": {"n_voxels": 40_000},
    "whole run, float32": {"dtype": "<f4"},
    "whole run, big-endian": {"dtype": ">i2"},
}


def differing(right: np.ndarray, result: Any) -> int | None:
    """Values that are not right to float32 rounding; windows are compared where they were left."""
    values = np.asarray(result)
    if values.shape != right.shape:
        return None
    return int((np.abs(values - right) > 2e-5 * np.abs(right).max()).sum())


def main() -> None:
    arguments = harness.arguments(__doc__, repeats=5).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NEUROKERN_CACHE"] = folder
        size = {"shape": (24, 24, 12), "n_volumes": 20, "n_voxels": 3000} if arguments.quick else {}
        rows = []
        makers = {name: (make, {}) for name, make in WORKLOADS.items()}
        makers |= {
            name: (WORKLOADS["whole run, fresh output"], options) for name, options in VARIANTS.items()
        }
        for name, (make, options) in makers.items():
            if arguments.workload not in name:
                continue
            run = make_run(Path(folder), **({**options, **size} if arguments.quick else options))
            work = make(run)
            plain = not any(word in name for word in ("parcel", "detrend"))
            right = run.expected() if plain else np.asarray(list(work.candidates.values())[1]())
            rows += harness.compare(
                name,
                OURS,
                work.candidates,
                functools.partial(differing, right),
                items=work.items,
                traffic=work.traffic,
                repeats=2 if arguments.quick else arguments.repeats,
                budget=arguments.budget,
            )
        packages = ("numpy", "torch", "scipy", "nibabel", "nilearn", "isal", "zlib-ng")
        harness.report("decode_nifti", rows, harness.machine_facts(packages), arguments.save)


def pytest_generate_tests(metafunc: Any) -> None:
    names = [
        (name, peer) for name in WORKLOADS for peer in (OURS, "numpy memmap take, by volume", "isal + take")
    ]
    metafunc.parametrize(("workload", "candidate"), names)


def test_speed(benchmark: Any, tmp_path: Path, workload: str, candidate: str) -> None:
    torch.set_num_threads(1)
    run = make_run(tmp_path, shape=(48, 48, 30), n_volumes=40, n_voxels=15_000)
    calls = WORKLOADS[workload](run).candidates
    benchmark.group = workload
    benchmark(calls.get(candidate, calls[OURS]))


if __name__ == "__main__":
    main()
