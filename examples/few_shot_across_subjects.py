"""EEG of people that an encoder never saw: which group are they of, from k labeled people of each group?

A plain torch module stands for any EEG code base. It is pretrained without labels (the channels of a trial
from its other channels), on all people but the two that are asked about; then its adapters, read-outs of log
band power, and the same network from scratch learn from the same people. Every pair of people, one of each
group, is asked about once.

Run: python examples/few_shot_across_subjects.py uci_vep_14sub.npz [pretraining steps] [pairs] [draws]
"""

import sys

import numpy as np
import torch
from torch import nn

from neurokern.adapters import (
    FewShotTask,
    FineTuneOptions,
    FromScratch,
    FullFineTune,
    LDAProbe,
    LoRA,
    RidgeProbe,
    evaluate_few_shot,
)

data = np.load(sys.argv[1], allow_pickle=False)
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 150
most_pairs = int(sys.argv[3]) if len(sys.argv) > 3 else 7
draws = int(sys.argv[4]) if len(sys.argv) > 4 else 20

signal = torch.from_numpy(data["data_uV"]).float()  # (trials, channels, samples) at 256 Hz
signal = signal - signal.mean((1, 2), keepdim=True)
signal = signal / signal.flatten(1).std(1)[:, None, None]  # amplifiers and skulls differ in gain
subject, group = data["subject"], data["group"]


class Encoder(nn.Module):
    """A linear layer over channels, two strided convolutions over time: (S, C, T) to (S, T / 16, 32)."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.read_in = nn.Linear(n_channels, 32)
        self.early = nn.Conv1d(32, 32, 8, stride=4, padding=2)
        self.late = nn.Conv1d(32, 32, 8, stride=4, padding=2)
        self.mix = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.read_in(x.transpose(1, 2)).transpose(1, 2)
        x = torch.relu(self.late(torch.relu(self.early(x))))
        return torch.log1p(torch.relu(self.mix(x.transpose(1, 2))))


def pretrain(trials: torch.Tensor, seed: int) -> Encoder:
    """Rebuild hidden channels, averaged over 16 samples, from the visible ones."""
    torch.manual_seed(seed)
    encoder = Encoder(trials.shape[1])
    decoder = nn.Linear(32, trials.shape[1])
    optimizer = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], lr=2e-3)
    wanted = nn.functional.avg_pool1d(trials, 16).transpose(1, 2)
    for _ in range(steps):
        rows = torch.randint(len(trials), (16,))
        hidden = torch.rand(16, trials.shape[1], 1) < 0.3
        error = decoder(encoder(trials[rows].masked_fill(hidden, 0.0))) - wanted[rows]
        loss = (error.square() * hidden.transpose(1, 2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return encoder.eval()


def band_power(trials: torch.Tensor) -> torch.Tensor:
    """Log power of 5 bands, channel by channel: (S, C * 5)."""
    power = torch.fft.rfft(trials, dim=2).abs().square()[:, :, 1:]  # 1 Hz apart
    bands = [(1, 4), (4, 8), (8, 13), (13, 30), (30, 45)]
    return torch.cat([(power[:, :, low - 1 : high - 1].mean(2) + 1e-3).log() for low, high in bands], 1)


people = [np.unique(subject[group == name]) for name in np.unique(group)]
tasks = []
for number, pair in enumerate(zip(*people, strict=True)):
    if number == most_pairs:
        break
    asked = np.isin(subject, pair)
    encoder = pretrain(signal[torch.from_numpy(~asked)], seed=number)
    tasks.append(
        FewShotTask(
            session=f"pair {number}",
            features={"band power": band_power(signal), "network": encoder(signal).mean(1).detach()},
            labels=group,
            support_pool=np.flatnonzero(~asked),
            query=np.flatnonzero(asked),
            groups=subject,
            inputs=signal,
            encoders={"network": encoder},
        )
    )

options = FineTuneOptions(max_epochs=30, blind_epochs=15)
long = FineTuneOptions(max_epochs=100, blind_epochs=60, patience=30)  # all is new there
adapters = {
    "ridge": RidgeProbe,
    "lda": LDAProbe,
    "lora": LoRA(rank=4, options=options),
    "full": FullFineTune(options=options),
    "scratch": FromScratch(make_model=lambda: Encoder(64), options=long),
}
table = evaluate_few_shot(
    tasks,
    adapters,
    shots=(1, 3, 6),
    episodes=draws,
    tuned_episodes=min(3, draws),
    baselines=["band power, ridge"],
)
columns = ["method", "shots", "mean", "low", "high", "minus band power, ridge", "n_sessions", "seconds"]
print(table[columns].round(3).to_string(index=False))
