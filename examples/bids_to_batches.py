"""From a BIDS folder to batches of voxels in five lines; then parcels instead, by changing one.

Run it with ``python examples/bids_to_batches.py FOLDER`` on a folder with fMRI runs. The mask here is
everything that is bright in the first run; with a mask of your own, give its path.
"""

from __future__ import annotations

import sys

import numpy as np
from torch.utils.data import DataLoader

from neurokern.datasets import BIDSDataset
from neurokern.extractors import FMRIParcelExtractor, fMRIVoxelExtractor
from neurokern.ops import NiftiFile, decode_nifti


def main(root: str) -> None:
    """Show what comes out."""
    first = NiftiFile(BIDSDataset(root).run(0).path)
    mean = np.asarray(decode_nifti(first)).mean(0)
    mask = mean > mean.mean()

    brain = BIDSDataset(root_dir=root, modality="func")
    ready = brain.with_extractor(fMRIVoxelExtractor(mask=mask, normalize=True, detrend=True), length=16)
    for batch in DataLoader(ready, batch_size=4, shuffle=True, num_workers=2):
        print("voxels", tuple(batch["signal"].shape), "conditions", ready.conditions[:3])
        break

    slabs = np.where(mask, np.arange(mask.shape[2]) + 1, 0)  # any label image: here a parcel for each slice
    parcels = brain.with_extractor(FMRIParcelExtractor(slabs, normalize=True, detrend=True), length=16)
    print("parcels", tuple(parcels[0]["signal"].shape))


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["."])
