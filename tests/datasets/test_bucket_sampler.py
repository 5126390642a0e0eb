"""Batches of several sessions: every window once, little padding, the same rules as for one session."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurokern.datasets import BucketBatchSampler


@dataclass
class Session:
    n_units: int


class Windows:
    """Stands for a dataset: the sampler reads the sizes of its sessions alone."""

    def __init__(self, n_windows, n_units):
        self.offsets = np.concatenate([[0], np.cumsum(n_windows)]).astype(np.int64)
        self.sessions = [Session(n) for n in n_units]


def sampler_of(n_windows=(7, 5, 4, 6), n_units=(100, 50, 110, 300), batch_size=4, **options):
    return BucketBatchSampler(Windows(n_windows, n_units), batch_size, **options)


def session_of(sampler, item):
    return int(np.searchsorted(sampler.offsets, item, side="right")) - 1


def test_sessions_of_like_sizes_share_a_bucket():
    assert sampler_of().buckets == [[1], [0, 2], [3]]
    assert sampler_of(max_padding=0).buckets == [[1], [0], [2], [3]]
    assert sampler_of(max_padding=math.inf).buckets == [[1, 0, 2, 3]]
    assert sampler_of(n_units=(5, 5, 5, 5), max_padding=0).buckets == [[0, 1, 2, 3]]


sizes = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 400)), min_size=1, max_size=6)


@given(
    sizes=sizes.filter(lambda sessions: any(n for n, _ in sessions)),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 1000),
    max_padding=st.sampled_from([0.0, 0.25, 1.0]),
    shuffle=st.booleans(),
)
def test_every_window_comes_once_and_padding_is_bounded(sizes, batch_size, seed, max_padding, shuffle):
    n_windows, n_units = zip(*sizes, strict=True)
    options = {"max_padding": max_padding, "seed": seed, "shuffle": shuffle}
    sampler = sampler_of(n_windows, n_units, batch_size, **options)
    for epoch in range(2):
        batches = list(sampler)
        assert batches == sampler.plan(epoch)
        assert len(batches) == len(sampler)
        assert sorted(item for batch in batches for item in batch) == list(range(sum(n_windows)))
        for batch in batches:
            assert 1 <= len(batch) <= batch_size
            units = [n_units[session_of(sampler, item)] for item in batch]
            assert max(units) <= min(units) * (1 + max_padding)


def test_batches_mix_sessions_and_change_with_the_epoch():
    sampler = sampler_of((20, 20), (100, 105), batch_size=8)
    first, second = list(sampler), list(sampler)
    assert all(len({session_of(sampler, item) for item in batch}) == 2 for batch in first)
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_without_shuffling_windows_come_in_the_order_of_buckets():
    sampler = sampler_of((3, 2), (20, 10), batch_size=2, shuffle=False)
    assert list(sampler) == [[3, 4], [0, 1], [2]]
    assert list(sampler_of((3, 2), (20, 10), batch_size=2, shuffle=False, drop_last=True)) == [[3, 4], [0, 1]]


def test_a_run_resumes_in_the_middle_of_an_epoch_with_the_same_buckets_only():
    sampler = sampler_of(seed=3)
    batches = iter(sampler)
    seen = [next(batches), next(batches)]
    resumed = sampler_of(seed=3)
    resumed.load_state_dict(sampler.state_dict(consumed=2))
    assert seen + list(resumed) == sampler.plan(0)
    with pytest.raises(ValueError, match=r"\(saved, now\) differ: .*buckets"):
        sampler_of(seed=3, max_padding=5.0).load_state_dict(sampler.state_dict())


def test_wrong_options_are_named():
    for wrong in (-0.1, math.nan):
        with pytest.raises(ValueError, match="max_padding must be at least 0"):
            sampler_of(max_padding=wrong)
    with pytest.raises(TypeError, match="max_padding must be a number"):
        sampler_of(max_padding="little")
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        sampler_of(batch_size=0)


def test_a_model_takes_the_mixed_batches():
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader

    from neurokern.datasets import BinnedSession, SpikeWindows, collate_spikes
    from neurokern.models import MtM, MtMConfig, draw_schemes, mask_batch, poisson_loss

    rng = np.random.default_rng(0)
    sessions = [
        BinnedSession(
            counts=rng.poisson(1.0, (6, 10, n)).astype(np.uint8),
            bin_size=0.02,
            regions=np.array(["CA1", "VISp"])[np.arange(n) % 2],
            unit_ids=np.arange(n),
            session=f"session {n}",
            subject="mouse",
        )
        for n in (8, 9, 20)
    ]
    model = MtM(
        MtMConfig.modern(n_bins=10, hidden_size=16, n_layers=1, n_heads=2, mlp_size=16, stitch_size=8)
    )
    for session in sessions:
        model.add_session(session.session, session.n_units, session.regions.tolist(), session.counts)
    windows = SpikeWindows(sessions)
    loader = DataLoader(windows, batch_sampler=BucketBatchSampler(windows, 4), collate_fn=collate_spikes)
    mixed = 0
    for step, batch in enumerate(loader):
        schemes = draw_schemes(model.config.schemes, len(batch), seed=1, offset=4 * step)
        masked = mask_batch(batch, schemes, seed=1, offset=4 * step)
        log_rates = model.forward_batch(batch, schemes, counts=masked.inputs, hidden=masked.hidden)
        poisson_loss(log_rates, batch.counts, masked.target_mask, "mean").backward()
        mixed += len(set(batch.session)) > 1
    assert mixed
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
