"""Batch k of an epoch is a function of (seed, epoch, k): for any workers and processes, and after a stop."""

import json
from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from neurokern.datasets import (  # noqa: E402
    SessionBatchSampler,
    SpikeWindows,
    WindowedRecording,
    WindowStream,
    collate_spikes,
    sliding_windows,
)


class Windows:
    """The least that samplers ask of a dataset; a batch is the numbers of its windows."""

    def __init__(self, sizes):
        self.offsets = np.cumsum([0, *sizes], dtype=np.int64)

    def __len__(self):
        return int(self.offsets[-1])

    def batch(self, indices, *, shared=False):
        return list(indices)


def passes(kind, sizes, world, state=None, epoch=0):
    """Batches in the order in which all processes together take them."""
    made = []
    for rank in range(world):
        if kind == "stream":
            one = WindowStream(Windows(sizes), 3, seed=4, shuffle="windows", rank=rank, world_size=world)
        else:
            one = SessionBatchSampler(Windows(sizes), 3, seed=4, rank=rank, world_size=world)
        if state is None:
            one.set_epoch(epoch)
        else:
            one.load_state_dict(state)
        made.append((len(one), list(one)))
    steps = list(zip_longest(*[batches for _, batches in made]))
    assert all(None not in step for step in steps)  # no process waits for one that has no more
    assert all(told == len(batches) for told, batches in made)
    return [batch for step in steps for batch in step]


@given(
    st.sampled_from(["stream", "sampler"]),
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(0, 3),
    st.data(),
)
def test_processes_share_one_order_and_others_may_go_on(kind, sizes, first, then, epoch, data):
    whole = passes(kind, sizes, 1, epoch=epoch)
    assert sorted(i for batch in whole for i in batch) == list(range(sum(sizes)))
    together = passes(kind, sizes, first, epoch=epoch)
    assert together == whole[: len(whole) // first * first]
    steps = data.draw(st.integers(0, len(whole) // first))
    if kind == "stream":
        stopped = WindowStream(Windows(sizes), 3, seed=4, shuffle="windows", world_size=first)
    else:
        stopped = SessionBatchSampler(Windows(sizes), 3, seed=4, world_size=first)
    stopped.set_epoch(epoch)
    state = json.loads(json.dumps(stopped.state_dict(consumed=steps * first)))
    rest = passes(kind, sizes, then, state=state)
    left = whole[steps * first :]
    if len(left) >= then:
        assert rest == left[: len(left) // then * then]
    else:  # nothing is left for every process: the next epoch begins
        following = passes(kind, sizes, 1, epoch=epoch + 1)
        assert rest == following[: len(following) // then * then]


@pytest.mark.parametrize("kind", [WindowStream, SessionBatchSampler])
def test_a_rank_beyond_the_processes_is_an_error(kind):
    with pytest.raises(ValueError, match="rank must be 0 to 1"):
        kind(Windows([4]), 2, rank=2, world_size=2)


@pytest.mark.parametrize("workers", [0, 2])
def test_spikes_stream_in_the_same_order_with_any_workers(random_recording, workers):
    sessions = [
        WindowedRecording(recording, sliding_windows(recording, 1.0), 0.1)
        for recording in (random_recording(session="a"), random_recording(3, session="b", seed=1))
    ]
    windows = SpikeWindows(sessions)
    stream = WindowStream(windows, 6, seed=2)
    order = stream.order(0).tolist()
    loader = DataLoader(stream, batch_size=None, num_workers=workers)
    for k, batch in enumerate(loader):
        wanted = collate_spikes(windows.__getitems__(order[k * 6 : k * 6 + 6]))
        assert torch.equal(batch.counts, wanted.counts)
        assert batch.session == wanted.session
    assert k == 6
