"""Training: configuration, loop, validation and the state to resume from, on one process or many."""

from neurokern.training.config import TrainingConfig
from neurokern.training.distributed import RankLostError
from neurokern.training.failed import FailedBatch, read_failed_batches
from neurokern.training.interruption import NonFiniteLossError, TrainingInterrupted, TrainingMemoryError
from neurokern.training.trainer import Trainer

__all__ = [
    "FailedBatch",
    "NonFiniteLossError",
    "RankLostError",
    "Trainer",
    "TrainingConfig",
    "TrainingInterrupted",
    "TrainingMemoryError",
    "read_failed_batches",
]
