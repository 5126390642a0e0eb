"""solve_ridge_batched: equal to refits without each sample, on every device and type; its gradients."""

import sys

import numpy as np
import pytest
from cuda_emulation.emulated import emulated_gpu
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")
import torch

from neurokern import ridge_cv, solve_ridge_batched
from neurokern.ops import _library
from neurokern.ops._ridge_reference import ridge_reference

pytestmark = pytest.mark.usefixtures("device")

# samples, features, targets: dual and primal, one vector of lanes and several, blocks of targets with rests
SHAPES = [(5, 40, 4), (2, 3, 1), (9, 9, 2), (12, 3, 5), (17, 20, 6), (3, 1, 3)]
ALPHAS = np.geomspace(1e-2, 1e3, 11)


def data(n, p, q, problems=2, dtype=np.float64, seed=0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(problems, n, p)) + 2
    Y = X[:, :, : max(p // 2, 1)].sum(2, keepdims=True) + random.normal(size=(problems, n, q)) - 3
    return X.astype(dtype), Y.astype(dtype)


def refit_errors(X, Y, alpha, fit_intercept):
    """Sum of squares over samples of what a fit without the sample predicts for it."""
    total = np.zeros(Y.shape[1])
    for i in range(len(X)):
        kept = np.arange(len(X)) != i
        weights, intercept = ridge_reference(X[kept], Y[kept], alpha, fit_intercept=fit_intercept)
        total += (Y[i] - X[i] @ weights - intercept) ** 2
    return total


def assert_right(solution, X, Y, fit_intercept, shared, tolerance):
    X, Y = np.asarray(X, np.float64), np.asarray(Y, np.float64)
    for b in range(len(X)):
        errors = np.array([refit_errors(X[b], Y[b], alpha, fit_intercept) for alpha in ALPHAS])
        spread = ((Y[b] - fit_intercept * Y[b].mean(0)) ** 2).sum(0)
        scores = 1 - errors / spread
        found = np.asarray(solution.scores[b])
        assert np.abs(found - scores).max() <= 1e-9 * np.abs(1 - scores).max()
        judged = errors.sum(1)[:, None].repeat(Y.shape[2], 1) if shared else errors
        chosen = np.searchsorted(ALPHAS, np.asarray(solution.alphas[b]))
        best = judged.min(0)
        assert (judged[chosen, np.arange(Y.shape[2])] <= best * (1 + 1e-9)).all()
        weights, intercept = ridge_reference(X[b], Y[b], ALPHAS[chosen], fit_intercept=fit_intercept)
        scale = max(np.abs(weights).max(), np.abs(intercept).max())
        assert np.abs(np.asarray(solution.weights[b]) - weights).max() <= tolerance * scale
        assert np.abs(np.asarray(solution.intercept[b]) - intercept).max() <= 10 * tolerance * scale


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("backend", [None, "reference"])
def test_equals_refits_without_each_sample(shape, fit_intercept, backend):
    X, Y = data(*shape)
    solution = solve_ridge_batched(X, Y, ALPHAS, fit_intercept=fit_intercept, backend=backend)
    assert_right(solution, X, Y, fit_intercept, False, 1e-10)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("shared", [True, False])
def test_float32_is_solved_in_float64_and_rounded_once(kind, shared, device):
    X, Y = data(6, 30, 3, dtype=np.float32)
    arrays = (X, Y) if kind == "numpy" else (torch.tensor(X, device=device), torch.tensor(Y, device=device))
    solution = solve_ridge_batched(*arrays, ALPHAS, shared_alpha=shared)
    assert str(solution.weights.dtype).endswith("float32")
    assert str(solution.scores.dtype).endswith("float64")
    if kind == "torch":
        assert solution.weights.device.type == device
        values = (solution.weights, solution.intercept, solution.alphas, solution.scores)
        solution = type(solution)(*(value.cpu() for value in values))
    assert_right(solution, X, Y, True, shared, 1e-7)
    if shared:
        assert (np.ptp(np.asarray(solution.alphas), axis=1) == 0).all()


@pytest.mark.cpu_only
def test_features_in_several_chunks_and_large_sides():
    for n, p in ((7, 523), (100, 130), (128, 128), (128, 5), (150, 139)):
        X, Y = data(n, p, 2, problems=1)
        found = solve_ridge_batched(X, Y, [30.0, 3.0])
        wanted = solve_ridge_batched(X, Y, [3.0, 30.0], backend="reference")
        for a, b in zip(
            (found.weights, found.intercept, found.scores),
            (wanted.weights, wanted.intercept, wanted.scores),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.cpu_only
@given(st.integers(2, 10), st.integers(0, 12), st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_normal_equations_hold_and_predictions_follow(n, p, q, fit_intercept, seed):
    X, Y = data(n, p, q, seed=seed) if p else (np.zeros((2, n, 0)), data(n, 1, q, seed=seed)[1])
    solution = solve_ridge_batched(X, Y, [0.1, 10.0], fit_intercept=fit_intercept)
    residual = Y - solution.predict(X)
    scale = 1 + np.abs(X).max(initial=0) * np.abs(Y).max() * n
    np.testing.assert_allclose(
        X.swapaxes(1, 2) @ residual, solution.alphas[:, None] * solution.weights, atol=1e-10 * scale
    )
    if fit_intercept:
        np.testing.assert_allclose(residual.sum(1), 0, atol=1e-11 * scale)


def everything(X, Y):
    """Return all that a solution holds, and the gradients of a function of it."""
    x, y = torch.tensor(X, requires_grad=True), torch.tensor(Y, requires_grad=True)
    solution = solve_ridge_batched(x, y, ALPHAS[::2])
    by = torch.linspace(-1, 2, solution.weights.numel()).view(solution.weights.shape)
    loss = (solution.weights * by).sum() + solution.intercept.square().sum()
    values = (solution.weights, solution.intercept, solution.scores)
    return [*values, *torch.autograd.grad(loss, (x, y))]


@pytest.mark.cpu_only
@pytest.mark.parametrize("shape", [(5, 40, 4), (12, 3, 5), (34, 50, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_same_bits_on_a_gpu_and_for_any_number_of_threads(shape, dtype, monkeypatch):
    X, Y = data(*shape, problems=3, dtype=dtype)
    right = everything(X, Y)
    with emulated_gpu():
        emulated = everything(X, Y)
    many = (np.tile(values, (200, 1, 1)) for values in (X, Y))
    monkeypatch.setattr(_library, "thread_count", lambda: 2)
    two_threads = [values[300:303] for values in everything(*many)[:3]]
    for other in (emulated, two_threads):
        assert all(torch.equal(a, b) for a, b in zip(right, other, strict=False))


# ---- accuracy where it is hard


@pytest.mark.parametrize("n", [5, 16])
def test_leave_one_out_survives_tiny_alphas(n):
    """Without the lift, two numbers of size 1 / alpha would cancel."""
    X, Y = data(n, 30, 2)
    for alpha in (1e-10, 1e-5):
        wanted = np.array([refit_errors(X[b], Y[b], alpha, True) for b in range(2)])
        found = solve_ridge_batched(X, Y, [alpha, 1e4]).scores[:, 0]
        spread = ((Y - Y.mean(1, keepdims=True)) ** 2).sum(1)
        np.testing.assert_allclose((1 - found) * spread, wanted, rtol=1e-7)


@pytest.mark.cpu_only
def test_large_means_and_dependent_features_do_no_harm():
    X, Y = data(12, 6, 1)
    X[:, :, 1] = X[:, :, 0]
    X += 1e4
    solution = solve_ridge_batched(X, Y, 1.0)
    for b in range(2):
        weights, intercept = ridge_reference(X[b], Y[b], 1.0)
        np.testing.assert_allclose(solution.weights[b], weights, atol=1e-7)
        np.testing.assert_allclose(solution.intercept[b], intercept, rtol=1e-7)


# ---- ragged problems


@pytest.mark.parametrize("backend", [None, "reference"])
def test_what_lies_behind_the_samples_of_a_problem_is_not_read(backend):
    X, Y = data(9, 5, 3, problems=3)
    counts = np.array([4, 9, 2])
    padded_x, padded_y = X.copy(), Y.copy()
    for b, n in enumerate(counts):
        padded_x[b, n:], padded_y[b, n:] = np.nan, np.inf
    solution = solve_ridge_batched(padded_x, padded_y, ALPHAS, n_samples=counts, backend=backend)
    for b, n in enumerate(counts):
        alone = solve_ridge_batched(X[b : b + 1, :n], Y[b : b + 1, :n], ALPHAS)
        np.testing.assert_allclose(solution.weights[b], alone.weights[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(solution.scores[b], alone.scores[0], rtol=1e-9, atol=1e-12)


# ---- corner cases


def test_empty_axes():
    X, Y = data(4, 3, 2)
    assert solve_ridge_batched(X[:0], Y[:0], ALPHAS).weights.shape == (0, 3, 2)
    assert solve_ridge_batched(X, Y[:, :, :0], ALPHAS).weights.shape == (2, 3, 0)
    without_features = solve_ridge_batched(X[:, :, :0], Y, ALPHAS)
    assert without_features.weights.shape == (2, 0, 2)
    np.testing.assert_allclose(without_features.intercept, Y.mean(1))


def test_one_target_without_its_axis():
    X, Y = data(5, 3, 1)
    flat, whole = solve_ridge_batched(X, Y[:, :, 0], ALPHAS), solve_ridge_batched(X, Y, ALPHAS)
    np.testing.assert_array_equal(flat.weights, whole.weights[:, :, 0])
    np.testing.assert_array_equal(flat.scores, whole.scores[:, :, 0])
    np.testing.assert_allclose(flat.predict(X), whole.predict(X)[:, :, 0])


@pytest.mark.parametrize("backend", [None, "reference"])
def test_one_sample_and_one_alpha(backend):
    X, Y = data(1, 3, 2)
    solution = solve_ridge_batched(X, Y, 2.0, backend=backend)
    assert solution.scores is None
    np.testing.assert_array_equal(solution.weights, 0)
    np.testing.assert_allclose(solution.intercept, Y[:, 0])
    assert (solution.alphas == 2).all()


@pytest.mark.parametrize("backend", [None, "reference"])
def test_constant_targets_score_nan_and_get_their_value(backend):
    X, Y = data(7, 3, 2)
    Y[:, :, 1] = 0.1
    solution = solve_ridge_batched(X, Y, ALPHAS, backend=backend)
    assert np.isnan(solution.scores[:, :, 1]).all()
    assert np.isfinite(solution.scores[:, :, 0]).all()
    np.testing.assert_array_equal(solution.weights[:, :, 1], 0)
    np.testing.assert_allclose(solution.intercept[:, 1], 0.1)
    assert (solution.alphas[:, 1] == ALPHAS[-1]).all()


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("shared_alpha", [False, True])
def test_of_equal_errors_the_largest_alpha_is_taken_as_by_ridge_cv(backend, shared_alpha):
    X, Y = data(2, 3, 2)  # leaving out one of two samples, the other's value is the guess for any alpha
    solution = solve_ridge_batched(X, Y, ALPHAS[::-1], shared_alpha=shared_alpha, backend=backend)
    assert (solution.alphas == max(ALPHAS)).all()
    for x, y in zip(X, Y, strict=True):
        assert (ridge_cv(x, y, ALPHAS, "leave-one-out").alphas == max(ALPHAS)).all()


def test_the_same_sample_over_and_over():
    X, Y = data(5, 3, 2)
    X[:] = X[:, :1]
    solution = solve_ridge_batched(X, Y, ALPHAS)
    np.testing.assert_allclose(solution.weights, 0, atol=1e-9)
    assert np.isfinite(solution.scores).all()


def test_views_and_other_types():
    X, Y = data(6, 4, 2)
    wanted = solve_ridge_batched(np.ascontiguousarray(X[:, ::2, ::-1]), Y[:, ::2].copy(), [1.0, 5.0])
    found = solve_ridge_batched(X[:, ::2, ::-1], Y[:, ::2], [5.0, 1.0, 5.0])
    np.testing.assert_array_equal(found.weights, wanted.weights)
    half = solve_ridge_batched(torch.tensor(X).bfloat16(), torch.ones(2, 6, dtype=torch.int8), 1.0)
    assert half.weights.dtype == torch.float32
    assert solve_ridge_batched(X.astype(np.int32), Y > 0, 1.0).weights.dtype == np.float64


# ---- errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": np.zeros((2, 5))}, "X must have shape"),
        ({"X": np.zeros((2, 0, 3))}, "at least one sample"),
        ({"Y": np.zeros((2, 4, 1))}, r"Y must have shape \(2, 5, targets\)"),
        ({"Y": torch.zeros(2, 5, 1)}, "must both be numpy arrays"),
        ({"alphas": []}, "at least one"),
        ({"alphas": [1.0, 0.0]}, "above 0"),
        ({"alphas": [1.0, np.nan]}, "above 0"),
        ({"n_samples": [5, 6]}, r"n_samples must lie in \[2, 5\], got 6"),
        ({"n_samples": [5, 1]}, "nothing to choose an alpha by"),
        ({"n_samples": [5.0, 5.0]}, "one integer per problem"),
        ({"n_samples": [5]}, "one integer per problem"),
        ({"backend": "triton"}, "(?i)triton"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    X, Y = data(5, 3, 1)
    arguments = {"X": X, "Y": Y, "alphas": ALPHAS} | changes
    with pytest.raises((ValueError, TypeError, RuntimeError), match=message):
        solve_ridge_batched(**arguments)


def test_one_sample_leaves_nothing_to_choose_by():
    X, Y = data(1, 3, 1)
    with pytest.raises(ValueError, match="at least 2 samples of each problem, got 1"):
        solve_ridge_batched(X, Y, ALPHAS)


@pytest.mark.cpu_only
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e200])
def test_problems_with_numbers_that_are_not_finite_are_counted(backend, value):
    X, Y = data(5, 3, 2, problems=4)
    X[1, 2, 0] = Y[1, 1, 1] = Y[3, 0, 0] = value
    with pytest.raises(ValueError, match="in 2 of 4 problems"):
        solve_ridge_batched(X, Y, ALPHAS, backend=backend)


def test_on_a_gpu_only_the_bad_problem_is_nan(request):
    if "emulated" not in request.node.name:
        pytest.skip("the host reports them")
    X, Y = data(5, 3, 2, problems=3)
    wanted = solve_ridge_batched(X, Y, ALPHAS)
    X[1, 2, 0] = np.nan
    solution = solve_ridge_batched(X, Y, ALPHAS)
    assert np.isnan(solution.weights[1]).all()
    assert np.isnan(solution.scores[1]).all()
    np.testing.assert_array_equal(solution.weights[[0, 2]], wanted.weights[[0, 2]])


@pytest.mark.cpu_only
def test_sides_beyond_the_kernel_are_refused():
    X, Y = data(514, 513, 1, problems=1)
    with pytest.raises(ValueError, match="at most 512 samples or 512 features"):
        solve_ridge_batched(X, Y, 1.0, backend="native")


# ---- torch


@pytest.mark.cpu_only
@pytest.mark.parametrize("shape", [(5, 8, 2), (6, 3, 2), (3, 300, 1)])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("backend", [None, "reference"])
def test_gradients_are_those_of_differences(shape, fit_intercept, backend):
    X, Y = (torch.tensor(values, requires_grad=True) for values in data(*shape))
    alphas = torch.tensor([4.0, 0.5], dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([shape[0], shape[0] - 1])

    def solve(X, Y, alphas):
        solution = solve_ridge_batched(
            X, Y, alphas, n_samples=counts, fit_intercept=fit_intercept, backend=backend
        )
        return solution.weights, solution.intercept

    assert torch.autograd.gradcheck(solve, (X, Y, alphas), fast_mode=shape[1] > 100)


def test_gradients_equal_those_through_torch():
    for shape in [(5, 8, 3), (7, 3, 2)]:
        X, Y = (torch.tensor(values, requires_grad=True) for values in data(*shape))
        solution = solve_ridge_batched(X, Y, [0.5, 3.0])
        alpha = solution.alphas.detach()
        x, y = X - X.mean(1, keepdim=True), Y - Y.mean(1, keepdim=True)
        eye = torch.eye(shape[1], dtype=torch.float64)
        systems = (x.mT @ x)[:, None] + alpha[:, :, None, None] * eye
        weights = torch.linalg.solve(systems, (x.mT @ y).mT[..., None])[..., 0].mT
        intercept = (Y.mean(1, keepdim=True) - X.mean(1, keepdim=True) @ weights)[:, 0]
        direction = torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)).double()
        by_us = (solution.weights * direction).sum() + solution.intercept.square().sum()
        by_torch = (weights * direction).sum() + intercept.square().sum()
        for a, b in zip(
            torch.autograd.grad(by_us, (X, Y)), torch.autograd.grad(by_torch, (X, Y)), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.cpu_only
def test_a_second_derivative_raises():
    X, Y = (torch.tensor(values, requires_grad=True) for values in data(4, 3, 1))
    loss = solve_ridge_batched(X, Y, 1.0).weights.square().sum()
    (gradient,) = torch.autograd.grad(loss, X, create_graph=True)
    with pytest.raises(RuntimeError, match="has no gradient"):
        gradient.sum().backward()


@pytest.mark.cpu_only
@pytest.mark.parametrize("n_alphas", [1, 3])
def test_registered_op_passes_opcheck(n_alphas):
    X, Y = (torch.tensor(values).float().requires_grad_() for values in data(5, 4, 2))
    alphas = torch.logspace(-1, 1, n_alphas, dtype=torch.float64)
    for counts in (None, torch.tensor([3, 5])):
        torch.library.opcheck(
            torch.ops.neurokern.solve_ridge_batched, (X, Y, alphas, counts, True, False, None)
        )


@pytest.mark.cpu_only
@pytest.mark.skipif(sys.platform != "linux", reason="compiles with g++")
def test_compiles_into_one_graph():
    X, Y = (torch.tensor(values).float() for values in data(5, 4, 2))
    compiled = torch.compile(
        lambda X, Y: solve_ridge_batched(X, Y, [1.0, 10.0]).weights * 2, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(X, Y), 2 * solve_ridge_batched(X, Y, [1.0, 10.0]).weights)
