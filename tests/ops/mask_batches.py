"""Batches that the tests of the region ops share."""

import torch

from neurokern import MaskedBatch, mask_regions

IN_TIME = ("temporal", "causal")


def counts(n_samples: int = 4, n_bins: int = 20, n_units: int = 70, device: str = "cpu") -> torch.Tensor:
    """Counts of at least 1, so that a hidden entry shows as 0."""
    generator = torch.Generator().manual_seed(n_samples * n_bins + n_units)
    return torch.randint(1, 9, (n_samples, n_bins, n_units), generator=generator).float().to(device)


def six_regions(n_units: int = 70, device: str = "cpu") -> torch.Tensor:
    return (torch.arange(n_units, device=device) * 7 + 3) % 6


def mask(x=None, scheme="neuron", *, regions=None, seed=0, **options) -> MaskedBatch:
    x = counts() if x is None else x
    regions = six_regions(x.shape[2], x.device) if regions is None else regions
    return mask_regions(x, regions, scheme, seed=seed, **options)
