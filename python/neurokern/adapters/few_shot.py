"""The few-shot protocol: adapters fitted on k windows of each class, scored on later windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from neurokern._check import check_choice
from neurokern.adapters.adapted import AdaptedModel
from neurokern.adapters.closed_form import LDAProbe, RidgeProbe
from neurokern.adapters.few_shot_task import Draw, FewShotTask, draw_support, usable_shots
from neurokern.adapters.probe import LinearProbe
from neurokern.adapters.support import Support
from neurokern.metrics import balanced_accuracy, hierarchical_interval, r2

__all__ = [
    "DEFAULT_ADAPTERS",
    "Adapter",
    "evaluate_few_shot",
    "few_shot_differences",
    "few_shot_episodes",
    "summarize_few_shot",
]

_CHUNK_ELEMENTS = 1 << 24  # of stacked support sets


class Adapter(Protocol):
    """A read-out: anything with this ``fit`` and ``predict``."""

    def fit(self, features: Tensor, labels: Any) -> object:
        """Fit on ``(samples, features)`` and one label per sample."""

    def predict(self, features: Tensor) -> Any:
        """Labels or values of shape (samples, ...)."""


class ModelAdapter(Protocol):
    """An adapter of models; tells itself from a read-out by ``adapts_model``."""

    adapts_model: bool

    def fit(self, model: nn.Module, support: Support) -> AdaptedModel:
        """Adapt a copy of the model."""


Maker = Callable[[], Adapter | ModelAdapter] | ModelAdapter
DEFAULT_ADAPTERS: Mapping[str, Callable[[], Adapter]] = {
    "ridge": RidgeProbe,
    "lda": LDAProbe,
    "logistic": LinearProbe,
}


def few_shot_episodes(
    tasks: FewShotTask | Sequence[FewShotTask],
    adapters: Mapping[str, Maker] | None = None,
    *,
    shots: Sequence[int] = (1, 2, 5, 10, 20),
    episodes: int = 100,
    control_episodes: int = 20,
    tuned_episodes: int | None = None,
    seed: int = 0,
    small_classes: str = "skip",
    progress: bool = False,
) -> pd.DataFrame:
    """Run the protocol and return every episode; parameters as in :func:`evaluate_few_shot`.

    Returns
    -------
    table : DataFrame
        Columns ``session, subject, metric, features, adapter, shots, episode, shuffled`` (True: the labels of
        the support set were shuffled), ``score, chance, n_query, n_trainable, seconds`` (of fitting, an
        episode's share where they are fitted together).
    """
    sessions = [tasks] if isinstance(tasks, FewShotTask) else list(tasks)
    makers = DEFAULT_ADAPTERS if adapters is None else adapters
    if tuned_episodes is not None and tuned_episodes < 1:
        raise ValueError(f"evaluate_few_shot: tuned_episodes must be at least 1, got {tuned_episodes}")
    _check_protocol(sessions, makers, shots, episodes, control_episodes, small_classes)
    usable = [usable_shots(task, shots, small_classes) for task in sessions]
    rows: list[dict[str, object]] = []
    with tqdm(total=sum(map(len, usable)) * len(makers), desc="few-shot", disable=not progress) as bar:
        for task, own_shots in zip(sessions, usable, strict=True):
            draws = [draw_support(task, seed, episode) for episode in range(episodes)]
            sets = [_support_sets(task, draws, k, control_episodes) for k in own_shots]
            for name, maker in makers.items():
                for found in sets:
                    bar.set_postfix(adapter=name, shots=found.k)
                    rows += _rows(task, name, maker, found, tuned_episodes)
                    bar.update()
    columns = ["session", "subject", "metric", "features", "adapter", "shots", "episode", "shuffled"]
    columns += ["score", "chance", "n_query", "n_trainable", "seconds"]
    return pd.DataFrame(rows, columns=columns)


def evaluate_few_shot(
    tasks: FewShotTask | Sequence[FewShotTask],
    adapters: Mapping[str, Maker] | None = None,
    *,
    shots: Sequence[int] = (1, 2, 5, 10, 20),
    episodes: int = 100,
    control_episodes: int = 20,
    tuned_episodes: int | None = None,
    seed: int = 0,
    small_classes: str = "skip",
    confidence: float = 0.95,
    baselines: Sequence[str] = (),
    progress: bool = False,
) -> pd.DataFrame:
    """Compare adapters and features by how well they decode from k labeled windows per class.

    In each episode the support pool of a session is shuffled class by class; its first k groups (trials,
    blocks; by default windows) of each class are the support set for k shots. Support sets are thus
    stratified and nested, and the same for every adapter and every kind of features, so that differences are
    paired. All are scored on the same later windows, which are in no support set, by balanced accuracy
    (recall averaged over classes), or R2 of values. Whatever an adapter chooses (penalty, learning rate, when
    to stop) it chooses on its support set.

    Parameters
    ----------
    tasks : FewShotTask or sequence of them
        One per session, see :func:`few_shot_task`. They must have the same names of features and encoders.
    adapters : mapping of str to adapter or maker, default ridge, lda, logistic
        ``maker()`` returns a fresh read-out with ``fit(features, labels)`` and ``predict``, which is run on
        every kind of features; or an adapter with ``fit(model, support)``, such as ``LoRA()``, which is run
        on every encoder. Read-outs with ``fit_batched`` are fitted on all episodes at once.
    shots : sequence of int, default (1, 2, 5, 10, 20)
        Groups per class in the support set.
    episodes : int, default 100
        Draws of the support set in each session.
    control_episodes : int, default 20
        Episodes that are repeated with the labels of the support set shuffled: what a read-out scores when
        there is nothing to learn. Adapters of models, which cost more, are spared.
    tuned_episodes : int, optional
        Run adapters of models on the first so many episodes only; all by default. Differences to others are
        over the episodes that both ran.
    seed : int, default 0
        Episodes depend on it, on the session's name and on their number alone; see
        :func:`write_few_shot_splits`.
    small_classes : {"skip", "raise"}, default "skip"
        What to do where a class has fewer than k groups in the pool: leave that k of that session out, with a
        warning in the log and a smaller ``n_sessions``, or raise a ValueError with the counts.
    confidence : float, default 0.95
    baselines : sequence of str
        Methods ("features, adapter") that the others are compared with, see :func:`few_shot_differences`;
        each adds three columns.
    progress : bool, default False

    Returns
    -------
    table : DataFrame
        One row per kind of features, adapter and k: ``method`` ("features, adapter"), ``features, adapter,
        shots, metric, mean`` (of the score, over episodes and then over sessions), ``low, high`` (bootstrap
        interval), ``chance`` (1 / number of classes; of values, the R2 of the pool's mean), ``shuffled``
        (mean of the control), ``n_sessions, n_subjects, n_episodes, n_query, n_trainable, seconds`` (of one
        fit), and for each baseline ``minus BASELINE``, ``... low``, ``... high``.

    Raises
    ------
    ValueError
        If an argument is bad, or no session has enough windows for any k.

    Notes
    -----
    With several sessions the interval is hierarchical: subjects are resampled, then their sessions. With one
    session it is over episodes and says only how much the choice of the support set matters, not how another
    session would do.
    """
    table = few_shot_episodes(
        tasks,
        adapters,
        shots=shots,
        episodes=episodes,
        control_episodes=control_episodes,
        tuned_episodes=tuned_episodes,
        seed=seed,
        small_classes=small_classes,
        progress=progress,
    )
    return summarize_few_shot(table, confidence=confidence, baselines=baselines, seed=seed)


def summarize_few_shot(
    table: pd.DataFrame, *, confidence: float = 0.95, baselines: Sequence[str] = (), seed: int = 0
) -> pd.DataFrame:
    """Average the table of :func:`few_shot_episodes`; see :func:`evaluate_few_shot` for what comes out."""
    rows = []
    for (features, adapter, k), group in table.groupby(["features", "adapter", "shots"], sort=False):
        learned, control = group[~group["shuffled"]], group[group["shuffled"]]
        by_session = learned.groupby("session")
        mean, low, high = _interval(learned, "score", confidence, seed)
        rows.append(
            {
                "method": f"{features}, {adapter}",
                "features": features,
                "adapter": adapter,
                "shots": k,
                "metric": learned["metric"].iloc[0],
                "mean": mean,
                "low": low,
                "high": high,
                "chance": by_session["chance"].first().mean(),
                "shuffled": control.groupby("session")["score"].mean().mean(),
                "n_sessions": by_session.ngroups,
                "n_subjects": learned["subject"].nunique(),
                "n_episodes": learned["episode"].nunique(),
                "n_query": by_session["n_query"].first().mean(),
                "n_trainable": learned["n_trainable"].mean(),
                "seconds": learned["seconds"].mean(),
            }
        )
    summary = pd.DataFrame(rows).sort_values("shots", kind="stable", ignore_index=True)
    for baseline in baselines:
        found = few_shot_differences(table, baseline, confidence=confidence, seed=seed)
        ends = {"mean": "", "low": " low", "high": " high"}
        renamed = {name: f"minus {baseline}{end}" for name, end in ends.items()}
        found = found[["method", "shots", "mean", "low", "high"]].rename(columns=renamed)
        summary = summary.merge(found, on=["method", "shots"], how="left")
    return summary


def few_shot_differences(
    table: pd.DataFrame, baseline: str, *, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Compare every method with a baseline, episode by episode.

    Support sets and queries are the same for all methods, so the interval of a difference is much narrower
    than those of the two means.

    Parameters
    ----------
    table : DataFrame
        Of :func:`few_shot_episodes`.
    baseline : str
        A method, "features, adapter", such as "raw counts, ridge".
    confidence, seed
        As in :func:`evaluate_few_shot`.

    Returns
    -------
    differences : DataFrame
        Columns ``method, shots, mean`` (method minus baseline), ``low, high`` (hierarchical bootstrap over
        subjects and sessions; over episodes where there is one session), ``sessions_won, n_sessions``.

    Raises
    ------
    ValueError
        If the table has no such method.
    """
    learned = table[~table["shuffled"]]
    methods = learned["features"] + ", " + learned["adapter"]
    if baseline not in set(methods):
        raise ValueError(
            f"few_shot_differences: baseline must be one of {sorted(set(methods))}, got {baseline!r}"
        )
    keys = ["session", "shots", "episode"]
    reference = learned[methods == baseline].set_index(keys)["score"]
    paired = learned.assign(method=methods).join(reference.rename("reference"), on=keys)
    paired["difference"] = paired["score"] - paired["reference"]
    rows = []
    for (method, k), group in paired[methods != baseline].groupby(["method", "shots"], sort=False):
        won = int((group.groupby("session")["difference"].mean() > 0).sum())
        interval = _interval(group, "difference", confidence, seed)
        rows.append((method, k, *interval, won, group["session"].nunique()))
    columns = ["method", "shots", "mean", "low", "high", "sessions_won", "n_sessions"]
    return pd.DataFrame(rows, columns=columns)


def _interval(group: pd.DataFrame, column: str, confidence: float, seed: int) -> tuple[float, float, float]:
    """Mean over sessions of the means over episodes, with its interval."""
    means = group.groupby("session").agg({column: "mean", "subject": "first"})
    if len(means) == 1:
        values = group[column].to_numpy()
        subjects = np.zeros(len(values))
    else:
        values, subjects = means[column].to_numpy(), means["subject"].to_numpy()
    low, high = hierarchical_interval(values, subjects, confidence=confidence, seed=seed)
    return float(means[column].mean()), low, high


@dataclass(frozen=True)
class SupportSets:
    """All support sets of one k: windows and labels of each, and which episode it is."""

    k: int
    windows: list[np.ndarray]
    labels: list[np.ndarray]
    episode: list[int]
    shuffled: list[bool]

    def unshuffled(self, most: int | None) -> SupportSets:
        """Return the sets with their own labels alone, and of those the first ``most``."""
        kept = [at for at, shuffled in enumerate(self.shuffled) if not shuffled][:most]
        return SupportSets(
            self.k,
            [self.windows[at] for at in kept],
            [self.labels[at] for at in kept],
            [self.episode[at] for at in kept],
            [False] * len(kept),
        )


def _support_sets(task: FewShotTask, draws: Sequence[Draw], k: int, control_episodes: int) -> SupportSets:
    windows = [draw.support(k) for draw in draws]
    labels = [task.labels[rows] for rows in windows]
    controls = range(min(control_episodes, len(draws)))
    shuffled = [draws[at].shuffled_labels(k, task.labels) for at in controls]
    return SupportSets(
        k,
        windows + [windows[at] for at in controls],
        labels + shuffled,
        [*range(len(draws)), *controls],
        [False] * len(draws) + [True] * len(controls),
    )


def _rows(
    task: FewShotTask, name: str, maker: Maker, sets: SupportSets, tuned_episodes: int | None
) -> Iterator[dict[str, object]]:
    """Rows of one adapter for one k: on every kind of features, or on every encoder."""
    adapter: Any = maker() if callable(maker) else maker
    if _adapts_model(maker):
        sets = sets.unshuffled(tuned_episodes)
        found = {kind: _adapted(task, adapter, model, sets) for kind, model in task.encoders.items()}
    else:
        make: Any = maker
        found = {kind: _read_out(task, make, values, sets) for kind, values in task.features.items()}
    chance = _chance(task)
    for kind, outcomes in found.items():
        for at, (predicted, n_trainable, seconds) in enumerate(outcomes):
            yield {
                "session": task.session,
                "subject": task.subject or task.session,
                "metric": task.metric,
                "features": kind,
                "adapter": name,
                "shots": sets.k,
                "episode": sets.episode[at],
                "shuffled": sets.shuffled[at],
                "score": _score(task, predicted),
                "chance": chance,
                "n_query": len(task.query),
                "n_trainable": n_trainable,
                "seconds": seconds,
            }


Outcome = tuple[np.ndarray, int, float]  # predictions for the queries, trainable numbers, seconds


def _adapted(
    task: FewShotTask, adapter: ModelAdapter, model: nn.Module, sets: SupportSets
) -> Iterator[Outcome]:
    assert task.inputs is not None  # FewShotTask saw to it
    query = task.inputs[torch.from_numpy(task.query)]
    for windows, labels in zip(sets.windows, sets.labels, strict=True):
        inputs = task.inputs[torch.from_numpy(windows)]
        groups = None if task.groups is None else task.groups[windows]
        support = Support.of(inputs, labels, kind=task.kind, groups=groups, session=task.session)
        adapted = adapter.fit(model, support)
        yield np.asarray(adapted.predict(query)), adapted.n_trainable, adapted.seconds


def _read_out(
    task: FewShotTask, maker: Callable[[], Any], values: Tensor, sets: SupportSets
) -> Iterator[Outcome]:
    query = values[torch.from_numpy(task.query)]
    same_size = len({len(windows) for windows in sets.windows}) == 1
    if same_size and hasattr(maker(), "fit_batched"):
        yield from _batched(maker, values, query, sets)
        return
    for windows, labels in zip(sets.windows, sets.labels, strict=True):
        begun = time.perf_counter()
        readout = maker()
        readout.fit(values[torch.from_numpy(windows)], labels)
        seconds = time.perf_counter() - begun
        yield np.asarray(readout.predict(query)), _n_fitted(readout), seconds


def _batched(maker: Callable[[], Any], values: Tensor, query: Tensor, sets: SupportSets) -> Iterator[Outcome]:
    """Fit the support sets of many episodes in one call."""
    windows, labels = np.stack(sets.windows), np.stack(sets.labels)
    step = max(1, _CHUNK_ELEMENTS // (windows.shape[1] * values.shape[1]))
    for first in range(0, len(windows), step):
        part = slice(first, first + step)
        begun = time.perf_counter()
        readout = maker()
        readout.fit_batched(values[torch.from_numpy(windows[part])], labels[part])
        seconds = (time.perf_counter() - begun) / len(windows[part])
        n_fitted = _n_fitted(readout) // len(windows[part])
        for predicted in np.asarray(readout.predict_batched(query)):
            yield predicted, n_fitted, seconds


def _n_fitted(readout: object) -> int:
    """Number of fitted weights and biases, 0 where a read-out does not have them by the usual names."""
    return sum(getattr(readout, name).numel() for name in ("weights_", "bias_") if hasattr(readout, name))


def _score(task: FewShotTask, predicted: np.ndarray) -> float:
    truth = task.labels[task.query]
    if task.kind == "classes":
        return balanced_accuracy(predicted, truth)
    shape = (len(truth), -1)
    scores = r2(predicted.reshape(shape).astype(np.float64), truth.reshape(shape).astype(np.float64))
    return float(np.nanmean(scores))


def _chance(task: FewShotTask) -> float:
    if task.kind == "classes":
        return 1 / len(task.classes)
    mean = task.labels[task.support_pool].mean(0, keepdims=True)
    return _score(task, np.broadcast_to(mean, task.labels[task.query].shape))


def _check_protocol(
    tasks: Sequence[FewShotTask],
    makers: Mapping[str, Maker],
    shots: Sequence[int],
    episodes: int,
    control_episodes: int,
    small_classes: str,
) -> None:
    check_choice("evaluate_few_shot", "small_classes", small_classes, ("skip", "raise"))
    if not tasks or not makers or not shots:
        raise ValueError("evaluate_few_shot: tasks, adapters and shots must each hold at least one entry")
    if min(shots) < 1 or episodes < 1 or control_episodes < 0:
        raise ValueError(
            "evaluate_few_shot: shots and episodes must be at least 1 and control_episodes at least 0, "
            f"got {tuple(shots)}, {episodes} and {control_episodes}"
        )
    for what in ("features", "encoders"):
        names = {tuple(getattr(task, what)) for task in tasks}
        if len(names) > 1:
            raise ValueError(f"evaluate_few_shot: tasks must have the same {what}, got {sorted(names)}")
    if len({task.kind for task in tasks}) > 1:
        raise ValueError("evaluate_few_shot: tasks must be all of classes or all of values")
    if len({task.session for task in tasks}) < len(tasks):
        raise ValueError("evaluate_few_shot: tasks must be of different sessions")
    _check_runnable(tasks, makers)
    largest = max(min(map(len, task.strata().values())) for task in tasks)
    if min(shots) > largest:
        raise ValueError(
            f"evaluate_few_shot: no session has {min(shots)} windows of each class in its support pool (at "
            f"most {largest}); pass fewer shots"
        )


def _adapts_model(maker: Maker) -> bool:
    return bool(getattr(maker() if callable(maker) else maker, "adapts_model", False))


def _check_runnable(tasks: Sequence[FewShotTask], makers: Mapping[str, Maker]) -> None:
    """Raise where an adapter has nothing to run on: its rows would be missing without a word."""
    for name, maker in makers.items():
        tunes = _adapts_model(maker)
        if not getattr(tasks[0], "encoders" if tunes else "features"):
            needed = "encoders= and inputs=" if tunes else "features="
            raise ValueError(f"evaluate_few_shot: adapter {name!r} needs tasks with {needed}")
