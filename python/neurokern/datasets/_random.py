"""Permutations that depend on their keys alone: the same in every version of numpy, for good."""

from __future__ import annotations

import numpy as np

__all__ = ["permutation"]


def permutation(n: int, *keys: int) -> np.ndarray:
    """Return the permutation of 0 to n - 1 that belongs to one to three integer keys: int64, shape (n,).

    It sorts raw Philox words, which numpy guarantees never to change; ``Generator.permutation`` may change.
    """
    low, high, counter = ([int(key) % 2**64 for key in keys] + [0, 0])[:3]
    generator = np.random.Philox(key=np.array([low, high], dtype=np.uint64), counter=[0, 0, counter, 0])
    words = generator.random_raw(n)
    return np.argsort(words, kind="stable")
