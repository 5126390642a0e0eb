"""The few-shot examples run on real recordings, and what docs/results.md says of them holds within bounds."""

import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_example(monkeypatch, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    return runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_objects_are_decoded_from_inferotemporal_cortex(shared_data, monkeypatch, capsys):
    file = shared_data / "spikes" / "macaque_it_zd7" / "zd7_rasters.npz"
    table = run_example(monkeypatch, "few_shot_objects.py", file, 2)["table"]
    mean = table.set_index(["method", "shots"])["mean"]
    assert mean["counts, ridge", 20] > 0.75
    assert mean["counts, lda", 10] > 0.65
    assert 0.25 < mean["counts, ridge", 1] < 0.6
    assert abs(table["shuffled"].mean() - 1 / 7) < 0.06
    assert "7 objects, 59 trials of each, 132 neurons" in capsys.readouterr().out


def test_adapters_of_a_plain_network_run_on_eeg_of_unseen_people(shared_data, monkeypatch, capsys):
    file = shared_data / "eeg" / "uci_vep_14sub.npz"
    found = run_example(monkeypatch, "few_shot_across_subjects.py", file, 2, 1, 1)
    table, task = found["table"], found["tasks"][0]
    assert {"band power, ridge", "network, lora", "network, scratch"} <= set(table["method"])
    assert not set(task.groups[task.support_pool]) & set(task.groups[task.query])
    assert sorted(task.labels[task.query]) == ["a"] * 5 + ["c"] * 5
    assert "n_sessions" in capsys.readouterr().out
