// What a bin is: the rule that every device shares. Overloads take double seconds or int64 samples.
#pragma once

#include <cstdint>
#include <cstring>

#include "bin_spikes/bin_spikes.h"
#include "common/host_device.h"

namespace neurokern {

constexpr std::int64_t kFarSample = std::int64_t{1}
                                    << 61;  // |start| beyond it: an empty window, not an overflow

// Left edge of bin k, before the tolerance. One rounded division: k / 50 and sample / 30000 are then the
// doubles nearest to the rationals, so that comparing them agrees with exact arithmetic.
NK_HD double plain_edge(const BinSpikes& p, double start, std::int64_t k) {
  if (p.edges != nullptr) return static_cast<const double*>(p.edges)[k];
  const double n = static_cast<double>(k);
  return start + (p.step_is_rate ? n / p.step : n * p.step);
}

NK_HD std::int64_t plain_edge(const BinSpikes& p, std::int64_t start, std::int64_t k) {
  if (p.edges != nullptr) return static_cast<const std::int64_t*>(p.edges)[k];
  return start + (k * p.width_numerator + p.width_denominator - 1) / p.width_denominator;
}

// A spike lies in bin k or later if its time is at least this.
NK_HD double bin_edge(const BinSpikes& p, double start, std::int64_t k) {
  return plain_edge(p, start, k) - p.tolerance;
}
NK_HD std::int64_t bin_edge(const BinSpikes& p, std::int64_t start, std::int64_t k) {
  return plain_edge(p, start, k);
}

// The next double up, for finite x.
NK_HD double next_up(double x) {
  std::int64_t bits;
  if (x == 0) x = 0;  // -0.0 has the sign bit
  memcpy(&bits, &x, sizeof bits);
  bits += x >= 0 ? 1 : -1;
  memcpy(&x, &bits, sizeof bits);
  return x;
}
NK_HD std::int64_t next_up(std::int64_t x) { return x + 1; }

// A spike lies before the end of bin k - 1 if its time is below this.
template <typename T>
NK_HD T bin_limit(const BinSpikes& p, T start, std::int64_t k) {
  return k == p.n_bins && p.closed_last ? next_up(plain_edge(p, start, k)) : bin_edge(p, start, k);
}

NK_HD bool usable_start(double start) { return start - start == 0; }  // finite
NK_HD bool usable_start(std::int64_t start) { return start > -kFarSample && start < kFarSample; }

NK_HD double window_start(const BinSpikes& p, std::int64_t window, double) {
  return p.starts != nullptr ? static_cast<const double*>(p.starts)[window] : p.start;
}
NK_HD std::int64_t window_start(const BinSpikes& p, std::int64_t window, std::int64_t) {
  return p.starts != nullptr ? static_cast<const std::int64_t*>(p.starts)[window] : p.first_sample;
}

// A bin near the right one, from the quotient; the comparison with the edges decides.
NK_HD std::int64_t guess_bin(const BinSpikes& p, double start, double t) {
  const double x = p.step_is_rate ? (t - start) * p.step : (t - start) / p.step;
  return !(x > 0) ? 0 : x < static_cast<double>(p.n_bins) ? static_cast<std::int64_t>(x) : p.n_bins - 1;
}
NK_HD std::int64_t guess_bin(const BinSpikes& p, std::int64_t start, std::int64_t t) {
  const std::int64_t k = (t - start) * p.width_denominator / p.width_numerator;
  return k < p.n_bins ? k : p.n_bins - 1;  // on a closed last edge
}

// The last bin in [low, high) whose edge is at or below t; edge(low) <= t is known.
template <typename T>
NK_HD std::int64_t search_bin(const BinSpikes& p, T start, T t, std::int64_t low, std::int64_t high) {
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    if (t >= bin_edge(p, start, middle)) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// The bin of time t in the window at `start`, or -1 if it has none (NaN has none).
template <typename T>
NK_HD std::int64_t bin_of(const BinSpikes& p, T start, T t) {
  if (p.n_bins == 0) return -1;  // even if the one edge is closed
  if (!(t >= bin_edge(p, start, 0)) || !(t < bin_limit(p, start, p.n_bins))) return -1;
  if (p.edges != nullptr) return search_bin(p, start, t, 0, p.n_bins);
  const std::int64_t k = guess_bin(p, start, t);
  const std::int64_t low = k > 1 ? k - 1 : 0, high = k + 2 < p.n_bins ? k + 2 : p.n_bins;
  const bool low_holds = t >= bin_edge(p, start, low);
  const bool high_holds = high == p.n_bins || t < bin_edge(p, start, high);
  // Both hold unless bins are so narrow that doubles cannot tell them apart.
  return search_bin(p, start, t, low_holds ? low : 0, high_holds ? high : p.n_bins);
}

constexpr std::int64_t kUnknown = -1, kUnmapped = -2;

// The column of a unit's id, or why it has none.
NK_HD std::int64_t column_of(const BinSpikes& p, std::int64_t id) {
  if (p.unit_map == nullptr) return id >= 0 && id < p.n_units ? id : kUnknown;
  if (id < 0 || id >= p.n_ids) return kUnknown;
  const std::int64_t column = p.unit_map[id];
  return column >= 0 && column < p.n_units ? column : kUnmapped;
}

NK_HD int element_size(CountType type) {
  switch (type) {
    case CountType::u8:
      return 1;
    case CountType::i16:
    case CountType::u16:
    case CountType::f16:
    case CountType::bf16:
      return 2;
    case CountType::i32:
    case CountType::f32:
      return 4;
    default:
      return 8;
  }
}

// ---- Smoothing. Gaussian: y = weights[0] * x[b], then y = smooth_tap(y, weights[k], x[b - k], x[b + k]) for
// k = 1, 2, ...; x is 0 outside the window. Causal exponential: y = smooth_step(a, 1 - a, y, x[b]) from y = 0
// on. Every product and sum is rounded to float32 (no fma), so that all devices give the same bits.

constexpr float kFaded = 0x1p-100f;  // what is left long after a spike; smaller numbers are slow on some CPUs

NK_HD float smooth_tap(float y, float weight, float before, float after) {
  return y + weight * (before + after);
}
NK_HD float smooth_step(float a, float one_minus_a, float y, float x) {
  const float next = a * y + one_minus_a * x;
  return next < kFaded ? 0.0f : next;
}

NK_HD std::uint32_t float_bits(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

// A count up to 2048 as IEEE half, up to 256 as bfloat16: exact, so that cutting float32 short is right.
NK_HD std::uint16_t half_bits(std::uint32_t count) {
  const std::uint32_t bits = float_bits(static_cast<float>(count));
  return static_cast<std::uint16_t>(count == 0 ? 0 : (bits >> 13) - (112u << 10));
}
NK_HD std::uint16_t bfloat16_bits(std::uint32_t count) {
  return static_cast<std::uint16_t>(float_bits(static_cast<float>(count)) >> 16);
}

// Any float32 from 0 to 65504 as IEEE half, or from 0 as bfloat16: the nearest, of two the even one.
NK_HD std::uint16_t nearest_half_bits(float x) {
  if (x < 0x1p-14f) return static_cast<std::uint16_t>(float_bits(x + 0.5f) - float_bits(0.5f));  // subnormal
  const std::uint32_t bits = float_bits(x);
  return static_cast<std::uint16_t>(((bits + 0xFFFu + (bits >> 13 & 1u)) >> 13) - (112u << 10));
}
NK_HD std::uint16_t nearest_bfloat16_bits(float x) {
  const std::uint32_t bits = float_bits(x);
  return static_cast<std::uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}

}  // namespace neurokern
