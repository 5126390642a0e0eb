"""What belongs to one session in MtM: read-in, read-out, token, and what is known of its units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from neurokern.models.mtm import MtMConfig

MIN_SPREAD = 0.05  # of sqrt counts: below it a unit's few spikes would be blown up to outliers
SMOOTHING = (0.054, 0.242, 0.399, 0.242, 0.054)  # over time, for the components: a normal curve of one bin
CHUNK = 64  # windows at a time, so that a session of any length takes little memory


class SessionParts(nn.Module):
    """Read-in, read-out and token of one session.

    Parameters
    ----------
    config : MtMConfig
    n_units : int
    regions : sequence of str of length n_units, optional
        Region names, kept with the model; the weights do not depend on them.
    counts : array of shape (windows, bins, n_units), optional
        Counts of the training windows, for those options of ``config`` that start from them.
    """

    center: Tensor
    scale: Tensor
    log_baseline: Tensor

    def __init__(
        self,
        config: MtMConfig,
        n_units: int,
        regions: Sequence[str] | None = None,
        counts: NDArray[np.generic] | None = None,
    ) -> None:
        super().__init__()
        self.n_units = n_units
        self.regions = None if regions is None else tuple(map(str, regions))
        self.stitch_in = nn.Linear(n_units, config.stitch_size)
        self.stitch_out = nn.Linear(config.hidden_size, n_units)
        self.token = nn.Parameter(torch.randn(config.hidden_size) * config.token_std)
        self.skip: nn.Linear | None = None
        self.centered = config.input_transform == "centered-sqrt"
        self.has_baseline = config.rate_baseline
        if config.linear_skip:
            self.skip = nn.Linear(config.stitch_size, n_units, bias=False)
            nn.init.zeros_(self.skip.weight)
        if self.centered:
            self.register_buffer("center", torch.zeros(n_units))
            self.register_buffer("scale", torch.ones(n_units))
        if self.has_baseline:
            self.register_buffer("log_baseline", torch.zeros(n_units))
            nn.init.zeros_(self.stitch_out.bias)
            nn.init.normal_(self.stitch_out.weight, std=0.02 * config.hidden_size**-0.5)
        if counts is not None:
            self._start_from(counts, config)

    def read_in(self, counts: Tensor, hidden: Tensor | None) -> Tensor:
        """Map counts ``(B, T, N)`` to ``(B, T, stitch_size)``; entries of ``hidden`` count as unknown."""
        values = self._transform(counts)
        if hidden is not None:
            values = values.masked_fill(hidden, 0.0)
        return self.stitch_in(values)

    def _transform(self, counts: Tensor) -> Tensor:
        return (counts.sqrt() - self.center) * self.scale if self.centered else counts

    def read_out(self, states: Tensor, read: Tensor) -> Tensor:
        """Map hidden states ``(B, T, D)`` and what was read in to log-rates ``(B, T, N)``."""
        log_rates = self.stitch_out(states)
        if self.skip is not None:
            log_rates = log_rates + self.skip(read)
        if self.has_baseline:
            log_rates = log_rates + self.log_baseline
        return log_rates

    @torch.no_grad()
    def _start_from(self, counts: NDArray[np.generic], config: MtMConfig) -> None:
        """Set buffers and first weights from training counts."""
        rate, center, spread = unit_statistics(counts)
        if self.has_baseline:
            self.log_baseline.copy_(rate.log())
        if self.centered:
            self.center.copy_(center)
            self.scale.copy_(spread.clamp(min=MIN_SPREAD) ** -config.scale_power)
        if config.stitch_init == "pca":
            components = principal_components(counts, self._transform, config.stitch_size)
            self.stitch_in.weight[: len(components)].copy_(components)
            self.stitch_in.bias.zero_()


def unit_statistics(counts: NDArray[np.generic]) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean count, and mean and spread of its square root, for each unit: ``(n_units,)`` float32.

    The mean count is at least half a spike in all windows together: a unit that was silent may yet fire.
    """
    n_samples = counts.shape[0] * counts.shape[1]
    total, root_total = (np.zeros(counts.shape[2]) for _ in range(2))
    for start in range(0, len(counts), CHUNK):
        chunk = counts[start : start + CHUNK]
        total += chunk.sum(axis=(0, 1), dtype=np.float64)
        root_total += np.sqrt(chunk, dtype=np.float32).sum(axis=(0, 1), dtype=np.float64)
    center = root_total / n_samples
    variance = total / n_samples - center**2  # a squared root is the count
    spread = np.sqrt(np.maximum(variance, 0.0))
    rate = np.maximum(total, 0.5) / n_samples
    return tuple(torch.from_numpy(a).float() for a in (rate, center, spread))  # type: ignore[return-value]


def principal_components(
    counts: NDArray[np.generic], transform: Callable[[Tensor], Tensor], n_components: int
) -> Tensor:
    """Return up to ``n_components`` whitening directions of the smoothed inputs, ``(components, n_units)``.

    A projection on a row has unit variance over the windows given. Directions without variance are left out.
    """
    n_units = counts.shape[2]
    gram = torch.zeros(n_units, n_units, dtype=torch.float64)
    for start in range(0, len(counts), CHUNK):
        chunk = torch.from_numpy(np.asarray(counts[start : start + CHUNK], dtype=np.float32))
        z = smooth_bins(transform(chunk)).reshape(-1, n_units)
        gram += (z.T @ z).double()
    values, vectors = torch.linalg.eigh(gram / (counts.shape[0] * counts.shape[1]))
    keep = torch.arange(n_units - 1, max(n_units - 1 - n_components, -1), -1)
    keep = keep[values[keep] > 1e-6 * values[-1].clamp(min=1e-12)]
    return (vectors[:, keep] / values[keep].sqrt()).T.float()


def smooth_bins(x: Tensor) -> Tensor:
    """Smooth ``(B, T, N)`` over time, repeating the first and the last bin beyond the ends."""
    half = len(SMOOTHING) // 2
    n_bins = x.shape[1]
    index = torch.arange(-half, n_bins + half).clamp(0, n_bins - 1)
    padded = x[:, index]
    return torch.stack([w * padded[:, k : k + n_bins] for k, w in enumerate(SMOOTHING)]).sum(0)
