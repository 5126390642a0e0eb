"""A run of fMRI in numbers: mean, temporal signal to noise, mask, time courses, carpet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurokern.datasets import bright_mask
from neurokern.ops import NiftiFile, VoxelMask, decode_nifti
from neurokern.ops._nifti_clean import make_basis

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MOTION", "RunQuality", "columns_used", "framewise_displacement", "measure_run"]

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
_NUISANCE = (*MOTION, "csf", "white_matter")
_BLOCK_BYTES = 1 << 26  # of decoded volumes held at a time
_CARPET_VOXELS = 1500
_HEAD_RADIUS = 50.0  # mm, turns rotations into displacements


@dataclass(frozen=True, kw_only=True)
class RunQuality:
    """Maps of the file's shape (x, y, z) and time courses with a value for each TR.

    Attributes
    ----------
    mean : float64 array
        Mean over volumes.
    tsnr : float64 array or None
        Mean over the standard deviation about a straight line (n - 2); NaN where nothing varies. None for
        fewer than 3 volumes, as all below.
    mask : bool array
        Voxels that courses and carpets are of; without those that are not finite.
    mask_how : str
        Where the mask comes from, in words.
    n_not_finite : int
        Voxels with a NaN or an infinity in any volume.
    global_signal, dvars : float64 array of shape (trs,) or None
        Mean of the mask about its mean over time, and root mean square over the mask of the change since the
        volume before (NaN for the first), both in percent of the mean of mask and time.
    displacement : float64 array of shape (trs,) or None
        Framewise displacement in mm, where there are confounds.
    before, after : float32 array of shape (voxels, trs) or None
        Voxels spread over the mask, from its bottom to its top, in standard deviations; as they are, and
        without a straight line and the confounds of ``removed``.
    removed : tuple of str
        Columns of the confounds that were taken out of ``after``.
    """

    mean: NDArray[np.float64]
    tsnr: NDArray[np.float64] | None
    mask: NDArray[np.bool_]
    mask_how: str
    n_not_finite: int
    global_signal: NDArray[np.float64] | None = None
    dvars: NDArray[np.float64] | None = None
    displacement: NDArray[np.float64] | None = None
    before: NDArray[np.float32] | None = None
    after: NDArray[np.float32] | None = None
    removed: tuple[str, ...] = ()


def measure_run(
    file: NiftiFile,
    *,
    mask: NDArray[np.bool_] | None = None,
    mask_how: str = "given",
    confounds: pd.DataFrame | None = None,
) -> RunQuality:
    """Return the maps and courses of a run; a few volumes are held at a time.

    Parameters
    ----------
    file : NiftiFile
    mask : bool array of shape (x, y, z), optional
        Default: :func:`~neurokern.datasets.bright_mask` of the mean; all finite voxels where that finds none.
    mask_how : str
        Where the mask comes from, in words.
    confounds : DataFrame, optional
        A row per volume; of its columns the six motion parameters, ``csf`` and ``white_matter`` are used.

    Raises
    ------
    NiftiFormatError, OSError
        If the file cannot be read.
    ValueError
        If no voxel of the mask is finite.
    """
    mean, spread, bad = _moments(file)
    tsnr = (
        None if spread is None else np.divide(mean, spread, out=np.full_like(mean, np.nan), where=spread > 0)
    )
    if mask is None:
        mask, mask_how = _automatic_mask(np.where(bad, np.nan, mean))
    mask = mask & ~bad
    if not mask.any():
        raise ValueError(f"{file.path}: the mask must hold a voxel that is finite in all volumes, got none")
    maps: dict[str, Any] = {
        "mean": mean,
        "tsnr": tsnr,
        "mask": mask,
        "mask_how": mask_how,
        "n_not_finite": int(bad.sum()),
    }
    if tsnr is None:
        return RunQuality(**maps)
    if confounds is not None and len(confounds) != file.header.n_volumes:
        confounds = None  # told among the warnings; which row belongs to which volume is not known
    global_signal, dvars, signals = _courses(file, mask, _chosen_voxels(mask, file.header.affine))
    removed = () if confounds is None else tuple(name for name in _NUISANCE if name in confounds)
    removed = removed if len(removed) + 2 < len(signals) else ()  # else nothing would be left
    columns = None
    if removed and confounds is not None:
        columns = np.nan_to_num(_numbers(confounds, removed))  # derivatives have no first row
    basis = make_basis(len(signals), True, columns, True, None, None)
    return RunQuality(
        **maps,
        global_signal=global_signal,
        dvars=dvars,
        displacement=None if confounds is None else framewise_displacement(confounds),
        before=_carpet(signals, None),
        after=_carpet(signals, basis),
        removed=removed,
    )


def framewise_displacement(confounds: pd.DataFrame) -> NDArray[np.float64] | None:
    """Return the displacement of the head since the volume before, in mm, or None without motion parameters.

    The column ``framewise_displacement`` if there is one; else the sum of the six parameters' absolute
    changes, rotations in radians taken on a sphere of 50 mm (Power et al. 2012,
    doi:10.1016/j.neuroimage.2011.10.018).
    """
    if "framewise_displacement" in confounds:
        return _numbers(confounds, ["framewise_displacement"])[:, 0]
    if not set(MOTION) <= set(confounds.columns):
        return None
    moved = _numbers(confounds, MOTION) * ([1.0] * 3 + [_HEAD_RADIUS] * 3)
    return np.concatenate([[np.nan], np.abs(np.diff(moved, axis=0)).sum(axis=1)])


def _numbers(confounds: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    try:
        return confounds[list(names)].to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"confounds must be numbers or n/a in the columns {', '.join(names)}: {error}"
        ) from None


def _blocks(file: NiftiFile, n_values: int, overlap: int = 0) -> Iterator[tuple[int, int]]:
    """Yield windows of volumes whose ``n_values`` values each fit a block; each repeats the last volumes."""
    n = file.header.n_volumes
    step = max(_BLOCK_BYTES // (4 * max(n_values, 1)), 1)
    for start in range(0, n, step):
        yield max(start - overlap, 0), min(start + step, n)


def _moments(file: NiftiFile) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.bool_]]:
    """Return the mean, the standard deviation about a line, and the voxels that are not always finite."""
    header = file.header
    n = header.n_volumes
    line = np.arange(n) - (n - 1) / 2
    total, square, slope = np.zeros((3, *header.shape))
    first: NDArray[np.float64] | None = None
    with np.errstate(invalid="ignore", over="ignore"):
        for start, stop in _blocks(file, header.n_voxels):
            block = np.asarray(decode_nifti(file, start=start, stop=stop, dtype=np.float32))
            first = block[0].astype(np.float64) if first is None else first
            for t, volume in enumerate(block, start):
                change = volume - first  # so that squares of large means do not cancel
                total += change
                square += change * change
                slope += line[t] * change
        assert first is not None  # there is at least one volume
        mean = first + total / n
        bad = ~np.isfinite(mean) | ~np.isfinite(square)
        if n < 3:
            return np.where(bad, np.nan, mean), None, bad
        left = square - total**2 / n - slope**2 / (line @ line)
        spread = np.sqrt(np.maximum(left, 0) / (n - 2))
    # What is left of a constant or a straight line is rounding.
    spread[left <= 1e-9 * square] = 0
    return np.where(bad, np.nan, mean), np.where(bad, np.nan, spread), bad


def _automatic_mask(mean: NDArray[np.float64]) -> tuple[NDArray[np.bool_], str]:
    try:
        mask = bright_mask(mean)
        if mask.any():
            return mask, "voxels brighter than Otsu's threshold on the mean image (automatic)"
    except ValueError:
        pass
    return np.isfinite(mean), "all finite voxels, as no threshold splits the mean image (automatic)"


def _courses(
    file: NiftiFile, mask: NDArray[np.bool_], shown: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the global signal, DVARS, and the signals of the voxels ``shown`` of the mask, (trs, shown)."""
    voxels = VoxelMask(mask)
    n = file.header.n_volumes
    mean, change, signals = np.zeros(n), np.full(n, np.nan), np.empty((n, len(shown)))
    for start, stop in _blocks(file, voxels.n_voxels, overlap=1):
        rows = np.asarray(decode_nifti(file, mask=voxels, start=start, stop=stop, dtype=np.float32))
        mean[start:stop] = rows.mean(axis=1, dtype=np.float64)
        signals[start:stop] = rows[:, shown]
        for t in range(start + 1, stop):
            step = rows[t - start].astype(np.float64) - rows[t - start - 1]
            change[t] = np.sqrt((step @ step) / step.size)
    level = abs(mean.mean()) or 1.0
    return 100 * (mean - mean.mean()) / level, 100 * change / level, signals


def _chosen_voxels(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return voxels spread over a mask, by their places in it, from low to high in space."""
    inside = np.argwhere(mask)
    shown = np.unique(np.linspace(0, len(inside) - 1, min(len(inside), _CARPET_VOXELS)).astype(np.int64))
    height = inside[shown] @ np.nan_to_num(affine[2, :3], posinf=0, neginf=0)
    return shown[np.argsort(height, kind="stable")]


def _carpet(signals: NDArray[np.float64], basis: NDArray[Any] | None) -> NDArray[np.float32]:
    """Return signals (trs, voxels) without what the basis spans, in standard deviations, as (voxels, trs)."""
    size = np.abs(signals).max(axis=0)
    signals = signals - signals.mean(axis=0)
    if basis is not None:
        rows = np.asarray(basis, dtype=np.float64)
        signals = signals - rows.T @ (rows @ signals)
    spread = signals.std(axis=0, ddof=1)
    varies = spread > 1e-6 * size  # what is left of a constant is rounding
    return np.where(varies, signals / np.where(varies, spread, 1), 0).T.astype(np.float32)


def columns_used(columns: Sequence[str]) -> str:
    """Return the removed columns in words."""
    motion = "six motion parameters" if set(MOTION) <= set(columns) else ""
    rest = [name for name in columns if name not in MOTION] if motion else list(columns)
    return ", ".join(part for part in (motion, *rest) if part)
