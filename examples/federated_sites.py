"""Sites that train one network together and show each other no data: federated averaging over BIDS folders.

Each site holds its own subjects and electrodes, fits its scale on its own part to train on, and keeps the
layer that reads its electrodes to itself; the body and the read-out are averaged after each round (McMahan et
al. 2017, AISTATS). Run it with ``python examples/federated_sites.py FOLDER ...``, a folder for each site; of
one folder each subject is a site.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from neurokern.adapters import average_states, load_shared_state, shared_state
from neurokern.datasets import BIDSDataset, MEEGWindows, group_windows, split_windows, standardize
from neurokern.extractors import MEEGExtractor

ROUNDS, BATCH, HIDDEN = 8, 8, 16


class Decoder(nn.Module):
    """A site's own way from its electrodes to components, and a body that all sites share."""

    def __init__(self, n_channels: int, n_samples: int, n_conditions: int) -> None:
        super().__init__()
        self.read_in = nn.Linear(n_channels, 4)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(4 * n_samples, HIDDEN), nn.GELU())
        self.read_out = nn.Linear(HIDDEN, n_conditions)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """Return scores of the conditions, (batch, conditions), of windows (batch, time, channels)."""
        scores: torch.Tensor = self.read_out(self.body(self.read_in(signal)))
        return scores


class Site:
    """What one hospital has: windows that stay here, and its copy of the network."""

    def __init__(self, name: str, windows: MEEGWindows, n_conditions: int, seed: int) -> None:
        self.name = name
        self.parts: Any = standardize(split_windows(windows, by="time", test=0.3, validation=0.0, gap=0.5))
        n_samples, n_channels = self.parts.train[0]["signal"].shape
        torch.manual_seed(seed)
        self.model = Decoder(n_channels, n_samples, n_conditions)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, weight_decay=1e-2)
        self.seed = seed

    def train(self, round_number: int) -> None:
        """Go once through the site's own windows."""
        order = torch.Generator().manual_seed(1000 * self.seed + round_number)
        for batch in DataLoader(self.parts.train, batch_size=BATCH, shuffle=True, generator=order):
            loss = nn.functional.cross_entropy(self.model(batch["signal"]), batch["condition"])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    @torch.no_grad()
    def accuracy(self) -> float:
        """Return the share of right answers on windows that came after those to train on."""
        batch = self.parts.test.batch(range(len(self.parts.test)))
        return float((self.model(batch["signal"]).argmax(1) == batch["condition"]).float().mean())


def sites_of(folders: Sequence[str]) -> list[Site]:
    """Return a site for each folder, or for each subject of a single one; all know the same conditions."""
    extractor = MEEGExtractor("eeg")
    around = {"events": True, "tmin": 0.0, "tmax": 0.5}
    held = {
        folder: BIDSDataset(folder, modality="eeg").with_extractor(extractor, **around) for folder in folders
    }
    if len(held) == 1:
        held = group_windows(next(iter(held.values())), by="subject")
    conditions = {windows.conditions for windows in held.values()}
    if len(conditions) > 1:
        raise ValueError(f"sites must have the same conditions, got {sorted(conditions)}")
    n = len(conditions.pop())
    return [Site(name, windows, n, seed) for seed, (name, windows) in enumerate(held.items())]


def main(*folders: str) -> None:
    """Train in rounds and print how each site does on its own later windows."""
    sites = sites_of(folders)
    for round_number in range(ROUNDS):
        for site in sites:
            site.train(round_number)
        states = [shared_state(site.model, private="read_in.*") for site in sites]
        shared = average_states(states, [len(site.parts.train) for site in sites])
        for site in sites:
            load_shared_state(site.model, shared)
    print(f"{len(sites)} sites, {ROUNDS} rounds; read_in stays where it is")
    for site in sites:
        train, test = len(site.parts.train), len(site.parts.test)
        print(f"{site.name}: {train} windows to train, {test} to test, {site.accuracy():.2f} right")


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["."]))
