"""How stimuli go to a network: in pieces of bounded size, those of one shape together, and back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurokern._check import check_memory

__all__ = [
    "BYTES_AT_ONCE",
    "as_tensors",
    "autocast",
    "checked_device",
    "described",
    "gathered",
    "n_bytes_of",
    "pieces",
    "seeded",
    "shapes_of",
    "stacked",
]

# Stimuli that are looked at, and kept, together: what a stop in the middle may lose.
AT_ONCE = 1024
BYTES_AT_ONCE = 128 << 20  # of them, and of what is made of them
_Row = NDArray[np.floating]


def pieces(stimuli: Iterable[Any]) -> Iterator[list[Any]]:
    if isinstance(stimuli, (str, bytes)) or not isinstance(stimuli, Iterable):
        raise TypeError(f"StimulusFeatures: stimuli must be several, got {type(stimuli).__name__}")
    piece: list[Any] = []
    n_bytes = 0
    for stimulus in stimuli:
        piece.append(stimulus)
        n_bytes += n_bytes_of(stimulus)
        if len(piece) == AT_ONCE or n_bytes > BYTES_AT_ONCE:
            yield piece
            piece, n_bytes = [], 0
    if piece:
        yield piece


def n_bytes_of(value: Any) -> int:
    """Return the bytes of nested arrays; of files, texts and others next to none."""
    if isinstance(value, Mapping):
        return sum(map(n_bytes_of, value.values()))
    if isinstance(value, tuple):
        return sum(map(n_bytes_of, value))
    return int(getattr(getattr(value, "samples", value), "nbytes", 0))


@contextlib.contextmanager
def seeded(device: torch.device) -> Iterator[None]:
    """Let networks that draw (masks, say) draw the same each time, and leave torch's generators alone."""
    is_cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if is_cuda else []):
        torch.random.default_generator.manual_seed(0)
        if is_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(0)
        yield


def checked_device(device: str | torch.device) -> torch.device:
    """Return a device that is there, or raise."""
    try:
        wanted = torch.device(device)
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"StimulusFeatures: device must be one that is here, got {device!r}: {reason}"
        ) from None
    return wanted


def autocast(device: torch.device, dtype: torch.dtype | None) -> Any:
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def as_tensors(inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {name: as_tensors(value) for name, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(as_tensors(value) for value in inputs)
    return torch.from_numpy(np.ascontiguousarray(inputs)) if isinstance(inputs, np.ndarray) else inputs


def shapes_of(inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return tuple((name, shapes_of(value)) for name, value in inputs.items())
    if isinstance(inputs, tuple):
        return tuple(shapes_of(value) for value in inputs)
    return (inputs.dtype, tuple(inputs.shape)) if isinstance(inputs, Tensor) else repr(inputs)


def stacked(inputs: list[Any]) -> Any:
    """Return inputs of one shape as a batch."""
    first = inputs[0]
    if isinstance(first, Mapping):
        return {name: stacked([one[name] for one in inputs]) for name in first}
    if isinstance(first, tuple):
        return tuple(stacked([one[i] for one in inputs]) for i in range(len(first)))
    return torch.stack(inputs) if isinstance(first, Tensor) else first


def gathered(name: str, rows: list[_Row], index: list[int]) -> Tensor:
    shapes = {row.shape for row in rows}
    if len(shapes) > 1:
        raise ValueError(
            f"StimulusFeatures: features of layer {name!r} must have one size, got {sorted(shapes)[0]} to "
            f"{sorted(shapes)[-1]}; pool them, or make stimuli of one size in preprocess"
        )
    check_memory("StimulusFeatures", "the features", rows[0].nbytes * len(index), "pool them")
    return torch.from_numpy(np.stack(rows)[index])


def described(stimulus: Any) -> str:
    """Return how to speak of a stimulus in a message."""
    if isinstance(stimulus, str):
        return f"the text {stimulus[:40]!r}{'...' if len(stimulus) > 40 else ''}"
    shape = getattr(getattr(stimulus, "samples", stimulus), "shape", None)
    return f"{stimulus!s:.200}" if shape is None else f"{type(stimulus).__name__} of shape {tuple(shape)}"
