"""What people run to hide parts of a batch, in plain PyTorch.

Candidates of a workload mean the same but for the numbers that they draw. "lean eager" is the least that we
found in plain PyTorch, with regions known beforehand; "published sequence" is our own transcription of what
the published masker runs, with region numbers in place of its strings: Bernoulli draws of full size whatever
the scheme, boolean-index assignment, int64 targets.
"""

from __future__ import annotations

import torch

N_SAMPLES, N_BINS, N_UNITS, N_REGIONS, RATIO = 64, 100, 800, 20, 0.3
REGIONS = torch.arange(N_UNITS) // (N_UNITS // N_REGIONS)
PRESENT = torch.unique(REGIONS)

Masked = tuple[torch.Tensor, torch.Tensor]


def counts(n_samples: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.poisson(torch.full((n_samples, N_BINS, N_UNITS), 0.3), generator=generator).to(dtype)


def lean_targets(x: torch.Tensor, scheme: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a broadcastable target mask, and for intra-region which units lie outside."""
    n_samples, n_bins, n_units = x.shape
    if scheme in ("temporal", "causal"):
        return torch.rand(n_samples, n_bins, 1) < RATIO, None
    if scheme == "neuron":
        return torch.rand(n_samples, 1, n_units) < RATIO, None
    if scheme == "random":
        return torch.rand(x.shape) < RATIO, None
    inside = PRESENT[torch.randint(len(PRESENT), (1,))] == REGIONS
    if scheme == "inter-region":
        return inside[None, None], None
    return (torch.rand(n_samples, 1, n_units) < RATIO) & inside, ~inside


def lean_zero(x: torch.Tensor, scheme: str) -> Masked:
    target, outside = lean_targets(x, scheme)
    hidden = target if outside is None else target | outside
    return x.masked_fill(hidden, 0), target.expand(x.shape).contiguous()


def lean_bert(x: torch.Tensor, scheme: str) -> Masked:
    target, outside = lean_targets(x, scheme)
    draw = torch.rand(x.shape)
    zeroed = target & (draw < 0.8)
    inputs = x.masked_fill(zeroed if outside is None else zeroed | outside, 0)
    sample, bins, unit = (target & (draw >= 0.8) & (draw < 0.9)).nonzero(as_tuple=True)
    inputs[sample, bins, unit] = x[sample, torch.randint(N_BINS, (len(bins),)), unit]
    return inputs, target.expand(x.shape).contiguous()


def pack(masked: Masked) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Add the positions of the targets, and where each sample's begin."""
    inputs, target = masked
    per_sample = target.flatten(1).sum(1, dtype=torch.int32)
    cu_seqlens = torch.nn.functional.pad(per_sample.cumsum(0, dtype=torch.int32), (1, 0))
    return inputs, target, target.flatten().nonzero().squeeze(1), cu_seqlens


def published_sequence(x: torch.Tensor, scheme: str, zero_ratio: float) -> Masked:
    x = x.clone()  # it writes into its input; the batch must survive here
    target, outside = bernoulli_targets(x, scheme)
    mask = target if outside is None else target | outside
    zeroed = torch.bernoulli(torch.full(x.shape, zero_ratio)).bool() & mask
    x[zeroed] = 0
    other = torch.bernoulli(torch.full(x.shape, 0.5)).bool() & mask & ~zeroed
    random_counts = (x.max() * torch.rand(x.shape)).to(x.dtype)
    x[other] = random_counts[other]
    return x, target.to(torch.int64)


def bernoulli_targets(x: torch.Tensor, scheme: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    n_samples, n_bins, n_units = x.shape
    shapes = {"temporal": (n_samples, n_bins, 1), "causal": (n_samples, n_bins, 1), "random": x.shape}
    draw = torch.bernoulli(torch.full(shapes.get(scheme, (n_samples, 1, n_units)), RATIO)).bool()
    target = draw.expand(x.shape).clone()
    if scheme not in ("intra-region", "inter-region"):
        return target, None
    present = torch.unique(REGIONS)
    inside = (present[torch.randint(len(present), ())] == REGIONS).expand(x.shape)
    return (inside.clone(), None) if scheme == "inter-region" else (target & inside, ~inside)
