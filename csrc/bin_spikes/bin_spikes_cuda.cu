// Counting on the GPU. Counts are integers added by atomics, so that neither the order of the spikes nor that
// of the threads shows in the result. Kernels follow each other on the stream; none waits for the host:
//   clear_totals     totals and report to zero
//   check_order      are the spikes sorted? (only with windows)
//   count_by_window  sorted spikes: a block of threads per window
//   count_by_spike   one window, or unsorted spikes: a thread per spike
//   convert_totals   to the output type, saturating, and the largest count

#include <cstdint>

#include "bin_spikes/bin_spikes.h"
#include "bin_spikes/bin_spikes_body.h"
#include "common/launch.cuh"

namespace neurokern {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kMaxBlocks = 4096;  // kernels stride over the rest

// Where the numbers of the report lie; the last is scratch.
enum ReportSlot { kOutsideSlot, kUnknownSlot, kUnmappedSlot, kLargestSlot, kDisorderedSlot };

// What a thread saw of spikes that were not counted; atomics only where there were any.
struct Uncounted {
  std::int64_t outside = 0, unknown = 0, unmapped = 0;

  __device__ static void add(std::int64_t* slot, std::int64_t value) {
    if (value != 0)
      atomicAdd(reinterpret_cast<unsigned long long*>(slot), static_cast<unsigned long long>(value));
  }
  __device__ void add_to(std::int64_t* report) const {
    add(&report[kOutsideSlot], outside);
    add(&report[kUnknownSlot], unknown);
    add(&report[kUnmappedSlot], unmapped);
  }
};

__device__ std::int64_t first_item() { return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ std::int64_t item_stride() { return std::int64_t{gridDim.x} * blockDim.x; }

__global__ void clear_totals(std::int32_t* totals, std::int64_t n_cells, std::int64_t* report) {
  if (first_item() < 5) report[first_item()] = 0;
  for (std::int64_t i = first_item(); i < n_cells; i += item_stride()) totals[i] = 0;
}

template <typename T>
__global__ void check_order(BinSpikes p, std::int64_t* report) {
  const T* times = static_cast<const T*>(p.times);
  for (std::int64_t i = first_item(); i + 1 < p.n_spikes; i += item_stride())
    if (!(times[i] <= times[i + 1]))
      atomicOr(reinterpret_cast<unsigned long long*>(&report[kDisorderedSlot]), 1ull);
}

__device__ std::int64_t unit_id(const BinSpikes& p, std::int64_t i) {
  return p.wide_units ? static_cast<const std::int64_t*>(p.units)[i]
                      : static_cast<const std::int32_t*>(p.units)[i];
}

template <typename T>
__device__ void count_spike(const BinSpikes& p, std::int32_t* totals, Uncounted& uncounted,
                            std::int64_t window, std::int64_t i) {
  const T start = window_start(p, window, T{});
  const std::int64_t bin = usable_start(start) ? bin_of(p, start, static_cast<const T*>(p.times)[i]) : -1;
  if (bin < 0) {
    uncounted.outside += p.starts == nullptr;
    return;
  }
  const std::int64_t column = column_of(p, unit_id(p, i));
  if (column >= 0) {
    atomicAdd(&totals[(window * p.n_bins + bin) * p.n_units + column], 1);
  } else if (column == kUnknown) {
    ++uncounted.unknown;
  } else {
    ++uncounted.unmapped;
  }
}

// One window, or spikes in any order: every spike meets every window.
template <typename T>
__global__ void count_by_spike(BinSpikes p, std::int32_t* totals, std::int64_t* report) {
  if (p.starts != nullptr && report[kDisorderedSlot] == 0) return;
  Uncounted uncounted;
  for (std::int64_t i = first_item(); i < p.n_spikes; i += item_stride())
    for (std::int64_t window = 0; window < p.n_windows; ++window)
      count_spike<T>(p, totals, uncounted, window, i);
  uncounted.add_to(report);
}

template <typename T>
__device__ std::int64_t first_at_least(const T* times, std::int64_t n, T value) {
  std::int64_t low = 0, high = n;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    if (times[middle] < value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Sorted spikes: a block takes a window and strides over its spikes.
template <typename T>
__global__ void count_by_window(BinSpikes p, std::int32_t* totals, std::int64_t* report) {
  if (report[kDisorderedSlot] != 0) return;
  Uncounted uncounted;
  const T* times = static_cast<const T*>(p.times);
  for (std::int64_t window = blockIdx.x; window < p.n_windows; window += gridDim.x) {
    const T start = window_start(p, window, T{});
    if (!usable_start(start)) continue;
    const T limit = bin_limit(p, start, p.n_bins);
    std::int64_t i = first_at_least(times, p.n_spikes, bin_edge(p, start, 0)) + threadIdx.x;
    for (; i < p.n_spikes && times[i] < limit; i += blockDim.x)
      count_spike<T>(p, totals, uncounted, window, i);
  }
  uncounted.add_to(report);
}

template <typename Out>
__device__ void store(const BinSpikes& p, std::int64_t i, std::int32_t count) {
  static_cast<Out*>(p.counts)[i] = static_cast<Out>(count);
}

__global__ void convert_totals(BinSpikes p, const std::int32_t* totals, std::int64_t* report) {
  const std::int64_t n_cells = p.n_windows * p.n_bins * p.n_units;
  std::int64_t largest = 0;
  for (std::int64_t i = first_item(); i < n_cells; i += item_stride()) {
    const std::int32_t total = totals[i];
    largest = largest < total ? total : largest;
    const std::int32_t count = total < p.largest_exact ? total : static_cast<std::int32_t>(p.largest_exact);
    switch (p.count_type) {
      case CountType::u8:
        store<std::uint8_t>(p, i, count);
        break;
      case CountType::i16:
      case CountType::u16:
        store<std::uint16_t>(p, i, count);
        break;
      case CountType::i32:
        store<std::int32_t>(p, i, count);
        break;
      case CountType::i64:
        store<std::int64_t>(p, i, count);
        break;
      case CountType::f16:
        store<std::uint16_t>(p, i, half_bits(static_cast<std::uint32_t>(count)));
        break;
      case CountType::bf16:
        store<std::uint16_t>(p, i, bfloat16_bits(static_cast<std::uint32_t>(count)));
        break;
      case CountType::f32:
        store<float>(p, i, count);
        break;
      case CountType::f64:
        store<double>(p, i, count);
        break;
    }
  }
  if (largest > 0) {
    atomicMax(reinterpret_cast<unsigned long long*>(&report[kLargestSlot]),
              static_cast<unsigned long long>(largest));
  }
}

unsigned blocks_for(std::int64_t n_items) {
  const unsigned blocks = grid_size(n_items, kThreads);
  return blocks < kMaxBlocks ? blocks : kMaxBlocks;
}

template <typename T>
void count_all(const BinSpikes& p, std::int32_t* totals, std::int64_t* report, void* stream) {
  if (p.starts != nullptr) {
    NK_LAUNCH(check_order<T>, blocks_for(p.n_spikes), kThreads, stream, p, report);
    const unsigned blocks = grid_size(p.n_windows, 1);
    NK_LAUNCH(count_by_window<T>, blocks < kMaxBlocks ? blocks : kMaxBlocks, kThreads, stream, p, totals,
              report);
  }
  NK_LAUNCH(count_by_spike<T>, blocks_for(p.n_spikes), kThreads, stream, p, totals, report);
}

}  // namespace

void bin_spikes_cuda(const BinSpikes& p, std::int32_t* totals, std::int64_t* report, void* stream) {
  const std::int64_t n_cells = p.n_windows * p.n_bins * p.n_units;
  NK_LAUNCH(clear_totals, blocks_for(n_cells), kThreads, stream, totals, n_cells, report);
  if (p.integer_times) {
    count_all<std::int64_t>(p, totals, report, stream);
  } else {
    count_all<double>(p, totals, report, stream);
  }
  NK_LAUNCH(convert_totals, blocks_for(n_cells), kThreads, stream, p, totals, report);
}

}  // namespace neurokern
