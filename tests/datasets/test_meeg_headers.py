"""What headers tell is kept: the same windows without opening the files, never those of other files."""

import json
import os
import warnings

import numpy as np
import pytest

pytest.importorskip("torch")
mne = pytest.importorskip("mne")

from recordings_on_disk import write_brainvision, write_edf, write_tables  # noqa: E402

from neurokern.datasets import BIDSDataset, MEEGWindows  # noqa: E402
from neurokern.extractors import MEEGExtractor, _meeg_facts  # noqa: E402


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_meeg_facts, "_SETTLED", -(10**18))  # files may be as new as those of tests
    for k in range(3):
        stem = tmp_path / f"ds/sub-0{k}/eeg/sub-0{k}_task-a"
        write_brainvision(stem.with_name(f"{stem.name}_eeg.vhdr"), seed=k)
        write_tables(stem, bad=("Pz",), events=[(1.0, 0, "go"), (4.0, 0, "stop")])
    return tmp_path / "ds"


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that MNE opens."""
    names = []
    read = mne.io.read_raw

    def counted(path, **options):
        names.append(path.name)
        return read(path, **options)

    monkeypatch.setattr(mne.io, "read_raw", counted)
    return names


def windows(root, **options):
    return BIDSDataset(root, "eeg").with_extractor(MEEGExtractor(**options), events=True, tmax=1.0)


def facts_of(data):
    told = [
        (c.names, c.types, c.frame, c.regions, c.bad.tolist(), str(c.positions), str(c.orientations))
        for c in (data.channels(i) for i in range(len(data.runs)))
    ]
    return told, data.table.to_csv(), data.sfreqs.tolist(), data.conditions


@pytest.mark.parametrize("options", [{}, {"resample": 50.0, "l_freq": 1.0}, {"picks": "all", "bads": "keep"}])
def test_files_that_were_looked_at_once_are_not_opened_to_make_windows(root, opened, options):
    first = windows(root, **options)
    assert len(opened) == 3
    signal = first.batch(range(6))["signal"]
    del opened[:]
    again = windows(root, **options)
    assert opened == []
    assert facts_of(again) == facts_of(first)
    np.testing.assert_array_equal(again.batch(range(6))["signal"], signal)
    assert opened == []  # the signals are in the cache, too


def test_annotations_and_triggers_in_the_file_are_kept_with_their_times(tmp_path, root, opened):
    path = tmp_path / "alone.vhdr"
    write_brainvision(path, markers=[("Stimulus,S  1", 101), ("Stimulus,S  2", 301)])
    first = MEEGWindows(path, MEEGExtractor(), events=True, tmax=0.5)
    again = MEEGWindows(path, MEEGExtractor(), events=True, tmax=0.5)
    assert len(opened) == 1
    assert facts_of(again) == facts_of(first)
    assert again.table["start"].tolist() == [1.0, 3.0]


@pytest.mark.parametrize("change", ["signals", "header", "table", "options"])
def test_another_file_table_or_option_is_looked_at(root, opened, change):
    windows(root)
    del opened[:]
    stem = root / "sub-01/eeg/sub-01_task-a"
    wanted = ["sub-01_task-a_eeg.vhdr"]
    if change == "signals":
        write_brainvision(stem.with_name("sub-01_task-a_eeg.vhdr"), seed=9)
    elif change == "header":
        header = stem.with_name("sub-01_task-a_eeg.vhdr")
        status = header.stat()
        header.write_text(header.read_text().replace("Fc5.", "Fc6."))
        os.utime(header, ns=(status.st_atime_ns, status.st_mtime_ns))  # as large and as old as before
        (stem.with_name("sub-01_task-a_channels.tsv")).unlink()
    elif change == "table":
        write_tables(stem, events=[(1.0, 0, "go"), (4.0, 0, "stop")])
    else:
        wanted = [f"sub-0{k}_task-a_eeg.vhdr" for k in range(3)]
    data = windows(root, **({"bads": "keep"} if change == "options" else {}))
    assert opened == wanted
    names = data.channels(1).names
    assert names == {
        "signals": ("FC5", "Cz"), "header": ("FC6", "Cz", "Pz", "EOG1"),
        "table": ("FC5", "Cz", "Pz"), "options": ("FC5", "Cz", "Pz"),
    }[change]  # fmt: skip


def test_files_that_were_written_to_just_now_are_looked_at_again(root, opened, monkeypatch):
    monkeypatch.setattr(_meeg_facts, "_SETTLED", 2 * 10**9)
    windows(root)
    windows(root)
    assert len(opened) == 6


def test_what_was_warned_of_is_warned_of_again(root):
    sidecar = root / "sub-00/eeg/sub-00_task-a_eeg.json"
    (root / "sub-00/eeg/sub-00_task-a_channels.tsv").write_text("name\ttype\nCz\tEEG\n")
    for rate in (100, 500):
        sidecar.write_text(json.dumps({"SamplingFrequency": rate}))
        for _ in range(2):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                MEEGExtractor("all").channels(BIDSDataset(root, "eeg", subject="00").run(0))
            texts = [str(one.message) for one in told]
            assert any("3 channels of the file are not in" in text for text in texts)
            contradicts = any("SamplingFrequency of its sidecar is 500 Hz" in text for text in texts)
            assert contradicts == (rate == 500)


def test_a_damaged_entry_and_a_cache_that_cannot_be_written_change_nothing(root, tmp_path, opened):
    wanted = facts_of(windows(root))
    for file in (tmp_path / "cache/headers").iterdir():
        file.write_bytes(file.read_bytes()[:-5])
    assert facts_of(windows(root)) == wanted
    assert len(opened) == 6
    for file in (tmp_path / "cache/headers").iterdir():
        file.unlink()
    (tmp_path / "cache/headers").rmdir()
    (tmp_path / "cache/headers").write_text("in the way")
    assert facts_of(windows(root)) == wanted


def test_without_a_cache_nothing_is_kept(tmp_path, root, opened):
    write_edf(tmp_path / "a.edf")
    for _ in range(2):
        MEEGWindows(tmp_path / "a.edf", MEEGExtractor(cache=False))
    assert not (tmp_path / "cache").exists()
    assert len(opened) == 2


def test_files_of_one_folder_given_by_their_paths_index_it_once(root, monkeypatch):
    from neurokern.datasets import bids

    indexed = []
    index = bids.BIDSIndex

    class Counted(index):
        def __init__(self, path):
            indexed.append(path)
            super().__init__(path)

    monkeypatch.setattr(bids, "BIDSIndex", Counted)
    (root / "dataset_description.json").write_text("{}")
    paths = sorted(root.rglob("*.vhdr"))
    data = MEEGWindows(paths, MEEGExtractor(), events=True, tmax=1.0)
    assert [run.entities["subject"] for run in data.runs] == ["00", "01", "02"]
    assert len(indexed) == 1


def test_markers_that_were_written_anew_in_place_are_read(tmp_path, root, opened):
    path = tmp_path / "alone.vhdr"
    write_brainvision(path, markers=[("Stimulus,S  1", 101)])
    assert MEEGWindows(path, MEEGExtractor(), events=True, tmax=0.5).table["start"].tolist() == [1.0]
    markers = path.with_suffix(".vmrk")
    markers.write_text(markers.read_text().replace(",101,", ",201,"))
    assert MEEGWindows(path, MEEGExtractor(), events=True, tmax=0.5).table["start"].tolist() == [2.0]
