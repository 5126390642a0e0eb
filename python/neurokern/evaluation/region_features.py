"""Features of single regions, to see what can be decoded from where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neurokern.datasets import BinnedSession

if TYPE_CHECKING:
    from neurokern.models import MtM

__all__ = ["region_features"]


@torch.inference_mode()
def region_features(
    session: BinnedSession, model: MtM | None = None, *, min_units: int = 1, name: str | None = None
) -> dict[str, Tensor]:
    """Features of each region alone, to see what can be decoded from where.

    Parameters
    ----------
    session : BinnedSession
    model : MtM, optional
        With a model: the log-rates, averaged over bins, that it predicts for the region's units when it sees
        nothing but them, told "intra-region" (as published). Without: the region's spike counts.
    min_units : int, default 1
        Regions with fewer units are left out.
    name : str, optional
        Under which the model knows the session; ``session.session`` by default.

    Returns
    -------
    features : dict of region to float32 tensor of shape (windows, units of the region)
        For :func:`decode_labels`. Units of unknown region have none.

    Raises
    ------
    ValueError
        If no region is left.
    """
    numbers, names = session.region_index
    counts = torch.from_numpy(session.read(range(session.n_windows)))
    features = {}
    for number, region in enumerate(names):
        inside = torch.from_numpy(numbers == number)
        if int(inside.sum()) < min_units:
            continue
        if model is None:
            features[region] = counts[:, :, inside].sum(1)
            continue
        hidden = ~inside[None, None]
        device = next(model.parameters()).device
        seen = counts.masked_fill(hidden, 0).to(device)
        rates = model.predict_rates(seen, name or session.session, "intra-region", hidden.to(device))
        features[region] = rates[:, :, inside.to(device)].log().mean(1).cpu()
    if not features:
        raise ValueError(
            f"region_features: session {session.session!r} must have a region of at least {min_units} units, "
            f"got {list(names) or 'no region'}"
        )
    return features
