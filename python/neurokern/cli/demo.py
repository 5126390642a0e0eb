"""``neurokern demo``: from raw spike times to a trained model, scores, a few-shot decoder and a report."""

from __future__ import annotations

import argparse
import pathlib
import time
from typing import TYPE_CHECKING

from neurokern.cli._common import Steps, new_parser, require_torch
from neurokern.cli._flags import add_scoring_flags, add_settings_flags

if TYPE_CHECKING:
    from neurokern.cli.sessions import LoadedSession
    from neurokern.cli.settings import RunSettings
    from neurokern.datasets import SpikeRecording

_EXAMPLES = """\
  neurokern demo                                       the recording that ships with the package
  neurokern demo --data my_session/                    your spikes: an ALF folder or a .npz file
  neurokern demo --data session.npz --label "contrast_left>contrast_right"
  neurokern demo --data my_session/ --align goCue_times --tmin -0.2 --tmax 0.8
  neurokern demo --set training.max_steps=2000         train longer

Without trials the demo takes sliding windows, and decodes whether a group of units that is hidden
from the model fires above its median. Without regions, groups of neighboring units stand in for them.
"""


_STEPS = 300  # half a minute on two cores for the shipped recording


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``demo``."""

    parser = new_parser(
        commands,
        "demo",
        run,
        summary="the whole path on one recording, with a report (a minute or two)",
        description=(
            "Bin a recording, train a small MtM, score its masked predictions beside baselines, decode from "
            "few labeled windows, and write report.html."
        ),
        examples=_EXAMPLES,
    )
    parser.add_argument("--data", metavar="PATH", help="your recording instead of the shipped one")
    parser.add_argument("--out", default="runs/demo", metavar="FOLDER", help="by default runs/demo")
    parser.add_argument("--align", metavar="COLUMN", help="event of the trials that windows are aligned to")
    parser.add_argument("--tmin", type=float, metavar="S", help="start of the window, seconds from the event")
    parser.add_argument("--tmax", type=float, metavar="S", help="end of the window, seconds from the event")
    add_scoring_flags(parser, max_units=300)
    add_settings_flags(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Go through the steps, saying what each does and finds."""
    require_torch("demo")
    from neurokern.report.style import require_matplotlib

    require_matplotlib()
    from neurokern.cli.assess import assess
    from neurokern.cli.few_shot import check_label
    from neurokern.cli.sessions import split_for_training
    from neurokern.cli.train import fit_to_windows, train_model, use_threads

    out = pathlib.Path(args.out)
    settings = _settings(args)
    use_threads(settings.threads)
    steps = Steps(6)
    with steps.step("load and bin the spikes"):
        loaded = _load(settings)
        session = loaded.session
        check_label(args.label, session)  # now, not after minutes of training
    with steps.step("split in time: train, then validation, then test"):
        parts = split_for_training(session, settings.split)
        steps.note(f"{len(parts.train)} / {len(parts.validation)} / {len(parts.test)} windows")
    settings = fit_to_windows(settings, [session])
    with steps.step(f"train MtM, {settings.training.max_steps} steps"):
        model, _ = train_model(settings, [parts], out, replace=True)
        steps.note(f"{sum(p.numel() for p in model.parameters()):,} weights; curves in {out / 'metrics.csv'}")
    assess(model, loaded, parts, settings, out, args, steps, title="From raw spikes to a few-shot decoder")


def _settings(args: argparse.Namespace) -> RunSettings:
    """Return the settings, with the flags of windows on top."""
    from neurokern._config import apply_settings
    from neurokern.cli.sessions import sample_path
    from neurokern.cli.settings import RunSettings, effective_settings, with_data

    recipe = {"training": {"max_steps": _STEPS, "validate_every": _STEPS // 12}}
    settings = effective_settings(args, apply_settings(RunSettings(), recipe))
    given = {"align": args.align, "tmin": args.tmin, "tmax": args.tmax}
    windows = {name: value for name, value in given.items() if value is not None}
    settings = apply_settings(settings, {"windows": windows}, where="demo")
    return with_data(settings, [args.data or str(sample_path())])


def _load(settings: RunSettings) -> LoadedSession:
    """Load the recording, and say what it is, how fast it was binned and what was assumed."""
    from neurokern.cli.sessions import find_sources, load_session

    sources = find_sources(settings.data)
    if len(sources) > 1:
        Steps.note(f"{len(sources)} recordings found; the demo takes {sources[0].name}, `train` takes all")
    loaded = load_session(sources[0], settings.windows)
    session = loaded.session
    Steps.note(f"{session.n_units} units; {loaded.how}; {session.n_windows} windows of {session.n_bins} bins")
    if loaded.recording is not None:
        Steps.note(_binning_speed(loaded.recording, settings.windows.bin_size))
    for note in loaded.notes:
        Steps.note(f"note: {note}")
    return loaded


def _binning_speed(recording: SpikeRecording, bin_size: float) -> str:
    """Bin the whole recording a few times and say how long the fastest took."""
    import numpy as np

    from neurokern.ops import bin_spikes

    n_bins = max(int(recording.duration / bin_size), 1)
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        bin_spikes(
            recording.times,
            recording.units,
            bin_size,
            start=recording.start,
            stop=recording.start + n_bins * bin_size,
            n_units=recording.n_units,
            dtype=np.uint16,
            overflow="saturate",
        )
        best = min(best, time.perf_counter() - begun)
    speed = recording.n_spikes / best / 1e6
    return (
        f"bin_spikes: {recording.n_spikes:,} spikes into {n_bins:,} bins x {recording.n_units} units "
        f"in {best * 1000:.2f} ms ({speed:,.0f} million spikes a second)"
    )
