// One pass over the batch: plan a sample (which units, which bins), then write its inputs and target mask row
// by row.
#include <cstdint>

#include "common/thread_pool.h"
#include "gather_regions/mask_plan.h"
#include "gather_regions/row_writer.h"
#include "gather_regions/target_packer.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kTaskBytes = 256
                                    << 10;  // of inputs: a task this long hides the cost of handing it out
constexpr std::int64_t kSerialBytes = 1 << 20;  // about 200 us: threads cost more than they bring
constexpr std::int64_t kStreamBytes = 8 << 20;  // outputs that would not stay in the cache anyway

// Up to 1024 units of a sample, whose draws and buffers stay in the first-level cache over all bins of a
// task.
struct Chunk {
  std::int64_t b, first, count;
  bool draws_entries, replaces;
  alignas(64) std::uint8_t codes[kChunk];
  PhiloxTable entries;
  Replacements replacements;
};

void prepare_chunk(const MaskRegions& p, std::int64_t b, std::int64_t first, Chunk& chunk) {
  chunk.b = b;
  chunk.first = first;
  chunk.count = chunk_size(first, p.n_units);
  chunk.draws_entries = scheme_of(p, b) == kRandom;
  chunk.replaces = p.replacement == kBertRandom;
  const auto count = static_cast<std::size_t>(chunk.count);
  __builtin_memcpy(chunk.codes, p.unit_codes + b * p.n_units + first, count);
  __builtin_memset(chunk.codes + count, kShown, rounded_up(chunk.count, kMaskBlock) - count);
  if (chunk.draws_entries) prepare_indices(p, b, kStageEntry, first, chunk.count, chunk.entries);
  if (chunk.replaces)
    prepare_replacements(p, b, first, chunk.codes, chunk.count, chunk.draws_entries, chunk.replacements);
}

template <class Element>
struct Row {
  const Element* x;
  Element* inputs;
  std::uint8_t* targets;
  std::int64_t bin;
};

template <class Element>
inline Row<Element> row_of(const MaskRegions& p, const Chunk& chunk, std::int64_t bin) {
  const std::int64_t b = chunk.b;
  return {
      static_cast<const Element*>(p.x) + b * p.x_stride_sample + bin * p.x_stride_bin + chunk.first,
      static_cast<Element*>(p.inputs) + b * p.inputs_stride_sample + bin * p.inputs_stride_bin + chunk.first,
      p.target_mask + (b * p.n_bins + bin) * p.n_units + chunk.first, bin};
}

template <class Element, bool kStream>
inline void write_shown(const Chunk& chunk, const Row<Element>& row) {
  copy_entries<Element, kStream>(row.x, chunk.count, row.inputs);
  fill_entries<std::uint8_t, kStream>(0, chunk.count, row.targets);
}

// The codes of a row in which they decide; `drawn` is room for those that are the row's own.
inline const std::uint8_t* codes_of(const MaskRegions& p, const Chunk& chunk, std::int64_t bin,
                                    std::uint8_t* drawn) {
  if (!chunk.draws_entries) return chunk.codes;
  draw_hits(chunk.entries, static_cast<std::uint32_t>(bin), p.thresholds[kRandom], chunk.codes, drawn);
  return drawn;
}

template <class Element, bool kStream>
inline void write_row(const MaskRegions& p, const Chunk& chunk, const Row<Element>& row) {
  alignas(64) std::uint8_t drawn[kChunk];
  const auto fill = static_cast<Element>(p.fill);
  const std::uint8_t state = p.bin_states[chunk.b * p.n_bins + row.bin];
  if (state == kAllShown) return write_shown<Element, kStream>(chunk, row);
  if (state == kAllTargets) {
    fill_entries<Element, kStream>(fill, chunk.count, row.inputs);
    return fill_entries<std::uint8_t, kStream>(1, chunk.count, row.targets);
  }
  const std::uint8_t* codes = codes_of(p, chunk, row.bin, drawn);
  select_entries<Element, kStream>(row.x, codes, OneValue<Element>{fill}, chunk.count, row.inputs);
  select_targets<kStream>(codes, chunk.count, row.targets);
}

// ---- BERT-style replacement

// A row between its draws and its inputs.
template <class Element>
struct Replaced {
  Row<Element> row;
  int n;  // entries with a value from elsewhere
  const Element* sources[kChunk];
  std::uint16_t units[kChunk];
  alignas(64) std::uint8_t codes[kChunk];
};

// Draws a row, writes its targets, and asks for the values that it takes from other bins.
template <class Element, bool kStream>
inline void draw_row(const MaskRegions& p, const Chunk& chunk, const Row<Element>& row,
                     Replaced<Element>& replaced) {
  alignas(64) std::uint8_t drawn[kChunk];
  std::uint16_t places[kChunk + kMaskBlock];
  std::uint32_t words[kChunk];
  const Replacements& r = chunk.replacements;
  const std::uint8_t* codes = codes_of(p, chunk, row.bin, drawn);
  const int n = draw_replacements(r, codes, chunk.count, static_cast<std::uint32_t>(row.bin), replaced.codes,
                                  places, words);
  const Element* sample = static_cast<const Element*>(p.x) + chunk.b * p.x_stride_sample + chunk.first;
  const std::int64_t n_bins = bins_of(p, chunk.b), stride = p.x_stride_bin;
  for (int i = 0; i < n; ++i) {
    replaced.units[i] = r.units[places[i]];
    replaced.sources[i] = sample + source_bin(words[places[i]], n_bins) * stride + replaced.units[i];
    __builtin_prefetch(replaced.sources[i]);
  }
  replaced.row = row;
  replaced.n = n;
  select_targets<kStream>(codes, chunk.count, row.targets);
}

// `hidden` holds what hidden entries become, and again at the end.
template <class Element, bool kStream>
inline void write_replaced(const Chunk& chunk, const Replaced<Element>& replaced, Element fill,
                           Element* hidden) {
  for (int i = 0; i < replaced.n; ++i) hidden[replaced.units[i]] = *replaced.sources[i];
  select_entries<Element, kStream>(replaced.row.x, replaced.codes, RowOfValues<Element>{hidden}, chunk.count,
                                   replaced.row.inputs);
  for (int i = 0; i < replaced.n; ++i) hidden[replaced.units[i]] = fill;
}

// A row is written after the next one's draws: by then the values of other bins, which are often not in the
// cache, have come.
template <class Element, bool kStream>
inline void write_replaced_rows(const MaskRegions& p, const Chunk& chunk, std::int64_t begin,
                                std::int64_t end) {
  const auto fill = static_cast<Element>(p.fill);
  alignas(64) Element hidden[kChunk];
  fill_entries<Element, false>(fill, chunk.count, hidden);
  Replaced<Element> rows[2];
  int n_drawn = 0;
  for (std::int64_t bin = begin; bin < end; ++bin) {
    const Row<Element> row = row_of<Element>(p, chunk, bin);
    if (p.bin_states[chunk.b * p.n_bins + bin] == kAllShown) {
      write_shown<Element, kStream>(chunk, row);
      continue;
    }
    draw_row<Element, kStream>(p, chunk, row, rows[n_drawn % 2]);
    if (n_drawn > 0) write_replaced<Element, kStream>(chunk, rows[(n_drawn - 1) % 2], fill, hidden);
    ++n_drawn;
  }
  if (n_drawn > 0) write_replaced<Element, kStream>(chunk, rows[(n_drawn - 1) % 2], fill, hidden);
}

template <class Element, bool kStream>
void write_chunk(const MaskRegions& p, const Chunk& chunk, std::int64_t begin, std::int64_t end) {
  if (chunk.replaces) return write_replaced_rows<Element, kStream>(p, chunk, begin, end);
  for (std::int64_t bin = begin; bin < end; ++bin)
    write_row<Element, kStream>(p, chunk, row_of<Element>(p, chunk, bin));
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
                     begin = task % write.tasks_per_sample * write.bins_per_task;
  const std::int64_t end = begin + write.bins_per_task < p.n_bins ? begin + write.bins_per_task : p.n_bins;
  const auto write_some = write.stream ? write_chunk<Element, true> : write_chunk<Element, false>;
  Chunk chunk;
  for (std::int64_t first = 0; first < p.n_units; first += kChunk) {
    prepare_chunk(p, b, first, chunk);
    write_some(p, chunk, begin, end);
  }
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
