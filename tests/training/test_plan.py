"""Processes share steps: every window once, nobody waits, and masks do not depend on who has them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_sessions import latent_session, two_sessions

from neurokern.datasets import SessionBatchSampler, SpikeWindows
from neurokern.models import Masking, mask_batch
from neurokern.models.masking import ALL_SCHEMES
from neurokern.training import TrainingConfig
from neurokern.training.batches import Part, Plan
from neurokern.training.part import mask_part


def windows_of(sizes: list[int]) -> SpikeWindows:
    return SpikeWindows([latent_session(f"s{k}", 3, n_windows=size) for k, size in enumerate(sizes)])


@given(
    sizes=st.lists(st.integers(1, 23), min_size=1, max_size=4),
    batch_size=st.integers(1, 9),
    batches_per_step=st.integers(1, 4),
    micro=st.none() | st.integers(1, 10),
    world_size=st.integers(1, 5),
)
def test_processes_share_the_windows_of_each_step(
    sizes: list[int], batch_size: int, batches_per_step: int, micro: int | None, world_size: int
) -> None:
    sampler = SessionBatchSampler(windows_of(sizes), batch_size, seed=1)
    plans = [Plan(sampler, batches_per_step, micro, rank, world_size) for rank in range(world_size)]
    seen = []
    for step in range(plans[0].steps_per_epoch):
        batches = plans[0].batches(step)
        shares = [plan.parts(step) for plan in plans]
        for part in (part for share in shares for part in share):
            assert part.items == batches[part.place][part.first : part.first + len(part.items)]
            assert part.number == step * batches_per_step + part.place
            assert part.batch == batches[part.place]
            assert micro is None or len(part.items) <= micro
        taken = sorted(item for share in shares for part in share for item in part.items)
        assert taken == sorted(item for batch in batches for item in batch)
        if micro is None:
            loads = [sum(len(part.items) for part in share) for share in shares]
            assert max(loads) - min(loads) <= 1  # no process waits for another
        seen += taken
    assert sorted(seen) == list(range(sum(sizes)))  # nothing is dropped


def test_parts_of_a_given_size_do_not_depend_on_the_number_of_processes() -> None:
    sampler = SessionBatchSampler(windows_of([13, 7]), 6, seed=2)

    def parts(world_size: int) -> list[Part]:
        plans = [Plan(sampler, 2, 4, rank, world_size) for rank in range(world_size)]
        return [part for step in range(4) for plan in plans for part in plan.parts(step)]

    assert parts(1) == parts(2) == parts(3)


def test_even_shares_have_as_many_parts_with_fillers_that_do_not_count() -> None:
    sampler = SessionBatchSampler(windows_of([5, 1]), 4, seed=2)
    plans = [Plan(sampler, 1, None, rank, 3, even=True) for rank in range(3)]
    for step in range(plans[0].steps_per_epoch):
        shares = [plan.parts(step) for plan in plans]
        assert len({len(plan.passes(step)) for plan in plans}) == 1
        counted = [item for share in shares for part in share if part.counted for item in part.items]
        assert sorted(counted) == sorted(plans[0].batches(step)[0])


def test_windows_change_company_from_epoch_to_epoch() -> None:
    plan = Plan(SessionBatchSampler(windows_of([40, 40]), 8, seed=1))
    epochs = [
        {frozenset(plan.batches(step)[0]) for step in range(epoch * 10, epoch * 10 + 10)} for epoch in (0, 1)
    ]
    assert len(epochs[0] & epochs[1]) == 0


@pytest.mark.parametrize("items", [[4, 9, 1, 30, 2, 8, 11], [4, 40, 1, 30, 60, 8, 11]], ids=["one", "two"])
@pytest.mark.parametrize("scheme", ALL_SCHEMES)
@pytest.mark.parametrize(
    "options",
    [{"ratio": (0.1, 0.5)}, {"region_choice": "sample", "causal_targets": "random-cut", "unit_dropout": 0.2}],
    ids=["batch", "sample"],
)
def test_a_part_is_masked_as_in_its_whole_batch(
    scheme: str, options: dict[str, Any], items: list[int]
) -> None:
    windows = SpikeWindows(two_sessions()[0])
    masking = Masking(schemes=(scheme,), **options)
    config = dataclasses.replace(TrainingConfig.paper(batch_size=7), masking=masking)
    whole = mask_batch(windows.batch(items), scheme, masking, seed=config.seed, offset=5 * 7)
    for first, stop in ((0, 3), (3, 6), (6, 7), (0, 7)):
        batch = windows.batch(items[first:stop])
        part = mask_part(Part(5, 0, items, first, stop), batch, windows, config)
        n_units = batch.counts.shape[2]
        masked = batch.counts.masked_fill(part.masks.hidden, 0.0)
        assert torch.equal(masked, whole.inputs[first:stop, :, :n_units])
        target = part.masks.target.expand_as(batch.counts)
        assert torch.equal(target, whole.target_mask[first:stop, :, :n_units])
        assert int(part.n_targets) == int(whole.target_mask.sum())


def test_passes_hold_as_many_windows_as_allowed_of_one_batch_or_several() -> None:
    sampler = SessionBatchSampler(windows_of([2, 2, 5, 2, 2]), 6, seed=2)

    def sizes(micro_batch_size: int | None) -> list[list[int]]:
        passes = Plan(sampler, 5, micro_batch_size).passes(0)
        return [[part.n_windows for part in one] for one in passes]

    batches = [size for one in sizes(None) for size in one]
    assert sorted(batches) == [2, 2, 2, 2, 5]  # none is cut
    assert len(sizes(None)) == 3
    assert max(map(sum, sizes(None))) <= 6
    assert sizes(100) == [batches]
    assert max(map(sum, sizes(3))) == 3


def test_a_session_with_fewer_windows_than_a_batch_is_a_batch() -> None:
    plan = Plan(SessionBatchSampler(windows_of([3]), 16, seed=1))
    assert plan.steps_per_epoch == 1
    assert np.array_equal(np.sort(plan.parts(0)[0].items), [0, 1, 2])
