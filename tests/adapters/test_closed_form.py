"""Closed-form read-outs against scikit-learn, plain formulas and known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.covariance import ledoit_wolf, oas
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifierCV, RidgeCV
from sklearn.neighbors import NearestCentroid

from neurokern.adapters import (
    LDAProbe,
    LinearProbe,
    PrototypeProbe,
    ReducedRankProbe,
    ReducedRankReadout,
    RidgeProbe,
    RidgeReadout,
)
from neurokern.adapters.closed_form._calibration import calibrate
from neurokern.ops import solve_ridge

PROBES = [RidgeProbe, LDAProbe, PrototypeProbe, ReducedRankProbe, LinearProbe]


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
    assert fitted.decision_function(features).dtype == torch.float32
    same = probe().fit(torch.from_numpy(features).float(), torch.from_numpy(numbers))
    assert torch.equal(same.decision_function(features), fitted.decision_function(features))


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("n_features", [4, 60])
def test_read_outs_are_the_same_on_every_device(probe, n_features, device):
    features, labels = clouds(10, n_features, n_classes=3)
    there = probe().fit(torch.from_numpy(features).to(device), labels)
    here = probe().fit(features, labels)
    decision = there.decision_function(torch.from_numpy(features).to(device))
    assert decision.device.type == device
    np.testing.assert_allclose(decision.cpu(), here.decision_function(features), atol=1e-4)
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
    alone = probe().fit(features, labels).decision_function(queries[:1])
    together = probe().fit(features, labels).decision_function(queries)
    np.testing.assert_allclose(alone, together[:1])


@pytest.mark.parametrize("probe", PROBES)
def test_standardized_scores_do_not_depend_on_the_units_of_a_feature(probe):
    features, labels = clouds(12, 6)
    factors = np.array([1, 1e3, 1e-3, 1, 10, 7.0])
    plain = probe(standardize=True).fit(features, labels).decision_function(features)
    scaled = probe(standardize=True).fit(features * factors, labels).decision_function(features * factors)
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
    differences = ours.decision_function(features).diff(dim=1)  # scores are up to a constant of each sample
    np.testing.assert_allclose(
        differences, np.diff(theirs.decision_function(features), axis=1), rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(ours.predict_proba(features), theirs.predict_proba(features), atol=1e-7)


def test_lda_without_shrinkage_equals_scikit_learn_and_needs_enough_samples():
    features, labels = clouds(30, 5)
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(features, labels)
    ours = LDAProbe(0.0, standardize=False).fit(features, labels).decision_function(features)
    np.testing.assert_allclose(ours[:, 1] - ours[:, 0], theirs.decision_function(features), rtol=1e-6)
    with pytest.raises(ValueError, match="shrinkage above 0"):
        LDAProbe(0.0).fit(*clouds(3, 50))


@pytest.mark.parametrize("shape", [(25, 6), (5, 40)])
@pytest.mark.parametrize("estimate", [ledoit_wolf, oas])
def test_estimated_shrinkage_equals_scikit_learn_on_class_centered_samples(shape, estimate):
    features, labels = clouds(*shape, n_classes=2)
    centered = features - np.stack([features[labels == c].mean(0) for c in (0, 1)])[labels]
    fitted = LDAProbe(estimate.__name__.replace("_", "-")).fit(features, labels)
    assert fitted.shrinkage_ == pytest.approx(estimate(centered, assume_centered=True)[1])


def test_lda_in_float32_far_from_zero_loses_no_accuracy():
    features, labels = clouds(20, 5, n_classes=3)
    exact = LDAProbe().fit(features, labels).predict_proba(features)
    far = (features + 1000).astype(np.float32)
    np.testing.assert_allclose(LDAProbe().fit(far, labels).predict_proba(far), exact, atol=2e-3)


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
    weights, intercept = solve_ridge(features, np.eye(3)[labels], 0.5 * unit)
    np.testing.assert_allclose(probe.decision_function(features), features @ weights + intercept, atol=1e-10)
    assert probe.alpha_ == pytest.approx(0.5)


@pytest.mark.parametrize(("shape", "n_classes"), [((30, 6), 2), ((8, 60), 3)])
def test_signed_ridge_probe_equals_scikit_learns_classifier(shape, n_classes):
    features, labels = clouds(*shape, n_classes=n_classes, distance=1.0)
    unit = np.square(features - features.mean(0)).sum(1).mean()
    alphas = np.array([1e-3, 0.1, 10.0])
    theirs = RidgeClassifierCV(alphas * unit).fit(features, labels)
    ours = RidgeProbe(alphas, targets="signed").fit(features, labels)
    assert ours.alpha_ * unit == pytest.approx(theirs.alpha_)
    scores = theirs.decision_function(features)
    scores = np.stack([-scores, scores], 1) if n_classes == 2 else scores
    np.testing.assert_allclose(ours.decision_function(features), scores, atol=1e-8)
    one_hot = RidgeProbe(alphas).fit(features, labels)
    assert (one_hot.predict(features) == ours.predict(features)).all()


@pytest.mark.parametrize("shape", [(25, 6), (6, 25)])
def test_ridge_readout_equals_scikit_learn_with_an_alpha_per_target(shape):
    generator = np.random.default_rng(1)
    features = generator.normal(2.0, 1.0, shape)
    targets = features @ generator.normal(size=(shape[1], 3)) * [1, 0.1, 0] + generator.normal(
        size=(shape[0], 3)
    )
    unit = np.square(features - features.mean(0)).sum(1).mean()
    alphas = np.array([1e-3, 0.1, 10.0])
    theirs = RidgeCV(alphas * unit, alpha_per_target=True).fit(features, targets)
    ours = RidgeReadout(alphas, standardize=False).fit(features, targets)
    np.testing.assert_allclose(ours.alphas_ * unit, theirs.alpha_)
    np.testing.assert_allclose(ours.predict(features), theirs.predict(features), atol=1e-8)


@pytest.mark.parametrize("n_samples", [1, 2])
def test_ridge_readout_of_next_to_no_samples_takes_the_middle_penalty(n_samples):
    features, targets = np.eye(5)[:n_samples], np.arange(1.0, 1 + n_samples)
    readout = RidgeReadout((0.1, 1.0, 10.0)).fit(features, targets)
    assert readout.alphas_.tolist() == [1.0]
    assert float(readout.predict(features).mean()) == pytest.approx(targets.mean())


def test_prototypes_equal_scikit_learns_nearest_centroid():
    features, labels = clouds(15, 8, n_classes=4, distance=1.5)
    theirs = NearestCentroid().fit(features, labels)
    ours = PrototypeProbe().fit(features, labels)
    assert (ours.predict(features) == theirs.predict(features)).all()
    distances = np.square(features[:, None] - theirs.centroids_).sum(2)
    scores = ours.decision_function(features)
    np.testing.assert_allclose(scores[:, 1:] - scores[:, :1], distances[:, :1] - distances[:, 1:], atol=1e-9)


def test_cosine_prototypes_look_at_directions_alone():
    features, labels = clouds(10, 6, n_classes=3, distance=8)
    probe = PrototypeProbe("cosine", temperature=2.0).fit(features, labels)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([unit[labels == c].mean(0) for c in range(3)])
    cosines = unit @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    np.testing.assert_allclose(probe.decision_function(features), cosines, atol=1e-9)
    np.testing.assert_allclose(
        probe.decision_function(7 * features), probe.decision_function(features), atol=1e-9
    )
    assert torch.isfinite(probe.decision_function(np.zeros((1, 6)))).all()


@pytest.mark.parametrize("standardize", [False, True])
def test_prototypes_are_drawn_to_prior_means_by_pseudo_counts(standardize):
    features, labels = clouds(4, 5, n_classes=2)
    base = {0: np.full(5, 3.0), 1: np.full(5, -3.0)}
    probe = PrototypeProbe(pseudo_counts=6, prior_means=base, standardize=standardize).fit(features, labels)
    spread = features.std(0) if standardize else 1
    means = np.stack([(features[labels == c].sum(0) + 6 * base[c]) / 10 for c in (0, 1)])
    distances = np.square((features[:, None] - means) / spread).sum(2)
    scores = probe.decision_function(features)
    np.testing.assert_allclose(scores[:, 1] - scores[:, 0], distances[:, 0] - distances[:, 1], atol=1e-8)
    shrunk = PrototypeProbe(pseudo_counts=1e9).fit(features, labels).decision_function(features)
    np.testing.assert_allclose(shrunk[:, 0], shrunk[:, 1], atol=1e-5)  # all at the mean of the means


@pytest.mark.parametrize("n_classes", [2, 4])
def test_calibration_is_the_most_likely_scale_and_bias(n_classes):
    rng = np.random.default_rng(0)
    number = torch.from_numpy(np.stack([rng.permutation(np.arange(40) % n_classes) for _ in range(3)]))
    scores = torch.nn.functional.one_hot(number, n_classes) * 0.5 + torch.from_numpy(
        rng.normal(0, [[[0.2]], [[1.0]], [[5.0]]], (3, 40, n_classes))
    )
    counts = torch.nn.functional.one_hot(number, n_classes).sum(1)
    scale, bias = calibrate(scores, number, counts)
    own = (counts + 1) / (counts + 2)
    for episode in range(3):
        wanted = np.zeros((40, n_classes))
        for sample, label in enumerate(number[episode].tolist()):
            wanted[sample] = (1 - float(own[episode, label])) / (n_classes - 1)
            wanted[sample, label] = own[episode, label]

        def loss(theta, episode=episode, wanted=wanted):
            logits = theta[0] * scores[episode].numpy() + np.r_[0, theta[1:]]
            return -(wanted * log_softmax(logits, axis=1)).sum()

        best = minimize(loss, np.r_[1.0, np.zeros(n_classes - 1)], tol=1e-12)
        found = np.r_[scale[episode], bias[episode, 1:] - bias[episode, 0]]
        assert loss(found) <= best.fun + 1e-6
        assert scale[episode] == pytest.approx(max(best.x[0], 1e-3), abs=1e-3)


def test_calibrated_scores_are_probabilities_that_held_out_samples_bear_out():
    features, labels = clouds(200, 10, n_classes=3, distance=1.5)
    train = np.arange(len(labels)) % 2 == 0
    plain = RidgeProbe().fit(features[train], labels[train])
    fitted = RidgeProbe(calibrate=True).fit(features[train], labels[train])

    def log_loss(probe: RidgeProbe) -> float:
        chosen = probe.predict_proba(features[~train]).gather(1, torch.from_numpy(labels[~train])[:, None])
        return -float(chosen.log().mean())

    assert fitted.scale_ > 1
    assert log_loss(fitted) < log_loss(plain) - 0.1
    confidence = fitted.predict_proba(features[~train]).amax(1).mean()
    assert float(confidence) == pytest.approx(
        (fitted.predict(features[~train]) == labels[~train]).mean(), abs=0.06
    )
    noise = np.random.default_rng(0).permutation(labels)
    assert 0 < RidgeProbe(calibrate=True).fit(features, noise).scale_ < fitted.scale_
    assert RidgeProbe(calibrate=True).fit(features[[0, -1]], labels[[0, -1]]).scale_ == 1


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


def test_reduced_rank_read_outs_find_what_classes_or_targets_share():
    features, _ = clouds(40, 12, n_classes=2)
    rng = np.random.default_rng(0)
    order = rng.normal(size=12)
    labels = np.digitize(features @ order, np.quantile(features @ order, [0.2, 0.4, 0.6, 0.8]))
    probe = ReducedRankProbe().fit(features, labels)
    assert probe.rank_ < 4
    full = ReducedRankProbe(1.0, ranks=4).fit(features, labels)
    np.testing.assert_allclose(
        full.decision_function(features),
        RidgeProbe(1.0).fit(features, labels).decision_function(features),
        atol=1e-9,
    )
    targets = (
        features @ rng.normal(size=(12, 2)) @ rng.normal(size=(2, 30)) + 3 * rng.normal(size=(80, 30)) + 4
    )
    targets = targets * np.logspace(-3, 3, 30)
    readout = ReducedRankReadout().fit(features, targets)
    assert readout.ranks_.tolist() == [2]
    saved = ReducedRankReadout.from_state(readout.state_dict())
    assert torch.equal(saved.predict(features), readout.predict(features))
    every = ReducedRankReadout(1.0, ranks=12).fit(features, targets).predict(features)
    np.testing.assert_allclose(every, RidgeReadout(1.0).fit(features, targets).predict(features), rtol=1e-6)
    few = ReducedRankReadout().fit(features[:2], targets[:2])
    np.testing.assert_allclose(few.predict(features[:2]).mean(0), targets[:2].mean(0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LDAProbe("auto"), "ledoit-wolf"),
        (lambda: LDAProbe(1.5), r"\[0, 1\]"),
        (lambda: RidgeProbe(()), "at least one"),
        (lambda: RidgeProbe((1.0, -1.0)), "above 0"),
        (lambda: RidgeProbe(targets="sign"), "one-hot"),
        (lambda: PrototypeProbe("manhattan"), "euclidean"),
        (lambda: ReducedRankProbe(ranks=0), "at least 1"),
        (lambda: ReducedRankProbe(folds=1), "folds"),
        (lambda: ReducedRankReadout(ranks=[]), "at least one integer"),
        (lambda: PrototypeProbe(pseudo_counts=-1.0), "pseudo_counts"),
        (lambda: PrototypeProbe("cosine", standardize=True), "standardize"),
        (lambda: PrototypeProbe(prior_means=[1.0]), "above 0"),
        (lambda: PrototypeProbe(temperature=0.0), "above 0"),
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
    with pytest.raises(ValueError, match="1 None"):
        probe().fit(np.eye(4), ["a", "b", None, "b"])


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("labels", [["left", "right", "right"], [3, 5, 5], [True, False, False]])
def test_a_saved_state_predicts_the_same(probe, labels, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    features = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    fitted = probe().fit(features, labels)
    safetensors.save_file(fitted.state_dict(), tmp_path / "head.safetensors")
    loaded = probe.from_state(safetensors.load_file(tmp_path / "head.safetensors"))
    assert torch.equal(loaded.decision_function(features), fitted.decision_function(features))
    assert loaded.predict(features).tolist() == fitted.predict(features).tolist()


def test_states_keep_directions_and_single_targets_and_name_what_is_wrong():
    features, labels = clouds(5, 4)
    cosine = PrototypeProbe("cosine").fit(features, labels)
    again = PrototypeProbe.from_state(cosine.state_dict())
    assert torch.equal(again.decision_function(features), cosine.decision_function(features))
    readout = RidgeReadout().fit(features, labels)
    assert torch.equal(
        RidgeReadout.from_state(readout.state_dict()).predict(features), readout.predict(features)
    )
    with pytest.raises(ValueError, match="must hold weights"):
        RidgeProbe.from_state({})
    state = cosine.state_dict()
    with pytest.raises(ValueError, match=r"weights \(features, outputs\) must fit"):
        RidgeProbe.from_state(state | {"mean": torch.ones(3)})
    with pytest.raises(ValueError, match="classes must be 2"):
        RidgeProbe.from_state(state | {"classes": torch.frombuffer(bytearray(b"[1]"), dtype=torch.uint8)})
    with pytest.raises(ValueError, match="JSON"):
        RidgeProbe.from_state(state | {"classes": torch.tensor([1], dtype=torch.uint8)})
    with pytest.raises(RuntimeError, match="call fit"):
        RidgeProbe().state_dict()


@pytest.mark.parametrize("probe", [*PROBES, RidgeReadout, ReducedRankReadout])
def test_features_beyond_what_can_be_computed_with_are_refused(probe):
    features, labels = np.arange(12.0).reshape(6, 2), np.arange(6) % 2
    for bad, error, message in [
        (features * 1e200, ValueError, r"below 1e\+150 in size"),
        (np.where(features > 9, np.inf, features), ValueError, "infinity in 1 of 6 samples"),
        (torch.from_numpy(features).to_sparse(), TypeError, "dense tensor"),
        (torch.empty(6, 2, device="meta"), TypeError, "that holds values"),
        (features + 1j, TypeError, "numbers"),
        (features[:, :0], ValueError, "hold something"),
    ]:
        with pytest.raises(error, match=message):
            probe().fit(bad, labels)


@pytest.mark.parametrize("probe", [RidgeProbe, LDAProbe, ReducedRankProbe, RidgeReadout])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_float32_of_any_size_is_read_out_alike(probe, size):
    features, labels = clouds(10, 5, distance=3)
    features = features.astype(np.float32)
    scaled = features * np.float32(size)
    np.testing.assert_allclose(
        probe().fit(scaled, labels).predict(scaled),
        probe().fit(features, labels).predict(features),
        rtol=1e-3,
    )


def test_layouts_and_types_of_features_do_not_matter():
    features, labels = clouds(8, 4)
    features = features.astype(np.float16)
    wanted = RidgeProbe().fit(features.astype(np.float32), labels).decision_function(features)
    for same in (
        np.asfortranarray(features),
        np.repeat(features, 2, 0)[::2],
        features[::-1][::-1],
        torch.from_numpy(features.T.copy()).T,
        np.broadcast_to(features, features.shape),
    ):
        np.testing.assert_array_equal(RidgeProbe().fit(same, labels).decision_function(same), wanted)
    counts = np.abs(9 * features).astype(np.uint8)
    assert RidgeProbe().fit(counts, labels).weights_.dtype == torch.float32
    assert RidgeReadout().fit(features.tolist(), labels.tolist()).predict(features).shape == (16,)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.array(["2020-01-01", "2021-01-01"] * 2, "M8[D]"), TypeError, "words or numbers, got datetime64"),
        (np.array([1j, 2, 1j, 2]), TypeError, "words or numbers, got complex128"),
        (np.zeros((4, 1)), ValueError, "one entry per sample"),
    ],
)
def test_labels_of_other_kinds_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        RidgeProbe().fit(np.eye(4), labels)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (np.ones(3), r"shape \(2,\), one number per feature, got \(3,\)"),
        (np.ones((2, 2)), r"got \(2, 2\)"),
        ({0: np.ones(2)}, "must hold all classes, got none of .1."),
        ({0: np.ones(2), 1: np.ones(3)}, r"got \(3,\)"),
        (np.full(2, np.nan), "finite"),
    ],
)
def test_prior_means_that_do_not_fit_are_named(prior, message):
    with pytest.raises(ValueError, match=message):
        PrototypeProbe(pseudo_counts=1.0, prior_means=prior).fit(np.eye(4)[:, :2], [0, 1, 0, 1])


def test_features_may_have_any_byte_order_and_must_be_numbers():
    features, labels = np.arange(8.0).reshape(4, 2), np.array([0, 0, 1, 1])
    wanted = RidgeProbe().fit(features, labels).predict(features)
    assert np.array_equal(RidgeProbe().fit(features.astype(">f8"), labels).predict(features), wanted)
    with pytest.raises(TypeError, match="features must be numbers, got object"):
        RidgeProbe().fit(features.astype(object), labels)
