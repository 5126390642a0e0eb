"""A step of the optimizer: parts of batches forward and backward, agreement of all processes, the update."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from neurokern.models import poisson_loss
from neurokern.training.acceleration import SMALLEST_SCALE, call_compiled, half_precision
from neurokern.training.batches import Plan
from neurokern.training.config import TrainingConfig
from neurokern.training.interruption import is_memory_error
from neurokern.training.optimizer import clip_gradient
from neurokern.training.part import MaskedPart, seed_dropout
from neurokern.training.run_state import RunState

Passes = Sequence[Sequence[MaskedPart]]


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

    def step(self, passes: Passes, stop: bool = False) -> bool:
        """Train on this process's passes of the present step.

        Parameters
        ----------
        passes : sequence of sequence of MaskedPart
            Parts that share a pass through the model.
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
        problem, losses = self._try(passes)
        present = [parameter.grad is not None for parameter in self.trained]
        own = torch.tensor([problem is not None, stop, *present], dtype=torch.float64)
        agreed = state.ranks.add_up(torch.cat([own, losses]))
        flags = [bool(count) for count in agreed[: len(own)].tolist()]
        if flags[0]:
            state.optimizer.zero_grad()  # makes room to save
            where = "another process" if problem is None else str(self.device)
            raise NoMemory(where, self._most_windows(passes), updated=False) from problem
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
            raise NoMemory(str(self.device), self._most_windows(passes), updated=True) from error
        progress.loss_sum += float(losses.sum()) / len(self.plan.batches(progress.step))
        progress.loss_count += 1
        progress.step += 1
        return flags[1]

    def _try(self, passes: Passes) -> tuple[BaseException | None, Tensor]:
        """Fill the gradients; returns what memory was missing for, and the losses per hidden count."""
        try:
            return None, call_compiled(self.state.network, lambda: self._backward_all(passes))
        except Exception as error:
            # Where weights are spread, the others wait in the middle of a layer: nothing can be agreed on.
            if not is_memory_error(error):
                raise
            if self.state.is_sharded:
                raise NoMemory(str(self.device), self._most_windows(passes), updated=True) from error
            error.__traceback__ = None  # it holds what the step has computed so far
            return error, torch.zeros(self.config.batches_per_step, dtype=torch.float64)

    def _backward_all(self, passes: Passes) -> Tensor:
        losses = torch.zeros(self.config.batches_per_step, dtype=torch.float64, device=self.device)
        self.state.optimizer.zero_grad()
        for parts in passes:
            for masked, loss in zip(parts, self._backward(parts), strict=True):
                losses[masked.part.place] += loss
        return losses.cpu()

    def _backward(self, parts: Sequence[MaskedPart]) -> list[Tensor]:
        """Run parts forward and backward together; returns the share of each of its batch's mean loss."""
        seed_dropout(self.config.seed, self.state.progress.step, parts[0].part, self.device)
        inputs = [(one.batch.counts, one.batch.session, one.scheme, one.masks.hidden) for one in parts]
        with half_precision(self.config, self.device):
            log_rates = self.state.network.forward_parts(inputs)
        losses, per_target = zip(*map(self._losses, parts, log_rates), strict=True)
        self.state.scaler.scale(sum(losses[1:], losses[0])).backward()
        return [loss.detach() for loss in per_target]

    def _losses(self, masked: MaskedPart, log_rates: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a part adds to the loss of the step, and to its batch's loss per hidden count."""
        part, batch, config = masked.part, masked.batch, self.config
        weights = self._weights_of(batch.session)
        loss = poisson_loss(log_rates, batch.counts, masked.masks.target, weights=weights)
        per_target = loss / masked.n_targets.clamp(min=1)
        if config.reduction == "mean":
            loss = per_target / len(self.plan.batches(self.state.progress.step))
        return loss * float(part.counted), per_target * float(part.counted)

    def _weights_of(self, sessions: Sequence[str]) -> Tensor | None:
        """Return the factors of the units' losses, ``(n_units,)`` or ``(B, 1, n_units)``."""
        weights = [self.unit_weights[name] for name in sessions]
        found = [one for one in weights if one is not None]
        if not found or len(set(sessions)) == 1:
            return weights[0]
        return pad_sequence(found, batch_first=True)[:, None]

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
    def _most_windows(passes: Passes) -> int:
        return max((sum(one.part.n_windows for one in parts) for parts in passes), default=1)
