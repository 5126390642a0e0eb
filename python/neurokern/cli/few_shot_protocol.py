"""What `few-shot` and `transfer` share: flags, one session's task, the run over draws, the table as text."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from neurokern.cli._common import text_table, write_csv
from neurokern.cli._flags import positive_int
from neurokern.cli.adapter_names import READ_OUT_NAMES, adapter_names, make_adapters

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from neurokern.adapters import FewShotTask
    from neurokern.cli.settings import RunSettings
    from neurokern.datasets import BinnedSession, Splits
    from neurokern.models import MtM

__all__ = [
    "REFERENCE",
    "add_protocol_flags",
    "few_shot_task_of",
    "few_shot_text",
    "run_protocol",
    "stitched",
    "summarize_protocol",
    "write_protocol",
]

REFERENCE = "raw counts, ridge"
_DEFAULT = ("ridge", "lda", "probe", "lora", "full", "scratch")


def add_protocol_flags(parser: argparse.ArgumentParser) -> None:
    """Add what decides a few-shot comparison: adapters, shots, draws, epochs."""
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
        "--tuned-shots",
        metavar="K,K",
        type=_numbers,
        help="those of --shots that adapters that train the model are run with (all)",
    )
    parser.add_argument(
        "--epochs", type=positive_int, default=40, metavar="N", help="most epochs of an adapter (40)"
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({positive_int(part) for part in text.split(",")}))


_numbers.__name__ = "list of int"


def stitched(model: MtM, parts: Splits[BinnedSession], settings: RunSettings) -> MtM:
    """Return a model that knows the session: the same one, or a copy that it was stitched to, unlabeled."""
    from neurokern.adapters import adapt_session

    if parts.train.session in model.sessions:
        return model
    training = replace(settings.training, max_steps=400, validate_every=50)
    return adapt_session(model, parts.train, parts.validation, config=training)


def few_shot_task_of(model: MtM, parts: Splits[BinnedSession], label: str) -> FewShotTask:
    """Return windows, features and encoder of one session that the model knows.

    Support sets come from the training windows; the test windows are the queries.
    """
    import numpy as np
    import torch

    from neurokern.adapters import FewShotTask, SessionEncoder
    from neurokern.cli.few_shot import window_features
    from neurokern.cli.labels import make_split_labels

    halves = (parts.train, parts.test)
    labels = make_split_labels(label, *(_trials(part) for part in halves))
    values = np.concatenate([one.values for one in labels])
    rows, n_pool = np.flatnonzero(values >= 0), len(labels[0].values)
    features = [window_features(model, part, "neuron") for part in halves]
    return FewShotTask(
        session=parts.train.session,
        subject=parts.train.subject or "",
        features={kind: torch.cat([one[kind] for one in features]) for kind in features[0]},
        labels=values,
        support_pool=rows[rows < n_pool],
        query=rows[rows >= n_pool],
        groups=_groups(halves),
        inputs=torch.cat([torch.from_numpy(part.read(range(part.n_windows))) for part in halves]),
        encoders={"MtM": SessionEncoder(model, parts.train.session)},
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


def run_protocol(args: argparse.Namespace, tasks: Sequence[FewShotTask], seed: int) -> pd.DataFrame:
    """Return every episode: read-outs with all of ``--shots``, adapters of models with ``--tuned-shots``."""
    import pandas as pd

    from neurokern.adapters import FineTuneOptions, few_shot_episodes

    options = FineTuneOptions(max_epochs=args.epochs, blind_epochs=min(args.epochs, 20), seed=seed)
    adapters = make_adapters(args.adapters, options)
    solved = {name: one for name, one in adapters.items() if name in READ_OUT_NAMES}
    tuned = {name: one for name, one in adapters.items() if name not in READ_OUT_NAMES}
    tables = [
        few_shot_episodes(
            tasks,
            chosen,
            shots=shots,
            episodes=args.episodes,
            tuned_episodes=args.tuned_episodes,
            seed=seed,
            progress=sys.stderr.isatty(),
        )
        for chosen, shots in ((solved, args.shots), (tuned, args.tuned_shots or args.shots))
        if chosen
    ]
    return pd.concat(tables, ignore_index=True)


def summarize_protocol(episodes: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return means and intervals, with differences to ridge on raw counts where that was run."""
    from neurokern.adapters import summarize_few_shot

    methods = set(episodes["features"] + ", " + episodes["adapter"])
    return summarize_few_shot(episodes, baselines=[REFERENCE] if REFERENCE in methods else [], seed=seed)


def write_protocol(folder: pathlib.Path, episodes: pd.DataFrame, seed: int) -> list[pathlib.Path]:
    """Write the summary and every episode; return the paths."""
    return [
        write_csv(folder / "few_shot.csv", summarize_protocol(episodes, seed)),
        write_csv(folder / "few_shot_episodes.csv", episodes),
    ]


def few_shot_text(table: pd.DataFrame) -> str:
    """Means by method and k, with the difference to ridge on raw counts and its interval at the method's
    largest k.
    """
    import pandas as pd

    wide = table.pivot_table(index="method", columns="shots", values="mean", sort=False)
    column = f"minus {REFERENCE}"
    header = ["labeled windows per class", *map(str, wide.columns)]
    header += ["minus raw ridge, largest k"] if column in table else []
    header += ["weights", "s"]
    rows = []
    for method, means in wide.iterrows():
        own = table[table["method"] == method]
        one = own.sort_values("shots").iloc[-1]
        row = [str(method), *("" if pd.isna(value) else f"{value:.3f}" for value in means)]
        if column in table:
            low, high = one[f"{column} low"], one[f"{column} high"]
            row.append("" if method == REFERENCE else f"{one[column]:+.3f} [{low:+.3f}, {high:+.3f}]")
        rows.append([*row, f"{one['n_trainable']:.0f}", f"{one['seconds']:.2g}"])
    first = table.iloc[0]
    n_sessions, n_subjects = (int(table[name].max()) for name in ("n_sessions", "n_subjects"))
    among = f"{n_sessions} session{'s'[: n_sessions != 1]} of {n_subjects} subject{'s'[: n_subjects != 1]}"
    title = f"balanced accuracy, chance {first['chance']:.2f}; {among}"
    if table["n_episodes"].nunique() > 1:
        fewest = table["n_episodes"].min()
        title += f"\nmethods that train the model ran on the first {fewest} draws: compare their differences"
    return f"{title}\n{text_table(header, rows)}"
