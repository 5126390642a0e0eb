// What each masking scheme hides, and which draw decides it.
//
// A draw belongs to (seed, sample, stage, index, bin): nothing else moves it, neither padding nor threads nor
// how samples were put into batches.
#pragma once

#include <cstdint>

#include "common/philox.h"
#include "gather_regions/gather_regions.h"

namespace neurokern {

// What a draw is for; the lowest byte of the fourth counter word.
enum MaskStage : std::uint32_t {
  kStageBin,
  kStageUnit,
  kStageEntry,
  kStageReplace,
  kStageRegion,
  kStageBatchRegion
};

// What happens to an entry: kShown is copied, kTarget hidden and counted in the loss, kContext hidden alone,
// kShownTarget counted but left as it is. Hidden codes have the sign bit, which widens to a mask of any
// width.
constexpr std::uint8_t kShown = 0x00, kShownTarget = 0x01, kContext = 0xFE, kTarget = 0xFF;
constexpr std::uint8_t kTargetBit = 0x01, kHiddenBit = 0x80;

// BERT-style replacement by one word: 80 % zero, 10 % the unit's value in another bin, 10 % left as it is.
constexpr std::uint32_t kReplaceZeroBelow = 3435973836u;   // floor(0.8 * 2^32)
constexpr std::uint32_t kReplaceOtherBelow = 3865470566u;  // floor(0.9 * 2^32)

struct DrawCounter {
  std::uint32_t c2, c3;
};

NK_HD DrawCounter draw_counter(std::uint64_t sample, std::uint32_t stage) {
  return {static_cast<std::uint32_t>(sample), static_cast<std::uint32_t>(sample >> 32) << 8 | stage};
}

// Words for the indices 4 * quad ... 4 * quad + 3.
NK_HD Philox4 draw_quad(std::uint64_t seed, std::uint64_t sample, std::uint32_t stage, std::int64_t quad,
                        std::int64_t bin) {
  const DrawCounter at = draw_counter(sample, stage);
  return philox4x32(seed, static_cast<std::uint32_t>(quad), static_cast<std::uint32_t>(bin), at.c2, at.c3);
}

// A 64-bit threshold, so that probability 1 (2^32) hides everything.
NK_HD bool is_hit(std::uint32_t word, std::uint64_t threshold) { return word < threshold; }

NK_HD int scheme_of(const MaskRegions& p, std::int64_t b) {
  return p.schemes ? static_cast<int>(p.schemes[b]) : p.scheme;
}

NK_HD bool needs_region(int scheme) { return scheme == kIntraRegion || scheme == kInterRegion; }

NK_HD std::int64_t bounded(std::int64_t value, std::int64_t size) {
  return value < 0 ? 0 : (value > size ? size : value);
}

// The kernels stay in bounds whatever the counts; the CPU binding refuses those outside [0, size].
NK_HD std::int64_t units_of(const MaskRegions& p, std::int64_t b) {
  return p.unit_counts ? bounded(p.unit_counts[b], p.n_units) : p.n_units;
}

NK_HD std::int64_t bins_of(const MaskRegions& p, std::int64_t b) {
  return p.bin_counts ? bounded(p.bin_counts[b], p.n_bins) : p.n_bins;
}

NK_HD std::int64_t region_of(const MaskRegions& p, std::int64_t b, std::int64_t unit) {
  return p.regions ? p.regions[b * p.regions_stride_sample + unit] : -1;
}

// The region with the lowest rank among those present is chosen. Ranks are independent draws, one per region
// id, so every region present is as likely, however many units it has; no list of regions is needed.
NK_HD std::uint64_t region_rank(std::uint32_t word, std::int64_t region) {
  return static_cast<std::uint64_t>(word) << 32 | static_cast<std::uint32_t>(region);
}

constexpr std::uint64_t kNoRank = ~std::uint64_t{0};

NK_HD std::int64_t region_of_rank(std::uint64_t rank) {
  return rank == kNoRank ? -1 : static_cast<std::int64_t>(rank & 0xFFFFFFFFu);
}

// Does the loss see the unit? Where no counts of units are given, an unknown region means padding.
NK_HD bool is_counted(const MaskRegions& p, std::int64_t b, std::int64_t unit, std::int64_t region) {
  if (p.unit_counts) return unit < units_of(p, b);
  return p.regions == nullptr || region >= 0;
}

// Code of a unit's entries in active bins. `hit` is the unit's draw; `inside`: the unit lies in the chosen
// region.
NK_HD std::uint8_t unit_code(int scheme, bool hit, bool inside, bool counted) {
  switch (scheme) {
    case kNeuron:
      return hit && counted ? kTarget : kShown;
    case kInterRegion:
      return inside && counted ? kTarget : kShown;
    case kIntraRegion:
      return !(inside && counted) ? kContext : (hit ? kTarget : kShown);
    default:
      return counted ? kTarget : kShown;  // temporal, causal: the bins decide; random: each entry
  }
}

// The bin that a replaced entry takes its value from, for words in [kReplaceZeroBelow, kReplaceOtherBelow).
NK_HD std::int64_t source_bin(std::uint32_t word, std::int64_t n_bins) {
  const std::uint64_t uniform = std::uint64_t{word - kReplaceZeroBelow} * 10;  // of [0, 2^32)
  return static_cast<std::int64_t>((uniform * static_cast<std::uint64_t>(n_bins)) >> 32);
}

}  // namespace neurokern
