"""Reduced-rank ridge as an estimator: equal to the op, and to scikit-learn's protocol."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from neurokern.encoding import (
    ReducedRankRidgeEncoder,
    RidgeEncoder,
    contiguous_folds,
    delay_features,
    predict_held_out,
    score_predictions,
)
from neurokern.ops import reduced_rank_ridge_cv

pytest.importorskip("safetensors")

ALPHAS = (1.0, 30.0, 1000.0)


def problem(n_samples=120, n_features=15, n_targets=40, noise=3.0):
    rng = np.random.default_rng(0)
    X = rng.normal(1.0, 1.0, (n_samples, n_features))
    Y = X @ rng.normal(size=(n_features, 2)) @ rng.normal(size=(2, n_targets)) + 4
    return X, Y + noise * rng.normal(size=Y.shape)


def test_it_is_the_op_on_delayed_scaled_features():
    X, Y = problem()
    X = X * np.logspace(-2, 2, 15)
    folds = contiguous_folds(120, 4, gap=2)
    encoder = ReducedRankRidgeEncoder(alphas=ALPHAS, folds=4, gap=2, delays=[0, 1], standardize=True).fit(
        X, Y
    )
    design = delay_features(X, [0, 1])
    fit = reduced_rank_ridge_cv(design / design.std(0), Y, ALPHAS, folds)
    assert encoder.rank_ == fit.rank == 2
    assert set(encoder.alpha_) == {fit.alpha}
    np.testing.assert_allclose(encoder.predict(X), fit.predict(design / design.std(0)), atol=1e-8)
    np.testing.assert_allclose(encoder.cv_scores_, fit.score)
    np.testing.assert_allclose(encoder.loadings_ @ encoder.components_, encoder.coef_, atol=1e-8)
    np.testing.assert_allclose(encoder.loadings_.T @ encoder.loadings_, np.eye(2), atol=1e-10)


def test_shared_components_predict_held_out_samples_better_than_full_ridge():
    X, Y = problem(noise=8.0)
    folds = contiguous_folds(120, 4)
    scores = [
        np.mean(score_predictions(predict_held_out(encoder, X, Y, folds), Y))
        for encoder in (ReducedRankRidgeEncoder(alphas=ALPHAS), RidgeEncoder(alphas=ALPHAS))
    ]
    assert scores[0] > scores[1] + 0.01


def test_one_penalty_and_one_rank_need_no_folds():
    X, Y = problem()
    encoder = ReducedRankRidgeEncoder(alphas=1.0, ranks=3).fit(X, Y)
    assert (encoder.rank_, encoder.cv_scores_) == (3, None)
    one = ReducedRankRidgeEncoder(alphas=2.0, ranks=1).fit(X, Y[:, 0])
    np.testing.assert_allclose(one.coef_, RidgeEncoder(alphas=2.0).fit(X, Y[:, 0]).coef_, atol=1e-9)
    assert one.loadings_.shape == (1,)


def test_scikit_learn_finds_nothing_to_object_to():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(ReducedRankRidgeEncoder(alphas=ALPHAS), on_skip=None, on_fail=None)
    assert [result["check_name"] for result in results if result["status"] == "failed"] == []


def test_it_is_cloned_pickled_saved_and_takes_tensors(tmp_path):
    X, Y = problem()
    fitted = ReducedRankRidgeEncoder(alphas=ALPHAS, ranks=[1, 2]).fit(X, Y)
    assert clone(fitted).get_params() == fitted.get_params()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict(X), fitted.predict(X))
    fitted.save(tmp_path / "encoder.safetensors")
    loaded = ReducedRankRidgeEncoder.load(tmp_path / "encoder.safetensors")
    assert (loaded.rank_, loaded.ranks) == (2, [1, 2])
    np.testing.assert_allclose(loaded.predict(X), fitted.predict(X), rtol=1e-12)
    of_tensors = ReducedRankRidgeEncoder(alphas=ALPHAS).fit(torch.from_numpy(X), torch.from_numpy(Y))
    assert isinstance(of_tensors.components_, torch.Tensor)
    np.testing.assert_allclose(of_tensors.predict(torch.from_numpy(X)), fitted.predict(X), atol=1e-8)
