"""The few-shot protocol: adapters fitted on k windows of each class, scored on later windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
from tqdm import tqdm

from neurokern._check import check_choice
from neurokern.adapters.closed_form import LDAProbe, RidgeProbe
from neurokern.adapters.few_shot_run import Adapter, Maker, adapts_model, score_rows, support_sets
from neurokern.adapters.few_shot_summary import summarize_few_shot
from neurokern.adapters.few_shot_task import FewShotTask, draw_support, usable_shots
from neurokern.adapters.probe import LinearProbe

__all__ = ["DEFAULT_ADAPTERS", "evaluate_few_shot", "few_shot_episodes"]


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
            sets = [support_sets(task, draws, k, control_episodes) for k in own_shots]
            for name, maker in makers.items():
                for found in sets:
                    bar.set_postfix(adapter=name, shots=found.k)
                    rows += score_rows(task, name, maker, found, tuned_episodes)
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


def _check_runnable(tasks: Sequence[FewShotTask], makers: Mapping[str, Maker]) -> None:
    """Raise where an adapter has nothing to run on: its rows would be missing without a word."""
    for name, maker in makers.items():
        tunes = adapts_model(maker)
        if not getattr(tasks[0], "encoders" if tunes else "features"):
            needed = "encoders= and inputs=" if tunes else "features="
            raise ValueError(f"evaluate_few_shot: adapter {name!r} needs tasks with {needed}")
