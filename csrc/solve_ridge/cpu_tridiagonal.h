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
  double *diagonal, *off, *tau;    // off[k] stands between k - 1 and k
  double *v, *w, *next_v, *next_w;  // work
};

constexpr int kPassVectors = kManyRegisters ? 4 : 2;

// Of columns from c on: rows -= a b' + b a' (or a b' alone), and `sums` = next_a' rows.
template <int kVectors, bool kTwoTerms>
NK_INLINE void update_columns(const Tridiagonal& t, std::int64_t n_rows, std::int64_t c, const double* a,
                              const double* b, const double* next_a, double* sums) {
  Lanes total[kVectors] = {}, a_lanes[kVectors], b_lanes[kVectors];
  for (int j = 0; j < kVectors; ++j) {
    a_lanes[j] = load(a + c + j * kLanes);
    b_lanes[j] = load(b + c + j * kLanes);
  }
  for (std::int64_t r = 0; r < n_rows; ++r) {
    double* row = t.matrix + r * t.pitch + c;
    const Lanes a_row = Lanes{} + a[r], b_row = Lanes{} + b[r], next_row = Lanes{} + next_a[r];
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
NK_INLINE void update_rows(const Tridiagonal& t, std::int64_t n_rows, const double* a, const double* b,
                           const double* next_a, double* sums) {
  const std::int64_t n_columns = round_to_lanes(n_rows);
  std::int64_t c = 0;
  for (; c + kPassVectors * kLanes <= n_columns; c += kPassVectors * kLanes)
    update_columns<kPassVectors, kTwoTerms>(t, n_rows, c, a, b, next_a, sums);
  for (; c < n_columns; c += kLanes) update_columns<1, kTwoTerms>(t, n_rows, c, a, b, next_a, sums);
}

// Scales the first n and sets what lies behind them to 0.
NK_INLINE void scale_first(double* x, std::int64_t n, double factor) {
  for (std::int64_t c = 0; c < n; c += kLanes) store(load(x + c) * factor, x + c);
  for (std::int64_t c = n; c < round_to_eight(n); ++c) x[c] = 0;
}

// The reflector of row j, from its numbers before the diagonal.
NK_INLINE Reflector reflect_row(const Tridiagonal& t, std::int64_t j, double* v) {
  const double* row = t.matrix + j * t.pitch;
  const std::int64_t padded = round_to_eight(j);
  for (std::int64_t c = 0; c < j - 1; ++c) v[c] = row[c];
  for (std::int64_t c = j - 1; c < padded; ++c) v[c] = 0;
  const Reflector h = make_reflector(dot(v, v, padded), row[j - 1]);
  v[j - 1] = h.last;
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
    const Reflector h = reflect_row(t, j, t.next_v);
    t.off[j] = h.off;
    t.tau[j] = h.tau;
    update_rows<true>(t, j, t.v, t.w, t.next_v, t.next_w);
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
    clear(t.next_v, padded);
    if (j < t.n)
      for (std::int64_t c = 0; c < j; ++c) t.next_v[c] = t.matrix[j * t.pitch + c];
    for (std::int64_t r = 0; r < j; ++r) t.matrix[r * t.pitch + j - 1] = 0;
    double* row = t.matrix + (j - 1) * t.pitch;
    clear(row, padded);
    row[j - 1] = 1;
    for (std::int64_t c = j - 1; c < padded; ++c) t.v[c] = t.w[c] = 0;
    update_rows<false>(t, j, t.v, t.w, t.next_v, t.next_w);
    scale_first(t.next_w, j, j < t.n ? t.tau[j] : 0);
    swap(t.v, t.next_v);
    swap(t.w, t.next_w);
  }
}

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
