"""Which counts MtM does not see in training: one masking scheme a batch, drawn by number and not by state."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from neurokern import ops
from neurokern._check import check_choice, check_fraction
from neurokern.models.config import SCHEMES

if TYPE_CHECKING:
    from neurokern.datasets import SpikeBatch

BIN_SCHEMES = ("causal", "temporal")  # hide whole bins; "random" hides single entries, all others whole units
ALL_SCHEMES = (*SCHEMES, "temporal", "random")


@dataclass(frozen=True, kw_only=True, slots=True)
class Masking:
    """Schemes to train on and how much each of them hides; the defaults are the published ones.

    Parameters
    ----------
    schemes : tuple of str
        One is drawn for each batch, all equally likely.
    ratio : float or (float, float)
        Share of units ("neuron", "intra-region"), bins ("temporal") or entries ("random") to hide. A pair is
        a range from which each batch draws.
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
    """

    schemes: tuple[str, ...] = SCHEMES
    ratio: float | tuple[float, float] = 0.3
    causal_ratio: float = 0.6
    causal_targets: Literal["bins", "random-cut", "last-bins"] = "bins"
    horizon: float = 0.1
    region_choice: Literal["batch", "sample"] = "batch"
    unit_dropout: float = 0.0

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
        check_choice("Masking", "causal_targets", self.causal_targets, ("bins", "random-cut", "last-bins"))
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
class MaskedWindows:
    """What the model is given and what it is asked.

    Attributes
    ----------
    inputs : float tensor of shape (B, T, N)
        Counts with the hidden entries at 0; a new tensor.
    target_mask : bool tensor of shape (B, T, N)
        True where the loss counts; never in the padding.
    hidden : bool tensor of shape (B, 1, N), (B, T, 1) or (B, T, N)
        True where the input is hidden. The region scheme "intra-region" hides more than it asks for.
    """

    inputs: Tensor
    target_mask: Tensor
    hidden: Tensor


def draw_scheme(schemes: Sequence[str], *, seed: int, step: int) -> str:
    """Return the scheme of a training step; a function of its arguments alone."""
    return schemes[int(np.random.default_rng((seed, step)).integers(len(schemes)))]


def mask_batch(
    batch: SpikeBatch, scheme: str, masking: Masking | None = None, *, seed: int, offset: int = 0
) -> MaskedWindows:
    """Hide part of a batch by one scheme.

    Parameters
    ----------
    batch : SpikeBatch
        Not written to.
    scheme : str
        One of "neuron", "causal", "inter-region", "intra-region", "temporal", "random".
    masking : Masking, optional
        The published ratios when not given.
    seed, offset : int
        Together they name the draw; ``offset`` is the number of windows masked before this batch, so that no
        two batches share their random numbers.

    Returns
    -------
    masked : MaskedWindows
    """
    check_choice("mask_batch", "scheme", scheme, ALL_SCHEMES)
    masking = masking or Masking()
    generator = np.random.default_rng((seed, offset))
    if scheme == "causal" and masking.causal_targets != "bins":
        masked = _hide_after_cut(batch, masking, generator)
    else:
        masked = _hide_by_scheme(batch, scheme, masking, generator, seed, offset)
    return _drop_units(masked, masking.unit_dropout, generator) if masking.unit_dropout else masked


def _hide_by_scheme(
    batch: SpikeBatch, scheme: str, masking: Masking, generator: np.random.Generator, seed: int, offset: int
) -> MaskedWindows:
    by_region = scheme in ("intra-region", "inter-region")
    if by_region and batch.regions.device.type == "cpu" and not (batch.regions >= 0).any():
        raise ValueError(
            f"mask_batch: {scheme!r} needs regions, but no unit of {sorted(set(batch.session))} has one; "
            f"leave the region schemes out or give the units groups in place of regions"
        )
    low, high = masking.ratio if isinstance(masking.ratio, tuple) else (masking.ratio, masking.ratio)
    ratio = masking.causal_ratio if scheme == "causal" else float(generator.uniform(low, high))
    masked = ops.mask_regions(
        batch.counts,
        batch.regions,
        scheme,
        ratio=ratio,
        seed=seed,
        offset=offset,
        n_units=batch.n_units,
        region_choice=masking.region_choice,
    )
    hidden = masked.target_mask
    if scheme in BIN_SCHEMES:
        hidden = hidden[:, :, :1]
    elif scheme != "random":
        hidden = hidden[:, :1]
    if scheme == "intra-region":
        inside = (batch.regions == masked.region[:, None]) & (batch.regions >= 0)
        hidden = hidden | ~inside[:, None]
    return MaskedWindows(masked.inputs, masked.target_mask, hidden)


def _hide_after_cut(batch: SpikeBatch, masking: Masking, generator: np.random.Generator) -> MaskedWindows:
    """Hide everything from a bin on and ask for the first bins after it."""
    counts = batch.counts
    n_windows, n_bins, n_units = counts.shape
    horizon = min(max(1, round(masking.horizon * n_bins)), n_bins)
    last = n_bins - horizon
    cuts = np.full((n_windows, 1, 1), last)
    if masking.causal_targets == "random-cut":
        anywhere = generator.integers(min(2 * n_bins // 5, last), last + 1, cuts.shape)
        cuts = np.where(generator.random(cuts.shape) < 0.5, anywhere, cuts)
    cut = torch.from_numpy(cuts).to(counts.device)
    time = torch.arange(n_bins, device=counts.device)[None, :, None]
    hidden = time >= cut  # (B, T, 1)
    valid = torch.arange(n_units, device=counts.device) < batch.n_units.to(counts.device)[:, None, None]
    return MaskedWindows(counts.masked_fill(hidden, 0.0), hidden & (time < cut + horizon) & valid, hidden)


def _drop_units(masked: MaskedWindows, ratio: float, generator: np.random.Generator) -> MaskedWindows:
    n_windows, _, n_units = masked.inputs.shape
    dropped = torch.from_numpy(generator.random((n_windows, 1, n_units)) < ratio).to(masked.inputs.device)
    return MaskedWindows(masked.inputs.masked_fill(dropped, 0.0), masked.target_mask, masked.hidden | dropped)
