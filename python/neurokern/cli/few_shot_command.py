"""``neurokern few-shot``: how well adapters decode recordings that a model never saw, from few labels."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING

from neurokern.cli._common import Steps, new_parser, require_torch, say
from neurokern.cli._flags import LABEL_HELP, add_settings_flags
from neurokern.cli.adapter_names import WORDS
from neurokern.cli.few_shot_protocol import add_protocol_flags

if TYPE_CHECKING:
    from neurokern.cli.sessions import LoadedSession
    from neurokern.cli.settings import RunSettings
    from neurokern.datasets import BinnedSession, Splits
    from neurokern.models import MtM

_EXAMPLES = f"""\
  neurokern few-shot runs/a new_mouse/ --label "contrast_left>contrast_right"
  neurokern few-shot runs/a new.npz --label choice --adapters ridge,probe,lora,full,scratch
  neurokern few-shot runs/a new.npz --label choice --shots 1,5,20 --episodes 50 --tuned-episodes 5

Recordings that RUN does not know are stitched in first, without labels. Support sets come from their
training windows, queries are their test windows. The folder gets few_shot.csv (means, intervals, differences
to ridge on raw counts), few_shot_episodes.csv and splits.json.

adapters: {WORDS}"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``few-shot``."""
    parser = new_parser(
        commands,
        "few-shot",
        run,
        summary="compare adapters on recordings with few labels",
        description=(
            "Decode a label of the trials from k labeled windows per class, with read-outs of features and "
            "adapters of the model, on the same support sets; beside raw counts and a model from scratch."
        ),
        examples=_EXAMPLES,
    )
    parser.add_argument("run_folder", metavar="RUN", help="folder that `neurokern train` wrote")
    parser.add_argument("data", metavar="DATA", nargs="+", help="recordings, or folders of them")
    parser.add_argument("--label", metavar="EXPR", required=True, help=LABEL_HELP)
    add_protocol_flags(parser)
    parser.add_argument("--out", metavar="FOLDER", help="folder for the tables (RUN-few-shot by default)")
    add_settings_flags(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Stitch, compare, write."""
    require_torch("few-shot")
    from neurokern.adapters import write_few_shot_splits
    from neurokern.checkpoint import load_model
    from neurokern.cli.few_shot_protocol import (
        few_shot_task_of,
        few_shot_text,
        run_protocol,
        stitched,
        summarize_protocol,
        write_protocol,
    )
    from neurokern.cli.settings import effective_settings, read_run_settings, with_data
    from neurokern.cli.train import use_threads

    base = pathlib.Path(args.run_folder)
    out = pathlib.Path(args.out or f"{base}-few-shot")
    settings = with_data(effective_settings(args, read_run_settings(base)), args.data)
    seed = settings.training.seed
    use_threads(settings.threads)
    model = load_model(base)
    steps = Steps(3)
    with steps.step("load and bin the recordings"):
        loaded, parts = _load(args, settings, model, steps)
    with steps.step("stitch them to the model, without labels"):
        known = [parts[one.session.session] for one in loaded]
        tasks = [few_shot_task_of(stitched(model, one, settings), one, args.label) for one in known]
    with steps.step(f"decode {args.label} from few labeled windows"):
        episodes = run_protocol(args, tasks, seed)
        steps.lines(few_shot_text(summarize_protocol(episodes, seed)))
    out.mkdir(parents=True, exist_ok=True)
    table, rows = write_protocol(out, episodes, seed)
    splits = write_few_shot_splits(
        out / "splits.json", tasks, shots=args.shots, episodes=args.episodes, seed=seed
    )
    say(f"tables   {table}, {rows}")
    say(f"splits   {splits}")


def _load(
    args: argparse.Namespace, settings: RunSettings, model: MtM, steps: Steps
) -> tuple[list[LoadedSession], dict[str, Splits[BinnedSession]]]:
    """Load every recording and see that it can be used, before minutes are spent on the first."""
    from neurokern.cli.few_shot import check_label
    from neurokern.cli.sessions import load_sessions, split_for_training
    from neurokern.cli.train import check_fit, describe_sessions

    loaded = load_sessions(args.data, settings.windows)
    parts = {one.session.session: split_for_training(one.session, settings.split) for one in loaded}
    describe_sessions(loaded, parts, steps.note)
    for one in loaded:
        check_fit(model, one.session)
        check_label(args.label, parts[one.session.session])
    return loaded, parts
