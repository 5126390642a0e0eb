"""Half precision, compiled layers, and layers that are computed again in place of being kept."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from neurokern.training.config import TrainingConfig

logger = logging.getLogger(__name__)

SMALLEST_SCALE = 2.0**-10  # of the loss in float16: below, it is not the format that overflows
T = TypeVar("T")
_COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch")


def half_precision(config: TrainingConfig, device: torch.device) -> torch.autocast:
    """Return the context that a model runs in."""
    dtype = torch.float16 if config.fp16 else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=config.fp16 or config.bf16)


@contextmanager
def accelerated(network: nn.Module, config: TrainingConfig) -> Iterator[None]:
    """Let the layers of the trunk be compiled and computed again, as the configuration asks, for a while."""
    layers = list(network.layers)  # type: ignore[arg-type]
    try:
        for layer in layers:
            if config.recompute:
                layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
            if config.compile:
                layer.compile()
        yield
    finally:
        stop_compiling(network)
        for layer in layers:
            layer.__dict__.pop("forward", None)


def stop_compiling(network: nn.Module) -> None:
    """Run the layers as they are written."""
    for layer in network.layers:  # type: ignore[union-attr]
        layer._compiled_call_impl = None


def call_compiled(network: nn.Module, function: Callable[[], T]) -> T:
    """Call a function that runs the network; where compiling fails, warn and call it again without."""
    while True:
        try:
            return function()
        except Exception as error:
            if not _failed_to_compile(error, network):
                raise


def _failed_to_compile(error: BaseException, network: nn.Module) -> bool:
    compiled = any(layer._compiled_call_impl is not None for layer in network.layers)  # type: ignore[union-attr]
    if not (compiled and type(error).__module__.startswith(_COMPILERS)):
        return False
    reason = " ".join(str(error).split())[:300]
    logger.warning("torch.compile failed, training goes on without it: %s", reason)
    stop_compiling(network)
    return True
