// Packed rows hold bins next to each other, batches units: both kernels turn tiles of 32 units by some bins
// through shared memory, so that neighbouring threads touch neighbouring addresses on both sides.
//
// Every place of the result is written once, by the block that asks where it comes from; so neither kernel
// needs a result that was zeroed before.
#pragma once

#include <cstdint>

#include "common/launch.cuh"
#include "gather_regions/block_sums.cuh"
#include "gather_regions/gather_regions.h"

namespace neurokern {
namespace {

constexpr int kLanes = kWarp;
constexpr int kRowThreads = 256, kRowWarps = kRowThreads / kLanes;
constexpr int kRowTileBins = 64;

// The entry where row `row` of the result begins in x, or -1 if the row is not there.
__device__ std::int64_t row_source(const RegionRows& p, std::int64_t row) {
  if (row >= p.n_rows) return -1;
  if (p.padded) {
    const std::int64_t b = row / p.max_rows, packed = p.cu_seqlens[b] + row % p.max_rows;
    if (packed >= p.cu_seqlens[b + 1] || packed >= p.n_index) return -1;
    row = packed;
  }
  const std::int64_t b = p.samples[row], unit = p.units[row];
  if (b < 0 || b >= p.n_samples || unit < 0 || unit >= p.n_units) return -1;
  return b * p.x_stride_sample + unit * p.x_stride_unit;
}

// The row that holds unit `unit` of sample b, or -1 if none does.
__device__ std::int64_t unit_source(const RegionRows& p, std::int64_t b, std::int64_t unit) {
  if (unit >= p.n_units) return -1;
  std::int64_t row = p.rows_of_units[b * p.n_units + unit];
  if (row >= 0 && p.padded) {
    const std::int64_t in_sample = row - p.cu_seqlens[b];
    row = in_sample < p.max_rows ? b * p.max_rows + in_sample : -1;
  }
  return row < p.n_rows ? row : -1;
}

template <class Element>
__global__ void __launch_bounds__(kRowThreads) gather_rows(RegionRows p, std::int64_t n_tiles) {
  NK_SHARED(std::int64_t, sources, kLanes);
  NK_SHARED(Element, entries, kRowTileBins * (kLanes + 1));
  const int lane = static_cast<int>(threadIdx.x % kLanes), warp = static_cast<int>(threadIdx.x / kLanes);
  const std::int64_t bin_tiles = (p.n_bins + kRowTileBins - 1) / kRowTileBins;
  for (std::int64_t tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
    const std::int64_t first_row = tile / bin_tiles * kLanes, first_bin = tile % bin_tiles * kRowTileBins;
    const int n_rows = static_cast<int>(p.n_rows - first_row < kLanes ? p.n_rows - first_row : kLanes);
    const int n_bins =
        static_cast<int>(p.n_bins - first_bin < kRowTileBins ? p.n_bins - first_bin : kRowTileBins);
    if (warp == 0) sources[lane] = row_source(p, first_row + lane);
    __syncthreads();
    const std::int64_t source = sources[lane];
    for (int bin = warp; bin < n_bins; bin += kRowWarps) {
      const auto* x = static_cast<const Element*>(p.x) + (first_bin + bin) * p.x_stride_bin;
      entries[bin * (kLanes + 1) + lane] = source >= 0 ? x[source] : Element{0};
    }
    __syncthreads();
    for (int row = warp; row < n_rows; row += kRowWarps) {
      auto* out = static_cast<Element*>(p.rows) + (first_row + row) * p.n_bins + first_bin;
      for (int bin = lane; bin < n_bins; bin += kLanes) out[bin] = entries[bin * (kLanes + 1) + row];
    }
  }
}

template <class Element>
__global__ void __launch_bounds__(kRowThreads) scatter_rows(RegionRows p, std::int64_t n_tiles) {
  NK_SHARED(std::int64_t, sources, kLanes);
  NK_SHARED(Element, entries, kRowTileBins * (kLanes + 1));
  const int lane = static_cast<int>(threadIdx.x % kLanes), warp = static_cast<int>(threadIdx.x / kLanes);
  const std::int64_t bin_tiles = (p.n_bins + kRowTileBins - 1) / kRowTileBins;
  const std::int64_t unit_tiles = (p.n_units + kLanes - 1) / kLanes;
  for (std::int64_t tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
    const std::int64_t b = tile / bin_tiles / unit_tiles, first_bin = tile % bin_tiles * kRowTileBins;
    const std::int64_t first_unit = tile / bin_tiles % unit_tiles * kLanes;
    const int n_bins =
        static_cast<int>(p.n_bins - first_bin < kRowTileBins ? p.n_bins - first_bin : kRowTileBins);
    if (warp == 0) sources[lane] = unit_source(p, b, first_unit + lane);
    __syncthreads();
    for (int unit = warp; unit < kLanes; unit += kRowWarps) {
      if (sources[unit] < 0) continue;
      const auto* row = static_cast<const Element*>(p.rows) + sources[unit] * p.n_bins + first_bin;
      for (int bin = lane; bin < n_bins; bin += kLanes) entries[bin * (kLanes + 1) + unit] = row[bin];
    }
    __syncthreads();
    for (int bin = warp; bin < n_bins && first_unit + lane < p.n_units; bin += kRowWarps) {
      auto* y = static_cast<Element*>(p.y) + (b * p.n_bins + first_bin + bin) * p.n_units + first_unit;
      y[lane] = sources[lane] >= 0 ? entries[bin * (kLanes + 1) + lane] : Element{0};
    }
    __syncthreads();
  }
}

}  // namespace
}  // namespace neurokern
