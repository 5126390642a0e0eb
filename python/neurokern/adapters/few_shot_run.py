"""Running one adapter on the support sets of a few-shot task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from neurokern.adapters.adapted import AdaptedModel
from neurokern.adapters.few_shot_task import Draw, FewShotTask
from neurokern.adapters.support import Support
from neurokern.metrics import balanced_accuracy, r2

__all__ = ["Adapter", "Maker", "ModelAdapter", "SupportSets", "adapts_model", "score_rows", "support_sets"]

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


def adapts_model(maker: Maker) -> bool:
    """Return whether this is an adapter of models, or a maker of them."""
    return bool(getattr(maker() if callable(maker) else maker, "adapts_model", False))


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


def support_sets(task: FewShotTask, draws: Sequence[Draw], k: int, control_episodes: int) -> SupportSets:
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


def score_rows(
    task: FewShotTask, name: str, maker: Maker, sets: SupportSets, tuned_episodes: int | None
) -> Iterator[dict[str, object]]:
    """Rows of one adapter for one k: on every kind of features, or on every encoder."""
    adapter: Any = maker() if callable(maker) else maker
    if adapts_model(maker):
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
