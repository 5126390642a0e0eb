"""The estimator against plain solves in float64, and against scikit-learn's protocol."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, KFold, LeaveOneGroupOut
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from neurokern.encoding import RidgeEncoder, contiguous_folds, delay_features, score_predictions

pytest.importorskip("safetensors")

ALPHAS = (0.1, 3.0, 100.0, 3000.0)


def problem(n_samples=60, n_features=6, n_targets=4, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.normal(2, 1, (n_samples, n_features))
    noise = generator.normal(size=(n_samples, n_targets)) * np.linspace(0.5, 20, n_targets)
    return X, X @ generator.normal(size=(n_features, n_targets)) + noise + 3


def plain_ridge(X, Y, alpha):
    centered = X - X.mean(0)
    gram = centered.T @ centered + alpha * np.eye(X.shape[1])
    weights = np.linalg.solve(gram, centered.T @ (Y - Y.mean(0)))
    return weights, Y.mean(0) - X.mean(0) @ weights


def plain_scores(X, Y, folds, metric):
    """Mean score over folds, (alphas, targets)."""
    scores = np.zeros((len(ALPHAS), Y.shape[1]))
    for train, test in folds:
        for at, alpha in enumerate(ALPHAS):
            weights, intercept = plain_ridge(X[train], Y[train], alpha)
            scores[at] += score_predictions(X[test] @ weights + intercept, Y[test], metric) / len(folds)
    return scores


@pytest.mark.parametrize("metric", ["r2", "pearson"])
@pytest.mark.parametrize("n_features", [6, 90])
@pytest.mark.parametrize("shared", [False, True])
def test_alphas_are_those_of_the_best_mean_score_over_folds(metric, n_features, shared):
    X, Y = problem(n_features=n_features)
    encoder = RidgeEncoder(alphas=ALPHAS, folds=3, gap=1, scoring=metric, shared_alpha=shared).fit(X, Y)
    scores = plain_scores(X, Y, contiguous_folds(60, 3, gap=1), metric)
    best = np.full(4, scores.mean(1).argmax()) if shared else scores.argmax(0)
    np.testing.assert_array_equal(encoder.alpha_, np.array(ALPHAS)[best])
    np.testing.assert_allclose(encoder.cv_scores_, scores[best, np.arange(4)], rtol=1e-6)
    for target, alpha in enumerate(encoder.alpha_):
        weights, intercept = plain_ridge(X, Y[:, target], alpha)
        np.testing.assert_allclose(encoder.coef_[target], weights, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(encoder.intercept_[target], intercept, rtol=1e-6)
    expected = X @ encoder.coef_.T + encoder.intercept_
    np.testing.assert_allclose(encoder.predict(X), expected)
    assert encoder.score(X, Y) == pytest.approx(score_predictions(expected, Y, "r2").mean())


def test_scikit_learn_finds_nothing_to_object_to():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(RidgeEncoder(), on_skip=None, on_fail=None)
    assert [result["check_name"] for result in results if result["status"] == "failed"] == []
    assert len(results) > 30


def test_it_works_in_pipelines_searches_and_clones():
    X, Y = problem()
    pipeline = make_pipeline(StandardScaler(), RidgeEncoder(alphas=ALPHAS))
    search = GridSearchCV(pipeline, {"ridgeencoder__shared_alpha": [True, False]}, cv=2).fit(X, Y)
    assert search.predict(X).shape == Y.shape
    fitted = RidgeEncoder(alphas=ALPHAS, delays=(0, 1)).fit(X, Y)
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    assert not hasattr(fresh, "coef_")
    assert repr(RidgeEncoder(gap=2)) == "RidgeEncoder(gap=2)"


def test_it_is_pickled_and_saved(tmp_path):
    X, Y = problem()
    encoder = RidgeEncoder(alphas=ALPHAS, delays=np.array([0, 2]), folds=contiguous_folds(60, 2)).fit(X, Y)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(encoder)).predict(X), encoder.predict(X))
    encoder.save(tmp_path / "encoder.safetensors")
    loaded = RidgeEncoder.load(tmp_path / "encoder.safetensors")
    np.testing.assert_array_equal(loaded.coef_, encoder.coef_)
    np.testing.assert_allclose(loaded.predict(X), encoder.predict(X))
    np.testing.assert_array_equal(loaded.cv_scores_, encoder.cv_scores_)
    assert (loaded.delays, loaded.alphas) == ([0, 2], list(ALPHAS))
    loaded.fit(X, Y)
    (tmp_path / "bad.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    for content in (None, b"none"):
        if content:
            (tmp_path / "bad.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="a file that save wrote"):
            RidgeEncoder.load(tmp_path / "bad.safetensors")


def test_one_target_has_no_axis_and_one_alpha_needs_no_folds():
    X, Y = problem()
    one = RidgeEncoder(alphas=3.0).fit(X, Y[:, 0])
    weights, intercept = plain_ridge(X, Y[:, 0], 3.0)
    np.testing.assert_allclose(one.coef_, weights)
    assert float(one.intercept_) == pytest.approx(intercept)
    assert (float(one.alpha_), one.cv_scores_) == (3.0, None)
    assert one.predict(X).shape == (60,)
    assert RidgeEncoder(alphas=3.0).fit(X[:1], Y[:1]).coef_.shape == (4, 6)


def test_tensors_give_tensors():
    X, Y = (torch.from_numpy(values).float() for values in problem())
    encoder = RidgeEncoder(alphas=ALPHAS).fit(X, Y)
    for value in (encoder.coef_, encoder.intercept_, encoder.alpha_, encoder.predict(X)):
        assert isinstance(value, torch.Tensor)
    double = RidgeEncoder(alphas=ALPHAS).fit(X.double().numpy(), Y.double().numpy())
    np.testing.assert_allclose(encoder.coef_, double.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(encoder.predict(X), double.predict(X.numpy()), rtol=1e-4, atol=1e-4)


def test_delays_and_leave_one_run_out_go_by_runs():
    X, Y = problem()
    runs = np.repeat([0, 1, 2], 20)
    encoder = RidgeEncoder(alphas=ALPHAS, delays=[1, 2], folds="leave-one-run-out").fit(X, Y, runs=runs)
    delayed = delay_features(X, [1, 2], runs=runs)
    pairs = [(np.flatnonzero(runs != run), np.flatnonzero(runs == run)) for run in range(3)]
    same = RidgeEncoder(alphas=ALPHAS, folds=pairs).fit(delayed, Y)
    np.testing.assert_array_equal(encoder.coef_, same.coef_)
    np.testing.assert_allclose(encoder.predict(X, runs=runs), same.predict(delayed))
    assert encoder.n_features_in_ == 6


def test_a_splitter_of_scikit_learn_is_taken():
    X, Y = problem()
    runs = np.repeat([0, 1, 2], 20)
    plain = RidgeEncoder(alphas=ALPHAS, folds=KFold(3)).fit(X, Y)
    np.testing.assert_array_equal(plain.coef_, RidgeEncoder(alphas=ALPHAS, folds=3).fit(X, Y).coef_)
    given = RidgeEncoder(alphas=ALPHAS, folds=LeaveOneGroupOut()).fit(X, Y, runs=runs)
    same = RidgeEncoder(alphas=ALPHAS, folds="leave-one-run-out").fit(X, Y, runs=runs)
    np.testing.assert_array_equal(given.coef_, same.coef_)


def test_standardizing_is_a_change_of_units():
    X, Y = problem()
    X[:, 0] = 7.0  # constant
    scaled = RidgeEncoder(alphas=ALPHAS, standardize=True).fit(X, Y)
    units = np.r_[1.0, 10.0 ** np.arange(-2, 3)]
    other = RidgeEncoder(alphas=ALPHAS, standardize=True).fit(X * units, Y)
    np.testing.assert_allclose(other.coef_ * units, scaled.coef_, atol=1e-7)
    np.testing.assert_allclose(scaled.coef_[:, 0], 0, atol=1e-9)
    np.testing.assert_allclose(scaled.predict(X), X @ scaled.coef_.T + scaled.intercept_)


def test_a_constant_target_is_predicted_and_has_no_score():
    X, Y = problem()
    Y[:, 1] = 4.0
    encoder = RidgeEncoder(alphas=ALPHAS).fit(X, Y)
    np.testing.assert_allclose(encoder.predict(X)[:, 1], 4.0)
    assert np.isnan(encoder.cv_scores_).tolist() == [False, True, False, False]
    assert np.isfinite(encoder.score(X, Y))


@pytest.mark.parametrize(
    ("settings", "arguments", "error", "message"),
    [
        ({"folds": "leave-one-run-out"}, {}, ValueError, "runs must be given"),
        ({"folds": "leave-one-run-out"}, {"runs": [0, 1]}, ValueError, r"one label per sample \(60\), got 2"),
        ({"folds": "trials"}, {}, ValueError, "folds must be one of"),
        ({"folds": None}, {}, TypeError, "folds must be a number, 'leave-one-run-out', pairs"),
        ({"folds": 2.5}, {}, TypeError, "folds must be a number"),
        ({"alphas": None}, {}, TypeError, "alphas must be a number or numbers"),
        ({"alphas": ()}, {}, ValueError, "at least one penalty"),
        ({"folds": 1}, {}, ValueError, "n_folds"),
        ({"folds": [([0, 1], [1, 2])]}, {}, ValueError, "both sides"),
        ({"folds": "leave-one-run-out"}, {"runs": [0] * 60}, ValueError, "at least 2 runs"),
        ({"scoring": "accuracy"}, {}, ValueError, "scoring must be one of"),
        ({"alphas": (1.0, 0.0)}, {}, ValueError, "above 0"),
        ({"gap": 60}, {}, ValueError, "to train on"),
        ({"delays": [0, 0]}, {}, ValueError, "different integers"),
        ({}, {"X": np.full((60, 6), np.nan)}, ValueError, "X must be finite, got NaN"),
        ({}, {"y": np.full((60, 4), np.inf)}, ValueError, "y must be finite"),
        ({}, {"y": np.ones(59)}, ValueError, "one row per row"),
        ({}, {"X": np.array([["a"] * 6] * 60)}, TypeError, "real numbers"),
    ],
)
def test_bad_arguments_are_refused(settings, arguments, error, message):
    X, Y = problem()
    with pytest.raises(error, match=message):
        RidgeEncoder(**{"alphas": ALPHAS} | settings).fit(**{"X": X, "y": Y} | arguments)


def test_what_cannot_be_done_before_fitting_is_refused():
    X, Y = problem()
    with pytest.raises(NotFittedError, match=r"call fit\(X, Y\)"):
        RidgeEncoder().predict(X)
    with pytest.raises(ValueError, match="unknown setting 'alpha'; known: alphas"):
        RidgeEncoder().set_params(alpha=1)
    with pytest.raises(ValueError, match="X has 5 features, but RidgeEncoder is expecting 6"):
        RidgeEncoder(alphas=1.0).fit(X, Y).predict(X[:, :5])
