"""Training in several processes: the result of one, resumed by any number of them, and no rank hangs."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ranks import run_ranks, run_two
from training_sessions import (
    CLOCKED,
    TINY,
    trainer_of,
    two_sessions,
)

from neurokern.checkpoint import load_model
from neurokern.models import MtM, MtMConfig
from neurokern.training import (
    RankLostError,
    Trainer,
    TrainingConfig,
    TrainingInterrupted,
    TrainingMemoryError,
)

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
    timeout=120,  # where tests run side by side
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


def train_until(folder: Path, config: TrainingConfig, model: MtMConfig, n_steps: int) -> int:
    """Train on from the last checkpoint until all processes die at once; returns the step it began with."""
    trainer = trainer_of(two_sessions(), folder, config, model)
    step, begun = trainer._step, []

    def dying(*arguments: Any) -> bool:
        begun.append(trainer.progress.step)
        if trainer.progress.step == n_steps:
            raise Died
        return step(*arguments)

    trainer._step = dying  # type: ignore[method-assign]
    with pytest.raises(Died):
        trainer.fit(resume=True)
    return begun[0]


class Died(BaseException):
    """Stands for a kill: nothing in the trainer catches it."""


def test_a_run_goes_on_with_another_number_of_processes_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    model = MtMConfig.paper(**TINY)  # with dropout: parts of one size have the same draws in any process
    config = dataclasses.replace(CONFIG, micro_batch_size=4)
    whole = train(tmp_path / "whole", config, model)
    folder = tmp_path / "interrupted"
    sharded = dataclasses.replace(config, strategy="shard")
    assert run_two(train_until, folder, sharded, model, 4) == [0, 0]
    assert train_until(folder, dataclasses.replace(config, n_workers=1), model, 7) == 3
    first, _ = run_two(train, folder, config, model)
    assert_close(first, whole)


def test_batches_of_several_sessions_train_alike_in_two_processes(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, max_padding=1.0, max_steps=4, batches_per_step=2)
    model = MtMConfig.modern(**TINY, input_dropout=0.0, dropout=0.0)
    alone = train(tmp_path / "alone", config, model)
    first, _ = run_two(train, tmp_path / "two", config, model)
    assert_close(first, alone)


def test_a_step_with_fewer_windows_than_processes_trains_as_in_one(tmp_path: Path) -> None:
    """And what belongs to the other session stays as it is, decay included."""
    config = dataclasses.replace(CONFIG, batch_size=1, batches_per_step=1, max_steps=4, weight_decay=0.9)
    first, _ = run_two(train, tmp_path / "two", config)
    assert_close(first, train(tmp_path / "one", config))


def test_only_the_trunk_is_spread() -> None:
    assert run_two(spread_parts) == [{"layers"}] * 2


def spread_parts() -> set[str]:
    from neurokern.training.sharding import is_sharded

    config = dataclasses.replace(CONFIG, strategy="shard")
    network = trainer_of(two_sessions(), Path("never-written"), config, STILL).state.network
    return {name.split(".")[0] for name, p in network.named_parameters() if is_sharded(p)}


# ---- ranks that fail ----


def lose_a_rank(folder: Path) -> Run:
    trainer = trainer_of(two_sessions(), folder, CONFIG, STILL)
    step = trainer._step

    def killed(*arguments: Any) -> bool:
        if trainer.ranks.rank == 1 and trainer.progress.step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*arguments)

    trainer._step = killed  # type: ignore[method-assign]
    return trainer.fit()  # type: ignore[return-value]


def test_the_others_end_with_an_error_when_a_rank_is_killed(alone: Run, tmp_path: Path) -> None:
    survivor, killed = run_ranks(2, lose_a_rank, tmp_path)
    assert killed is None
    assert isinstance(survivor, RankLostError)
    assert "rank 0 lost another process" in str(survivor)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "last", "metrics.csv"]  # nothing by halves
    assert_close(train(tmp_path), alone)


def fall_silent(folder: Path) -> None:
    trainer = trainer_of(two_sessions(), folder, dataclasses.replace(CONFIG, timeout=2), STILL)
    step = trainer._step

    def late(*arguments: Any) -> bool:
        if trainer.ranks.rank == 1 and trainer.progress.step == 1:
            time.sleep(5)
        return step(*arguments)

    trainer._step = late  # type: ignore[method-assign]
    trainer.fit()


def test_a_rank_that_does_not_answer_counts_as_lost_after_the_timeout(tmp_path: Path) -> None:
    waiting, _ = run_ranks(2, fall_silent, tmp_path)
    assert isinstance(waiting, RankLostError)
    assert "did not answer within 2 s" in str(waiting)


def lose_memory(folder: Path, rank: int) -> None:
    trainer = trainer_of(two_sessions(), folder, CONFIG, STILL)
    forward = trainer.model.forward_parts

    def greedy(*arguments: Any) -> list[torch.Tensor]:
        if trainer.progress.step == 2 and trainer.ranks.rank == rank:
            torch.empty(2**50)
        return forward(*arguments)

    trainer.model.forward_parts = greedy  # type: ignore[method-assign]
    trainer.fit()


@pytest.mark.parametrize("rank", [0, 1])
def test_too_little_memory_in_one_process_stops_all_with_the_state(
    alone: Run, tmp_path: Path, rank: int
) -> None:
    errors = run_ranks(2, lose_memory, tmp_path, rank)
    assert [type(error) for error in errors] == [TrainingMemoryError] * 2
    assert "in step 2 on cpu" in str(errors[rank])
    assert "on another process" in str(errors[1 - rank])
    assert all("micro_batch_size=" in str(error) for error in errors)
    assert_close(train(tmp_path), alone)


def be_terminated(folder: Path) -> None:
    trainer = trainer_of(two_sessions(), folder, CONFIG, STILL)
    step = trainer._step

    def signaled(*arguments: Any) -> bool:
        if trainer.ranks.rank == 1 and trainer.progress.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(*arguments)

    trainer._step = signaled  # type: ignore[method-assign]
    trainer.fit()


def test_a_signal_to_one_process_stops_all_after_the_same_step(alone: Run, tmp_path: Path) -> None:
    stops = run_ranks(2, be_terminated, tmp_path)
    assert [type(stop) for stop in stops] == [TrainingInterrupted] * 2
    assert all("stopped after step 5 of 8" in str(stop) for stop in stops)
    assert_close(train(tmp_path), alone)


def draw_weights() -> dict[str, np.ndarray]:
    torch.manual_seed(int(os.environ["RANK"]))
    trainer = Trainer(MtM(STILL), two_sessions()[0], (), CONFIG, "never-written")
    return {name: tensor.numpy() for name, tensor in trainer.model.state_dict().items()}


def test_all_processes_start_from_the_weights_of_the_first() -> None:
    first, second = run_two(draw_weights)
    torch.manual_seed(0)
    drawn = MtM(STILL).prompts.detach().numpy()
    assert np.array_equal(first["prompts"], drawn)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def disagree(folder: Path) -> None:
    seed = int(os.environ["RANK"])
    trainer_of(two_sessions(), folder, dataclasses.replace(CONFIG, seed=seed), STILL)


def test_processes_with_other_settings_end_before_they_train(tmp_path: Path) -> None:
    errors = run_ranks(3, disagree, tmp_path)
    assert [type(error) for error in errors] == [ValueError] * 3
    assert all("2 of 3 processes have other settings or data than the first" in str(e) for e in errors)


def bad_input(folder: Path) -> None:
    trainer_of(two_sessions(), folder, CONFIG, STILL).fit()  # without resume


def test_what_the_first_process_finds_wrong_is_said_by_all(tmp_path: Path) -> None:
    train(tmp_path)
    errors = run_ranks(2, bad_input, tmp_path)
    assert [type(error) for error in errors] == [ValueError] * 2
    assert all("already holds a run" in str(error) for error in errors)
