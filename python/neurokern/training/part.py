"""A part of a batch is masked as it would be in the whole batch, whatever process it is in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neurokern.datasets import SpikeBatch, SpikeWindows
from neurokern.models.losses import count_targets
from neurokern.models.masking import Masks, draw_masks, draw_scheme, draw_schemes
from neurokern.training.batches import Part
from neurokern.training.config import TrainingConfig


@dataclass(frozen=True, eq=False, slots=True)
class MaskedPart:
    """A part with its windows and its masks, ready to train on.

    Attributes
    ----------
    part : Part
    batch : SpikeBatch
        The windows, on the device of the model; nothing is hidden in them.
    scheme : str or list of str
        One for all windows, or one for each.
    masks : Masks
    n_targets : tensor of shape ()
        In the part's whole batch.
    """

    part: Part
    batch: SpikeBatch
    scheme: str | list[str]
    masks: Masks
    n_targets: Tensor


def mask_part(part: Part, batch: SpikeBatch, windows: SpikeWindows, config: TrainingConfig) -> MaskedPart:
    """Draw the masks of a part.

    What is drawn for a batch as a whole (its region, its ratio) is the same for all of its parts: the masks
    of the other rows are drawn as well and left out.
    """
    whole = batch
    if not part.is_whole:
        whole = windows.without_counts(part.batch).to(batch.counts.device)
    offset = part.number * config.batch_size
    scheme: str | list[str]
    if config.masking.scheme_choice == "batch":
        scheme = draw_scheme(config.masking.schemes, seed=config.seed, step=part.number)
    else:
        scheme = draw_schemes(config.masking.schemes, len(whole), seed=config.seed, offset=offset)
    masks = draw_masks(whole, scheme, config.masking, seed=config.seed, offset=offset)
    n_targets = count_targets(masks.target, whole.counts.shape)
    if not part.is_whole:
        rows = slice(part.first, part.stop)
        scheme = scheme if isinstance(scheme, str) else scheme[rows]
        masks = masks.select(rows, n_units=batch.counts.shape[2])
    return MaskedPart(part, batch, scheme, masks, n_targets)


def seed_dropout(seed: int, step: int, part: Part, device: torch.device) -> None:
    """Seed torch for a pass: a function of the seed, the step and its first part."""
    place = (part.place, part.first)
    entropy = np.random.SeedSequence((seed, step, *place) if any(place) else (seed, step))
    number = int(entropy.generate_state(1, np.uint64)[0])
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)  # torch.manual_seed looks for devices, which takes longer
    else:
        torch.manual_seed(number)
