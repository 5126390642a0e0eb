// Spikes in the order of time: an item's spikes are found by search. The same kernels count spikes in any
// order where every item looks at all of them.
#pragma once

#include "bin_spikes/cuda_items.cuh"
#include "bin_spikes/cuda_rows.cuh"

namespace neurokern {
namespace {

// The state that later kernels find: an empty report, no heavy items, empty buckets.
__device__ void clear_state(const BinSpikes& p, const CountPlan& plan, std::int64_t* report) {
  const std::int64_t i = first_item();
  if (i < kReportSlots)
    report[i] = i == kOutsideSlot && p.starts == nullptr && p.n_windows == 1 ? p.n_spikes : 0;
  if (i == 0) {
    *plan.disordered = 0;
    *plan.n_heavy = 0;
  }
  for (std::int64_t b = i; b < plan.n_buckets; b += item_stride()) {
    plan.buckets[b] = 0;
    plan.cursors[b] = 0;
  }
}

__global__ void begin(BinSpikes p, CountPlan plan, std::int64_t* report) { clear_state(p, plan, report); }

// Sets `disordered` if the times of two neighbours in [first, end] are not in order. NaN never is. The last
// of a train and the first of the next need not be.
template <typename T>
__device__ void check_order_of(const BinSpikes& p, std::int64_t first, std::int64_t end,
                               unsigned* disordered) {
  const T* times = static_cast<const T*>(p.times);
  const std::int64_t lane = threadIdx.x % 32;
  for (std::int64_t i = first + first_item() - lane; i < end; i += item_stride()) {
    const std::int64_t at = i + lane;
    bool wrong = at < end && !(times[at] <= times[at + 1]);
    if (wrong && p.train_ends != nullptr) {
      Train train;
      wrong = train_id(p, at, train) == train_id(p, at + 1, train);
    }
    if (!__any_sync(kWholeWarp, wrong)) continue;
    if (lane == 0) atomicOr(disordered, 1u);
    return;
  }
}

template <typename T>
__global__ void check_order(BinSpikes p, CountPlan plan) {
  check_order_of<T>(p, 0, p.n_spikes - 1, plan.disordered);
}

// The first spike at or after `value`, found by a warp: 32 probes a step. In bounds, and not decreasing in
// `value`, even if the times are in no order.
template <typename T>
__device__ std::int64_t first_at_least(const T* times, std::int64_t n, T value) {
  const std::int64_t lane = threadIdx.x % 32;
  std::int64_t low = 0, high = n;
  while (low < high) {
    const std::int64_t step = (high - low + 31) / 32, probe = low + (lane + 1) * step - 1;
    const bool earlier = probe < high && times[probe] < value;
    const std::int64_t n_earlier = __popc(__ballot_sync(kWholeWarp, earlier));
    const std::int64_t end = low + (n_earlier + 1) * step - 1;  // the first probe that is not earlier
    low += n_earlier * step;
    high = end < high ? end : high;
  }
  return low;
}

// A warp for each end of a strip of rows. `clears`: this is the first kernel.
template <typename T>
__global__ void find_ranges(BinSpikes p, CountPlan plan, std::int64_t* report, bool clears) {
  if (clears) {
    clear_state(p, plan, report);
  } else if (*plan.disordered != 0) {
    return;
  }
  const std::int64_t per_window = plan.row_items + 1, n_ends = p.n_windows * per_window;
  for (std::int64_t i = first_item() / 32; i < n_ends; i += item_stride() / 32) {
    const std::int64_t window = i / per_window, row = (i - window * per_window) * plan.rows_per_item;
    const T start = window_start(p, window, T{});
    std::int64_t at = 0;
    if (usable_start(start)) {
      const T value = row < p.n_bins ? bin_edge(p, start, row) : bin_limit(p, start, p.n_bins);
      at = first_at_least(static_cast<const T*>(p.times), p.n_spikes, value);
    }
    if (threadIdx.x % 32 == 0) plan.ranges[i] = at;
  }
}

// Source: spikes as they come, times in seconds or samples.
template <typename T, Ids kIds>
struct Spikes {
  static constexpr bool kChecksOrder = true;
  static constexpr int kBlocks = 2;

  static __device__ bool leaves(const BinSpikes&, const CountPlan& plan) {
    return kIds == Ids::trains && !plan.scans_all && *plan.disordered == 0;
  }

  static __device__ bool packs(const BinSpikes&, Range range) {
    return range.end - range.first <= kMostPacked;
  }

  static __device__ Range range(const BinSpikes& p, const CountPlan& plan, const Item& item) {
    if (plan.scans_all || (plan.checks_before && *plan.disordered != 0)) return {0, p.n_spikes};
    const std::int64_t* ends =
        plan.ranges + item.window * (plan.row_items + 1) + item.row / plan.rows_per_item;
    return {ends[0], ends[1]};
  }

  static __device__ void count(const BinSpikes& p, const CountPlan& plan, const Item& item,
                               std::uint32_t first, const Tile& tile, Range range, Tally& tally) {
    const Rows<T> rows(p, window_start(p, item.window, T{}), item.row, item.n_rows);
    const auto found = [&](std::int64_t id, std::int64_t row) {
      count_cell(p, item, first, tile, static_cast<std::uint32_t>(row), id, tally);
    };
    const bool wrong = for_spikes<kIds>(p, rows, range.first, range.end, plan.checks_order, found);
    if (!plan.checks_order) return;
    if (__any_sync(kWholeWarp, wrong) && threadIdx.x % 32 == 0) atomicOr(plan.disordered, 1u);
  }

  // Together the items have looked at the spikes inside the bins; these are the others.
  static __device__ void finish(const BinSpikes& p, const CountPlan& plan) {
    if (!plan.checks_order) return;
    const std::int64_t first = plan.ranges[0], end = plan.ranges[plan.row_items], last = p.n_spikes - 1;
    check_order_of<T>(p, 0, first < last ? first : last, plan.disordered);
    check_order_of<T>(p, end, last, plan.disordered);
  }
};

}  // namespace
}  // namespace neurokern
