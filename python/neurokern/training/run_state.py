"""Everything that a step changes: weights, optimizer, schedule, loss scale, average, place; saved as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neurokern.checkpoint import replace_checkpoint, write_model
from neurokern.models import MtM
from neurokern.training.config import TrainingConfig
from neurokern.training.distributed import Ranks
from neurokern.training.optimizer import WeightAverage, make_optimizer
from neurokern.training.sharding import copy_whole, shard_trunk, whole
from neurokern.training.state import (
    Progress,
    fill_training_state,
    training_state,
    write_training_state,
)


class RunState:
    """The state of a run.

    Parameters
    ----------
    model : MtM
        The first process's weights are given to all others.
    config : TrainingConfig
    ranks : Ranks
    total_steps : int

    Attributes
    ----------
    network : MtM
        What is trained: the model, or a copy of it that is spread over the processes.
    names : dict of parameter to str
    """

    def __init__(self, model: MtM, config: TrainingConfig, ranks: Ranks, total_steps: int) -> None:
        self.model, self.ranks = model, ranks
        model.load_state_dict(ranks.share(model.state_dict()))  # whatever each process drew
        model.to(ranks.device)
        self.is_sharded = config.strategy == "shard" and ranks.size > 1
        self.network = model
        if self.is_sharded:
            self.network = shard_trunk(model, ranks.device, ranks.size)
        self.names: dict[Tensor, str] = {p: name for name, p in self.network.named_parameters()}
        self.optimizer, self.scheduler = make_optimizer(self.network, config, total_steps)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=config.fp16)
        self.average = None if config.ema_decay is None else WeightAverage(self.network, config.ema_decay)
        self.progress = Progress()

    def save(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        write_more: Callable[[Path], None] | None = None,
    ) -> None:
        """Write model and training state; the earlier checkpoint stays until this one is whole.

        All processes call this together: what is spread is gathered, and the first one writes.
        """
        average = {} if self.average is None else self.average.values
        weights = self._weights()
        tensors = training_state(self.names, self.optimizer, average)
        if not self.ranks.is_first:
            return
        with replace_checkpoint(folder) as temporary:
            write_model(self.model, temporary, weights)
            write_training_state(
                temporary, tensors, self.optimizer, self.scheduler, self.scaler, self.progress, identity
            )
            if write_more is not None:
                write_more(temporary)

    def save_best(self, folder: Path) -> None:
        """Write the model as it is validated; all processes call this together."""
        weights = self._weights()
        if self.average is not None:
            weights.update({name: whole(tensor) for name, tensor in self.average.values.items()})
        if self.ranks.is_first:
            with replace_checkpoint(folder) as temporary:
                write_model(self.model, temporary, weights)

    def fill(self, folder: Path, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from what :func:`neurokern.training.state.read_training_state` read, the same in all."""
        for name, weight in self.network.state_dict().items():
            copy_whole(weight, tensors[f"model/{name}"])
        average = {} if self.average is None else self.average.values
        self.progress = fill_training_state(
            folder, values, tensors, self.names, self.optimizer, self.scheduler, self.scaler, average
        )

    def _weights(self) -> dict[str, Tensor]:
        return {name: whole(tensor) for name, tensor in self.network.state_dict().items()}
