"""From the events of a BIDS folder to the features of a voxelwise encoding model, and the command to fit it.

Run it with ``python examples/design_from_events.py FOLDER OUT [ENTITY=VALUE ...]``. For each run a file of
features is written, one column per condition: the share of each volume's time that the condition fills. The
blood's response is left to the delays of the model. A mask of the bright voxels is written beside them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from neurokern import decode_nifti
from neurokern.datasets import BIDSDataset, bright_mask, event_regressors
from neurokern.ops import NiftiFile


def shares(events: pd.DataFrame, conditions: list[str], n_volumes: int, tr: float) -> np.ndarray:
    """Return the share of each volume's time that each condition fills, (volumes, conditions)."""
    of_condition = events["trial_type"].to_numpy()[:, None] == np.array(conditions, dtype=object)
    return event_regressors(
        events["onset"], events["duration"], of_condition, n_volumes=n_volumes, tr=tr, response=None
    ).astype(np.float32)


def main(root: str, out: str, *entities: str) -> None:
    """Write features and a mask; print the command."""
    import nibabel

    brain = BIDSDataset(root, **dict(pair.split("=", 1) for pair in entities))
    runs = [brain.run(i) for i in range(len(brain))]
    names = {name for run in runs for name in run.events["trial_type"].dropna()}
    conditions = sorted(names - {"rest"})
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    total, files = 0.0, []
    for index, run in enumerate(runs):
        header = NiftiFile(run.path).header
        files.append(folder / f"x{index + 1:02d}.npy")
        np.save(files[-1], shares(run.events, conditions, header.n_volumes, run.repetition_time))
        total = total + np.asarray(decode_nifti(run.path)).mean(0)
    mask = bright_mask(total / len(runs))
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8), header.affine), folder / "mask.nii.gz")
    print(f"{len(runs)} runs, {mask.sum():,} voxels, conditions: {', '.join(conditions)}")
    x, y = " ".join(map(str, files)), " ".join(str(run.path) for run in runs)
    print(f"neurokern encode --x {x} --y {y} --mask {folder / 'mask.nii.gz'} --detrend")


if __name__ == "__main__":
    main(*sys.argv[1:])
