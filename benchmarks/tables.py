"""Write the tables of docs/performance.md from the lines in benchmarks/results.

    python benchmarks/tables.py

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. Ratios are of median CPU times in the
same run: how many times longer the peer took. A test holds the page against the committed lines.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
import harness

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
OURS = "neurokern"
Line = dict[str, Any]


class Goal(NamedTuple):
    """A goal of the design: so many times faster than a peer, or than the best of them."""

    op: str
    workload: str
    peer: str
    at_least: float


BEST = "best peer"
FEW_SHOT = (
    "few-shot, 2000 episodes of 5 samples",
    "few-shot, 1000 episodes of 16 samples",
    "few-shot, 400 episodes of 32 samples",
    "few-shot, 100 episodes of 64 samples",
)
TAKE = "numpy memmap take, by volume"
MASK_SCHEMES = ("temporal", "neuron", "intra-region", "inter-region", "random")
GOALS = [
    Goal("bin_spikes", "session, uint8", "numba loop", 1.5),
    Goal("bin_spikes", "session, uint8", "np.bincount", 8),
    Goal("bin_spikes", "session, float32", "numba loop", 3.3),
    Goal("bin_spikes", "trials of 2 s, float32", BEST, 3.5),
    Goal("bin_spikes", "trials of 2 s, float32", "published preparation loop", 300),
    Goal("bin_spikes", "unsorted, float32", BEST, 4),
    Goal("bin_spikes", "300 of 800 units, float32", BEST, 3.5),
    Goal("bin_spikes", "Gaussian rates, float32", BEST, 9),
    Goal("bin_spikes", "ragged trains, float32", BEST, 1.8),
    Goal("bin_spikes", "session, float32", "iblutil bincount2D", 15),
    Goal("bin_spikes", "session, float32", "elephant", 40),
    Goal("bin_spikes", "session, float32", "pynapple", 60),
    Goal("bin_spikes", "session, float32", "np.add.at", 90),
    *(Goal("mask_regions", f"{scheme}, random", "published sequence", 30) for scheme in MASK_SCHEMES),
    *(Goal("mask_regions", f"{scheme}, random", "lean eager", 12) for scheme in MASK_SCHEMES),
    *(Goal("mask_regions", f"{scheme}, zero", "lean eager", 1.5) for scheme in MASK_SCHEMES),
    *(Goal("mask_regions", f"{scheme}, zero", "copy", 0.4) for scheme in MASK_SCHEMES),
    Goal("decode_nifti", "whole run, fresh output", TAKE, 2.8),
    Goal("decode_nifti", "whole run, fresh output", "nibabel get_fdata(float32)[mask]", 40),
    Goal("decode_nifti", "whole run, fresh output", "nilearn NiftiMasker", 170),
    Goal("decode_nifti", "whole run, handle and output kept", TAKE, 4.5),
    *(
        Goal("decode_nifti", f"whole run, {kind}", TAKE, 2.8)
        for kind in ("40,000 voxels", "float32", "float32 with NaN", "big-endian", "NIfTI-2")
    ),
    Goal("decode_nifti", "windows of 16 volumes", TAKE, 4),
    Goal("decode_nifti", "windows of 16 volumes", "nibabel dataobj slices", 45),
    Goal("decode_nifti", "windows of 16 volumes", "nilearn apply_mask of slices", 120),
    Goal("decode_nifti", "compressed, first pass", "isal + take", 0.85),
    Goal("decode_nifti", "compressed, first pass", "nibabel get_fdata(float32)[mask]", 7),
    Goal("decode_nifti", "400 parcel means", "scipy CSR on the memmap", 2.7),
    Goal("decode_nifti", "400 parcel means", "nilearn NiftiLabelsMasker", 500),
    Goal("decode_nifti", "mask, detrend, standardize", "torch closed form", 5),
    Goal("decode_nifti", "mask, detrend, standardize", "nilearn NiftiMasker", 200),
    Goal("decode_nifti", "mask, detrend, 24 confounds, standardize", "nilearn signal.clean", 6),
    Goal("solve_ridge", "tall, n/p = 5", "himalaya numpy", 7),
    Goal("solve_ridge", "tall, n/p = 5", "himalaya torch", 12),
    Goal("solve_ridge", "tall, n/p = 13", "himalaya numpy", 20),
    Goal("solve_ridge", "tall, n/p = 13", "himalaya torch", 40),
    Goal("solve_ridge", "99 alphas", "himalaya numpy", 15),
    Goal("solve_ridge", "99 alphas", "scikit-learn", 6),
    Goal("solve_ridge", "wide", BEST, 3),
    Goal("solve_ridge", "very wide, 500 targets", BEST, 1),
    Goal("solve_ridge", "wide, 20 runs", BEST, 8),
    Goal("solve_ridge", "leave-one-out", "scikit-learn", 5),
    Goal("solve_ridge", "few targets", "himalaya numpy", 6),
    Goal("solve_ridge", "few targets", "scikit-learn", 2.5),
    Goal("solve_ridge", "autograd head, 2000 x 768, 500 targets", BEST, 2),
    Goal("solve_ridge", "autograd heads, 64 of 25 x 512, 5 targets", BEST, 2),
    Goal("solve_ridge", "banded, p < n, 4 candidates", BEST, 10),
    Goal("solve_ridge", "streaming, 10 batches", "the same in memory", 0.9),
    *(Goal("solve_ridge", episodes, "torch.linalg.eigh", 6) for episodes in FEW_SHOT),
    *(Goal("solve_ridge", episodes, "scikit-learn RidgeCV, loop", 50) for episodes in FEW_SHOT[:3]),
    Goal("bids_windows", "windows of .nii.gz, packed", "rapidgzip + index + take", 40),
    Goal("bids_windows", "windows of .nii.gz, packed", "nibabel + indexed_gzip", 100),
    Goal(
        "bids_windows",
        "windows of 400 parcels, packed",
        "nilearn NiftiLabelsMasker of slices",
        500,
    ),
    Goal("bids_windows", "batches, no workers", "float32 .npy, mapped, Dataset", 2),
    Goal("bids_windows", "five lines, later", "nilearn NiftiMasker + Dataset", 40),
    *(
        Goal("window_batches", f"{place} voxels", peer, at_least)
        for place in ("region of 3,400", "brain of 35,640")
        for peer, at_least in (("neuralset, from its disk cache", 5), ("float32 .npy, mapped, Dataset", 1))
    ),
    Goal("meeg_windows", "epoch of batches", "braindecode windows, lazy", 3),
    Goal("meeg_windows", "epoch of batches", "np.memmap of the .eeg + transpose", 1),
    Goal("meeg_windows", "index of a folder", "pybids", 50),
]


def markdown(header: str, rows: Iterable[Iterable[str]]) -> str:
    columns = header.split(" | ")
    lines = [f"| {header} |", "|" + " --- |" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def number(value: float) -> str:
    """Two digits, more for large numbers."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def by_workload(lines: list[Line]) -> dict[str, list[Line]]:
    """Candidates of each workload, in the order of the file."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        if "candidate" in line:
            found.setdefault(line["workload"], []).append(line)
    return found


def machine(lines: list[Line]) -> str:
    """Say where and how the lines were measured."""
    facts = [line["machine"] for line in lines if "machine" in line]
    loads = [fact["load"] for fact in facts]
    first = facts[0]
    packages = ", ".join(f"{name} {version}" for name, version in first["packages"].items())
    return (
        f"{first['cpu']}, {first['cores']} cores, instruction set {first['instruction_set']}, one thread; "
        f"load {min(loads):g} to {max(loads):g} while measured; Python {first['python']}, {packages}."
    )


def floor_seconds(line: Line, floors: list[Line]) -> float:
    rates = floors[0]["gigabytes_per_second"]
    return (line["read_bytes"] / rates["read"] + line["written_bytes"] / rates["write"]) / 1e9


def peers_of(candidates: list[Line]) -> list[Line]:
    return [line for line in candidates if not line["candidate"].startswith(OURS)]


# ---- the tables


def floors_table(results: dict[str, list[Line]]) -> str:
    rows = [
        [
            line["workload"],
            *(f"{line['gigabytes_per_second'][what]:.1f}" for what in ("read", "write", "copy")),
        ]
        for line in results["floors"]
    ]
    return markdown("GB/s | read | write | copy (read + written)", rows)


def bin_spikes_table(results: dict[str, list[Line]]) -> str:
    rows = []
    for workload, candidates in by_workload(results["bin_spikes"]).items():
        ours = next(line for line in candidates if line["candidate"] == OURS)
        times = [f"{ours['timing'][which] / ours['items'] * 1e9:.2f}" for which in ("median", "best")]
        share = floor_seconds(ours, results["floors"]) / ours["timing"]["best"]
        peers = ", ".join(f"{line['candidate']} {number(line['ratio'])}" for line in peers_of(candidates))
        rows.append([workload, *times, f"{share:.0%}", peers])
    header = "workload | ns per spike, median | best | floor / best | our speed over each peer's"
    return markdown(header, rows) + "\n\n" + machine(results["bin_spikes"])


def wrong_cells_table(results: dict[str, list[Line]]) -> str:
    """Of the session and the trials: cells that a candidate gets wrong."""
    wanted = ("session, uint8", "trials of 2 s, float32", "integer samples, uint8")
    wrong: dict[str, dict[str, int]] = {}
    for workload, candidates in by_workload(results["bin_spikes"]).items():
        for line in candidates:
            for name in wanted:
                if workload.startswith(name) and "not claimed" not in workload:
                    wrong.setdefault(line["candidate"], {}).setdefault(name, line["differing"])
    rows = [
        [name, *(f"{found[key]:,}" if key in found else "" for key in wanted)]
        for name, found in sorted(wrong.items(), key=lambda pair: sum(pair[1].values()))
    ]
    return markdown("cells that are wrong | " + " | ".join(wanted), rows)


def mask_regions_table(results: dict[str, list[Line]]) -> str:
    rows = []
    for workload, candidates in by_workload(results["mask_regions"]).items():
        lines = {line["candidate"]: line for line in candidates}
        ours = lines[OURS]
        times = [f"{ours['timing'][which] * 1e3:.1f}" for which in ("median", "best")]
        ratios = [
            number(lines[name]["ratio"]) if name in lines else ""
            for name in ("lean eager", "torch.compile of lean", "published sequence")
        ]
        rows.append([workload, *times, number(1 / lines["copy"]["ratio"]), *ratios])
    header = (
        "scheme, replacement | ms, median | best | times a copy | faster than lean eager "
        "| than torch.compile | than published"
    )
    return markdown(header, rows) + "\n\n" + machine(results["mask_regions"])


def times_table(op: str, results: dict[str, list[Line]]) -> str:
    rows = []
    for workload, candidates in by_workload(results[op]).items():
        ours = next(line for line in candidates if line["candidate"] == OURS)
        times = [f"{ours['timing'][which] * 1e3:.2f}" for which in ("median", "best")]
        others = [line for line in candidates if line["candidate"] != OURS]
        rows.append([workload, *times, ", ".join(f"{o['candidate']} {number(o['ratio'])}" for o in others)])
    header = "workload | ms, median | best | time of each other form over ours"
    return markdown(header, rows) + "\n\n" + machine(results[op])


def solve_ridge_table(results: dict[str, list[Line]]) -> str:
    rows = []
    for workload, candidates in by_workload(results["solve_ridge"]).items():
        ours = next(line for line in candidates if line["candidate"] == OURS)
        times = [f"{ours['timing'][which]:.2f}" for which in ("median", "best")]
        peers = [f"{p['candidate']} {number(p['ratio'])} ({p['differing']})" for p in peers_of(candidates)]
        rows.append([workload, *times, ", ".join(peers)])
    header = "workload | CPU seconds, median | best | our speed over each peer's (different targets)"
    return markdown(header, rows) + "\n\n" + machine(results["solve_ridge"])


def decode_nifti_table(results: dict[str, list[Line]]) -> str:
    rows = []
    for workload, candidates in by_workload(results["decode_nifti"]).items():
        ours = next(line for line in candidates if line["candidate"] == OURS)
        floors = results["floors"][1 if "2 threads" in workload else 0 :]
        share = f"{floor_seconds(ours, floors) / ours['timing']['best']:.0%}"
        rows.append(
            [
                workload,
                *(f"{ours['timing'][which] * 1e3:.1f}" for which in ("median", "best")),
                "" if "compressed" in workload else share,
                ", ".join(f"{line['candidate']} {number(line['ratio'])}" for line in peers_of(candidates)),
            ]
        )
    header = "workload | ms, median | best | floor / best | our speed over each peer's"
    return markdown(header, rows) + "\n\n" + machine(results["decode_nifti"])


def decode_nifti_memory_table(results: dict[str, list[Line]]) -> str:
    rows = []
    for workload, candidates in by_workload(results["decode_nifti_memory"]).items():
        ours = next(line for line in candidates if line["candidate"] == OURS)
        beyond = (ours["grown_bytes"] - ours["output_bytes"]) / 1e6
        peers = (f"{line['candidate']} {line['grown_bytes'] / 1e6:.0f}" for line in peers_of(candidates))
        rows.append(
            [workload, f"{ours['output_bytes'] / 1e6:.1f}", f"{max(beyond, 0):.1f}", ", ".join(peers)]
        )
    return markdown("MB of private memory | output | ours, beyond it | peers, with their output", rows)


def window_batches_table(results: dict[str, list[Line]]) -> str:
    """Windows in a second of CPU time; the floor reads int16 and writes float32."""
    rows = []
    for workload, candidates in by_workload(results["window_batches"]).items():
        ours = next(line for line in candidates if line["candidate"] == OURS)
        speeds = [f"{ours['items'] / ours['timing'][which]:,.0f}" for which in ("median", "best")]
        floor = floor_seconds(ours, results["floors"])
        others = (
            f"{line['candidate']} {line['items'] / line['timing']['median']:,.0f} ({number(line['ratio'])})"
            for line in candidates
            if line is not ours
        )
        share = f"{floor / ours['timing']['best']:.0%}"
        rows.append([workload, *speeds, share, ", ".join(others)])
    header = "windows a second | median | best | floor / best | other forms (our speed over theirs)"
    return markdown(header, rows) + "\n\n" + machine(results["window_batches"])


def window_batches_memory_table(results: dict[str, list[Line]]) -> str:
    rows = [
        [line["candidate"], f"{line['peak_bytes'] / 1e6:.0f}", f"{line['before_bytes'] / 1e6:.0f}"]
        for line in results["window_batches_memory"]
    ]
    return markdown("MB of resident memory | at its peak | before the first batch", rows)


def training_step_table(results: dict[str, list[Line]]) -> str:
    """Return the share of each phase in a step; a phase's ratio is that share."""
    rows = []
    for workload, candidates in by_workload(results["training_step"]).items():
        whole, *phases = candidates
        shares = {line["candidate"]: line["ratio"] for line in phases}
        rows.append(
            [
                workload,
                f"{whole['timing']['median'] * 1e3:.0f}",
                *(f"{share:.1%}" for share in shares.values()),
                f"{shares['read'] + shares['mask']:.1%}",
            ]
        )
    header = "workload | ms a step | read | mask | forward | loss | backward | optimizer | read and mask"
    return markdown(header, rows) + "\n\n" + machine(results["training_step"])


def reached(goal: Goal, results: dict[str, list[Line]]) -> Line | None:
    """Return the peer's line, on the largest input that has one; of several peers, the fastest."""
    shorter = re.compile(re.escape(goal.workload) + r", [\d.]+ million spikes")
    found = []
    for workload, candidates in by_workload(results[goal.op]).items():
        if workload != goal.workload and not shorter.fullmatch(workload):
            continue
        for line in peers_of(candidates):
            name = line["candidate"]
            if goal.peer in (BEST, name) or name.startswith(f"{goal.peer} ("):
                found.append(line)
    return min(found, key=lambda line: line["ratio"], default=None)


def goals_table(results: dict[str, list[Line]]) -> str:
    rows = []
    for goal in GOALS:
        line = reached(goal, results)
        if line is None:
            continue
        peer = line["candidate"] if goal.peer != BEST else f"{BEST}: {line['candidate']}"
        peer = "share of a copy's speed" if peer == "copy" else peer
        ratios = f"{line['ratio']:.3g}", f"{line['ratio_of_best']:.3g}"
        met = "yes" if line["ratio"] >= goal.at_least else "no"
        rows.append([goal.op, line["workload"], peer, f"{goal.at_least:g}", *ratios, met])
    return markdown("op | workload | peer | goal | ratio of medians | of best times | reached", rows)


TABLES: dict[str, Callable[[dict[str, list[Line]]], str]] = {
    "floors": floors_table,
    "goals": goals_table,
    "bin_spikes": bin_spikes_table,
    "wrong cells": wrong_cells_table,
    "mask_regions": mask_regions_table,
    "gather_regions": functools.partial(times_table, "gather_regions"),
    "decode_nifti": decode_nifti_table,
    "decode_nifti memory": decode_nifti_memory_table,
    "bids_windows": functools.partial(times_table, "bids_windows"),
    "meeg_windows": functools.partial(times_table, "meeg_windows"),
    "window_batches": window_batches_table,
    "window_batches memory": window_batches_memory_table,
    "solve_ridge": solve_ridge_table,
    "readouts": functools.partial(times_table, "readouts"),
    "training_step": training_step_table,
}


MEASURED = (
    "floors",
    "bin_spikes",
    "mask_regions",
    "gather_regions",
    "decode_nifti",
    "decode_nifti_memory",
    "bids_windows",
    "meeg_windows",
    "window_batches",
    "window_batches_memory",
    "solve_ridge",
    "readouts",
    "training_step",
)


def load_results() -> dict[str, list[Line]]:
    return {name: harness.load(name) for name in MEASURED}


def fill(page: str, results: dict[str, list[Line]]) -> str:
    """Return the page with each table generated anew; raise if a mark is missing."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise ValueError(
                f"{PAGE.name} must hold the mark <!-- table: {name} --> and its <!-- end --> once"
            )
        table = make(results)
        page = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", page)
    return page


def main() -> None:
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), load_results()), encoding="utf-8")
    sys.stdout.write(f"wrote the tables of {PAGE.name}\n")


if __name__ == "__main__":
    main()
