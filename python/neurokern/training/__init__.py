"""Training: configuration, loop, validation and the state to resume from."""

from neurokern.training.config import TrainingConfig
from neurokern.training.trainer import NonFiniteLossError, Trainer

__all__ = ["NonFiniteLossError", "Trainer", "TrainingConfig"]
