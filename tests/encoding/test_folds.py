"""Folds: every sample is tested once, no sample is on both sides, gaps hold within runs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut

from neurokern.encoding import check_folds, contiguous_folds, group_folds, leave_one_run_out, purge

RUNS = np.repeat([3, 1, 2], [4, 5, 3])


def as_lists(folds):
    return [(np.asarray(train).tolist(), np.asarray(test).tolist()) for train, test in folds]


def assert_valid(folds, n_samples):
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(n_samples))
    for train, test in folds:
        assert len(train) > 0
        assert not set(train.tolist()) & set(test.tolist())


@given(st.integers(2, 40), st.integers(2, 8), st.integers(0, 3))
def test_contiguous_folds_keep_their_distance_and_drop_no_more(n_samples, n_folds, gap):
    if n_folds > n_samples:
        with pytest.raises(ValueError, match="n_folds"):
            contiguous_folds(n_samples, n_folds)
        return
    bounds = np.linspace(0, n_samples, n_folds + 1).round()
    if ((bounds[:-1] <= gap) & (bounds[1:] >= n_samples - gap)).any():
        with pytest.raises(ValueError, match="to train on"):
            contiguous_folds(n_samples, n_folds, gap=gap)
        return
    folds = contiguous_folds(n_samples, n_folds, gap=gap)
    assert_valid(folds, n_samples)
    sizes = [len(test) for _, test in folds]
    assert max(sizes) - min(sizes) <= 1
    for train, test in folds:
        distance = np.abs(np.arange(n_samples)[:, None] - test).min(axis=1)
        np.testing.assert_array_equal(train, np.flatnonzero(distance > gap))


def test_without_a_gap_they_are_those_of_scikit_learn():
    X = np.zeros((12, 1))
    assert as_lists(contiguous_folds(12, 4)) == as_lists(KFold(4).split(X))
    ours = sorted(as_lists(leave_one_run_out(RUNS)), key=lambda fold: RUNS[fold[1][0]])
    assert ours == as_lists(LeaveOneGroupOut().split(X, groups=RUNS))
    ours, theirs = group_folds(RUNS, 3), GroupKFold(3).split(X, groups=RUNS)
    assert sorted(as_lists(ours)) == sorted(as_lists(theirs))


def test_runs_come_in_the_order_in_which_they_appear():
    assert [RUNS[test[0]] for _, test in leave_one_run_out(RUNS)] == [3, 1, 2]


def test_a_gap_ends_where_the_run_ends():
    folds = contiguous_folds(12, 3, gap=2, runs=RUNS)
    assert as_lists(folds)[0] == (list(range(4, 12)), [0, 1, 2, 3])
    train, test = leave_one_run_out(RUNS, gap=2)[0]
    assert test.tolist() == [0, 1, 2, 3]
    assert train.tolist() == list(range(6, 12))


@given(st.integers(0, 2**31), st.integers(0, 4))
def test_purging_removes_just_the_near_samples_of_the_same_run(seed, gap):
    generator = np.random.default_rng(seed)
    test = np.sort(generator.choice(12, 2, replace=False))
    train = np.setdiff1d(np.arange(12), test)
    near = (np.abs(train[:, None] - test) <= gap) & (RUNS[train][:, None] == RUNS[test])
    expected = train[~near.any(axis=1)]
    ((kept, still),) = purge([(train, test)], gap, n_samples=12, runs=RUNS)
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_array_equal(still, test)


@given(st.lists(st.integers(0, 5), min_size=6, max_size=40).filter(lambda g: len(set(g)) >= 3))
def test_a_group_is_never_on_both_sides(groups):
    folds = group_folds(groups, 3)
    assert_valid(folds, len(groups))
    for train, test in folds:
        assert not {groups[i] for i in train} & {groups[i] for i in test}


def test_masks_tensors_and_unsorted_indices_are_taken():
    mask = np.array([True, True, False])
    folds = check_folds([(mask, torch.tensor([2])), ([2, 0], [1])], 3)
    assert as_lists(folds) == [([0, 1], [2]), ([0, 2], [1])]


@pytest.mark.parametrize(
    ("folds", "error", "message"),
    [
        ([], ValueError, "at least one pair"),
        (5, TypeError, "pairs"),
        ([([0, 1], [1, 2])], ValueError, "both sides, got 1 such as 1"),
        ([([0], [1]), ([], [1])], ValueError, "train of fold 1 must hold at least one"),
        ([([0], [])], ValueError, "test of fold 0 must hold at least one"),
        ([([0, 0], [1])], ValueError, "each sample once"),
        ([([0], [3])], ValueError, r"within 0 \.\.\. 2"),
        ([([0], [-1])], ValueError, "within"),
        ([([0.0], [1.0])], TypeError, "indices"),
        ([([True, False], [False, True])], ValueError, "mark all 3"),
        ([([[0]], [1])], ValueError, "one axis"),
        ([0, 1], TypeError, "fold 0 must be a pair"),
    ],
)
def test_bad_folds_are_refused(folds, error, message):
    with pytest.raises(error, match=message):
        check_folds(folds, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: leave_one_run_out([1, 1, 1]), "at least 2 runs"),
        (lambda: leave_one_run_out([]), "shape"),
        (lambda: contiguous_folds(10, 1), "n_folds"),
        (lambda: contiguous_folds(10, 2, gap=5), "fold 0 must have samples to train on"),
        (lambda: contiguous_folds(10, 2, gap=-1), "gap must not be negative"),
        (lambda: group_folds([1, 1, 2], 3), "number of groups"),
    ],
)
def test_impossible_folds_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
