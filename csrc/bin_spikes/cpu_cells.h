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
    // Near a closed last edge, which knows no tolerance, only the comparison tells.
    const double end = plain_edge(p, start, p.n_bins);
    const double reach = (start < 0 ? -start : start) + (end < 0 ? -end : end) + p.tolerance;
    slack = 16 * 2.3e-16 * (scale * reach + static_cast<double>(p.n_bins)) +
            (p.closed_last ? scale * p.tolerance : 0);
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
  double scale, offset = 0, slack = 0, last_position = 0;
  bool usable;

  // With half a step of the smallest fraction added, no quotient of integers comes near an edge.
  Quotient(const BinSpikes& p, int64_t window_start, int64_t rows)
      : start(window_start),
        scale(static_cast<double>(p.width_denominator) / static_cast<double>(p.width_numerator)),
        usable(p.edges == nullptr && p.width_numerator / p.width_denominator < (int64_t{1} << 30) / rows &&
               p.width_numerator < (int64_t{1} << 48) / rows) {}
  void set_block(const BinSpikes& p, int64_t row, int64_t rows) {
    block_start = bin_edge(p, start, row);
    span = bin_limit(p, start, row + rows) - block_start;
    last_position = static_cast<double>(rows) - 0.5;  // also for a spike on a closed last edge
    const int64_t ahead = (block_start - start) * p.width_denominator - row * p.width_numerator;
    offset = (static_cast<double>(ahead) + 0.5) / static_cast<double>(p.width_numerator);
  }
  inline __attribute__((always_inline)) F64 position(const int64_t* times, int64_t) const {
    const U64 distance = load<U64>(times) - static_cast<uint64_t>(block_start);  // before the block: huge
    const U64 inside = distance < static_cast<uint64_t>(span) ? distance : U64{} + 0x80000000u;  // INT32_MIN
    const I32 narrow = reinterpret_cast<I32>(__builtin_convertvector(inside, U32));
    const F64 x = __builtin_convertvector(narrow, F64) * scale + offset, last = F64{} + last_position;
    return smaller(x, last);
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

template <typename U>
inline uint32_t column_of(const Job& job, U id) {
  const int64_t column = column_of(job.p, static_cast<int64_t>(id));
  if (column >= 0) return static_cast<uint32_t>(column);
  return column == kUnknown ? job.shape.unknown() : job.shape.unmapped();
}

inline __attribute__((always_inline)) I32 known_ids(const int32_t* units, int64_t n) {
  const I32 id = load<I32>(units);
  return reinterpret_cast<U32>(id) < static_cast<uint32_t>(n) ? id : I32{} - 1;
}
inline __attribute__((always_inline)) I32 known_ids(const int64_t* units, int64_t n) {
  const I64 id = load<I64>(units);
  const I64 known = reinterpret_cast<U64>(id) < static_cast<uint64_t>(n) ? id : I64{} - 1;
  return __builtin_convertvector(known, I32);
}

// Columns of kLanes spikes; those of Shape for ids that have none.
template <bool kMapped, typename U>
inline __attribute__((always_inline)) U32 columns_of_part(const Job& job, const U* units) {
  const I32 id = known_ids(units, kMapped ? job.p.n_ids : job.p.n_units);
  U32 column;
  if constexpr (kMapped) {
    for (int i = 0; i < kLanes; ++i) column[i] = job.columns[id[i]];
  } else {
    U32 spread;
    for (int i = 0; i < kLanes; ++i) spread[i] = job.shape.unknown() + static_cast<uint32_t>(i);
    column = id >= 0 ? reinterpret_cast<U32>(id) : spread;
  }
  return column;
}

inline __attribute__((always_inline)) uint32_t place(int32_t id) { return static_cast<uint32_t>(id); }
inline __attribute__((always_inline)) uint64_t place(int64_t id) { return static_cast<uint64_t>(id); }

// Counts kGroup spikes of one row, whose counters begin at `cells`.
template <bool kMapped, typename Count, typename U>
inline __attribute__((always_inline)) void count_in_row(const Job& job, Count* cells, const U* units) {
  if (__builtin_expect(all_below(units, kMapped ? job.p.n_ids : job.p.n_units), 1)) {
    for (int i = 0; i < kGroup; ++i) {
      const auto id = place(units[i]);
      ++cells[kMapped ? job.columns[id] : id];
    }
    return;
  }
  alignas(64) uint32_t column[kGroup];
  for (int i = 0; i < kGroup; i += kLanes) {
    const U32 part = columns_of_part<kMapped>(job, units + i);
    memcpy(column + i, &part, sizeof part);
  }
  for (int i = 0; i < kGroup; ++i) ++cells[column[i]];
}

// Counts kGroup spikes into the block of `rows` rows from `row`.
template <bool kMapped, typename Count, typename T, typename U>
inline __attribute__((always_inline)) void count_in_block(const Job& job, const Quotient<T>& quotient,
                                                          Block<Count>& block, const T* times, const U* units,
                                                          int64_t row, int64_t rows) {
  I32 r[kParts];
  rows_of_group(job.p, quotient, times, row, rows, r);
  alignas(64) uint32_t cell[kGroup];
  for (int part = 0; part < kParts; ++part) {
    const U32 own = reinterpret_cast<U32>(r[part]);
    // Unsigned, since lanes that will not be used may overflow.
    const U32 within =
        own * static_cast<uint32_t>(job.p.n_units) + columns_of_part<kMapped>(job, units + part * kLanes);
    const U32 beyond = U32{} + static_cast<uint32_t>(block.beyond(job.shape));
    const U32 at = own < static_cast<uint32_t>(rows) ? within : beyond;
    memcpy(cell + part * kLanes, &at, sizeof at);
  }
  for (int i = 0; i < kGroup; ++i) ++block.cells[cell[i]];
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
