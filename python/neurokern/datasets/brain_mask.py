"""A mask for those who have none: the bright part of a mean image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bright_mask"]

_BINS = 256
_CLIP = 98.0  # percentile: eyes and vessels are far brighter than the brain


def bright_mask(mean: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the voxels brighter than Otsu's threshold [1]_ on a mean image.

    The threshold splits the histogram of the positive values, those above their 98th percentile counted as
    it, into the two classes that differ most. It finds the head where the background is dark, as in
    echo-planar images; it does not know skull from brain. For results, use a mask of your preprocessing.

    Parameters
    ----------
    mean : array of shape (x, y, z)
        Mean over volumes. NaN and infinite voxels are outside.

    Returns
    -------
    mask : bool array of shape (x, y, z)
        Of an image with a single value, all voxels that have it.

    Raises
    ------
    ValueError
        If no voxel is above 0.

    References
    ----------
    .. [1] Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. Syst. Man Cybern. 9
       (1979), 62-66.

    Examples
    --------
    >>> bright_mask(np.array([[[1.0, 2.0, 90.0, 100.0]]])).ravel().tolist()
    [False, False, True, True]
    """
    values = np.nan_to_num(np.asarray(mean, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    positive = values[values > 0]
    if not positive.size:
        raise ValueError(
            "bright_mask: mean must have voxels above 0, got none; take the mean before the image was "
            "centered, or a mask of your own"
        )
    top = np.percentile(positive, _CLIP, method="nearest")
    counts, edges = np.histogram(np.minimum(positive, top), bins=_BINS, range=(0.0, top))
    centers = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    sum_below = np.cumsum(counts * centers)
    above, sum_above = below[-1] - below, sum_below[-1] - sum_below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sum_below / below - sum_above / above) ** 2
    if not np.isfinite(between).any():
        return values > 0
    return values > edges[1 + int(np.nanargmax(between))]
