"""The logistic probe against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from neurokern.adapters import LinearProbe
from neurokern.adapters.probe import _stratified_folds


def samples(n_samples: int, n_features: int, n_classes: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    labels = np.arange(n_samples) % n_classes
    centers = generator.normal(size=(n_classes, n_features))
    return centers[labels] + generator.normal(size=(n_samples, n_features)) * 1.5, labels


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("shape", [(60, 5), (20, 80)])
@pytest.mark.parametrize("C", [0.01, 1.0, 30.0])
def test_equals_scikit_learn(n_classes, shape, C):
    features, labels = samples(*shape, n_classes)
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=5000).fit(features, labels)
    ours = LinearProbe(C, standardize=False).fit(features, labels)
    np.testing.assert_allclose(ours.predict_proba(features), theirs.predict_proba(features), atol=1e-4)


def test_separable_classes_and_strong_weights_do_not_overflow():
    features = np.array([[-1.0], [1.0]])
    probe = LinearProbe(1e6, standardize=False).fit(features, [0, 1])
    assert torch.isfinite(probe.weights_).all()
    assert probe.predict(features).tolist() == [0, 1]


def test_penalty_is_chosen_by_cross_validation():
    features, labels = samples(60, 30, 2)
    noise = np.random.default_rng(1).permutation(labels)
    grid = (1e-3, 1.0, 1e3)
    assert LinearProbe(grid).fit(features, noise).C_ == 1e-3
    assert LinearProbe(grid).fit(features, labels).C_ > 1e-3
    assert LinearProbe(grid).fit(features[:2], labels[:2]).C_ == 1.0  # one sample of each class: the middle


def test_folds_are_stratified():
    number = torch.tensor([0, 0, 1, 0, 1, 0, 1, 1, 0, 1])
    fold = _stratified_folds(number, 2)
    for held_out in (0, 1):
        assert torch.bincount(number[fold == held_out]).min() >= 2


def test_fitting_works_where_gradients_are_switched_off():
    features, labels = samples(20, 4, 2)
    with torch.no_grad():
        probe = LinearProbe().fit(features, labels)
    assert not probe.weights_.requires_grad
    assert (probe.predict(features) == labels).mean() > 0.7
