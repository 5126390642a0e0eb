// Unsorted spikes of several windows: first shared out by time, then counted window by window.
// Part of bin_spikes_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdlib>

#include "bin_spikes/cpu_blocks.h"
#include "bin_spikes/cpu_cells.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int64_t kBucketCells = 131072;  // counters of a block, half of a 1 MiB L2
constexpr int64_t kMaxBuckets = 4096;

// Spikes thrown into buckets of time; within one they keep no order, and need none.
template <typename T, typename U>
struct Buckets {
  T* times = nullptr;
  U* units = nullptr;
  int64_t* begin = nullptr;  // (n + 1,)
  int64_t n = 1;
  T low{}, high{};
  double scale = 0;

  // Monotonic in t by the rounding of each step, so that a range of times is a range of buckets.
  int64_t bucket_of(T t) const {
    const double x = (static_cast<double>(t) - static_cast<double>(low)) * scale;
    return !(x > 0) ? 0 : x < static_cast<double>(n) ? static_cast<int64_t>(x) : n - 1;
  }
  bool holds(T t) const { return t >= low && t < high; }

  bool fill(const BinSpikes& p) {
    const T* all_times = static_cast<const T*>(p.times);
    const U* all_units = static_cast<const U*>(p.units);
    bool any_window = false;
    for (int64_t w = 0; w < p.n_windows; ++w) {
      const T start = window_start(p, w, T{});
      if (!usable_start(start)) continue;
      const T first = bin_edge(p, start, 0), last = bin_limit(p, start, p.n_bins);
      low = !any_window || first < low ? first : low;
      high = !any_window || last > high ? last : high;
      any_window = true;
    }
    n = p.n_spikes / 256 + 1;
    n = n > kMaxBuckets ? kMaxBuckets : n;
    const double width = static_cast<double>(high) - static_cast<double>(low);
    scale = width > 0 ? static_cast<double>(n) / width : 0;
    begin = static_cast<int64_t*>(calloc(static_cast<size_t>(n) + 2, sizeof(int64_t)));
    if (begin == nullptr) return false;
    for (int64_t i = 0; i < p.n_spikes; ++i)
      if (holds(all_times[i])) ++begin[bucket_of(all_times[i]) + 2];
    for (int64_t b = 2; b <= n + 1; ++b) begin[b] += begin[b - 1];
    const size_t n_kept = static_cast<size_t>(begin[n + 1]) + 1;
    times = static_cast<T*>(malloc(n_kept * sizeof(T)));
    units = static_cast<U*>(malloc(n_kept * sizeof(U)));
    if (times == nullptr || units == nullptr) return false;
    for (int64_t i = 0; i < p.n_spikes; ++i) {
      if (!holds(all_times[i])) continue;
      const int64_t at = begin[bucket_of(all_times[i]) + 1]++;
      times[at] = all_times[i];
      units[at] = all_units[i];
    }
    return true;
  }
  void release() {
    free(times);
    free(units);
    free(begin);
  }
};

template <typename T, typename U>
void bin_bucketed_rows(const Job& job, const Buckets<T, U>& buckets, Block<uint32_t>& block, int64_t window,
                       int64_t first_row, int64_t last_row, Tally& tally) {
  const BinSpikes& p = job.p;
  const T start = window_start(p, window, T{});
  for (int64_t row = first_row; row < last_row; row += job.shape.rows) {
    const int64_t rows = row + job.shape.rows < last_row ? job.shape.rows : last_row - row;
    if (usable_start(start)) {
      const int64_t end = buckets.begin[buckets.bucket_of(bin_limit(p, start, row + rows)) + 1];
      for (int64_t i = buckets.begin[buckets.bucket_of(bin_edge(p, start, row))]; i < end; ++i) {
        const int64_t bin = bin_of(p, start, buckets.times[i]);
        if (bin < row || bin >= row + rows) continue;
        ++block.cells[(bin - row) * p.n_units + column_of(job, buckets.units[i])];
        ++tally.in_range;
      }
    }
    finish_block(job, block, window, row, rows, tally);
  }
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
