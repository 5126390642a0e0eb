// One window, spikes in any order. Shared out by row first, so that each counter is touched in shared memory
// alone: a count added in global memory costs 64 bytes of traffic, a spike that is moved once costs 8.
//   size_buckets   how many spikes of each share of the input lie in each bucket of rows
//   fill_buckets   a share reserves its places in every bucket, and writes each spike as the number of its
//                  counter there
//   count_items    counts the keys of an item's bucket (cuda_items.cuh)
// The places depend on which block comes first; the counts do not.
#pragma once

#include "bin_spikes/cuda_sorted.cuh"

namespace neurokern {
namespace {

// Nothing is to be done again if the order was not known, but right.
__device__ bool was_in_order(const CountPlan& plan) { return plan.checks_order && *plan.disordered == 0; }

__device__ std::uint32_t bucket_of(const CountPlan& plan, std::int64_t row) {
  if (row <= 0xFFFFFFFF &&
      plan.rows_per_bucket <= 0xFFFFFFFF)  // a division of 64 bits takes four times as long
    return static_cast<std::uint32_t>(row) / static_cast<std::uint32_t>(plan.rows_per_bucket);
  return static_cast<std::uint32_t>(row / plan.rows_per_bucket);
}

__device__ Range share_of(const BinSpikes& p, const CountPlan& plan) {
  const std::int64_t size = p.n_spikes / plan.n_shares, rest = p.n_spikes % plan.n_shares, i = blockIdx.x;
  return {size * i + rest * i / plan.n_shares, size * (i + 1) + rest * (i + 1) / plan.n_shares};
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 3)
    size_buckets(BinSpikes p, CountPlan plan, std::int64_t* report) {
  NK_DYNAMIC_SHARED(std::uint32_t, sizes);
  if (was_in_order(plan)) return;
  if (plan.checks_order && blockIdx.x == 0 && threadIdx.x == 0) {
    // What the attempt in order left behind.
    *plan.n_heavy = 0;
    for (int slot = 0; slot < kReportSlots; ++slot) report[slot] = 0;
    if (p.starts == nullptr) report[kOutsideSlot] = p.n_spikes;
  }
  for (std::int64_t b = threadIdx.x; b < plan.n_buckets; b += kThreads) sizes[b] = 0;
  __syncthreads();
  const Rows<T> rows(p, window_start(p, 0, T{}), 0, p.n_bins);
  const Range share = share_of(p, plan);
  for_spikes<Ids::none>(p, rows, share.first, share.end, false,
                        [&](std::int64_t, std::int64_t row) { atomicAdd(&sizes[bucket_of(plan, row)], 1u); });
  __syncthreads();
  for (std::int64_t b = threadIdx.x; b < plan.n_buckets; b += kThreads) {
    plan.share_buckets[blockIdx.x * plan.n_buckets + b] = sizes[b];
    if (sizes[b] != 0) atomicAdd(&plan.buckets[b], static_cast<unsigned long long>(sizes[b]));
  }
}

// Sums of the numbers of all threads before this one. `sums` is shared, 2 * kThreads long.
__device__ std::int64_t sum_before(std::int64_t number, std::int64_t* sums) {
  const int i = threadIdx.x;
  std::int64_t *from = sums, *to = sums + kThreads;
  from[i] = number;
  __syncthreads();
  for (int distance = 1; distance < kThreads; distance *= 2) {
    to[i] = from[i] + (i >= distance ? from[i - distance] : 0);
    __syncthreads();
    std::int64_t* const other = from;
    from = to;
    to = other;
  }
  return from[i] - number;
}

// Where each bucket starts, from the sizes of all, and there this share's own place. Each block adds up the
// sizes for itself; the first leaves the starts for count_items.
__device__ void reserve_places(const CountPlan& plan, std::int64_t* places, std::int64_t* sums) {
  const std::int64_t each = (plan.n_buckets + kThreads - 1) / kThreads, first = threadIdx.x * each;
  const std::int64_t end = first + each < plan.n_buckets ? first + each : plan.n_buckets;
  std::int64_t own = 0;
  for (std::int64_t b = first; b < end; ++b) own += static_cast<std::int64_t>(plan.buckets[b]);
  std::int64_t start = sum_before(own, sums);
  for (std::int64_t b = first; b < end; ++b) {
    const unsigned long long n = plan.share_buckets[blockIdx.x * plan.n_buckets + b];
    const unsigned long long taken = n != 0 ? atomicAdd(&plan.cursors[b], n) : 0;
    places[b] = start + static_cast<std::int64_t>(taken);
    if (blockIdx.x == 0) plan.bucket_starts[b] = start;
    start += static_cast<std::int64_t>(plan.buckets[b]);
    if (blockIdx.x == 0 && b + 1 == plan.n_buckets) plan.bucket_starts[b + 1] = start;
  }
}

__device__ void place_spike(const BinSpikes& p, const CountPlan& plan, std::int64_t id, std::int64_t row,
                            const std::int64_t* places, std::uint32_t* placed, Tally& tally) {
  ++tally.inside;
  const std::uint32_t bucket = bucket_of(plan, row);
  const std::int64_t column = column_of(p, id);
  tally.unknown += column == kUnknown;
  tally.unmapped += column == kUnmapped;
  const std::int64_t cell = (row - bucket * plan.rows_per_bucket) * p.n_units + column;
  plan.keys[places[bucket] + atomicAdd(&placed[bucket], 1u)] =
      column < 0 ? kNoKey : static_cast<std::uint32_t>(cell);
}

template <typename T, Ids kIds>
__global__ void __launch_bounds__(kThreads, 2)
    fill_buckets(BinSpikes p, CountPlan plan, std::int64_t* report) {
  NK_DYNAMIC_SHARED(std::int64_t, places);
  NK_SHARED(std::int64_t, scan, 2 * kThreads);
  NK_SHARED(unsigned long long, sums, kReportSlots);
  if (was_in_order(plan)) return;
  std::uint32_t* placed = reinterpret_cast<std::uint32_t*>(places + plan.n_buckets);
  reserve_places(plan, places, scan);
  for (std::int64_t b = threadIdx.x; b < plan.n_buckets; b += kThreads) placed[b] = 0;
  __syncthreads();
  const Rows<T> rows(p, window_start(p, 0, T{}), 0, p.n_bins);
  const Range share = share_of(p, plan);
  Tally tally;
  for_spikes<kIds>(p, rows, share.first, share.end, false, [&](std::int64_t id, std::int64_t row) {
    place_spike(p, plan, id, row, places, placed, tally);
  });
  tally.add_to(p, report, sums);
}

// Source: what fill_buckets wrote. The tally is made already.
struct Keys {
  static constexpr bool kChecksOrder = false;
  static constexpr int kBlocks = 4;
  static constexpr int kKeysTogether = 8;

  static __device__ bool leaves(const BinSpikes&, const CountPlan& plan) { return was_in_order(plan); }

  static __device__ bool packs(const BinSpikes&, Range range) {
    return range.end - range.first <= kMostPacked;
  }

  static __device__ Range range(const BinSpikes&, const CountPlan& plan, const Item& item) {
    const std::uint32_t bucket = bucket_of(plan, item.row);
    return {plan.bucket_starts[bucket], plan.bucket_starts[bucket + 1]};
  }

  static __device__ void count(const BinSpikes& p, const CountPlan& plan, const Item& item,
                               std::uint32_t first, const Tile& tile, Range range, Tally&) {
    const std::int64_t bucket_row = bucket_of(plan, item.row) * plan.rows_per_bucket;
    const std::uint32_t tile_cell =
        static_cast<std::uint32_t>((item.row - bucket_row) * p.n_units + item.first_column + first);
    for (std::int64_t i = range.first + threadIdx.x; i < range.end; i += kKeysTogether * kThreads) {
      std::uint32_t key[kKeysTogether];
      NK_UNROLL
      for (int j = 0; j < kKeysTogether; ++j)
        key[j] = i + j * kThreads < range.end ? plan.keys[i + j * kThreads] : kNoKey;
      NK_UNROLL
      for (int j = 0; j < kKeysTogether; ++j) {
        const std::uint32_t cell = key[j] - tile_cell;
        if (key[j] != kNoKey && cell < tile.n_cells) tile.add(cell);
      }
    }
  }

  static __device__ void finish(const BinSpikes&, const CountPlan&) {}
};

}  // namespace
}  // namespace neurokern
