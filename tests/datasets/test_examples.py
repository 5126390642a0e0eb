"""The examples about datasets run as they are."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_spikes_to_batches_runs_on_the_packaged_recording(capsys, monkeypatch):
    script = EXAMPLES / "spikes_to_batches.py"
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    said = capsys.readouterr().out
    assert "289 units, 124905 spikes" in said
    assert "stand in for brain regions" in said
    assert said.count("counts (16, 50, 289)") == 10
    assert said.count("counts (6, 50, 289)") == 1
