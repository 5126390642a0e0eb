"""A shared folder comes back bit for bit, says nothing of subjects, and is trusted in nothing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from neurokern.checkpoint import save_model, sha256_of
from neurokern.hub import HubFolder, ModelCard, from_pretrained, read_folder, save_pretrained
from neurokern.models import MtM

SESSIONS = ("Cori_2016-12-14", "sub-01/ses 2")


@pytest.fixture
def saved(model: MtM, card: ModelCard, tmp_path: Path) -> Path:
    scores = pd.DataFrame(
        {"predictor": ["MtM"], "task": ["co-smoothing"], "mean": [0.25], "low": [0.2], "high": [0.3]}
    )
    alignment = pd.DataFrame({"layer": ["layers.0"], "region": ["VISp"], "score": [0.5], "low": [0.4],
                              "high": [0.6], "ceiling": [np.nan], "n_samples": [60]})  # fmt: skip
    alignment.attrs = {"method": "rsa"}
    return save_pretrained(
        model, tmp_path / "shared", card=card, metrics={"test windows": scores}, alignment={"RSA": alignment}
    )


def weights(model: MtM) -> dict:
    return model.state_dict()


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_model_comes_back_bit_for_bit_without_a_network(saved: Path, model: MtM) -> None:
    found = from_pretrained(saved)
    assert not found.training
    assert found.sessions == SESSIONS
    assert all(torch.equal(found.state_dict()[k], v) for k, v in model.state_dict().items())
    counts = torch.ones(2, 8, 5)
    assert torch.equal(found(counts, SESSIONS[0], "causal"), model(counts, SESSIONS[0], "causal"))
    files = ["README.md", "alignment.json", "config.json", "hub.json", "metrics.json", "model.safetensors"]
    assert sorted(p.name for p in saved.iterdir()) == files


def test_card_scores_and_alignment_come_back(saved: Path, card: ModelCard) -> None:
    found = read_folder(saved)
    assert isinstance(found, HubFolder)
    assert (found.kind, found.sessions, found.card) == ("mtm", "keep", card)
    assert found.metrics["test windows"]["mean"].tolist() == [0.25]
    assert found.alignment["RSA"].attrs == {"method": "rsa"}
    assert np.isnan(found.alignment["RSA"]["ceiling"][0])


def test_the_card_tells_what_a_user_must_know(saved: Path) -> None:
    text = (saved / "README.md").read_text()
    expected = """
        license: mit
        library_name: neurokern
        # MtM of mice | visual task
        | Steinmetz et al. 2019 | cc-by-4.0 |
        | MtM | co-smoothing | 0.25 [0.2, 0.3] |
        | layers.0 | VISp | 0.5 [0.4, 0.6] | 60 |
        method: rsa
        torch >=2.4
        hidden_size: 16
        CA1, VISp, root
        2 (names withheld here)
        ## Limits
        us, 2026"""
    for line in expected.strip().splitlines():
        assert line.strip() in text, line


def test_no_name_of_a_session_is_in_card_manifest_or_tables(saved: Path) -> None:
    for name in ("README.md", "hub.json", "metrics.json", "alignment.json"):
        text = (saved / name).read_text()
        assert not any(part in text for part in ("Cori", "2016-12", "sub-01", "ses 2")), name


@pytest.mark.parametrize("option", ["pseudonyms", "drop"])
def test_names_of_sessions_stay_at_home_when_asked(model: MtM, tmp_path: Path, option: str) -> None:
    folder = save_pretrained(model, tmp_path / "shared", sessions=option)
    for file in folder.iterdir():
        content = file.read_bytes()
        assert b"Cori" not in content
        assert b"sub-01" not in content
    found = from_pretrained(folder)
    counts = torch.ones(2, 8, 5)
    if option == "drop":
        assert found.sessions == ()
        assert not any(name.startswith("parts.") for name in load_file(folder / "model.safetensors"))
        found.add_session("mine", 5, counts=np.ones((4, 8, 5)) + np.arange(5))
    else:
        assert found.sessions == ("session-1", "session-2")
        assert torch.equal(found(counts, "session-1", "neuron"), model(counts, SESSIONS[0], "neuron"))
    assert model.sessions == SESSIONS


def test_tables_that_name_subjects_are_refused_and_nothing_is_written(model: MtM, tmp_path: Path) -> None:
    for column in ("subject", "session", "Participant_ID", "mouse_name"):
        table = pd.DataFrame({column: ["a"], "mean": [0.1]})
        with pytest.raises(ValueError, match="must not say who the subjects were"):
            save_pretrained(model, tmp_path / "shared", metrics={"scores": table})
    assert list(tmp_path.iterdir()) == []
    counted = pd.DataFrame({"n_sessions": [2], "session_low": [0.0], "mean": [0.1]})
    save_pretrained(model, tmp_path / "shared", metrics={"scores": counted})


def test_what_a_card_holds_cannot_break_its_tables_or_blocks(model: MtM, tmp_path: Path) -> None:
    card = ModelCard.from_dict(
        {
            "title": "a\n# b",
            "data": [{"name": "x | y\nz"}],
            "settings": {"note": "```\nrm"},
            "limits": ["one\ntwo"],
        }
    )
    text = (save_pretrained(model, tmp_path / "shared", card=card) / "README.md").read_text()
    assert "# a # b\n" in text
    assert "| x \\| y z | not stated |" in text
    assert text.count("```") == 4
    assert "- one two\n" in text


def test_checkpoints_and_runs_are_read_too(model: MtM, tmp_path: Path) -> None:
    save_model(model, tmp_path / "run" / "best")
    assert from_pretrained(tmp_path / "run").sessions == SESSIONS
    with pytest.raises(ValueError, match=r"holds no hub\.json; write it with save_pretrained"):
        read_folder(tmp_path / "run" / "best")


def test_a_folder_that_an_earlier_version_wrote_is_read() -> None:
    """It was written once and stays as it is: a change that breaks it breaks what people have shared."""
    kept = Path(__file__).parent / "folder_of_format_1"
    rates = from_pretrained(kept)(torch.ones(1, 6, 3), "monday", "causal")
    expected = [0.1109200269, 0.2277840674, 0.2627201676]
    np.testing.assert_allclose(rates[0, 0].detach(), expected, rtol=1e-4)
    found = read_folder(kept)
    assert (found.card.title, found.card.data[0].license) == ("kept", "cc0-1.0")
    assert found.alignment["RSA"]["score"].tolist() == [0.5]


# ---- damaged and hostile input ----


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "alignment.json"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_file_cut_short_says_so(saved: Path, name: str, share: float) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=f"{name} is cut short: it has .* bytes of {len(content)}"):
        from_pretrained(saved)


def test_one_changed_bit_is_found(saved: Path) -> None:
    content = bytearray((saved / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors was damaged or exchanged: its SHA-256"):
        from_pretrained(saved)


def test_missing_files_are_named(saved: Path) -> None:
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing, which hub\.json lists"):
        from_pretrained(saved)


def test_a_later_major_version_is_named_with_the_remedy(saved: Path, model: MtM, tmp_path: Path) -> None:
    edit(saved / "hub.json", versions={"neurokern": "7.2.0"}, format_version=3)
    with pytest.raises(ValueError, match=r"written by neurokern 7\.2\.0, .* pip install --upgrade neurokern"):
        from_pretrained(saved)
    plain = save_model(model, tmp_path / "plain")
    edit(plain / "config.json", versions={"neurokern": "7.2.0"})
    with pytest.raises(ValueError, match="pip install --upgrade neurokern"):
        from_pretrained(plain)
    for versions in ({}, {"neurokern": "new"}, None, 3):
        edit(saved / "hub.json", versions=versions)
        with pytest.raises(ValueError, match="does not say which neurokern wrote it"):
            from_pretrained(saved)


def rewrite_weights(saved: Path, tensors: dict) -> None:
    """Exchange the weights as somebody would who wants the hashes to agree."""
    file = saved / "model.safetensors"
    save_file(tensors, file)
    manifest = json.loads((saved / "hub.json").read_text())
    edit(saved / "config.json", weights_sha256=sha256_of(file))
    for name in ("model.safetensors", "config.json"):
        manifest["files"][name] = {"sha256": sha256_of(saved / name), "bytes": (saved / name).stat().st_size}
    (saved / "hub.json").write_text(json.dumps(manifest))


def test_weights_that_are_nan_are_refused_on_both_ways(saved: Path, model: MtM, tmp_path: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    tensors["positions"][0, 0] = torch.nan
    rewrite_weights(saved, tensors)
    with pytest.raises(ValueError, match=r"positions .* NaN"):
        from_pretrained(saved)
    model.positions.data[0, 0] = torch.inf
    with pytest.raises(ValueError, match="weights must be finite, got NaN or infinity in positions"):
        save_pretrained(model, tmp_path / "nan")
    assert not (tmp_path / "nan").exists()


def test_an_unknown_setting_is_named(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    config = json.loads((saved / "config.json").read_text())
    edit(saved / "config.json", model={**config["model"], "n_experts": 8})
    rewrite_weights(saved, tensors)
    with pytest.raises(ValueError, match=r"unknown settings \['n_experts'\]"):
        from_pretrained(saved)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "epoch=3.ckpt", "w.PKL"])
def test_pickles_are_refused_with_the_remedy(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"weights": 1}))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"never loaded.*weights_only=True.*save_pretrained"):
        from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="pickled weights are never loaded"):
        from_pretrained(tmp_path / name)


@pytest.mark.parametrize(
    "files",
    [
        None,
        {},
        {"config.json": {"sha256": "", "bytes": 0}},
        {"config.json": 3, "model.safetensors": 3},
        {"config.json": {}, "model.safetensors": {}, "../../etc/passwd": {"sha256": "", "bytes": 1}},
    ],
)
def test_absurd_manifests_are_value_errors(saved: Path, files: object) -> None:
    edit(saved / "hub.json", files=files)
    with pytest.raises(ValueError, match="from_pretrained"):
        from_pretrained(saved)


def test_other_files_than_folders_and_other_models_are_refused(
    saved: Path, model: MtM, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="pass the folder that holds it"):
        from_pretrained(saved / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        from_pretrained(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="must be an MtM or an AdaptedModel, got Linear"):
        save_pretrained(torch.nn.Linear(2, 2), tmp_path / "other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sessions must be one of 'keep'"):
        save_pretrained(model, tmp_path / "other", sessions="none")
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is not a checkpoint"):
        save_pretrained(model, tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"licence": "mit"},
        {"data": "Steinmetz"},
        {"data": [{"title": "x"}]},
        {"data": [3]},
        {"title": 3},
        {"limits": "one"},
        {"settings": []},
        3,
    ],
)
def test_cards_that_hold_something_else_are_errors(values: object) -> None:
    with pytest.raises(ValueError, match="ModelCard"):
        ModelCard.from_dict(values)  # type: ignore[arg-type]
