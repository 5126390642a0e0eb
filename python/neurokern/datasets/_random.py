"""Permutations that depend on their keys alone: the same in every version of numpy, for good."""

from __future__ import annotations

import numpy as np

__all__ = ["permutation"]


def permutation(n: int, *keys: int) -> np.ndarray:
    """Return the permutation of 0 to n - 1 that belongs to one to three integer keys: int64, shape (n,).

    It sorts raw Philox words, which numpy guarantees never to change; ``Generator.permutation`` may change.
    """
    low, high, counter = ([int(key) % 2**64 for key in keys] + [0, 0])[:3]
    # Arrays of uint64: lists with numbers beyond 2**63 would pass through float64.
    state = {"key": [low, high], "counter": [0, 0, counter, 0]}
    generator = np.random.Philox(**{name: np.array(words, dtype=np.uint64) for name, words in state.items()})
    words = generator.random_raw(n)
    return np.argsort(words, kind="stable")
