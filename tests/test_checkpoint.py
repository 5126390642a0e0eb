"""Checkpoints are written whole or not at all, and read without trust."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neurokern import checkpoint
from neurokern.checkpoint import load_model, save_model
from neurokern.models import MtM, MtMConfig

SIZES = {"n_bins": 8, "hidden_size": 16, "n_layers": 1, "n_heads": 2, "mlp_size": 16, "stitch_size": 6}


def make_model(seed: int = 0, *, small: bool = False) -> MtM:
    torch.manual_seed(seed)
    model = MtM(MtMConfig.small(**SIZES) if small else MtMConfig.paper(**SIZES, embed_size=12))
    counts = np.random.default_rng(seed).poisson(1.0, (6, 8, 5)).astype(np.uint8)
    model.add_session("mouse.1/day 2", 5, regions=["CA1", "CA1", "VISp", "VISp", "root"], counts=counts)
    model.add_session("other", 3, counts=counts[:, :, :3])
    return model.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_model(make_model(), tmp_path / "model")


def same_weights(a: MtM, b: MtM) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(mine[k], other[k]) for k in mine)


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("small", [False, True])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path, small: bool) -> None:
    model = make_model(small=small)
    loaded = load_model(save_model(model, tmp_path / "deep" / "model"))
    assert same_weights(model, loaded)
    assert loaded.config == model.config
    assert loaded.sessions == ("mouse.1/day 2", "other")
    assert loaded.session_parts("mouse.1/day 2").regions == ("CA1", "CA1", "VISp", "VISp", "root")
    assert not loaded.training
    counts = torch.ones(2, 8, 5)
    assert torch.equal(model(counts, "mouse.1/day 2", "causal"), loaded(counts, "mouse.1/day 2", "causal"))


def test_a_loaded_model_can_be_trained_and_take_new_sessions(saved: Path) -> None:
    model = load_model(saved)
    assert all(p.requires_grad for p in model.parameters())
    model.add_session("new", 4)
    model(torch.ones(1, 8, 4), "new", "neuron").sum().backward()
    assert model.positions.grad is not None


def test_config_tells_people_what_is_inside(saved: Path) -> None:
    description = json.loads((saved / "config.json").read_text())
    assert description["format_version"] == 1
    assert description["sessions"][1] == {"session": "other", "n_units": 3, "regions": None}
    assert description["versions"]["torch"] == torch.__version__
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors"]


def test_saving_again_replaces_the_checkpoint_and_leaves_nothing_else(saved: Path) -> None:
    newer = make_model(seed=1)
    save_model(newer, saved)
    assert same_weights(load_model(saved), newer)
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_an_exception_while_saving_keeps_the_old_checkpoint(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_model(make_model(seed=1), saved)
    assert same_weights(load_model(saved), make_model())
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("call", range(1, 10))
def test_a_process_killed_at_any_moment_leaves_the_old_or_the_new_checkpoint(saved: Path, call: int) -> None:
    """Kill the process at its n-th flush, rename or removal; then load, and save over what is left."""
    newer = make_model(seed=1)
    child = os.fork()
    if child == 0:  # never returns: no test framework, no cleaning up
        left = [call]

        def dies_in_time(function):  # type: ignore[no-untyped-def]
            def wrapped(*args, **kwargs):  # type: ignore[no-untyped-def]
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)
                return function(*args, **kwargs)

            return wrapped

        os.fsync = dies_in_time(os.fsync)
        Path.rename = dies_in_time(Path.rename)  # type: ignore[method-assign]
        shutil.rmtree = dies_in_time(shutil.rmtree)  # type: ignore[assignment]
        save_model(newer, saved)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9
    left_behind = load_model(saved)
    assert same_weights(left_behind, make_model()) or same_weights(left_behind, newer)
    save_model(newer, saved)
    assert same_weights(load_model(saved), newer)
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_a_folder_that_is_not_a_checkpoint_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="exists and is not a checkpoint"):
        save_model(make_model(), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_the_folder_of_a_run_gives_its_best_model(tmp_path: Path) -> None:
    model = make_model()
    save_model(model, tmp_path / "best")
    assert same_weights(load_model(tmp_path), model)


# ---- damaged and hostile input ----


def test_missing_folders_and_files_are_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        load_model(tmp_path / "nowhere")
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        load_model(saved)
    (saved / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        load_model(saved)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.99])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_cut_short_is_a_value_error_that_names_it(saved: Path, name: str, share: float) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=f"{name} is cut short"):
        load_model(saved)


def test_another_format_version_is_named_with_its_writer(saved: Path) -> None:
    edit_config(saved, format_version=99, versions={"neurokern": "7.0"})
    with pytest.raises(
        ValueError, match=r"format_version must be 1, got 99; it was written by neurokern 7\.0"
    ):
        load_model(saved)


def test_another_format_is_an_error(saved: Path) -> None:
    edit_config(saved, format="bert")
    with pytest.raises(ValueError, match="format must be 'neurokern-mtm', got 'bert'"):
        load_model(saved)


def test_weights_of_another_shape_are_an_error_before_they_are_read(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    tensors["prompts"] = torch.zeros(4, 17)
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"prompts .* must have shape \(4, 16\), got \(4, 17\)"):
        load_model(saved)


def test_missing_and_extra_weights_are_named(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    tensors["decoder.weight"] = tensors.pop("prompts")
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks \['prompts'\] and has unknown \['decoder.weight'\]"):
        load_model(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"sessions": [{"session": "one", "n_units": 10**12, "regions": None}]},
        {"sessions": [{"session": "one", "n_units": 0, "regions": None}]},
        {"sessions": [{"session": "one"}]},
        {"sessions": 3},
        {"model": {"n_layers": -1}},
        {"model": {"n_layers": 10**9}},
        {"model": {"hidden_size": "wide"}},
        {"model": {"layers": 3}},
        {"model": None},
    ],
)
def test_absurd_descriptions_are_value_errors_that_take_no_memory(saved: Path, changes: dict) -> None:
    edit_config(saved, **changes)
    with pytest.raises(ValueError, match="load_model"):
        load_model(saved)


def test_a_pickle_is_never_loaded(saved: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save({"weights": torch.zeros(2)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="pickled checkpoints are never loaded"):
        load_model(tmp_path / "model.pt")
    (saved / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="pickled checkpoints are never loaded"):
        load_model(saved)
    assert not (tmp_path / "exploded").exists()


def test_json_that_is_not_an_object_is_an_error(saved: Path) -> None:
    (saved / "config.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="must hold a JSON object, got list"):
        load_model(saved)
    (saved / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="not JSON"):
        load_model(saved)


# ---- what is inside ----


@pytest.mark.parametrize("recipe", ["paper", "small"])
def test_a_checkpoint_of_the_first_version_loads_and_predicts_what_it_did(recipe: str) -> None:
    """The files were written by neurokern 0.1 and are never written anew."""
    folder = Path(__file__).parent / "training" / "checkpoint_of_format_1"
    model = load_model(folder / recipe)
    expected = load_file(folder / f"{recipe}_output.safetensors")
    counts = expected.pop("counts")
    hidden = torch.zeros(2, 1, 3, dtype=torch.bool)
    hidden[:, :, 1] = True
    assert model.session_parts("mouse.1").regions == ("CA1", "CA1", "VISp")
    assert len(expected) == 4
    for name, log_rates in expected.items():
        scheme = name.removeprefix("log_rates/")
        predicted = model(counts.masked_fill(hidden, 0.0), "mouse.1", scheme, hidden)
        torch.testing.assert_close(predicted, log_rates, rtol=1e-5, atol=1e-6)


def test_weights_that_were_changed_after_they_were_written_are_refused(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    tensors["prompts"][0, 0] += 1.0
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is not the file .*another SHA-256"):
        load_model(saved)


def test_weights_with_a_description_of_another_model_are_refused(saved: Path, tmp_path: Path) -> None:
    other = save_model(make_model(small=True), tmp_path / "other")
    shutil.copy(other / "config.json", saved / "config.json")
    with pytest.raises(ValueError, match=r"model\.safetensors lacks \["):
        load_model(saved)
    same_shapes = save_model(make_model(seed=3), tmp_path / "third")
    shutil.copy(same_shapes / "model.safetensors", saved / "model.safetensors")
    shutil.copy(save_model(make_model(), tmp_path / "fourth") / "config.json", saved / "config.json")
    with pytest.raises(ValueError, match="another SHA-256"):
        load_model(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    model = make_model()
    model.prompts.data[1, 2] = value
    save_model(model, tmp_path / "model")
    with pytest.raises(ValueError, match=r"1 of 64 numbers of prompts in .* are NaN or infinite"):
        load_model(tmp_path / "model")


def test_a_pickle_is_refused_with_the_way_around(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"torch\.load\(file, weights_only=True\) and write it"):
        load_model(tmp_path / "model.pt")


def test_others_may_read_a_checkpoint(saved: Path) -> None:
    assert {file.stat().st_mode & 0o777 for file in saved.iterdir()} == {0o644}
