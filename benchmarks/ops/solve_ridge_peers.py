"""What bench_solve_ridge.py compares with, and the data that all get."""

from __future__ import annotations

from collections.abc import Callable
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
