"""Held-out predictions see no held-out response; parts of the variance add up."""

import numpy as np
import pytest
import torch

from neurokern.encoding import (
    RidgeEncoder,
    contiguous_folds,
    delay_features,
    leave_one_run_out,
    partition_variance,
    predict_held_out,
    score_predictions,
)

ALPHAS = (0.1, 10.0, 1000.0)
RUNS = np.repeat([0, 1, 2], 40)


def problem(seed=0, n_features=5):
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(120, n_features))
    return X, X @ generator.normal(size=(n_features, 3)) + generator.normal(size=(120, 3))


def test_each_fold_is_predicted_by_a_model_of_its_training_samples():
    X, Y = problem()
    encoder = RidgeEncoder(alphas=ALPHAS, folds=3)
    folds = contiguous_folds(120, 4, gap=2)
    predictions = predict_held_out(encoder, X, Y, folds)
    for train, test in folds:
        model = RidgeEncoder(alphas=ALPHAS, folds=3).fit(X[train], Y[train])
        np.testing.assert_allclose(predictions[test], model.predict(X[test]))
    assert not hasattr(encoder, "coef_")


def test_responses_of_the_test_set_do_not_change_its_predictions():
    X, Y = problem()
    folds = leave_one_run_out(RUNS)
    encoder = RidgeEncoder(alphas=ALPHAS, folds="leave-one-run-out", delays=[0, 1], standardize=True)
    first = predict_held_out(encoder, X, Y, folds, runs=RUNS)
    Y[RUNS == 1] += 100
    second = predict_held_out(encoder, X, Y, folds, runs=RUNS)
    np.testing.assert_array_equal(first[RUNS == 1], second[RUNS == 1])
    assert not np.allclose(first[RUNS == 0], second[RUNS == 0])


def test_delays_reach_back_from_a_test_set_but_not_across_runs():
    X, Y = problem()
    folds = contiguous_folds(120, 5)
    encoder = RidgeEncoder(alphas=1.0, delays=[3])
    predictions = predict_held_out(encoder, X, Y, folds, runs=RUNS)
    delayed = delay_features(X, [3], runs=RUNS)
    expected = predict_held_out(RidgeEncoder(alphas=1.0), delayed, Y, folds)
    np.testing.assert_array_equal(predictions, expected)


def test_gaps_of_the_inner_folds_end_where_the_test_set_was_cut_out():
    X, Y = problem()
    encoder = RidgeEncoder(alphas=ALPHAS, folds=3, gap=5)
    for runs in (None, RUNS):
        predictions = predict_held_out(encoder, X, Y, contiguous_folds(120, 5), runs=runs)
        assert np.isfinite(predictions).all()


def test_samples_that_no_fold_tests_are_nan_and_kinds_are_kept():
    X, Y = problem()
    for values in (X, torch.from_numpy(X)):
        one = predict_held_out(
            RidgeEncoder(alphas=1.0), values, torch.from_numpy(Y[:, 0]), [([0, 1, 2], [3])]
        )
        assert isinstance(one, torch.Tensor)
        assert one.shape == (120,)
        assert torch.isnan(one).sum() == 119


def test_parts_of_the_variance_add_up_and_go_to_the_spaces_that_explain_it():
    generator = np.random.default_rng(1)
    shared, a, b, c = generator.normal(size=(4, 2000))
    spaces = {"A": np.stack([shared, a], 1), "B": np.stack([shared, b], 1), "C": c[:, None]}
    noise = generator.normal(size=(2000, 4))
    Y = np.stack([a, b + 0 * a, shared, c], 1) + noise
    folds = contiguous_folds(2000, 4)
    partition = partition_variance(spaces, Y, folds, encoder=RidgeEncoder(alphas=1.0))
    whole = partition.r2["A", "B", "C"]
    np.testing.assert_allclose(sum(partition.parts.values()), whole, atol=1e-12)
    together = np.concatenate(list(spaces.values()), axis=1)
    predicted = predict_held_out(RidgeEncoder(alphas=1.0), together, Y, folds)
    np.testing.assert_allclose(whole, score_predictions(predicted, Y, "r2"))
    for target, part in enumerate([("A",), ("B",), ("A", "B"), ("C",)]):
        assert partition.parts[part][target] == pytest.approx(0.5, abs=0.05)
        rest = sum(abs(value[target]) for name, value in partition.parts.items() if name != part)
        assert rest < 0.03
    np.testing.assert_allclose(partition.parts["C",], whole - partition.r2["A", "B"], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda X, Y: predict_held_out(RidgeEncoder(), X, Y, [([0], [1]), ([0], [1])]), "more than once"),
        (lambda X, Y: predict_held_out(RidgeEncoder(), X, Y, [([0, 1], [1])]), "both sides"),
        (lambda X, Y: partition_variance({"A": X}, Y, [([0], [1])]), "2 to 6, got 1"),
        (lambda X, Y: partition_variance({"A": X, "B": X[:9]}, Y, [([0], [1])]), "same samples"),
        (lambda X, Y: partition_variance({"A": X, "B": X * np.nan}, Y, [([0], [1])]), "space 'B': X must be"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*problem())
