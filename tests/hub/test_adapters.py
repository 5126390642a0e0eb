"""Adapters are shared alone, with a card of what they learned from, and find their session without a name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from neurokern.adapters import AdaptedModel, FineTuneOptions, FrozenReadout, HeadProbe, LoRA, Support
from neurokern.hub import ModelCard, from_pretrained, push_to_hub, read_folder, save_pretrained
from neurokern.models import MtM

SESSIONS = ("Cori_2016-12-14", "sub-01/ses 2")
COUNTS = torch.from_numpy(np.random.default_rng(0).poisson(1.0, (20, 8, 3))).float()
LABELS = np.array(["left", "right"] * 10)
ALIGNMENT = pd.DataFrame({"layer": ["layers.0"], "region": ["VISp"], "score": [0.5], "ceiling": [0.8]})


@pytest.fixture
def adapted(model: MtM) -> AdaptedModel:
    """An adapter of the second session, so that its place among the sessions matters."""
    lora = LoRA(targets=("*layers.*",), rank=2, options=FineTuneOptions(max_epochs=2))
    return lora.fit(model, Support.of(COUNTS, LABELS, session=SESSIONS[1], groups=np.arange(20) // 2))


def test_models_and_adapters_are_saved_and_read_by_their_methods(
    model: MtM, adapted: AdaptedModel, tmp_path: Path
) -> None:
    base = model.save_pretrained(tmp_path / "base")
    folder = adapted.save_pretrained(tmp_path / "adapter", base=str(base))
    assert MtM.from_pretrained(base).sessions == SESSIONS
    assert torch.equal(AdaptedModel.from_pretrained(folder).outputs(COUNTS), adapted.outputs(COUNTS))
    with pytest.raises(TypeError, match=r"another kind of model; use AdaptedModel\.from_pretrained"):
        MtM.from_pretrained(folder)
    with pytest.raises(TypeError, match=r"use MtM\.from_pretrained"):
        AdaptedModel.from_pretrained(base)


@pytest.mark.parametrize("of_base", ["keep", "pseudonyms"])
@pytest.mark.parametrize("of_adapter", ["keep", "pseudonyms", "drop"])
def test_an_adapter_finds_its_session_under_any_name(
    model: MtM, adapted: AdaptedModel, tmp_path: Path, of_base: str, of_adapter: str
) -> None:
    base = model.save_pretrained(tmp_path / "base", sessions=of_base)
    folder = adapted.save_pretrained(tmp_path / "adapter", base=str(base), sessions=of_adapter)
    found = from_pretrained(folder)
    assert torch.equal(found.outputs(COUNTS), adapted.outputs(COUNTS))
    if of_adapter != "keep":
        assert not any(b"sub-01" in file.read_bytes() for file in folder.iterdir())


def test_a_base_without_the_session_is_refused(model: MtM, adapted: AdaptedModel, tmp_path: Path) -> None:
    trunk = model.save_pretrained(tmp_path / "trunk", sessions="drop")
    folder = adapted.save_pretrained(tmp_path / "adapter", base=str(trunk), sessions="drop")
    with pytest.raises(ValueError, match="none of its 0 sessions has the weights"):
        from_pretrained(folder)
    with pytest.raises(ValueError, match="pass base="):
        from_pretrained(adapted.save_pretrained(tmp_path / "alone"))
    saved = [adapted.save_pretrained(tmp_path / how, sessions=how) for how in ("keep", "drop")]
    model.positions.data.add_(1.0)
    for other in saved:
        with pytest.raises(ValueError, match=r"other weights|none of its 2 sessions"):
            from_pretrained(other, base=model)


def test_the_card_of_an_adapter_tells_what_was_adapted_on_what_and_how_well(
    model: MtM, adapted: AdaptedModel, card: ModelCard, tmp_path: Path
) -> None:
    scores = adapted.score(COUNTS, LABELS, groups=np.arange(20) // 2)
    options = {"card": replace(card, title="left or right"), "metrics": {"held-out trials": scores}}
    folder = adapted.save_pretrained(
        tmp_path / "adapter", base="lab/mtm", sessions="pseudonyms", alignment={"RSA": ALIGNMENT}, **options
    )
    text = (folder / "README.md").read_text()
    row = scores.iloc[0]
    expected = f"""
        license: mit
        # left or right
        | adapter | LoRA |
        | predicts | 2 classes |
        | learned from | 20 labeled samples, 10 of each class, in 10 trials or blocks |
        epochs {adapted.chosen["epochs"]}, learning rate 0.001, held out loss
        | numbers that were fitted | {adapted.n_trainable:,} |
        | base model | lab/mtm |
        | SHA-256 of the base's weights | {adapted.base} |
        one session (name withheld here), its factors, under the scheme 'neuron'
        | LoRA | balanced_accuracy | {row["mean"]:.3g} [{row["low"]:.3g}, {row["high"]:.3g}] | 0.5 | 20 |
        | layers.0 | VISp | 0.5 | 0.8 |
        adapted = AdaptedModel.from_pretrained("OWNER/NAME")
        - It fits the base model with these weights and no other"""
    for line in expected.strip().splitlines():
        assert line.strip() in text, line
    assert not any(name in text for name in ("sub-01", "Cori", "left,", "- left"))
    found = read_folder(folder)
    assert (found.kind, found.base["weights_sha256"]) == ("adapter", adapted.base)
    assert found.alignment["RSA"]["ceiling"].tolist() == [0.8]
    assert found.metrics["held-out trials"]["n_samples"].tolist() == [20]


def test_an_adapter_goes_to_the_hub_and_brings_its_base(hub, model: MtM, adapted, card: ModelCard) -> None:
    model.push_to_hub("lab/mtm", card=card)
    said = adapted.push_to_hub("lab/side", card=card, base="lab/mtm", commit_message="Side", token="secret")
    assert said == "https://hub.example/lab/side/commit/1"
    assert hub.calls[-1][1]["commit_message"] == "Side"
    found = AdaptedModel.from_pretrained("lab/side", local_files_only=True)
    assert torch.equal(found.outputs(COUNTS), adapted.outputs(COUNTS))
    assert found.support == adapted.support
    assert 'AdaptedModel.from_pretrained("lab/side")' in (hub.place / "lab/side/README.md").read_text()
    for file in (hub.place / "lab" / "side").iterdir():
        assert b"sub-01" not in file.read_bytes()
    with pytest.raises(ValueError, match="must state the license"):
        adapted.push_to_hub("lab/other")
    with pytest.raises(ValueError, match="repo_id must be 'owner/name'"):
        push_to_hub(adapted, "other", card=card)


def test_adapters_of_other_modules_are_shared_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 6))
    values = np.stack([np.arange(20.0) / 7, np.cos(np.arange(20))], 1)
    adapted = HeadProbe(options=FineTuneOptions(max_epochs=1)).fit(network, Support.of(COUNTS, values))
    folder = adapted.save_pretrained(tmp_path / "adapter", metrics={"s": adapted.score(COUNTS, values)})
    found = AdaptedModel.from_pretrained(folder, base=network)
    assert torch.equal(found.outputs(COUNTS), adapted.outputs(COUNTS))
    text = (folder / "README.md").read_text()
    assert "| predicts | 2 values |" in text
    assert "| learned from | 20 labeled samples |" in text
    assert "part of the base" not in text


def test_an_adapter_that_does_not_say_what_it_learned_from_is_read(model: MtM, tmp_path: Path) -> None:
    adapted = FrozenReadout().fit(model, Support.of(COUNTS, LABELS, session=SESSIONS[1]))
    folder = adapted.save(tmp_path / "adapter")
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("support") == {"n_samples": 20, "n_groups": 20, "n_classes": 2, "shots": [10, 10]}
    (folder / "config.json").write_text(json.dumps(config))
    found = AdaptedModel.load(folder, model)
    assert found.support == {}
    for bad in ({"support": [3]}, {"support": "x"}, {"structure": {"session": "monday"}}):
        (folder / "config.json").write_text(json.dumps(config | bad))
        with pytest.raises(ValueError, match="does not fit the model"):
            AdaptedModel.load(folder, model)
    text = (save_pretrained(found, tmp_path / "shared") / "README.md").read_text()
    assert "| learned from | not stated |" in text


def test_scores_have_intervals_over_whole_groups(adapted: AdaptedModel) -> None:
    alone, grouped = (adapted.score(COUNTS, LABELS, groups=groups) for groups in (None, [0] * 10 + [1] * 10))
    assert alone["low"][0] <= alone["mean"][0] <= alone["high"][0]
    halves = [adapted.score(COUNTS[half], LABELS[half])["mean"][0] for half in (slice(10), slice(10, 20))]
    assert grouped["low"][0] == pytest.approx(min(halves))
    assert grouped["high"][0] == pytest.approx(max(halves))
    with pytest.raises(ValueError, match=r"targets must have shape \(20,\), got \(19,\)"):
        adapted.score(COUNTS, LABELS[:19])
    with pytest.raises(ValueError, match="groups must have one entry per sample"):
        adapted.score(COUNTS, LABELS, groups=np.arange(3))
