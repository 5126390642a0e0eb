"""solve_ridge: equal to least squares with the penalty as rows, on every shape, type and kind of array."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neurokern.ops import _ridge_blas, _ridge_direct
from neurokern.ops._ridge_reference import ridge_reference
from neurokern.ops.solve_ridge import solve_ridge

SHAPES = [(60, 10, 5), (10, 60, 5), (12, 12, 40), (1, 3, 2), (5, 1, 1)]


@pytest.fixture(params=["numpy", "torch"])
def as_on_a_gpu(request, monkeypatch):
    """Also run the path of tensors on a GPU, on tensors of the CPU."""
    if request.param == "torch":
        monkeypatch.setattr(_ridge_blas, "device_of", lambda tensor: tensor.device)
    return request.param


def data(n, p, v, seed=0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, p)) + 5
    return X, X @ random.normal(size=(p, v)) + random.normal(size=(n, v)) - 3


def assert_solves(solution, right, tolerance):
    scale = max(np.abs(right[0]).max(), np.abs(right[1]).max(), 1e-12)
    for found, wanted in zip(solution, right, strict=True):
        assert np.abs(np.asarray(found) - wanted).max() <= tolerance * scale


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_target", [False, True])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_equals_least_squares_with_the_penalty_as_rows(shape, per_target, fit_intercept, as_on_a_gpu):
    X, Y = data(*shape)
    random = np.random.default_rng(1)
    alpha = random.random(shape[2]) + 0.1 if per_target else 0.7
    weight = random.random(shape[0]) + 0.1
    right = ridge_reference(X, Y, alpha, weight, fit_intercept)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 3e-6)):
        x, y = torch.tensor(X, dtype=dtype), torch.tensor(Y, dtype=dtype)
        found = solve_ridge(x, y, alpha, sample_weight=weight, fit_intercept=fit_intercept)
        assert found.weights.dtype == found.intercept.dtype == dtype
        assert_solves(found, right, tolerance)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.floats(1e-3, 1e6), st.integers(0, 99))
def test_normal_equations_hold(n, p, v, alpha, seed):
    X, Y = data(n, p, v, seed)
    weights, intercept = solve_ridge(X, Y, alpha)
    residual = Y - X @ weights - intercept
    np.testing.assert_allclose(X.T @ residual, alpha * weights, atol=1e-8 * np.abs(X.T @ Y).max())
    np.testing.assert_allclose(residual.sum(0), 0, atol=1e-9 * np.abs(Y).sum())


def test_many_targets_by_float32_products_stay_right(monkeypatch, as_on_a_gpu):
    monkeypatch.setattr(_ridge_direct, "_LARGE", 0)
    monkeypatch.setattr(_ridge_direct, "_CHUNK_BYTES", 1 << 14)  # several chunks of targets
    for n, p in ((200, 20), (20, 60)):
        X, Y = data(n, p, 90)
        alpha = np.geomspace(1, 100, 90)
        for penalty in (alpha, 3.0):
            found = solve_ridge(torch.tensor(X).float(), torch.tensor(Y).float(), penalty)
            assert_solves(found, ridge_reference(X, Y, penalty), 2e-5)


def test_large_means_lose_no_digits():
    X, Y = data(400, 30, 3)
    right = ridge_reference(X, Y, 1e-2)
    moved = (X + 1000).astype(np.float32)
    right_moved = ridge_reference(moved, Y, 1e-2)
    assert np.abs(right_moved[0] - right[0]).max() < 1e-3  # rounding of the input
    found = solve_ridge(moved, Y.astype(np.float32), 1e-2)
    np.testing.assert_allclose(found.weights, right_moved[0], atol=1e-6)


def test_a_weight_of_two_counts_a_sample_twice():
    X, Y = data(8, 3, 2)
    weight = np.array([2, 1, 1, 0, 1, 3, 1, 1])
    repeated = np.repeat(np.arange(8), weight)
    once = solve_ridge(X, Y, 0.5, sample_weight=weight)
    for found, wanted in zip(once, solve_ridge(X[repeated], Y[repeated], 0.5), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10)


@pytest.mark.parametrize(
    ("given_type", "result_type"),
    [
        (np.float16, np.float32),
        (np.int8, np.float32),
        (np.bool_, np.float32),
        (np.float32, np.float32),
        (np.int64, np.float64),
        (">f8", np.float64),
    ],
)
def test_types_without_loss_and_their_result(given_type, result_type):
    X, Y = data(20, 4, 2)
    x = np.round(X).astype(given_type)
    found = solve_ridge(x, Y.astype(np.float32), 0.3)
    assert isinstance(found.weights, np.ndarray)
    assert found.weights.dtype == result_type
    assert_solves(found, ridge_reference(x.astype(float), Y.astype(np.float32), 0.3), 1e-6)


def test_bfloat16_is_widened():
    X, Y = data(20, 4, 2)
    x, y = torch.tensor(X).bfloat16(), torch.tensor(Y).bfloat16()
    found = solve_ridge(x, y, 0.3)
    assert found.weights.dtype == torch.float32
    assert_solves(found, ridge_reference(x.double(), y.double(), 0.3), 1e-6)


def test_strided_and_read_only_input_without_a_warning():
    X, Y = data(20, 6, 4)
    right = solve_ridge(X[::2, ::-1].copy(), Y[::2].copy(), 1.0)
    Y.setflags(write=False)
    X.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = solve_ridge(X[::2, ::-1], np.asfortranarray(Y[::2]), 1.0)
    np.testing.assert_allclose(found.weights, right.weights, rtol=1e-12)
    transposed = solve_ridge(torch.tensor(X).T[:4].T, torch.tensor(Y), 1.0)
    np.testing.assert_allclose(transposed.weights, solve_ridge(X[:, :4], Y, 1.0).weights, rtol=1e-12)


def test_one_target_has_no_axis_of_targets():
    X, Y = data(20, 4, 1)
    weights, intercept = solve_ridge(X, Y[:, 0], 2.0)
    assert weights.shape == (4,)
    assert np.ndim(intercept) == 0
    np.testing.assert_allclose(weights, solve_ridge(X, Y, 2.0).weights[:, 0])


def test_singular_and_constant_features_have_the_smallest_weights():
    X, Y = data(20, 3, 2)
    doubled = np.column_stack([X, X[:, 0], np.full(20, 7.0)])
    weights, intercept = solve_ridge(doubled, Y, 1e-6)
    np.testing.assert_allclose(weights[0], weights[3], rtol=1e-6)
    np.testing.assert_allclose(weights[4], 0, atol=1e-9)
    plain = solve_ridge(X, Y, 1e-6)
    np.testing.assert_allclose(doubled @ weights + intercept, X @ plain.weights + plain.intercept, atol=1e-5)


def test_constant_targets_get_no_weights():
    X, _ = data(20, 3, 1)
    weights, intercept = solve_ridge(X, np.full((20, 2), 4.0), 1.0)
    np.testing.assert_allclose(weights, 0, atol=1e-12)
    np.testing.assert_allclose(intercept, 4)


def test_no_targets_give_empty_weights():
    X, _ = data(6, 3, 1)
    weights, intercept = solve_ridge(X, np.empty((6, 0)), 1.0)
    assert weights.shape == (3, 0)
    assert intercept.shape == (0,)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
@pytest.mark.parametrize("alpha", [0.5, [0.5, 0.7, 0.9]])
def test_gradients_are_those_of_finite_differences(shape, alpha, as_on_a_gpu):
    random = torch.Generator().manual_seed(0)
    X = torch.randn(*shape, dtype=torch.float64, generator=random, requires_grad=True)
    Y = torch.randn(shape[0], 3, dtype=torch.float64, generator=random, requires_grad=True)
    penalty = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(shape[0], dtype=torch.float64, generator=random).requires_grad_()

    def solve(X, Y, penalty, weight):
        return tuple(solve_ridge(X, Y, penalty, sample_weight=weight))

    assert torch.autograd.gradcheck(solve, (X, Y, penalty, weight))


@pytest.mark.parametrize("shape", [(9, 4), (4, 9)])
@pytest.mark.parametrize("alpha", [[0.5], [0.5, 0.7, 0.9]])
def test_the_op_keeps_torchs_rules(shape, alpha):
    X = torch.randn(*shape, requires_grad=True)
    Y = torch.randn(shape[0], 3, requires_grad=True)
    alpha = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.neurokern.ridge_weights, (X, Y, alpha))


def test_gradient_call_and_plain_call_agree():
    X, Y = (torch.tensor(values) for values in data(30, 5, 3))
    plain = solve_ridge(X, Y, 0.4)
    recorded = solve_ridge(X.requires_grad_(), Y, 0.4)
    assert recorded.weights.requires_grad
    for found, wanted in zip(recorded, plain, strict=True):
        torch.testing.assert_close(found.detach(), wanted)
    with torch.no_grad():
        assert not solve_ridge(X, Y, 0.4).weights.requires_grad


def test_second_derivatives_raise():
    X = torch.randn(6, 3, requires_grad=True)
    weights = solve_ridge(X, torch.randn(6, 2), 1.0).weights
    (gradient,) = torch.autograd.grad(weights.sum(), X, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient"):
        gradient.sum().backward()


def test_the_users_matmul_precision_is_neither_used_nor_changed():
    X, Y = (values.astype(np.float32) for values in data(4000, 80, 100))
    right = solve_ridge(X, Y, 1.0).weights
    torch.set_float32_matmul_precision("medium")
    try:
        np.testing.assert_array_equal(solve_ridge(X, Y, 1.0).weights, right)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("route", ["numpy", "torch", "onednn"])
def test_every_library_gives_the_same_product(route, monkeypatch):
    if route == "onednn" and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setenv("NEUROKERN_BLAS", route)
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((300, 300), np.float32) for _ in range(2))
    algebra = _ridge_blas.NumpyAlgebra()
    for left, right in ((a, b), (a.T, b[:, ::2]), (a[50:], b.T)):
        np.testing.assert_allclose(algebra.mm(left, right), left.astype(float) @ right, atol=1e-4)


def test_an_unknown_library_is_refused(monkeypatch):
    monkeypatch.setenv("NEUROKERN_BLAS", "mkl")
    a = np.zeros((300, 300), np.float32)
    with pytest.raises(ValueError, match=r"NEUROKERN_BLAS must be one of numpy, torch, onednn, got 'mkl'"):
        _ridge_blas.NumpyAlgebra().mm(a, a)


def test_the_measured_library_is_one_of_the_three():
    assert _ridge_blas.fastest_route(1) in _ridge_blas.ROUTES


X0, Y0 = np.ones((4, 2)), np.ones((4, 3))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X0[:, :0], Y0, 1.0), ValueError, r"X must have shape .* at least one feature, got \(4, 0\)"),
        ((X0[:0], Y0[:0], 1.0), ValueError, r"X must have at least one sample"),
        ((X0[0], Y0, 1.0), ValueError, r"X must have shape"),
        ((X0, Y0[:3], 1.0), ValueError, r"one row per row of X, got \(3, 3\)"),
        ((X0, Y0[None], 1.0), ValueError, r"Y must have shape"),
        ((X0 + 1j, Y0, 1.0), TypeError, r"X must hold real numbers"),
        ((X0, np.full((4, 3), "a"), 1.0), TypeError, r"Y must hold real numbers"),
        ((X0, Y0, 0.0), ValueError, r"alpha must be finite and above 0, got 0"),
        ((X0, Y0, -1.0), ValueError, r"above 0, got -1"),
        ((X0, Y0, np.nan), ValueError, r"above 0, got nan"),
        ((X0, Y0, [1.0, 2.0]), ValueError, r"alpha must be one number or have shape \(3,\)"),
        ((X0, Y0, "strong"), TypeError, r"alpha must be a number"),
        ((X0, torch.ones(4, 3), 1.0), ValueError, r"must both be numpy arrays, or tensors on one device"),
        ((torch.ones(4, 2), torch.ones(4, 3, device="meta"), 1.0), ValueError, r"tensors on one device"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        solve_ridge(*arguments)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(3), r"shape \(4,\), one per sample, got \(3,\)"),
        (np.array([1, 1, 1, -1]), "not negative"),
        (np.zeros(4), "not all 0"),
        (np.array([1, 1, np.nan, 1]), "finite"),
    ],
)
def test_wrong_weights_are_named(weight, message):
    with pytest.raises(ValueError, match=message):
        solve_ridge(X0, Y0, 1.0, sample_weight=weight)


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_rows_with_nan_are_counted(kind):
    X, Y = data(10, 3, 2)
    Y[[2, 7]] = np.nan
    Y[4, 1] = np.inf
    with pytest.raises(ValueError, match="Y must be finite, got NaN or infinity in 3 of 10 rows"):
        solve_ridge(kind(X), kind(Y), 1.0)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("name", ["X", "Y"])
def test_numbers_that_cannot_be_squared_are_named(kind, name):
    given = {"X": np.eye(4)[:, :2], "Y": np.eye(4)}
    given[name] = given[name] * 1e200
    given = {key: kind(values) for key, values in given.items()}
    with pytest.raises(ValueError, match=rf"{name} must be below 1e\+150 in size.*got 1e\+200; give it in"):
        solve_ridge(**given, alpha=1.0)
    given["Y"][0, 0] = np.nan
    with pytest.raises(ValueError, match=rf"{name} must be below 1e\+150 in size"):
        solve_ridge(**given, alpha=1.0, nan_policy="mask")


def test_sums_that_overflow_are_not_taken_for_nan():
    X, Y = data(4000, 3, 2)
    found = solve_ridge((X * 1e35).astype(np.float32), Y, 1.0)
    np.testing.assert_allclose(found.weights * 1e35, solve_ridge(X, Y, 1e-70).weights, rtol=1e-5)
