"""Bringing a model to a new session, and the features of a frozen model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from neurokern.adapters import HeadProbe, SessionStitch, StitchedModel, Support, adapt_session, model_features
from neurokern.datasets import BinnedSession
from neurokern.models import MtM, MtMConfig
from neurokern.training import TrainingConfig


def session_of(n_units: int, name: str, n_windows: int = 24, seed: int = 0) -> BinnedSession:
    generator = np.random.default_rng(seed)
    drive = 0.3 + generator.gamma(1.0, 1.0, (n_windows, 10, 1))
    return BinnedSession(
        counts=generator.poisson(drive * np.full(n_units, 0.5)).astype(np.uint8),
        bin_size=0.02,
        regions=np.array(["CA1", "LP"] * n_units)[:n_units],
        unit_ids=np.arange(n_units),
        session=name,
    )


def tiny_model(*sessions: BinnedSession, recipe=MtMConfig.paper) -> MtM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "n_layers": 1, "n_heads": 2, "mlp_size": 16, "stitch_size": 4}
    model = MtM(recipe(n_bins=10, embed_size=None, **sizes))
    for session in sessions:
        model.add_session(session.session, session.n_units, session.regions.tolist(), session.counts)
    return model


def quick(steps: int = 12) -> TrainingConfig:
    return TrainingConfig.small(
        max_steps=steps,
        batch_size=8,
        validate_every=4,
        session_learning_rate=1e-2,
        progress=False,
        device="cpu",
    )


def weights_of(model: MtM) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_stitching_learns_the_new_session_and_freezes_all_else(tmp_path):
    known, new = session_of(5, "known"), session_of(7, "new", seed=1)
    train, validation = new.select(slice(0, 16)), new.select(slice(16, None))
    model = tiny_model(known)
    before = weights_of(model)
    adapted = adapt_session(model, train, validation, config=quick(), folder=tmp_path)
    assert adapted.sessions == ("known", "new")
    assert model.sessions == ("known",)
    after = weights_of(adapted)
    for name, value in before.items():
        assert torch.equal(weights_of(model)[name], value), name
        assert torch.equal(after[name], value), name
    barely = weights_of(adapt_session(model, train, validation, config=quick(1)))
    moved = [name for name in after if name not in before and not torch.equal(after[name], barely[name])]
    assert any("stitch_out" in name for name in moved)
    assert (tmp_path / "metrics.csv").is_file()
    assert all(parameter.requires_grad for parameter in adapted.parameters())
    assert not adapted.training


def test_adapting_repeats_for_a_seed():
    known, new = session_of(5, "known"), session_of(7, "new", seed=1)
    model = tiny_model(known)
    first, second = (weights_of(adapt_session(model, new, config=quick(3))) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_parts_in_closed_form_need_no_training():
    known, new = session_of(5, "known"), session_of(7, "new", seed=1)
    train, validation = new.select(slice(0, 16)), new.select(slice(16, None))
    model = tiny_model(known, recipe=MtMConfig.small)
    before = weights_of(model)
    adapted = adapt_session(model, train, validation)
    assert adapted.sessions == ("known", "new")
    after = weights_of(adapted)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    all_windows = weights_of(adapt_session(model, new))
    assert all(torch.equal(all_windows[name], value) for name, value in after.items())
    assert weights_of(adapt_session(adapted, new)).keys() == after.keys()


def test_full_mode_moves_the_trunk():
    known, new = session_of(5, "known"), session_of(7, "new", seed=1)
    model = tiny_model(known)
    before = weights_of(model)
    adapted = adapt_session(model, new, mode="full", config=quick())
    after = weights_of(adapted)
    assert not torch.equal(after["positions"], before["positions"])
    own = [name for name in before if name.startswith("parts.0.")]
    assert own
    assert all(torch.equal(after[name], before[name]) for name in own)


def test_a_known_session_goes_on_from_its_present_parts():
    known = session_of(5, "known")
    adapted = adapt_session(tiny_model(known), known, config=quick(1))
    assert adapted.sessions == ("known",)


@pytest.mark.parametrize("recipe", [MtMConfig.paper, MtMConfig.small, MtMConfig.modern])
def test_a_stitched_session_comes_back_from_the_file_of_its_parts(recipe, tmp_path):
    known, new = session_of(5, "known"), session_of(7, "new", seed=1)
    new = replace(new, regions=np.array(["LP", "VISp"] * 7)[:7])  # one region is new
    model = tiny_model(known, recipe=recipe)
    config = None if recipe == MtMConfig.small else quick(3)
    stitched = SessionStitch(config=config).fit(model, new)
    own = stitched.state_dict()
    assert all(name.startswith("session.") or name == "region_table.weight" for name in own)
    assert stitched.predict(new).shape == (24, 10, 7)
    assert stitched.n_trainable > 0
    stitched.save(tmp_path / "a")
    base = tiny_model(known, recipe=recipe)
    again = StitchedModel.load(tmp_path / "a", base)
    assert torch.equal(again.predict(new), stitched.predict(new))
    assert again.model.session_parts("new").regions == stitched.model.session_parts("new").regions
    assert base.sessions == ("known",)
    probe = HeadProbe().fit(again.model, Support.of(new, np.arange(24) % 2))
    assert probe.predict(new).shape == (24,)
    with pytest.raises(ValueError, match="knows 'new' already"):
        SessionStitch().fit(again.model, new)
    with pytest.raises(ValueError, match="does not fit the model"):
        StitchedModel.load(tmp_path / "a", again.model)
    with torch.no_grad():
        base.norm.weight += 1
    with pytest.raises(ValueError, match="other weights"):
        StitchedModel.load(tmp_path / "a", base)


def test_full_stitching_saves_the_trunk_as_well(tmp_path):
    known, new = session_of(5, "known"), session_of(7, "new", seed=1)
    stitched = SessionStitch(mode="full", config=quick(3)).fit(tiny_model(known), new)
    assert "positions" in stitched.state_dict()
    again = StitchedModel.load(stitched.save(tmp_path / "a"), tiny_model(known))
    assert torch.equal(again.predict(new), stitched.predict(new))
    with pytest.raises(ValueError, match="'stitch', 'full', got 'lora'"):
        SessionStitch(mode="lora")


def test_unknown_modes_are_refused():
    known = session_of(5, "known")
    with pytest.raises(ValueError, match="'stitch', 'full', got 'lora'"):
        adapt_session(tiny_model(known), known, mode="lora")


def test_model_features_are_those_of_the_frozen_model_in_evaluation_mode(monkeypatch):
    known = session_of(5, "known")
    model = tiny_model(known).train()
    features = model_features(model, known)
    assert model.training
    assert {name: tuple(value.shape) for name, value in features.items()} == {
        "MtM states": (24, 16),
        "MtM binned states": (24, 160),
        "MtM rates": (24, 5),
    }
    model.eval()
    counts = torch.from_numpy(known.read(range(24)))
    with torch.no_grad():
        states = model.embed(counts, "known", "neuron")
    torch.testing.assert_close(features["MtM binned states"].view(24, 10, 16), states)
    torch.testing.assert_close(features["MtM states"], states.mean(1))
    monkeypatch.setattr("neurokern.adapters.features._CHUNK_ELEMENTS", 100)
    for name, value in model_features(model, known).items():
        torch.testing.assert_close(value, features[name])
        assert not value.requires_grad


def test_a_model_with_factors_gives_them_as_features():
    session = session_of(5, "known")
    model = MtM(MtMConfig.small(n_bins=10, hidden_size=16, n_heads=2, stitch_size=3))
    model.add_session("known", 5, counts=session.counts)
    features = model_features(model, session)["MtM factors"]
    counts = torch.from_numpy(session.read(range(24)))
    with torch.no_grad():
        factors = model.eval().expected_factors(counts, "known", "neuron")
    assert features.shape == (24, 3)
    torch.testing.assert_close(features, factors.mean(1))


@pytest.mark.parametrize("rate", [0.0, 1e-2])
def test_unit_vectors_of_a_new_session_start_as_those_of_known_units(rate: float) -> None:
    known, new = session_of(5, "known"), session_of(7, "new", seed=1)
    model = tiny_model(known, recipe=MtMConfig.modern)
    before = weights_of(model)
    adapted = adapt_session(model, new, config=replace(quick(1), session_learning_rate=rate, warmup=1.0))
    assert adapted.sessions == ("known", "new")
    after = weights_of(adapted)
    assert all(torch.equal(after[name], before[name]) for name in before)  # the trunk and the known session
    vectors, known_vectors = (adapted.session_parts(name).embedding for name in ("new", "known"))
    distance = torch.cdist(vectors, known_vectors).amin(1)
    assert (distance == 0).all() if rate == 0 else (distance < 0.1).all()
    assert adapted.session_parts("new").regions == tuple(new.regions)
