"""RidgeAccumulator: batches give what all samples give at once, however they come."""

import os
import pickle

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing

from neurokern.ops import RidgeAccumulator, _ridge_accumulator, _ridge_blas, ridge_cv
from neurokern.ops._ridge_reference import ridge_reference

ALPHAS = np.geomspace(1, 1e4, 7)
FOLD = np.repeat(np.arange(4), [30, 25, 20, 25])


@pytest.fixture(params=["numpy", "torch"])
def as_on_a_gpu(request, monkeypatch):
    """Also run the path of tensors on a GPU, on tensors of the CPU."""
    if request.param == "torch":
        monkeypatch.setattr(_ridge_blas, "device_of", lambda tensor: tensor.device)
    return request.param


def data(n=100, p=9, v=5, seed=0, mean=3.0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, p)) + mean
    return X, X @ random.normal(size=(p, v)) / p**0.5 + 2 * random.normal(size=(n, v)) - mean


def in_batches(X, Y, size=17, **options):
    sums = RidgeAccumulator(**options)
    for first in range(0, len(X), size):
        rows = slice(first, min(first + size, len(X)))
        sums.update(X[rows], Y[rows], FOLD[rows])
    return sums


def assert_equal(found, right, tolerance=1e-9):
    np.testing.assert_array_equal(found.alphas, right.alphas)
    for name in ("weights", "intercept", "scores"):
        np.testing.assert_allclose(getattr(found, name), getattr(right, name), atol=tolerance)


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("scoring", ["r2", "pearson", "mse"])
@pytest.mark.parametrize("pooled", [False, True])
def test_batches_give_what_all_samples_give(fit_intercept, scoring, pooled, as_on_a_gpu):
    X, Y = (torch.tensor(values) for values in data())
    options = {"scoring": scoring, "pooled": pooled}
    right = ridge_cv(X, Y, ALPHAS, "leave-one-run-out", runs=FOLD, fit_intercept=fit_intercept, **options)
    found = in_batches(X, Y, fit_intercept=fit_intercept).solve(ALPHAS, **options)
    assert isinstance(found.weights, torch.Tensor)
    assert_equal(found, right)


def test_weights_of_samples_are_kept():
    X, Y = data()
    weight = np.random.default_rng(1).random(100)
    sums = RidgeAccumulator()
    for rows in (slice(0, 40), slice(40, 100)):
        sums.update(X[rows], Y[rows], FOLD[rows], sample_weight=weight[rows])
    right = ridge_cv(X, Y, ALPHAS, "leave-one-run-out", runs=FOLD, sample_weight=weight)
    assert_equal(sums.solve(ALPHAS), right)
    assert sums.n_samples == pytest.approx(weight.sum())


@pytest.mark.parametrize("mean", [0.0, 3.0, 30.0])
def test_a_long_stream_of_float32_loses_no_digits(mean):
    random = np.random.default_rng(0)
    mixing = random.normal(size=(6, 2))
    sums, xs, ys = RidgeAccumulator(), [], []
    for step in range(200):
        X = (random.normal(size=(100, 6)) + mean).astype(np.float32)
        Y = (X @ mixing + random.normal(size=(100, 2))).astype(np.float32)
        sums.update(X, Y, step % 4)
        xs.append(X)
        ys.append(Y)
    found = sums.solve([0.1])
    weights, intercept = ridge_reference(np.concatenate(xs), np.concatenate(ys), 0.1)
    assert found.weights.dtype == np.float32
    np.testing.assert_allclose(found.weights, weights, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.intercept, intercept, atol=1e-6 * (1 + 30 * mean))


def test_the_order_of_samples_does_not_matter():
    X, Y = data()
    order = np.random.default_rng(0).permutation(100)
    shuffled = RidgeAccumulator()
    for rows in np.array_split(order, 7):
        shuffled.update(X[rows], Y[rows], FOLD[rows])
    assert_equal(shuffled.solve(ALPHAS), in_batches(X, Y).solve(ALPHAS))


def test_merged_accumulators_are_one():
    X, Y = data()
    parts = [RidgeAccumulator() for _ in range(3)]
    for part, rows in zip(parts, (slice(0, 35), slice(35, 80), slice(80, 100)), strict=True):
        part.update(X[rows] + 0.0, Y[rows], FOLD[rows])
    total = RidgeAccumulator()
    for part in [*parts, RidgeAccumulator()]:
        total.merge(part)
    assert total.n_samples == 100
    assert_equal(total.solve(ALPHAS), in_batches(X, Y).solve(ALPHAS))


def test_an_interrupted_update_changes_nothing(monkeypatch):
    X, Y = data()
    sums = in_batches(X[:80], Y[:80])
    before = pickle.dumps(sums.state_dict())

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(_ridge_accumulator, "_batch_sums", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sums.update(X[80:], Y[80:], FOLD[80:])
    assert pickle.dumps(sums.state_dict()) == before


def test_a_saved_state_goes_on(tmp_path):
    X, Y = data()
    sums = in_batches(X[:50], Y[:50])
    np.savez(tmp_path / "sums.npz", **sums.state_dict())
    with np.load(tmp_path / "sums.npz") as file:
        state = {name: values if values.ndim else values.item() for name, values in file.items()}
    resumed = RidgeAccumulator()
    resumed.load_state_dict(state)
    resumed.update(X[50:], Y[50:], FOLD[50:])
    assert_equal(resumed.solve(ALPHAS), in_batches(X, Y).solve(ALPHAS))
    empty = RidgeAccumulator(fit_intercept=False)
    resumed.load_state_dict(empty.state_dict())
    assert not resumed.fit_intercept
    assert resumed.folds == []


def test_a_damaged_state_is_refused():
    X, Y = data()
    state = in_batches(X, Y).state_dict()
    state["cross"] = state["cross"][:, :-1]
    with pytest.raises(ValueError, match=r"cross must have shape \(4, 5, 10\), got \(4, 4, 10\)"):
        RidgeAccumulator().load_state_dict(state)


def rank_of(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
    X, Y = (torch.tensor(values) for values in data())
    sums = RidgeAccumulator()
    if rank < 2:  # the third rank has no sample
        rows = slice(0, 45) if rank == 0 else slice(45, 100)
        sums.update(X[rows], Y[rows], FOLD[rows])
    sums.all_reduce()
    found = sums.solve(ALPHAS)
    torch.save((found.weights, found.scores, found.alphas), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_all_ranks_hold_the_sums_of_all_samples(tmp_path):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    multiprocessing.spawn(rank_of, (str(tmp_path),), nprocs=3)
    X, Y = data()
    right = ridge_cv(X, Y, ALPHAS, "leave-one-run-out", runs=FOLD)
    for rank in range(3):
        weights, scores, alphas = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        np.testing.assert_allclose(weights, right.weights, atol=1e-9)
        np.testing.assert_allclose(scores, right.scores, atol=1e-9)
        np.testing.assert_array_equal(alphas, right.alphas)


def test_one_fold_solves_for_one_alpha():
    X, Y = data()
    sums = RidgeAccumulator()
    sums.update(X, Y[:, 0])
    found = sums.solve(3.0)
    weights, intercept = ridge_reference(X, Y[:, :1], 3.0)
    np.testing.assert_allclose(found.weights, weights[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found.intercept, intercept[0], rtol=1e-9)
    assert np.isnan(found.scores)
    with pytest.raises(ValueError, match="alphas must hold one penalty if all samples are of one fold"):
        sums.solve(ALPHAS)


def test_wrong_batches_are_named_and_change_nothing():
    X, Y = data()
    sums = in_batches(X, Y)
    for arguments, message in [
        ((X[:, 1:], Y, 0), "features must be the same as before, 9, got 8"),
        ((X, Y[:, 1:], 0), "targets must be the same as before, 5, got 4"),
        (
            (torch.tensor(X), torch.tensor(Y), 0),
            "kind of arrays must be the same as before, numpy, got torch",
        ),
        ((X.astype("f4"), Y.astype("f4"), 0), "type must be the same as before, float64, got float32"),
        ((X, Y, FOLD[1:]), r"fold must be .* of shape \(100,\)"),
        ((X, Y, FOLD / 2), "fold must be"),
        ((np.full_like(X, np.nan), Y, 0), "in 100 of 100 rows"),
    ]:
        with pytest.raises(ValueError, match=message):
            sums.update(*arguments)
    with pytest.raises(TypeError, match="fold must be an integer, got 'a'"):
        sums.update(X, Y, "a")
    with pytest.raises(ValueError, match="fit_intercept must be the same"):
        sums.merge(in_batches(X, Y, fit_intercept=False))
    assert sums.n_samples == 100
    with pytest.raises(ValueError, match="call update first"):
        RidgeAccumulator().solve([1.0])
