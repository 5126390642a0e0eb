// Smoothing on the CPU: counts come in a few rows at a time, wait in L2 as float32 until all their neighbours
// are there, and leave smoothed; the output is written once and never read.
// Part of bin_spikes_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdlib>
#include <cstring>

#include "bin_spikes/bin_spikes_body.h"
#include "bin_spikes/cpu_floats.h"
#include "bin_spikes/cpu_vectors.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int64_t kSmoothCells = 32768;  // of rows smoothed together: 128 KiB of L2
constexpr int64_t kStrip = 64;           // units smoothed together: a row of them is 256 bytes

#if defined(__AVX512F__)
constexpr int kStripVectors = 4;  // what the registers hold for two rows
#else
constexpr int kStripVectors = 2;
#endif

// Two rows of a strip from x on, side by side: row r + 1 uses the neighbours of row r one step earlier, so
// that each step loads two vectors and not four. x has `radius` rows before and radius + 1 after it.
inline __attribute__((always_inline)) void smooth_two_rows(const float* x, const float* weights,
                                                           int64_t radius, Floats low[kStripVectors],
                                                           Floats high[kStripVectors]) {
  Floats left[kStripVectors], right[kStripVectors];
  for (int v = 0; v < kStripVectors; ++v) {
    left[v] = load<Floats>(x + v * kCells);
    right[v] = load<Floats>(x + kStrip + v * kCells);
    low[v] = weights[0] * left[v];
    high[v] = weights[0] * right[v];
  }
  for (int64_t k = 1; k <= radius; ++k) {
    const Floats weight = Floats{} + weights[k];
    for (int v = 0; v < kStripVectors; ++v) {
      const Floats before = load<Floats>(x - k * kStrip + v * kCells);
      const Floats after = load<Floats>(x + (k + 1) * kStrip + v * kCells);
      low[v] = low[v] + weight * (before + right[v]);
      high[v] = high[v] + weight * (left[v] + after);
      left[v] = before;
      right[v] = after;
    }
  }
}

// Copies units [first, first + width) of one row, or zeros for a row that is not there.
inline __attribute__((always_inline)) void copy_to_strip(float* to, const float* from, int64_t width) {
  if (from == nullptr) {
    memset(to, 0, kStrip * sizeof(float));
  } else if (width == kStrip) {
    for (int64_t i = 0; i < kStrip; i += kCells) {
      const Floats part = load<Floats>(from + i);
      memcpy(to + i, &part, sizeof part);
    }
  } else {
    memcpy(to, from, static_cast<size_t>(width) * sizeof(float));
  }
}

// One step of the causal exponential for kCells units.
struct Decay {
  Floats a, one_minus_a;

  explicit Decay(const float* weights) : a(Floats{} + weights[0]), one_minus_a(Floats{} + weights[1]) {}
  inline __attribute__((always_inline)) Floats operator()(Floats y, Floats x) const {
    const Floats next = a * y + one_minus_a * x;
    return next < kFaded ? Floats{} : next;
  }
};

// Smooths one window after the other. For each: start(), then for its rows in order from first_row() to
// stop_row() room(), the counts written there as float32, and added().
struct Smoother {
  const BinSpikes* p;
  int64_t element_bytes;
  bool stream;
  int64_t radius, batch;  // rows: neighbours to either side; smoothed together
  float *rows = nullptr, *smoothed = nullptr, *strip = nullptr, *state = nullptr;
  char* out = nullptr;         // row 0 of the window
  int64_t base = 0, held = 0;  // rows [base, base + held) of the window lie in `rows`
  int64_t next = 0, end = 0;   // rows [next, end) are to be written
  int64_t last_needed = 0;

  // At most `most` rows come at a time.
  bool allocate(const BinSpikes& problem, int64_t most, int64_t bytes, bool to_stream) {
    p = &problem;
    element_bytes = bytes;
    stream = to_stream;
    const int64_t n_units = p->n_units > 0 ? p->n_units : 1;
    const bool causal = p->smoothing == Smoothing::exponential;
    radius = causal ? 0 : p->n_weights - 1;
    radius = radius < p->n_bins ? radius : p->n_bins - 1;  // further neighbours lie outside every window
    batch = kSmoothCells / n_units;
    batch = batch < 8 ? 8 : batch > 256 ? 256 : batch;
    batch = batch > 2 * radius ? batch : 2 * radius;  // what stays is moved once per batch
    batch = causal ? 1 : batch < p->n_bins ? batch : p->n_bins;
    rows = floats((2 * radius + batch + most) * n_units);
    smoothed = floats(batch * n_units);
    state = floats(n_units);
    strip = floats((batch + 2 * radius + 2) * kStrip);
    if (rows == nullptr || smoothed == nullptr || strip == nullptr || state == nullptr) return false;
    memset(strip, 0, static_cast<size_t>((batch + 2 * radius + 2) * kStrip) * sizeof(float));
    return true;
  }
  void release() {
    float* all[] = {rows, smoothed, strip, state};
    for (float* memory : all) free(memory);
  }
  static float* floats(int64_t n) {
    const size_t bytes = static_cast<size_t>(n) * sizeof(float);
    return static_cast<float*>(aligned_alloc(64, (bytes + 63) / 64 * 64));
  }
  size_t row_bytes() const { return static_cast<size_t>(p->n_units) * sizeof(float); }

  // Rows [first, last) of the window are to be written; the exponential begins at row 0.
  void start(int64_t window, int64_t first, int64_t last) {
    out = static_cast<char*>(p->counts) + window * p->n_bins * p->n_units * element_bytes;
    base = first - radius > 0 ? first - radius : 0;
    held = 0;
    next = first;
    end = last;
    last_needed = last + radius < p->n_bins ? last + radius : p->n_bins;
    memset(state, 0, row_bytes());
  }
  int64_t first_row() const { return base; }
  int64_t stop_row() const { return last_needed; }

  float* room() { return rows + held * p->n_units; }

  void added(int64_t n) {
    held += n;
    const bool complete = base + held == last_needed;
    const int64_t ready = complete ? end : base + held - radius;
    if (p->smoothing == Smoothing::exponential) {
      decay_rows();
    } else {
      while (ready - next >= batch || (complete && next < end))
        smooth_rows(ready - next < batch ? ready - next : batch);
    }
    const int64_t gone = next - radius - base;
    if (gone <= 0) return;
    memmove(rows, rows + gone * p->n_units, static_cast<size_t>(held - gone) * row_bytes());
    base += gone;
    held -= gone;
  }

  void write(const float* from, int64_t n) {
    write_floats(p->count_type, from, out + next * p->n_units * element_bytes, n * p->n_units, stream);
    next += n;
  }

  // Units [first, stop) of the rows held, in place.
  void decay_units(int64_t first, int64_t stop) {
    const Decay decay(p->weights);
    for (int64_t row = 0; row < held; ++row) {
      float *x = rows + row * p->n_units, *y = state;
      int64_t u = first;
      for (; u + kCells <= stop; u += kCells) {
        const Floats next_y = decay(load<Floats>(y + u), load<Floats>(x + u));
        memcpy(y + u, &next_y, sizeof next_y);
        memcpy(x + u, &next_y, sizeof next_y);
      }
      for (; u < stop; ++u) x[u] = y[u] = smooth_step(decay.a[0], decay.one_minus_a[0], y[u], x[u]);
    }
  }

  void decay_rows() {
    const bool aligned_alike = p->n_units > 0 && p->n_units % kFloatLine == 0;
    if (aligned_alike && p->count_type == CountType::f32) return decay_lines();
    decay_units(0, p->n_units);
    write(rows, held);
  }

  // Straight to the output, where each row has its lines of 64 bytes at the same units.
  void decay_lines() {
    float* to = reinterpret_cast<float*>(out) + next * p->n_units;
    const int64_t misplaced = static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) % 64 / sizeof(float));
    const int64_t first = (kFloatLine - misplaced) % kFloatLine;
    const int64_t stop = misplaced == 0 ? p->n_units : p->n_units - misplaced;
    decay_units(0, first);
    const Decay decay(p->weights);
    const float* x = rows;
    const int64_t n_rows = held, stride = p->n_units;
    const bool to_stream = stream;
    for (int64_t u = first; u < stop; u += kFloatLine) {
      Floats y[kRegisters];
      for (int i = 0; i < kRegisters; ++i) y[i] = load<Floats>(state + u + i * kCells);
      for (int64_t row = 0; row < n_rows; ++row) {
        U64 line[kRegisters];
        for (int i = 0; i < kRegisters; ++i) {
          y[i] = decay(y[i], load<Floats>(x + row * stride + u + i * kCells));
          line[i] = reinterpret_cast<U64>(y[i]);
        }
        store_line(to + row * stride + u, line, to_stream);
      }
      for (int i = 0; i < kRegisters; ++i) memcpy(state + u + i * kCells, &y[i], sizeof y[i]);
    }
    decay_units(stop, p->n_units);
    for (int64_t row = 0; row < held; ++row) {
      const int64_t at = row * p->n_units;
      memcpy(to + at, rows + at, static_cast<size_t>(first) * sizeof(float));
      memcpy(to + at + stop, rows + at + stop, static_cast<size_t>(p->n_units - stop) * sizeof(float));
    }
    next += held;
  }

  void smooth_rows(int64_t n) {
    for (int64_t first = 0; first < p->n_units; first += kStrip) {
      const int64_t width = p->n_units - first < kStrip ? p->n_units - first : kStrip;
      for (int64_t i = 0; i < n + 2 * radius + 1; ++i) {
        const int64_t row = next - radius + i;
        const bool there = row >= base && row < base + held;
        const float* from = there ? rows + (row - base) * p->n_units + first : nullptr;
        copy_to_strip(strip + i * kStrip, from, width);
      }
      smooth_strip(smoothed + first, n, width);
    }
    write(smoothed, n);
  }

  void smooth_strip(float* to, int64_t n, int64_t width) const {
    constexpr int64_t kTile = kStripVectors * kCells;
    for (int64_t row = 0; row < n; row += 2) {
      for (int64_t u = 0; u < width; u += kTile) {
        alignas(64) Floats sums[2][kStripVectors];
        smooth_two_rows(strip + (row + radius) * kStrip + u, p->weights, radius, sums[0], sums[1]);
        const int64_t part = width - u < kTile ? width - u : kTile;
        for (int64_t i = 0; i < 2 && row + i < n; ++i) {
          float* place = to + (row + i) * p->n_units + u;
          if (part == kTile) {
            memcpy(place, sums[i], sizeof sums[i]);
          } else {
            memcpy(place, sums[i], static_cast<size_t>(part) * sizeof(float));
          }
        }
      }
    }
  }
};

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
