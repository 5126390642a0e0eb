"""Leaving sessions and subjects out: folds, tables, what goes on after an interruption, what is refused."""

import json

import numpy as np
import pandas as pd
import pytest

from neurokern.checkpoint import load_model
from neurokern.cli import main
from neurokern.cli.transfer import make_folds

TINY = [
    "model.hidden_size=16",
    "model.n_layers=1",
    "model.n_heads=2",
    "model.mlp_size=16",
    "model.stitch_size=4",
    "training.batch_size=8",
    "training.max_steps=4",
    "training.validate_every=2",
]
LABEL = ("--label", "contrast_left>contrast_right")
FEW = ("--adapters", "ridge,probe", "--shots", "1,2", "--tuned-shots", "2", "--episodes", "3")
QUICK = ("--tuned-episodes", "2", "--epochs", "2", "--baselines", "ridge,unit-mean", "--max-units", "3")


def run(*arguments):
    settings = [part for setting in TINY for part in ("--set", setting)]
    return main(["transfer", *map(str, arguments), *settings])


@pytest.fixture
def three_sessions(binned_file, tmp_path):
    """Three sessions of two mice."""
    folder = tmp_path / "sessions"
    folder.mkdir()
    with np.load(binned_file) as file:
        values = dict(file)
    for name, mouse in (("1", "A"), ("2", "A"), ("3", "B")):
        np.savez(folder / f"{name}.npz", **{**values, "mouse": mouse})
    return folder


def test_each_session_is_scored_by_a_model_that_never_saw_it(three_sessions, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(three_sessions, "--out", out, *LABEL, *FEW, *QUICK, "--only", "2,1") == 0
    said = capsys.readouterr().out
    assert "note: of 2 held-out recordings, other recordings of the same subject" in said
    for fold, seen in (("fold-01", ("2", "3")), ("fold-02", ("1", "3"))):
        assert load_model(out / fold / "pretrained").sessions == seen
    scores = pd.read_csv(out / "scores_per_unit.csv", dtype={"session": str})
    assert set(scores["session"]) == {"1", "2"}
    assert set(scores["predictor"]) == {"MtM", "MtM alone", "ridge", "unit mean"}
    differences = pd.read_csv(out / "differences.csv")
    assert differences["n_sessions"].eq(2).all()
    few = pd.read_csv(out / "few_shot.csv").set_index(["method", "shots"])
    assert few.loc[("raw counts, ridge", 1), "n_sessions"] == 2
    assert ("MtM, probe", 2) in few.index  # --tuned-shots
    assert ("MtM, probe", 1) not in few.index
    splits = json.loads((out / "fold-02" / "splits.json").read_text())
    assert list(splits["sessions"]) == ["2"]

    before = {path: path.stat().st_mtime_ns for path in out.glob("fold-0[12]/*.csv")}
    assert run(three_sessions, "--out", out, *LABEL, *FEW, *QUICK) == 0  # goes on with the third
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert set(pd.read_csv(out / "scores_per_unit.csv")["session"]) == {1, 2, 3}
    capsys.readouterr()
    assert run(three_sessions, "--out", out, *FEW, *QUICK) == 2
    assert "holds a comparison with other settings (protocol)" in capsys.readouterr().err


def test_a_subject_is_left_out_with_all_its_sessions(three_sessions, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(three_sessions, "--out", out, "--hold-out", "subject", "--no-alone", *QUICK) == 0
    said = capsys.readouterr().out
    assert "note: of" not in said
    assert load_model(out / "fold-01" / "pretrained").sessions == ("3",)
    assert not list(out.glob("fold-*/alone-*"))
    assert "MtM alone" not in set(pd.read_csv(out / "scores_per_unit.csv")["predictor"])
    assert not (out / "few_shot.csv").exists()


@pytest.mark.parametrize(
    ("subjects", "hold_out", "message"),
    [
        ({"a": "x"}, "session", "at least two sessions, got 1"),
        ({"a": "x", "b": "x"}, "subject", "at least two subjects, got 1"),
        ({"a": "x", "b": ""}, "subject", "the subject of b is not known"),
    ],
)
def test_what_cannot_be_left_out_is_an_error(subjects, hold_out, message):
    with pytest.raises(ValueError, match=message):
        make_folds(subjects, hold_out)
    with pytest.raises(ValueError, match="--only: there is no session x; there are a, b"):
        make_folds({"a": "", "b": ""}, "session", ["a", "x"])


def test_a_recording_with_too_few_labels_is_scored_and_not_decoded(three_sessions, tmp_path, capsys):
    out, most = tmp_path / "out", ("--shots", "1,30", "--tuned-shots", "30", "--only", "3", "--no-alone")
    assert run(three_sessions, "--out", out, *LABEL, *QUICK, *most) == 0
    assert "note: not decoded, its rarest class has" in capsys.readouterr().out
    assert (out / "scores.csv").is_file()
    assert not (out / "few_shot.csv").exists()


def test_labels_are_checked_in_every_recording_before_anything_is_written(three_sessions, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(three_sessions, "--out", out, "--label", "mood", *QUICK) == 2
    assert "they have contrast_left" in capsys.readouterr().err
    assert not out.exists()
