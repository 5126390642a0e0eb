"""What mask_regions means, written plainly in numpy; every backend is tested against it, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurokern.ops._philox import draw_words, philox4x32

SCHEMES = ("temporal", "causal", "neuron", "intra-region", "inter-region", "random")
TEMPORAL, CAUSAL, NEURON, INTRA_REGION, INTER_REGION, RANDOM = range(6)
REPLACE_FILL, REPLACE_RANDOM = range(2)

STAGE_BIN, STAGE_UNIT, STAGE_ENTRY, STAGE_REPLACE, STAGE_REGION, STAGE_BATCH_REGION = range(6)
REPLACE_ZERO_BELOW = 3435973836  # floor(0.8 * 2**32)
REPLACE_OTHER_BELOW = 3865470566  # floor(0.9 * 2**32)


@dataclass(frozen=True, kw_only=True)
class MaskRequest:
    """A checked call of mask_regions without its batch; arrays have one row per sample.

    ``thresholds`` has an entry per scheme, ``region`` is -1 where it is to be drawn, ``n_units`` is None
    where the regions alone tell which units are padding.
    """

    regions: NDArray[np.int64] | None  # (n_samples, n_units)
    n_units: NDArray[np.int64] | None  # (n_samples,)
    n_bins: NDArray[np.int64]  # (n_samples,)
    schemes: NDArray[np.int64]  # (n_samples,)
    thresholds: tuple[int, ...]
    seed: int
    offset: int
    region: int
    per_sample: bool
    span: int
    replacement: int


@dataclass(frozen=True)
class MaskPlan:
    """What a mask does to each entry of a batch; arrays are (n_samples, n_bins, n_units) but ``region``."""

    hidden: NDArray[np.bool_]  # gets the fill value
    target: NDArray[np.bool_]
    source_bin: NDArray[np.int64]  # bin that the entry's value comes from, where it is not hidden
    region: NDArray[np.int64]  # (n_samples,)


def plan_mask(request: MaskRequest, shape: tuple[int, int, int]) -> MaskPlan:
    """Decide for each entry whether it is hidden, and whether the loss counts it."""
    n_samples, n_bins, n_units = shape
    bins = np.broadcast_to(np.arange(n_bins)[None, :, None], shape)
    if 0 in shape:
        empty = np.zeros(shape, dtype=bool)
        return MaskPlan(empty, empty, bins, np.full(n_samples, -1))

    samples = request.offset + np.arange(n_samples, dtype=np.int64)
    thresholds = np.asarray(request.thresholds, dtype=np.uint64)[request.schemes]
    scheme = request.schemes[:, None, None]
    known, counted = _known_units(request, n_samples, n_units)
    region = choose_regions(request, known, samples)

    inside = np.zeros((n_samples, n_units), dtype=bool)
    if request.regions is not None:
        inside = (request.regions == region[:, None]) & (request.regions >= 0) & counted
    unit_hit = draw_words(request.seed, samples, STAGE_UNIT, n_units) < thresholds[:, None]
    unit = np.select(
        [request.schemes[:, None] == s for s in (NEURON, INTER_REGION, INTRA_REGION)],
        [unit_hit & counted, inside, unit_hit & inside],
        counted,
    )
    active = np.broadcast_to(np.arange(n_bins) < request.n_bins[:, None], (n_samples, n_bins))
    in_time = np.isin(request.schemes, (TEMPORAL, CAUSAL))[:, None]
    active = np.where(in_time, active & _hidden_bins(request, samples, thresholds, n_bins), active)
    target = unit[:, None, :] & active[:, :, None]
    if (request.schemes == RANDOM).any():
        entry = draw_words(request.seed, samples, STAGE_ENTRY, n_units, n_bins) < thresholds[:, None, None]
        target &= entry | (scheme != RANDOM)
    context = (scheme == INTRA_REGION) & ~inside[:, None, :] & active[:, :, None]
    return _replace(request, samples, MaskPlan(target | context, target, bins, region))


def choose_regions(
    request: MaskRequest, known: NDArray[np.bool_], samples: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the region of each sample: of those present, the one whose draw is the lowest."""
    chosen = np.full(len(samples), request.region, dtype=np.int64)
    if request.region < 0 and request.regions is not None:
        if request.per_sample:
            rows = [
                _lowest(request.seed, int(s), STAGE_REGION, r[k])
                for s, r, k in zip(samples, request.regions, known, strict=True)
            ]
            chosen = np.asarray(rows, dtype=np.int64)
        else:
            chosen[:] = _lowest(request.seed, request.offset, STAGE_BATCH_REGION, request.regions[known])
    return np.where(np.isin(request.schemes, (INTRA_REGION, INTER_REGION)), chosen, -1)


def _lowest(seed: int, number: int, stage: int, regions: NDArray[np.int64]) -> int:
    ids = np.unique(regions)
    if len(ids) == 0:
        return -1
    words = philox4x32(seed, ids, 0, number & 0xFFFFFFFF, (number >> 32) << 8 | stage)[0]
    return int(ids[np.argmin(words)])  # argmin takes the first of equals: the lowest id


def _known_units(
    request: MaskRequest, n_samples: int, n_units: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which units have a region that can be chosen, and which units the loss may count."""
    every = np.ones((n_samples, n_units), dtype=bool)
    counted = every if request.n_units is None else np.arange(n_units) < request.n_units[:, None]
    if request.regions is None:
        return ~every, counted
    known = counted & (request.regions >= 0)
    return known, counted if request.n_units is not None else known


def _hidden_bins(
    request: MaskRequest, samples: NDArray[np.int64], thresholds: NDArray[np.uint64], n_bins: int
) -> NDArray[np.bool_]:
    """A bin is hidden if one of the starts ``bin ... bin + span - 1`` is hit."""
    starts = draw_words(request.seed, samples, STAGE_BIN, n_bins + request.span - 1) < thresholds[:, None]
    runs = np.lib.stride_tricks.sliding_window_view(starts, request.span, axis=1)
    return np.asarray(runs.any(axis=2))


def _replace(request: MaskRequest, samples: NDArray[np.int64], plan: MaskPlan) -> MaskPlan:
    """Show some targets again, as they are or with the value of another bin."""
    if request.replacement == REPLACE_FILL:
        return plan
    n_bins, n_units = plan.target.shape[1:]
    words = draw_words(request.seed, samples, STAGE_REPLACE, n_units, n_bins)
    shown = plan.target & (words >= REPLACE_ZERO_BELOW)
    other = shown & (words < REPLACE_OTHER_BELOW)
    uniform = (words.astype(np.int64) - REPLACE_ZERO_BELOW) * 10  # of [0, 2**32) where `other`
    drawn = np.where(other, uniform, 0) * request.n_bins[:, None, None] >> 32
    return MaskPlan(plan.hidden & ~shown, plan.target, np.where(other, drawn, plan.source_bin), plan.region)
