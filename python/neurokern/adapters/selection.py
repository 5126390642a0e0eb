"""Choosing parameters of a model by name or by kind: what an adapter trains, and what stays as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = [
    "layer_stages",
    "match_names",
    "modules_by_name",
    "normalization_parameters",
]

_SHOWN = 12  # names in an error message
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm)


def match_names(
    function: str, names: Iterable[str], patterns: str | Sequence[str], what: str = "parameter"
) -> list[str]:
    """Return the names that match any of the patterns, in their own order.

    Parameters
    ----------
    function : str
        For the error message.
    names : iterable of str
        Such as ``dict(model.named_parameters())``.
    patterns : str or sequence of str
        Shell patterns for the whole name: ``*`` stands for anything, dots as well (``"layers.3.*"``,
        ``"*bias"``).
    what : str
        What the names name.

    Raises
    ------
    ValueError
        If a pattern matches nothing: a misspelled layer must not silently stay frozen.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    known = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            shown = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
            raise ValueError(
                f"{function}: no {what} matches {pattern!r}; the model has {shown or 'none'} "
                '("*" stands for anything)'
            )
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def modules_by_name(function: str, model: nn.Module, patterns: str | Sequence[str]) -> dict[str, nn.Module]:
    """Return the modules whose name matches, without those that lie within another match."""
    modules = dict(model.named_modules())
    names = match_names(function, (name for name in modules if name), patterns, "module")
    outer = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
    return {name: modules[name] for name in outer}


def normalization_parameters(model: nn.Module) -> list[str]:
    """Return the names of weights and biases of batch, layer, group, instance and RMS normalization."""
    return [
        f"{name}.{parameter}" if name else parameter
        for name, module in model.named_modules()
        if isinstance(module, _NORMS) or type(module).__name__.endswith("RMSNorm")
        for parameter, _ in module.named_parameters(recurse=False)
    ]


def layer_stages(model: nn.Module) -> list[list[str]]:
    """Return parameter names in stages for gradual unfreezing: the last layer first, all else at the end.

    Layers are the children of the longest ``nn.ModuleList`` or ``nn.Sequential`` whose children are all of
    one class, as transformer and convolution blocks are; of equally long ones, the first. A model without one
    is a single stage. Lists of other things, such as the parts of sessions, should not be named so by chance:
    pass the stages yourself where they are.
    """
    parameters = [name for name, _ in model.named_parameters()]
    stack = max(_stacks(model), key=lambda found: len(found[1]), default=None)
    if stack is None:
        return [parameters]
    prefix, layers = stack
    stages = []
    for index in reversed(range(len(layers))):
        start = f"{prefix}{index}."
        stages.append([name for name in parameters if name.startswith(start)])
    inside = {name for stage in stages for name in stage}
    rest = [name for name in parameters if name not in inside]
    return [stage for stage in (*stages, rest) if stage]


def _stacks(model: nn.Module) -> Iterator[tuple[str, nn.ModuleList | nn.Sequential]]:
    for name, module in model.named_modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(module) < 2:
            continue
        if len({type(child) for child in module}) == 1 and any(True for _ in module.parameters()):
            yield (f"{name}." if name else ""), module
