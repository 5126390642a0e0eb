"""``neurokern doctor``: each planted fault is found and named; sound data is left alone."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from neurokern.cli import main

nibabel = pytest.importorskip("nibabel")

SHAPE, TR, N = (8, 8, 6), 2.0, 20


def doctor(capsys, *arguments, code):
    assert main(["doctor", *map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def said(capsys, *arguments, code):
    return [f"{f['level']} {f['what']}" for f in doctor(capsys, *arguments, code=code)["findings"]]


def brain(kind=np.int16):
    values = np.random.default_rng(0).integers(5, 20, (*SHAPE, N)).astype(kind)
    values[2:6, 2:6, 1:5] += np.asarray(100, kind)
    return values


def write_image(path, values):
    image = nibabel.Nifti1Image(values, np.diag([3.0, 3.0, 3.0, 1.0]))
    if values.ndim == 4:
        image.header.set_zooms((3.0, 3.0, 3.0, TR))
        image.header.set_xyzt_units("mm", "sec")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


@pytest.fixture
def folder(tmp_path):
    """A sound BIDS folder: one run, its events, a mask."""
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "Toy", "BIDSVersion": "1.8.0"}))
    stem = tmp_path / "sub-01/func/sub-01_task-look"
    write_image(stem.with_name(stem.name + "_bold.nii"), brain())
    stem.with_name(stem.name + "_bold.json").write_text(json.dumps({"RepetitionTime": TR}))
    events = pd.DataFrame({"onset": [4.0, 20.0], "duration": 8.0, "trial_type": ["face", "house"]})
    events.to_csv(stem.with_name(stem.name + "_events.tsv"), sep="\t", index=False)
    derivative = tmp_path / "derivatives/masks"
    derivative.mkdir(parents=True)
    about = {"Name": "Masks", "BIDSVersion": "1.8.0", "DatasetType": "derivative"}
    (derivative / "dataset_description.json").write_text(json.dumps(about))
    write_image(derivative / "sub-01/func/sub-01_task-look_mask.nii.gz", np.ones(SHAPE, np.uint8))
    return tmp_path


def test_a_sound_folder_has_no_findings_and_its_speed_is_told(capsys, folder):
    found = doctor(capsys, folder, code=0)
    assert found["findings"] == []
    assert found["loading"]["images"]["files"] == 1
    assert found["loading"]["images"]["mb"] == pytest.approx(np.prod([*SHAPE, N]) * 2 / 1e6)


def run_of(folder):
    return folder / "sub-01/func/sub-01_task-look_bold.nii"


def not_finite():
    values = brain(np.float32)
    values[3, 3, 2, 5] = np.nan
    values[3, 3, 3] = np.inf
    return values


def clipped():
    values = brain()
    values[3:5, 3, 2, 4] = 32767
    return values


def flat():
    values = brain()
    values[3:5, 3, 2] = 130
    return values


@pytest.mark.parametrize(
    ("values", "finding", "code"),
    [
        (not_finite(), "error 2 voxels have NaN or infinity in some volume", 1),
        (clipped(), "warning 3.12% of the bright voxels reach an end of int16: clipped?", 0),
        (flat(), "warning 3.1% of the bright voxels never change", 0),
        (np.full((*SHAPE, N), 7, np.int16), "error no voxel changes over time", 1),
        (brain()[..., :1], "warning has one volume; nothing can be said about time", 0),
    ],
    ids=["not finite", "clipped", "flat", "constant", "one volume"],
)
def test_faults_of_values_are_found(capsys, tmp_path, values, finding, code):
    image = write_image(tmp_path / "bold.nii.gz", values)
    assert finding in said(capsys, image, code=code)


def test_a_run_that_is_cut_short_is_an_error_and_the_others_are_still_looked_at(capsys, folder):
    other = folder / "sub-02/func/sub-02_task-look_bold.nii"
    write_image(other, not_finite())
    content = run_of(folder).read_bytes()
    run_of(folder).write_bytes(content[: len(content) // 2])
    findings = doctor(capsys, folder, code=1)["findings"]
    by_file = {f["where"]: f for f in findings if f["level"] == "error"}
    assert set(by_file) == {"sub-01/func/sub-01_task-look_bold.nii", "sub-02/func/sub-02_task-look_bold.nii"}


def test_tables_and_headers_are_held_against_each_other(capsys, folder):
    stem = folder / "sub-01/func/sub-01_task-look"
    stem.with_name(stem.name + "_bold.json").write_text(json.dumps({"RepetitionTime": 2000}))
    assert any("milliseconds" in line for line in said(capsys, folder, "--quick", code=0))
    stem.with_name(stem.name + "_bold.json").write_text(json.dumps({"RepetitionTime": 0.5}))
    lines = said(capsys, folder, "--quick", code=0)
    assert any("events begin after the end of the run" in line for line in lines)
    assert any("0.5 s by the sidecar and 2 s by the header" in line for line in lines)


def test_a_mask_of_another_grid_is_named_with_both_sizes(capsys, folder):
    mask = folder / "derivatives/masks/sub-01/func/sub-01_task-look_mask.nii.gz"
    write_image(mask, np.ones((4, 4, 6), np.uint8))
    assert "warning has 4×4×6 voxels and fits no run of its subject (8×8×6)" in said(capsys, folder, code=0)


def test_quick_reads_no_signal(capsys, folder):
    write_image(run_of(folder), not_finite())
    found = doctor(capsys, folder, "--quick", code=0)
    assert found == {"findings": [], "loading": None}


def test_spikes_of_two_neurons_on_two_clocks_are_found(capsys, tmp_path):
    times = np.concatenate([np.arange(200) / 20, np.arange(100) / 10, np.arange(100) / 10 + 3e-4])
    units = np.repeat([0, 1], 200)  # unit 1 spikes in pairs
    order = np.argsort(times)
    folder = tmp_path / "alf"
    folder.mkdir()
    np.save(folder / "spikes.times.npy", times[order])
    np.save(folder / "spikes.clusters.npy", units[order])
    np.save(folder / "trials.stimOn_times.npy", np.array([1.0, 2.0, 5000.0]))
    lines = said(capsys, folder, code=1)
    assert any(line.startswith("error 1 of 3 trials have stimOn_times outside") for line in lines)
    assert any(line.startswith("warning 1 units have more than 5% of their intervals") for line in lines)
    assert "warning no unit has a region; masks by region need them" in lines


def test_a_folder_without_data_is_bad_input(capsys, tmp_path):
    assert main(["doctor", str(tmp_path)]) == 2
    assert "doctor" in capsys.readouterr().err


def test_text_names_errors_first(capsys, tmp_path):
    write_image(tmp_path / "a.nii", flat())
    write_image(tmp_path / "b.nii", not_finite())
    assert main(["doctor", str(tmp_path / "a.nii"), str(tmp_path / "b.nii")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("error   b.nii: ")
    assert lines[-1].startswith("1 error, ")


@pytest.fixture
def eeg_folder(tmp_path):
    """One recording: a flat, a clipped and a sound channel; an event after the end, and one twice."""
    mne = pytest.importorskip("mne")
    rng = np.random.default_rng(0)
    values = rng.normal(0, 20e-6, (3, 2000))
    values[0] = 5e-6
    values[1] = values[1].clip(-20e-6, 20e-6)
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "Toy", "BIDSVersion": "1.8.0"}))
    eeg = tmp_path / "sub-01/eeg"
    eeg.mkdir(parents=True)
    raw = mne.io.RawArray(values, mne.create_info(["Fz", "Cz", "Pz"], 100.0, "eeg"), verbose="ERROR")
    raw.save(eeg / "sub-01_task-rest_eeg.fif", verbose="ERROR")
    events = pd.DataFrame({"onset": [1.0, 1.0, 30.0], "duration": 0.0, "trial_type": "tone"})
    events.to_csv(eeg / "sub-01_task-rest_events.tsv", sep="\t", index=False)
    return tmp_path


def test_channels_and_events_of_eeg_are_looked_at(capsys, eeg_folder):
    lines = said(capsys, eeg_folder, code=1)
    assert "warning 1 channels are flat: Fz" in lines
    assert "warning 1 channels stay at their highest or lowest value: clipped?: Cz" in lines
    assert "error 1 events begin after the end of the recording at 20 s" in lines
    assert "warning 1 events repeat the onset and kind of another" in lines


def test_a_small_signal_in_coarse_steps_is_not_taken_for_a_clipped_one():
    pytest.importorskip("mne")
    from neurokern.cli.doctor_meeg import _piles_up

    rng = np.random.default_rng(0)
    coarse = np.round(rng.normal(0, 4, 8000)).astype(np.float32)
    assert (coarse.clip(-8, 8) == 8).mean() > 1e-3
    assert not _piles_up(coarse)
    assert _piles_up(coarse.clip(-8, 100))
    assert _piles_up(rng.normal(0, 4, 8000).astype(np.float32).clip(-100, 8))


def test_a_folder_without_bids_is_looked_at_whatever_lies_in_it(capsys, tmp_path, monkeypatch):
    pytest.importorskip("mne")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "datasets")
    from recordings_on_disk import write_brainvision

    write_image(tmp_path / "images" / "a.nii.gz", not_finite())
    write_brainvision(tmp_path / "eeg" / "b.vhdr", n_samples=200)
    np.save(folder_of(tmp_path / "alf") / "spikes.times.npy", np.arange(400) / 20)
    np.save(tmp_path / "alf" / "spikes.clusters.npy", np.arange(400) % 4)
    found = doctor(capsys, tmp_path, code=1)
    assert set(found["loading"]) == {"images", "recordings", "recordings of spikes"}
    assert [f["where"] for f in found["findings"] if f["level"] == "error"] == ["images/a.nii.gz"]


def folder_of(path):
    path.mkdir(parents=True)
    return path
