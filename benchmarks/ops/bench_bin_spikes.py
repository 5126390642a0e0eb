"""bin_spikes against what people use: the same spikes, one thread, correctness beside time.

    python benchmarks/ops/bench_bin_spikes.py --quick          # does it run?
    python benchmarks/ops/bench_bin_spikes.py --save           # a table; rows to benchmarks/results
    python -m pytest benchmarks/ops/bench_bin_spikes.py        # the same candidates under pytest-benchmark

"differing" counts cells that disagree with integer arithmetic. Slow peers get a shorter session, on which we
are timed again; such a workload's name ends with its number of spikes. With NEUROKERN_ISA=v3 (or v2) the name
says so too, and rows of other instruction sets stay in the file.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import bin_spikes_window_peers  # noqa: F401  (registers peers)
import harness
from bin_spikes_peers import PACKAGES, peers_of
from bin_spikes_workloads import WORKLOADS, Problem

OURS = "neurokern"


def candidates(problem: Problem, n_spikes: int, full: int) -> harness.Candidates:
    """Ours and the peers for this number of spikes: all that can bear ``full``, or those that cannot."""
    calls: harness.Candidates = {OURS: problem.ours}
    for peer in peers_of(problem.kind):
        if min(peer.most, full) != n_spikes:
            continue
        try:
            calls[peer.name] = peer.build(problem)
        except NotImplementedError:  # a peer that knows the kind, but not this input
            continue
    return calls


def sizes(kind: str, full: int) -> list[int]:
    """Numbers of spikes to run, the largest first."""
    return sorted({full} | {min(peer.most, full) for peer in peers_of(kind)}, reverse=True)


def run(workload: str, full: int, repeats: int, budget: float, only: str = "") -> list[harness.Row]:
    rows: list[harness.Row] = []
    pending = [full]
    while pending:
        n_spikes = pending.pop(0)
        problem = WORKLOADS[workload](n_spikes)
        if n_spikes == full:
            pending = sizes(problem.kind, full)[1:]
        calls = candidates(problem, n_spikes, full)
        calls = {name: call for name, call in calls.items() if name == OURS or only in name}
        name = workload if n_spikes == full else f"{workload}, {n_spikes / 1e6:g} million spikes"
        if os.environ.get("NEUROKERN_ISA"):
            name += f", instruction set {os.environ['NEUROKERN_ISA']}"
        if len(calls) > 1 or n_spikes == full:
            options = {"items": problem.n_counted, "repeats": repeats, "budget": budget}
            rows += harness.compare(name, OURS, calls, problem.differing, traffic=problem.traffic, **options)
        del problem, calls
        gc.collect()
    return rows


def pytest_generate_tests(metafunc: Any) -> None:
    small = {name: make(20_000) for name, make in WORKLOADS.items()}
    names = [(name, call) for name, p in small.items() for call in candidates(p, 20_000, 20_000)]
    metafunc.parametrize(("workload", "candidate"), names)


def test_speed(benchmark: Any, workload: str, candidate: str) -> None:
    torch.set_num_threads(1)
    problem = WORKLOADS[workload](1_000_000)
    call = candidates(problem, 1_000_000, 1_000_000)[candidate]
    if candidate == OURS:
        assert problem.differing(call()) == 0
    benchmark.group = workload
    benchmark(call)


def main() -> None:
    parser = harness.arguments(__doc__, repeats=9)
    parser.add_argument("--spikes", type=int, default=10_000_000)
    parser.add_argument("--candidate", default="", help="only ours and those whose name contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # elephant says for each train that it repaired an edge
    warnings.simplefilter("ignore", UserWarning)
    n_spikes, repeats = (200_000, 2) if arguments.quick else (arguments.spikes, arguments.repeats)
    rows: list[harness.Row] = []
    for workload in WORKLOADS:
        if arguments.workload in workload:
            new = run(workload, n_spikes, repeats, arguments.budget, arguments.candidate)
            harness.report("bin_spikes", new, harness.machine_facts(PACKAGES), arguments.save)
            rows += new


if __name__ == "__main__":
    main()
