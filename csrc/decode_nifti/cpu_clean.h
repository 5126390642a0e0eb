// Takes out of columns what a basis explains, a block of columns at a time that stays in cache.
// Part of decode_nifti_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "decode_nifti/decode_nifti_body.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kBlockBytes = 512 << 10;  // of a block, half of a 1 MiB L2
constexpr std::int64_t kMostColumns = 256;       // of a block

// Columns of a block: whole cache lines, few enough for the block to stay.
inline std::int64_t block_columns(const CleanColumns& p) {
  const std::int64_t rows = p.n_rows > 0 ? p.n_rows : 1;
  const std::int64_t columns = kBlockBytes / (rows * 4) / 16 * 16;
  return columns < 32 ? 32 : (columns > kMostColumns ? kMostColumns : columns);
}

struct Cleaner {
  const CleanColumns& p;
  std::int64_t columns;

  static void run(void* context, std::int64_t block) {
    const Cleaner& cleaner = *static_cast<const Cleaner*>(context);
    const CleanColumns& p = cleaner.p;
    const std::int64_t first = block * cleaner.columns;
    const std::int64_t last = first + cleaner.columns < p.n_columns ? first + cleaner.columns : p.n_columns;
    clean(p, first, last - first);
  }

  // Every column by itself and in the order of time: the result does not depend on blocks or threads.
  static void clean(const CleanColumns& p, std::int64_t first, std::int64_t n) {
    float origin[kMostColumns] = {};
    memcpy(origin, p.values + first, static_cast<std::size_t>(n) * sizeof(float));
    double before[kMostColumns] = {}, after[kMostColumns] = {};
    // Values about the first one: a large mean would cost the digits of what varies.
    for (std::int64_t t = 0; t < p.n_rows; ++t) {
      float* row = p.values + t * p.stride + first;
      for (std::int64_t c = 0; c < n; ++c) {
        row[c] -= origin[c];
        before[c] += static_cast<double>(row[c]) * static_cast<double>(row[c]);
      }
    }
    for (std::int64_t k = 0; k < p.n_basis; k += kBasisStep)
      project(p, first, n, k, p.n_basis - k < kBasisStep ? p.n_basis - k : kBasisStep);
    if (!p.standardize) return;
    for (std::int64_t t = 0; t < p.n_rows; ++t) {
      const float* row = p.values + t * p.stride + first;
      for (std::int64_t c = 0; c < n; ++c)
        after[c] += static_cast<double>(row[c]) * static_cast<double>(row[c]);
    }
    float factor[kMostColumns] = {};
    for (std::int64_t c = 0; c < n; ++c)
      factor[c] = after[c] <= kNothingLeft * before[c]
                      ? 0
                      : static_cast<float>(std::sqrt(static_cast<double>(p.n_rows - 1) / after[c]));
    for (std::int64_t t = 0; t < p.n_rows; ++t) {
      float* row = p.values + t * p.stride + first;
      for (std::int64_t c = 0; c < n; ++c) row[c] *= factor[c];
    }
  }

  // Takes rows k ... k + m - 1 of the basis out; they are orthogonal, so that groups can follow each other.
  static void project(const CleanColumns& p, std::int64_t first, std::int64_t n, std::int64_t k,
                      std::int64_t m) {
    float weights[kBasisStep][kMostColumns] = {};
    for (std::int64_t t = 0; t < p.n_rows; ++t) {
      const float* row = p.values + t * p.stride + first;
      for (std::int64_t j = 0; j < m; ++j) {
        const float basis = p.basis[(k + j) * p.n_rows + t];
        for (std::int64_t c = 0; c < n; ++c) weights[j][c] += basis * row[c];
      }
    }
    for (std::int64_t t = 0; t < p.n_rows; ++t) {
      float* row = p.values + t * p.stride + first;
      for (std::int64_t j = 0; j < m; ++j) {
        const float basis = p.basis[(k + j) * p.n_rows + t];
        for (std::int64_t c = 0; c < n; ++c) row[c] -= basis * weights[j][c];
      }
    }
  }
};

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
