"""``neurokern few-shot``: how well adapters decode recordings that a model never saw, from few labels."""

from __future__ import annotations

import argparse
import pathlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from neurokern.cli._common import Steps, new_parser, require_torch, say, text_table, write_csv
from neurokern.cli._flags import LABEL_HELP, add_settings_flags, positive_int
from neurokern.cli.adapter_names import WORDS, adapter_names

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from neurokern.adapters import FewShotTask
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
_DEFAULT = ("ridge", "lda", "probe", "lora", "full", "scratch")
_REFERENCE = "raw counts, ridge"


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
    parser.add_argument(
        "--adapters",
        metavar="A,B",
        type=adapter_names,
        default=_DEFAULT,
        help=f"which ones, see below ({','.join(_DEFAULT)})",
    )
    parser.add_argument(
        "--shots", metavar="K,K", type=_numbers, default=(1, 5, 10, 20), help="windows per class (1,5,10,20)"
    )
    parser.add_argument(
        "--episodes", type=positive_int, default=100, metavar="N", help="draws of the support set (100)"
    )
    parser.add_argument(
        "--tuned-episodes",
        type=positive_int,
        default=5,
        metavar="N",
        help="the first so many of them for adapters that train the model (5)",
    )
    parser.add_argument(
        "--epochs", type=positive_int, default=40, metavar="N", help="most epochs of an adapter (40)"
    )
    parser.add_argument("--out", metavar="FOLDER", help="folder for the tables (RUN-few-shot by default)")
    add_settings_flags(parser)
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({positive_int(part) for part in text.split(",")}))


_numbers.__name__ = "list of int"


def run(args: argparse.Namespace) -> None:
    """Stitch, compare, write."""
    require_torch("few-shot")
    from neurokern.adapters import (
        FineTuneOptions,
        few_shot_episodes,
        summarize_few_shot,
        write_few_shot_splits,
    )
    from neurokern.checkpoint import load_model
    from neurokern.cli.adapter_names import make_adapters
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
        tasks = [_task(model, parts[one.session.session], args.label, settings) for one in loaded]
    with steps.step(f"decode {args.label} from few labeled windows"):
        options = FineTuneOptions(max_epochs=args.epochs, blind_epochs=min(args.epochs, 20), seed=seed)
        episodes = few_shot_episodes(
            tasks,
            make_adapters(args.adapters, options),
            shots=args.shots,
            episodes=args.episodes,
            tuned_episodes=args.tuned_episodes,
            seed=seed,
            progress=sys.stderr.isatty(),
        )
        methods = set(episodes["features"] + ", " + episodes["adapter"])
        baselines = [_REFERENCE] if _REFERENCE in methods else []
        table = summarize_few_shot(episodes, baselines=baselines, seed=seed)
        steps.lines(_as_text(table))
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "few_shot.csv", table)
    write_csv(out / "few_shot_episodes.csv", episodes)
    splits = write_few_shot_splits(
        out / "splits.json", tasks, shots=args.shots, episodes=args.episodes, seed=seed
    )
    say(f"tables   {out / 'few_shot.csv'}, {out / 'few_shot_episodes.csv'}")
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


def _task(model: MtM, parts: Splits[BinnedSession], label: str, settings: RunSettings) -> FewShotTask:
    """Stitch one session and return its windows, features and encoder."""
    import numpy as np
    import torch

    from neurokern.adapters import FewShotTask, SessionEncoder, adapt_session
    from neurokern.cli.few_shot import window_features
    from neurokern.cli.labels import make_split_labels

    name = parts.train.session
    if name not in model.sessions:
        training = replace(settings.training, max_steps=400, validate_every=50)
        model = adapt_session(model, parts.train, parts.validation, config=training)
    halves = (parts.train, parts.test)
    labels = make_split_labels(label, *(_trials(part) for part in halves))
    values = np.concatenate([one.values for one in labels])
    rows, n_pool = np.flatnonzero(values >= 0), len(labels[0].values)
    features = [window_features(model, part, "neuron") for part in halves]
    return FewShotTask(
        session=name,
        subject=parts.train.subject or "",
        features={kind: torch.cat([one[kind] for one in features]) for kind in features[0]},
        labels=values,
        support_pool=rows[rows < n_pool],
        query=rows[rows >= n_pool],
        groups=_groups(halves),
        inputs=torch.cat([torch.from_numpy(part.read(range(part.n_windows))) for part in halves]),
        encoders={"MtM": SessionEncoder(model, name)},
    )


def _trials(part: BinnedSession) -> pd.DataFrame:
    if part.trials is None:
        raise ValueError("decoding a label needs recordings with trials")
    return part.trials


def _groups(halves: tuple[BinnedSession, BinnedSession]) -> np.ndarray | None:
    """Trials as groups where several windows lie in one, which the tables of trials then say."""
    import numpy as np

    if any(part.trials is None or "trial" not in part.trials for part in halves):
        return None
    return np.concatenate([_trials(part)["trial"].to_numpy() for part in halves])


def _as_text(table: pd.DataFrame) -> str:
    """Means by method and k, with the difference to ridge on raw counts and its interval at the largest k."""
    wide = table.pivot_table(index="method", columns="shots", values="mean", sort=False)
    most = table["shots"].max()
    column = f"minus {_REFERENCE}"
    header = ["labeled windows per class", *map(str, wide.columns)]
    header += [f"- raw ridge at {most}"] if column in table else []
    header += ["weights", "s"]
    at_most = table[table["shots"] == most].set_index("method")
    rows = []
    for method, means in wide.iterrows():
        one = at_most.loc[method]
        row = [str(method), *(f"{value:.3f}" for value in means)]
        if column in table:
            low, high = one[f"{column} low"], one[f"{column} high"]
            row.append("" if method == _REFERENCE else f"{one[column]:+.3f} [{low:+.3f}, {high:+.3f}]")
        rows.append([*row, f"{one['n_trainable']:.0f}", f"{one['seconds']:.2g}"])
    one = table.iloc[0]
    title = f"balanced accuracy, chance {one['chance']:.2f}; {table['n_sessions'].max()} sessions"
    title += f" of {table['n_subjects'].max()} subjects"
    if table["n_episodes"].nunique() > 1:
        fewest = table["n_episodes"].min()
        title += f"\nmethods that train the model ran on the first {fewest} draws: compare their differences"
    return f"{title}\n{text_table(header, rows)}"
