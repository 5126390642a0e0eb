// Unsorted spikes of several windows, or that are smoothed: first shared out by time, then counted window by
// window. Part of bin_spikes_cpu.cpp, compiled once per instruction set: no STL, nothing with external
// linkage.
#pragma once

#include <cstdlib>

#include "bin_spikes/cpu_blocks.h"
#include "bin_spikes/cpu_cells.h"
#include "bin_spikes/cpu_chunks.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int64_t kBucketCells = 131072;  // counters of a block, a quarter of a 1 MiB L2
constexpr int64_t kMostBuckets = 2048;    // 300 trials of 2 s: half or a quarter are slower
constexpr int64_t kSpikesPerBucket = 4096;

// Spikes by time; within a bucket they keep no order, and need none. Spikes that no window can hold are left
// out.
template <typename T, typename U>
struct Buckets {
  Chains chains;
  T* times = nullptr;
  U* units = nullptr;
  int64_t n = 1;
  T low{}, high{};
  double scale = 0;
  bool used[kMostBuckets + 1] = {};  // the last one is that of times in no window

  // Monotonic in t by the rounding of each step, so that a range of times is a range of buckets.
  int64_t bucket_of(T t) const {
    const double x = (static_cast<double>(t) - static_cast<double>(low)) * scale;
    const double above = x > 0 ? x : 0, last = static_cast<double>(n - 1);
    return static_cast<int64_t>(above < last ? above : last);
  }

  // Calls run(first, last) with the times at which usable windows begin and end.
  template <typename Run>
  static void for_each_window(const BinSpikes& p, const Run& run) {
    for (int64_t w = 0; w < p.n_windows; ++w) {
      const T start = window_start(p, w, T{});
      if (usable_start(start)) run(bin_edge(p, start, 0), bin_limit(p, start, p.n_bins));
    }
  }

  void cover(const BinSpikes& p) {
    bool any_window = false;
    for_each_window(p, [&](T first, T last) {
      low = !any_window || first < low ? first : low;
      high = !any_window || last > high ? last : high;
      any_window = true;
    });
    n = p.n_spikes / kSpikesPerBucket + 1;
    n = n > kMostBuckets ? kMostBuckets : n;
    const double width = static_cast<double>(high) - static_cast<double>(low);
    scale = width > 0 ? static_cast<double>(n) / width : 0;
    for_each_window(p, [&](T first, T last) {
      for (int64_t b = bucket_of(first); b <= bucket_of(last); ++b) used[b] = true;
    });
  }

  bool fill(const BinSpikes& p) {
    const T* all_times = static_cast<const T*>(p.times);
    const U* all_units = static_cast<const U*>(p.units);
    cover(p);
    const int64_t capacity = Chains::capacity(n + 1, p.n_spikes);
    times = allocate_large<T>(capacity);
    units = allocate_large<U>(capacity);
    if (!chains.allocate(n + 1, p.n_spikes) || times == nullptr || units == nullptr) return false;
    for (int64_t i = 0; i < p.n_spikes; ++i) {
      const T t = all_times[i];
      const int64_t bucket = (t >= low) & (t < high) ? bucket_of(t) : n;
      const int64_t place = chains.next[bucket];
      times[place] = t;
      units[place] = all_units[i];
      __builtin_prefetch(times + place + 8, 1);
      __builtin_prefetch(units + place + 16, 1);
      chains.advance_if(used[bucket], bucket, place);
    }
    return true;
  }
  void release() {
    chains.release();
    free(times);
    free(units);
  }
};

template <typename T, typename U>
struct BucketedRows {
  const Job& job;
  const Buckets<T, U>& buckets;
  Quotient<T> quotient;

  // Calls run(bucket) for those that may hold spikes of these rows.
  template <typename Run>
  void for_each(int64_t row, int64_t rows, const Run& run) const {
    const int64_t last = buckets.bucket_of(bin_limit(job.p, quotient.start, row + rows));
    for (int64_t b = buckets.bucket_of(bin_edge(job.p, quotient.start, row)); b <= last; ++b) run(b);
  }

  template <bool kMapped, typename Count>
  void count_items(Block<Count>& block, const T* times, const U* units, int64_t n, int64_t row,
                   int64_t rows) const {
    int64_t i = 0;
    if (quotient.usable)
      for (; i + kGroup <= n; i += kGroup)
        count_in_block<kMapped>(job, quotient, block, times + i, units + i, row, rows);
    for (; i < n; ++i) {
      const int64_t own = bin_of(job.p, quotient.start, times[i]) - row;
      const bool inside = own >= 0 && own < rows;
      ++block.cells[inside ? own * job.p.n_units + column_of(job, units[i]) : block.beyond(job.shape)];
    }
  }

  // `spikes` are in the buckets of these rows; those that belong there are tallied.
  template <typename Count>
  void bin_block(Block<Count>& block, int64_t spikes, int64_t window, int64_t row, int64_t rows,
                 Tally& tally) {
    quotient.set_block(job.p, row, rows);
    for_each(row, rows, [&](int64_t bucket) {
      buckets.chains.for_each(bucket, [&](int64_t first, int64_t last) {
        if (job.columns != nullptr) {
          count_items<true>(block, buckets.times + first, buckets.units + first, last - first, row, rows);
        } else {
          count_items<false>(block, buckets.times + first, buckets.units + first, last - first, row, rows);
        }
      });
    });
    tally.in_range += spikes - static_cast<int64_t>(block.cells[block.beyond(job.shape)]);
    finish_block(job, block, window, row, rows, tally);
  }
};

// Rows [first_row, last_row) of one window.
template <typename T, typename U>
void bin_bucketed_rows(const Job& job, const Buckets<T, U>& buckets, TaskCounters& counters, int64_t window,
                       int64_t first_row, int64_t last_row, Tally& tally) {
  const T start = window_start(job.p, window, T{});
  const bool empty = !usable_start(start);
  BucketedRows<T, U> from{job, buckets, Quotient<T>(job.p, empty ? T{} : start, job.shape.rows)};
  for (int64_t row = first_row; row < last_row; row += job.shape.rows) {
    const int64_t rows = row + job.shape.rows < last_row ? job.shape.rows : last_row - row;
    int64_t spikes = 0;
    if (empty) {
      finish_block(job, counters.narrow, window, row, rows, tally);
      continue;
    }
    from.for_each(row, rows, [&](int64_t bucket) { spikes += buckets.chains.length(bucket); });
    if (spikes <= kMostNarrow) {
      from.bin_block(counters.narrow, spikes, window, row, rows, tally);
    } else if (counters.wide.cells != nullptr || counters.wide.allocate(job.shape)) {
      from.bin_block(counters.wide, spikes, window, row, rows, tally);
    } else {
      tally.out_of_memory = true;
      return;
    }
  }
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
