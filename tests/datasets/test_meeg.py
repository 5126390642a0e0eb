"""Windows of EEG: the right samples, channels and events, through the cache, in any form of file."""

import json
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")
mne = pytest.importorskip("mne")

from recordings_on_disk import NAMES, write_brainvision, write_edf, write_tables  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from neurokern.datasets import (  # noqa: E402
    CHANNEL_TYPES,
    BIDSDataset,
    FMRIWindows,
    MEEGWindows,
    collate_windows,
    pack_channels,
)
from neurokern.extractors import MEEGExtractor  # noqa: E402
from neurokern.ops import _array_cache  # noqa: E402

STANDARD = "colin27_1020" if "colin27_1020" in mne.channels.get_builtin_montages() else "standard_1020"
EVENTS = [(1.0, 0.5, "go"), (1.0, 0.5, "stop"), (2.004, "n/a", "go"), ("n/a", 0, "go"), (9.9, 0, "stop")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_array_cache, "_LEAST_FREE", 0)
    return tmp_path / "cache" / "packed_runs"


@pytest.fixture
def root(tmp_path):
    """One BrainVision recording of 4 channels with tables, and an EDF of 2 without."""
    root = tmp_path / "ds"
    stem = root / "sub-01/eeg/sub-01_task-a"
    write_brainvision(stem.with_name("sub-01_task-a_eeg.vhdr"))
    write_tables(stem, bad=("Pz",), events=EVENTS)
    write_edf(root / "sub-02/eeg/sub-02_task-a_eeg.edf", names=("F3", "F4"), seed=2)
    (root / "dataset_description.json").write_text("{}")
    return root


def volts(root):
    counts = np.fromfile(root / "sub-01/eeg/sub-01_task-a_eeg.eeg", "<i2").reshape(-1, 4)
    return (counts * 0.5e-6).astype(np.float32)


# ---- channels and positions


def test_a_recording_has_the_names_types_places_and_bad_channels_of_its_tables(root):
    run = BIDSDataset(root, "eeg", subject="01").run(0)
    channels = MEEGExtractor("all", bads="keep").channels(run)
    assert channels.names == ("FC5", "Cz", "Pz", "EOG1")
    assert channels.types == ("eeg", "eeg", "eeg", "eog")
    assert channels.bad.tolist() == [False, False, True, False]
    assert channels.frame == "CapTrak"
    np.testing.assert_allclose(channels.positions[1], [0.01, 0.02, 0.03], rtol=1e-6)
    assert np.isnan(channels.positions[3]).any()
    assert np.isnan(channels.orientations).all()
    assert MEEGExtractor("all", bads="keep", rename=False).channels(run).names == NAMES


def test_bad_channels_are_dropped_kept_or_interpolated_by_choice(root):
    run = BIDSDataset(root, "eeg", subject="01").run(0)
    assert MEEGExtractor().channels(run).names == ("FC5", "Cz")
    assert MEEGExtractor(bads="keep").channels(run).names == ("FC5", "Cz", "Pz")
    raw = mne.io.RawArray(
        np.random.default_rng(0).normal(size=(8, 200)) * 1e-5,
        mne.create_info(["Fz", "Cz", "Pz", "C3", "C4", "F3", "F4", "Oz"], 100.0, "eeg", verbose="ERROR"),
        verbose="ERROR",
    )
    raw.info["bads"] = ["Cz"]
    extractor = MEEGExtractor(bads="interpolate", montage=STANDARD)
    windows = MEEGWindows(raw, extractor)
    wanted = raw.copy().set_montage(STANDARD).interpolate_bads(verbose="ERROR").get_data()
    np.testing.assert_allclose(windows[0]["signal"].numpy().T, wanted, rtol=1e-5, atol=1e-12)
    assert not windows[0]["channel_bad"].any()
    assert windows.channels(0).frame == "head"


def test_picks_are_types_or_names_in_their_order_in_either_spelling(root):
    run = BIDSDataset(root, "eeg", subject="01").run(0)
    assert MEEGExtractor("eog").channels(run).names == ("EOG1",)
    assert MEEGExtractor(["EOG1", "Cz", "Fc5."]).channels(run).names == ("EOG1", "Cz", "FC5")
    with pytest.raises(ValueError, match="there is no O9"):
        MEEGExtractor(["Cz", "O9"]).channels(run)
    with pytest.raises(ValueError, match="leaves no channel"):
        MEEGExtractor("mag").channels(run)


def test_a_channel_called_na_or_1_keeps_its_name(tmp_path):
    names = ("NA", "1", "nan")
    write_brainvision(tmp_path / "ds/sub-1/eeg/sub-1_task-a_eeg.vhdr", names=names)
    write_tables(tmp_path / "ds/sub-1/eeg/sub-1_task-a", names=names, positions=False)
    run = BIDSDataset(tmp_path / "ds", "eeg").run(0)
    assert MEEGExtractor().channels(run).names == names


def test_electrodes_in_a_space_are_found_and_those_without_one_go_first(root):
    folder = root / "sub-02/eeg"
    for space, x in (("MNI", 1), ("Other", 2)):
        (folder / f"sub-02_space-{space}_electrodes.tsv").write_text(f"name\tx\ty\tz\nF3\t{x}\t0\t0\n")
        system = {"EEGCoordinateSystem": space, "EEGCoordinateUnits": "cm"}
        (folder / f"sub-02_space-{space}_coordsystem.json").write_text(json.dumps(system))
    channels = MEEGExtractor().channels(BIDSDataset(root, "eeg", subject="02").run(0))
    assert channels.frame in ("MNI", "Other")
    assert channels.positions[0, 0] == pytest.approx(0.01 if channels.frame == "MNI" else 0.02)


def test_positions_without_a_unit_stay_unknown_and_a_warning_says_so(root):
    (root / "sub-01/eeg/sub-01_coordsystem.json").unlink()
    with pytest.warns(UserWarning, match="unit of its electrodes"):
        channels = MEEGExtractor().channels(BIDSDataset(root, "eeg", subject="01").run(0))
    assert np.isnan(channels.positions).all()
    assert channels.frame == ""


# ---- windows


def test_windows_hold_the_samples_of_the_file(root):
    windows = MEEGWindows(BIDSDataset(root, "eeg", subject="01").run(0), MEEGExtractor(), duration=0.3)
    assert len(windows) == 33
    for i in (0, 7, 32):
        np.testing.assert_array_equal(windows[i]["signal"].numpy(), volts(root)[i * 30 : i * 30 + 30, :2])
    assert windows[7]["start"] == pytest.approx(2.1)
    assert len(MEEGWindows(windows.runs, windows.extractor, duration=0.3, stride=0.1)) == 98


def test_windows_at_events_take_the_nearest_sample_and_tell_the_rest(root):
    data = BIDSDataset(root, "eeg", subject="01")
    with pytest.warns(UserWarning, match="1 that reach beyond"):
        windows = data.with_extractor(MEEGExtractor(), events=True, tmin=-0.1, tmax=0.2)
    assert windows.conditions == ("go", "stop")
    assert windows.table["condition"].tolist() == ["go", "stop", "go"]  # two at one onset
    item = windows[2]
    np.testing.assert_array_equal(item["signal"].numpy(), volts(root)[190:220, :2])
    assert item["onset"] == pytest.approx(-0.104)
    padded = data.with_extractor(MEEGExtractor(), events="stop", tmin=-0.1, tmax=0.2, pad=True)
    last = padded[1]
    assert last["valid"].tolist() == [True] * 20 + [False] * 10
    assert (last["signal"][20:] == 0).all()


def test_recordings_of_other_channels_and_lengths_are_padded_with_masks(root):
    windows = BIDSDataset(root, "eeg").with_extractor(MEEGExtractor(bads="keep"), duration=1.0)
    batch = windows.batch([0, len(windows) - 1])
    assert batch["signal"].shape == (2, 100, 3)
    assert batch["channel_mask"].tolist() == [[True] * 3, [True, True, False]]
    assert batch["channel_types"].tolist() == [[CHANNEL_TYPES.index("eeg")] * 3, [0, 0, -1]]
    assert batch["channel_names"] == [("FC5", "Cz", "Pz"), ("F3", "F4")]
    assert (batch["signal"][1, :, 2] == 0).all()
    assert batch["subject"] == ["01", "02"]
    packed = pack_channels(batch)
    assert packed.cu_seqlens.tolist() == [0, 3, 5]
    assert torch.equal(packed.signal[4], batch["signal"][1, :, 1])


def test_channels_are_grouped_by_the_region_that_a_table_names(root):
    table = root / "sub-01/eeg/sub-01_task-a_channels.tsv"
    rows = [
        line + "\t" + name
        for line, name in zip(table.read_text().split("\n"), ("group", "b", "a", "b", ""), strict=False)
    ]
    table.write_text("\n".join(rows) + "\n")
    windows = MEEGWindows(
        BIDSDataset(root, "eeg", subject="01").run(0),
        MEEGExtractor("all", bads="keep", regions="group"),
        duration=1,
    )
    assert windows.region_names == ("a", "b")
    packed = pack_channels(windows.batch([0, 1]), by_region=True)
    assert packed.channel.tolist() == [1, 0, 2, 3] * 2
    with pytest.raises(ValueError, match="regions must be a column"):
        MEEGExtractor(regions="lobe").channels(windows.runs[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_same_batches_with_either_collate_function(root, workers):
    windows = BIDSDataset(root, "eeg").with_extractor(MEEGExtractor(), duration=1.0)
    own = DataLoader(windows, batch_size=12, num_workers=workers, collate_fn=collate_windows)
    for ours, theirs in zip(own, DataLoader(windows, batch_size=12), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(value, theirs[name], rtol=0, atol=0, equal_nan=True)
                assert value.dtype == theirs[name].dtype
            else:
                assert value == theirs[name]


def test_windows_of_several_datasets_are_padded_into_one_batch(root):
    both = BIDSDataset(root, "eeg").with_extractor(MEEGExtractor(bads="keep"), duration=1.0)
    alone = [MEEGWindows(run, MEEGExtractor(bads="keep"), duration=1.0) for run in both.runs]
    loader = DataLoader(torch.utils.data.ConcatDataset(alone), batch_size=20, collate_fn=collate_windows)
    found, wanted = next(iter(loader)), both.batch(range(20))
    assert found.keys() == wanted.keys()
    for name in found.keys() - {"recording"}:  # each dataset counts its own
        if isinstance(wanted[name], torch.Tensor):
            torch.testing.assert_close(found[name], wanted[name], rtol=0, atol=0, equal_nan=True)
        else:
            assert found[name] == wanted[name]


def test_stretches_marked_bad_are_left_out(tmp_path):
    marks = [
        ("New Segment,", 1),
        ("Comment,BAD_movement", 301),
        ("Stimulus,S  1", 120),
        ("Stimulus,S  2", 310),
    ]
    write_brainvision(tmp_path / "a.vhdr", markers=marks)
    with pytest.warns(UserWarning, match="1 in stretches marked BAD"):
        windows = MEEGWindows(tmp_path / "a.vhdr", MEEGExtractor(), duration=1.0)
    assert len(windows) == 9
    assert windows.conditions == ("Stimulus/S  1", "Stimulus/S  2")
    assert len(MEEGWindows(tmp_path / "a.vhdr", MEEGExtractor(), duration=1.0, skip_bad=False)) == 10


# ---- steps and the cache


@pytest.mark.parametrize("form", ["vhdr", "edf"])
def test_steps_give_what_mne_gives_and_are_kept(tmp_path, cache, form):
    path = tmp_path / f"a.{form}"
    (write_brainvision if form == "vhdr" else write_edf)(path)
    options = {"l_freq": 1.0, "h_freq": 30.0, "notch": 40.0, "reference": "average", "resample": 80.0}
    values = MEEGWindows(path, MEEGExtractor("all", **options), duration=1.0).batch(range(10))["signal"]
    raw = mne.io.read_raw(path, preload=True, verbose="ERROR").notch_filter(
        40.0, picks="all", verbose="ERROR"
    )
    raw.filter(1.0, 30.0, picks="all", verbose="ERROR")
    raw.set_eeg_reference("average", verbose="ERROR").resample(80.0, verbose="ERROR")
    wanted = raw.get_data().T.reshape(10, 80, 4)
    np.testing.assert_allclose(values.numpy(), wanted, rtol=1e-5, atol=1e-11)
    assert len(list(cache.glob("*.safetensors"))) == 1
    again = MEEGWindows(path, MEEGExtractor("all", **options), duration=1.0).batch(range(10))["signal"]
    assert torch.equal(values, again)
    assert len(list(cache.glob("*.safetensors"))) == 1


def test_a_file_that_was_written_again_is_read_again(tmp_path):
    path = tmp_path / "a.vhdr"
    write_brainvision(path)
    before = MEEGWindows(path, MEEGExtractor(), duration=1.0)
    old = before.batch([0])["signal"]
    new = write_brainvision(path, seed=1)
    fresh = MEEGWindows(path, MEEGExtractor(), duration=1.0).batch([0])["signal"]
    np.testing.assert_allclose(fresh[0].numpy(), new[:100].astype(np.float32), rtol=1e-6)
    assert not torch.equal(old, fresh)
    stale = pickle.loads(pickle.dumps(before))
    with pytest.raises(RuntimeError, match="was changed since"):
        stale.batch([0])


def test_one_extractor_serves_a_file_that_changes_and_tables_that_do(root):
    extractor = MEEGExtractor()
    data = BIDSDataset(root, "eeg", subject="01")
    before = data.with_extractor(extractor, duration=1.0)
    assert before.batch([0])["signal"].shape == (1, 100, 2)
    table = root / "sub-01/eeg/sub-01_task-a_channels.tsv"
    table.write_text(table.read_text().replace("bad", "good"))
    edited = BIDSDataset(root, "eeg", subject="01").with_extractor(extractor, duration=1.0)
    assert edited.batch([0])["signal"].shape == (1, 100, 3)
    assert before.batch([0])["signal"].shape == (1, 100, 2)
    write_brainvision(root / "sub-01/eeg/sub-01_task-a_eeg.vhdr", n_samples=500, seed=3)
    fresh = BIDSDataset(root, "eeg", subject="01").with_extractor(extractor, duration=1.0)
    np.testing.assert_array_equal(fresh[4]["signal"].numpy(), volts(root)[400:500, :3])
    with pytest.raises(RuntimeError, match="make the windows again"):
        edited.batch([0])


def test_more_recordings_than_stay_mapped_may_be_in_one_batch(root, monkeypatch):
    monkeypatch.setattr("neurokern.extractors.meeg._RUNS_OPEN", 1)
    windows = BIDSDataset(root, "eeg").with_extractor(MEEGExtractor(), duration=1.0)
    batch = windows.batch([0, len(windows) - 1, 1])
    np.testing.assert_array_equal(batch["signal"][2].numpy(), volts(root)[100:200, :2])
    assert len(windows.extractor._signals) == 1


def test_without_a_cache_the_same_comes_from_memory(root, cache):
    run = BIDSDataset(root, "eeg", subject="01").run(0)
    kept = MEEGWindows(run, MEEGExtractor(), duration=1.0)[3]["signal"]
    for path in cache.iterdir():
        path.unlink()
    held = MEEGWindows(run, MEEGExtractor(cache=False), duration=1.0)[3]["signal"]
    assert torch.equal(kept, held)
    assert not list(cache.iterdir())


def test_a_cache_that_cannot_be_written_is_gone_without(root, cache, monkeypatch):
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    run = BIDSDataset(root, "eeg", subject="01").run(0)
    assert MEEGWindows(run, MEEGExtractor(), duration=1.0)[0]["signal"].shape == (100, 2)
    with pytest.raises(OSError):
        _ = MEEGWindows(run, MEEGExtractor(cache=True), duration=1.0)[0]


# ---- MNE's objects


def test_epochs_become_windows_and_windows_epochs(tmp_path):
    path = tmp_path / "a.vhdr"
    write_brainvision(
        path, names=("F3", "F4", "EOG1"), markers=[("Stimulus,S  1", 201), ("Stimulus,S  2", 401)]
    )
    raw = mne.io.read_raw(path, preload=True, verbose="ERROR").set_channel_types(
        {"EOG1": "eog"}, verbose="ERROR"
    )
    raw.info["bads"] = ["F4"]
    events, codes = mne.events_from_annotations(raw, verbose="ERROR")
    epochs = mne.Epochs(raw, events, codes, tmin=-0.2, tmax=0.5, baseline=None, preload=True, verbose="ERROR")
    windows = MEEGWindows.from_epochs(epochs)
    assert len(windows) == 2
    np.testing.assert_allclose(windows[1]["signal"].numpy().T, epochs.get_data()[1], rtol=1e-6)
    assert windows[1]["channel_bad"].tolist() == [False, True, False]
    assert windows.table["condition"].tolist() == ["Stimulus/S  1", "Stimulus/S  2"]
    back = windows.to_epochs()
    np.testing.assert_allclose(back.get_data(), epochs.get_data(), rtol=1e-6)
    assert (back.ch_names, back.info["bads"]) == (epochs.ch_names, ["F4"])
    assert back.tmin == epochs.tmin
    assert back["Stimulus/S  2"].get_data().shape[0] == 1
    with pytest.raises(ValueError, match="too short to filter"):
        MEEGWindows.from_epochs(epochs, MEEGExtractor(l_freq=1.0))


def test_a_raw_that_begins_late_keeps_its_annotations_in_place():
    info = mne.create_info(["Cz"], 100.0, "eeg", verbose="ERROR")
    raw = mne.io.RawArray(np.arange(1000.0)[None], info, first_samp=500, verbose="ERROR")
    raw.set_annotations(mne.Annotations([2.0], 0.0, ["x"]))
    events, _ = mne.events_from_annotations(raw, verbose="ERROR")
    item = MEEGWindows(raw, MEEGExtractor(), events=True, tmax=0.1)[0]
    assert item["signal"][0, 0].item() == events[0, 0] - 500
    raw.set_meas_date(1e9)
    raw.set_annotations(mne.Annotations([7.0], 0.0, ["x"], orig_time=raw.info["meas_date"]))
    assert MEEGWindows(raw, MEEGExtractor(), events=True, tmax=0.1)[0]["signal"][0, 0].item() == 200


@pytest.mark.parametrize("channel", ["STI 014", "auto"])
def test_triggers_of_a_channel_are_events_by_their_values(channel):
    info = mne.create_info(["Cz", "STI 014"], 100.0, ["eeg", "stim"], verbose="ERROR")
    data = np.zeros((2, 1000))
    data[0] = np.arange(1000)
    data[1, 200:205], data[1, 400], data[1, 600:700] = 5, 7, 5
    raw = mne.io.RawArray(data, info, first_samp=50, verbose="ERROR")
    windows = MEEGWindows(raw, MEEGExtractor(stim_channel=channel), events=True, tmin=-0.1, tmax=0.1)
    assert windows.table["condition"].tolist() == ["5", "7", "5"]
    assert windows.batch([0, 1, 2])["signal"][:, 10, 0].tolist() == [200, 400, 600]
    with pytest.raises(
        ValueError, match=r"stim_channel must be a channel of the file, got 'Trig'; .* STI 014"
    ):
        MEEGWindows(raw, MEEGExtractor(stim_channel="Trig"), events=True, tmax=0.1)


def test_a_value_that_is_no_number_stays_one():
    info = mne.create_info(["Cz", "Pz"], 100.0, "eeg", verbose="ERROR")
    data = np.zeros((2, 300))
    data[1, 150] = np.nan
    windows = MEEGWindows(mne.io.RawArray(data, info, verbose="ERROR"), MEEGExtractor(), duration=1.0)
    assert torch.isnan(windows.batch([0, 1, 2])["signal"]).nonzero().tolist() == [[1, 50, 1]]


def test_a_recording_of_meg_in_several_files_is_one_row(tmp_path):
    folder = tmp_path / "ds/sub-1/meg"
    folder.mkdir(parents=True)
    info = mne.create_info(12, 300.0, "mag", verbose="ERROR")
    values = np.random.default_rng(0).normal(size=(12, 60_000)) * 1e-12
    raw = mne.io.RawArray(values, info, verbose="ERROR")
    raw.save(folder / "sub-1_task-a_meg.fif", split_size="2MB", split_naming="bids", verbose="ERROR")
    assert len(list(folder.iterdir())) > 1
    data = BIDSDataset(tmp_path / "ds", "meg")
    assert len(data) == 1
    windows = data.with_extractor(MEEGExtractor("meg"), duration=1.0)
    assert len(windows) == 200
    np.testing.assert_allclose(windows[199]["signal"].numpy().T, values[:, -300:], rtol=1e-5)


# ---- bad input


def test_a_recording_that_is_cut_short_is_an_error(tmp_path):
    write_edf(tmp_path / "a.edf")
    whole = (tmp_path / "a.edf").read_bytes()
    for n, words in (
        (len(whole) - 900, "is cut short: 8 of 10 records"),
        (700, "cut short in its header"),
        (100, "header must"),
    ):
        (tmp_path / "a.edf").write_bytes(whole[:n])
        with pytest.raises(ValueError, match=words):
            MEEGWindows(tmp_path / "a.edf", MEEGExtractor())
    (tmp_path / "a.edf").write_bytes(whole[:184] + b"garbage " + whole[192:])
    with pytest.raises(ValueError, match="numbers cannot be read"):
        MEEGWindows(tmp_path / "a.edf", MEEGExtractor())
    write_brainvision(tmp_path / "c.vhdr")
    (tmp_path / "c.eeg").write_bytes((tmp_path / "c.eeg").read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"c\.eeg is cut short: its 7997 bytes end within a sample"):
        MEEGWindows(tmp_path / "c.vhdr", MEEGExtractor())
    (tmp_path / "b.vhdr").write_text("nothing")
    with pytest.raises(ValueError, match="cannot be read as a recording"):
        MEEGWindows(tmp_path / "b.vhdr", MEEGExtractor())


def test_an_edf_with_a_gap_is_an_error_and_one_that_may_have_some_is_read(tmp_path):
    right = write_edf(tmp_path / "a.edf", names=("F3", "F4"), onsets=range(10))
    item = MEEGWindows(tmp_path / "a.edf", MEEGExtractor())[0]
    np.testing.assert_allclose(item["signal"].numpy(), right, rtol=1e-4, atol=1e-12)
    write_edf(tmp_path / "b.edf", names=("F3", "F4"), onsets=[0, 1, 2, 3, 9, 10, 11, 12, 13, 14])
    with pytest.raises(ValueError, match="has a gap: record 5 begins at 9 s instead of 4 s"):
        MEEGWindows(tmp_path / "b.edf", MEEGExtractor())
    content = (tmp_path / "a.edf").read_bytes()
    (tmp_path / "a.edf").write_bytes(content.replace(b"+3\x14", b"x3\x14"))
    with pytest.raises(ValueError, match="record 4 must begin with its time"):
        MEEGWindows(tmp_path / "a.edf", MEEGExtractor())


def test_a_link_to_nowhere_is_told_from_a_missing_file(tmp_path):
    (tmp_path / "a.edf").symlink_to(tmp_path / "annex" / "a.edf")
    with pytest.raises(FileNotFoundError, match="link to nowhere"):
        MEEGWindows(tmp_path / "a.edf", MEEGExtractor())
    with pytest.raises(FileNotFoundError, match="no such recording"):
        MEEGWindows(tmp_path / "b.edf", MEEGExtractor())


def test_tables_that_contradict_the_file_warn_or_raise(root):
    stem = root / "sub-01/eeg/sub-01_task-a"
    table = stem.with_name("sub-01_task-a_channels.tsv")

    def run(i):
        return BIDSDataset(root, "eeg", subject="01").run(i)

    table.write_text("\ufeffname\ttype\r\nCz\tEOG\r\nO9\tEEG\r\n", newline="")
    with pytest.warns(UserWarning, match="3 channels of the file are not in"):
        assert MEEGExtractor("eog").channels(run(0)).names == ("CZ",)
    table.write_text("name\ttype\nX1\tEEG\n")
    with pytest.raises(ValueError, match=r"no name of its _channels.tsv"):
        MEEGExtractor().channels(run(0))
    table.write_text("label\ttype\nX1\tEEG\n")
    with pytest.raises(ValueError, match="must have a column name"):
        run(0)
    table.unlink()
    (root / "sub-01/eeg/sub-01_task-a_eeg.json").write_text('{"SamplingFrequency": 500}')
    with pytest.warns(UserWarning, match="SamplingFrequency of its sidecar is 500 Hz"):
        MEEGExtractor().channels(run(0))
    (root / "sub-01/eeg/sub-01_task-a_eeg.json").write_text('{"RecordingDuration": 60}')
    with pytest.warns(UserWarning, match="RecordingDuration of its sidecar is 60 s, the file has 10 s"):
        MEEGExtractor().channels(run(0))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"duration": 1.0, "tmax": 1.0, "events": True}, "duration or tmax"),
        ({"stride": 1.0}, "need duration"),
        ({"tmin": 1.0}, "count from events"),
        ({"events": "sleep", "duration": 1}, "events must be of go, stop"),
        ({"duration": 1e4}, "no window of"),
        ({"duration": -1}, "above 0"),
        ({"events": True, "tmin": 1.0, "tmax": 0.5}, "tmax must lie above"),
        ({"events": True, "tmax": 1.0, "stride": 1.0}, "stride must be left out"),
    ],
)
def test_options_that_make_no_sense_are_errors(root, options, error):
    with pytest.raises(ValueError, match=error):
        MEEGWindows(BIDSDataset(root, "eeg", subject="01").run(0), MEEGExtractor(), **options)


def test_an_extractor_of_another_kind_of_data_is_an_error(root):
    from neurokern.extractors import FMRIVoxelExtractor

    with pytest.raises(TypeError, match=r"such as MEEGExtractor\(\), got FMRIVoxelExtractor"):
        BIDSDataset(root, "eeg").with_extractor(FMRIVoxelExtractor())
    with pytest.raises(TypeError, match=r"such as FMRIVoxelExtractor\(mask\), got MEEGExtractor"):
        FMRIWindows([], MEEGExtractor())
    with pytest.raises(ValueError, match=r"such as sub-01/meg/sub-01_task-rest_meg.fif, got none"):
        BIDSDataset(root, "meg")


@pytest.mark.parametrize(
    "options",
    [{"l_freq": 30.0, "h_freq": 1.0}, {"resample": 0}, {"notch": -50}, {"reference": "Cz"}, {"bads": "hide"}],
)
def test_an_extractor_refuses_steps_that_make_no_sense(options):
    with pytest.raises(ValueError, match="MEEGExtractor"):
        MEEGExtractor(**options)


def test_a_filter_above_half_the_rate_is_an_error_with_the_files_name(tmp_path):
    write_brainvision(tmp_path / "a.vhdr")
    with pytest.raises(ValueError, match=r"a\.vhdr: cannot be prepared"):
        _ = MEEGWindows(tmp_path / "a.vhdr", MEEGExtractor(h_freq=80.0), duration=1.0)[0]
