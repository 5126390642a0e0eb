// The sums from which a run's coefficients of cleaning follow.
// Part of decode_nifti_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdint>

#include "decode_nifti/decode_nifti.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr int kFitRows = 4;  // that are added together

// What the rows of a run add to the sums of its fit, a block of columns at a time.
struct FitAdder {
  static constexpr std::int64_t kColumns = 256;
  const FitColumns& p;

  static void run(void* context, std::int64_t block) {
    const FitColumns& p = static_cast<const FitAdder*>(context)->p;
    const std::int64_t first = block * kColumns;
    const std::int64_t n = p.n_columns - first < kColumns ? p.n_columns - first : kColumns;
    double rows[kFitRows][kColumns];
    for (std::int64_t t = 0; t < p.n_rows; t += kFitRows) {
      const std::int64_t m = p.n_rows - t < kFitRows ? p.n_rows - t : kFitRows;
      for (std::int64_t j = 0; j < m; ++j) load(p, t + j, first, n, rows[j]);
      for (std::int64_t k = 0; k < p.n_basis; ++k) add(p, t, m, k, first, n, rows);
    }
  }

  static void load(const FitColumns& p, std::int64_t t, std::int64_t first, std::int64_t n, double* row) {
    const float* values = p.values + t * p.stride + first;
    const float* origin = p.origin + first;
    double* squares = p.squares + first;
    for (std::int64_t c = 0; c < n; ++c) {
      row[c] = static_cast<double>(values[c]) - static_cast<double>(origin[c]);
      squares[c] += row[c] * row[c];
    }
  }

  // Sums grow in the order of time, however many rows come at once.
  static void add(const FitColumns& p, std::int64_t t, std::int64_t m, std::int64_t k, std::int64_t first,
                  std::int64_t n, const double (&rows)[kFitRows][kColumns]) {
    double* sums = p.sums + k * p.n_columns + first;
    const double* basis = p.basis + t * p.n_basis + k;
    if (m == kFitRows) {
      const double b0 = basis[0], b1 = basis[p.n_basis], b2 = basis[2 * p.n_basis], b3 = basis[3 * p.n_basis];
      for (std::int64_t c = 0; c < n; ++c)
        sums[c] = (((sums[c] + b0 * rows[0][c]) + b1 * rows[1][c]) + b2 * rows[2][c]) + b3 * rows[3][c];
      return;
    }
    for (std::int64_t j = 0; j < m; ++j)
      for (std::int64_t c = 0; c < n; ++c) sums[c] += basis[j * p.n_basis] * rows[j][c];
  }
};

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
