"""mask_regions in Triton: a program masks a tile of bins and units of one sample.

What a scheme hides, and which draw decides it, is ``csrc/gather_regions/gather_regions_body.h``.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from neurokern.ops import _library
from neurokern.ops._mask_reference import (
    INTER_REGION,
    INTRA_REGION,
    NEURON,
    RANDOM,
    REPLACE_OTHER_BELOW,
    REPLACE_RANDOM,
    REPLACE_ZERO_BELOW,
    STAGE_BATCH_REGION,
    STAGE_BIN,
    STAGE_ENTRY,
    STAGE_REGION,
    STAGE_REPLACE,
    STAGE_UNIT,
)
from neurokern.ops._triton.launch import bits_of, launch
from neurokern.ops._triton.philox import draw_quads, draw_words, philox4x32

BINS, UNITS = 8, 128  # of a tile: 1024 entries, 8 for each of 128 threads
RANKED_UNITS = 1024

_NEURON, _INTRA, _INTER, _RANDOM = (tl.constexpr(s) for s in (NEURON, INTRA_REGION, INTER_REGION, RANDOM))
_ZERO_BELOW, _OTHER_BELOW = tl.constexpr(REPLACE_ZERO_BELOW), tl.constexpr(REPLACE_OTHER_BELOW)
_BIN, _UNIT, _ENTRY = (tl.constexpr(stage) for stage in (STAGE_BIN, STAGE_UNIT, STAGE_ENTRY))
_REPLACE, _REGION, _BATCH_REGION = (
    tl.constexpr(stage) for stage in (STAGE_REPLACE, STAGE_REGION, STAGE_BATCH_REGION)
)
# Numbers that change from call to call, of which a kernel is not compiled anew.
_NUMBERS = ["t0", "t1", "t2", "t3", "t4", "t5", "seed", "offset", "forced_region", "fill", "span"]
_NO_RANK = tl.constexpr(2**64 - 1)


@triton.jit(do_not_specialize=["seed", "offset"])
def rank_regions(
    ranks, regions, unit_counts, n_units, regions_stride, seed: tl.uint64, offset: tl.uint64,
    PER_SAMPLE: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """Leave the lowest rank of the regions present: of a sample, or in one slot of the batch."""
    blocks = tl.cdiv(n_units, UNITS)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    units = tl.program_id(0) % blocks * UNITS + tl.arange(0, UNITS)
    region = tl.load(regions + b * regions_stride + units, mask=units < n_units, other=-1)
    known = region >= 0
    if unit_counts is not None:
        known &= units < tl.load(unit_counts + b)
    sample = offset.to(tl.uint64)
    if PER_SAMPLE:
        sample += b.to(tl.uint64)
    c3 = (sample >> 32 << 8 | (_REGION if PER_SAMPLE else _BATCH_REGION)).to(tl.uint32)
    zero = tl.zeros_like(region).to(tl.uint32)
    word, _, _, _ = philox4x32(seed.to(tl.uint64), region.to(tl.uint32), zero, sample.to(tl.uint32), c3)
    rank = word.to(tl.uint64) << 32 | (region & 0xFFFFFFFF).to(tl.uint64)
    lowest = tl.min(tl.where(known, rank, _NO_RANK))
    # A minimum does not depend on the order, so the result is the same in every run.
    tl.atomic_min(ranks + (b if PER_SAMPLE else 0), lowest, mask=lowest != _NO_RANK, sem="relaxed")


@triton.jit
def _hidden_bins(bins, seed, sample, threshold, span):
    """Is one of the starts ``bin ... bin + span - 1`` hit? Four starts share a draw."""
    hidden = bins < 0
    for step in range((span + 2) // 4 + 1):
        quads = bins // 4 + step
        words = draw_quads(seed, sample, _BIN, quads, tl.zeros_like(quads))
        for i in tl.static_range(4):
            start = quads * 4 + i
            hit = words[i].to(tl.uint64) < threshold
            hidden |= hit & (start >= bins) & (start < bins + span)
    return hidden


@triton.jit
def _chosen_region(ranks, b, scheme, forced_region, PER_SAMPLE: tl.constexpr):
    chosen = forced_region.to(tl.int64)
    if ranks is not None:
        rank = tl.load(ranks + (b if PER_SAMPLE else 0))
        chosen = tl.where(rank == _NO_RANK, -1, (rank & 0xFFFFFFFF).to(tl.int64))
    return tl.where((scheme == _INTRA) | (scheme == _INTER), chosen, -1)


@triton.jit(do_not_specialize=_NUMBERS)
def mask_tile(
    x, inputs, target_mask, region_out, regions, unit_counts, bin_counts, schemes, ranks,
    n_bins, n_units, x_stride_sample, x_stride_bin, inputs_stride_sample, inputs_stride_bin, regions_stride,
    t0: tl.uint64, t1: tl.uint64, t2: tl.uint64, t3: tl.uint64, t4: tl.uint64, t5: tl.uint64,
    seed: tl.uint64, offset: tl.uint64, forced_region: tl.int64, fill: tl.uint64, span: tl.int64,
    SCHEME: tl.constexpr, PER_SAMPLE: tl.constexpr, BERT: tl.constexpr,
    BINS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """Mask a tile of BINS x UNITS entries. ``SCHEME`` is -1 where each sample has its own."""
    unit_tiles, bin_tiles = tl.cdiv(n_units, UNITS), tl.cdiv(n_bins, BINS)
    tile = tl.program_id(0) % (unit_tiles * bin_tiles)
    b = (tl.program_id(0) // (unit_tiles * bin_tiles)).to(tl.int64)
    first_unit, first_bin = tile % unit_tiles * UNITS, tile // unit_tiles * BINS
    units, bins = first_unit + tl.arange(0, UNITS), first_bin + tl.arange(0, BINS)
    quads = first_unit // 4 + tl.arange(0, UNITS // 4)
    in_units = units < n_units
    seed, sample = seed.to(tl.uint64), offset.to(tl.uint64) + b.to(tl.uint64)

    scheme = SCHEME
    threshold = t0.to(tl.uint64)
    if SCHEME < 0:
        scheme = tl.load(schemes + b)
    threshold = tl.where(scheme == 1, t1.to(tl.uint64), threshold)
    threshold = tl.where(scheme == 2, t2.to(tl.uint64), threshold)
    threshold = tl.where(scheme == 3, t3.to(tl.uint64), threshold)
    threshold = tl.where(scheme == 4, t4.to(tl.uint64), threshold)
    threshold = tl.where(scheme == 5, t5.to(tl.uint64), threshold)
    chosen = _chosen_region(ranks, b, scheme, forced_region, PER_SAMPLE)
    tl.store(region_out + b, chosen, mask=tile == 0)

    # Units: is each a target, or context that is hidden alone, in the active bins?
    counted = in_units
    inside = units < 0
    if regions is not None:
        region = tl.load(regions + b * regions_stride + units, mask=in_units, other=-1)
        inside = (region >= 0) & (region == chosen)
        if unit_counts is None:
            counted = region >= 0
    if unit_counts is not None:
        counted = units < tl.load(unit_counts + b)
    inside &= counted
    hit = counted
    if (scheme == _NEURON) | (scheme == _INTRA):
        words = draw_words(seed, sample, _UNIT, quads, tl.zeros_like(quads))
        hit = words.to(tl.uint64) < threshold
    target_unit = counted
    target_unit = tl.where(scheme == _NEURON, counted & hit, target_unit)
    target_unit = tl.where(scheme == _INTER, inside, target_unit)
    target_unit = tl.where(scheme == _INTRA, inside & hit, target_unit)
    hidden_unit = tl.where(scheme == _INTRA, target_unit | ~inside, target_unit)

    # Bins: padding is not active; under the schemes in time, bins that are shown are not either.
    bin_count = n_bins.to(tl.int64)
    if bin_counts is not None:
        bin_count = tl.minimum(tl.maximum(tl.load(bin_counts + b), 0), bin_count)
    active = bins < bin_count
    if scheme < _NEURON:
        active &= _hidden_bins(bins, seed, sample, threshold, span)

    target, hidden = target_unit[None, :] & active[:, None], hidden_unit[None, :] & active[:, None]
    quads, rows = quads[None, :], bins[:, None]
    tile_quads, tile_rows = quads + tl.zeros_like(rows), rows + tl.zeros_like(quads)
    if scheme == _RANDOM:
        words = draw_words(seed, sample, _ENTRY, tile_quads, tile_rows)
        target &= words.to(tl.uint64) < threshold
        hidden = target

    in_tile = (bins < n_bins)[:, None] & in_units[None, :]
    rows = rows.to(tl.int64)
    of_sample = x + b * x_stride_sample + units[None, :]
    value = tl.load(of_sample + rows * x_stride_bin, mask=in_tile)
    if BERT:
        words = draw_words(seed, sample, _REPLACE, tile_quads, tile_rows)
        shown = target & (words >= _ZERO_BELOW)
        other = shown & (words < _OTHER_BELOW) & in_tile
        uniform = (words.to(tl.int64) - _ZERO_BELOW) * 10  # of [0, 2**32) where `other`
        source = tl.where(other, uniform * bin_count >> 32, 0)
        value = tl.where(other, tl.load(of_sample + source * x_stride_bin, mask=other), value)
        hidden &= ~shown
    value = tl.where(hidden, fill.to(tl.uint64).to(value.dtype), value)
    row = inputs + b * inputs_stride_sample + rows * inputs_stride_bin
    tl.store(row + units[None, :], value, mask=in_tile)
    tl.store(target_mask + (b * n_bins + rows) * n_units + units[None, :], target.to(tl.uint8), mask=in_tile)


def mask_into(
    x: torch.Tensor,
    inputs: torch.Tensor,
    target_mask: torch.Tensor,
    region: torch.Tensor,
    arrays: tuple[Any, Any, Any, Any],
    settings: tuple[Any, ...],
    fill_bits: int,
) -> None:
    """Write ``inputs`` (which may be ``x``), ``target_mask`` and ``region``, all on the device of ``x``."""
    regions, unit_counts, bin_counts, schemes = arrays
    scheme, thresholds, seed, offset, forced_region, per_sample, span, replacement, _, _ = settings
    n_samples, n_bins, n_units = x.shape
    regions_stride = 0 if regions is None or regions.ndim == 1 else n_units
    ranks = None
    if (
        regions is not None
        and forced_region < 0
        and (schemes is not None or scheme in (INTRA_REGION, INTER_REGION))
    ):
        shape = (n_samples if per_sample else 1,)
        ranks = _library.new_array(x, shape, "int64", fill=-1).view(torch.uint64)
        one_row = not per_sample and regions_stride == 0 and unit_counts is None
        rows, blocks = 1 if one_row else n_samples, triton.cdiv(n_units, RANKED_UNITS)
        launch(
            rank_regions, rows * blocks, ranks, regions, unit_counts, n_units, regions_stride, seed, offset,
            PER_SAMPLE=per_sample, UNITS=RANKED_UNITS,
        )  # fmt: skip
    launch(
        mask_tile, n_samples * triton.cdiv(n_bins, BINS) * triton.cdiv(n_units, UNITS),
        bits_of(x), bits_of(inputs), target_mask.view(torch.uint8), region,
        regions, unit_counts, bin_counts, schemes, ranks,
        n_bins, n_units, x.stride(0), x.stride(1), inputs.stride(0), inputs.stride(1), regions_stride,
        *thresholds, seed, offset, forced_region, fill_bits, span,
        SCHEME=-1 if schemes is not None else scheme, PER_SAMPLE=per_sample,
        BERT=replacement == REPLACE_RANDOM, BINS=BINS, UNITS=UNITS,
    )  # fmt: skip
