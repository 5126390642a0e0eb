// One pass over the batch: plan a sample (which units, which bins), then write its inputs and target mask row
// by row.
#include <cstdint>

#include "common/philox_block.h"
#include "common/thread_pool.h"
#include "gather_regions/gather_regions_body.h"
#include "gather_regions/row_writer.h"
#include "gather_regions/target_packer.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kBlock = 4 * kPhiloxLanes;  // units or bins that one philox_block decides
constexpr std::int64_t kTaskBytes = 256
                                    << 10;  // of inputs: a task this long hides the cost of handing it out
constexpr std::int64_t kSerialBytes = 1 << 20;  // about 200 us: threads cost more than they bring
constexpr std::int64_t kStreamBytes = 8 << 20;  // outputs that would not stay in the cache anyway

constexpr std::uint8_t kAllShown = 0, kByCode = 1, kAllTargets = 2;  // states of a bin

// Words for the 64 indices from `first` (a multiple of 64); index i has word [i % 4][i / 4 % 16].
inline void draw_block(const MaskRegions& p, std::int64_t b, std::uint32_t stage, std::int64_t first,
                       std::int64_t bin, PhiloxWords& words) {
  const DrawCounter at = draw_counter(p.offset + static_cast<std::uint64_t>(b), stage);
  philox_block(p.seed, static_cast<std::uint32_t>(first / 4), static_cast<std::uint32_t>(bin), at.c2, at.c3,
               words);
}

// The four bytes of quad `lane`, in order: 0xFF where the word is at most `last`, else 0.
inline std::uint32_t quad_bytes(const PhiloxWords& words, int lane, std::uint32_t last) {
  return (words[0][lane] <= last ? 0x000000FFu : 0u) | (words[1][lane] <= last ? 0x0000FF00u : 0u) |
         (words[2][lane] <= last ? 0x00FF0000u : 0u) | (words[3][lane] <= last ? 0xFF000000u : 0u);
}

inline void compare_block(const PhiloxWords& words, std::uint32_t last, std::uint8_t* flags) {
  for (int lane = 0; lane < kPhiloxLanes; ++lane) {
    const std::uint32_t quad = quad_bytes(words, lane, last);
    __builtin_memcpy(flags + 4 * lane, &quad, sizeof quad);
  }
}

// flags[i] = 0xFF if index first + i is hit, else 0, for i in [0, 64).
inline void draw_hits(const MaskRegions& p, std::int64_t b, std::uint32_t stage, std::int64_t first,
                      std::int64_t bin, std::uint64_t threshold, std::uint8_t* flags) {
  __builtin_memset(flags, 0, kBlock);
  if (threshold == 0) return;
  PhiloxWords words;
  draw_block(p, b, stage, first, bin, words);
  compare_block(words, static_cast<std::uint32_t>(threshold - 1), flags);
}

// ---- the choice of a region
// ---------------------------------------------------------------------------------

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
    PhiloxWords words;
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

// ---- the plan of a sample
// -----------------------------------------------------------------------------------

void plan_units(const MaskRegions& p, std::int64_t b, int scheme, std::int64_t chosen) {
  std::uint8_t* codes = p.unit_codes + b * p.n_units;
  const bool draws = scheme == kNeuron || scheme == kIntraRegion;
  std::uint8_t hits[kBlock] = {};
  for (std::int64_t first = 0; first < p.n_units; first += kBlock) {
    if (draws) draw_hits(p, b, kStageUnit, first, 0, p.thresholds[scheme], hits);
    const std::int64_t end = first + kBlock < p.n_units ? first + kBlock : p.n_units;
    for (std::int64_t unit = first; unit < end; ++unit) {
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
  std::uint8_t hits[kBlock];
  for (std::int64_t start = 0; start < n_starts; ++start) {
    if (start % kBlock == 0) draw_hits(p, b, kStageBin, start, 0, p.thresholds[scheme], hits);
    if (hits[start % kBlock]) last_hit = start;
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

// ---- writing
// ------------------------------------------------------------------------------------------------

// Random masking: an entry keeps its unit's code if its own draw hits.
inline void draw_entry_codes(const MaskRegions& p, std::int64_t b, std::int64_t bin, std::int64_t first,
                             std::int64_t count, std::uint8_t* codes) {
  const std::uint8_t* units = p.unit_codes + b * p.n_units + first;
  for (std::int64_t block = 0; block < count; block += kBlock)
    draw_hits(p, b, kStageEntry, first + block, bin, p.thresholds[kRandom], codes + block);
  for (std::int64_t i = 0; i < count; ++i) codes[i] &= units[i];
}

// BERT-style: turns targets that are shown after all into kShownTarget, and flags those with another bin's
// value.
inline void draw_replacements(const PhiloxWords& words, std::uint8_t* codes, std::uint8_t* from_other) {
  std::uint8_t not_kept[kBlock], zeroed[kBlock];
  compare_block(words, kReplaceOtherBelow - 1, not_kept);
  compare_block(words, kReplaceZeroBelow - 1, zeroed);
  for (int i = 0; i < kBlock; ++i) {
    const bool shown = codes[i] == kTarget && !zeroed[i];
    from_other[i] = shown ? not_kept[i] : 0;
    codes[i] = shown ? kShownTarget : codes[i];
  }
}

// Bit i of 64: the sign bit of bytes[i].
inline std::uint64_t sign_bits(const std::uint8_t* bytes) {
#if defined(__AVX512BW__)
  return _mm512_movepi8_mask(_mm512_loadu_si512(bytes));
#elif defined(__SSE2__)
  std::uint64_t bits = 0;
  for (int k = 0; k < 4; ++k) {
    const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes) + k);
    bits |= static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm_movemask_epi8(part))) << (16 * k);
  }
  return bits;
#else
  std::uint64_t bits = 0;
  for (int i = 0; i < 64; ++i) bits |= static_cast<std::uint64_t>(bytes[i] >> 7) << i;
  return bits;
#endif
}

// One row of a bin, or 1024 units of it: the buffers stay in the first-level cache.
template <class Element>
struct Row {
  const Element* x;
  Element* inputs;
  std::uint8_t* targets;
  std::int64_t b, bin, first, count;
};

constexpr std::int64_t kChunk = 1024;

// Replaces targets of the row by BERT's rule: writes the codes anew, and the row's values into `values`.
// Three loops, each without a wait: all draws first, since a loop over set bits ends where no predictor
// expects it; then the addresses, asked for as soon as known, since other bins of the sample are often not in
// the cache; then the values.
template <class Element>
inline void replace_row(const MaskRegions& p, const Row<Element>& row, std::uint8_t* codes, Element* values) {
  constexpr std::int64_t kBlocks = kChunk / kBlock;
  PhiloxWords words[kBlocks];
  std::uint64_t other[kBlocks];
  const std::int64_t n_blocks = (row.count + kBlock - 1) / kBlock;
  for (std::int64_t k = 0; k < n_blocks; ++k) {
    std::uint8_t flags[kBlock];
    for (int i = 0; i < kBlock; ++i) flags[i] = static_cast<std::uint8_t>(codes[k * kBlock + i] << 7);
    other[k] = 0;
    if (sign_bits(flags) == 0) continue;  // no target
    draw_block(p, row.b, kStageReplace, row.first + k * kBlock, row.bin, words[k]);
    draw_replacements(words[k], codes + k * kBlock, flags);
    other[k] = sign_bits(flags);
  }
  const Element* sample = static_cast<const Element*>(p.x) + row.b * p.x_stride_sample + row.first;
  const std::int64_t n_bins = bins_of(p, row.b);
  const Element* sources[kChunk];
  std::uint16_t places[kChunk];
  int n = 0;
  for (std::int64_t k = 0; k < n_blocks; ++k) {
    for (std::uint64_t bits = other[k]; bits != 0; bits &= bits - 1) {
      const int j = __builtin_ctzll(bits);
      const std::int64_t i = k * kBlock + j;
      sources[n] = sample + source_bin(words[k][j % 4][j / 4], n_bins) * p.x_stride_bin + i;
      __builtin_prefetch(sources[n]);
      places[n++] = static_cast<std::uint16_t>(i);
    }
  }
  __builtin_memcpy(values, row.x, static_cast<std::size_t>(row.count) * sizeof(Element));
  for (int k = 0; k < n; ++k) values[places[k]] = *sources[k];
}

template <class Element, bool kStream>
inline void write_by_code(const MaskRegions& p, const Row<Element>& row, bool draws_entries) {
  alignas(64) std::uint8_t drawn[kChunk];
  alignas(64) Element values[kChunk];
  const std::uint8_t* codes = p.unit_codes + row.b * p.n_units + row.first;
  const Element* x = row.x;
  if (draws_entries) draw_entry_codes(p, row.b, row.bin, row.first, row.count, drawn);
  if (p.replacement == kBertRandom) {
    if (!draws_entries) __builtin_memcpy(drawn, codes, static_cast<std::size_t>(row.count));
    const std::int64_t rounded = (row.count + kBlock - 1) / kBlock * kBlock;
    __builtin_memset(drawn + row.count, kShown, static_cast<std::size_t>(rounded - row.count));
    replace_row(p, row, drawn, values);
    x = values;
  }
  if (draws_entries || p.replacement == kBertRandom) codes = drawn;
  select_entries<Element, kStream>(x, codes, static_cast<Element>(p.fill), row.count, row.inputs);
  select_targets<kStream>(codes, row.count, row.targets);
}

template <class Element, bool kStream>
void write_bin(const MaskRegions& p, std::int64_t b, std::int64_t bin, bool draws_entries) {
  Row<Element> row{};
  row.x = static_cast<const Element*>(p.x) + b * p.x_stride_sample + bin * p.x_stride_bin;
  row.inputs = static_cast<Element*>(p.inputs) + b * p.inputs_stride_sample + bin * p.inputs_stride_bin;
  row.targets = p.target_mask + (b * p.n_bins + bin) * p.n_units;
  switch (p.bin_states[b * p.n_bins + bin]) {
    case kAllShown:
      copy_entries<Element, kStream>(row.x, p.n_units, row.inputs);
      return fill_entries<std::uint8_t, kStream>(0, p.n_units, row.targets);
    case kAllTargets:
      fill_entries<Element, kStream>(static_cast<Element>(p.fill), p.n_units, row.inputs);
      return fill_entries<std::uint8_t, kStream>(1, p.n_units, row.targets);
    default:
      break;
  }
  row.b = b;
  row.bin = bin;
  for (; row.first < p.n_units; row.first += kChunk) {
    row.count = row.first + kChunk < p.n_units ? kChunk : p.n_units - row.first;
    write_by_code<Element, kStream>(p, row, draws_entries);
    row.x += kChunk;
    row.inputs += kChunk;
    row.targets += kChunk;
  }
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
  const std::int64_t b = task / write.tasks_per_sample,
                     first = task % write.tasks_per_sample * write.bins_per_task;
  const std::int64_t end = first + write.bins_per_task < p.n_bins ? first + write.bins_per_task : p.n_bins;
  const bool draws_entries = scheme_of(p, b) == kRandom;
  const auto write_one = write.stream ? write_bin<Element, true> : write_bin<Element, false>;
  for (std::int64_t bin = first; bin < end; ++bin) write_one(p, b, bin, draws_entries);
  if (write.stream) finish_streaming();
}

Task writer_of(int element_size) {
  switch (element_size) {
    case 1:
      return write_bins<std::uint8_t>;
    case 2:
      return write_bins<std::uint16_t>;
    case 4:
      return write_bins<std::uint32_t>;
    default:
      return write_bins<std::uint64_t>;
  }
}

}  // namespace

void mask_regions_cpu(const MaskRegions& p, int n_threads) {
  const std::int64_t row_bytes = p.n_units * p.element_size, bytes = p.n_samples * p.n_bins * row_bytes;
  if (bytes < kSerialBytes) n_threads = 1;
  Plan plan{p, p.forced_region};
  if (plan.batch_region < 0 && !p.choose_per_sample && any_sample_needs_region(p))
    plan.batch_region = choose_for_batch(p);
  parallel_for(p.n_samples, n_threads, plan_sample, &plan);
  if (bytes == 0) return;
  std::int64_t bins_per_task = kTaskBytes / row_bytes;
  bins_per_task = bins_per_task < 1 ? 1 : (bins_per_task > p.n_bins ? p.n_bins : bins_per_task);
  Write write{p, bins_per_task, (p.n_bins + bins_per_task - 1) / bins_per_task,
              bytes >= kStreamBytes && p.inputs != p.x};
  parallel_for(p.n_samples * write.tasks_per_sample, n_threads, writer_of(p.element_size), &write);
}

void count_targets_cpu(const PackTargets& p, int n_threads) {
  PackTargets task = p;
  parallel_for(p.n_samples, threads_for(p, n_threads), count_sample, &task);
  p.cu_seqlens[0] = 0;
  for (std::int64_t b = 0; b < p.n_samples; ++b) p.cu_seqlens[b + 1] += p.cu_seqlens[b];
}

void write_targets_cpu(const PackTargets& p, int n_threads) {
  PackTargets task = p;
  parallel_for(p.n_samples, threads_for(p, n_threads), write_sample, &task);
  for (std::int64_t i = p.cu_seqlens[p.n_samples]; i < p.capacity; ++i) p.index[i] = -1;
}

}  // namespace NEUROKERN_ISA
}  // namespace neurokern
