// A symmetric matrix brought to tridiagonal form by reflections from its last row upwards, and their product.
//
// The part that is left is always the leading one, whose rows start at an aligned address. A reflection's
// update of the matrix and the product with the next reflection's vector are one pass, so that the matrix is
// read and written once for each.
#pragma once

#include "solve_ridge/cpu_products.h"

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

// Everything has room up to a multiple of 8; what lies beyond n is rubbish unless said otherwise.
struct Tridiagonal {
  double* matrix;  // (n, pitch): symmetric at first; then reflectors, row by row; then their product Q
  std::int64_t n, pitch;
  double *diagonal, *off, *tau;     // off[k] stands between k - 1 and k
  double *v, *w, *next_v, *next_w;  // work
};

constexpr int kPassVectors = kManyRegisters ? 4 : 2;

// Of columns from c on: rows -= a b' + b a' (or a b' alone), and `sums` = next_a' rows.
template <int kVectors, bool kTwoTerms>
NK_INLINE void update_columns(double* matrix, std::int64_t pitch, std::int64_t n_rows, std::int64_t c,
                              const double* a, const double* b, const double* next_a, double* sums) {
  Lanes total[kVectors] = {}, a_lanes[kVectors], b_lanes[kVectors];
  for (int j = 0; j < kVectors; ++j) {
    a_lanes[j] = load(a + c + j * kLanes);
    b_lanes[j] = load(b + c + j * kLanes);
  }
  double* row = matrix + c;
  for (std::int64_t r = 0; r < n_rows; ++r, row += pitch) {
    const Lanes a_row = spread(a[r]), b_row = spread(b[r]), next_row = spread(next_a[r]);
    for (int j = 0; j < kVectors; ++j) {
      Lanes change = a_row * b_lanes[j];
      if (kTwoTerms) change += b_row * a_lanes[j];
      const Lanes value = load(row + j * kLanes) - change;
      store(value, row + j * kLanes);
      total[j] += value * next_row;
    }
  }
  for (int j = 0; j < kVectors; ++j) store(total[j], sums + c + j * kLanes);
}

template <bool kTwoTerms>
NK_INLINE void update_rows(double* matrix, std::int64_t pitch, std::int64_t n_rows, const double* a,
                           const double* b, const double* next_a, double* sums) {
  const std::int64_t n_columns = round_to_lanes(n_rows);
  std::int64_t c = 0;
  for (; c + kPassVectors * kLanes <= n_columns; c += kPassVectors * kLanes)
    update_columns<kPassVectors, kTwoTerms>(matrix, pitch, n_rows, c, a, b, next_a, sums);
  if (c + 2 * kLanes <= n_columns) {
    update_columns<2, kTwoTerms>(matrix, pitch, n_rows, c, a, b, next_a, sums);
    c += 2 * kLanes;
  }
  if (c < n_columns) update_columns<1, kTwoTerms>(matrix, pitch, n_rows, c, a, b, next_a, sums);
}

// Scales the first n and sets what lies behind them, up to a multiple of 8, to 0. In whole vectors: single
// numbers would keep the next loads waiting.
NK_INLINE void scale_first(double* x, std::int64_t n, double factor) {
  const std::int64_t padded = round_to_eight(n);
  for (std::int64_t c = 0; c < padded; c += kLanes) store(keep_first(load(x + c) * factor, n - c), x + c);
}

// The reflector of row j, from its numbers before the diagonal.
NK_INLINE Reflector reflect_row(const double* row, std::int64_t j, double* v) {
  const std::int64_t padded = round_to_eight(j);
  EightSums sums;
  for (std::int64_t c = 0; c < padded; c += kEight)
    for (int part = 0; part < kEight / kLanes; ++part) {
      const std::int64_t at = c + part * kLanes;
      const Lanes numbers = keep_first(load(row + at), j - 1 - at);
      sums.add(part, numbers * numbers);
      store(numbers, v + at);
    }
  const Reflector h = make_reflector(sums.total(), row[j - 1]);
  const std::int64_t last = (j - 1) / kLanes * kLanes;
  store(lane_numbers() == j - 1 - last ? spread(h.last) : load(v + last), v + last);
  return h;
}

NK_INLINE void swap(double*& a, double*& b) {
  double* const c = a;
  a = b;
  b = c;
}

void make_tridiagonal(Tridiagonal& t) {
  const std::int64_t n = t.n;
  clear(t.v, round_to_eight(n));
  clear(t.w, round_to_eight(n));
  for (std::int64_t j = n - 1; j > 0; --j) {
    double* row = t.matrix + j * t.pitch;
    const double v_row = t.v[j], w_row = t.w[j];
    for (std::int64_t c = 0; c <= j; c += kLanes)
      store(load(row + c) - (load(t.w + c) * v_row + load(t.v + c) * w_row), row + c);
    t.diagonal[j] = row[j];
    const Reflector h = reflect_row(row, j, t.next_v);
    t.off[j] = h.off;
    t.tau[j] = h.tau;
    update_rows<true>(t.matrix, t.pitch, j, t.v, t.w, t.next_v, t.next_w);
    scale_first(t.next_w, j, h.tau);
    const std::int64_t padded = round_to_eight(j);
    const double half = h.tau / 2 * dot(t.next_v, t.next_w, padded);
    for (std::int64_t c = 0; c < padded; c += kLanes) {
      const Lanes v = load(t.next_v + c);
      store(load(t.next_w + c) - v * half, t.next_w + c);
      store(v, row + c);
    }
    swap(t.v, t.next_v);
    swap(t.w, t.next_w);
  }
  if (n > 0) t.diagonal[0] = t.matrix[0];
}

// Puts Q in the place of the reflectors.
void form_product(Tridiagonal& t) {
  clear(t.v, round_to_eight(t.n));
  clear(t.w, round_to_eight(t.n));
  for (std::int64_t j = 1; j <= t.n; ++j) {
    const std::int64_t padded = round_to_eight(j);
    if (j < t.n) {
      for (std::int64_t c = 0; c < padded; c += kLanes) store(load(t.matrix + j * t.pitch + c), t.next_v + c);
    } else {
      clear(t.next_v, padded);
    }
    for (std::int64_t r = 0; r < j; ++r) t.matrix[r * t.pitch + j - 1] = 0;
    double* row = t.matrix + (j - 1) * t.pitch;
    clear(row, padded);
    row[j - 1] = 1;
    const std::int64_t last = (j - 1) / kLanes * kLanes;  // what was kept for j - 1 may end there
    for (std::int64_t c = last; c < padded; c += kLanes) {
      store(keep_first(load(t.v + c), j - 1 - c), t.v + c);
      store(keep_first(load(t.w + c), j - 1 - c), t.w + c);
    }
    update_rows<false>(t.matrix, t.pitch, j, t.v, t.w, t.next_v, t.next_w);
    scale_first(t.next_w, j, j < t.n ? t.tau[j] : 0);
    swap(t.v, t.next_v);
    swap(t.w, t.next_w);
  }
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
