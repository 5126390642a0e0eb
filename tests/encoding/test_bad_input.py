"""What encoding functions do with input that is odd or wrong: a documented result, or an error by name."""

import warnings

import numpy as np
import pytest
import torch

from neurokern.encoding import (
    BandedRidgeEncoder,
    ReducedRankRidgeEncoder,
    RidgeEncoder,
    adjust_p_values,
    complete_rows,
    contiguous_folds,
    delay_features,
    explainable_variance,
    normalize_scores,
    partition_variance,
    permutation_test,
    predict_held_out,
    score_predictions,
    seconds_to_delays,
    split_half_reliability,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5))
Y = X @ RNG.normal(size=(5, 3)) + RNG.normal(size=(24, 3))
HALVES = [(np.arange(12), np.arange(12, 24))]
ENCODERS = {
    "ridge": RidgeEncoder,
    "banded": lambda **options: BandedRidgeEncoder(n_candidates=3, **options),
    "reduced rank": ReducedRankRidgeEncoder,
}
every_encoder = pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)


def tensor(values):
    return torch.from_numpy(np.ascontiguousarray(values))


@every_encoder
@pytest.mark.parametrize(
    ("given", "same"),
    [
        (np.asfortranarray(X), X),
        (np.repeat(X, 2, axis=0)[::2], X),
        (X[::-1][::-1], X),
        (X.astype(">f8"), X),
        (X.astype(np.longdouble), X),
        (X.tolist(), X),
        (X.astype(np.float16), X.astype(np.float16).astype(np.float64)),
        ((9 * X).astype(np.int32), (9 * X).astype(np.int32).astype(np.float64)),
        (X > 0, (X > 0).astype(np.float64)),
        (tensor(X.T).T, X),
        (tensor(X).bfloat16(), tensor(X).bfloat16().double().numpy()),
    ],
    ids=[
        "columns", "strided", "reversed", "bytes swapped", "long double", "list", "float16", "int32", "bool",
        "transposed tensor", "bfloat16",
    ],
)  # fmt: skip
def test_any_layout_and_type_of_numbers_gives_the_fit_of_float64(make, given, same):
    targets = tensor(Y) if isinstance(given, torch.Tensor) else Y
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = make(alphas=[1.0, 30.0], folds=3).fit(given, targets)
    wanted = make(alphas=[1.0, 30.0], folds=3).fit(same, Y)
    np.testing.assert_allclose(np.asarray(fitted.coef_), wanted.coef_, atol=1e-9)
    np.testing.assert_array_equal(np.asarray(fitted.alpha_), wanted.alpha_)


@every_encoder
def test_what_says_nothing_is_predicted_by_its_mean(make):
    constant = make(folds=2).fit(X, np.ones_like(Y))
    np.testing.assert_allclose(constant.predict(X), 1.0)
    assert np.isnan(np.asarray(constant.cv_scores_)).all()
    blind = make(folds=2).fit(np.ones_like(X), Y)
    np.testing.assert_allclose(blind.predict(np.ones((1, 5))), Y.mean(0)[None])
    singular = make(folds=2).fit(np.repeat(X[:, :1], 5, axis=1), Y)
    np.testing.assert_allclose(singular.coef_, singular.coef_[:, :1].repeat(5, axis=1), atol=1e-9)
    tiny = make(folds=2).fit(X * 1e-200, Y)
    np.testing.assert_allclose(tiny.predict(X * 1e-200), np.broadcast_to(Y.mean(0), Y.shape))


@every_encoder
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": X[:1], "Y": Y[:1]}, ValueError, "at least 2 samples"),
        ({"X": X[:, :0]}, ValueError, "0 feature"),
        ({"X": X[:0], "Y": Y[:0]}, ValueError, "0 sample"),
        (
            {"X": np.where(X > 1, np.nan, X)},
            ValueError,
            r"X must be finite, got NaN or infinity in \d+ of 24",
        ),
        (
            {"Y": np.where(Y > 1, np.inf, Y)},
            ValueError,
            r"y must be finite, got NaN or infinity in \d+ of 24",
        ),
        ({"X": X * 1e200}, ValueError, r"X must be below 1e\+150 in size"),
        ({"Y": Y * 1e300}, ValueError, r"y must be below 1e\+150 in size"),
        ({"X": tensor(X).to_sparse()}, TypeError, "dense tensor"),
        ({"X": torch.empty(24, 5, device="meta")}, TypeError, "holds values, got one of meta device"),
        ({"X": X + 1j}, ValueError, "Complex data"),
        ({"X": X.astype(str)}, TypeError, "real numbers"),
        ({"Y": Y[:-1]}, ValueError, "one row per row of X"),
        ({"alphas": 0.0}, ValueError, "above 0"),
        ({"alphas": [-1.0, 1.0]}, ValueError, "above 0"),
        ({"alphas": []}, ValueError, "at least one penalty"),
        ({"folds": 1}, ValueError, "between 2 and"),
        ({"folds": [(np.arange(20), np.arange(15, 24))]}, ValueError, "on both sides"),
        ({"folds": [(np.arange(20), [])]}, ValueError, "test of fold 0 must hold at least one"),
        ({"folds": [([], np.arange(20))]}, ValueError, "train of fold 0 must hold at least one"),
        ({"folds": []}, ValueError, "at least one pair"),
        ({"gap": 30}, ValueError, "to train on"),
        ({"delays": []}, ValueError, "at least one"),
        ({"delays": None, "runs": [None] * 24}, ValueError, "None or NaN in 24"),
    ],
)
def test_encoders_name_what_does_not_fit(make, change, error, message):
    options = {"X": X, "Y": Y, "folds": 2, "alphas": [1.0, 3.0]} | change
    given, targets, runs = options.pop("X"), options.pop("Y"), options.pop("runs", None)
    with pytest.raises(error, match=message):
        make(**options).fit(given, targets, runs=runs)


def test_unsorted_and_duplicate_penalties_are_a_grid():
    wanted = RidgeEncoder(alphas=[0.1, 1.0, 10.0], folds=2).fit(X, Y)
    fitted = RidgeEncoder(alphas=[10.0, 1.0, 10.0, 0.1], folds=2).fit(X, Y)
    np.testing.assert_array_equal(fitted.alpha_, wanted.alpha_)
    np.testing.assert_array_equal(fitted.coef_, wanted.coef_)


def test_one_target_is_predicted_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert RidgeEncoder(folds=2).fit(tensor(X), tensor(Y[:, 0])).predict(tensor(X)).shape == (24,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: score_predictions(np.where(Y > 1, np.nan, Y), Y),
            ValueError,
            r"predictions .* in \d+ of 24",
        ),
        (lambda: score_predictions(Y, np.where(Y > 1, np.nan, Y)), ValueError, r"targets .* in \d+ of 24"),
        (lambda: score_predictions(Y * 1e300, Y), ValueError, "predictions must be below"),
        (lambda: permutation_test(Y * 1e300, Y), ValueError, "predictions must be below"),
        (lambda: split_half_reliability(np.full((3, 5, 2), np.nan)), ValueError, "15 of 15 rows"),
        (lambda: split_half_reliability(np.ones((3, 5, 2)), seed=None), TypeError, "seed must be an integer"),
        (
            lambda: split_half_reliability(np.ones((3, 5, 2)), seed=-1),
            ValueError,
            "seed must not be negative",
        ),
        (lambda: explainable_variance(np.full((3, 5, 2), 1e200)), ValueError, "repeats must be below"),
        (lambda: normalize_scores([0.5], [0.5, 0.5]), ValueError, "same shape"),
        (lambda: adjust_p_values([1.5]), ValueError, "lie in"),
        (lambda: delay_features(X, None), TypeError, "delays must be an integer, got None"),
        (lambda: delay_features(X, float("nan")), TypeError, "delays must be an integer, got nan"),
        (lambda: complete_rows(-1, [0]), ValueError, "n_samples must not be negative"),
        (lambda: seconds_to_delays("abc", 1.0), TypeError, "seconds must be numbers"),
        (lambda: contiguous_folds(6, 2, gap=1, runs=[0, None, 0, 0, 0, 0]), ValueError, "None or NaN in 1"),
        (lambda: predict_held_out(3, X, Y, HALVES), TypeError, "encoder must be a RidgeEncoder"),
        (lambda: partition_variance({"a": X, "b": X}, Y, HALVES, encoder=3), TypeError, "got int"),
        (lambda: BandedRidgeEncoder(bands=[0, 1, 0, 1, np.nan]).fit(X, Y), ValueError, "NaN in 1"),
        (lambda: BandedRidgeEncoder(bands=np.zeros((5, 1))).fit(X, Y), ValueError, "one label per feature"),
        (lambda: ReducedRankRidgeEncoder(ranks=0).fit(X, Y), ValueError, "ranks must hold"),
    ],
)
def test_functions_name_what_does_not_fit(call, error, message):
    with pytest.raises(error, match=message):
        call()
