"""Accumulation, half precision, compiled and recomputed layers: the same training, with less of something."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from training_sessions import TINY, Sessions, largest_difference, trainer_of, two_sessions, weights_of

from neurokern.models import Masking, MtMConfig
from neurokern.training import NonFiniteLossError, Trainer, TrainingConfig
from neurokern.training.part import MaskedPart, mask_part

STILL = MtMConfig.paper(**TINY, input_dropout=0.0, dropout=0.0)
SHORT = TrainingConfig.paper(
    batch_size=9, max_steps=5, learning_rate=1e-3, validate_every=5, reduction="mean", progress=False
)


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return two_sessions()


def loaded_passes(trainer: Trainer) -> list[list[MaskedPart]]:
    """Return the passes of the first step."""
    windows, config = trainer.windows, trainer.config
    return [
        [mask_part(part, windows.batch(part.items), windows, config) for part in parts]
        for parts in trainer.plan.passes(0)
    ]


def gradients(
    sessions: Sessions, folder: Path, config: TrainingConfig, scheme: str = "neuron"
) -> dict[str, torch.Tensor]:
    """Return the gradients of the first step."""
    config = dataclasses.replace(config, masking=Masking(schemes=(scheme,), ratio=0.5))
    trainer = trainer_of(sessions, folder, config, STILL)
    trainer.stepper._backward_all(loaded_passes(trainer))
    return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("scheme", ["neuron", "causal", "inter-region", "intra-region"])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(
    sessions: Sessions, tmp_path: Path, scheme: str, reduction: str
) -> None:
    config = dataclasses.replace(SHORT, reduction=reduction)
    whole = gradients(sessions, tmp_path, config, scheme)
    parts = gradients(sessions, tmp_path, dataclasses.replace(config, micro_batch_size=2), scheme)
    size = max(float(g.abs().max()) for g in whole.values())
    assert size > 1e-3
    assert largest_difference(whole, parts) < 2e-6 * size


def test_the_gradient_of_several_batches_is_the_mean_over_them(sessions: Sessions, tmp_path: Path) -> None:
    one = dataclasses.replace(SHORT, masking=Masking(schemes=("neuron",)))
    several = trainer_of(sessions, tmp_path, dataclasses.replace(one, batches_per_step=2), STILL)
    passes = loaded_passes(several)
    several.stepper._backward_all(passes)
    together = {name: p.grad.clone() for name, p in several.model.named_parameters() if p.grad is not None}
    alone: dict[str, torch.Tensor] = {name: torch.zeros_like(g) for name, g in together.items()}
    single = trainer_of(sessions, tmp_path, one, STILL)
    for (masked,) in passes:
        first = dataclasses.replace(masked, part=dataclasses.replace(masked.part, place=0))
        single.stepper._backward_all([[first]])
        for name, p in single.model.named_parameters():
            if p.grad is not None:
                alone[name] += p.grad / 2
    assert largest_difference(together, alone) < 1e-6


@pytest.mark.parametrize(
    "recipe",
    [MtMConfig.paper, MtMConfig.modern, MtMConfig.small, functools.partial(MtMConfig.ndt2, patch_size=20)],
    ids=["linear", "embeddings", "factors", "patches"],
)
def test_batches_that_share_a_pass_train_as_one_after_the_other(
    sessions: Sessions, tmp_path: Path, recipe: Callable[..., MtMConfig]
) -> None:
    model = recipe(**TINY, input_dropout=0.0, dropout=0.0, output_dropout=0.0)
    apart = dataclasses.replace(SHORT, batches_per_step=3, micro_batch_size=9)
    together = dataclasses.replace(apart, micro_batch_size=27)
    runs = []
    for number, config in enumerate((apart, together)):
        trainer = trainer_of(sessions, tmp_path / str(number), config, model)
        assert len(trainer.plan.passes(0)) == (3, 1)[number]
        assert {len({one.number for one in parts}) for parts in trainer.plan.passes(0)} == {(1, 3)[number]}
        runs.append(trainer.fit())
    for column in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(runs[1][column], runs[0][column], rtol=2e-5)
    assert runs[0]["validation_loss"].iloc[-1] != runs[0]["validation_loss"].iloc[0]


def test_small_parts_train_to_the_losses_of_the_whole_batch(sessions: Sessions, tmp_path: Path) -> None:
    histories = []
    for micro in (None, 4):
        config = dataclasses.replace(SHORT, micro_batch_size=micro, batches_per_step=2)
        histories.append(trainer_of(sessions, tmp_path / str(micro), config, STILL).fit())
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=2e-6)


def test_recomputed_layers_give_the_same_weights_bit_for_bit(sessions: Sessions, tmp_path: Path) -> None:
    weights = []
    for recompute in (False, True):
        config = dataclasses.replace(SHORT, recompute=recompute)
        trainer = trainer_of(sessions, tmp_path / str(recompute), config)  # with dropout
        trainer.fit()
        weights.append(weights_of(trainer.model))
        assert all("forward" not in vars(layer) for layer in trainer.model.layers)
    assert largest_difference(*weights) == 0.0


def test_compiled_layers_train_to_the_same_losses(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trainer_of(sessions, tmp_path / "plain", SHORT, STILL).fit()
    # Traced as for the real compiler, which takes a test too long.
    compile_layer = functools.partialmethod(nn.Module.compile, backend="eager")
    monkeypatch.setattr(nn.Module, "compile", compile_layer)
    trainer = trainer_of(sessions, tmp_path / "compiled", dataclasses.replace(SHORT, compile=True), STILL)
    np.testing.assert_allclose(trainer.fit()["train_loss"], plain["train_loss"], rtol=1e-5)
    assert all(layer._compiled_call_impl is None for layer in trainer.model.layers)


def test_a_compiler_that_fails_is_told_and_done_without(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise torch._dynamo.exc.Unsupported("no C++ compiler found")

    monkeypatch.setattr(
        nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend=lambda *_: broken())
    )
    plain = trainer_of(sessions, tmp_path / "plain", SHORT, STILL).fit()
    trainer = trainer_of(sessions, tmp_path / "compiled", dataclasses.replace(SHORT, compile=True), STILL)
    with caplog.at_level(logging.WARNING):
        history = trainer.fit()
    assert history["train_loss"].tolist()[1:] == plain["train_loss"].tolist()[1:]
    assert "torch.compile failed, training goes on without it" in caplog.text
    assert caplog.text.count("no C++ compiler found") == 1


def test_float16_trains_to_nearly_the_same_loss_and_resumes_with_its_loss_scale(
    sessions: Sessions, tmp_path: Path
) -> None:
    config = dataclasses.replace(SHORT, fp16=True, checkpoint_every=3)
    trainer = trainer_of(sessions, tmp_path / "half", config)
    trainer.state.scaler.load_state_dict({**trainer.state.scaler.state_dict(), "scale": 1024.0})
    half = trainer.fit()
    full = trainer_of(sessions, tmp_path / "full", SHORT).fit()
    assert half["validation_loss"].iloc[-1] == pytest.approx(full["validation_loss"].iloc[-1], rel=0.01)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    again = trainer_of(sessions, tmp_path / "half", config)
    again.fit(resume=True)
    assert again.state.scaler.state_dict() == trainer.state.scaler.state_dict()
    assert again.state.scaler.get_scale() == 1024.0


def test_an_overflow_in_float16_skips_the_step_and_lowers_the_loss_scale(
    sessions: Sessions, tmp_path: Path
) -> None:
    trainer = trainer_of(sessions, tmp_path, dataclasses.replace(SHORT, fp16=True, max_steps=1), STILL)
    before = weights_of(trainer.model)
    trainer.state.scaler.load_state_dict({**trainer.state.scaler.state_dict(), "scale": 2.0**60})
    trainer.fit()
    assert largest_difference(before, weights_of(trainer.model)) == 0.0
    assert trainer.state.scaler.get_scale() == 2.0**59


def test_a_gradient_that_overflows_at_any_loss_scale_ends_the_run(sessions: Sessions, tmp_path: Path) -> None:
    trainer = trainer_of(sessions, tmp_path, dataclasses.replace(SHORT, fp16=True, max_steps=40), STILL)
    trainer.model.prompts.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteLossError, match="gradient in float16, at any loss scale"):
        trainer.fit()


def test_modern_recipe_spares_all_but_the_matrices_of_the_trunk_and_scales_the_rate(
    sessions: Sessions, tmp_path: Path
) -> None:
    config = TrainingConfig.modern(batch_size=8, batches_per_step=2, max_steps=2, progress=False)
    assert (config.reduction, config.gradient_clip, config.bf16) == ("mean", 1.0, True)
    sizes = {"n_bins": 16, "hidden_size": 16, "n_layers": 1, "n_heads": 2, "mlp_size": 16, "stitch_size": 8}
    for number, recipe in enumerate((MtMConfig.paper, MtMConfig.modern)):
        trainer = trainer_of(sessions, tmp_path / str(number), config, recipe(**sizes, embed_size=None))
        groups = trainer.state.optimizer.param_groups
        names = trainer.state.names
        decaying = {names[p] for group in groups if group["weight_decay"] > 0 for p in group["params"]}
        assert decaying
        trunk = ("layers.", "token_network.", "output_network.")
        assert all(name.endswith("weight") and name.startswith(trunk) for name in decaying)
        assert not any("norm" in name for name in decaying)
        assert {group["max_lr"] for group in groups} == {1e-4 * 16**0.5}
        assert np.isfinite(trainer.fit()["train_loss"].iloc[-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bf16": True, "fp16": True}, "bf16 and fp16 exclude each other"),
        ({"fp16": True, "strategy": "shard"}, "'shard' takes bf16 or float32"),
        ({"strategy": "pipeline"}, "strategy must be one of"),
        ({"micro_batch_size": 0}, "micro_batch_size must be"),
        ({"batches_per_step": 1.5}, "batches_per_step must be an integer"),
        ({"timeout": 0}, "timeout must be"),
    ],
)
def test_settings_that_exclude_each_other_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        TrainingConfig(**changes)  # type: ignore[arg-type]
