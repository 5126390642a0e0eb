// Plans a sample of mask_regions: the region, a code per unit and a state per bin.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gather_regions/mask_draws.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::uint8_t kAllShown = 0, kByCode = 1, kAllTargets = 2;  // states of a bin

// ---- the choice of a region

inline std::uint64_t best_of(const MaskRegions& p, DrawCounter at, const std::uint32_t* ids, int n,
                             std::uint64_t best) {
  PhiloxTable table;
  prepare_table(table, p.seed, ids, n, at.c2, at.c3);
  draw_words(table, 0, [&](int pair, const PhiloxWords(&words)[4]) {
    std::uint32_t word[4 * kPairQuads];
    __builtin_memcpy(word, words, sizeof word);
    for (int i = 0; i < kPairQuads && pair * kPairQuads + i < n; ++i) {
      const std::uint64_t rank = region_rank(word[4 * i], ids[pair * kPairQuads + i]);
      best = rank < best ? rank : best;
    }
  });
  return best;
}

// Lowest rank among the regions of sample b.
std::uint64_t best_rank(const MaskRegions& p, std::int64_t b, std::uint64_t number, std::uint32_t stage) {
  const std::int64_t n_units = units_of(p, b);
  const DrawCounter at = draw_counter(number, stage);
  std::uint64_t best = kNoRank;
  std::int64_t previous = -1;
  std::uint32_t ids[kPhiloxQuads] = {};
  int n_ids = 0;
  for (std::int64_t unit = 0; unit <= n_units; ++unit) {
    const std::int64_t region = unit < n_units ? region_of(p, b, unit) : -1;
    if (region >= 0 && region != previous) ids[n_ids++] = static_cast<std::uint32_t>(region);
    previous = region;
    if (n_ids < kPhiloxQuads && unit < n_units) continue;
    best = best_of(p, at, ids, n_ids, best);
    n_ids = 0;
  }
  return best;
}

std::int64_t choose_for_batch(const MaskRegions& p) {
  const bool same_for_all = p.regions_stride_sample == 0 && p.unit_counts == nullptr;
  std::uint64_t best = kNoRank;
  for (std::int64_t b = 0; b < (same_for_all ? 1 : p.n_samples); ++b) {
    const std::uint64_t rank = best_rank(p, b, p.offset, kStageBatchRegion);
    best = rank < best ? rank : best;
  }
  return region_of_rank(best);
}

bool any_sample_needs_region(const MaskRegions& p) {
  for (std::int64_t b = 0; b < p.n_samples; ++b)
    if (needs_region(scheme_of(p, b))) return true;
  return false;
}

// ---- units and bins

// hits[i] = 0xFF where index first + i is hit, else 0, for a chunk of units or starts of runs.
inline void draw_indices(const MaskRegions& p, std::int64_t b, std::uint32_t stage, std::int64_t first,
                         std::int64_t count, std::uint64_t threshold, std::uint8_t* hits) {
  alignas(64) std::uint8_t all[kChunk];
  PhiloxTable table;
  prepare_indices(p, b, stage, first, count, table);
  __builtin_memset(all, 0xFF, static_cast<std::size_t>(table.n_pairs) * kVectorBytes);
  draw_hits(table, 0, threshold, all, hits);
}

void plan_units(const MaskRegions& p, std::int64_t b, int scheme, std::int64_t chosen) {
  std::uint8_t* codes = p.unit_codes + b * p.n_units;
  const bool draws = scheme == kNeuron || scheme == kIntraRegion;
  alignas(64) std::uint8_t hits[kChunk] = {};
  for (std::int64_t first = 0; first < p.n_units; first += kChunk) {
    const std::int64_t count = chunk_size(first, p.n_units);
    if (draws) draw_indices(p, b, kStageUnit, first, count, p.thresholds[scheme], hits);
    for (std::int64_t unit = first; unit < first + count; ++unit) {
      const std::int64_t region = region_of(p, b, unit);
      const bool inside = region >= 0 && region == chosen;
      codes[unit] = unit_code(scheme, hits[unit - first] != 0, inside, is_counted(p, b, unit, region));
    }
  }
}

// A bin is hidden if one of the starts bin ... bin + span - 1 hits: as likely at the border as anywhere.
void plan_hidden_bins(const MaskRegions& p, std::int64_t b, int scheme, std::uint8_t* states) {
  const std::int64_t n_bins = bins_of(p, b), n_starts = n_bins + p.span - 1;
  std::int64_t last_hit = -1;
  alignas(64) std::uint8_t hits[kChunk];
  for (std::int64_t start = 0; start < n_starts; ++start) {
    if (start % kChunk == 0)
      draw_indices(p, b, kStageBin, start, chunk_size(start, n_starts), p.thresholds[scheme], hits);
    if (hits[start % kChunk]) last_hit = start;
    const std::int64_t bin = start - p.span + 1;
    if (bin >= 0) states[bin] = last_hit >= bin ? kByCode : kAllShown;
  }
}

// Tells bins in which all is hidden from those in which the codes of the units decide.
void plan_bins(const MaskRegions& p, std::int64_t b, int scheme) {
  std::uint8_t* states = p.bin_states + b * p.n_bins;
  const std::int64_t n_bins = bins_of(p, b);
  if (scheme == kTemporal || scheme == kCausal) {
    plan_hidden_bins(p, b, scheme, states);
  } else {
    __builtin_memset(states, kByCode, static_cast<std::size_t>(n_bins));
  }
  __builtin_memset(states + n_bins, kAllShown, static_cast<std::size_t>(p.n_bins - n_bins));
  if (scheme == kRandom || p.replacement != kFill) return;
  const std::uint8_t* codes = p.unit_codes + b * p.n_units;
  std::uint8_t common = kTarget;
  for (std::int64_t unit = 0; unit < p.n_units; ++unit) common &= codes[unit];
  if (common != kTarget) return;
  for (std::int64_t bin = 0; bin < n_bins; ++bin)
    states[bin] = states[bin] == kByCode ? kAllTargets : states[bin];
}

struct Plan {
  const MaskRegions& p;
  std::int64_t batch_region;
};

void plan_sample(void* context, std::int64_t b) {
  const auto& plan = *static_cast<const Plan*>(context);
  const MaskRegions& p = plan.p;
  const int scheme = scheme_of(p, b);
  std::int64_t chosen = -1;
  if (needs_region(scheme)) {
    chosen = plan.batch_region;
    if (p.forced_region < 0 && p.choose_per_sample)
      chosen = region_of_rank(best_rank(p, b, p.offset + static_cast<std::uint64_t>(b), kStageRegion));
  }
  p.region[b] = chosen;
  plan_units(p, b, scheme, chosen);
  plan_bins(p, b, scheme);
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
