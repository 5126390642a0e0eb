"""Responses of the layers of any torch module, by forward hooks, batch by batch."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from neurokern._check import check_integer, check_memory

if TYPE_CHECKING:
    from neurokern.ops._types import Array

__all__ = ["POOLINGS", "layer_features", "layer_names"]

POOLINGS = ("flatten", "mean", "max", "last", "none")


def layer_names(module: nn.Module, layers: str | Sequence[str] = "*") -> list[str]:
    """Return the names of the submodules that match a pattern, in the order of the module.

    Parameters
    ----------
    module : torch.nn.Module
    layers : str or sequence of str, default "*"
        Names, or patterns with ``*``, ``?`` and ``[...]`` (``*`` goes across dots), of
        ``module.named_modules()``. A pattern finds modules without children ("leaves"), and others where it
        finds no leaf; a full name finds any.

    Raises
    ------
    ValueError
        If one of them matches nothing.
    """
    children = {name: any(True for _ in part.children()) for name, part in module.named_modules() if name}
    chosen: set[str] = set()
    for pattern in [layers] if isinstance(layers, str) else layers:
        matched = {name for name in children if fnmatch.fnmatchcase(name, pattern)}
        if pattern in children:
            matched = {pattern}
        elif leaves := {name for name in matched if not children[name]}:
            matched = leaves
        if not matched:
            known = ", ".join(list(children)[:12]) or "none"
            raise ValueError(
                f"layer_features: layers must match names of the module, got {pattern!r}; it has {known}"
                + (", ..." if len(children) > 12 else "")
            )
        chosen |= matched
    if not chosen:
        raise ValueError("layer_features: layers must name at least one, got none")
    return [name for name in children if name in chosen]


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
        and volumes, and the last axis for sequences ``(batch, tokens, features)``; "last" for the last token;
        "none" for the output as it is; or a function of a tensor that keeps axis 0.
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
    if not callable(pool) and pool not in POOLINGS:
        raise ValueError(
            f"{function}: pool must be one of {', '.join(map(repr, POOLINGS))} or a function, got {pool!r}"
        )
    pooling = pool if callable(pool) else _POOLINGS[pool]
    at = torch.device(device) if device is not None else _device_of(module)
    batches, n_samples = _batches(function, inputs, batch_size)
    kept: dict[str, list[Tensor]] = {name: [] for name in names}
    with _observed(module, names) as outputs, torch.no_grad():
        for batch in tqdm(batches, desc="features", disable=not progress, leave=False):
            outputs.clear()
            size = _run(module, batch, forward, at)
            for name in names:
                kept[name].append(_pooled(function, name, outputs, pooling, size, kept[name]))
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


def _device_of(module: nn.Module) -> torch.device:
    tensor = next(iter(module.parameters()), None)
    return torch.device("cpu") if tensor is None else tensor.device


@contextmanager
def _observed(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Collect the outputs of submodules; training modes and hooks are put back at the end."""
    outputs: dict[str, Any] = {}
    modes = {part: part.training for part in module.modules()}
    parts = dict(module.named_modules())
    with ExitStack() as stack:
        for name in names:

            def keep(_module: nn.Module, _inputs: Any, output: Any, *, name: str = name) -> None:
                outputs[name] = output

            handle = parts[name].register_forward_hook(keep)
            stack.callback(handle.remove)
        module.eval()
        try:
            yield outputs
        finally:
            for part, mode in modes.items():
                part.training = mode


def _run(
    module: nn.Module, batch: Any, forward: Callable[[nn.Module, Any], Any] | None, at: torch.device
) -> int:
    """Run a batch and return its number of samples."""
    moved = _to(batch, at)
    first = _first_tensor(moved)
    if first is None or not first.ndim:
        raise ValueError(
            f"layer_features: a batch must hold a tensor (samples, ...), got {type(batch).__name__}"
        )
    if forward is not None:
        forward(module, moved)
    elif isinstance(moved, Mapping):
        module(**moved)
    else:
        module(moved[0] if isinstance(moved, (tuple, list)) else moved)
    return len(first)


def _to(values: Any, device: torch.device) -> Any:
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.ascontiguousarray(values))
    if isinstance(values, Tensor):
        return values.to(device)
    if isinstance(values, Mapping):
        return {key: _to(value, device) for key, value in values.items()}
    if isinstance(values, (tuple, list)):
        return [_to(value, device) for value in values]
    return values


def _first_tensor(values: Any) -> Tensor | None:
    if isinstance(values, Tensor):
        return values
    if isinstance(values, Mapping):
        if isinstance(values.get("last_hidden_state"), Tensor):
            return values["last_hidden_state"]
        values = tuple(values.values())
    if isinstance(values, (tuple, list)):
        return next((found for one in values if (found := _first_tensor(one)) is not None), None)
    return None


def _pooled(
    function: str,
    name: str,
    outputs: Mapping[str, Any],
    pool: Callable[[Tensor], Tensor],
    size: int,
    earlier: Sequence[Tensor],
) -> Tensor:
    if name not in outputs:
        raise ValueError(f"{function}: layer {name!r} did not run; leave it out")
    output = _first_tensor(outputs[name])
    if output is None or not output.ndim or len(output) != size:
        got = type(outputs[name]).__name__ if output is None else tuple(output.shape)
        raise ValueError(
            f"{function}: the output of layer {name!r} must have one row for each of {size} samples, got "
            f"{got}; leave it out, or pool it with a function"
        )
    pooled = pool(output.detach())
    if not isinstance(pooled, Tensor) or not pooled.ndim or len(pooled) != size:
        raise ValueError(f"{function}: pool must keep axis 0, the {size} samples, of layer {name!r}")
    if earlier and pooled.shape[1:] != earlier[0].shape[1:]:
        raise ValueError(
            f"{function}: layer {name!r} gave {tuple(pooled.shape[1:])} features after "
            f"{tuple(earlier[0].shape[1:])}; inputs must have one size, or be pooled"
        )
    dtype = torch.float64 if pooled.dtype == torch.float64 else torch.float32
    return pooled.to("cpu", dtype, copy=True)  # a view would keep the whole output alive


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


def _is_image(output: Tensor) -> bool:
    return output.ndim >= 4


def _flat(output: Tensor) -> Tensor:
    return output.reshape(len(output), -1)


def _mean(output: Tensor) -> Tensor:
    if output.ndim <= 2:
        return _flat(output)
    return output.float().flatten(2).mean(2) if _is_image(output) else output.float().mean(1)


def _max(output: Tensor) -> Tensor:
    if output.ndim <= 2:
        return _flat(output)
    return output.flatten(2).amax(2) if _is_image(output) else output.amax(1)


def _last(output: Tensor) -> Tensor:
    return _flat(output if output.ndim <= 2 else output[:, -1])


_POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": _flat,
    "mean": _mean,
    "max": _max,
    "last": _last,
    "none": lambda output: output,
}
