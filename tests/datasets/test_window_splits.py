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
    LabeledWindows,
    WindowStream,
    check_no_leak,
    group_windows,
    k_shot_windows,
    leave_one_out,
    split_windows,
    standardize,
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


def test_cleaning_has_seen_no_test_where_the_last_window_ends_before_its_run(root):
    extractor = FMRIVoxelExtractor(normalize=True, fit_on=(0.0, 0.6))
    windows = windows_of(root, extractor, length=3, stride=1)
    windows = windows.select([i for i, window in enumerate(windows.windows) if window.start < 20])
    parts = split_windows(windows, by="time", test=0.4, validation=0)
    assert parts.test.spans()[1].min() >= 0.6 * N * TR


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


# ---- trials, shots, datasets


def with_events(root, folder, n=14, step=2.0, **options):
    """Windows at events of three conditions, in a copy of a run of each subject."""
    for subject in "ab":
        func = folder / f"sub-{subject}/func"
        func.mkdir(parents=True)
        stem = f"sub-{subject}_task-look"
        values = np.random.default_rng(ord(subject)).integers(0, 999, (*SHAPE, N)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), func / f"{stem}_bold.nii")
        (func / f"{stem}_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
        rows = [f"{k * step}\t1\t{'xyz'[k % 3]}" for k in range(n)]
        (func / f"{stem}_events.tsv").write_text("\n".join(["onset\tduration\ttrial_type", *rows]))
    return BIDSDataset(folder).with_extractor(FMRIVoxelExtractor(), length=2, events=True, **options)


def moments(windows, gap=0.0):
    """Run, begin and end of each window, widened by half a gap."""
    recording, begin, end = windows.spans()
    return [(r, b - gap / 2, e + gap / 2) for r, b, e in zip(recording, begin, end, strict=True)]


def touch(one, other):
    return any(a == b and p < s - 1e-6 and r < q - 1e-6 for a, p, q in one for b, r, s in other)


@pytest.mark.parametrize(("gap", "share"), [(0.0, 0.2), (3.0, 0.12)])
@pytest.mark.parametrize("seed", range(3))
def test_trials_held_out_anywhere_overlap_none_of_another_part(root, tmp_path, seed, gap, share):
    windows = with_events(root, tmp_path)
    options = {"test": share, "validation": 0 if gap else 0.1, "seed": seed, "gap": gap}
    parts = split_windows(windows, by="trial", **options)
    train, validation, test = (
        moments(part, gap) if part else [] for part in (parts.train, parts.validation, parts.test)
    )
    assert len(parts.test) == round(share * len(windows))
    assert not touch(train, test)
    assert not touch(train, validation)
    assert not touch(validation, test)
    assert len(train) + len(validation) + len(test) <= len(windows)
    check_no_leak(parts.train, parts.test, by="time")
    again = split_windows(windows, by="trial", **options)
    assert moments(again.test) == moments(parts.test)


@pytest.mark.parametrize("shots", [1, 3])
def test_a_few_of_each_condition_are_to_adapt_on_and_no_test_overlaps_them(root, tmp_path, shots):
    windows = with_events(root, tmp_path)
    parts = k_shot_windows(windows, shots, seed=1)
    assert sorted(parts.train.events["trial_type"]) == sorted("xyz" * shots)
    assert not touch(moments(parts.train), moments(parts.test))
    assert parts.validation is None
    other = k_shot_windows(windows, shots, seed=2)
    assert moments(other.train) != moments(parts.train)
    labels = ["left" if k % 2 else None for k in range(len(windows))]
    chosen = k_shot_windows(windows, shots, labels=labels)
    assert len(chosen.train) == shots


def test_shots_that_cannot_be_had_are_refused(root, tmp_path):
    windows = with_events(root, tmp_path)
    for options, message in (
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"shots": 99}, "each condition must have more than 99 windows, x has"),
        ({"shots": 1, "labels": ["a"]}, "labels must be one for each of"),
        ({"shots": 1, "gap": -1.0}, "gap must be at least 0 s"),
    ):
        with pytest.raises(ValueError, match=message):
            k_shot_windows(windows, **options)
    with pytest.raises(ValueError, match="no window is left to test on"):
        k_shot_windows(group_windows(windows)["subject a"], 1, gap=1e4)
    cleaned = windows_of(root, FMRIVoxelExtractor(normalize=True))
    with pytest.raises(ValueError, match="on whole runs, which hold what is to be tested"):
        split_windows(cleaned, by="trial")
    with pytest.raises(ValueError, match="on whole runs, which hold what is to be tested"):
        k_shot_windows(cleaned, 1, labels=["a"] * len(cleaned))


def test_subjects_of_two_datasets_are_two_people_and_derivatives_are_of_their_dataset(root, tmp_path):
    tmp_path = tmp_path / "sub-studies"
    one, other = (with_events(root, tmp_path / name) for name in ("one", "other"))
    prep = tmp_path / "one/derivatives/prep/sub-a/func"
    prep.mkdir(parents=True)
    stem = "sub-a_task-look_space-T1w_desc-preproc_bold.nii"
    (prep / stem).write_bytes((tmp_path / "one/sub-a/func/sub-a_task-look_bold.nii").read_bytes())
    derived = BIDSDataset(tmp_path / "one", space="T1w").with_extractor(FMRIVoxelExtractor(), length=2)
    check_no_leak(one, other, by="subject")
    with pytest.raises(ValueError, match="1 subjects are on both sides: subject a"):
        check_no_leak(one, derived, by="subject")
    with pytest.raises(ValueError, match="1 datasets are on both sides: dataset one"):
        check_no_leak(one, derived, by="dataset")
    with pytest.raises(ValueError, match=r"of subject a, task look .* overlap windows"):
        check_no_leak(one, derived, by="time")
    pooled = type(one)([*one.runs, *other.runs, *derived.runs], FMRIVoxelExtractor(), length=2)
    assert {fold.name for fold in leave_one_out(pooled)} == {
        f"dataset {name}, subject {subject}" for name in ("one", "other") for subject in "ab"
    }
    assert set(group_windows(pooled, by="dataset")) == {"dataset one", "dataset other"}
    assert len(group_windows(pooled, by="dataset")["dataset one"]) == 3 * (N // 2)


def test_a_folder_reached_by_a_link_is_the_same_dataset(root, tmp_path):
    windows = with_events(root, tmp_path / "ds")
    (tmp_path / "link").symlink_to(tmp_path / "ds")
    again = BIDSDataset(tmp_path / "link").with_extractor(FMRIVoxelExtractor(), length=2)
    with pytest.raises(ValueError, match="2 subjects are on both sides"):
        check_no_leak(windows, again, by="subject")


def test_derivatives_whose_dataset_is_not_known_are_compared_by_name_alone(root, tmp_path):
    raw, derived = (with_events(root, tmp_path / name) for name in ("raw", "out"))
    description = {"Name": "out", "BIDSVersion": "1.8.0", "DatasetType": "derivative"}
    (tmp_path / "out/dataset_description.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="2 subjects are on both sides"):
        check_no_leak(raw, derived, by="subject")
    with pytest.raises(ValueError, match="the dataset of each recording must be known"):
        group_windows(derived, by="dataset")


def test_runs_that_are_numbered_with_and_without_zeros_are_one(root, tmp_path):
    for folder, number in (("ds/sub-a/func", "01"), ("ds/derivatives/prep/sub-a/func", "1")):
        (tmp_path / folder).mkdir(parents=True)
        stem = f"sub-a_task-look_run-{number}{'_space-T1w' if 'prep' in folder else ''}_bold"
        image = nibabel.Nifti1Image(np.ones((*SHAPE, N), np.int16), np.eye(4))
        nibabel.save(image, tmp_path / folder / f"{stem}.nii")
        (tmp_path / folder / f"{stem}.json").write_text(json.dumps({"RepetitionTime": TR}))
    raw, prep = (windows_of(tmp_path / "ds", FMRIVoxelExtractor()), None)
    prep = BIDSDataset(tmp_path / "ds", space="T1w").with_extractor(FMRIVoxelExtractor(), length=5)
    with pytest.raises(ValueError, match="1 runs are on both sides"):
        check_no_leak(raw, prep, by="run")


# ---- a scale that is fitted on the training part


def test_the_scale_comes_from_the_training_part_alone(root, tmp_path):
    windows = with_events(root, tmp_path, pad=True)
    parts = split_windows(windows, by="subject", test=0.5, validation=0)
    scaled = standardize(parts)
    batch = parts.train.batch(range(len(parts.train)))
    values = batch["signal"][batch["valid"]].double()
    torch.testing.assert_close(scaled.train.mean, values.mean(0).float())
    torch.testing.assert_close(scaled.train.scale, values.std(0, correction=0).float())
    held = parts.test.batch([0, 1])
    wanted = (held["signal"] - scaled.train.mean) / scaled.train.scale * held["valid"][..., None]
    torch.testing.assert_close(scaled.test.batch([0, 1])["signal"], wanted)
    assert torch.equal(scaled.test[1]["signal"], scaled.test.batch([0, 1])["signal"][1])
    assert scaled.validation is None
    chosen = scaled.test.select([1])
    assert torch.equal(chosen[0]["signal"], scaled.test[1]["signal"])


def test_what_was_standardized_cannot_be_divided_and_what_was_not_divided_not_standardized(root):
    windows = windows_of(root)
    with pytest.raises(TypeError, match="divide first, then the scale comes from the windows to train on"):
        standardize(windows)
    held_out = standardize(next(iter(leave_one_out(windows))))
    assert held_out.name == "subject a"
    for divide in (
        lambda: split_windows(held_out.train, by="subject"),
        lambda: list(leave_one_out(held_out.train)),
        lambda: k_shot_windows(held_out.train, 1, labels=["a"] * len(held_out.train)),
        lambda: split_windows(LabeledWindows(held_out.train, {"x": np.zeros(len(held_out.train))}), by="run"),
    ):
        with pytest.raises(ValueError, match="must be divided before they are standardized"):
            divide()


def test_a_feature_that_does_not_vary_keeps_its_scale(tmp_path):
    for subject in "ab":
        func = tmp_path / f"sub-{subject}/func"
        func.mkdir(parents=True)
        values = np.random.default_rng(1).normal(7, 1, (*SHAPE, N)).astype(np.float32)
        values[0] = 1e6
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), func / f"sub-{subject}_task-a_bold.nii")
        (func / f"sub-{subject}_task-a_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    windows = windows_of(tmp_path)
    scaled = standardize(split_windows(windows, by="subject", test=0.5, validation=0))
    item = scaled.test[0]["signal"]
    assert (item[:, :4] == 0).all()
    assert bool(item.isfinite().all())
