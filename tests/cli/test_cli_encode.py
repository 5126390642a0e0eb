"""``neurokern encode``: files in, scores, maps and a page out; wrong files are told by name."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from neurokern.cli import main
from neurokern.encoding import RidgeEncoder, contiguous_folds, predict_held_out, score_predictions
from neurokern.ops import decode_nifti

nibabel = pytest.importorskip("nibabel")

SHAPE = (5, 4, 3)
AFFINE = np.diag([3.0, 3.0, 4.0, 1.0])


@pytest.fixture
def arrays(tmp_path):
    """Features, and responses of which the last is constant, as files of 90 samples."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(90, 4))
    Y = X @ generator.normal(size=(4, 6)) + generator.normal(size=(90, 6)) * np.linspace(0.2, 6, 6)
    Y[:, 5] = 3.0
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    return tmp_path, X, Y


@pytest.fixture
def images(tmp_path):
    """Two runs of an image that follows the features three seconds (two volumes) later, and a mask."""
    generator = np.random.default_rng(1)
    mask = np.ones(SHAPE, dtype=bool)
    mask[0] = mask[2, 1] = False
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), AFFINE), tmp_path / "mask.nii.gz")
    for run in (1, 2):
        X = generator.normal(size=(50, 1))
        values = generator.normal(1000, 1, (*SHAPE, 50)) + 5 * np.arange(50)
        values[3, 2, 1, 2:] += 20 * X[:-2, 0]
        image = nibabel.Nifti1Image(values.astype(np.float32), AFFINE)
        image.header.set_zooms((3, 3, 4, 1.5))
        nibabel.save(image, tmp_path / f"run{run}.nii.gz")
        np.save(tmp_path / f"x{run}.npy", X)
    return tmp_path, mask


def encode(capsys, *arguments):
    assert main(["encode", *map(str, arguments), "--json"]) == 0
    captured = capsys.readouterr()
    assert "[1/" in captured.err
    return json.loads(captured.out)


def fails(capsys, *arguments):
    assert main(["encode", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.count("\n") == 1
    return error


def test_scores_are_those_of_held_out_predictions(arrays, capsys):
    folder, X, Y = arrays
    facts = encode(
        capsys, "--x", folder / "x.npy", "--y", folder / "y.npy", "--out", folder / "out", "--folds", "3",
        "--gap", "2", "--alphas", "1,100", "--delays", "0,1", "--permutations", "99", "--block-size", "5",
        "--save-weights",
    )  # fmt: skip
    encoder = RidgeEncoder(alphas=(1.0, 100.0), gap=2, delays=[0, 1])
    predictions = predict_held_out(encoder, X, Y, contiguous_folds(90, 3, gap=2))
    scores = np.load(folder / "out" / "scores.npz")
    for metric in ("r2", "pearson"):
        np.testing.assert_allclose(scores[metric], score_predictions(predictions, Y, metric))
    np.testing.assert_array_equal(scores["alpha"], encoder.fit(X, Y).alpha_)
    assert scores["p_value"][0] == pytest.approx(0.01)
    assert np.isnan(scores["q_value"][5])
    assert facts["scores"]["r2"]["targets"] == 5
    assert facts["scores"]["r2"]["no_score"] == 1
    assert facts["scores"]["r2"]["median"] == pytest.approx(np.nanmedian(scores["r2"]))
    assert facts["discoveries"]["targets"] == int((scores["q_value"] <= 0.05).sum()) > 0
    assert any("1 targets never vary" in note for note in facts["notes"])
    saved = RidgeEncoder.load(facts["files"]["weights"])
    np.testing.assert_allclose(saved.predict(X), encoder.predict(X))
    assert (folder / "out" / "summary.csv").read_text().startswith("score,targets,no_score,mean,")


def test_too_few_permutations_for_so_many_targets_are_told(arrays, capsys):
    folder = arrays[0]
    np.save(folder / "noise.npy", np.random.default_rng(2).normal(size=(90, 60)))
    common = (
        "--x",
        folder / "x.npy",
        "--y",
        folder / "noise.npy",
        "--out",
        folder / "out",
        "--alphas",
        "100",
    )
    coarse = encode(capsys, *common, "--permutations", "19")
    assert coarse["discoveries"]["targets"] == 0
    assert any("raise --permutations" in note for note in coarse["notes"])


def test_images_give_maps_on_their_grid_and_a_page(images, capsys):
    pytest.importorskip("matplotlib")
    folder, mask = images
    facts = encode(
        capsys, "--x", folder / "x1.npy", folder / "x2.npy", "--y", folder / "run1.nii.gz",
        folder / "run2.nii.gz", "--mask", folder / "mask.nii.gz", "--delay-seconds", "1.5,3", "--detrend",
        "--out", folder / "out", "--report",
    )  # fmt: skip
    assert facts["settings"]["delays"] == [1, 2]
    assert facts["settings"]["folds"] == "leave-one-run-out"
    image = nibabel.load(facts["files"]["r2 map"])
    np.testing.assert_array_equal(image.affine, AFFINE)
    volume = image.get_fdata()
    np.testing.assert_array_equal(np.isfinite(volume), mask)
    assert np.unravel_index(np.nanargmax(volume), SHAPE) == (3, 2, 1)
    assert volume[3, 2, 1] > 0.9
    scores = np.load(facts["files"]["scores"])["r2"]
    np.testing.assert_allclose(volume[mask], scores, rtol=1e-6)
    page = (folder / "out" / "report.html").read_text()
    assert page.count("<figure>") == 4
    assert "run1" not in page


def test_arrays_come_from_any_kind_of_file(arrays, capsys):
    folder, X, Y = arrays
    np.savez(folder / "both.npz", x=X, y=Y)
    np.savez(folder / "one.npz", Y)
    save_file({"x": torch.from_numpy(X), "y": torch.from_numpy(Y)}, folder / "both.safetensors")
    common = ("--alphas", "1", "--out", folder / "out")
    results = [
        encode(capsys, "--x", x, "--y", y, *common)["scores"]
        for x, y in [
            (folder / "x.npy", folder / "y.npy"),
            (f"{folder}/both.npz:x", folder / "one.npz"),
            (f"{folder}/both.safetensors:x", f"{folder}/both.safetensors:y"),
        ]
    ]
    assert results[0] == results[1] == results[2]


def test_a_file_of_labels_names_the_runs(arrays, capsys):
    folder, _, _ = arrays
    np.save(folder / "runs.npy", np.repeat(["b", "a", "c"], 30))
    common = ("--x", folder / "x.npy", "--y", folder / "y.npy", "--out", folder / "out")
    facts = encode(capsys, *common, "--runs", folder / "runs.npy")
    assert (facts["settings"]["runs"], facts["settings"]["folds"]) == (3, "leave-one-run-out")
    facts = encode(capsys, *common, "--runs", folder / "runs.npy", "--folds", "4")
    assert facts["settings"]["folds"] == 4


def test_an_image_without_a_mask_has_all_voxels(images, capsys):
    folder, _ = images
    facts = encode(
        capsys,
        "--x",
        folder / "x1.npy",
        "--y",
        folder / "run1.nii.gz",
        "--out",
        folder / "out",
        "--alphas",
        "1",
    )
    image = decode_nifti(facts["files"]["r2 map"])
    assert np.isfinite(np.asarray(image)).all()
    assert facts["settings"]["interval_s"] == 1.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--x": "missing.npy"}, "no such file"),
        ({"--x": "text.npy"}, "text.npy is cut short or not a .npy file"),
        ({"--x": "text.csv"}, "text.csv: must be a .npy, .npz"),
        ({"--x": "several.npz"}, "several.npz holds several arrays; name one, as FILE:NAME, of: a, b"),
        ({"--x": "several.npz:c"}, "has no 'c'"),
        ({"--x": "short.npy"}, "short.npy and y.npy must have a row for each sample, got 7 and 90"),
        ({"--x": "nan.npy"}, "X must be finite, got NaN or infinity in 1 of 90 rows"),
        ({"--x": "words.npy"}, "words.npy must hold numbers"),
        ({"--mask": "y.npy"}, "--mask is for images"),
        ({"--runs": "short.npy"}, "one label per sample (90)"),
        ({"--folds": "some"}, "--folds must be a number or leave-one-run-out"),
        ({"--folds": "leave-one-run-out"}, "at least 2 runs"),
        ({"--delay-seconds": "2,4"}, "--delay-seconds needs --tr"),
        ({"--alphas": "0,1"}, "above 0"),
        ({"--gap": "80"}, "to train on"),
    ],
)
def test_what_does_not_fit_is_told_by_name(change, message, arrays, capsys):
    folder, X, _ = arrays
    for name, values in (("short", X[:7, 0]), ("words", np.array(["a"] * 90))):
        np.save(folder / f"{name}.npy", values)
    np.savez(folder / "several.npz", a=X, b=X)
    holes = X.copy()
    holes[3] = np.nan
    np.save(folder / "nan.npy", holes)
    for name in ("text.npy", "text.csv"):
        (folder / name).write_text("none")
    given = {"--x": "x.npy", "--y": "y.npy"} | change
    arguments = [
        part for flag, value in given.items() for part in (flag, folder / value if "." in value else value)
    ]
    assert message in fails(capsys, *arguments, "--out", folder / "out")
    assert not (folder / "out").exists()


def test_files_of_different_runs_must_match(arrays, images, capsys):
    folder, _, _ = arrays
    x, y = folder / "x.npy", folder / "y.npy"
    assert "as many files" in fails(capsys, "--x", x, x, "--y", y)
    assert "images or arrays" in fails(capsys, "--x", x, x, "--y", y, folder / "run1.nii.gz")
    assert "same columns" in fails(capsys, "--x", x, y, "--y", y, y)
    assert "several files are runs already" in fails(capsys, "--x", x, x, "--y", y, y, "--runs", x)
