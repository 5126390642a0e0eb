"""Vectors of brain regions, known by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


class RegionTable(nn.Module):
    """One trained vector for each region, and one for units whose region is not known.

    All start at 0. A region that comes later starts at the vector of the unknown region, so that a trained
    model takes its units for units of no known region until it learns more.

    Parameters
    ----------
    size : int
        Width of a vector.
    names : iterable of str, optional
        Regions that are known from the start.
    """

    def __init__(self, size: int, names: Iterable[str] = ()) -> None:
        super().__init__()
        self._row_of: dict[str, int] = {"": 0}
        self.weight = nn.Parameter(torch.zeros(1, size))
        self.add(names)

    @property
    def names(self) -> tuple[str, ...]:
        """Known regions in the order of their rows, from row 1 on; row 0 is the unknown region."""
        return tuple(self._row_of)[1:]

    @torch.no_grad()
    def add(self, names: Iterable[str]) -> None:
        """Make a row for each name that has none; the others keep theirs."""
        new = [name for name in dict.fromkeys(names) if name not in self._row_of]
        if not new:
            return
        for name in new:
            self._row_of[name] = len(self._row_of)
        grown = torch.cat([self.weight, self.weight[:1].expand(len(new), -1)])
        self.weight = nn.Parameter(grown, requires_grad=self.weight.requires_grad)

    def rows(self, regions: Sequence[str]) -> Tensor:
        """Return the row of each unit's region, int64 on the CPU; 0 where the region has none."""
        return torch.tensor([self._row_of.get(name, 0) for name in regions], dtype=torch.int64, device="cpu")
