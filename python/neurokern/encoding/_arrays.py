"""What encoding functions accept: numpy arrays or tensors, rows of finite numbers, chunks of targets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 20  # elements turned to float64 at a time (8 MiB)
_FEWEST_TARGETS = 128  # of a chunk: narrower ones would read scattered pieces of rows


def as_tensor(function: str, name: str, values: Any) -> Tensor:
    """Return a view of an array or tensor of real numbers, without a copy where there need be none."""
    if isinstance(values, Tensor):
        tensor = values.detach()
    else:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{function}: {name} must hold real numbers, got {array.dtype}")
        native = array.dtype.newbyteorder("=")
        if array.dtype != native or any(step < 0 for step in array.strides) or not array.flags.writeable:
            array = np.array(array, dtype=native)  # torch takes neither, and warns of the third
        tensor = torch.from_numpy(array)
    if tensor.is_complex():
        raise TypeError(f"{function}: {name} must hold real numbers, got {tensor.dtype}")
    return tensor


def like(given: Any, result: Tensor) -> Any:
    """Return a result as the kind that was given: a tensor for a tensor, else a numpy array."""
    return result if isinstance(given, Tensor) else result.cpu().numpy()


def target_chunks(n_samples: int, n_targets: int) -> Iterator[slice]:
    """Slices of targets, so that a chunk of all samples in float64 stays small."""
    step = max(_FEWEST_TARGETS, CHUNK_ELEMENTS // max(n_samples, 1))
    for first in range(0, n_targets, step):
        yield slice(first, min(first + step, n_targets))


def check_finite_values(function: str, name: str, values: Tensor) -> None:
    """Raise with the number of rows (first axis) that hold NaN or infinity."""
    if not values.is_floating_point():
        return
    bad = int((~torch.isfinite(values)).reshape(len(values), -1).any(1).sum())
    if bad:
        raise ValueError(
            f"{function}: {name} must be finite, got NaN or infinity in {bad} of {len(values)} rows; drop or "
            "fill those samples"
        )


def run_lengths(function: str, runs: Any, n_samples: int) -> list[int]:
    """Return the lengths of runs, of which the rows must lie next to each other; None is one run."""
    if runs is None:
        return [n_samples]
    labels = labels_of(function, "runs", runs)
    if labels.shape != (n_samples,):
        raise ValueError(
            f"{function}: runs must have one label per sample ({n_samples}), got shape {labels.shape}"
        )
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    if len(starts) != len(np.unique(labels)):
        again = labels[starts][_repeats(labels[starts])][0]
        raise ValueError(
            f"{function}: runs must keep the rows of a run together, got run {again!s} in several places; "
            "sort the samples by run, or give each stretch its own label"
        )
    return np.diff(np.r_[starts, n_samples]).tolist()


def labels_of(function: str, name: str, labels: Any) -> np.ndarray:
    """Return labels of one axis as a numpy array: whole numbers or text, without NaN."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype == object:
        array = array.astype(str)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{function}: {name} must have shape (samples,), got {array.shape}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ValueError(
            f"{function}: {name} must name each sample's group, got NaN in {np.isnan(array).sum()}"
        )
    return array


def _repeats(labels: np.ndarray) -> np.ndarray:
    """Mark the labels that stand there for the second time or later."""
    first = np.zeros(len(labels), dtype=bool)
    first[np.unique(labels, return_index=True)[1]] = True
    return ~first
