"""What people use to get the voxels of an fMRI run, each as a call without arguments.

Every function returns the calls of one workload by the names of the table. What a user prepares once (masks,
positions, sparse matrices, memory maps) is not timed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import nibabel
import numpy as np
import torch
from nifti_runs import Run
from numpy.typing import NDArray

TAKE = "numpy memmap take, by volume"


def take(run: Run, volumes: NDArray[Any]) -> NDArray[np.float32]:
    """Return the voxels of these volumes, (volumes, voxels): the best that numpy can do."""
    values = np.empty((len(volumes), run.n_voxels), np.float32)
    for volume, row in zip(volumes, values, strict=True):
        np.multiply(volume.take(run.places), run.slope, out=row, dtype=np.float32)
        row += run.inter
    return values


def masked_run(run: Run) -> harness.Candidates:
    """Return the ways to all volumes of a mask."""
    memory = run.memmap()

    def index() -> NDArray[Any]:
        return memory[:, run.places].astype(np.float32) * run.slope + run.inter

    return {TAKE: lambda: take(run, memory), "numpy memmap[:, places]": index, **neuroimaging_tools(run)}


def neuroimaging_tools(run: Run) -> harness.Candidates:
    """Return what nibabel and nilearn offer, for any file."""
    from nilearn.masking import apply_mask

    mask_image = nibabel.Nifti1Image(run.mask.astype(np.uint8), run.affine)
    return {
        "nibabel get_fdata(float32)[mask]": lambda: (
            nibabel.load(run.path).get_fdata(dtype=np.float32)[run.mask].T
        ),
        "nilearn apply_mask": lambda: apply_mask(nibabel.load(run.path), mask_image),
    }


def windows(run: Run, starts: list[int]) -> harness.Candidates:
    """Return the ways to windows of 16 volumes; the last window is the result."""
    memory, image = run.memmap(), nibabel.load(run.path)

    def slices(start: int) -> NDArray[Any]:
        return np.asarray(image.dataobj[..., start : start + 16])[run.mask].T

    def each(window: Callable[[int], Any]) -> Callable[[], Any]:
        return lambda: [window(start) for start in starts][-1]

    return {
        TAKE: each(lambda start: take(run, memory[start : start + 16])),
        "nibabel dataobj slices": each(slices),
    }


def compressed(run: Run) -> harness.Candidates:
    """Return the ways through a whole .nii.gz."""
    packed = run.compressed()

    def stream(open_gzip: Callable[[Path], Any]) -> NDArray[np.float32]:
        values = np.empty((run.n_volumes, run.n_voxels), np.float32)
        volume = np.empty(run.mask.size, run.dtype)
        with open_gzip(packed) as source:
            source.read(352)
            for row in values:
                source.readinto(memoryview(volume).cast("B"))
                np.multiply(volume.take(run.places), run.slope, out=row, dtype=np.float32)
                row += run.inter
        return values

    calls: harness.Candidates = {
        f"{name} + take": functools.partial(stream, open_gzip) for name, open_gzip in gzip_readers().items()
    }
    return calls | neuroimaging_tools(run.at(packed))


def gzip_readers() -> dict[str, Callable[[Path], Any]]:
    """Return openers of .gz files by the package they come from."""
    import gzip

    from isal import igzip
    from zlib_ng import gzip_ng

    return {"isal": igzip.open, "zlib-ng": gzip_ng.open, "gzip": gzip.open}


def parcels(run: Run, labels: NDArray[np.int32], sizes: NDArray[Any]) -> harness.Candidates:
    """Return the ways to the mean of each parcel; labels are (x, y, z), 0 outside."""
    from scipy import sparse

    memory, in_file = run.memmap(), labels.ravel(order="F")
    places, n_parcels = np.flatnonzero(in_file), len(sizes)
    shares = (1 / sizes[in_file[places] - 1]).astype(np.float32)
    means = sparse.csr_matrix((shares, (in_file[places] - 1, places)), (n_parcels, run.mask.size))

    def by_volume(means_of: Callable[[NDArray[Any]], Any]) -> Callable[[], Any]:
        def call() -> NDArray[np.float32]:
            values = np.empty((run.n_volumes, n_parcels), np.float32)
            for volume, row in zip(memory, values, strict=True):
                row[:] = means_of(volume) * run.slope + run.inter
            return values

        return call

    return {
        "scipy CSR on the memmap": by_volume(lambda volume: means @ volume),
        "numpy bincount by volume": by_volume(lambda volume: np.bincount(in_file, volume)[1:] / sizes),
    }


def cleaned(run: Run, confounds: NDArray[np.float64] | None) -> harness.Candidates:
    """Return the ways to voxels without slope and confounds, standardized."""
    memory = run.memmap()
    columns = [np.ones(run.n_volumes), np.arange(run.n_volumes)]
    columns += [] if confounds is None else list(confounds.T)
    basis = torch.from_numpy(np.linalg.qr(np.column_stack(columns))[0].astype(np.float32))

    def closed_form() -> torch.Tensor:
        values = torch.empty(run.n_volumes, run.n_voxels)
        for volume, row in zip(memory, values, strict=True):
            row.copy_(torch.from_numpy(volume.take(run.places)))
        values.mul_(float(run.slope)).add_(float(run.inter))
        values -= values[0].clone()
        values -= basis @ (basis.T @ values)
        return values.div_(values.std(0))

    def nilearn_clean() -> NDArray[Any]:
        from nilearn.signal import clean

        values = memory[:, run.places].astype(np.float32) * run.slope + run.inter
        return clean(values, detrend=True, standardize="zscore_sample", confounds=confounds)

    return {"torch closed form": closed_form, "nilearn signal.clean": nilearn_clean}
