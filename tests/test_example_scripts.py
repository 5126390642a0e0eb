"""Every example runs as it stands, with few steps."""

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SHOWN = {
    "spikes_to_scores.py": "co-smoothing",
    "few_shot_on_your_trials.py": "raw counts, ridge",
    "align_layers_with_areas.py": "sessions of the shared model: ('session-1',)",
}


def test_every_example_is_run_here():
    tested_elsewhere = {"bids_to_batches.py", "spikes_to_batches.py", "scores_by_session.py"}
    tested_elsewhere |= {
        "masking_ablation.py",
        "other_recordings.py",
    }  # evaluation/test_masking_ablation.py; below
    tested_elsewhere |= {"task_activation.py", "decode_blocks.py"}  # test_fmri_results.py
    tested_elsewhere |= {"object_geometry.py", "category_geometry.py"}  # test_alignment_results.py
    tested_elsewhere |= {"predict_areas.py", "design_from_events.py"}  # test_encoding_results.py
    tested_elsewhere |= {"few_shot_across_subjects.py", "few_shot_objects.py"}  # test_few_shot_results.py
    # test_encoding_results.py
    tested_elsewhere |= {"predict_areas.py", "design_from_events.py", "responses_to_objects.py"}
    tested_elsewhere |= {"tokens_for_other_models.py"}
    tested_elsewhere |= {"eeg_to_batches.py", "federated_sites.py"}  # datasets/test_eeg_example.py
    # datasets/bridges/test_published_models.py
    tested_elsewhere |= {"poyo_on_your_recording.py", "batches_for_published_systems.py"}
    tested_elsewhere |= {"five_lines.py", "align_brain_with_images.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} - tested_elsewhere == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_runs_and_shows_its_result(name, monkeypatch, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    monkeypatch.setattr(sys, "argv", [name, "3"])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert SHOWN[name] in capsys.readouterr().out


def test_models_of_other_kinds_learn_from_tokens_of_the_same_batches(monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setattr(sys, "argv", ["tokens_for_other_models.py", "20"])
    runpy.run_path(str(EXAMPLES / "tokens_for_other_models.py"), run_name="__main__")
    first, last = (re.findall(r"\d+\.\d+", line) for line in capsys.readouterr().out.splitlines())
    assert all(float(after) < float(before) - 0.5 for before, after in zip(first, last, strict=True))


def test_scores_by_session_averages_over_units_then_sessions(tmp_path, monkeypatch, capsys):
    runs = []
    for session, (model, ridge) in {"a": (0.3, 0.2), "b": (0.1, 0.4)}.items():
        runs.append(tmp_path / session)
        runs[-1].mkdir()
        rows = [f"{name},{session},co-smoothing,{u},20,{x}" for u in (1, 2) for name, x in
                (("MtM", model), ("ridge", ridge), ("unit mean", -0.1))]  # fmt: skip
        rows.append(f"MtM,{session},co-smoothing,3,0,")  # silent: no score
        header = "predictor,session,task,unit,n_spikes,bits_per_spike"
        (runs[-1] / "scores_per_unit.csv").write_text("\n".join([header, *rows]) + "\n")
    (runs[0] / "few_shot.csv").write_text("method,shots,mean\nraw,1,0.5\nraw,2,0.625\n")
    monkeypatch.setattr(sys, "argv", ["scores_by_session.py", *map(str, runs)])
    runpy.run_path(str(EXAMPLES / "scores_by_session.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "| co-smoothing | ≥ 20 spikes | +0.200 | +0.300 | -0.100 | 1 of 2 sessions |" in shown
    assert "| raw | 0.500 | 0.625 |" in shown


def test_another_recording_is_predicted_and_decoded(shared_data, monkeypatch, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    file = shared_data / "spikes" / "hippocampus_ca1" / "linear_track.npz"
    monkeypatch.setattr(sys, "argv", ["other_recordings.py", "ca1", str(file), "2"])
    runpy.run_path(str(EXAMPLES / "other_recordings.py"), run_name="__main__")
    text = capsys.readouterr().out
    assert "forward-prediction" in text
    assert "MtM states  position" in text
    assert "inf" not in text


def test_bids_to_batches_shows_voxels_and_parcels(shared_data, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path))
    folder = shared_data / "fmri" / "bids_studyforrest_localizer"
    monkeypatch.setattr(sys, "argv", ["bids_to_batches.py", str(folder)])
    runpy.run_path(str(EXAMPLES / "bids_to_batches.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "voxels (4, 16, " in shown
    assert "parcels (16, 35)" in shown


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_five_lines_give_batches_of_voxels_and_one_more_those_of_regions(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("nibabel")
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["five_lines.py"])
    runpy.run_path(str(EXAMPLES / "five_lines.py"), run_name="__main__")
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "voxels (16, 24, 150)",
        "voxels (4, 24, 150)",
        "regions (16, 24, 3)",
        "regions (4, 24, 3)",
    ]


def test_images_never_shown_before_are_found_by_what_the_brain_did(tmp_path, monkeypatch, capsys):
    for peer in ("torch", "nibabel", "sklearn", "PIL", "transformers"):
        pytest.importorskip(peer)
    monkeypatch.setenv("NEUROKERN_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["align_brain_with_images.py", "60"])
    runpy.run_path(str(EXAMPLES / "align_brain_with_images.py"), run_name="__main__")
    trained, mixed_up = capsys.readouterr().out.splitlines()
    top_1, top_5 = (float(share) for share in re.findall(r"top-\d (\d\.\d+)", trained))
    assert top_1 > 0.3  # chance: 1 / 60
    assert top_5 > 0.6
    assert all(float(share) < 0.25 for share in re.findall(r"top-\d (\d\.\d+)", mixed_up))
