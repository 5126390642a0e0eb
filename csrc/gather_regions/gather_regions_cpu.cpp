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

// BERT-style masking in three loops, each without a wait: all draws; then the addresses, asked for as soon as
// known, since other bins of the sample are often not in the cache; then the values.
template <class Element, bool kStream>
inline void write_replaced(const MaskRegions& p, const Chunk& chunk, const Row<Element>& row,
                           const std::uint8_t* codes) {
  alignas(64) Element values[kChunk];
  const Element* sources[kChunk];
  std::uint16_t units[kChunk];
  Shown shown;
  const Replacements& r = chunk.replacements;
  const int n = shown.draw(r, codes, chunk.count, static_cast<std::uint32_t>(row.bin));
  const Element* sample = static_cast<const Element*>(p.x) + chunk.b * p.x_stride_sample + chunk.first;
  const std::int64_t n_bins = bins_of(p, chunk.b);
  for (int i = 0; i < n; ++i) {
    const int place = shown.places[i];
    units[i] = r.units[place];
    sources[i] = sample + source_bin(shown.words[place], n_bins) * p.x_stride_bin + units[i];
    __builtin_prefetch(sources[i]);
  }
  Element* inputs = kStream ? values : row.inputs;
  select_entries<Element, false>(row.x, shown.codes, static_cast<Element>(p.fill), chunk.count, inputs);
  for (int i = 0; i < n; ++i) inputs[units[i]] = *sources[i];
  if (kStream) copy_entries<Element, kStream>(values, chunk.count, row.inputs);
}

template <class Element, bool kStream>
inline void write_by_code(const MaskRegions& p, const Chunk& chunk, const Row<Element>& row) {
  alignas(64) std::uint8_t drawn[kChunk];
  const std::uint8_t* codes = chunk.codes;
  if (chunk.draws_entries) {
    draw_hits(chunk.entries, static_cast<std::uint32_t>(row.bin), p.thresholds[kRandom], codes, drawn);
    codes = drawn;
  }
  if (chunk.replaces) {
    write_replaced<Element, kStream>(p, chunk, row, codes);
  } else {
    select_entries<Element, kStream>(row.x, codes, static_cast<Element>(p.fill), chunk.count, row.inputs);
  }
  select_targets<kStream>(codes, chunk.count, row.targets);
}

template <class Element, bool kStream>
void write_row(const MaskRegions& p, const Chunk& chunk, std::int64_t bin) {
  const std::int64_t b = chunk.b;
  const Row<Element> row{
      static_cast<const Element*>(p.x) + b * p.x_stride_sample + bin * p.x_stride_bin + chunk.first,
      static_cast<Element*>(p.inputs) + b * p.inputs_stride_sample + bin * p.inputs_stride_bin + chunk.first,
      p.target_mask + (b * p.n_bins + bin) * p.n_units + chunk.first, bin};
  switch (p.bin_states[b * p.n_bins + bin]) {
    case kAllShown:
      copy_entries<Element, kStream>(row.x, chunk.count, row.inputs);
      return fill_entries<std::uint8_t, kStream>(0, chunk.count, row.targets);
    case kAllTargets:
      fill_entries<Element, kStream>(static_cast<Element>(p.fill), chunk.count, row.inputs);
      return fill_entries<std::uint8_t, kStream>(1, chunk.count, row.targets);
    default:
      return write_by_code<Element, kStream>(p, chunk, row);
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
                     begin = task % write.tasks_per_sample * write.bins_per_task;
  const std::int64_t end = begin + write.bins_per_task < p.n_bins ? begin + write.bins_per_task : p.n_bins;
  const auto write_one = write.stream ? write_row<Element, true> : write_row<Element, false>;
  Chunk chunk;
  for (std::int64_t first = 0; first < p.n_units; first += kChunk) {
    prepare_chunk(p, b, first, chunk);
    for (std::int64_t bin = begin; bin < end; ++bin) write_one(p, chunk, bin);
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
