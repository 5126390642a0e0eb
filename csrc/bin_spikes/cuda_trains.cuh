// Windows of spikes that come as trains, each in the order of time: a thread finds an item's spikes of a
// train by search, and a warp shares those of a train that has many.
#pragma once

#include "bin_spikes/cuda_sorted.cuh"

namespace neurokern {
namespace {

// Source: trains. Its ranges are of trains, not spikes.
template <typename T>
struct Trains {
  static constexpr int kBlocks = 2;
  static constexpr bool kChecksOrder = false;
  static constexpr std::int64_t kFew = 32;  // spikes that a thread counts alone

  static __device__ bool leaves(const BinSpikes&, const CountPlan& plan) { return *plan.disordered != 0; }

  static __device__ Range range(const BinSpikes& p, const CountPlan&, const Item&) { return {0, p.n_trains}; }

  static __device__ bool packs(const BinSpikes& p, Range) { return p.n_spikes <= kMostPacked; }

  static __device__ std::int64_t search(const BinSpikes& p, Range spikes, T value) {
    const T* times = static_cast<const T*>(p.times);
    while (spikes.first < spikes.end) {
      const std::int64_t middle = spikes.first + (spikes.end - spikes.first) / 2;
      if (times[middle] < value) {
        spikes.first = middle + 1;
      } else {
        spikes.end = middle;
      }
    }
    return spikes.first;
  }

  static __device__ Range spikes_of(const BinSpikes& p, const Item& item, T start, std::int64_t train) {
    if (!usable_start(start)) return {0, 0};
    const Train all(p, train);
    const std::int64_t first = search(p, {all.first, all.end}, bin_edge(p, start, item.row));
    return {first, search(p, {first, all.end}, bin_limit(p, start, item.row + item.n_rows))};
  }

  static __device__ void count(const BinSpikes& p, const CountPlan&, const Item& item, std::uint32_t first,
                               const Tile& tile, Range range, Tally& tally) {
    const T* times = static_cast<const T*>(p.times);
    const T start = window_start(p, item.window, T{});
    const Rows<T> rows(p, start, item.row, item.n_rows);
    const auto count_some = [&](Range spikes, std::int64_t train, std::int64_t step) {
      for (std::int64_t i = spikes.first; i < spikes.end; i += step) {
        const int quick = rows.quick(times[i]);
        const std::int64_t row = quick == kNearEdge ? rows.exact(p, times[i]) : quick;
        if (row >= 0) count_cell(p, item, first, tile, static_cast<std::uint32_t>(row), train, tally);
      }
    };
    const std::int64_t lane = threadIdx.x % 32;
    for (std::int64_t base = range.first + threadIdx.x - lane; base < range.end; base += kThreads) {
      Range spikes{0, 0};
      if (base + lane < range.end) spikes = spikes_of(p, item, start, base + lane);
      const bool many = spikes.end - spikes.first > kFew;
      if (!many) count_some(spikes, base + lane, 1);
      for (unsigned rest = __ballot_sync(kWholeWarp, many); rest != 0; rest &= rest - 1) {
        const int source = __ffs(static_cast<int>(rest)) - 1;
        const std::int64_t begin = __shfl_sync(kWholeWarp, spikes.first, source);
        const std::int64_t end = __shfl_sync(kWholeWarp, spikes.end, source);
        count_some({begin + lane, end}, base + source, 32);
      }
    }
  }

  static __device__ void finish(const BinSpikes&, const CountPlan&) {}
};

}  // namespace
}  // namespace neurokern
