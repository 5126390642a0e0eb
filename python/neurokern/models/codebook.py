"""Codes as targets: vectors by the number of the nearest of a few.

Models such as Du-IN and BrainOmni predict the codes of hidden tokens. This codebook is fitted once by
k-means, apart from the model: nothing drifts while the model trains, and no code dies.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurokern._check import check_integer

DISTANCES = 1 << 24  # computed at a time
SAMPLES_PER_CODE = 64  # vectors that a code is fitted to, on average: more change little


class Codebook(nn.Module):
    """Numbers of the nearest codes, and the codes of numbers.

    Parameters
    ----------
    codes : tensor of shape (n_codes, size)
        Kept as a buffer: stored with a model, moved with it, never trained.
    """

    codes: Tensor

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        if codes.ndim != 2 or not codes.shape[0] or not codes.is_floating_point():
            raise ValueError(
                f"Codebook: codes must be floating point of shape (n_codes, size), got {codes.dtype} of "
                f"{tuple(codes.shape)}"
            )
        self.register_buffer("codes", codes.detach().clone())

    @classmethod
    def fit(cls, vectors: Tensor, n_codes: int, *, seed: int, n_iterations: int = 25) -> Codebook:
        """Return the codebook that k-means finds for vectors.

        Parameters
        ----------
        vectors : float tensor of shape (..., size)
            For example the tokens of training windows. Of more than 64 for each code, so many are drawn.
        n_codes : int
            At most the number of different vectors.
        seed : int
            One seed gives one codebook on one device.
        n_iterations : int, default 25
            Most rounds of assigning vectors and moving codes to their means; fewer if nothing moves.

        Raises
        ------
        ValueError
            If there are too few vectors, or they hold NaN or infinity.

        References
        ----------
        .. [1] Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
        """
        if check_integer("Codebook.fit", "n_codes", n_codes) < 1:
            raise ValueError(f"Codebook.fit: n_codes must be at least 1, got {n_codes}")
        points = vectors.detach().flatten(0, -2).float()
        if not points.isfinite().all():
            raise ValueError("Codebook.fit: vectors must be finite")
        generator = torch.Generator().manual_seed(seed)
        most = SAMPLES_PER_CODE * n_codes
        if len(points) > most:
            points = points[torch.randperm(len(points), generator=generator)[:most].to(points.device)]
        codes = _spread_out(points, n_codes, generator)
        for _ in range(n_iterations):
            moved = _means(points, _nearest(points, codes), codes)
            if torch.equal(moved, codes):
                break
            codes = moved
        return cls(codes)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the number of the code nearest to each vector, int64 ``(...)`` of ``(..., size)``.

        Of several equally near codes it is the first. ValueError if the last dimension is not that of codes.
        """
        if vectors.shape[-1:] != self.codes.shape[1:]:
            raise ValueError(
                f"Codebook: vectors must have shape (..., {self.codes.shape[1]}), got {tuple(vectors.shape)}"
            )
        points = vectors.detach().flatten(0, -2).to(self.codes.dtype)
        return _nearest(points, self.codes).view(vectors.shape[:-1])

    def decode(self, numbers: Tensor) -> Tensor:
        """Return the codes of numbers, ``(..., size)``."""
        return self.codes[numbers]


def _nearest(points: Tensor, codes: Tensor) -> Tensor:
    """Return the row of the nearest code of each point."""
    half_norms = codes.square().sum(1) / 2
    chunks = points.split(max(1, DISTANCES // len(codes)))
    return torch.cat([(half_norms - chunk @ codes.T).argmin(1) for chunk in chunks])


def _spread_out(points: Tensor, n_codes: int, generator: torch.Generator) -> Tensor:
    """Draw codes from the points, each with a chance that grows with its distance from those before."""
    chosen: list[Tensor] = []
    distance = torch.ones(len(points), device=points.device)
    for _ in range(n_codes):
        total = distance.double().cumsum(0)
        if not len(points) or total[-1] <= 0:
            raise ValueError(
                f"Codebook.fit: vectors must hold at least n_codes={n_codes} different ones, "
                f"got {len(chosen)}"
            )
        draw = torch.rand((), generator=generator, dtype=torch.float64).to(points.device) * total[-1]
        at = int(torch.searchsorted(total, draw, right=True).clamp(max=len(points) - 1))
        away = (points - points[at]).square().sum(1)
        distance = away if not chosen else torch.minimum(distance, away)
        chosen.append(points[at])
    return torch.stack(chosen)


def _means(points: Tensor, number: Tensor, codes: Tensor) -> Tensor:
    """Return the mean of each code's points; one without points goes to the point farthest from its code."""
    sums = torch.zeros_like(codes).index_add_(0, number, points)
    sizes = torch.bincount(number, minlength=len(codes))
    moved = sums / sizes.clamp(min=1)[:, None]
    empty = (sizes == 0).nonzero()[:, 0]
    if len(empty):
        farthest = (points - codes[number]).square().sum(1).argsort(descending=True, stable=True)
        moved[empty] = points[farthest[: len(empty)]]
    return moved
