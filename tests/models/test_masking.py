"""What the masking schemes hide from the model, and what they ask."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch

from neurokern import ops
from neurokern.datasets.batch import SpikeBatch
from neurokern.models.masking import (
    ALL_SCHEMES,
    MaskedWindows,
    Masking,
    draw_masks,
    draw_scheme,
    draw_schemes,
    mask_batch,
)

REGION_OF_UNIT = [0, 0, 1, 1, 1, 2]


@pytest.fixture
def batch() -> SpikeBatch:
    """Sixty windows of 20 bins: six units in three regions, or four of them in every other window."""
    n_units = torch.tensor([6, 4] * 30)
    real = torch.arange(6) < n_units[:, None]
    return SpikeBatch(
        counts=torch.ones(60, 20, 6) * real[:, None],
        n_units=n_units,
        regions=torch.where(real, torch.tensor(REGION_OF_UNIT), -1),
        session=["six", "four"] * 30,
        session_index=torch.tensor([0, 1] * 30),
        window=torch.arange(60),
    )


def hidden_of(masked: MaskedWindows) -> torch.Tensor:
    return masked.hidden.expand(masked.inputs.shape)


@pytest.mark.parametrize("scheme", ALL_SCHEMES)
def test_hidden_entries_are_zero_and_the_others_as_they_were(batch: SpikeBatch, scheme: str) -> None:
    before = batch.counts.clone()
    masked = mask_batch(batch, scheme, seed=1)
    real = batch.unit_mask[:, None].expand(batch.counts.shape)
    assert torch.equal((masked.inputs == 0) & real, hidden_of(masked) & real)
    assert torch.equal(batch.counts, before)


@pytest.mark.parametrize("scheme", ALL_SCHEMES)
def test_every_target_is_hidden_and_none_lies_in_the_padding(batch: SpikeBatch, scheme: str) -> None:
    masked = mask_batch(batch, scheme, seed=2)
    assert masked.target_mask.any()
    assert not (masked.target_mask & ~hidden_of(masked)).any()
    assert not (masked.target_mask & ~batch.unit_mask[:, None]).any()


@pytest.mark.parametrize("scheme", [name for name in ALL_SCHEMES if name != "random-token"])
@pytest.mark.parametrize("region_choice", ["batch", "sample"])
def test_masks_drawn_for_units_or_bins_are_those_drawn_for_all_entries(
    batch: SpikeBatch, scheme: str, region_choice: str
) -> None:
    masks = draw_masks(
        batch, scheme, Masking(ratio=0.4, causal_ratio=0.4, region_choice=region_choice), seed=3, offset=9
    )
    drawn = ops.mask_regions(
        batch.counts,
        batch.regions,
        scheme,
        ratio=0.4,
        seed=3,
        offset=9,
        n_units=batch.n_units,
        region_choice=region_choice,
    )
    assert torch.equal(masks.target.expand_as(batch.counts), drawn.target_mask)
    assert torch.equal(batch.counts.masked_fill(masks.hidden, 0.0), drawn.inputs)


def test_neuron_hides_whole_units_of_its_own_in_each_window(batch: SpikeBatch) -> None:
    target = mask_batch(batch, "neuron", Masking(ratio=0.5), seed=3).target_mask[::2]
    assert torch.equal(target, target[:, :1].expand_as(target))
    assert 0.35 < target.float().mean() < 0.65
    assert len({tuple(row) for row in target[:, 0].tolist()}) > 5


def test_causal_hides_whole_bins_at_its_own_ratio(batch: SpikeBatch) -> None:
    target = mask_batch(batch, "causal", Masking(ratio=0.0, causal_ratio=0.6), seed=4).target_mask[::2]
    assert torch.equal(target, target[:, :, :1].expand_as(target))
    assert 0.5 < target.float().mean() < 0.7


def test_inter_region_hides_and_asks_for_one_region(batch: SpikeBatch) -> None:
    target = mask_batch(batch, "inter-region", seed=5).target_mask[:, 0]
    chosen = {tuple(t for t in row) for row in target[::2].tolist()}
    by_region = [tuple(r == k for r in REGION_OF_UNIT) for k in range(3)]
    assert len(chosen) == 1
    assert chosen <= set(by_region)


def test_intra_region_hides_the_rest_of_the_brain_and_asks_for_some_of_the_region(batch: SpikeBatch) -> None:
    masked = mask_batch(batch, "intra-region", Masking(region_choice="sample"), seed=6)
    seen = ~masked.hidden[:, 0] & batch.unit_mask
    for shown, asked, regions in zip(seen, masked.target_mask[:, 0], batch.regions, strict=True):
        inside = shown | asked
        assert len(set(regions[inside].tolist())) <= 1
        if asked.any():
            assert torch.equal(inside, (regions == regions[asked][0]))


def test_a_random_cut_hides_the_future_and_asks_for_its_first_bins(batch: SpikeBatch) -> None:
    masked = mask_batch(batch, "causal", Masking(causal_targets="random-cut", horizon=0.1), seed=7)
    hidden, asked = masked.hidden[:, :, 0], masked.target_mask[:, :, 0]
    cuts = (~hidden).sum(1)
    assert cuts.min() >= 6
    assert cuts.max() <= 18
    assert len(cuts.unique()) > 5
    for cut, row_hidden, row_asked in zip(cuts.tolist(), hidden, asked, strict=True):
        assert row_hidden[cut:].all()
        assert row_asked.nonzero().ravel().tolist() == [cut, cut + 1]


def test_last_bins_is_the_forward_prediction_of_the_evaluation(batch: SpikeBatch) -> None:
    masked = mask_batch(batch, "causal", Masking(causal_targets="last-bins", horizon=0.1), seed=8)
    assert (~masked.hidden[:, :, 0]).sum(1).tolist() == [18] * 60
    assert torch.equal(masked.target_mask[0, :, 0], torch.arange(20) >= 18)


def test_dropped_units_are_hidden_but_not_asked_for(batch: SpikeBatch) -> None:
    plain, dropped = (
        mask_batch(batch, "neuron", Masking(unit_dropout=share), seed=9) for share in (0.0, 0.5)
    )
    assert torch.equal(plain.target_mask, dropped.target_mask)
    assert dropped.hidden.sum() > 1.3 * plain.hidden.sum()


def test_a_range_of_ratios_is_drawn_anew_for_each_batch(batch: SpikeBatch) -> None:
    masking = Masking(ratio=(0.1, 0.9))
    shares = [
        mask_batch(batch, "neuron", masking, seed=10, offset=60 * k).target_mask[::2].float().mean().item()
        for k in range(12)
    ]
    assert min(shares) < 0.35
    assert max(shares) > 0.65


def test_seed_and_offset_name_the_draw(batch: SpikeBatch) -> None:
    masks = [
        mask_batch(batch, "neuron", seed=s, offset=k).target_mask
        for s, k in ((1, 0), (1, 0), (2, 0), (1, 60))
    ]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], masks[3])


def test_schemes_are_drawn_equally_often_and_by_number() -> None:
    schemes = ("a", "b", "c", "d")
    drawn = [draw_scheme(schemes, seed=1, step=step) for step in range(2000)]
    assert drawn == [draw_scheme(schemes, seed=1, step=step) for step in range(2000)]
    assert all(420 < count < 580 for count in Counter(drawn).values())


@pytest.mark.parametrize("causal_targets", ["bins", "random-cut", "last-bins"])
@pytest.mark.parametrize("region_choice", ["batch", "sample"])
def test_a_window_is_masked_as_if_its_scheme_were_that_of_the_batch(
    batch: SpikeBatch, causal_targets: str, region_choice: str
) -> None:
    masking = Masking(causal_targets=causal_targets, region_choice=region_choice)
    schemes = draw_schemes(ALL_SCHEMES[:-1], len(batch), seed=3, offset=5)
    assert len(set(schemes)) == 6
    mixed = mask_batch(batch, schemes, masking, seed=11, offset=5)
    for scheme in set(schemes):
        alone = mask_batch(batch, scheme, masking, seed=11, offset=5)
        rows = [row for row, name in enumerate(schemes) if name == scheme]
        assert torch.equal(mixed.inputs[rows], alone.inputs[rows])
        assert torch.equal(mixed.target_mask[rows], alone.target_mask[rows])
        real = batch.unit_mask[rows, None]
        assert torch.equal(mixed.hidden[rows] & real, hidden_of(alone)[rows] & real)


def test_a_window_draws_its_mask_and_scheme_by_its_own_number(batch: SpikeBatch) -> None:
    schemes = draw_schemes(("neuron", "causal", "random"), 60, seed=2, offset=100)
    assert schemes[7:] == draw_schemes(("neuron", "causal", "random"), 53, seed=2, offset=107)
    assert all(12 <= count <= 28 for count in Counter(schemes).values())
    whole = mask_batch(batch, schemes, seed=2, offset=100)
    targets = {tuple(row) for row in whole.target_mask[::2].flatten(1).tolist()}
    assert len(targets) > 15  # thirty windows of one session: the mask is not that of the first one
    row = 31
    one = SpikeBatch(
        **{name: getattr(batch, name)[row : row + 1] for name in ("counts", "n_units", "regions", "session")},
        session_index=batch.session_index[row : row + 1],
        window=batch.window[row : row + 1],
    )
    alone = mask_batch(one, schemes[row], seed=2, offset=100 + row)
    assert torch.equal(whole.target_mask[row], alone.target_mask[0])


def test_random_token_hides_patches_of_single_bins(batch: SpikeBatch) -> None:
    masked = mask_batch(batch, "random-token", Masking(ratio=0.5, patch_size=4), seed=12)
    first, second = masked.hidden[..., :4], masked.hidden[..., 4:]
    for patch in (first, second):
        assert torch.equal(patch, patch[..., :1].expand_as(patch))
        assert 0.45 < patch.float().mean() < 0.55
    assert not torch.equal(first[..., 0], second[..., 0])


def test_schemes_that_do_not_fit_the_batch_are_an_error(batch: SpikeBatch) -> None:
    for schemes in (["neuron", "causal"], ["neuron"] * 59 + ["random-token"]):
        with pytest.raises(ValueError, match="each of 60 windows"):
            mask_batch(batch, schemes, seed=1)


def test_region_schemes_without_regions_are_an_error(batch: SpikeBatch) -> None:
    unknown = dataclasses.replace(batch, regions=torch.full_like(batch.regions, -1))
    for scheme in ("intra-region", "inter-region"):
        with pytest.raises(ValueError, match="needs regions, but no unit"):
            mask_batch(unknown, scheme, seed=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"schemes": ()}, "at least one"),
        ({"schemes": ("neurons",)}, "scheme must be one of"),
        ({"ratio": (0.1, 1.2)}, r"ratio must lie in \[0, 1\]"),
        ({"causal_targets": "future"}, "causal_targets must be one of"),
        ({"region_choice": "trial"}, "region_choice must be one of"),
        ({"patch_size": 0}, "patch_size must be at least 1"),
        ({"scheme_choice": "trial"}, "scheme_choice must be one of"),
        ({"scheme_choice": "window", "schemes": ("neuron", "random-token")}, "has no 'random-token'"),
    ],
)
def test_wrong_options_name_the_field(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Masking(**wrong)


def test_unknown_scheme_lists_the_choices(batch: SpikeBatch) -> None:
    with pytest.raises(ValueError, match=r"scheme must be one of 'neuron'.*got 'neurons'"):
        mask_batch(batch, "neurons", seed=1)


@pytest.mark.parametrize("ratio", [(0.5,), (0.5, 0.1), (0.1, 0.2, 0.3)])
def test_a_range_of_ratios_has_a_lowest_and_a_highest(ratio):
    with pytest.raises(ValueError, match="ratio must be a number or a range"):
        Masking(ratio=ratio)
