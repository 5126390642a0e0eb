"""AdamW with the one-cycle schedule, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from neurokern.models import MtM
from neurokern.training.config import TrainingConfig
from neurokern.training.sharding import is_sharded, local_part, whole


def parameter_groups(model: MtM, config: TrainingConfig) -> list[dict[str, Any]]:
    """Split the parameters by learning rate and decay; those with rate 0 are left out."""
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    scale = math.sqrt(config.windows_per_step) if config.rate_scaling == "sqrt" else 1.0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate, decay = config.learning_rate, config.weight_decay
        if name.startswith("parts.") and not name.endswith(".token"):
            rate = rate if config.session_learning_rate is None else config.session_learning_rate
            decay = decay if config.session_weight_decay is None else config.session_weight_decay
        is_table = name in model.EMBEDDINGS or name.endswith(".embedding")
        if config.decay == "matrices" and (parameter.ndim < 2 or is_table):
            decay = 0.0
        if rate > 0:
            # Fused kernels of the optimizer take sharded and whole tensors, but not in one call.
            groups.setdefault((rate * scale, decay, is_sharded(parameter)), []).append(parameter)
    if not groups:
        raise ValueError("Trainer: every parameter of the model is frozen; there is nothing to train")
    return [{"params": p, "lr": rate, "weight_decay": decay} for (rate, decay, _), p in groups.items()]


def make_optimizer(
    model: MtM, config: TrainingConfig, total_steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR]:
    """Return AdamW and its schedule; as published, the schedule moves the first beta as well."""
    groups = parameter_groups(model, config)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    # One pass over all weights. On a GPU torch's own choice does as well, and its state stays where it is.
    fused = True if devices == {"cpu"} else None
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, eps=1e-8, fused=fused)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in groups],
        total_steps=max(total_steps, 2),  # the schedule divides by the length of its phases
        pct_start=config.warmup,
        div_factor=config.div_factor,
        final_div_factor=config.final_div_factor,
    )
    return optimizer, scheduler


@contextmanager
def frozen_but(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[list[nn.Parameter]]:
    """Spare the gradients of what the optimizer does not hold; gives what it does hold."""
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    held = {id(parameter) for parameter in trained}
    others = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield trained
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


class WeightAverage:
    """Exponential moving average of a model's parameters.

    Parameters
    ----------
    model : nn.Module
    decay : float
        Share of the old average that stays in each step; smaller in the first steps, which are to be
        forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = dict(model.named_parameters())
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step number ``step``, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.parameters.items():
            self.values[name].lerp_(parameter.detach(), 1 - decay)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the model compute with the average for a while."""
        last = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        try:
            self._fill(self.values)
            yield
        finally:
            self._fill(last)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():  # in place: shards are views of a common buffer
            parameter.copy_(values[name])


@torch.no_grad()
def clip_gradient(parameters: Sequence[nn.Parameter], largest: float | None) -> Tensor:
    """Shrink the gradients to a norm of at most ``largest``, if given; returns the norm before.

    It is that of the whole gradient, also where parts of it are spread over processes.
    """
    filled = [parameter for parameter in parameters if parameter.grad is not None]
    if largest is not None and not any(map(is_sharded, filled)):
        return nn.utils.clip_grad_norm_(filled, largest)
    gradients = [parameter.grad for parameter in filled if parameter.grad is not None]
    norms = list(torch._foreach_norm([gradient for gradient in gradients if not is_sharded(gradient)]))
    norms += [whole(torch.linalg.vector_norm(gradient)) for gradient in gradients if is_sharded(gradient)]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    if largest is not None:
        scale = (largest / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_([local_part(gradient) for gradient in gradients], scale)
    return norm
