"""A trained vector for each unit: read-in and read-out of any number of units through shared matrices.

A bin's token is the sum of the vectors of its visible units, weighted by ``log(1 + count)``, beside the sum
of the vectors of its hidden units: hidden is not silent. A unit's log-rate is its bias plus the product of
its vector with what the trunk asks for. So a unit costs ``size + 1`` weights, and new units and sessions are
new rows. Vectors of units as the identity of a session are those of Azabou et al., "A unified, scalable
framework for neural population decoding" (POYO), NeurIPS 2023, arXiv:2310.16046.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from neurokern.models.regions import RegionTable
from neurokern.models.stitching import SessionParts

if TYPE_CHECKING:
    from neurokern.models.config import MtMConfig

Start = Literal["random", "mean", "nearest"]
STARTS = ("random", "mean", "nearest")
TYPICAL_LOG_MEAN = -3.0  # of counts per bin, where nothing is known of a unit
SPIKES_OF_SILENCE = 0.5  # in all windows: a unit that was silent may yet fire
LEAST_SPREAD = 0.25  # of a logarithm over units: smaller differences are those of samples
OTHER_REGION = 1.0  # distance between units of different regions, in spreads of a statistic
CHUNK = 64  # windows at a time


class EmbeddedParts(SessionParts):
    """The vectors and biases of a session's units.

    Parameters
    ----------
    config : MtMConfig
    n_units : int
    regions : sequence of str of length n_units, optional
    counts : array of shape (windows, bins, n_units), optional
        Of the training windows: biases start at each unit's mean log-rate.
    """

    statistics: Tensor  # (n_units, 3): what units are compared by, and 1 where counts were given
    region_row: Tensor

    def __init__(
        self,
        config: MtMConfig,
        n_units: int,
        regions: Sequence[str] | None = None,
        counts: NDArray[np.generic] | None = None,
    ) -> None:
        super().__init__(config, n_units, regions)
        self.embedding = nn.Parameter(torch.randn(n_units, config.stitch_size))
        self.bias = nn.Parameter(torch.full((n_units,), TYPICAL_LOG_MEAN))
        self.register_buffer("statistics", torch.zeros(n_units, 3))
        rows = torch.zeros(n_units, dtype=torch.int64, device="cpu")  # never "meta": it is not stored
        self.register_buffer("region_row", rows, persistent=False)
        if counts is not None:
            self.statistics[:, :2] = unit_statistics(counts)
            self.statistics[:, 2] = 1.0
            self.bias.data.copy_(self.statistics[:, 0])

    def set_region_rows(self, rows: Tensor) -> None:
        """Say which row of the table of regions belongs to each unit."""
        self.region_row = rows.to(self.region_row.device)

    def vectors(self, regions: RegionTable | None) -> Tensor:
        """Return the units' vectors with those of their regions, ``(n_units, size)``."""
        return self.embedding if regions is None else self.embedding + regions.weight[self.region_row]

    def reader(self, regions: RegionTable | None) -> UnitVectors:
        """Return what maps this session's counts in and its rates out."""
        return UnitVectors(self.vectors(regions), self.bias)

    @torch.no_grad()
    def start_like(self, known: Sequence[EmbeddedParts], how: Start) -> None:
        """Start from units that the model knows; without any, stay at random vectors.

        Parameters
        ----------
        known : sequence of EmbeddedParts
        how : {"random", "mean", "nearest"}
            "mean" takes the mean vector of the known units of the same region, or of all if there are none.
            "nearest" copies the vector of the unit nearest in mean rate, Fano factor of a window's spikes
            and region; units without counts start at the mean.
        """
        if how == "random" or not known:
            return
        vectors = torch.cat([parts.embedding for parts in known])
        regions = np.concatenate([parts.region_names() for parts in known])
        own = self.region_names()
        self.embedding.copy_(_region_means(vectors, regions, own))
        mean_bias = torch.cat([parts.bias for parts in known]).mean()
        self.bias.copy_(torch.where(self.statistics[:, 2] > 0, self.bias, mean_bias))
        tokens = [parts.token for parts in known if parts.token is not None]
        if self.token is not None and tokens:
            self.token.copy_(torch.stack(list(tokens)).mean(0))
        if how == "nearest":
            statistics = torch.cat([parts.statistics for parts in known])
            self._copy_nearest(vectors, statistics, regions != own[:, None])

    def _copy_nearest(self, vectors: Tensor, statistics: Tensor, elsewhere: NDArray[np.bool_]) -> None:
        described, known = (s[:, 2] > 0 for s in (self.statistics, statistics))
        if not (described.any() and known.any()):
            return
        reference = statistics[known, :2]
        spread = reference.std(0, correction=0).clamp(min=LEAST_SPREAD)
        distance = torch.cdist(self.statistics[described, :2] / spread, reference / spread).square()
        away = torch.from_numpy(elsewhere).to(distance.device)[described][:, known]
        nearest = (distance + OTHER_REGION**2 * away).argmin(1)
        self.embedding[described] = vectors[known][nearest]

    def region_names(self) -> NDArray[np.str_]:
        """Return the region of each unit, "" where it is not known."""
        return np.array([""] * self.n_units if self.regions is None else self.regions, dtype=np.str_)

    def grown(self, new: EmbeddedParts) -> None:
        """Take over the units of ``new`` behind one's own."""
        regions = (*self.region_names().tolist(), *new.region_names().tolist())
        self.regions = regions if any(regions) else None
        self.n_units += new.n_units
        for name in ("embedding", "bias"):
            mine = getattr(self, name)
            joined = torch.cat([mine.data, getattr(new, name).data.to(mine)])
            setattr(self, name, nn.Parameter(joined, requires_grad=mine.requires_grad))
        self.statistics = torch.cat([self.statistics, new.statistics.to(self.statistics)])
        self.region_row = torch.cat([self.region_row, new.region_row.to(self.region_row)])


class UnitVectors:
    """Maps counts in and rates out by the vectors of units; of one session, or padded ones of several.

    Parameters
    ----------
    vectors : tensor of shape (N, size) or (B, N, size)
    bias : tensor of shape (N,) or (B, 1, N)
    real : bool tensor of shape (B, 1, N), optional
        False for padding.
    """

    def __init__(self, vectors: Tensor, bias: Tensor, real: Tensor | None = None) -> None:
        self.vectors, self.bias, self.real = vectors, bias, real

    @classmethod
    def of_windows(
        cls, sessions: Sequence[EmbeddedParts], number: Tensor, regions: RegionTable | None
    ) -> UnitVectors:
        """Return the padded vectors of windows; ``number`` (B,) says which of the sessions each is of."""
        vectors = pad_sequence([parts.vectors(regions) for parts in sessions], batch_first=True)
        bias = pad_sequence([parts.bias for parts in sessions], batch_first=True)
        n_units = torch.tensor([parts.n_units for parts in sessions], device=number.device)[number]
        real = torch.arange(bias.shape[1], device=number.device) < n_units[:, None, None]
        return cls(vectors[number], bias[number, None], real)

    def read_in(
        self, counts: Tensor, hidden: Tensor | None, causal: bool, evidence: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """Map counts ``(B, T, N)`` to ``(B, T, 2 * size)``: sums of visible and of hidden units."""
        n_bins, n_units = counts.shape[1:]
        n_real: int | Tensor = n_units if self.real is None else self.real.sum(2, keepdim=True)
        scale = n_real**-0.5
        unseen = hidden
        if self.real is not None:
            unseen = ~self.real if hidden is None else hidden | ~self.real
        visible = counts if unseen is None else counts.masked_fill(unseen, 0.0)
        seen_sum = visible.log1p() @ self.vectors * scale
        if hidden is None:
            return torch.cat([seen_sum, torch.zeros_like(seen_sum)], dim=2), None
        asked = hidden if self.real is None else hidden & self.real
        asked = asked.expand(-1, -1, n_units).to(self.vectors.dtype)
        hidden_sum = asked @ self.vectors * scale
        return torch.cat([seen_sum, hidden_sum.expand(len(counts), n_bins, -1)], dim=2), None

    def read_out(self, states: Tensor, bypass: Tensor | None, calibration: Tensor | None = None) -> Tensor:
        """Map what the trunk asks for ``(B, T, size)`` to log-rates ``(B, T, N)``; 0 for padding."""
        log_rates = states @ self.vectors.mT * self.vectors.shape[-1] ** -0.5 + self.bias
        return log_rates if self.real is None else log_rates.masked_fill(~self.real, 0.0)


def unit_statistics(counts: NDArray[np.generic]) -> Tensor:
    """Return log mean count per bin, and log Fano factor of the spikes of a window: ``(n_units, 2)`` float32.

    The Fano factor, variance over mean, is drawn to 1 by one window's worth of spikes.

    Parameters
    ----------
    counts : array of shape (windows, bins, n_units)
    """
    n_windows, n_bins, n_units = counts.shape
    total, squares = np.zeros((2, n_units))
    for start in range(0, n_windows, CHUNK):
        spikes = counts[start : start + CHUNK].sum(axis=1, dtype=np.float64)
        total += spikes.sum(0)
        squares += (spikes**2).sum(0)
    mean = np.maximum(total, SPIKES_OF_SILENCE) / n_windows
    variance = np.maximum(squares / n_windows - (total / n_windows) ** 2, 0.0)
    fano = (variance * n_windows + mean) / (mean * n_windows + mean)
    return torch.from_numpy(np.log(np.stack([mean / n_bins, np.maximum(fano, 1e-3)], axis=1))).float()


def _region_means(vectors: Tensor, regions: NDArray[np.str_], own: NDArray[np.str_]) -> Tensor:
    """Return for each of ``own`` the mean vector of its region, or of all units where it has none."""
    names, number = np.unique(regions, return_inverse=True)
    index = torch.from_numpy(number).to(vectors.device)
    sums = vectors.new_zeros(len(names), vectors.shape[1]).index_add_(0, index, vectors)
    means = sums / torch.bincount(index, minlength=len(names))[:, None]
    everywhere = vectors.mean(0, keepdim=True)
    place = np.searchsorted(names, own)
    found = (names[place.clip(max=len(names) - 1)] == own) & (own != "")
    rows = torch.from_numpy(np.where(found, place, len(names))).to(vectors.device)
    return torch.cat([means, everywhere])[rows]
