"""Ridge at its limits: a million targets in little memory, and input that is hardly a problem at all."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurokern.ops import _ridge_cv, _ridge_parts
from neurokern.ops._ridge_folds import make_folds
from neurokern.ops._ridge_reference import cv_reference
from neurokern.ops.solve_ridge import RidgeAccumulator, ridge_cv, solve_ridge, solve_ridge_batched

MILLION = """
import resource
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))
import numpy as np
from neurokern.ops import ridge_cv
random = np.random.default_rng(0)
X = random.standard_normal((24, 6), np.float32)
Y = random.standard_normal((24, 1_000_000), np.float32) + X[:, :1]
found = ridge_cv(X, Y, [1.0, 10.0, 100.0], 3)
assert np.isfinite(found.weights).all() and found.weights.shape == (6, 1_000_000)
some = ridge_cv(X.astype(float), Y[:, 500_000:500_050].astype(float), [1.0, 10.0, 100.0], 3)
assert (some.alphas == found.alphas[500_000:500_050]).all()
with open("/proc/self/status") as status:  # unlike ru_maxrss, not what the parent had before exec
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.skipif(
    os.environ.get("NEUROKERN_SANITIZED") == "1", reason="the sanitizer takes terabytes itself"
)
def test_a_million_targets_fit_into_two_gigabytes():
    run = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 2 << 20  # kilobytes that were resident at most


@settings(max_examples=20)
@given(
    st.integers(128, 180),
    st.integers(2, 220),
    st.integers(1, 12),
    st.integers(2, 4),
    st.floats(-1, 1),
    st.sampled_from(["r2", "pearson"]),
    st.integers(0, 999),
)
def test_float32_selects_and_scores_as_the_loop_in_float64(n, p, n_alphas, folds, decade, scoring, seed):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, p)).astype(np.float32)
    Y = (X[:, :1] + random.normal(size=(n, 3))).astype(np.float32)
    alphas = np.logspace(decade, decade + 3, n_alphas)
    pairs = [(fold.train, np.arange(n)[fold.test]) for fold in make_folds("", folds, None, n)]
    with pytest.MonkeyPatch.context() as patch:  # as large problems are computed
        patch.setattr(_ridge_cv, "SMALL", 0)
        patch.setattr(_ridge_parts, "_WORTH_CUTTING", 0)
        found = ridge_cv(X, Y, alphas, folds, scoring=scoring, return_alpha_scores=True)
    right = cv_reference(X, Y, alphas, pairs, scoring=scoring)
    chosen = np.searchsorted(np.unique(alphas), found.alphas)
    best, of_chosen = right.max(0), right[chosen, np.arange(3)]
    tolerance = 1e-6 * (1 + np.abs(of_chosen))
    assert (best - of_chosen <= tolerance).all()
    assert (np.abs(found.scores - of_chosen) <= tolerance).all()


@pytest.mark.parametrize("patched", [False, True])
def test_few_samples_and_those_that_hang_on_few_others_are_scored_in_float64(patched, monkeypatch):
    random = np.random.default_rng(3)
    n = 164 if patched else 57  # of the worst of many draws
    X = random.normal(size=(n, n - 6)).astype(np.float32)
    Y = (X[:, :1] + random.normal(size=(n, 3))).astype(np.float32)
    monkeypatch.setattr(_ridge_cv, "SMALL", 0)
    alphas = [0.02]
    pairs = [(fold.train, np.arange(n)[fold.test]) for fold in make_folds("", 4, None, n)]
    found = ridge_cv(X, Y, alphas, 4, return_plan=True)
    assert found.plan.route == "blocks"
    np.testing.assert_allclose(found.scores, cv_reference(X, Y, np.array(alphas), pairs)[0], rtol=1e-9)


CALLS = {
    "solve_ridge": lambda X, Y: solve_ridge(X, Y, 1.0),
    "ridge_cv": lambda X, Y: ridge_cv(X, Y, [1.0, 10.0], 2),
    "RidgeAccumulator": lambda X, Y: RidgeAccumulator().update(X, Y, 0),
    "solve_ridge_batched": lambda X, Y: solve_ridge_batched(X[None], Y[None], [1.0, 10.0]),
}


@pytest.mark.parametrize("name", ["solve_ridge", "ridge_cv"])
def test_no_features_are_refused_by_name(name):
    with pytest.raises(
        ValueError, match=rf"{name}: X must have shape \(samples, features\) with at least one"
    ):
        CALLS[name](np.zeros((4, 0)), np.zeros((4, 2)))


@pytest.mark.parametrize("name", list(CALLS))
def test_a_tensor_beside_an_array_is_refused(name):
    with pytest.raises((TypeError, ValueError), match=r"numpy|tensor"):
        CALLS[name](np.zeros((4, 2)), torch.zeros((4, 2)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", list(CALLS))
def test_values_that_are_not_finite_are_refused_and_counted(name, value):
    X, Y = np.random.default_rng(0).normal(size=(2, 6, 3))
    Y[[1, 4]] = value
    with pytest.raises(ValueError, match=r"(2 of 6 rows|1 of 1 problems)"):
        CALLS[name](X, Y)


@pytest.mark.parametrize("name", ["solve_ridge", "ridge_cv"])
def test_layout_and_type_of_input_change_no_result(name):
    random = np.random.default_rng(0)
    X, Y = (
        random.integers(-8, 8, (12, 3)).astype(np.float32),
        random.integers(-8, 8, (12, 2)).astype(np.float32),
    )
    right = CALLS[name](X, Y).weights
    views = [lambda a: np.asfortranarray(a), lambda a: np.repeat(a, 2, 0)[::2], lambda a: a[::-1][::-1]]
    types = [lambda a: a.astype(np.float16), lambda a: a.astype(np.int8), lambda a: a.astype(np.int16)]
    for change, other in itertools.product([*views, *types], repeat=2):
        np.testing.assert_allclose(CALLS[name](change(X), other(Y)).weights, right, atol=1e-6)
    found = CALLS[name](torch.tensor(X).bfloat16(), torch.tensor(Y).bfloat16().T.contiguous().T).weights
    np.testing.assert_allclose(found, right, atol=1e-6)


def test_one_sample_has_its_value_as_intercept():
    found = solve_ridge(np.ones((1, 3)), np.full((1, 2), 7.0), 1.0)
    assert not found.weights.any()
    assert (found.intercept == 7).all()
    with pytest.raises(ValueError, match="ridge_cv: folds must lie between 2 and the number of samples, 1"):
        ridge_cv(np.ones((1, 3)), np.ones((1, 2)), [1.0], 2)
