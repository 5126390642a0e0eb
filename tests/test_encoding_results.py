"""What docs/results.md says of ridge on real recordings holds, by the commands and examples that it names."""

import json
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from neurokern.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"
AREAS = runpy.run_path(str(EXAMPLES / "predict_areas.py"))
OBJECTS = runpy.run_path(str(EXAMPLES / "responses_to_objects.py"))
DESIGN = runpy.run_path(str(EXAMPLES / "design_from_events.py"))


def encode(capsys, *arguments):
    assert main(["encode", *map(str, arguments), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    return facts, np.load(facts["files"]["scores"])


def test_motor_cortex_tells_hand_velocity(shared_data, tmp_path, capsys):
    file = shared_data / "spikes" / "m1_reach_chewie.npz"
    for array, expected in (("te", (0.646, 0.571)), ("tr", (0.607, 0.585))):
        files = ("--x", f"{file}:Y{array}", "--y", f"{file}:X{array}", "--delays", "0,1,2", "--gap", "3")
        _, scores = encode(capsys, *files, "--permutations", "200", "--out", tmp_path)
        np.testing.assert_allclose(scores["r2"], expected, atol=0.01)
        assert scores["q_value"].max() < 0.01
    _, scores = encode(capsys, *files[:4], "--delays", "0,1,2", "--alphas", "200", "--out", tmp_path)
    assert scores["r2"].min() > 0.5


def test_other_areas_remove_some_percent_of_the_error_about_the_training_mean(shared_data, capsys):
    AREAS["main"](str(shared_data / "spikes" / "steinmetz2019" / "session03.npz"))
    row = capsys.readouterr().out.splitlines()[2].split("|")
    assert row[1:4] == [" session03 ", " 546 ", " 10 "]
    assert 0.035 < float(row[4]) < 0.055
    assert abs(float(row[6])) < 0.01


def test_objects_drive_inferotemporal_units_up_to_their_noise_ceiling(shared_data, tmp_path, capsys):
    OBJECTS["main"](str(shared_data / "spikes" / "macaque_it_zd7" / "zd7_rasters.npz"), str(tmp_path / "it"))
    said, command = capsys.readouterr().out.splitlines()
    assert said == "132 units, 21 conditions, 19 repeats"
    facts, scores = encode(capsys, *shlex.split(command)[2:], "--out", tmp_path / "out")
    assert facts["scores"]["explainable_variance"]["mean"] == pytest.approx(0.185, abs=0.003)
    assert facts["scores"]["r2"]["mean"] == pytest.approx(0.125, abs=0.005)
    assert facts["scores"]["r2_normalized"]["targets"] == 91
    assert facts["scores"]["r2_normalized"]["median"] == pytest.approx(0.73, abs=0.02)
    assert facts["scores"]["unique:object"]["mean"] > 5 * facts["scores"]["unique:position"]["mean"]
    assert (scores["r2"] <= scores["explainable_variance"] + 0.02).all()


def design(shared_data, folder, out, capsys, *entities):
    """Run the example and return the command that it prints."""
    DESIGN["main"](str(shared_data / "fmri" / folder), str(out), *entities)
    said, command = capsys.readouterr().out.splitlines()
    return said, shlex.split(command)[2:]


def test_conditions_predict_voxels_at_the_back_of_the_head(shared_data, tmp_path, monkeypatch, capsys):
    nibabel = pytest.importorskip("nibabel")
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path))
    said, command = design(shared_data, "bids_studyforrest_localizer", tmp_path / "x", capsys)
    assert re.match(r"1 runs, 12,\d\d\d voxels, conditions: body, face, house", said)
    flags = ("--delay-seconds", "2,4,6,8,10", "--gap", "8", "--folds", "10", "--out", tmp_path / "out")
    facts, scores = encode(capsys, *command, *flags)
    assert 0.55 < scores["r2"].max() < 0.7
    image = nibabel.load(facts["files"]["r2 map"])
    volume = image.get_fdata()
    places, inside = (np.argwhere(np.isfinite(volume)), np.isfinite(volume))
    ahead = (places @ image.affine[:3, :3].T + image.affine[:3, 3])[:, 1]
    behind = ahead < ahead.min() + np.ptp(ahead) / 3
    high = volume[inside] > 0.2
    assert 400 < high.sum() < 560
    assert behind[high].mean() > 0.85


def test_conditions_predict_half_of_the_voxels_of_a_slice_in_runs_left_out(
    shared_data, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("nibabel")
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path))
    said, command = design(shared_data, "bids_haxby2001_lite", tmp_path / "x", capsys, "acquisition=1slice")
    assert said.startswith("9 runs")
    flags = ("--delay-seconds", "2.5,5,7.5,10", "--permutations", "999", "--block-size", "9")
    facts, scores = encode(capsys, *command, *flags, "--out", tmp_path / "out")
    assert facts["settings"]["folds"] == "leave-one-run-out"
    assert 0.5 < scores["r2"].max() < 0.6
    assert 200 < facts["discoveries"]["targets"] < 260
