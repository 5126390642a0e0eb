// Unsorted spikes of one window. A first pass turns spikes into counter numbers and shares them out by block
// of counters, a second counts block by block, within the L2 cache. Part of bin_spikes_cpu.cpp, compiled once
// per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdlib>
#include <cstring>

#include "bin_spikes/cpu_blocks.h"
#include "bin_spikes/cpu_cells.h"
#include "bin_spikes/cpu_chunks.h"
#include "bin_spikes/cpu_edges.h"
#include "common/thread_pool.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int kMaxThreads = 64, kMaxTasks = 256;
constexpr int kShareBits = 16;  // a counter's number within its block takes two bytes
constexpr int64_t kShareCells = int64_t{1} << kShareBits;  // bench_bin_spikes: 2^15 and 2^14 are slower
constexpr int64_t kMostCells = int64_t{1} << 31;           // rows beyond take another pass over the spikes

// One thread's share of the spikes: the counters they add to, by block.
struct Shares {
  Chains chains;
  uint16_t* numbers = nullptr;
  int64_t beyond = 0, unknown = 0, unmapped = 0;

  bool allocate(int64_t n_blocks, int64_t n_spikes) {
    numbers = allocate_large<uint16_t>(Chains::capacity(n_blocks, n_spikes));
    return chains.allocate(n_blocks, n_spikes) && numbers != nullptr;
  }
  void release() {
    chains.release();
    free(numbers);
  }

  inline __attribute__((always_inline)) void add(uint16_t block, uint16_t number) {
    const int64_t place = chains.next[block];
    numbers[place] = number;
    __builtin_prefetch(numbers + place + 32, 1);
    chains.advance(block, place);
  }
  template <typename Count>
  void count(int64_t block, Count* cells) const {
    chains.for_each(block, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) ++cells[numbers[i]];
    });
  }
};

// Numbers of spikes that have no counter.
constexpr uint32_t kBeyondNumber = 0, kUnknownNumber = 1, kUnmappedNumber = 2;

// Rows [row, row + rows) of one window. Finder: Quotient or EdgeTable.
template <typename Finder, typename T, typename U>
struct Unsorted {
  Job job;
  const Finder& finder;
  int64_t row, rows, n_blocks;  // blocks of counters; chains of spikes that have none follow
  Shares* shares;
  Tally* tallies;
  int64_t n_shares, n_tasks;

  static void share(void* context, int64_t index) {
    const Unsorted& u = *static_cast<const Unsorted*>(context);
    Shares& to = u.shares[index];
    Tally& tally = u.tallies[index];
    tally.out_of_memory = !to.allocate(u.n_blocks + kGroup, u.job.p.n_spikes / u.n_shares + 1);
    if (tally.out_of_memory) return;
    if (u.job.columns != nullptr) {
      u.template fill<true>(to, index);
    } else {
      u.template fill<false>(to, index);
    }
    int64_t dropped[3] = {};
    for (int64_t chain = u.n_blocks; chain < u.n_blocks + kGroup; ++chain) to.count(chain, dropped);
    tally.in_range = -dropped[kBeyondNumber];
    tally.unknown = dropped[kUnknownNumber];
    tally.unmapped = dropped[kUnmappedNumber];
  }

  // For each of kGroup spikes the counter within its block, and the block. Those without a counter go to
  // kGroup chains, since one would have each spike wait for the one before.
  template <bool kMapped>
  inline __attribute__((always_inline)) void numbers_of_group(const T* times, const U* units,
                                                              uint16_t* number) const {
    const auto n_units = static_cast<uint32_t>(job.p.n_units);
    I32 r[kParts];
    rows_of_group(job.p, finder, times, row, rows, r);
    for (int part = 0; part < kParts; ++part) {
      const U32 column = columns_of_part<kMapped>(job, units + part * kLanes);
      const U32 own = reinterpret_cast<U32>(r[part]);
      U32 none;
      for (int lane = 0; lane < kLanes; ++lane)
        none[lane] = static_cast<uint32_t>(n_blocks + part * kLanes + lane) << kShareBits;
      const U32 unmapped = none + kUnmappedNumber, unknown = none + kUnknownNumber;
      const U32 columnless = column < job.shape.unmapped() ? unknown : unmapped;
      const U32 inside = column < n_units ? own * n_units + column : columnless;
      const U32 at = own < static_cast<uint32_t>(rows) ? inside : none + kBeyondNumber;
      memcpy(number + 2 * part * kLanes, &at, sizeof at);  // as two halves, the low one first
    }
  }

  template <bool kMapped>
  void fill(Shares& to, int64_t index) const {
    const BinSpikes& p = job.p;
    const T* times = static_cast<const T*>(p.times);
    const U* units = static_cast<const U*>(p.units);
    int64_t i = p.n_spikes * index / n_shares;
    const int64_t end = p.n_spikes * (index + 1) / n_shares;
    alignas(64) uint16_t number[2 * kGroup];
    const auto add = [&](int64_t n) {
      for (int64_t j = 0; j < n; ++j) to.add(number[2 * j + 1], number[2 * j]);
    };
    for (; i + kGroup <= end; i += kGroup) {
      numbers_of_group<kMapped>(times + i, units + i, number);
      add(kGroup);
    }
    if (i == end) return;
    T last_times[kGroup] = {};
    U last_units[kGroup] = {};
    memcpy(last_times, times + i, static_cast<size_t>(end - i) * sizeof(T));
    memcpy(last_units, units + i, static_cast<size_t>(end - i) * sizeof(U));
    numbers_of_group<kMapped>(last_times, last_units, number);
    add(end - i);
  }

  template <typename Count>
  bool count_block(int64_t block, Count*& cells, Tally& tally) const {
    const BinSpikes& p = job.p;
    const int64_t all = rows * p.n_units, first = block * kShareCells;
    const int64_t n = all - first < kShareCells ? all - first : kShareCells;
    if (cells == nullptr)
      cells = static_cast<Count*>(
          calloc(static_cast<size_t>(all < kShareCells ? all : kShareCells), sizeof(Count)));
    if (cells == nullptr) return false;
    for (int64_t s = 0; s < n_shares; ++s) shares[s].count(block, cells);
    char* out = static_cast<char*>(p.counts) + (row * p.n_units + first) * element_size(p.count_type);
    const uint32_t largest = convert_block(p, cells, out, n, job.stream);
    tally.largest = tally.largest < largest ? largest : tally.largest;
    return true;
  }

  static void count(void* context, int64_t task) {
    const Unsorted& u = *static_cast<const Unsorted*>(context);
    Tally& tally = u.tallies[task];
    uint16_t* narrow = nullptr;
    uint32_t* wide = nullptr;
    for (int64_t b = u.n_blocks * task / u.n_tasks; b < u.n_blocks * (task + 1) / u.n_tasks; ++b) {
      int64_t spikes = 0;
      for (int64_t s = 0; s < u.n_shares; ++s) spikes += u.shares[s].chains.length(b);
      if (!(spikes < 65536 ? u.count_block(b, narrow, tally) : u.count_block(b, wide, tally)))
        tally.out_of_memory = true;
    }
    finish_stores(u.job);
    free(narrow);
    free(wide);
  }

  static void run(const Job& job, const Finder& finder, int64_t row, int64_t rows, int n_threads,
                  Tally& total) {
    const BinSpikes& p = job.p;
    Shares shares[kMaxThreads];
    Tally filled[kMaxThreads], counted[kMaxTasks];
    const int64_t n_blocks = (rows * p.n_units + kShareCells - 1) / kShareCells;
    Unsorted u{job, finder, row, rows, n_blocks, shares, filled, n_threads, 1};
    parallel_for(u.n_shares, n_threads, &Unsorted::share, &u);
    for (const Tally& tally : filled) total.add(tally);
    total.in_range += p.n_spikes;
    u.tallies = counted;
    u.n_tasks = n_threads == 1 ? 1 : 4 * n_threads < n_blocks ? 4 * n_threads : n_blocks;
    if (!total.out_of_memory) parallel_for(u.n_tasks, n_threads, &Unsorted::count, &u);
    for (const Tally& tally : counted) total.add(tally);
    for (Shares& share : shares) share.release();
  }
};

// One window.
template <typename T, typename U>
Tally bin_unsorted(const Job& job, int n_threads) {
  const BinSpikes& p = job.p;
  Tally total;
  const T start = window_start(p, 0, T{});
  const int64_t most_rows = kMostCells / (p.n_units > 0 ? p.n_units : 1);
  Quotient<T> quotient(p, start, p.n_bins < most_rows ? p.n_bins : most_rows);
  EdgeTable<T> edges(p, start);
  if (!quotient.usable && !edges.allocate()) total.out_of_memory = true;
  for (int64_t row = 0; row < p.n_bins && !total.out_of_memory; row += most_rows) {
    const int64_t rows = row + most_rows < p.n_bins ? most_rows : p.n_bins - row;
    if (quotient.usable) {
      quotient.set_block(p, row, rows);
      Unsorted<Quotient<T>, T, U>::run(job, quotient, row, rows, n_threads, total);
    } else {
      Unsorted<EdgeTable<T>, T, U>::run(job, edges, row, rows, n_threads, total);
    }
  }
  edges.release();
  return total;
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
