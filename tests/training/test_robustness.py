"""What can go wrong in a run: memory, numbers, signals, odd sessions. Errors say what to do."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_sessions import (
    N_BINS,
    Sessions,
    largest_difference,
    latent_session,
    trainer_of,
    two_sessions,
    weights_of,
)

from neurokern.checkpoint import load_model
from neurokern.datasets import BinnedSession
from neurokern.models import Masking, MtM, MtMConfig, poisson_loss
from neurokern.training import (
    NonFiniteLossError,
    Trainer,
    TrainingConfig,
    TrainingInterrupted,
    TrainingMemoryError,
    read_failed_batches,
)
from neurokern.training.interruption import memory_advice
from neurokern.training.log import tokens_of

SHORT = TrainingConfig.paper(
    batch_size=8, max_steps=6, learning_rate=1e-3, validate_every=3, checkpoint_every=100, progress=False
)


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return two_sessions()


@pytest.fixture(scope="module")
def whole(sessions: Sessions, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a run that nothing befalls."""
    trainer = trainer_of(sessions, tmp_path_factory.mktemp("whole"), SHORT)
    trainer.fit()
    return weights_of(trainer.model)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Give both signals Python's own handlers, whatever started the tests: jobs of a shell ignore Ctrl-C."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def before_step(trainer: Trainer, number: int, action: Any) -> None:
    """Do something before a step."""
    step = trainer._step

    def patched(*arguments: Any) -> bool:
        if trainer.progress.step == number:
            action()
        return step(*arguments)

    trainer._step = patched  # type: ignore[method-assign]


def assert_resumes(sessions: Sessions, folder: Path, whole: dict[str, torch.Tensor], **changes: Any) -> None:
    trainer = trainer_of(sessions, folder, dataclasses.replace(SHORT, **changes))
    trainer.fit(resume=True)
    assert largest_difference(weights_of(trainer.model), whole) == 0.0


# ---- signals ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_its_step_with_a_checkpoint(
    sessions: Sessions, tmp_path: Path, whole: dict[str, torch.Tensor], number: signal.Signals
) -> None:
    trainer = trainer_of(sessions, tmp_path, SHORT)
    before_step(trainer, 1, lambda: os.kill(os.getpid(), number))
    handler = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted, match="stopped after step 2 of 6") as stop:
        trainer.fit()
    assert stop.value.signal == number
    assert signal.getsignal(number) is handler
    assert_resumes(sessions, tmp_path, whole)


def test_workers_outlive_a_signal_to_the_whole_group(
    sessions: Sessions, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    """As Ctrl-C in a terminal and many schedulers send it: the step that ends may still need them."""
    trainer = trainer_of(sessions, tmp_path, dataclasses.replace(SHORT, n_workers=1))

    def signal_workers() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGTERM)

    before_step(trainer, 1, signal_workers)
    trainer.fit()
    assert largest_difference(weights_of(trainer.model), whole) == 0.0


def test_a_second_ctrl_c_ends_the_run_at_once(sessions: Sessions, tmp_path: Path) -> None:
    trainer = trainer_of(sessions, tmp_path, SHORT)

    def impatient() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before_step(trainer, 1, impatient)
    with pytest.raises(KeyboardInterrupt) as stop:
        trainer.fit()
    assert not isinstance(stop.value, TrainingInterrupted)


def test_training_in_another_thread_leaves_signals_alone(
    sessions: Sessions, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    trainer = trainer_of(sessions, tmp_path, SHORT)
    thread = threading.Thread(target=trainer.fit)
    thread.start()
    thread.join()
    assert largest_difference(weights_of(trainer.model), whole) == 0.0


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"WORLD_SIZE": "2"},
            "RANK and MASTER_ADDR and MASTER_PORT are not set; start the processes with",
        ),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE, which torchrun sets, must be at least 1, got 'two'"),
    ],
)
def test_an_environment_of_half_a_launcher_is_named(
    sessions: Sessions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    message: str,
) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        trainer_of(sessions, tmp_path, SHORT)


def test_a_state_from_before_a_setting_existed_resumes(
    sessions: Sessions, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    trainer = trainer_of(sessions, tmp_path, SHORT)
    before_step(trainer, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(TrainingInterrupted):
        trainer.fit()
    file = tmp_path / "last" / "trainer.json"
    values = json.loads(file.read_text())
    for name in ("batches_per_step", "rate_scaling", "fp16"):
        del values["identity"][name]
    del values["identity"]["model"]["position"], values["sha256"], values["loss_scale"]
    file.write_text(json.dumps(values))
    assert_resumes(sessions, tmp_path, whole)


# ---- memory ----


def raise_cuda_error() -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("exhaust", [raise_cuda_error, lambda: torch.empty(2**50)], ids=["gpu", "cpu"])
def test_too_little_memory_names_what_to_change_and_loses_no_step(
    sessions: Sessions, tmp_path: Path, whole: dict[str, torch.Tensor], exhaust: Any
) -> None:
    trainer = trainer_of(sessions, tmp_path, SHORT)
    forward = trainer.model.forward_parts

    def greedy(*arguments: Any) -> list[torch.Tensor]:
        if trainer.progress.step == 4 and trainer.model.training:
            exhaust()
        return forward(*arguments)

    trainer.model.forward_parts = greedy  # type: ignore[method-assign]
    with pytest.raises(TrainingMemoryError, match=r"step 4 on cpu; set micro_batch_size=2 \(now 5 ") as error:
        trainer.fit()
    assert "recompute=True" in str(error.value)
    assert load_model(tmp_path / "last").sessions == trainer.model.sessions
    assert_resumes(sessions, tmp_path, whole, recompute=True)


def test_ignored_signals_stay_ignored(
    sessions: Sessions, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trainer = trainer_of(sessions, tmp_path, SHORT)
    before_step(trainer, 1, lambda: signal.raise_signal(signal.SIGINT))
    trainer.fit()
    assert largest_difference(weights_of(trainer.model), whole) == 0.0


def test_advice_about_memory_names_only_what_helps() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    least = TrainingConfig.paper(micro_batch_size=1, recompute=True)
    assert memory_advice(least, 1, cpu, 1) == "in a new run a smaller model or shorter windows"
    advice = memory_advice(TrainingConfig.paper(), 16, gpu, 4)
    assert advice.split(", or ") == [
        "micro_batch_size=8 (now 16 windows at once)",
        "recompute=True",
        "strategy='shard'",
        "in a new run bf16=True",
    ]


def test_memory_that_ends_in_the_update_sends_back_to_the_last_checkpoint(
    sessions: Sessions, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    trainer = trainer_of(sessions, tmp_path, dataclasses.replace(SHORT, checkpoint_every=2))

    def exhaust() -> None:
        trainer.state.optimizer.step = lambda *_, **__: raise_cuda_error()  # type: ignore[method-assign]

    before_step(trainer, 3, exhaust)
    with pytest.raises(TrainingMemoryError, match="go on from the last checkpoint"):
        trainer.fit()
    assert_resumes(sessions, tmp_path, whole)


def test_a_full_disk_is_an_error_that_leaves_the_last_checkpoint_to_go_on_from(
    sessions: Sessions, tmp_path: Path, whole: dict[str, torch.Tensor]
) -> None:
    trainer = trainer_of(sessions, tmp_path, dataclasses.replace(SHORT, checkpoint_every=2))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before_step(trainer, 3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard)))
    try:
        with pytest.raises(OSError, match=r"last could not be written .*that was there is whole"):
            trainer.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last", "metrics.csv"]
    assert_resumes(sessions, tmp_path, whole)


def test_other_errors_of_a_step_are_not_taken_for_memory(sessions: Sessions, tmp_path: Path) -> None:
    trainer = trainer_of(sessions, tmp_path, SHORT)

    def broken(*_: Any) -> list[torch.Tensor]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    trainer.model.forward_parts = broken  # type: ignore[method-assign]
    trainer.validation = None
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        trainer.fit()


# ---- numbers ----


def test_the_batch_of_a_loss_that_is_not_finite_can_be_read_and_tried_again(
    sessions: Sessions, tmp_path: Path
) -> None:
    config = dataclasses.replace(SHORT, batches_per_step=3, masking=Masking(schemes=("neuron", "causal")))
    trainer = trainer_of(sessions, tmp_path, config)
    target = trainer.windows.sessions[1].session

    def poison() -> None:
        trainer.model.session_parts(target).stitch_in.weight.data[0, 0] = torch.nan

    before_step(trainer, 2, poison)
    with pytest.raises(NonFiniteLossError, match=rf"masks on session '{target}' is nan in step 2"):
        trainer.fit()
    (failed,) = read_failed_batches(tmp_path)
    assert (failed.session, failed.step) == (target, 2)
    assert np.array_equal(failed.counts.numpy(), sessions[0][1].counts[list(failed.windows)])
    with torch.no_grad():
        inputs = failed.counts.masked_fill(failed.hidden, 0.0)
        log_rates = trainer.model(inputs, failed.session, failed.scheme, failed.hidden)
    assert torch.isnan(poisson_loss(log_rates, failed.counts, failed.target_mask))
    assert failed.target_mask.any()


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_leaves_all_batches_of_the_step(
    sessions: Sessions, tmp_path: Path, clip: float | None
) -> None:
    """Before they reach the weights, with or without clipping."""
    config = dataclasses.replace(SHORT, batches_per_step=3, gradient_clip=clip)
    trainer = trainer_of(sessions, tmp_path, config)
    trainer.model.prompts.register_hook(lambda gradient: gradient * torch.nan)
    before = weights_of(trainer.model)
    with pytest.raises(NonFiniteLossError, match="norm of the gradient is nan in step 0"):
        trainer.fit()
    assert [failed.step for failed in read_failed_batches(tmp_path / "failed")] == [0, 0, 0]
    saved = load_model(tmp_path / "failed").state_dict()
    assert largest_difference(saved, before) == 0.0


def test_a_validation_loss_that_is_not_finite_leaves_the_weights(sessions: Sessions, tmp_path: Path) -> None:
    trainer = trainer_of(sessions, tmp_path, SHORT)
    trainer.model.positions.data[0, 0] = torch.inf
    with pytest.raises(NonFiniteLossError, match="validation loss is nan in step 0"):
        trainer.fit()
    assert (tmp_path / "failed" / "model.safetensors").is_file()
    assert not (tmp_path / "best").exists()


def test_damaged_batches_of_a_failed_run_are_errors_that_name_the_file(
    sessions: Sessions, tmp_path: Path
) -> None:
    trainer = trainer_of(sessions, tmp_path, dataclasses.replace(SHORT, gradient_clip=1.0))
    trainer.model.prompts.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(NonFiniteLossError):
        trainer.fit()
    with pytest.raises(FileNotFoundError, match=r"batches\.json is missing"):
        read_failed_batches(tmp_path / "best")
    values = tmp_path / "failed" / "batches.json"
    text = values.read_text()
    values.write_text(text.replace('"windows"', '"rows"'))
    with pytest.raises(ValueError, match=r"batches\.json does not describe batches"):
        read_failed_batches(tmp_path)
    values.write_text(text)
    tensors = tmp_path / "failed" / "batches.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"batches\.safetensors is cut short"):
        read_failed_batches(tmp_path)


# ---- odd sessions ----


def odd(session: BinnedSession, **changes: Any) -> BinnedSession:
    return dataclasses.replace(session, **changes)


def test_an_empty_session_is_named(sessions: Sessions, tmp_path: Path) -> None:
    train, validation = sessions
    with pytest.raises(ValueError, match=r"session 'mouse\.2' has no windows; leave it out"):
        trainer_of(([train[0], train[1].select([])], []), tmp_path, SHORT)
    with pytest.raises(ValueError, match=r"session 'mouse\.1' has no windows; leave it out"):
        trainer_of((train, [validation[0].select([])]), tmp_path, SHORT)
    with pytest.raises(ValueError, match="no sessions to train on"):
        trainer_of(([], []), tmp_path, SHORT)


def test_units_that_differ_between_training_and_validation_are_named(
    sessions: Sessions, tmp_path: Path
) -> None:
    fewer = sessions[1][0].select_units(range(5))
    with pytest.raises(ValueError, match=r"'mouse\.1' has 5 units in validation, 18 in training"):
        trainer_of((sessions[0], [fewer]), tmp_path, SHORT)


@pytest.mark.parametrize("recipe", [MtMConfig.paper, MtMConfig.small, MtMConfig.modern])
def test_odd_sessions_train_to_finite_weights(tmp_path: Path, recipe: Any) -> None:
    """A region of one unit, units without a region or a spike, a huge count, one window, one unit."""
    base = latent_session("odd", 7, n_windows=12)
    counts = base.counts.astype(np.uint16)
    counts[:, :, 2] = 0
    counts[3, 4, 1] = 65535
    regions = np.array(["CA1", "VISp", "VISp", "VISp", "", "", "VISp"])
    strange = [
        odd(base, counts=counts, regions=regions),
        odd(latent_session("one window", 4, n_windows=1), regions=np.array(["CA1"] * 4)),
        odd(latent_session("one unit", 1, n_windows=5)),
    ]
    sizes = {"hidden_size": 16, "n_layers": 1, "n_heads": 2, "mlp_size": 16, "stitch_size": 4}
    config = TrainingConfig.paper(
        batch_size=4, max_steps=15, validate_every=5, gradient_clip=1.0, reduction="mean", progress=False
    )
    trainer = trainer_of((strange, strange[:1]), tmp_path, config, recipe(n_bins=N_BINS, **sizes))
    history = trainer.fit()
    assert np.isfinite(history["train_loss"].iloc[1:]).all()
    assert all(torch.isfinite(tensor).all() for tensor in load_model(tmp_path).state_dict().values())


def test_a_session_without_regions_trains_where_no_scheme_needs_them(
    sessions: Sessions, tmp_path: Path
) -> None:
    nameless = odd(sessions[0][0], regions=np.full(18, ""))
    config = dataclasses.replace(SHORT, masking=Masking(schemes=("neuron", "causal")))
    history = trainer_of(([nameless], []), tmp_path, config).fit()
    assert np.isfinite(history["train_loss"].iloc[-1])
    with pytest.raises(ValueError, match=r"no unit of session 'mouse\.1' has a region"):
        trainer_of(([nameless], []), tmp_path, SHORT)


# ---- logs ----


class EventWriter:
    """Stands for TensorBoard's, which is not needed to run these tests."""

    def __init__(self, folder: str, purge_step: int) -> None:
        self.scalars: dict[tuple[str, int], float] = {}
        self.folder, self.purge_step, self.closed = folder, purge_step, False
        writers.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name, step] = value

    def close(self) -> None:
        self.closed = True


writers: list[EventWriter] = []


def test_tensorboard_gets_the_rows_of_the_table(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.SimpleNamespace(SummaryWriter=EventWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    writers.clear()
    history = trainer_of(sessions, tmp_path, dataclasses.replace(SHORT, tensorboard=True)).fit()
    (writer,) = writers
    assert writer.folder == str(tmp_path / "tensorboard")
    assert writer.closed
    for name, column in (
        ("validation/loss", "validation_loss"),
        ("train/loss", "train_loss"),
        ("validation/bits_per_spike_causal", "validation_bits_per_spike_causal"),
        ("run/windows_per_second", "windows_per_second"),
    ):
        last = history.iloc[-1]
        assert writer.scalars[name, int(last["step"])] == last[column]


def test_tensorboard_that_is_not_installed_is_named_before_training(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'neurokern\[tensorboard\]'"):
        trainer_of(sessions, tmp_path, dataclasses.replace(SHORT, tensorboard=True))
    assert not any(tmp_path.iterdir())


def test_rates_and_memory_are_in_the_table(sessions: Sessions, tmp_path: Path) -> None:
    history = trainer_of(sessions, tmp_path, SHORT).fit().iloc[1:]
    assert (history["windows_per_second"] > 0).all()
    np.testing.assert_allclose(
        history["tokens_per_second"], N_BINS * history["windows_per_second"], rtol=0.01
    )
    assert (history["memory_gb"] > 0.01).all()
    assert tokens_of(MtMConfig.ndt2(), sessions[0][0]) == N_BINS
    assert tokens_of(MtMConfig.ndt2(patch_size=5), sessions[0][0]) == 4 * N_BINS  # 18 units


def test_validation_masks_belong_to_session_scheme_and_window(sessions: Sessions, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MtM(MtMConfig.paper(n_bins=N_BINS, hidden_size=16, n_layers=1, n_heads=2, stitch_size=4))
    train, validation = sessions
    both = Trainer(model, train, validation, SHORT, tmp_path)
    alone = Trainer(model, train, validation[1:], SHORT, tmp_path)
    first = Trainer(model, train, validation[:1], dataclasses.replace(SHORT, batch_size=5), tmp_path)
    sums = [t.validation.run(model, torch.device("cpu")) for t in (both, alone, first)]
    n_first, n_second = (v.n_windows * v.n_units for v in validation)
    expected = (sums[1]["loss_causal"] * n_second + sums[2]["loss_causal"] * n_first) / (n_first + n_second)
    assert sums[0]["loss_causal"] == pytest.approx(expected, rel=0.05)
