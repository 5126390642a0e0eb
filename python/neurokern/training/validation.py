"""Validation on fixed masks: every scheme, the same hidden counts each time, so that losses compare."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from neurokern.datasets import SessionBatchSampler, SpikeBatch, SpikeWindows, collate_spikes
from neurokern.models import MtM, poisson_loss
from neurokern.models.masking import Masking, mask_batch
from neurokern.training.distributed import Ranks

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
    def run(
        self,
        model: MtM,
        device: torch.device,
        precision: Callable[[], AbstractContextManager[object]] = nullcontext,
        ranks: Ranks | None = None,
    ) -> dict[str, float]:
        """Return the loss and the bits per spike of each scheme, and ``loss``, the mean over schemes.

        A loss is the Poisson negative log likelihood per hidden count (nats, without ``log y!``); bits per
        spike compare it with each unit's mean over the training windows. The masks belong to session, scheme
        and window, whatever other sessions there are. Several processes take batches in turn; the sums are
        then added up in the order of the batches, so that their number does not matter.
        """
        rank, size = (0, 1) if ranks is None else (ranks.rank, ranks.size)
        sums = torch.zeros(len(self.batches), len(self.masking.schemes), 4, dtype=torch.float64)
        own = list(range(rank, len(self.batches), size))
        # Every process runs as many batches: weights that are spread are gathered by all at once.
        extra = [0] * (-(-len(self.batches) // size) - len(own))
        was_training = model.training
        model.eval()
        todo = [self.batches[number] for number in own + extra]
        loader = DataLoader(self.windows, batch_sampler=todo, collate_fn=collate_spikes)
        for place, batch in enumerate(loader):
            for number, scheme in enumerate(self.masking.schemes):
                with precision():
                    counted = self._sums(model, batch.to(device), scheme)
                if place < len(own):
                    sums[own[place], number] = counted
        model.train(was_training)
        totals = (sums if ranks is None else ranks.add_up(sums)).sum(dim=0)
        return self._summary(dict(zip(self.masking.schemes, totals, strict=True)))

    def _sums(self, model: MtM, batch: SpikeBatch, scheme: str) -> Tensor:
        """Return loss of the model, loss of the mean, targets and spikes of one batch."""
        session = batch.session[0]
        seed = MASK_SEED + zlib.crc32(f"{scheme} {session}".encode())
        masked = mask_batch(batch, scheme, self.masking, seed=seed, offset=int(batch.window[0]))
        log_rates = model.forward_batch(batch, scheme, counts=masked.inputs, hidden=masked.hidden)
        null = self.mean_counts[session].to(batch.counts.device).log().expand_as(batch.counts)
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
