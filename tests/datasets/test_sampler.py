"""The sampler: every window once, one session a batch, new batches each epoch, an exact place to resume."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurokern.datasets import SessionBatchSampler
from neurokern.datasets._random import permutation


class Sizes:
    """Stands for a dataset: the sampler reads nothing but where sessions begin."""

    def __init__(self, sizes):
        self.offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def sampler_of(sizes=(7, 5), batch_size=3, **options):
    return SessionBatchSampler(Sizes(sizes), batch_size, **options)


def test_batches_hold_one_session_and_every_window_once():
    batches = list(sampler_of())
    assert sorted(item for batch in batches for item in batch) == list(range(12))
    assert all(len({item < 7 for item in batch}) == 1 for batch in batches)
    assert sorted(map(len, batches)) == [1, 2, 3, 3, 3]


def test_epochs_differ_in_order_and_composition():
    sampler = sampler_of(sizes=(20, 20), batch_size=4)
    first, second = list(sampler), list(sampler)
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}
    assert [batch[0] < 20 for batch in first] != [batch[0] < 20 for batch in second]


def test_epoch_depends_on_seed_and_epoch_alone():
    used = sampler_of(seed=5)
    list(used), list(used)
    fresh = sampler_of(seed=5)
    fresh.set_epoch(2)
    assert list(used) == list(fresh) == fresh.plan(2)
    assert sampler_of(seed=6).plan(2) != fresh.plan(2)


def test_order_of_a_seed_stays_what_it_was():
    assert permutation(6, 1, 2, 3).tolist() == [2, 5, 1, 3, 0, 4]


def test_without_shuffling_windows_come_in_order():
    sampler = sampler_of(shuffle=False)
    assert list(sampler) == [[0, 1, 2], [3, 4, 5], [6], [7, 8, 9], [10, 11]]
    assert list(sampler) == sampler.plan(0)


def test_drop_last_leaves_out_only_incomplete_batches():
    sampler = sampler_of(drop_last=True)
    assert sorted(map(len, sampler)) == [3, 3, 3]
    assert len(sampler) == 3


def test_session_smaller_than_a_batch_is_not_lost():
    assert sorted(map(sorted, sampler_of(sizes=(2, 1), batch_size=16))) == [[0, 1], [2]]


def test_pass_broken_off_is_repeated_and_finished_pass_is_not():
    sampler = sampler_of()
    next(iter(sampler))
    assert list(sampler) == sampler.plan(0)
    assert list(sampler) == sampler.plan(1)


def test_a_loop_that_counts_its_batches_goes_on_to_the_next_epoch_too():
    fresh, counted = sampler_of(seed=5), sampler_of(seed=5)
    first, second = list(fresh), list(fresh)
    passing = iter(counted)
    assert [next(passing) for _ in first] == first  # and no question for one more: so does Lightning
    assert list(counted) == second != first


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 2**70),
    epoch=st.integers(0, 9),
    data=st.data(),
)
def test_resuming_at_any_batch_gives_the_rest_of_the_epoch(sizes, batch_size, seed, epoch, data):
    sampler = sampler_of(sizes, batch_size, seed=seed)
    sampler.set_epoch(epoch)
    n_done = data.draw(st.integers(0, sampler.batches_per_epoch))
    iterator = iter(sampler)
    done = [next(iterator) for _ in range(n_done)]
    state = json.loads(json.dumps(sampler.state_dict()))
    resumed = sampler_of(sizes, batch_size, seed=seed)
    resumed.load_state_dict(state)
    if n_done == sampler.batches_per_epoch:
        assert list(resumed) == sampler.plan(epoch + 1)
        return
    assert len(resumed) == sampler.batches_per_epoch - n_done
    assert done + list(resumed) == sampler.plan(epoch)
    assert list(resumed) == sampler.plan(epoch + 1)


def test_batches_drawn_ahead_by_workers_do_not_count_as_consumed():
    sampler = sampler_of()
    list(sampler)  # workers have drawn the whole epoch
    state = sampler.state_dict(consumed=2)
    resumed = sampler_of()
    resumed.load_state_dict(state)
    resumed.set_epoch(state["epoch"])
    assert list(resumed) == sampler.plan(0)[2:]


def test_place_belongs_to_its_data_and_settings():
    state = sampler_of(seed=1).state_dict()
    for other in (sampler_of(seed=2), sampler_of(seed=1, batch_size=4), sampler_of(sizes=(7, 6), seed=1)):
        with pytest.raises(ValueError, match=r"\(saved, now\) differ"):
            other.load_state_dict(state)
    with pytest.raises(ValueError, match="no such place"):
        sampler_of(seed=1).load_state_dict({**state, "batch": 99})
    with pytest.raises(ValueError, match="no such place"):
        sampler_of(seed=1).load_state_dict({**state, "epoch": None})


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, True])
def test_batch_size_must_be_a_positive_integer(batch_size):
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        sampler_of(batch_size=batch_size)


def test_sampler_without_a_batch_is_refused():
    with pytest.raises(ValueError, match="12 windows in 2 sessions give no batch of 16 with drop_last=True"):
        sampler_of(batch_size=16, drop_last=True)


def test_bad_epochs_and_places_are_refused():
    with pytest.raises(ValueError, match="epoch must be an integer of at least 0"):
        sampler_of().set_epoch(-1)
    with pytest.raises(ValueError, match="consumed must be 0 to 5"):
        sampler_of().state_dict(consumed=6)


def test_large_keys_are_not_rounded():
    huge = 2**64 - 1
    assert (permutation(50, 1, 2, huge) != permutation(50, 1, 2, huge - 1)).any()


@pytest.mark.filterwarnings("error")
@given(n=st.integers(0, 50), keys=st.lists(st.integers(0, 2**64), min_size=1, max_size=3))
def test_permutation_holds_every_number_once(n, keys):
    assert sorted(permutation(n, *keys).tolist()) == list(range(n))
