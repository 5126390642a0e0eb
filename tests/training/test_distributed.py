"""Training in several processes: the result of one, resumed by any number of them, and no rank hangs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ranks import run_two
from training_sessions import (
    CLOCKED,
    TINY,
    trainer_of,
    two_sessions,
)

from neurokern.checkpoint import load_model
from neurokern.models import MtMConfig
from neurokern.training import TrainingConfig

# Without dropout nothing but the order of sums depends on the number of processes.
STILL = MtMConfig.paper(**TINY, input_dropout=0.0, dropout=0.0)
CONFIG = TrainingConfig.paper(
    batch_size=8,
    batches_per_step=3,
    max_steps=8,
    learning_rate=1e-3,
    reduction="mean",
    gradient_clip=1.0,
    ema_decay=0.9,
    validate_every=4,
    checkpoint_every=3,
    timeout=30,
    progress=False,
)
Run = tuple[dict[str, np.ndarray], pd.DataFrame]


def train(folder: Path, config: TrainingConfig = CONFIG, model: MtMConfig = STILL) -> Run:
    trainer = trainer_of(two_sessions(), folder, config, model)
    history = trainer.fit(resume=True)
    return {name: tensor.numpy() for name, tensor in trainer.model.state_dict().items()}, history


def assert_close(run: Run, other: Run) -> None:
    """Losses within rounding; so are weights, but for those whose gradient is rounding alone (biases of keys,
    which no output depends on): AdamW makes steps of full size of it.
    """
    a, b = (one[1].drop(columns=list(CLOCKED)) for one in (run, other))
    pd.testing.assert_frame_equal(a, b, rtol=2e-6)
    assert run[0].keys() == other[0].keys()
    differences = np.concatenate([np.abs(run[0][name] - other[0][name]).ravel() for name in run[0]])
    assert np.median(differences) < 1e-8
    assert differences.mean() < 2e-7


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of one process."""
    return train(tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("changes", [{}, {"strategy": "shard"}], ids=["replicate", "shard"])
def test_two_processes_give_the_losses_and_weights_of_one(
    alone: Run, tmp_path: Path, changes: dict[str, Any]
) -> None:
    first, second = run_two(train, tmp_path, dataclasses.replace(CONFIG, **changes))
    assert_close(first, alone)
    assert all(np.array_equal(second[0][name], first[0][name]) for name in first[0])
    stored = load_model(tmp_path).state_dict()
    assert all(torch.equal(stored[name], torch.as_tensor(first[0][name])) for name in stored)
