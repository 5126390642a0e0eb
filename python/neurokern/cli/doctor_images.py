"""What is wrong with the values of an image, and with masks that lie beside it."""

from __future__ import annotations

import contextlib
import pathlib
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from neurokern.datasets import BIDSDataset
    from neurokern.ops import NiftiHeader

__all__ = ["Look", "check_image", "check_masks"]

_BLOCK_BYTES = 1 << 26  # of float32 values held at a time
_MOST_CLIPPED = 1e-4  # of the bright voxels, above which clipping is told
_MOST_FLAT = 0.01


class Look(NamedTuple):
    """How long it took to read a file."""

    kind: str  # "images", "recordings" or "recordings of spikes"
    seconds: float
    n_bytes: int  # of images and signals decoded, of spikes as the files have them


def check_image(path: pathlib.Path) -> tuple[Look, list[tuple[str, str]]]:
    """Read an image to its end; return how long that took, and what is wrong with its values."""
    from neurokern.datasets import bright_mask
    from neurokern.ops import NiftiFile, decode_nifti

    file = NiftiFile(path)
    header = file.header
    n_voxels = int(np.prod(header.shape))
    at_once = max(_BLOCK_BYTES // (4 * max(n_voxels, 1)), 1)
    limits = _limits(header)
    low, high = np.full(header.shape, np.inf, np.float32), np.full(header.shape, -np.inf, np.float32)
    total = np.zeros(header.shape)
    lost, clipped = np.zeros(header.shape, bool), np.zeros(header.shape, bool)
    seconds = 0.0
    for start in range(0, header.n_volumes, at_once):
        begun = time.perf_counter()
        block = np.asarray(decode_nifti(file, start=start, stop=min(start + at_once, header.n_volumes)))
        seconds += time.perf_counter() - begun
        lost |= ~np.isfinite(block).all(axis=0)
        np.minimum(low, block.min(axis=0), out=low)
        np.maximum(high, block.max(axis=0), out=high)
        total += block.sum(axis=0, dtype=np.float64)
        if limits is not None:
            clipped |= ((block <= limits[0]) | (block >= limits[1])).any(axis=0)
    look = Look("images", seconds, header.n_bytes)
    bright = np.ones(header.shape, bool)
    with contextlib.suppress(ValueError):  # nothing is brighter than the rest: all voxels count
        bright = bright_mask(np.where(lost, 0, total / max(header.n_volumes, 1)))
    return look, _value_findings(header, bright, lost, clipped, low == high)


def _limits(header: NiftiHeader) -> tuple[np.float32, np.float32] | None:
    """Return the values that the smallest and the largest stored integer stand for."""
    kind = np.dtype(header.dtype)
    if kind.kind not in "iu" or kind.itemsize > 2:
        return None  # nothing reaches the end of these
    ends = sorted(header.slope * end + header.inter for end in (np.iinfo(kind).min, np.iinfo(kind).max))
    # 0 is no end of unsigned integers: it is what background is.
    return np.float32(-np.inf if kind.kind == "u" else ends[0]), np.float32(ends[1])


def _value_findings(
    header: NiftiHeader,
    bright: NDArray[np.bool_],
    lost: NDArray[np.bool_],
    clipped: NDArray[np.bool_],
    flat: NDArray[np.bool_],
) -> list[tuple[str, str]]:
    found = []
    if lost.any():
        found.append(("error", f"{int(lost.sum()):,} voxels have NaN or infinity in some volume"))
    if header.has_time and header.n_volumes == 1:
        found.append(("warning", "has one volume; nothing can be said about time"))
    elif header.n_volumes > 1 and flat.all():
        found.append(("error", "no voxel changes over time"))
    elif header.n_volumes > 1 and (share := flat[bright].mean()) > _MOST_FLAT:
        found.append(("warning", f"{share:.1%} of the bright voxels never change"))
    if (share := clipped[bright].mean()) > _MOST_CLIPPED:
        found.append(
            ("warning", f"{share:.2%} of the bright voxels reach an end of {header.dtype}: clipped?")
        )
    return found


def check_masks(runs: BIDSDataset) -> list[tuple[str, str]]:
    """Return the masks of derivatives that fit no run of their subject."""
    from neurokern.ops import NiftiFile

    files = runs.index.files
    if not len(files):
        return []
    masks = files[files["suffix"].eq("mask") & files["extension"].isin([".nii", ".nii.gz"])]
    images = files[files["suffix"].eq("bold") & files["extension"].isin([".nii", ".nii.gz"])]
    shapes: dict[pathlib.Path, tuple[int, ...]] = {}

    def shape_of(path: pathlib.Path) -> tuple[int, ...] | None:
        if path not in shapes:
            try:
                shapes[path] = NiftiFile(path).header.shape
            except (OSError, ValueError):
                return None  # told where the run itself is looked at
        return shapes[path]

    found = []
    for mask, subject, kind in zip(masks["path"], masks["subject"], masks["datatype"], strict=True):
        own = images[images["subject"].eq(subject)]["path"] if subject else images["path"]
        others = {shape for path in own if (shape := shape_of(path)) is not None}
        shape = shape_of(mask)
        where = str(mask.relative_to(runs.root))
        if shape is None:
            found.append((where, "cannot be read"))
        elif kind != "anat" and others and shape not in others:
            sizes = " and ".join("×".join(map(str, size)) for size in sorted(others))
            found.append(
                (where, f"has {'×'.join(map(str, shape))} voxels and fits no run of its subject ({sizes})")
            )
    return found
