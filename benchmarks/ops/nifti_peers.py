"""What people use to get the voxels of an fMRI run, each as a call without arguments.

Every function returns the calls of one workload by the names of the table. What a user prepares once (masks,
positions, sparse matrices, memory maps, fitted maskers) is not timed.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import harness
import nibabel
import numpy as np
import torch
from nifti_runs import Run
from numpy.typing import NDArray

TAKE = "numpy memmap take, by volume"
GET_FDATA = "nibabel get_fdata(float32)[mask]"
MASKER = "nilearn NiftiMasker"


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def take(run: Run, volumes: NDArray[Any], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return the voxels of these volumes: the best that numpy can do."""
    values = np.empty((len(volumes), run.n_voxels), np.float32) if out is None else out
    for volume, row in zip(volumes, values, strict=True):
        np.multiply(volume.take(run.places), run.slope, out=row, dtype=np.float32)
        row += run.inter
    return values


def in_torch(run: Run) -> torch.Tensor | None:
    """Return the volumes as torch maps them; None where it cannot: it knows no other byte order."""
    if run.dtype[0] == ">":
        return None
    dtype = {"<i2": torch.int16, "<f4": torch.float32}[run.dtype]
    before = run.offset // dtype.itemsize
    values = torch.from_file(
        str(run.path), shared=False, size=before + run.n_volumes * run.mask.size, dtype=dtype
    )
    return values[before:].view(run.n_volumes, -1)


def masked_run(run: Run, *, all_peers: bool = True) -> harness.Candidates:
    """Return the ways to all volumes of a mask."""
    memory, kept = run.memmap(), np.empty((run.n_volumes, run.n_voxels), np.float32)

    def index() -> NDArray[Any]:
        return memory[:, run.places].astype(np.float32) * run.slope + run.inter

    calls: harness.Candidates = {
        TAKE: lambda: take(run, memory),
        f"{TAKE}, output kept": lambda: take(run, memory, kept),
        **torch_ways(run),
        **neuroimaging_tools(run),
    }
    if not all_peers:
        return calls
    calls["numpy memmap[:, places]"] = index
    return calls | slow_tools(run)


def torch_ways(run: Run) -> harness.Candidates:
    """Return torch's: a mapping, and voxels by their places."""
    memory, places = in_torch(run), torch.from_numpy(run.places)
    if memory is None:
        return {}
    slope, inter = float(run.slope), float(run.inter)

    def by_volume() -> torch.Tensor:
        values = torch.empty(run.n_volumes, run.n_voxels)
        for volume, row in zip(memory, values, strict=True):
            row.copy_(volume.take(places)).mul_(slope).add_(inter)
        return values

    def at_once() -> torch.Tensor:
        return memory.index_select(1, places).to(torch.float32).mul_(slope).add_(inter)

    return {"torch.from_file take, by volume": by_volume, "torch.from_file index_select": at_once}


def neuroimaging_tools(run: Run) -> harness.Candidates:
    """Return what nibabel and nilearn offer, for any file."""
    from nilearn.maskers import NiftiMasker
    from nilearn.masking import apply_mask

    mask_image = nibabel.Nifti1Image(run.mask.astype(np.uint8), run.affine)
    masker = NiftiMasker(mask_image, standardize=None).fit()
    return {
        GET_FDATA: lambda: nibabel.load(run.path).get_fdata(dtype=np.float32)[run.mask].T,
        MASKER: lambda: masker.transform(str(run.path)),
        "nilearn apply_mask": lambda: apply_mask(nibabel.load(run.path), mask_image),
    }


def slow_tools(run: Run) -> harness.Candidates:
    """Return further ways to a whole run."""

    def volume_by_volume() -> NDArray[np.float32]:
        data = nibabel.load(run.path).dataobj
        values = np.empty((run.n_volumes, run.n_voxels), np.float32)
        for t, row in enumerate(values):
            row[:] = np.asarray(data[..., t])[run.mask]
        return values

    calls: harness.Candidates = {
        "nibabel get_fdata()[mask]": lambda: nibabel.load(run.path).get_fdata()[run.mask].T,
        "nibabel dataobj, by volume": volume_by_volume,
    }
    if installed("medrs"):
        import medrs

        places = torch.from_numpy(run.places)
        calls["medrs to_torch + index_select"] = lambda: (
            medrs.load(str(run.path))
            .to_torch()
            .permute(3, 2, 1, 0)
            .reshape(run.n_volumes, -1)
            .index_select(1, places)
        )
    return calls


class _Windows(torch.utils.data.Dataset[NDArray[np.float32]]):
    """Windows of 16 volumes as a data set over nibabel has them."""

    def __init__(self, run: Run, starts: list[int]) -> None:
        self.image, self.mask, self.starts = nibabel.load(run.path), run.mask, starts

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, i: int) -> NDArray[np.float32]:
        window = self.image.dataobj[..., self.starts[i] : self.starts[i] + 16]
        return np.asarray(window)[self.mask].T.astype(np.float32)


def last_of(make: Callable[[Any], Any], items: Iterable[Any]) -> Any:
    """Return what is made of the last item; of the others nothing is kept."""
    for item in items:
        made = make(item)
    return made


def windows(run: Run, starts: list[int]) -> harness.Candidates:
    """Return the ways to windows of 16 volumes; the last window is the result."""
    from nilearn.masking import apply_mask

    memory, image = run.memmap(), nibabel.load(run.path)
    mapped, places = in_torch(run), torch.from_numpy(run.places)
    mask_image = nibabel.Nifti1Image(run.mask.astype(np.uint8), run.affine)
    kept = np.empty((16, run.n_voxels), np.float32)
    loader = torch.utils.data.DataLoader(_Windows(run, starts), batch_size=1)

    def index_select(start: int) -> torch.Tensor:
        assert mapped is not None
        chosen = mapped[start : start + 16].index_select(1, places)
        return chosen.to(torch.float32).mul_(float(run.slope)).add_(float(run.inter))

    def slices(start: int) -> NDArray[Any]:
        return np.asarray(image.dataobj[..., start : start + 16])[run.mask].T

    def each(window: Callable[[int], Any]) -> Callable[[], Any]:
        return functools.partial(last_of, window, starts)

    return {
        TAKE: each(lambda start: take(run, memory[start : start + 16])),
        f"{TAKE}, output kept": each(lambda start: take(run, memory[start : start + 16], kept)),
        "numpy memmap[:, places]": each(
            lambda start: memory[start : start + 16][:, run.places].astype(np.float32) * run.slope + run.inter
        ),
        "torch.from_file index_select": each(index_select),
        "nibabel dataobj slices": each(slices),
        "DataLoader over nibabel slices": lambda: last_of(lambda batch: batch[0], loader),
        "nilearn apply_mask of slices": each(
            lambda start: apply_mask(image.slicer[..., start : start + 16], mask_image)
        ),
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
    from nilearn.maskers import NiftiLabelsMasker
    from scipy import sparse

    memory, mapped, in_file = run.memmap(), in_torch(run), labels.ravel(order="F")
    places, n_parcels = np.flatnonzero(in_file), len(sizes)
    shares = (1 / sizes[in_file[places] - 1]).astype(np.float32)
    means = sparse.csr_matrix((shares, (in_file[places] - 1, places)), (n_parcels, run.mask.size))
    by_parcel = places[np.argsort(in_file[places], kind="stable")]
    begins = np.searchsorted(in_file[by_parcel], np.arange(1, n_parcels + 1))
    index, at = torch.from_numpy(in_file[places].astype(np.int64) - 1), torch.from_numpy(places)
    counts = torch.from_numpy(sizes.astype(np.float32))
    label_image = nibabel.Nifti1Image(labels, run.affine)
    masker = NiftiLabelsMasker(label_image, standardize=None).fit()

    def by_volume(means_of: Callable[[Any], Any], volumes: Any = memory) -> Callable[[], Any]:
        def call() -> NDArray[np.float32]:
            values = np.empty((run.n_volumes, n_parcels), np.float32)
            for volume, row in zip(volumes, values, strict=True):
                row[:] = means_of(volume) * run.slope + run.inter
            return values

        return call

    def index_add(volume: torch.Tensor) -> NDArray[np.float32]:
        sums = torch.zeros(n_parcels).index_add_(0, index, volume.take(at).to(torch.float32))
        return (sums / counts).numpy()

    return {
        "scipy CSR on the memmap": by_volume(lambda volume: means @ volume),
        "numpy take + add.reduceat": by_volume(
            lambda volume: np.add.reduceat(volume.take(by_parcel).astype(np.float32), begins) / sizes
        ),
        "torch take + index_add": by_volume(index_add, mapped),
        "numpy bincount by volume": by_volume(
            lambda volume: np.bincount(in_file, volume, n_parcels + 1)[1:] / sizes
        ),
        "nilearn NiftiLabelsMasker": lambda: masker.transform(str(run.path)),
    }


def cleaned(run: Run, confounds: NDArray[np.float64] | None) -> harness.Candidates:
    """Return the ways to voxels without slope and confounds, standardized."""
    from nilearn.maskers import NiftiMasker

    memory = run.memmap()
    mask_image = nibabel.Nifti1Image(run.mask.astype(np.uint8), run.affine)
    masker = NiftiMasker(mask_image, detrend=True, standardize="zscore_sample").fit()
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

    return {
        "torch closed form": closed_form,
        "nilearn signal.clean": nilearn_clean,
        MASKER: lambda: masker.transform(str(run.path), confounds=confounds),
    }
