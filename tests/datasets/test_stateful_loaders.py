"""Windows as drop-in for loaders that are not ours: PyTorch's own defaults, and torchdata's, which resume."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import ConcatDataset, DataLoader, Subset  # noqa: E402

from neurokern.datasets import (  # noqa: E402
    SessionBatchSampler,
    SpikeRecording,
    SpikeWindows,
    WindowedRecording,
    WindowStream,
    collate_spikes,
    sliding_windows,
)


@pytest.fixture(scope="module")
def windows():
    sessions = []
    for seed in range(2):
        draw = np.random.default_rng(seed)
        recording = SpikeRecording.from_arrays(
            draw.uniform(0, 12, 300), draw.integers(0, 3 + seed, 300), session=f"s{seed}", stop=12.0
        )
        sessions.append(WindowedRecording(recording, sliding_windows(recording, 1.0), 0.1))
    return SpikeWindows(sessions)


def seen(batches):
    return [(batch.session, batch.window.tolist(), batch.counts.sum().item()) for batch in batches]


def test_a_loader_without_collate_function_makes_the_same_batches(windows):
    expected = seen(DataLoader(windows, batch_size=5, collate_fn=collate_spikes))
    assert seen(DataLoader(windows, batch_size=5)) == expected
    assert seen(DataLoader(ConcatDataset([windows]), batch_size=5)) == expected
    assert seen(DataLoader(Subset(windows, [13, 2]), batch_size=2)) == seen([windows.batch([13, 2])])


def test_a_batch_gives_its_windows_without_padding(windows):
    batch = windows.batch([2, 20])
    assert [sample.counts.shape for sample in batch] == [(10, 3), (10, 4)]
    assert torch.equal(batch[1].counts, windows[20].counts)
    assert batch[-1].window == 8
    with pytest.raises(IndexError, match="windows are 0 to 1"):
        batch[2]


def test_datasets_and_streams_are_copied_and_pickled(windows):
    expected = seen(WindowStream(windows, 4, seed=1))
    for again in (copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        assert seen(WindowStream(again(windows), 4, seed=1)) == expected
        assert seen(again(WindowStream(windows, 4, seed=1))) == expected


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["stream", "sampler", "plain"])
def test_torchdata_resumes_at_the_same_batch(windows, workers, kind):
    loaders = pytest.importorskip("torchdata.stateful_dataloader")

    def loader():
        if kind == "stream":
            stream = WindowStream(windows, 4, seed=1)
            stream.set_epoch(2)
            return loaders.StatefulDataLoader(stream, batch_size=None, num_workers=workers)
        if kind == "plain":
            return loaders.StatefulDataLoader(windows, batch_size=4, num_workers=workers)
        sampler = SessionBatchSampler(windows, 4, seed=1)
        return loaders.StatefulDataLoader(windows, batch_sampler=sampler, num_workers=workers)

    whole = seen(loader())
    for done in (1, 4):
        first = loader()
        passing = iter(first)
        before = seen(next(passing) for _ in range(done))
        state = pickle.loads(pickle.dumps(first.state_dict()))
        del passing
        resumed = loader()
        resumed.load_state_dict(state)
        assert before + seen(resumed) == whole
        assert len(seen(resumed)) == len(whole)  # the next pass is whole again


def test_a_state_that_tells_no_place_serves_iterators_alone(windows):
    stream = WindowStream(windows, 4, seed=1)
    passing = iter(stream)
    next(passing)
    place = passing.state_dict()
    resumed = WindowStream(windows, 4, seed=1)
    resumed.load_state_dict(stream.state_dict())
    with pytest.raises(RuntimeError, match=r"save state_dict\(consumed=\.\.\.\)"):
        next(iter(resumed))
    again = iter(resumed)
    again.load_state_dict(place)
    assert seen(again) == seen(passing)
    with pytest.raises(ValueError, match=r"\(saved, now\) differ: .*batch_size"):
        iter(WindowStream(windows, 5, seed=1)).load_state_dict(place)
