"""``neurokern hub`` writes, prints, checks and uploads what the functions do, and ignores no flag."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from neurokern._config import write_yaml
from neurokern.checkpoint import save_model
from neurokern.cli import main
from neurokern.cli.settings import RunSettings
from neurokern.hub import from_pretrained, read_folder
from neurokern.models import MtM

CARD = {
    "title": "MtM of mice",
    "license": "mit",
    "data": [{"name": "Steinmetz et al. 2019", "license": "cc-by-4.0"}],
}


@pytest.fixture
def run_folder(model: MtM, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    save_model(model, folder / "best")
    write_yaml(folder / "run.yaml", RunSettings(data=("/data/Cori_2016-12-14.npz",), model=model.config))
    scores = {"predictor": ["MtM"], "task": ["co-smoothing"], "mean": [0.25], "low": [0.2], "high": [0.3]}
    pd.DataFrame(scores).assign(session_low=0.1, session_high=0.4).to_csv(folder / "scores.csv", index=False)
    few = pd.DataFrame(
        {"method": ["raw, ridge"], "shots": [5], "mean": [0.7], "session": ["Cori_2016-12-14"]}
    )
    few.to_csv(folder / "few_shot.csv", index=False)
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(CARD))
    return folder


def run(*arguments: object) -> int:
    return main(["hub", *map(str, arguments)])


def test_a_run_becomes_a_folder_that_is_checked_and_pushed(
    hub, run_folder: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "shared"
    saving = ("save", run_folder, "--out", out, "--card", tmp_path / "card.yaml", "--sessions", "pseudonyms")
    assert run(*saving) == 0
    assert "does not state" not in capsys.readouterr().out
    found = read_folder(out)
    assert found.card.title == "MtM of mice"
    scores, few_shot = found.metrics
    assert scores.startswith("bits per spike on test windows")
    assert few_shot == "decoding from few labeled windows"
    assert found.card.settings["training"]["batch_size"] == RunSettings().training.batch_size
    for file in out.iterdir():
        assert b"Cori" not in file.read_bytes()
    assert run("card", out) == 0
    assert "| MtM | co-smoothing | 0.25 [0.2, 0.3] |" in capsys.readouterr().out
    assert run("check", out) == 0
    assert "every file is whole and unchanged" in capsys.readouterr().out
    assert run("push", out, "lab/mtm", "--public") == 0
    assert "uploaded  https://hub.example/lab/mtm/commit/1" in capsys.readouterr().out
    assert hub.calls[1][1]["private"] is False
    assert from_pretrained("lab/mtm").sessions == ("session-1", "session-2")


def test_a_card_that_lacks_something_is_noted_at_once(run_folder: Path, tmp_path: Path, capsys) -> None:
    assert run("save", run_folder, "--out", tmp_path / "shared", "--license", "cc0-1.0") == 0
    shown = capsys.readouterr().out
    assert "does not state data" in shown
    assert "does not state license" not in shown


def test_damage_is_found_by_check(run_folder: Path, tmp_path: Path, capsys) -> None:
    assert run("save", run_folder, "--out", tmp_path / "shared") == 0
    file = tmp_path / "shared" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert run("check", tmp_path / "shared") == 2
    assert "model.safetensors is cut short" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("save", "run"), "hub save: needs --out FOLDER"),
        (("save", "run", "lab/x", "--out", "o"), "hub save: takes no repository"),
        (("push", "shared"), "hub push: needs OWNER/NAME"),
        (("push", "shared", "lab/x", "--out", "o"), "hub push: takes no --out"),
        (("card", "shared", "--public"), "hub card: takes no --public"),
        (("check", "nowhere/at/all"), "there is no folder"),
    ],
)
def test_flags_that_would_be_ignored_are_errors(arguments: tuple[str, ...], message: str, capsys) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_the_torch_range_in_the_card_is_that_of_the_package() -> None:
    from neurokern.hub.manifest import TORCH_RANGE

    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'torch = ["torch{TORCH_RANGE}"' in project
