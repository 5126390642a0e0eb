"""``neurokern prepare``: what it makes, that later loads use it, and what is left when it is stopped."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from neurokern.cli import main, sessions
from neurokern.cli.sessions import WindowSettings, load_session, make_session

nibabel = pytest.importorskip("nibabel")
pytest.importorskip("torch")

from neurokern.cli import prepare_tasks  # noqa: E402
from neurokern.cli.prepare_settings import FMRISettings, PrepareSettings  # noqa: E402
from neurokern.datasets import BIDSDataset, BinnedSession  # noqa: E402
from neurokern.datasets.packed_session import read_session, session_entry, source_key  # noqa: E402
from neurokern.extractors import FMRIVoxelExtractor  # noqa: E402
from neurokern.ops import NiftiFile, _array_cache  # noqa: E402

pytestmark = pytest.mark.cpu_only
SHAPE, N_RUNS = (6, 5, 4), 3


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_array_cache, "_LEAST_FREE", 0)
    return tmp_path / "cache"


@pytest.fixture
def fmri(tmp_path):
    """A BIDS folder of three compressed runs, and a mask beside it."""
    for run in range(N_RUNS):
        folder = tmp_path / "ds" / f"sub-0{run}" / "func"
        folder.mkdir(parents=True)
        values = np.random.default_rng(run).normal(1000, 30, (*SHAPE, 20 + run)).astype(np.int16)
        name = folder / f"sub-0{run}_task-look_bold"
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), f"{name}.nii.gz")
        name.with_suffix(".json").write_text(json.dumps({"RepetitionTime": 2.0}))
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:4] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "mask.nii.gz")
    return tmp_path / "ds"


def prepare(capsys, *arguments, code=0):
    assert main(["prepare", *map(str, arguments), "--jobs", "1"]) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def prepare_fmri(capsys, fmri, *arguments, code=0):
    return prepare(capsys, fmri, "--mask", fmri.parent / "mask.nii.gz", *arguments, code=code)


def files_in(cache):
    return sorted(p for p in cache.rglob("*") if p.is_file() and p.parent.name != "gzip_index")


def statuses(text):
    return [run["status"] for run in json.loads(text)["runs"]]


# ---- fMRI


def test_later_windows_are_not_decoded_again(capsys, fmri, monkeypatch):
    mask = fmri.parent / "mask.nii.gz"
    clean = {"normalize": True, "detrend": True}
    expected = BIDSDataset(fmri).with_extractor(FMRIVoxelExtractor(mask, cache=False, **clean))
    expected = [expected[i]["signal"] for i in range(N_RUNS)]
    prepare_fmri(capsys, fmri, "--set", "fmri.normalize=true", "--set", "fmri.detrend=true")
    windows = BIDSDataset(fmri).with_extractor(FMRIVoxelExtractor(mask, **clean))
    monkeypatch.setattr(NiftiFile, "decode_into", None)
    for i in range(N_RUNS):
        np.testing.assert_allclose(windows[i]["signal"], expected[i], atol=1e-5)


def test_a_second_call_does_nothing_and_says_so(capsys, fmri, cache):
    assert "prepared" in prepare_fmri(capsys, fmri)
    before = {path: path.stat().st_mtime_ns for path in files_in(cache)}
    assert len(before) == N_RUNS
    assert "nothing to do" in prepare_fmri(capsys, fmri)
    assert {path: path.stat().st_mtime_ns for path in files_in(cache)} == before


def test_a_dry_run_tells_the_sizes_and_makes_nothing(capsys, fmri, cache):
    planned = json.loads(prepare_fmri(capsys, fmri, "--dry-run", "--json", "--set", "fmri.normalize=true"))
    assert not files_in(cache)
    prepare_fmri(capsys, fmri, "--set", "fmri.normalize=true")
    assert sum(run["bytes"] for run in planned["runs"]) == sum(p.stat().st_size for p in files_in(cache))


def test_select_takes_some_of_the_runs(capsys, fmri, cache):
    prepare_fmri(capsys, fmri, "--select", "subject=[01,02]")
    assert len(files_in(cache)) == 2
    assert "there are 3 runs" in prepare_fmri(capsys, fmri, "--select", "subject=nobody", code=2)


def test_whole_volumes_that_are_not_kept_are_told(capsys, fmri, cache):
    text = prepare(capsys, fmri)
    assert "give --mask or --labels, or set fmri.cache=true" in text
    assert not files_in(cache)
    prepare(capsys, fmri, "--set", "fmri.cache=true")
    assert len(files_in(cache)) == N_RUNS


def test_one_damaged_run_does_not_keep_others_from_being_prepared(capsys, fmri, cache):
    path = next(fmri.glob("sub-01/func/*.nii.gz"))
    path.write_bytes(path.read_bytes()[:-200])
    text = prepare_fmri(capsys, fmri, code=1)
    assert f"failed   {path.relative_to(fmri)}" in text
    assert len(files_in(cache)) == 2


def test_data_named_twice_are_prepared_once(capsys, fmri):
    mask = fmri.parent / "mask.nii.gz"
    assert statuses(prepare(capsys, fmri, fmri / ".", "--mask", mask, "--json")) == ["prepared"] * N_RUNS


def test_a_broken_sidecar_is_of_its_run_alone(capsys, fmri, cache):
    next(fmri.glob("sub-01/func/*.json")).write_text("{")
    text = prepare_fmri(capsys, fmri, code=1)
    assert "failed   sub-01/func/sub-01_task-look_bold.nii.gz" in text
    assert len(files_in(cache)) == 2


def test_settings_come_from_yaml_and_flags_and_the_sections_of_training_are_passed_over(
    capsys, fmri, cache, tmp_path
):
    settings = tmp_path / "run.yaml"
    settings.write_text(f"data: [{fmri}]\nselect: {{subject: '00'}}\nmodel: {{}}\nthreads: 1\n")
    prepare(capsys, "--config", settings, "--mask", fmri.parent / "mask.nii.gz")
    assert len(files_in(cache)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no DATA given"),
        (("nowhere",), "no such file or folder: nowhere"),
        ((".", "--set", "fmri.maks=a"), "did you mean fmri.mask?"),
        ((".", "--set", "meeg.bads=maybe"), "meeg.bads must be one of"),
        ((".", "--set", "select=1"), "select must hold entities"),
    ],
)
def test_wrong_settings_are_named(capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in prepare(capsys, *arguments, code=2)


def test_two_kinds_of_signal_at_once_are_refused():
    with pytest.raises(ValueError, match="one of mask, labels and crop, got mask and labels"):
        FMRISettings(mask="a", labels="b").extractor()


def test_what_has_no_room_is_refused_before_anything_is_made(capsys, fmri, cache, monkeypatch):
    monkeypatch.setenv("NEUROKERN_CACHE_GIB", "1e-6")
    text = prepare_fmri(capsys, fmri, code=2)
    assert "are needed" in text
    assert "NEUROKERN_CACHE_GIB" in text
    assert not files_in(cache)


# ---- what others do meanwhile

SLOW = """
import sys, time
import torch
from neurokern.ops import _array_cache, _packed_run
_array_cache._LEAST_FREE = 0
real, made = _packed_run.fill_rows, []
def fill_rows(*arguments):
    made.append(1)
    if len(made) == {stop_at}:
        print("writing", flush=True)
        time.sleep({seconds})
    real(*arguments)
_packed_run.fill_rows = fill_rows
from neurokern.cli import main
{before}
sys.exit(main(sys.argv[1:]))
"""


def start(fmri, *, stop_at=0, seconds=0.0, before=""):
    program = textwrap.dedent(SLOW).format(stop_at=stop_at, seconds=seconds, before=before)
    command = [sys.executable, "-c", program, "prepare", str(fmri), "--jobs", "1", "--json"]
    command += ["--mask", str(fmri.parent / "mask.nii.gz")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_process_loses_the_run_in_work_alone(capsys, fmri, cache):
    process = start(fmri, stop_at=2, seconds=600)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert [path.suffix for path in files_in(cache)].count(".safetensors") == 1
    assert [path.suffix for path in files_in(cache)].count(".partial") == 1
    assert sorted(statuses(prepare_fmri(capsys, fmri, "--json"))) == ["prepared", "prepared", "ready"]
    assert {path.suffix for path in files_in(cache)} == {".safetensors"}


def test_two_processes_prepare_one_set_without_doing_it_twice(capsys, fmri, cache):
    first = start(fmri, stop_at=1, seconds=1.5)
    assert first.stdout.readline() == "writing\n"
    # This one finds the first file locked, and waits for it.
    assert statuses(prepare_fmri(capsys, fmri, "--json")) == ["prepared"] * N_RUNS
    out, error = first.communicate(timeout=60)
    assert first.returncode == 0, error
    assert statuses(out) == ["prepared"] * N_RUNS
    assert {path.suffix for path in files_in(cache)} == {".safetensors"}
    assert main(["cache", "verify", "--keep-damaged"]) == 0


def test_a_disk_that_is_full_gives_an_error_and_no_half_file(fmri, cache):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
    out, error = (process := start(fmri, before=limit)).communicate(timeout=60)
    assert process.returncode == 2
    assert "the same command goes on" in error
    assert statuses(out) == ["left", "left", "failed"]  # the longest goes first
    assert not files_in(cache)


# ---- spikes


def same_session(a, b):
    for name in ("counts", "regions", "unit_ids", "windows"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None)
        if x is not None:
            assert x.dtype.kind == y.dtype.kind
            assert x.dtype == y.dtype or x.dtype.kind == "U"
            np.testing.assert_array_equal(x, y)
    assert (a.bin_size, a.session, a.subject, a.notes) == (b.bin_size, b.session, b.subject, b.notes)
    if a.trials is None:
        assert b.trials is None
    else:
        pd.testing.assert_frame_equal(a.trials, b.trials)


@pytest.mark.parametrize("source", ["recording_folder", "trials_folder", "binned_file"])
def test_a_prepared_recording_is_the_same_and_is_not_loaded_again(capsys, source, request, monkeypatch):
    path, settings = request.getfixturevalue(source), WindowSettings(tmin=-0.2, tmax=0.4)
    made = make_session(path, settings)
    flags = ("--set", "windows.tmin=-0.2", "--set", "windows.tmax=0.4")
    assert "spikes, prepared" in prepare(capsys, path, *flags)
    assert "nothing to do" in prepare(capsys, path, *flags)
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "load_recording", None)
        loaded = load_session(path, settings)
    same_session(loaded.session, made.session)
    assert (loaded.how, loaded.stand_in, loaded.notes) == (made.how, made.stand_in, made.notes)
    if made.recording is None:
        assert loaded.recording is None
    else:  # for those who want to see spikes, such as a report
        np.testing.assert_array_equal(loaded.recording.times, made.recording.times)
        np.testing.assert_array_equal(loaded.recording.regions, made.recording.regions)


def test_other_settings_and_files_written_again_are_not_taken_for_what_was_prepared(
    capsys, recording_folder, cache
):
    prepare(capsys, recording_folder)
    settings = WindowSettings()
    assert read_session(source_key(recording_folder, settings)) is not None
    for other in (replace(settings, bin_size=0.05), replace(settings, min_rate=1.0)):
        assert read_session(source_key(recording_folder, other)) is None
    # Of one size and time, so that the content alone tells.
    file = recording_folder / "spikes.clusters.npy"
    units, status = np.load(file), file.stat()
    np.save(file, units[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_size == status.st_size
    assert read_session(source_key(recording_folder, settings)) is None


def test_a_damaged_session_is_loaded_from_its_source_and_prepared_again(capsys, recording_folder, cache):
    prepare(capsys, recording_folder)
    (path,) = (cache / "packed_sessions").iterdir()
    whole = path.read_bytes()
    expected = make_session(recording_folder, WindowSettings()).session
    for at in (0, 7, 9, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        same_session(load_session(recording_folder, WindowSettings()).session, expected)
    for n_bytes in (0, 3, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:n_bytes])
        same_session(load_session(recording_folder, WindowSettings()).session, expected)
    assert "spikes, prepared" in prepare(capsys, recording_folder)
    assert path.read_bytes() == whole


def test_units_are_chosen_by_quality_before_binning(capsys, recording_folder):
    every = make_session(recording_folder, WindowSettings())
    rates = every.recording.rates
    some = load_session(recording_folder, WindowSettings(min_rate=float(np.median(rates))))
    assert some.session.n_units == (rates >= np.median(rates)).sum()
    assert any("rate of at least" in note for note in some.notes)


def test_counts_cannot_be_chosen_by_quality(binned_file):
    with pytest.raises(ValueError, match=r"windows\.min_rate needs spike times"):
        load_session(binned_file, WindowSettings(min_rate=1.0))


def test_tables_come_back_with_their_types(random_trials):
    session = BinnedSession(
        counts=np.zeros((3, 2, 1), np.uint8),
        bin_size=0.1,
        regions=np.array(["CA1"]),
        unit_ids=np.array([7], np.uint16),
        session="näme",
        trials=random_trials,
    )
    session_entry("key", session, {}).make()
    found, _ = read_session("key")
    same_session(found, session)
    found.counts[0] = 9  # no one else sees it
    assert not read_session("key")[0].counts.any()


@pytest.fixture
def random_trials():
    return pd.DataFrame(
        {
            "whole": [1, -2, 3],
            "small": np.array([1, 2, 3], np.uint8),
            "real": [0.1, np.nan, -np.inf],
            "half": np.array([0.5, 1, 2], np.float16),
            "truth": [True, False, True],
            "text": pd.Series(["a", "ü", None], dtype=object),
            "mixed": pd.Series(["a", float("nan"), None], dtype=object),
        }
    )


def test_a_table_that_would_not_come_back_whole_is_refused(random_trials):
    trials = random_trials.assign(when=pd.to_datetime(["2020-01-01"] * 3))
    session = BinnedSession(
        counts=np.zeros((3, 2, 1), np.uint8), bin_size=0.1, regions=[""], unit_ids=[0], session="a",
        trials=trials,
    )  # fmt: skip
    with pytest.raises(ValueError, match="column 'when' of the trials"):
        session_entry("key", session, {})


# ---- M/EEG


def test_later_loads_of_eeg_are_not_filtered_again(capsys, tmp_path, monkeypatch):
    mne = pytest.importorskip("mne")
    from neurokern.extractors import MEEGExtractor

    raw = mne.io.RawArray(
        np.random.default_rng(0).normal(0, 1e-5, (3, 500)), mne.create_info(3, 100.0, "eeg")
    )
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    assert "M/EEG, prepared" in prepare(capsys, tmp_path / "a_raw.fif", "--set", "meeg.h_freq=30")
    assert "nothing to do" in prepare(capsys, tmp_path / "a_raw.fif", "--set", "meeg.h_freq=30")
    monkeypatch.setattr(MEEGExtractor, "_fill", None)
    (task,) = prepare_tasks.find_tasks(PrepareSettings(data=(str(tmp_path / "a_raw.fif"),)))
    again = pickle.loads(pickle.dumps(task))  # tasks go to other processes
    extractor = MEEGExtractor(h_freq=30.0, cache=True)
    assert extractor.extract(again.run, 0, 500).shape == (500, 3)


# ---- real recordings


def test_real_recordings_are_prepared_and_found_again(capsys, shared_data):
    some = shared_data / "spikes" / "steinmetz2019" / "session01.npz", shared_data / "spikes" / "ibl_alf_120s"
    for expected in ("prepared", "ready"):
        assert statuses(prepare(capsys, *some, "--json")) == [expected] * 2
    same_session(
        load_session(some[0], WindowSettings()).session, make_session(some[0], WindowSettings()).session
    )
