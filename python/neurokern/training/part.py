"""A part of a batch is masked as it would be in the whole batch, whatever process it is in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neurokern.datasets import SpikeBatch
from neurokern.models.losses import count_targets
from neurokern.models.masking import Masks, draw_masks, draw_scheme, draw_schemes
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
) -> tuple[Masks, Tensor]:
    """Draw the masks of a part; returns them and the number of targets in the part's whole batch.

    What is drawn for a batch as a whole (its region, its ratio) is the same for all of its parts: the masks
    of the other rows are drawn as well and left out.
    """
    offset = part.number * config.batch_size
    if not part.is_whole:
        batch = _whole(batch, part.n_rows)
        if not isinstance(scheme, str):
            scheme = draw_schemes(config.masking.schemes, part.n_rows, seed=config.seed, offset=offset)
    masks = draw_masks(batch, scheme, config.masking, seed=config.seed, offset=offset)
    n_targets = count_targets(masks.target, batch.counts.shape)
    return masks if part.is_whole else masks.rows(part.first, part.first + len(part.items)), n_targets


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


def seed_dropout(seed: int, step: int, part: Part, device: torch.device) -> None:
    """Seed torch for a pass: a function of the seed, the step and the place in it."""
    place = (part.place, part.first)
    entropy = np.random.SeedSequence((seed, step, *place) if any(place) else (seed, step))
    number = int(entropy.generate_state(1, np.uint64)[0])
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)  # torch.manual_seed looks for devices, which takes longer
    else:
        torch.manual_seed(number)
