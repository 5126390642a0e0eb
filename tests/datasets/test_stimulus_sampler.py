"""No stimulus twice in a batch, every window once an epoch, whatever was shown how often."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from neurokern.datasets import StimulusBatchSampler  # noqa: E402

shown = st.lists(st.integers(1, 6), min_size=1, max_size=40)


def stimuli_of(counts, seed=0):
    names = np.repeat([f"stimulus {k}" for k in range(len(counts))], counts)
    return np.random.default_rng(seed).permutation(names)


@given(counts=shown, batch_size=st.integers(1, 12), epoch=st.integers(0, 5), drop_last=st.booleans())
def test_batches_hold_different_stimuli_and_all_windows(counts, batch_size, epoch, drop_last):
    stimuli = stimuli_of(counts)
    n_batches = len(stimuli) // batch_size if drop_last else -(-len(stimuli) // batch_size)
    assume(n_batches >= max(counts))
    batches = StimulusBatchSampler(stimuli, batch_size, seed=3, drop_last=drop_last).plan(epoch)
    assert len(batches) == n_batches
    for batch in batches:
        assert len(set(stimuli[batch])) == len(batch) <= batch_size
    drawn = sorted(np.concatenate(batches).tolist())
    sizes = {len(batch) for batch in batches}
    if drop_last:
        assert sizes == {batch_size}
        assert len(set(drawn)) == len(drawn)
    else:
        assert drawn == list(range(len(stimuli)))
        assert max(sizes) - min(sizes) <= 1


@given(counts=shown, world_size=st.integers(1, 4), batch_size=st.integers(1, 4))
def test_processes_share_batches_of_different_stimuli(counts, world_size, batch_size):
    stimuli = stimuli_of(counts)
    assume(-(-len(stimuli) // (batch_size * world_size)) >= max(counts))
    parts = [
        StimulusBatchSampler(stimuli, batch_size, rank=rank, world_size=world_size).plan(2)
        for rank in range(world_size)
    ]
    together = StimulusBatchSampler(stimuli, batch_size * world_size).plan(2)
    for batches, whole in zip(zip(*parts, strict=True), together, strict=True):
        assert sorted(np.concatenate(batches).tolist()) == sorted(whole)


def test_epochs_differ_and_one_seed_gives_one_order():
    stimuli = stimuli_of([2] * 30)
    sampler = StimulusBatchSampler(stimuli, 10, seed=1)
    assert sampler.plan(0) == StimulusBatchSampler(stimuli, 10, seed=1).plan(0)
    assert sampler.plan(0) != sampler.plan(1)
    assert sampler.plan(0) != StimulusBatchSampler(stimuli, 10, seed=2).plan(0)
    partners = [{frozenset(batch) for batch in sampler.plan(epoch)} for epoch in range(6)]
    assert len(set.union(*partners)) == 36  # whom a window is with changes, too


def test_an_epoch_goes_on_where_it_was_left():
    stimuli = stimuli_of([3] * 20)
    whole = StimulusBatchSampler(stimuli, 8, seed=5)
    expected = [*whole.plan(0), *whole.plan(1)]
    first = StimulusBatchSampler(stimuli, 8, seed=5)
    pass_ = iter(first)
    begun = [next(pass_) for _ in range(3)]
    second = StimulusBatchSampler(stimuli, 8, seed=5)
    second.load_state_dict(first.state_dict())
    assert begun + list(second) + list(second) == expected
    with pytest.raises(ValueError, match=r"StimulusBatchSampler.load_state_dict: \(saved, now\) differ"):
        StimulusBatchSampler(stimuli, 4, seed=5).load_state_dict(first.state_dict())


def test_a_stimulus_shown_too_often_is_named_with_the_remedy():
    stimuli = ["face"] * 5 + [f"house {k}" for k in range(7)]
    with pytest.raises(ValueError, match=r"'face' was shown 5 times.* 3 batches of 4 .* at most 2"):
        StimulusBatchSampler(stimuli, 4)
    assert len(StimulusBatchSampler(stimuli, 2).plan(0)) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 8, "drop_last": True}, "give no batch of 8"),
        ({"stimuli": []}, "give no batch"),
        ({"rank": 2, "world_size": 2}, "rank must be 0 to 1"),
    ],
)
def test_batches_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StimulusBatchSampler(**{"stimuli": ["a", "b", "c"], "batch_size": 2, **options})
