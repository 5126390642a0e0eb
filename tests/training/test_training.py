"""Training: it learns, one seed gives one result, and a killed run goes on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from training_sessions import CLOCKED, N_BINS, TINY, Sessions, latent_session

from neurokern.checkpoint import load_model
from neurokern.datasets import (
    SessionBatchSampler,
    SpikeRecording,
    SpikeWindows,
    WindowedRecording,
    sliding_windows,
)
from neurokern.models import Masking, MtM, MtMConfig
from neurokern.models.masking import draw_masks
from neurokern.training import NonFiniteLossError, Trainer, TrainingConfig
from neurokern.training.episodes import episodes_of
from neurokern.training.optimizer import WeightAverage, parameter_groups

SHORT = TrainingConfig.paper(
    batch_size=8, max_steps=14, learning_rate=1e-3, validate_every=4, checkpoint_every=5, progress=False
)


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    both = [latent_session("mouse.1", 18, seed=1), latent_session("mouse.2", 24, seed=2)]
    return [s.select(slice(0, 45)) for s in both], [s.select(slice(45, 60)) for s in both]


def trainer_of(
    sessions: Sessions,
    folder: Path,
    config: TrainingConfig = SHORT,
    model: MtMConfig | None = None,
) -> Trainer:
    torch.manual_seed(0)
    return Trainer(MtM(model or MtMConfig.paper(**TINY)), *sessions, config, folder)


def weights_of(model: MtM) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_run(
    a: tuple[MtM, pd.DataFrame], b: tuple[MtM, pd.DataFrame], *, but: tuple[str, ...] = CLOCKED
) -> None:
    mine, other = weights_of(a[0]), weights_of(b[0])
    assert mine.keys() == other.keys()
    assert [name for name in mine if not torch.equal(mine[name], other[name])] == []
    pd.testing.assert_frame_equal(
        a[1].drop(columns=list(but)), b[1].drop(columns=list(but)), check_exact=True
    )


# ---- learning ----


@pytest.mark.parametrize("recipe", ["paper", "small"])
def test_training_beats_the_mean_rate_of_each_unit(sessions: Sessions, tmp_path: Path, recipe: str) -> None:
    if recipe == "paper":
        model = MtMConfig.paper(**{**TINY, "n_layers": 1}, dropout=0.1)
        config = TrainingConfig.paper(max_steps=200, learning_rate=3e-3, validate_every=50, progress=False)
    else:
        model = MtMConfig.small(n_bins=N_BINS, hidden_size=32, stitch_size=8, n_layers=1)
        config = TrainingConfig.small(max_steps=100, validate_every=50, progress=False)
    trainer = trainer_of(sessions, tmp_path, config, model)
    history = trainer.fit()
    assert history["validation_loss"].min() < history["validation_loss"].iloc[0]
    if recipe == "paper":  # the small one starts near its best
        assert history["train_loss"].iloc[-1] < 0.7 * history["train_loss"].iloc[1]
    best = history.loc[history["validation_loss"].idxmin()]
    for scheme in ("neuron", "causal", "inter-region"):
        assert best[f"validation_bits_per_spike_{scheme}"] > 0.0


def test_the_model_ends_with_the_best_weights_which_are_those_on_disk(
    sessions: Sessions, tmp_path: Path
) -> None:
    trainer = trainer_of(sessions, tmp_path)
    history = trainer.fit()
    on_disk = load_model(tmp_path)
    assert all(torch.equal(t, on_disk.state_dict()[name]) for name, t in trainer.model.state_dict().items())
    scores = trainer.validation.run(trainer.model, torch.device("cpu"))
    assert scores["loss"] == history["validation_loss"].min()
    assert not trainer.model.training


def test_metrics_are_written_as_csv(sessions: Sessions, tmp_path: Path) -> None:
    history = trainer_of(sessions, tmp_path).fit()
    written = pd.read_csv(tmp_path / "metrics.csv")
    pd.testing.assert_frame_equal(written, history, check_exact=True)
    assert written["step"].tolist() == [0, 4, 8, 12, 14]
    losses = [f"validation_loss_{s}" for s in ("neuron", "causal", "inter-region", "intra-region")]
    assert {"epoch", "train_loss", "learning_rate", "seconds", "validation_loss", *losses} <= set(
        written.columns
    )


def test_unknown_sessions_are_added_and_known_ones_kept(sessions: Sessions, tmp_path: Path) -> None:
    model = MtM(MtMConfig.paper(**TINY))
    model.add_session("mouse.2", 24)
    before = model.session_parts("mouse.2").stitch_in.weight.clone()
    Trainer(model, *sessions, SHORT, tmp_path)
    assert model.sessions == ("mouse.2", "mouse.1")
    assert model.session_parts("mouse.1").regions[:3] == ("CA1", "VISp", "MOs")
    assert torch.equal(before, model.session_parts("mouse.2").stitch_in.weight)


def test_frozen_parameters_stay_as_they_are(sessions: Sessions, tmp_path: Path) -> None:
    model = MtM(MtMConfig.paper(**TINY))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = weights_of(model)
    trainer = Trainer(model, *sessions, SHORT, tmp_path)
    trainer.fit()
    after = trainer.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_parts_in_closed_form_end_up_fitted_to_training_and_validation_windows(
    sessions: Sessions, tmp_path: Path
) -> None:
    train, validation = sessions
    small = MtMConfig.small(n_bins=N_BINS, stitch_size=4)
    config = TrainingConfig.small(max_steps=4, validate_every=2, progress=False)
    trainer = trainer_of(sessions, tmp_path, config, small)
    trainer.fit()
    both = MtM(small)
    for early, late in zip(train, validation, strict=True):
        both.add_session(early.session, early.n_units, counts=np.concatenate([early.counts, late.counts]))
    for session in trainer.model.sessions:
        ours, expected = (dict(m.session_parts(session).named_parameters()) for m in (trainer.model, both))
        assert all(torch.equal(ours[name], expected[name]) for name in expected)
    on_disk = load_model(tmp_path).state_dict()
    assert all(torch.equal(t, on_disk[name]) for name, t in trainer.model.state_dict().items())
    again = trainer_of(sessions, tmp_path, config, small)
    again.fit(resume=True)
    assert all(torch.equal(t, on_disk[name]) for name, t in again.model.state_dict().items())


def test_episodes_know_the_windows_up_to_a_cut_and_train_on_those_after_it(sessions: Sessions) -> None:
    session = sessions[0][0]
    early, late = episodes_of(session, (0.4, 0.8), 0.3)
    assert [e.known.n_windows for e in (early, late)] == [18, 36]
    assert np.array_equal(early.known.counts, session.counts[:18])
    assert np.array_equal(early.ahead.counts, session.counts[18:32])
    assert np.array_equal(late.ahead.counts, session.counts[36:])
    assert early.known.session == early.ahead.session == "mouse.1 (first 18 windows)"
    assert episodes_of(session.select([0]), (0.4, 0.8), 0.3) == []


def test_episodes_are_gone_from_the_trained_model(sessions: Sessions, tmp_path: Path) -> None:
    small = MtMConfig.small(n_bins=N_BINS, stitch_size=4)
    config = TrainingConfig.small(max_steps=30, validate_every=10, learning_rate=3e-3, progress=False)
    trainer = trainer_of(sessions, tmp_path, config, small)
    assert len(trainer.model.sessions) == 2 + 2 * 4
    history = trainer.fit()
    assert history["validation_loss"].min() < history["validation_loss"].iloc[0]
    assert trainer.model.sessions == load_model(tmp_path).sessions == ("mouse.1", "mouse.2")
    with pytest.raises(ValueError, match="a trainer runs once"):
        trainer.fit(resume=True)
    published = trainer_of(sessions, tmp_path / "paper", config)
    assert published.episodes == []


def test_every_step_masks_windows_by_numbers_of_its_own(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = []

    def recording(*arguments: object, **named: object) -> object:
        offsets.append(named["offset"])
        return draw_masks(*arguments, **named)

    monkeypatch.setattr("neurokern.training.part.draw_masks", recording)
    trainer_of(sessions, tmp_path, dataclasses.replace(SHORT, max_steps=4)).fit()
    assert offsets[:4] == [0, 8, 16, 24]  # in batches of at most 8 windows
    assert len(set(offsets)) == len(offsets)


@pytest.mark.parametrize("recipe", [MtMConfig.modern, MtMConfig.small], ids=["embeddings", "factors"])
def test_batches_of_several_sessions_train_whole_and_in_parts_alike(
    sessions: Sessions, tmp_path: Path, recipe: Callable[..., MtMConfig]
) -> None:
    model = recipe(**TINY, dropout=0.0, input_dropout=0.0, output_dropout=0.0)
    config = dataclasses.replace(
        SHORT, max_padding=0.5, rate_power=0.5, reduction="mean", max_steps=4, validate_every=2
    )
    runs = []
    for name, micro in (("whole", None), ("parts", 3)):
        trainer = trainer_of(
            sessions, tmp_path / name, dataclasses.replace(config, micro_batch_size=micro), model
        )
        assert all(len(set(trainer.windows.batch(b).session)) == 2 for b in trainer.plan.batches(0))
        runs.append(trainer.fit()["validation_loss"].to_numpy())
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-4)
    assert runs[0][-1] != runs[0][0]


# ---- one seed, one result ----


def test_windows_with_schemes_of_their_own_train_alike_in_whole_batches_and_parts(
    sessions: Sessions, tmp_path: Path
) -> None:
    model = MtMConfig.modern(**TINY, dropout=0.0, input_dropout=0.0)
    masking = Masking(scheme_choice="window", region_choice="sample")
    config = dataclasses.replace(SHORT, masking=masking, reduction="mean", max_steps=4, validate_every=2)
    whole = trainer_of(sessions, tmp_path / "whole", config, model)
    in_parts = trainer_of(
        sessions, tmp_path / "parts", dataclasses.replace(config, micro_batch_size=3), model
    )
    losses = [trainer.fit()["validation_loss"].to_numpy() for trainer in (whole, in_parts)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    assert losses[0][-1] != losses[0][0]


def test_one_seed_gives_one_result_bit_for_bit_and_another_seed_another(
    sessions: Sessions, tmp_path: Path
) -> None:
    runs = []
    for number, seed in enumerate((1, 1, 2)):
        torch.rand(number)  # what was drawn before does not matter
        trainer = trainer_of(sessions, tmp_path / str(number), dataclasses.replace(SHORT, seed=seed))
        runs.append((trainer.model, trainer.fit()))
    assert_same_run(runs[0], runs[1])
    with pytest.raises(AssertionError):
        assert_same_run(runs[0], runs[2])


def test_training_leaves_the_random_state_of_torch_alone(sessions: Sessions, tmp_path: Path) -> None:
    trainer = trainer_of(sessions, tmp_path, dataclasses.replace(SHORT, max_steps=2))
    before = torch.get_rng_state()
    trainer.fit()
    assert torch.equal(before, torch.get_rng_state())


def test_workers_do_not_change_the_result(sessions: Sessions, tmp_path: Path) -> None:
    runs = []
    for workers in (0, 2):
        config = dataclasses.replace(SHORT, n_workers=workers, max_steps=6)
        trainer = trainer_of(sessions, tmp_path / str(workers), config)
        runs.append((trainer.model, trainer.fit()))
    assert_same_run(*runs)


@pytest.mark.parametrize("recipe", [MtMConfig.paper(**TINY), MtMConfig.small(n_bins=N_BINS, stitch_size=4)])
def test_spikes_binned_on_the_way_train_as_counts_binned_before(tmp_path: Path, recipe: MtMConfig) -> None:
    rng = np.random.default_rng(5)
    recording = SpikeRecording.from_arrays(np.sort(rng.uniform(0, 20, 4000)), rng.integers(0, 9, 4000))
    lazy = WindowedRecording(recording, sliding_windows(recording, 0.32, 0.32), bin_size=0.02)
    config = dataclasses.replace(SHORT, max_steps=4, masking=Masking(schemes=("neuron", "causal")))
    runs = []
    for number, session in enumerate((lazy, lazy.bin())):
        trainer = trainer_of(([session], []), tmp_path / str(number), config, recipe)
        runs.append((trainer.model, trainer.fit()))
    assert_same_run(*runs)


def test_validation_uses_the_same_masks_every_time(sessions: Sessions, tmp_path: Path) -> None:
    trainer = trainer_of(sessions, tmp_path)
    first, again = (trainer.validation.run(trainer.model, torch.device("cpu")) for _ in range(2))
    assert first == again
    assert trainer.model.training


# ---- kill and resume ----


class Killed(BaseException):
    """Stands for a kill: nothing in the trainer catches it."""


def killed_after(trainer: Trainer, n_steps: int) -> None:
    """Run until the process "dies" in the step after ``n_steps``."""
    step = trainer._step

    def dying(*arguments: object) -> bool:
        if trainer.progress.step == n_steps:
            raise Killed
        return step(*arguments)

    trainer._step = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        trainer.fit(resume=True)


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.9}, {"max_padding": 1.0}], ids=str)
def test_a_killed_and_resumed_run_equals_one_that_was_not(
    sessions: Sessions, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(SHORT, **changes)
    whole = trainer_of(sessions, tmp_path / "whole", config)
    uninterrupted = whole.model, whole.fit()
    assert whole.sampler.batches_per_epoch in (10, 12)  # so that the kills are in the first epoch and later
    for n_steps in (3, 9, 13):  # before the first checkpoint, between two, after a validation
        killed_after(trainer_of(sessions, tmp_path / "killed", config), n_steps)
    resumed = trainer_of(sessions, tmp_path / "killed", config)
    again = resumed.model, resumed.fit(resume=True)
    assert_same_run(uninterrupted, again)
    last = [load_model(tmp_path / name / "last").state_dict() for name in ("whole", "killed")]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])


def test_resuming_a_finished_run_gives_its_result_without_training(
    sessions: Sessions, tmp_path: Path
) -> None:
    first = trainer_of(sessions, tmp_path)
    history = first.fit()
    again = trainer_of(sessions, tmp_path)
    again._step = None  # type: ignore[assignment,method-assign]
    assert_same_run((first.model, history), (again.model, again.fit(resume=True)), but=())


def test_a_run_is_never_overwritten_by_accident(sessions: Sessions, tmp_path: Path) -> None:
    trainer_of(sessions, tmp_path).fit()
    with pytest.raises(ValueError, match="already holds a run; continue it with resume=True"):
        trainer_of(sessions, tmp_path).fit()


def test_a_run_with_other_settings_or_data_is_not_continued(sessions: Sessions, tmp_path: Path) -> None:
    trainer_of(sessions, tmp_path).fit()
    other = trainer_of(sessions, tmp_path, dataclasses.replace(SHORT, learning_rate=0.5))
    with pytest.raises(ValueError, match=r"learning_rate: 0\.001 then, 0\.5 now"):
        other.fit(resume=True)
    fewer = ([s.select(slice(0, 40)) for s in sessions[0]], sessions[1])
    with pytest.raises(ValueError, match="belongs to another run"):
        trainer_of(fewer, tmp_path).fit(resume=True)
    trainer_of(sessions, tmp_path, dataclasses.replace(SHORT, checkpoint_every=1)).fit(resume=True)


@pytest.mark.parametrize("name", ["trainer.safetensors", "trainer.json", "model.safetensors"])
def test_a_damaged_training_state_is_an_error_that_names_the_file(
    sessions: Sessions, tmp_path: Path, name: str
) -> None:
    trainer_of(sessions, tmp_path).fit()
    file = tmp_path / "last" / name
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f"{name} is cut short"):
        trainer_of(sessions, tmp_path).fit(resume=True)


@pytest.mark.parametrize("name", ["trainer.safetensors", "model.safetensors"])
def test_a_training_state_that_was_changed_is_refused(sessions: Sessions, tmp_path: Path, name: str) -> None:
    trainer_of(sessions, tmp_path).fit()
    tensors = load_file(tmp_path / "last" / name)
    next(iter(tensors.values())).add_(1.0)
    save_file(tensors, tmp_path / "last" / name)
    with pytest.raises(ValueError, match=rf"{name} is not the file .*another SHA-256"):
        trainer_of(sessions, tmp_path).fit(resume=True)


def test_a_checkpoint_holds_no_pickle(sessions: Sessions, tmp_path: Path) -> None:
    trainer_of(sessions, tmp_path).fit()
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds == {".safetensors", ".json", ".csv"}
    json.loads((tmp_path / "last" / "trainer.json").read_text())


# ---- stopping ----


def test_patience_stops_after_so_many_validations_without_a_better_one(
    sessions: Sessions, tmp_path: Path
) -> None:
    config = dataclasses.replace(SHORT, patience=2, max_steps=100, validate_every=1)
    trainer = trainer_of(sessions, tmp_path, config)
    losses = iter([4.0, 3.0, 2.0, 2.5, 2.0])
    trainer.validation.run = lambda *_: {"loss": next(losses)}  # type: ignore[method-assign]
    history = trainer.fit()
    assert history["step"].tolist() == [0, 1, 2, 3, 4]
    assert trainer.progress.best_step == 2


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_the_step_and_saves_the_state(
    sessions: Sessions, tmp_path: Path, broken: float
) -> None:
    trainer = trainer_of(sessions, tmp_path)
    step = trainer._step
    before: dict[str, torch.Tensor] = {}

    def breaking(*arguments: object) -> bool:
        if trainer.progress.step == 3:
            trainer.model.positions.data[0, 0] = broken
            before.update(weights_of(trainer.model))
        return step(*arguments)

    trainer._step = breaking  # type: ignore[method-assign]
    with pytest.raises(
        NonFiniteLossError, match=r"is (nan|inf) in step 3; the state before that step is in .*failed"
    ):
        trainer.fit()
    saved = load_file(tmp_path / "failed" / "model.safetensors")
    assert all(torch.equal(before[name], saved[name]) or name == "positions" for name in before)
    with pytest.raises(ValueError, match=r"1 of 512 numbers of positions in .* are NaN or infinite"):
        load_model(tmp_path / "failed")
    assert not (tmp_path / "last").exists()
    assert load_model(tmp_path / "best").sessions == trainer.model.sessions


# ---- options ----


def test_paper_optimizer_is_adamw_with_one_cycle_from_a_tenth_of_the_rate(
    sessions: Sessions, tmp_path: Path
) -> None:
    config = TrainingConfig.paper(max_epochs=10, progress=False)
    assert (config.batch_size, config.seed, config.reduction, config.gradient_clip) == (16, 42, "sum", None)
    trainer = trainer_of(sessions, tmp_path, config)
    assert trainer.total_steps == 60
    (group,) = trainer.state.optimizer.param_groups
    assert (group["weight_decay"], group["eps"]) == (0.01, 1e-8)
    rates = []
    for _ in range(60):
        rates.append(group["lr"])
        trainer.state.optimizer.step()
        trainer.state.scheduler.step()
    assert rates[0] == pytest.approx(1e-5)
    assert max(rates) == pytest.approx(1e-4, rel=1e-3)
    assert int(np.argmax(rates)) == 8  # 15 % of 60 steps, counted from 0
    assert rates[-1] == pytest.approx(1e-9, rel=1e-3)


def test_groups_of_parameters_follow_rate_and_decay() -> None:
    model = MtM(MtMConfig.paper(**TINY))
    model.add_session("one", 4)
    config = TrainingConfig.paper(decay="matrices", session_learning_rate=0.5, session_weight_decay=0.25)
    groups = {(g["lr"], g["weight_decay"]): g["params"] for g in parameter_groups(model, config)}
    parts = model.session_parts("one")
    assert {id(p) for p in groups[0.5, 0.25]} == {id(parts.stitch_in.weight), id(parts.stitch_out.weight)}
    assert {id(p) for p in groups[0.5, 0.0]} == {id(parts.stitch_in.bias), id(parts.stitch_out.bias)}
    plain = {id(p) for p in groups[1e-4, 0.0]}
    assert {id(model.positions), id(model.prompts), id(model.norm.weight), id(parts.token)} <= plain
    assert sum(len(g) for g in groups.values()) == len(list(model.parameters()))
    assert len(parameter_groups(model, TrainingConfig.paper())) == 1
    trained = parameter_groups(model, TrainingConfig.paper(session_learning_rate=0.0))
    assert id(parts.stitch_in.weight) not in {id(p) for group in trained for p in group["params"]}


def test_parameters_of_rate_zero_keep_their_values_and_cost_no_gradient(
    sessions: Sessions, tmp_path: Path
) -> None:
    config = dataclasses.replace(SHORT, session_learning_rate=0.0, weight_decay=0.5)
    trainer = trainer_of(sessions, tmp_path, config)
    parts = trainer.model.session_parts("mouse.1")
    before = {name: p.clone() for name, p in parts.named_parameters()}
    trainer.fit()
    last = load_model(tmp_path / "last").session_parts("mouse.1")
    changed = [name for name, p in last.named_parameters() if not torch.equal(p, before[name])]
    assert changed == ["token"]
    assert parts.stitch_in.weight.grad is None
    assert all(p.requires_grad for p in trainer.model.parameters())


def test_weight_average_is_the_mean_of_the_weights_with_fading_memory() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = WeightAverage(model, decay=0.5)
    model.weight.data.fill_(3.0)
    average.update(1000)
    assert average.values["weight"].item() == 2.0
    with average.in_use():
        assert model.weight.item() == 2.0
    assert model.weight.item() == 3.0
    average.update(0)  # early: the decay is 1 / 10
    assert average.values["weight"].item() == pytest.approx(0.1 * 2 + 0.9 * 3)


@pytest.mark.parametrize("recipe", [MtMConfig.paper(**TINY), MtMConfig.small(n_bins=N_BINS, stitch_size=4)])
def test_bfloat16_trains_to_nearly_the_same_loss(
    sessions: Sessions, tmp_path: Path, recipe: MtMConfig
) -> None:
    losses = []
    for bf16 in (False, True):
        config = dataclasses.replace(SHORT, bf16=bf16)
        trainer = trainer_of(sessions, tmp_path / str(bf16), config, recipe)
        losses.append(trainer.fit()["validation_loss"].iloc[-1])
        assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert losses[1] == pytest.approx(losses[0], rel=0.05)  # bfloat16 keeps 8 bits


def test_without_validation_the_last_weights_are_kept(sessions: Sessions, tmp_path: Path) -> None:
    trainer = trainer_of((sessions[0], []), tmp_path)
    history = trainer.fit()
    assert "validation_loss" not in history.columns
    best, last = (load_model(tmp_path / name).state_dict() for name in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in best)


def test_every_window_is_trained_on_once_an_epoch_across_a_resume(sessions: Sessions) -> None:
    from neurokern.training.batches import Plan

    windows = SpikeWindows(sessions[0])
    sampler = SessionBatchSampler(windows, 8, seed=3)
    plan = Plan(sampler)
    whole = list(plan.items(0, 30))
    assert len(whole) == 30
    assert sorted(item for batch in whole[:12] for item in batch) == list(range(len(windows)))
    assert list(plan.items(17, 30)) == whole[17:]


# ---- bad input ----


def test_settings_that_do_not_fit_are_named(sessions: Sessions, tmp_path: Path) -> None:
    temporal = dataclasses.replace(SHORT, masking=Masking(schemes=("temporal",)))
    with pytest.raises(ValueError, match=r"no prompt for \['temporal'\]"):
        trainer_of(sessions, tmp_path, temporal)
    with pytest.raises(ValueError, match="windows have 16 bins, the model takes up to 10"):
        trainer_of(sessions, tmp_path, model=MtMConfig.paper(**{**TINY, "n_bins": 10}))
    with pytest.raises(ValueError, match=r"'mouse\.3' is not among those to train on"):
        trainer_of((sessions[0], [latent_session("mouse.3", 4)]), tmp_path)
    unknown = [dataclasses.replace(s, regions=np.full(s.n_units, "")) for s in sessions[0]]
    with pytest.raises(ValueError, match=r"no unit of session 'mouse\.1' has a region"):
        trainer_of((unknown, []), tmp_path)
    model = MtM(MtMConfig.paper(**TINY))
    model.add_session("mouse.1", 5)
    with pytest.raises(ValueError, match="has 18 units, the model knows it with 5"):
        Trainer(model, *sessions, SHORT, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a finite number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"max_steps": 0}, "max_steps must be"),
        ({"warmup": 2}, r"warmup must lie in \[0, 1\]"),
        ({"reduction": "average"}, "reduction must be one of"),
        ({"decay": "none"}, "decay must be one of"),
    ],
)
def test_wrong_settings_name_the_field(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**wrong)


@pytest.mark.parametrize("config", [TrainingConfig.paper(), TrainingConfig.small(patience=3)])
def test_settings_survive_json(config: TrainingConfig) -> None:
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_settings_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"unknown settings \['lr'\]"):
        TrainingConfig.from_dict({"lr": 1})
    with pytest.raises(ValueError, match=r"unknown settings \['ratios'\]"):
        TrainingConfig.from_dict({"masking": {"ratios": 1}})


def test_a_damaged_table_of_metrics_is_an_error_that_names_it(sessions: Sessions, tmp_path: Path) -> None:
    trainer_of(sessions, tmp_path).fit()
    for damaged in ("", "nothing"):
        (tmp_path / "metrics.csv").write_text(damaged)
        with pytest.raises(ValueError, match=r"metrics\.csv is damaged"):
            trainer_of(sessions, tmp_path).fit(resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "seed must lie in"),
        ({"seed": 2**63}, "seed must lie in"),
        ({"n_workers": -1}, "n_workers must be at least 0"),
        ({"device": "abacus"}, "device must be 'auto', 'cpu' or 'cuda'"),
        ({"device": "meta"}, "device must hold data"),
    ],
)
def test_settings_that_cannot_be_run_are_refused_before_the_run(
    sessions: Sessions, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_of(sessions, tmp_path / "run", dataclasses.replace(SHORT, **changes))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
