"""Every adapter learns its support set, changes only what it says, and comes back from its own file."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from neurokern.adapters import (
    AdaptedModel,
    BiasOnly,
    Contrastive,
    FineTuneOptions,
    FromScratch,
    FrozenReadout,
    FullFineTune,
    GradualUnfreezing,
    HeadProbe,
    LDAProbe,
    LinearProbe,
    LoRA,
    NormOnly,
    PartialFineTune,
    PrototypeProbe,
    ResetTuning,
    RidgeProbe,
    RidgeReadout,
    SessionEncoder,
    SharedSpace,
    StitchedModel,
    Support,
    UnitIdentification,
    add_low_rank,
    retrieval_accuracy,
)
from neurokern.checkpoint import sha256_of
from neurokern.datasets import BinnedSession, collate_spikes
from neurokern.datasets.batch import SpikeSample
from neurokern.models import MtM, MtMConfig

QUICK = FineTuneOptions(learning_rate=1e-2, encoder_factor=1.0, blind_epochs=12, validation=0.0)


class Block(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.up, self.down = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Encoder(nn.Module):
    """A plain encoder as EEG code has them: channels over time to features over time."""

    def __init__(self, n_channels: int = 6, size: int = 8) -> None:
        super().__init__()
        self.read_in = nn.Linear(n_channels, size)
        self.batch_norm = nn.BatchNorm1d(size)
        self.session_emb = nn.Parameter(torch.zeros(size))
        self.layers = nn.ModuleList(Block(size) for _ in range(3))

    def forward(self, x):
        x = self.read_in(x)
        x = self.batch_norm(x.transpose(1, 2)).transpose(1, 2) + self.session_emb
        for layer in self.layers:
            x = layer(x)
        return x


def encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    model = Encoder()
    model(torch.randn(50, 5, 6))  # running statistics
    return model.eval()


def samples(n: int = 24, n_channels: int = 6, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Classes that differ in the mean of some channels."""
    generator = torch.Generator().manual_seed(seed)
    labels = np.array(["go", "stay", "turn"])[np.arange(n) % 3]
    inputs = torch.randn(n, 5, n_channels, generator=generator)
    for number, label in enumerate(("go", "stay", "turn")):
        inputs[torch.from_numpy(labels == label), :, number] += 0.8
    return inputs, labels


ADAPTERS = {
    "probe": HeadProbe(options=QUICK),
    "mlp": HeadProbe(head="mlp", hidden=8, options=QUICK),
    "attention": HeadProbe(head="attention", n_heads=2, options=QUICK),
    "full": FullFineTune(options=QUICK),
    "flat": FullFineTune(pool="flatten", options=QUICK),
    "partial": PartialFineTune(parameters=["layers.2.*"], options=QUICK),
    "bias": BiasOnly(options=QUICK),
    "norm": NormOnly(options=QUICK),
    "units": UnitIdentification(options=QUICK),
    "gradual": GradualUnfreezing(every=2, options=replace(QUICK, blind_epochs=30)),
    "reset": ResetTuning(reset=["read_in"], alone=3, options=QUICK),
    "scratch": FromScratch(make_model=Encoder, options=QUICK),
    "lora": LoRA(targets=["*up", "*down"], rank=2, options=QUICK),
    "space": SharedSpace(size=6, options=QUICK),
    "pooled": SharedSpace(size=6, pool_size=4, then=["layers.0.*"], options=QUICK),
}
OWN = {  # which of the encoder's weights an adapter may change or add
    "probe": (), "mlp": (), "attention": (), "space": (), "full": ("",), "flat": ("",), "scratch": ("",),
    "partial": ("layers.2.",), "bias": ("bias", "batch_norm."), "norm": ("norm.",), "units": ("session_emb",),
    "gradual": ("",), "reset": ("",), "lora": ("low_rank",), "pooled": ("layers.0.",),
}  # fmt: skip


def loss_of(adapted: AdaptedModel, support: Support) -> float:
    return float(nn.functional.cross_entropy(adapted.outputs(support.inputs), support.targets))


@pytest.mark.parametrize("name", ADAPTERS)
def test_support_loss_falls_frozen_weights_stay_and_the_file_brings_it_back(name, tmp_path):
    n_channels = 9 if name in ("space", "pooled") else 6
    inputs, labels = samples(n_channels=n_channels)
    support = Support.of(inputs, labels)
    model = encoder()
    before = copy.deepcopy(model.state_dict())
    adapted = ADAPTERS[name].fit(model, support)
    assert loss_of(adapted, support) < np.log(3) - 0.05  # of guessing three classes
    for weight, value in model.state_dict().items():
        assert torch.equal(value, before[weight]), weight
    after = adapted.encoder.state_dict()
    for weight, value in before.items():
        if not any(part in weight for part in OWN[name]):
            assert torch.equal(after[weight], value), weight
    own = adapted.state_dict()
    assert own
    encoder_own = [n for n in own if n.startswith("encoder.")]
    assert all(any(part in n for part in OWN[name]) for n in encoder_own)
    assert bool(encoder_own) == bool(OWN[name])
    assert all(p.requires_grad for p in adapted.pipeline.parameters())
    assert adapted.n_trainable > 0
    assert adapted.seconds > 0
    folder = adapted.save(tmp_path / "adapter")
    assert set(load_file(folder / "model.safetensors")) == set(own)
    again = AdaptedModel.load(folder, encoder())
    assert torch.equal(again.outputs(inputs), adapted.outputs(inputs))
    assert again.predict(inputs).tolist() == adapted.predict(inputs).tolist()
    assert set(adapted.predict(inputs)) <= {"go", "stay", "turn"}
    torch.testing.assert_close(again.predict_proba(inputs).sum(1), torch.ones(len(inputs)))


def test_fitting_repeats_for_a_seed_and_leaves_the_global_generator_alone():
    support = Support.of(*samples())
    model = encoder()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (ADAPTERS[name].fit(model, support).state_dict() for name in ("lora", "lora"))
    ADAPTERS["mlp"].fit(model, support)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_linear_probe_is_logistic_regression_and_counts_only_its_head():
    inputs, labels = samples()
    adapted = HeadProbe().fit(encoder(), Support.of(inputs, labels))
    features = encoder()(inputs).mean(1).detach()
    center = features.mean(0)
    scaled = (features - center) / (features - center).square().sum(1).mean().sqrt()
    expected = LinearProbe((0.1, 1.0, 10.0)).fit(scaled, labels).predict_proba(scaled)
    torch.testing.assert_close(adapted.predict_proba(inputs), expected, rtol=1e-4, atol=1e-5)
    assert adapted.n_trainable == 8 * 3 + 3
    assert adapted.encoder.layers[0].up.weight.requires_grad


@pytest.mark.parametrize("readout", [RidgeProbe, LDAProbe, LinearProbe, PrototypeProbe])
def test_a_closed_form_read_out_becomes_the_head_of_its_frozen_model(readout, tmp_path):
    inputs, labels = samples()
    model = encoder()
    adapted = FrozenReadout(readout=readout).fit(model, Support.of(inputs, labels))
    assert adapted.encoder is model
    with torch.no_grad():
        features = model(inputs).mean(1)
    assert adapted.predict(inputs).tolist() == readout().fit(features, labels).predict(features).tolist()
    again = AdaptedModel.load(adapted.save(tmp_path / "a"), encoder())
    assert torch.equal(again.outputs(inputs), adapted.outputs(inputs))
    assert set(adapted.state_dict()) == {"head.out.weight", "head.out.bias"}


def test_read_outs_of_values_become_heads_and_cosines_are_refused():
    inputs, labels = samples()
    speed = inputs[:, :, 0].mean(1) * 20 + 5
    adapted = FrozenReadout(readout=RidgeReadout, pool="flatten").fit(encoder(), Support.of(inputs, speed))
    assert adapted.predict(inputs).shape == (24, 1)
    cosine = FrozenReadout(readout=lambda: PrototypeProbe("cosine"))
    with pytest.raises(ValueError, match="no linear head"):
        cosine.fit(encoder(), Support.of(inputs, labels))


def test_values_are_predicted_in_their_own_units():
    inputs, _ = samples(60)
    speed = 300.0 + 50.0 * inputs[:, :, 0].mean(1) + 5.0 * inputs[:, :, 1].mean(1)
    support = Support.of(inputs, speed.numpy())
    assert support.classes is None
    for adapter in (HeadProbe(), LoRA(options=QUICK), HeadProbe(head="mlp", options=QUICK)):
        predicted = adapter.fit(encoder(), support).predict(inputs)
        assert predicted.shape == (60, 1)
        assert float((predicted[:, 0] - speed).square().mean() / speed.var()) < 0.7
    per_bin = inputs[:, :, :2] * 3 + 1
    adapted = HeadProbe(pool="none").fit(encoder(), Support.of(inputs, per_bin))
    assert adapted.predict(inputs).shape == (60, 5, 2)
    with pytest.raises(ValueError, match="values, not classes"):
        adapted.predict_proba(inputs)


def test_an_encoder_that_ends_in_logits_needs_no_head():
    inputs, labels = samples()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(30, 3))
    adapted = FullFineTune(head="none", options=QUICK).fit(model, Support.of(inputs, labels))
    assert loss_of(adapted, Support.of(inputs, labels)) < np.log(3)
    with pytest.raises(ValueError, match="needs an encoder with 2 outputs"):
        FullFineTune(head="none").fit(model, Support.of(inputs[:2], ["a", "b"]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_other_precisions_are_adapted(dtype):
    inputs, labels = samples()
    model, speed = encoder().to(dtype), inputs[:, :, 0].mean(1).numpy()
    for adapter in (LoRA(rank=2, options=QUICK), HeadProbe(head="mlp", options=QUICK), FrozenReadout()):
        for targets in (labels, speed) if not isinstance(adapter, FrozenReadout) else (labels,):
            adapted = adapter.fit(model, Support.of(inputs, targets))
            assert adapted.pipeline.head.out.weight.dtype == torch.promote_types(dtype, torch.float32)
            assert len(adapted.predict(inputs)) == 24
    front = SharedSpace(size=6, options=QUICK).fit(model, Support.of(samples(n_channels=9)[0], labels))
    assert len(front.predict(samples(n_channels=9)[0])) == 24


def test_few_pairs_of_embeddings_are_not_held_out():
    inputs, _ = samples(6)
    adapted = Contrastive().fit(encoder(), Support.of(inputs, torch.randn(6, 3)))
    assert "held_out_loss" not in adapted.chosen


@pytest.mark.parametrize("adapter", [HeadProbe(), FrozenReadout(), LoRA(options=QUICK)])
def test_a_model_in_training_mode_is_left_in_it_and_adapted_without_dropout(adapter):
    inputs, labels = samples()
    model = nn.Sequential(encoder(), nn.Dropout(0.5)).train()
    adapted = adapter.fit(model, Support.of(inputs, labels))
    assert torch.equal(adapted.outputs(inputs), adapted.outputs(inputs))
    assert all(part.training for part in model.modules())


def test_one_sample_per_class_is_trained_blind():
    inputs, labels = samples(3)
    adapted = FullFineTune(options=QUICK).fit(encoder(), Support.of(inputs, labels))
    assert adapted.chosen == {"epochs": 12, "learning_rate": 1e-2}


def test_the_learning_rate_is_chosen_on_held_out_support_samples():
    options = FineTuneOptions(learning_rate=(1e-9, 1e-2), encoder_factor=1.0, max_epochs=12)
    adapted = LoRA(start="zeros", options=options).fit(encoder(), Support.of(*samples(48)))
    assert adapted.chosen["learning_rate"] == 1e-2
    assert adapted.chosen["held_out_loss"] < np.log(3)


def test_inner_splits_keep_groups_whole_and_every_class_on_both_sides():
    inputs, labels = samples(24)
    groups = np.arange(24) // 6
    values = Support.of(inputs, np.arange(24) / 7, groups=groups)
    train, held = values.hold_out(0.25, 0)
    assert not set(groups[train]) & set(groups[held])
    classes = Support.of(inputs, labels)
    train, held = classes.hold_out(0.25, 0)
    assert set(labels[train]) == set(labels[held]) == set(labels)
    assert sorted([*train, *held]) == list(range(24))
    assert Support.of(inputs[:3], labels[:3]).hold_out(0.25, 0) is None


def test_batch_statistics_stay_where_the_normalization_is_frozen_and_move_where_it_learns():
    support = Support.of(*samples())
    frozen = LoRA(options=QUICK).fit(encoder(), support)
    assert torch.equal(frozen.encoder.batch_norm.running_mean, encoder().batch_norm.running_mean)
    learned = NormOnly(options=QUICK).fit(encoder(), support)
    assert "encoder.batch_norm.running_mean" in learned.state_dict()


def test_new_weights_learn_faster_than_pretrained_ones():
    support = Support.of(*samples())
    slow = replace(QUICK, encoder_factor=1e-6)
    reset = ResetTuning(reset=["read_in"], alone=3, options=slow).fit(encoder(), support).encoder
    with torch.random.fork_rng([]):
        torch.manual_seed(slow.seed)
        start = ResetTuning(reset=["read_in"], options=replace(slow, blind_epochs=0))
        drawn = start.fit(encoder(), support).encoder
    moved = [
        float((after - before).abs().max().detach())
        for after, before in (
            (reset.read_in.weight, drawn.read_in.weight),
            (reset.layers[0].up.weight, encoder().layers[0].up.weight),
        )
    ]
    assert moved[0] > 1e-3 > 1e-5 > moved[1]


def test_gradual_unfreezing_thaws_from_the_last_layer_and_only_in_time():
    support = Support.of(*samples())
    short = replace(QUICK, blind_epochs=5)
    names = set(GradualUnfreezing(every=2, options=short).fit(encoder(), support).state_dict())
    own = {name for name in names if name.startswith("encoder.")}
    assert own
    assert all(name.startswith(("encoder.layers.2.", "encoder.layers.1.")) for name in own)
    given = GradualUnfreezing(stages=[["read_in.*"]], every=2, options=short).fit(encoder(), support)
    assert {n for n in given.state_dict() if n.startswith("encoder.")} <= {
        "encoder.read_in.weight",
        "encoder.read_in.bias",
    }


def test_a_merged_lora_gives_the_unmerged_outputs_and_the_base_names():
    inputs, labels = samples()
    adapted = LoRA(rank=2, options=QUICK).fit(encoder(), Support.of(inputs, labels))
    merged = adapted.merge()
    assert set(merged.state_dict()) == set(encoder().state_dict())
    assert any(
        not torch.equal(value, encoder().state_dict()[name]) for name, value in merged.state_dict().items()
    )
    expected = adapted.encoder(inputs)
    assert torch.equal(merged(inputs), expected)
    assert torch.equal(adapted.encoder(inputs), expected)
    assert [type(module) for module in merged.modules()] == [type(module) for module in encoder().modules()]


def test_an_updated_layer_compiles_without_a_graph_break():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4))
    assert add_low_rank(model, rank=2) == ["0"]
    nn.init.ones_(model[0].low_rank_up)
    inputs = torch.randn(3, 6)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), model(inputs))
    with pytest.raises(ValueError, match="has an update already"):
        add_low_rank(model)


def test_lora_starts_at_the_model_itself_and_reaches_torch_s_own_transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    inputs, labels = samples(n_channels=8)
    with torch.no_grad():
        base = model(inputs)
    start = LoRA(options=replace(QUICK, blind_epochs=0)).fit(model, Support.of(inputs[:3], labels[:3]))
    torch.testing.assert_close(start.encoder(inputs), base)
    adapted = LoRA(rank=2, targets=["*self_attn", "*linear1"], options=QUICK).fit(
        model, Support.of(inputs, labels)
    )
    with torch.inference_mode():  # the fast path reads the weights itself
        fast = adapted.encoder(inputs)
    assert not torch.allclose(fast, base, atol=1e-4)
    torch.testing.assert_close(adapted.merge()(inputs), fast, rtol=1e-4, atol=1e-5)


def session(name: str = "monday") -> tuple[BinnedSession, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = np.array(["left", "right"])[np.arange(40) % 2]
    rates = np.full((40, 10, 7), 0.5)
    rates[labels == "left", :, :3] *= 2.5
    binned = BinnedSession(
        counts=generator.poisson(rates).astype(np.uint8),
        bin_size=0.02,
        regions=np.full(7, "CA1"),
        unit_ids=np.arange(7),
        session=name,
    )
    return binned, labels


def mtm(recipe=MtMConfig.paper, **changes) -> tuple[MtM, BinnedSession, np.ndarray]:
    binned, labels = session()
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "n_layers": 2,
        "n_heads": 2,
        "mlp_size": 16,
        "stitch_size": 4,
        "embed_size": None,
    }
    model = MtM(recipe(n_bins=10, **{**sizes, **changes})).eval()
    model.add_session("other", 5, counts=binned.counts[:, :, :5])
    model.add_session("monday", 7, counts=binned.counts)
    return model, binned, labels


@pytest.mark.parametrize(
    ("adapter", "own"),
    [
        (HeadProbe(options=QUICK), ()),
        (LoRA(targets=["*qkv"], rank=2, options=QUICK), ("qkv.low_rank",)),
        (PartialFineTune(parameters=["*stitch_in*"], options=QUICK), ("stitch_in",)),
        (UnitIdentification(options=QUICK), ("token",)),
        (GradualUnfreezing(every=3, options=QUICK), ("mtm",)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_adapters_work_on_an_mtm_and_leave_its_other_sessions_out(adapter, own, tmp_path):
    model, binned, labels = mtm()
    before = copy.deepcopy(model.state_dict())
    support = Support.of(binned, labels)
    assert support.session == "monday"
    adapted = adapter.fit(model, support)
    assert loss_of(adapted, support) < np.log(2)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert adapted.encoder.mtm.sessions == ("monday",)
    encoder_own = [n for n in adapted.state_dict() if n.startswith("encoder.")]
    assert all(any(part in n for part in own) for n in encoder_own)
    adapted.save(tmp_path / "a")
    fresh, _, _ = mtm()
    fresh.remove_session("other")  # another position of the session's parts
    again = AdaptedModel.load(tmp_path / "a", fresh)
    assert torch.equal(again.outputs(binned), adapted.outputs(binned))


def test_unit_identification_trains_the_vectors_of_units_and_the_token_alone():
    model, binned, labels = mtm(MtMConfig.modern)
    adapted = UnitIdentification(options=QUICK).fit(model, Support.of(binned, labels))
    own = {name for name in adapted.state_dict() if name.startswith("encoder.")}
    assert "encoder.mtm.parts.0.embedding" in own
    assert own <= {"encoder.mtm.parts.0.embedding", "encoder.mtm.parts.0.token", "encoder.mtm.common_token"}


@pytest.mark.parametrize("recipe", [MtMConfig.paper, MtMConfig.small, MtMConfig.modern])
def test_an_mtm_from_scratch_keeps_nothing_that_other_sessions_taught(recipe):
    model, binned, labels = mtm(recipe)
    fresh = SessionEncoder(model, "monday").fresh()
    old, new = SessionEncoder(model, "monday").state_dict(), fresh.state_dict()
    assert {n: v.shape for n, v in old.items()} == {n: v.shape for n, v in new.items()}
    assert not torch.equal(old["mtm.layers.0.up_proj.weight"], new["mtm.layers.0.up_proj.weight"])
    parts = [n for n in old if ".parts." in n]
    if recipe == MtMConfig.small:
        assert all(torch.equal(old[n], new[n]) for n in parts)
    else:
        assert not all(torch.equal(old[n], new[n]) for n in parts)
    adapted = FromScratch(options=QUICK).fit(model, Support.of(binned, labels))
    assert adapted.predict(binned).shape == (40,)


def test_features_of_an_mtm_are_its_states_factors_or_rates():
    model, binned, labels = mtm(MtMConfig.small, n_layers=1)
    counts = torch.from_numpy(binned.read(range(40)))
    shapes = {"states": (40, 10, 16), "factors": (40, 10, 4), "rates": (40, 10, 7)}
    for output, shape in shapes.items():
        assert SessionEncoder(model, "monday", output=output)(counts).shape == shape
    assert SessionEncoder(model, "monday").output == "factors"
    adapted = FullFineTune(options=QUICK).fit(
        SessionEncoder(model, "monday", output="rates"), Support.of(binned, labels)
    )
    assert adapted.structure.session["output"] == "rates"
    with pytest.raises(ValueError, match="no factors"):
        SessionEncoder(mtm()[0], "monday", output="factors")
    with pytest.raises(ValueError, match="session 'sunday' is unknown"):
        SessionEncoder(model, "sunday")
    with pytest.raises(ValueError, match="whose windows these are"):
        LoRA().fit(model, Support.of(counts, labels))


def test_a_batch_of_one_session_is_a_support_set():
    binned, _ = session()
    rows = [
        SpikeSample(
            counts=torch.from_numpy(binned.read([i])[0]),
            regions=torch.zeros(7, dtype=torch.int64),
            session="monday" if i < 9 else "sunday",
            session_index=0,
            window=i,
            labels={"side": torch.tensor(i % 2)},
        )
        for i in range(10)
    ]
    support = Support.of(collate_spikes(rows[:9]), "side")
    assert support.session == "monday"
    assert support.inputs.shape == (9, 10, 7)
    assert support.targets.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    with pytest.raises(ValueError, match="must be of one session"):
        Support.of(collate_spikes(rows), "side")
    with pytest.raises(ValueError, match="no column 'choice'"):
        Support.of(binned, "choice")


def test_contrastive_training_makes_samples_retrievable():
    inputs, _ = samples(48)
    torch.manual_seed(1)
    embedding = inputs.mean(1) @ torch.randn(6, 5)
    options = FineTuneOptions(learning_rate=3e-2, max_epochs=40, validation=0.25)
    support = Support.of(inputs, embedding, kind="values")
    for loss in ("soft-clip", "info-nce"):
        adapted = Contrastive(loss=loss, options=options).fit(encoder(), support)
        predicted = adapted.predict(inputs)
        assert predicted.shape == (48, 5)
        assert retrieval_accuracy(predicted, embedding, k=5) > 3 * 5 / 48
    tuned = Contrastive(head="mlp", parameters=["layers.2.*"], options=QUICK).fit(encoder(), support)
    assert any(name.startswith("encoder.layers.2.") for name in tuned.state_dict())
    with pytest.raises(ValueError, match="targets must be embeddings"):
        Contrastive().fit(encoder(), Support.of(*samples()))


def test_a_loss_that_is_not_finite_stops_with_the_remedy():
    inputs, labels = samples()
    model = encoder()
    with torch.no_grad():
        model.layers[2].down.bias.fill_(torch.inf)
    with pytest.raises((RuntimeError, ValueError), match=r"finite|loss is"):
        FullFineTune(start="zeros", options=QUICK).fit(model, Support.of(inputs, labels))


def test_misspelled_names_and_unfit_models_are_refused():
    support = Support.of(*samples())
    for adapter, message in [
        (
            PartialFineTune(parameters=["layer.3.*"]),
            r"matches 'layer\.3\.\*'; the model has session_emb",
        ),
        (LoRA(targets=["*attention"]), "no linear layer matches"),
        (LoRA(rank=0), "rank must be at least 1"),
        (ResetTuning(), "reset must name at least one module"),
        (ResetTuning(reset=["nothing"]), "no module matches 'nothing'"),
        (GradualUnfreezing(every=0), "every must be at least 1"),
        (FromScratch(), "make_model="),
        (FromScratch(make_model=lambda: nn.Linear(2, 2)), "names and shapes"),
        (UnitIdentification(parameters=["*unit_emb*"]), "no parameter matches"),
        (HeadProbe(head="attention", n_heads=3), "n_heads must divide the 8 features"),
    ]:
        with pytest.raises(ValueError, match=message):
            adapter.fit(encoder(), support)
    with pytest.raises(ValueError, match="no normalization layer"):
        NormOnly().fit(nn.Linear(6, 4), support)
    with pytest.raises(ValueError, match="size must be"):
        SharedSpace()
    with pytest.raises(ValueError, match="'soft-clip', 'info-nce'"):
        Contrastive(loss="clip")
    with pytest.raises(ValueError, match="head must be"):
        LoRA(head="cnn")
    with pytest.raises(ValueError, match="learning_rate"):
        FineTuneOptions(learning_rate=())
    with pytest.raises(ValueError, match="above 0"):
        FineTuneOptions(learning_rate=0.0)


def test_bad_support_sets_are_refused():
    inputs, labels = samples(6)
    for arguments, message in [
        ((inputs, labels[:2]), "one entry per sample"),
        ((inputs, ["a"] * 6), "at least 2 classes"),
        ((inputs * torch.nan, labels), "finite"),
        ((torch.zeros(6), labels), "shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            Support.of(*arguments)
    with pytest.raises(ValueError, match="values must be finite"):
        Support.of(torch.zeros(3, 2), [0.5, np.nan, 1.0])
    kept = Support.of(torch.zeros(4, 2), [0.0, np.nan, 1.0, 1.0])  # whole numbers are classes
    assert len(kept) == 3


def test_files_that_do_not_fit_are_refused(tmp_path):
    inputs, labels = samples()
    adapted = LoRA(rank=2, options=QUICK).fit(encoder(), Support.of(inputs, labels))
    folder = adapted.save(tmp_path / "a")
    with pytest.raises(ValueError, match="fitted on a model with other weights"):
        AdaptedModel.load(folder, encoder(1))
    other = AdaptedModel.load(folder, encoder(1), check_base=False)
    assert other.outputs(inputs).shape == (24, 3)
    with pytest.raises(ValueError, match="does not fit the model"):
        AdaptedModel.load(folder, nn.ReLU())
    with pytest.raises(FileNotFoundError, match="no folder"):
        AdaptedModel.load(tmp_path / "b", encoder())
    weights, config = folder / "model.safetensors", folder / "config.json"
    tensors, text = load_file(weights), config.read_text()

    def rewrite(changed):
        save_file(changed, weights)
        description = {**json.loads(text), "weights_sha256": sha256_of(weights)}
        config.write_text(json.dumps(description))

    for change, message in [
        ({"head.out.weight": torch.zeros(2, 2)}, r"must have shape \(3, 8\), the file has shape \(2, 2\)"),
        ({"head.more": torch.zeros(1)}, "where the model has nothing"),
    ]:
        rewrite({**tensors, **change})
        with pytest.raises(ValueError, match=message):
            AdaptedModel.load(folder, encoder())
    rewrite({n: v for n, v in tensors.items() if not n.endswith("_up")})
    with pytest.raises(ValueError, match="lacks"):
        AdaptedModel.load(folder, encoder())
    save_file(tensors, weights)
    config.write_text(json.dumps({**json.loads(text), "weights_sha256": "0"}))
    with pytest.raises(ValueError, match="not the file that"):
        AdaptedModel.load(folder, encoder())
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="cut short"):
        AdaptedModel.load(folder, encoder())
    save_file(tensors, weights)
    huge = {"head": {**json.loads(text)["structure"]["head"], "n_features": 10**12}}
    for key, value in [
        ("structure", huge),
        ("structure", {"heads": 1}),
        ("structure", 3),
        ("format", "pickle"),
        ("classes", ...),
    ]:
        description = json.loads(text)
        description.pop(key) if value is ... else description.update({key: value})
        config.write_text(json.dumps(description))
        with pytest.raises(ValueError, match=r"does not fit|format must be"):
            AdaptedModel.load(folder, encoder())
    config.write_text(text)
    with pytest.raises(ValueError, match="load it with AdaptedModel"):
        StitchedModel.load(folder, mtm()[0])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="not a checkpoint"):
        adapted.save(tmp_path / "mine")


def test_a_read_out_by_name_is_refused_with_what_to_pass():
    with pytest.raises(TypeError, match="as the class RidgeProbe does, got 'ridge'"):
        FrozenReadout(readout="ridge")
