"""Compare implementations on the same input in the same run: correct first, then fast.

Candidates take turns (``a b c a b c ...``), so that a busy moment hits all of them; what counts is the
process's CPU time, since other jobs stretch the wall clock. One thread, unless a benchmark says otherwise.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Timing:
    """CPU seconds of one candidate."""

    median: float
    best: float
    worst: float
    repeats: int


@dataclass(frozen=True)
class Row:
    """One line of a benchmark's table."""

    workload: str
    candidate: str
    timing: Timing
    ratio: float  # median over that of ours: how many times faster ours is
    differing: int | None  # elements that differ from the exact result
    per_item: float | None = None  # ns


def interleave(
    candidates: dict[str, Callable[[], Any]], *, repeats: int = 7, budget: float = 60.0
) -> dict[str, Timing]:
    """Time all candidates in turns, after one warm-up each, until their share of ``budget`` is spent."""
    spent = {name: [] for name in candidates}  # type: dict[str, list[float]]
    for run in candidates.values():
        run()
    share = budget / max(len(candidates), 1)
    for _ in range(repeats):
        for name, run in candidates.items():
            if spent[name] and sum(spent[name]) > share:
                continue
            before = time.process_time()
            run()
            spent[name].append(time.process_time() - before)
    return {name: Timing(statistics.median(s), min(s), max(s), len(s)) for name, s in spent.items()}


def compare(
    workload: str,
    ours: str,
    candidates: dict[str, Callable[[], Any]],
    differing: Callable[[Any], int] | None = None,
    *,
    items: int | None = None,
    repeats: int = 7,
    budget: float = 60.0,
) -> list[Row]:
    """Check each candidate's result, then time all; raise if ours is not exact."""
    wrong: dict[str, int | None] = dict.fromkeys(candidates)
    if differing is not None:
        wrong = {name: differing(run()) for name, run in candidates.items()}
        if wrong[ours]:
            raise AssertionError(
                f"{workload}: {ours} differs from the exact result in {wrong[ours]} elements"
            )
    timings = interleave(candidates, repeats=repeats, budget=budget)
    reference = timings[ours].median
    return [
        Row(
            workload,
            name,
            timing,
            timing.median / reference,
            wrong[name],
            None if items is None else timing.median / items * 1e9,
        )
        for name, timing in sorted(timings.items(), key=lambda pair: pair[1].median)
    ]


def machine_facts(packages: Iterable[str]) -> dict[str, Any]:
    """Versions and machine, without anything that names its owner."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
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
        "| workload | candidate | median (ms) | best (ms) | ns per item | ours is faster by | differing |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        per_item = "" if row.per_item is None else f"{row.per_item:.2f}"
        differing = "" if row.differing is None else f"{row.differing:,}"
        lines.append(
            f"| {row.workload} | {row.candidate} | {row.timing.median * 1e3:.1f} "
            f"| {row.timing.best * 1e3:.1f} | {per_item} | {row.ratio:.2f} | {differing} |"
        )
    return "\n".join(lines)


def as_json_lines(rows: list[Row], facts: dict[str, Any]) -> str:
    """One JSON object per row, each with the machine's facts."""
    return "\n".join(json.dumps(asdict(row) | {"machine": facts}) for row in rows)
