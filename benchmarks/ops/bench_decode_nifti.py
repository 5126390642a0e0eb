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
    memory, places = run.memmap(), run.places
    file, mask, out = NiftiFile(run.path), VoxelMask(run.mask), torch.empty(run.n_volumes, run.n_voxels)

    def take() -> np.ndarray:
        values = np.empty((run.n_volumes, run.n_voxels), np.float32)
        for volume, row in zip(memory, values, strict=True):
            np.multiply(volume.take(places), run.slope, out=row, dtype=np.float32)
            row += run.inter
        return values

    def index() -> np.ndarray:
        return memory[:, places].astype(np.float32) * run.slope + run.inter

    ours: Callable[[], Any] = (
        (lambda: decode_nifti(file, mask, out=out)) if reuse else (lambda: decode_nifti(run.path, run.mask))
    )
    calls = {OURS: ours, "numpy memmap take, by volume": take, "numpy memmap[:, places]": index}
    return Workload(calls | _tools(run), run.n_values, (run.file_bytes, 4 * run.n_values))


def _tools(run: Run) -> harness.Candidates:
    import nibabel
    from nilearn.masking import apply_mask

    mask_image = nibabel.Nifti1Image(run.mask.astype(np.uint8), run.affine)
    return {
        "nibabel get_fdata(float32)[mask]": lambda: (
            nibabel.load(run.path).get_fdata(dtype=np.float32)[run.mask].T
        ),
        "nilearn apply_mask": lambda: apply_mask(nibabel.load(run.path), mask_image),
    }


def windows(run: Run) -> Workload:
    """Return windows of 16 volumes."""
    import nibabel

    memory, places = run.memmap(), run.places
    file, mask, out = NiftiFile(run.path), VoxelMask(run.mask), torch.empty(16, run.n_voxels)
    starts = [start for start in STARTS if start + 16 <= run.n_volumes] or [0]
    image = nibabel.load(run.path)

    def take() -> np.ndarray:
        values = np.empty((16, run.n_voxels), np.float32)
        for start in starts:
            for volume, row in zip(memory[start : start + 16], values, strict=False):
                np.multiply(volume.take(places), run.slope, out=row, dtype=np.float32)
                row += run.inter
        return values

    def ours() -> torch.Tensor:
        for start in starts:
            decode_nifti(
                file, mask, start=start, stop=min(start + 16, run.n_volumes), out=out[: run.n_volumes]
            )
        return out

    def slices() -> np.ndarray:
        for start in starts:
            values = np.asarray(image.dataobj[..., start : start + 16])[run.mask].T
        return values

    n_values = len(starts) * 16 * run.n_voxels
    calls = {OURS: ours, "numpy memmap take, by volume": take, "nibabel dataobj slices": slices}
    return Workload(calls, n_values, (len(starts) * 16 * run.volume_bytes, 4 * n_values))


def compressed(run: Run) -> Workload:
    """Return the run's voxels from .nii.gz, first pass: no seek points yet, none kept."""
    mask, packed = VoxelMask(run.mask), run.compressed()
    shape = (run.n_volumes, run.mask.size)

    def stream(open_gzip: Callable[[Path], Any]) -> np.ndarray:
        values = np.empty((run.n_volumes, run.n_voxels), np.float32)
        volume = np.empty(shape[1], run.dtype)
        with open_gzip(packed) as source:
            source.read(352)
            for row in values:
                source.readinto(memoryview(volume).cast("B"))
                np.multiply(volume.take(run.places), run.slope, out=row, dtype=np.float32)
                row += run.inter
        return values

    calls: harness.Candidates = {OURS: lambda: decode_nifti(NiftiFile(packed, cache=False), mask)}
    for name, open_gzip in _gzip_readers().items():
        calls[f"{name} + take"] = functools.partial(stream, open_gzip)
    calls |= {f"{name}": call for name, call in _tools(run.at(packed)).items()}
    return Workload(calls, run.n_values, (run.file_bytes, 4 * run.n_values))


def parcels(run: Run) -> Workload:
    """Return the means of 400 parcels: each voxel belongs to the nearest of 400 random ones."""
    from scipy import sparse
    from scipy.spatial import cKDTree

    inside = np.argwhere(run.mask)
    centers = inside[np.random.default_rng(0).choice(len(inside), min(400, len(inside)), replace=False)]
    labels = np.zeros(run.mask.shape, np.int32)
    labels[run.mask] = cKDTree(centers).query(inside)[1] + 1
    file, atlas, memory = NiftiFile(run.path), ParcelAtlas(labels), run.memmap()
    in_file = labels.ravel(order="F")
    places = np.flatnonzero(in_file)
    shares = (1 / atlas.sizes[in_file[places] - 1]).astype(np.float32)
    means = sparse.csr_matrix((shares, (in_file[places] - 1, places)), (len(centers), run.mask.size))

    def scipy_csr() -> np.ndarray:
        values = np.empty((run.n_volumes, len(centers)), np.float32)
        for volume, row in zip(memory, values, strict=True):
            row[:] = (means @ volume) * run.slope + run.inter
        return values

    def bincount() -> np.ndarray:
        values = np.empty((run.n_volumes, len(centers)), np.float32)
        for volume, row in zip(memory, values, strict=True):
            row[:] = np.bincount(in_file, volume)[1:] / atlas.sizes * run.slope + run.inter
        return values

    calls = {
        OURS: lambda: decode_nifti(file, labels=atlas),
        "scipy CSR on the memmap": scipy_csr,
        "numpy bincount by volume": bincount,
    }
    return Workload(calls, run.n_values, (run.file_bytes, 4 * run.n_volumes * len(centers)))


def cleaned(run: Run, n_confounds: int) -> Workload:
    """Return the run's voxels without slope and confounds, standardized."""
    file, mask, out = NiftiFile(run.path), VoxelMask(run.mask), torch.empty(run.n_volumes, run.n_voxels)
    n_confounds = min(n_confounds, run.n_volumes // 4)
    confounds = np.random.default_rng(0).normal(size=(run.n_volumes, n_confounds)) if n_confounds else None
    columns = [np.ones(run.n_volumes), np.arange(run.n_volumes)]
    columns += [] if confounds is None else list(confounds.T)
    basis = torch.from_numpy(np.linalg.qr(np.column_stack(columns))[0].astype(np.float32))
    memory = run.memmap()

    def closed_form() -> torch.Tensor:
        values = torch.empty(run.n_volumes, run.n_voxels)
        for volume, row in zip(memory, values, strict=True):
            row.copy_(torch.from_numpy(volume.take(run.places)))
        values.mul_(float(run.slope)).add_(float(run.inter))
        values -= values[0].clone()
        values -= basis @ (basis.T @ values)
        return values.div_(values.std(0))

    def nilearn_clean() -> np.ndarray:
        from nilearn.signal import clean

        values = memory[:, run.places].astype(np.float32) * run.slope + run.inter
        return clean(values, detrend=True, standardize="zscore_sample", confounds=confounds)

    calls = {
        OURS: lambda: decode_nifti(file, mask, detrend=True, standardize=True, confounds=confounds, out=out),
        "torch closed form": closed_form,
        "nilearn signal.clean": nilearn_clean,
    }
    return Workload(calls, run.n_values, (run.file_bytes, 4 * run.n_values))


def _gzip_readers() -> dict[str, Callable[[Path], Any]]:
    import gzip

    from isal import igzip
    from zlib_ng import gzip_ng

    return {"isal": igzip.open, "zlib-ng": gzip_ng.open, "gzip": gzip.open}


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
