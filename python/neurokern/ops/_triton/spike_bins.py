"""What a bin is, in Triton: the rule of ``csrc/bin_spikes/bin_spikes_body.h``.

Edges are computed by the same operations as there and compared with; a quotient only says which one is near.
"""

from __future__ import annotations

import triton
import triton.language as tl

from neurokern.ops._spike_grid import FAR_SAMPLE

_FAR_SAMPLE = tl.constexpr(FAR_SAMPLE)
# So many bins from zero, rounding moves neither an edge nor a quotient by a quarter of a bin.
_SAFE_BINS = tl.constexpr(2.0**45)


@triton.jit
def as_double(bits):
    """Return the float64 of these bits: Triton takes Python's floats as float32."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def _plain_edge(k, start, edges, step, numerator, denominator, RATE: tl.constexpr):
    """Return the left edge of bin k before the tolerance: one rounded division or product, and one sum."""
    if edges is not None:
        edge = tl.load(edges + k)
    elif start.dtype == tl.int64:
        edge = start + (k * numerator + denominator - 1) // denominator
    elif RATE:
        edge = start + k.to(tl.float64) / as_double(step)
    else:
        edge = start + k.to(tl.float64) * as_double(step)
    return edge


@triton.jit
def _lowered(edge, tolerance):
    """Return the least time that reaches an edge."""
    if edge.dtype == tl.float64:
        edge -= as_double(tolerance)
    return edge


@triton.jit
def limits_of(start, edges, n_bins, step, tolerance, numerator, denominator, RATE: tl.constexpr,
              CLOSED_LAST: tl.constexpr):  # fmt: skip
    """Return the least time in the bins of the window at ``start``, and the limit for :func:`is_behind`."""
    none = n_bins.to(tl.int64) * 0
    first = _plain_edge(none, start, edges, step, numerator, denominator, RATE)
    last = _plain_edge(none + n_bins, start, edges, step, numerator, denominator, RATE)
    if not CLOSED_LAST:
        last = _lowered(last, tolerance)
    return _lowered(first, tolerance), last


@triton.jit
def is_behind(t, limit, CLOSED_LAST: tl.constexpr):
    """Does t lie behind all bins of a window?"""
    if CLOSED_LAST:
        behind = t > limit
    else:
        behind = t >= limit
    return behind


@triton.jit
def is_usable(start):
    if start.dtype == tl.float64:
        usable = start - start == 0  # finite
    else:
        usable = (start > -_FAR_SAMPLE) & (start < _FAR_SAMPLE)
    return usable


@triton.jit
def without_overflow(start):
    """Return the start of a window, cut so that its edges stay in 64 bits; the order of starts stays."""
    near = start
    if start.dtype == tl.int64:
        near = tl.minimum(tl.maximum(start, -_FAR_SAMPLE), _FAR_SAMPLE)
    return near


@triton.jit
def halvings_of(n):
    """Return the halvings after which a search among n has ended."""
    halvings = 0
    while n > 0:
        n = n // 2
        halvings += 1
    return halvings


@triton.jit
def _search_bin(t, start, edges, n_bins, step, tolerance, numerator, denominator, RATE: tl.constexpr):
    """Return the last bin whose edge t reaches."""
    low = tl.zeros_like(t).to(tl.int64)
    high = low + n_bins
    for _ in range(halvings_of(n_bins)):
        middle = (low + high) // 2
        reached = t >= _lowered(
            _plain_edge(middle, start, edges, step, numerator, denominator, RATE), tolerance
        )
        searching = high - low > 1
        low = tl.where(searching & reached, middle, low)
        high = tl.where(searching & ~reached, middle, high)
    return low


@triton.jit
def bins_of(t, start, edges, n_bins, step, rate, tolerance, numerator, denominator, RATE: tl.constexpr,
             CLOSED_LAST: tl.constexpr):  # fmt: skip
    """Return the bin of each time in the window at ``start``, and whether it has one (NaN has none)."""
    lowest, limit = limits_of(
        start, edges, n_bins, step, tolerance, numerator, denominator, RATE, CLOSED_LAST
    )
    inside = (t >= lowest) & ~is_behind(t, limit, CLOSED_LAST)
    if edges is not None:
        k = _search_bin(t, start, edges, n_bins, step, tolerance, numerator, denominator, RATE)
    elif start.dtype == tl.int64:
        parts = tl.where(inside, t - start, 0) * denominator  # of a sample; a bin has `numerator` of them
        guess = ((parts.to(tl.float64) + 0.5) * as_double(rate)).to(tl.int64)
        rest = parts - guess * numerator
        k = guess + (rest >= numerator).to(tl.int64) - (rest < 0).to(tl.int64)
    else:
        quotient = tl.where(inside, (t + as_double(tolerance) - start) * as_double(rate), 0.0)
        nearest = tl.minimum(tl.maximum((quotient + 0.5).to(tl.int64), 0), n_bins)
        edge = _plain_edge(nearest, start, edges, step, numerator, denominator, RATE)
        k = nearest - (t < _lowered(edge, tolerance)).to(tl.int64)
        from_zero = (tl.abs(t) + tl.abs(start) + as_double(tolerance)) * as_double(rate)
        far = inside & (from_zero >= _SAFE_BINS)
        if tl.max(far.to(tl.int32)) > 0:
            found = _search_bin(t, start, edges, n_bins, step, tolerance, numerator, denominator, RATE)
            k = tl.where(far, found, k)
    return tl.minimum(tl.maximum(k, 0), n_bins - 1), inside
