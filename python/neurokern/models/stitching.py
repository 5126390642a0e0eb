"""What belongs to one session in the published MtM: a linear read-in, a linear read-out and a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from neurokern.models.config import MtMConfig


class SessionParts(nn.Module):
    """Base of a session's parts: who its units are, and its token.

    Parameters
    ----------
    config : MtMConfig
    n_units : int
    regions : sequence of str of length n_units, optional
        Region names, "" or None where not known; kept with the model.
    """

    def __init__(self, config: MtMConfig, n_units: int, regions: Sequence[str] | None = None) -> None:
        super().__init__()
        self.n_units = n_units
        self.regions = None if regions is None else tuple("" if r is None else str(r) for r in regions)
        self.token: nn.Parameter | None = None
        if config.session_tokens:
            self.token = nn.Parameter(torch.randn(config.hidden_size) * config.token_std)

    def set_region_rows(self, rows: Tensor) -> None:
        """Take the rows of the units' regions in a table of regions; most parts do not look at them."""

    def read_in(
        self, counts: Tensor, hidden: Tensor | None, causal: bool, evidence: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """Map counts ``(B, T, N)`` to the trunk's input ``(B, T, stitch_size)`` and to what bypasses it."""
        raise NotImplementedError

    def read_out(self, states: Tensor, bypass: Tensor | None, calibration: Tensor | None = None) -> Tensor:
        """Map the trunk's output ``(B, T, D)`` and what bypassed it to log-rates ``(B, T, N)``."""
        raise NotImplementedError


class LinearParts(SessionParts):
    """One linear map into the trunk and one out of it, as published."""

    def __init__(self, config: MtMConfig, n_units: int, regions: Sequence[str] | None = None) -> None:
        super().__init__(config, n_units, regions)
        self.stitch_in = nn.Linear(n_units, config.stitch_size)
        self.stitch_out = nn.Linear(config.hidden_size, n_units)

    def read_in(
        self, counts: Tensor, hidden: Tensor | None, causal: bool, evidence: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        """Map counts; a hidden count is a 0 like any other."""
        return self.stitch_in(counts if hidden is None else counts.masked_fill(hidden, 0.0)), None

    def read_out(self, states: Tensor, bypass: Tensor | None, calibration: Tensor | None = None) -> Tensor:
        """Map states to log-rates."""
        return self.stitch_out(states)
