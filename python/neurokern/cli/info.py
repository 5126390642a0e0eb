"""``neurokern info``: what a recording, an image or a BIDS folder holds."""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from neurokern.cli._common import facts_text, new_parser, say
from neurokern.cli.bids_facts import dataset_rows, describe_dataset
from neurokern.cli.image_facts import describe_image, image_rows, is_image
from neurokern.cli.meeg_facts import describe_recording, is_recording, recording_rows

if TYPE_CHECKING:
    import pandas as pd

    from neurokern.datasets import BinnedSession, SpikeRecording

_EXAMPLES = """\
  neurokern info session.nwb          units, trials and behavior; also folders of Kilosort and Phy
  neurokern info sub-01_eeg.edf       channels, rate and events of EEG, MEG, iEEG
  neurokern info alf/probe00/         an ALF folder with spikes.times.npy and spikes.clusters.npy
  neurokern info session03.npz        spike times, or counts in bins
  neurokern info recordings/ --json   every recording in a folder
  neurokern info sub-01_bold.nii.gz   header of an image, and what its sidecar says
  neurokern info ds000001/            a BIDS folder: subjects, runs, events, what does not fit together
"""
_MOST_WARNINGS = 12
_MOST_REGIONS = 12


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``info``."""
    parser = new_parser(
        commands,
        "info",
        run,
        summary="what a recording, an image or a BIDS folder holds",
        description=(
            "Show spikes, units, rates, regions and trials of recordings, and what was repaired; the header "
            "of NIfTI images; channels and events of EEG and MEG; subjects, runs and events of BIDS folders. "
            "Signals of images and EEG are not read."
        ),
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "data", nargs="+", metavar="FILE|FOLDER", help="recordings, images, or folders of them"
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    return parser


def run(args: argparse.Namespace) -> None:
    """Print the facts of each recording, image and BIDS folder."""
    facts = [describe(source) for path in args.data for source in _sources(pathlib.Path(path))]
    if args.json:
        say(json.dumps(facts, indent=2))
        return
    say("\n\n".join(_as_text(one) for one in facts))


def _sources(path: pathlib.Path) -> list[pathlib.Path]:
    """Return what a path names: an image, a BIDS folder, or the recordings or images in a folder."""
    from neurokern.cli.sessions import find_sources
    from neurokern.datasets.bids_file import is_bids_folder

    if is_image(path) or is_recording(path) or (path.is_dir() and is_bids_folder(path)):
        return [path]
    if not path.is_dir():
        return find_sources([str(path)])
    try:
        return find_sources([str(path)])
    except FileNotFoundError as error:
        images = [file for file in sorted(path.glob("**/*")) if is_image(file) and not _has_header(file)]
        if not images:
            raise FileNotFoundError(f"{error}, or .nii files, or folders of subjects (sub-*)") from None
        return images


def _has_header(path: pathlib.Path) -> bool:
    """Return whether a file holds the values of a pair, of which the header is named instead."""
    stem = path.name.removesuffix(".gz")
    return stem.endswith(".img") and path.with_name(f"{stem.removesuffix('.img')}.hdr").exists()


def describe(path: pathlib.Path) -> dict[str, Any]:
    """Return facts about a recording, a file of binned counts, an image or a BIDS folder.

    No free text is in them that may name a subject; of BIDS folders the subjects' labels are.
    """
    from neurokern.datasets import BinnedSession, load_recording
    from neurokern.datasets.bids_file import is_bids_folder

    if is_image(path):
        return describe_image(path)
    if is_recording(path):
        return describe_recording(path)
    if path.is_dir() and is_bids_folder(path):
        return describe_dataset(path)
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
        "series": sorted(recording.series),
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
    if "affine" in facts:
        rows = image_rows(facts)
    elif "bids_version" in facts:
        rows = dataset_rows(facts)
    elif "sfreq_hz" in facts:
        rows = recording_rows(facts)
    else:
        rows = _recording_rows(facts)
    warnings = facts.get("warnings", [])
    rows += [("warning", text) for text in warnings[:_MOST_WARNINGS]]
    if len(warnings) > _MOST_WARNINGS:
        rows.append(("warning", f"and {len(warnings) - _MOST_WARNINGS} more; --json lists all"))
    return facts_text(facts["source"], rows)


def _recording_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("holds", facts["holds"]), ("spikes", f"{facts['spikes']:,} of {facts['units']:,} units")]
    if "start_s" in facts:
        rows.append(("time", f"{facts['start_s']:g} to {facts['stop_s']:g} s"))
    rows.append(("rates", _rates_text(facts["rates_hz"])))
    if facts.get("depth_um"):
        rows.append(("depth", "{:g} to {:g} µm".format(*facts["depth_um"])))
    rows.append(("regions", _regions_text(facts["regions"])))
    trials = facts["trials"]
    rows.append(("trials", "none" if trials is None else f"{trials['rows']}: {', '.join(trials['columns'])}"))
    if facts.get("series"):
        rows.append(("series", ", ".join(facts["series"])))
    return [*rows, *[("note", note) for note in facts["notes"]]]


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
