"""Every example runs as it stands, with few steps."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SHOWN = {"spikes_to_scores.py": "co-smoothing", "few_shot_on_your_trials.py": "raw counts, ridge"}


def test_every_example_is_run_here():
    tested_elsewhere = {"spikes_to_batches.py"}  # tests/datasets
    assert {path.name for path in EXAMPLES.glob("*.py")} - tested_elsewhere == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_runs_and_shows_its_result(name, monkeypatch, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    monkeypatch.setattr(sys, "argv", [name, "3"])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert SHOWN[name] in capsys.readouterr().out
