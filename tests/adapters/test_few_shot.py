"""The few-shot protocol: what support sets are, what is scored, and known answers."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from neurokern.adapters import (
    FewShotTask,
    FineTuneOptions,
    FromScratch,
    FullFineTune,
    HeadProbe,
    LDAProbe,
    LoRA,
    RidgeProbe,
    RidgeReadout,
    count_features,
    evaluate_few_shot,
    few_shot_differences,
    few_shot_episodes,
    few_shot_task,
    summarize_few_shot,
    write_few_shot_splits,
)
from neurokern.adapters.few_shot_task import draw_support
from neurokern.datasets import BinnedSession
from neurokern.metrics import balanced_accuracy

RIDGE = {"ridge": RidgeProbe}


def labeled_session(
    n_windows: int = 120, effect: float = 2.0, seed: int = 0, session: str = "monday"
) -> tuple[BinnedSession, np.ndarray]:
    """A session in which the first 5 of 20 units fire more on "left"."""
    generator = np.random.default_rng(seed)
    labels = np.array(["left", "right"])[np.arange(n_windows) % 2]
    rates = np.full((n_windows, 4, 20), 0.5)
    rates[labels == "left", :, :5] *= effect
    binned = BinnedSession(
        counts=generator.poisson(rates).astype(np.uint8),
        bin_size=0.05,
        regions=np.full(20, "CA1"),
        unit_ids=np.arange(20),
        session=session,
    )
    return binned, labels


def make_task(**changes) -> FewShotTask:
    session, labels = labeled_session(**changes)
    return few_shot_task(session, labels, count_features(session))


class Recorder:
    """Remembers what it was fitted on and asked about."""

    log: list

    def __init__(self):
        self.log = []

    def maker(self):
        recorder = self

        class Readout:
            def fit(self, features, labels):
                recorder.log.append((features, labels))

            def predict(self, features):
                return np.full(len(features), "left")

        return Readout()


def test_support_sets_are_stratified_nested_and_never_hold_a_query():
    session, labels = labeled_session()
    windows = torch.arange(120)[:, None].float()
    task = few_shot_task(session, labels, {"number": windows})
    recorder = Recorder()
    few_shot_episodes(task, {"spy": recorder.maker}, shots=(1, 3), episodes=4, control_episodes=0)
    supports = [set(features[:, 0].long().tolist()) for features, _ in recorder.log]
    for features, labeled in recorder.log:
        numbers = features[:, 0].long().numpy()
        np.testing.assert_array_equal(labeled, labels[numbers])
        counted = pd.Series(labeled).value_counts()
        assert counted["left"] == counted["right"]
        assert not set(numbers.tolist()) & set(task.query.tolist())
    for one, three in zip(supports[:4], supports[4:], strict=True):
        assert len(one) == 2
        assert len(three) == 6
        assert one < three
    assert len({frozenset(support) for support in supports[4:]}) == 4


def test_query_windows_are_the_last_ones_in_time():
    session, labels = labeled_session(n_windows=10)
    labels = np.array(["left", "right"] * 5)
    starts = np.array([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], dtype=float)
    timed = BinnedSession(
        counts=session.counts,
        bin_size=0.05,
        regions=session.regions,
        unit_ids=session.unit_ids,
        session="timed",
        windows=np.stack([starts, starts + 0.2], 1),
    )
    task = few_shot_task(timed, labels, {}, query_fraction=0.4)
    assert sorted(task.query.tolist()) == [0, 1, 2, 3]
    assert sorted(task.support_pool.tolist()) == [4, 5, 6, 7, 8, 9]


def test_support_windows_that_overlap_a_query_take_no_part():
    session, _ = labeled_session(n_windows=10)
    starts = np.arange(10.0)
    overlapping = BinnedSession(
        counts=session.counts,
        bin_size=0.05,
        regions=session.regions,
        unit_ids=session.unit_ids,
        session="overlapping",
        windows=np.stack([starts, starts + 1.5], 1),
    )
    task = few_shot_task(overlapping, ["left", "right"] * 5, {}, query_fraction=0.4)
    assert task.query.tolist() == [6, 7, 8, 9]
    assert task.support_pool.tolist() == [0, 1, 2, 3, 4]  # window 5 lasts until 6.5 s


def test_windows_without_a_label_take_no_part():
    session, _ = labeled_session(n_windows=10)
    labels = np.array([1, 0, np.nan, 1, 0, 1, np.nan, 0, 1, 0])
    task = few_shot_task(session, labels, {}, query_fraction=0.5)
    assert not {2, 6} & {*task.support_pool.tolist(), *task.query.tolist()}
    words = few_shot_task(session, [None, "a", "b", "", "a", "b", "a", "b", "a", "b"], {})
    assert 0 not in words.support_pool
    assert 3 not in words.support_pool


def test_more_shots_decode_better_and_shuffled_labels_decode_nothing():
    task = make_task(effect=4.0)  # so far apart that a shuffled episode is mostly all right or all wrong
    table = evaluate_few_shot(task, RIDGE, shots=(1, 5, 20), episodes=200, control_episodes=200)
    table = table[table["features"] == "raw counts"]
    assert table["mean"].is_monotonic_increasing
    assert table["mean"].iloc[-1] > 0.9
    assert (table["chance"] == 0.5).all()
    assert (abs(table["shuffled"] - 0.5) < 0.12).all()
    assert ((table["low"] <= table["mean"]) & (table["mean"] <= table["high"])).all()


def test_without_any_signal_the_score_is_chance():
    tasks = [make_task(effect=1.0, seed=seed, session=f"s{seed}") for seed in range(6)]
    table = evaluate_few_shot(tasks, RIDGE, shots=(10,), episodes=20, control_episodes=0)
    assert (abs(table["mean"] - 0.5) < 0.06).all()
    assert table["shuffled"].isna().all()


def test_results_repeat_for_a_seed_and_do_not_depend_on_the_other_sessions():
    first, second = make_task(session="a"), make_task(seed=1, session="b")
    settings = {"shots": (2, 5), "episodes": 5, "control_episodes": 2}
    alone = few_shot_episodes(first, RIDGE, **settings).drop(columns="seconds")
    both = few_shot_episodes([second, first], RIDGE, **settings).drop(columns="seconds")
    pd.testing.assert_frame_equal(both[both["session"] == "a"].reset_index(drop=True), alone)
    other = few_shot_episodes(first, RIDGE, **settings, seed=1)
    assert not other["score"].equals(alone["score"])


def test_one_row_per_features_adapter_and_shots_over_sessions():
    tasks = [make_task(seed=seed, session=f"s{seed}") for seed in range(3)]
    table = evaluate_few_shot(tasks, shots=(2, 5), episodes=4, control_episodes=2)
    assert len(table) == 2 * 3 * 2
    assert set(table["method"]) >= {"raw counts, ridge", "raw binned counts, lda", "raw counts, logistic"}
    assert (table["n_sessions"] == 3).all()
    episodes = few_shot_episodes(tasks, shots=(2, 5), episodes=4, control_episodes=2)
    assert len(episodes) == len(table) * 3 * (4 + 2)
    picked = episodes.query("features == 'raw counts' and adapter == 'lda' and shots == 5 and not shuffled")
    row = table.query("method == 'raw counts, lda' and shots == 5").iloc[0]
    assert row["mean"] == pytest.approx(picked.groupby("session")["score"].mean().mean())


def test_shots_beyond_a_class_are_skipped_with_a_warning_or_refused(caplog):
    task = make_task(n_windows=20)
    with caplog.at_level(logging.WARNING):
        table = evaluate_few_shot(task, RIDGE, shots=(1, 50), episodes=2)
    assert set(table["shots"]) == {1}
    assert "too few windows for shots [50]" in caplog.text
    with pytest.raises(ValueError, match=r"shots \[50\]; per class: \{'left': \d+, 'right': \d+\}"):
        evaluate_few_shot(task, RIDGE, shots=(1, 50), episodes=2, small_classes="raise")
    with pytest.raises(ValueError, match="50 windows of each class"):
        evaluate_few_shot(task, RIDGE, shots=(50,), episodes=2)


def test_balanced_accuracy_equals_scikit_learn_and_is_chance_for_a_constant():
    generator = np.random.default_rng(0)
    labels, predicted = generator.choice(["a", "b", "c"], (2, 50), p=[0.7, 0.2, 0.1])
    assert balanced_accuracy(predicted, labels) == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert balanced_accuracy(np.full(50, "a"), labels) == pytest.approx(1 / 3)


def test_bad_tasks_and_protocols_are_refused():
    session, labels = labeled_session(n_windows=20)
    with pytest.raises(ValueError, match="one entry per window"):
        few_shot_task(session, labels[:5], {})
    with pytest.raises(ValueError, match="query_fraction"):
        few_shot_task(session, labels, {}, query_fraction=1.0)
    with pytest.raises(ValueError, match="at least 2 classes"):
        few_shot_task(session, ["left"] * 20, {})
    with pytest.raises(ValueError, match="only; there is nothing to learn"):
        few_shot_task(session, ["a", "b"] * 9 + ["b", "c"], {})
    with pytest.raises(ValueError, match="one row per label"):
        few_shot_task(session, labels, {"x": torch.zeros(3, 2)})
    with pytest.raises(ValueError, match="no window in common"):
        FewShotTask(
            session="s", features={}, labels=labels, support_pool=np.arange(10), query=np.arange(9, 20)
        )
    task = make_task()
    for changes, message in [
        ({"shots": ()}, "at least one entry"),
        ({"shots": (0,)}, "at least 1"),
        ({"episodes": 0}, "at least 1"),
        ({"small_classes": "ignore"}, "small_classes"),
    ]:
        with pytest.raises(ValueError, match=message):
            evaluate_few_shot(task, RIDGE, **changes)
    with pytest.raises(ValueError, match="different sessions"):
        evaluate_few_shot([task, task], RIDGE)
    with pytest.raises(ValueError, match="same features"):
        evaluate_few_shot([task, few_shot_task(session, labels, {})], RIDGE)


def test_whole_trials_are_drawn_and_none_is_on_both_sides():
    session, _ = labeled_session(n_windows=60)
    trials = np.arange(60) // 3  # three windows each
    labels = np.where(trials % 2, "left", "right")
    windows = torch.arange(60)[:, None].float()
    task = few_shot_task(session, labels, {"number": windows}, groups=trials, query_fraction=0.3)
    assert not set(trials[task.support_pool]) & set(trials[task.query])
    recorder = Recorder()
    few_shot_episodes(task, {"spy": recorder.maker}, shots=(2,), episodes=3, control_episodes=0)
    for features, _ in recorder.log:
        drawn = trials[features[:, 0].long().numpy()]
        assert len(drawn) == 2 * 2 * 3
        assert (np.unique(drawn, return_counts=True)[1] == 3).all()
    draw = draw_support(task, 0, 0)
    shuffled, drawn = draw.shuffled_labels(4, task.labels), trials[draw.support(4)]
    assert sorted(shuffled) == sorted(labels[draw.support(4)])
    assert all(len(set(shuffled[drawn == trial])) == 1 for trial in drawn)
    pool, query = np.arange(30), np.arange(30, 60)
    with pytest.raises(ValueError, match="keep each whole"):
        FewShotTask(
            session="s", features={}, labels=labels, groups=np.zeros(60), support_pool=pool, query=query
        )


def test_a_gap_keeps_windows_near_the_query_out():
    session, _ = labeled_session(n_windows=10)
    starts = np.arange(10.0)
    timed = replace(session, windows=np.stack([starts, starts + 0.2], 1))
    task = few_shot_task(timed, ["left", "right"] * 5, {}, query_fraction=0.4, gap=1.5)
    assert task.query.tolist() == [6, 7, 8, 9]
    assert task.support_pool.tolist() == [0, 1, 2, 3, 4]  # window 5 ends 0.8 s before
    with pytest.raises(ValueError, match="needs the times of the windows"):
        few_shot_task(session, ["left", "right"] * 5, {}, gap=1.0)


@given(st.integers(0, 2**32), st.integers(0, 50), st.integers(1, 9))
def test_draws_are_nested_and_repeat(seed, episode, k):
    task = make_task(n_windows=40)
    first, again = draw_support(task, seed, episode), draw_support(task, seed, episode)
    assert first.support(k).tolist() == again.support(k).tolist()
    assert set(first.support(k)) < set(first.support(k + 1))
    assert set(first.support(k + 1)) <= set(task.support_pool)


def test_the_split_file_holds_the_draws(tmp_path):
    session, labels = labeled_session()
    task = few_shot_task(session, labels, {"number": torch.arange(120)[:, None].float()})
    path = write_few_shot_splits(tmp_path / "splits.json", task, shots=(1, 3), episodes=2, seed=5)
    written = json.loads(path.read_text())
    assert (written["seed"], written["shots"]) == (5, [1, 3])
    of_session = written["sessions"]["monday"]
    assert of_session["query"] == task.query.tolist()
    recorder = Recorder()
    few_shot_episodes(task, {"spy": recorder.maker}, shots=(3,), episodes=2, control_episodes=0, seed=5)
    for episode, (features, _) in zip(of_session["episodes"], recorder.log, strict=True):
        rows = [window for groups in episode.values() for group in groups for window in group]
        assert sorted(rows) == sorted(features[:, 0].long().tolist())


def test_differences_are_paired_by_episode_and_averaged_over_sessions():
    tasks = [make_task(seed=seed, session=f"s{seed}") for seed in range(3)]
    settings = {"shots": (2, 5), "episodes": 6, "control_episodes": 1}
    episodes = few_shot_episodes(tasks, {"ridge": RidgeProbe, "lda": LDAProbe}, **settings)
    found = few_shot_differences(episodes, "raw counts, ridge")
    row = found.query("method == 'raw counts, lda' and shots == 5").iloc[0]
    wide = episodes.query("~shuffled and shots == 5 and features == 'raw counts'")
    wide = wide.pivot(index=["session", "episode"], columns="adapter", values="score")
    by_session = (wide["lda"] - wide["ridge"]).groupby("session").mean()
    assert row["mean"] == pytest.approx(by_session.mean())
    assert row["low"] <= row["mean"] <= row["high"]
    assert row["sessions_won"] == (by_session > 0).sum()
    summary = summarize_few_shot(episodes, baselines=["raw counts, ridge"])
    same = summary.query("method == 'raw counts, lda' and shots == 5").iloc[0]
    assert same["minus raw counts, ridge"] == row["mean"]
    assert same["minus raw counts, ridge low"] == row["low"]
    assert summary.query("method == 'raw counts, ridge'")["minus raw counts, ridge"].isna().all()
    with pytest.raises(ValueError, match="baseline must be one of"):
        few_shot_differences(episodes, "ridge")


def test_intervals_draw_subjects_then_sessions():
    constant = {"metric": "balanced accuracy", "features": "x", "adapter": "y", "shots": 1, "episode": 0}
    constant |= {"shuffled": False, "chance": 0.5, "n_query": 10, "n_trainable": 3, "seconds": 0.1}
    scores = pd.DataFrame({"session": ["a1", "a2", "b1", "b2"], "score": [0.4, 0.4, 0.8, 0.8]})
    episodes = scores.assign(subject=list("aabb"), **constant)
    row = summarize_few_shot(episodes).iloc[0]
    assert row["mean"] == pytest.approx(0.6)
    assert (row["low"], row["high"]) == pytest.approx((0.4, 0.8))  # of two subjects, one is often drawn twice
    assert (row["n_sessions"], row["n_subjects"]) == (4, 2)
    alone = summarize_few_shot(episodes.assign(subject=list("abcd")), confidence=0.8).iloc[0]
    assert (alone["low"], alone["high"]) == pytest.approx((0.5, 0.7))  # binomial of four halves


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.out = torch.nn.Linear(20, 6)

    def forward(self, counts):
        return torch.tanh(self.out(counts))


def model_task(session_name: str, seed: int = 0) -> FewShotTask:
    session, labels = labeled_session(n_windows=60, seed=seed, session=session_name)
    torch.manual_seed(0)
    inputs = torch.from_numpy(session.read(range(60)))
    return few_shot_task(session, labels, count_features(session), inputs=inputs, encoders={"net": Encoder()})


def test_adapters_of_models_run_beside_read_outs_on_the_same_episodes():
    quick = FineTuneOptions(blind_epochs=3, max_epochs=3, validation=0.0)
    adapters = {
        "ridge": RidgeProbe,
        "probe": HeadProbe,
        "lora": LoRA(rank=2, options=quick),
        "full": FullFineTune(options=quick),
        "scratch": FromScratch(make_model=Encoder, options=quick),
    }
    tasks = [model_task("a"), model_task("b", seed=1)]
    settings = {"shots": (1, 4), "episodes": 2, "control_episodes": 1}
    table = evaluate_few_shot(tasks, adapters, **settings, baselines=["net, scratch"])
    methods = set(table["method"])
    assert {"net, lora", "net, full", "net, scratch", "net, probe", "raw counts, ridge"} <= methods
    assert "raw counts, lora" not in methods
    trainable = table.groupby("method")["n_trainable"].first()
    assert trainable["net, full"] > trainable["net, lora"] > trainable["net, probe"]
    assert (table["seconds"] > 0).all()
    assert table.loc[table["method"] == "net, full", "minus net, scratch low"].notna().all()
    again = evaluate_few_shot(tasks, adapters, **settings)
    assert again["mean"].tolist() == table["mean"].tolist()
    with pytest.raises(ValueError, match="'lora' needs tasks with encoders="):
        evaluate_few_shot(make_task(), {"lora": LoRA()})
    with pytest.raises(ValueError, match="'ridge' needs tasks with features="):
        evaluate_few_shot(replace(tasks[0], features={}), {"ridge": RidgeProbe})
    with pytest.raises(ValueError, match="need inputs="):
        replace(tasks[0], inputs=None)


def test_values_are_scored_by_r2_from_k_trials():
    session, _ = labeled_session(n_windows=100, effect=1.0)
    speed = np.stack([session.counts.sum((1, 2)) * 0.1 + 3, session.counts[:, :, 0].sum(1) * 2.0], 1)
    inputs = torch.from_numpy(session.read(range(100)))
    encoders = {"net": Encoder()}
    task = few_shot_task(
        session, speed, count_features(session), kind="values", inputs=inputs, encoders=encoders
    )
    table = evaluate_few_shot(task, {"ridge": RidgeReadout, "probe": HeadProbe}, shots=(10, 40), episodes=4)
    ridge = table[table["method"] == "raw counts, ridge"]
    assert (table["metric"] == "R2").all()
    assert ridge["mean"].is_monotonic_increasing
    assert ridge["mean"].iloc[-1] > 0.5
    assert (ridge["chance"] <= 0).all()  # the R2 of a constant
    assert "net, probe" in set(table["method"])


def test_raw_counts_are_summed_over_bins_or_laid_out_bin_by_bin():
    session, _ = labeled_session(n_windows=3)
    features = count_features(session)
    np.testing.assert_array_equal(features["raw counts"], session.counts.sum(1))
    np.testing.assert_array_equal(features["raw binned counts"], session.counts.reshape(3, -1))


def test_stimulus_side_is_decoded_from_a_real_recording(shared_data):
    from neurokern.datasets import load_binned_npz

    session = load_binned_npz(shared_data / "spikes" / "steinmetz2019" / "session03.npz").rebin(8)
    left, right = session.trials["contrast_left"], session.trials["contrast_right"]
    labels = np.where(left > right, "left", np.where(left < right, "right", ""))
    task = few_shot_task(session, labels, count_features(session))
    table = evaluate_few_shot(task, RIDGE, shots=(20,), episodes=20, control_episodes=10)
    assert (table["mean"] > 0.6).all()
    assert (abs(table["shuffled"] - 0.5) < 0.15).all()
