"""``neurokern adapt``: bring a trained model to a new recording, and decode from few labeled windows."""

from __future__ import annotations

import argparse
import pathlib
from dataclasses import replace
from typing import TYPE_CHECKING

from neurokern.cli._common import Steps, new_parser, require_torch
from neurokern.cli._flags import add_scoring_flags, add_settings_flags
from neurokern.cli.adapter_names import ADAPTER_NAMES, WORDS

if TYPE_CHECKING:
    from neurokern.cli.settings import RunSettings

_EXAMPLES = f"""\
  neurokern adapt runs/a new_session.npz               into runs/a-new_session
  neurokern adapt runs/a new_session.npz --out runs/new --mode full
  neurokern adapt runs/a new.npz --out runs/new --label "contrast_left>contrast_right"
  neurokern adapt runs/a new.npz --out runs/new --label choice --adapter lora
  neurokern adapt runs/a alf/probe00 --out runs/new --set training.max_steps=100

Windows and split are those of RUN unless --set changes them. The folder gets the adapted weights
(best/), run.yaml, scores.csv, few_shot.csv and report.html; `neurokern evaluate` takes it as a run. With
--adapter, adapter/ holds what the adapter adds to best/: AdaptedModel.load("adapter", load_model("best")).

adapters: {WORDS}"""
_STEPS = 400  # as adapters.adapt_session takes by default
_VALIDATE_EVERY = 50


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``adapt``."""

    parser = new_parser(
        commands,
        "adapt",
        run,
        summary="bring a trained model to a new recording, decode from few labels",
        description=(
            "Give a trained model a read-in and a read-out for a recording that it does not know, trained by "
            "masked prediction without labels; score it beside baselines; decode from few labeled windows."
        ),
        examples=_EXAMPLES,
    )
    parser.add_argument("run_folder", metavar="RUN", help="folder that `neurokern train` wrote")
    parser.add_argument("data", metavar="DATA", help="the new recording")
    parser.add_argument("--out", metavar="FOLDER", help="folder for the adapted model (RUN-NAME by default)")
    parser.add_argument(
        "--mode",
        choices=("stitch", "full"),
        default="stitch",
        help="stitch (default): train only the new session's parts; full: all weights, as in the publication",
    )
    parser.add_argument(
        "--adapter",
        choices=ADAPTER_NAMES,
        help="then fit this adapter of the model to the label of the trials; see below",
    )
    add_scoring_flags(parser)
    add_settings_flags(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Adapt, score, decode, report."""
    require_torch("adapt")
    from neurokern.report.style import require_matplotlib

    require_matplotlib()
    from neurokern.adapters import adapt_session
    from neurokern.checkpoint import load_model, save_model
    from neurokern.cli.assess import assess
    from neurokern.cli.few_shot import check_label
    from neurokern.cli.fit_adapter import check_adapter_label, fit_adapter
    from neurokern.cli.sessions import find_sources, load_session, split_for_training
    from neurokern.cli.train import check_fit, describe_sessions, fit_to_windows, prepare_folder, use_threads

    base = pathlib.Path(args.run_folder)
    out = pathlib.Path(args.out or f"{base}-{pathlib.Path(args.data).stem}")
    settings = _settings(args, base)
    use_threads(settings.threads)
    model = load_model(base)
    steps = Steps(6 if args.adapter else 5)
    with steps.step("load and bin the recording"):
        sources = find_sources([args.data])
        if len(sources) > 1:
            raise ValueError(f"{args.data} holds {len(sources)} recordings; adapt takes one at a time")
        loaded = load_session(sources[0], settings.windows)
        session = loaded.session
        parts = split_for_training(session, settings.split)
        describe_sessions([loaded], {session.session: parts}, steps.note)
        check_label(args.label, parts)  # now, not after minutes of training
        label = check_adapter_label(args.label, parts) if args.adapter else ""
        check_fit(model, session)
        if session.session in model.sessions:
            steps.note(f"the model knows {session.session!r} already and goes on from there")
    settings = replace(fit_to_windows(settings, [session]), model=model.config)
    prepare_folder(out, settings)
    # Settings that train nothing of a session stitch it in closed form, from training and validation windows.
    closed_form = args.mode == "stitch" and settings.training.session_learning_rate == 0
    how = "in closed form" if closed_form else f"{settings.training.max_steps} steps"
    with steps.step(f"adapt ({args.mode}) {how}, without labels"):
        adapted = adapt_session(model, parts.train, parts.validation, args.mode, settings.training, out)
        if closed_form:
            save_model(adapted, out / "best")
    if args.adapter:
        with steps.step(f"fit the adapter {args.adapter} to labels"):
            seed = settings.training.seed
            steps.note(fit_adapter(adapted, parts, label, args.adapter, out / "adapter", seed))
    title = f"A trained MtM on a new recording ({_MODE_WORDS[args.mode]})"
    assess(adapted, loaded, parts, settings, out, args, steps, title=title)


_MODE_WORDS = {"stitch": "trunk frozen", "full": "all weights fine-tuned"}


def _settings(args: argparse.Namespace, base: pathlib.Path) -> RunSettings:
    """Return windows and split of the run, with the recipe of adaptation, and the flags on top."""
    from neurokern.cli.settings import effective_settings, read_run_settings, with_data

    settings = read_run_settings(base)
    recipe = replace(settings.training, max_steps=_STEPS, validate_every=_VALIDATE_EVERY)
    return with_data(effective_settings(args, replace(settings, training=recipe)), [args.data])
