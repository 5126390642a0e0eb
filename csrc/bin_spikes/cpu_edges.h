// Which bin a time is in where bins are not equal: a table over equal cells of time leaves few edges to
// compare. Part of bin_spikes_cpu.cpp, compiled once per instruction set: no STL, nothing with external
// linkage.
#pragma once

#include <cstdlib>

#include "bin_spikes/bin_spikes_body.h"
#include "bin_spikes/cpu_vectors.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

template <typename T>
struct EdgeTable {
  const BinSpikes& p;
  T start, first, last;  // times below `first`, or not below `last`, have no bin
  int64_t n_cells = 0;
  double scale = 0;
  int32_t* below = nullptr;  // (n_cells + 1,), edges in earlier cells

  EdgeTable(const BinSpikes& problem, T window_start)
      : p(problem), start(window_start), first(bin_edge(p, start, 0)), last(bin_limit(p, start, p.n_bins)) {}

  bool allocate() {
    constexpr int64_t kMostTableCells = int64_t{1} << 20;
    n_cells = 2 * p.n_bins < kMostTableCells ? 2 * p.n_bins : kMostTableCells;
    const double width = static_cast<double>(last) - static_cast<double>(first);
    scale = width > 0 ? static_cast<double>(n_cells) / width : 0;
    below = static_cast<int32_t*>(calloc(static_cast<size_t>(n_cells) + 1, sizeof(int32_t)));
    if (below == nullptr) return false;
    for (int64_t k = 0; k < p.n_bins; ++k) ++below[cell_of(bin_edge(p, start, k)) + 1];
    for (int64_t cell = 0; cell < n_cells; ++cell) below[cell + 1] += below[cell];
    return true;
  }
  void release() { free(below); }

  // Each step of it is monotonic by its rounding: an edge in an earlier cell is not above t, one in a later
  // cell is above it.
  inline __attribute__((always_inline)) int64_t cell_of(T t) const {
    const double x = (static_cast<double>(t) - static_cast<double>(first)) * scale;
    return !(x > 0) ? 0 : x < static_cast<double>(n_cells) ? static_cast<int64_t>(x) : n_cells - 1;
  }

  inline __attribute__((always_inline)) int64_t bin(T t) const {
    if (!(t >= first) || !(t < last)) return -1;
    const int64_t cell = cell_of(t), low = below[cell], high = below[cell + 1];
    if (__builtin_expect(high - low > 1, 0)) return search_bin(p, start, t, low > 0 ? low - 1 : 0, high);
    return low - 1 + (low < p.n_bins && t >= bin_edge(p, start, low));
  }
};

// Rows of kGroup spikes, counted from `row`; a number outside [0, rows) for a spike that has none there.
template <typename T>
inline __attribute__((always_inline)) void rows_of_group(const BinSpikes&, const EdgeTable<T>& edges,
                                                         const T* times, int64_t row, int64_t rows,
                                                         I32 r[kParts]) {
  for (int i = 0; i < kGroup; ++i) {
    const int64_t own = edges.bin(times[i]) - row;
    r[i / kLanes][i % kLanes] = own >= 0 && own < rows ? static_cast<int32_t>(own) : -1;
  }
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
