// Sorted spikes: rows are counted one after the other, and nothing of the output is touched twice.
// Part of bin_spikes_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include "bin_spikes/cpu_blocks.h"
#include "bin_spikes/cpu_cells.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int64_t kBlockCells =
    3200;  // counters of a block, 6.4 KiB of L1. bench_bin_spikes: half or twice are slower
constexpr int64_t kDenseRow = 32;  // spikes of a row from which on it is worth looking for its end

template <typename T>
int64_t first_at_least(const T* times, int64_t n, T value) {
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (times[middle] < value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// True if times[i] <= times[i + 1] for all i in [first, last - 1). NaN is never sorted.
template <typename T>
bool is_sorted(const T* times, int64_t first, int64_t last) {
  typedef T Times __attribute__((vector_size(8 * kLanes)));
  constexpr int64_t kStretch = 512;  // looked at before the answer is
  int64_t i = first;
  while (i + kStretch < last) {
    I64 fine = ~I64{};
    for (const int64_t stop = i + kStretch; i < stop; i += kLanes)
      fine &= load<Times>(times + i) <= load<Times>(times + i + 1);
    if (any_negative(~fine)) return false;
  }
  for (; i + 1 < last; ++i)
    if (!(times[i] <= times[i + 1])) return false;
  return true;
}

// Counts the rows of one window in order. Order shows by where spikes fall: all that are counted lie within
// their block, and the first after it at or beyond its end.
template <typename T, typename U>
struct SortedRows {
  const Job& job;
  const T* times;
  const U* units;
  Quotient<T> quotient;
  int64_t i;  // the next spike

  SortedRows(const Job& j, T start)
      : job(j),
        times(static_cast<const T*>(j.p.times)),
        units(static_cast<const U*>(j.p.units)),
        quotient(j.p, start, j.shape.rows),
        i(0) {}

  // Rows that hold many spikes: sixteen at a time are of one row, until they are not. Works for all bins.
  template <bool kMapped, typename Count>
  bool count_dense(Block<Count>& block, int64_t row, int64_t rows, int64_t stop) {
    T low = bin_edge(job.p, quotient.start, row);
    for (int64_t r = 0; r < rows; ++r) {
      const T high = bin_limit(job.p, quotient.start, row + r + 1);
      Count* cells = block.cells + r * job.p.n_units;
      for (; i + kGroup <= stop && all_within(times + i, low, high); i += kGroup)
        count_in_row<kMapped>(job, cells, units + i);
      for (; i < stop && times[i] >= low && times[i] < high; ++i) ++cells[column_of(job, units[i])];
      if (i < stop && !(times[i] >= high)) return false;
      low = high;
    }
    return true;
  }

  // Rows that hold few spikes, of equal bins: sixteen spikes at a time of whatever rows.
  template <bool kMapped, typename Count>
  bool count_sparse(Block<Count>& block, int64_t row, int64_t rows, int64_t stop) {
    const T limit = bin_limit(job.p, quotient.start, row + rows);
    quotient.set_block(job.p, row, rows);
    const Count& beyond = block.cells[block.beyond(job.shape)];
    for (; i + kGroup <= stop; i += kGroup) {
      count_in_block<kMapped>(job, quotient, block, times + i, units + i, row, rows);
      if (times[i + kGroup - 1] < limit) continue;
      int inside = 0;
      for (int j = 0; j < kGroup; ++j) inside += times[i + j] < limit;
      i += inside;
      return static_cast<int>(beyond) == kGroup - inside;
    }
    return beyond == 0 && count_dense<kMapped>(block, row, rows, stop);
  }

  // False if the spikes turn out not to be sorted.
  template <typename Count>
  bool count(Block<Count>& block, bool dense, int64_t row, int64_t rows, int64_t stop) {
    if (job.columns != nullptr)
      return dense ? count_dense<true>(block, row, rows, stop) : count_sparse<true>(block, row, rows, stop);
    return dense ? count_dense<false>(block, row, rows, stop) : count_sparse<false>(block, row, rows, stop);
  }

  // Counts the block with narrow counters, or with wide ones if it holds too many spikes.
  void bin_block(TaskCounters& to, int64_t window, int64_t row, int64_t rows, Tally& tally) {
    const int64_t first = i, n = job.p.n_spikes;
    const bool dense = to.dense || !quotient.usable;
    if (to.wide.cells == nullptr) {
      const int64_t stop = n - first > kMostNarrow ? first + kMostNarrow : n;
      tally.disordered = !count(to.narrow, dense, row, rows, stop);
      if (i < stop || stop == n) return finish(to, to.narrow, window, row, rows, first, tally);
      i = first;
      tally.out_of_memory = !to.wide.allocate(job.shape);
      if (tally.out_of_memory) return;
    }
    tally.disordered = !count(to.wide, dense, row, rows, n);
    finish(to, to.wide, window, row, rows, first, tally);
  }

  template <typename Count>
  void finish(TaskCounters& to, Block<Count>& block, int64_t window, int64_t row, int64_t rows, int64_t first,
              Tally& tally) {
    if (tally.disordered) return;  // all is done again, without this claim
    finish_block(job, block, window, row, rows, tally);
    to.dense = i - first >= kDenseRow * rows;
  }
};

// Rows [first_row, last_row) of one window.
template <typename T, typename U>
void bin_sorted_rows(const Job& job, TaskCounters& counters, int64_t window, int64_t first_row,
                     int64_t last_row, Tally& tally) {
  const BinSpikes& p = job.p;
  const T start = window_start(p, window, T{});
  const bool empty = !usable_start(start);
  SortedRows<T, U> rows(job, empty ? T{} : start);
  const int64_t first = empty ? 0 : first_at_least(rows.times, p.n_spikes, bin_edge(p, start, first_row));
  rows.i = first;
  for (int64_t row = first_row; row < last_row; row += job.shape.rows) {
    const int64_t n_rows = row + job.shape.rows < last_row ? job.shape.rows : last_row - row;
    if (empty) {
      finish_block(job, counters.narrow, window, row, n_rows, tally);
    } else {
      rows.bin_block(counters, window, row, n_rows, tally);
    }
    if (tally.disordered || tally.out_of_memory) return;
  }
  tally.in_range += rows.i - first;
  if (empty || p.starts != nullptr) return;
  // One window: its row ranges meet, and together with what lies outside they are all spikes.
  if (last_row < p.n_bins) {
    tally.disordered |= first_at_least(rows.times, p.n_spikes, bin_edge(p, start, last_row)) != rows.i;
  } else if (p.order == SpikeOrder::unknown) {
    tally.disordered |= !is_sorted(rows.times, rows.i > 0 ? rows.i - 1 : 0, p.n_spikes);
  }
  if (first_row == 0 && p.order == SpikeOrder::unknown) {
    tally.disordered |= !is_sorted(rows.times, 0, first < p.n_spikes ? first + 1 : first);
  }
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
