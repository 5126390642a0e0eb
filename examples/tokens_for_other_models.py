"""Two models that are no MtM on the batches of MtM: one reads single spikes, one fills in codes of regions.

The first predicts the next spike of the current window from the past window, as Neuroformer does
(arXiv:2311.00136). The second predicts the codes of hidden region tokens, as Du-IN does (arXiv:2405.11459).
Both are as small as can be. Run it with ``python examples/tokens_for_other_models.py [steps]``.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from neurokern import mask_regions
from neurokern.datasets import (
    SessionBatchSampler,
    SpikeBatch,
    SpikeWindows,
    bin_windows,
    collate_spikes,
    sliding_windows,
    with_region_groups,
)
from neurokern.models import Codebook, count_tokens, region_tokens
from neurokern.samples import load_sample

SIZE, PATCH, N_CODES, N_PAST, MAX_SPIKES = 32, 4, 16, 12, 64


class NextSpike(nn.Module):
    """Scores of the unit that fires next, from the spikes of the past and the current window."""

    def __init__(self, n_units: int, n_steps: int) -> None:
        super().__init__()
        self.unit = nn.Embedding(n_units + 1, SIZE, padding_idx=n_units)
        self.step = nn.Embedding(n_steps + 1, SIZE)
        self.layer = nn.TransformerDecoderLayer(SIZE, 2, 2 * SIZE, dropout=0.0, batch_first=True)
        self.head = nn.Linear(SIZE, n_units)

    def loss(self, batch: SpikeBatch) -> Tensor:
        spikes = count_tokens(batch.counts, batch.n_units)
        past, current = (
            spikes.between(0, N_PAST, MAX_SPIKES),
            spikes.between(N_PAST, spikes.n_steps, MAX_SPIKES),
        )
        context, read = (self.unit(part.unit) + self.step(part.step) for part in (past, current))
        no_peeking = nn.Transformer.generate_square_subsequent_mask(MAX_SPIKES)
        states = self.layer(read, context, tgt_mask=no_peeking)
        next_unit = current.unit[:, 1:].masked_fill(~current.mask[:, 1:], -100)  # padding is not predicted
        return F.cross_entropy(self.head(states[:, :-1]).flatten(0, 1), next_unit.flatten())


class HiddenCodes(nn.Module):
    """Scores of the code of each hidden region token, from those that are not hidden."""

    def __init__(self, n_regions: int, width: int, codes: Codebook) -> None:
        super().__init__()
        self.codes, self.sizes = codes, {"n_regions": n_regions, "max_channels": width}
        self.fuse = nn.Linear(PATCH * width, SIZE)  # the channels of a region become one token
        self.region = nn.Parameter(torch.zeros(n_regions, SIZE))
        self.hidden = nn.Parameter(torch.zeros(SIZE))
        self.layer = nn.TransformerEncoderLayer(SIZE, 2, 2 * SIZE, dropout=0.0, batch_first=True)
        self.head = nn.Linear(SIZE, N_CODES)

    def loss(self, batch: SpikeBatch, step: int) -> Tensor:
        values = region_tokens(batch.counts, batch.regions, patch=PATCH, **self.sizes).values.flatten(3)
        drawn = mask_regions(values[..., 0], None, "random", ratio=0.5, seed=step).target_mask
        tokens = torch.where(drawn[..., None], self.hidden, self.fuse(values)) + self.region
        scores = self.head(self.layer(tokens.flatten(1, 2))).view(*drawn.shape, N_CODES)
        return F.cross_entropy(scores[drawn], self.codes(values)[drawn])


def main(steps: int = 60) -> None:
    """Train both on the packaged recording and print how their losses fall."""
    torch.manual_seed(0)
    recording = with_region_groups(load_sample(), n_groups=4)
    session = bin_windows(recording, sliding_windows(recording, length=0.8, stride=0.4), bin_size=0.05)
    dataset = SpikeWindows([session])
    everything = dataset.__getitems__(range(len(dataset)))
    tokens = region_tokens(everything.counts, everything.regions, patch=PATCH)
    codes = Codebook.fit(tokens.values.flatten(3), N_CODES, seed=0)
    spikes = NextSpike(session.n_units, session.n_bins)
    regions = HiddenCodes(4, tokens.values.shape[-1], codes)
    optimizer = torch.optim.Adam([*spikes.parameters(), *regions.parameters()], lr=3e-3)
    sampler = SessionBatchSampler(dataset, batch_size=16, seed=1)
    step = 0
    while step < steps:
        for batch in DataLoader(dataset, batch_sampler=sampler, collate_fn=collate_spikes):
            losses = spikes.loss(batch), regions.loss(batch, step)
            optimizer.zero_grad()
            sum(losses).backward()
            optimizer.step()
            if step in (0, steps - 1):
                print(f"step {step}: next unit {losses[0]:.2f}, hidden codes {losses[1]:.2f} nats")
            step += 1
            if step == steps:
                break


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
