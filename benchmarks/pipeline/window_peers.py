"""What people use to get windows of fMRI runs for PyTorch, each as a call that goes through all windows.

Every function returns the calls of one workload by the names of the table; what is prepared once (indices of
gzip files, converted copies, fitted maskers) is not timed, unless the workload is the first epoch.
"""

from __future__ import annotations

import atexit
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import harness
import nibabel
import numpy as np
import torch
from nifti_runs import Run
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

LENGTH = 16  # volumes of a window
BATCH = 8
Window = tuple[int, int]  # run, first volume
TAKE = "numpy memmap take, by volume"
RAPIDGZIP = "rapidgzip + index + take"
INDEXED_GZIP = "nibabel + indexed_gzip"
SLICES = "nibabel dataobj slices"
CONVERTED = "float32 .npy, mapped"


def each(windows: Sequence[Window], read: Callable[[int, int], Any]) -> Callable[[], Any]:
    """Return a call that reads all windows; the last one is its result."""

    def call() -> Any:
        for run, start in windows:
            values = read(run, start)
        return values

    return call


def scaled(run: Run, volumes: NDArray[Any]) -> NDArray[np.float32]:
    values = np.empty((len(volumes), run.n_voxels), np.float32)
    for volume, row in zip(volumes, values, strict=True):
        np.multiply(volume.take(run.places), run.slope, out=row, dtype=np.float32)
        row += run.inter
    return values


def of_files(runs: Sequence[Run], windows: Sequence[Window]) -> harness.Candidates:
    """Return the ways to windows of .nii files."""
    from nilearn.maskers import NiftiMasker

    memories = [run.memmap() for run in runs]
    images = [nibabel.load(run.path) for run in runs]
    masker = NiftiMasker(_image(runs[0].mask, runs[0]), standardize=None).fit()

    def slices(run: int, start: int) -> NDArray[Any]:
        return np.asarray(images[run].dataobj[..., start : start + LENGTH])[runs[run].mask].T

    return {
        TAKE: each(windows, lambda run, start: scaled(runs[run], memories[run][start : start + LENGTH])),
        SLICES: each(windows, slices),
        "nilearn NiftiMasker of slices": each(
            windows, lambda run, start: masker.transform(images[run].slicer[..., start : start + LENGTH])
        ),
    }


def of_compressed(runs: Sequence[Run], windows: Sequence[Window]) -> harness.Candidates:
    """Return the ways to windows of .nii.gz files that have an index."""
    images = [nibabel.load(run.compressed(), keep_file_open=True) for run in runs]

    def slices(run: int, start: int) -> NDArray[Any]:
        return np.asarray(images[run].dataobj[..., start : start + LENGTH])[runs[run].mask].T

    calls: harness.Candidates = {}
    if importlib.util.find_spec("rapidgzip"):
        import rapidgzip

        files = [rapidgzip.open(str(run.compressed()), parallelization=2) for run in runs]
        for file in files:
            atexit.register(file.close)  # its threads would outlive Python
            file.seek(0, 2)  # builds the index

        def seek(run: int, start: int) -> NDArray[np.float32]:
            own = runs[run]
            files[run].seek(own.offset + start * own.volume_bytes)
            volumes = np.frombuffer(files[run].read(LENGTH * own.volume_bytes), own.dtype)
            return scaled(own, volumes.reshape(LENGTH, -1))

        calls[RAPIDGZIP] = each(windows, seek)
    if importlib.util.find_spec("indexed_gzip"):
        for image in images:
            np.asarray(image.dataobj[..., -1:])  # builds the index
        calls[INDEXED_GZIP] = each(windows, slices)
    return calls


def converted(runs: Sequence[Run], folder: Path, clean: bool) -> list[NDArray[np.float32]]:
    """Return float32 copies of the voxels that a user made before, mapped."""
    copies = []
    for run in runs:
        path = folder / f"{run.path.stem}{'clean' if clean else ''}.npy"
        if not path.exists():
            values = cleaned(run) if clean else run.expected()
            np.save(path, np.ascontiguousarray(values))  # numpy's indexing left time fastest
        copies.append(np.load(path, mmap_mode="r"))
    return copies


def cleaned(run: Run) -> NDArray[np.float32]:
    """Return the run's voxels without mean and slope, standardized, in float64."""
    values = run.expected().astype(np.float64)
    time = np.arange(run.n_volumes) - (run.n_volumes - 1) / 2
    values -= values.mean(0)
    values -= np.outer(time / (time @ time), time @ values)
    return (values / values.std(0, ddof=1)).astype(np.float32)


class Copies(Dataset[torch.Tensor]):
    """Windows of mapped arrays: the least that a data set can do."""

    def __init__(self, arrays: Sequence[NDArray[np.float32]], windows: Sequence[Window]) -> None:
        self.arrays, self.windows = arrays, windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, i: int) -> torch.Tensor:
        run, start = self.windows[i]
        return torch.from_numpy(self.arrays[run][start : start + LENGTH].copy())


class Slices(Dataset[torch.Tensor]):
    """Windows through nibabel, as data sets of the field have them."""

    def __init__(self, paths: Sequence[Path], mask: NDArray[np.bool_], windows: Sequence[Window]) -> None:
        self.images, self.mask, self.windows = [nibabel.load(path) for path in paths], mask, windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, i: int) -> torch.Tensor:
        run, start = self.windows[i]
        values = np.asarray(self.images[run].dataobj[..., start : start + LENGTH])[self.mask]
        return torch.from_numpy(values.T.astype(np.float32))


def epoch(dataset: Dataset[torch.Tensor], workers: int) -> Callable[[], torch.Tensor]:
    """Return a call that goes through all batches of a DataLoader; the last window is its result."""

    def call() -> torch.Tensor:
        for batch in DataLoader(dataset, batch_size=BATCH, num_workers=workers):
            last = batch[-1]
        return last

    return call


def masked_in_memory(runs: Sequence[Run], windows: Sequence[Window]) -> Callable[[], torch.Tensor]:
    """Return a first epoch through NiftiMasker, which holds every run in memory."""
    from nilearn.maskers import NiftiMasker

    def call() -> torch.Tensor:
        image = _image(runs[0].mask, runs[0])
        masker = NiftiMasker(image, detrend=True, standardize="zscore_sample").fit()
        arrays = [np.asarray(masker.transform(str(run.compressed())), np.float32) for run in runs]
        return epoch(Copies(arrays, windows), 0)()

    return call


def parcels(runs: Sequence[Run], labels: NDArray[np.int32], windows: Sequence[Window]) -> harness.Candidates:
    """Return the ways to windows of parcel means of .nii.gz files."""
    from nilearn.maskers import NiftiLabelsMasker

    images = [nibabel.load(run.compressed(), keep_file_open=True) for run in runs]
    masker = NiftiLabelsMasker(_image(labels, runs[0]), standardize=None).fit()
    return {
        "nilearn NiftiLabelsMasker of slices": each(
            windows, lambda run, start: masker.transform(images[run].slicer[..., start : start + LENGTH])
        )
    }


def _image(values: NDArray[Any], run: Run) -> Any:
    return nibabel.Nifti1Image(values.astype(np.int32), run.affine)
