"""Few-shot decoding: labels of trials or, where there are none, the state of a hidden group of units."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from neurokern.adapters import (
    DEFAULT_ADAPTERS,
    FewShotTask,
    evaluate_few_shot,
)
from neurokern.cli._common import text_table, write_csv
from neurokern.cli.labels import Labels, choose_label, make_split_labels
from neurokern.cli.sessions import LoadedSession, check_parts, keep_apart, naming
from neurokern.datasets import BinnedSession, Splits
from neurokern.models import MtM

__all__ = [
    "FewShotResult",
    "check_label",
    "decode_hidden_group",
    "decode_label",
    "decode_session",
    "window_features",
]

SHOTS = (1, 2, 5, 10, 20)
EPISODES = 100
_WINDOWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class FewShotResult:
    """Scores over numbers of labeled windows, with the words that say what was decoded.

    Attributes
    ----------
    table : DataFrame
        As :func:`neurokern.adapters.evaluate_few_shot` returns.
    label : str
        What was decoded.
    text : tuple of str
        How labels and features were made.
    """

    table: pd.DataFrame
    label: str
    text: tuple[str, ...]

    @property
    def shown(self) -> pd.DataFrame:
        """The rows for figures and terminal; all are in the file."""
        main = _main_features(self.table["features"])
        methods = [f"{main}, {adapter}" for adapter in ("ridge", "lda", "logistic")]
        methods += ["MtM rates, ridge", "raw counts, ridge"]
        rows = self.table[self.table["method"].isin(methods)]
        order = rows["method"].map(methods.index)
        return rows.iloc[np.lexsort((rows["shots"], order))].reset_index(drop=True)

    @property
    def chance(self) -> float:
        """Balanced accuracy of guessing."""
        return float(self.table["chance"].iloc[0])

    def as_text(self) -> str:
        """Return the table as text."""
        wide = self.shown.pivot_table(index="method", columns="shots", values="mean", sort=False)
        rows = [[str(method), *(f"{value:.2f}" for value in row)] for method, row in wide.iterrows()]
        header = ["labeled windows per class", *map(str, wide.columns)]
        return f"balanced accuracy, chance {self.chance:.2f}:\n{text_table(header, rows)}"

    def write(self, folder: pathlib.Path) -> pathlib.Path:
        """Write the table and return its path."""
        return write_csv(folder / "few_shot.csv", self.table.drop(columns="session", errors="ignore"))


def _main_features(names: Iterable[str]) -> str:
    """Return the model's own kind of features: its factors where it has them, else its trunk's states."""
    return "MtM factors" if "MtM factors" in set(names) else "MtM states"


def check_label(label: str | None, parts: Splits[BinnedSession]) -> None:
    """Raise ValueError if ``label``, or without one what stands in for it, cannot be decoded."""
    check_parts(parts)
    with naming(parts.train.session):
        if label is None:
            if _choose(parts) is None:
                _hidden_group_labels(parts)
            return
        if parts.train.trials is None or parts.test.trials is None:
            raise ValueError(f"--label {label!r}: this recording has no trials")
        make_split_labels(label, parts.train.trials, parts.test.trials)


def decode_session(
    model: MtM,
    loaded: LoadedSession,
    parts: Splits[BinnedSession],
    label: str | None,
    *,
    seed: int,
    episodes: int = EPISODES,
) -> FewShotResult:
    """Decode ``label``, or one that suits the trials, or without any the state of a hidden group of units."""
    check_label(label, parts)
    chosen = label or _choose(parts)
    if chosen is None:
        return decode_hidden_group(model, loaded, parts, seed=seed, episodes=episodes)
    return decode_label(model, parts, chosen, seed=seed, episodes=episodes)


def _choose(parts: Splits[BinnedSession]) -> str | None:
    trials = parts.train.trials
    return None if trials is None else choose_label(trials, parts.test.trials)


def decode_label(
    model: MtM, parts: Splits[BinnedSession], label: str, *, seed: int, episodes: int = EPISODES
) -> FewShotResult:
    """Decode a label of the trials: support sets from the training windows, queries from the test windows."""
    labels = make_split_labels(label, _trials(parts.train), _trials(parts.test))
    features = [window_features(model, part, "neuron") for part in (parts.train, parts.test)]
    text = (
        f"Decoded: {label}. Labeled windows are drawn from the training windows "
        f"({_class_sizes(labels[0])}); the test windows are decoded ({_class_sizes(labels[1])}).",
        f"Features: {_FEATURES_TEXT} For the test windows, {_grain(labels[1].values)}",
    )
    values = [one.values for one in labels]
    return FewShotResult(table=_evaluate(parts, features, values, seed, episodes), label=label, text=text)


_FEATURES_TEXT = (
    "MtM factors, the few numbers that the model reads its rates from, averaged over the window (MtM states, "
    "the trunk's states, for models without factors); MtM rates, its log-rates averaged over the window; raw "
    "counts, each unit's spikes in the window. The model saw no label."
)


def decode_hidden_group(
    model: MtM, loaded: LoadedSession, parts: Splits[BinnedSession], *, seed: int, episodes: int = EPISODES
) -> FewShotResult:
    """Decode from all other units whether a group of units fires above its median.

    The group is hidden from the model when features are computed. It is the one with the most spikes in the
    training windows.
    """
    train, test = keep_apart(parts.train), parts.test
    group, units, median, labels = _hidden_group_labels(parts)
    kind = "group of neighboring units" if loaded.stand_in else "region"
    text = (
        f"There are no labeled trials, so the label is made from spikes: whether the {int(units.sum())} "
        f"units of {group} together fire more than {median:g} spikes in a window, their median over "
        "training windows.",
        f"This {kind} is hidden from the model when features are computed; raw counts are those of all other "
        "units. (In pretraining, on the training windows, the model did see it.) "
        f"{int(labels[1].sum())} of {len(labels[1])} test windows lie above; {_grain(labels[1])}",
    )
    features = [window_features(model, part, "inter-region", units) for part in (train, test)]
    table = _evaluate(replace(parts, train=train), features, labels, seed, episodes)
    return FewShotResult(table=table, label=f"“{group} fires above its median”", text=text)


def _evaluate(
    parts: Splits[BinnedSession],
    features: list[dict[str, Tensor]],
    labels: list[NDArray[np.int64]],
    seed: int,
    episodes: int,
) -> pd.DataFrame:
    """Draw support sets from the first part, queries from the second; a label of -1 takes no part."""
    values = np.concatenate(labels)
    kept, n_first = values >= 0, len(labels[0])
    rows = np.arange(len(values))
    task = FewShotTask(
        session=parts.train.session,
        features={name: torch.cat([one[name] for one in features]) for name in features[0]},
        labels=values,
        support_pool=rows[:n_first][kept[:n_first]],
        query=rows[n_first:][kept[n_first:]],
    )
    smallest = min(np.bincount(values[task.support_pool])[task.classes])
    shots = [shots for shots in SHOTS if shots <= smallest]
    if not shots:
        raise ValueError("few-shot decoding needs at least one labeled training window of each class")
    # Logistic regression is fitted by iteration, so it gets one kind of features; support sets are the same.
    main = _main_features(task.features)
    one_kind = replace(task, features={main: task.features[main]})
    tables = [
        evaluate_few_shot(
            one,
            {name: DEFAULT_ADAPTERS[name] for name in names},
            shots=shots,
            episodes=episodes,
            control_episodes=min(20, episodes),
            seed=seed,
        )
        for one, names in ((task, ("ridge", "lda")), (one_kind, ("logistic",)))
    ]
    return pd.concat(tables, ignore_index=True)


@torch.inference_mode()
def window_features(
    model: MtM, part: BinnedSession, scheme: str, hidden: NDArray[np.bool_] | None = None
) -> dict[str, Tensor]:
    """Return features of each window, ``(windows, features)``; the model does not see ``hidden`` units."""
    unseen = np.zeros(part.n_units, dtype=bool) if hidden is None else hidden
    mask = torch.from_numpy(unseen)[None, None, :]
    device = next(model.parameters()).device
    model.eval()
    found: dict[str, list[Tensor]] = {}
    for first in range(0, part.n_windows, _WINDOWS_AT_ONCE):
        rows = range(first, min(first + _WINDOWS_AT_ONCE, part.n_windows))
        counts = torch.from_numpy(part.read(rows)).masked_fill(mask, 0.0)
        arguments = (counts.to(device), part.session, scheme, mask.to(device))
        batch = {"MtM states": model.embed(*arguments), "MtM rates": model(*arguments)}
        if model.config.read_in == "factors":
            batch["MtM factors"] = model.expected_factors(*arguments)
        for name, values in batch.items():
            found.setdefault(name, []).append(values.float().mean(1).cpu())
        found.setdefault("raw counts", []).append(counts.sum(1)[:, torch.from_numpy(~unseen)])
    return {name: torch.cat(values) for name, values in found.items()}


def _hidden_group_labels(
    parts: Splits[BinnedSession],
) -> tuple[str, NDArray[np.bool_], float, list[NDArray[np.int64]]]:
    """Return the busiest group, its units, its median, and which windows lie above: 0 or 1 for each part."""
    kept = (keep_apart(parts.train), parts.test)
    group, units = _busiest_group(kept[0])
    totals = [part.counts[:, :, units].sum(axis=(1, 2), dtype=np.int64) for part in kept]
    median = float(np.median(totals[0]))
    labels = [(total > median).astype(np.int64) for total in totals]
    for name, values in zip(("training", "test"), labels, strict=True):
        if len(set(values.tolist())) < 2:
            raise ValueError(
                f"few-shot decoding: in all {name} windows of {parts.train.session!r}, {group} fires on one "
                f"side of its median, {median:g} spikes, so there is nothing to decode; name a --label"
            )
    return group, units, median, labels


def _busiest_group(train: BinnedSession) -> tuple[str, NDArray[np.bool_]]:
    total = train.counts.sum(axis=(0, 1), dtype=np.int64)
    names = sorted(set(train.regions.tolist()) - {""})
    if len(names) < 2:
        raise ValueError("few-shot decoding without trials needs at least two regions or groups of units")
    spikes: Mapping[str, int] = {name: int(total[train.regions == name].sum()) for name in names}
    group = max(names, key=lambda name: spikes[name])
    return group, train.regions == group


def _grain(labels: NDArray[np.int64]) -> str:
    """Say how much one window of the smallest class weighs."""
    sizes = np.bincount(labels[labels >= 0])
    sizes = sizes[sizes > 0]
    return (
        f"one window more or less is worth up to {1 / (sizes.min() * len(sizes)):.3f} of balanced accuracy."
    )


def _trials(part: BinnedSession) -> pd.DataFrame:
    if part.trials is None:
        raise ValueError("decoding a label needs a recording with trials")
    return part.trials


def _class_sizes(labels: Labels) -> str:
    sizes = [int((labels.values == index).sum()) for index in range(len(labels.names))]
    listed = [f"{size} {name}" for size, name in zip(sizes, labels.names, strict=True)]
    return ", ".join([*listed, labels.note] if labels.note else listed)
