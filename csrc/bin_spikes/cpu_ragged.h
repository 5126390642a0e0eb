// Spikes as trains one after the other. A tile of rows for all units lies in L2; each train adds its spikes
// of these rows to its column, from where it stopped in the tile before, while the trains to come are
// fetched. Part of bin_spikes_cpu.cpp, compiled once per instruction set: no STL, nothing with external
// linkage.
#pragma once

#include <cstdlib>
#include <cstring>

#include "bin_spikes/cpu_blocks.h"
#include "bin_spikes/cpu_cells.h"
#include "bin_spikes/cpu_sorted.h"
#include "common/thread_pool.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int64_t kTileCells =
    204800;  // counters of a tile, 400 KiB of L2: with half of it, trains have too few spikes
constexpr int64_t kTrainsAhead = 6;  // whose spikes are on their way

// One bit for each of kGroup rows that lies in [0, rows).
inline __attribute__((always_inline)) uint32_t rows_inside(const int32_t row[kGroup], uint32_t rows) {
  uint32_t bits = 0;
  for (int i = 0; i < kGroup; i += kCells) {
    const Cells inside = reinterpret_cast<Cells>(load<Cells>(row + i) < rows);
#if defined(__AVX512F__)
    bits |= static_cast<uint32_t>(_mm512_movepi32_mask(reinterpret_cast<__m512i>(inside))) << i;
#elif defined(__AVX__)
    bits |= static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(inside))) << i;
#elif defined(__SSE2__)
    bits |= static_cast<uint32_t>(_mm_movemask_ps(reinterpret_cast<__m128>(inside))) << i;
#else
    for (int j = 0; j < kCells; ++j) bits |= (inside[j] & 1u) << (i + j);
#endif
  }
  return bits;
}

// Where each train stands, and the counters of a tile: narrow ones until a train has too many spikes for
// them.
struct TrainCounters {
  int64_t *at = nullptr, *after = nullptr;  // (n_trains,): next spike of each train, before and after a tile
  Block<uint16_t> narrow;
  Block<uint32_t> wide;

  bool allocate(const BinSpikes& p, const Shape& shape) {
    const size_t n = static_cast<size_t>(p.n_trains) + 1;
    at = static_cast<int64_t*>(malloc(n * sizeof(int64_t)));
    after = static_cast<int64_t*>(malloc(n * sizeof(int64_t)));
    // Trains of one column share its counters.
    const bool allocated = p.unit_map == nullptr ? narrow.allocate(shape) : wide.allocate(shape);
    return allocated && at != nullptr && after != nullptr;
  }
  void release() {
    free(at);
    free(after);
    narrow.release();
    wide.release();
  }
};

template <typename T>
struct TrainRows {
  const Job& job;
  const BinSpikes& p;
  const T* times;
  Quotient<T> quotient;

  TrainRows(const Job& j, T start)
      : job(j), p(j.p), times(static_cast<const T*>(j.p.times)), quotient(j.p, start, j.shape.rows) {}

  // Within the spikes whatever the ends are.
  int64_t end_of(int64_t train) const {
    const int64_t end = train < 0 ? 0 : p.train_ends[train];
    return end < 0 ? 0 : end < p.n_spikes ? end : p.n_spikes;
  }
  int64_t begin_of(int64_t train) const { return end_of(train - 1); }
  int64_t seek(int64_t train, T value) const {
    const int64_t begin = begin_of(train), n = end_of(train) - begin;
    return begin + first_at_least(times + begin, n, value);
  }

  // Counts a train's spikes of the tile from spike i on, at cells[row * n_units]; returns the first behind
  // it, or -1 if they are out of order. A spike from before the tile stops the train, which shows at the end.
  template <typename Count>
  int64_t count(Count* cells, int64_t trash, int64_t row, int64_t rows, int64_t i, int64_t end) const {
    if (!quotient.usable) return count_by_edges(cells, row, rows, i, end);
    while (i + kGroup <= p.n_spikes && i < end) {
      I32 r[kParts];
      rows_of_group(p, quotient, times + i, row, rows, r);
      alignas(64) int32_t own[kGroup];
      memcpy(own, r, sizeof own);
      uint32_t inside = rows_inside(own, static_cast<uint32_t>(rows));
      if (end - i < kGroup) inside &= (1u << (end - i)) - 1;
      if (inside == 0) return i;
      alignas(64) uint32_t cell[kGroup];
      for (int j = 0; j < kGroup; j += kCells) {
        const Cells at = load<Cells>(own + j) * static_cast<uint32_t>(p.n_units);
        memcpy(cell + j, &at, sizeof at);
      }
      if (__builtin_expect(inside == 0xFFFF, 1)) {
        for (int j = 0; j < kGroup; ++j) ++cells[cell[j]];
        i += kGroup;
        continue;
      }
      if ((inside & (inside + 1)) != 0) return -1;
      for (int j = 0; j < kGroup; ++j) ++cells[inside >> j & 1 ? cell[j] : trash + j];
      return i + __builtin_popcount(inside);
    }
    return count_by_edges(cells, row, rows, i, end);
  }

  template <typename Count>
  int64_t count_by_edges(Count* cells, int64_t row, int64_t rows, int64_t i, int64_t end) const {
    const T limit = bin_limit(p, quotient.start, row + rows);
    int64_t r = 0;
    for (T low = bin_edge(p, quotient.start, row); i < end && times[i] < limit; ++i) {
      if (!(times[i] >= low)) return r == 0 ? i : -1;
      while (r + 1 < rows && times[i] >= bin_edge(p, quotient.start, row + r + 1)) ++r;
      low = bin_edge(p, quotient.start, row + r);
      ++cells[r * p.n_units];
    }
    return i;
  }

  void prefetch(const TrainCounters& to, int64_t train) const {
    if (train >= p.n_trains) return;
    // About as many as in the tile before, which began at `after` until this one writes there. Seldom more
    // lines than kLines, which are fetched without a branch.
    const int64_t from = to.at[train], n = from - to.after[train];
    constexpr int64_t kInLine = 64 / static_cast<int64_t>(sizeof(T)), kLines = 12;
    for (int64_t i = 0; i < kLines * kInLine; i += kInLine)
      __builtin_prefetch(times + from + (i < n ? i : n));
    for (int64_t i = kLines * kInLine; i <= n; i += kInLine) __builtin_prefetch(times + from + i);
  }

  // False if the counters are too narrow, or some train is out of order.
  template <typename Count>
  bool count_tile(TrainCounters& to, Block<Count>& block, int64_t row, int64_t rows, Tally& tally) const {
    for (int64_t train = 0; train < p.n_trains; ++train) {
      prefetch(to, train + kTrainsAhead);
      const int64_t column = column_of(p, train), end = end_of(train), from = to.at[train];
      if (column < 0) {
        to.after[train] =
            from + first_at_least(times + from, end - from, bin_limit(p, quotient.start, row + rows));
        (column == kUnknown ? tally.unknown : tally.unmapped) += to.after[train] - from;
        continue;
      }
      const int64_t trash = block.beyond(job.shape) - column;
      to.after[train] = count(block.cells + column, trash, row, rows, from, end);
      tally.disordered |= to.after[train] < 0;
      if (tally.disordered || (sizeof(Count) == 2 && to.after[train] - from > UINT16_MAX)) return false;
    }
    return true;
  }

  void bin_tile(TrainCounters& to, int64_t window, int64_t row, int64_t rows, Tally& tally) const {
    const Tally before = tally;
    if (to.wide.cells == nullptr) {
      if (count_tile(to, to.narrow, row, rows, tally)) return finish(to, to.narrow, window, row, rows, tally);
      if (tally.disordered) return;
      tally = before;
      tally.out_of_memory = !to.wide.allocate(job.shape);
      if (tally.out_of_memory) return;
    }
    if (count_tile(to, to.wide, row, rows, tally)) finish(to, to.wide, window, row, rows, tally);
  }

  template <typename Count>
  void finish(TrainCounters& to, Block<Count>& block, int64_t window, int64_t row, int64_t rows,
              Tally& tally) const {
    finish_block(job, block, window, row, rows, tally);
    int64_t* next = to.after;
    to.after = to.at;
    to.at = next;
  }

  // Whether what the rows did not show is in order too: one window's rows meet, and the rest is sorted.
  bool rest_in_order(int64_t train, int64_t first, int64_t last, int64_t first_row, int64_t last_row) const {
    if (last_row < p.n_bins && seek(train, bin_edge(p, quotient.start, last_row)) != last) return false;
    if (p.order != SpikeOrder::unknown) return true;
    const int64_t begin = begin_of(train), end = end_of(train);
    if (column_of(p, train) < 0) return is_sorted(times, begin, end);
    if (last_row == p.n_bins && !is_sorted(times, last > begin ? last - 1 : begin, end)) return false;
    return first_row > 0 || is_sorted(times, begin, first < end ? first + 1 : first);
  }
};

// Rows [first_row, last_row) of one window.
template <typename T>
void bin_train_rows(const Job& job, TrainCounters& counters, int64_t window, int64_t first_row,
                    int64_t last_row, Tally& tally) {
  const BinSpikes& p = job.p;
  const T start = window_start(p, window, T{});
  TrainRows<T> rows(job, usable_start(start) ? start : T{});
  int64_t in_range = 0;
  for (int64_t train = 0; train < p.n_trains; ++train) {
    const int64_t first = usable_start(start) ? rows.seek(train, bin_edge(p, start, first_row)) : p.n_spikes;
    counters.at[train] = counters.after[train] = first;
    in_range -= first;
  }
  for (int64_t row = first_row; row < last_row && !tally.stopped(); row += job.shape.rows) {
    const int64_t n_rows = row + job.shape.rows < last_row ? job.shape.rows : last_row - row;
    rows.quotient.set_block(p, row, n_rows);
    rows.bin_tile(counters, window, row, n_rows, tally);
  }
  if (tally.stopped()) return;
  for (int64_t train = 0; train < p.n_trains; ++train) in_range += counters.at[train];
  tally.in_range += in_range;
  if (p.starts != nullptr) return;
  for (int64_t train = 0; train < p.n_trains && !tally.disordered; ++train) {
    const int64_t first = rows.seek(train, bin_edge(p, start, first_row));
    tally.disordered |= !rows.rest_in_order(train, first, counters.at[train], first_row, last_row);
  }
}

// A task is some windows, or some rows of the only window.
template <typename T>
struct TrainPlan {
  const Job& job;
  Tally* tallies;
  int64_t n_tasks;

  static void run(void* context, int64_t task) {
    const TrainPlan& plan = *static_cast<const TrainPlan*>(context);
    const BinSpikes& p = plan.job.p;
    Tally& tally = plan.tallies[task];
    const bool by_window = p.starts != nullptr;
    const int64_t n_items = by_window ? p.n_windows : p.n_bins;
    const int64_t first = n_items * task / plan.n_tasks, last = n_items * (task + 1) / plan.n_tasks;
    const int64_t first_row = by_window ? 0 : first, last_row = by_window ? p.n_bins : last;
    TrainCounters counters;
    tally.out_of_memory = !counters.allocate(p, plan.job.shape);
    const auto bin_rows = [&](const Job& job, int64_t w, int64_t from, int64_t to, Tally& sums) {
      bin_train_rows<T>(job, counters, w, from, to, sums);
    };
    const int64_t first_window = by_window ? first : 0, last_window = by_window ? last : 1;
    if (p.smoothing == Smoothing::none || tally.out_of_memory) {
      for (int64_t w = first_window; w < last_window && !tally.stopped(); ++w)
        bin_rows(plan.job, w, first_row, last_row, tally);
    } else {
      smooth_windows(plan.job, bin_rows, first_window, last_window, first_row, last_row, tally);
    }
    finish_stores(plan.job);
    counters.release();
  }
};

template <typename T>
bool trains_sorted(const BinSpikes& p) {
  const Job job{p, nullptr, Shape(p, 0, 1), false};
  const TrainRows<T> rows(job, T{});
  for (int64_t train = 0; train < p.n_trains; ++train)
    if (!is_sorted(rows.times, rows.begin_of(train), rows.end_of(train))) return false;
  return true;
}

// The id of each spike written out, or null.
template <typename T>
int32_t* make_ids(const BinSpikes& p) {
  auto* ids = static_cast<int32_t*>(malloc((static_cast<size_t>(p.n_spikes) + 1) * sizeof(int32_t)));
  if (ids == nullptr) return nullptr;
  const Job job{p, nullptr, Shape(p, 0, 1), false};
  const TrainRows<T> rows(job, T{});
  int64_t i = 0;
  for (int64_t train = 0; train < p.n_trains; ++train)
    for (const int64_t end = rows.end_of(train); i < end; ++i) ids[i] = static_cast<int32_t>(train);
  for (; i < p.n_spikes; ++i) ids[i] = -1;
  return ids;
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
