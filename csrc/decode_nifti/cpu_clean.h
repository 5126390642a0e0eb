// Takes out of columns what a basis explains, a few columns at a time that stay in L1 until they are done.
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

#if defined(__AVX512F__)
constexpr int kCleanLanes = 16;
#elif defined(__AVX__)
constexpr int kCleanLanes = 8;
#else
constexpr int kCleanLanes = 4;
#endif
constexpr std::int64_t kTileColumns = 32;    // two cache lines of each row
constexpr std::int64_t kBlockColumns = 256;  // of a task

// Columns beside each other, all rows; `values` is memory of (n_rows, kTileColumns).
struct Tile {
  typedef float Floats __attribute__((vector_size(4 * kCleanLanes)));
  typedef float HalfFloats __attribute__((vector_size(2 * kCleanLanes)));
  typedef double Doubles __attribute__((vector_size(4 * kCleanLanes)));

  const CleanColumns& p;
  float* values;
  std::int64_t first, n;  // columns, up to kTileColumns
  double before[kTileColumns], after[kTileColumns];

  float* row(std::int64_t t) const { return p.values + t * p.stride + first; }

  // Every column by itself and in the order of time: the result does not depend on tiles or threads.
  void clean() {
    load();
    square(before);
    // Rows of the basis are orthogonal, so that groups of them can follow each other.
    for (std::int64_t k = 0; k < p.n_basis; k += kBasisStep) {
      switch (p.n_basis - k) {
        case 1:
          project<1>(k);
          break;
        case 2:
          project<2>(k);
          break;
        case 3:
          project<3>(k);
          break;
        default:
          project<kBasisStep>(k);
      }
    }
    if (p.standardize) square(after);
    store();
  }

 private:
  // Values about the first one: a large mean would cost the digits of what varies.
  void load() {
    float origin[kTileColumns] = {};
    memcpy(origin, row(0), static_cast<std::size_t>(n) * sizeof(float));
    for (std::int64_t t = 0; t < p.n_rows; ++t) {
      float* to = values + t * kTileColumns;
      const float* from = row(t);
      // The next tile: rows lie too far apart for the processor's prefetcher.
      __builtin_prefetch(from + kTileColumns);
      __builtin_prefetch(from + 2 * kTileColumns - 1);
      if (n == kTileColumns) {
        for (std::int64_t c = 0; c < kTileColumns; ++c) to[c] = from[c] - origin[c];
      } else {
        for (std::int64_t c = 0; c < kTileColumns; ++c) to[c] = c < n ? from[c] - origin[c] : 0;
      }
    }
  }

  void square(double* sums) const {
    for (std::int64_t c = 0; c < kTileColumns; c += kCleanLanes) {
      Doubles sum[2] = {};
      for (std::int64_t t = 0; t < p.n_rows; ++t)
        for (int half = 0; half < 2; ++half) {
          HalfFloats floats;
          memcpy(&floats, values + t * kTileColumns + c + half * kCleanLanes / 2, sizeof floats);
          const Doubles wide = __builtin_convertvector(floats, Doubles);
          sum[half] += wide * wide;
        }
      memcpy(sums + c, sum, sizeof sum);
    }
  }

  // Takes kRows rows of the basis out, from row k on.
  template <int kRows>
  void project(std::int64_t k) {
    const float* basis = p.basis + k * p.n_rows;
    for (std::int64_t c = 0; c < kTileColumns; c += 2 * kCleanLanes) {
      Floats weights[kRows][2] = {};
      for (std::int64_t t = 0; t < p.n_rows; ++t) {
        Floats value[2];
        for (int i = 0; i < 2; ++i)
          memcpy(&value[i], values + t * kTileColumns + c + i * kCleanLanes, sizeof value[i]);
        for (int j = 0; j < kRows; ++j)
          for (int i = 0; i < 2; ++i) weights[j][i] += basis[j * p.n_rows + t] * value[i];
      }
      for (std::int64_t t = 0; t < p.n_rows; ++t) {
        Floats value[2];
        for (int i = 0; i < 2; ++i)
          memcpy(&value[i], values + t * kTileColumns + c + i * kCleanLanes, sizeof value[i]);
        for (int j = 0; j < kRows; ++j)
          for (int i = 0; i < 2; ++i) value[i] -= basis[j * p.n_rows + t] * weights[j][i];
        for (int i = 0; i < 2; ++i)
          memcpy(values + t * kTileColumns + c + i * kCleanLanes, &value[i], sizeof value[i]);
      }
    }
  }

  void store() const {
    float factor[kTileColumns];
    for (std::int64_t c = 0; c < kTileColumns; ++c) {
      factor[c] = 1;
      if (p.standardize)
        factor[c] = after[c] <= kNothingLeft * before[c]
                        ? 0
                        : static_cast<float>(std::sqrt(static_cast<double>(p.n_rows - 1) / after[c]));
    }
    for (std::int64_t t = 0; t < p.n_rows; ++t) {
      const float* from = values + t * kTileColumns;
      float* to = row(t);
      if (n == kTileColumns) {
        for (std::int64_t c = 0; c < kTileColumns; ++c) to[c] = from[c] * factor[c];
      } else {
        for (std::int64_t c = 0; c < n; ++c) to[c] = from[c] * factor[c];
      }
    }
  }
};

struct Cleaner {
  const CleanColumns& p;
  int out_of_memory = 0;

  static void run(void* context, std::int64_t block) {
    Cleaner& cleaner = *static_cast<Cleaner*>(context);
    const CleanColumns& p = cleaner.p;
    auto* values = static_cast<float*>(
        aligned_alloc(64, static_cast<std::size_t>(p.n_rows * kTileColumns) * sizeof(float)));
    if (values == nullptr) {
      __atomic_store_n(&cleaner.out_of_memory, 1, __ATOMIC_RELAXED);
      return;
    }
    const std::int64_t end =
        (block + 1) * kBlockColumns < p.n_columns ? (block + 1) * kBlockColumns : p.n_columns;
    for (std::int64_t first = block * kBlockColumns; first < end; first += kTileColumns) {
      const std::int64_t n = end - first < kTileColumns ? end - first : kTileColumns;
      Tile tile{p, values, first, n, {}, {}};
      tile.clean();
    }
    free(values);
  }
};

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
