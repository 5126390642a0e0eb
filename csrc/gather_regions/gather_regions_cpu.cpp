// One pass over the batch: plan a sample (which units, which bins), then write its inputs and target mask row by row.
#include <cstdint>

#include "common/philox_block.h"
#include "common/thread_pool.h"
#include "gather_regions/gather_regions_body.h"
#include "gather_regions/row_writer.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kBlock = 4 * kPhiloxLanes;  // units or bins that one philox_block decides
constexpr std::int64_t kTaskBytes = 256 << 10;     // of inputs: a task this long hides the cost of handing it out
constexpr std::int64_t kSerialBytes = 1 << 20;     // about 200 us: threads cost more than they bring
constexpr std::int64_t kStreamBytes = 8 << 20;     // outputs that would not stay in the cache anyway

using Words = std::uint32_t[4][kPhiloxLanes];

// Words for the 64 indices from `first` (a multiple of 64); index i has word [i % 4][i / 4 % 16].
inline void draw_block(const MaskRegions& p, std::int64_t b, std::uint32_t stage, std::int64_t first, std::int64_t bin,
                       Words& words) {
  std::uint32_t quads[kPhiloxLanes];
  for (int i = 0; i < kPhiloxLanes; ++i) quads[i] = static_cast<std::uint32_t>(first / 4 + i);
  const DrawCounter at = draw_counter(p.offset + static_cast<std::uint64_t>(b), stage);
  philox_block(p.seed, quads, static_cast<std::uint32_t>(bin), at.c2, at.c3, words);
}

// flags[i] = 0xFF if index first + i is hit, else 0; writes whole blocks of 64.
inline void draw_hits(const MaskRegions& p, std::int64_t b, std::uint32_t stage, std::int64_t first, std::int64_t bin,
                      std::uint64_t threshold, std::int64_t count, std::uint8_t* flags) {
  const std::uint32_t last = static_cast<std::uint32_t>(threshold - 1);
  for (std::int64_t i = 0; i < count; i += kBlock) {
    if (threshold == 0) {
      __builtin_memset(flags + i, 0, kBlock);
      continue;
    }
    Words words;
    draw_block(p, b, stage, first + i, bin, words);
    for (int lane = 0; lane < kPhiloxLanes; ++lane) {  // the four bytes of a quad, in order
      const std::uint32_t quad = (words[0][lane] <= last ? 0x000000FFu : 0u) | (words[1][lane] <= last ? 0x0000FF00u : 0u) |
                                 (words[2][lane] <= last ? 0x00FF0000u : 0u) | (words[3][lane] <= last ? 0xFF000000u : 0u);
      __builtin_memcpy(flags + i + 4 * lane, &quad, sizeof quad);
    }
  }
}

// ---- the choice of a region ---------------------------------------------------------------------------------

// Lowest rank among the regions of sample b.
std::uint64_t best_rank(const MaskRegions& p, std::int64_t b, std::uint64_t number, std::uint32_t stage) {
  const std::int64_t n_units = units_of(p, b);
  const DrawCounter at = draw_counter(number, stage);
  std::uint64_t best = kNoRank;
  std::int64_t previous = -1;
  std::uint32_t ids[kPhiloxLanes] = {};
  int n_ids = 0;
  for (std::int64_t unit = 0; unit <= n_units; ++unit) {
    const std::int64_t region = unit < n_units ? region_of(p, b, unit) : -1;
    if (region >= 0 && region != previous) ids[n_ids++] = static_cast<std::uint32_t>(region);
    previous = region;
    if (n_ids < kPhiloxLanes && unit < n_units) continue;
    Words words;
    philox_block(p.seed, ids, 0, at.c2, at.c3, words);
    for (int i = 0; i < n_ids; ++i) {
      const std::uint64_t rank = region_rank(words[0][i], ids[i]);
      best = rank < best ? rank : best;
    }
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

// ---- the plan of a sample -----------------------------------------------------------------------------------

void plan_units(const MaskRegions& p, std::int64_t b, int scheme, std::int64_t chosen) {
  std::uint8_t* codes = p.unit_codes + b * p.n_units;
  const bool draws = scheme == kNeuron || scheme == kIntraRegion;
  std::uint8_t hits[kBlock] = {};
  for (std::int64_t first = 0; first < p.n_units; first += kBlock) {
    if (draws) draw_hits(p, b, kStageUnit, first, 0, p.thresholds[scheme], kBlock, hits);
    const std::int64_t end = first + kBlock < p.n_units ? first + kBlock : p.n_units;
    for (std::int64_t unit = first; unit < end; ++unit) {
      const std::int64_t region = region_of(p, b, unit);
      const bool inside = region >= 0 && region == chosen;
      codes[unit] = unit_code(scheme, hits[unit - first] != 0, inside, is_counted(p, b, unit, region));
    }
  }
}

// A bin is hidden if one of the starts bin ... bin + span - 1 hits: as likely at the border as anywhere.
void plan_hidden_bins(const MaskRegions& p, std::int64_t b, int scheme, std::uint8_t* active) {
  const std::int64_t n_bins = bins_of(p, b), n_starts = n_bins + p.span - 1;
  std::int64_t last_hit = -1;
  std::uint8_t hits[kBlock];
  for (std::int64_t start = 0; start < n_starts; ++start) {
    if (start % kBlock == 0) draw_hits(p, b, kStageBin, start, 0, p.thresholds[scheme], kBlock, hits);
    if (hits[start % kBlock]) last_hit = start;
    const std::int64_t bin = start - p.span + 1;
    if (bin >= 0) active[bin] = last_hit >= bin;
  }
}

void plan_bins(const MaskRegions& p, std::int64_t b, int scheme) {
  std::uint8_t* active = p.bin_active + b * p.n_bins;
  const std::int64_t n_bins = bins_of(p, b);
  if (scheme == kTemporal || scheme == kCausal) {
    plan_hidden_bins(p, b, scheme, active);
  } else {
    __builtin_memset(active, 1, static_cast<std::size_t>(n_bins));
  }
  __builtin_memset(active + n_bins, 0, static_cast<std::size_t>(p.n_bins - n_bins));
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

// ---- writing ------------------------------------------------------------------------------------------------

struct Place {
  std::int64_t b, bin, first, count;  // `count` units from `first` on, at most kChunk
  const std::uint8_t* codes;          // of these units
};

// Random masking: an entry keeps its unit's code if its own draw hits.
inline void draw_entry_codes(const MaskRegions& p, const Place& at, std::uint8_t* codes) {
  draw_hits(p, at.b, kStageEntry, at.first, at.bin, p.thresholds[kRandom], at.count, codes);
  for (std::int64_t i = 0; i < at.count; ++i) codes[i] &= at.codes[i];
}

// BERT-style: shows again what is left as it is, and puts values of other bins into `other`.
template <class Element>
inline void replace_targets(const MaskRegions& p, const Place& at, std::uint8_t* codes, Element* other,
                            std::uint8_t* from_other) {
  const auto* x = static_cast<const Element*>(p.x) + at.b * p.x_stride_sample + at.first;
  const std::int64_t n_bins = bins_of(p, at.b);
  for (std::int64_t block = 0; block < at.count; block += kBlock) {
    const std::int64_t end = block + kBlock < at.count ? block + kBlock : at.count;
    std::uint8_t any = 0;
    for (std::int64_t i = block; i < end; ++i) any |= codes[i] & kTargetBit;
    __builtin_memset(from_other + block, 0, static_cast<std::size_t>(end - block));
    if (!any) continue;
    Words words;
    draw_block(p, at.b, kStageReplace, at.first + block, at.bin, words);
    for (std::int64_t i = block; i < end; ++i) {
      if (codes[i] != kTarget) continue;
      const std::uint32_t word = words[i % 4][(i - block) / 4];
      if (word < kReplaceZeroBelow) continue;
      if (word >= kReplaceOtherBelow) {
        codes[i] = kTargetBit;
      } else {
        from_other[i] = 1;
        other[i] = x[source_bin(word, n_bins) * p.x_stride_bin + i];
      }
    }
  }
}

template <class Element>
void write_chunk(const MaskRegions& p, Place at, bool stream) {
  const Element* x = static_cast<const Element*>(p.x) + at.b * p.x_stride_sample + at.bin * p.x_stride_bin + at.first;
  Element* inputs = static_cast<Element*>(p.inputs) + at.b * p.inputs_stride_sample + at.bin * p.inputs_stride_bin + at.first;
  std::uint8_t* targets = p.target_mask + (at.b * p.n_bins + at.bin) * p.n_units + at.first;
  std::uint8_t codes[kChunk];
  if (scheme_of(p, at.b) == kRandom) {
    draw_entry_codes(p, at, codes);
    at.codes = codes;
  }
  const Element fill = static_cast<Element>(p.fill);
  if (p.replacement == kFill) {
    write_masked(x, at.codes, fill, at.count, inputs, targets, stream);
    return;
  }
  Element other[kChunk];
  std::uint8_t from_other[kChunk];
  if (at.codes != codes) __builtin_memcpy(codes, at.codes, static_cast<std::size_t>(at.count));
  replace_targets(p, at, codes, other, from_other);
  write_masked(x, codes, fill, at.count, inputs, targets, stream);
  for (std::int64_t i = 0; i < at.count; ++i)
    if (from_other[i]) inputs[i] = other[i];
}

template <class Element>
void write_bin(const MaskRegions& p, std::int64_t b, std::int64_t bin, bool stream) {
  const std::uint8_t* codes = p.unit_codes + b * p.n_units;
  if (p.bin_active[b * p.n_bins + bin]) {
    for (std::int64_t first = 0; first < p.n_units; first += kChunk) {
      const std::int64_t count = first + kChunk < p.n_units ? kChunk : p.n_units - first;
      write_chunk<Element>(p, {b, bin, first, count, codes + first}, stream);
    }
    return;
  }
  const Element* x = static_cast<const Element*>(p.x) + b * p.x_stride_sample + bin * p.x_stride_bin;
  Element* inputs = static_cast<Element*>(p.inputs) + b * p.inputs_stride_sample + bin * p.inputs_stride_bin;
  write_shown(x, p.n_units, inputs, p.target_mask + (b * p.n_bins + bin) * p.n_units, stream);
}

struct Write {
  const MaskRegions& p;
  std::int64_t bins_per_task, tasks_per_sample;
  bool stream;
};

template <class Element>
void write_bins(void* context, std::int64_t task) {
  const auto& write = *static_cast<const Write*>(context);
  const MaskRegions& p = write.p;
  const std::int64_t b = task / write.tasks_per_sample, first = task % write.tasks_per_sample * write.bins_per_task;
  const std::int64_t end = first + write.bins_per_task < p.n_bins ? first + write.bins_per_task : p.n_bins;
  for (std::int64_t bin = first; bin < end; ++bin) write_bin<Element>(p, b, bin, write.stream);
  if (write.stream) finish_streaming();
}

Task writer_of(int element_size) {
  switch (element_size) {
    case 1: return write_bins<std::uint8_t>;
    case 2: return write_bins<std::uint16_t>;
    case 4: return write_bins<std::uint32_t>;
    default: return write_bins<std::uint64_t>;
  }
}

}  // namespace

void mask_regions_cpu(const MaskRegions& p, int n_threads) {
  const std::int64_t row_bytes = p.n_units * p.element_size, bytes = p.n_samples * p.n_bins * row_bytes;
  if (bytes < kSerialBytes) n_threads = 1;
  Plan plan{p, p.forced_region};
  if (plan.batch_region < 0 && !p.choose_per_sample && any_sample_needs_region(p)) plan.batch_region = choose_for_batch(p);
  parallel_for(p.n_samples, n_threads, plan_sample, &plan);
  if (bytes == 0) return;
  std::int64_t bins_per_task = kTaskBytes / row_bytes;
  bins_per_task = bins_per_task < 1 ? 1 : (bins_per_task > p.n_bins ? p.n_bins : bins_per_task);
  Write write{p, bins_per_task, (p.n_bins + bins_per_task - 1) / bins_per_task, bytes >= kStreamBytes && p.inputs != p.x};
  parallel_for(p.n_samples * write.tasks_per_sample, n_threads, writer_of(p.element_size), &write);
}

}  // namespace NEUROKERN_ISA
}  // namespace neurokern
