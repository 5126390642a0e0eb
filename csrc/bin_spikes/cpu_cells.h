// Which counter of a block a spike adds to: sixteen spikes at a time where bins are equal.
// Part of bin_spikes_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include "bin_spikes/bin_spikes_body.h"
#include "bin_spikes/cpu_blocks.h"
#include "bin_spikes/cpu_vectors.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int64_t kMostRows = int64_t{1} << 30;  // rows are 32-bit numbers

template <typename U>
inline int64_t scalar_cell(const Job& job, const Block& block, U id, int64_t row_in_block) {
  const int64_t column = column_of(job.p, static_cast<int64_t>(id));
  if (column >= 0) return row_in_block * job.p.n_units + column;
  return column == kUnknown ? block.unknown() : block.unmapped();
}

// Equal bins by arithmetic: x = (t - origin) * scale - row lies in [r, r + 1) for row r of the block, up to
// an error far below `slack`; only a spike that close to an edge needs the comparison.
template <typename T>
struct Quotient;

template <>
struct Quotient<double> {
  double origin, scale, slack, start;
  bool usable;

  Quotient(const BinSpikes& p, double window_start, int64_t)
      : origin(window_start - p.tolerance), scale(p.step_is_rate ? p.step : 1 / p.step), start(window_start) {
    // Edges, times and the quotient are each rounded a few times, relative to the largest time and bin.
    const double end = plain_edge(p, start, p.n_bins);
    const double reach = (start < 0 ? -start : start) + (end < 0 ? -end : end) + p.tolerance;
    slack = 16 * 2.3e-16 * (scale * reach + static_cast<double>(p.n_bins));
    usable = p.edges == nullptr && slack < 0.01 && p.n_bins < kMostRows;
  }
  inline __attribute__((always_inline)) F64 position(const double* times, int64_t row) const {
    return (load<F64>(times) - origin) * scale - static_cast<double>(row);
  }
  void set_block(const BinSpikes&, int64_t, int64_t) {}
};

template <>
struct Quotient<int64_t> {
  int64_t start, block_start = 0, span = 0;
  double scale, offset = 0, slack = 0;
  bool usable;

  // With half a step of the smallest fraction added, no quotient of integers comes near an edge.
  Quotient(const BinSpikes& p, int64_t window_start, int64_t rows)
      : start(window_start),
        scale(static_cast<double>(p.width_denominator) / static_cast<double>(p.width_numerator)),
        usable(p.edges == nullptr && p.width_numerator / p.width_denominator < (int64_t{1} << 30) / rows &&
               p.width_numerator < (int64_t{1} << 48) / rows) {}
  void set_block(const BinSpikes& p, int64_t row, int64_t rows) {
    block_start = bin_edge(p, start, row);
    span = bin_edge(p, start, row + rows) - block_start;
    const int64_t ahead = (block_start - start) * p.width_denominator - row * p.width_numerator;
    offset = (static_cast<double>(ahead) + 0.5) / static_cast<double>(p.width_numerator);
  }
  inline __attribute__((always_inline)) F64 position(const int64_t* times, int64_t) const {
    const U64 distance = load<U64>(times) - static_cast<uint64_t>(block_start);  // before the block: huge
    const U64 inside = distance < static_cast<uint64_t>(span) ? distance : U64{} + 0x80000000u;  // INT32_MIN
    return __builtin_convertvector(reinterpret_cast<I32>(__builtin_convertvector(inside, U32)), F64) * scale +
           offset;
  }
};

template <typename U>
struct Columns;

template <>
struct Columns<int32_t> {
  static inline __attribute__((always_inline)) I32 load_ids(const int32_t* units, int64_t n) {
    const I32 id = load<I32>(units);
    return reinterpret_cast<U32>(id) < static_cast<uint32_t>(n) ? id : I32{} - 1;
  }
};
template <>
struct Columns<int64_t> {
  static inline __attribute__((always_inline)) I32 load_ids(const int64_t* units, int64_t n) {
    const I64 id = load<I64>(units);
    const I64 checked = reinterpret_cast<U64>(id) < static_cast<uint64_t>(n) ? id : I64{} - 1;
    return __builtin_convertvector(checked, I32);
  }
};

// Rows of kGroup spikes, counted from `row`; some number outside [0, rows) for a spike that has none there.
template <typename T>
inline __attribute__((always_inline)) void rows_of_group(const BinSpikes& p, const Quotient<T>& quotient,
                                                         const T* times, int64_t row, int64_t rows,
                                                         I32 r[kParts]) {
  F64 x[kParts];
  for (int part = 0; part < kParts; ++part) {
    x[part] = quotient.position(times + part * kLanes, row);
    r[part] = __builtin_convertvector(x[part], I32);
  }
  if (!(quotient.slack > 0)) return;
  // How far from the middle of its bin; above 1/2 also for a spike just before the block, cut to row 0.
  // The largest of each lane, or NaN if the first is: a spike beside a NaN must not be missed.
  F64 worst = magnitude(x[0] - __builtin_convertvector(r[0], F64) - 0.5);
  for (int part = 1; part < kParts; ++part) {
    const F64 next = magnitude(x[part] - __builtin_convertvector(r[part], F64) - 0.5);
    worst = next > worst ? next : worst;
  }
  if (__builtin_expect(!any_above(worst, 0.5 - quotient.slack), 1)) return;
  for (int i = 0; i < kGroup; ++i) {
    const double about = x[i / kLanes][i % kLanes];
    const bool close = about > -0.5 && about < static_cast<double>(rows) + 0.5;
    const int64_t bin = close ? bin_of(p, quotient.start, times[i]) : -1;
    r[i / kLanes][i % kLanes] = bin >= row && bin < row + rows ? static_cast<int32_t>(bin - row) : -1;
  }
}

// Columns of kLanes spikes; kUnknown or kUnmapped for those that have none.
template <bool kMapped, typename U>
inline __attribute__((always_inline)) I32 columns_of_part(const Job& job, const U* units) {
  if (!kMapped) return Columns<U>::load_ids(units, job.p.n_units);
  const I32 id = Columns<U>::load_ids(units, job.p.n_ids);
  I32 column;
  for (int i = 0; i < kLanes; ++i) column[i] = job.columns[id[i]];  // entry -1 is kUnknown
  return column;
}

// The counter of each spike of a group in a block of `rows` rows, by its rows.
template <bool kMapped, typename U>
inline __attribute__((always_inline)) void cells_of_group(const Job& job, const Block& block,
                                                          const I32 r[kParts], const U* units, int32_t rows,
                                                          int32_t* cell) {
  const uint32_t n_units = static_cast<uint32_t>(job.p.n_units);
  const int32_t beyond = static_cast<int32_t>(block.beyond());
  const int32_t unknown = static_cast<int32_t>(block.unknown());
  for (int part = 0; part < kParts; ++part) {
    const I32 column = columns_of_part<kMapped>(job, units + part * kLanes);
    // unknown() and unmapped() follow each other as kUnknown = -1 and kUnmapped = -2 do.
    const U32 row = reinterpret_cast<U32>(r[part]);
    // Unsigned, since lanes that will not be used may overflow.
    const U32 own = row * n_units + reinterpret_cast<U32>(column);
    const I32 known = column >= 0 ? reinterpret_cast<I32>(own) : unknown - 1 - column;
    const I32 at = row < static_cast<uint32_t>(rows) ? known : I32{} + beyond;
    memcpy(cell + part * kLanes, &at, sizeof at);
  }
}

// Counts kGroup spikes into the block of `rows` rows from `row`.
template <bool kMapped, typename T, typename U>
inline __attribute__((always_inline)) void count_group(const Job& job, const Quotient<T>& quotient,
                                                       Block& block, const T* times, const U* units,
                                                       int64_t row, int32_t rows) {
  I32 r[kParts];
  rows_of_group(job.p, quotient, times, row, rows, r);
  alignas(64) int32_t cell[kGroup];
  cells_of_group<kMapped>(job, block, r, units, rows, cell);
  for (int i = 0; i < kGroup; ++i) ++block.cells[cell[i]];
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
