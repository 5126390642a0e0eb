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
    204800;  // counters of a tile, 400 KiB of L2: with half of it, trains have few spikes in it
constexpr int64_t kTrainsAhead = 6;  // whose spikes are on their way

// Up to kGroup spikes of one train.
struct TrainGroup {
  int64_t first;
  uint32_t column, lanes;
};
constexpr int64_t kGroups =
    256;  // listed before they are counted: a list has no branch that depends on spikes

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

  // The first spike from i on that lies at or beyond the limit; NaN does.
  int64_t first_beyond(int64_t i, int64_t end, T limit) const {
    typedef T Times __attribute__((vector_size(8 * kLanes)));
    for (; i + kGroup <= end; i += kGroup) {
      I64 below = ~I64{};
      for (int j = 0; j < kGroup; j += kLanes) below &= load<Times>(times + i + j) < limit;
      if (any_negative(~below)) break;
    }
    while (i < end && times[i] < limit) ++i;
    return i;
  }

  // Counts listed groups. False if some spike lies outside of the tile: its train is not sorted.
  template <typename Count>
  bool count_groups(const TrainGroup* groups, int64_t n, Count* cells, int64_t beyond, int64_t row,
                    int64_t rows) const {
    Cells missed{};
    const uint32_t n_units = static_cast<uint32_t>(p.n_units), n_rows = static_cast<uint32_t>(rows);
    for (int64_t g = 0; g < n; ++g) {
      I32 r[kParts];
      rows_of_group(p, quotient, times + groups[g].first, row, rows, r);
      alignas(64) uint32_t cell[kGroup];
      for (int part = 0; part < kParts; ++part) {
        const U32 own = reinterpret_cast<U32>(r[part]);
        U32 lane;
        for (int j = 0; j < kLanes; ++j) lane[j] = static_cast<uint32_t>(part * kLanes + j);
        const U32 inside = reinterpret_cast<U32>(own < n_rows),
                  mine = reinterpret_cast<U32>(lane < groups[g].lanes);
        const U32 at = own * n_units + groups[g].column, trash = lane + static_cast<uint32_t>(beyond);
        missed_part(missed, mine & ~inside, part);
        const U32 to = (at & inside & mine) | (trash & ~(inside & mine));
        memcpy(cell + part * kLanes, &to, sizeof to);
      }
      for (int j = 0; j < kGroup; ++j) ++cells[cell[j]];
    }
    for (int j = 0; j < kCells; ++j)
      if (missed[j] != 0) return false;
    return true;
  }
  static inline __attribute__((always_inline)) void missed_part(Cells& missed, U32 part, int i) {
    U32 half[2];
    memcpy(half, &missed, sizeof missed);
    half[i % 2] |= part;
    memcpy(&missed, half, sizeof missed);
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
    const T limit = bin_limit(p, quotient.start, row + rows);
    TrainGroup groups[kGroups];
    int64_t n = 0;
    const auto count_listed = [&] {
      tally.disordered |= !count_groups(groups, n, block.cells, block.beyond(job.shape), row, rows);
      n = 0;
    };
    for (int64_t train = 0; train < p.n_trains; ++train) {
      prefetch(to, train + kTrainsAhead);
      const int64_t column = column_of(p, train), end = end_of(train);
      int64_t i = to.at[train];
      const int64_t after = to.after[train] = first_beyond(i, end, limit);
      if (column < 0) {
        (column == kUnknown ? tally.unknown : tally.unmapped) += after - i;
        continue;
      }
      if (sizeof(Count) == 2 && after - i > UINT16_MAX) return false;
      for (; i < after && quotient.usable && i + kGroup <= p.n_spikes; i += kGroup) {
        if (n == kGroups) count_listed();
        groups[n++] = {i, static_cast<uint32_t>(column),
                       static_cast<uint32_t>(after - i < kGroup ? after - i : kGroup)};
      }
      if (i < after) tally.disordered |= count_by_edges(block.cells + column, row, rows, i, after) != after;
      if (tally.disordered) return false;
    }
    count_listed();
    return !tally.disordered;
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
