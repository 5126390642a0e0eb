"""A step of the optimizer: parts of batches forward and backward, agreement of all processes, the update."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from neurokern.datasets import SpikeBatch
from neurokern.models import poisson_loss
from neurokern.training.acceleration import SMALLEST_SCALE, call_compiled, half_precision
from neurokern.training.batches import Part, Plan
from neurokern.training.config import TrainingConfig
from neurokern.training.interruption import is_memory_error
from neurokern.training.optimizer import clip_gradient
from neurokern.training.part import mask_part, scheme_of, seed_dropout
from neurokern.training.run_state import RunState


class NotFinite(Exception):
    """A value of the step is NaN or infinite; nothing was updated.

    Attributes
    ----------
    what : str
    value : float
    place : int or None
        Of the batch in its step, if it is one batch's.
    """

    def __init__(self, what: str, value: float, place: int | None = None) -> None:
        super().__init__(what)
        self.what, self.value, self.place = what, value, place


class NoMemory(Exception):
    """The step found too little memory.

    Attributes
    ----------
    where : str
    windows : int
        Most windows that this process has in the model at once.
    updated : bool
        Whether weights may have changed already.
    """

    def __init__(self, where: str, windows: int, updated: bool) -> None:
        super().__init__(where)
        self.where, self.windows, self.updated = where, windows, updated


class Stepper:
    """Makes the steps of a run.

    Parameters
    ----------
    state : RunState
        Changed by each step.
    plan : Plan
    config : TrainingConfig
    unit_weights : mapping of session to tensor of shape (n_units,) or None
        Factors of the units' losses.
    """

    def __init__(
        self,
        state: RunState,
        plan: Plan,
        config: TrainingConfig,
        unit_weights: Mapping[str, Tensor | None],
    ) -> None:
        self.state, self.plan, self.config, self.unit_weights = state, plan, config, unit_weights
        self.device = state.ranks.device
        self.trained: list[nn.Parameter] = []

    def step(self, parts: Sequence[tuple[Part, SpikeBatch]], stop: bool = False) -> bool:
        """Train on this process's parts of the present step.

        Parameters
        ----------
        parts : sequence of (Part, SpikeBatch)
        stop : bool
            Whether this process was asked to stop.

        Returns
        -------
        stop : bool
            Whether some process was.

        Raises
        ------
        NotFinite, NoMemory
            In all processes alike.
        """
        state, progress = self.state, self.state.progress
        problem, losses = self._try(parts)
        present = [parameter.grad is not None for parameter in self.trained]
        own = torch.tensor([problem is not None, stop, *present], dtype=torch.float64)
        agreed = state.ranks.add_up(torch.cat([own, losses]))
        flags = [bool(count) for count in agreed[: len(own)].tolist()]
        if flags[0]:
            state.optimizer.zero_grad()  # makes room to save
            where = "another process" if problem is None else str(self.device)
            raise NoMemory(where, self._most_windows(parts), updated=False) from problem
        losses = agreed[len(own) :]
        for place, loss in enumerate(losses.tolist()):
            if not math.isfinite(loss):
                raise NotFinite("loss", loss, place)
        state.ranks.add_gradients(self.trained, flags[2:])
        try:
            self._update()
        except Exception as error:
            if not is_memory_error(error):
                raise
            raise NoMemory(str(self.device), self._most_windows(parts), updated=True) from error
        progress.loss_sum += float(losses.sum()) / len(self.plan.batches(progress.step))
        progress.loss_count += 1
        progress.step += 1
        return flags[1]

    def _try(self, parts: Sequence[tuple[Part, SpikeBatch]]) -> tuple[BaseException | None, Tensor]:
        """Fill the gradients; returns what memory was missing for, and the losses per hidden count."""
        try:
            return None, call_compiled(self.state.network, lambda: self._backward_all(parts))
        except Exception as error:
            # Where weights are spread, the others wait in the middle of a layer: nothing can be agreed on.
            if not is_memory_error(error):
                raise
            if self.state.is_sharded:
                raise NoMemory(str(self.device), self._most_windows(parts), updated=True) from error
            error.__traceback__ = None  # it holds what the step has computed so far
            return error, torch.zeros(self.config.batches_per_step, dtype=torch.float64)

    def _backward_all(self, parts: Sequence[tuple[Part, SpikeBatch]]) -> Tensor:
        losses = torch.zeros(self.config.batches_per_step, dtype=torch.float64, device=self.device)
        self.state.optimizer.zero_grad()
        for part, batch in parts:
            losses[part.place] += self._backward(part, batch)
        return losses.cpu()

    def _backward(self, part: Part, batch: SpikeBatch) -> Tensor:
        """Run a part forward and backward; returns its share of its batch's loss per hidden count."""
        config, scheme = self.config, scheme_of(part, self.config)
        seed_dropout(config.seed, self.state.progress.step, part, self.device)
        masks, n_targets = mask_part(batch, part, scheme, config)
        with half_precision(config, self.device):
            log_rates = self.state.network.forward_batch(batch, scheme, hidden=masks.hidden)
        weights = self.unit_weights[batch.session[0]]
        reduction = config.reduction if part.is_whole else "sum"
        loss = poisson_loss(log_rates, batch.counts, masks.target, reduction, weights)
        per_target = loss if reduction == "mean" else loss / n_targets.clamp(min=1)
        if config.reduction == "mean":
            loss = per_target / len(self.plan.batches(self.state.progress.step))
        self.state.scaler.scale(loss * float(part.counted)).backward()
        return per_target.detach() * part.counted

    def _update(self) -> None:
        config, state = self.config, self.state
        if config.fp16:
            state.scaler.unscale_(state.optimizer)
        norm = float(clip_gradient(self.trained, config.gradient_clip))
        # In float16, an overflow skips the step and lowers the loss scale.
        if not (config.fp16 or math.isfinite(norm)):
            raise NotFinite("norm of the gradient", norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if config.fp16 and state.scaler.get_scale() < SMALLEST_SCALE:
            raise NotFinite("gradient in float16, at any loss scale,", math.inf)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a skipped step in float16 is no mistake
            state.scheduler.step()
        if state.average is not None:
            state.average.update(state.progress.step)

    @staticmethod
    def _most_windows(parts: Sequence[tuple[Part, SpikeBatch]]) -> int:
        return max((len(part.items) for part, _ in parts), default=1)
