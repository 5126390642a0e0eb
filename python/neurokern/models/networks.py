"""What lies between a read-in and the trunk, and between the trunk and a read-out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neurokern.models.config import MtMConfig


def token_network(config: MtMConfig) -> nn.Module:
    """Return what makes tokens of what is read in: a linear layer, or two about a softsign, as published."""
    width = {"patches": config.patch_size, "embeddings": 2 * config.stitch_size}
    read_size = width.get(config.read_in, config.stitch_size)
    if config.embed_size is None:
        return nn.Linear(read_size, config.hidden_size)
    return nn.Sequential(
        nn.Linear(read_size, config.embed_size),
        nn.Softsign(),
        nn.Linear(config.embed_size, config.hidden_size),
    )


def output_network(config: MtMConfig) -> nn.Module:
    """Return the shared part of the read-out."""
    if config.read_in == "linear":
        return nn.Identity()
    if config.read_in == "patches":
        return nn.Linear(config.hidden_size, config.patch_size)
    network = nn.Linear(config.hidden_size, config.stitch_size)
    nn.init.zeros_(network.weight)  # start at what the factors, or the units' biases, predict alone
    nn.init.zeros_(network.bias)
    return network


def start_of_calibration(config: MtMConfig) -> Tensor:
    """Return logarithm of the gain, its slope, offset and its slope for each scheme; see ``FactorParts``."""
    start = torch.zeros(len(config.schemes), 4)
    start[:, 0] = torch.tensor(
        [0.0 if name == "causal" else math.log(config.gain) for name in config.schemes]
    )
    return start
