"""``neurokern transfer``: leave recordings out of pretraining, bring the model to them, score it there."""

from __future__ import annotations

import argparse
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from neurokern._config import write_text
from neurokern.cli._common import Steps, new_parser, require_torch, say, speaks, write_csv
from neurokern.cli._flags import LABEL_HELP, add_settings_flags, positive_int
from neurokern.cli.adapter_names import WORDS
from neurokern.cli.evaluate import (
    add_baseline_flags,
    check_conditions,
    condition_columns,
)
from neurokern.cli.few_shot_protocol import add_protocol_flags

if TYPE_CHECKING:
    import pandas as pd

    from neurokern.adapters import FewShotTask
    from neurokern.cli.settings import RunSettings
    from neurokern.datasets import BinnedSession, Splits
    from neurokern.models import MtM

_EXAMPLES = f"""\
  neurokern transfer sessions/ --out runs/sessions-out --label "contrast_left>contrast_right"
  neurokern transfer sessions/ --out runs/mice-out --hold-out subject --label choice
  neurokern transfer sessions/ --out runs/quick --only monday,friday --max-units 100 --no-alone

For each fold a model is pretrained on all other recordings. Each one that was left out is then stitched in
without labels (trunk frozen) and scored on its test windows: masked prediction beside the baselines and
beside the same model pretrained on that recording alone, and, with --label, decoding from few labeled
windows. After an interruption the same command goes on with what is left.

adapters: {WORDS}"""
_PROTOCOL = "transfer.json"
_ALONE = "MtM alone"
_DECIDING = (
    *(
        "hold_out",
        "label",
        "max_units",
        "baselines",
        "conditions",
        "no_alone",
        "adapters",
        "shots",
        "episodes",
    ),
    *("tuned_episodes", "tuned_shots", "epochs"),
)
_AS_TEXT = {"session": str, "subject": str, "region": str}  # names may look like numbers


@dataclass(frozen=True)
class Fold:
    """Recordings that one model does not see."""

    name: str
    held_out: tuple[str, ...]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the command ``transfer``."""
    parser = new_parser(
        commands,
        "transfer",
        run,
        summary="leave sessions or subjects out of pretraining and score the model on them",
        description=(
            "Pretrain on all recordings but one session (or one subject), bring the model to what was left "
            "out, score it there beside baselines; for every session (or subject) in turn."
        ),
        examples=_EXAMPLES,
    )
    parser.add_argument("data", metavar="DATA", nargs="+", help="recordings, or folders of them")
    parser.add_argument("--out", metavar="FOLDER", required=True, help="folder for models and tables")
    parser.add_argument(
        "--hold-out", choices=("session", "subject"), default="session", help="what a fold leaves out"
    )
    parser.add_argument(
        "--only",
        type=_names,
        metavar="NAME,NAME",
        help="leave out these sessions (subjects) alone, in turn; by default each",
    )
    parser.add_argument("--label", metavar="EXPR", help=LABEL_HELP + " Without it nothing is decoded.")
    parser.add_argument(
        "--max-units", type=positive_int, metavar="N", help="score at most N units of each session"
    )
    add_baseline_flags(parser)
    parser.add_argument(
        "--no-alone", action="store_true", help="do not train the model on the held-out recordings alone"
    )
    parser.add_argument(
        "--recipe", choices=("small", "modern", "paper", "ndt2"), default="small", help="as in train"
    )
    add_protocol_flags(parser)
    add_settings_flags(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Check everything, run the folds, write and show the tables."""
    require_torch("transfer")
    from neurokern.cli.few_shot_protocol import few_shot_text, summarize_protocol, write_protocol
    from neurokern.cli.scores import differences_text, scores_text, write_scores
    from neurokern.cli.train import use_threads

    out = pathlib.Path(args.out)
    settings, sources, parts = _load(args)
    use_threads(settings.threads)
    if not speaks():
        logging.getLogger("neurokern").setLevel(logging.WARNING)
    subjects = {name: one.train.subject or "" for name, one in parts.items()}
    folds = make_folds(subjects, args.hold_out, args.only)
    _begin(out, args, settings, folds)
    args.interrupted = "; the same command goes on with what is left"
    steps = Steps(len(folds))
    for fold in folds:
        with steps.step(f"{fold.name}: without {', '.join(fold.held_out)}"):
            _run_fold(out / fold.name, fold, args, settings, sources, parts)
    scores = _joined(out, folds, "scores_per_unit.csv")
    say("\nbits per spike on test windows of held-out recordings: mean over units [95 % interval over units]")
    say(scores_text(scores))
    if scores["predictor"].nunique() > 1:
        say("\nMtM minus each baseline on the same units")
        say(differences_text(scores))
    files = write_scores(out, scores)
    seed = settings.training.seed
    decoded = [fold for fold in folds if (out / fold.name / "few_shot_episodes.csv").is_file()]
    if args.label and decoded:
        episodes = _joined(out, decoded, "few_shot_episodes.csv")
        say(f"\n{args.label} from few labeled windows of held-out recordings")
        say(few_shot_text(summarize_protocol(episodes, seed)))
        files += write_protocol(out, episodes, seed)
    if note := _shared_subjects(folds, subjects):
        say(note)
    for path in files:
        say(f"table   {path}")


def _joined(out: pathlib.Path, folds: Sequence[Fold], file: str) -> pd.DataFrame:
    """Return the tables of all folds below each other."""
    import pandas as pd

    return pd.concat(
        [pd.read_csv(out / fold.name / file, dtype=_AS_TEXT) for fold in folds], ignore_index=True
    )


def make_folds(subjects: Mapping[str, str], hold_out: str, only: Sequence[str] | None = None) -> list[Fold]:
    """Return the folds for sessions with their subjects, in the order of the sessions.

    A fold has the same number whichever of them are run.

    Raises
    ------
    ValueError
        If a session's subject is needed and not known, or fewer than two folds can be made.
    """
    if hold_out == "session":
        groups = {name: [name] for name in subjects}
    else:
        if unknown := [name for name, subject in subjects.items() if not subject]:
            raise ValueError(
                f"--hold-out subject: the subject of {', '.join(unknown[:3])} is not known; name it in the "
                "recording (of an .npz file: `subject`), or leave out sessions"
            )
        groups = {}
        for name, subject in subjects.items():
            groups.setdefault(subject, []).append(name)
    if len(groups) < 2:
        raise ValueError(
            f"--hold-out {hold_out}: needs recordings of at least two {hold_out}s, got {len(groups)}; one "
            "must be left to pretrain on"
        )
    if unknown := [name for name in only or () if name not in groups]:
        raise ValueError(
            f"--only: there is no {hold_out} {', '.join(unknown)}; there are {', '.join(groups)}"
        )
    return [
        Fold(f"fold-{number:02d}", tuple(held))
        for number, (name, held) in enumerate(groups.items(), start=1)
        if only is None or name in only
    ]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _load(
    args: argparse.Namespace,
) -> tuple[RunSettings, dict[str, pathlib.Path], dict[str, Splits[BinnedSession]]]:
    """Load every recording and see that it can be used, before minutes are spent on the first."""
    from neurokern.cli.few_shot import check_label
    from neurokern.cli.sessions import check_parts, find_sources, load_sessions, split_for_training
    from neurokern.cli.settings import effective_settings, settings_of_recipe, with_data
    from neurokern.cli.train import describe_sessions, fit_to_windows

    settings = with_data(effective_settings(args, settings_of_recipe(args.recipe)), args.data)
    loaded = load_sessions(settings.data, settings.windows)
    settings = fit_to_windows(settings, [one.session for one in loaded])
    parts = {one.session.session: split_for_training(one.session, settings.split) for one in loaded}
    describe_sessions(loaded, parts)
    for one in parts.values():
        check_parts(one)
        check_conditions(args.conditions, one)
        if args.label:
            check_label(args.label, one)
    return settings, dict(zip(parts, find_sources(settings.data), strict=True)), parts


def _begin(out: pathlib.Path, args: argparse.Namespace, settings: RunSettings, folds: Sequence[Fold]) -> None:
    """Write what the comparison is, or see that the folder holds this very one."""
    from neurokern._config import to_mapping

    described: dict[str, Any] = to_mapping(settings)
    for free in ("data", "threads"):  # paths may change, and threads change rounding alone
        described.pop(free)
    described["protocol"] = {name: getattr(args, name) for name in _DECIDING}
    described["folds"] = {fold.name: list(fold.held_out) for fold in folds}
    text = json.dumps(described, indent=2) + "\n"
    file = out / _PROTOCOL
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        now = json.loads(text)
        now["folds"] = before["folds"] = {**before["folds"], **now["folds"]}  # others, or more, are welcome
        text = json.dumps(now, indent=2) + "\n"
        if before != now:
            changed = sorted(name for name in now if before.get(name) != now[name])
            raise ValueError(
                f"{out} holds a comparison with other settings ({', '.join(changed)}); choose another --out"
            )
    elif out.is_dir() and any(out.glob("*.csv")):
        raise ValueError(f"{out} holds other results; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_text(file, text)


def _run_fold(
    folder: pathlib.Path,
    fold: Fold,
    args: argparse.Namespace,
    settings: RunSettings,
    sources: Mapping[str, pathlib.Path],
    parts: Mapping[str, Splits[BinnedSession]],
) -> None:
    """Pretrain, stitch, score and decode; tables appear when all of the fold is done."""
    import pandas as pd

    from neurokern.adapters import write_few_shot_splits
    from neurokern.cli.few_shot_protocol import few_shot_task_of, run_protocol, stitched

    if (folder / "scores_per_unit.csv").is_file():
        say("      done before")
        return
    seen = [name for name in parts if name not in fold.held_out]
    model = _pretrained(folder / "pretrained", seen, settings, sources, parts)
    tables, tasks = [], []
    for number, name in enumerate(fold.held_out, start=1):
        adapted, alone = stitched(model, parts[name], settings), None
        if not args.no_alone:
            alone = _pretrained(folder / f"alone-{number:02d}", [name], settings, sources, parts)
        tables.append(_scores(adapted, alone, parts[name], args))
        if args.label:
            task = few_shot_task_of(adapted, parts[name], args.label)
            tasks += [task] if _has_enough(task, args) else []
    if tasks:
        seed = settings.training.seed
        write_csv(folder / "few_shot_episodes.csv", run_protocol(args, tasks, seed))
        write_few_shot_splits(
            folder / "splits.json", tasks, shots=args.shots, episodes=args.episodes, seed=seed
        )
    write_csv(folder / "scores_per_unit.csv", pd.concat(tables, ignore_index=True))


def _has_enough(task: FewShotTask, args: argparse.Namespace) -> bool:
    """Whether the rarest class has windows for the fewest shots of each kind; says so where it has not."""
    rarest = min(len(groups) for groups in task.strata().values())
    needed = max(min(args.shots), min(args.tuned_shots or args.shots))
    if rarest < needed:
        say(f"      note: not decoded, its rarest class has {rarest} labeled training windows of {needed}")
    return rarest >= needed


def _pretrained(
    folder: pathlib.Path,
    names: Sequence[str],
    settings: RunSettings,
    sources: Mapping[str, pathlib.Path],
    parts: Mapping[str, Splits[BinnedSession]],
) -> MtM:
    """Train a model on these recordings, or go on with, or take, the one in the folder."""
    from neurokern.cli.train import train_model

    own = replace(settings, data=tuple(str(sources[name]) for name in names))
    return train_model(own, [parts[name] for name in names], folder, resume=True)[0]


def _scores(
    adapted: MtM, alone: MtM | None, parts: Splits[BinnedSession], args: argparse.Namespace
) -> pd.DataFrame:
    """Score the model, the one that was trained on the session alone, and the baselines."""
    from neurokern.cli.scores import predictors_of, score_sessions
    from neurokern.evaluation import MtMPredictor

    name = parts.train.session
    predictors = predictors_of(adapted, parts, args.baselines, max_units=args.max_units)
    if alone is not None:
        predictors.insert(1, MtMPredictor(alone, name, name=_ALONE))
    asked = condition_columns(args.conditions)
    return score_sessions(
        {name: predictors},
        {name: parts},
        max_units=args.max_units,
        conditions=asked if asked or "PSTH" in args.baselines else None,
    )


def _shared_subjects(folds: Sequence[Fold], subjects: Mapping[str, str]) -> str:
    """Say where a held-out recording's subject was seen in pretraining by another of its recordings."""
    both = 0
    for fold in folds:
        seen = {subject for name, subject in subjects.items() if name not in fold.held_out}
        both += sum(bool(subjects[name]) and subjects[name] in seen for name in fold.held_out)
    if not both:
        return ""
    return (
        f"note: of {both} held-out recordings, other recordings of the same subject were in pretraining; "
        "--hold-out subject keeps those out, too"
    )
