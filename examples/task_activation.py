"""Where does a task drive the brain? A plain general linear model on cleaned voxels of a BIDS folder.

Run it with ``python examples/task_activation.py FOLDER [TR ...]``; further TRs show what a wrong one costs.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from neurokern import decode_nifti
from neurokern.datasets import BIDSDataset, bright_mask, event_regressors
from neurokern.extractors import FMRIVoxelExtractor
from neurokern.ops import NiftiFile


def expected_signal(events: pd.DataFrame, n_volumes: int, tr: float) -> np.ndarray:
    """Return what any event adds to a volume: boxes convolved with the response, at the volumes' middles."""
    return event_regressors(events["onset"], events["duration"], n_volumes=n_volumes, tr=tr)[:, 0]


def t_values(signal: np.ndarray, regressor: np.ndarray) -> np.ndarray:
    """Return a t value for each voxel of ``signal`` (trs, voxels), with a mean and a slope in the model.

    The signals have lost mean and slope; the regressor loses them here, which gives the same t as one model
    of all three (Frisch-Waugh-Lovell). Autocorrelation is not modeled: t values are too large by some.
    """
    time = np.arange(len(regressor))
    regressor = regressor - np.polyval(np.polyfit(time, regressor, 1), time)
    size = np.linalg.norm(signal, axis=0) * np.linalg.norm(regressor)
    r = (regressor @ signal) / np.where(size > 0, size, np.inf)
    return r * np.sqrt((len(regressor) - 3) / (1 - r**2))


def main(root: str, *other_trs: str) -> None:
    """Print the largest t, and where it lies, for the sidecar's TR and for others."""
    brain = BIDSDataset(root)
    run = brain.run(0)
    header = NiftiFile(run.path).header
    mask = bright_mask(np.asarray(decode_nifti(run.path)).mean(0))
    item = brain.with_extractor(FMRIVoxelExtractor(mask, detrend=True))[0]
    signal = item["signal"].double().numpy()
    place = (
        np.argwhere(mask) @ header.affine[:3, :3].T + header.affine[:3, 3]
    )  # mm: right, anterior, superior
    behind = place[:, 1] < place[:, 1].min() + np.ptp(place[:, 1]) / 3
    print(f"{len(run.events)} events, {len(signal)} volumes, {mask.sum():,} voxels above Otsu's threshold")
    print("| TR (s) | max t | at x, y, z (mm) | voxels with t > 10 | of them in the posterior third |")
    print("|---|---|---|---|---|")
    for tr in (run.repetition_time, *map(float, other_trs)):
        t = t_values(signal, expected_signal(run.events, len(signal), tr))
        x, y, z = place[t.argmax()]
        active = t > 10
        share = f"{(active & behind).sum() / active.sum():.0%}" if active.any() else "–"
        print(f"| {tr:g} | {t.max():.1f} | {x:.0f}, {y:.0f}, {z:.0f} | {active.sum()} | {share} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
