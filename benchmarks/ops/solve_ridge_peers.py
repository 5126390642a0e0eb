"""What bench_solve_ridge.py compares with, and the data that all get."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


def make_data(n: int, p: int, v: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """X (n, p) with a spectrum that falls as 1 / index, and Y (n, v) of which X explains about a third."""
    random = np.random.default_rng(seed)
    X = random.standard_normal((n, p), np.float32) * np.sqrt(1 / np.arange(1, p + 1, dtype=np.float32))
    mixing = np.linalg.qr(random.standard_normal((min(p, 256), min(p, 256))))[0].astype(np.float32)
    X[:, : len(mixing)] = X[:, : len(mixing)] @ mixing
    weights = random.standard_normal((p, v), np.float32)
    signal = X @ weights
    noise = random.standard_normal((n, v), np.float32) * (2**0.5 * signal.std(0))
    return X + 0.5, signal + noise + 1


# ---- cross-validation: each returns the weights and the penalty of every target


@dataclass(frozen=True)
class Search:
    """A cross-validated ridge: penalty by target from R2, mean over contiguous folds, with an intercept."""

    X: np.ndarray
    Y: np.ndarray
    alphas: np.ndarray
    n_folds: int

    def splits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        edges = np.linspace(0, len(self.X), self.n_folds + 1).round().astype(int)
        every = np.arange(len(self.X))
        return [
            (np.r_[0:first, last : len(every)], every[first:last])
            for first, last in itertools.pairwise(edges)
        ]


Result = tuple[Any, Any]


def himalaya_ridge(search: Search, backend: str) -> Callable[[], Result]:
    """RidgeCV, or KernelRidgeCV for more features than samples, with its own defaults."""
    from himalaya import backend as backends
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.ridge import RidgeCV

    primal = search.X.shape[1] <= search.X.shape[0]
    splits = search.splits()

    def run() -> Result:
        library = backends.set_backend(backend)
        X, Y = library.asarray(search.X), library.asarray(search.Y)
        if primal:
            model = RidgeCV(alphas=search.alphas, cv=splits, fit_intercept=True).fit(X, Y)
            return library.to_numpy(model.coef_), library.to_numpy(model.best_alphas_)
        model = KernelRidgeCV(alphas=search.alphas, cv=splits, fit_intercept=True).fit(X, Y)
        return library.to_numpy(model.get_primal_coef()), library.to_numpy(model.best_alphas_)

    return run


def himalaya_bands(
    search: Search, bands: np.ndarray, band_weights: np.ndarray, backend: str
) -> Callable[[], Result]:
    """GroupRidgeCV on the given candidates of band weights, scored by R2."""
    from himalaya import backend as backends
    from himalaya.ridge import GroupRidgeCV
    from himalaya.scoring import r2_score

    def run() -> Result:
        library = backends.set_backend(backend)
        X, Y = library.asarray(search.X), library.asarray(search.Y)
        params = {"n_iter": band_weights, "alphas": search.alphas, "score_func": r2_score, "warn": False}
        params["progress_bar"] = False
        model = GroupRidgeCV(groups=bands, cv=search.splits(), fit_intercept=True, solver_params=params)
        model.fit(X, Y)
        return library.to_numpy(model.coef_), library.to_numpy(model.cv_scores_).max(0)

    return run


def himalaya_gradient(search: Search, bands: np.ndarray, backend: str) -> Callable[[], Result]:
    """MultipleKernelRidgeCV by its hyper-gradient: weights are those of kernels over the penalty."""
    from himalaya import backend as backends
    from himalaya.kernel_ridge import MultipleKernelRidgeCV

    def run() -> Result:
        library = backends.set_backend(backend)
        X, Y = search.X - search.X.mean(0), search.Y - search.Y.mean(0)
        kernels = np.stack([X[:, bands == band] @ X[:, bands == band].T for band in np.unique(bands)])
        params = {"initial_deltas": "ridgecv", "progress_bar": False}
        model = MultipleKernelRidgeCV(
            kernels="precomputed", solver="hyper_gradient", solver_params=params, cv=search.splits()
        )
        model.fit(library.asarray(kernels), library.asarray(Y))
        return library.to_numpy(model.dual_coef_), np.exp(-library.to_numpy(model.deltas_))

    return run


def sklearn_loo(search: Search) -> Callable[[], Result]:
    """RidgeCV with one penalty by target, which it has for leave-one-out alone."""
    from sklearn.linear_model import RidgeCV

    def run() -> Result:
        model = RidgeCV(alphas=search.alphas, alpha_per_target=True).fit(search.X, search.Y)
        return model.coef_.T, model.alpha_

    return run


def torch_solves(search: Search) -> Callable[[], Result]:
    """``torch.linalg.solve`` for every penalty of every fold, and for the penalties that were chosen."""
    X, Y = torch.from_numpy(search.X), torch.from_numpy(search.Y)

    def scores(train: Any, test: Any) -> Any:
        x_mean, y_mean = X[train].mean(0), Y[train].mean(0)
        A, B, a, b = X[train] - x_mean, Y[train] - y_mean, X[test] - x_mean, Y[test] - y_mean
        spread = (Y[test] - Y[test].mean(0)).square().sum(0)
        errors = [(b - a @ torch_solve(A, B, float(alpha))).square().sum(0) for alpha in search.alphas]
        return 1 - torch.stack(errors) / spread

    def run() -> Result:
        best = sum(scores(*split) for split in search.splits()).argmax(0)
        centered, targets = X - X.mean(0), Y - Y.mean(0)
        weights = torch.empty(X.shape[1], Y.shape[1])
        for index in best.unique():
            chosen = best == index
            weights[:, chosen] = torch_solve(centered, targets[:, chosen], float(search.alphas[index]))
        return weights.numpy(), search.alphas[best.numpy()]

    return run


def lab_script(search: Search) -> Callable[[], Result]:
    """The SVD of each training set and ``U'Y`` once, predictions and R2 for each penalty, in numpy."""
    X, Y = search.X, search.Y

    def run() -> Result:
        total = np.zeros((len(search.alphas), Y.shape[1]), np.float32)
        for train, test in search.splits():
            x_mean, y_mean = X[train].mean(0), Y[train].mean(0)
            U, s, Vt = np.linalg.svd(X[train] - x_mean, full_matrices=False)
            rotated, rows = U.T @ (Y[train] - y_mean), (X[test] - x_mean) @ Vt.T
            truth = Y[test] - y_mean
            spread = ((Y[test] - Y[test].mean(0)) ** 2).sum(0)
            for index, alpha in enumerate(search.alphas.astype(np.float32)):
                guess = (rows * (s / (s**2 + alpha))) @ rotated
                total[index] += 1 - ((truth - guess) ** 2).sum(0) / spread
        best = total.argmax(0)
        U, s, Vt = np.linalg.svd(X - X.mean(0), full_matrices=False)
        rotated = U.T @ (Y - Y.mean(0))
        weights = np.empty((X.shape[1], Y.shape[1]), np.float32)
        for index in np.unique(best):
            shrink = s / (s**2 + np.float32(search.alphas[index]))
            weights[:, best == index] = Vt.T @ (shrink[:, None] * rotated[:, best == index])
        return weights, search.alphas[best]

    return run


def best_scores(search: Search, n_targets: int, *, leave_one_out: bool = False) -> np.ndarray:
    """Scores (alphas, some targets) in float64, each fold solved by Cholesky in its smaller form.

    Leave-one-out is scored by its squared errors, negated.
    """
    X, Y = search.X.astype(np.float64), search.Y[:, :n_targets].astype(np.float64)
    if leave_one_out:
        A, B = X - X.mean(0), Y - Y.mean(0)
        U, s, _ = np.linalg.svd(A, full_matrices=False)
        found = []
        for alpha in search.alphas:
            shrink = s**2 / (s**2 + alpha)
            leverage = (U**2) @ shrink + 1 / len(X)
            found.append(-(((B - (U * shrink) @ (U.T @ B)) / (1 - leverage)[:, None]) ** 2).sum(0))
        return np.array(found)
    scores = np.zeros((len(search.alphas), n_targets))
    for train, test in search.splits():
        x_mean, y_mean = X[train].mean(0), Y[train].mean(0)
        A, B = X[train] - x_mean, Y[train] - y_mean
        dual = A.shape[0] < A.shape[1]
        gram = A @ A.T if dual else A.T @ A
        rows = (X[test] - x_mean) @ A.T if dual else X[test] - x_mean
        right = B if dual else A.T @ B
        spread = ((Y[test] - Y[test].mean(0)) ** 2).sum(0)
        for index, alpha in enumerate(search.alphas):
            guess = rows @ np.linalg.solve(gram + alpha * np.eye(len(gram)), right)
            scores[index] += 1 - ((Y[test] - y_mean - guess) ** 2).sum(0) / spread
    return scores / search.n_folds


# ---- a solution that torch differentiates


def torch_solve(X: Any, Y: Any, alpha: float) -> Any:
    """The solution in the form that fits the shape, by ``torch.linalg.solve``."""
    if X.shape[0] < X.shape[1]:
        return X.T @ torch.linalg.solve(X @ X.T + alpha * torch.eye(len(X), dtype=X.dtype), Y)
    return torch.linalg.solve(X.T @ X + alpha * torch.eye(X.shape[1], dtype=X.dtype), X.T @ Y)


def torch_cholesky(X: Any, Y: Any, alpha: float) -> Any:
    """The same by a Cholesky factor."""
    if X.shape[0] < X.shape[1]:
        factor = torch.linalg.cholesky(X @ X.T + alpha * torch.eye(len(X)))
        return X.T @ torch.cholesky_solve(Y, factor)
    factor = torch.linalg.cholesky(X.T @ X + alpha * torch.eye(X.shape[1]))
    return torch.cholesky_solve(X.T @ Y, factor)


def autograd_solvers(alpha: float) -> dict[str, Callable[[Any, Any], Any]]:
    """Solvers whose steps torch records."""
    return {
        "torch.linalg.solve": lambda X, Y: torch_solve(X, Y, alpha),
        "torch.linalg.cholesky": lambda X, Y: torch_cholesky(X, Y, alpha),
    }


def names_of(candidates: Sequence[str]) -> list[str]:
    """Peers that are installed."""
    import importlib.util

    packages = {"himalaya": "himalaya", "scikit-learn": "sklearn"}
    return [
        name
        for name in candidates
        if (package := packages.get(name.split(" ")[0])) is None or importlib.util.find_spec(package)
    ]
