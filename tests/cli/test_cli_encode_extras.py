"""``neurokern encode`` with noise ceilings from repeats and parts of feature spaces."""

import json

import numpy as np
import pytest

from neurokern.cli import main
from neurokern.encoding import (
    RidgeEncoder,
    contiguous_folds,
    explainable_variance,
    partition_variance,
    spearman_brown,
    split_half_reliability,
)

ALPHAS = ("--alphas", "1,100")


@pytest.fixture
def arrays(tmp_path):
    """Two feature spaces and four repeats; the first target is noise, the second constant."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 7))
    signal = X @ rng.normal(size=(7, 5))
    signal[:, 0] = 0
    repeats = signal + rng.normal(size=(4, 90, 5)) * [1, 0, 1, 2, 4]
    repeats[:, :, 1] = 2.0
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", repeats[0])
    np.save(tmp_path / "repeats.npy", repeats)
    for number, one in enumerate(repeats):
        np.save(tmp_path / f"repeat{number}.npy", one)
    return tmp_path, X, repeats


def encode(capsys, folder, *arguments):
    given = ["encode", "--x", folder / "x.npy", "--y", folder / "y.npy", "--out", folder / "out", *ALPHAS]
    assert main([*map(str, [*given, *arguments]), "--json"]) == 0
    return json.loads(capsys.readouterr().out), np.load(folder / "out" / "scores.npz")


def fails(capsys, folder, *arguments):
    given = ["encode", "--x", folder / "x.npy", "--y", folder / "y.npy", "--out", folder / "out", *ALPHAS]
    assert main([*map(str, [*given, *arguments])]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert not (folder / "out").exists()
    return error


def test_repeats_give_ceilings_and_normalized_scores(arrays, capsys):
    folder, _, repeats = arrays
    facts, scores = encode(capsys, folder, "--repeats", folder / "repeats.npy", "--seed", "3")
    explainable = explainable_variance(repeats)
    np.testing.assert_allclose(scores["explainable_variance"], explainable)
    np.testing.assert_allclose(scores["split_half_reliability"], split_half_reliability(repeats, seed=3))
    good = explainable >= 0.1
    assert good.tolist() == [False, False, True, True, True]
    np.testing.assert_allclose(scores["r2_normalized"][good], (scores["r2"] / explainable)[good])
    roots = explainable[good] ** 0.5
    np.testing.assert_allclose(scores["pearson_normalized"][good], scores["pearson"][good] / roots)
    assert np.isnan(scores["r2_normalized"][:2]).all()
    assert facts["scores"]["r2_normalized"]["no_score"] == 2
    assert any("1 targets have a noise ceiling below 0.1" in note for note in facts["notes"])
    assert (facts["settings"]["repeats"], facts["settings"]["averaged"]) == (4, 1)
    assert "explainable_variance" in (folder / "out" / "summary.csv").read_text()


def test_means_over_repeats_have_a_higher_ceiling(arrays, capsys):
    folder, _, repeats = arrays
    np.save(folder / "y.npy", repeats.mean(0))
    files = [folder / f"repeat{number}.npy" for number in range(4)]
    _, scores = encode(capsys, folder, "--averaged", "4", "--repeats", *files)
    ceiling = spearman_brown(explainable_variance(repeats), 4)
    np.testing.assert_allclose(scores["explainable_variance_of_means"], ceiling)
    np.testing.assert_allclose(scores["r2_normalized"][2:], (scores["r2"] / ceiling)[2:])


def test_spaces_are_split_into_parts(arrays, capsys):
    folder, X, repeats = arrays
    facts, scores = encode(capsys, folder, "--spaces", "form=0:3", "words=3:6", "--gap", "2")
    partition = partition_variance(
        {"form": X[:, :3], "words": X[:, 3:6]},
        repeats[0],
        contiguous_folds(90, 5, gap=2),
        encoder=RidgeEncoder(alphas=(1.0, 100.0), gap=2),
    )
    np.testing.assert_allclose(scores["r2:form"], partition.r2[("form",)])
    np.testing.assert_allclose(scores["unique:words"], partition.parts[("words",)])
    np.testing.assert_allclose(scores["shared:form+words"], partition.parts[("form", "words")])
    total = scores["unique:form"] + scores["unique:words"] + scores["shared:form+words"]
    np.testing.assert_allclose(total, scores["r2:form+words"])
    assert facts["settings"]["spaces"] == ["form=0:3", "words=3:6"]
    assert any("1 features are in no space" in note for note in facts["notes"])
    assert set(facts["scores"]) >= {"r2", "pearson", "r2:form", "unique:form", "shared:form+words"}


def test_the_page_and_maps_show_both(arrays, capsys):
    nibabel = pytest.importorskip("nibabel")
    pytest.importorskip("matplotlib")
    folder, _, repeats = arrays
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for number, one in enumerate(repeats):
        values = one.T.reshape(5, 1, 1, 90).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, affine), folder / f"run{number}.nii.gz")
    images = [folder / f"run{number}.nii.gz" for number in range(4)]
    facts, scores = encode(
        capsys, folder, "--y", images[0], "--repeats", *images, "--detrend", "--spaces", "a=0:3", "b=3:7",
        "--report",
    )  # fmt: skip
    page = (folder / "out" / "report.html").read_text()
    assert "What noise allows" in page
    assert "What feature spaces explain" in page
    assert page.count("<figure>") == 8
    assert "run1" not in page
    volume = nibabel.load(facts["files"]["unique:a map"]).get_fdata()
    np.testing.assert_allclose(volume[:, 0, 0], scores["unique:a"], rtol=1e-5)
    ceiling = nibabel.load(facts["files"]["explainable_variance map"]).get_fdata()
    np.testing.assert_allclose(ceiling[:, 0, 0], scores["explainable_variance"], rtol=1e-5)


def test_only_noise_and_constants_still_make_a_page(arrays, capsys):
    pytest.importorskip("matplotlib")
    folder, _, repeats = arrays
    np.save(folder / "y.npy", np.ones((90, 5)))
    np.save(folder / "repeats.npy", np.ones_like(repeats))
    facts, scores = encode(
        capsys, folder, "--repeats", folder / "repeats.npy", "--spaces", "a=0:3", "b=3:7", "--report"
    )
    assert np.isnan(scores["r2_normalized"]).all()
    assert facts["scores"]["unique:a"]["no_score"] == 5
    assert "What noise allows" in (folder / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--repeats", "y.npy"), "y.npy must hold numbers of shape (repeats, samples, targets)"),
        (("--repeats", "one.npy"), "at least 2 repeats, got 1"),
        (("--repeats", "y.npy", "x.npy"), "the same samples and targets, got y.npy (90, 5), x.npy (90, 7)"),
        (("--repeats", "x.npy", "x.npy"), "the targets of --y (5), got 7"),
        (("--repeats", "nan.npy"), "--repeats must be finite, got NaN or infinity in 27 of 27 rows"),
        (("--repeats", "missing.npy"), "no such file"),
        (("--averaged", "2"), "--averaged is for --repeats"),
        (("--spaces", "a=0:3"), "must be 2 to 6, got 1"),
        (("--spaces", "a=0:3", "b:3-5"), "NAME=FIRST:STOP"),
        (("--spaces", "a=0:3", "b=2:5"), "must not share columns, got b and a"),
        (("--spaces", "a=0:3", "a=3:5"), "got a twice"),
        (("--spaces", "a=0:3", "b=3:8"), "within the 7 of --x"),
        (("--spaces", "a=3:3", "b=3:8"), "within the 7 of --x"),
    ],
)
def test_what_does_not_fit_is_told_before_the_work(flags, message, arrays, capsys):
    folder, _, repeats = arrays
    np.save(folder / "one.npy", repeats[:1])
    np.save(folder / "nan.npy", np.full((3, 9, 5), np.nan))
    assert message in fails(capsys, folder, *(folder / flag if ".npy" in flag else flag for flag in flags))
