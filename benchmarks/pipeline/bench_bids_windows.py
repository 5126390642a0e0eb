"""Windows of a BIDS folder against nibabel, nilearn, gzip indices and converted copies: one thread.

    python benchmarks/pipeline/bench_bids_windows.py --quick        # does it run?
    python benchmarks/pipeline/bench_bids_windows.py --save         # a table; rows to benchmarks/results

Two made runs (int16, noise about a smooth volume) with a mask of 150,000 voxels, 17 windows of 16 volumes,
all in the page cache. Times are CPU seconds of a pass through all windows, worker processes included.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from neurokern.datasets import BIDSDataset, FMRIStream, FMRIWindows, collate_windows
from neurokern.extractors import FMRIParcelExtractor, FMRIVoxelExtractor
from neurokern.ops import VoxelMask, decode_nifti

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
sys.path.insert(0, str(Path(__file__).parent))
import harness
import window_peers as peers
from nifti_runs import Run, make_run
from window_peers import BATCH, LENGTH

OURS = "neurokern"


def cpu_seconds() -> float:
    """CPU time of this process and of the workers that ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


@dataclass(frozen=True)
class Folder:
    """A BIDS folder in both forms, what lies in it, and the cache."""

    root: Path
    runs: list[Run]
    cache: Path

    def windows(self, kind: str, extractor: Any, **options: Any) -> FMRIWindows:
        return BIDSDataset(self.root / kind).with_extractor(extractor, length=LENGTH, **options)

    @property
    def places(self) -> list[tuple[int, int]]:
        """Run and first volume of each window."""
        return [
            (i, start)
            for i, run in enumerate(self.runs)
            for start in range(0, run.n_volumes - LENGTH + 1, LENGTH)
        ]

    @property
    def mask(self) -> VoxelMask:
        return VoxelMask(self.runs[0].mask)

    @property
    def right(self) -> np.ndarray:
        """The last window."""
        run, start = self.places[-1]
        return self.runs[run].expected(start, start + LENGTH)


@dataclass(frozen=True)
class Workload:
    """What is read, by whom, and the right values of the last window."""

    candidates: harness.Candidates
    right: np.ndarray | None
    read_bytes: int


def make_folder(folder: Path, **size: Any) -> Folder:
    """Write two runs as .nii and .nii.gz into two BIDS folders."""
    runs = []
    for i, n_volumes in enumerate((128, 144)):
        run = make_run(folder, n_volumes=n_volumes, **size)
        runs.append(run)
        for kind, source in (("nii", run.path), ("gz", run.compressed())):
            func = folder / kind / f"sub-{i + 1:02d}" / "func"
            func.mkdir(parents=True)
            stem = func / f"sub-{i + 1:02d}_task-rest"
            os.link(source, f"{stem}_bold{''.join(source.suffixes)}")
            Path(f"{stem}_bold.json").write_text(json.dumps({"RepetitionTime": 2.0}))
            Path(f"{stem}_events.tsv").write_text("onset\tduration\ttrial_type\n4\t8\tface\n")
    return Folder(folder, runs, folder / "cache")


def through(windows: FMRIWindows) -> Callable[[], torch.Tensor]:
    """Return a call that reads all windows, one by one."""

    def call() -> torch.Tensor:
        for i in range(len(windows)):
            signal: torch.Tensor = windows[i]["signal"]
        return signal

    return call


def values_of(folder: Folder, *, compressed: bool) -> int:
    """Return the bytes that windows of the files touch, at least."""
    each = [run.mask.size * 2 if compressed else run.touched_bytes for run in folder.runs]
    return sum(LENGTH * each[run] for run, _ in folder.places)


def files(folder: Folder) -> Workload:
    ours = through(folder.windows("nii", FMRIVoxelExtractor(folder.mask)))
    calls = {OURS: ours} | peers.of_files(folder.runs, folder.places)
    return Workload(calls, folder.right, values_of(folder, compressed=False))


def indexed(folder: Folder) -> Workload:
    windows = folder.windows("gz", FMRIVoxelExtractor(folder.mask, cache=False))
    calls = {OURS: through(windows)} | peers.of_compressed(folder.runs, folder.places)
    return Workload(calls, folder.right, values_of(folder, compressed=True))


def packed(folder: Folder) -> Workload:
    windows = folder.windows("gz", FMRIVoxelExtractor(folder.mask))
    copies = peers.converted(folder.runs, folder.root, clean=False)
    calls: harness.Candidates = {
        OURS: through(windows),
        "neurokern, output kept": peers.each(folder.places, _decoded_into(windows)),
        peers.CONVERTED: peers.each(folder.places, _copied(copies)),
        f"{peers.CONVERTED}, output kept": peers.each(folder.places, _copied_into(copies)),
    }
    calls |= peers.of_compressed(folder.runs, folder.places)
    return Workload(calls, folder.right, len(folder.places) * LENGTH * folder.mask.n_voxels * 2)


def cleaned(folder: Folder) -> Workload:
    options = {"normalize": True, "detrend": True}
    copies = peers.converted(folder.runs, folder.root, clean=True)
    calls: harness.Candidates = {
        OURS: through(folder.windows("gz", FMRIVoxelExtractor(folder.mask, **options))),
        "neurokern, .nii": through(folder.windows("nii", FMRIVoxelExtractor(folder.mask, **options))),
        f"{peers.CONVERTED}, cleaned before": peers.each(folder.places, _copied(copies)),
    }
    run, start = folder.places[-1]
    n_bytes = len(folder.places) * LENGTH * folder.mask.n_voxels * 2
    return Workload(calls, copies[run][start : start + LENGTH], n_bytes)


def _copied(copies: list[Any]) -> Callable[[int, int], Any]:
    return lambda run, start: torch.from_numpy(copies[run][start : start + LENGTH].copy())


def _decoded_into(windows: FMRIWindows) -> Callable[[int, int], Any]:
    out = torch.empty(LENGTH, windows.extractor.feature_shape(windows.runs[0])[0])
    return lambda run, start: windows.extractor.extract(windows.runs[run], start, start + LENGTH, out)


def _copied_into(copies: list[Any]) -> Callable[[int, int], Any]:
    out = np.empty((LENGTH, copies[0].shape[1]), np.float32)

    def copy(run: int, start: int) -> np.ndarray:
        np.copyto(out, copies[run][start : start + LENGTH])
        return out

    return copy


def batches(folder: Folder, workers: int) -> Workload:
    """Return batches of 8 windows: the map-style set, the stream, and sets of the field."""
    windows = folder.windows("gz", FMRIVoxelExtractor(folder.mask)).prepare()
    stream = FMRIStream(windows, BATCH, shuffle=False)
    copies = peers.converted(folder.runs, folder.root, clean=False)
    paths = [run.path for run in folder.runs]

    def last(loader: Any) -> torch.Tensor:
        for batch in loader:
            signal: torch.Tensor = batch["signal"][-1]
        return signal

    calls: harness.Candidates = {
        OURS: lambda: last(DataLoader(stream, batch_size=None, num_workers=workers)),
        "neurokern, map-style": lambda: last(DataLoader(windows, batch_size=BATCH, num_workers=workers)),
        "neurokern, map-style, collate_windows": lambda: last(
            DataLoader(windows, batch_size=BATCH, num_workers=workers, collate_fn=collate_windows)
        ),
        f"{peers.CONVERTED}, Dataset": peers.epoch(peers.Copies(copies, folder.places), workers),
        "nibabel .nii slices, Dataset": peers.epoch(
            peers.Slices(paths, folder.runs[0].mask, folder.places), workers
        ),
    }
    return Workload(calls, folder.right, len(folder.places) * LENGTH * folder.mask.n_voxels * 2)


def parcels(folder: Folder) -> Workload:
    labels = np.zeros(folder.runs[0].mask.shape, np.int32)
    labels[folder.runs[0].mask] = np.arange(folder.runs[0].n_voxels) * 400 // folder.runs[0].n_voxels + 1
    calls = {
        OURS: through(folder.windows("gz", FMRIParcelExtractor(labels))),
        "neurokern, .nii": through(folder.windows("nii", FMRIParcelExtractor(labels))),
    }
    run, start = folder.places[-1]
    right = decode_nifti(folder.runs[run].path, labels=labels, start=start, stop=start + LENGTH)
    calls |= peers.parcels(folder.runs, labels, folder.places)
    return Workload(calls, np.asarray(right), len(folder.places) * LENGTH * 400 * 4)


def five_lines(folder: Folder, *, cold: bool) -> Workload:
    """Return the five lines of the documentation, from the folder's name to the last batch."""
    mask_path = folder.root / "mask.nii.gz"
    if not mask_path.exists():
        import nibabel

        mask = folder.runs[0].mask.astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(mask, folder.runs[0].affine), mask_path)

    def ours() -> torch.Tensor:
        if cold:
            shutil.rmtree(folder.cache, ignore_errors=True)
        brain = BIDSDataset(root_dir=folder.root / "gz", modality="func", task="rest")
        extractor = FMRIVoxelExtractor(mask=mask_path, normalize=True, detrend=True)
        ready = brain.with_extractor(extractor, length=LENGTH)
        for batch in DataLoader(ready, batch_size=BATCH):
            signal: torch.Tensor = batch["signal"][-1]
        return signal

    run, start = folder.places[-1]
    right = peers.converted(folder.runs, folder.root, clean=True)[run][start : start + LENGTH]
    calls = {OURS: ours, "nilearn NiftiMasker + Dataset": peers.masked_in_memory(folder.runs, folder.places)}
    return Workload(calls, right, sum(run.file_bytes for run in folder.runs))


CASES: dict[str, Callable[[Folder], Workload]] = {
    "windows of .nii": files,
    "windows of .nii.gz, index kept": indexed,
    "windows of .nii.gz, packed": packed,
    "windows of .nii.gz, packed, detrend, standardize": cleaned,
    "windows of 400 parcels, packed": parcels,
    "batches, no workers": functools.partial(batches, workers=0),
    "batches, 2 workers": functools.partial(batches, workers=2),
    "five lines, first epoch ever": functools.partial(five_lines, cold=True),
    "five lines, later": functools.partial(five_lines, cold=False),
}
SMALL = {"shape": (24, 24, 12), "n_voxels": 3000}


def differing(right: np.ndarray | None, result: Any) -> int | None:
    """Values that are not right to float32 rounding."""
    values = np.asarray(result)
    if right is None or values.shape != right.shape:
        return None
    size = np.abs(right).max()
    return int((~np.isclose(values, right, rtol=0, atol=2e-5 * size)).sum())


def main() -> None:
    arguments = harness.arguments(__doc__, repeats=5).parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["NEUROKERN_CACHE"] = str(Path(name) / "cache")
        folder = make_folder(Path(name), **(SMALL if arguments.quick else {}))
        for workload, make in CASES.items():
            if arguments.workload not in workload:
                continue
            work = make(folder)
            n_windows = len(folder.places)
            rows += harness.compare(
                workload,
                OURS,
                work.candidates,
                functools.partial(differing, work.right),
                items=n_windows,
                traffic=(work.read_bytes, n_windows * LENGTH * folder.mask.n_voxels * 4),
                repeats=2 if arguments.quick else arguments.repeats,
                budget=arguments.budget,
                clock=cpu_seconds,
            )
    packages = ("numpy", "torch", "nibabel", "nilearn", "rapidgzip", "indexed_gzip")
    harness.report("bids_windows", rows, harness.machine_facts(packages), arguments.save)


if __name__ == "__main__":
    main()
