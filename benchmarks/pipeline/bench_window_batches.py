"""Batches of short windows, of a region and of the whole brain, through PyTorch's DataLoader: one thread.

    python benchmarks/pipeline/bench_window_batches.py --quick        # does it run?
    python benchmarks/pipeline/bench_window_batches.py --save         # a table; rows to benchmarks/results

Four made runs of 64 x 64 x 36 voxels and 200 to 203 volumes (int16, .nii.gz), prepared before; an epoch of
all windows of 8 volumes, 3 apart, in a drawn order, in batches of 16, of 3,400 and of 35,640 voxels. CPU time
of an epoch.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from neurokern.datasets import BIDSDataset, FMRIWindows, WindowStream
from neurokern.extractors import FMRIVoxelExtractor
from neurokern.ops import NiftiFile, StoredRun, VoxelMask, gather_windows

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "ops"))
sys.path.insert(0, str(Path(__file__).parent))
import harness
from nifti_runs import Run, brain_mask, make_run

OURS = "neurokern"
LENGTH, STRIDE, BATCH = 8, 3, 16
TR = 2.0
N_CONFOUNDS = 24
MAPPED = "float32 .npy, mapped, Dataset"
Epoch = Callable[[], torch.Tensor]


class Folder:
    """A BIDS folder of made runs, a region and the brain."""

    def __init__(self, root: Path, shape: tuple[int, int, int], n_brain: int, n_region: int) -> None:
        self.root = root
        self.runs = [
            make_run(root, shape=shape, n_volumes=200 + i, n_voxels=n_brain, brain=n_brain) for i in range(4)
        ]
        self.masks = {"brain": self.runs[0].mask, "region": brain_mask(shape, n_region, n_region)}
        for i, run in enumerate(self.runs):
            func = root / "bids" / f"sub-{i // 2 + 1:02d}" / "func"
            func.mkdir(parents=True, exist_ok=True)
            stem = func / f"sub-{i // 2 + 1:02d}_task-rest_run-{i % 2 + 1:02d}"
            if not Path(f"{stem}_bold.json").exists():
                os.link(run.compressed(), f"{stem}_bold.nii.gz")
                Path(f"{stem}_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
                drift = np.random.default_rng(i).normal(size=(run.n_volumes, N_CONFOUNDS)).cumsum(0)
                names = "\t".join(f"motion_{k}" for k in range(N_CONFOUNDS))
                table = f"{str(stem).replace('_bold', '')}_desc-confounds_timeseries.tsv"
                np.savetxt(table, drift, delimiter="\t", header=names, comments="")
        self.places = [
            (i, start)
            for i, run in enumerate(self.runs)
            for start in range(0, run.n_volumes - LENGTH + 1, STRIDE)
        ]
        self.order = np.random.default_rng(0).permutation(len(self.places)).tolist()

    def windows(self, mask: str, **options: Any) -> FMRIWindows:
        extractor = FMRIVoxelExtractor(self.masks[mask], **options)
        return (
            BIDSDataset(self.root / "bids").with_extractor(extractor, length=LENGTH, stride=STRIDE).prepare()
        )

    def values(self, mask: str) -> list[np.ndarray]:
        """Return float32 copies of the voxels that somebody made before, mapped."""
        found = []
        for run in self.runs:
            path = self.root / f"{mask}{run.n_volumes}.npy"
            if not path.exists():
                np.save(path, np.ascontiguousarray(of_mask(run, self.masks[mask]).expected()))
            found.append(np.load(path, mmap_mode="r"))
        return found

    def right(self, mask: str) -> np.ndarray:
        """The last window of the epoch."""
        run, start = self.places[self.order[-1]]
        return np.asarray(self.values(mask)[run][start : start + LENGTH])


def of_mask(run: Run, mask: np.ndarray) -> Run:
    places = np.ravel_multi_index(np.nonzero(mask), mask.shape, order="F")
    return Run(run.path, mask, places, run.n_volumes, run.dtype, run.slope, run.inter, run.offset)


class Copies(Dataset[torch.Tensor]):
    """Windows of mapped arrays: the least that a data set can do."""

    def __init__(self, arrays: list[np.ndarray], places: list[tuple[int, int]]) -> None:
        self.arrays, self.places = arrays, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> torch.Tensor:
        run, start = self.places[i]
        return torch.from_numpy(self.arrays[run][start : start + LENGTH].copy())


def through(data: Any, order: list[int]) -> Epoch:
    """Return an epoch of a DataLoader with PyTorch's own collate function, as everybody writes it."""

    def call() -> torch.Tensor:
        for batch in DataLoader(data, batch_size=BATCH, sampler=order):
            signal = batch["signal"] if isinstance(batch, dict) else batch
            last = signal[-1]
        return last

    return call


def streamed(windows: FMRIWindows, wanted: int) -> Epoch:
    stream = WindowStream(windows, BATCH, shuffle=False)

    def call() -> torch.Tensor:
        for number, batch in enumerate(DataLoader(stream, batch_size=None)):
            if number == wanted // BATCH:
                found = batch["signal"][wanted % BATCH]
        return found

    return call


def gathered(runs: list[StoredRun], folder: Folder) -> Epoch:
    """Return an epoch of the op alone, into one output."""
    run, start = np.array(folder.places)[folder.order].T.copy()
    out = torch.empty(BATCH, LENGTH, runs[0].shape[1])

    def call() -> torch.Tensor:
        for first in range(0, len(run), BATCH):
            part = slice(first, first + BATCH)
            n = len(run[part])
            gather_windows(runs, run[part], start[part], LENGTH, out=out[:n])
        return out[n - 1]

    return call


def copied(arrays: list[np.ndarray], folder: Folder) -> Epoch:
    """Return an epoch of numpy's copies into one output: what a store of float32 costs at least."""
    out = np.empty((BATCH, LENGTH, arrays[0].shape[1]), np.float32)
    places = [folder.places[i] for i in folder.order]

    def call() -> torch.Tensor:
        for first in range(0, len(places), BATCH):
            for place, (run, start) in zip(out, places[first : first + BATCH], strict=False):
                np.copyto(place, arrays[run][start : start + LENGTH])
        return torch.from_numpy(out[(len(places) - 1) % BATCH])

    return call


def candidates(folder: Folder, mask: str) -> dict[str, Epoch]:
    windows, arrays, order = folder.windows(mask), folder.values(mask), folder.order
    voxels = VoxelMask(folder.masks[mask])
    packed = [NiftiFile(run.compressed()).pack(voxels).stored() for run in folder.runs]
    calls = {
        OURS: through(windows, order),
        f"{OURS}, bfloat16": through(folder.windows(mask, dtype=torch.bfloat16), order),
        f"{OURS}, stream": streamed(windows, order[-1]),
        f"{OURS}, gather_windows alone": gathered(packed, folder),
        MAPPED: through(Copies(arrays, folder.places), order),
        "float32 .npy, mapped, copied into one output": copied(arrays, folder),
    }
    if mask == "region":
        calls[f"{OURS}, gather_windows of a store of the brain"] = gathered(chosen(folder), folder)
    return calls | neuralset_epochs(folder, mask)


def neuralset_epochs(folder: Folder, mask: str) -> dict[str, Epoch]:
    if not importlib.util.find_spec("neuralset"):
        return {}
    import neuralset_peer

    options = {"length": LENGTH, "stride": STRIDE, "batch": BATCH}
    own = folder.masks[mask]
    calls = neuralset_peer.epochs(folder.runs, own, folder.root, **options)
    return {name: functools.partial(call, folder.order) for name, call in calls.items()}


def chosen(folder: Folder) -> list[StoredRun]:
    """Return the region's columns of stores of the brain, int16."""
    brain = VoxelMask(folder.masks["brain"])
    columns = np.flatnonzero(folder.masks["region"][folder.masks["brain"]])
    stores = []
    for run in folder.runs:
        path = folder.root / f"store{run.n_volumes}.npy"
        if not path.exists():
            np.save(path, NiftiFile(run.path).read_raw(brain))
        slope, inter = float(run.slope), float(run.inter)
        stores.append(StoredRun.open(path, columns=columns, slope=slope, inter=inter))
    return stores


def cleaned(folder: Folder, mask: str) -> dict[str, Epoch]:
    """Return epochs of signals without trend and confounds, standardized."""
    options = {"normalize": True, "detrend": True}
    confounds = {"confounds": ("motion_*",)}
    return {
        OURS: through(folder.windows(mask, **options), folder.order),
        f"{OURS}, and {N_CONFOUNDS} confounds": through(
            folder.windows(mask, **options, **confounds), folder.order
        ),
        f"{OURS}, and {N_CONFOUNDS} confounds, kept cleaned": through(
            folder.windows(mask, **options, **confounds, cache="cleaned"), folder.order
        ),
        f"{MAPPED}, cleaned before": through(Copies(folder.values(mask), folder.places), folder.order),
    }


WORKLOADS: dict[str, tuple[str, Callable[[Folder, str], dict[str, Epoch]]]] = {
    "region of 3,400 voxels": ("region", candidates),
    "brain of 35,640 voxels": ("brain", candidates),
    "region, detrend, standardize": ("region", cleaned),
    "brain, detrend, standardize": ("brain", cleaned),
}
SIZES: dict[str, Any] = {"shape": (64, 64, 36), "n_brain": 35_640, "n_region": 3_400}
SMALL: dict[str, Any] = {"shape": (16, 16, 9), "n_brain": 900, "n_region": 100}


def differing(right: np.ndarray, result: Any) -> int | None:
    values = result.float().numpy()
    if values.shape != right.shape:
        return None
    digits = 2e-6 if result.dtype == torch.float32 else 4e-3
    return int((~np.isclose(values, right, rtol=0, atol=digits * np.abs(right).max())).sum())


def main() -> None:
    parser = harness.arguments(__doc__, repeats=9)
    parser.add_argument("--folder", type=Path, help="where the made runs lie, or are put")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = arguments.folder or Path(name)
        os.environ["NEUROKERN_CACHE"] = str(root / "cache")
        folder = Folder(root, **(SMALL if arguments.quick else SIZES))
        for workload, (mask, make) in WORKLOADS.items():
            if arguments.workload not in workload:
                continue
            calls = make(folder, mask)
            check = functools.partial(differing, folder.right(mask)) if make is candidates else None
            n_values = len(folder.places) * LENGTH * int(folder.masks[mask].sum())
            rows += harness.compare(
                workload,
                OURS,
                calls,
                check,
                items=len(folder.places),
                traffic=(2 * n_values, 4 * n_values),
                repeats=2 if arguments.quick else arguments.repeats,
                budget=arguments.budget,
            )
    for row in rows:
        sys.stdout.write(f"{row.workload}, {row.candidate}: {row.items / row.timing.median:,.0f} a second\n")
    packages = ("numpy", "torch", "neuralset")
    harness.report("window_batches", rows, harness.machine_facts(packages), arguments.save)


if __name__ == "__main__":
    main()
