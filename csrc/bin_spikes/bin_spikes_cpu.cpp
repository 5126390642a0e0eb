// Counting on the CPU. Sorted spikes: a few rows of narrow counters live in L1; spikes are counted there
// sixteen at a time, and a finished block is converted, streamed to the output and cleared in one pass, so
// that the output is written once and never read. Unsorted spikes: first shared out by time, then the same.
//
// Compiled once per instruction set (common/isa.h): no STL, nothing with external linkage but the kernel.

#include <cstdlib>

#include "bin_spikes/bin_spikes.h"
#include "bin_spikes/bin_spikes_body.h"
#include "bin_spikes/cpu_blocks.h"
#include "bin_spikes/cpu_buckets.h"
#include "bin_spikes/cpu_ragged.h"
#include "bin_spikes/cpu_sorted.h"
#include "bin_spikes/cpu_unsorted.h"
#include "common/thread_pool.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int64_t kStreamBytes = int64_t{4} << 20;  // outputs above it bypass the caches
constexpr int64_t kParallelSpikes = 100000;  // about 100 us of work: below it a second thread costs more

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
    const bool by_window = p.starts != nullptr;
    const int64_t n_items = by_window ? p.n_windows : p.n_bins;
    const int64_t first = n_items * task / plan.n_tasks, last = n_items * (task + 1) / plan.n_tasks;
    const int64_t first_row = by_window ? 0 : first, last_row = by_window ? p.n_bins : last;
    TaskCounters counters{{}, {}, by_window || p.n_spikes >= kDenseRow * p.n_bins};
    tally.out_of_memory = !counters.allocate(plan.job.shape);
    const auto bin_rows = [&](const Job& job, int64_t w, int64_t from, int64_t to, Tally& sums) {
      if (plan.buckets == nullptr) {
        bin_sorted_rows<T, U>(job, counters, w, from, to, sums);
      } else {
        bin_bucketed_rows<T, U>(job, *plan.buckets, counters, w, from, to, sums);
      }
    };
    const int64_t first_window = by_window ? first : 0, last_window = by_window ? last : 1;
    if (p.smoothing == Smoothing::none) {
      for (int64_t w = first_window; w < last_window && !tally.stopped(); ++w)
        bin_rows(plan.job, w, first_row, last_row, tally);
    } else if (!tally.stopped()) {
      smooth_windows(plan.job, bin_rows, first_window, last_window, first_row, last_row, tally);
    }
    finish_stores(plan.job);
    counters.release();
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

// Runs a plan's tasks, as many as suit its work.
template <typename AnyPlan>
Tally run_plan(AnyPlan& plan, int n_threads, int64_t work) {
  const BinSpikes& p = plan.job.p;
  const int64_t n_items = p.starts != nullptr ? p.n_windows : p.n_bins;
  const int threads = work < kParallelSpikes ? 1 : n_threads < kMaxThreads ? n_threads : kMaxThreads;
  // The causal exponential of one window is one chain.
  const bool chain = p.smoothing == Smoothing::exponential && p.n_windows == 1;
  const int64_t wanted = threads > 1 && !chain ? 4 * threads : 1;
  plan.n_tasks = wanted < n_items ? wanted : n_items;
  parallel_for(plan.n_tasks, threads, &AnyPlan::run, &plan);
  Tally total;
  for (int64_t i = 0; i < plan.n_tasks; ++i) total.add(plan.tallies[i]);
  return total;
}

template <typename T, typename U>
Tally run_tasks(const Job& job, const Buckets<T, U>* buckets, int n_threads, int64_t work) {
  Tally tallies[kMaxTasks];
  Plan<T, U> plan{job, buckets, tallies, 1};
  return run_plan(plan, n_threads, work);
}

// unit_map as columns of blocks of this shape; null if there is none.
bool make_columns(const BinSpikes& p, const Shape& shape, uint32_t** columns) {
  *columns = nullptr;
  if (p.unit_map == nullptr) return true;
  auto* table = static_cast<uint32_t*>(malloc((static_cast<size_t>(p.n_ids) + 1) * sizeof(uint32_t)));
  if (table == nullptr) return false;
  table[0] = shape.unknown();
  for (int64_t id = 0; id < p.n_ids; ++id) {
    const int64_t column = column_of(p, id);
    table[id + 1] =
        column >= 0 ? static_cast<uint32_t>(column) : shape.unmapped() + static_cast<uint32_t>(id % kSpread);
  }
  *columns = table;
  return true;
}

// Calls run(job) for blocks of about `cells` counters.
template <typename Run>
Tally with_job(const BinSpikes& p, int64_t cells, const Run& run) {
  const Shape shape(p, cells, p.n_bins);
  uint32_t* columns;
  Tally tally;
  if (!make_columns(p, shape, &columns)) {
    tally.out_of_memory = true;
    return tally;
  }
  const int64_t bytes = p.n_windows * p.n_bins * p.n_units * element_size(p.count_type);
  tally = run(Job{p, columns == nullptr ? nullptr : columns + 1, shape, bytes > kStreamBytes});
  free(columns);
  return tally;
}

template <typename T, typename U>
Tally bin_all(const BinSpikes& p, int n_threads) {
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
    const Tally tally = with_job(
        p, kBlockCells, [&](const Job& job) { return run_tasks<T, U>(job, nullptr, n_threads, work); });
    if (!tally.disordered || tally.out_of_memory) return tally;
  }
  const int threads = work < kParallelSpikes ? 1 : n_threads < kMaxThreads ? n_threads : kMaxThreads;
  if (p.starts == nullptr && p.smoothing == Smoothing::none && usable_start(window_start(p, 0, T{})))
    return with_job(p, 1, [&](const Job& job) { return bin_unsorted<T, U>(job, threads); });
  Buckets<T, U> buckets;
  Tally tally;
  if (buckets.fill(p)) {
    tally = with_job(p, kBucketCells,
                     [&](const Job& job) { return run_tasks<T, U>(job, &buckets, n_threads, work); });
  } else {
    tally.out_of_memory = true;
  }
  buckets.release();
  return tally;
}

// Trains that are not sorted are counted as unsorted spikes with their ids written out.
template <typename T>
Tally bin_trains(const BinSpikes& p, int n_threads) {
  const int64_t work = p.n_spikes + p.n_windows * p.n_bins * p.n_units / 8;
  const bool look = p.starts != nullptr && p.order == SpikeOrder::unknown;
  if (p.order != SpikeOrder::unsorted && (!look || trains_sorted<T>(p))) {
    const Tally tally = with_job(p, kTileCells, [&](const Job& job) {
      Tally tallies[kMaxTasks];
      TrainPlan<T> plan{job, tallies, 1};
      return run_plan(plan, n_threads, work);
    });
    if (!tally.disordered || tally.out_of_memory) return tally;
  }
  BinSpikes flat = p;
  int32_t* ids = make_ids<T>(p);
  flat.units = ids;
  flat.wide_units = false;
  flat.train_ends = nullptr;
  flat.order = SpikeOrder::unsorted;
  Tally tally;
  tally.out_of_memory = ids == nullptr;
  if (ids != nullptr) tally = bin_all<T, int32_t>(flat, n_threads);
  free(ids);
  return tally;
}

}  // namespace

void bin_spikes_cpu(const BinSpikes& p, int n_threads, BinSpikesReport* report) {
  *report = {};
  if (p.n_windows == 0 || p.n_bins == 0) {
    report->outside = p.starts != nullptr || p.n_windows == 0 ? 0 : p.n_spikes;  // no windows: null, too
    return;
  }
  const Tally tally =
      p.train_ends != nullptr
          ? (p.integer_times ? bin_trains<int64_t>(p, n_threads) : bin_trains<double>(p, n_threads))
      : p.integer_times
          ? (p.wide_units ? bin_all<int64_t, int64_t>(p, n_threads) : bin_all<int64_t, int32_t>(p, n_threads))
          : (p.wide_units ? bin_all<double, int64_t>(p, n_threads) : bin_all<double, int32_t>(p, n_threads));
  const int64_t outside = p.starts != nullptr ? 0 : p.n_spikes - tally.in_range;
  *report = {outside, tally.unknown, tally.unmapped, tally.largest, tally.out_of_memory};
}

}  // namespace NEUROKERN_ISA
}  // namespace neurokern
