"""Outputs of the layers of any torch module, by forward hooks: which layers, how they are pooled."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "POOLINGS",
    "check_pool",
    "device_of",
    "first_tensor",
    "layer_names",
    "move",
    "observed",
    "pooled",
    "run_module",
]

Forward = Callable[[nn.Module, Any], Any]
Pool = Callable[[Tensor], Tensor]


def layer_names(
    module: nn.Module, layers: str | Sequence[str] = "*", function: str = "layer_features"
) -> list[str]:
    """Return the names of the submodules that match a pattern, in the order of the module.

    Parameters
    ----------
    module : torch.nn.Module
    layers : str or sequence of str, default "*"
        Names, or patterns with ``*``, ``?`` and ``[...]`` (``*`` goes across dots), of
        ``module.named_modules()``. A pattern finds modules without children ("leaves"), and others where it
        finds no leaf; a full name finds any, and "" is the module itself.
    function : str
        Who asks, for messages.

    Raises
    ------
    ValueError
        If one of them matches nothing.
    """
    children = {name: any(True for _ in part.children()) for name, part in module.named_modules() if name}
    chosen: set[str] = set()
    for pattern in [layers] if isinstance(layers, str) else layers:
        matched = {name for name in children if fnmatch.fnmatchcase(name, pattern)}
        if pattern in children or pattern == "":
            matched = {pattern}
        elif leaves := {name for name in matched if not children[name]}:
            matched = leaves
        if not matched:
            near = difflib.get_close_matches(pattern, children, n=8, cutoff=0.5)
            known = ", ".join((near or list(children))[:12]) or "none"
            raise ValueError(
                f"{function}: layers must match names of the module, got {pattern!r}; it has {known}"
                + (", ..." if len(children) > 12 else "")
            )
        chosen |= matched
    if not chosen:
        raise ValueError(f"{function}: layers must name at least one, got none")
    return [name for name in ("", *children) if name in chosen]


def check_pool(function: str, pool: str | Pool) -> Pool:
    """Return the function that pools a layer's output."""
    if callable(pool):
        return pool
    if pool not in _POOLINGS:
        raise ValueError(
            f"{function}: pool must be one of {', '.join(map(repr, POOLINGS))} or a function, got {pool!r}"
        )
    return _POOLINGS[pool]


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's first parameter."""
    tensor = next(iter(module.parameters()), None)
    return torch.device("cpu") if tensor is None else tensor.device


@contextmanager
def observed(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Any]]:
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


def run_module(
    function: str, module: nn.Module, batch: Any, forward: Forward | None, at: torch.device
) -> int:
    """Run a batch and return its number of samples."""
    moved = move(batch, at)
    first = first_tensor(moved)
    if first is None or not first.ndim:
        raise ValueError(f"{function}: a batch must hold a tensor (samples, ...), got {type(batch).__name__}")
    if forward is not None:
        forward(module, moved)
    elif isinstance(moved, Mapping):
        module(**moved)
    else:
        module(moved[0] if isinstance(moved, (tuple, list)) else moved)
    return len(first)


def move(values: Any, device: torch.device) -> Any:
    """Return nested values with arrays as tensors, all on one device."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.ascontiguousarray(values))
    if isinstance(values, Tensor):
        return values.to(device)
    if isinstance(values, Mapping):
        return {key: move(value, device) for key, value in values.items()}
    if isinstance(values, (tuple, list)):
        return [move(value, device) for value in values]
    return values


def first_tensor(values: Any) -> Tensor | None:
    """Return "last_hidden_state" of a mapping, or else the first tensor of nested values."""
    if isinstance(values, Tensor):
        return values
    if isinstance(values, Mapping):
        if isinstance(values.get("last_hidden_state"), Tensor):
            return values["last_hidden_state"]
        values = tuple(values.values())
    if isinstance(values, (tuple, list)):
        return next((found for one in values if (found := first_tensor(one)) is not None), None)
    return None


def pooled(
    function: str,
    name: str,
    outputs: Mapping[str, Any],
    pool: Pool,
    size: int,
    earlier: Sequence[Tensor],
) -> Tensor:
    """Return a layer's output pooled, on the CPU in float32 or float64, in the shape of ``earlier``."""
    if name not in outputs:
        raise ValueError(f"{function}: layer {name!r} did not run; leave it out")
    output = first_tensor(outputs[name])
    if output is None or not output.ndim or len(output) != size:
        got = type(outputs[name]).__name__ if output is None else tuple(output.shape)
        raise ValueError(
            f"{function}: the output of layer {name!r} must have one row for each of {size} samples, got "
            f"{got}; leave it out, or pool it with a function"
        )
    result = pool(output.detach())
    if not isinstance(result, Tensor) or not result.ndim or len(result) != size:
        raise ValueError(f"{function}: pool must keep axis 0, the {size} samples, of layer {name!r}")
    if earlier and result.shape[1:] != earlier[0].shape[1:]:
        raise ValueError(
            f"{function}: layer {name!r} gave {tuple(result.shape[1:])} features after "
            f"{tuple(earlier[0].shape[1:])}; inputs must have one size, or be pooled"
        )
    dtype = torch.float64 if result.dtype == torch.float64 else torch.float32
    return result.to("cpu", dtype, copy=True)  # a view would keep the whole output alive


def _is_image(output: Tensor) -> bool:
    return output.ndim >= 4


def _flat(output: Tensor) -> Tensor:
    return output.reshape(len(output), -1)


def _mean(output: Tensor) -> Tensor:
    if output.ndim <= 2:
        return _flat(output)
    wide = output if output.dtype == torch.float64 else output.float()
    return wide.flatten(2).mean(2) if _is_image(output) else wide.mean(1)


def _max(output: Tensor) -> Tensor:
    if output.ndim <= 2:
        return _flat(output)
    return output.flatten(2).amax(2) if _is_image(output) else output.amax(1)


def _first(output: Tensor) -> Tensor:
    return _flat(output if output.ndim <= 2 else output[:, 0])


def _last(output: Tensor) -> Tensor:
    return _flat(output if output.ndim <= 2 else output[:, -1])


_POOLINGS: dict[str, Pool] = {
    "flatten": _flat,
    "mean": _mean,
    "max": _max,
    "cls": _first,
    "last": _last,
    "none": lambda output: output,
}
POOLINGS = tuple(_POOLINGS)
