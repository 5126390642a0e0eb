"""The examples of EEG run as they stand."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mne")

from recordings_on_disk import write_brainvision, write_edf, write_tables  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples/eeg_to_batches.py"
FEDERATED = EXAMPLE.with_name("federated_sites.py")


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


def write_site(folder, names, seed):
    """Write a recording whose electrodes rise after "go" and fall after "stop", each by its own share."""
    stem = folder / "sub-1/eeg/sub-1_task-a"
    write_brainvision(stem.with_name("sub-1_task-a_eeg.vhdr"), names=names, n_samples=6000, seed=seed)
    random = np.random.default_rng(seed)
    kinds = random.permutation(["go", "stop"] * 28)
    write_tables(stem, names=names, events=[(k + 1.0, 0, kind) for k, kind in enumerate(kinds)])
    signals = stem.with_name("sub-1_task-a_eeg.eeg")
    counts = np.fromfile(signals, "<i2").reshape(-1, len(names)) // 2
    share = random.choice([-1500, 1500], len(names))
    for k, kind in enumerate(kinds):
        counts[100 * k + 110 : 100 * k + 140] += (share * (1 if kind == "go" else -1)).astype("<i2")
    counts.astype("<i2").tofile(signals)


def test_sites_with_other_electrodes_train_one_body_and_keep_their_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    for name, electrodes in (("north", ("F3", "F4", "Cz")), ("south", ("O1", "O2", "Oz", "Pz", "P3"))):
        write_site(tmp_path / name, electrodes, seed=len(electrodes))
    example = runpy.run_path(str(FEDERATED))
    example["main"](str(tmp_path / "north"), str(tmp_path / "south"))
    shown = capsys.readouterr().out
    rows = re.findall(r"(\d+) windows to train, (\d+) to test, ([\d.]+) right", shown)
    assert len(rows) == 2
    assert all(int(train) > 2 * int(test) for train, test, _ in rows)
    assert all(float(right) > 0.85 for _, _, right in rows)
    (site, _) = example["sites_of"]([str(tmp_path / "north"), str(tmp_path / "south")])
    train, test = (part.spans() for part in (site.parts.train, site.parts.test))
    assert train[2].max() + 0.5 <= test[1].min() + 1e-6
