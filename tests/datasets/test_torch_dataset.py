"""Windows in PyTorch: ragged batches, labels, and the same batches whatever the workers."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from neurokern import bin_spikes
from neurokern.datasets import (
    SessionBatchSampler,
    SpikeBatch,
    SpikeWindows,
    TimeSeries,
    WindowedRecording,
    collate_spikes,
    sliding_windows,
)


@pytest.fixture
def two_sessions(random_session):
    return [
        random_session(
            n_windows=6, n_units=3, session="a", seed=1, trials=pd.DataFrame({"choice": [0, 1] * 3})
        ),
        random_session(
            n_windows=4, n_units=5, session="b", seed=2, trials=pd.DataFrame({"choice": [1, 0] * 2})
        ),
    ]


def assert_equal_batches(one: SpikeBatch, other: SpikeBatch) -> None:
    assert one.session == other.session
    assert one.labels.keys() == other.labels.keys()
    for name in ("counts", "n_units", "regions", "session_index", "window"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for name, values in one.labels.items():
        assert torch.equal(values, other.labels[name])


def test_items_follow_sessions_and_windows(two_sessions):
    dataset = SpikeWindows(two_sessions, labels=["choice"])
    assert len(dataset) == 10
    sample = dataset[7]
    assert (sample.session, sample.session_index, sample.window) == ("b", 1, 1)
    np.testing.assert_array_equal(sample.counts, two_sessions[1].counts[1])
    assert sample.counts.dtype == torch.float32
    assert sample.labels["choice"].item() == 0
    np.testing.assert_array_equal(dataset[-1].counts, two_sessions[1].counts[3])


def test_items_beyond_the_end_are_refused(two_sessions):
    dataset = SpikeWindows(two_sessions)
    for item in (10, -11):
        with pytest.raises(IndexError, match="items are 0 to 9"):
            dataset[item]


def test_batch_of_several_sessions_is_padded_and_masked(two_sessions):
    batch = SpikeWindows(two_sessions, labels=["choice"]).__getitems__([6, 0, 9])
    assert batch.counts.shape == (3, 4, 5)
    assert batch.n_units.tolist() == [5, 3, 5]
    assert batch.unit_mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2, [True] * 5]
    assert batch.regions.tolist() == [[0, 1, 0, 1, 0], [0, 1, 0, -1, -1], [0, 1, 0, 1, 0]]
    assert (batch.session, batch.session_index.tolist()) == (["b", "a", "b"], [1, 0, 1])
    assert batch.window.tolist() == [0, 0, 3]
    assert batch.labels["choice"].tolist() == [1, 0, 0]
    assert not batch.counts[1, :, 3:].any()
    np.testing.assert_array_equal(batch.counts[1, :, :3], two_sessions[0].counts[0])
    np.testing.assert_array_equal(batch.counts[2], two_sessions[1].counts[3])


def test_batched_reading_equals_collating_single_windows(two_sessions):
    dataset = SpikeWindows(two_sessions, labels=["choice"])
    for items in ([6, 0, 9], [2, 1], [9, 9]):
        assert_equal_batches(dataset.__getitems__(items), collate_spikes([dataset[item] for item in items]))


def test_regions_are_numbered_over_all_sessions(random_session):
    one = dataclasses.replace(random_session(session="a"), regions=np.array(["VISp", "CA1", ""]))
    two = dataclasses.replace(random_session(session="b"), regions=np.array(["DG", "CA1", "CA1"]))
    dataset = SpikeWindows([one, two])
    assert dataset.region_names == ("CA1", "DG", "VISp")
    assert dataset.__getitems__([0, 10]).regions.tolist() == [[2, 0, -1], [1, 0, 0]]


def test_subset_of_the_dataset_loads_in_batches(two_sessions):
    dataset = SpikeWindows(two_sessions)
    loader = DataLoader(Subset(dataset, [8, 1, 5]), batch_size=2, collate_fn=collate_spikes)
    assert [batch.window.tolist() for batch in loader] == [[2, 1], [5]]


def test_floats_and_truth_values_are_labels(random_session):
    session = random_session(
        trials=pd.DataFrame({"contrast": np.linspace(0, 1, 10), "rewarded": [True, False] * 5})
    )
    labels = SpikeWindows([session], labels=["contrast", "rewarded"]).__getitems__([0, 1]).labels
    assert (labels["contrast"].dtype, labels["rewarded"].dtype) == (torch.float32, torch.int64)
    assert labels["rewarded"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"session": "a"}, r"distinct names, got \['a'\] more than once"),
        ({"n_bins": 8}, r"must have the \(n_bins, bin_size\) of 'a'"),
        ({"trials": None}, "session 'b' has no label 'choice'; its columns are"),
        ({"trials": pd.DataFrame({"choice": list("abcd")})}, "label 'choice' of session 'b' must be numeric"),
    ],
)
def test_sessions_that_do_not_fit_are_refused(two_sessions, random_session, change, message):
    fields = {"n_windows": 4, "session": "b", "trials": two_sessions[1].trials, **change}
    with pytest.raises(ValueError, match=message):
        SpikeWindows([two_sessions[0], random_session(**fields)], labels=["choice"])


def test_no_sessions_are_refused():
    with pytest.raises(ValueError, match="there are no sessions"):
        SpikeWindows([])


def test_nothing_and_unequal_samples_are_not_collated(two_sessions, random_session):
    with pytest.raises(ValueError, match="there are no samples"):
        collate_spikes([])
    longer = SpikeWindows([random_session(n_bins=6)])
    with pytest.raises(ValueError, match=r"windows differ in bins: \[4, 6\]"):
        collate_spikes([SpikeWindows(two_sessions)[0], longer[0]])
    with pytest.raises(ValueError, match="differ in their labels"):
        collate_spikes([SpikeWindows(two_sessions)[0], SpikeWindows(two_sessions, labels=["choice"])[0]])


def test_batch_moves_as_a_whole(two_sessions, device):
    batch = SpikeWindows(two_sessions, labels=["choice"]).__getitems__([0, 7])
    moved = batch.to(device)
    assert {
        t.device.type for t in (moved.counts, moved.regions, moved.unit_mask, moved.labels["choice"])
    } == {device}
    assert_equal_batches(moved.to("cpu"), batch)


@pytest.mark.gpu
def test_batch_is_pinned_by_the_loader(two_sessions):
    loader = DataLoader(SpikeWindows(two_sessions), batch_size=4, collate_fn=collate_spikes, pin_memory=True)
    for batch in loader:
        assert batch.counts.is_pinned()
        assert batch.regions.is_pinned()


def lazy_dataset(random_recording) -> SpikeWindows:
    sessions = []
    for number, n_units in enumerate((4, 7)):
        recording = random_recording(n_units=n_units, session=f"session {number}", seed=number)
        sessions.append(WindowedRecording(recording, sliding_windows(recording, 1.0, 0.5), 0.02))
    return SpikeWindows(sessions)


def test_dataset_survives_pickling(random_recording):
    dataset = lazy_dataset(random_recording)
    copy = pickle.loads(pickle.dumps(dataset))
    assert_equal_batches(copy.__getitems__([3, 50]), dataset.__getitems__([3, 50]))


@pytest.fixture
def thread_pool():
    """Start the pool of native threads in this process: a forked worker must not wait for its threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    random = np.random.default_rng(0)
    bin_spikes(
        random.uniform(0, 100, 1_000_000), random.integers(100, size=1_000_000), 0.02, 100.0, n_units=100
    )
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_that_bin_give_the_batches_of_no_workers(random_recording, thread_pool, start_method):
    dataset = lazy_dataset(random_recording)

    def batches(**options):
        sampler = SessionBatchSampler(dataset, batch_size=16, seed=1)
        return list(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate_spikes, **options))

    alone = batches()
    together = batches(num_workers=2, multiprocessing_context=start_method)
    assert len(alone) == len(together) == 6
    for one, other in zip(alone, together, strict=True):
        assert_equal_batches(one, other)


def test_resuming_with_workers_gives_the_rest_of_the_epoch(random_recording):
    dataset = lazy_dataset(random_recording)
    sampler = SessionBatchSampler(dataset, batch_size=16, seed=1)
    iterator = iter(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate_spikes, num_workers=2))
    seen = [next(iterator) for _ in range(2)]
    state = sampler.state_dict(consumed=len(seen))
    resumed = SessionBatchSampler(dataset, batch_size=16, seed=1)
    resumed.load_state_dict(state)
    rest = list(DataLoader(dataset, batch_sampler=resumed, collate_fn=collate_spikes))
    expected = [dataset.__getitems__(items) for items in sampler.plan(0)]
    for one, other in zip(seen + rest, expected, strict=True):
        assert_equal_batches(one, other)


def test_behavior_is_read_in_the_middle_of_bins_with_what_is_known(random_recording):
    def windowed(session, gap):
        times = np.arange(0, 20.01, 0.05)
        times = times[(times < gap) | (times > gap + 2)]
        series = {"hand": TimeSeries.from_arrays(times, np.stack([times, -times], axis=1), ("x", "y"))}
        recording = dataclasses.replace(random_recording(session=session), series=series)
        return WindowedRecording(recording, sliding_windows(recording, 1.0), 0.1)

    dataset = SpikeWindows([windowed("a", 5.0), windowed("b", 12.0)], series=["hand"])
    batch = collate_spikes(dataset.__getitems__([3, 5, 20 + 12, 20 + 3]))
    middle = torch.arange(10) * 0.1 + 0.05
    torch.testing.assert_close(batch.series["hand"][0, :, 1], -(3 + middle))
    assert batch.series_valid["hand"].all(dim=1).tolist() == [True, False, False, True]
    assert torch.isnan(batch.series["hand"][1][~batch.series_valid["hand"][1]]).all()
    one_by_one = collate_spikes([dataset[3], dataset[5]])
    torch.testing.assert_close(one_by_one.series["hand"], batch.series["hand"][:2], equal_nan=True)
    assert batch.to("cpu").series_valid.keys() == {"hand"}
    with pytest.raises(ValueError, match=r"session 'a' has no series 'wheel'; it has \['hand'\]"):
        SpikeWindows([windowed("a", 5.0)], series=["wheel"])
