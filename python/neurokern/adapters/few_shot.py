"""The few-shot protocol: read-outs fitted on k windows of each class, scored on later windows."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from neurokern._check import check_choice
from neurokern.adapters.closed_form import LDAProbe, RidgeProbe
from neurokern.adapters.probe import LinearProbe
from neurokern.datasets import BinnedSession
from neurokern.metrics import balanced_accuracy, bootstrap_interval

logger = logging.getLogger(__name__)


class Adapter(Protocol):
    """A read-out of classes: anything with this ``fit`` and ``predict``."""

    def fit(self, features: Tensor, labels: np.ndarray) -> object:
        """Fit on ``(samples, features)`` and one label per sample."""

    def predict(self, features: Tensor) -> np.ndarray:
        """Labels of shape (samples,)."""


DEFAULT_ADAPTERS: Mapping[str, Callable[[], Adapter]] = {
    "ridge": RidgeProbe,
    "lda": LDAProbe,
    "logistic": LinearProbe,
}


@dataclass(frozen=True, eq=False, kw_only=True)
class FewShotTask:
    """One session's labeled windows, with the windows to learn from and those to be asked about.

    Attributes
    ----------
    session : str
    features : mapping of str to float tensor of shape (windows, features)
        Several views of the same windows, to be compared.
    labels : array of shape (windows,)
    support_pool : int array
        Windows that support sets are drawn from.
    query : int array
        Windows that are scored; never in a support set.
    """

    session: str
    features: Mapping[str, Tensor]
    labels: np.ndarray
    support_pool: np.ndarray
    query: np.ndarray

    def __post_init__(self) -> None:
        if np.intersect1d(self.support_pool, self.query).size:
            raise ValueError("FewShotTask: support_pool and query must have no window in common")
        for name, values in self.features.items():
            if len(values) != len(self.labels):
                raise ValueError(
                    f"FewShotTask: features {name!r} must have one row per label ({len(self.labels)}), "
                    f"got {len(values)}"
                )
        if len(self.classes) < 2:
            raise ValueError(
                f"FewShotTask: the query windows of {self.session!r} must hold at least 2 classes, "
                f"got {self.classes.tolist()}"
            )
        if missing := sorted(set(self.classes.tolist()) - set(self.labels[self.support_pool].tolist())):
            raise ValueError(
                f"FewShotTask: classes {missing} of {self.session!r} appear in the query windows only; "
                "there is nothing to learn them from"
            )

    @property
    def classes(self) -> np.ndarray:
        """Sorted classes of the query windows."""
        return np.unique(self.labels[self.query])


def few_shot_task(
    session: BinnedSession,
    labels: np.ndarray | Sequence[object],
    features: Mapping[str, Tensor],
    *,
    query_fraction: float = 0.4,
) -> FewShotTask:
    """Split a session's labeled windows in time: early ones to learn from, the last ones to be asked about.

    Parameters
    ----------
    session : BinnedSession
    labels : sequence of length n_windows
        Class of each window. Windows labeled None, NaN or "" take no part.
    features : mapping of str to tensor of shape (n_windows, features)
        Such as ``count_features(session) | model_features(model, session)``.
    query_fraction : float, default 0.4
        Share of the labeled windows, the last in time, that are asked about. Earlier windows that overlap
        one of them in time take no part.

    Raises
    ------
    ValueError
        If lengths differ, or a class is only in one of the two parts.
    """
    values = np.asarray(labels)
    if values.shape != (session.n_windows,):
        raise ValueError(
            f"few_shot_task: labels must have one entry per window ({session.n_windows}), got {values.shape}"
        )
    if not 0 < query_fraction < 1:
        raise ValueError(f"few_shot_task: query_fraction must lie within (0, 1), got {query_fraction!r}")
    labeled = np.flatnonzero(~pd.isna(values) & (values != ""))
    if session.windows is not None:
        labeled = labeled[np.argsort(session.windows[labeled, 0], kind="stable")]
    n_query = max(1, round(len(labeled) * query_fraction))
    pool, query = labeled[:-n_query], labeled[-n_query:]
    if session.windows is not None and len(query):
        pool = pool[session.windows[pool, 1] <= session.windows[query, 0].min() + 1e-9]
    return FewShotTask(
        session=session.session, features=features, labels=values, support_pool=pool, query=query
    )


def few_shot_episodes(
    tasks: FewShotTask | Sequence[FewShotTask],
    adapters: Mapping[str, Callable[[], Adapter]] | None = None,
    *,
    shots: Sequence[int] = (1, 2, 5, 10, 20),
    episodes: int = 100,
    control_episodes: int = 20,
    seed: int = 0,
    small_classes: str = "skip",
    progress: bool = False,
) -> pd.DataFrame:
    """Run the protocol and return every episode; parameters as in :func:`evaluate_few_shot`.

    Returns
    -------
    table : DataFrame
        Columns ``session, features, adapter, shots, episode, shuffled`` (True: the labels of the support
        set were shuffled), ``balanced_accuracy, chance, n_query``.
    """
    sessions = [tasks] if isinstance(tasks, FewShotTask) else list(tasks)
    makers = DEFAULT_ADAPTERS if adapters is None else adapters
    _check_protocol(sessions, makers, shots, episodes, control_episodes, small_classes)
    rows: list[tuple[object, ...]] = []
    with tqdm(total=len(sessions) * episodes, desc="few-shot", unit=" episodes", disable=not progress) as bar:
        for task in sessions:
            usable = _usable_shots(task, shots, small_classes)
            for episode in range(episodes):
                order, shuffled = _draw(task, seed, episode)
                for k in usable:
                    support = np.concatenate([of_class[:k] for of_class in order])
                    labels = task.labels[support]
                    rows += _scores(task, makers, support, labels, (k, episode, False))
                    if episode < control_episodes:
                        rows += _scores(
                            task, makers, support, shuffled.permutation(labels), (k, episode, True)
                        )
                bar.update()
    columns = ["session", "features", "adapter", "shots", "episode", "shuffled"]
    return pd.DataFrame(rows, columns=[*columns, "balanced_accuracy", "chance", "n_query"])


def evaluate_few_shot(
    tasks: FewShotTask | Sequence[FewShotTask],
    adapters: Mapping[str, Callable[[], Adapter]] | None = None,
    *,
    shots: Sequence[int] = (1, 2, 5, 10, 20),
    episodes: int = 100,
    control_episodes: int = 20,
    seed: int = 0,
    small_classes: str = "skip",
    confidence: float = 0.95,
    progress: bool = False,
) -> pd.DataFrame:
    """Compare read-outs and features by how well they decode from k labeled windows per class.

    In each episode the support pool of a session is shuffled class by class; its first k windows of each
    class are the support set for k shots. Support sets are thus stratified and nested, and the same for
    every read-out and every kind of features, so that differences are paired. All are scored on the same
    later windows, which are in no support set, by balanced accuracy (recall averaged over classes).

    Parameters
    ----------
    tasks : FewShotTask or sequence of them
        One per session, see :func:`few_shot_task`. They must have the same names of features.
    adapters : mapping of str to a maker of adapters, default ridge, lda, logistic
        ``maker()`` returns a fresh object with ``fit`` and ``predict``.
    shots : sequence of int, default (1, 2, 5, 10, 20)
        Windows per class in the support set.
    episodes : int, default 100
        Draws of the support set in each session.
    control_episodes : int, default 20
        Episodes that are repeated with the labels of the support set shuffled: what a read-out scores when
        there is nothing to learn.
    seed : int, default 0
        Episodes depend on it, on the session's name and on their number alone.
    small_classes : {"skip", "raise"}, default "skip"
        What to do where a class has fewer than k windows in the pool: leave that k of that session out,
        with a warning in the log and a smaller ``n_sessions``, or raise a ValueError with the counts.
    confidence : float, default 0.95
    progress : bool, default False

    Returns
    -------
    table : DataFrame
        One row per kind of features, adapter and k: ``method`` ("features, adapter"), ``features, adapter,
        shots, mean`` (balanced accuracy, over episodes and then over sessions), ``low, high`` (bootstrap
        interval), ``chance`` (1 / number of classes), ``shuffled`` (mean of the control), ``n_sessions,
        n_episodes, n_query``.

    Raises
    ------
    ValueError
        If an argument is bad, or no session has enough windows for any k.

    Notes
    -----
    With several sessions the interval is over sessions: their means are resampled. With one session it is
    over episodes and says only how much the choice of the support set matters, not how another session would
    do.
    """
    table = few_shot_episodes(
        tasks,
        adapters,
        shots=shots,
        episodes=episodes,
        control_episodes=control_episodes,
        seed=seed,
        small_classes=small_classes,
        progress=progress,
    )
    rows = []
    for (features, adapter, k), group in table.groupby(["features", "adapter", "shots"], sort=False):
        learned, control = group[~group["shuffled"]], group[group["shuffled"]]
        by_session = learned.groupby("session")
        means = by_session["balanced_accuracy"].mean()
        draws = means if len(means) > 1 else learned["balanced_accuracy"]
        low, high = bootstrap_interval(draws.to_numpy(), confidence=confidence, seed=seed)
        rows.append(
            {
                "method": f"{features}, {adapter}",
                "features": features,
                "adapter": adapter,
                "shots": k,
                "mean": means.mean(),
                "low": low,
                "high": high,
                "chance": by_session["chance"].first().mean(),
                "shuffled": control.groupby("session")["balanced_accuracy"].mean().mean(),
                "n_sessions": len(means),
                "n_episodes": episodes,
                "n_query": by_session["n_query"].first().mean(),
            }
        )
    return pd.DataFrame(rows).sort_values("shots", kind="stable", ignore_index=True)


def _scores(
    task: FewShotTask,
    makers: Mapping[str, Callable[[], Adapter]],
    support: np.ndarray,
    labels: np.ndarray,
    key: tuple[int, int, bool],
) -> list[tuple[object, ...]]:
    """Rows of one support set: every kind of features with every adapter."""
    truth = task.labels[task.query]
    chance = 1 / len(task.classes)
    rows: list[tuple[object, ...]] = []
    for name, values in task.features.items():
        seen, asked = values[torch.from_numpy(support)], values[torch.from_numpy(task.query)]
        for adapter, maker in makers.items():
            readout = maker()
            readout.fit(seen, labels)
            score = balanced_accuracy(readout.predict(asked), truth)
            rows.append((task.session, name, adapter, *key, score, chance, len(truth)))
    return rows


def _draw(task: FewShotTask, seed: int, episode: int) -> tuple[list[np.ndarray], np.random.Generator]:
    """Shuffled pool of each class, and a generator for the control."""
    entropy = (seed, zlib.crc32(task.session.encode()), episode)
    draw, control = (np.random.default_rng(s) for s in np.random.SeedSequence(entropy).spawn(2))
    labels = task.labels[task.support_pool]
    order = [draw.permutation(task.support_pool[labels == label]) for label in task.classes]
    return order, control


def _class_sizes(task: FewShotTask) -> dict[object, int]:
    labels = task.labels[task.support_pool]
    return {label: int((labels == label).sum()) for label in task.classes.tolist()}


def _usable_shots(task: FewShotTask, shots: Sequence[int], small_classes: str) -> list[int]:
    sizes = _class_sizes(task)
    too_many = [k for k in shots if k > min(sizes.values())]
    if too_many:
        message = f"session {task.session!r} has too few windows for shots {too_many}; per class: {sizes}"
        if small_classes == "raise":
            raise ValueError(f'evaluate_few_shot: {message}; pass fewer shots or small_classes="skip"')
        logger.warning("few-shot: %s; left out there", message)
    return [k for k in shots if k not in too_many]


def _check_protocol(
    tasks: Sequence[FewShotTask],
    makers: Mapping[str, Callable[[], Adapter]],
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
    names = {tuple(task.features) for task in tasks}
    if len(names) > 1:
        raise ValueError(f"evaluate_few_shot: tasks must have the same features, got {sorted(names)}")
    if len({task.session for task in tasks}) < len(tasks):
        raise ValueError("evaluate_few_shot: tasks must be of different sessions; one name appears twice")
    sizes = {task.session: _class_sizes(task) for task in tasks}
    if max(min(of_session.values()) for of_session in sizes.values()) < min(shots):
        raise ValueError(
            f"evaluate_few_shot: {min(shots)} windows of each class are in no session's support pool; "
            f"windows per class: {sizes}"
        )
