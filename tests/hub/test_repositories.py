"""Repositories are read from the cache, written with the files of the model alone, private at first."""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from neurokern.hub import ModelCard, from_pretrained, push_to_hub, read_folder, save_pretrained
from neurokern.models import MtM

SESSIONS = ("Cori_2016-12-14", "sub-01/ses 2")


def test_a_model_goes_to_the_hub_and_comes_back_under_pseudonyms(hub, model: MtM, card: ModelCard) -> None:
    assert push_to_hub(model, "lab/mtm", card=card, token="secret") == "https://hub.example/lab/mtm/commit/1"
    assert hub.calls[0] == ("HfApi", {"token": "secret"})
    assert hub.calls[1][1] == {"repo_id": "lab/mtm", "private": True, "repo_type": "model", "exist_ok": True}
    found = from_pretrained("lab/mtm", revision="v1", local_files_only=True)
    assert found.sessions == ("session-1", "session-2")
    assert torch.equal(found.positions, model.positions)
    download = hub.calls[-1][1]
    assert (download["revision"], download["local_files_only"]) == ("v1", True)
    assert not any("*" in pattern or ".bin" in pattern for pattern in download["allow_patterns"])
    for file in (hub.place / "lab" / "mtm").iterdir():
        assert not any(name.encode() in file.read_bytes() for name in SESSIONS)


def test_only_the_files_of_the_model_leave_a_folder(hub, model: MtM, card: ModelCard, tmp_path: Path) -> None:
    folder = save_pretrained(model, tmp_path / "shared", card=card, sessions="pseudonyms")
    (folder / "run.yaml").write_text("data: [/home/me/Cori]")
    (folder / "optimizer.pt").write_bytes(b"x")
    push_to_hub(folder, "lab/mtm", private=False)
    uploaded = sorted(p.name for p in (hub.place / "lab" / "mtm").iterdir())
    assert uploaded == ["README.md", "config.json", "hub.json", "model.safetensors"]
    assert hub.calls[1][1]["private"] is False
    assert read_folder("lab/mtm").card == card
    assert 'from_pretrained("lab/mtm")' in (hub.place / "lab" / "mtm" / "README.md").read_text()
    assert 'from_pretrained("OWNER/NAME")' in (folder / "README.md").read_text()


def test_names_of_sessions_leave_the_house_only_when_asked(
    hub, model: MtM, card: ModelCard, tmp_path: Path
) -> None:
    folder = save_pretrained(model, tmp_path / "shared", card=card)
    with pytest.raises(ValueError, match="holds the names of its sessions"):
        push_to_hub(folder, "lab/mtm")
    assert not hub.place.exists()
    push_to_hub(folder, "lab/mtm", sessions="keep")
    assert from_pretrained("lab/mtm").sessions == SESSIONS


def test_a_card_without_license_or_data_is_not_published(hub, model: MtM, card: ModelCard) -> None:
    for incomplete in (None, ModelCard(), replace(card, data=()), replace(card, license="not stated")):
        with pytest.raises(ValueError, match="must state the license of the weights"):
            push_to_hub(model, "lab/mtm", card=incomplete)
    assert not hub.place.exists()


def test_a_damaged_folder_is_not_published(hub, model: MtM, card: ModelCard, tmp_path: Path) -> None:
    folder = save_pretrained(model, tmp_path / "shared", card=card, sessions="drop")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="is cut short"):
        push_to_hub(folder, "lab/mtm")
    with pytest.raises(ValueError, match=r"uploaded as it is; got \['card'\]"):
        push_to_hub(folder, "lab/mtm", card=card)
    assert not hub.place.exists()


def test_a_folder_comes_before_a_repository_of_its_name(hub, model: MtM, tmp_path: Path, monkeypatch) -> None:
    save_pretrained(model, tmp_path / "lab" / "mtm")
    monkeypatch.chdir(tmp_path)
    assert from_pretrained("lab/mtm").sessions == SESSIONS
    assert hub.calls == []


@pytest.mark.parametrize("name", ["mtm", "a/b/c", "lab/", "/mtm", "lab/m t m", "", "-x/y"])
def test_names_that_are_no_repository_are_errors(hub, model: MtM, card: ModelCard, name: str) -> None:
    with pytest.raises(ValueError, match="repo_id must be 'owner/name'"):
        push_to_hub(model, name, card=card)
    if name:
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            from_pretrained(name)
    assert hub.calls == []


def test_a_repository_that_is_not_there_says_what_to_check(hub) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"lab/none at revision 'v2' was not found in the cache \(404 for"
    ):
        from_pretrained("lab/none", revision="v2", local_files_only=True)


def test_without_huggingface_hub_folders_work_and_repositories_name_the_extra(
    model: MtM, card: ModelCard, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert from_pretrained(save_pretrained(model, tmp_path / "shared")).sessions == SESSIONS
    for call in (lambda: from_pretrained("lab/mtm"), lambda: push_to_hub(model, "lab/mtm", card=card)):
        with pytest.raises(ImportError, match=r"pip install 'neurokern\[hub\]'"):
            call()


def test_the_real_library_takes_the_arguments_that_are_passed(
    hub, model: MtM, card: ModelCard, monkeypatch
) -> None:
    push_to_hub(model, "lab/mtm", card=card)
    from_pretrained("lab/mtm")
    monkeypatch.undo()
    library = pytest.importorskip("huggingface_hub")
    functions = {
        "HfApi": library.HfApi,
        "create_repo": library.HfApi().create_repo,
        "upload_folder": library.HfApi().upload_folder,
        "snapshot_download": library.snapshot_download,
    }
    for name, options in hub.calls:
        options = {"folder_path": "x", **options} if name == "upload_folder" else options
        inspect.signature(functions[name]).bind(**options)


def test_the_real_library_finds_nothing_in_an_empty_cache(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(FileNotFoundError, match="lab/none was not found in the cache"):
        from_pretrained("lab/none", local_files_only=True, cache_dir=tmp_path)
