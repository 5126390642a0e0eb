// Unsorted spikes of one window. A first pass turns spikes into counter numbers and shares them out by block
// of counters, a second counts block by block, within the L2 cache. Part of bin_spikes_cpu.cpp, compiled once
// per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdlib>
#include <cstring>

#include "bin_spikes/cpu_blocks.h"
#include "bin_spikes/cpu_cells.h"
#include "common/huge_pages.h"
#include "common/thread_pool.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int kMaxThreads = 64, kMaxTasks = 256;
constexpr int kShareBits = 16;  // a counter's number within its block takes two bytes
constexpr int64_t kShareCells = int64_t{1} << kShareBits;
constexpr int64_t kMostCells = int64_t{1} << 31;  // rows beyond take another pass over the spikes
constexpr uint32_t kLine = 32;                    // numbers of a line of 64 bytes
constexpr uint32_t kChunk = 2048;                 // numbers of a chunk, 4 KiB
constexpr uint32_t kBeyondKey = 0, kUnknownKey = 1, kUnmappedKey = 2;  // in the block after the last

// One thread's share of the spikes, by block of counters. A line waits per block until it is full, and goes
// past the caches to the block's last chunk; chunks of a block are linked backwards.
struct Shares {
  int64_t n_blocks = 0, n_chunks = 0;
  uint16_t* lines = nullptr;    // (n_blocks + 1, kLine); the last block takes spikes that have no counter
  uint32_t* filled = nullptr;   // (n_blocks + 1,), numbers of each block so far
  int64_t* last = nullptr;      // (n_blocks + 1,), last chunk, or -1
  int64_t* previous = nullptr;  // of each chunk
  uint16_t* pool = nullptr;
  int64_t dropped[3] = {};  // by kBeyondKey, kUnknownKey, kUnmappedKey

  bool allocate(int64_t blocks, int64_t n_spikes) {
    n_blocks = blocks;
    const size_t n = static_cast<size_t>(blocks) + 1, chunks = static_cast<size_t>(n_spikes / kChunk) + n;
    const size_t pool_bytes = chunks * kChunk * sizeof(uint16_t);
    lines = static_cast<uint16_t*>(aligned_alloc(64, n * 64));
    filled = static_cast<uint32_t*>(calloc(n, sizeof(uint32_t)));
    last = static_cast<int64_t*>(malloc(n * sizeof(int64_t)));
    previous = static_cast<int64_t*>(malloc(chunks * sizeof(int64_t)));
    pool = static_cast<uint16_t*>(aligned_alloc(64, pool_bytes));
    if (pool != nullptr) advise_huge_pages(pool, static_cast<int64_t>(pool_bytes));
    if (last != nullptr) memset(last, -1, n * sizeof(int64_t));
    return lines && filled && last && previous && pool;
  }
  void release() {
    void* all[] = {lines, filled, last, previous, pool};
    for (void* memory : all) free(memory);
  }

  // The line of a block is full: `before` numbers came before its last.
  __attribute__((noinline)) void flush(uint32_t block, uint32_t before) {
    const uint16_t* line = lines + block * size_t{kLine};
    if (block == n_blocks) {
      for (uint32_t i = 0; i < kLine; ++i) ++dropped[line[i]];
      return;
    }
    if (before % kChunk == kLine - 1) {
      previous[n_chunks] = last[block];
      last[block] = n_chunks++;
    }
    uint16_t* to = pool + last[block] * kChunk + (before % kChunk - (kLine - 1));
    U64 full[kRegisters];
    memcpy(full, line, sizeof full);
    store_line(to, full, true);
  }
  inline __attribute__((always_inline)) void add(uint32_t key) {
    const uint32_t block = key >> kShareBits, before = filled[block];
    lines[block * size_t{kLine} + before % kLine] = static_cast<uint16_t>(key);
    filled[block] = before + 1;
    if (before % kLine == kLine - 1) flush(block, before);
  }

  template <typename Count>
  void count(int64_t block, Count* cells) const {
    const uint32_t total = filled[block];
    const auto add_all = [&](const uint16_t* numbers, int64_t n) {
      for (int64_t i = 0; i < n; ++i) ++cells[numbers[i]];
    };
    add_all(lines + block * kLine, total % kLine);
    int64_t n = (total - total % kLine) % kChunk;
    for (int64_t chunk = last[block]; chunk >= 0; chunk = previous[chunk], n = 0)
      add_all(pool + chunk * kChunk, n == 0 ? kChunk : n);
  }
};

// Rows [row, row + rows) of one window of equal bins.
template <typename T, typename U>
struct Unsorted {
  Job job;
  int64_t row, rows, n_blocks;
  Shares* shares;
  Tally* tallies;
  int64_t n_shares, n_tasks;

  static void share(void* context, int64_t index) {
    const Unsorted& u = *static_cast<const Unsorted*>(context);
    Shares& to = u.shares[index];
    if (!to.allocate(u.n_blocks, u.job.p.n_spikes / u.n_shares + 1)) {
      u.tallies[index].out_of_memory = true;
      return;
    }
    if (u.job.columns != nullptr) {
      u.template fill<true>(to, index);
    } else {
      u.template fill<false>(to, index);
    }
    finish_stores(u.job);
    for (uint32_t i = 0; i < to.filled[u.n_blocks] % kLine; ++i)
      ++to.dropped[to.lines[u.n_blocks * kLine + i]];
    u.tallies[index].unknown = to.dropped[kUnknownKey];
    u.tallies[index].unmapped = to.dropped[kUnmappedKey];
    u.tallies[index].in_range = -to.dropped[kBeyondKey];
  }

  template <bool kMapped>
  void fill(Shares& to, int64_t index) const {
    const BinSpikes& p = job.p;
    const T* times = static_cast<const T*>(p.times);
    const U* units = static_cast<const U*>(p.units);
    int64_t i = p.n_spikes * index / n_shares;
    const int64_t end = p.n_spikes * (index + 1) / n_shares;
    Quotient<T> quotient(p, window_start(p, 0, T{}), p.n_bins);
    quotient.set_block(p, row, rows);
    const uint32_t n_units = static_cast<uint32_t>(p.n_units), n_rows = static_cast<uint32_t>(rows);
    const uint32_t none = static_cast<uint32_t>(n_blocks) << kShareBits;
    for (; i + kGroup <= end; i += kGroup) {
      I32 r[kParts];
      alignas(64) uint32_t key[kGroup];
      rows_of_group(p, quotient, times + i, row, rows, r);
      for (int part = 0; part < kParts; ++part) {
        const U32 column = columns_of_part<kMapped>(job, units + i + part * kLanes);
        const U32 own = reinterpret_cast<U32>(r[part]);
        const U32 columnless =
            U32{} + none + (column < job.shape.unmapped() ? U32{} + kUnknownKey : U32{} + kUnmappedKey);
        const U32 known = column < n_units ? own * n_units + column : columnless;
        const U32 at = own < n_rows ? known : U32{} + (none + kBeyondKey);
        memcpy(key + part * kLanes, &at, sizeof at);
      }
      for (int j = 0; j < kGroup; ++j) to.add(key[j]);
    }
    for (; i < end; ++i) {
      const int64_t bin = bin_of(p, quotient.start, times[i]);
      const int64_t column = column_of(p, static_cast<int64_t>(units[i]));
      const uint32_t columnless = none + (column == kUnknown ? kUnknownKey : kUnmappedKey);
      to.add(bin < row || bin >= row + rows ? none + kBeyondKey
             : column < 0 ? columnless
                          : static_cast<uint32_t>(bin - row) * n_units + static_cast<uint32_t>(column));
    }
  }

  template <typename Count>
  void count_block(int64_t b, Count* cells, Tally& tally) const {
    const BinSpikes& p = job.p;
    for (int64_t s = 0; s < n_shares; ++s) shares[s].count(b, cells);
    const int64_t first = b * kShareCells, n = rows * p.n_units - first;
    char* out = static_cast<char*>(p.counts) + (row * p.n_units + first) * element_size(p.count_type);
    const uint32_t largest = convert_block(p, cells, out, n < kShareCells ? n : kShareCells, job.stream);
    tally.largest = tally.largest < largest ? largest : tally.largest;
  }

  static void count(void* context, int64_t task) {
    const Unsorted& u = *static_cast<const Unsorted*>(context);
    Tally& tally = u.tallies[task];
    const int64_t n = u.rows * u.job.p.n_units;
    const size_t n_cells = static_cast<size_t>(n < kShareCells ? n : kShareCells);
    auto* narrow = static_cast<uint16_t*>(calloc(n_cells, sizeof(uint16_t)));
    uint32_t* wide = nullptr;
    for (int64_t b = u.n_blocks * task / u.n_tasks; b < u.n_blocks * (task + 1) / u.n_tasks; ++b) {
      int64_t spikes = 0;
      for (int64_t s = 0; s < u.n_shares; ++s) spikes += u.shares[s].filled[b];
      const bool fits = spikes < 65536;
      if (!fits && wide == nullptr) wide = static_cast<uint32_t*>(calloc(n_cells, sizeof(uint32_t)));
      tally.out_of_memory = fits ? narrow == nullptr : wide == nullptr;
      if (tally.out_of_memory) break;
      if (fits) {
        u.count_block(b, narrow, tally);
      } else {
        u.count_block(b, wide, tally);
      }
    }
    finish_stores(u.job);
    free(narrow);
    free(wide);
  }
};

// One window of equal bins.
template <typename T, typename U>
Tally bin_unsorted(const Job& job, int n_threads) {
  const BinSpikes& p = job.p;
  Tally total;
  const int64_t n_units = p.n_units > 0 ? p.n_units : 1, most_rows = kMostCells / n_units;
  for (int64_t row = 0; row < p.n_bins && !total.out_of_memory; row += most_rows) {
    Shares shares[kMaxThreads];
    Tally tallies[kMaxTasks];
    const int64_t rows = row + most_rows < p.n_bins ? most_rows : p.n_bins - row;
    const int64_t n_blocks = (rows * p.n_units + kShareCells - 1) / kShareCells;
    Unsorted<T, U> u{job, row, rows, n_blocks, shares, tallies, n_threads, 1};
    parallel_for(u.n_shares, n_threads, &Unsorted<T, U>::share, &u);
    for (const Tally& tally : tallies) total.add(tally);
    total.in_range += p.n_spikes;
    for (Tally& tally : tallies) tally = {};
    u.n_tasks = n_threads == 1 ? 1 : 4 * n_threads < n_blocks ? 4 * n_threads : n_blocks;
    if (!total.out_of_memory) parallel_for(u.n_tasks, n_threads, &Unsorted<T, U>::count, &u);
    for (const Tally& tally : tallies) total.add(tally);
    for (Shares& share : shares) share.release();
  }
  return total;
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
