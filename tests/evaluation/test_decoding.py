"""Decoding and encoding: known answers, no leak between folds, and what bad input gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score
from synthetic_sessions import make_session

from neurokern.evaluation import (
    decode_behavior,
    decode_labels,
    encode_spikes,
    paired_differences,
    region_features,
    simulate_sessions,
    summarize,
)
from neurokern.models import MtM, MtMConfig


def labeled_features(n_trials=80, n_features=12, strength=1.5, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.array(["go", "stop"])[generator.integers(0, 2, n_trials)]
    noise = generator.normal(size=(n_trials, n_features))
    informative = noise.copy()
    informative[:, 0] += strength * (labels == "go")
    return {"raw counts": noise, "states": informative}, labels


@pytest.mark.parametrize("readout", ["logistic", "ridge", "lda"])
def test_finds_what_is_there_and_nothing_where_nothing_is(readout):
    features, labels = labeled_features(120, 6)
    table = decode_labels(features, labels, readout=readout).set_index("features")
    noise, states = table.loc["raw counts"], table.loc["states"]
    assert states["balanced_accuracy"] > 0.7
    assert states["auc"] > 0.75
    assert abs(noise["auc"] - 0.5) < 0.2
    assert states["low"] < states["balanced_accuracy"] < states["high"]
    assert states["difference"] == pytest.approx(states["balanced_accuracy"] - noise["balanced_accuracy"])
    assert states["difference_low"] > 0
    assert np.isnan(noise["difference"])
    assert (states["chance"], states["n_trials"], states["n_folds"]) == (0.5, 120, 5)


def test_test_trials_never_reach_the_fit():
    features, labels = labeled_features()
    first = decode_labels(features, labels, folds=[(np.arange(60), np.arange(60, 80))], readout="ridge")
    wild = {name: values.copy() for name, values in features.items()}
    for values in wild.values():
        values[60:] = values[60:] * 0 + features["states"][:20]  # other test trials: the fit must not notice
    moved = decode_labels(wild, labels, folds=[(np.arange(60), np.arange(60, 80))], readout="ridge")
    fit = decode_labels(
        {"states": np.concatenate([features["states"][:60], features["states"][:20]])},
        np.concatenate([labels[:60], labels[60:]]),
        folds=[(np.arange(60), np.arange(60, 80))],
        readout="ridge",
    )
    states = moved.set_index("features").loc["states", "balanced_accuracy"]
    assert states == pytest.approx(fit["balanced_accuracy"][0])
    assert first["n_trials"].tolist() == [20, 20]


def test_a_label_that_drifts_in_blocks_is_decoded_from_drift_unless_blocks_are_the_folds():
    generator = np.random.default_rng(0)
    blocks = np.repeat(np.arange(8), 20)
    labels = generator.permutation(np.repeat([0, 1], 4))[blocks]
    offset = generator.normal(size=(8, 6)) * 3  # each block its own state, alike in nothing
    features = {"counts": offset[blocks] + generator.normal(size=(160, 6))}
    inside = [(np.setdiff1d(np.arange(160), np.arange(k, 160, 5)), np.arange(k, 160, 5)) for k in range(5)]
    leaking = decode_labels(features, labels, folds=inside, readout="ridge")
    honest = decode_labels(features, labels, folds=4, groups=blocks, readout="ridge")
    assert leaking["balanced_accuracy"][0] > 0.8
    assert honest["balanced_accuracy"][0] < 0.7
    assert honest["high"][0] - honest["low"][0] > leaking["high"][0] - leaking["low"][0]


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["ridge", "lda"]))
def test_names_of_classes_and_units_of_features_do_not_matter(seed, readout):
    generator = np.random.default_rng(seed)
    number = generator.permutation(np.arange(40) % 2)
    values = generator.normal(size=(40, 4)) + number[:, None] * generator.normal(size=4)
    columns = ["balanced_accuracy", "auc", "accuracy", "low", "high"]
    found = decode_labels({"x": values}, number, readout=readout, folds=4)[columns]
    named = decode_labels({"x": values}, np.array(["left", "right"])[number], readout=readout, folds=4)[
        columns
    ]
    scaled = decode_labels({"x": values * [1, 10, 0.1, 3] + 5}, number, readout=readout, folds=4)[columns]
    np.testing.assert_allclose(found, named)
    np.testing.assert_allclose(found, scaled, atol=1e-6)


def test_three_classes_and_tensors():
    generator = np.random.default_rng(1)
    labels = torch.from_numpy(np.arange(90) % 3)
    values = torch.from_numpy(generator.normal(size=(90, 5)).astype(np.float32))
    values[:, 0] += 2 * (labels == 1)
    values[:, 1] += 2 * (labels == 2)
    table = decode_labels({"x": values}, labels, readout="lda", folds=3)
    assert table["balanced_accuracy"][0] > 0.6
    assert table["chance"][0] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["a"] * 80}, "at least 2 classes"),
        ({"labels": np.full(80, np.nan)}, "not NaN"),
        ({"labels": np.array(["a", None] * 40, dtype=object)}, "not NaN or None"),
        ({"labels": ["a", "b"] * 30}, "a row for each of 60 labels"),
        (
            {"labels": np.repeat(["a", "b"], 40), "folds": [(np.arange(40), np.arange(40, 80))]},
            "fold 0.*2 classes",
        ),
        ({"readout": "forest"}, "readout"),
        ({"groups": np.zeros(3)}, "groups"),
        (
            {"groups": np.arange(80) // 10, "folds": [(np.arange(45), np.arange(45, 80))]},
            "group on both sides",
        ),
        ({"folds": [(np.arange(40), np.arange(40, 80)), (np.arange(40), np.arange(40, 80))]}, "at most once"),
        ({"folds": 200}, "n_folds"),
        ({"gap": 60}, "samples to train on"),
        ({"baseline": "nothing"}, "baseline"),
        ({"features": {}}, "at least one kind"),
        ({"features": {"x": np.full((80, 2), np.nan)}}, "finite"),
        ({"n_bootstrap": 0}, "n_bootstrap"),
        ({"confidence": 95}, "confidence"),
    ],
)
def test_bad_labels_folds_and_names_are_refused(changes, message):
    features, labels = labeled_features()
    arguments = {"features": features, "labels": labels, "readout": "ridge"} | changes
    with pytest.raises(ValueError, match=message):
        decode_labels(**arguments)


def behavior_case(n_windows=40, n_bins=15, seed=0):
    generator = np.random.default_rng(seed)
    counts = generator.poisson(1.0, (n_windows, n_bins, 4)).astype(np.float32)
    signal = np.zeros((n_windows, n_bins, 2))
    signal[:, 2:, 0] = counts[:, :-2, 1] - counts[:, :-2, 3]  # two bins later
    signal[:, :, 1] = generator.normal(size=(n_windows, n_bins))
    return counts, signal + 0.3 * generator.normal(size=signal.shape)


def test_behavior_is_found_at_its_lag_and_noise_is_not():
    counts, signal = behavior_case()
    with_lags = decode_behavior({"raw counts": counts}, signal, lags=(0, 1, 2), names=["speed", "noise"])
    without = decode_behavior({"raw counts": counts}, signal)
    scores = with_lags.set_index("target")["r2"]
    assert scores["speed"] > 0.85
    assert abs(scores["noise"]) < 0.1
    assert (without["r2"].abs() < 0.1).all()
    assert with_lags["n_left_out"][0] == 40 * 2
    row = with_lags.iloc[0]
    assert row["low"] < row["r2"] < row["high"]


def test_behavior_score_is_that_of_all_held_out_bins_together():
    counts, signal = behavior_case()
    folds = [(np.arange(30), np.arange(30, 40))]
    table = decode_behavior({"counts": counts}, signal[:, :, 0], lags=(2,), folds=folds, alphas=(1e-6,))
    x, y = counts[:, :-2].reshape(-1, 4), signal[:, 2:, 0].reshape(-1)
    rows = np.repeat(np.arange(40), 13) < 30
    design = np.column_stack([x, np.ones(len(x))])
    weights = np.linalg.lstsq(design[rows], y[rows], rcond=None)[0]
    assert table["r2"][0] == pytest.approx(r2_score(y[~rows], design[~rows] @ weights), abs=1e-4)


def test_a_feature_that_wakes_up_after_training_does_not_rule_the_test():
    counts, signal = behavior_case()
    sleeper = np.full((40, 15, 1), 1e-9, dtype=np.float32)
    sleeper[0, 0] = 2e-9
    sleeper[32:] = 1.0
    folds = [(np.arange(32), np.arange(32, 40))]
    features = np.concatenate([counts, sleeper], axis=2)
    table = decode_behavior({"x": features}, signal, lags=(0, 1, 2), folds=folds)
    assert table["r2"][0] > 0.8
    labels = (np.arange(40) % 2).astype(int)
    counts[:, :, 0] += labels[:, None]
    flat = np.concatenate([counts.sum(1), sleeper[:, :1, 0]], axis=1)
    assert decode_labels({"x": flat}, labels, folds=folds, readout="ridge")["balanced_accuracy"][0] > 0.8


def test_missing_behavior_is_left_out_and_changes_nothing_else():
    counts, signal = behavior_case()
    signal[7:10, 3:8] = np.nan
    table = decode_behavior({"counts": counts}, signal, lags=(0, 1, 2))
    assert table["n_left_out"][0] == 40 * 2 + 3 * 5
    assert table["n_bins"][0] == 40 * 15 - table["n_left_out"][0]
    assert table["r2"][0] > 0.8


def test_a_fold_without_behavior_is_not_scored_and_a_constant_signal_has_no_score():
    counts, signal = behavior_case()
    signal[32:] = np.nan  # the last of five folds
    table = decode_behavior({"counts": counts}, signal, lags=(0, 1, 2))
    assert table["n_bins"][0] == 32 * 13
    assert table["r2"][0] > 0.8
    assert np.isnan(decode_behavior({"counts": counts}, np.ones((40, 15)))["r2"][0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"behavior": np.full((40, 15), np.nan)}, "no bin is left"),
        ({"behavior": np.full((40, 15), np.inf)}, "infinite"),
        ({"behavior": np.zeros(40)}, "shape"),
        ({"lags": (20,)}, "no bin is left"),
        ({"names": ["one"]}, "names"),
        ({"features": {"x": np.zeros((40, 14, 2))}}, "features 'x'"),
        ({"folds": 1}, "n_folds"),
    ],
)
def test_bad_behavior_is_refused(changes, message):
    counts, signal = behavior_case()
    with pytest.raises(ValueError, match=message):
        decode_behavior(**({"features": {"x": counts}, "behavior": signal} | changes))


def test_regions_are_decoded_from_their_own_units_alone():
    (one,) = simulate_sessions(1, n_windows=40, n_bins=6, units_per_region=(4, 3, 1), side_effect=3.0)
    features = region_features(one.session)
    assert {name: tuple(values.shape) for name, values in features.items()} == {
        "A": (40, 4),
        "B": (40, 3),
        "C": (40, 1),
    }
    assert list(region_features(one.session, min_units=3)) == ["A", "B"]
    torch.manual_seed(0)
    model = MtM(
        MtMConfig(n_bins=6, hidden_size=8, n_layers=1, n_heads=2, mlp_size=8, stitch_size=4, embed_size=None)
    )
    model.add_session(one.session.session, 8, one.session.regions.tolist())
    seen = region_features(one.session, model)
    assert seen["B"].shape == (40, 3)
    others = one.session.counts.copy()
    others[:, :, :4] = 9
    changed = region_features(
        make_session(others, one.session.regions.tolist(), session=one.session.session), model
    )
    torch.testing.assert_close(seen["B"], changed["B"])
    assert not torch.allclose(seen["A"], changed["A"])
    with pytest.raises(ValueError, match="no region"):
        region_features(make_session(np.ones((4, 3, 2)), ["", ""]))


@pytest.mark.parametrize("model", ["poisson", "ridge"])
def test_encoding_finds_the_region_that_follows_the_behavior(model):
    (one,) = simulate_sessions(1, n_windows=150, n_bins=12, units_per_region=(6, 6), shared=0.0)
    behavior = one.behavior.copy()
    behavior[4, 2:5] = np.nan
    table = encode_spikes(behavior, one.session, model=model, lags=(-1, 0, 1), gap=1)
    scores = summarize(table, ("predictor", "region")).set_index(["predictor", "region"])["mean"]
    assert scores[model, "A"] > 0.1
    assert abs(scores[model, "B"]) < 0.05
    assert paired_differences(table, model, "unit mean", ("region",))["mean"][0] > 0.1
    lost = (150 * 12 - (150 * 10 - 5)) / (
        150 * 12
    )  # two bins of each window for lags, five around missing ones
    kept = table["n_spikes"].sum() / 2 / one.session.counts.sum()
    assert kept == pytest.approx(1 - lost, abs=0.05)


def test_encoding_refuses_what_it_cannot_fit():
    (one,) = simulate_sessions(1, n_windows=12, n_bins=5, units_per_region=(3,))
    with pytest.raises(ValueError, match="behavior must have shape"):
        encode_spikes(one.behavior[:, :4], one.session)
    with pytest.raises(ValueError, match="fold 0 must have bins"):
        encode_spikes(np.full((12, 5), np.nan), one.session)
    with pytest.raises(ValueError, match="model"):
        encode_spikes(one.behavior, one.session, model="forest")
    with pytest.raises(ValueError, match="at least one window"):
        encode_spikes(one.behavior[:, :, :0], one.session)
