"""Closed-form read-outs of few-shot episodes, reduced-rank ridge: beside scikit-learn and plain loops.

An episode is a support set of two classes with features of its own, and 80 queries that all episodes share; a
read-out is fitted, its penalty chosen by leave-one-out, and the queries are labeled. What differs is counted
in labels, against float64.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifierCV
from sklearn.neighbors import NearestCentroid

sys.path.insert(0, str(Path(__file__).parents[1]))
import harness

from neurokern.adapters import LDAProbe, PrototypeProbe, RidgeProbe
from neurokern.ops import reduced_rank_ridge_cv

OURS, LOOP = "neurokern", "neurokern, one by one"
ALPHAS = np.geomspace(1e-3, 1e3, 7)
GAMMA = 0.3  # shrinkage of discriminants, fixed: scikit-learn estimates another one
SETTLED = 1e-4  # of the largest score: labels by less are a matter of rounding


def episodes(n_episodes: int, k: int, n_features: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Support (episodes, 2 k, features) of clouds that overlap, labels (episodes, 2 k), queries."""
    rng = np.random.default_rng(k)
    labels = np.tile(np.arange(2 * k) % 2, (n_episodes, 1))
    center = rng.normal(size=n_features) * 1.5 / n_features**0.5
    support = rng.normal(size=(n_episodes, 2 * k, n_features)) + labels[:, :, None] * center
    return support, labels, rng.normal(size=(80, n_features)) + center / 2


def ridge_of_scikit_learn(support: np.ndarray, labels: np.ndarray) -> RidgeClassifierCV:
    unit = np.square(support - support.mean(0)).sum(1).mean()
    return RidgeClassifierCV(ALPHAS * unit).fit(support, labels)


READOUTS: dict[str, tuple[Callable[[], Any], Callable[..., Any]]] = {
    "ridge": (lambda: RidgeProbe(ALPHAS), ridge_of_scikit_learn),
    "discriminants": (
        lambda: LDAProbe(GAMMA),
        lambda x, y: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=GAMMA).fit(x, y),
    ),
    "prototypes": (PrototypeProbe, lambda x, y: NearestCentroid().fit(x, y)),
}


def few_shot(readout: str, n_episodes: int, k: int, n_features: int) -> tuple[harness.Candidates, Any]:
    make, peer = READOUTS[readout]
    support, labels, queries = episodes(n_episodes, k, n_features)
    narrow, asked = torch.from_numpy(support).float(), torch.from_numpy(queries).float()
    exact = make().fit_batched(support, labels).decision_function_batched(queries).numpy()
    margin = np.abs(exact[..., 1] - exact[..., 0])
    settled = margin > SETTLED * np.abs(exact).max()
    wanted = exact.argmax(-1)
    calls: harness.Candidates = {
        OURS: lambda: make().fit_batched(narrow, labels).predict_batched(asked),
        LOOP: lambda: [make().fit(x, y).predict(asked) for x, y in zip(narrow, labels, strict=True)],
        "scikit-learn": lambda: [peer(x, y).predict(queries) for x, y in zip(support, labels, strict=True)],
    }
    return calls, lambda found: int(((np.asarray(found) != wanted) & settled).sum())


def reduced_rank(n: int, p: int, q: int, n_ranks: int) -> tuple[harness.Candidates, Any]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    Y = X[:, :5] @ rng.normal(size=(5, q)) + 3 * rng.normal(size=(n, q))
    alphas, bounds = np.geomspace(1e1, 1e5, 10), np.linspace(0, n, 6).round().astype(int)
    folds = [(np.r_[0:start, stop:n], np.arange(start, stop)) for start, stop in itertools.pairwise(bounds)]

    def loop() -> np.ndarray:
        """One dual solution and one decomposition of fitted values per fold and penalty, then each rank."""
        scores = np.zeros((len(alphas), n_ranks))
        for train, test in folds:
            x_mean, y_mean = X[train].mean(0), Y[train].mean(0)
            x, y, x_test, y_test = X[train] - x_mean, Y[train] - y_mean, X[test] - x_mean, Y[test] - y_mean
            total = np.square(y_test - y_test.mean(0)).sum()
            kernel, kernel_test = x @ x.T, x_test @ x.T
            for at, alpha in enumerate(alphas):
                dual = np.linalg.solve(kernel + alpha * np.eye(len(x)), y)
                axes = np.linalg.eigh(y.T @ kernel @ dual)[1][:, ::-1]
                guess = kernel_test @ dual
                for rank in range(1, n_ranks + 1):
                    projected = guess @ axes[:, :rank] @ axes[:, :rank].T
                    scores[at, rank - 1] += 1 - np.square(y_test - projected).sum() / total
        return scores / len(folds)

    exact = loop()
    calls: harness.Candidates = {
        OURS: lambda: reduced_rank_ridge_cv(X, Y, alphas, folds, ranks=range(1, n_ranks + 1)).scores,
        "numpy, a solution per penalty": loop,
    }
    return calls, lambda found: int((np.abs(found - exact) > 1e-7).sum())


WORKLOADS: dict[str, tuple[Callable[[], tuple[harness.Candidates, Any]], int]] = {
    **{
        f"{readout}, 100 episodes of 2 x {k}": (functools.partial(few_shot, readout, 100, k, 600), 100)
        for readout in READOUTS
        for k in (5, 20)
    },
    "reduced rank, 10 penalties x 20 ranks": (functools.partial(reduced_rank, 1000, 2000, 60, 20), 200),
}
QUICK: dict[str, tuple[Callable[[], tuple[harness.Candidates, Any]], int]] = {
    **{f"{readout}, quick": (functools.partial(few_shot, readout, 3, 4, 30), 3) for readout in READOUTS},
    "reduced rank, quick": (functools.partial(reduced_rank, 60, 80, 12, 5), 50),
}


def main() -> None:
    arguments = harness.arguments(__doc__, repeats=7).parse_args()
    torch.set_num_threads(1)
    rows: list[harness.Row] = []
    for workload, (make, items) in (QUICK if arguments.quick else WORKLOADS).items():
        if arguments.workload in workload:
            candidates, differing = make()
            rows += harness.compare(
                workload, OURS, candidates, differing, items=items, traffic=(0, 0),
                repeats=2 if arguments.quick else arguments.repeats, budget=arguments.budget,
            )  # fmt: skip
    facts = harness.machine_facts(("numpy", "torch", "scikit-learn"))
    harness.report("readouts", rows, facts, arguments.save)


if __name__ == "__main__":
    main()
