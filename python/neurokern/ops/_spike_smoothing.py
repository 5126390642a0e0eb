"""Smoothing of :func:`neurokern.ops.bin_spikes`: its arguments, its weights, and its definition in torch."""

from __future__ import annotations

import functools
import math

import numpy as np

from neurokern._check import check_choice, check_positive
from neurokern.ops import _library
from neurokern.ops._spike_grid import COUNT_TYPES

torch = _library.torch

SMOOTHINGS = {None: 0, "gaussian": 1, "exponential": 2}  # codes of csrc/bin_spikes/bin_spikes.h
TRUNCATE = 4.0  # sigmas, as in scipy.ndimage
WIDEST = 2**18  # bins; a decay slower than that is not told from none in float32
FADED = 2.0**-100  # kFaded of csrc/bin_spikes/bin_spikes_body.h
FLOAT_LIMITS = {"float16": 65504, "bfloat16": 2**24, "float32": 2**24, "float64": 2**24}


def check_smoothing(
    smoothing: str | None, width: float | None, bin_size: float | None, dtype: str
) -> tuple[str | None, float]:
    """Return kind and width in seconds, 0 for none."""
    if smoothing is None:
        if width is not None:
            raise ValueError(
                f"bin_spikes: smoothing_width must be left out without smoothing, got {width!r}; "
                "pass smoothing='gaussian' or 'exponential'"
            )
        return None, 0.0
    check_choice("bin_spikes", "smoothing", smoothing, ("gaussian", "exponential"))
    if width is None:
        raise ValueError(
            f"bin_spikes: smoothing_width must be given, in seconds, for {smoothing!r} smoothing"
        )
    width = check_positive("bin_spikes", "smoothing_width", width)
    if bin_size is None:
        raise ValueError("bin_spikes: smoothing must come with bin_size; bins of given edges differ in width")
    if width / bin_size > WIDEST:
        raise ValueError(
            f"bin_spikes: smoothing_width must be at most 2**18 bins, got {width:g} s for {bin_size:g} s bins"
        )
    if dtype not in FLOAT_LIMITS:
        raise ValueError(
            f"bin_spikes: dtype must be float16, bfloat16, float32 or float64 with smoothing, got {dtype}"
        )
    return smoothing, width


def largest_count(count_type: str, smoothing: str | None) -> int:
    """Return the largest count taken as it is: smoothing reads counts in float32, whatever it writes."""
    return COUNT_TYPES[count_type][1] if smoothing is None else FLOAT_LIMITS[count_type]


@functools.lru_cache(maxsize=16)
def smoothing_weights(smoothing: str, width: float, bin_size: float) -> np.ndarray:
    """Return the float32 weights that kernels read.

    "gaussian": centre, then outward; the whole kernel sums to 1. "exponential": ``a`` and ``1 - a``, the
    second as float32 has it, so that a constant rate keeps its level.
    """
    if smoothing == "exponential":
        decay = np.float32(math.exp(-bin_size / width))
        weights = np.array([decay, np.float32(1) - decay])
    else:
        sigma = width / bin_size
        radius = int(TRUNCATE * sigma + 0.5)
        half = [math.exp(-0.5 * (k / sigma) ** 2) if k else 1.0 for k in range(radius + 1)]
        total = math.fsum(half) + math.fsum(half[1:])
        weights = np.array([weight / total for weight in half], np.float32)
    weights.flags.writeable = False
    return weights


def smooth_reference(counts: torch.Tensor, smoothing: str, width: float, bin_size: float) -> torch.Tensor:
    """Define smoothing in plain torch: float32, one rounding per product and sum, in this order.

    Parameters
    ----------
    counts : tensor of shape (n_windows, n_bins, n_units), float32
    """
    weights = smoothing_weights(smoothing, width, bin_size).tolist()
    n_bins = counts.shape[1]
    if smoothing == "exponential":
        smoothed = torch.empty_like(counts)
        last = torch.zeros_like(counts[:, 0]) if n_bins else None
        for b in range(n_bins):
            last = weights[0] * last + weights[1] * counts[:, b]
            last = torch.where(last < FADED, 0.0, last)
            smoothed[:, b] = last
        return smoothed
    smoothed = weights[0] * counts
    for k in range(1, min(len(weights), n_bins)):
        neighbours = torch.zeros_like(counts)
        neighbours[:, k:] += counts[:, :-k]
        neighbours[:, :-k] += counts[:, k:]
        smoothed += weights[k] * neighbours
    return smoothed
