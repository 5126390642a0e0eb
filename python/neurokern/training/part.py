"""A part of a batch is masked as it would be in the whole batch, whatever process it is in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neurokern.datasets import SpikeBatch
from neurokern.models.masking import MaskedWindows, draw_scheme, draw_schemes, mask_batch
from neurokern.training.batches import Part
from neurokern.training.config import TrainingConfig


def scheme_of(part: Part, config: TrainingConfig) -> str | list[str]:
    """Return the masking scheme of a part's batch, or of each of the part's windows."""
    schemes, seed = config.masking.schemes, config.seed
    if config.masking.scheme_choice == "batch":
        return draw_scheme(schemes, seed=seed, step=part.number)
    offset = part.number * config.batch_size + part.first
    return draw_schemes(schemes, len(part.items), seed=seed, offset=offset)


def mask_part(
    batch: SpikeBatch, part: Part, scheme: str | list[str], config: TrainingConfig
) -> tuple[MaskedWindows, Tensor]:
    """Mask a part; returns the masked windows and the number of targets in the part's whole batch.

    What is drawn for a batch as a whole (its region, its ratio) is the same for all of its parts: the masks
    of the other rows are drawn as well and left out.
    """
    offset = part.number * config.batch_size
    if part.is_whole:
        masked = mask_batch(batch, scheme, config.masking, seed=config.seed, offset=offset)
        return masked, masked.target_mask.sum()
    if not isinstance(scheme, str):
        scheme = draw_schemes(config.masking.schemes, part.n_rows, seed=config.seed, offset=offset)
    masked = mask_batch(_whole(batch, part.n_rows), scheme, config.masking, seed=config.seed, offset=offset)
    rows = slice(part.first, part.first + len(batch))
    hidden = masked.hidden[rows]
    own = MaskedWindows(batch.counts.masked_fill(hidden, 0.0), masked.target_mask[rows], hidden)
    return own, masked.target_mask.sum()


def _whole(batch: SpikeBatch, n_rows: int) -> SpikeBatch:
    """Return a batch of so many windows of the same session, without their counts."""
    return SpikeBatch(
        counts=batch.counts.new_zeros(1, 1, 1).expand(n_rows, *batch.counts.shape[1:]),
        n_units=batch.n_units[:1].expand(n_rows),
        regions=batch.regions[:1].expand(n_rows, -1),
        session=batch.session[:1] * n_rows,
        session_index=batch.session_index[:1].expand(n_rows),
        window=batch.window[:1].expand(n_rows),
    )


def seed_dropout(seed: int, step: int, part: Part) -> None:
    """Seed torch for a pass: a function of the seed, the step and the place in it."""
    place = (part.place, part.first)
    entropy = np.random.SeedSequence((seed, step, *place) if any(place) else (seed, step))
    torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))
