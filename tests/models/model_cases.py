"""Small models of each recipe, and batches for them; shared by the tests of the models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from neurokern.datasets.batch import SpikeBatch
from neurokern.models import MtM, MtMConfig

N_BINS = 12
SIZES = {"n_bins": N_BINS, "hidden_size": 32, "n_layers": 3, "n_heads": 4, "mlp_size": 48}
RECIPES = {
    "paper": MtMConfig.paper(**SIZES, stitch_size=20, embed_size=40),
    "ndt2": MtMConfig.ndt2(**SIZES, patch_size=4, max_patches=3, embed_size=8),
    "ndt2 with regions": MtMConfig.ndt2(
        **SIZES, patch_size=4, max_patches=3, position="rotary", region_embeddings=True, strict_causal=True
    ),
    "modern": MtMConfig.modern(**SIZES, stitch_size=16),
    "small": MtMConfig.small(**SIZES, stitch_size=4),
}
STRICT = ("ndt2 with regions", "modern", "small")
SESSIONS = {"two": 2, "five": 5, "eleven": 11}
REGIONS = ("CA1", "VISp", "")


def spikes(n_windows: int, n_units: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(torch.full((n_windows, N_BINS, n_units), 0.7), generator=generator)


def regions_of(n_units: int) -> list[str]:
    return [REGIONS[unit % len(REGIONS)] for unit in range(n_units)]


def make_model(recipe: str, sessions: dict[str, int] | None = None, seed: int = 0, **changes: object) -> MtM:
    """Return a model in evaluation mode whose weights are not those of its start."""
    config = RECIPES[recipe]
    if changes:
        config = MtMConfig.from_dict({**config.to_dict(), **changes})
    torch.manual_seed(seed)
    model = MtM(config)
    for name, n_units in (SESSIONS if sessions is None else sessions).items():
        model.add_session(name, n_units, regions_of(n_units), spikes(20, n_units).numpy().astype(np.uint8))
    with torch.no_grad():  # some matrices start at 0 and would hide what goes through them
        for parameter in model.parameters():
            if parameter.ndim == 2 and not parameter.any():
                parameter.normal_(std=0.1)
    return model.eval()


def batch_of(counts: Sequence[torch.Tensor], sessions: list[str], padding: float = 0.0) -> SpikeBatch:
    """Return a batch of windows (bins, units) of several sessions."""
    n_units = [window.shape[1] for window in counts]
    padded = torch.full((len(counts), counts[0].shape[0], max(n_units)), padding)
    for row, window in enumerate(counts):
        padded[row, :, : window.shape[1]] = window
    regions = [[unit % 3 if unit < n else -1 for unit in range(max(n_units))] for n in n_units]
    number = torch.arange(len(counts))
    return SpikeBatch(
        counts=padded,
        n_units=torch.tensor(n_units),
        regions=torch.tensor(regions),
        session=sessions,
        session_index=number,
        window=number,
    )
