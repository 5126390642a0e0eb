"""Train POYO of torch_brain on a recording of ours: where a rat is, from the spikes of its hippocampus.

POYO (Azabou et al., arXiv:2310.16046) reads single spikes of ``temporaldata.Data``. Run it with
``python examples/poyo_on_your_recording.py FILE.npz [steps]`` on spike times with positions beside them
(``pos_t_s``, ``pos_x_px``, ``pos_y_px``); it takes ``pip install pytorch_brain``.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import torch

from neurokern.datasets import TimeSeries, load_npz
from neurokern.datasets.bridges import interval_windows, to_temporaldata


def main(file: str, steps: int = 300) -> None:
    """Print the share of the variance of the position that POYO explains where it was not trained."""
    from temporaldata import Interval
    from torch_brain.data import collate
    from torch_brain.models import POYO
    from torch_brain.registry import MODALITY_REGISTRY

    torch.manual_seed(0)
    arrays = np.load(file)
    pixels = np.stack([arrays["pos_x_px"], arrays["pos_y_px"]], axis=1).astype(np.float32)
    position = TimeSeries.from_arrays(arrays["pos_t_s"], (pixels - pixels.mean(0)) / pixels.std())
    data = to_temporaldata(replace(load_npz(file), series={"cursor.pos": position}))
    data.config = {"readout": {"readout_id": "cursor_position_2d"}}

    model = POYO(
        sequence_length=4.0, readout_spec=MODALITY_REGISTRY["cursor_position_2d"], latent_step=0.5,
        num_latents_per_step=8, dim=64, depth=2, dim_head=32, self_heads=2, lin_dropout=0.1,
    )  # fmt: skip
    model.unit_emb.initialize_vocab(data.units.id.tolist())
    model.session_emb.initialize_vocab([data.session.id])

    moves = np.flatnonzero(np.diff(position.values, axis=0).any(axis=1))  # a rest follows the run
    start, stop = position.times[[0, moves[-1]]]
    middle = start + 0.8 * (stop - start)
    train, test = (interval_windows(Interval(*part), 4.0, 0.25) for part in ((start, middle), (middle, stop)))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    draw = np.random.default_rng(0)
    for _ in range(steps):
        batch = collate([model.tokenize(data.slice(*window)) for window in draw.choice(train, 16)])
        error = model(**batch["model_inputs"]) - batch["target_values"]
        loss = error[batch["model_inputs"]["output_mask"]].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.eval()
    batch = collate([model.tokenize(data.slice(*window)) for window in test[::16]])
    seen, mask = batch["target_values"], batch["model_inputs"]["output_mask"]
    with torch.no_grad():
        error = (model(**batch["model_inputs"]) - seen)[mask]
    share = error.square().mean(0).sum() / seen[mask].var(0).sum()
    print(f"{steps} steps: POYO explains {1 - share:.2f} of the variance of the position")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
