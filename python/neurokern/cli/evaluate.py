"""``neurokern evaluate``: masked-prediction scores of a trained model beside the baselines."""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING

from neurokern.cli._common import new_parser, require_torch, say
from neurokern.cli._flags import positive_int

if TYPE_CHECKING:
    from neurokern.datasets import BinnedSession, Splits

__all__ = [
    "add_baseline_flags",
    "add_parser",
    "baseline_names",
    "check_conditions",
    "condition_columns",
    "run",
]

BASELINES = ("ridge", "reduced rank", "GLM", "PSTH", "unit mean")

_EXAMPLES = """\
  neurokern evaluate runs/a                     the test windows of the run's own recordings
  neurokern evaluate runs/a --report            with figures
  neurokern evaluate runs/a other/copy.npz      only these; the model must know the sessions
  neurokern evaluate runs/a --max-units 100     score 100 units of each session (faster)
  neurokern evaluate runs/a --conditions choice,feedback --label choice    PSTHs and decoding

Tasks: co-smoothing (each unit from all others), forward-prediction (the last tenth of a window),
intra-region (each unit from its own region), inter-region (a region from all others). Baselines,
fitted on the same training windows: ridge regression, reduced-rank ridge (where a task asks for
many units at once) and a Poisson GLM, tuned on the validation windows; the mean training window
of the trial's condition (PSTH); and the unit's mean rate; --baselines leaves some out. A label of
the trials is decoded from the model and from raw counts.
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``evaluate``."""
    parser = new_parser(
        commands,
        "evaluate",
        run,
        summary="scores on held-out windows, beside the baselines",
        description="Score a trained model on the test windows of its recordings, in bits per spike.",
        examples=_EXAMPLES,
    )
    parser.add_argument("run_folder", metavar="RUN", help="folder that `neurokern train` wrote")
    parser.add_argument("data", nargs="*", metavar="DATA", help="recordings; by default those of the run")
    parser.add_argument("--report", action="store_true", help="also write report.html")
    parser.add_argument(
        "--max-units",
        type=positive_int,
        metavar="N",
        help="score at most N units of each session (default: all)",
    )
    add_baseline_flags(parser)
    parser.add_argument(
        "--label",
        metavar="EXPRESSION",
        help="what to decode: COLUMN, COLUMN>COLUMN or COLUMN>NUMBER; by default choice, side or feedback "
        'where the trials have one; "none" decodes nothing',
    )
    parser.add_argument("--out", metavar="FOLDER", help="folder for the tables; by default RUN")
    return parser


def add_baseline_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--baselines`` and ``--conditions``."""
    parser.add_argument(
        "--baselines",
        type=baseline_names,
        default=BASELINES,
        metavar="NAMES",
        help="some of ridge,reduced-rank,glm,psth,unit-mean; by default all",
    )
    parser.add_argument(
        "--conditions",
        metavar="COLUMNS",
        help="columns of the trials, joined by commas, whose combinations are the conditions of PSTHs; by "
        "default all trials are one",
    )


def baseline_names(text: str) -> tuple[str, ...]:
    """Read a list such as ``ridge,glm`` off the command line."""
    known = {name.lower().replace(" ", "-"): name for name in BASELINES}
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"unknown {', '.join(unknown)}; known are {', '.join(known)}")
    return tuple(known[name] for name in names)


def condition_columns(text: str | None) -> list[str]:
    """Return the columns that ``--conditions`` names."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def check_conditions(text: str | None, parts: Splits[BinnedSession]) -> None:
    """Raise ValueError if the trials of a recording lack a column that ``--conditions`` names."""
    columns, trials = condition_columns(text), parts.test.trials
    if not columns:
        return
    if trials is None:
        raise ValueError(f"--conditions {text}: recording {parts.test.session!r} has no trials")
    if missing := [name for name in columns if name not in trials]:
        raise ValueError(
            f"--conditions: the trials of {parts.test.session!r} have no column {', '.join(missing)}; they "
            f"have {', '.join(map(str, trials.columns))}"
        )


def run(args: argparse.Namespace) -> None:
    """Score, print the table, write the files."""
    require_torch("evaluate")
    from neurokern.checkpoint import load_model
    from neurokern.cli.decoding import decode_sessions
    from neurokern.cli.run_report import RunResults, write_run_report
    from neurokern.cli.scores import (
        differences_text,
        predictors_of,
        score_sessions,
        scores_text,
        write_scores,
    )
    from neurokern.cli.sessions import check_parts, load_sessions, split_for_training
    from neurokern.cli.settings import read_run_settings
    from neurokern.cli.train import check_fit, use_threads
    from neurokern.report.style import require_matplotlib

    if args.report:
        require_matplotlib()  # now, not after minutes of work
    folder = pathlib.Path(args.run_folder)
    out = pathlib.Path(args.out or folder)
    settings = read_run_settings(folder)
    use_threads(settings.threads)
    model = load_model(folder / "best")
    loaded = load_sessions(args.data or settings.data, settings.windows)
    unknown = [one.session.session for one in loaded if one.session.session not in model.sessions]
    if unknown:
        raise ValueError(
            f"the model does not know {', '.join(unknown)} (it knows {', '.join(model.sessions)}); "
            f"adapt it first: neurokern adapt {folder} DATA"
        )
    for one in loaded:
        check_fit(model, one.session)
    splits = {one.session.session: split_for_training(one.session, settings.split) for one in loaded}
    for parts in splits.values():
        check_parts(parts)
        check_conditions(args.conditions, parts)
    conditions = condition_columns(args.conditions)
    predictors = {}
    for session, parts in splits.items():
        say(f"{session}: fitting the baselines on {len(parts.train)} windows")
        predictors[session] = predictors_of(model, parts, args.baselines, max_units=args.max_units)
    scores = score_sessions(
        predictors,
        splits,
        max_units=args.max_units,
        conditions=conditions if conditions or "PSTH" in args.baselines else None,
    )
    say("\nbits per spike on test windows: mean over units [95 % interval over units]")
    say(scores_text(scores))
    if len(set(scores["predictor"])) > 1:
        say("\nMtM minus each baseline on the same units")
        say(differences_text(scores))
    decoding = None if args.label == "none" else decode_sessions(model, splits, args.label)
    if decoding is not None:
        say(f"\ndecoding {decoding.label} from the test windows, by readouts fitted on the others")
        say(decoding.as_text())
    say()
    for path in write_scores(out, scores):
        say(f"table   {path}")
    if decoding is not None:
        say(f"table   {decoding.write(out)}")
    if args.report:
        results = RunResults(
            settings=settings,
            loaded=loaded,
            splits=splits,
            predictors=predictors,
            scores=scores,
            folder=folder,
            decoding=decoding,
        )
        say(f"report  {write_run_report(out / 'report.html', results)}")
