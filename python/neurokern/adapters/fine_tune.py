"""The fine-tuning loop of the gradient adapters: seeded, staged, stopped early by the support set alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from tqdm import tqdm

from neurokern._check import check_fraction, check_integer, check_positive

__all__ = ["FineTuneOptions", "Outcome", "Stage", "Step", "StepLoss", "fine_tune", "seeded"]


@dataclass(frozen=True)
class Step:
    """Where in its training a model is, for a loss that changes on the way or draws.

    Attributes
    ----------
    generator : torch.Generator
        On the CPU.
    progress : float
        Share of the epochs that are done, from 0 to 1.
    """

    generator: torch.Generator
    progress: float


StepLoss = Callable[[nn.Module, Tensor, Tensor, Step], Tensor]


@dataclass(frozen=True, kw_only=True)
class FineTuneOptions:
    """How an adapter is trained.

    Parameters
    ----------
    learning_rate : float or tuple of float, default 1e-3
        Of what the adapter adds. Of several, the one with the lowest loss on held-out support samples is
        taken.
    encoder_factor : float, default 0.1
        The encoder's pretrained weights learn at ``encoder_factor * learning_rate``.
    weight_decay : float, default 0.01
        AdamW's, on matrices only.
    max_epochs : int, default 100
    blind_epochs : int, default 20
        Epochs where no samples are held out, as where a class has only one; the middle of several learning
        rates is then taken.
    batch_size : int, default 32
    validation : float, default 0.25
        Share of the support set held out to choose epochs and learning rate; the adapter is then trained
        anew on all of it for that many epochs. 0 holds nothing out.
    patience : int, default 15
        Stop after so many epochs without a lower held-out loss, counted from the last stage on.
    clip : float, default 1.0
        Largest norm of the gradient.
    seed : int, default 0
    progress : bool, default False
        Show a progress bar.
    """

    learning_rate: float | tuple[float, ...] = 1e-3
    encoder_factor: float = 0.1
    weight_decay: float = 0.01
    max_epochs: int = 100
    blind_epochs: int = 20
    batch_size: int = 32
    validation: float = 0.25
    patience: int = 15
    clip: float = 1.0
    seed: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        for rate in self.learning_rates:
            check_positive("FineTuneOptions", "learning_rate", rate)
        for name in ("encoder_factor", "clip"):
            check_positive("FineTuneOptions", name, getattr(self, name))
        for name in ("max_epochs", "batch_size", "patience"):
            check_positive(
                "FineTuneOptions", name, check_integer("FineTuneOptions", name, getattr(self, name))
            )
        if not 0 <= self.weight_decay < math.inf or self.blind_epochs < 0:
            raise ValueError(
                "FineTuneOptions: weight_decay and blind_epochs must be at least 0, "
                f"got {self.weight_decay!r} and {self.blind_epochs!r}"
            )
        check_fraction("FineTuneOptions", "validation", self.validation)

    @property
    def learning_rates(self) -> tuple[float, ...]:
        """The candidates."""
        rates = self.learning_rate if isinstance(self.learning_rate, Sequence) else (self.learning_rate,)
        if not rates:
            raise ValueError("FineTuneOptions: learning_rate must hold at least one value, got none")
        return tuple(rates)


@dataclass(frozen=True)
class Stage:
    """Parameters that begin to learn in some epoch."""

    epoch: int
    parameters: tuple[nn.Parameter, ...]
    factor: float = 1.0  # of the learning rate


@dataclass(frozen=True)
class Outcome:
    """How a run of the loop ended: epochs of the lowest held-out loss (all of them without one), the loss."""

    epochs: int
    loss: float


def fine_tune(
    model: nn.Module,
    stages: Sequence[Stage],
    data: tuple[Tensor, Tensor],
    loss: StepLoss,
    options: FineTuneOptions,
    *,
    learning_rate: float,
    epochs: int,
    held_out: tuple[Tensor, Tensor] | None = None,
    title: str = "fine-tune",
) -> Outcome:
    """Train the parameters in ``stages`` and nothing else; the model is changed in place.

    Parameters
    ----------
    model : nn.Module
    stages : sequence of Stage
        When which parameters begin to learn.
    data : (inputs, targets)
    loss : callable
        ``loss(model, inputs, targets, step)``, a mean over samples; ``model.training`` is
        False for the held-out ones.
    options : FineTuneOptions
    learning_rate : float
    epochs : int
    held_out : (inputs, targets), optional
        To stop early by.
    title : str
        Of the progress bar.

    Returns
    -------
    outcome : Outcome

    Raises
    ------
    RuntimeError
        If the loss becomes NaN or infinite.
    """
    own = [parameter for stage in stages for parameter in stage.parameters]
    asked = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in asked:
        parameter.requires_grad_(False)
    optimizer = torch.optim.AdamW(list(_groups(stages, options, learning_rate)), lr=learning_rate)
    with seeded(model, options.seed):
        try:
            return _run(model, stages, optimizer, own, data, held_out, loss, options, epochs, title)
        finally:
            for parameter, flag in asked:
                parameter.requires_grad_(flag)
                parameter.grad = None
            model.eval()


@contextmanager
def seeded(model: nn.Module, seed: int) -> Iterator[None]:
    """Let what draws from torch's global generators, such as dropout, draw by a seed; then put them back."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _run(
    model: nn.Module,
    stages: Sequence[Stage],
    optimizer: torch.optim.Optimizer,
    own: Sequence[nn.Parameter],
    data: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor] | None,
    loss: StepLoss,
    options: FineTuneOptions,
    epochs: int,
    title: str,
) -> Outcome:
    generator = torch.Generator().manual_seed(options.seed)
    last_stage = max((stage.epoch for stage in stages), default=0)
    best = (
        Outcome(0, _held_out_loss(model, held_out, loss, options)) if held_out else Outcome(epochs, math.nan)
    )
    with tqdm(total=epochs, desc=title, unit=" epochs", disable=not options.progress, leave=False) as bar:
        for epoch in range(epochs):
            for stage in stages:
                if stage.epoch == epoch:
                    for parameter in stage.parameters:
                        parameter.requires_grad_(True)
            step = Step(generator, epoch / epochs)
            mean = _epoch(model, optimizer, own, data, loss, options, step, f"{title}, epoch {epoch}")
            bar.set_postfix(loss=f"{mean:.3g}")
            bar.update()
            if held_out is None:
                continue
            value = _held_out_loss(model, held_out, loss, options)
            if value < best.loss:
                best = Outcome(epoch + 1, value)
            elif epoch + 1 - max(best.epochs, last_stage) >= options.patience:
                break
    return best


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    own: Sequence[nn.Parameter],
    data: tuple[Tensor, Tensor],
    loss: StepLoss,
    options: FineTuneOptions,
    step: Step,
    where: str,
) -> float:
    """One pass over the samples; returns the mean loss."""
    _train_mode(model)
    total = 0.0
    inputs, targets = data
    order = torch.randperm(len(inputs), generator=step.generator)
    # Equal batches: a last one of a single sample would break batch normalization and contrastive losses.
    batches = order.chunk(max(1, len(inputs) // options.batch_size))
    device = next(model.parameters()).device
    for rows in batches:
        value = loss(model, inputs[rows].to(device), targets[rows].to(device), step)
        if not bool(value.detach().isfinite()):
            raise RuntimeError(
                f"{where}: the loss is {float(value.detach())}; lower learning_rate or scale the inputs"
            )
        if not value.requires_grad:  # nothing that learns yet touches the loss
            continue
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        learning = [parameter for parameter in own if parameter.requires_grad]
        torch.nn.utils.clip_grad_norm_(learning, options.clip)
        optimizer.step()
        total += float(value.detach()) * len(rows) / len(inputs)
    return total


@torch.no_grad()
def _held_out_loss(
    model: nn.Module, data: tuple[Tensor, Tensor], loss: StepLoss, options: FineTuneOptions
) -> float:
    model.eval()
    device = next(model.parameters()).device
    step = Step(torch.Generator().manual_seed(options.seed), 1.0)
    rows = torch.arange(len(data[0])).chunk(max(1, len(data[0]) // options.batch_size))
    values = [float(loss(model, data[0][r].to(device), data[1][r].to(device), step)) * len(r) for r in rows]
    mean = sum(values) / len(data[0])
    return mean if math.isfinite(mean) else math.inf


def _train_mode(model: nn.Module) -> None:
    """Training mode, but for normalization whose weights are frozen: its running statistics are, too."""
    model.train()
    for module in model.modules():
        if isinstance(module, _NormBase) and not any(p.requires_grad for p in module.parameters()):
            module.eval()


def _groups(
    stages: Sequence[Stage], options: FineTuneOptions, learning_rate: float
) -> Iterator[dict[str, object]]:
    """Groups of the optimizer: by rate, with and without decay."""
    for stage in stages:
        rate = learning_rate * stage.factor
        matrices = [p for p in stage.parameters if p.ndim > 1]
        others = [p for p in stage.parameters if p.ndim <= 1]
        if matrices:
            yield {"params": matrices, "lr": rate, "weight_decay": options.weight_decay}
        if others:
            yield {"params": others, "lr": rate, "weight_decay": 0.0}
