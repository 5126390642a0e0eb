// Centered samples, and the products with them: Gram matrices and small panels.
#pragma once

#include "solve_ridge/cpu_lanes.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

// ---- Centering

// A matrix of the caller's.
template <class Real>
struct Rows {
  const Real* numbers;
  std::int64_t n_rows, n_columns;

  inline __attribute__((always_inline)) Lanes at(std::int64_t r, std::int64_t c) const {
    const std::int64_t first = r * n_columns + c;
    return load_first(numbers + first, n_columns - c, n_rows * n_columns - first);
  }
};

constexpr int kMeanVectors = 4;

// The first row is taken off before summing, so that the mean of equal numbers is that number.
template <int kVectors, class Read>
NK_INLINE void average(std::int64_t n_rows, double* means, const Read& read) {
  Lanes total[kVectors] = {}, first[kVectors];
  for (int j = 0; j < kVectors; ++j) first[j] = read(0, j);
  for (std::int64_t r = 1; r < n_rows; ++r)
    for (int j = 0; j < kVectors; ++j) total[j] += read(r, j) - first[j];
  const double share = 1 / static_cast<double>(n_rows);
  for (int j = 0; j < kVectors; ++j) store(first[j] + total[j] * share, means + j * kLanes);
}

NK_INLINE void clear(double* x, std::int64_t n) {
  for (std::int64_t c = 0; c < n; c += kLanes) store(Lanes{}, x + c);
}

// Means of columns, or 0 if nothing is centered; zeros behind them, up to a multiple of 8.
template <class Real>
void find_means(const Rows<Real>& x, bool center, double* means) {
  if (!center) return clear(means, round_to_eight(x.n_columns));
  const Real* const numbers = x.numbers;
  const std::int64_t n = x.n_columns;
  std::int64_t c = 0;
  for (; c + kMeanVectors * kLanes <= n; c += kMeanVectors * kLanes)
    average<kMeanVectors>(x.n_rows, means + c, [&](std::int64_t r, int j) __attribute__((always_inline)) {
      return load(numbers + r * n + c + j * kLanes);
    });
  for (; c < n; c += kLanes) average<1>(x.n_rows, means + c, [&](std::int64_t r, int) { return x.at(r, c); });
  for (; c < round_to_eight(n); c += kLanes) store(Lanes{}, means + c);
}

// out (n_rows, pitch) = x - means, zeros behind the columns; the pitch is a multiple of the lanes.
template <class Real>
void center_rows(const Rows<Real>& x, const double* means, std::int64_t pitch, double* out) {
  for (std::int64_t r = 0; r < x.n_rows; ++r) {
    std::int64_t c = 0;
    for (; c < x.n_columns; c += kLanes) store(x.at(r, c) - load(means + c), out + r * pitch + c);
    clear(out + r * pitch + c, pitch - c);
  }
}

template <class Store, class Read>
NK_INLINE void transpose_columns(std::int64_t n_rows, std::int64_t pitch, const Read& read,
                                 const Store& keep) {
  for (std::int64_t r = 0; r < pitch; r += kLanes) {
    Lanes tile[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes; ++i) tile[i] = r + i < n_rows ? read(r + i) : Lanes{};
    transpose(tile);
#pragma GCC unroll 8
    for (int i = 0; i < kLanes; ++i) keep(i, r, tile[i]);
  }
}

// out (count, pitch)[c][r] = x[r][first + c] - means[first + c], zeros behind the rows; the pitch is a
// multiple of 8.
template <class Real>
void center_columns(const Rows<Real>& x, std::int64_t first, std::int64_t count, const double* means,
                    std::int64_t pitch, double* out) {
  std::int64_t c = 0;
  for (; c + kLanes <= count; c += kLanes) {
    const Lanes mean = load(means + first + c);
    const Real* const numbers = x.numbers + first + c;
    double* const columns = out + c * pitch;
    transpose_columns(
        x.n_rows, pitch,
        [&](std::int64_t r) __attribute__((always_inline)) { return load(numbers + r * x.n_columns) - mean; },
        [&](int i, std::int64_t r, Lanes column)
            __attribute__((always_inline)) { store(column, columns + i * pitch + r); });
  }
  if (c == count) return;
  const Lanes mean = load(means + first + c);
  transpose_columns(
      x.n_rows, pitch, [&](std::int64_t r) { return x.at(r, first + c) - mean; },
      [&](int i, std::int64_t r, Lanes column) {
        if (c + i < count) store(column, out + (c + i) * pitch + r);
      });
}

// The first n_columns of rows (n_rows, pitch) as the caller's matrix. Whole vectors are stored: what a row
// writes behind its end is the next row's, and written by that later.
template <class Real>
void write_rows(const double* rows, std::int64_t pitch, std::int64_t n_rows, std::int64_t n_columns,
                Real* out) {
  const std::int64_t size = n_rows * n_columns;
  std::int64_t r = 0;
  if (n_columns <= kLanes)
    for (; r * n_columns + kLanes <= size; ++r) store(load(rows + r * pitch), out + r * n_columns);
  for (; r < n_rows; ++r)
    for (std::int64_t c = 0; c < n_columns; c += kLanes) {
      const std::int64_t at = r * n_columns + c;
      store_first(load(rows + r * pitch + c), size - at >= kLanes ? kLanes : n_columns - c, out + at);
    }
}

// ---- Products

// out[a][b] += sum over r of left[r][a] * right[r][b], for kRows numbers a and kVectors vectors of b.
template <int kRows, int kVectors>
NK_INLINE void add_block(const double* left, std::int64_t left_pitch, const double* right,
                         std::int64_t right_pitch, std::int64_t count, double* out, std::int64_t out_pitch) {
  Lanes sums[kRows][kVectors];
  for (int a = 0; a < kRows; ++a)
    for (int b = 0; b < kVectors; ++b) sums[a][b] = load(out + a * out_pitch + b * kLanes);
  for (std::int64_t r = 0; r < count; ++r) {
    Lanes vectors[kVectors];
    for (int b = 0; b < kVectors; ++b) vectors[b] = load(right + r * right_pitch + b * kLanes);
#pragma GCC unroll 8
    for (int a = 0; a < kRows; ++a) {
      const Lanes factor = spread(left[r * left_pitch + a]);
      for (int b = 0; b < kVectors; ++b) sums[a][b] += factor * vectors[b];
    }
  }
  for (int a = 0; a < kRows; ++a)
    for (int b = 0; b < kVectors; ++b) store(sums[a][b], out + a * out_pitch + b * kLanes);
}

constexpr int kBlockRows = kManyRegisters ? 8 : 4;

// A panel of products: rows a below n_rows, which need no padding, and the columns of kVectors vectors.
template <int kVectors>
NK_INLINE void add_panel(const double* left, std::int64_t left_pitch, const double* right,
                         std::int64_t right_pitch, std::int64_t count, std::int64_t n_rows, double* out,
                         std::int64_t out_pitch) {
  std::int64_t a = 0;
  for (; a + kBlockRows <= n_rows; a += kBlockRows)
    add_block<kBlockRows, kVectors>(left + a, left_pitch, right, right_pitch, count, out + a * out_pitch,
                                    out_pitch);
  for (; a < n_rows; ++a)
    add_block<1, kVectors>(left + a, left_pitch, right, right_pitch, count, out + a * out_pitch, out_pitch);
}

// out (n_rows, out_pitch) += left' right, where left is (count, n_rows) and right (count, n_columns); columns
// are padded to whole vectors.
void add_product(const double* left, std::int64_t left_pitch, const double* right, std::int64_t right_pitch,
                 std::int64_t count, std::int64_t n_rows, std::int64_t n_columns, double* out,
                 std::int64_t out_pitch) {
  std::int64_t b = 0;
  for (; b + 2 * kLanes <= round_to_lanes(n_columns); b += 2 * kLanes)
    add_panel<2>(left, left_pitch, right + b, right_pitch, count, n_rows, out + b, out_pitch);
  for (; b < n_columns; b += kLanes)
    add_panel<1>(left, left_pitch, right + b, right_pitch, count, n_rows, out + b, out_pitch);
}

// gram (pitch, pitch) += rows' rows on and below the diagonal; rows are (count, pitch), and the pitch is a
// multiple of 8.
void add_gram(const double* rows, std::int64_t count, std::int64_t pitch, double* gram) {
  for (std::int64_t a = 0; a < pitch; a += kBlockRows)
    add_product(rows + a, pitch, rows, pitch, count, kBlockRows, a + kBlockRows, gram + a * pitch, pitch);
}

void mirror(double* gram, std::int64_t n, std::int64_t pitch) {
  for (std::int64_t a = 0; a < n; ++a)
    for (std::int64_t b = a + 1; b < n; ++b) gram[a * pitch + b] = gram[b * pitch + a];
}

// out (n_rows, out_pitch) = left right, where left is (n_rows, count) and right (count, n_columns).
template <int kRows>
NK_INLINE void multiply_rows(const double* left, std::int64_t left_pitch, const double* right,
                             std::int64_t right_pitch, std::int64_t count, std::int64_t n_columns,
                             double* out, std::int64_t out_pitch) {
  for (std::int64_t b = 0; b < n_columns; b += kLanes) {
    Lanes sums[kRows] = {};
    for (std::int64_t k = 0; k < count; ++k) {
      const Lanes vector = load(right + k * right_pitch + b);
#pragma GCC unroll 8
      for (int a = 0; a < kRows; ++a) sums[a] += spread(left[a * left_pitch + k]) * vector;
    }
    for (int a = 0; a < kRows; ++a) store(sums[a], out + a * out_pitch + b);
  }
}

void multiply(const double* left, std::int64_t left_pitch, const double* right, std::int64_t right_pitch,
              std::int64_t count, std::int64_t n_rows, std::int64_t n_columns, double* out,
              std::int64_t out_pitch) {
  std::int64_t a = 0;
  for (; a + kBlockRows <= n_rows; a += kBlockRows)
    multiply_rows<kBlockRows>(left + a * left_pitch, left_pitch, right, right_pitch, count, n_columns,
                              out + a * out_pitch, out_pitch);
  for (; a < n_rows; ++a)
    multiply_rows<1>(left + a * left_pitch, left_pitch, right, right_pitch, count, n_columns,
                     out + a * out_pitch, out_pitch);
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
