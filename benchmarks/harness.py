"""Compare implementations on the same input in the same run: correct first, then fast.

Candidates take turns in an order drawn anew for each round, so that a busy moment, or the caches that one
leaves behind, hits all of them; what counts is the process's CPU time, since other jobs stretch the wall
clock. One thread, unless a benchmark says otherwise.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

RESULTS = Path(__file__).parent / "results"
Candidates = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Timing:
    """CPU seconds of one candidate."""

    median: float
    best: float
    worst: float
    repeats: int


@dataclass(frozen=True)
class Row:
    """One line of a benchmark's table, and of its JSON file."""

    workload: str
    candidate: str
    items: int  # spikes counted, or entries of the batch
    timing: Timing
    ratio: float  # median over that of ours: how many times faster ours is
    ratio_of_best: float  # the same of the best times
    differing: int | None  # elements that differ from the exact result
    read_bytes: int  # least that must be read and written, for the floor
    written_bytes: int


def interleave(
    candidates: Candidates,
    *,
    repeats: int = 7,
    budget: float = 60.0,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, Timing]:
    """Time all candidates in turns until their share of ``budget`` is spent; call them once before."""
    spent: dict[str, list[float]] = {name: [] for name in candidates}
    share = budget / max(len(candidates), 1)
    order, random = list(candidates.items()), Random(0)
    for _ in range(repeats):
        random.shuffle(order)
        for name, run in order:
            if spent[name] and sum(spent[name]) > share:
                continue
            before = clock()
            run()
            spent[name].append(clock() - before)
    return {name: Timing(statistics.median(s), min(s), max(s), len(s)) for name, s in spent.items()}


def compare(
    workload: str,
    ours: str,
    candidates: Candidates,
    differing: Callable[[Any], int | None] | None = None,
    *,
    items: int,
    traffic: tuple[int, int],
    repeats: int = 7,
    budget: float = 60.0,
    clock: Callable[[], float] = time.process_time,
) -> list[Row]:
    """Check each candidate's result, then time all; raise if ours is not exact."""
    wrong: dict[str, int | None] = {}
    for name, run in candidates.items():
        result = run()  # also warms up
        wrong[name] = None if differing is None else differing(result)
        del result
    if wrong[ours]:
        raise AssertionError(f"{workload}: {ours} differs from the exact result in {wrong[ours]} elements")
    timings = interleave(candidates, repeats=repeats, budget=budget, clock=clock)
    reference = timings[ours]
    return [
        Row(
            workload,
            name,
            items,
            timing,
            timing.median / reference.median,
            timing.best / reference.best,
            wrong[name],
            *traffic,
        )
        for name, timing in sorted(timings.items(), key=lambda pair: pair[1].median)
    ]


def machine_facts(packages: tuple[str, ...]) -> dict[str, Any]:
    """Versions and machine, without anything that names its owner."""
    from neurokern import __version__, _core

    versions = {"neurokern": __version__}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cpu": _cpu_model(),
        "instruction_set": _core.isa(),
        "cores": os.cpu_count(),
        "threads": 1,
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "packages": versions,
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def as_table(rows: list[Row]) -> str:
    """Markdown, one line per candidate."""
    lines = [
        "| workload | candidate | median (ms) | best (ms) | ns an item | ratio | ratio of best | differing |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        differing = "" if row.differing is None else f"{row.differing:,}"
        median, best = row.timing.median, row.timing.best
        lines.append(
            f"| {row.workload} | {row.candidate} | {median * 1e3:.2f} | {best * 1e3:.2f} "
            f"| {median / row.items * 1e9:.2f} | {row.ratio:.2f} | {row.ratio_of_best:.2f} | {differing} |"
        )
    return "\n".join(lines)


def save(op: str, rows: list[Row], facts: dict[str, Any]) -> Path:
    """Write ``results/<op>.jsonl``: lines of these workloads are replaced, others stay.

    A workload has a line of machine facts and one for each candidate.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{op}.jsonl"
    by_workload: dict[str, list[dict[str, Any]]] = {}
    for line in load(op):
        by_workload.setdefault(line["workload"], []).append(line)
    for workload in {row.workload: None for row in rows}:
        by_workload[workload] = [{"workload": workload, "machine": facts}]
    for row in rows:
        by_workload[row.workload].append(asdict(row))
    lines = [json.dumps(line) for found in by_workload.values() for line in found]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def load(op: str) -> list[dict[str, Any]]:
    """Return the committed lines of an op; none if it has no file."""
    path = RESULTS / f"{op}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def arguments(doc: str, repeats: int) -> argparse.ArgumentParser:
    """Options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--budget", type=float, default=60.0, help="CPU seconds per workload")
    parser.add_argument("--workload", default="", help="only those whose name contains this")
    parser.add_argument("--quick", action="store_true", help="small inputs and few repeats: does it run?")
    parser.add_argument("--save", action="store_true", help="keep the rows in benchmarks/results")
    return parser


def report(op: str, rows: list[Row], facts: dict[str, Any], save_rows: bool) -> None:
    """Print the table and the machine; keep the rows if asked."""
    missing = [name for name, version in facts["packages"].items() if version == "not installed"]
    sys.stdout.write(as_table(rows) + "\n\n")
    sys.stdout.write(f"{facts['cpu']}, {facts['instruction_set']}, 1 thread, load {facts['load']}")
    sys.stdout.write(f"; skipped, not installed: {', '.join(missing)}\n" if missing else "\n")
    if save_rows:
        sys.stdout.write(f"saved {save(op, rows, facts)}\n")
