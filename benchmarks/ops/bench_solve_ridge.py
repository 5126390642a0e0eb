"""solve_ridge and ridge_cv against himalaya, scikit-learn, torch and a lab's script: one thread.

    python benchmarks/ops/bench_solve_ridge.py --quick        # does it run?
    python benchmarks/ops/bench_solve_ridge.py --save         # a table; rows to benchmarks/results
    python -m pytest benchmarks/ops/bench_solve_ridge.py      # the same candidates under pytest-benchmark

X is correlated noise, Y a linear function of it with noise. A result counts as different for a target whose
penalty is not as good, in float64, as the best one (1e-6 of R2), or whose weights are not the solution for
that penalty. numpy's OpenBLAS must be free to choose its kernels: unset OPENBLAS_CORETYPE.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurokern.ops import RidgeAccumulator, banded_ridge_cv, ridge_cv, solve_ridge, solve_ridge_batched

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import harness
import ridge_batched_peers
import solve_ridge_peers as peers

OURS = "neurokern"
LAB, PER_ALPHA = "SVD of each fold", "torch.linalg.solve per alpha"
HIMALAYA = ("himalaya numpy", "himalaya torch")
SKLEARN = "scikit-learn (leave-one-out)"
CHECKED = 32  # targets that are compared with float64


@dataclass(frozen=True)
class Workload:
    """What is solved, by whom, and how far from a float64 solution a result is."""

    candidates: harness.Candidates
    differing: Callable[[Any], int | None]
    items: int  # entries of Y
    traffic: tuple[int, int]


def search(
    n: int,
    p: int,
    v: int,
    alphas: np.ndarray,
    folds: int | str = 5,
    others: tuple[str, ...] = HIMALAYA,
) -> Workload:
    """Return a penalty for each target by cross-validation, and the weights for it."""
    X, Y = peers.make_data(n, p, v)
    task = peers.Search(X, Y, alphas, 5 if isinstance(folds, str) else folds)

    def ours() -> peers.Result:
        found = ridge_cv(X, Y, alphas, folds)
        return found.weights, found.alphas

    makers: dict[str, Callable[[], Callable[[], peers.Result]]] = {
        "himalaya numpy": lambda: peers.himalaya_ridge(task, "numpy"),
        "himalaya torch": lambda: peers.himalaya_ridge(task, "torch"),
        SKLEARN: lambda: peers.sklearn_loo(task),
        PER_ALPHA: lambda: peers.torch_solves(task),
        LAB: lambda: peers.lab_script(task),
    }
    candidates: harness.Candidates = {OURS: ours}
    candidates |= {name: makers[name]() for name in peers.names_of(others)}
    traffic = 4 * n * (p + v), 4 * p * v
    return Workload(candidates, _checker(task, folds), n * v, traffic)


def _checker(task: peers.Search, folds: int | str) -> Callable[[Any], int]:
    """Count targets with a worse penalty, or with weights that are not those of their penalty.

    scikit-learn's leave-one-out beside a search by folds solves another problem, and is counted so.
    """
    single = isinstance(folds, str)
    scores = peers.best_scores(task, min(CHECKED, task.Y.shape[1]), leave_one_out=single)
    if single:
        centered = task.Y[:, :CHECKED].astype(np.float64)
        scores = scores / ((centered - centered.mean(0)) ** 2).sum(0)
    n_checked = scores.shape[1]

    def differing(result: Any) -> int:
        weights, alphas = (np.asarray(values) for values in result)
        index = np.abs(np.log(task.alphas)[:, None] - np.log(alphas[:n_checked])).argmin(0)
        worse = scores.max(0) - scores[index, np.arange(n_checked)] > 1e-6
        right = solve_ridge(
            task.X.astype(np.float64), task.Y[:, :n_checked].astype(np.float64), task.alphas[index]
        )
        off = np.abs(weights[:, :n_checked] - right.weights).max(0) > 1e-4 * np.abs(right.weights).max(0)
        return int((worse | off).sum())

    return differing


def banded(n: int, p: int, v: int, n_candidates: int, n_bands: int = 3) -> Workload:
    """Return the weights of banded ridge, of the best of the same candidates, and their scores.

    A result counts as different for a target whose score is not the best of plain searches of scaled
    features.
    """
    X, Y = peers.make_data(n, p, v)
    bands = np.arange(p) * n_bands // p
    weights = np.random.default_rng(0).dirichlet(np.ones(n_bands), n_candidates)
    task = peers.Search(X, Y, TEN, 5)

    def ours() -> peers.Result:
        found = banded_ridge_cv(X, Y, bands, TEN, 5, band_weights=weights)
        return found.weights, found.scores

    candidates: harness.Candidates = {OURS: ours}
    for name in peers.names_of(HIMALAYA):
        candidates[name] = peers.himalaya_bands(task, bands, weights, name.split()[1])
    wide = [X.astype(np.float64) * np.sqrt(one)[bands] for one in weights]
    some = Y[:, :CHECKED].astype(np.float64)
    best = np.max([ridge_cv(scaled, some, TEN).scores for scaled in wide], axis=0)

    def differing(result: Any) -> int:
        return int((np.abs(np.asarray(result[1])[: len(best)] - best) > 1e-5).sum())

    return Workload(candidates, differing, n * v, (4 * n * (p + v), 4 * p * v))


def by_gradient(n: int, p: int, v: int, n_bands: int = 3) -> Workload:
    """Return the solution of banded ridge with band weights by gradient, and the penalties of the bands.

    A result counts as different for a target whose penalties score worse than the best single one.
    """
    X, Y = peers.make_data(n, p, v)
    bands = np.arange(p) * n_bands // p
    task = peers.Search(X, Y, TEN, 5)

    def ours() -> peers.Result:
        found = banded_ridge_cv(X, Y, bands, TEN, 5, search="gradient", n_candidates=1)
        return found.weights, found.alphas / found.band_weights

    candidates: harness.Candidates = {OURS: ours}
    for name in peers.names_of(HIMALAYA):
        candidates[name] = peers.himalaya_gradient(task, bands, name.split()[1])
    wide, some = X.astype(np.float64), Y[:, :CHECKED].astype(np.float64)
    plain = ridge_cv(wide, some, TEN).scores

    def differing(result: Any) -> int:
        penalties = np.asarray(result[1])[:, : len(plain)]
        scores = [
            banded_ridge_cv(
                wide, some[:, t], bands, [1.0], band_weights=1 / penalties[None, :, t].astype(np.float64)
            ).scores
            for t in range(len(plain))
        ]
        return int((np.array(scores) < plain - 1e-5).sum())

    return Workload(candidates, differing, n * v, (4 * n * (p + v), 4 * p * v))


def autograd(n: int, p: int, v: int) -> Workload:
    """Return weights and the gradients of X and Y: a read-out that is part of a network."""
    X, Y = (torch.from_numpy(values).requires_grad_() for values in peers.make_data(n, p, v))
    gradient = torch.randn(p, v, generator=torch.Generator().manual_seed(0))

    def backward(solve: Callable[[Any, Any], Any]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(solve(X, Y), (X, Y), gradient)

    calls = {OURS: lambda X, Y: solve_ridge(X, Y, 10.0, fit_intercept=False).weights}
    calls |= peers.autograd_solvers(10.0)
    exact = [value.detach().double().requires_grad_() for value in (X, Y)]
    right = torch.autograd.grad(peers.torch_solve(*exact, 10.0), exact, gradient.double())

    def differing(found: Any) -> int:
        return sum(
            int(((a - b).abs() > 1e-4 * b.abs().max()).sum()) for a, b in zip(found, right, strict=True)
        )

    candidates = {name: backward(solve) for name, solve in calls.items()}
    return Workload(candidates, differing, n * v, (4 * n * (p + v), 4 * p * v))


def batched_autograd(n_problems: int, n: int, p: int, q: int) -> Workload:
    """Return the gradients of X and Y of many small read-outs: the head of R2-D2, with one penalty."""
    X, Y = (
        torch.randn(n_problems, n, width, generator=torch.Generator().manual_seed(width)).requires_grad_()
        for width in (p, q)
    )
    gradient = torch.randn(n_problems, p, q, generator=torch.Generator().manual_seed(0))

    def backward(solve: Callable[[Any, Any], Any]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(solve(X, Y), (X, Y), gradient)

    def by_samples(X: Any, Y: Any) -> Any:
        kernel = X @ X.mT + 10.0 * torch.eye(n, dtype=X.dtype)
        return X.mT @ torch.linalg.solve(kernel, Y)

    def by_factor(X: Any, Y: Any) -> Any:
        factor = torch.linalg.cholesky(X @ X.mT + 10.0 * torch.eye(n, dtype=X.dtype))
        return X.mT @ torch.cholesky_solve(Y, factor)

    calls: dict[str, Callable[[Any, Any], Any]] = {
        OURS: lambda X, Y: solve_ridge_batched(X, Y, [10.0], fit_intercept=False).weights,
        "torch.linalg.solve, samples": by_samples,
        "torch.linalg.cholesky, samples": by_factor,
    }
    exact = [value.detach().double().requires_grad_() for value in (X, Y)]
    right = torch.autograd.grad(by_samples(*exact), exact, gradient.double())

    def differing(found: Any) -> int:
        return sum(
            int(((a - b).abs() > 1e-4 * b.abs().max()).sum()) for a, b in zip(found, right, strict=True)
        )

    candidates = {name: backward(solve) for name, solve in calls.items()}
    items = n_problems * n * q
    return Workload(candidates, differing, items, (4 * n_problems * n * (p + q), 4 * n_problems * p * q))


def streaming(n: int, p: int, v: int, n_batches: int) -> Workload:
    """Return penalties and weights from batches that are seen once, beside the same in memory."""
    X, Y = peers.make_data(n, p, v)
    task = peers.Search(X, Y, TEN, 5)
    fold = np.zeros(n, int)
    for number, (_, test) in enumerate(task.splits()):
        fold[test] = number

    def ours() -> peers.Result:
        sums = RidgeAccumulator()
        for rows in np.array_split(np.arange(n), n_batches):
            some = slice(rows[0], rows[-1] + 1)
            sums.update(X[some], Y[some], fold[some])
        found = sums.solve(TEN)
        return found.weights, found.alphas

    def in_memory() -> peers.Result:
        found = ridge_cv(X, Y, TEN, 5)
        return found.weights, found.alphas

    candidates: harness.Candidates = {OURS: ours, "the same in memory": in_memory}
    return Workload(candidates, _checker(task, 5), n * v, (4 * n * (p + v), 4 * p * v))


def few_shot(n: int, n_problems: int) -> Workload:
    """Return a batch of episodes of n samples, each with its alphas chosen by leave-one-out."""
    return Workload(*ridge_batched_peers.few_shot(n, n_problems, OURS))


def decades(low: float, high: float, n_alphas: int) -> np.ndarray:
    return np.logspace(low, high, n_alphas)


Make = Callable[[], Workload]
TEN, TWENTY, NINETY_NINE = decades(0, 5, 10), decades(0, 5, 20), decades(-5, 5, 99)
WORKLOADS: dict[str, Make] = {
    "tall, n/p = 5": functools.partial(search, 2560, 512, 20_000, TEN),
    "tall, n/p = 5, other peers": functools.partial(search, 2560, 512, 4000, TEN, others=(PER_ALPHA, LAB)),
    "tall, n/p = 13": functools.partial(search, 5200, 400, 20_000, TEN),
    "tall, n/p = 2": functools.partial(search, 1024, 512, 20_000, TEN),
    "99 alphas": functools.partial(search, 2000, 512, 1000, NINETY_NINE, others=(*HIMALAYA, SKLEARN)),
    "wide": functools.partial(search, 1000, 2000, 20_000, TWENTY),
    "wide, 20 runs": functools.partial(search, 1000, 2000, 4000, TWENTY, 20),
    "very wide, 500 targets": functools.partial(search, 2000, 50_000, 500, TEN),
    "few targets": functools.partial(search, 4000, 1024, 100, TWENTY, others=(*HIMALAYA, SKLEARN)),
    "leave-one-out": functools.partial(search, 4000, 768, 4000, TEN, "leave-one-out", others=(SKLEARN,)),
    "banded, p < n, 4 candidates": functools.partial(banded, 3000, 450, 2000, 4),
    "banded, n < p, 4 candidates": functools.partial(banded, 1000, 3000, 2000, 4),
    "bands by gradient, p < n": functools.partial(by_gradient, 1000, 300, 500),
    "bands by gradient, n < p": functools.partial(by_gradient, 400, 1200, 500),
    "autograd head, 2000 x 768, 500 targets": lambda: autograd(2000, 768, 500),
    "autograd heads, 64 of 25 x 512, 5 targets": lambda: batched_autograd(64, 25, 512, 5),
    "streaming, 10 batches": functools.partial(streaming, 5120, 512, 2000, 10),
    "few-shot, 2000 episodes of 5 samples": functools.partial(few_shot, 5, 2000),
    "few-shot, 1000 episodes of 16 samples": functools.partial(few_shot, 16, 1000),
    "few-shot, 400 episodes of 32 samples": functools.partial(few_shot, 32, 400),
    "few-shot, 100 episodes of 64 samples": functools.partial(few_shot, 64, 100),
    "few-shot, 50 episodes of 100 samples": functools.partial(few_shot, 100, 50),
}
QUICK: dict[str, Make] = {
    "tall, n/p = 5": functools.partial(search, 300, 60, 50, TEN, others=(*HIMALAYA, PER_ALPHA, LAB)),
    "99 alphas": functools.partial(search, 200, 50, 20, NINETY_NINE, others=(*HIMALAYA, SKLEARN)),
    "wide": functools.partial(search, 100, 200, 100, TWENTY),
    "wide, 20 runs": functools.partial(search, 100, 200, 50, TWENTY, 20),
    "leave-one-out": functools.partial(search, 300, 60, 50, TEN, "leave-one-out", others=(SKLEARN,)),
    "banded, p < n, 4 candidates": functools.partial(banded, 300, 60, 50, 4),
    "banded, n < p, 4 candidates": functools.partial(banded, 100, 300, 50, 4),
    "bands by gradient, p < n": functools.partial(by_gradient, 100, 30, 20),
    "bands by gradient, n < p": functools.partial(by_gradient, 60, 120, 20),
    "autograd head, 2000 x 768, 500 targets": lambda: autograd(200, 60, 20),
    "autograd heads, 64 of 25 x 512, 5 targets": lambda: batched_autograd(4, 5, 40, 3),
    "streaming, 10 batches": functools.partial(streaming, 300, 60, 50, 3),
    "few-shot, 1000 episodes of 16 samples": functools.partial(few_shot, 16, 10),
}


def main() -> None:
    arguments = harness.arguments(__doc__, repeats=5).parse_args()
    if "OPENBLAS_CORETYPE" in os.environ:
        sys.exit("unset OPENBLAS_CORETYPE: numpy's products would not be timed with its own kernels")
    torch.set_num_threads(1)
    rows = []
    for name, make in (QUICK if arguments.quick else WORKLOADS).items():
        if arguments.workload not in name:
            continue
        work = make()
        rows += harness.compare(
            name,
            OURS,
            work.candidates,
            work.differing,
            items=work.items,
            traffic=work.traffic,
            repeats=2 if arguments.quick else arguments.repeats,
            budget=arguments.budget,
        )
    facts = harness.machine_facts(("numpy", "torch", "himalaya", "scikit-learn"))
    harness.report("solve_ridge", rows, facts, arguments.save)


def pytest_generate_tests(metafunc: Any) -> None:
    pairs = [(name, candidate) for name, make in QUICK.items() for candidate in make().candidates]
    metafunc.parametrize(("workload", "candidate"), pairs)


def test_speed(benchmark: Any, workload: str, candidate: str) -> None:
    torch.set_num_threads(1)
    benchmark.group = workload
    benchmark(QUICK[workload]().candidates[candidate])


if __name__ == "__main__":
    main()
