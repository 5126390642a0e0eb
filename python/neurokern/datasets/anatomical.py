"""Anatomical images, one an item: T1w, T2w, FLAIR, ..."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from neurokern.datasets.window_places import sorted_indices

if TYPE_CHECKING:
    from neurokern.datasets.bids_run import BIDSRun
    from neurokern.datasets.fmri_windows import FMRIExtractor

__all__ = ["AnatomicalImages"]

_NAMES = ("subject", "session", "acquisition", "space")


class AnatomicalImages(Dataset[dict[str, Any]]):
    """Images without time as a map-style dataset, for any DataLoader and number of workers.

    Parameters
    ----------
    runs : sequence of BIDSRun
        Images, as ``BIDSDataset(root, "anat")`` lists them.
    extractor : FMRIVoxelExtractor, FMRIParcelExtractor or FMRIVolumeExtractor
        What to take of an image: the voxels of a mask, means of parcels, or a volume, whole or cropped. It
        cannot clean, which takes time.

    Attributes
    ----------
    runs : list of BIDSRun
    feature_dim : int or (int, int, int)
        Size of an item's signal, by the first image.

    Raises
    ------
    ValueError
        If there are no images, or the extractor cleans; when an image with several volumes is read.

    Examples
    --------
    >>> from neurokern.extractors import FMRIVolumeExtractor
    >>> brains = BIDSDataset("ds000001", "anat").with_extractor(FMRIVolumeExtractor())  # doctest: +SKIP
    >>> brains[0]["signal"].shape  # doctest: +SKIP
    torch.Size([160, 192, 192])
    """

    def __init__(self, runs: Sequence[BIDSRun], extractor: FMRIExtractor) -> None:
        if isinstance(extractor, type) or not hasattr(extractor, "n_volumes"):
            kind = extractor.__name__ if isinstance(extractor, type) else type(extractor).__name__
            raise TypeError(
                "AnatomicalImages: extractor must be an object of neurokern.extractors for images, such as "
                f"FMRIVolumeExtractor(), got {kind}"
            )
        if getattr(extractor, "cleans", False):
            raise ValueError(
                "AnatomicalImages: extractor must not normalize, detrend, filter or remove confounds: these "
                "look along time, which an anatomical image has not"
            )
        if not runs:
            raise ValueError("AnatomicalImages: there are no images")
        self.runs, self.extractor = list(runs), extractor
        self._chosen = np.arange(len(self.runs))

    @property
    def feature_dim(self) -> int | tuple[int, ...]:
        """Voxels, parcels, or voxels along x, y and z."""
        return self.extractor.feature_dim(self.runs[int(self._chosen[0])])

    def spans(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Return the image of each item, and zeros: it has no seconds."""
        nothing = np.zeros(len(self._chosen))
        return self._chosen.astype(np.int64), nothing, nothing

    def select(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> AnatomicalImages:
        """Return the dataset of some of the images, in this dataset's order.

        Parameters
        ----------
        indices : sequence of int
            Numbers of items, each at most once.
        """
        part = copy.copy(self)
        part._chosen = self._chosen[sorted_indices("AnatomicalImages.select", indices, len(self))]
        return part

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._chosen)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Return an image.

        Returns
        -------
        item : dict
            ``signal`` (voxels,), (parcels,) or (x, y, z); ``subject``, ``session``, ``acquisition``,
            ``space`` str, empty where a file's name has none.
        """
        run = self.runs[int(self._chosen[i])]
        n = self.extractor.n_volumes(run)
        if n != 1:
            raise ValueError(f"{run.path}: an anatomical image must have one volume, it has {n}")
        names = {name: run.entities.get(name, "") for name in _NAMES}
        return {"signal": self.extractor.extract(run, 0, 1)[0], **names}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Return images for a batch; they must be of one shape."""
        items = [self[i] for i in indices]
        shapes = sorted({tuple(item["signal"].shape) for item in items})
        if len(shapes) > 1:
            raise ValueError(
                f"AnatomicalImages: a batch must be of images of one shape, got {shapes}; choose images of "
                "one space (space=), a mask or crop, or batches of one image"
            )
        return items

    @property
    def dtype(self) -> torch.dtype:
        """Type of the signals."""
        return self.extractor.dtype
