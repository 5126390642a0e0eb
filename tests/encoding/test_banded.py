"""The banded estimator is the solver behind the protocol of RidgeEncoder."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from neurokern.encoding import (
    BandedRidgeEncoder,
    RidgeEncoder,
    contiguous_folds,
    delay_features,
    predict_held_out,
    score_predictions,
)
from neurokern.ops import banded_ridge_cv

pytest.importorskip("safetensors")

ALPHAS = (1.0, 30.0, 1000.0)
BANDS = np.repeat(["sound", "picture"], [3, 30])


def problem(n_samples=120, n_targets=4, seed=0):
    """Half of the targets follow sounds, half pictures."""
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(n_samples, 33))
    weights = generator.normal(size=(33, n_targets))
    weights[3:, ::2] = 0
    weights[:3, 1::2] = 0
    return X, X @ weights + generator.normal(size=(n_samples, n_targets)) * 2


def encoder(**settings):
    return BandedRidgeEncoder(**{"bands": BANDS, "alphas": ALPHAS, "n_candidates": 12, "folds": 4} | settings)


def test_it_finds_the_spaces_and_predicts_better_than_one_penalty():
    X, Y = problem()
    fitted = encoder().fit(X, Y)
    assert fitted.bands_.tolist() == ["picture", "sound"]
    assert (fitted.band_weights_[::2, 1] > 0.9).all()
    assert (fitted.band_weights_[1::2, 0] > 0.9).all()
    folds = contiguous_folds(120, 4)
    banded, plain = (
        score_predictions(predict_held_out(one, X, Y, folds), Y)
        for one in (encoder(), RidgeEncoder(alphas=ALPHAS))
    )
    assert (banded[::2] > plain[::2] + 0.1).all()
    assert (banded[1::2] > plain[1::2] - 0.01).all()  # pictures are most of the features anyway


def test_it_solves_what_the_solver_solves():
    X, Y = problem()
    fitted = encoder(gap=2, scoring="pearson", seed=3).fit(X, Y)
    folds = contiguous_folds(120, 4, gap=2)
    fit = banded_ridge_cv(X, Y, BANDS, ALPHAS, folds, n_candidates=12, scoring="pearson", seed=3)
    np.testing.assert_array_equal(fitted.coef_, fit.weights.T)
    np.testing.assert_array_equal(fitted.alpha_, fit.alphas)
    np.testing.assert_array_equal(fitted.band_weights_, fit.band_weights.T)
    np.testing.assert_array_equal(fitted.cv_scores_, fit.scores)


def test_delayed_copies_belong_to_the_space_of_their_feature():
    X, Y = problem()
    fitted = encoder(delays=[0, 1]).fit(X, Y)
    fit = banded_ridge_cv(delay_features(X, [0, 1]), Y, np.tile(BANDS, 2), ALPHAS, 4, n_candidates=12)
    np.testing.assert_array_equal(fitted.coef_, fit.weights.T)


def test_held_out_predictions_keep_the_spaces_of_delayed_copies():
    X, Y = problem()
    folds = contiguous_folds(len(X), 3, gap=1)
    by_delays = predict_held_out(encoder(delays=[0, 1]), X, Y, folds)
    by_hand = encoder(bands=np.tile(BANDS, 2))
    np.testing.assert_array_equal(by_delays, predict_held_out(by_hand, delay_features(X, [0, 1]), Y, folds))


def test_without_bands_it_is_plain_ridge():
    X, Y = problem()
    banded, plain = encoder(bands=None).fit(X, Y), RidgeEncoder(alphas=ALPHAS, folds=4).fit(X, Y)
    np.testing.assert_allclose(banded.coef_, plain.coef_, atol=1e-9)
    assert banded.band_weights_.tolist() == [[1.0]] * 4


def test_scikit_learn_finds_nothing_to_object_to():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(BandedRidgeEncoder(n_candidates=3), on_skip=None, on_fail=None)
    assert [result["check_name"] for result in results if result["status"] == "failed"] == []


def test_it_is_cloned_pickled_and_saved(tmp_path):
    X, Y = problem()
    one = encoder().fit(X, Y[:, 0])
    assert one.band_weights_.shape == (2,)
    assert clone(one).get_params().keys() == one.get_params().keys()
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(one)).predict(X), one.predict(X))
    one.save(tmp_path / "banded.safetensors")
    loaded = BandedRidgeEncoder.load(tmp_path / "banded.safetensors")
    np.testing.assert_array_equal(loaded.band_weights_, one.band_weights_)
    assert loaded.bands == BANDS.tolist()
    with pytest.raises(ValueError, match="holds BandedRidgeEncoder"):
        RidgeEncoder.load(tmp_path / "banded.safetensors")


def test_tensors_give_tensors_and_one_alpha_still_chooses_spaces():
    X, Y = problem()
    fitted = encoder(alphas=30.0).fit(torch.from_numpy(X), torch.from_numpy(Y))
    assert isinstance(fitted.band_weights_, torch.Tensor)
    assert (fitted.band_weights_[::2, 1] > 0.9).all()


def test_bands_must_fit_the_features():
    X, Y = problem()
    with pytest.raises(ValueError, match=r"one label per feature \(33\), got shape \(32,\)"):
        encoder(bands=BANDS[:-1]).fit(X, Y)
