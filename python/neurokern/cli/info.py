"""``neurokern info``: what a recording holds."""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern.cli._common import new_parser, say

if TYPE_CHECKING:
    import pandas as pd

    from neurokern.datasets import BinnedSession, SpikeRecording

_EXAMPLES = """\
  neurokern info alf/probe00/         an ALF folder with spikes.times.npy and spikes.clusters.npy
  neurokern info session03.npz        spike times, or counts in bins
  neurokern info recordings/ --json   every recording in a folder
"""
_MOST_REGIONS = 12


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``info``."""
    parser = new_parser(
        commands,
        "info",
        run,
        summary="what a recording holds",
        description="Show spikes, units, rates, regions and trials of recordings, and what was repaired.",
        examples=_EXAMPLES,
    )
    parser.add_argument("data", nargs="+", metavar="FILE|FOLDER", help="recordings, or folders of recordings")
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    return parser


def run(args: argparse.Namespace) -> None:
    """Print the facts of each recording."""
    from neurokern.cli.sessions import find_sources

    facts = [describe(source) for source in find_sources(args.data)]
    if args.json:
        say(json.dumps(facts, indent=2))
        return
    say("\n\n".join(_as_text(one) for one in facts))


def describe(path: pathlib.Path) -> dict[str, Any]:
    """Return facts about a recording, or about a file of binned counts. Nothing in them names a subject."""
    from neurokern.datasets import BinnedSession, load_recording

    recording = load_recording(path)
    if isinstance(recording, BinnedSession):
        return _describe_binned(path, recording)
    return _describe_recording(path, recording)


def _describe_recording(path: pathlib.Path, recording: SpikeRecording) -> dict[str, Any]:
    depth = recording.unit_table["depth"].to_numpy(float)
    return {
        "source": path.name,
        "holds": "spike times",
        "spikes": recording.n_spikes,
        "units": recording.n_units,
        "start_s": recording.start,
        "stop_s": recording.stop,
        "rates_hz": _rate_facts(recording.rates),
        "depth_um": [float(np.nanmin(depth)), float(np.nanmax(depth))] if np.isfinite(depth).any() else None,
        "regions": _region_sizes(recording.regions),
        "trials": _trial_facts(recording.trials),
        "notes": list(recording.notes),
    }


def _describe_binned(path: pathlib.Path, session: BinnedSession) -> dict[str, Any]:
    counts = session.counts
    seconds = session.n_windows * session.n_bins * session.bin_size
    rates = counts.sum(axis=(0, 1), dtype=np.int64) / max(seconds, 1e-9)
    return {
        "source": path.name,
        "holds": f"counts in {session.n_windows} windows of {session.n_bins} bins of {session.bin_size:g} s",
        "spikes": int(counts.sum(dtype=np.int64)),
        "units": session.n_units,
        "windows": session.n_windows,
        "bins": session.n_bins,
        "bin_size_s": session.bin_size,
        "rates_hz": _rate_facts(rates),
        "regions": _region_sizes(session.regions),
        "trials": _trial_facts(session.trials),
        "notes": list(session.notes),
    }


def _rate_facts(rates: np.ndarray) -> dict[str, float] | None:
    if not rates.size or not np.isfinite(rates).any():
        return None
    low, median, high = np.nanquantile(rates, [0.05, 0.5, 0.95])
    return {
        "p5": float(low),
        "median": float(median),
        "p95": float(high),
        "silent_units": int((rates == 0).sum()),
    }


def _region_sizes(regions: np.ndarray) -> dict[str, int]:
    names, sizes = np.unique(regions, return_counts=True)
    return {str(names[i]): int(sizes[i]) for i in np.argsort(-sizes, kind="stable")}


def _trial_facts(trials: pd.DataFrame | None) -> dict[str, Any] | None:
    if trials is None:
        return None
    return {"rows": len(trials), "columns": [str(name) for name in trials.columns]}


def _as_text(facts: dict[str, Any]) -> str:
    rows = [("holds", facts["holds"]), ("spikes", f"{facts['spikes']:,} of {facts['units']:,} units")]
    if "start_s" in facts:
        rows.append(("time", f"{facts['start_s']:g} to {facts['stop_s']:g} s"))
    rows.append(("rates", _rates_text(facts["rates_hz"])))
    if facts.get("depth_um"):
        rows.append(("depth", "{:g} to {:g} µm".format(*facts["depth_um"])))
    rows.append(("regions", _regions_text(facts["regions"])))
    trials = facts["trials"]
    rows.append(("trials", "none" if trials is None else f"{trials['rows']}: {', '.join(trials['columns'])}"))
    rows += [("note", note) for note in facts["notes"]]
    return "\n".join([facts["source"], *(f"  {name:<8} {value}" for name, value in rows)])


def _rates_text(rates: dict[str, float] | None) -> str:
    if rates is None:
        return "none (no spikes or no duration)"
    silent = f"; {rates['silent_units']} units without a spike" if rates["silent_units"] else ""
    return f"median {rates['median']:.2f} Hz, 5-95 % {rates['p5']:.2f}-{rates['p95']:.2f} Hz{silent}"


def _regions_text(sizes: dict[str, int]) -> str:
    if set(sizes) <= {""}:
        return "none named"
    shown = [f"{name or 'unknown'} {size}" for name, size in list(sizes.items())[:_MOST_REGIONS]]
    more = len(sizes) - len(shown)
    return f"{len(sizes)}: {', '.join(shown)}{f', and {more} more' if more else ''}"
