// The frame of every way to count: blocks of threads take items, count the item's spikes in a tile, and store
// it. An item with very many spikes is left to all blocks together: each counts some of its spikes, and the
// tiles are added up in global memory.
//
// A Source says where an item's spikes lie and how to count some of them:
//   leaves(p, plan)            whether there is nothing to do
//   range(p, plan, item)       first spike and end
//   packs(p, range)            whether 16 bits are sure to hold each count
//   count(p, plan, item, first, tile, range, tally)   those that belong to the tile, which begins with
//   counter
//                              `first` of the item
//   finish(p, plan)            after the last item
//   kBlocks                    that fit on a multiprocessor with the registers they need
//   kChecksOrder               whether it may find that all is to be done again, for unsorted spikes
#pragma once

#include "bin_spikes/cuda_tile.cuh"

namespace neurokern {
namespace {

// Where the numbers of the report lie.
enum ReportSlot { kOutsideSlot, kUnknownSlot, kUnmappedSlot, kLargestSlot, kReportSlots };

struct Item {
  std::int64_t window, row, strip;  // strip: of the ranges of rows of all windows
  std::int64_t first_cell;          // of the output
  std::uint32_t n_rows, first_column, n_cells;
};

struct Range {
  std::int64_t first, end;
};

__device__ Item item_at(const BinSpikes& p, const CountPlan& plan, std::int64_t index) {
  Item item;
  item.strip = index / plan.column_items;
  item.window = item.strip / plan.row_items;
  item.row = (item.strip - item.window * plan.row_items) * plan.rows_per_item;
  const std::int64_t column = (index - item.strip * plan.column_items) * plan.columns_per_item;
  const std::int64_t rows = p.n_bins - item.row, columns = p.n_units - column;
  const std::int64_t n_columns = columns < plan.columns_per_item ? columns : plan.columns_per_item;
  item.n_rows = static_cast<std::uint32_t>(rows < plan.rows_per_item ? rows : plan.rows_per_item);
  item.first_column = static_cast<std::uint32_t>(column);
  item.n_cells = item.n_rows * static_cast<std::uint32_t>(n_columns);
  item.first_cell = (item.window * p.n_bins + item.row) * p.n_units + column;
  return item;
}

// What a thread saw beside the counts.
struct Tally {
  std::uint32_t inside = 0, unknown = 0, unmapped = 0, largest = 0;

  static __device__ void add(std::int64_t* slot, std::uint64_t value) {
    if (value != 0)
      atomicAdd(reinterpret_cast<unsigned long long*>(slot), static_cast<unsigned long long>(value));
  }

  // Called by all threads of a block; `sums` is shared.
  __device__ void add_to(const BinSpikes& p, std::int64_t* report, unsigned long long* sums) const {
    if (threadIdx.x < kReportSlots) sums[threadIdx.x] = 0;
    __syncthreads();
    if (inside != 0) atomicAdd(&sums[kOutsideSlot], static_cast<unsigned long long>(inside));
    if (unknown != 0) atomicAdd(&sums[kUnknownSlot], static_cast<unsigned long long>(unknown));
    if (unmapped != 0) atomicAdd(&sums[kUnmappedSlot], static_cast<unsigned long long>(unmapped));
    atomicMax(&sums[kLargestSlot], static_cast<unsigned long long>(largest));
    __syncthreads();
    if (threadIdx.x != 0) return;
    if (p.starts == nullptr) add(&report[kOutsideSlot], 0 - sums[kOutsideSlot]);  // it began with all spikes
    add(&report[kUnknownSlot], sums[kUnknownSlot]);
    add(&report[kUnmappedSlot], sums[kUnmappedSlot]);
    if (sums[kLargestSlot] != 0)
      atomicMax(reinterpret_cast<unsigned long long*>(&report[kLargestSlot]), sums[kLargestSlot]);
  }
};

// Adds a spike in row `row` of the item to its counter. Of a row cut into several tiles, the one with the
// first column keeps the tally.
__device__ void count_cell(const BinSpikes& p, const Item& item, std::uint32_t first, const Tile& tile,
                           std::uint32_t row, std::int64_t id, Tally& tally) {
  const std::uint32_t row_cell = row * static_cast<std::uint32_t>(p.n_units) - item.first_column - first;
  const bool tallies = row_cell < tile.n_cells || p.n_units == 0;
  tally.inside += tallies;
  const std::int64_t column = column_of(p, id);
  if (column >= 0) {
    const std::uint32_t cell = row_cell + static_cast<std::uint32_t>(column);
    if (cell < tile.n_cells) tile.add(cell);
  } else if (tallies) {
    tally.unknown += column == kUnknown;
    tally.unmapped += column != kUnknown;
  }
}

// Counts a range of the item's spikes tile by tile; `finish(tile, first)` is called with every full tile.
template <typename Source, typename Finish>
__device__ void count_tiles(const BinSpikes& p, const CountPlan& plan, const Item& item, Range range,
                            std::uint32_t* words, Tally& tally, const Finish& finish) {
  const bool packed = Source::packs(p, range);
  const std::uint32_t step = packed ? item.n_cells : static_cast<std::uint32_t>(plan.tile_words - kPadCells);
  std::uint32_t first = 0;
  do {
    const std::uint32_t n_cells = item.n_cells - first < step ? item.n_cells - first : step;
    const Tile tile = make_tile(p, words, item.first_cell + first, n_cells, packed);
    tile.clear();
    __syncthreads();
    Source::count(p, plan, item, first, tile, range, tally);
    __syncthreads();
    finish(tile, first);
    __syncthreads();
    first += step;
  } while (first < item.n_cells);
}

// What the block's first thread wrote to *shared, for all its threads.
__device__ unsigned of_first_thread(const unsigned* shared) {
  __syncthreads();
  const unsigned value = *shared;
  __syncthreads();
  return value;
}

// Whether some block has found the spikes out of order by now.
__device__ bool is_disordered(const CountPlan& plan, unsigned* shared) {
  if (threadIdx.x == 0) *shared = atomicOr(plan.disordered, 0u);
  return of_first_thread(shared) != 0;
}

// True if the item may be left to count_heavy, with a slot of its own. All threads of a block get one answer.
__device__ bool takes_slot(const CountPlan& plan, std::int64_t index, unsigned* shared) {
  if (threadIdx.x == 0) *shared = atomicAdd(plan.n_heavy, 1u);
  const unsigned slot = of_first_thread(shared);
  if (slot >= plan.n_slots) return false;
  if (threadIdx.x == 0) plan.slot_items[slot] = index;
  std::uint32_t* totals = plan.slot_totals + slot * plan.slot_cells;
  for (std::int64_t i = threadIdx.x; i < plan.slot_cells; i += kThreads) totals[i] = 0;
  return true;
}

template <typename Source>
__global__ void __launch_bounds__(kThreads, Source::kBlocks)
    count_items(BinSpikes p, CountPlan plan, std::int64_t* report) {
  NK_DYNAMIC_SHARED(std::uint32_t, words);
  NK_SHARED(unsigned long long, sums, kReportSlots);
  NK_SHARED(unsigned, shared, 1);
  if (Source::leaves(p, plan)) return;
  Tally tally;
  for (std::int64_t index = blockIdx.x; index < plan.n_items; index += gridDim.x) {
    if (Source::kChecksOrder && plan.checks_order && is_disordered(plan, shared)) break;
    const Item item = item_at(p, plan, index);
    const Range range = Source::range(p, plan, item);
    if (range.end - range.first > plan.heavy_spikes && takes_slot(plan, index, shared)) continue;
    count_tiles<Source>(p, plan, item, range, words, tally, [&](const Tile& tile, std::uint32_t first) {
      const std::uint32_t largest = store_tile(p, tile, item.first_cell + first, threadIdx.x, kThreads);
      tally.largest = tally.largest < largest ? largest : tally.largest;
    });
  }
  Source::finish(p, plan);
  tally.add_to(p, report, sums);
}

// The part of a heavy item's spikes that this block counts, if any. `offset` walks on from item to item, so
// that items with few parts go to different blocks.
__device__ Range part_of(const CountPlan& plan, Range range, unsigned& offset) {
  const std::int64_t n = range.end - range.first, wanted = n / (plan.heavy_spikes / 4 + 1) + 1;
  const unsigned n_parts = static_cast<unsigned>(wanted < gridDim.x ? wanted : gridDim.x);
  const unsigned part = (blockIdx.x + gridDim.x - offset) % gridDim.x;
  offset = (offset + n_parts) % gridDim.x;
  if (part >= n_parts) return {0, 0};
  return {range.first + n / n_parts * part + (n % n_parts) * part / n_parts,
          range.first + n / n_parts * (part + 1) + (n % n_parts) * (part + 1) / n_parts};
}

template <typename Source>
__global__ void __launch_bounds__(kThreads, 2)
    count_heavy(BinSpikes p, CountPlan plan, std::int64_t* report) {
  NK_DYNAMIC_SHARED(std::uint32_t, words);
  NK_SHARED(unsigned long long, sums, kReportSlots);
  if (Source::leaves(p, plan)) return;
  Tally tally;
  unsigned offset = 0;
  const std::int64_t n_slots = *plan.n_heavy < plan.n_slots ? *plan.n_heavy : plan.n_slots;
  for (std::int64_t slot = 0; slot < n_slots; ++slot) {
    const Item item = item_at(p, plan, plan.slot_items[slot]);
    const Range part = part_of(plan, Source::range(p, plan, item), offset);
    if (part.first == part.end) continue;
    std::uint32_t* totals = plan.slot_totals + slot * plan.slot_cells;
    count_tiles<Source>(p, plan, item, part, words, tally, [&](const Tile& tile, std::uint32_t first) {
      const std::uint32_t pad = make_tile(p, totals, item.first_cell, item.n_cells, false).pad;
      for (std::uint32_t cell = threadIdx.x; cell < tile.n_cells; cell += kThreads)
        if (const std::uint32_t count = tile.count(cell)) atomicAdd(&totals[pad + first + cell], count);
    });
  }
  tally.add_to(p, report, sums);
}

constexpr unsigned kBlocksPerSlot = 8;

__global__ void store_heavy(BinSpikes p, CountPlan plan, std::int64_t* report) {
  NK_SHARED(unsigned long long, sums, kReportSlots);
  const unsigned slot = blockIdx.x / kBlocksPerSlot, part = blockIdx.x % kBlocksPerSlot;
  if (slot >= *plan.n_heavy) return;
  const Item item = item_at(p, plan, plan.slot_items[slot]);
  const Tile tile =
      make_tile(p, plan.slot_totals + slot * plan.slot_cells, item.first_cell, item.n_cells, false);
  Tally tally;
  tally.largest =
      store_tile(p, tile, item.first_cell, part * kThreads + threadIdx.x, kBlocksPerSlot * kThreads);
  tally.add_to(p, report, sums);
}

}  // namespace
}  // namespace neurokern
