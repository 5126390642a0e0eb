"""Sessions and settings that train in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from neurokern.datasets import BinnedSession
from neurokern.models import MtM, MtMConfig
from neurokern.training import Trainer, TrainingConfig

N_BINS = 16
TINY = {
    "n_bins": N_BINS,
    "hidden_size": 32,
    "n_layers": 2,
    "n_heads": 4,
    "mlp_size": 64,
    "stitch_size": 16,
    "embed_size": 32,
}
CLOCKED = ("seconds", "windows_per_second", "tokens_per_second", "memory_gb")  # no two runs have the same

Sessions = tuple[list[BinnedSession], list[BinnedSession]]  # to train on, to validate on


def latent_session(name: str, n_units: int, *, n_windows: int = 60, seed: int = 0) -> BinnedSession:
    """Three regions driven by the same two latents, constant in a window but for a wave."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n_windows, 1, 2)) + 0.5 * np.sin(np.linspace(0, 6, N_BINS))[:, None]
    rates = np.exp(latent @ rng.normal(scale=0.6, size=(2, n_units)) - 0.5)
    return BinnedSession(
        counts=rng.poisson(rates).clip(max=255).astype(np.uint8),
        bin_size=0.02,
        regions=np.array(["CA1", "VISp", "MOs"])[np.arange(n_units) % 3],
        unit_ids=np.arange(n_units),
        session=name,
    )


def two_sessions() -> Sessions:
    """Sessions of different numbers of windows and units."""
    a, b = latent_session("mouse.1", 18, n_windows=45, seed=1), latent_session("mouse.2", 24, seed=2)
    train = [a.select(slice(0, 33)), b.select(slice(0, 45))]
    return train, [a.select(slice(33, 45)), b.select(slice(45, 60))]


def trainer_of(
    sessions: Sessions, folder: Path, config: TrainingConfig, model: MtMConfig | None = None
) -> Trainer:
    """Return a trainer of a new model; the seed of its weights is always the same."""
    torch.manual_seed(0)
    return Trainer(MtM(model or MtMConfig.paper(**TINY)), *sessions, config, folder)


def weights_of(model: MtM) -> dict[str, torch.Tensor]:
    """Return a copy of a model's weights."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of two sets of weights with the same names."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)
