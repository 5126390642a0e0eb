"""One session of a few-shot comparison: what may be learned from, what is asked about, and the draws."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from torch import Tensor, nn

from neurokern._check import check_choice
from neurokern._config import write_text
from neurokern.datasets import BinnedSession

__all__ = ["Draw", "FewShotTask", "draw_support", "few_shot_task", "usable_shots", "write_few_shot_splits"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, kw_only=True)
class FewShotTask:
    """One session's labeled windows, with the windows to learn from and those to be asked about.

    Attributes
    ----------
    session : str
    features : mapping of str to float tensor of shape (windows, features)
        Several views of the same windows, to be compared by read-outs.
    labels : array of shape (windows,), or (windows, targets) of values
    support_pool : int array
        Windows that support sets are drawn from.
    query : int array
        Windows that are scored; never in a support set.
    subject : str
        Whose session it is; "" takes the session for a subject of its own.
    groups : array of shape (windows,) or None
        Trial or block of each window. Support sets take whole groups, ``shots`` counts them, and no group is
        in both pool and query. By default each window is a group.
    kind : {"classes", "values"}
        Classes are drawn k groups each and scored by balanced accuracy; of values k groups in all are drawn,
        scored by R2, averaged over targets.
    inputs : float tensor of shape (windows, ...) or None
        What ``encoders`` take, for adapters with ``fit(model, support)``.
    encoders : mapping of str to nn.Module
        Pretrained models to be adapted; an MtM must know the session.
    """

    session: str
    features: Mapping[str, Tensor]
    labels: np.ndarray
    support_pool: np.ndarray
    query: np.ndarray
    subject: str = ""
    groups: np.ndarray | None = None
    kind: Literal["classes", "values"] = "classes"
    inputs: Tensor | None = None
    encoders: Mapping[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("FewShotTask", "kind", self.kind, ("classes", "values"))
        if np.intersect1d(self.support_pool, self.query).size:
            raise ValueError("FewShotTask: support_pool and query must have no window in common")
        tables = {f"features {name!r}": values for name, values in self.features.items()}
        tables |= {"inputs": self.inputs} if self.inputs is not None else {}
        for name, values in tables.items():
            if len(values) != len(self.labels):
                raise ValueError(
                    f"FewShotTask: {name} must have one row per label ({len(self.labels)}), got {len(values)}"
                )
        if self.encoders and self.inputs is None:
            raise ValueError("FewShotTask: encoders need inputs=, the windows that they take")
        if self.groups is not None:
            self._check_groups(np.asarray(self.groups))
        if self.kind == "classes":
            self._check_classes()

    def _check_groups(self, groups: np.ndarray) -> None:
        if groups.shape != (len(self.labels),):
            raise ValueError(
                f"FewShotTask: groups must have one entry per label ({len(self.labels)}), got {groups.shape}"
            )
        if both := set(groups[self.support_pool].tolist()) & set(groups[self.query].tolist()):
            raise ValueError(
                f"FewShotTask: {len(both)} groups have windows in support_pool and in query; keep each whole"
            )

    def _check_classes(self) -> None:
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
        """Sorted classes of the query windows; none where labels are values."""
        return np.unique(self.labels[self.query]) if self.kind == "classes" else np.zeros(0)

    @property
    def metric(self) -> str:
        """What queries are scored by."""
        return "balanced accuracy" if self.kind == "classes" else "R2"

    def strata(self) -> dict[object, list[np.ndarray]]:
        """Return the groups of the pool, as arrays of windows: for each class, or "all" of values."""
        labels = self.labels[self.support_pool]
        of = {label: labels == label for label in self.classes.tolist()}
        if self.kind == "values":
            of = {"all": np.ones(len(self.support_pool), dtype=bool)}
        return {name: self._grouped(self.support_pool[chosen]) for name, chosen in of.items()}

    def _grouped(self, windows: np.ndarray) -> list[np.ndarray]:
        if self.groups is None:
            return [windows[i : i + 1] for i in range(len(windows))]
        names = np.asarray(self.groups)[windows]
        _, first = np.unique(names, return_index=True)
        return [windows[names == names[at]] for at in np.sort(first)]


def few_shot_task(
    session: BinnedSession,
    labels: np.ndarray | Sequence[object],
    features: Mapping[str, Tensor],
    *,
    query_fraction: float = 0.4,
    gap: float = 0.0,
    groups: np.ndarray | Sequence[object] | None = None,
    kind: Literal["classes", "values"] = "classes",
    inputs: Tensor | None = None,
    encoders: Mapping[str, nn.Module] | None = None,
) -> FewShotTask:
    """Split a session's labeled windows in time: early ones to learn from, the last ones to be asked about.

    Parameters
    ----------
    session : BinnedSession
    labels : sequence of length n_windows
        Class or values of each window. Windows labeled None, NaN or "" take no part.
    features : mapping of str to tensor of shape (n_windows, features)
        Such as ``count_features(session) | model_features(model, session)``.
    query_fraction : float, default 0.4
        Share of the labeled windows, the last in time, that are asked about. Earlier windows that overlap
        one of them in time, or are of the same group, take no part.
    gap : float, seconds, default 0
        Least time between a window that may be learned from and the first that is asked about; needs a
        session with the times of its windows.
    groups, kind, inputs, encoders
        As in :class:`FewShotTask`.

    Raises
    ------
    ValueError
        If lengths differ, or a class is only in one of the two parts.
    """
    values = np.asarray(labels)
    if values.shape[:1] != (session.n_windows,) or (kind == "classes" and values.ndim != 1):
        raise ValueError(
            f"few_shot_task: labels must have one entry per window ({session.n_windows}), got {values.shape}"
        )
    if not 0 < query_fraction < 1:
        raise ValueError(f"few_shot_task: query_fraction must lie within (0, 1), got {query_fraction!r}")
    if not 0 <= gap < np.inf or (gap and session.windows is None):
        raise ValueError(
            f"few_shot_task: gap must be a number of seconds and needs the times of the windows, got {gap!r}"
        )
    known = ~pd.isna(values) & (values != "") if values.ndim == 1 else ~np.isnan(values).any(1)
    labeled = np.flatnonzero(known)
    if session.windows is not None:
        labeled = labeled[np.argsort(session.windows[labeled, 0], kind="stable")]
    n_query = max(1, round(len(labeled) * query_fraction))
    pool, query = labeled[:-n_query], labeled[-n_query:]
    if session.windows is not None and len(query):
        pool = pool[session.windows[pool, 1] + gap <= session.windows[query, 0].min() + 1e-9]
    of = None if groups is None else np.asarray(groups)
    if of is not None and of.shape == (session.n_windows,):
        pool = pool[~np.isin(of[pool], of[query])]
    return FewShotTask(
        session=session.session,
        features=features,
        labels=values,
        support_pool=pool,
        query=query,
        subject=session.subject or "",
        groups=of,
        kind=kind,
        inputs=inputs,
        encoders=encoders or {},
    )


@dataclass(frozen=True)
class Draw:
    """The order in which an episode takes the groups of each class, and a generator for its control."""

    order: dict[object, list[np.ndarray]]
    control: np.random.Generator

    def support(self, k: int) -> np.ndarray:
        """Windows of the first k groups of each class: the draws for several k are nested."""
        return np.concatenate(self._groups(k))

    def shuffled_labels(self, k: int, labels: np.ndarray) -> np.ndarray:
        """Labels of that support set, dealt out anew: whole groups get the label of another one."""
        groups = self._groups(k)
        first = labels[[group[0] for group in groups]]
        return np.repeat(self.control.permutation(first), [len(group) for group in groups], axis=0)

    def _groups(self, k: int) -> list[np.ndarray]:
        return [group for groups in self.order.values() for group in groups[:k]]


def draw_support(task: FewShotTask, seed: int, episode: int) -> Draw:
    """Shuffle the groups of each class; the result depends on seed, session and episode alone."""
    entropy = (seed, zlib.crc32(task.session.encode()), episode)
    draw, control = (np.random.default_rng(s) for s in np.random.SeedSequence(entropy).spawn(2))
    order = {}
    for name, groups in task.strata().items():
        order[name] = [groups[at] for at in draw.permutation(len(groups))]
    return Draw(order, control)


def usable_shots(task: FewShotTask, shots: Sequence[int], small_classes: str) -> list[int]:
    """Return the k that every class has groups for; for others warn, or raise a ValueError."""
    sizes = {name: len(groups) for name, groups in task.strata().items()}
    too_many = [k for k in shots if k > min(sizes.values())]
    if too_many:
        what = "windows" if task.groups is None else "groups"
        message = f"session {task.session!r} has too few {what} for shots {too_many}; per class: {sizes}"
        if small_classes == "raise":
            raise ValueError(f'evaluate_few_shot: {message}; pass fewer shots or small_classes="skip"')
        logger.warning("few-shot: %s; left out there", message)
    return [k for k in shots if k not in too_many]


def write_few_shot_splits(
    path: str | os.PathLike[str],
    tasks: FewShotTask | Sequence[FewShotTask],
    *,
    shots: Sequence[int],
    episodes: int,
    seed: int = 0,
) -> Path:
    """Write which windows each support set and query of a comparison holds, as JSON, to publish with it.

    Parameters are those given to :func:`evaluate_few_shot`. For each session the file has ``query`` and, for
    each episode and class, the groups of windows in the order in which they are taken: the support set for k
    shots is the first k of each class.
    """
    sessions = {}
    most = max(shots)
    for task in [tasks] if isinstance(tasks, FewShotTask) else tasks:
        drawn = []
        for episode in range(episodes):
            order = draw_support(task, seed, episode).order
            drawn.append({str(n): [g.tolist() for g in groups[:most]] for n, groups in order.items()})
        sessions[task.session] = {"query": task.query.tolist(), "episodes": drawn}
    description = {
        "format": "neurokern-few-shot-splits",
        "format_version": 1,
        "seed": seed,
        "shots": list(shots),
        "sessions": sessions,
    }
    write_text(path, json.dumps(description) + "\n")
    return Path(path)
