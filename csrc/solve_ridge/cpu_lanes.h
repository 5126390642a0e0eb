// Doubles in vector registers, and the sums over them whose order does not depend on how wide they are.
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "solve_ridge/solve_ridge_body.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if !defined(NEUROKERN_ISA)
#error "cpu_lanes.h belongs in kernel files: define NEUROKERN_ISA, the namespace of the instruction set"
#endif

#define NK_INLINE static inline __attribute__((always_inline))

namespace neurokern {
namespace NEUROKERN_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 8, kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kLanes = 4, kRegisters = 16;
#else
constexpr int kLanes = 2, kRegisters = 16;
#endif
constexpr bool kManyRegisters = kRegisters == 32;

typedef double Lanes __attribute__((vector_size(8 * kLanes)));
typedef long long LaneMask __attribute__((vector_size(8 * kLanes)));

// x - 0 is x, so that this is a broadcast and nothing else.
NK_INLINE Lanes spread(double x) { return x - Lanes{}; }

NK_INLINE LaneMask lane_numbers() {
  LaneMask lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane;
}

// The first n lanes, zeros behind them.
NK_INLINE Lanes keep_first(Lanes lanes, std::int64_t n) { return lane_numbers() < n ? lanes : Lanes{}; }

NK_INLINE Lanes load(const double* at) {
  Lanes lanes;
  __builtin_memcpy(&lanes, at, sizeof lanes);
  return lanes;
}

// Conversions by name: GCC 12 makes two of each and joins them. The zero-masked forms, since it warns about
// the plain ones' undefined operands.
NK_INLINE Lanes load(const float* at) {
#if defined(__AVX512F__)
  return (Lanes)_mm512_maskz_cvtps_pd(0xFF, _mm256_loadu_ps(at));
#elif defined(__AVX2__)
  return (Lanes)_mm256_cvtps_pd(_mm_loadu_ps(at));
#else
  Lanes lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = static_cast<double>(at[i]);
  return lanes;
#endif
}

NK_INLINE void store(Lanes lanes, double* at) { __builtin_memcpy(at, &lanes, sizeof lanes); }

NK_INLINE void store(Lanes lanes, float* at) {
#if defined(__AVX512F__)
  _mm256_storeu_ps(at, _mm512_maskz_cvtpd_ps(0xFF, (__m512d)lanes));
#elif defined(__AVX2__)
  _mm_storeu_ps(at, _mm256_cvtpd_ps((__m256d)lanes));
#else
  for (int i = 0; i < kLanes; ++i) at[i] = static_cast<float>(lanes[i]);
#endif
}

// The first n <= kLanes numbers, zeros behind them; of memory the first n_readable >= n numbers may be read.
template <class Real>
NK_INLINE Lanes load_first(const Real* at, std::int64_t n, std::int64_t n_readable) {
  if (n >= kLanes) return load(at);
  if (n_readable >= kLanes) return keep_first(load(at), n);
  double numbers[kLanes] = {};
  for (std::int64_t i = 0; i < n; ++i) numbers[i] = static_cast<double>(at[i]);
  return load(numbers);
}

template <class Real>
NK_INLINE void store_first(Lanes lanes, std::int64_t n, Real* at) {
  if (n >= kLanes) return store(lanes, at);
  double numbers[kLanes];
  store(lanes, numbers);
  for (std::int64_t i = 0; i < n; ++i) at[i] = static_cast<Real>(numbers[i]);
}

NK_INLINE std::int64_t round_to_lanes(std::int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Eight sums at a time; n is a multiple of 8.
struct EightSums {
  Lanes parts[kEight / kLanes] = {};

  inline __attribute__((always_inline)) void add(int part, Lanes terms) { parts[part] += terms; }
  inline __attribute__((always_inline)) double total() const {
    double sums[kEight];
    for (int part = 0; part < kEight / kLanes; ++part) store(parts[part], sums + part * kLanes);
    return add_eight(sums);
  }
};

NK_INLINE double dot(const double* a, const double* b, std::int64_t n) {
  EightSums sums;
  for (std::int64_t i = 0; i < n; i += kEight)
    for (int part = 0; part < kEight / kLanes; ++part)
      sums.add(part, load(a + i + part * kLanes) * load(b + i + part * kLanes));
  return sums.total();
}

// ---- Transposition

template <int kStep>
NK_INLINE void swap_blocks(Lanes (&rows)[kLanes]) {
  LaneMask upper, lower;
  for (int lane = 0; lane < kLanes; ++lane) {
    const bool stays = (lane & kStep) == 0;
    upper[lane] = stays ? lane : kLanes + (lane ^ kStep);
    lower[lane] = stays ? lane | kStep : kLanes + lane;
  }
#pragma GCC unroll 8
  for (int row = 0; row < kLanes; ++row) {
    if ((row & kStep) != 0) continue;
    const Lanes a = rows[row], b = rows[row | kStep];
    rows[row] = __builtin_shuffle(a, b, upper);
    rows[row | kStep] = __builtin_shuffle(a, b, lower);
  }
}

template <int kStep = kLanes / 2>
NK_INLINE void transpose(Lanes (&rows)[kLanes]) {
  swap_blocks<kStep>(rows);
  if constexpr (kStep > 1) transpose<kStep / 2>(rows);
}

}  // namespace NEUROKERN_ISA
}  // namespace neurokern
