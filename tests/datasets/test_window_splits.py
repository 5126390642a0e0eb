"""Nothing of what is tested was trained on, whatever windows are divided by."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

nibabel = pytest.importorskip("nibabel")

from neurokern.datasets import (  # noqa: E402
    BIDSDataset,
    WindowStream,
    check_no_leak,
    group_windows,
    leave_one_out,
    split_windows,
)
from neurokern.extractors import FMRIVoxelExtractor  # noqa: E402

N, TR, SHAPE = 30, 2.0, (3, 2, 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Four subjects with two sessions of two runs; each run as two echoes, which are the same moments."""
    root = tmp_path_factory.mktemp("ds")
    (root / "task-look_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    values = np.random.default_rng(0).integers(0, 999, (*SHAPE, N)).astype(np.int16)
    for subject in "abcd":
        for session in "12":
            func = root / f"sub-{subject}/ses-{session}/func"
            func.mkdir(parents=True)
            for run in "12":
                for echo in "12":
                    stem = f"sub-{subject}_ses-{session}_task-look_run-{run}_echo-{echo}_bold.nii"
                    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), func / stem)
    return root


def windows_of(root, extractor=None, **options):
    return BIDSDataset(root).with_extractor(extractor or FMRIVoxelExtractor(), **{"length": 5, **options})


def keys(windows, *entities):
    return {tuple(windows.runs[w.run].entities[e] for e in entities) for w in windows.windows}


GROUPS = {"subject": ("subject",), "session": ("subject", "session"), "run": ("subject", "session", "run")}


@pytest.mark.parametrize("by", GROUPS)
def test_no_group_is_on_two_sides_and_no_window_is_lost(root, by):
    windows = windows_of(root)
    parts = split_windows(windows, by=by, test=0.25, validation=0.25, seed=3)
    sides = [parts.train, parts.validation, parts.test]
    assert sum(map(len, sides)) == len(windows)
    groups = [keys(side, *GROUPS[by]) for side in sides]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert len(groups[2]) == round(0.25 * len(keys(windows, *GROUPS[by])))
    for side in sides[1:]:
        check_no_leak(parts.train, side, by=by)
        check_no_leak(parts.train, side, by="time")


def test_echoes_of_a_run_stay_together(root):
    parts = split_windows(windows_of(root), by="run", test=0.5, validation=0)
    for side in (parts.train, parts.test):
        echoes = keys(side, "subject", "session", "run", "echo")
        assert {(*key[:3], e) for key in echoes for e in "12"} == echoes


def test_the_split_depends_on_the_seed_alone(root):
    def chosen(seed):
        return keys(split_windows(windows_of(root), by="run", seed=seed).test, *GROUPS["run"])

    assert chosen(1) == chosen(1)
    assert len({frozenset(chosen(seed)) for seed in range(8)}) > 1


@settings(max_examples=15)
@given(
    length=st.integers(1, 8),
    stride=st.integers(1, 8),
    test=st.floats(0.1, 0.4),
    validation=st.sampled_from([0.0, 0.1, 0.25]),
    gap=st.sampled_from([0.0, 3.0, 8.0]),
)
def test_by_time_no_moment_is_on_two_sides(root, length, stride, test, validation, gap):
    windows = windows_of(root, length=length, stride=stride)
    n_parts = 3 if validation else 2
    shortest = min(test, validation or 1, 1 - test - validation) * N * TR
    if length * TR + 2 * stride * TR + gap > shortest:  # perhaps no window fits
        validation, test, n_parts, length = 0.0, 0.5, 2, 1
        windows = windows_of(root, length=1, stride=min(stride, 3))
    parts = split_windows(windows, by="time", test=test, validation=validation, gap=gap)
    sides = [side for side in (parts.train, parts.validation, parts.test) if side is not None]
    assert len(sides) == n_parts
    ends = [side.spans()[2].max() for side in sides]
    begins = [side.spans()[1].min() for side in sides]
    for end, begin in zip(ends[:-1], begins[1:], strict=True):
        assert begin - end >= gap - 1e-6
    for side in sides[1:]:
        check_no_leak(parts.train, side, by="time", gap=gap)


def test_cleaning_that_has_seen_the_test_is_refused(root):
    windows = windows_of(root, FMRIVoxelExtractor(normalize=True), length=2)
    with pytest.raises(ValueError, match=r"make it with fit_on=\(0.0, 0.7\)"):
        split_windows(windows, by="time")
    fitted = windows_of(root, FMRIVoxelExtractor(normalize=True, fit_on=(0.0, 0.7)), length=2)
    assert len(split_windows(fitted, by="time").test)
    assert len(split_windows(windows, by="run").test)  # each run is cleaned by itself


def test_leave_one_out_gives_each_subject_once(root):
    windows = windows_of(root)
    seen = []
    for held_out in leave_one_out(windows, "subject"):
        (subject,) = {key[0] for key in keys(held_out.test, "subject")}
        assert held_out.name == f"subject {subject}"
        assert len(held_out.train) + len(held_out.test) == len(windows)
        check_no_leak(held_out.train, held_out.test, by="subject")
        seen.append(subject)
    assert seen == list("abcd")


def test_clients_have_all_windows_among_them(root):
    windows = windows_of(root)
    clients = group_windows(windows, "session")
    assert len(clients) == 8
    assert sum(map(len, clients.values())) == len(windows)


def test_a_leak_is_named(root):
    windows = windows_of(root)
    with pytest.raises(ValueError, match="4 subjects are on both sides: subject a; subject b"):
        check_no_leak(windows, windows, by="subject")
    first, second = windows.select(range(0, len(windows), 2)), windows.select(range(1, len(windows), 2))
    with pytest.raises(ValueError, match="16 runs are on both sides"):
        check_no_leak(first, second)
    near = windows.select([0]), windows.select([1])
    check_no_leak(*near, by="time")
    with pytest.raises(ValueError, match="come closer than 1 s"):
        check_no_leak(*near, by="time", gap=1.0)


def test_echoes_on_two_sides_are_a_leak_in_time(root):
    windows = windows_of(root)
    echo = np.array([windows.runs[w.run].entities["echo"] for w in windows.windows])
    sides = windows.select(np.flatnonzero(echo == "1")), windows.select(np.flatnonzero(echo == "2"))
    with pytest.raises(ValueError, match="overlap"):
        check_no_leak(*sides, by="time")


def test_some_of_the_windows_are_a_dataset_like_any_other(root):
    windows = windows_of(root)
    indices = [40, 3, 17, 90]
    part = windows.select(indices)
    assert len(part) == 4
    for item, i in zip(part, sorted(indices), strict=True):
        assert torch.equal(item["signal"], windows[i]["signal"])
        assert (item["subject"], item["start"]) == (windows[i]["subject"], windows[i]["start"])
    np.testing.assert_array_equal(
        np.diff(part.offsets).nonzero()[0], sorted({windows.windows[i].run for i in indices})
    )
    batches = list(WindowStream(part, 3))
    assert sum(len(batch["signal"]) for batch in batches) == 4


@pytest.mark.parametrize(
    ("indices", "error"), [([0, 0], ValueError), ([-1], ValueError), ([960], ValueError), ([0.5], TypeError)]
)
def test_numbers_that_are_no_windows_are_refused(root, indices, error):
    with pytest.raises(error, match=r"FMRIWindows.select: indices must"):
        windows_of(root).select(indices)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "echo"}, "by must be one of 'subject'"),
        ({"by": "subject", "test": 0.6, "validation": 0.4}, "must be below 1"),
        ({"by": "subject", "test": 0.4, "validation": 0.5}, "are too few"),
        ({"by": "time", "gap": -1.0}, "gap must be at least 0"),
        ({"by": "time", "gap": 100.0}, "no window is left"),
        ({"by": "task"}, "1 tasks"),
    ],
)
def test_what_cannot_be_divided_is_refused(root, options, message):
    with pytest.raises(ValueError, match=message):
        split_windows(windows_of(root), **options)


def test_recordings_without_a_folder_are_each_their_own(tmp_path):
    mne = pytest.importorskip("mne")
    from neurokern.datasets import MEEGWindows
    from neurokern.extractors import MEEGExtractor

    info = mne.create_info(["Fz", "Cz"], 100.0, "eeg")
    values = np.random.default_rng(0).normal(size=(2, 1000))
    raws = [mne.io.RawArray(values * (k + 1), info, verbose="ERROR") for k in range(3)]
    windows = MEEGWindows(raws, MEEGExtractor(), duration=1.0)
    held_out = next(iter(leave_one_out(windows)))
    assert (len(held_out.train), len(held_out.test)) == (20, 10)
    assert torch.equal(held_out.train[0]["signal"], windows[10]["signal"])
    by_time = split_windows(windows, by="time", test=0.3, validation=0)
    assert (len(by_time.train), len(by_time.test)) == (21, 9)
    check_no_leak(by_time.train, by_time.test, by="time")
    filtered = MEEGWindows(raws, MEEGExtractor(h_freq=30.0), duration=1.0)
    with pytest.warns(UserWarning, match="filters look forward"):
        split_windows(filtered, by="time")
