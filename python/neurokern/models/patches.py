"""Units in blocks, each block of each bin a token: the published NDT2 variant of MtM.

Every session uses the same weights, whatever the number of its units; what remains its own is a token. The
last block of a session is filled up with zeros, which no weight sees: the slots hold no spikes and are no
outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurokern.models.stitching import SessionParts

if TYPE_CHECKING:
    from neurokern.models.config import MtMConfig


class PatchParts(SessionParts):
    """A session in patches of ``config.patch_size`` units, in the order of its units.

    Sort units by region, or along the probe, before binning: neighbors share tokens.
    """

    patch_region: Tensor

    def __init__(self, config: MtMConfig, n_units: int, regions: Sequence[str] | None = None) -> None:
        super().__init__(config, n_units, regions)
        self.patch_size = config.patch_size
        if self.n_patches > config.max_patches:
            raise ValueError(
                f"MtM.add_session: n_units must be at most {config.max_patches} patches of "
                f"{config.patch_size}, got {n_units}; set MtMConfig(max_patches=...)"
            )
        rows = torch.zeros(self.n_patches, dtype=torch.int64, device="cpu")  # never "meta": it is not stored
        self.register_buffer("patch_region", rows, persistent=False)

    @property
    def n_patches(self) -> int:
        """Number of patches, the last of which may be partly empty."""
        return -(-self.n_units // self.patch_size)

    def set_region_rows(self, rows: Tensor) -> None:
        """Take the region of most units of each patch; of equals the one with the lowest row."""
        patch = torch.arange(self.n_units, device="cpu") // self.patch_size
        found, size = torch.stack([patch, rows.cpu()]).unique(dim=1, return_counts=True)  # by patch, then row
        largest_first = size.argsort(descending=True, stable=True)
        found = found[:, largest_first][:, found[0, largest_first].argsort(stable=True)]
        begins = torch.cat([found.new_ones(1, dtype=torch.bool), found[0].diff() > 0])
        self.patch_region = found[1, begins].to(self.patch_region.device)

    def read_in(
        self, counts: Tensor, hidden: Tensor | None, causal: bool, evidence: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """Cut counts ``(B, T, N)`` into patches ``(B, T, n_patches, patch_size)``."""
        return cut_patches(counts, hidden, self.n_patches, self.patch_size), None

    def read_out(self, states: Tensor, bypass: Tensor | None, calibration: Tensor | None = None) -> Tensor:
        """Join patches of log-rates ``(B, T, n_patches, patch_size)`` and drop the empty slots."""
        return states.flatten(2)[..., : self.n_units]


class PaddedPatches:
    """Windows of several sessions with the same number of patches.

    Parameters
    ----------
    n_patches, patch_size : int
    real : bool tensor of shape (B, 1, N)
        False for padding.
    """

    def __init__(self, n_patches: int, patch_size: int, real: Tensor) -> None:
        self.n_patches, self.patch_size, self.real = n_patches, patch_size, real

    def read_in(
        self, counts: Tensor, hidden: Tensor | None, causal: bool, evidence: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`PatchParts.read_in`, after what the padding holds is set to 0."""
        unseen = ~self.real if hidden is None else hidden | ~self.real
        return cut_patches(counts, unseen, self.n_patches, self.patch_size), None

    def read_out(self, states: Tensor, bypass: Tensor | None, calibration: Tensor | None = None) -> Tensor:
        """As :meth:`PatchParts.read_out`, with 0 for padding."""
        return states.flatten(2)[..., : self.real.shape[2]].masked_fill(~self.real, 0.0)


def cut_patches(counts: Tensor, hidden: Tensor | None, n_patches: int, patch_size: int) -> Tensor:
    """Return ``(B, T, n_patches, patch_size)``; hidden entries and slots beyond the units are 0."""
    visible = counts if hidden is None else counts.masked_fill(hidden, 0.0)
    return F.pad(visible, (0, n_patches * patch_size - counts.shape[2])).unflatten(2, (n_patches, patch_size))


class PatchPositions(nn.Module):
    """What tells the patches of a window apart: a vector for each place and each bin, both normalized.

    Parameters
    ----------
    max_patches, n_bins, hidden_size : int
    std : float
        Of the vectors at the start.
    timed : bool
        False leaves the bins out, for a trunk with rotary positions.
    """

    def __init__(self, max_patches: int, n_bins: int, hidden_size: int, std: float, timed: bool) -> None:
        super().__init__()
        self.space = nn.Parameter(torch.randn(max_patches, hidden_size) * std)
        self.space_norm = nn.LayerNorm(hidden_size)
        self.time: nn.Parameter | None = None
        if timed:
            self.time = nn.Parameter(torch.randn(n_bins, hidden_size) * std)
            self.time_norm = nn.LayerNorm(hidden_size)

    def forward(self, n_bins: int, n_patches: int) -> Tensor:
        """Return what is added to the tokens, ``(n_bins or 1, n_patches, hidden_size)``."""
        space = self.space_norm(self.space[:n_patches])
        return space[None] if self.time is None else space + self.time_norm(self.time[:n_bins])[:, None]
