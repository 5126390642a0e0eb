// Smoothing of counts along the bins of each window, from float32 to the output type; the arithmetic, and its
// order, is that of bin_spikes_body.h. A warp's threads take neighbouring columns.
#pragma once

#include "bin_spikes/bin_spikes_body.h"
#include "bin_spikes/cuda_plan.h"
#include "bin_spikes/cuda_tile.cuh"

namespace neurokern {
namespace {

constexpr int kColumns = 32;
constexpr int kRowsOfThread = 16;
constexpr int kRowsOfBlock = kRowsOfThread * (kThreads / kColumns);
constexpr std::int64_t kMostTapsShared = 128;  // so that rows and neighbours fit into 48 KiB

__device__ void store_rate(const BinSpikes& p, std::int64_t at, float rate) {
  switch (p.count_type) {
    case CountType::f16:
      static_cast<std::uint16_t*>(p.counts)[at] = nearest_half_bits(rate);
      break;
    case CountType::bf16:
      static_cast<std::uint16_t*>(p.counts)[at] = nearest_bfloat16_bits(rate);
      break;
    case CountType::f64:
      static_cast<double*>(p.counts)[at] = static_cast<double>(rate);
      break;
    default:
      static_cast<float*>(p.counts)[at] = rate;
  }
}

// A column of a window; row 0 is row `first` of it, and what lies outside is 0.
struct GlobalColumn {
  const float* counts;
  std::int64_t n_bins, n_units, first;
  __device__ float operator()(std::int64_t row) const {
    return first + row >= 0 && first + row < n_bins ? counts[(first + row) * n_units] : 0.0f;
  }
};
struct SharedColumn {
  const float* counts;
  __device__ float operator()(std::int64_t row) const { return counts[row * kColumns]; }
};

// kRowsOfThread results from row 0 on. The neighbours at distance k of all of them slide by one row with k,
// so that each step reads two numbers.
template <typename Column>
__device__ void smooth_rows(const Column& column, const float* weights, std::int64_t n_weights, float* rate) {
  float before[kRowsOfThread], after[kRowsOfThread];
  NK_UNROLL
  for (int i = 0; i < kRowsOfThread; ++i) {
    before[i] = after[i] = column(i);
    rate[i] = weights[0] * before[i];
  }
  for (std::int64_t k = 1; k < n_weights; ++k) {
    NK_UNROLL
    for (int i = 0; i + 1 < kRowsOfThread; ++i) {
      before[kRowsOfThread - 1 - i] = before[kRowsOfThread - 2 - i];
      after[i] = after[i + 1];
    }
    before[0] = column(-k);
    after[kRowsOfThread - 1] = column(kRowsOfThread - 1 + k);
    NK_UNROLL
    for (int i = 0; i < kRowsOfThread; ++i) rate[i] = smooth_tap(rate[i], weights[k], before[i], after[i]);
  }
}

// A block takes kRowsOfBlock rows of kColumns columns of a window. `taps`: weights that can matter.
template <bool kShared>
__global__ void __launch_bounds__(kThreads) smooth_gaussian(BinSpikes p, SmoothPlan plan, std::int64_t taps) {
  NK_DYNAMIC_SHARED(float, rows);
  const std::int64_t row_tiles = (p.n_bins + kRowsOfBlock - 1) / kRowsOfBlock;
  const std::int64_t column_tiles = (p.n_units + kColumns - 1) / kColumns;
  const std::int64_t lane = threadIdx.x % kColumns, group = threadIdx.x / kColumns;
  for (std::int64_t i = blockIdx.x; i < p.n_windows * row_tiles * column_tiles; i += gridDim.x) {
    const std::int64_t strip = i / column_tiles, window = strip / row_tiles;
    const std::int64_t first = (strip - window * row_tiles) * kRowsOfBlock;
    const std::int64_t column = (i - strip * column_tiles) * kColumns + lane;
    const bool inside = column < p.n_units;
    const std::int64_t window_cell = window * p.n_bins * p.n_units + column;
    const GlobalColumn counts{plan.counts + (inside ? window_cell : 0), p.n_bins, p.n_units, first};
    float rate[kRowsOfThread];
    if constexpr (kShared) {
      for (std::int64_t row = group; row < kRowsOfBlock + 2 * (taps - 1); row += kThreads / kColumns)
        rows[row * kColumns + lane] = inside ? counts(row - (taps - 1)) : 0.0f;
      __syncthreads();
      smooth_rows(SharedColumn{rows + (group * kRowsOfThread + taps - 1) * kColumns + lane}, p.weights, taps,
                  rate);
      __syncthreads();
    } else if (inside) {
      smooth_rows(GlobalColumn{counts.counts, p.n_bins, p.n_units, first + group * kRowsOfThread}, p.weights,
                  taps, rate);
    }
    NK_UNROLL
    for (int j = 0; j < kRowsOfThread; ++j) {
      const std::int64_t row = first + group * kRowsOfThread + j;
      if (inside && row < p.n_bins) store_rate(p, window_cell + row * p.n_units, rate[j]);
    }
  }
}

// The rows [row, end) of a column from state y on; returns the last state. Stores from row `stored` on.
__device__ float smooth_chunk(const BinSpikes& p, const float* counts, std::int64_t at, std::int64_t row,
                              std::int64_t end, std::int64_t stored, float y, float* start) {
  constexpr int kAhead = 8;
  const float a = p.weights[0], rest = p.weights[1];
  for (; row < end; row += kAhead) {
    float x[kAhead];
    NK_UNROLL
    for (int j = 0; j < kAhead; ++j) x[j] = row + j < end ? counts[at + (row + j) * p.n_units] : 0.0f;
    NK_UNROLL
    for (int j = 0; j < kAhead; ++j) {
      if (row + j >= end) continue;
      if (row + j == stored) *start = y;
      y = smooth_step(a, rest, y, x[j]);
      if (row + j >= stored) store_rate(p, at + (row + j) * p.n_units, y);
    }
  }
  return y;
}

// Rows after which 2**-64 of a state is left, rounded up to a power of two.
__device__ std::int64_t rows_to_fade(float a, std::int64_t most) {
  std::int64_t rows = 1;
  for (; a > 0x1p-64f && rows < most; rows *= 2) a *= a;
  return rows < most ? rows : most;
}

// A recursion is a chain, but what lies many rows back is, nearly always, rounded away: each chunk begins
// that much earlier from 0, and notes the state it found at its own first row. repair_exponential compares.
__global__ void __launch_bounds__(kThreads) smooth_exponential(BinSpikes p, SmoothPlan plan) {
  const std::int64_t n = p.n_windows * plan.n_chunks * p.n_units;
  const std::int64_t warm_up = rows_to_fade(p.weights[0], plan.most_warm_up);
  for (std::int64_t i = first_item(); i < n; i += item_stride()) {
    const std::int64_t part = i / p.n_units, window = part / plan.n_chunks;
    const std::int64_t first = (part - window * plan.n_chunks) * plan.chunk;
    const std::int64_t end = first + plan.chunk < p.n_bins ? first + plan.chunk : p.n_bins;
    const std::int64_t at = window * p.n_bins * p.n_units + i - part * p.n_units;
    const std::int64_t row = first > warm_up ? first - warm_up : 0;
    float start = 0;
    const float last = smooth_chunk(p, plan.counts, at, row, end, first, 0.0f, &start);
    if (plan.n_chunks == 1) continue;
    plan.starts[i] = start;
    plan.ends[i] = last;
  }
}

// A thread goes through the chunks of a column and does those again that began with another state than the
// chunk before them ended with: the result is that of the one chain, bit for bit.
__global__ void repair_exponential(BinSpikes p, SmoothPlan plan) {
  for (std::int64_t i = first_item(); i < p.n_windows * p.n_units; i += item_stride()) {
    const std::int64_t window = i / p.n_units, column = i - window * p.n_units;
    const std::int64_t at = window * p.n_bins * p.n_units + column;
    float y = 0, start = 0;
    for (std::int64_t chunk = 0; chunk < plan.n_chunks; ++chunk) {
      const std::int64_t part = (window * plan.n_chunks + chunk) * p.n_units + column;
      if (plan.starts[part] == y) {
        y = plan.ends[part];
        continue;
      }
      const std::int64_t first = chunk * plan.chunk;
      const std::int64_t end = first + plan.chunk < p.n_bins ? first + plan.chunk : p.n_bins;
      y = smooth_chunk(p, plan.counts, at, first, end, first, y, &start);
    }
  }
}

}  // namespace
}  // namespace neurokern
