"""Streams of different rates and clocks, joined at the time that they were recorded at."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")
mne = pytest.importorskip("mne")

from torch.utils.data import DataLoader  # noqa: E402

from neurokern.datasets import (  # noqa: E402
    BIDSDataset,
    Clock,
    LabeledWindows,
    MEEGWindows,
    PairedWindows,
    SampledSeries,
    TimeSeries,
    WindowStream,
    check_no_leak,
    collate_windows,
    split_windows,
)
from neurokern.extractors import FMRIVoxelExtractor, MEEGExtractor  # noqa: E402

N, TR, SFREQ = 20, 2.0, 50.0  # 40 s
N_SAMPLES = int(N * TR * SFREQ)


def eeg_values(subject):
    """Values that tell their own sample and channel."""
    return np.arange(N_SAMPLES) * 1e-6 + 1e-3 * np.arange(2)[:, None] + 1e-2 * subject


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two subjects with fMRI and EEG of one task at once; a third with fMRI alone."""
    root = tmp_path_factory.mktemp("ds")
    (root / "task-rest_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    info = mne.create_info(["Fz", "Cz"], SFREQ, "eeg")
    for subject in (1, 2, 3):
        func = root / f"sub-{subject}/func"
        func.mkdir(parents=True)
        values = np.broadcast_to(np.arange(N) + 100 * subject, (2, 2, 1, N)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), func / f"sub-{subject}_task-rest_bold.nii")
        if subject < 3:
            eeg = root / f"sub-{subject}/eeg"
            eeg.mkdir()
            raw = mne.io.RawArray(eeg_values(subject), info, verbose="ERROR")
            raw.save(eeg / f"sub-{subject}_task-rest_eeg.fif", fmt="double", verbose="ERROR")
    return root


def bold(root, **options):
    return BIDSDataset(root, task="rest").with_extractor(FMRIVoxelExtractor(), **{"length": 1, **options})


def eeg(root, **options):
    return BIDSDataset(root, "eeg", task="rest").with_extractor(MEEGExtractor(cache=False), **options)


def test_eeg_before_each_volume_is_found_by_the_clock(root):
    with pytest.warns(UserWarning, match="left out 26 windows"):  # 3 and 3 at the start, and subject 3
        pairs = PairedWindows(bold(root), {"eeg": eeg(root)}, within={"eeg": (-6.0, 0.0)})
    assert len(pairs) == 2 * (N - 3)
    for item in pairs:
        subject, volume = divmod(int(item["signal"][0, 0]), 100)
        assert item["eeg_signal"].shape == (300, 2)
        expected = eeg_values(subject)[:, (volume - 3) * 100 : volume * 100].T
        np.testing.assert_allclose(item["eeg_signal"], expected, rtol=1e-6)
        assert item["eeg_valid"].all()
        assert item["eeg_lag"] == 0


def test_padding_says_what_is_not_there(root):
    pairs = PairedWindows(bold(root), {"eeg": eeg(root)}, within={"eeg": (-3.0, 1.0)}, pad=True)
    assert len(pairs) == 3 * N
    first, alone = pairs[0], pairs[2 * N]
    assert first["eeg_valid"].sum() == 50
    assert not first["eeg_valid"][:150].any()
    assert not first["eeg_signal"][:150].any()
    assert alone["subject"] == "3"
    assert not alone["eeg_valid"].any()
    assert np.isnan(alone["eeg_lag"])


def test_a_stream_is_as_long_as_the_window_by_default(root):
    with pytest.warns(UserWarning, match="left out"):
        pairs = PairedWindows(bold(root, length=4), {"eeg": eeg(root)})
    assert pairs[0]["eeg_signal"].shape == (400, 2)


def test_images_can_be_read_beside_eeg(root):
    reference = BIDSDataset(root, "eeg", task="rest").with_extractor(MEEGExtractor(cache=False), duration=1.0)
    pairs = PairedWindows(reference, {"bold": bold(root)}, within={"bold": (4.0, 8.0)}, pad=True)
    item = pairs[6]  # begins at 6 s: volumes from 10 s on
    assert item["bold_signal"][:, 0].tolist() == [105.0, 106.0]
    assert item["bold_signal"].shape == (2, 4)
    late = pairs[7]  # from 11 s: the nearest volume begins at 12 s
    assert late["bold_signal"][0, 0] == 106.0
    assert late["bold_lag"] == pytest.approx(1.0)


@given(offset=st.floats(-5, 5), rate=st.floats(0.99, 1.01), begin=st.floats(-2, 2), seconds=st.floats(0.1, 3))
def test_any_clock_gives_the_samples_nearest_to_the_time(root, offset, rate, begin, seconds):
    clock = Clock(offset, rate)
    within = {"eeg": (begin, begin + seconds)}
    pairs = PairedWindows(
        bold(root), {"eeg": _EEG.setdefault(root, eeg(root))}, within=within, clocks={"eeg": clock}, pad=True
    )
    item = pairs[7]
    asked = clock(7 * TR + begin) * SFREQ
    length = item["eeg_signal"].shape[0]
    assert abs(length - seconds * rate * SFREQ) <= 0.51 or length == 1
    valid = item["eeg_valid"].numpy()
    samples = np.floor(asked + 0.5) + np.arange(length)
    np.testing.assert_array_equal(valid, (samples >= 0) & (samples < N_SAMPLES))
    found = (item["eeg_signal"][valid, 0].double() - 1e-2) / 1e-6
    np.testing.assert_allclose(found, samples[valid], atol=0.01)
    assert abs(item["eeg_lag"]) <= 0.5 / SFREQ + 1e-9


_EEG = {}


def test_series_are_interpolated_and_their_gaps_told(root):
    times = np.r_[np.arange(0, 10, 0.1), np.arange(20, 40, 0.1)]
    series = TimeSeries.from_arrays(times, np.stack([times, -times], axis=1))
    with pytest.warns(UserWarning, match="left out"):
        pairs = PairedWindows(bold(root), {"video": SampledSeries([series, None, series], rate=8.0)})
    item = pairs[2]
    np.testing.assert_allclose(item["video_signal"][:, 0], 4 + np.arange(16) / 8, atol=1e-5)
    assert item["video_valid"].all()
    assert not pairs[6]["video_valid"].any()
    assert not pairs[6]["video_signal"].any()
    assert {item["subject"] for item in pairs} == {"1", "3"}


def test_batches_are_the_items_whatever_the_loader(root):
    pairs = PairedWindows(bold(root), {"eeg": eeg(root)}, within={"eeg": (-1.0, 1.0)}, pad=True)
    plain = list(DataLoader(pairs, batch_size=7))
    at_once = list(DataLoader(pairs, batch_size=7, collate_fn=collate_windows, num_workers=2))
    stream = list(DataLoader(WindowStream(pairs, 7, shuffle=False), batch_size=None))
    for batches in (at_once, stream):
        for a, b in zip(plain, batches, strict=True):
            assert torch.equal(a["eeg_signal"], b["eeg_signal"])
            assert torch.equal(a["signal"], b["signal"])
            assert torch.equal(a["eeg_valid"], b["eeg_valid"])
    assert torch.equal(plain[1]["eeg_signal"][3], pairs[10]["eeg_signal"])


@pytest.mark.parametrize("by", ["time", "trial"])
def test_splits_look_at_all_that_a_stream_is_read_at(root, by):
    with pytest.warns(UserWarning, match="left out"):
        pairs = PairedWindows(bold(root), {"eeg": eeg(root)}, within={"eeg": (-3.0, 1.0)})
    parts = split_windows(LabeledWindows(pairs, {"x": np.zeros(len(pairs))}), by=by, test=0.2, validation=0)
    (own, begin, _), (run, test_begin, _) = parts.train.spans(), parts.test.spans()
    ahead = (
        test_begin[:, None] - begin
    )  # 3 s before and 2 s of a window: 5 s from one that they share none with
    assert np.abs(ahead)[run[:, None] == own].min() >= 5.0 - 1e-6
    check_no_leak(parts.train, parts.test, by="time")
    near = [pairs.select([at]) for at in (0, 2)]
    with pytest.raises(ValueError, match="overlap windows to test on"):
        check_no_leak(*near, by="time")


@pytest.mark.parametrize("by", ["time", "trial"])
def test_a_stream_whose_cleaning_has_seen_the_test_is_refused(root, by):
    cleaned = BIDSDataset(root, task="rest").with_extractor(FMRIVoxelExtractor(normalize=True))
    pairs = PairedWindows(eeg(root, duration=2.0), {"bold": cleaned})
    with pytest.raises(ValueError, match="means, scales, trends or confounds"):
        split_windows(pairs, by=by)
    assert len(split_windows(pairs, by="subject", test=0.5, validation=0).test)


def test_pairs_are_divided_like_windows(root):
    pairs = PairedWindows(bold(root), {"eeg": eeg(root)}, within={"eeg": (0.0, 1.0)}, pad=True)
    parts = split_windows(pairs, by="subject", test=0.34, validation=0.0)
    (subject,) = {item["subject"] for item in parts.test}
    assert subject not in {item["subject"] for item in parts.train}
    assert "eeg_signal" in parts.test[0]


def test_recordings_in_memory_are_paired_one_by_one():
    info = mne.create_info(["Fz"], SFREQ, "eeg")
    raws = [mne.io.RawArray(np.arange(500.0)[None] * k, info, verbose="ERROR") for k in (1, 2)]
    windows = MEEGWindows(raws, MEEGExtractor(), duration=1.0)
    pairs = PairedWindows(
        windows, {"other": MEEGWindows(raws, MEEGExtractor())}, within={"other": (0.5, 0.6)}, pad=True
    )
    assert torch.equal(pairs[3]["other_signal"], windows[3]["signal"][25:30])
    with pytest.raises(ValueError, match="paired one by one, got 2 and 1"):
        PairedWindows(windows, {"other": MEEGWindows(raws[:1], MEEGExtractor())})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"streams": {}}, ValueError, "at least one"),
        ({"streams": {"eeg": 3}}, TypeError, "must be FMRIWindows"),
        ({"within": {"meg": (0, 1)}}, ValueError, "within names meg"),
        ({"within": {"eeg": (1.0, 1.0)}}, ValueError, r"must be \(from, to\)"),
        ({"within": {"eeg": (-99.0, 0.0)}}, ValueError, "none lies within all of eeg"),
        ({"clocks": {"bold": Clock()}}, ValueError, "clocks names bold"),
        (
            {"streams": {"eeg": SampledSeries([TimeSeries.from_arrays([0, 1], [0, 1])], 1.0)}},
            ValueError,
            "each of 3",
        ),
    ],
)
def test_what_cannot_be_paired_is_refused(root, options, error, message):
    options = {"streams": {"eeg": eeg(root)}, **options}
    with pytest.raises(error, match=message):
        PairedWindows(bold(root), **options)


def test_two_counterparts_are_named(root, tmp_path):
    stem = tmp_path / "sub-1/func/sub-1_task-rest"
    stem.parent.mkdir(parents=True)
    (tmp_path / "task-rest_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    for echo in (1, 2):
        image = nibabel.Nifti1Image(np.zeros((2, 2, 1, N), np.int16), np.eye(4))
        nibabel.save(image, stem.with_name(f"{stem.name}_echo-{echo}_bold.nii"))
    with pytest.raises(ValueError, match=r"2 counterparts .*echo-1.*echo-2"):
        PairedWindows(bold(root), {"echoes": bold(tmp_path)})


def test_a_clock_is_fitted_to_pulses_that_both_saw():
    rng = np.random.default_rng(0)
    pulses = np.sort(rng.uniform(0, 600, 40))
    clock = Clock.fit(pulses, 12.5 + 1.00002 * pulses + rng.normal(0, 1e-4, 40))
    assert clock.offset == pytest.approx(12.5, abs=2e-4)
    assert clock.rate == pytest.approx(1.00002, abs=1e-6)
    missed = 12.5 + np.delete(pulses, 20)
    with pytest.raises(ValueError, match="was one missed"):
        Clock.fit(pulses[:-1], missed)
    for bad in ([0.0], [0.0, 0.0], [0.0, np.nan]):
        with pytest.raises(ValueError, match=r"Clock\.fit"):
            Clock.fit(bad, [0.0, 1.0][: len(bad)])
    with pytest.raises(ValueError, match="runs backwards"):
        Clock.fit([0.0, 1.0], [1.0, 0.0])
