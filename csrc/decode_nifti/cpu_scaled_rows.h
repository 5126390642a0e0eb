// Rows of raw values that lie next to each other already: scaled, cleaned by coefficients, and written.
// Part of decode_nifti_cpu.cpp, compiled once per instruction set: no STL, nothing with external linkage.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/thread_pool.h"
#include "decode_nifti/cpu_rows.h"
#include "decode_nifti/decode_nifti.h"
#include "decode_nifti/decode_nifti_body.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

constexpr std::int64_t kParallelValues = 100000;
constexpr std::int64_t kPiece = 1024;  // columns at once: a few rows of them stay in L1
constexpr int kTogetherRows = 4;       // that share one look at the coefficients
constexpr int kTogetherTrends = 4;     // that share one look at the rows

template <typename Bits>
struct ScaledRowsWriter {
  const ScaledRows& p;
  const Scale scale;
  std::int64_t n_tasks;

  explicit ScaledRowsWriter(const ScaledRows& problem)
      : p(problem), scale(problem.type, problem.slope, problem.inter), n_tasks(1) {}

  static void run(void* context, std::int64_t task) {
    const ScaledRowsWriter& w = *static_cast<const ScaledRowsWriter*>(context);
    const std::int64_t pieces = (w.p.n_columns + kPiece - 1) / kPiece;
    const std::int64_t first = pieces * task / w.n_tasks * kPiece;
    const std::int64_t end = pieces * (task + 1) / w.n_tasks * kPiece;
    const std::int64_t last = end < w.p.n_columns ? end : w.p.n_columns;
    if (w.p.origin == nullptr) {
      for (std::int64_t t = 0; t < w.p.n_rows; ++t) w.scale_row(t, first, last - first);
    } else {
      for (std::int64_t c = first; c < last; c += kPiece)
        w.clean_piece(c, last - c < kPiece ? last - c : kPiece);
    }
    finish_rows();
  }

  const Bits* raw(std::int64_t row, std::int64_t first) const {
    return static_cast<const Bits*>(p.raw) + row * p.raw_stride + first;
  }

  void scale_row(std::int64_t row, std::int64_t first, std::int64_t n) const {
    with_floats<Bits>(p.type, scale, [&](auto value) { return put(row, first, raw(row, first), n, value); });
  }

  void clean_piece(std::int64_t first, std::int64_t n) const {
    std::int64_t t = 0;
    for (; t + kTogetherRows <= p.n_rows; t += kTogetherRows) {
      fetch(t + kTogetherRows, first, n);
      write<kTogetherRows>(t, first, n);
    }
    for (; t < p.n_rows; ++t) write<1>(t, first, n);
  }

  template <int kRows>
  void write(std::int64_t row, std::int64_t first, std::int64_t n) const {
    alignas(64) float values[kRows][kPiece];
    for (int j = 0; j < kRows; ++j) {
      const Bits* from = raw(row + j, first);
      const float* origin = p.origin + first;
      float* to = values[j];
      with_floats<Bits>(p.type, scale, [&](auto value) {
        for (std::int64_t c = 0; c < n; ++c) to[c] = value(from[c]) - origin[c];
        return n;
      });
    }
    clean<kRows>(row, first, n, values);
    for (int j = 0; j < kRows; ++j) {
      if (p.decoded == DecodedType::f32)
        copy(row + j, first, values[j], n);
      else
        put(row + j, first, values[j], n, [](float x) { return x; });
    }
  }

  // As put, from values that are in L1 already: emit would copy them there once more.
  void copy(std::int64_t row, std::int64_t first, const float* values, std::int64_t n) const {
    float* to = static_cast<float*>(p.out) + row * p.out_stride + first;
    constexpr std::int64_t kLine = kLineBytes / static_cast<std::int64_t>(sizeof(float));
    std::int64_t i = 0;
    if (p.n_rows * p.n_columns * static_cast<std::int64_t>(sizeof(float)) >= kStreamBytes) {
      const auto head = static_cast<std::int64_t>(-reinterpret_cast<std::uintptr_t>(to) % kLineBytes) /
                        static_cast<std::int64_t>(sizeof(float));
      for (; i < head && i < n; ++i) to[i] = values[i];
      for (; i + kLine <= n; i += kLine) stream_line(to + i, values + i);
    }
    memcpy(to + i, values + i, static_cast<std::size_t>(n - i) * sizeof(float));
  }

  // Rows that come next: their pieces lie too far apart for the processor to guess.
  void fetch(std::int64_t row, std::int64_t first, std::int64_t n) const {
    for (std::int64_t t = row; t < row + kTogetherRows && t < p.n_rows; ++t) {
      const auto* bytes = reinterpret_cast<const unsigned char*>(raw(t, first));
      for (std::int64_t i = 0; i < n * static_cast<std::int64_t>(sizeof(Bits)); i += kLineBytes)
        __builtin_prefetch(bytes + i);
    }
  }

  template <typename In, typename Value>
  std::int64_t put(std::int64_t row, std::int64_t first, const In* from, std::int64_t n, Value value) const {
    const bool is_float = p.decoded == DecodedType::f32;
    const std::int64_t bytes = is_float ? 4 : 2;
    unsigned char* to = static_cast<unsigned char*>(p.out) + (row * p.out_stride + first) * bytes;
    const Target target{to, p.n_rows * p.n_columns * bytes >= kStreamBytes, true};
    if (is_float) return emit<float>(target, from, n, value);
    if (p.decoded == DecodedType::f16)
      return emit<std::uint16_t>(target, from, n, [&](In x) { return half_of(value(x)); });
    return emit<std::uint16_t>(target, from, n, [&](In x) { return bfloat16_of(value(x)); });
  }

  // A value by itself and the trends in their order: the result does not depend on the window or the threads.
  template <int kRows>
  void clean(std::int64_t row, std::int64_t first, std::int64_t n, float (&values)[kRows][kPiece]) const {
    const float* basis = p.basis + row * p.n_basis;
    std::int64_t k = 0;
    for (; k + kTogetherTrends <= p.n_basis; k += kTogetherTrends) subtract(k, basis, first, n, values);
    const float *w = p.coefficients + k * p.n_columns + first, *factor = p.factor + first;
    for (int j = 0; j < kRows; ++j) {
      const float* b = basis + j * p.n_basis + k;
      switch (p.n_basis - k) {
        case 1:
          finish<1>(b, w, w, w, factor, n, values[j]);
          break;
        case 2:
          finish<2>(b, w, w + p.n_columns, w, factor, n, values[j]);
          break;
        case 3:
          finish<3>(b, w, w + p.n_columns, w + 2 * p.n_columns, factor, n, values[j]);
          break;
        default:
          finish<0>(b, w, w, w, factor, n, values[j]);
      }
    }
  }

  // The last trends, fewer than kTogetherTrends, and the factor.
  template <int kTrends>
  static void finish(const float* basis, const float* w0, const float* w1, const float* w2,
                     const float* factor, std::int64_t n, float* __restrict values) {
    const float b0 = kTrends > 0 ? basis[0] : 0, b1 = kTrends > 1 ? basis[1] : 0,
                b2 = kTrends > 2 ? basis[2] : 0;
    for (std::int64_t c = 0; c < n; ++c) {
      float x = values[c];
      if constexpr (kTrends > 0) x -= b0 * w0[c];
      if constexpr (kTrends > 1) x -= b1 * w1[c];
      if constexpr (kTrends > 2) x -= b2 * w2[c];
      values[c] = x * factor[c];
    }
  }

  template <int kRows>
  void subtract(std::int64_t k, const float* basis, std::int64_t first, std::int64_t n,
                float (&values)[kRows][kPiece]) const {
    const float* w0 = p.coefficients + k * p.n_columns + first;
    const float *w1 = w0 + p.n_columns, *w2 = w1 + p.n_columns, *w3 = w2 + p.n_columns;
    for (int j = 0; j + 2 <= kRows; j += 2)
      subtract_from(basis + j * p.n_basis + k, basis + (j + 1) * p.n_basis + k, w0, w1, w2, w3, n, values[j],
                    values[j + 1]);
    if constexpr (kRows == 1) {
      const float b0 = basis[k], b1 = basis[k + 1], b2 = basis[k + 2], b3 = basis[k + 3];
      for (std::int64_t c = 0; c < n; ++c)
        values[0][c] = (((values[0][c] - b0 * w0[c]) - b1 * w1[c]) - b2 * w2[c]) - b3 * w3[c];
    }
  }

  // Two rows at once: each coefficient is loaded once for both.
  static void subtract_from(const float* a, const float* b, const float* w0, const float* w1, const float* w2,
                            const float* w3, std::int64_t n, float* __restrict upper,
                            float* __restrict lower) {
    const float a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], b0 = b[0], b1 = b[1], b2 = b[2], b3 = b[3];
    for (std::int64_t c = 0; c < n; ++c) {
      upper[c] = (((upper[c] - a0 * w0[c]) - a1 * w1[c]) - a2 * w2[c]) - a3 * w3[c];
      lower[c] = (((lower[c] - b0 * w0[c]) - b1 * w1[c]) - b2 * w2[c]) - b3 * w3[c];
    }
  }
};

template <typename Bits>
void scale_rows(const ScaledRows& p, int n_threads) {
  ScaledRowsWriter<Bits> writer(p);
  const std::int64_t pieces = (p.n_columns + kPiece - 1) / kPiece;
  if (n_threads > 1 && p.n_rows * p.n_columns >= kParallelValues)
    writer.n_tasks = n_threads < pieces ? n_threads : pieces;
  parallel_for(writer.n_tasks, n_threads, &ScaledRowsWriter<Bits>::run, &writer);
}

// What the rows of a run add to the sums of its fit, a block of columns at a time.
struct FitAdder {
  static constexpr std::int64_t kColumns = 256;
  const FitColumns& p;

  static void run(void* context, std::int64_t block) {
    const FitColumns& p = static_cast<const FitAdder*>(context)->p;
    const std::int64_t first = block * kColumns;
    const std::int64_t n = p.n_columns - first < kColumns ? p.n_columns - first : kColumns;
    double rows[kTogetherRows][kColumns];
    for (std::int64_t t = 0; t < p.n_rows; t += kTogetherRows) {
      const std::int64_t m = p.n_rows - t < kTogetherRows ? p.n_rows - t : kTogetherRows;
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
                  std::int64_t n, const double (&rows)[kTogetherRows][kColumns]) {
    double* sums = p.sums + k * p.n_columns + first;
    const double* basis = p.basis + t * p.n_basis + k;
    if (m == kTogetherRows) {
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
