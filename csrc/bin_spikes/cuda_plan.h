// How counting is cut up on a GPU, and the scratch memory that takes: plain numbers, made on the host.
//
// The counts are cut into items: rows [row, row + n_rows) of one window, as many as the counters of a block's
// shared memory hold (or, of rows too wide for that, columns of one row). An item lies in one piece in the
// output.
#pragma once

#include <cstdint>

#include "bin_spikes/bin_spikes.h"

namespace neurokern {

constexpr std::int64_t kPadCells = 15;  // before the first counter, so that 16-byte stores meet aligned ones
constexpr std::int64_t kGroupCells = 16;  // read together; tiles are whole groups
constexpr std::uint32_t kNoKey = 0xFFFFFFFFu;

struct CountPlan {
  std::int64_t rows_per_item, columns_per_item, row_items, column_items, n_items;
  std::int64_t item_cells, tile_words;
  std::int64_t heavy_spikes;  // an item with more spikes is shared by many blocks, ...
  std::int64_t n_slots;       // ... of the first n_slots such items
  std::int64_t slot_cells;
  std::int64_t n_buckets, rows_per_bucket, n_shares;
  bool scans_all;        // order plays no part: every item looks at every spike
  bool checks_order;     // one window: the order is checked while counting
  bool checks_before;    // several windows: before it
  bool may_partition;    // one window: unsorted spikes are first shared out by row, ...
  bool only_partitions;  // ... and it is known that they will be

  std::int64_t* ranges;          // (n_windows, row_items + 1): first spike of each item's rows, and the end
  unsigned* disordered;          // is some spike earlier than the one before it?
  unsigned* n_heavy;             // heavy items so far; may exceed n_slots
  std::int64_t* slot_items;      // (n_slots,)
  std::uint32_t* slot_totals;    // (n_slots, slot_cells)
  unsigned long long* buckets;   // (n_buckets,) spikes in each
  unsigned long long* cursors;   // (n_buckets,) of which are placed
  std::int64_t* bucket_starts;   // (n_buckets + 1,)
  std::uint32_t* share_buckets;  // (n_shares, n_buckets) spikes of each share in each bucket
  std::uint32_t* keys;           // (n_spikes,) counter within the bucket, kNoKey for a unit without a column
};

struct SmoothPlan {
  float* counts;                 // (n_windows, n_bins, n_units)
  float *starts, *ends;          // (n_windows, n_chunks, n_units) exponential: state around each chunk
  std::int64_t chunk, n_chunks;  // rows of a chunk
  std::int64_t most_warm_up;     // rows before a chunk
};

inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
inline std::int64_t most(std::int64_t a, std::int64_t b) { return a < b ? b : a; }
inline std::int64_t parts(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }

inline std::int64_t whole_groups(std::int64_t n_cells) {
  return parts(n_cells + kPadCells, kGroupCells) * kGroupCells;
}

// Hands out pieces of the workspace; without one it only adds up.
class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<char*>(memory)) {}
  template <typename T>
  void take(T*& array, std::int64_t n) {
    array = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + bytes_);
    bytes_ += parts(n * static_cast<std::int64_t>(sizeof(T)), 256) * 256;
  }
  std::int64_t bytes() const { return bytes_; }

 private:
  char* memory_;
  std::int64_t bytes_ = 0;
};

inline void cut_into_items(const BinSpikes& p, const CudaLimits& limits, CountPlan& plan) {
  // Many spikes in windows of trains are counted with 32 bits.
  const bool half = p.train_ends != nullptr && p.n_windows > 1 && p.n_spikes > 0xFFFF;
  const std::int64_t cells = half ? limits.tile_cells / 2 : limits.tile_cells;
  const std::int64_t fitting_rows = cells / most(p.n_units, 1);
  plan.columns_per_item = fitting_rows > 0 ? p.n_units : cells;
  plan.column_items = most(parts(p.n_units, most(plan.columns_per_item, 1)), 1);
  // Few rows for few blocks would leave most of the device without work.
  const std::int64_t spread_rows = parts(p.n_windows * p.n_bins, limits.wanted_items);
  const bool fits = p.n_windows == 1 && p.n_bins > 0 && p.n_bins <= fitting_rows;
  plan.scans_all = fits || (p.order == SpikeOrder::unsorted && p.n_windows > 1);
  const std::int64_t rows = fits ? p.n_bins : least(fitting_rows, spread_rows);
  plan.rows_per_item = most(least(rows, p.n_bins), 1);
  plan.row_items = parts(p.n_bins, plan.rows_per_item);
  plan.n_items = p.n_windows * plan.row_items * plan.column_items;
  plan.item_cells = plan.rows_per_item * plan.columns_per_item;
  plan.tile_words = whole_groups(least(plan.item_cells, limits.tile_cells / 2));
}

inline CountPlan make_plan(const BinSpikes& p, const CudaLimits& limits, Workspace& workspace) {
  CountPlan plan{};
  cut_into_items(p, limits, plan);
  // Trains of one window are shared out by row as unsorted spikes are.
  const bool unknown = p.order == SpikeOrder::unknown, one_window = p.n_windows == 1;
  const bool trains = p.train_ends != nullptr;
  plan.checks_order = unknown && one_window && !plan.scans_all && !trains;
  plan.checks_before = unknown && !one_window;
  plan.may_partition =
      one_window && !plan.scans_all && plan.n_items > 0 && (trains || p.order != SpikeOrder::claimed_sorted);
  plan.only_partitions = plan.may_partition && !plan.checks_order;
  plan.heavy_spikes = plan.scans_all && one_window ? limits.heavy_spikes / 16 : limits.heavy_spikes;
  plan.n_slots = p.n_spikes > plan.heavy_spikes ? least(plan.n_items, limits.heavy_slots) : 0;
  plan.slot_cells = whole_groups(plan.item_cells);
  if (plan.may_partition) {
    const std::int64_t row_items = parts(plan.row_items, least(plan.row_items, limits.buckets));
    plan.rows_per_bucket = plan.rows_per_item * row_items;
    plan.n_buckets = parts(p.n_bins, plan.rows_per_bucket);
    plan.n_shares = most(least(p.n_spikes / 4096, limits.shares), 1);
  }
  workspace.take(plan.disordered, 1);
  workspace.take(plan.n_heavy, 1);
  if (!plan.scans_all && !plan.only_partitions && !trains)
    workspace.take(plan.ranges, p.n_windows * (plan.row_items + 1));
  workspace.take(plan.slot_items, plan.n_slots);
  workspace.take(plan.slot_totals, plan.n_slots * plan.slot_cells);
  workspace.take(plan.buckets, plan.n_buckets);
  workspace.take(plan.cursors, plan.n_buckets);
  workspace.take(plan.bucket_starts, plan.n_buckets + 1);
  workspace.take(plan.share_buckets, plan.n_shares * plan.n_buckets);
  workspace.take(plan.keys, plan.may_partition ? p.n_spikes : 0);
  return plan;
}

inline SmoothPlan make_smooth_plan(const BinSpikes& p, const CudaLimits& limits, Workspace& workspace) {
  SmoothPlan plan{};
  if (p.smoothing == Smoothing::none) return plan;
  plan.chunk = limits.smooth_chunk;
  plan.n_chunks = parts(p.n_bins, plan.chunk);
  plan.most_warm_up = limits.smooth_warm_up;
  workspace.take(plan.counts, p.n_windows * p.n_bins * p.n_units);
  const bool chunked = p.smoothing == Smoothing::exponential && plan.n_chunks > 1;
  workspace.take(plan.starts, chunked ? p.n_windows * plan.n_chunks * p.n_units : 0);
  workspace.take(plan.ends, chunked ? p.n_windows * plan.n_chunks * p.n_units : 0);
  return plan;
}

}  // namespace neurokern
