"""Stimuli on the clock: words, files of events, sounds, videos, tables; in windows where they belong."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")
Image = pytest.importorskip("PIL.Image")

from torch.utils.data import DataLoader  # noqa: E402

from neurokern.datasets import (  # noqa: E402
    BIDSDataset,
    LabeledWindows,
    MEEGWindows,
    PairedWindows,
    SampledSeries,
    StimulusBatchSampler,
    TimedStimuli,
    TimeSeries,
    VideoFrames,
    collate_windows,
    event_regressors,
    read_series,
    series_of_runs,
    split_windows,
)
from neurokern.extractors import AudioClip, FMRIVoxelExtractor, MEEGExtractor, StimulusFeatures  # noqa: E402

N, TR = 30, 1.5
COLORS = {"red.png": (255, 0, 0), "dark/blue.png": (0, 0, 255), "cafÉ ☕.png": (0, 255, 0)}
EVENTS = "onset\tduration\ttrial_type\tstim_file\tresponse_time\tcorrect\n" + (
    "2.0\t1\tface\tred.png\t0.5\tTrue\n"
    "9.2\t1\thouse\tdark/blue.png\tn/a\tn/a\n"
    "15\t1\tface\tred.png\t0.7\tFalse\n"
    "20\t1\tn/a\tn/a\t0.1\tTrue\n"
    "24\t1\thouse\tred_again.png\t0.9\tTrue\n"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two runs of fMRI with events; the first has a physiological recording, too."""
    root = tmp_path_factory.mktemp("ds")
    (root / "task-look_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    for name, color in {**COLORS, "red_again.png": COLORS["red.png"]}.items():
        path = root / "stimuli" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), color).save(path)
    func = root / "sub-1/func"
    func.mkdir(parents=True)
    for run in (1, 2):
        values = np.broadcast_to(np.arange(N) + 100 * run, (2, 2, 1, N)).astype(np.int16)
        stem = func / f"sub-1_task-look_run-{run}"
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), f"{stem}_bold.nii")
        (func / f"{stem.name}_events.tsv").write_text(EVENTS)
    fields = {"SamplingFrequency": 10.0, "StartTime": -2.0, "Columns": ["cardiac", "trigger"]}
    (func / "sub-1_task-look_run-1_physio.json").write_text(json.dumps(fields))
    table = "".join(f"{k}\t{'n/a' if k == 100 else k % 2}\n" for k in range(600))
    (func / "sub-1_task-look_run-1_physio.tsv.gz").write_bytes(gzip.compress(table.encode()))
    return root


@pytest.fixture(scope="module")
def faces(root):
    brain = BIDSDataset(root, task="look")
    return brain.with_extractor(FMRIVoxelExtractor(cache=False), length=2, events=True)


def colors():
    """Features that are the color of an image."""
    mean = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1))
    return StimulusFeatures(mean, "0", cache=False)


def test_windows_know_all_columns_of_their_events(faces):
    events = faces.events
    assert events["stim_file"].tolist() == ["red.png", "dark/blue.png", "red.png", "red_again.png"] * 2
    part = faces.select([1, 6])
    assert part.events["onset"].tolist() == [9.2, 15.0]
    items = [part[i] for i in range(2)]
    np.testing.assert_allclose([i["start"] - i["onset"] for i in items], part.events["onset"])
    with pytest.raises(ValueError, match="must lie at events"):
        _ = BIDSDataset(faces.runs[0].path.parents[2]).with_extractor(FMRIVoxelExtractor(), length=2).events


def test_windows_of_eeg_know_their_events_too():
    mne = pytest.importorskip("mne")
    raw = mne.io.RawArray(np.zeros((2, 1000)), mne.create_info(2, 100.0, "eeg"), verbose="ERROR")
    raw.set_annotations(mne.Annotations([1.0, 2.0, 3.0, 9.9], 0.1, ["a", "BAD_x", "b", "a"]))
    with pytest.warns(UserWarning, match="left out"):
        windows = MEEGWindows(raw, MEEGExtractor(cache=False), events=True, tmax=0.5)
    assert windows.events[["onset", "trial_type"]].to_numpy().tolist() == [[1.0, "a"], [3.0, "b"]]
    assert LabeledWindows(windows, windows.events[["trial_type"]])[1]["trial_type"] == "b"
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ValueError, match="must lie at events"):
        _ = MEEGWindows(raw, MEEGExtractor(cache=False), duration=0.5).events


def test_targets_of_events_are_in_every_batch(faces):
    labels = faces.events[["response_time", "correct", "stim_file"]]
    labeled = LabeledWindows(faces, labels)
    for workers, collate in ((0, None), (0, collate_windows), (1, None)):
        (batch,) = DataLoader(labeled, batch_size=8, num_workers=workers, collate_fn=collate)
        np.testing.assert_array_equal(batch["response_time"], labels["response_time"])
        np.testing.assert_array_equal(batch["correct"], [1, np.nan, 0, 1] * 2)
        assert batch["stim_file"] == labels["stim_file"].tolist()
        assert batch["signal"].shape == (8, 2, 4)
    parts = split_windows(labeled, by="run", validation=0.0, test=0.5)
    assert len(parts.train) == 4
    assert parts.train.label("stim_file") == labels["stim_file"].tolist()[:4]
    assert parts.test[3]["response_time"] == 0.9


def test_features_of_stimuli_that_were_shown_often_are_held_once(faces, root):
    names = faces.events["stim_file"]
    unique, index = np.unique(names, return_inverse=True)
    rows = colors()([root / "stimuli" / name for name in unique])["0"].reshape(len(unique), -1)
    labeled = LabeledWindows(faces, {"image": (rows, index)})
    batch = labeled.batch(range(8))
    np.testing.assert_array_equal(batch["image"][[0, 1]], [[1, 0, 0], [0, 0, 1]])
    sampler = StimulusBatchSampler(names.tolist(), batch_size=2)
    assert all(len({names[i] for i in batch}) == len(batch) for batch in sampler)
    with pytest.raises(KeyError, match="there is no 'images', but image"):
        labeled.label("images")


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({}, ValueError, "at least one"),
        ({"x": np.zeros(7)}, ValueError, "a value for each of 8 windows, got 7"),
        ({"x": (np.zeros(2), [0] * 7 + [2])}, ValueError, r"must lie in 0 \.\.\. 1"),
        ({"x": (np.zeros(2), [0.0] * 8)}, ValueError, "a value for each"),
        ({"x": ["a", 1, *["b"] * 6]}, TypeError, None),
        ({"x": "name"}, TypeError, "a value for each window"),
        ({"x": [{}] * 8}, TypeError, "numbers or texts"),
    ],
)
def test_wrong_labels_are_named(faces, labels, error, message):
    if message is None:  # numpy makes texts of both
        assert LabeledWindows(faces, labels).label("x")[:2] == ["a", "1"]
        return
    with pytest.raises(error, match=message):
        LabeledWindows(faces, labels)
    with pytest.raises(ValueError, match="signal is a name of the windows'"):
        LabeledWindows(faces, {"signal": np.zeros(8)}).batch([0])


def test_files_of_events_are_found_and_those_that_are_not_are_all_named(root, faces):
    timed = TimedStimuli.from_events(faces.runs[0], root / "stimuli")
    assert timed.onsets.tolist() == [2.0, 9.2, 15.0, 24.0]
    table = pd.DataFrame({"onset": [0, 1, 2], "duration": 1, "stim_file": ["a.png", "../x.png", "red.png"]})
    with pytest.raises(FileNotFoundError, match=r"2 of 3 stimuli are not in .*: a\.png, \.\./x\.png"):
        TimedStimuli.from_events(table, root / "stimuli")
    named = table.assign(stim_file="bids::stimuli/red.png", onset=[0.5, np.nan, 2.0])
    assert TimedStimuli.from_events(named, root / "stimuli").onsets.tolist() == [0.5, 2.0]
    with pytest.raises(ValueError, match="onset of events must be seconds or n/a"):
        TimedStimuli.from_events(named.assign(onset=["0", "soon", "2"]), root / "stimuli")
    with pytest.raises(ValueError, match="no column duration, stim_file"):
        TimedStimuli.from_events(table[["onset"]], root)
    assert (
        TimedStimuli.from_events(table.assign(stim_file=list(COLORS)), root / "stimuli").stimuli[2].is_file()
    )


def test_convolved_features_lie_beside_their_volumes(root, faces):
    timed = TimedStimuli.from_events(faces.runs[0], root / "stimuli")
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    found = timed.regressors(StimulusFeatures(net, "1", cache=False), n_volumes=N, tr=TR)["1"]
    wanted = event_regressors([2.0, 15.0, 24.0], [1.0] * 3, n_volumes=N, tr=TR)
    np.testing.assert_allclose(found[:, 0], wanted[:, 0], rtol=1e-4, atol=1e-6)
    series = TimeSeries(times=np.arange(N) * TR, values=found)
    windows = BIDSDataset(root, run=1).with_extractor(FMRIVoxelExtractor(cache=False), length=5)
    pairs = PairedWindows(windows, {"stimulus": SampledSeries([series], 1 / TR)})
    for item in pairs:  # to the very last volume, though 1 / TR is rounded
        volumes = (item["signal"][:, 0] - 100).long()
        assert item["stimulus_valid"].all()
        torch.testing.assert_close(item["stimulus_signal"], torch.from_numpy(found)[volumes])


def test_a_word_comes_with_those_before_it():
    words = TimedStimuli.words(["a", "b", "ç", "d"], [0.0, 0.5, 1.0, 2.0], context=2)
    assert words.stimuli == ["a", "a b", "a b ç", "b ç d"]
    assert [seconds for seconds, _ in words] == [0.0, 0.5, 1.0, 2.0]
    with pytest.raises(TypeError, match="a sequence of str"):
        TimedStimuli.words("abc", [0, 1, 2])
    with pytest.raises(ValueError, match="3 stimuli must have as many onsets"):
        TimedStimuli.words(["a", "b", "c"], [0, 1])


def test_a_piece_of_a_sound_holds_what_was_heard_up_to_its_end():
    clip = AudioClip(np.arange(100) / 100, 10.0)
    timed = TimedStimuli.sound(clip, step=0.5, length=2.0)
    assert len(timed) == 17
    for piece, onset, duration in zip(timed.stimuli, timed.onsets, timed.durations, strict=True):
        assert len(piece.samples) == 20
        np.testing.assert_allclose(piece.samples[-1] * 10 + 0.1, onset + duration)
    with pytest.raises(ValueError, match="holds no piece"):
        TimedStimuli.sound(clip, step=1, length=11)


def test_frames_come_by_time(tmp_path):
    frames = [Image.new("RGB", (4, 2), (k * 40, 0, 0)) for k in range(5)]
    frames[0].save(
        tmp_path / "f.gif", save_all=True, append_images=frames[1:], duration=[200, 300, 100, 500, 100]
    )
    every = [(round(t, 3), int(image[0, 0, 0])) for t, image in VideoFrames(tmp_path / "f.gif", start=10.0)]
    assert every == [(10.0, 0), (10.2, 40), (10.5, 80), (10.6, 120), (11.1, 160)]
    shown = [(round(t, 3), int(image[0, 0, 0])) for t, image in VideoFrames(tmp_path / "f.gif", rate=4.0)]
    assert shown == [(0.0, 0), (0.25, 40), (0.5, 80), (0.75, 120), (1.0, 120)]
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    series = StimulusFeatures(net, "1", cache=False).over_time(VideoFrames(tmp_path / "f.gif", rate=4.0))["1"]
    np.testing.assert_allclose(series.values[:, 0] * 255, [0, 40, 80, 120, 120], atol=1e-4)
    np.testing.assert_allclose(series.times, np.arange(5) / 4)
    (tmp_path / "bad.gif").write_bytes((tmp_path / "f.gif").read_bytes()[:20])
    with pytest.raises(ValueError, match=r"bad\.gif cannot be read"):
        list(VideoFrames(tmp_path / "bad.gif"))
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        VideoFrames(tmp_path / "gone.mp4")


def test_frames_of_a_film_come_by_time(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "f.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for k in range(20):
            image = np.full((32, 32, 3), 10 * k, np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        film.mux(stream.encode())
    shown = list(VideoFrames(tmp_path / "f.mp4", rate=5.0))
    np.testing.assert_allclose([t for t, _ in shown], np.arange(10) / 5)
    np.testing.assert_allclose([image.mean() for _, image in shown], 20 * np.arange(10), atol=4)
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match=r"bad\.mp4 cannot be read"):
        list(VideoFrames(tmp_path / "bad.mp4"))


def test_physiological_recordings_lie_on_the_clock_of_their_run(root, tmp_path):
    brain = BIDSDataset(root, task="look")
    first, second = series_of_runs(brain)
    assert second is None
    assert first.columns == ("cardiac", "trigger")
    values, valid = first.at([0.0, 5.0, 8.0])
    np.testing.assert_allclose(values[:2, 0], [20, 70])
    assert valid.tolist() == [True, True, False]  # n/a
    (trigger, _) = series_of_runs(brain, columns=["trigger"])
    assert trigger.values.shape == (600,)
    with pytest.raises(ValueError, match=r"no run of .* has a _stim\.tsv\.gz"):
        series_of_runs(brain, "stim")
    with pytest.raises(ValueError, match="there is no column breath; there are cardiac, trigger"):
        series_of_runs(brain, columns=["breath"])
    windows = brain.with_extractor(FMRIVoxelExtractor(cache=False), length=4)
    with pytest.warns(UserWarning, match="left out"):
        pairs = PairedWindows(windows, {"physio": SampledSeries(series_of_runs(brain), 10.0)})
    assert pairs[0]["physio_signal"].shape == (60, 2)


def test_of_several_recordings_of_a_run_one_is_chosen_by_name(tmp_path):
    func = tmp_path / "sub-1/func"
    func.mkdir(parents=True)
    for echo in (1, 2):
        image = nibabel.Nifti1Image(np.zeros((2, 2, 1, 3), np.int16), np.eye(4))
        nibabel.save(image, func / f"sub-1_task-a_echo-{echo}_bold.nii")
    (tmp_path / "task-a_physio.json").write_text(json.dumps({"SamplingFrequency": 10, "StartTime": 0}))
    for name, columns in (("eye", ["x", "y"]), ("heart", ["pulse"])):
        stem = f"sub-1_task-a_recording-{name}_physio"
        (func / f"{stem}.json").write_text(json.dumps({"Columns": columns}))
        (func / f"{stem}.tsv.gz").write_bytes(gzip.compress(b"\t".join([b"1"] * len(columns)) + b"\n"))
    brain = BIDSDataset(tmp_path)
    assert [one.values.shape for one in series_of_runs(brain, recording="eye")] == [(1, 2), (1, 2)]
    assert [one.values.shape for one in series_of_runs(brain, recording="heart")] == [(1,), (1,)]
    with pytest.raises(ValueError, match=r"has several of kind physio: .*; give recording="):
        series_of_runs(brain)


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        (
            b"1\t2\n",
            {"SamplingFrequency": 0, "StartTime": 0, "Columns": ["a", "b"]},
            "SamplingFrequency above 0",
        ),
        (b"1\t2\n", {"SamplingFrequency": 1, "Columns": ["a", "b"]}, "must have StartTime"),
        (b"1\t2\n", {"SamplingFrequency": 1, "StartTime": 0, "Columns": ["a"]}, "must have the 1 Columns"),
        (b"1\tx\n", {"SamplingFrequency": 1, "StartTime": 0, "Columns": ["a", "b"]}, "numbers or n/a"),
        (None, {"SamplingFrequency": 1, "StartTime": 0, "Columns": ["a", "b"]}, "must be a table"),
    ],
)
def test_damaged_recordings_are_named(tmp_path, content, fields, message):
    func = tmp_path / "sub-1/func"
    func.mkdir(parents=True)
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((2, 2, 1, 3), np.int16), np.eye(4)), func / "sub-1_task-a_bold.nii"
    )
    (func / "sub-1_task-a_physio.json").write_text(json.dumps(fields))
    packed = gzip.compress(b"1\t2\n" * 100)[:-12] if content is None else gzip.compress(content)
    (func / "sub-1_task-a_physio.tsv.gz").write_bytes(packed)
    with pytest.raises(ValueError, match=message):
        series_of_runs(BIDSDataset(tmp_path))


def test_tables_are_read_by_their_times(tmp_path):
    (tmp_path / "a.csv").write_bytes("\ufefftime,x,name,y\r\n1.0,2,café,n/a\r\n0.5,1,b,3\r\n".encode())
    series = read_series(tmp_path / "a.csv")
    assert series.columns == ("x", "y")
    assert series.times.tolist() == [0.5, 1.0]
    np.testing.assert_array_equal(series.values, [[1, 3], [2, np.nan]])
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(b"onset\tx\n0\t1\n1\t2\n"))
    assert read_series(tmp_path / "b.tsv.gz", time="onset").values.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match="has no column time; it has onset, x"):
        read_series(tmp_path / "b.tsv.gz")
    with pytest.raises(ValueError, match="must hold numbers"):
        read_series(tmp_path / "a.csv", columns=["name"])
