// Sums of scores of one target after the other: a tile of its combinations stays in the first level of cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/isa.h"
#include "solve_ridge/solve_ridge.h"
#include "solve_ridge/solve_ridge_body.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace neurokern {
namespace NEUROKERN_ISA {
namespace {

template <class Real>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(8 * kLanes)));
  typedef int mask __attribute__((vector_size(8 * kLanes)));
};
template <>
struct VectorOf<double> {
  typedef Lanes type;
  typedef LaneMask mask;
};
template <class Real>
using Vector = typename VectorOf<Real>::type;

template <class Real>
constexpr int kWidth = 8 * kLanes / static_cast<int>(sizeof(Real));  // lanes of a vector
template <class Real>
constexpr int kSixteenVectors = kSixteen / kWidth<Real>;

template <class Real>
NK_INLINE Vector<Real> load_vector(const Real* at) {
  Vector<Real> lanes;
  __builtin_memcpy(&lanes, at, sizeof lanes);
  return lanes;
}

template <class Real>
NK_INLINE void store_vector(Vector<Real> lanes, Real* at) {
  __builtin_memcpy(at, &lanes, sizeof lanes);
}

// The first n numbers and zeros behind them; n may be negative, or more than a vector holds.
template <class Real>
NK_INLINE Vector<Real> load_some(const Real* at, std::int64_t n) {
  if (n >= kWidth<Real>) return load_vector(at);
#if defined(__AVX512F__)
  const auto some = n > 0 ? (1u << n) - 1 : 0u;
  if constexpr (sizeof(Real) == 4)
    return (Vector<Real>)_mm512_maskz_loadu_ps(static_cast<__mmask16>(some), at);
  else
    return (Vector<Real>)_mm512_maskz_loadu_pd(static_cast<__mmask8>(some), at);
#else
  Real numbers[kWidth<Real>] = {};
  for (std::int64_t i = 0; i < n; ++i) numbers[i] = at[i];
  return load_vector(numbers);
#endif
}

// ---- Combinations of the parts of a tile

// kRows combinations of kColumns vectors of samples; `out` has kTile numbers a row.
template <class Real, int kRows, int kColumns>
NK_INLINE void combine_block(const Real* parts, const Real* mix, const RidgeSums& p, std::int64_t n,
                             Real* out) {
  Vector<Real> sums[kRows][kColumns] = {};
  for (std::int64_t c = 0; c < p.n_parts; ++c) {
    const Real* const row = parts + c * p.n_samples;
    const Real* const weights = mix + c * p.n_penalties;
    Vector<Real> part[kColumns];
#pragma GCC unroll 8
    for (int k = 0; k < kColumns; ++k) part[k] = load_some(row + k * kWidth<Real>, n - k * kWidth<Real>);
#pragma GCC unroll 8
    for (int m = 0; m < kRows; ++m) {
      const Vector<Real> weight = weights[m] - Vector<Real>{};
#pragma GCC unroll 8
      for (int k = 0; k < kColumns; ++k) sums[m][k] += weight * part[k];
    }
  }
  for (int m = 0; m < kRows; ++m)
    for (int k = 0; k < kColumns; ++k) store_vector(sums[m][k], out + m * kTile + k * kWidth<Real>);
}

template <class Real, int kRows>
NK_INLINE void combine_rows(const Real* parts, const Real* mix, const RidgeSums& p, std::int64_t n,
                            Real* out) {
  constexpr int kColumns = kManyRegisters ? 4 : 2, kStep = kColumns * kWidth<Real>;
  std::int64_t at = 0;
  for (; at + kStep <= n; at += kStep)
    combine_block<Real, kRows, kColumns>(parts + at, mix, p, kStep, out + at);
  for (; at < n; at += kWidth<Real>) combine_block<Real, kRows, 1>(parts + at, mix, p, n - at, out + at);
  // Up to a multiple of 16 samples.
  for (; at % kSixteen != 0; at += kWidth<Real>)
    for (int m = 0; m < kRows; ++m) store_vector(Vector<Real>{}, out + m * kTile + at);
}

template <class Real>
NK_INLINE void copy_tile(const Real* parts, const RidgeSums& p, std::int64_t n, Real* out) {
  for (std::int64_t m = 0; m < p.n_penalties; ++m)
    for (std::int64_t r = 0; r < n; r += kSixteen)
      for (int part = 0; part < kSixteen; part += kWidth<Real>)
        store_vector(load_some(parts + m * p.n_samples + r + part, n - r - part), out + m * kTile + r + part);
}

// Samples behind the n that there are become 0, up to a multiple of 16.
template <class Real>
NK_INLINE void combine_tile(const Real* parts, const RidgeSums& p, std::int64_t n, Real* out) {
  constexpr int kRows = 4;
  const auto* const mix = static_cast<const Real*>(p.mix);
  if (mix == nullptr) return copy_tile(parts, p, n, out);
  std::int64_t m = 0;
  for (; m + kRows <= p.n_penalties; m += kRows)
    combine_rows<Real, kRows>(parts, mix + m, p, n, out + m * kTile);
  switch (p.n_penalties - m) {
    case 3:
      return combine_rows<Real, 3>(parts, mix + m, p, n, out + m * kTile);
    case 2:
      return combine_rows<Real, 2>(parts, mix + m, p, n, out + m * kTile);
    case 1:
      return combine_rows<Real, 1>(parts, mix + m, p, n, out + m * kTile);
    default:
      return;
  }
}

// ---- Sums over a tile

template <class Real>
struct SixteenSums {
  Vector<Real> parts[kSixteenVectors<Real>] = {};

  inline __attribute__((always_inline)) double total() const {
    Real sums[kSixteen];
    for (int part = 0; part < kSixteenVectors<Real>; ++part)
      store_vector(parts[part], sums + part * kWidth<Real>);
    return static_cast<double>(add_sixteen(sums));
  }
};

// Products of row i with kRows rows from row j on.
template <class Real, int kRows>
NK_INLINE void add_pairs(const Real* row, const Real* others, std::int64_t n, double* sums) {
  SixteenSums<Real> found[kRows];
  for (std::int64_t r = 0; r < n; r += kSixteen) {
#pragma GCC unroll 8
    for (int part = 0; part < kSixteenVectors<Real>; ++part) {
      const std::int64_t at = r + part * kWidth<Real>;
      const Vector<Real> one = load_vector(row + at);
#pragma GCC unroll 8
      for (int j = 0; j < kRows; ++j) found[j].parts[part] += one * load_vector(others + j * kTile + at);
    }
  }
  for (int j = 0; j < kRows; ++j) sums[j] += found[j].total();
}

template <class Real>
NK_INLINE void add_all_pairs(const Real* rows, std::int64_t n_rows, std::int64_t n, double* sums) {
  constexpr int kRows = kRegisters / (kManyRegisters ? 4 : 2) / kSixteenVectors<Real>;
  constexpr int kTogether = kRows > 0 ? kRows : 1;
  for (std::int64_t i = 0; i < n_rows; ++i) {
    double* const own = sums + i * (i + 1) / 2;
    std::int64_t j = 0;
    for (; j + kTogether <= i + 1; j += kTogether)
      add_pairs<Real, kTogether>(rows + i * kTile, rows + j * kTile, n, own + j);
    for (; j <= i; ++j) add_pairs<Real, 1>(rows + i * kTile, rows + j * kTile, n, own + j);
  }
}

// Of one penalty and n samples; `truth` is that of the tile, with zeros behind it.
template <class Real, bool kGuesses>
NK_INLINE void add_errors(const RidgeSums& p, const Real* combination, const Real* truth, const Real* scale,
                          const Real* ones, std::int64_t n, double* sums) {
  SixteenSums<Real> errors, guesses, squares, products;
  for (std::int64_t r = 0; r < n; r += kSixteen) {
#pragma GCC unroll 8
    for (int part = 0; part < kSixteenVectors<Real>; ++part) {
      const std::int64_t at = r + part * kWidth<Real>;
      const Vector<Real> y = load_vector(truth + at);
      Vector<Real> missed = load_vector(combination + at);
      if (!p.residuals) missed -= y;
      if (scale != nullptr) missed *= load_some(scale + at, n - at);
      errors.parts[part] += missed * missed;
      if constexpr (kGuesses) {
        const Vector<Real> guess = y + missed;
        guesses.parts[part] += load_some(ones + at, n - at) * guess;
        squares.parts[part] += guess * guess;
        products.parts[part] += guess * y;
      }
    }
  }
  sums[0] += errors.total();
  if constexpr (kGuesses) {
    sums[p.n_penalties] += guesses.total();
    sums[2 * p.n_penalties] += squares.total();
    sums[3 * p.n_penalties] += products.total();
  }
}

// ---- One target

template <class Real>
struct TargetScores {
  const RidgeSums& p;
  Real* combinations;  // (n_penalties, kTile)
  Real* truth;         // (kTile,), behind them

  TargetScores(const RidgeSums& sums, std::int64_t task)
      : p(sums),
        combinations(static_cast<Real*>(sums.scratch) + task * sums_room(sums)),
        truth(combinations + sums.n_penalties * kTile) {}

  inline __attribute__((always_inline)) void add_tile(std::int64_t target, std::int64_t first,
                                                      double* sums) const {
    const std::int64_t n = smaller(p.n_samples - first, kTile);
    combine_tile(static_cast<const Real*>(p.parts) + target * p.n_parts * p.n_samples + first, p, n,
                 combinations);
    const Real* const y =
        p.truth == nullptr ? nullptr : static_cast<const Real*>(p.truth) + target * p.n_samples + first;
    for (std::int64_t r = 0; r < kTile; r += kWidth<Real>)
      store_vector(y == nullptr ? Vector<Real>{} : load_some(y + r, n - r), truth + r);
    if (p.pairs) return add_all_pairs(combinations, n_vectors(p), n, sums);
    const auto* const scales = static_cast<const Real*>(p.scale);
    const auto* const ones = static_cast<const Real*>(p.ones);
    for (std::int64_t m = 0; m < p.n_penalties; ++m) {
      const Real* const scale = scales == nullptr ? nullptr : scales + m * p.n_samples + first;
      const Real* const row = combinations + m * kTile;
      if (ones == nullptr)
        add_errors<Real, false>(p, row, truth, scale, nullptr, n, sums + m);
      else
        add_errors<Real, true>(p, row, truth, scale, ones + first, n, sums + m);
    }
  }

  void write_combinations(std::int64_t target) const {
    auto* const out = static_cast<Real*>(p.combinations) + target * p.n_penalties * p.n_samples;
    for (std::int64_t first = 0; first < p.n_samples; first += kTile) {
      const std::int64_t n = smaller(p.n_samples - first, kTile);
      combine_tile(static_cast<const Real*>(p.parts) + target * p.n_parts * p.n_samples + first, p, n,
                   combinations);
      for (std::int64_t m = 0; m < p.n_penalties; ++m)
        __builtin_memcpy(out + m * p.n_samples + first, combinations + m * kTile,
                         static_cast<std::size_t>(n) * sizeof(Real));
    }
  }

  void run(std::int64_t target) const {
    if (p.combinations != nullptr) return write_combinations(target);
    double* const sums = p.sums + target * sums_of_target(p);
    for (std::int64_t k = 0; k < sums_of_target(p); ++k) sums[k] = 0;
    for (std::int64_t first = 0; first < p.n_samples; first += kTile) add_tile(target, first, sums);
  }
};

}  // namespace
}  // namespace NEUROKERN_ISA
}  // namespace neurokern
