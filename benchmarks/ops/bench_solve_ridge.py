"""solve_ridge and its family against himalaya, scikit-learn and torch: the same input, one thread.

    python benchmarks/ops/bench_solve_ridge.py --quick        # does it run?
    python benchmarks/ops/bench_solve_ridge.py --save         # a table; rows to benchmarks/results
    python -m pytest benchmarks/ops/bench_solve_ridge.py      # the same candidates under pytest-benchmark

X is correlated noise, Y a linear function of it with noise. numpy's OpenBLAS must be free to choose its
kernels: unset OPENBLAS_CORETYPE.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import harness
import ridge_batched_peers
import solve_ridge_peers as peers

from neurokern.ops.solve_ridge import solve_ridge

OURS = "neurokern"


@dataclass(frozen=True)
class Workload:
    """What is solved, by whom, and how far from a float64 solution a result is."""

    candidates: harness.Candidates
    differing: Callable[[Any], int | None]
    items: int  # entries of Y
    traffic: tuple[int, int]


def autograd(n: int, p: int, v: int) -> Workload:
    """Return weights and the gradients of X and Y: a read-out that is part of a network."""
    X, Y = (torch.from_numpy(values).requires_grad_() for values in peers.make_data(n, p, v))
    gradient = torch.randn(p, v, generator=torch.Generator().manual_seed(0))

    def backward(solve: Callable[[Any, Any], Any]) -> Callable[[], Any]:
        def run() -> Any:
            weights = solve(X, Y)
            return torch.autograd.grad(weights, (X, Y), gradient)

        return run

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


def few_shot(n: int, n_problems: int) -> Workload:
    """Return a batch of episodes of n samples, each with its alphas chosen by leave-one-out."""
    return Workload(*ridge_batched_peers.few_shot(n, n_problems, OURS))


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "autograd head, 2000 x 768, 500 targets": lambda: autograd(2000, 768, 500),
    "autograd head, 25 x 512, 5 targets": lambda: autograd(25, 512, 5),
    "few-shot, 500 episodes of 5 samples": lambda: few_shot(5, 500),
    "few-shot, 300 episodes of 16 samples": lambda: few_shot(16, 300),
    "few-shot, 150 episodes of 32 samples": lambda: few_shot(32, 150),
    "few-shot, 50 episodes of 64 samples": lambda: few_shot(64, 50),
    "few-shot, 30 episodes of 100 samples": lambda: few_shot(100, 30),
}
QUICK: dict[str, Callable[[], Workload]] = {
    "autograd head, 2000 x 768, 500 targets": lambda: autograd(200, 60, 20),
    "autograd head, 25 x 512, 5 targets": lambda: autograd(25, 512, 5),
    "few-shot, 10 episodes of 16 samples": lambda: few_shot(16, 10),
}


def main() -> None:
    arguments = harness.arguments(__doc__, repeats=5).parse_args()
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
