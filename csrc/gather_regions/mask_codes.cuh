// What a block hides of its part of a sample: the chosen region, the hidden bins, a code for each unit or
// entry.
//
// Codes lie in shared memory, a byte per unit (or per entry, where entries draw for themselves), so that the
// draws, which belong to groups of four units, and the wide accesses, which belong to the alignment of each
// row, need not agree.
#pragma once

#include <cstdint>

#include "common/launch.cuh"
#include "gather_regions/block_sums.cuh"
#include "gather_regions/gather_regions_body.h"

namespace neurokern {
namespace {

constexpr int kMaskThreads = 256;
constexpr int kQuad = 4;  // units, or bins, that one Philox call serves
constexpr int kMaxTileBins = 32, kMaxTileUnits = 2048;

// How a batch is cut: a block masks `bins` bins of `units` units of one sample.
struct MaskTiling {
  std::int64_t n_tiles, bin_tiles, unit_tiles;
  int bins, units;
  int pitch;  // bytes from one row of codes to the next: at least a word of 0 behind the last unit
};

struct MaskTile {
  std::int64_t b, first_bin, first_unit;
  int n_bins, n_units, scheme;
};

// A target that takes the value of another bin (BERT-style); beside the codes of gather_regions_body.h.
constexpr std::uint32_t kOtherTarget = 0x03;
constexpr std::uint32_t kEachByte = 0x01010101u;

__device__ int smaller(std::int64_t a, int b) { return a < b ? static_cast<int>(a) : b; }

__device__ MaskTile tile_of(const MaskRegions& p, const MaskTiling& t, std::int64_t number) {
  MaskTile tile{};
  const std::int64_t bins = number / t.unit_tiles;
  tile.b = bins / t.bin_tiles;
  tile.first_bin = bins % t.bin_tiles * t.bins;
  tile.first_unit = number % t.unit_tiles * t.units;
  tile.n_bins = smaller(p.n_bins - tile.first_bin, t.bins);
  tile.n_units = smaller(p.n_units - tile.first_unit, t.units);
  tile.scheme = scheme_of(p, tile.b);
  return tile;
}

// ---- the choice of a region: the block looks at the units itself, so that no kernel must come before

// Lowest rank among the regions of sample b that this thread looks at.
__device__ unsigned long long lowest_rank(const MaskRegions& p, std::int64_t b) {
  const std::int64_t n_units = units_of(p, b);
  const std::uint64_t sample = p.choose_per_sample ? p.offset + static_cast<std::uint64_t>(b) : p.offset;
  const DrawCounter at = draw_counter(sample, p.choose_per_sample ? kStageRegion : kStageBatchRegion);
  unsigned long long best = kNoRank;
  for (std::int64_t unit = threadIdx.x; unit < n_units; unit += kMaskThreads) {
    const std::int64_t region = region_of(p, b, unit);
    if (region < 0) continue;
    if (unit > 0 && region_of(p, b, unit - 1) == region) continue;  // its neighbour takes part for it
    const Philox4 draw = philox4x32(p.seed, static_cast<std::uint32_t>(region), 0, at.c2, at.c3);
    const unsigned long long rank = region_rank(draw.word[0], region);
    best = rank < best ? rank : best;
  }
  return best;
}

// Do all samples have the same regions, so that a choice for the batch needs to look at one alone?
NK_HD bool same_regions(const MaskRegions& p) {
  return p.regions_stride_sample == 0 && p.unit_counts == nullptr;
}

// Every thread of the block calls it.
__device__ std::int64_t chosen_region(const MaskRegions& p, const MaskTile& tile,
                                      unsigned long long* of_warps) {
  if (!needs_region(tile.scheme)) return -1;
  if (p.forced_region >= 0) return p.forced_region;
  if (p.best_ranks != nullptr) return region_of_rank(p.best_ranks[p.choose_per_sample ? tile.b : 0]);
  unsigned long long best = kNoRank;
  if (p.choose_per_sample || same_regions(p)) {
    best = lowest_rank(p, tile.b);
  } else {
    for (std::int64_t b = 0; b < p.n_samples; ++b) {
      const unsigned long long rank = lowest_rank(p, b);
      best = rank < best ? rank : best;
    }
  }
  return region_of_rank(block_minimum<kMaskThreads>(best, of_warps));
}

// The choice ahead of masking, where each block would have to look at too many units: a block per sample.
__global__ void __launch_bounds__(kMaskThreads) rank_regions(MaskRegions p) {
  NK_SHARED(unsigned long long, of_warps, kMaskThreads / kWarp);
  for (std::int64_t b = blockIdx.x; b < p.n_samples; b += gridDim.x) {
    const unsigned long long best = block_minimum<kMaskThreads>(lowest_rank(p, b), of_warps);
    // A minimum does not depend on the order, so the result is the same in every run.
    if (threadIdx.x == 0)
      atomicMin(reinterpret_cast<unsigned long long*>(p.best_ranks + (p.choose_per_sample ? b : 0)), best);
    __syncthreads();
  }
}

// ---- bins: a bit for each bin of the tile

// Bits of the bins that one of the starts drawn by this thread hides.
__device__ unsigned drawn_bins(const MaskRegions& p, const MaskTile& tile) {
  unsigned hidden = 0;
  if (p.thresholds[tile.scheme] == 0) return hidden;
  const std::int64_t first = tile.first_bin, end = first + tile.n_bins + p.span - 1;
  for (std::int64_t quad = first / kQuad + threadIdx.x; quad * kQuad < end; quad += kMaskThreads) {
    const Philox4 draw = draw_quad(p.seed, p.offset + static_cast<std::uint64_t>(tile.b), kStageBin, quad, 0);
#pragma unroll
    for (int w = 0; w < kQuad; ++w) {
      if (!is_hit(draw.word[w], p.thresholds[tile.scheme])) continue;
      const std::int64_t start = quad * kQuad + w - first;  // it hides the bins start - span + 1 ... start
      const int low = start < p.span ? 0 : smaller(start - p.span + 1, kMaxTileBins);
      const int high = smaller(start, tile.n_bins - 1);
      if (low <= high) hidden |= ((2u << (high - low)) - 1u) << low;
    }
  }
  return hidden;
}

// The bins of the tile in which the codes hold. Every thread calls it; `shared` is a word of shared memory.
__device__ unsigned active_bins(const MaskRegions& p, const MaskTile& tile, unsigned* shared) {
  const std::int64_t left = bins_of(p, tile.b) - tile.first_bin;
  const int n = left < 0 ? 0 : smaller(left, tile.n_bins);
  const unsigned real = n == 0 ? 0u : (2u << (n - 1)) - 1u;
  if (tile.scheme != kTemporal && tile.scheme != kCausal) return real;
  if (threadIdx.x == 0) *shared = 0;
  __syncthreads();
  const unsigned hidden = drawn_bins(p, tile);
  if (hidden != 0) atomicOr(shared, hidden);
  __syncthreads();
  return real & *shared;
}

// ---- codes

// Codes of four units from `quad` of the tile on, the first in the lowest byte.
__device__ std::uint32_t quad_codes(const MaskRegions& p, const MaskTile& tile, std::int64_t chosen,
                                    int quad) {
  const std::int64_t first = tile.first_unit + quad * kQuad;
  const bool draws = tile.scheme == kNeuron || tile.scheme == kIntraRegion;
  Philox4 draw{};
  if (draws)
    draw = draw_quad(p.seed, p.offset + static_cast<std::uint64_t>(tile.b), kStageUnit, first / kQuad, 0);
  std::uint32_t codes = 0;
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    if (first + i >= p.n_units) continue;
    const std::int64_t region = region_of(p, tile.b, first + i);
    const bool hit = draws && is_hit(draw.word[i], p.thresholds[tile.scheme]);
    const bool counted = is_counted(p, tile.b, first + i, region);
    const std::uint32_t code = unit_code(tile.scheme, hit, region >= 0 && region == chosen, counted);
    codes |= code << (8 * i);
  }
  return codes;
}

// Random masking: an entry keeps its unit's code if its own draw hits.
__device__ std::uint32_t drawn_entries(const MaskRegions& p, const MaskTile& tile, std::int64_t quad,
                                       std::int64_t bin, std::uint32_t codes) {
  const Philox4 draw =
      draw_quad(p.seed, p.offset + static_cast<std::uint64_t>(tile.b), kStageEntry, quad, bin);
#pragma unroll
  for (int i = 0; i < kQuad; ++i)
    if (!is_hit(draw.word[i], p.thresholds[kRandom])) codes &= ~(0xFFu << (8 * i));
  return codes;
}

// BERT-style: some targets are shown after all, as they are or with another bin's value.
__device__ std::uint32_t replaced_entries(const MaskRegions& p, const MaskTile& tile, std::int64_t quad,
                                          std::int64_t bin, std::uint32_t codes) {
  if ((codes & codes >> 7 & kEachByte) == 0) return codes;  // no target
  const Philox4 draw =
      draw_quad(p.seed, p.offset + static_cast<std::uint64_t>(tile.b), kStageReplace, quad, bin);
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    const bool shown = (codes >> (8 * i) & 0xFFu) == kTarget && draw.word[i] >= kReplaceZeroBelow;
    const std::uint32_t code = draw.word[i] < kReplaceOtherBelow ? kOtherTarget : kShownTarget;
    if (shown) codes = (codes & ~(0xFFu << (8 * i))) | code << (8 * i);
  }
  return codes;
}

// The codes of a tile; a row per bin if entries draw for themselves, else one row for all active bins.
struct TileCodes {
  const std::uint8_t* rows;
  int pitch;  // 0: one row
  unsigned active;
};

// Every thread of the block calls it; ends with a barrier. `shared` has room for 1 + tile.n_bins rows.
__device__ TileCodes tile_codes(const MaskRegions& p, const MaskTiling& t, const MaskTile& tile,
                                std::int64_t chosen, unsigned active, std::uint32_t* shared) {
  const int n_quads = (tile.n_units + kQuad - 1) / kQuad, words = t.pitch / kQuad;
  for (int quad = static_cast<int>(threadIdx.x); quad < words; quad += kMaskThreads)
    shared[quad] = quad < n_quads ? quad_codes(p, tile, chosen, quad) : 0;
  __syncthreads();
  const bool random = tile.scheme == kRandom, bert = p.replacement == kBertRandom;
  if (!random && !bert) return {reinterpret_cast<std::uint8_t*>(shared), 0, active};
  std::uint32_t* rows = shared + words;
  for (int i = static_cast<int>(threadIdx.x); i < tile.n_bins * words; i += kMaskThreads) {
    const int row = i / words, quad = i % words;
    std::uint32_t codes = active >> row & 1u ? shared[quad] : 0;
    const std::int64_t quad_of_all = tile.first_unit / kQuad + quad, bin = tile.first_bin + row;
    if (random && codes != 0) codes = drawn_entries(p, tile, quad_of_all, bin, codes);
    if (bert) codes = replaced_entries(p, tile, quad_of_all, bin, codes);
    rows[i] = codes;
  }
  __syncthreads();
  return {reinterpret_cast<std::uint8_t*>(rows), t.pitch, active};
}

}  // namespace
}  // namespace neurokern
