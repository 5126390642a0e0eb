"""``neurokern info`` of EEG, NWB and Kilosort: what they hold, and what does not fit together."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from neurokern.cli import main

pytest.importorskip("mne")
pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[1] / "datasets"))

from recordings_on_disk import write_brainvision, write_edf, write_tables


def info(capsys, *arguments):
    assert main(["info", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_info_of_a_recording_tells_channels_rate_and_events(tmp_path, capsys):
    write_brainvision(tmp_path / "a.vhdr", markers=[("Stimulus,S  1", 100), ("Stimulus,S  1", 300)])
    facts = info(capsys, tmp_path / "a.vhdr")[0]
    assert facts["channels"] == {"eeg": 4}
    assert (facts["sfreq_hz"], facts["seconds"]) == (100.0, 10.0)
    assert facts["conditions"] == {"Stimulus/S  1": 2}
    assert main(["info", str(tmp_path / "a.vhdr")]) == 0
    assert "10 s, 1,000 samples at 100 Hz" in capsys.readouterr().out


def test_info_of_a_folder_warns_of_events_that_do_not_fit(tmp_path, capsys):
    stem = tmp_path / "sub-01/eeg/sub-01_task-a"
    write_brainvision(stem.with_name("sub-01_task-a_eeg.vhdr"))
    events = [(1, 0, "go"), (1, 0, "go"), (1, 0, "stop"), (5000, 0, "go"), (-3, 0, "go"), ("n/a", 0, "go")]
    write_tables(stem, bad=("Pz",), events=events)
    write_edf(tmp_path / "sub-02/eeg/sub-02_task-a_eeg.edf")
    broken = tmp_path / "sub-02/eeg/sub-02_task-a_eeg.edf"
    broken.write_bytes(broken.read_bytes()[:-500])
    facts = info(capsys, tmp_path)[0]
    said = " ".join(facts["warnings"])
    wanted = ("begin after the end", "begin before", "1 events stand twice", "1 events have no onset")
    for words in (*wanted, "is cut short: 9 of 10 records"):
        assert words in said, words
    assert facts["recordings"][0]["bad_channels"] == ["Pz"]
    assert main(["info", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "eeg, task a: 1 recording of 10 s, 3 eeg, 1 eog, 100 Hz" in shown
    assert "eeg: 1 recording that cannot be read" in shown


def test_info_finds_nwb_and_kilosort_in_a_folder(tmp_path, capsys):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        file["units/id"], file["units/spike_times"] = [4, 5], [0.5, 1.0, 2.0]
        file["units/spike_times_index"] = [2, 3]
    folder = tmp_path / "sorted"
    folder.mkdir()
    np.save(folder / "spike_times.npy", np.array([10, 20]))
    np.save(folder / "spike_clusters.npy", np.array([0, 3]))
    (folder / "params.py").write_text("sample_rate = 30000")
    facts = info(capsys, tmp_path)
    assert [(one["source"], one["units"], one["spikes"]) for one in facts] == [
        ("a.nwb", 2, 3),
        ("sorted", 2, 2),
    ]
