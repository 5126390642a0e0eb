"""Permutations that depend on their keys alone: the same in every version of numpy, for good."""

from __future__ import annotations

import numpy as np

__all__ = ["permutation"]


def permutation(n: int, *keys: int) -> np.ndarray:
    """Return the permutation of 0 to n - 1 that belongs to one to three integer keys: int64, shape (n,).

    Sorting raw Philox words keeps to what numpy guarantees never to change; its ``Generator.permutation``
    may.
    """
    low, high, counter = ([int(key) % 2**64 for key in keys] + [0, 0])[:3]
    words = np.random.Philox(
        key=np.array([low, high], dtype=np.uint64), counter=[0, 0, counter, 0]
    ).random_raw(n)
    return np.argsort(words, kind="stable")
