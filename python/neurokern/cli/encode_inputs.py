"""Read the features and responses of an encoding model: npy, npz, safetensors, NIfTI; one file per run."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurokern.cli.image_facts import is_image
from neurokern.datasets._files import read_npy, read_npz

if TYPE_CHECKING:
    from neurokern.ops import NiftiHeader, VoxelMask

__all__ = ["EncodingData", "detrended", "file_name", "read_array", "read_data", "read_responses", "split_key"]

_KINDS = ".npy, .npz, .safetensors, .nii or .nii.gz"


@dataclass(frozen=True, kw_only=True)
class EncodingData:
    """Features and responses of all runs, one below the other.

    Attributes
    ----------
    X : array of shape (samples, features)
    Y : array of shape (samples, targets)
    runs : array of shape (samples,), int
        Which run each sample belongs to.
    interval : float or None
        Seconds between samples, where an image tells.
    mask : VoxelMask or None
        Where the targets lie, for images.
    header : NiftiHeader or None
        Of the first response image.
    notes : tuple of str
        What a reader of the results should know.
    """

    X: NDArray[Any]
    Y: NDArray[Any]
    runs: NDArray[np.int64]
    interval: float | None = None
    mask: VoxelMask | None = None
    header: NiftiHeader | None = None
    notes: tuple[str, ...] = ()


def read_data(
    x_files: Sequence[str], y_files: Sequence[str], *, mask: str | None, runs: str | None, detrend: bool
) -> EncodingData:
    """Read pairs of files, each a run, or one pair with the runs named in a file.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or damaged, or files do not fit together; the message names the file.
    """
    if len(x_files) != len(y_files):
        raise ValueError(f"--x and --y must name as many files, got {len(x_files)} and {len(y_files)}")
    voxels = _read_mask(mask, y_files)
    lengths, features, responses = [], [], []
    for x_file, y_file in zip(x_files, y_files, strict=True):
        x = _as_rows(x_file, read_array(x_file))
        y = read_responses(y_file, voxels)
        if len(x) != len(y):
            raise ValueError(
                f"{file_name(x_file)} and {file_name(y_file)} must have a row for each sample, got {len(x)} "
                f"and {len(y)}; cut or resample one of them"
            )
        lengths.append(len(x))
        features.append(x)
        responses.append(y)
    _check_widths(x_files, features)
    _check_widths(y_files, responses)
    labels = np.repeat(np.arange(len(lengths)), lengths)
    if runs is not None:
        labels = _read_runs(runs, labels)
    Y = np.concatenate(responses) if len(responses) > 1 else responses[0]
    X = np.concatenate(features) if len(features) > 1 else features[0]
    notes = []
    if detrend:
        Y = detrended(Y, labels)
        notes.append("The mean and slope of each target were removed in each run.")
    first = pathlib.Path(y_files[0])
    image = is_image(first)
    return EncodingData(
        X=X,
        Y=Y,
        runs=labels,
        interval=_interval(first) if image else None,
        mask=voxels,
        header=_header(first) if image else None,
        notes=tuple(notes),
    )


def read_array(source: str) -> NDArray[Any]:
    """Return the array in a file; ``FILE:NAME`` picks one of several."""
    path, name = split_key(source)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return read_npy("encode", path)
    if suffix == ".npz":
        return _pick(source, read_npz("encode", path), name)
    if suffix == ".safetensors":
        return _pick(source, _read_safetensors(path), name)
    if is_image(path):
        return read_responses(source, None)
    raise ValueError(f"{path.name}: must be a {_KINDS} file")


def split_key(source: str) -> tuple[pathlib.Path, str | None]:
    """Split ``FILE:NAME`` into the file and the name in it; a file of that very name goes first."""
    if pathlib.Path(source).exists():
        return pathlib.Path(source), None
    head, colon, name = source.rpartition(":")
    if colon and head.lower().endswith((".npz", ".safetensors")):
        return pathlib.Path(head), name
    return pathlib.Path(source), None


def _pick(source: str, arrays: dict[str, NDArray[Any]], name: str | None) -> NDArray[Any]:
    if name is None and len(arrays) == 1:
        return next(iter(arrays.values()))
    if name in arrays:
        return arrays[name]
    asked = f"has no {name!r}" if name else "holds several arrays"
    raise ValueError(f"{file_name(source)} {asked}; name one, as FILE:NAME, of: {', '.join(sorted(arrays))}")


def _read_safetensors(path: pathlib.Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"encode: no such file: {path}")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"encode: {path.name} is damaged or no safetensors file ({error})") from None
    half = {"torch.bfloat16", "torch.float16"}
    return {n: (t.float() if str(t.dtype) in half else t).numpy() for n, t in tensors.items()}


def _read_mask(mask: str | None, y_files: Sequence[str]) -> VoxelMask | None:
    from neurokern.ops import VoxelMask

    images = [is_image(split_key(file)[0]) for file in y_files]
    if any(images) != all(images):
        raise ValueError(
            "--y must name images or arrays, not both, got " + ", ".join(map(file_name, y_files))
        )
    if not any(images):
        if mask is not None:
            raise ValueError(f"--mask is for images, got {file_name(y_files[0])}; leave it out")
        return None
    if mask is not None:
        return VoxelMask(mask)
    return VoxelMask(np.ones(_header(pathlib.Path(y_files[0])).shape, dtype=bool))


def read_responses(source: str, voxels: VoxelMask | None) -> NDArray[Any]:
    """Return the responses in a file, (samples, targets); those of the mask's voxels for an image."""
    path, _ = split_key(source)
    if not is_image(path):
        return _as_rows(source, read_array(source))
    from neurokern.ops import decode_nifti

    if voxels is None:
        values = decode_nifti(path, dtype=np.float32)
        return values.reshape(len(values), -1)
    return decode_nifti(path, mask=voxels, dtype=np.float32)


def _as_rows(source: str, values: NDArray[Any]) -> NDArray[Any]:
    rows = values[:, None] if values.ndim == 1 else values
    if rows.ndim != 2 or 0 in rows.shape or rows.dtype.kind not in "biuf":
        raise ValueError(
            f"{file_name(source)} must hold numbers of shape (samples, columns), got {values.dtype} of shape "
            f"{values.shape}"
        )
    return rows


def _check_widths(files: Sequence[str], arrays: Sequence[NDArray[Any]]) -> None:
    widths = {array.shape[1] for array in arrays}
    if len(widths) > 1:
        each = ", ".join(
            f"{file_name(file)} {array.shape[1]}" for file, array in zip(files, arrays, strict=True)
        )
        raise ValueError(f"all runs must have the same columns, got {each}")


def _read_runs(source: str, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    if labels[-1] > 0:
        raise ValueError("--runs is for one pair of files; several files are runs already")
    values = read_array(source)
    if values.shape != labels.shape:
        raise ValueError(
            f"{file_name(source)} must hold one label per sample ({len(labels)}), got shape {values.shape}"
        )
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def detrended(Y: NDArray[Any], runs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Remove mean and slope of each run."""
    result = np.array(Y, dtype=np.float32)
    for run in np.unique(runs):
        rows = np.flatnonzero(runs == run)
        values = result[rows] - result[rows].mean(axis=0, dtype=np.float64).astype(np.float32)
        time = np.arange(len(rows), dtype=np.float32) - (len(rows) - 1) / 2
        result[rows] = values - np.outer(time, time @ values) / max(time @ time, 1)
    return result


def _header(path: pathlib.Path) -> NiftiHeader:
    from neurokern.ops import NiftiFile

    return NiftiFile(path).header


def _interval(path: pathlib.Path) -> float | None:
    from neurokern.datasets.bids_file import find_run

    run = find_run(path)
    return run.repetition_time if "RepetitionTime" in run.metadata else _header(path).tr


def file_name(source: str) -> str:
    """Return the name of a file, for messages."""
    return pathlib.Path(source).name
