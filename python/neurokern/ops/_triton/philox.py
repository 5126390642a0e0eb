"""Philox 4x32-10 in Triton: the same words as ``csrc/common/philox.h``."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def philox4x32(key, c0, c1, c2, c3):
    """Return the four words of each counter; uint32 words, a uint64 key; they broadcast."""
    low, high = key & 0xFFFFFFFF, key >> 32
    for turn in tl.static_range(10):
        p0, p1 = c0.to(tl.uint64) * 0xD2511F53, c2.to(tl.uint64) * 0xCD9E8D57
        k0 = (low + turn * 0x9E3779B9).to(tl.uint32)
        k1 = (high + turn * 0xBB67AE85).to(tl.uint32)
        c0, c1 = (p1 >> 32).to(tl.uint32) ^ c1 ^ k0, p1.to(tl.uint32)
        c2, c3 = (p0 >> 32).to(tl.uint32) ^ c3 ^ k1, p0.to(tl.uint32)
    return c0, c1, c2, c3


@triton.jit
def draw_quads(seed, sample, stage: tl.constexpr, quads, bins):
    """Return the four words of each quad of indices: those of indices ``4 * quads`` to ``4 * quads + 3``."""
    c3 = (sample >> 32 << 8 | stage).to(tl.uint32)
    return philox4x32(seed, quads.to(tl.uint32), bins.to(tl.uint32), sample.to(tl.uint32), c3)


@triton.jit
def draw_words(seed, sample, stage: tl.constexpr, quads, bins):
    """Return the words of single indices, four for each entry of the last axis of ``quads``."""
    w0, w1, w2, w3 = draw_quads(seed, sample, stage, quads, bins)
    return tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
