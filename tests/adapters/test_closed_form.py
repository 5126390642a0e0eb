"""Closed-form read-outs against scikit-learn, plain formulas and known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from neurokern.adapters import LDAProbe, LinearProbe, RidgeProbe, RidgeReadout
from neurokern.encoding import fit_ridge

PROBES = [RidgeProbe, LDAProbe, LinearProbe]


def clouds(n_per_class: int, n_features: int, n_classes: int = 2, distance: float = 4.0, seed: int = 0):
    """Correlated Gaussian clouds around random centers."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(n_features, n_features)) / np.sqrt(n_features)
    centers = generator.normal(size=(n_classes, n_features)) * distance / np.sqrt(n_features)
    labels = np.repeat(np.arange(n_classes), n_per_class)
    features = centers[labels] + generator.normal(size=(len(labels), n_features)) @ mixing
    return features, labels


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize(("n_features", "n_classes"), [(5, 2), (200, 2), (8, 4), (300, 3)])
def test_separated_classes_are_told_apart(probe, n_features, n_classes):
    features, labels = clouds(40, n_features, n_classes, distance=12)
    even = np.arange(len(labels)) % 2 == 0
    fitted = probe().fit(features[even], labels[even])
    assert (fitted.predict(features[~even]) == labels[~even]).mean() > 0.9
    probabilities = fitted.predict_proba(features)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-9)
    np.testing.assert_array_equal(fitted.classes_[probabilities.argmax(1)], fitted.predict(features))


@pytest.mark.parametrize("probe", PROBES)
def test_labels_may_be_words_and_tensors_float32(probe):
    features, numbers = clouds(10, 4, distance=10)
    words = np.array(["left", "right"])[numbers]
    fitted = probe().fit(torch.from_numpy(features).float(), words)
    assert (fitted.predict(features.astype(np.float32)) == words).mean() > 0.9
    assert fitted.decision(features).dtype == torch.float32
    same = probe().fit(torch.from_numpy(features).float(), torch.from_numpy(numbers))
    assert torch.equal(same.decision(features), fitted.decision(features))


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("n_features", [4, 60])
def test_read_outs_are_the_same_on_every_device(probe, n_features, device):
    features, labels = clouds(10, n_features, n_classes=3)
    there = probe().fit(torch.from_numpy(features).to(device), labels)
    here = probe().fit(features, labels)
    decision = there.decision(torch.from_numpy(features).to(device))
    assert decision.device.type == device
    np.testing.assert_allclose(decision.cpu(), here.decision(features), atol=1e-4)
    assert there.predict(torch.from_numpy(features).to(device)).tolist() == here.predict(features).tolist()


@pytest.mark.parametrize("probe", PROBES)
def test_one_sample_per_class_is_enough(probe):
    support = np.array([[0.0, 0.0, 1.0], [3.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    fitted = probe().fit(support, ["a", "b", "c"])
    queries = np.array([[0.2, -0.1, 1.0], [2.5, 0.3, 1.0], [0.3, 2.8, 1.0]])
    assert fitted.predict(queries).tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("probe", PROBES)
def test_scaling_comes_from_the_support_set_alone(probe):
    features, labels = clouds(10, 4)
    queries = features + 100
    alone = probe().fit(features, labels).decision(queries[:1])
    together = probe().fit(features, labels).decision(queries)
    np.testing.assert_allclose(alone, together[:1])


@pytest.mark.parametrize("probe", PROBES)
def test_standardized_scores_do_not_depend_on_the_units_of_a_feature(probe):
    features, labels = clouds(12, 6)
    factors = np.array([1, 1e3, 1e-3, 1, 10, 7.0])
    plain = probe(standardize=True).fit(features, labels).decision(features)
    scaled = probe(standardize=True).fit(features * factors, labels).decision(features * factors)
    np.testing.assert_allclose(plain, scaled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("probe", PROBES)
def test_bad_inputs_are_refused(probe):
    with pytest.raises(RuntimeError, match="call fit"):
        probe().predict(np.ones((1, 2)))
    with pytest.raises(ValueError, match="one entry per sample"):
        probe().fit(np.ones((3, 2)), [0, 1])
    with pytest.raises(ValueError, match="at least 2 classes"):
        probe().fit(np.ones((3, 2)), [1, 1, 1])
    with pytest.raises(ValueError, match="finite"):
        probe().fit(np.array([[np.nan], [1.0]]), [0, 1])
    with pytest.raises(ValueError, match=r"\(samples, features\)"):
        probe().fit(np.ones(3), [0, 1, 1])
    with pytest.raises(ValueError, match=r"\(samples, 2\)"):
        probe().fit(np.eye(2), [0, 1]).predict(np.ones((1, 3)))


@pytest.mark.parametrize("shape", [(30, 5), (6, 50)])
@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 1.0])
def test_lda_equals_scikit_learn(shape, shrinkage):
    features, labels = clouds(*shape, n_classes=3)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(features, labels)
    ours = LDAProbe(shrinkage, standardize=False).fit(features, labels)
    np.testing.assert_allclose(
        ours.decision(features), theirs.decision_function(features), rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(ours.predict_proba(features), theirs.predict_proba(features), atol=1e-7)


def test_lda_without_shrinkage_equals_scikit_learn_and_needs_enough_samples():
    features, labels = clouds(30, 5)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(features, labels)
    ours = LDAProbe(0.0, standardize=False).fit(features, labels).decision(features)
    np.testing.assert_allclose(ours[:, 1] - ours[:, 0], theirs.decision_function(features), rtol=1e-6)
    with pytest.raises(ValueError, match="shrinkage above 0"):
        LDAProbe(0.0).fit(*clouds(3, 50))


@pytest.mark.parametrize("shape", [(25, 6), (5, 40)])
def test_ledoit_wolf_shrinkage_equals_scikit_learn_on_class_centered_samples(shape):
    features, labels = clouds(*shape, n_classes=2)
    centered = features - np.stack([features[labels == c].mean(0) for c in (0, 1)])[labels]
    fitted = LDAProbe(standardize=False).fit(features, labels)
    assert fitted.shrinkage_ == pytest.approx(ledoit_wolf(centered, assume_centered=True)[1])


def test_lda_prior_follows_the_support_set_unless_told_otherwise():
    features, labels = clouds(20, 3)
    keep = np.r_[0:20, 20:25]
    counted = LDAProbe().fit(features[keep], labels[keep])
    uniform = LDAProbe(uniform_prior=True).fit(features[keep], labels[keep])
    shift = counted.bias_ - uniform.bias_
    np.testing.assert_allclose(shift, np.log([0.8 * 2, 0.2 * 2]), rtol=1e-6)
    assert torch.equal(counted.weights_, uniform.weights_)


def test_ridge_probe_is_one_hot_ridge_with_a_penalty_relative_to_the_samples():
    features, labels = clouds(8, 30, n_classes=3)
    probe = RidgeProbe(0.5, standardize=False).fit(features, labels)
    unit = np.square(features - features.mean(0)).sum(1).mean()
    expected = fit_ridge(features, np.eye(3)[labels], 0.5 * unit)
    np.testing.assert_allclose(probe.decision(features), expected.predict(features), atol=1e-10)
    assert probe.alpha_ == pytest.approx(0.5)


def test_ridge_probe_shrinks_more_when_labels_are_noise():
    features, labels = clouds(30, 20, distance=6)
    noise = np.random.default_rng(0).permutation(labels)
    assert RidgeProbe().fit(features, noise).alpha_ > RidgeProbe().fit(features, labels).alpha_


def test_ridge_readout_recovers_a_linear_signal():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 10)) * np.logspace(-3, 3, 10)
    targets = (features / np.logspace(-3, 3, 10)) @ generator.normal(size=(10, 2)) + 5
    readout = RidgeReadout().fit(features[:100], targets[:100])
    np.testing.assert_allclose(readout.predict(features[100:]), targets[100:], atol=0.1)
    assert RidgeReadout().fit(features, targets[:, 0]).predict(features).shape == (200,)
    with pytest.raises(RuntimeError, match="call fit"):
        RidgeReadout().predict(features)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LDAProbe("auto"), "ledoit-wolf"),
        (lambda: LDAProbe(1.5), r"\[0, 1\]"),
        (lambda: RidgeProbe(()), "at least one"),
        (lambda: RidgeProbe((1.0, -1.0)), "above 0"),
        (lambda: LinearProbe(0.0), "above 0"),
        (lambda: LinearProbe(()), "at least one"),
        (lambda: LinearProbe(folds=1), "folds"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("probe", [RidgeProbe, LDAProbe])
def test_a_missing_label_is_no_class(probe):
    with pytest.raises(ValueError, match="labels must not be NaN"):
        probe().fit(np.eye(4), np.array([0.0, 1.0, np.nan, 1.0]))


def test_features_may_have_any_byte_order_and_must_be_numbers():
    features, labels = np.arange(8.0).reshape(4, 2), np.array([0, 0, 1, 1])
    wanted = RidgeProbe().fit(features, labels).predict(features)
    assert np.array_equal(RidgeProbe().fit(features.astype(">f8"), labels).predict(features), wanted)
    with pytest.raises(TypeError, match="features must be numbers, got object"):
        RidgeProbe().fit(features.astype(object), labels)
