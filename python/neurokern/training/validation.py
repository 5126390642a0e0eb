"""Validation on fixed masks: every scheme, the same hidden counts each time, so that losses compare."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from neurokern.datasets import SessionBatchSampler, SpikeBatch, SpikeWindows, collate_spikes
from neurokern.models import MtM, poisson_loss
from neurokern.models.masking import Masking, mask_batch

MASK_SEED = 20_240_714  # of its own: a training run never sees these draws


class Validation:
    """The masked-prediction losses of a model on some windows.

    Parameters
    ----------
    windows : SpikeWindows
    mean_counts : mapping of session to tensor of shape (n_units,)
        Mean count of each unit in the training windows: what a model has to beat.
    masking : Masking
        Schemes and ratios; of a range of ratios the middle is taken, and nothing is dropped.
    batch_size : int
    """

    def __init__(
        self, windows: SpikeWindows, mean_counts: Mapping[str, Tensor], masking: Masking, batch_size: int
    ) -> None:
        self.windows = windows
        self.mean_counts = mean_counts
        ratio = sum(masking.ratio) / 2 if isinstance(masking.ratio, tuple) else masking.ratio
        self.masking = Masking(
            schemes=masking.schemes,
            ratio=ratio,
            causal_ratio=masking.causal_ratio,
            causal_targets="bins" if masking.causal_targets == "bins" else "last-bins",
            horizon=masking.horizon,
            region_choice="sample",  # more regions for the same number of passes
        )
        self.batches = SessionBatchSampler(windows, batch_size, shuffle=False).plan(0)

    @torch.no_grad()
    def run(self, model: MtM, device: torch.device, bf16: bool = False) -> dict[str, float]:
        """Return the loss and the bits per spike of each scheme, and ``loss``, the mean over schemes.

        A loss is the Poisson negative log likelihood per hidden count (nats, without ``log y!``); bits per
        spike compare it with each unit's mean over the training windows.
        """
        totals = {scheme: torch.zeros(4, dtype=torch.float64) for scheme in self.masking.schemes}
        was_training = model.training
        model.eval()
        loader = DataLoader(self.windows, batch_sampler=self.batches, collate_fn=collate_spikes)
        offset = 0
        for batch in loader:
            batch = batch.to(device)
            for scheme, total in totals.items():
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    total += self._sums(model, batch, scheme, offset)
            offset += len(batch)
        model.train(was_training)
        return self._summary(totals)

    def _sums(self, model: MtM, batch: SpikeBatch, scheme: str, offset: int) -> Tensor:
        """Return loss of the model, loss of the mean, targets and spikes of one batch."""
        masked = mask_batch(batch, scheme, self.masking, seed=MASK_SEED, offset=offset)
        log_rates = model.forward_batch(batch, scheme, counts=masked.inputs, hidden=masked.hidden)
        null = self.mean_counts[batch.session[0]].to(batch.counts.device).log().expand_as(batch.counts)
        losses = [poisson_loss(f, batch.counts, masked.target_mask) for f in (log_rates, null)]
        spikes = (batch.counts * masked.target_mask).sum()
        return torch.stack([*losses, masked.target_mask.sum(), spikes]).double().cpu()

    def _summary(self, totals: Mapping[str, Tensor]) -> dict[str, float]:
        result = {}
        for scheme, total in totals.items():
            loss, null, n_targets, n_spikes = total.tolist()
            result[f"loss_{scheme}"] = loss / max(n_targets, 1.0)
            result[f"bits_per_spike_{scheme}"] = (null - loss) / (max(n_spikes, 1.0) * math.log(2.0))
        losses = [result[f"loss_{scheme}"] for scheme in totals]
        return {"loss": sum(losses) / len(losses), **result}
