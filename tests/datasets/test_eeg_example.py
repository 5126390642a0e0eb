"""The example of EEG runs as it stands."""

import runpy
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mne")

from recordings_on_disk import write_brainvision, write_edf, write_tables  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples/eeg_to_batches.py"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_eeg_to_batches_shows_ragged_batches_and_responses(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    events = [(k + 0.5, 0, "go" if k % 2 else "stop") for k in range(8)]
    stem = tmp_path / "ds/sub-1/eeg/sub-1_task-a"
    write_brainvision(stem.with_name("sub-1_task-a_eeg.vhdr"))
    write_tables(stem, events=events)
    write_edf(tmp_path / "ds/sub-2/eeg/sub-2_task-a_eeg.edf", names=("F3", "F4"))
    write_tables(tmp_path / "ds/sub-2/eeg/sub-2_task-a", names=("F3", "F4"), events=events, positions=False)
    monkeypatch.setattr(sys, "argv", ["eeg_to_batches.py", str(tmp_path / "ds")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    shown = capsys.readouterr().out
    assert "signal (16, 100, 3)" in shown
    assert "0 go: 8 windows, largest average" in shown
