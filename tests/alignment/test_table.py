"""Tables hold the scores of each layer, region and time, with intervals and ceilings that mean something."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from neurokern.alignment import (
    ALIGNMENT_METHODS,
    alignment_table,
    cka,
    compare_rdms,
    compute_rdm,
    read_tables,
    response_ceilings,
    write_tables,
)

FLAT_METHODS = [name for name in ALIGNMENT_METHODS if name != "gaussian"]  # which needs maps: its own tests


def responses(n_samples=60, noise=0.5, seed=0):
    """Two layers; V1 follows the first at time 0 and not at time 1, IT the second at both."""
    rng = np.random.default_rng(seed)
    layers = {"conv1": rng.normal(size=(n_samples, 6)), "fc": rng.normal(size=(n_samples, 5))}
    v1 = layers["conv1"] @ rng.normal(size=(6, 8))
    it = layers["fc"] @ rng.normal(size=(5, 4))
    brain = {
        "V1": np.stack([v1, np.zeros_like(v1)], 1) + noise * rng.normal(size=(n_samples, 2, 8)),
        "IT": np.stack([it, it], 1) + noise * rng.normal(size=(n_samples, 2, 4)),
    }
    return layers, brain


@pytest.mark.parametrize("method", FLAT_METHODS)
def test_every_method_finds_which_layer_goes_with_which_region_and_when(method):
    layers, brain = responses()
    table = alignment_table(layers, brain, method=method, n_components=5, n_groups=6)
    assert list(table.columns) == [
        "layer", "region", "time", "score", "low", "high", "ceiling", "normalized", "n_samples", "n_targets",
    ]  # fmt: skip
    assert len(table) == 2 * 2 * 2
    score = table.set_index(["layer", "region", "time"])["score"]
    assert score["conv1", "V1", 0] > max(score["fc", "V1", 0], score["conv1", "V1", 1]) + 0.05
    assert min(score["fc", "IT", 0], score["fc", "IT", 1]) > score["conv1", "IT", 0] + 0.05
    assert (table["low"] <= table["score"]).all()
    assert (table["score"] <= table["high"]).all()
    assert table["ceiling"].isna().all()
    assert table.attrs["method"] == method
    pd.testing.assert_frame_equal(
        table, alignment_table(layers, brain, method=method, n_components=5, n_groups=6)
    )


def test_scores_are_those_of_the_plain_functions():
    layers, brain = responses()
    first = brain["V1"][:, 0]
    rsa = alignment_table(layers, {"V1": first}, method="rsa", comparison="kendall", metric="euclidean")
    expected = [
        compare_rdms(compute_rdm(X, "euclidean"), compute_rdm(first, "euclidean"), "kendall")
        for X in layers.values()
    ]
    np.testing.assert_allclose(rsa["score"], expected)
    assert "time" not in rsa
    table = alignment_table(layers.items(), [("V1", torch.from_numpy(first))], method="cka")
    np.testing.assert_allclose(table["score"], [cka(X, first) for X in layers.values()])
    own = alignment_table(layers, {"V1": first}, method=lambda X, Y: float(X.shape[1] + Y.shape[1]))
    assert own["score"].tolist() == [14, 13]
    np.testing.assert_allclose(own["low"], own["high"])


def test_the_jackknife_covers_what_other_samples_give():
    layers, brain = responses(4000, noise=3.0)
    X, Y = layers["conv1"], brain["V1"][:, 0]
    truth = float(cka(X, Y, debiased=True))
    inside = 0
    for seed in range(40):
        rows = np.random.default_rng(seed).permutation(4000)[:60]
        table = alignment_table({"conv1": X[rows]}, {"V1": Y[rows]}, method="debiased-cka")
        inside += table["low"][0] <= truth <= table["high"][0]
    assert inside >= 33


def test_ceilings_are_the_correlation_with_the_truth_that_noise_allows():
    rng = np.random.default_rng(1)
    layer = rng.normal(size=(300, 5))
    signal = layer @ rng.normal(size=(5, 10)) / np.sqrt(5)
    repeats = {"V1": signal + 2.0 * rng.normal(size=(6, 300, 10)), "noise": rng.normal(size=(6, 300, 3))}
    ceilings = response_ceilings(repeats)
    measured = {name: values.mean(0) for name, values in repeats.items()}
    truth = [np.corrcoef(signal[:, k], measured["V1"][:, k])[0, 1] for k in range(10)]
    np.testing.assert_allclose(ceilings["V1"], truth, atol=0.09)
    table = alignment_table({"layer": layer}, measured, ceilings=ceilings).set_index("region")
    assert table.loc["V1", "normalized"] == pytest.approx(1, abs=0.06)
    assert table.loc["V1", "score"] < table.loc["V1", "ceiling"] + 0.03
    assert np.isnan(table.loc["noise", "normalized"])


def test_the_ceiling_of_an_rdm_comes_from_halves_of_the_repeats():
    rng = np.random.default_rng(2)
    signal = rng.normal(size=(20, 40))
    repeats = {"IT": np.stack([signal, 0 * signal], 1) + 1.5 * rng.normal(size=(8, 20, 2, 40))}
    options = {"method": "rsa", "comparison": "pearson"}
    ceilings = response_ceilings(repeats, **options)
    assert ceilings["IT"].shape == (2,)
    table = alignment_table({"truth": signal}, {"IT": repeats["IT"].mean(0)}, ceilings=ceilings, **options)
    assert table["normalized"][0] == pytest.approx(1, abs=0.1)
    assert not table["ceiling"][1] > 0.5


def test_what_never_varies_has_no_score_and_the_rest_has():
    layers, brain = responses()
    layers["dead"] = np.full((60, 3), 0.1)
    brain = {"V1": brain["V1"][:, 0], "silent": np.zeros((60, 2))}
    for method in FLAT_METHODS:
        table = alignment_table(layers, brain, method=method, n_groups=4).set_index(["layer", "region"])[
            "score"
        ]
        assert np.isnan(table["conv1", "silent"])
        assert np.isfinite(table["conv1", "V1"])
        assert not table["dead", "V1"] > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": {}}, "features must hold at least one array"),
        ({"responses": []}, "responses must hold at least one array"),
        ({"features": [("a", np.eye(8)), ("a", np.eye(8))]}, "different names, got 'a' twice"),
        ({"features": {"a": np.eye(7)}}, r"got 7 of features\['a'\] and 8 of responses\['V1'\]"),
        ({"features": {"a": np.zeros((8, 0))}}, r"features\['a'\] must have shape"),
        ({"features": {"a": np.full((8, 2), np.nan)}}, r"features\['a'\] must be finite, got NaN"),
        ({"features": {"a": np.eye(4)}, "responses": {"V1": np.eye(4)}}, "at least 6 samples"),
        ({"responses": {"V1": np.zeros((8, 2, 2, 2))}}, r"\(samples, \[times,\] targets\)"),
        ({"method": "anova"}, "method must be one of 'ridge', 'pls'"),
        ({"confidence": 1.0}, "confidence must lie within"),
        ({"method": "cka", "n_groups": 1}, "n_groups must be at least 2"),
        ({"ceilings": {"V2": 0.5}}, r"regions \['V1'\], got \['V2'\]"),
        ({"ceilings": {"V1": np.ones(3)}}, r"ceilings\['V1'\] must be a number or have shape \(8,\)"),
        ({"ceilings": {"V1": -1.0}}, "at least 0"),
        ({"method": "rsa", "metric": "manhattan"}, "metric must be one of"),
    ],
)
def test_bad_input_is_an_error_that_names_it(change, message):
    rng = np.random.default_rng(3)
    arguments = {
        "features": {"a": rng.normal(size=(8, 3))},
        "responses": {"V1": rng.normal(size=(8, 8))},
    } | change
    with pytest.raises(ValueError, match=message):
        alignment_table(arguments.pop("features"), arguments.pop("responses"), **arguments)


def test_arrays_must_have_names():
    with pytest.raises(TypeError, match="features must be a mapping of names to arrays, got ndarray"):
        alignment_table(np.eye(8), {"V1": np.eye(8)})


def test_repeats_must_be_repeats():
    with pytest.raises(ValueError, match="n_splits must be at least 1"):
        response_ceilings({"V1": np.ones((2, 5, 3))}, method="rsa", n_splits=0)
    with pytest.raises(ValueError, match="at least 2 repeats"):
        response_ceilings({"V1": np.zeros((1, 5, 3))})
    with pytest.raises(ValueError, match="'ridge', 'pls', 'gaussian', 'rsa' or 'trsa'"):
        response_ceilings({"V1": np.zeros((2, 5, 3))}, method="cka")


# ---- on the disk ----


def test_tables_come_back_with_their_settings(tmp_path):
    layers, brain = responses()
    brain["silent"] = np.zeros((60, 2, 2))
    tables = {
        "rsa": alignment_table(layers, brain, method="rsa"),
        "cka": alignment_table(layers, brain, method="cka"),
    }
    write_tables(tmp_path / "alignment.json", tables)
    found = read_tables(tmp_path / "alignment.json")
    assert list(found) == ["rsa", "cka"]
    for name, table in tables.items():
        pd.testing.assert_frame_equal(found[name], table)
        assert found[name].attrs == table.attrs


def test_who_the_subjects_were_is_not_written(tmp_path):
    table = pd.DataFrame({"layer": ["a"], "subject": ["sub-01"], "score": [0.5]})
    with pytest.raises(
        ValueError, match=r"must not say who the subjects were, got the columns \['subject'\]"
    ):
        write_tables(tmp_path / "alignment.json", {"rsa": table})
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="must hold numbers and text"):
        write_tables(tmp_path / "alignment.json", {"rsa": pd.DataFrame({"score": [[1]]})})


@pytest.mark.parametrize(
    "damage",
    [
        {"format": "other"},
        {"format_version": 2},
        {"tables": 3},
        {"tables": [{"name": "a"}]},
        {"tables": [{"name": "a", "settings": {}, "columns": ["score"], "rows": [[1, 2]]}]},
        {"tables": [{"name": "a", "settings": {}, "columns": ["score"], "rows": [["high"]]}]},
        {"tables": [{"name": "a", "settings": 5, "columns": ["score"], "rows": [[1]]}]},
    ],
)
def test_damaged_files_of_tables_are_value_errors(tmp_path, damage):
    good = {"format": "neurokern-tables", "format_version": 1, "tables": []}
    (tmp_path / "alignment.json").write_text(json.dumps(good | damage))
    with pytest.raises(ValueError, match=r"alignment\.json"):
        read_tables(tmp_path / "alignment.json")
