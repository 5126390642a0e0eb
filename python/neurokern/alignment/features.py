"""Responses of the layers of any torch module, by forward hooks, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from neurokern._check import check_integer, check_memory
from neurokern.extractors._layers import (
    POOLINGS,
    check_pool,
    device_of,
    layer_names,
    observed,
    pooled,
    run_module,
)

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["POOLINGS", "layer_features", "layer_names"]


def layer_features(
    module: nn.Module,
    inputs: Array | Iterable[Any],
    layers: str | Sequence[str] = "*",
    *,
    pool: str | Callable[[Tensor], Tensor] = "flatten",
    batch_size: int = 32,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> dict[str, Tensor]:
    """Run a module on stimuli and keep what its layers put out.

    The module is run in evaluation mode without gradients, and left as it was found.

    Parameters
    ----------
    module : torch.nn.Module
    inputs : array or tensor of shape (samples, ...), or iterable of batches
        Stimuli. Batches of an iterable (a ``DataLoader``) may be anything that ``forward`` takes: for tuples
        and lists the first item is the input, a mapping is passed as keywords.
    layers : str or sequence of str, default "*"
        As in :func:`layer_names`.
    pool : str or callable, default "flatten"
        What becomes of a layer's output ``(batch, ...)``: "flatten" to ``(batch, features)``; "mean" or "max"
        over all axes but the batch and the features, which are axis 1 for images ``(batch, channels, x, y)``
        and volumes, and the last axis for sequences ``(batch, tokens, features)``; "cls" or "last" for the
        first or last token; "none" for the output as it is; or a function of a tensor that keeps axis 0.
    batch_size : int, default 32
        For arrays.
    forward : callable of (module, batch), optional
        How to run the module, if not ``module(batch)``: ``lambda model, x: model(x, "monday", "causal")``.
    device : str or torch.device, optional
        Where the module is; by default that of its first parameter. Outputs come back to the CPU in float32
        (or float64 if they are), so that a GPU holds one batch.
    progress : bool, default False
        Show a bar over batches.

    Returns
    -------
    features : dict of str to tensor of shape (samples, features)
        In the order of the module. A layer that runs several times in a pass (shared weights) has its last
        output. Of a tuple, the first tensor; of a mapping, "last_hidden_state" or the first tensor.

    Raises
    ------
    ValueError
        If there is no input, a layer does not run, its output does not keep one row per sample or changes its
        size between batches, or all features together would not fit into memory (pool them, or take fewer).
    """
    function = "layer_features"
    if not isinstance(module, nn.Module):
        raise TypeError(f"{function}: module must be a torch.nn.Module, got {type(module).__name__}")
    names = layer_names(module, layers)
    pooling = check_pool(function, pool)
    at = torch.device(device) if device is not None else device_of(module)
    batches, n_samples = _batches(function, inputs, batch_size)
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    with observed(module, names) as outputs, torch.no_grad():
        for batch in tqdm(batches, desc="features", disable=not progress, leave=False):
            outputs.clear()
            size = run_module(function, module, batch, forward, at)
            for name in names:
                kept[name].append(pooled(function, name, outputs, pooling, size, kept[name]))
            if n_samples is not None and len(kept[names[0]]) == 1:
                _check_room(function, kept, n_samples / size)
    if not next(iter(kept.values())):
        raise ValueError(f"{function}: inputs must hold at least one sample, got none")
    return {name: torch.cat(kept.pop(name)) for name in names}


def _batches(function: str, inputs: Any, batch_size: int) -> tuple[Iterable[Any], int | None]:
    if isinstance(inputs, np.ndarray):
        inputs = torch.from_numpy(np.ascontiguousarray(inputs))
    if not isinstance(inputs, Tensor):
        return inputs, None
    if not inputs.ndim:
        raise ValueError(f"{function}: inputs must have shape (samples, ...), got a single number")
    if check_integer(function, "batch_size", batch_size) < 1:
        raise ValueError(f"{function}: batch_size must be at least 1, got {batch_size}")
    return inputs.split(batch_size) if len(inputs) else (), len(inputs)


def _check_room(function: str, kept: Mapping[str, list[Tensor]], times: float) -> None:
    """Raise if so many batches as the first would not fit into memory."""
    sizes = {name: parts[0].numel() * parts[0].element_size() * times for name, parts in kept.items()}
    widest = max(sizes, key=lambda name: sizes[name])
    check_memory(
        function,
        f"features of {len(kept)} layers, most of them of {widest!r},",
        sum(sizes.values()) + sizes[widest],  # one layer at a time is put together from its parts
        "pool them (pool='mean'), or take fewer layers or samples",
    )
