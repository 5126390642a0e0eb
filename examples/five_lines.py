"""Structure first, extraction second: five lines from a BIDS folder to batches, then regions for voxels.

Run it with ``python examples/five_lines.py [FOLDER]``: on a folder with runs of task "oneback", or without
one on a folder of noise that is made here (by nibabel) to show shapes alone. ``mask.nii.gz`` and
``atlas.nii.gz`` lie beside the folder's subjects.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

N_SUBJECTS, N_VOLUMES, SHAPE = 20, 24, (8, 8, 6)


def make_folder(root: Path) -> None:
    """Write noise of one run for each subject, a mask of 150 voxels and an atlas of 3 regions."""
    import nibabel

    rng = np.random.default_rng(0)
    inside = np.zeros(SHAPE, np.uint8)
    inside[1:6, 1:6, :] = 1
    regions = np.where(inside, np.arange(SHAPE[1])[:, None] // 2 + 1, 0).astype(np.int16)
    for name, values in (("mask", inside), ("atlas", regions)):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), root / f"{name}.nii.gz")
    (root / "task-oneback_bold.json").write_text(json.dumps({"RepetitionTime": 2.0}))
    for subject in range(1, N_SUBJECTS + 1):
        func = root / f"sub-{subject:02d}/func"
        func.mkdir(parents=True)
        values = rng.normal(1000, 10, (*SHAPE, N_VOLUMES)).astype(np.float32)
        image = nibabel.Nifti1Image(values, np.eye(4))
        nibabel.save(image, func / f"sub-{subject:02d}_task-oneback_bold.nii.gz")


def main(root: str) -> None:
    """Show what comes out."""
    os.chdir(root)
    # fmt: off
    from neurokern.datasets import BIDSDataset
    from neurokern.extractors import fMRIVoxelExtractor

    brain = BIDSDataset(root_dir=root, modality="func", task="oneback")
    ready = brain.with_extractor(fMRIVoxelExtractor(mask="mask.nii.gz", normalize=True, detrend=True))
    for batch in DataLoader(ready, batch_size=16, shuffle=True, num_workers=4):
        print("voxels", tuple(batch["signal"].shape))
    # fmt: on

    # Means of regions instead: another extractor, and nothing else.
    from neurokern.extractors import FMRIParcelExtractor

    ready = brain.with_extractor(FMRIParcelExtractor("atlas.nii.gz", normalize=True, detrend=True))
    for batch in DataLoader(ready, batch_size=16, shuffle=True, num_workers=4):
        print("regions", tuple(batch["signal"].shape))


if __name__ == "__main__":
    if sys.argv[1:]:
        main(str(Path(sys.argv[1]).absolute()))
    else:
        with tempfile.TemporaryDirectory() as folder:
            make_folder(Path(folder))
            main(folder)
