// Counting on the CPU. Sorted spikes: a few rows of 32-bit counters live in L1; sixteen spikes at a time
// become counter numbers, and a finished block is converted, streamed to the output and cleared in one pass,
// so that the output is written once and never read. Unsorted spikes: first shared out by time, then the
// same.
//
// Compiled once per instruction set (common/isa.h): no STL, nothing with external linkage but the kernel.

#include <cstdlib>

#include "bin_spikes/bin_spikes.h"
#include "bin_spikes/bin_spikes_body.h"
#include "bin_spikes/cpu_blocks.h"
#include "bin_spikes/cpu_cells.h"
#include "bin_spikes/cpu_unsorted.h"
#include "common/thread_pool.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int64_t kBlockCells =
    3200;  // counters of a block, 12.5 KiB of L1. bench_bin_spikes: half or twice are slower
constexpr int64_t kBucketCells = 131072;  // counters of a block of buckets, half of a 1 MiB L2
constexpr int64_t kMaxBuckets = 4096;
constexpr int64_t kStreamBytes = int64_t{4} << 20;  // outputs above it bypass the caches
constexpr int64_t kParallelSpikes = 100000;  // about 100 us of work: below it a second thread costs more

// ---- Sorted spikes

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
    for (int lane = 0; lane < kLanes; ++lane)
      if (fine[lane] == 0) return false;
  }
  for (; i + 1 < last; ++i)
    if (!(times[i] <= times[i + 1])) return false;
  return true;
}

template <typename T, typename U>
int64_t count_scalar(const Job& job, Block& block, T start, int64_t row, int64_t rows, int64_t i,
                     bool& disordered) {
  const BinSpikes& p = job.p;
  const T* times = static_cast<const T*>(p.times);
  const U* units = static_cast<const U*>(p.units);
  const T limit = bin_limit(p, start, row + rows);
  T previous = bin_edge(p, start, row);
  int64_t r = row;
  for (; i < p.n_spikes && times[i] < limit; ++i) {
    disordered |= !(times[i] >= previous);
    previous = times[i];
    while (r + 1 < row + rows && times[i] >= bin_edge(p, start, r + 1)) ++r;
    ++block.cells[scalar_cell(job, block, units[i], r - row)];
  }
  return i;
}

// Counts the spikes of one block of rows from spike i on; returns the first spike beyond the block.
template <bool kMapped, typename T, typename U>
int64_t count_sorted(const Job& job, Quotient<T>& quotient, Block& block, int64_t row, int64_t rows,
                     int64_t i, bool& disordered) {
  const BinSpikes& p = job.p;
  const T* times = static_cast<const T*>(p.times);
  const U* units = static_cast<const U*>(p.units);
  const T limit = bin_limit(p, quotient.start, row + rows);
  quotient.set_block(p, row, rows);
  // Order is seen by where spikes fall: all of a group but the last belong into the block, and of the last
  // group those below the limit. A spike out of place is met again, or missed, by another block, and there
  // shows as `beyond`.
  const uint32_t& beyond = block.cells[block.beyond()];
  while (i + kGroup <= p.n_spikes) {
    count_group<kMapped>(job, quotient, block, times + i, units + i, row, static_cast<int32_t>(rows));
    if (times[i + kGroup - 1] < limit) {
      i += kGroup;
      continue;
    }
    int inside = 0;
    for (int j = 0; j < kGroup; ++j) inside += times[i + j] < limit;
    disordered |= beyond != static_cast<uint32_t>(kGroup - inside);
    return i + inside;
  }
  disordered |= beyond != 0;
  return count_scalar<T, U>(job, block, quotient.start, row, rows, i, disordered);
}

// Rows [first_row, last_row) of one window.
template <typename T, typename U>
void bin_sorted_rows(const Job& job, Block& block, int64_t window, int64_t first_row, int64_t last_row,
                     Tally& tally) {
  const BinSpikes& p = job.p;
  const T* times = static_cast<const T*>(p.times);
  const T start = window_start(p, window, T{});
  const bool empty = !usable_start(start);
  Quotient<T> quotient(p, empty ? T{} : start, block.capacity_rows);
  const int64_t first = empty ? 0 : first_at_least(times, p.n_spikes, bin_edge(p, start, first_row));
  int64_t i = first;
  for (int64_t row = first_row; row < last_row; row += block.capacity_rows) {
    const int64_t rows = row + block.capacity_rows < last_row ? block.capacity_rows : last_row - row;
    const bool closed_end =
        p.closed_last && row + rows == p.n_bins;  // the closed edge is a matter of comparison
    if (!empty && quotient.usable && !closed_end) {
      i = job.columns != nullptr
              ? count_sorted<true, T, U>(job, quotient, block, row, rows, i, tally.disordered)
              : count_sorted<false, T, U>(job, quotient, block, row, rows, i, tally.disordered);
    } else if (!empty) {
      i = count_scalar<T, U>(job, block, start, row, rows, i, tally.disordered);
    }
    if (tally.disordered) return;  // all is done again, without this claim
    finish_block(job, block, window, row, rows, tally);
  }
  tally.in_range += i - first;
  if (empty || p.starts != nullptr) return;
  // One window: its row ranges meet, and together with what lies outside they are all spikes.
  if (last_row < p.n_bins) {
    tally.disordered |= first_at_least(times, p.n_spikes, bin_edge(p, start, last_row)) != i;
  } else if (p.order == SpikeOrder::unknown) {
    tally.disordered |= !is_sorted(times, i > 0 ? i - 1 : 0, p.n_spikes);
  }
  if (first_row == 0 && p.order == SpikeOrder::unknown) {
    tally.disordered |= !is_sorted(times, 0, first < p.n_spikes ? first + 1 : first);
  }
}

// ---- Unsorted spikes: several windows, or bins that are not equal ----

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
void bin_bucketed_rows(const Job& job, const Buckets<T, U>& buckets, Block& block, int64_t window,
                       int64_t first_row, int64_t last_row, Tally& tally) {
  const BinSpikes& p = job.p;
  const T start = window_start(p, window, T{});
  for (int64_t row = first_row; row < last_row; row += block.capacity_rows) {
    const int64_t rows = row + block.capacity_rows < last_row ? block.capacity_rows : last_row - row;
    if (usable_start(start)) {
      const int64_t end = buckets.begin[buckets.bucket_of(bin_limit(p, start, row + rows)) + 1];
      for (int64_t i = buckets.begin[buckets.bucket_of(bin_edge(p, start, row))]; i < end; ++i) {
        const int64_t bin = bin_of(p, start, buckets.times[i]);
        if (bin < row || bin >= row + rows) continue;
        ++block.cells[scalar_cell(job, block, buckets.units[i], bin - row)];
        ++tally.in_range;
      }
    }
    finish_block(job, block, window, row, rows, tally);
  }
}

// ---- Tasks

// Smooths rows [first_row, last_row) of a window. Rows around them are counted once more, and not tallied.
template <typename BinRows>
void smooth_window(const Job& job, Smoother& smoother, const BinRows& bin_rows, int64_t window,
                   int64_t first_row, int64_t last_row, Tally& tally) {
  BinSpikes counts = job.p;
  counts.count_type = CountType::f32;
  const Job to_smoother{counts, job.columns, false, &smoother};
  Tally around;
  smoother.start(window, first_row, last_row);
  const int64_t before = smoother.first_row(), after = smoother.stop_row();
  if (before < first_row) bin_rows(to_smoother, window, before, first_row, around);
  if (!around.stopped()) bin_rows(to_smoother, window, first_row, last_row, tally);
  if (!tally.stopped() && !around.stopped() && last_row < after)
    bin_rows(to_smoother, window, last_row, after, around);
  tally.disordered |= around.disordered;
  tally.out_of_memory |= around.out_of_memory;
}

// A task is some windows, or some rows of the only window.
template <typename T, typename U>
struct Plan {
  Job job;
  const Buckets<T, U>* buckets;  // null: sorted
  Tally* tallies;
  int64_t n_tasks;

  static void run(void* context, int64_t task) {
    const Plan& plan = *static_cast<const Plan*>(context);
    const BinSpikes& p = plan.job.p;
    Tally& tally = plan.tallies[task];
    const bool by_window = p.n_windows > 1;
    const int64_t n_items = by_window ? p.n_windows : p.n_bins;
    const int64_t first = n_items * task / plan.n_tasks, last = n_items * (task + 1) / plan.n_tasks;
    Block block;
    if (!block.allocate(p, plan.buckets == nullptr ? kBlockCells : kBucketCells, p.n_bins)) {
      tally.out_of_memory = true;
      return;
    }
    const auto bin_rows = [&](const Job& job, int64_t w, int64_t first_row, int64_t last_row, Tally& to) {
      if (plan.buckets == nullptr) {
        bin_sorted_rows<T, U>(job, block, w, first_row, last_row, to);
      } else {
        bin_bucketed_rows<T, U>(job, *plan.buckets, block, w, first_row, last_row, to);
      }
    };
    Smoother smoother;
    if (p.smoothing != Smoothing::none)
      tally.out_of_memory =
          !smoother.allocate(p, block.capacity_rows, element_size(p.count_type), plan.job.stream);
    for (int64_t w = by_window ? first : 0; w < (by_window ? last : 1) && !tally.stopped(); ++w) {
      const int64_t first_row = by_window ? 0 : first, last_row = by_window ? p.n_bins : last;
      if (p.smoothing != Smoothing::none) {
        smooth_window(plan.job, smoother, bin_rows, w, first_row, last_row, tally);
      } else {
        bin_rows(plan.job, w, first_row, last_row, tally);
      }
    }
    smoother.release();
    finish_stores(plan.job);
    free(block.cells);
  }
};

template <typename T>
struct OrderCheck {
  const T* times;
  int64_t n, n_tasks;
  bool* disordered;

  static void run(void* context, int64_t task) {
    const OrderCheck& c = *static_cast<const OrderCheck*>(context);
    const int64_t last = c.n * (task + 1) / c.n_tasks;
    c.disordered[task] = !is_sorted(c.times, c.n * task / c.n_tasks, last < c.n ? last + 1 : last);
  }
};

template <typename T, typename U>
Tally run_tasks(const Job& job, const Buckets<T, U>* buckets, int n_threads, int64_t work) {
  const BinSpikes& p = job.p;
  Tally tallies[kMaxTasks];
  const int64_t n_items = p.n_windows > 1 ? p.n_windows : p.n_bins;
  const int threads = work < kParallelSpikes ? 1 : n_threads < kMaxThreads ? n_threads : kMaxThreads;
  // The causal exponential of one window is one chain.
  const bool chain = p.smoothing == Smoothing::exponential && p.n_windows == 1;
  const int64_t wanted = threads > 1 && !chain ? 4 * threads : 1;
  Plan<T, U> plan{job, buckets, tallies, wanted < n_items ? wanted : n_items};
  parallel_for(plan.n_tasks, threads, &Plan<T, U>::run, &plan);
  Tally total;
  for (int64_t i = 0; i < plan.n_tasks; ++i) total.add(tallies[i]);
  return total;
}

template <typename T, typename U>
Tally bin_all(const Job& job, int n_threads) {
  const BinSpikes& p = job.p;
  const int64_t work = p.n_spikes + p.n_windows * p.n_bins * p.n_units / 8;
  bool sorted = p.order != SpikeOrder::unsorted;
  if (sorted && p.starts != nullptr && p.order == SpikeOrder::unknown) {
    bool disordered[kMaxTasks] = {};
    OrderCheck<T> check{static_cast<const T*>(p.times), p.n_spikes,
                        n_threads < kMaxTasks ? n_threads : kMaxTasks, disordered};
    if (p.n_spikes < 10 * kParallelSpikes) check.n_tasks = 1;
    parallel_for(check.n_tasks, n_threads, &OrderCheck<T>::run, &check);
    for (int64_t i = 0; i < check.n_tasks; ++i) sorted &= !disordered[i];
  }
  if (sorted) {
    const Tally tally = run_tasks<T, U>(job, nullptr, n_threads, work);
    if (!tally.disordered || tally.out_of_memory) return tally;
  }
  const int threads = work < kParallelSpikes ? 1 : n_threads < kMaxThreads ? n_threads : kMaxThreads;
  if (p.n_windows == 1 && p.n_spikes < UINT32_MAX && p.smoothing == Smoothing::none) {
    const T start = window_start(p, 0, T{});
    if (usable_start(start) && !p.closed_last && Quotient<T>(p, start, p.n_bins).usable)
      return bin_unsorted<T, U>(job, threads);
  }
  Buckets<T, U> buckets;
  Tally tally;
  if (buckets.fill(p)) {
    tally = run_tasks<T, U>(job, &buckets, n_threads, work);
  } else {
    tally.out_of_memory = true;
  }
  buckets.release();
  return tally;
}

// unit_map as int32 with kUnknown before the first entry, so that the vector path can look up id -1.
int32_t* make_columns(const BinSpikes& p) {
  int32_t* table = static_cast<int32_t*>(malloc((static_cast<size_t>(p.n_ids) + 1) * sizeof(int32_t)));
  if (table == nullptr) return nullptr;
  table[0] = kUnknown;
  for (int64_t id = 0; id < p.n_ids; ++id) table[id + 1] = static_cast<int32_t>(column_of(p, id));
  return table;
}

}  // namespace

void bin_spikes_cpu(const BinSpikes& p, int n_threads, BinSpikesReport* report) {
  *report = {};
  if (p.n_windows == 0 || p.n_bins == 0) {
    report->outside = p.starts != nullptr || p.n_windows == 0 ? 0 : p.n_spikes;  // no windows: null, too
    return;
  }
  int32_t* table = p.unit_map != nullptr ? make_columns(p) : nullptr;
  if (p.unit_map != nullptr && table == nullptr) {
    report->out_of_memory = 1;
    return;
  }
  const int64_t bytes = p.n_windows * p.n_bins * p.n_units * element_size(p.count_type);
  const Job job{p, table != nullptr ? table + 1 : nullptr, bytes > kStreamBytes};
  const Tally tally = p.integer_times ? (p.wide_units ? bin_all<int64_t, int64_t>(job, n_threads)
                                                      : bin_all<int64_t, int32_t>(job, n_threads))
                                      : (p.wide_units ? bin_all<double, int64_t>(job, n_threads)
                                                      : bin_all<double, int32_t>(job, n_threads));
  free(table);
  const int64_t outside = p.starts != nullptr ? 0 : p.n_spikes - tally.in_range;
  *report = {outside, tally.unknown, tally.unmapped, tally.largest, tally.out_of_memory};
}

}  // namespace NEUROKERN_ISA
}  // namespace neurokern
