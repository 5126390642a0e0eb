"""Philox 4x32-10 in numpy: the same words as ``csrc/common/philox.h``.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox4x32(
    key: int, c0: ArrayLike, c1: ArrayLike, c2: ArrayLike, c3: ArrayLike
) -> tuple[NDArray[np.uint32], ...]:
    """Return the four words of each counter.

    Parameters
    ----------
    key : int
        64-bit key.
    c0, c1, c2, c3 : array_like of int in [0, 2**32)
        Counter words; they broadcast.

    Returns
    -------
    words : tuple of four arrays, uint32
    """
    w0, w1, w2, w3 = (np.asarray(c).astype(np.uint64) for c in (c0, c1, c2, c3))
    k0, k1 = key & 0xFFFFFFFF, key >> 32 & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * w0, _MULTIPLIERS[1] * w2
        w0, w1 = (p1 >> _SHIFT) ^ w1 ^ np.uint64(k0), p1 & _LOW
        w2, w3 = (p0 >> _SHIFT) ^ w3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return tuple(w.astype(np.uint32) for w in np.broadcast_arrays(w0, w1, w2, w3))


def draw_words(
    seed: int, samples: NDArray[np.int64], stage: int, n_indices: int, n_bins: int | None = None
) -> NDArray[np.uint32]:
    """Return the word of each (sample, index), or of each (sample, bin, index).

    Parameters
    ----------
    seed : int
        Key of the generator.
    samples : array of shape (n_samples,), int64
        Numbers of the samples, below 2**56.
    stage : int
        What the draw is for, below 256; words of different stages are independent.
    n_indices : int
        Number of units (or of bins, where bins are drawn).
    n_bins : int, optional
        Draw for every bin. Without it the bin's word of the counter is 0.

    Returns
    -------
    words : array of shape (n_samples, n_indices) or (n_samples, n_bins, n_indices), uint32
    """
    quads = np.arange((n_indices + 3) // 4)
    bins = np.arange(1 if n_bins is None else n_bins)[:, None]
    number = samples[:, None, None]
    words = philox4x32(seed, quads, bins, number & 0xFFFFFFFF, (number >> 32) << 8 | stage)
    drawn = np.stack(words, axis=-1).reshape(len(samples), len(bins), -1)[..., :n_indices]
    return drawn[:, 0] if n_bins is None else drawn


def threshold(probability: float) -> int:
    """Return ``floor(probability * 2**32)``: a word below it is a hit."""
    return math.floor(probability * 2**32)
