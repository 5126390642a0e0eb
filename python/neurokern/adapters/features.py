"""Features of windows to decode from: a frozen model's, and the raw counts that they have to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neurokern.datasets import BinnedSession

if TYPE_CHECKING:
    from neurokern.models import MtM

_CHUNK_ELEMENTS = 1 << 22  # counts given to a model at a time


def count_features(session: BinnedSession) -> dict[str, Tensor]:
    """Raw counts of each window as features.

    Returns
    -------
    features : dict of str to float32 tensor
        "raw counts": spikes of each unit in the window, ``(windows, units)``. "raw binned counts": spikes
        in each bin, ``(windows, bins * units)``.
    """
    counts = torch.from_numpy(session.read(range(session.n_windows)))
    return {"raw counts": counts.sum(1), "raw binned counts": counts.flatten(1)}


@torch.inference_mode()
def model_features(
    model: MtM, session: BinnedSession, *, scheme: str = "neuron", name: str | None = None
) -> dict[str, Tensor]:
    """Features that a frozen model computes from whole windows, with nothing hidden.

    Parameters
    ----------
    model : MtM
        Knows the session, for instance after ``adapt_session``. Runs in evaluation mode; its mode is put
        back.
    session : BinnedSession
    scheme : str, default "neuron"
        Masking scheme that the model is told: the published choice decoding tells it "neuron".
    name : str, optional
        Name under which the model knows the session; ``session.session`` by default.

    Returns
    -------
    features : dict of str to float32 tensor on the CPU
        "MtM states": the trunk's states averaged over bins, ``(windows, hidden)``. "MtM binned states":
        states of all bins, ``(windows, bins * hidden)``. "MtM rates": log-rates averaged over bins,
        ``(windows, units)``. "MtM factors", if the model has factors: they, averaged over bins, ``(windows,
        stitch_size)``; for few labeled windows the best of the four so far.
    """
    device = next(model.parameters()).device
    known_as = name or session.session
    step = max(1, _CHUNK_ELEMENTS // max(1, session.n_bins * session.n_units))
    has_factors = model.config.read_in == "factors"
    states, rates, factors = [], [], []
    was_training = model.training
    model.eval()
    try:
        for first in range(0, session.n_windows, step):
            rows = range(first, min(first + step, session.n_windows))
            counts = torch.from_numpy(session.read(rows)).to(device)
            states.append(model.embed(counts, known_as, scheme).float().cpu())
            rates.append(model(counts, known_as, scheme).float().mean(1).cpu())
            if has_factors:
                factors.append(model.expected_factors(counts, known_as, scheme).float().mean(1).cpu())
    finally:
        model.train(was_training)
    bins = torch.cat(states)
    features = {
        "MtM states": bins.mean(1),
        "MtM binned states": bins.flatten(1),
        "MtM rates": torch.cat(rates),
    }
    return features | {"MtM factors": torch.cat(factors)} if has_factors else features
