"""Arrays of either kind, checked and read in blocks of float64 that take little memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

ArrayT = TypeVar("ArrayT", Tensor, np.ndarray)

BLOCK_ELEMENTS = 1 << 20  # elements turned to float64 at a time (8 MiB)


def check_pair(
    function: str, name: str, array: Tensor | np.ndarray, other_name: str, other: Tensor | np.ndarray
) -> None:
    """Raise unless both are of one kind and shape, with units in the last axis and at least one sample."""
    both = (array, other)
    if not (all(isinstance(a, Tensor) for a in both) or all(isinstance(a, np.ndarray) for a in both)):
        raise TypeError(
            f"{function}: {name} and {other_name} must both be torch tensors or both numpy arrays, "
            f"got {type(array).__name__} and {type(other).__name__}"
        )
    if tuple(array.shape) != tuple(other.shape):
        raise ValueError(
            f"{function}: {name} and {other_name} must have the same shape, "
            f"got {tuple(array.shape)} and {tuple(other.shape)}"
        )
    if array.ndim < 2:
        raise ValueError(f"{function}: {name} must have shape (..., units), got {tuple(array.shape)}")
    if math.prod(array.shape[:-1]) == 0:
        raise ValueError(f"{function}: {name} must hold at least one sample, got shape {tuple(array.shape)}")


def float64_blocks(*arrays: Tensor | np.ndarray) -> Iterator[tuple[Tensor, ...]]:
    """Matching blocks of whole leading entries as float64 tensors of shape (samples, units)."""
    length, n_units = arrays[0].shape[0], arrays[0].shape[-1]
    per_entry = math.prod(arrays[0].shape[1:])
    step = max(1, BLOCK_ELEMENTS // max(1, per_entry))
    for first in range(0, length, step):
        yield tuple(float64(array[first : first + step]).reshape(-1, n_units) for array in arrays)


def float64(array: Tensor | np.ndarray) -> Tensor:
    """Return an array as a float64 tensor without a graph for gradients."""
    if isinstance(array, Tensor):
        return array.detach().to(torch.float64)
    return torch.from_numpy(np.array(array, dtype=np.float64))  # a copy, since torch refuses read-only arrays


def like(given: ArrayT, scores: Tensor) -> ArrayT:
    """Return scores in the kind of what was given."""
    return scores if isinstance(given, Tensor) else scores.numpy()
