"""Recordings and tables of M/EEG with what goes wrong in practice: an error that names it, or its result."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mne")

from recordings_on_disk import write_brainvision, write_edf, write_tables

from neurokern.datasets import BIDSDataset, MEEGWindows
from neurokern.extractors import MEEGExtractor


@pytest.fixture
def stem(tmp_path, monkeypatch):
    """Where the files of one recording go, without their endings."""
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "ds/sub-01/eeg/sub-01_task-a"


def recording(stem, ending="vhdr", events=((1.0, 0, "a"), (4.0, 0, "b")), **options):
    path = stem.with_name(f"{stem.name}_eeg.{ending}")
    (write_edf if ending == "edf" else write_brainvision)(path, **options)
    write_tables(stem, events=events)
    return path


def windows(stem, **options):
    return BIDSDataset(stem.parents[2], "eeg").with_extractor(
        MEEGExtractor(), **({"duration": 1.0} | options)
    )


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999, 0.0])
def test_an_edf_that_ends_anywhere_too_early_is_an_error(stem, kept):
    path = recording(stem, "edf")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=r"_eeg.edf: (is cut short|header must be)"):
        windows(stem)


def test_an_edf_with_more_records_than_its_header_tells_is_read_with_a_warning(stem):
    path = recording(stem, "edf")
    content = path.read_bytes()
    path.write_bytes(content + content[-800:])
    with pytest.warns(UserWarning, match="its header tells 10 records, 11 are there and are read"):
        assert len(windows(stem)) == 11


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (slice(252, 256), b"9999"),
        (slice(252, 256), b"-5  "),
        (slice(184, 192), b"99999999"),
        (slice(236, 244), b"99999999"),
        (slice(244, 252), b"nonsense"),
        (slice(1280 - 4 * 32 - 32, 1280 - 4 * 32), b"-100    " * 4),
    ],
)
def test_numbers_of_a_header_that_cannot_be_are_named_and_take_no_memory(stem, place, text):
    path = recording(stem, "edf")
    content = bytearray(path.read_bytes())
    content[place] = text
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"_eeg.edf: (header|is cut short|samples per record)"):
        windows(stem)


def test_signals_that_were_not_fetched_or_lie_nowhere_are_named(stem):
    path = recording(stem)
    signals = path.with_suffix(".eeg")
    signals.unlink()
    with pytest.raises(ValueError, match=r"_eeg.vhdr: .*No such file"):
        windows(stem)
    signals.symlink_to("../../.git/annex/objects/xx")
    with pytest.raises(FileNotFoundError, match=r"_eeg.eeg is a link to nowhere; fetch it first"):
        windows(stem)
    header = path.read_text()
    path.write_text(header.replace(f"DataFile={signals.name}", "DataFile=/etc/nothing"))
    with pytest.raises(ValueError, match=r"_eeg.vhdr: cannot be read"):
        windows(stem)


def test_a_recording_without_samples_is_named(stem):
    recording(stem, n_samples=0)
    with pytest.raises(ValueError, match=r"_eeg.vhdr: holds no samples"):
        windows(stem)


def test_a_recording_of_one_sample_is_one(stem):
    recording(stem, n_samples=1)
    data = BIDSDataset(stem.parents[2], "eeg").with_extractor(MEEGExtractor())
    assert data[0]["signal"].shape == (1, 3)
    with pytest.raises(ValueError, match=r"no window of 1.0 s fits into recordings of up to 0.01 s"):
        windows(stem)


def test_events_beyond_the_end_are_left_out_with_a_warning_and_doubles_are_kept(stem):
    recording(stem, events=[(1.0, 0, "a"), (1.0, 0, "a"), (1.0, 0, "b"), (500, 0, "a"), (-3, 0, "b")])
    with pytest.warns(UserWarning, match="left out windows: 2 that reach beyond their recording"):
        data = windows(stem, duration=None, events=True, tmax=1.0)
    assert data.table["condition"].tolist() == ["a", "a", "b"]
    recording(stem, events=[(1000, 0, "a"), (5000, 0, "b")])  # milliseconds
    with pytest.raises(ValueError, match=r"left out 2 that reach beyond their recording"):
        windows(stem, duration=None, events=True, tmax=1.0)


def test_events_without_a_condition_have_no_windows(stem):
    recording(stem, events=[(1.0, 0, "a"), (2.0, 0, "n/a"), (3.0, 0, "b")])
    data = windows(stem, duration=None, events=True, tmax=1.0)
    assert data.table["condition"].tolist() == ["a", "b"]


def test_a_channel_that_is_listed_with_two_types_is_an_error_and_twice_alike_is_none(stem):
    recording(stem)
    table = stem.with_name("sub-01_task-a_channels.tsv")
    text = table.read_text()
    table.write_text(f"{text}Pz\tEOG\tuV\tgood\n")
    with pytest.raises(ValueError, match=r"its _channels.tsv lists Pz several times, with other types"):
        windows(stem)
    table.write_text(f"{text}Pz\tEEG\tuV\tgood\n")
    with pytest.warns(UserWarning, match="1 of the table not in the file"):
        assert windows(stem).channels(0).names == ("FC5", "Cz", "Pz")


def test_positions_that_are_no_numbers_stay_unknown(stem):
    recording(stem)
    (stem.parent / "sub-01_electrodes.tsv").write_text(
        "name\tx\ty\tz\nCZ\tn/a\t1\t2\nPz\tinf\t1\t1\nFc5.\t1\t2\t3\n"
    )
    positions = windows(stem).channels(0).positions
    np.testing.assert_allclose(positions[0], [1e-3, 2e-3, 3e-3])
    assert np.isnan(positions[1, 0])
    assert not np.isinf(positions).any()


@pytest.mark.parametrize("told", ["100", 0, None, [100], True])
def test_a_rate_that_makes_no_sense_leaves_the_files_own(stem, told):
    recording(stem)
    stem.with_name("sub-01_task-a_eeg.json").write_text(json.dumps({"SamplingFrequency": told}))
    if told == 0 or told is True:
        with pytest.warns(UserWarning, match="the file is believed"):
            assert windows(stem).sfreqs.tolist() == [100.0]
    else:
        assert windows(stem).sfreqs.tolist() == [100.0]


def test_a_file_outside_of_any_folder_needs_no_table(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    write_brainvision(tmp_path / "a b (1).vhdr")
    assert len(MEEGWindows(tmp_path / "a b (1).vhdr", MEEGExtractor("all"), duration=1.0)) == 10
