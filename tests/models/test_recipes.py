"""What holds for every recipe: causality, padding, sessions of any size, compiling, storing, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_cases import N_BINS, RECIPES, SESSIONS, STRICT, batch_of, make_model, regions_of, spikes

from neurokern.checkpoint import load_model, save_model
from neurokern.models import SCHEMES, MtM, MtMConfig, poisson_loss

everyone = pytest.mark.parametrize("recipe", RECIPES)
MODELS = {recipe: make_model(recipe) for recipe in RECIPES}


# ---- causality ----


def changed_bins(model: MtM, scheme: str, first: int) -> torch.Tensor:
    """Return by how much each bin's output moves when the counts from bin ``first`` on change."""
    counts = spikes(2, 11)
    other = counts.clone()
    other[:, first:] = 3 - other[:, first:].clamp(max=3)
    with torch.no_grad():
        return (model(counts, "eleven", scheme) - model(other, "eleven", scheme)).abs().amax((0, 2))


@pytest.mark.parametrize("recipe", STRICT)
def test_strict_causal_gives_the_same_bits_whatever_comes_later(recipe: str) -> None:
    for first in (1, 6, 11):
        moved = changed_bins(MODELS[recipe], "causal", first)
        assert not moved[:first].any()
        assert moved[first:].all()


def test_the_future_reaches_patches_only_through_the_prefix_as_published() -> None:
    assert changed_bins(MODELS["ndt2"], "causal", 6)[:6].all()
    first_layer = make_model("ndt2", n_layers=1)  # the prefix is read a layer later
    assert not changed_bins(first_layer, "causal", 6)[:6].any()


@everyone
def test_the_other_schemes_look_both_ways(recipe: str) -> None:
    for scheme in set(SCHEMES) - {"causal"}:
        assert changed_bins(MODELS[recipe], scheme, 6).all()


# ---- several sessions in a batch ----


@everyone
@given(
    names=st.lists(st.sampled_from(list(SESSIONS)), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
    scheme=st.sampled_from(SCHEMES),
    masked=st.booleans(),
)
def test_padding_and_company_never_change_a_result(
    recipe: str, names: list[str], seed: int, scheme: str, masked: bool
) -> None:
    model = MODELS[recipe]
    windows = [spikes(1, SESSIONS[name], seed + row)[0] for row, name in enumerate(names)]
    batch = batch_of(windows, names)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.rand(batch.counts.shape, generator=generator) < 0.3 if masked else None
    with torch.no_grad():
        together = model.forward_batch(batch, scheme, hidden=hidden)
        dirty = model.forward_batch(batch_of(windows, names, float("nan")), scheme, hidden=hidden)
        assert torch.equal(together, dirty)
        for row, (window, name) in enumerate(zip(windows, names, strict=True)):
            n_units = SESSIONS[name]
            unseen = None if hidden is None else hidden[row : row + 1, :, :n_units]
            alone = model(window[None], name, scheme, unseen)[0]
            torch.testing.assert_close(together[row, :, :n_units], alone, rtol=0, atol=1e-5)
            assert not together[row, :, n_units:].any()


@everyone
def test_windows_of_a_batch_may_have_schemes_of_their_own(recipe: str) -> None:
    model = MODELS[recipe]
    names = ["five", "eleven", "five", "two"]
    schemes = ["causal", "neuron", "intra-region", "causal"]
    batch = batch_of([spikes(1, SESSIONS[name], 7)[0] for name in names], names)
    with torch.no_grad():
        mixed = model.forward_batch(batch, schemes)
        for row, scheme in enumerate(schemes):
            alone = model.forward_batch(batch, scheme)[row]
            torch.testing.assert_close(mixed[row], alone, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="a name or 4 of them, got 1"):
        model.forward_batch(batch, ["causal"])


@everyone
def test_every_parameter_gets_a_gradient_from_some_scheme(recipe: str) -> None:
    model = make_model(recipe)
    names = list(SESSIONS)
    batch = batch_of([spikes(1, n)[0] for n in SESSIONS.values()], names)
    hidden = torch.rand(batch.counts.shape) < 0.3
    for scheme in SCHEMES:
        poisson_loss(model.forward_batch(batch, scheme, hidden=hidden), batch.counts).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == set()


# ---- torch.compile, storing, moving ----


@everyone
def test_forward_compiles_as_one_graph(recipe: str) -> None:
    model, counts = make_model(recipe, n_layers=1), spikes(2, 5)
    hidden = torch.zeros(2, 1, 5, dtype=torch.bool)
    hidden[:, :, 1] = True
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        expected = model(counts, "five", "causal", hidden)
        got = compiled(counts, "five", "causal", hidden)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "recipe", [r for r in RECIPES if r != "small"]
)  # whose read-in asks for the type of device
def test_everything_is_computed_on_the_device_of_the_weights(recipe: str) -> None:
    """Tensors on "meta" have no data but a device: to mix it with another is an error, as on a GPU."""
    model = make_model(recipe).to("meta")
    batch = batch_of([spikes(1, n)[0] for n in SESSIONS.values()], list(SESSIONS)).to("meta")
    hidden = torch.zeros(batch.counts.shape, dtype=torch.bool, device="meta")
    alone = model(batch.counts[:, :, :5], "five", "causal", hidden[:, :1, :5])
    together = model.forward_batch(batch, ["causal", "neuron", "causal"], hidden=hidden)
    assert alone.is_meta
    assert together.is_meta


@everyone
def test_a_stored_model_comes_back_and_takes_new_sessions(recipe: str, tmp_path: Path) -> None:
    model = make_model(recipe)
    model.remove_session("two")
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert loaded.config == model.config
    assert loaded.sessions == ("five", "eleven")
    assert loaded.region_names == model.region_names
    assert loaded.state_dict().keys() == model.state_dict().keys()
    counts = spikes(3, 11)
    assert torch.equal(model(counts, "eleven", "causal"), loaded(counts, "eleven", "causal"))
    loaded.add_session("new", 3, ["CA1", "a new region", ""], spikes(20, 3).numpy())
    assert torch.isfinite(loaded(spikes(2, 3), "new", "neuron")).all()


@pytest.mark.parametrize("recipe", ["ndt2 with regions", "modern"])
def test_a_model_that_has_grown_comes_back_and_grows_on(recipe: str, tmp_path: Path) -> None:
    model = make_model(recipe)
    model.add_units("two", 3, ["MOs", "CA1", ""], spikes(9, 3).numpy())
    model.add_session("late", 4, ["MOs", "LP", "LP", "MOs"], spikes(9, 4).numpy(), start="mean")
    with torch.no_grad():
        model.region_table.weight.normal_()
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert loaded.region_names == ("CA1", "VISp", "MOs", "LP")
    for session in (*SESSIONS, "late"):
        counts = spikes(2, model.session_parts(session).n_units)
        assert torch.equal(model(counts, session, "causal"), loaded(counts, session, "causal"))
    known = loaded.region_table.weight.detach().clone()
    loaded.add_session("later", 2, ["VIS", "LP"], spikes(9, 2).numpy())
    assert torch.equal(loaded.region_table.weight[:-1], known)


@everyone
@pytest.mark.parametrize("changes", [{"n_units": 10**11}, {"max_patches": 10**11}, {"patch_size": 10**11}])
def test_absurd_sizes_in_a_file_are_errors_that_take_no_memory(
    recipe: str, changes: dict[str, int], tmp_path: Path
) -> None:
    folder = save_model(make_model(recipe), tmp_path / "model")
    description = json.loads((folder / "config.json").read_text())
    description["model"] |= {name: size for name, size in changes.items() if name != "n_units"}
    if "n_units" in changes:
        description["sessions"] = [{"session": "large", "regions": None, **changes}]
    (folder / "config.json").write_text(json.dumps(description))
    if recipe.startswith("ndt2") or "n_units" in changes:
        with pytest.raises(ValueError, match="load_model"):
            load_model(folder)
    else:  # sizes that this recipe has no use for
        assert load_model(folder).sessions == tuple(SESSIONS)


@everyone
def test_weights_of_one_model_fit_another_of_the_same_sessions(recipe: str) -> None:
    model, other = make_model(recipe, seed=1), make_model(recipe, seed=2)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(spikes(2, 5), "five", "neuron"), other(spikes(2, 5), "five", "neuron"))


@everyone
def test_float64_counts_are_taken_and_a_float64_model_gives_float64(recipe: str) -> None:
    model, counts = make_model(recipe), spikes(2, 5)
    single = model(counts.double(), "five", "neuron")
    assert single.dtype == torch.float32
    assert torch.equal(single, model(counts, "five", "neuron"))
    double = model.double()(counts, "five", "neuron")
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=0, atol=1e-4)


@everyone
def test_bfloat16_autocast_stays_near_float32(recipe: str) -> None:
    model = MODELS[recipe]
    names = ["five", "eleven"]
    batch = batch_of([spikes(1, SESSIONS[name])[0] for name in names], names)
    with torch.no_grad():
        expected = model.forward_batch(batch, "causal")
        with torch.autocast("cpu", torch.bfloat16):
            got = model.forward_batch(batch, "causal")
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=0.15)


# ---- bad input ----


@everyone
def test_a_session_without_regions_and_one_of_a_single_unit_work(recipe: str) -> None:
    model = make_model(recipe, {})
    model.add_session("plain", 6, counts=spikes(20, 6).numpy())
    model.add_session("single", 1, ["CA1"], spikes(20, 1).numpy())
    batch = batch_of([spikes(1, 6)[0], spikes(1, 1)[0]], ["plain", "single"])
    assert torch.isfinite(model.forward_batch(batch, "intra-region")).all()


@everyone
def test_visible_counts_that_are_no_counts_are_an_error(recipe: str) -> None:
    model = MODELS[recipe]
    for wrong in (-1.0, float("nan"), float("inf")):
        counts = spikes(2, 5)
        counts[1, 3, 2] = wrong
        with pytest.raises(ValueError, match="'five' must be finite and at least 0"):
            model(counts, "five", "neuron")
        with pytest.raises(ValueError, match="must be finite and at least 0"):
            model.forward_batch(batch_of([counts[1], spikes(1, 2)[0]], ["five", "two"]), "neuron")


@everyone
def test_wrong_sessions_units_and_kinds_are_named(recipe: str) -> None:
    model = MODELS[recipe]
    with pytest.raises(ValueError, match=r"'six' is unknown \(known: 'two', 'five', 'eleven'\)"):
        model(spikes(1, 5), "six", "neuron")
    with pytest.raises(ValueError, match=r"up to 12 bins, 5 units\), got \(1, 12, 6\)"):
        model(spikes(1, 6), "five", "neuron")
    with pytest.raises(TypeError, match=r"counts\.float\(\)"):
        model(spikes(1, 5).int(), "five", "neuron")
    with pytest.raises(ValueError, match="scheme must be one of"):
        model(spikes(1, 5), "five", "temporal")
    for n_units, regions in ((0, None), (3, ["CA1"]), (3, "CA1")):
        with pytest.raises(ValueError, match="add_session: "):
            model.add_session("seven", n_units, regions)
    for session, n_units in ((7, 3), ("seven", 2.5), ("seven", True)):
        with pytest.raises(TypeError, match="add_session: "):
            model.add_session(session, n_units)
    with pytest.raises(TypeError, match="must be numbers"):
        model.add_session("seven", 1, counts=[[["a"]]])
    assert model.sessions == tuple(SESSIONS)


@everyone
def test_masks_that_do_not_fit_are_named(recipe: str) -> None:
    model, counts = MODELS[recipe], spikes(2, 5)
    batch = batch_of(list(counts), ["five", "five"])
    for hidden in (
        torch.zeros(2, 12, 5),
        torch.ones(2, 11, 5) > 0,
        torch.ones(2, 12, 4) > 0,
        torch.ones(5) > 0,
    ):
        with pytest.raises(ValueError, match="hidden must be a bool tensor that broadcasts to the counts"):
            model(counts, "five", "neuron", hidden)
        with pytest.raises(ValueError, match="hidden must be a bool tensor that broadcasts to the counts"):
            model.forward_batch(batch, "neuron", hidden=hidden)


def test_a_batch_and_its_counts_must_agree() -> None:
    model = MODELS["modern"]
    batch = batch_of([spikes(1, 5)[0]] * 2, ["five", "five"])
    for counts in (spikes(3, 5), spikes(1, 5)[0], spikes(2, 4)):
        with pytest.raises(ValueError, match="must have shape"):
            model.forward_batch(batch, "neuron", counts=counts)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patch_size": 0}, "patch_size must be at least 1"),
        ({"embed_size": 0}, "embed_size must be None or at least 1"),
        ({"position": "sinusoidal"}, "position must be one of"),
        ({"position": "rotary", "hidden_size": 12, "n_heads": 4}, "heads of an even size"),
        ({"region_embeddings": True}, "need read_in 'embeddings' or 'patches'"),
    ],
)
def test_wrong_options_name_the_field(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MtMConfig(**wrong)


@everyone
def test_recipes_survive_json(recipe: str) -> None:
    config = RECIPES[recipe]
    assert MtMConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert make_model(recipe).config.n_bins == N_BINS
    assert regions_of(3) == ["CA1", "VISp", ""]
