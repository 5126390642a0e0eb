// A block of rows as narrow counters, and its way to the output: converted, streamed and cleared in one pass.
// Part of bin_spikes_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdlib>
#include <cstring>

#include "bin_spikes/bin_spikes_body.h"
#include "bin_spikes/cpu_formats.h"
#include "bin_spikes/cpu_smooth.h"
#include "bin_spikes/cpu_vectors.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

struct Tally {
  int64_t in_range = 0, unknown = 0, unmapped = 0;
  uint32_t largest = 0;
  bool disordered = false, out_of_memory = false;

  bool stopped() const { return disordered || out_of_memory; }
  void add(const Tally& other) {
    in_range += other.in_range;
    unknown += other.unknown;
    unmapped += other.unmapped;
    largest = largest < other.largest ? other.largest : largest;
    disordered |= other.disordered;
    out_of_memory |= other.out_of_memory;
  }
};

// Spikes without a column add to one of these many counters, by their id: a single one would be a chain of
// dependent additions.
constexpr uint32_t kSpread = 32;

// How rows are cut into blocks.
struct Shape {
  int64_t rows, cells, n_units;  // of a block

  Shape(const BinSpikes& p, int64_t wanted_cells, int64_t max_rows) : n_units(p.n_units) {
    const int64_t fitting = wanted_cells / (p.n_units > 0 ? p.n_units : 1);
    rows = fitting < 1 ? 1 : fitting > max_rows ? max_rows : fitting;
    cells = rows * p.n_units;
  }
  // Columns of ids that have none: counter row * n_units + column lies past those of the block for each row.
  uint32_t unknown() const { return static_cast<uint32_t>(cells); }
  uint32_t unmapped() const { return static_cast<uint32_t>(2 * cells) + kSpread; }
};

// Everything a task needs to know. `columns` is unit_map, with Shape's columns for ids that have none; entry
// -1 is an unknown id. Null: the id is the column.
struct Job {
  const BinSpikes& p;
  const uint32_t* columns;
  Shape shape;
  bool stream;                   // non-temporal stores
  Smoother* smoother = nullptr;  // where finished blocks go, as float32; null: to the output
};

// Counters of a block of rows, of spikes without a column, and of spikes beyond the block.
template <typename Count>
struct Block {
  Count* cells = nullptr;

  bool allocate(const Shape& shape) {
    cells = static_cast<Count*>(calloc(size(shape), sizeof(Count)));
    return cells != nullptr;
  }
  void clear(const Shape& shape) { memset(cells, 0, size(shape) * sizeof(Count)); }
  void release() { free(cells); }

  static size_t size(const Shape& shape) { return static_cast<size_t>(beyond(shape)) + kGroup; }
  static int64_t beyond(const Shape& shape) { return 3 * shape.cells + 2 * kSpread; }

  // Sums and clears the counters of `rows` rows for ids that have no column.
  int64_t take_columnless(const Shape& shape, uint32_t column, int64_t rows) {
    int64_t sum = 0;
    for (int64_t row = 0; row < rows; ++row) {
      Count* from = cells + row * shape.n_units + column;
      for (uint32_t i = 0; i < kSpread; ++i) sum += from[i];
      memset(from, 0, kSpread * sizeof(Count));
    }
    return sum;
  }
};

constexpr int64_t kMostNarrow = 65535;  // spikes of a block that narrow counters can take

// Counters of a task: wide ones for blocks that hold too many spikes for narrow ones.
struct TaskCounters {
  Block<uint16_t> narrow;
  Block<uint32_t> wide;
  bool dense;  // sorted spikes: the last block held many a row

  bool allocate(const Shape& shape) { return narrow.allocate(shape); }
  void release() {
    narrow.release();
    wide.release();
  }
};

void* output_row(const BinSpikes& p, int64_t window, int64_t row) {
  return static_cast<char*>(p.counts) + (window * p.n_bins + row) * p.n_units * element_size(p.count_type);
}

// Writes the block to rows [row, row + rows) of a window and leaves it clear.
template <typename Count>
void finish_block(const Job& job, Block<Count>& block, int64_t window, int64_t row, int64_t rows,
                  Tally& tally) {
  const BinSpikes& p = job.p;
  void* out = job.smoother != nullptr ? static_cast<void*>(job.smoother->room()) : output_row(p, window, row);
  const uint32_t largest = convert_block(p, block.cells, out, rows * p.n_units, job.stream);
  if (job.smoother != nullptr) job.smoother->added(rows);
  tally.largest = tally.largest < largest ? largest : tally.largest;
  tally.unknown += block.take_columnless(job.shape, job.shape.unknown(), rows);
  if (job.columns != nullptr) tally.unmapped += block.take_columnless(job.shape, job.shape.unmapped(), rows);
  block.cells[block.beyond(job.shape)] = 0;
}

// Streamed lines are seen by other threads only after this.
void finish_stores(const Job& job) {
#if defined(__SSE2__)
  if (job.stream) _mm_sfence();
#else
  static_cast<void>(job);
#endif
}

// Smooths rows [first_row, last_row) of windows. bin_rows(job, window, from, to, tally) counts rows; those
// around the rows asked for are counted once more where another task has them, and not tallied.
template <typename BinRows>
void smooth_windows(const Job& job, const BinRows& bin_rows, int64_t first_window, int64_t last_window,
                    int64_t first_row, int64_t last_row, Tally& tally) {
  BinSpikes counts = job.p;
  counts.count_type = CountType::f32;
  Smoother smoother;
  const Job to_smoother{counts, job.columns, job.shape, false, &smoother};
  Tally around;
  around.out_of_memory =
      !smoother.allocate(job.p, job.shape.rows, element_size(job.p.count_type), job.stream);
  for (int64_t w = first_window; w < last_window; ++w) {
    smoother.start(w, first_row, last_row);
    const int64_t from = smoother.first_row(), to = smoother.stop_row();
    if (from < first_row && !around.stopped()) bin_rows(to_smoother, w, from, first_row, around);
    if (!around.stopped()) bin_rows(to_smoother, w, first_row, last_row, tally);
    if (last_row < to && !tally.stopped() && !around.stopped())
      bin_rows(to_smoother, w, last_row, to, around);
    if (tally.stopped() || around.stopped()) break;
  }
  smoother.release();
  tally.disordered |= around.disordered;
  tally.out_of_memory |= around.out_of_memory;
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
