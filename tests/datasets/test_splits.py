"""Splits: disjoint in time, complete, and honest about what is dropped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from neurokern.datasets import BinnedSession, WindowedRecording, sliding_windows, split_session
from neurokern.datasets.splits import _near


def session_of(starts, length):
    starts = np.asarray(starts, dtype=float)
    return BinnedSession(
        counts=np.zeros((len(starts), 1, 1), dtype=np.uint8),
        bin_size=1.0,
        regions=[""],
        unit_ids=np.arange(1),
        session="s",
        windows=np.stack([starts, starts + length], axis=1),
        trials=pd.DataFrame({"number": np.arange(len(starts))}),
    )


def numbers(part):
    return part.trials["number"].tolist()


def test_by_time_train_comes_first_and_test_last():
    splits = split_session(session_of(np.arange(10), 1.0), test=0.2, validation=0.1)
    assert numbers(splits.train) == [0, 1, 2, 3, 4, 5, 6]
    assert numbers(splits.validation) == [7]
    assert numbers(splits.test) == [8, 9]
    assert splits.n_dropped == 0


def test_by_time_goes_by_the_clock_not_by_the_row():
    splits = split_session(session_of([3, 0, 2, 1, 4], 1.0), test=0.2, validation=0.2)
    assert [numbers(part) for part in (splits.train, splits.validation, splits.test)] == [[1, 3, 2], [0], [4]]


def test_windows_that_overlap_a_held_out_part_are_dropped_and_counted():
    splits = split_session(session_of(np.arange(10) * 0.5, 1.0), test=0.2, validation=0.2)
    assert [numbers(part) for part in (splits.train, splits.validation, splits.test)] == [
        [0, 1, 2, 3, 4],
        [6],
        [8, 9],
    ]
    assert splits.n_dropped == 2
    assert splits.note.endswith("2 dropped because they overlap another part")


def test_gap_keeps_parts_apart():
    splits = split_session(session_of(np.arange(10), 1.0), test=0.2, validation=0.0, gap=1.5)
    assert numbers(splits.train) == [0, 1, 2, 3, 4, 5]
    assert splits.validation.n_windows == 0


def test_window_within_a_longer_one_overlaps_it():
    session = session_of([0, 1, 2, 3, 4, 5, 6, 7], np.array([1, 1, 1, 1, 9, 1, 1, 1]))
    splits = split_session(session.select([4, 0, 1, 2, 3, 5, 6, 7]), test=0.1, validation=0.0)
    assert numbers(splits.test) == [7]
    assert numbers(splits.train) == [0, 1, 2, 3, 5, 6]


def test_session_without_windows_is_split_in_its_order(random_session):
    session = random_session(trials=pd.DataFrame({"number": np.arange(10)}))
    splits = split_session(session)
    assert [numbers(part) for part in (splits.train, splits.validation, splits.test)] == [
        list(range(7)),
        [7],
        [8, 9],
    ]


def test_random_split_depends_on_the_seed_alone():
    session = session_of(np.arange(30), 1.0)
    assert numbers(split_session(session, by="random", seed=3).test) == numbers(
        split_session(session, by="random", seed=3).test
    )
    assert numbers(split_session(session, by="random", seed=3).test) != numbers(
        split_session(session, by="random", seed=4).test
    )


def test_random_split_of_a_seed_stays_what_it_was():
    splits = split_session(session_of(np.arange(10), 1.0), by="random", seed=0)
    assert (numbers(splits.validation), numbers(splits.test)) == ([3], [2, 7])


def test_lazy_sessions_split_alike(random_recording):
    recording = random_recording()
    lazy = WindowedRecording(recording, sliding_windows(recording, 1.0), 0.1)
    splits, binned = split_session(lazy), split_session(lazy.bin())
    assert isinstance(splits.train, WindowedRecording)
    np.testing.assert_array_equal(splits.test.windows, binned.test.windows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test": -0.1}, r"test must lie in \[0, 1\]"),
        ({"test": 1.5}, r"test must lie in \[0, 1\]"),
        ({"test": float("nan")}, r"test must lie in \[0, 1\]"),
        ({"test": 0.6, "validation": 0.4}, "test \\+ validation must be below 1"),
        ({"by": "subject"}, "by must be one of 'time', 'random'"),
        ({"gap": -1.0}, "gap must be a finite number"),
        ({"gap": float("inf")}, "gap must be a finite number"),
        ({"gap": 50.0}, "10 windows give 0 train"),
    ],
)
def test_impossible_splits_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_session(session_of(np.arange(10), 1.0), **arguments)


@pytest.mark.parametrize("n_windows", [0, 1, 2])
def test_too_few_windows_are_refused_with_the_counts(n_windows):
    with pytest.raises(
        ValueError, match=f"{n_windows} windows give .* train, .* validation and .* test windows"
    ):
        split_session(session_of(np.arange(n_windows), 1.0))


def test_windows_that_all_overlap_cannot_be_split():
    with pytest.raises(ValueError, match="use more windows, less overlap"):
        split_session(session_of(np.linspace(0, 0.5, 20), 1.0))


@given(
    starts=st.lists(st.integers(0, 400), min_size=8, max_size=60),
    length=st.sampled_from([0.25, 1.0, 3.0]),
    by=st.sampled_from(["time", "random"]),
    fractions=st.tuples(st.sampled_from([0.0, 0.1, 0.3]), st.sampled_from([0.0, 0.1, 0.3])),
    gap=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**63),
)
def test_no_moment_is_on_two_sides_and_every_window_is_accounted_for(
    starts, length, by, fractions, gap, seed
):
    session = session_of(np.array(starts) / 4, length)
    try:
        splits = split_session(session, *fractions, by=by, seed=seed, gap=gap)
    except ValueError as error:
        assert "windows give" in str(error)  # noqa: PT017 (either outcome is right, and both are checked)
        return
    parts = (splits.train, splits.validation, splits.test)
    for one in range(3):
        for other in range(one):
            distance = np.maximum(
                parts[one].windows[:, None, 0] - parts[other].windows[None, :, 1],
                parts[other].windows[None, :, 0] - parts[one].windows[:, None, 1],
            )
            assert not distance.size or distance.min() >= gap
    together = sorted(number for part in parts for number in numbers(part))
    assert len(set(together)) == len(together) == len(starts) - splits.n_dropped
    assert splits.test.n_windows == (max(1, round(fractions[0] * len(starts))) if fractions[0] else 0)
    for part in parts:
        assert (np.diff(part.windows[:, 0]) >= 0).all()


QUARTERS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=12)
WITHIN_A_LONG_ONE = {"windows": [(20, 4)], "others": [(0, 36), (4, 4)], "gap": 0.0}


@given(windows=QUARTERS, others=QUARTERS, gap=st.sampled_from([0.0, 0.5, 2.0]))
@example(**WITHIN_A_LONG_ONE)
def test_windows_of_any_length_are_found_near_as_pair_by_pair(windows, others, gap):
    one = np.array([[start / 4, (start + length) / 4] for start, length in windows]).reshape(-1, 2)
    two = np.array([[start / 4, (start + length) / 4] for start, length in others]).reshape(-1, 2)
    expected = [any(a < d + gap and c < b + gap for c, d in two.tolist()) for a, b in one.tolist()]
    assert _near(one, two, gap).tolist() == expected
