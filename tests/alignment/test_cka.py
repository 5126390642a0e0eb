"""CKA is HSIC by its definition, on every route, and debiased where it says so."""

import numpy as np
import pytest
import torch

from neurokern.alignment import CkaAccumulator, cka


def hsic(K, L, *, debiased):
    """Gretton et al. 2005, and Song et al. 2012 eq. 5, by their formulas."""
    n = len(K)
    if not debiased:
        H = np.eye(n) - 1 / n
        return np.trace(K @ H @ L @ H)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    one = np.ones(n)
    both = one @ K @ L @ one
    return np.trace(K @ L) + (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2)) - 2 * both / (n - 2)


def reference(X, Y, kernel, *, debiased):
    kernels = []
    for values in (X, Y):
        if kernel == "linear":
            kernels.append(values @ values.T)
        else:
            squares = ((values[:, None] - values) ** 2).sum(-1)
            median = np.sort(squares[np.triu_indices(len(values), 1)])
            kernels.append(np.exp(-squares / (2 * median[(len(median) - 1) // 2])))
    K, L = kernels
    own = hsic(K, K, debiased=debiased) * hsic(L, L, debiased=debiased)
    return hsic(K, L, debiased=debiased) / np.sqrt(own)


def layers(p=4, q=7, n=20, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 3
    return X, X @ rng.normal(size=(p, q)) + rng.normal(size=(n, q))


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize(("p", "q"), [(4, 7), (30, 7), (30, 50)])
def test_cka_is_the_normalized_hsic_on_every_route(kernel, debiased, p, q):
    X, Y = layers(p, q)
    result = cka(X, Y, kernel=kernel, debiased=debiased)
    np.testing.assert_allclose(result, reference(X, Y, kernel, debiased=debiased), rtol=1e-9)


def test_layers_regions_and_times_are_broadcast():
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(3, 1, 12, 4)).astype(np.float32), rng.normal(size=(5, 12, 6)).astype(np.float16)
    result = cka(X, Y)
    assert result.shape == (3, 5)
    np.testing.assert_allclose(result[2, 4], cka(X[2, 0], Y[4]))


def test_rotations_scales_and_shifts_do_not_matter():
    X, Y = layers()
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
    for options in ({}, {"debiased": True}, {"kernel": "rbf"}):
        np.testing.assert_allclose(cka(1e9 * X @ rotation + 5, Y, **options), cka(X, Y, **options), rtol=1e-6)


def test_debiasing_removes_what_many_features_add():
    rng = np.random.default_rng(3)
    X, Y = rng.normal(size=(2, 20, 30, 300))
    assert cka(X, Y).mean() > 0.8
    assert abs(cka(X, Y, debiased=True).mean()) < 0.05


def test_what_never_varies_has_no_similarity():
    X, Y = layers()
    for constant in (np.full((20, 3), 0.1), np.zeros((20, 30))):
        for kernel in ("linear", "rbf"):
            assert np.isnan(cka(constant, Y, kernel=kernel))
    assert np.isnan(cka(X, Y[:, :1] * 0))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_one_batch_is_debiased_cka(kernel):
    X, Y = layers()
    accumulator = CkaAccumulator(kernel)
    accumulator.update([X, Y], [Y])
    expected = [[cka(one, Y, kernel=kernel, debiased=True)] for one in (X, Y)]
    np.testing.assert_allclose(accumulator.result(), expected)


def test_batches_of_any_size_estimate_the_cka_of_all():
    X, Y = layers(n=600, seed=4)
    whole = float(cka(X, Y, debiased=True))
    for size in (20, 100):
        accumulator = CkaAccumulator()
        for first in range(0, 600, size):
            accumulator.update([torch.from_numpy(X[first : first + size])], [Y[first : first + size]])
        assert accumulator.n_batches == 600 // size
        assert isinstance(accumulator.result(), torch.Tensor)
        assert float(accumulator.result()[0, 0]) == pytest.approx(whole, abs=0.03)


def test_scales_of_batches_are_kept_apart_from_similarity():
    """A batch of large responses must weigh as much as it does in the whole."""
    X, Y = layers(n=40)
    X[20:] *= 10
    accumulator = CkaAccumulator()
    for part in (slice(0, 20), slice(20, 40)):
        accumulator.update([X[part]], [Y[part]])
    sums = np.zeros(3)
    for part in (slice(0, 20), slice(20, 40)):
        K, L = X[part] @ X[part].T, Y[part] @ Y[part].T
        sums += [hsic(a, b, debiased=True) for a, b in ((K, L), (K, K), (L, L))]
    np.testing.assert_allclose(accumulator.result()[0, 0], sums[0] / np.sqrt(sums[1] * sums[2]))


def test_bad_input_is_an_error_that_says_what_to_do():
    X, Y = layers()
    with pytest.raises(ValueError, match="must have the same samples, got 20 and 19 rows"):
        cka(X, Y[:19])
    with pytest.raises(ValueError, match="leading axes of X and Y must be the same or 1"):
        cka(np.zeros((2, 20, 3)), np.zeros((3, 20, 3)))
    with pytest.raises(ValueError, match="at least 4 samples"):
        cka(X[:3], Y[:3], debiased=True)
    with pytest.raises(ValueError, match="NaN or infinity in 1 patterns"):
        cka(np.where(np.arange(20)[:, None] == 3, np.nan, X), Y)
    with pytest.raises(ValueError, match="kernel must be one of 'linear', 'rbf'"):
        cka(X, Y, kernel="cosine")
    with pytest.raises(ValueError, match="feed batches to CkaAccumulator"):
        cka(np.zeros((200_000, 1)), np.zeros((200_000, 1)), kernel="rbf")
    with pytest.raises(ValueError, match="there was no batch"):
        CkaAccumulator().result()
    accumulator = CkaAccumulator()
    accumulator.update([X], [Y])
    with pytest.raises(ValueError, match="as many arrays as the first"):
        accumulator.update([X, X], [Y])
    with pytest.raises(ValueError, match="at least one array"):
        accumulator.update([], [Y])
