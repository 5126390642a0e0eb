// Unsorted spikes of one window. A first pass turns spikes into counter numbers and shares them out by block
// of rows, a second counts block by block, each within L2. Part of bin_spikes_cpu.cpp, compiled once per
// instruction set: no STL, nothing with external linkage.
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

constexpr int64_t kShareCells =
    65536;  // counters of a block: 256 KiB. bench_bin_spikes: 16k to 131k are alike
constexpr int64_t kMaxShares = 16384;
constexpr int kMaxThreads = 64, kMaxTasks = 256;

// One window, one thread's share of the spikes: the counters they add to, sorted by block of rows. A line of
// 16 waits per block until it is full, and goes to the block's last chunk; chunks of a block are linked
// backwards.
constexpr int kLine = 16;
constexpr int64_t kChunk = 1024;

struct Shares {
  int64_t n_blocks = 0, n_chunks = 0;
  uint32_t* lines = nullptr;    // (n_blocks + 1, kLine); the last block takes spikes outside the window
  uint32_t* waiting = nullptr;  // (n_blocks + 1,), entries of the line
  int64_t* cursor = nullptr;    // (n_blocks + 1,), where in `pool` the next line goes
  int64_t* last = nullptr;      // (n_blocks + 1,), last chunk, or -1
  int64_t* previous = nullptr;  // of each chunk
  uint32_t* pool = nullptr;

  bool allocate(int64_t blocks, int64_t n_spikes) {
    n_blocks = blocks;
    const size_t n = static_cast<size_t>(blocks) + 1, chunks = static_cast<size_t>(n_spikes / kChunk) + n;
    lines = static_cast<uint32_t*>(aligned_alloc(64, n * kLine * sizeof(uint32_t)));
    waiting = static_cast<uint32_t*>(calloc(n, sizeof(uint32_t)));
    cursor = static_cast<int64_t*>(calloc(n, sizeof(int64_t)));
    last = static_cast<int64_t*>(malloc(n * sizeof(int64_t)));
    previous = static_cast<int64_t*>(malloc(chunks * sizeof(int64_t)));
    const size_t pool_bytes = chunks * kChunk * sizeof(uint32_t);
    pool = static_cast<uint32_t*>(malloc(pool_bytes));
    if (pool != nullptr) advise_huge_pages(pool, static_cast<int64_t>(pool_bytes));
    if (last != nullptr) memset(last, -1, n * sizeof(int64_t));
    return lines && waiting && cursor && last && previous && pool;
  }
  void release() {
    void* all[] = {lines, waiting, cursor, last, previous, pool};
    for (void* memory : all) free(memory);
  }

  void flush(int64_t block) {
    waiting[block] = 0;
    if (block == n_blocks) return;
    if (cursor[block] % kChunk == 0) {
      previous[n_chunks] = last[block];
      last[block] = n_chunks;
      cursor[block] = kChunk * n_chunks++;
    }
    memcpy(pool + cursor[block], lines + block * kLine, kLine * sizeof(uint32_t));
    cursor[block] += kLine;
  }
  inline __attribute__((always_inline)) void add(int64_t block, uint32_t cell) {
    const uint32_t at = waiting[block];
    lines[block * kLine + at] = cell;
    waiting[block] = at + 1;
    if (at + 1 == kLine) flush(block);
  }

  // Counts the block's share; returns how many spikes that were.
  int64_t count(int64_t block, uint32_t* cells) const {
    int64_t total = waiting[block];
    for (uint32_t i = 0; i < waiting[block]; ++i) ++cells[lines[block * kLine + i]];
    int64_t end = cursor[block];
    for (int64_t chunk = last[block]; chunk >= 0; chunk = previous[chunk], end = (chunk + 1) * kChunk) {
      for (int64_t i = chunk * kChunk; i < end; ++i) ++cells[pool[i]];
      total += end - chunk * kChunk;
    }
    return total;
  }
};

// How rows are cut into blocks for unsorted spikes.
struct Cut {
  int shift = 0;  // rows of a block: 1 << shift
  int64_t n_blocks = 0;

  explicit Cut(const BinSpikes& p) {
    const int64_t n_units = p.n_units > 0 ? p.n_units : 1;
    while ((n_units << (shift + 1)) <= kShareCells || (p.n_bins >> shift) > kMaxShares) ++shift;
    n_blocks = ((p.n_bins - 1) >> shift) + 1;
  }
};

template <typename T, typename U>
struct Unsorted {
  Job job;
  Cut cut;
  Shares* shares;
  Tally* tallies;
  int64_t n_shares, n_tasks;

  static void share(void* context, int64_t index) {
    const Unsorted& u = *static_cast<const Unsorted*>(context);
    if (!u.shares[index].allocate(u.cut.n_blocks, u.job.p.n_spikes / u.n_shares + 1)) {
      u.tallies[index].out_of_memory = true;
    } else if (u.job.columns != nullptr) {
      u.template fill<true>(u.shares[index], index);
    } else {
      u.template fill<false>(u.shares[index], index);
    }
  }

  template <bool kMapped>
  void fill(Shares& to, int64_t index) const {
    const BinSpikes& p = job.p;
    const T* times = static_cast<const T*>(p.times);
    const U* units = static_cast<const U*>(p.units);
    int64_t i = p.n_spikes * index / n_shares;
    const int64_t end = p.n_spikes * (index + 1) / n_shares;
    const T start = window_start(p, 0, T{});
    Quotient<T> quotient(p, start, p.n_bins);
    quotient.set_block(p, 0, p.n_bins);
    Block block;  // for the numbers of its counters
    block.n_cells = p.n_units << cut.shift;
    const int32_t rows = 1 << cut.shift;
    const uint32_t n_bins = static_cast<uint32_t>(p.n_bins), n_blocks = static_cast<uint32_t>(cut.n_blocks);
    for (; i + kGroup <= end; i += kGroup) {
      I32 r[kParts], within[kParts];
      alignas(64) int32_t cell[kGroup];
      alignas(64) uint32_t to_block[kGroup];
      rows_of_group(p, quotient, times + i, 0, p.n_bins, r);
      for (int part = 0; part < kParts; ++part) {
        const U32 row = reinterpret_cast<U32>(r[part]);
        const U32 at = row < n_bins ? row >> cut.shift : U32{} + n_blocks;
        memcpy(to_block + part * kLanes, &at, sizeof at);
        within[part] = r[part] & (rows - 1);
      }
      cells_of_group<kMapped>(job, block, within, units + i, rows, cell);
      for (int j = 0; j < kGroup; ++j) to.add(to_block[j], static_cast<uint32_t>(cell[j]));
    }
    for (; i < end; ++i) {
      const int64_t bin = bin_of(p, start, times[i]);
      if (bin >= 0)
        to.add(bin >> cut.shift, static_cast<uint32_t>(scalar_cell(job, block, units[i], bin & (rows - 1))));
    }
  }

  static void count(void* context, int64_t task) {
    const Unsorted& u = *static_cast<const Unsorted*>(context);
    const BinSpikes& p = u.job.p;
    Tally& tally = u.tallies[task];
    const int64_t rows = int64_t{1} << u.cut.shift;
    Block block;
    if (!block.allocate(p, p.n_units << u.cut.shift, rows)) {
      tally.out_of_memory = true;
      return;
    }
    for (int64_t b = u.cut.n_blocks * task / u.n_tasks; b < u.cut.n_blocks * (task + 1) / u.n_tasks; ++b) {
      for (int64_t s = 0; s < u.n_shares; ++s) tally.in_range += u.shares[s].count(b, block.cells);
      const int64_t row = b * rows;
      finish_block(u.job, block, 0, row, row + rows < p.n_bins ? rows : p.n_bins - row, tally);
    }
    finish_stores(u.job);
    free(block.cells);
  }
};

// One window of equal bins.
template <typename T, typename U>
Tally bin_unsorted(const Job& job, int n_threads) {
  Shares shares[kMaxThreads];
  Tally tallies[kMaxTasks], total;
  Unsorted<T, U> u{job, Cut(job.p), shares, tallies, n_threads, 1};
  u.n_tasks = n_threads == 1 ? 1 : 4 * n_threads < u.cut.n_blocks ? 4 * n_threads : u.cut.n_blocks;
  parallel_for(u.n_shares, n_threads, &Unsorted<T, U>::share, &u);
  for (const Tally& tally : tallies) total.add(tally);
  if (!total.out_of_memory) parallel_for(u.n_tasks, n_threads, &Unsorted<T, U>::count, &u);
  for (Shares& share : shares) share.release();
  for (const Tally& tally : tallies) total.add(tally);
  return total;
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
