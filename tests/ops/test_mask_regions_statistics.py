"""Draws of mask_regions as a statistician sees them; seeds are fixed, so that nothing here fails by chance.

Bounds are five standard errors, or chi squared at p = 1e-5. That all backends draw these same bits is tested
in test_mask_regions_draws.py, so the CPU's kernel is enough here.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from neurokern import mask_regions

torch = pytest.importorskip("torch")

SIGMAS = 5


def hidden(shape, scheme, *, ratio=0.3, regions=None, **options):
    """Return the target mask as a bool array; seed and offset are 0 unless given."""
    regions = torch.arange(shape[2]) % 4 if regions is None else regions
    options = {"seed": 0} | options
    return mask_regions(torch.ones(shape), regions, scheme, ratio=ratio, **options).target_mask.numpy()


def units_hit(n_samples, n_units, **options):
    return hidden((n_samples, 1, n_units), "neuron", **options)[:, 0]


def bins_hit(n_samples, n_bins, **options):
    return hidden((n_samples, n_bins, 1), "temporal", **options)[:, :, 0]


def entries_hit(n_samples, n_bins, n_units, **options):
    return hidden((n_samples, n_bins, n_units), "random", **options)


def assert_share(hits, probability):
    error = np.sqrt(probability * (1 - probability) / hits.size)
    assert abs(hits.mean() - probability) <= SIGMAS * error


def assert_independent(a, b):
    """Two bool arrays, entry by entry: no correlation."""
    r = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert abs(r) < SIGMAS / np.sqrt(a.size)


def assert_uniform(counts):
    assert stats.chisquare(counts).pvalue > 1e-5


# ---- How much is hidden


@pytest.mark.parametrize("ratio", [1e-4, 0.01, 0.1, 0.3, 0.5, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("draw", ["units", "bins", "entries", "inside a region"])
def test_the_share_hidden_is_the_ratio(draw, ratio):
    if draw == "units":
        hits = units_hit(500, 1000, ratio=ratio)
    elif draw == "bins":
        hits = bins_hit(5000, 100, ratio=ratio)
    elif draw == "entries":
        hits = entries_hit(5, 200, 500, ratio=ratio)
    else:
        inside = torch.arange(1000) % 2
        hits = hidden((500, 1, 1000), "intra-region", ratio=ratio, regions=inside, region=1)[:, 0, 1::2]
    assert_share(hits, ratio)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_ratios_of_zero_and_one_are_exact(ratio):
    for hits in (
        units_hit(50, 999, ratio=ratio),
        bins_hit(50, 99, ratio=ratio),
        entries_hit(2, 50, 99, ratio=ratio),
    ):
        assert (hits == bool(ratio)).all()


def test_a_larger_ratio_hides_what_a_smaller_one_hid():
    masks = [units_hit(20, 500, ratio=ratio) for ratio in (0.1, 0.3, 0.31, 0.9)]
    for small, large in itertools.pairwise(masks):
        assert (large | ~small).all()


# ---- Independence


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 16, 64, 256])
def test_units_are_independent_of_one_another(lag):
    hits = units_hit(1000, 1024)
    assert_independent(hits[:, lag:], hits[:, :-lag])


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 50])
def test_bins_are_independent_of_one_another(lag):
    hits = bins_hit(5000, 200)
    assert_independent(hits[:, lag:], hits[:, :-lag])
    entries = entries_hit(8, 200, 400)
    assert_independent(entries[:, lag:], entries[:, :-lag])
    assert_independent(entries[:, :, lag:], entries[:, :, :-lag])


@pytest.mark.parametrize("lag", [1, 2, 4, 100])
def test_samples_are_independent_of_one_another(lag):
    for hits in (units_hit(1000, 1024), bins_hit(2000, 200), entries_hit(120, 40, 100)):
        assert_independent(hits[lag:], hits[:-lag])


@pytest.mark.parametrize("other", [1, 2, 2**16, 2**31, 2**32, 2**32 + 1, 2**62])
def test_seeds_are_independent_of_one_another(other):
    assert_independent(units_hit(300, 1024), units_hit(300, 1024, seed=other))
    assert_independent(entries_hit(5, 100, 500), entries_hit(5, 100, 500, seed=other))


@pytest.mark.parametrize("other", [300, 2**8, 2**16, 2**32, 2**33, 2**40, 2**54])
def test_offsets_far_apart_are_independent(other):
    assert_independent(units_hit(256, 1024), units_hit(256, 1024, offset=other))
    assert_independent(entries_hit(5, 100, 500), entries_hit(5, 100, 500, offset=other))


def test_what_is_drawn_for_bins_units_and_entries_is_independent():
    units, bins = units_hit(1000, 400), bins_hit(1000, 400)
    assert_independent(units, bins)  # unit i and bin i of the same sample
    entries = entries_hit(1000, 1, 400)[:, 0]
    assert_independent(units, entries)
    assert_independent(bins, entries)
    assert_independent(bins, entries_hit(1000, 400, 1)[:, :, 0])


def test_seed_and_offset_do_not_stand_for_each_other():
    assert_independent(units_hit(256, 1024, seed=1), units_hit(256, 1024, offset=1))
    assert_independent(units_hit(256, 1024, seed=2**32), units_hit(256, 1024, offset=2**32))


@pytest.mark.parametrize("first", range(4))
def test_the_words_of_one_philox_block_are_jointly_uniform(first):
    hits = units_hit(2000, 512, ratio=0.5)[:, first : first + 508].reshape(-1, 4)
    assert_uniform(np.bincount(hits @ [1, 2, 4, 8], minlength=16))


def test_hits_of_a_unit_over_samples_come_as_often_as_chance_has_it():
    per_unit = units_hit(2000, 4096).sum(0)
    z = (per_unit - 600) / np.sqrt(2000 * 0.21)
    assert stats.kstest(z, "norm").pvalue > 1e-5
    per_sample = units_hit(4096, 2000).sum(1)
    z = (per_sample - 600) / np.sqrt(2000 * 0.21)
    assert stats.kstest(z, "norm").pvalue > 1e-5


# ---- Choice of regions


@pytest.mark.parametrize("scheme", ["intra-region", "inter-region"])
@pytest.mark.parametrize("n_regions", [2, 7, 50])
def test_a_region_per_sample_is_drawn_uniformly_and_afresh(scheme, n_regions):
    regions = torch.arange(3 * n_regions) % n_regions * 11
    n = 20_000
    batch = mask_regions(torch.ones(n, 1, 3 * n_regions), regions, scheme, seed=5, region_choice="sample")
    chosen = batch.region.numpy() // 11
    assert_uniform(np.bincount(chosen, minlength=n_regions))
    pairs = chosen[:-1:2] * n_regions + chosen[1::2]
    if n_regions < 50:
        assert_uniform(np.bincount(pairs, minlength=n_regions**2))


def test_a_region_per_batch_is_drawn_uniformly_over_seeds_and_over_offsets():
    regions, x = torch.tensor([4, 4, 4, 4, 0, 9]), torch.ones(2, 1, 6)
    for name in ("seed", "offset"):
        drawn = [
            int(mask_regions(x, regions, "inter-region", **({"seed": 0} | {name: i})).region[0])
            for i in range(3000)
        ]
        assert_uniform(np.unique(drawn, return_counts=True)[1])
        assert set(drawn) == {0, 4, 9}


def test_the_region_is_independent_of_what_is_hidden_in_it():
    regions = torch.arange(200) % 2
    batch = mask_regions(torch.ones(4000, 1, 200), regions, "intra-region", seed=0, region_choice="sample")
    target, chosen = batch.target_mask.numpy()[:, 0], batch.region.numpy()
    n_hidden = np.where(chosen == 1, target[:, 1::2].sum(1), target[:, ::2].sum(1))
    assert stats.ttest_ind(n_hidden[chosen == 0], n_hidden[chosen == 1]).pvalue > 1e-5


# ---- Spans


@pytest.mark.parametrize("span", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.6])
def test_spans_cover_every_bin_and_every_pair_of_bins_as_documented(span, ratio):
    n_samples, n_bins = 20_000, 50
    hits = bins_hit(n_samples, n_bins, span=span, ratio=ratio)
    error = np.sqrt(ratio * (1 - ratio) / n_samples)
    assert (abs(hits.mean(0) - ratio) < SIGMAS * error).all()  # the first and the last bin too
    no_start = (1 - ratio) ** (1 / span)
    for distance in (1, 2, span, span + 1):
        if distance >= n_bins:
            continue
        seen = ~hits[:, 0] & ~hits[:, distance]
        assert_share(seen, no_start ** (span + min(distance, span)))


# ---- BERT-style replacement


@pytest.mark.parametrize("scheme", ["temporal", "neuron", "random"])
def test_of_the_targets_a_tenth_stays_and_a_tenth_comes_from_a_bin_drawn_uniformly(scheme):
    n_samples, n_bins, n_units = 20, 64, 400
    # Each entry tells which bin it comes from.
    x = torch.arange(1.0, n_bins + 1)[None, :, None].expand(n_samples, n_bins, n_units)
    batch = mask_regions(x, torch.zeros(n_units).long(), scheme, seed=3, ratio=0.5, replacement="random")
    target, inputs = batch.target_mask.numpy(), batch.inputs.numpy()
    own = np.broadcast_to(x.numpy(), inputs.shape)
    values = inputs[target]
    assert_share(values == 0, 0.8)
    shown = values[values != 0]
    # Half of the shown entries stay; a drawn bin is by chance the own one.
    assert_share(shown == own[target][values != 0], 0.5 + 0.5 / n_bins)
    moved = shown[shown != own[target][values != 0]].astype(int) - 1
    expected = np.bincount(own[target].astype(int) - 1, minlength=n_bins)
    # Uniform but for the own bin, which is left out; with bins equally often a target, uniform again.
    weights = expected.sum() - expected
    counts = np.bincount(moved, minlength=n_bins)
    assert stats.chisquare(counts, weights / weights.sum() * counts.sum()).pvalue > 1e-5
    assert (inputs[~target] == own[~target]).all()


def test_what_replaces_an_entry_is_independent_of_its_neighbours_and_of_being_hidden():
    x = torch.ones(10, 100, 400)
    options = {"seed": 3, "ratio": 1.0, "replacement": "random"}
    zeroed = mask_regions(x, torch.zeros(400).long(), "random", **options).inputs.numpy() == 0
    assert_share(zeroed, 0.8)
    for lag in (1, 2, 3, 4, 64):
        assert_independent(zeroed[:, :, lag:], zeroed[:, :, :-lag])
        assert_independent(zeroed[:, lag:], zeroed[:, :-lag])
    assert_independent(zeroed, entries_hit(10, 100, 400, seed=3))
