"""The commands as a user runs them: what they write, what they print, and how they fail."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from neurokern._config import to_mapping
from neurokern.adapters import AdaptedModel
from neurokern.checkpoint import load_model
from neurokern.cli import main
from neurokern.cli.settings import RunSettings
from neurokern.datasets import load_binned_npz

SMALL = [
    "model.hidden_size=16",
    "model.n_layers=1",
    "model.n_heads=2",
    "model.mlp_size=16",
    "model.stitch_size=4",
    "training.batch_size=8",
    "training.max_steps=6",
    "training.validate_every=3",
    "training.checkpoint_every=2",
]


def small(*settings):
    """Return the flags of a tiny model that trains for six steps."""
    return [part for setting in (*SMALL, *settings) for part in ("--set", setting)]


def run(*arguments):
    return main([str(argument) for argument in arguments])


def fails(capsys, *arguments):
    """Run a command that must fail on its input; return its one line of error."""
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("neurokern")]
    assert len(lines) == 1
    return lines[0]


def test_env_prints_versions_and_instruction_set(capsys):
    assert run("env") == 0
    assert "instruction set" in capsys.readouterr().out


def test_env_as_json_names_libraries_threads_and_cuda(capsys):
    assert run("env", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["libraries"]["numpy"] == np.__version__
    assert facts["cpu"]["isa"] in facts["cpu"]["available"]
    assert facts["threads"]["cpus"] >= 1
    assert isinstance(facts["cuda"]["built"], bool)


def test_env_runs_without_torch():
    hide_torch = (
        "import sys; sys.modules['torch'] = None; from neurokern.cli import main; sys.exit(main(['env']))"
    )
    done = subprocess.run([sys.executable, "-c", hide_torch], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch not installed" in done.stdout


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "neurokern", "--version"], capture_output=True, text=True, check=False
    )
    assert re.fullmatch(r"neurokern \d+\.\d+.*\n", done.stdout)


@pytest.mark.parametrize(
    "command",
    ["env", "info", "report", "demo", "train", "evaluate", "adapt", "few-shot", "transfer", "hub"],
)
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        run(command, "--help")
    assert stop.value.code == 0
    assert f"examples:\n  neurokern {command}" in capsys.readouterr().out


def test_info_describes_spike_times_without_trials(recording_folder, capsys):
    assert run("info", recording_folder) == 0
    shown = capsys.readouterr().out
    assert re.search(r"trials +none", shown)
    assert "of 12 units" in shown


def test_info_describes_binned_counts_and_never_names_the_subject(binned_file, capsys):
    assert run("info", binned_file, "--json") == 0
    shown = capsys.readouterr().out
    assert "Somebody" not in shown
    facts = json.loads(shown)[0]
    assert (facts["windows"], facts["bins"], facts["units"]) == (40, 20, 10)
    assert facts["regions"] == {"CA1": 5, "VISp": 5}


def test_info_takes_a_folder_of_recordings(recording_folder, binned_file, capsys):
    assert run("info", recording_folder.parent) == 0
    shown = capsys.readouterr().out
    assert "alf_60s" in shown
    assert "binned_a.npz" in shown


def test_a_missing_path_is_named_in_one_line(capsys):
    assert "nowhere" in fails(capsys, "info", "nowhere")


def test_a_folder_without_recordings_says_what_is_expected(tmp_path, capsys):
    assert "spikes.times.npy" in fails(capsys, "info", tmp_path)


def test_a_truncated_file_is_named_in_one_line(recording_folder, capsys):
    file = recording_folder / "spikes.times.npy"
    file.write_bytes(file.read_bytes()[:100])
    assert "spikes.times.npy" in fails(capsys, "info", recording_folder)


def test_debug_shows_the_traceback():
    with pytest.raises(FileNotFoundError):
        run("info", "nowhere", "--debug")


def test_an_unknown_setting_names_the_nearest_one(recording_folder, tmp_path, capsys):
    error = fails(
        capsys, "train", recording_folder, "--out", tmp_path / "run", "--set", "training.max_step=3"
    )
    assert "did you mean training.max_steps?" in error
    assert not (tmp_path / "run").exists()


def test_a_recording_that_is_too_short_says_what_is_needed(tmp_path, capsys):
    np.savez(tmp_path / "short.npz", times=np.linspace(0, 1.9, 50), units=np.arange(50) % 10)
    error = fails(capsys, "train", tmp_path / "short.npz", "--out", tmp_path / "run")
    assert "at least 20 are needed" in error


def test_a_recording_with_too_few_units_says_what_is_needed(tmp_path, capsys):
    np.savez(tmp_path / "few.npz", times=np.linspace(0, 60, 500), units=np.arange(500) % 2)
    error = fails(capsys, "train", tmp_path / "few.npz", "--out", tmp_path / "run")
    assert "has 2 units; at least 5 are needed" in error


def test_two_recordings_of_one_name_are_refused(binned_file, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / binned_file.name
    copy.write_bytes(binned_file.read_bytes())
    assert "binned_a" in fails(capsys, "train", binned_file, copy, "--out", tmp_path / "run")


def test_evaluate_needs_a_run_folder(tmp_path, capsys):
    assert "holds no run.yaml" in fails(capsys, "evaluate", tmp_path)


@pytest.fixture
def trained(binned_file, tmp_path):
    """A run on the binned file."""
    folder = tmp_path / "run"
    assert run("train", binned_file, "--out", folder, *small()) == 0
    return folder


def weights(folder):
    return (folder / "best" / "model.safetensors").read_bytes()


def test_train_stores_its_whole_configuration(trained, binned_file):
    settings = yaml.safe_load((trained / "run.yaml").read_text())
    assert settings["data"] == [str(binned_file.resolve())]
    assert settings["training"]["max_steps"] == 6
    assert settings["model"]["n_bins"] == 20
    assert (trained / "environment.json").is_file()


def test_a_run_is_reproduced_from_its_folder(trained, tmp_path):
    assert run("train", "--config", trained / "run.yaml", "--out", tmp_path / "again") == 0
    assert weights(tmp_path / "again") == weights(trained)


def test_another_seed_gives_another_model(trained, tmp_path):
    assert run("train", "--config", trained / "run.yaml", "--out", tmp_path / "b", "--seed", "7") == 0
    assert weights(tmp_path / "b") != weights(trained)


def test_a_folder_that_holds_a_run_is_not_overwritten(trained, binned_file, capsys):
    before = weights(trained)
    assert "holds a run already" in fails(capsys, "train", binned_file, "--out", trained, *small())
    assert weights(trained) == before


def test_an_interrupted_run_goes_on_to_the_same_result(trained, binned_file, tmp_path, capsys, monkeypatch):
    from neurokern.training import Trainer

    steps = Trainer._step

    def stop_at_step_five(trainer, *batch):
        if trainer.progress.step == 4:
            raise KeyboardInterrupt
        steps(trainer, *batch)

    folder = tmp_path / "stopped"
    monkeypatch.setattr(Trainer, "_step", stop_at_step_five)
    assert run("train", binned_file, "--out", folder, *small()) == 130
    assert f"neurokern train --out {folder} --resume" in capsys.readouterr().err
    monkeypatch.setattr(Trainer, "_step", steps)
    assert run("train", "--out", folder, "--resume") == 0
    assert weights(folder) == weights(trained)


def test_evaluate_writes_scores_of_model_and_baselines(trained, capsys):
    assert run("evaluate", trained, "--report") == 0
    said = capsys.readouterr().out
    assert "co-smoothing" in said
    assert "MtM minus each baseline" in said
    assert "decoding contrast_left>contrast_right" in said
    scores = pd.read_csv(trained / "scores_per_unit.csv")
    assert set(scores["predictor"]) == {"MtM", "ridge", "reduced rank", "GLM", "PSTH", "unit mean"}
    assert set(scores["task"]) == {"co-smoothing", "forward-prediction", "intra-region", "inter-region"}
    assert "subject" not in scores
    summary = pd.read_csv(trained / "scores.csv")
    assert len(summary) == 4 * 5 + 2
    assert np.isfinite(summary["mean"]).all()
    others = ["bits_per_spike_over_training_mean", "r2", "psth_r2", "poisson_d2"]
    assert np.isfinite(summary[others]).all(axis=None)
    differences = pd.read_csv(trained / "differences.csv")
    assert set(differences["baseline"]) == {"ridge", "reduced rank", "GLM", "PSTH", "unit mean"}
    assert differences["n_sessions"].eq(1).all()
    assert set(pd.read_csv(trained / "decoding.csv")["features"]) > {"raw counts", "MtM rates"}
    page = (trained / "report.html").read_text(encoding="utf-8")
    assert "one session" in page
    assert "<h2>Decoding</h2>" in page


def test_evaluate_takes_a_choice_of_baselines_and_conditions(trained, capsys):
    assert run("evaluate", trained, "--baselines", "unit-mean,psth", "--label", "none", "--max-units", 4) == 0
    said = capsys.readouterr().out
    assert "decoding" not in said
    scores = pd.read_csv(trained / "scores_per_unit.csv")
    assert set(scores["predictor"]) == {"MtM", "PSTH", "unit mean"}
    units = scores.groupby(["predictor", "task"])["unit"].apply(tuple)
    assert units.nunique() == 1
    assert len(units.iloc[0]) == 4
    with pytest.raises(SystemExit):
        run("evaluate", trained, "--baselines", "forest")
    assert "unknown forest; known are ridge, reduced-rank, glm, psth, unit-mean" in capsys.readouterr().err
    assert "have no column mood; they have contrast_left" in fails(
        capsys, "evaluate", trained, "--conditions", "mood"
    )


def test_evaluate_of_a_recording_without_trials_has_no_psth_and_refuses_conditions(
    recording_folder, tmp_path, capsys
):
    out = tmp_path / "sliding"
    assert run("train", recording_folder, "--out", out, *small()) == 0
    assert run("evaluate", out, "--max-units", 4) == 0
    assert "PSTH" not in capsys.readouterr().out
    assert not (out / "decoding.csv").exists()
    for flag in ("--conditions", "--label"):
        assert "has no trials" in fails(capsys, "evaluate", out, "--baselines", "unit-mean", flag, "choice")


def test_evaluate_refuses_a_session_that_the_model_does_not_know(trained, recording_folder, capsys):
    error = fails(capsys, "evaluate", trained, recording_folder, "--max-units", "3")
    assert "does not know alf_60s" in error
    assert "neurokern adapt" in error


def test_a_checkpoint_cut_short_is_named(trained, capsys):
    file = trained / "best" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    assert "model.safetensors" in fails(capsys, "evaluate", trained)


@pytest.mark.parametrize(("mode", "adapter"), [("stitch", "lora"), ("full", None)])
def test_adapt_brings_the_model_to_a_new_recording(trained, binned_file, tmp_path, capsys, mode, adapter):
    pytest.importorskip("matplotlib")
    new = tmp_path / "binned_b.npz"
    new.write_bytes(binned_file.read_bytes())
    out = tmp_path / "adapted"
    flags = ("--label", "contrast_left>contrast_right", "--episodes", "3", "--mode", mode)
    flags += ("--adapter", adapter) if adapter else ()
    assert run("adapt", trained, new, "--out", out, *flags, *small()[-6:]) == 0
    few = pd.read_csv(out / "few_shot.csv")
    assert {"MtM states, ridge", "MtM factors, logistic", "raw counts, ridge"} <= set(few["method"])
    assert few["mean"].between(0, 1).all()
    assert "contrast_left&gt;contrast_right" in (out / "report.html").read_text()
    assert ("weights learned in" in capsys.readouterr().out) == bool(adapter)
    if adapter:
        adapted = AdaptedModel.load(out / "adapter", load_model(out))
        assert adapted.adapter == "LoRA"
        assert set(adapted.predict(load_binned_npz(new))) <= {0, 1}
        base, shared = tmp_path / "base", tmp_path / "shared"
        assert run("hub", "save", out, "--out", base, "--sessions", "pseudonyms") == 0
        saving = ("hub", "save", out / "adapter", "--out", shared, "--base", base, "--sessions", "pseudonyms")
        assert run(*saving) == 0
        assert AdaptedModel.from_pretrained(shared).base == adapted.base
        card = (shared / "README.md").read_text()
        assert re.search(r"\| LoRA \| balanced_accuracy \| [\d.]+ \[[\d.]+, [\d.]+\] \| 0.5 \| \d+ \|", card)
        assert "binned_b" not in card
        error = fails(capsys, "hub", "save", out, "--out", tmp_path / "x", "--base", "lab/x")
        assert "--base belongs to an adapter" in error
    assert run("evaluate", out) == 0  # the folder is a run like any other


def test_few_shot_compares_adapters_on_new_recordings(trained, binned_file, tmp_path, capsys):
    new, out = tmp_path / "binned_b.npz", tmp_path / "few"
    new.write_bytes(binned_file.read_bytes())
    flags = ("--shots", "1,3", "--episodes", "4", "--tuned-episodes", "1", "--epochs", "2", "--out", out)
    label = ("--label", "contrast_left>contrast_right")
    assert run("few-shot", trained, binned_file, new, *label, *flags) == 0
    said = capsys.readouterr().out
    assert "2 sessions of 1 subject\n" in said
    table = pd.read_csv(out / "few_shot.csv")
    assert {"MtM, scratch", "MtM, lora", "MtM factors, lda", "raw counts, ridge"} <= set(table["method"])
    assert table["minus raw counts, ridge low"].notna().sum() == len(table) - 2
    episodes = pd.read_csv(out / "few_shot_episodes.csv")
    assert episodes.query("adapter == 'lora' and shots == 3").groupby("session").size().tolist() == [1, 1]
    splits = json.loads((out / "splits.json").read_text())
    assert set(splits["sessions"]) == {"binned_a", "binned_b"}
    with pytest.raises(SystemExit):
        run("few-shot", trained, new, *label, "--adapters", "magic")
    assert "unknown magic; known are ridge" in capsys.readouterr().err
    assert "they have contrast_left" in fails(capsys, "few-shot", trained, new, "--label", "mood")


def test_adapt_checks_the_label_before_it_starts(trained, binned_file, tmp_path, capsys):
    error = fails(capsys, "adapt", trained, binned_file, "--out", tmp_path / "x", "--label", "contrast")
    assert "they have contrast_left, contrast_right" in error
    assert not (tmp_path / "x").exists()


def test_demo_goes_from_spike_times_to_a_report(recording_folder, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "demo"
    assert (
        run("demo", "--data", recording_folder, "--out", out, "--episodes", "3", *small("windows.groups=3"))
        == 0
    )
    shown = capsys.readouterr().out
    assert "they stand in for brain regions" in shown
    assert "million spikes a second" in shown
    assert str(out / "report.html") in shown
    page = (out / "report.html").read_text()
    for heading in (
        "The data",
        "What the model is asked",
        "Training",
        "Masked prediction",
        "Few-shot decoding",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "stand in for" in page
    assert (
        run("demo", "--data", recording_folder, "--out", out, "--episodes", "3", *small("windows.groups=3"))
        == 0
    )  # may be repeated


def test_demo_aligns_to_trials_and_uses_real_regions(trials_folder, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "demo"
    flags = ("--tmin", "-0.2", "--tmax", "0.6")
    assert run("demo", "--data", trials_folder, "--out", out, *flags, "--episodes", "3", *small()) == 0
    shown = capsys.readouterr().out
    assert "-0.2 to 0.6 s around stimOn_times" in shown
    assert "Decoded: choice" in shown
    assert "stand in" not in (out / "report.html").read_text()


def test_demo_leaves_a_folder_alone_that_is_no_run(recording_folder, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    error = fails(capsys, "demo", "--data", recording_folder, "--out", tmp_path / "mine", *small())
    assert "holds no earlier run" in error
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_real_recordings_are_described(shared_data, capsys):
    folder = shared_data / "spikes"
    assert run("info", folder / "ibl_alf_120s", folder / "steinmetz2019" / "session03.npz") == 0
    shown = capsys.readouterr().out
    assert "124,905 of 289 units" in shown
    assert "228 windows of 40 bins of 0.01 s" in shown
    assert "Cori" not in shown  # the mouse


def test_ctrl_c_in_a_terminal_leaves_a_run_that_goes_on(binned_file, tmp_path):
    import signal
    import time

    out = tmp_path / "run"
    command = [sys.executable, "-m", "neurokern", "train", str(binned_file), "--out", str(out)]
    command += small("training.max_steps=100000", "training.validate_every=1000")
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs of nohup ignore it
    )
    until = time.monotonic() + 60
    while not (out / "last").exists() and time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "--resume" in error
    assert "Traceback" not in error
    assert (out / "last" / "trainer.json").is_file()


# ---- a run and its folder


def test_a_failed_start_leaves_no_folder_behind(binned_file, tmp_path, capsys):
    for setting in ("training.device=abacus", "training.seed=-1", "windows.groups=0", "threads=1000000"):
        fails(
            capsys,
            "train",
            binned_file,
            "--out",
            tmp_path / "run",
            *small("training.max_steps=2"),
            "--set",
            setting,
        )
        assert not (tmp_path / "run").exists()


def test_a_failed_start_of_the_demo_keeps_the_earlier_run(binned_file, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "demo"
    assert run("demo", "--data", binned_file, "--out", out, "--episodes", "3", *small()) == 0
    weights = (out / "best" / "model.safetensors").read_bytes()
    fails(capsys, "demo", "--data", binned_file, "--out", out, *small("training.device=abacus"))
    assert (out / "best" / "model.safetensors").read_bytes() == weights


def test_a_resume_that_is_refused_leaves_the_settings_of_the_run(binned_file, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", binned_file, "--out", out, *small()) == 0
    settings = (out / "run.yaml").read_bytes()
    error = fails(capsys, "train", "--out", out, "--resume", "--set", "model.n_layers=2")
    assert "belongs to another run" in error
    assert (out / "run.yaml").read_bytes() == settings


def test_files_of_a_run_are_not_written_over(binned_file, tmp_path, capsys):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "metrics.csv").write_text("mine")
    assert "metrics.csv" in fails(capsys, "train", binned_file, "--out", out, *small())
    assert (out / "metrics.csv").read_text() == "mine"
    file = tmp_path / "file"
    file.write_text("mine")
    assert "is a file" in fails(capsys, "train", binned_file, "--out", file, *small())


def test_training_without_validation_reports_its_training_loss(binned_file, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", binned_file, "--out", out, *small("split.validation=0")) == 0
    assert "train loss" in capsys.readouterr().out
    assert "split.validation must leave windows" in fails(capsys, "evaluate", out)


def test_bins_that_do_not_fill_a_window_are_an_error_that_names_the_setting(binned_file, tmp_path, capsys):
    error = fails(capsys, "train", binned_file, "--out", tmp_path / "run", *small("windows.bin_size=0.06"))
    assert "20 bins of 0.02 s make no whole number of 0.06 s; set windows.bin_size" in error


def test_a_recording_that_does_not_fit_the_model_is_refused_before_anything_is_written(
    binned_file, tmp_path, capsys
):
    pytest.importorskip("matplotlib")
    model, out = tmp_path / "run", tmp_path / "out"
    assert run("train", binned_file, "--out", model, *small("windows.bin_size=0.04")) == 0
    wider = fails(capsys, "adapt", model, binned_file, "--out", out, "--set", "windows.bin_size=0.02")
    assert "windows have 20 bins, the model takes up to 10" in wider
    arrays = dict(np.load(binned_file))
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / binned_file.name
    np.savez(
        other, **{**arrays, "counts": arrays["counts"][:, :, :8], "brain_area": arrays["brain_area"][:8]}
    )
    assert "has 8 units, but the model knows" in fails(capsys, "adapt", model, other, "--out", out)
    assert "has 8 units, but the model knows" in fails(capsys, "evaluate", model, other)
    assert not out.exists()


def test_silent_recordings_without_labels_are_refused_before_training(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file = tmp_path / "silent.npz"
    np.savez(file, counts=np.zeros((40, 20, 8), np.uint8), bin_size_s=0.02, brain_area=["A"] * 4 + ["B"] * 4)
    error = fails(capsys, "demo", "--data", file, "--out", tmp_path / "demo", *small())
    assert "nothing to decode" in error
    assert not (tmp_path / "demo").exists()


def test_one_spike_far_behind_the_others_is_an_error_and_no_flood_of_windows(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    file = tmp_path / "late.npz"
    np.savez(file, times=np.append(np.arange(0, 60, 0.1), 1e15), units=np.arange(601) % 8)
    error = fails(capsys, "demo", "--data", file, "--out", tmp_path / "demo", *small())
    assert "the windows would take" in error


@pytest.mark.parametrize("flag", ["--episodes", "--max-units"])
def test_numbers_of_units_and_episodes_start_at_one(flag, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("adapt", "run", "new.npz", flag, "0")
    assert stopped.value.code == 2
    assert "must be at least 1, got 0" in capsys.readouterr().err


def test_help_of_train_tells_the_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    told = re.findall(
        r"\b((?:training|windows)\.\w+)=(\S+?)(?:$|\s)", text.split("(run.yaml lists all)")[1], re.M
    )
    assert len(told) >= 11
    settings = to_mapping(RunSettings())
    for name, value in told:
        group, key = name.split(".")
        assert yaml.safe_load(value) == settings[group][key], name
