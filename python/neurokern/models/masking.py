"""Which counts MtM does not see in training: a masking scheme for each batch or window, drawn by number."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from neurokern import ops
from neurokern._check import check_choice, check_fraction, check_integer
from neurokern.models.config import SCHEMES
from neurokern.ops._philox import draw_words

if TYPE_CHECKING:
    from neurokern.datasets import SpikeBatch

BIN_SCHEMES = ("causal", "temporal")  # hide whole bins; "random" hides single entries, all others whole units
ALL_SCHEMES = (*SCHEMES, "temporal", "random", "random-token")
SCHEME_STAGE = 255  # of the draws of schemes: masks are drawn in lower ones
DROPOUT_SEED = 0x5EED0FD0  # turned into the seed of dropped units: they are drawn apart from the targets


@dataclass(frozen=True, kw_only=True, slots=True)
class Masking:
    """Schemes to train on and how much each of them hides; the defaults are the published ones.

    Parameters
    ----------
    schemes : tuple of str
        One is drawn for each batch or window, all equally likely.
    scheme_choice : {"batch", "window"}
        Whether a batch has one scheme (published) or each of its windows its own.
    ratio : float or (float, float)
        Share of units ("neuron", "intra-region"), bins ("temporal"), entries ("random") or patches of a bin
        ("random-token", published for NDT2) to hide. A pair is a range from which each batch draws.
    causal_ratio : float
        Share of bins that "causal" hides.
    causal_targets : {"bins", "random-cut", "last-bins"}
        What "causal" hides: any bins (published); everything from some bin on, drawn in half of the windows
        and before the last ``horizon`` in the others; or always those last bins.
    horizon : float
        Share of the window that is to be predicted after a cut, at least one bin.
    region_choice : {"batch", "sample"}
        Whether the region schemes draw one region for the whole batch (published) or one for each window.
    unit_dropout : float
        Share of the remaining units to hide as well, without predicting them.
    patch_size : int
        Units of a patch for "random-token", as in :class:`MtMConfig`.
    """

    schemes: tuple[str, ...] = SCHEMES
    scheme_choice: Literal["batch", "window"] = "batch"
    ratio: float | tuple[float, float] = 0.3
    causal_ratio: float = 0.6
    causal_targets: Literal["bins", "random-cut", "last-bins"] = "bins"
    horizon: float = 0.1
    region_choice: Literal["batch", "sample"] = "batch"
    unit_dropout: float = 0.0
    patch_size: int = 128

    def __post_init__(self) -> None:
        if not self.schemes:
            raise ValueError("Masking: schemes must name at least one scheme")
        for scheme in self.schemes:
            check_choice("Masking", "scheme", scheme, ALL_SCHEMES)
        if isinstance(self.ratio, tuple) and (len(self.ratio) != 2 or self.ratio[0] > self.ratio[1]):
            raise ValueError(
                f"Masking: ratio must be a number or a range (lowest, highest), got {self.ratio}"
            )
        for value in self.ratio if isinstance(self.ratio, tuple) else (self.ratio,):
            check_fraction("Masking", "ratio", value)
        for name in ("causal_ratio", "horizon", "unit_dropout"):
            check_fraction("Masking", name, getattr(self, name))
        if check_integer("Masking", "patch_size", self.patch_size) < 1:
            raise ValueError(f"Masking: patch_size must be at least 1, got {self.patch_size}")
        check_choice("Masking", "causal_targets", self.causal_targets, ("bins", "random-cut", "last-bins"))
        check_choice("Masking", "scheme_choice", self.scheme_choice, ("batch", "window"))
        if self.scheme_choice == "window" and "random-token" in self.schemes:
            raise ValueError("Masking: scheme_choice 'window' has no 'random-token'; leave that scheme out")
        check_choice("Masking", "region_choice", self.region_choice, ("batch", "sample"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Masking:
        """Return the options that ``dataclasses.asdict`` described, lists in place of tuples allowed."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"Masking: unknown settings {unknown}; known are {sorted(known)}")
        restored: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**restored)


@dataclass(frozen=True, slots=True)
class Masks:
    """What a batch hides and what it asks for; each broadcasts to the counts, ``(B, T, N)``.

    Attributes
    ----------
    target : bool tensor of shape (B, 1, N), (B, T, 1) or (B, T, N)
        True where the loss counts; never in the padding.
    hidden : bool tensor of shape (B, 1, N), (B, T, 1) or (B, T, N)
        True where the input is hidden. The region scheme "intra-region" hides more than it asks for.
    """

    target: Tensor
    hidden: Tensor

    def select(self, rows: slice, n_units: int) -> Masks:
        """Return the masks of some windows, and of the first units where there are columns for units."""
        columns = slice(n_units)  # a mask of whole bins has one column
        return Masks(self.target[rows, :, columns], self.hidden[rows, :, columns])


@dataclass(frozen=True, slots=True)
class MaskedWindows:
    """What the model is given and what it is asked.

    Attributes
    ----------
    inputs : float tensor of shape (B, T, N)
        Counts with the hidden entries at 0; a new tensor.
    target_mask : bool tensor of shape (B, T, N)
        True where the loss counts; never in the padding. May be an expanded view: not to be written to.
    hidden : bool tensor of shape (B, 1, N), (B, T, 1) or (B, T, N)
        True where the input is hidden. The region scheme "intra-region" hides more than it asks for.
    """

    inputs: Tensor
    target_mask: Tensor
    hidden: Tensor


def draw_scheme(schemes: Sequence[str], *, seed: int, step: int) -> str:
    """Return the scheme of a training step; a function of its arguments alone."""
    return schemes[int(np.random.default_rng((seed, step)).integers(len(schemes)))]


def draw_schemes(schemes: Sequence[str], n_windows: int, *, seed: int, offset: int) -> list[str]:
    """Return a scheme for each window; window k draws as number ``offset + k``, whatever its batch."""
    words = draw_words(seed, np.arange(offset, offset + n_windows), SCHEME_STAGE, 1)[:, 0]
    return [schemes[word * len(schemes) >> 32] for word in words.tolist()]


def mask_batch(
    batch: SpikeBatch,
    scheme: str | Sequence[str],
    masking: Masking | None = None,
    *,
    seed: int,
    offset: int = 0,
) -> MaskedWindows:
    """Hide part of a batch by one scheme, or by one for each window.

    Parameters
    ----------
    batch : SpikeBatch
        Not written to.
    scheme : str, or a sequence of one for each window
        "neuron", "causal", "inter-region", "intra-region", "temporal", "random" or, for the whole batch,
        "random-token".
    masking : Masking, optional
        The published ratios when not given.
    seed, offset : int
        Together they name the draw; ``offset`` is the number of windows masked before this batch, so that no
        two batches share their random numbers.

    Returns
    -------
    masked : MaskedWindows
        Masks are drawn for each window, on the device of the batch.

    Raises
    ------
    ValueError
        If a scheme is unknown, there is not one for each window, or a region scheme finds no region.
    """
    masks = draw_masks(batch, scheme, masking, seed=seed, offset=offset)
    inputs = batch.counts.masked_fill(masks.hidden, 0.0)
    return MaskedWindows(inputs, masks.target.expand_as(inputs), masks.hidden)


def draw_masks(
    batch: SpikeBatch,
    scheme: str | Sequence[str],
    masking: Masking | None = None,
    *,
    seed: int,
    offset: int = 0,
) -> Masks:
    """Draw the masks of :func:`mask_batch` without applying them; a batch's counts are not looked at.

    Whole units and whole bins are drawn once, not for each of their entries.
    """
    schemes = [scheme] if isinstance(scheme, str) else list(scheme)
    for name in schemes:
        check_choice("mask_batch", "scheme", name, ALL_SCHEMES)
    masking = masking or Masking()
    if len(set(schemes)) == 1:
        masks = _draw_one(batch, schemes[0], masking, seed, offset)
    else:
        masks = _draw_each(batch, schemes, masking, seed, offset)
    return _drop_units(batch, masks, masking.unit_dropout, seed, offset) if masking.unit_dropout else masks


def _draw_one(batch: SpikeBatch, scheme: str, masking: Masking, seed: int, offset: int) -> Masks:
    if scheme == "random-token":
        return _hide_tokens(batch, masking, seed, offset)
    if scheme == "causal" and masking.causal_targets != "bins":
        return _hide_after_cut(batch, masking, seed, offset)
    # One number is drawn for every batch, but "causal" alone has no use for it.
    ratio = masking.causal_ratio if scheme == "causal" else _draw_ratio(masking, seed, offset)
    if scheme in BIN_SCHEMES:
        hidden = _draw_bins(batch, scheme, ratio, seed, offset)
        return Masks(_but_padding(batch, hidden), hidden)
    if scheme == "random":
        hidden = _draw(batch, batch.counts.shape[1], scheme, masking, ratio, seed, offset).target_mask
        return Masks(hidden, hidden)
    drawn = _draw(batch, 1, scheme, masking, ratio, seed, offset)
    target = drawn.target_mask
    return Masks(target, target | _outside(batch, drawn.region) if scheme == "intra-region" else target)


def _draw_each(batch: SpikeBatch, schemes: list[str], masking: Masking, seed: int, offset: int) -> Masks:
    if len(schemes) != len(batch) or "random-token" in schemes:
        raise ValueError(
            f"mask_batch: scheme must be a name, or a name other than 'random-token' for each of "
            f"{len(batch)} windows, got {len(schemes)}: {sorted(set(schemes))}"
        )

    def rows_of(*names: str) -> Tensor:
        rows = [scheme in names for scheme in schemes]
        return torch.tensor(rows, device=batch.counts.device)[:, None, None]

    ratio = _draw_ratio(masking, seed, offset)
    ratios = {
        **dict.fromkeys(("neuron", "intra-region", "temporal", "random"), ratio),
        "causal": masking.causal_ratio,
    }
    n_bins = batch.counts.shape[1] if "random" in schemes else 1  # windows of whole bins are replaced below
    drawn = _draw(batch, n_bins, schemes, masking, ratios, seed, offset)
    target, hidden = drawn.target_mask, drawn.target_mask
    if "intra-region" in schemes:
        hidden = hidden | (rows_of("intra-region") & _outside(batch, drawn.region))
    if not {"causal", "temporal"}.isdisjoint(schemes):
        by_bins = ["causal" if scheme == "causal" else "temporal" for scheme in schemes]
        bins = _draw_bins(batch, by_bins, ratios, seed, offset)
        rows = rows_of("causal", "temporal")
        target = torch.where(rows, _but_padding(batch, bins), target)
        hidden = torch.where(rows, bins, hidden)
    if "causal" in schemes and masking.causal_targets != "bins":
        cut, rows = _hide_after_cut(batch, masking, seed, offset), rows_of("causal")
        target, hidden = torch.where(rows, cut.target, target), torch.where(rows, cut.hidden, hidden)
    return Masks(target, hidden)


def _outside(batch: SpikeBatch, region: Tensor) -> Tensor:
    """Return which units do not lie in the region of their window, ``(B, 1, N)``."""
    return ((batch.regions != region[:, None]) | (region < 0)[:, None])[:, None]


def _draw_ratio(masking: Masking, seed: int, offset: int) -> float:
    if not isinstance(masking.ratio, tuple):
        return masking.ratio
    return float(np.random.default_rng((seed, offset)).uniform(*masking.ratio))


def _draw(
    batch: SpikeBatch,
    n_bins: int,
    scheme: str | list[str],
    masking: Masking,
    ratio: float | dict[str, float],
    seed: int,
    offset: int,
) -> ops.MaskedBatch:
    """Draw for each unit, in so many bins."""
    by_region = {"intra-region", "inter-region"}.intersection([scheme] if isinstance(scheme, str) else scheme)
    if by_region and batch.regions.device.type == "cpu" and int(batch.regions.max()) < 0:
        raise ValueError(
            f"mask_batch: {min(by_region)!r} needs regions, but no unit of {sorted(set(batch.session))} has "
            f"one; leave the region schemes out or give the units groups in place of regions"
        )
    nothing = batch.counts.new_empty((len(batch), n_bins, batch.counts.shape[2]), dtype=torch.uint8)
    return ops.mask_regions(
        nothing,
        batch.regions,
        scheme,
        ratio=ratio,
        seed=seed,
        offset=offset,
        n_units=batch.n_units,
        region_choice=masking.region_choice,
    )


def _draw_bins(
    batch: SpikeBatch, scheme: str | list[str], ratio: float | dict[str, float], seed: int, offset: int
) -> Tensor:
    """Draw for each bin, ``(B, T, 1)``."""
    nothing = batch.counts.new_empty((*batch.counts.shape[:2], 1), dtype=torch.uint8)
    drawn: Tensor = ops.mask_regions(nothing, None, scheme, ratio=ratio, seed=seed, offset=offset).target_mask
    return drawn


def _hide_tokens(batch: SpikeBatch, masking: Masking, seed: int, offset: int) -> Masks:
    """Hide patches of units in single bins."""
    n_windows, n_bins, n_units = batch.counts.shape
    tokens = batch.counts.new_empty((n_windows, n_bins, -(-n_units // masking.patch_size)), dtype=torch.uint8)
    drawn = ops.mask_regions(
        tokens, None, "random", ratio=_draw_ratio(masking, seed, offset), seed=seed, offset=offset
    )
    hidden = drawn.target_mask.repeat_interleave(masking.patch_size, dim=2)[:, :, :n_units]
    return Masks(hidden & batch.unit_mask[:, None], hidden)


def _hide_after_cut(batch: SpikeBatch, masking: Masking, seed: int, offset: int) -> Masks:
    """Hide everything from a bin on and ask for the first bins after it."""
    n_windows, n_bins = batch.counts.shape[:2]
    horizon = min(max(1, round(masking.horizon * n_bins)), n_bins)
    last = n_bins - horizon
    cuts = np.full((n_windows, 1, 1), last)
    if masking.causal_targets == "random-cut":
        generator = np.random.default_rng((seed, offset))
        anywhere = generator.integers(min(2 * n_bins // 5, last), last + 1, cuts.shape)
        cuts = np.where(generator.random(cuts.shape) < 0.5, anywhere, cuts)
    time = np.arange(n_bins)[:, None]
    both = np.stack([time >= cuts, (time >= cuts) & (time < cuts + horizon)])  # (2, B, T, 1)
    hidden, asked = torch.from_numpy(both).to(batch.counts.device)
    return Masks(_but_padding(batch, asked), hidden)


def _but_padding(batch: SpikeBatch, bins: Tensor) -> Tensor:
    """Return whole bins ``(B, T, 1)`` without the padding; as they are where a look finds none."""
    if batch.n_units.device.type == "cpu" and int(batch.n_units.min()) == batch.counts.shape[2]:
        return bins
    return bins & batch.unit_mask[:, None]


def _drop_units(batch: SpikeBatch, masks: Masks, ratio: float, seed: int, offset: int) -> Masks:
    nothing = batch.counts.new_empty((len(batch), 1, batch.counts.shape[2]), dtype=torch.uint8)
    drawn = ops.mask_regions(nothing, None, "neuron", ratio=ratio, seed=seed ^ DROPOUT_SEED, offset=offset)
    return Masks(masks.target, masks.hidden | drawn.target_mask)
